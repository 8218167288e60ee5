"""Which examples are trained on and which are held out."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artifact.records import sha256_file
from errors import UserError
from models.rows import Row, TaskRows
from models.task_examples import several
from models.training import Problem


@dataclass(frozen=True, slots=True)
class Split:
    """Training and evaluation examples that share no text or picture; what was left out is counted."""

    train: TaskRows
    evaluation: TaskRows
    duplicates_removed: int
    leaked_removed: int


def normalised(text: str) -> str:
    """Text by which two examples count as the same: case and white space do not matter."""
    return " ".join(text.casefold().split())


def _key(row: Row) -> str:
    """By which a row counts as the same as another: its text, or the bytes of its picture."""
    return sha256_file(row.text) if isinstance(row.text, Path) else normalised(row.title)


def without_duplicates(examples: TaskRows) -> TaskRows:
    """The first of each text; texts that occur with different labels are left out altogether."""
    keys = [_key(row) for row in examples.rows]
    return examples.select(_first_of_each(examples, keys, Problem.SINGLE_LABEL))


def _first_of_each(examples: TaskRows, keys: Sequence[str], problem: Problem) -> list[int]:
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for key, row in zip(keys, examples.rows, strict=True):
        labels[key].add(_meant(row, problem))
    seen: set[str] = set()
    places = []
    for place, key in enumerate(keys):
        if key not in seen and len(labels[key]) == 1:
            places.append(place)
        seen.add(key)
    return places


def _meant(row: Row, problem: Problem) -> str:
    """A label however it is written; two answers to a question, two numbers for a text, or two that may be written of
    it, contradict nothing."""
    if problem in (Problem.SPAN, Problem.REGRESSION, Problem.NEXT_TOKEN):
        return ""
    if problem is Problem.MULTI_LABEL:
        return "|".join(sorted(str(name).strip() for name in several(row.label)))
    return str(row.label).strip()


def split(
    examples: TaskRows,
    evaluation: TaskRows | None,
    *,
    held_out: int,
    seed: int,
    problem: Problem = Problem.SINGLE_LABEL,
) -> Split:
    """Remove duplicates, then hold out `held_out` examples, or keep `evaluation` and train on nothing it contains.

    The held-out part keeps the balance of single labels, and depends on the texts and `seed` alone, not on the order of
    rows. Raises `UserError` when there is nothing to tell apart, or too few examples.
    """
    keys = [_key(row) for row in examples.rows]
    places = _first_of_each(examples, keys, problem)
    unique, keys = examples.select(places), [keys[place] for place in places]
    counts = Counter(_strata(unique, problem))
    if problem in _TOLD_APART and len({str(row.label) for row in unique.rows}) < 2:
        only = next(iter(unique.labels), "none")
        raise UserError(
            f"{examples.source} has one label only ({only}), so there is nothing to learn",
            "give data with at least two labels, or name the right column with --label-column",
        )
    duplicates = len(examples) - len(unique)
    if evaluation is not None:
        held = {_key(row) for row in evaluation.rows}
        train = unique.select([place for place, key in enumerate(keys) if key not in held])
        labels = {str(row.label) for row in train.rows}
        if not len(train) or (problem in _TOLD_APART and len(labels) < 2):
            few = "fewer than two labels" if problem in _TOLD_APART else "no example"
            raise UserError(
                f"{examples.source} has {few} left without the texts of {evaluation.source}",
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
    titles = [key if isinstance(row.text, Path) else row.title for key, row in zip(keys, unique.rows, strict=True)]
    chosen = _stratified(_strata(unique, problem), titles, held_out, seed)
    rest = [row for row in range(len(unique)) if row not in chosen]
    return Split(unique.select(rest), unique.select(sorted(chosen)), duplicates, 0)


_TOLD_APART = (Problem.SINGLE_LABEL, Problem.MULTI_LABEL, Problem.REGRESSION)
"""Problems where examples of one label only teach nothing."""


def _strata(examples: TaskRows, problem: Problem) -> list[str]:
    """What the held-out part has as much of as the whole: each single label."""
    return [str(row.label).strip() if problem is Problem.SINGLE_LABEL else "" for row in examples.rows]


def _stratified(strata: Sequence[str], titles: Sequence[str], number: int, seed: int) -> set[int]:
    """`number` rows with each stratum's share of the whole (largest remainder), chosen by a hash of seed and text."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for place, stratum in enumerate(strata):
        members[stratum].append(place)
    shares = {stratum: number * len(places) / len(strata) for stratum, places in members.items()}
    quotas = {stratum: int(share) for stratum, share in shares.items()}
    by_remainder = sorted(shares, key=lambda stratum: (quotas[stratum] - shares[stratum], stratum))
    for stratum in by_remainder[: number - sum(quotas.values())]:
        quotas[stratum] += 1
    return {
        place
        for stratum, places in members.items()
        for place in sorted(places, key=lambda place: _rank(seed, titles[place]))[: quotas[stratum]]
    }


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode()).digest()
