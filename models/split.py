"""Which texts are trained on and which are held out."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass

from artifact.examples import Examples
from errors import UserError


@dataclass(frozen=True, slots=True)
class Split:
    """Training and evaluation examples that share no text; what was left out is counted."""

    train: Examples
    evaluation: Examples
    duplicates_removed: int
    leaked_removed: int


def normalised(text: str) -> str:
    """Text by which two examples count as the same: case and white space do not matter."""
    return " ".join(text.casefold().split())


def without_duplicates(examples: Examples) -> Examples:
    """The first of each text; texts that occur with different labels are left out altogether."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    keys = [normalised(text) for text in examples.texts]
    for key, label in zip(keys, examples.labels, strict=True):
        labels[key].add(label)
    seen: set[str] = set()
    rows = []
    for row, key in enumerate(keys):
        if key not in seen and len(labels[key]) == 1:
            rows.append(row)
        seen.add(key)
    return examples.select(rows)


def split(examples: Examples, evaluation: Examples | None, *, held_out: int, seed: int) -> Split:
    """Remove duplicates, then hold out `held_out` examples, or keep `evaluation` and train on nothing it contains.

    The held-out part keeps the balance of labels, and depends on the texts and `seed` alone, not on the order of rows.
    Raises `UserError` when there is one label only, or too few examples.
    """
    unique = without_duplicates(examples)
    counts = Counter(unique.labels)
    if len(counts) < 2:
        raise UserError(
            f"{examples.source} has one label only ({next(iter(counts), 'none')}), so there is nothing to learn",
            "give data with at least two labels, or name the right column with --label-column",
        )
    duplicates = len(examples) - len(unique)
    if evaluation is not None:
        held = {normalised(text) for text in evaluation.texts}
        rows = [row for row, text in enumerate(unique.texts) if normalised(text) not in held]
        train = unique.select(rows)
        if len(set(train.labels)) < 2:
            raise UserError(
                f"{examples.source} has fewer than two labels left without the texts of {evaluation.source}",
                "evaluate on texts that are not trained on",
            )
        return Split(train, evaluation, duplicates, len(unique) - len(train))
    if held_out >= len(unique) or held_out < len(counts):
        most = len(unique) - len(counts)
        raise UserError(
            f"cannot hold out {held_out} of the {len(unique)} different texts of {examples.source}",
            f"choose --held-out between {len(counts)} and {most}"
            if most >= len(counts)
            else f"give at least {2 * len(counts)} texts, two for each label",
        )
    chosen = _stratified(unique, held_out, seed)
    rest = [row for row in range(len(unique)) if row not in chosen]
    return Split(unique.select(rest), unique.select(sorted(chosen)), duplicates, 0)


def _stratified(examples: Examples, number: int, seed: int) -> set[int]:
    """`number` rows with each label's share of the whole (largest remainder), chosen by a hash of seed and text."""
    by_label: defaultdict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(examples.labels):
        by_label[label].append(row)
    shares = {label: number * len(rows) / len(examples) for label, rows in by_label.items()}
    quotas = {label: int(share) for label, share in shares.items()}
    by_remainder = sorted(shares, key=lambda label: (quotas[label] - shares[label], label))
    for label in by_remainder[: number - sum(quotas.values())]:
        quotas[label] += 1
    return {
        row
        for label, rows in by_label.items()
        for row in sorted(rows, key=lambda row: _rank(seed, examples.texts[row]))[: quotas[label]]
    }


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode()).digest()
