"""How far a graph's answers are from PyTorch's: on real inputs, on a grid of shapes, padded and alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.precision import Precision
from artifact.task import Answer
from artifact.variant import Flip, Invariance, Parity
from exporter.subject import Batch, Outputs, Subject
from models.example_set import ExampleSet

Run = Callable[[Batch], Outputs]
BATCH_SIZE = 8
PROBED = 16
EXTRA_PADDING = 8
NEAR_TIE_FRACTION = 0.05
FLIPS_LISTED = 50
REFERENCE_ELEMENTS = 50_000_000
"""Reference values that are kept in memory; with more, fewer examples are compared."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a variant may differ by: errors as a share of the output's scale, the others as floors.

    `max_error_fraction` bounds the examples (`None`: the metric judges them), `shapes_error_fraction` random inputs of
    other shapes, and examples that are padded otherwise. A flip with a margin up to `tie_fraction` is a tie, no flip.
    """

    max_error_fraction: float | None
    shapes_error_fraction: float
    agreement_fraction: float
    cosine: float
    tie_fraction: float = 0.0


_EIGHT_BITS = Tolerance(None, shapes_error_fraction=1.0, agreement_fraction=0.95, cosine=0.98)
TOLERANCES: Mapping[Precision, Tolerance] = {
    Precision.FP32: Tolerance(
        1e-4, shapes_error_fraction=1e-4, agreement_fraction=1.0, cosine=0.999999, tie_fraction=2e-4
    ),
    Precision.FP16: Tolerance(0.02, shapes_error_fraction=0.02, agreement_fraction=0.995, cosine=0.9999),
    Precision.BF16: Tolerance(0.1, shapes_error_fraction=0.1, agreement_fraction=0.98, cosine=0.999),
    Precision.INT8_DYNAMIC: _EIGHT_BITS,
    Precision.INT8_STATIC: _EIGHT_BITS,
    Precision.INT4: Tolerance(None, shapes_error_fraction=1.0, agreement_fraction=0.9, cosine=0.95),
}
"""fp32 must be the same function up to rounding, half precision nearly so; a quantised one must be recognisably the
same model here, and is judged by the task's metric."""


@dataclass(frozen=True, slots=True)
class Case:
    """A batch and what PyTorch answers; `rows` are its examples, where they are real ones."""

    batch: Batch
    expected: Outputs
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """PyTorch's answers: to the examples in batches, to each shape of the grid, and to some examples alone, padded
    further, and padded on the left."""

    answer: Answer
    inputs: str
    examples: ExampleSet
    batches: tuple[Case, ...]
    shapes: tuple[tuple[str, Case], ...]
    alone: tuple[Case, ...]
    padded: tuple[Case, ...]
    left: tuple[Case, ...]


def reference(subject: Subject, answer: Answer, examples: ExampleSet, inputs: str) -> Reference:
    """Run PyTorch over everything that variants will be compared on. `inputs` says what the examples are."""
    cases: list[Case] = []
    elements = 0
    for start in range(0, len(examples), BATCH_SIZE):
        rows = tuple(range(start, min(start + BATCH_SIZE, len(examples))))
        batch = examples.batch(rows)
        expected = subject.answer(batch)
        cases.append(Case(batch, expected, rows))
        elements += sum(array.size for array in expected.values())
        if elements > REFERENCE_ELEMENTS:
            break
    examples = examples.select(range(cases[-1].rows[-1] + 1))
    probes = tuple(dict.fromkeys(np.linspace(0, len(examples) - 1, min(PROBED, len(examples))).round().astype(int)))
    groups = [tuple(int(row) for row in probes[start : start + BATCH_SIZE]) for start in range(0, PROBED, BATCH_SIZE)]
    groups = [group for group in groups if group]

    def case(rows: tuple[int, ...], **padding: Any) -> Case:
        batch = examples.batch(rows, **padding)
        return Case(batch, subject.answer(batch), rows)

    padded: tuple[Case, ...] = ()
    left: tuple[Case, ...] = ()
    if subject.has_mask:
        most = next((axis.most for axis in subject.axes[1:] if axis.most), None)
        wider = [(group, _longest(examples, group) + EXTRA_PADDING) for group in groups]
        padded = tuple(
            case(group, lengths=dict.fromkeys(examples.padding, length))
            for group, length in wider
            if most is None or length <= most
        )
        left = tuple(case(group, pad_left=True) for group in groups)
    return Reference(
        answer=answer,
        inputs=inputs,
        examples=examples,
        batches=tuple(cases),
        shapes=tuple(
            ("×".join(map(str, sizes.values())), Case(batch, subject.answer(batch)))
            for number, sizes in enumerate(subject.shape_grid())
            for batch in [subject.random(sizes, seed=number)]
        ),
        alone=tuple(case((int(row),)) for row in probes),
        padded=padded,
        left=left,
    )


def _longest(examples: ExampleSet, rows: Sequence[int]) -> int:
    return max(len(next(iter(examples.rows[row].values()))) for row in rows)


@dataclass(frozen=True, slots=True)
class Answered:
    """A variant's parity, and its outputs for each example without padding (NaN where it gave none)."""

    parity: Parity
    outputs: tuple[dict[str, NDArray[np.float32]], ...]


def check_parity(run: Run, reference: Reference, precision: Precision, *, emulated: bool = False) -> Answered:
    """Run a variant over what the reference ran, and compare.

    NaN never passes. A batch that the graph cannot run, or answers in another shape, is a failure with its reason, not
    an exception.
    """
    tolerance, answer = TOLERANCES[precision], reference.answer
    reasons: list[str] = []
    expected, actual = _Gathered(answer), _Gathered(answer)
    outputs: list[dict[str, NDArray[np.float32]]] = []
    for case in reference.batches:
        found, reason = _try(run, case)
        reasons += [f"a batch of the examples {reason}"] if reason else []
        expected.add(case.expected, case.batch)
        actual.add(found, case.batch)
        outputs += example_outputs(answer, found, case)
    scales = expected.scales()
    errors = expected.errors(actual, scales)
    flips = expected.flips(actual, scales, reference.examples.titles)
    shapes = [(name, _error(answer, case, scales, run)) for name, case in reference.shapes]
    invariance, more = _invariance(run, reference, scales)
    reasons += [f"shape {name} {error}" for name, error in shapes if isinstance(error, str)] + more
    measured = _Measured(
        max_error=float(max(array.max() for array in errors.values())),
        shapes_error=max((error for _, error in shapes if not isinstance(error, str)), default=0.0),
        cosine=expected.cosine(actual),
        flips=tuple(flips),
        decisions=expected.decisions,
        invariance=invariance,
    )
    reasons += _beyond(measured, tolerance) + _depends(invariance, reference, tolerance)
    near = tolerance.tie_fraction or NEAR_TIE_FRACTION
    parity = Parity(
        inputs=reference.inputs,
        examples=len(reference.examples),
        scales=scales,
        max_error_fraction=measured.max_error,
        p99_error_fraction=float(max(np.quantile(array, 0.99) for array in errors.values())),
        cosine=measured.cosine,
        agreement_fraction=1 - len(flips) / measured.decisions if measured.decisions else None,
        flips=tuple(
            Flip(example=title, margin_fraction=margin, near_tie=margin <= near)
            for title, margin in sorted(flips, key=lambda flip: -flip[1])[:FLIPS_LISTED]
        ),
        flipped=len(flips),
        near_ties=sum(margin <= near for _, margin in flips),
        shapes=tuple(name for name, error in shapes if not isinstance(error, str)),
        shapes_error_fraction=measured.shapes_error,
        invariance=invariance,
        emulated=emulated,
        passed=not reasons,
        reasons=tuple(dict.fromkeys(reasons)),
    )
    return Answered(parity, tuple(outputs))


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was found of a variant, before any of it is judged; errors are shares of the scale."""

    max_error: float
    shapes_error: float
    cosine: float
    flips: tuple[tuple[str, float], ...]
    decisions: int
    invariance: Invariance | None


def _beyond(measured: _Measured, tolerance: Tolerance) -> list[str]:
    """What is worse than the tolerance, in sentences."""
    inner, outer = tolerance.max_error_fraction, tolerance.shapes_error_fraction
    left = measured.invariance.left_error_fraction if measured.invariance else None
    bounds = (
        ("the examples", measured.max_error, inner),
        ("the shapes", measured.shapes_error, outer),
        ("left-padded examples", left or 0.0, outer),
    )
    reasons = [
        f"the largest error on {where} is {error:.3g} of the scale (allowed: {limit:g})"
        for where, error, limit in bounds
        if limit is not None and not error <= limit
    ]
    counted = sum(margin > tolerance.tie_fraction for _, margin in measured.flips)
    allowed = ceil(round((1 - tolerance.agreement_fraction) * measured.decisions, 6))
    if counted > allowed:
        reasons.append(f"{counted} of {measured.decisions} answers differ (allowed: {allowed})")
    if not measured.cosine >= tolerance.cosine:
        reasons.append(f"cosine {measured.cosine:.6f} is below {tolerance.cosine}")
    return reasons


def example_outputs(answer: Answer, outputs: Outputs, case: Case) -> list[dict[str, NDArray[np.float32]]]:
    """A batch's outputs as one mapping for each example, without the batch axis and without padding."""
    mask = case.batch.get("attention_mask") if answer.per_token else None
    return [
        {
            name: array[row][mask[row].astype(bool)] if mask is not None else array[row]
            for name, array in outputs.items()
        }
        for row in range(len(case.rows))
    ]


class _Gathered:
    """Outputs of many examples, each without padding and with the classes of a choice last."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._values: dict[str, list[NDArray[np.float64]]] = {}

    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Take the rows of one batch."""
        for name, array in outputs.items():
            self._values.setdefault(name, []).extend(_parts(self._answer, name, array, batch))

    @property
    def decisions(self) -> int:
        """How many choices were made."""
        answer = self._answer
        return sum(
            int(np.prod(_choices(part, answer).shape[:-1])) for name in answer.choices for part in self._values[name]
        )

    def scales(self) -> dict[str, float]:
        """Largest absolute value of each output; 1 for one that is 0 everywhere."""
        return {
            name: max((float(np.abs(part[np.isfinite(part)]).max(initial=0.0)) for part in parts), default=0.0) or 1.0
            for name, parts in self._values.items()
        }

    def errors(self, other: "_Gathered", scales: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        """Absolute errors as shares of the scale, flat; what is not finite is the largest number there is."""
        most = float(np.finfo(np.float64).max)
        return {
            name: np.concatenate(
                [
                    np.nan_to_num(_difference(mine, theirs) / scales[name], nan=most, posinf=most).ravel()
                    for mine, theirs in zip(parts, other._values[name], strict=True)
                ]
            )
            for name, parts in self._values.items()
        }

    def flips(self, other: "_Gathered", scales: Mapping[str, float], titles: Sequence[str]) -> list[tuple[str, float]]:
        """For each choice that differs or is no number, whose it is and this side's margin as a share of the scale."""
        found = []
        for name in self._answer.choices:
            for title, mine, theirs in zip(titles, self._values[name], other._values[name], strict=True):
                rows = _choices(mine, self._answer)
                rows = rows.reshape(-1, rows.shape[-1])
                others = _choices(theirs, self._answer).reshape(rows.shape)
                unreal = (~np.isfinite(others) & np.isfinite(rows)).any(-1)
                differ = unreal | (rows.argmax(-1) != others.argmax(-1))
                for place in np.flatnonzero(differ):
                    best, second = np.sort(rows[place])[::-1][:2]
                    where = f" [{name} {place}]" if len(rows) > 1 or len(self._answer.choices) > 1 else ""
                    found.append((f"{title}{where}", float((best - second) / scales[name])))
        return found

    def cosine(self, other: "_Gathered") -> float:
        """The least cosine of an output, taken as one long vector; 0 where it is not defined."""
        found = []
        for name, parts in self._values.items():
            mine = np.concatenate([part.ravel() for part in parts])
            theirs = np.concatenate([part.ravel() for part in other._values[name]])
            real = np.isfinite(mine)  # what is infinite in PyTorch is compared as an error alone
            mine, theirs = mine[real], np.nan_to_num(theirs[real], posinf=0, neginf=0)
            norms = float(np.linalg.norm(mine) * np.linalg.norm(theirs))
            found.append(float(mine @ theirs) / norms if norms else float(not mine.any() and not theirs.any()))
        return min(found)


def _difference(mine: NDArray[Any], theirs: NDArray[Any]) -> NDArray[Any]:
    """Absolute difference; equal infinities differ by nothing, as where a policy masks an action."""
    with np.errstate(invalid="ignore"):
        return np.where(mine == theirs, 0.0, np.abs(mine - theirs))


def _choices(part: NDArray[np.float64], answer: Answer) -> NDArray[np.float64]:
    """Classes last; an independent class, or an only one, is a choice between it and 0."""
    if answer.independent or part.shape[-1] == 1:
        part = part[..., None]
        return np.concatenate([np.zeros_like(part), part], axis=-1)
    return part


def _parts(answer: Answer, name: str, array: NDArray[Any], batch: Batch) -> list[NDArray[np.float64]]:
    """One array for each row of a batch: its real positions only, the classes of a choice last."""
    values = np.asarray(array, dtype=np.float64)
    mask = batch.get("attention_mask") if answer.per_token else None
    parts = [row[mask[number].astype(bool)] if mask is not None else row for number, row in enumerate(values)]
    axis = answer.choices.get(name)
    return parts if axis is None or axis < 0 else [np.moveaxis(part, axis - 1, -1) for part in parts]


def _try(run: Run, case: Case) -> tuple[Outputs, str]:
    """The answer to one batch (NaN where there is none to compare), and what is wrong with it."""
    nothing = {name: np.full(array.shape, np.nan, dtype=np.float32) for name, array in case.expected.items()}
    try:
        outputs = run(case.batch)
    except Exception as error:  # whatever the engine raises, this batch does not run
        return nothing, f"does not run: {error}"
    for name, expected in case.expected.items():
        if name not in outputs:
            return nothing, f"gives no '{name}'"
        if outputs[name].shape != expected.shape:
            return nothing, f"gives '{name}' the shape {outputs[name].shape}, not {expected.shape}"
        if (~np.isfinite(outputs[name]) & np.isfinite(expected)).any():
            return outputs, "gives values that are not finite"
    return outputs, ""


def _error(answer: Answer, case: Case, scales: Mapping[str, float], run: Run) -> float | str:
    """Largest error on a case as a share of the scale, or why there is none."""
    found, reason = _try(run, case)
    return reason or _distance(answer, case, case.expected, found, scales)


def _distance(answer: Answer, case: Case, one: Outputs, other: Outputs, scales: Mapping[str, float]) -> float:
    """Largest difference of two answers to one batch as a share of each output's scale, padding left out."""
    differences = [
        float(_difference(mine, theirs).max() / scales[name])
        for name in case.expected
        for mine, theirs in zip(
            _parts(answer, name, one[name], case.batch), _parts(answer, name, other[name], case.batch), strict=True
        )
        if mine.size
    ]
    return max(differences, default=0.0)


def _invariance(run: Run, reference: Reference, scales: Mapping[str, float]) -> tuple[Invariance | None, list[str]]:
    """Run examples alone, padded further and padded on the left; what does not run is a reason."""
    answer, reasons = reference.answer, []
    batched: dict[int, dict[str, NDArray[np.float32]]] = {}
    rows = {row for case in reference.alone for row in case.rows}
    for case in reference.batches:
        if rows & set(case.rows):
            outputs, reason = _try(run, case)
            if reason:
                return None, []  # told already, where all examples are compared
            batched |= dict(zip(case.rows, example_outputs(answer, outputs, case), strict=True))

    def furthest(cases: Sequence[Case]) -> tuple[float, int]:
        most, changed = 0.0, 0
        for case in cases:
            outputs, reason = _try(run, case)
            if reason:
                reasons.append(f"a batch padded or split otherwise {reason}")
                continue
            for row, mine in zip(case.rows, example_outputs(answer, outputs, case), strict=True):
                for name, array in mine.items():
                    known = batched[row][name]
                    most = max(most, float(_difference(array, known).max(initial=0.0) / scales[name]))
                    axis = answer.choices.get(name)
                    if axis is not None:
                        pair = (np.moveaxis(part, axis if axis < 0 else axis - 1, -1) for part in (array, known))
                        one, other = (_choices(part.astype(np.float64), answer).argmax(-1) for part in pair)
                        changed += bool((one != other).any())
        return most, changed

    alone, changed = furthest(reference.alone)
    padded = furthest(reference.padded)[0] if reference.padded else None
    left = [_error(answer, case, scales, run) for case in reference.left]
    reasons += [f"a batch padded on the left {error}" for error in left if isinstance(error, str)]
    return (
        Invariance(
            examples=len(reference.alone),
            alone_error_fraction=alone,
            alone_changed=changed,
            padded_error_fraction=padded,
            left_error_fraction=max((error for error in left if not isinstance(error, str)), default=None),
        ),
        reasons,
    )


def _depends(invariance: Invariance | None, reference: Reference, tolerance: Tolerance) -> list[str]:
    """Reasons for a variant that is changed by its company or by padding, where PyTorch is not; if that is bounded."""
    limit = tolerance.max_error_fraction
    if invariance is None or limit is None:
        return []
    own = _invariance(_Replay(reference), reference, _scales(reference))[0] or invariance
    pairs = (
        ("what shares a batch", invariance.alone_error_fraction, own.alone_error_fraction),
        ("padding", invariance.padded_error_fraction or 0.0, own.padded_error_fraction or 0.0),
    )
    return [
        f"{what} changes answers by {found:.3g} of the scale, in PyTorch by {theirs:.3g}"
        for what, found, theirs in pairs
        if not found <= theirs + 2 * limit
    ]


class _Replay:
    """PyTorch's own answers to the reference's cases, as something that can be run."""

    def __init__(self, reference: Reference) -> None:
        cases = (*reference.batches, *reference.alone, *reference.padded, *reference.left)
        self._answers = {id(case.batch): case.expected for case in cases}

    def __call__(self, batch: Batch) -> Outputs:
        return self._answers[id(batch)]


def _scales(reference: Reference) -> dict[str, float]:
    gathered = _Gathered(reference.answer)
    for case in reference.batches:
        gathered.add(case.expected, case.batch)
    return gathered.scales()
