"""What an export made: one line for each variant, then what a line has no room for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from artifact.language import LanguageVariant
from artifact.variant import Metric, Recipe, Variant
from report.figures import DASH, FAILED, PASSED, UNSURE, fraction, seconds, size
from report.kept import EMULATED, kept_in_fp32
from report.language import READING as LANGUAGE_READING
from report.language import language_notes, language_table
from report.tables import Table

RUNS = {True: "yes", False: "no", None: "?"}
SAME_FUNCTION = 1e-4
"""A largest error, as a share of the scale, below which no number of examples could tell two graphs apart."""

NOT_FINITE = 1e300

READING = (
    "weights, work: share of all weights, and of the multiply-adds of all layers, in 8 bits or fewer",
    "error: largest difference from PyTorch as a share of the output's scale; agrees: same answer",
    "✓ passes every gate; ≈ does on these examples, which are too few to be sure of 99 % of the metric; ✗ fails one",
)


@dataclass(frozen=True, slots=True)
class About:
    """What is shown of variants: a table, sentences, and how to read them."""

    table: Table
    notes: tuple[str, ...]
    reading: tuple[str, ...]


def about(variants: Sequence[Variant | LanguageVariant]) -> About:
    """What is shown of the variants of one model."""
    languages = [variant for variant in variants if isinstance(variant, LanguageVariant)]
    if languages:
        return About(language_table(languages), language_notes(languages), LANGUAGE_READING)
    others = [variant for variant in variants if isinstance(variant, Variant)]
    return About(variants_table(others), variants_notes(others), READING)


def variants_table(variants: Sequence[Variant]) -> Table:
    """One line for each variant: what it is, how far it is from PyTorch, what that costs, and where it runs."""
    first = variants[0]
    metric = next((variant.metric for variant in variants if variant.metric), None)
    engines = [item.engine for item in first.support]
    return Table(
        title=f"{first.task}, {first.recipe.profile}: compared with PyTorch fp32 on {first.parity.examples} examples "
        f"({first.parity.inputs})",
        headers=(
            *("precision", "file", "nodes", "fused", "weights", "work", "error", "agrees"),
            metric.name if metric else "metric",
            *engines,
            "made in",
        ),
        rows=tuple(
            (
                f"{variant.precision} {mark(variant)}",
                size(variant.size_bytes),
                str(variant.nodes),
                str(sum(variant.fused.values())),
                fraction(variant.coverage.weights_fraction if variant.coverage else None, 0),
                fraction(variant.coverage.macs_fraction if variant.coverage else None, 0),
                _error(variant.parity.max_error_fraction),
                fraction(variant.parity.agreement_fraction),
                _metric(variant.metric),
                *(RUNS[item.runs] for item in variant.support),
                seconds(variant.seconds_s),
            )
            for variant in variants
        ),
    )


def mark(variant: Variant) -> str:
    """✓ every gate passed; ≈ passed, but the examples are too few to be sure; ✗ failed."""
    if not variant.passed:
        return FAILED
    metric = variant.metric
    if metric is None or variant.parity.max_error_fraction <= SAME_FUNCTION:
        return PASSED
    return UNSURE if metric.reference + metric.difference_low < metric.floor else PASSED


def variants_notes(variants: Sequence[Variant]) -> tuple[str, ...]:
    """Sentences: why a variant fails, what stays in fp32, how it was calibrated, why an engine does not run it."""
    own = [f"{variant.precision}: {'; '.join(notes)}" for variant in variants if (notes := _notes(variant))]
    where: dict[tuple[str, str], list[str]] = {}
    for variant in variants:
        for item in variant.support:
            if item.reason:
                where.setdefault((item.engine, item.reason), []).append(variant.precision)
    return (*own, *(f"{engine} ({', '.join(names)}): {reason}" for (engine, reason), names in where.items()))


def _notes(variant: Variant) -> list[str]:
    parity, metric = variant.parity, variant.metric
    lines = [f"fails, because {reason}" for reason in variant.reasons]
    if variant.fused:
        lines.append(
            f"fused: {_counts(variant.fused)}" + (f", not: {_counts(variant.unfused)}" if variant.unfused else "")
        )
    if parity.emulated:
        lines.append(EMULATED)
    if parity.flipped:
        lines.append(f"{parity.flipped} answers differ, {parity.near_ties} of them near ties")
    if parity.invariance and parity.invariance.alone_changed:
        found = parity.invariance
        lines.append(f"{found.alone_changed} of {found.examples} answers depend on what shares a batch")
    if metric and parity.max_error_fraction > SAME_FUNCTION:
        drop = 100 * metric.excluded_drop
        lines.append(f"{metric.examples} examples exclude a drop of more than {drop:.1f} points")
    return lines + _made(variant.recipe)


def _made(recipe: Recipe) -> list[str]:
    lines = []
    if recipe.divided_channels:
        chosen = f" (chosen on {recipe.chosen_on})" if recipe.chosen_on else ""
        lines.append(f"{recipe.divided_channels} channels that stand out are divided before rounding{chosen}")
    if recipe.kept:
        lines.append(kept_in_fp32(recipe.kept, recipe.chosen_on))
    if recipe.calibration:
        tried = ", ".join(f"{name} {score:.4g}" for name, score in recipe.calibrations.items())
        lines.append(
            f"ranges by {recipe.calibration} of {recipe.calibration_examples} training examples"
            + (f" (on others: {tried})" if tried else "")
        )
    if recipe.block_size:
        lines.append(f"blocks of {recipe.block_size}, accuracy level {recipe.accuracy_level}")
    if recipe.weights_overflowing or recipe.weights_vanishing:
        lines.append(
            f"{recipe.weights_overflowing} weights too large for half numbers, {recipe.weights_vanishing} rounded to 0"
        )
    return lines


def _counts(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in operators.items())


def _metric(metric: Metric | None) -> str:
    if metric is None:
        return DASH
    low, high = 100 * metric.difference_low, 100 * metric.difference_high
    return f"{metric.value:.3f} [{low:+.1f} to {high:+.1f}]"


def _error(share: float) -> str:
    """A share of the scale; what is not a number was recorded as the largest number there is."""
    return f"{share:.1e}" if share < NOT_FINITE else "not finite"
