"""`report.md`: the verdict for people, complete in itself."""

from collections.abc import Iterable, Mapping, Sequence

from artifact.judged import Judged
from artifact.language import LanguageVariant
from artifact.variant import Variant
from report.difference import Differences
from report.explain import explanations
from report.load import LoadReport
from report.load_tables import (
    LOAD_READING,
    every_word,
    how_tested,
    invalid,
    load_headline,
    load_table,
    not_tested,
    tries_table,
)
from report.tables import (
    Table,
    around_engine,
    energy,
    from_text,
    headline,
    how_measured,
    noise,
    not_measured,
    on_device,
    slow_calls,
    summary,
    what_ran,
    why_not,
    workloads,
)
from report.tables_difference import controls as difference_controls
from report.tables_difference import headline as difference_headline
from report.tables_difference import reading as difference_reading
from report.tables_difference import tables as difference_tables
from report.variants import about
from report.verdict import Verdict

READING = (
    "Speed is how many times as fast as the baseline a candidate is: the geometric mean over the workloads of ratios "
    "between runs that were interleaved on this machine.",
    "`faster` and `slower` mean that the whole 95 % interval lies outside ±2 %, `equivalent` that it lies inside; "
    "`inconclusive` is everything else.",
    "Accuracy is that of answers batched as an artifact serves them, texts by their length; where answers depend on "
    "what shares a batch, the worst over the batch sizes too. ✓ keeps the gate, ≈ keeps it but examples are too few to "
    "be certain, ✗ does not.",
    "Agrees is the share of examples, or of what else is counted, that get the same answer from the candidate and from "
    "the reference.",
    "Conversions are kernels that only change a number type: many of them show a precision that the engine has no "
    "kernels for. Copies are kernels that only move data between host and device.",
    "First answer is from starting a process to its first answer; memory is what the process holds (RSS) above "
    "one that has loaded no engine.",
)


JUDGED_READING: Mapping[Judged, tuple[str, ...]] = {
    Judged.VECTOR: (
        "1-NN accuracy is the share of texts whose nearest other text, by the cosine of their vectors, has "
        "the same label. Where texts have no labels, it is the share of those that have the same nearest text by the "
        "reference's vectors.",
        "10 nearest is the mean share of the ten texts nearest to each by the reference's vectors that are among those "
        "by the candidate's; no gate asks for it.",
    ),
    Judged.SCORE: (
        "Pairwise accuracy is the share of pairs of texts with different labels in which the one with the "
        "higher label has the higher score (for labels of two values, an estimate of the area under the ROC curve). No "
        "text is in two pairs.",
    ),
    Judged.SPAN: (
        "Exact match is the share of questions whose answer has the words of a right one, without case, "
        "punctuation and articles. Of a context that is longer than the model reads, one part is read.",
    ),
}

TEXT_READING = (
    "From raw text to label or answer: tokenise, pad, run, take the best label if it is one. In turn, a batch is "
    "tokenised and then run; overlapped, a thread tokenises the next batches meanwhile. The gain is that of the same "
    "candidate over itself, in the same rounds of the same processes. No engine: what the tokenizer does alone, which "
    "no candidate can exceed.",
)


LANGUAGE_READING = (
    "A language model reads a prompt up to the first token's logits, or writes a token behind it; choosing tokens and "
    "tokenising are in neither and stand apart: medians over texts of the data, and over random scores. An example is "
    "a token that comes next, and it is right where it is the first choice.",
)


def reading(verdict: Verdict) -> tuple[str, ...]:
    """How the tables are read."""
    own = JUDGED_READING.get(verdict.judged, ())
    texts = TEXT_READING if from_text(verdict) else ()
    return (*READING, *own, *texts, *(LANGUAGE_READING if verdict.writes else ()))


def render(verdict: Verdict) -> str:
    """The report as Markdown."""
    others, slow, device, joules, texts, around, missing = (
        table(verdict) for table in (why_not, slow_calls, on_device, energy, from_text, around_engine, not_measured)
    )
    parts = [
        "# Which runtime, which precision",
        noise(verdict),
        *headline(verdict),
        written_table(summary(verdict)),
        *([written_table(others)] if others else []),
        *_section("Warnings", verdict.warnings),
        written_table(workloads(verdict)),
        *([written_table(slow)] if slow else []),
        *([written_table(device)] if device else []),
        *([written_table(joules)] if joules else []),
        *([written_table(texts)] if texts else []),
        *([written_table(around)] if around else []),
        *([written_table(missing)] if missing else []),
        written_table(what_ran(verdict)),
        *_section("Expected and measured", explanations(verdict)),
        *_section("How it was measured", how_measured(verdict)),
        *_section("How to read it", reading(verdict)),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    items = "\n".join(f"- {line}" for line in lines)
    return [f"## {title}", items] if items else []


def written_table(table: Table) -> str:
    """A table under its title, as Markdown."""
    rows = [
        [f"**{cell}**" if number in table.strong and cell else cell for cell in row]
        for number, row in enumerate(table.rows)
    ]
    lines = [table.headers, ["---"] * len(table.headers), *rows]
    body = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
    return f"## {table.title}\n\n{body}"


def render_variants(variants: Sequence[Variant | LanguageVariant]) -> str:
    """What an export made, as Markdown."""
    shown = about(variants)
    parts = [
        "# Variants",
        written_table(shown.table),
        *_section("Of each", shown.notes),
        *_section("How to read it", shown.reading),
    ]
    return "\n\n".join(parts) + "\n"


def render_differences(differences: Differences) -> str:
    """Runs beside each other, as Markdown."""
    parts = ["# Runs beside each other"]
    for item in differences.differences:
        parts += [
            f"**{item.later} beside {item.base}**",
            *difference_headline(differences, item),
            *(written_table(table) for table in difference_tables(item)),
            difference_controls(item),
            *_section("Warnings", item.warnings),
        ]
    return "\n\n".join([*parts, *_section("How to read it", difference_reading(differences))]) + "\n"


def render_load(report: LoadReport) -> str:
    """What load tests say, as Markdown."""
    tables = (load_table(report), tries_table(report), not_tested(report))
    parts = [
        "# How many requests it bears",
        *load_headline(report),
        *(written_table(table) for table in tables if table),
        *_section("Warnings", report.warnings),
        *_section("Invalid, in LoadGen's words", invalid(report)),
        *_section("How it was tested", how_tested(report)),
        *_section("All that LoadGen says", every_word(report)),
        *_section("How to read it", LOAD_READING),
    ]
    return "\n\n".join(parts) + "\n"
