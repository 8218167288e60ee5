"""What differs between kinds of models that write text: decoders alone, and those behind an encoder."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir

from artifact.generate.cache import CacheShape
from artifact.generate.encoder import Given, Read
from artifact.language import Reading
from exporter.language.graph_files import GraphFiles
from exporter.language.passages import Passages
from exporter.request import Source
from exporter.samples import SAMPLES

Begun = tuple[list[int], Given]
"""The tokens that a decoder begins with, and what an encoder is given."""


LONGEST_SAMPLE = 48
"""Tokens of a sample at most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a golden example reads, and the fields that tell it."""

    read: Read
    fields: Mapping[str, Any]


def text_samples(tokenizer: Any, most_tokens: int | None = None) -> Iterator[Sample]:
    """Short texts of our own."""
    longest = min(LONGEST_SAMPLE, most_tokens or LONGEST_SAMPLE)
    for text in SAMPLES:
        ids = tuple(tokenizer(text, truncation=True, max_length=longest + 1)["input_ids"])
        if 1 <= len(ids) <= longest:
            yield Sample(ids, {"text": text, "ids": ids})


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How models of one kind are exported.

    `trace` gives the graphs by their files' names. `passages` are texts that a model is judged by, and
    `practice` those it is calibrated on; golden examples read `samples`. `begin` says how a text of these ids, or a
    recording of these features, is gone on with, and `reading` what an artifact must know of a model that reads one
    thing to write another.
    """

    files: GraphFiles
    shape: Callable[[Any], CacheShape]
    trace: Callable[[Any], Mapping[str, onnx_ir.Model]]
    passages: Callable[[Source | None, Any, Any, int], Passages]
    practice: Callable[[Source | None, Any, Any, int], Passages]
    samples: Callable[[Any, Any], Iterable[Sample]]
    begin: Callable[[Any, Read], Begun]
    reading: Callable[[Any], Reading | None]
