"""Encoder-decoders: a text is read, and another is written."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir
import torch

from artifact.generate.cache import CacheShape
from artifact.generate.decoder import reads
from artifact.generate.encoder import IDS, Read
from artifact.language import Reading
from errors import UserError
from exporter.language.family import Begun, Family, Sample, text_samples
from exporter.language.graph_files import DECODER, ENCODER, REWRITING
from exporter.language.passages import LONGEST, Passages, source_name
from exporter.language.seq2seq.traces import trace, writer_shape
from exporter.request import Source
from exporter.samples import SAMPLES
from models.starts import start_id

WRITTEN = 64
"""Tokens that a model writes of its own where the data do not say what it shall write."""

AT_ONCE = 16


def trace_both(model: Any) -> Mapping[str, onnx_ir.Model]:
    """Both graphs by their names."""
    found = trace(model)
    return {ENCODER: found.encoder, DECODER: found.decoder}


def most_read(model: Any) -> int | None:
    """Tokens that its encoder has positions for; `None` where those are relative."""
    found = getattr(model.config, "max_position_embeddings", None)
    return None if found is None else int(found)


def reading(model: Any) -> Reading:
    """What a checkpoint demands of every text: its first token, such as a language's (`forced_bos_token_id`), too."""
    second = model.generation_config.forced_bos_token_id
    start = (start_id(model), *(() if second is None else (int(second),)))
    return Reading(encoder=ENCODER, most_read_tokens=most_read(model), start_ids=start)


def _shape(model: Any) -> CacheShape:
    if model.main_input_name != IDS:
        raise UserError(f"{type(model).__name__} reads {model.main_input_name}, which cannot be exported yet")
    start_id(model)  # before anything is computed
    return writer_shape(model)


def _samples(model: Any, tokenizer: Any) -> Iterator[Sample]:
    return text_samples(tokenizer, most_read(model))


def _begin(model: Any, read: Read) -> Begun:
    return [start_id(model)], reads([read])


def _passages(source: Source | None, model: Any, tokenizer: Any, context: int) -> Passages:
    """Texts, and what is to be written of each: as a column says, or else what PyTorch writes."""
    rows, name = None if source is None else source.rows(REWRITING.task), source_name(source)
    texts = SAMPLES if rows is None else rows.texts
    longest = min(LONGEST, most_read(model) or LONGEST)
    read = [tuple(tokenizer(text, truncation=True, max_length=longest)["input_ids"]) for text in texts]
    if rows is None or not rows.is_labelled:
        written, name = _own(model, read, context), f"{name}, and what PyTorch writes of it"
    else:
        most = min(LONGEST, context - 1)
        found = tokenizer(text_target=list(map(str, rows.labels)), truncation=True, max_length=most)["input_ids"]
        written = [(start_id(model), *ids) for ids in found]
    kept = [place for place, row in enumerate(written) if len(row) > 1 and read[place]]
    if not kept:
        raise UserError(f"nothing is written of any text of {name}", "give others with --data")
    return Passages(name, tuple(written[place] for place in kept), tuple(read[place] for place in kept))


def _own(model: Any, read: Sequence[tuple[int, ...]], context: int) -> list[tuple[int, ...]]:
    """What PyTorch writes of each, greedily and as the checkpoint's own settings say, from start to end."""
    written: list[tuple[int, ...]] = [()] * len(read)
    order = sorted((place for place, row in enumerate(read) if row), key=lambda place: len(read[place]))
    for begin in range(0, len(order), AT_ONCE):
        places = order[begin : begin + AT_ONCE]
        given = {name: torch.from_numpy(np.asarray(array)) for name, array in reads([read[i] for i in places]).items()}
        with torch.inference_mode():
            found = model.generate(
                **given, do_sample=False, num_beams=1, max_new_tokens=min(WRITTEN, context - 1)
            ).tolist()
        for place, row in zip(places, found, strict=True):
            written[place] = _ended(model, row)
    return written


def _ended(model: Any, row: list[int]) -> tuple[int, ...]:
    """A row without what fills it up behind its end."""
    ends = model.generation_config.eos_token_id
    known = set(np.atleast_1d(ends).tolist()) if ends is not None else set()
    last = next((place for place, token in enumerate(row) if place and token in known), len(row) - 1)
    return tuple(row[: last + 1])


ENCODER_DECODERS = Family(
    files=REWRITING,
    shape=_shape,
    trace=trace_both,
    passages=_passages,
    practice=_passages,
    samples=_samples,
    begin=_begin,
    reading=reading,
)
