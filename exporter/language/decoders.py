"""Decoders alone: a text is gone on with."""

from collections.abc import Mapping
from typing import Any

import onnx_ir

from artifact.generate.encoder import NOTHING, Read
from exporter.language.decoder_trace import cache_shape, trace
from exporter.language.family import Begun, Family, text_samples
from exporter.language.graph_files import ALONE
from exporter.language.moments import own_texts
from exporter.language.passages import Passages, read_passages
from exporter.request import Source


def _trace(model: Any) -> Mapping[str, onnx_ir.Model]:
    return {ALONE.decoder: trace(model)}


def _passages(source: Source | None, model: Any, tokenizer: Any, context: int) -> Passages:
    return read_passages(source, tokenizer, context)


def _practice(source: Source | None, model: Any, tokenizer: Any, context: int) -> Passages:
    if source is None:
        return Passages("texts that the model made up itself", tuple(map(tuple, own_texts(model))))
    return read_passages(source, tokenizer, context)


def _begin(model: Any, read: Read) -> Begun:
    return [int(token) for token in read], NOTHING


DECODERS = Family(
    files=ALONE,
    shape=cache_shape,
    trace=_trace,
    passages=_passages,
    practice=_practice,
    samples=lambda model, tokenizer: text_samples(tokenizer),
    begin=_begin,
    reading=lambda model: None,
)
