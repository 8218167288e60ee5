"""Texts for the parity check when the user gives none: short, long, empty of letters, and in several scripts."""

SAMPLES = (
    "A quiet, patient film that stays with you for days.",
    "Two hours I will never get back.",
    "Not as bad as the trailer, not as good as the book.",
    "ok",
    "???",
    "The plot makes no sense, the acting is wooden and the ending was obvious from the first minute.",
    "Ein wunderbarer Film über Freundschaft, Verlust und zweite Chancen.",
    "Une comédie légère qui ne tient pas toutes ses promesses.",
    "这部电影比我想象的要好得多。",
    "فيلم جميل ومؤثر",
    "Loved it 😍🎬 10/10 would watch again!!!",
    "The [MASK] was fine, but what does [SEP] mean on the poster?",
    "It was long. " * 40,
    "Visually stunning and emotionally empty: a museum piece about a museum, which may be the point, or may be a joke.",
    "I laughed, I cried, I checked my watch.",
    "Surprisingly tender.",
)

PASSAGES = (*SAMPLES[8:], *SAMPLES[:8])
"""What each of them is paired with, for tasks on two texts."""
