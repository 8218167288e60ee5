"""What an export made of a language model: one line for each variant, then what a line has no room for."""

from collections.abc import Sequence

from artifact.intervals import Estimate
from artifact.language import Cache, LanguageVariant
from artifact.task import Task
from report.figures import FAILED, PASSED, UNSURE, fraction, seconds, size
from report.kept import EMULATED, kept_in_fp32
from report.tables import Table

READING = (
    "perplexity: how many tokens the model hesitates between, and how many times PyTorch's that is (95 % interval)",
    "KL: mean divergence of the next token's probabilities from PyTorch's, in nats; agrees: same first choice",
    "alone: prompts that are continued by the very tokens that PyTorch continues them with; near ties count",
    "✓ passes every gate; ≈ does on these examples, which are too few to be sure of its perplexity; ✗ fails one",
)


def language_table(variants: Sequence[LanguageVariant]) -> Table:
    """One line for each variant: what it is, and how far it is from PyTorch."""
    first, task = variants[0].prediction, variants[0].task
    read = "recordings" if task is Task.SPEECH2TEXT_GENERATION else "texts"
    return Table(
        title=f"{task}: compared with PyTorch fp32 on {first.tokens:,} tokens of {first.texts} {read} ({first.inputs})",
        headers=("precision", "file", "bits", "perplexity", "times", "KL", "agrees", "alone", "made in"),
        rows=tuple(
            (
                f"{variant.precision} {_mark(variant)}",
                size(variant.size_bytes),
                f"{8 * variant.size_bytes / variant.weights:.1f}",
                f"{variant.prediction.perplexity:.4g}",
                _interval(variant.prediction.perplexity_ratio),
                f"{max(0.0, variant.prediction.divergence_nats.value):.2g}",
                fraction(variant.prediction.agreement_fraction.value),
                f"{variant.continuation.equal + variant.continuation.near_ties} of {variant.continuation.prompts}",
                seconds(variant.seconds_s),
            )
            for variant in variants
        ),
    )


def language_notes(variants: Sequence[LanguageVariant]) -> tuple[str, ...]:
    """Sentences: why a variant fails, how its weights are stored, and what its cache takes."""
    lines = [f"{variant.precision}: fails, because {reason}" for variant in variants for reason in variant.reasons]
    lines += [
        f"{variant.precision}: {variant.weight_bits}-bit weights in blocks of {variant.block_size}"
        + (f", the table of tokens and the head that shares it in {variant.head_bits}" if variant.head_bits else "")
        + (f"; rounded by what each layer reads of {variant.calibrated_on}" if variant.calibrated_on else "")
        for variant in variants
        if variant.block_size
    ]
    for variant in variants:
        if variant.emulated:
            lines.append(f"{variant.precision}: {EMULATED}")
        if variant.kept:
            lines.append(f"{variant.precision}: {kept_in_fp32(variant.kept, variant.calibrated_on)}")
    return (*lines, *_caches(variants))


def _caches(variants: Sequence[LanguageVariant]) -> list[str]:
    """What the cache takes, and of which precisions where they differ."""
    named: dict[str, list[str]] = {}
    for variant in variants:
        named.setdefault(_cache(variant.cache), []).append(variant.precision)
    if len(named) == 1:
        return [f"cache: {takes}" for takes in named]
    return [f"cache of {', '.join(names)}: {takes}" for takes, names in named.items()]


def _cache(cache: Cache) -> str:
    """What remembering a text takes."""
    takes = [f"{size(1000 * cache.bytes_per_token)} for each 1,000 tokens"] if cache.bytes_per_token else []
    takes += [f"{size(cache.state_bytes)} however long a text is"] if cache.state_bytes else []
    return f"{' and '.join(takes)}, of {cache.context_tokens:,} tokens at most"


def _mark(variant: LanguageVariant) -> str:
    """✓ every gate passed; ≈ passed, but the texts are too few to be sure; ✗ failed."""
    if not variant.passed:
        return FAILED
    found = variant.prediction
    return UNSURE if (found.perplexity_ratio.high or 0.0) > found.most_ratio else PASSED


def _interval(found: Estimate) -> str:
    return f"{found.value:.3f} [{found.low:.3f}–{found.high:.3f}]"
