"""`variant.json` of a language model: one derived decoder graph, and how well it still predicts text."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from artifact.intervals import Estimate
from artifact.precision import Precision
from artifact.predict.sounds import SoundSettings
from artifact.records import read_json
from artifact.run_folder import RunFolder
from artifact.variant import Derived, Kept, graph_of, variant_file

SCHEMA_VERSION = 3


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """What a decoder remembers of each text: keys and values of `layers` layers, `bytes_per_token` for each of at most
    `context_tokens`, and states of fixed shape, `state_bytes` in all their buffers, however long the text is.

    `heads` and `head_size` are 0 where no layer has keys and values, or their sizes differ.
    """

    layers: int
    heads: int
    head_size: int
    context_tokens: int
    bytes_per_token: int
    state_bytes: int


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder's own sizes, which configurations call by many names; no `attention_heads` where no layer attends."""

    vocabulary: int
    hidden: int
    attention_heads: int | None


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Of an encoder-decoder: the graph that reads, at most how many tokens (`None`: any), and the tokens that every
    text begins with; none of `never_first_ids` comes right behind them.

    With `sound`, recordings are read, and this is how they become features; `end_ids` then stand behind what is written
    of one, as a tokenizer puts its own behind a text.
    """

    encoder: str
    most_read_tokens: int | None
    start_ids: tuple[int, ...]
    never_first_ids: tuple[int, ...] = ()
    end_ids: tuple[int, ...] = ()
    sound: SoundSettings | None = None

    @property
    def told_ids(self) -> tuple[int, ...]:
        """What stands before the first token that is judged: of texts the start alone, for what follows it is what a
        tokenizer writes before a target, and of recordings all of it."""
        return self.start_ids if self.sound else self.start_ids[:1]

    def row(self, ids: Sequence[int], most: int) -> tuple[int, ...]:
        """At most so many tokens of a target, from those that it begins with to its end; of recordings `ids` are
        without special tokens."""
        return (*self.told_ids, *ids, *self.end_ids)[:most]


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """How a variant predicts held-out text whose words it is told one by one, beside PyTorch fp32.

    `perplexity_ratio` is the variant's over the reference's, from the same tokens; one above `most_ratio` fails.
    `divergence_nats` is the mean Kullback-Leibler divergence of its next token from the reference's,
    `agreement_fraction` how often both have the same first choice. `error_fraction` is the largest difference of a
    logit, as a share of the largest logit.
    """

    inputs: str
    texts: int
    tokens: int
    perplexity: float
    reference: float
    perplexity_ratio: Estimate
    most_ratio: float
    divergence_nats: Estimate
    agreement_fraction: Estimate
    error_fraction: float


class Continuation(msgspec.Struct, frozen=True, kw_only=True):
    """What a variant does with its cache.

    `cached_error_fraction` compares logits after single steps with those of one pass over everything, on rows of
    unequal length and a prompt of one token. `equal` of `prompts` were continued by the same `steps` tokens as PyTorch
    continues them; `near_ties` parted where its first two choices were as good as equal.
    """

    cached_error_fraction: float
    prompts: int
    steps: int
    equal: int
    near_ties: int


class LanguageVariant(Derived, frozen=True, kw_only=True):
    """A decoder graph at one precision, and how well it predicts.

    `weight_bits` are those of products, `head_bits` of the table of tokens and of the head that shares it; weights of
    one block share a scale. The texts that `calibrated_on` names showed how much each rounding matters, or which values
    half numbers might not hold. `kept` are the nodes that stayed in fp32. `emulated` means that half arithmetic was
    emulated to be judged, because a CPU hides its overflow.
    `golden_error_fraction` is the largest error of a logit on the run's golden texts, as a share of the largest.
    `reading` is `None` for a decoder alone. `reasons` say why a gate failed.
    """

    weights: int
    weight_bits: int
    head_bits: int
    block_size: int | None
    calibrated_on: str | None
    kept: tuple[Kept, ...]
    emulated: bool
    cache: Cache
    sizes: Sizes
    reading: Reading | None
    prediction: Prediction
    continuation: Continuation
    golden_error_fraction: float
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return not self.reasons

    @property
    def judged_on(self) -> tuple[str, int]:
        """Which texts, and how many."""
        return self.prediction.inputs, self.prediction.texts


class GgufFile(msgspec.Struct, frozen=True, kw_only=True):
    """`gguf.json` beside a variant's `model.gguf`: llama.cpp's own file of the same weights."""

    schema_version: int
    checkpoint_sha256: str
    size_bytes: int
    sha256: str


GGUF, GGUF_RECORD, GGUF_SCHEMA_VERSION = "model.gguf", "gguf.json", 1


def read_language(run: RunFolder, precision: Precision) -> tuple[LanguageVariant, Path]:
    """A run's decoder and the path of its graph.

    Raises `UserError` when that precision was not exported or its file is gone.
    """
    path = variant_file(run, precision)
    variant = read_json(path, LanguageVariant)
    return variant, graph_of(path, variant.file)
