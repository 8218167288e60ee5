"""The two traces of an encoder-decoder: reading, which ends in the keys and values that are attended to, and writing.

Both are traced once; the weights of a layer are in one of them, but for a table of tokens that both look up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import onnx_ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from transformers.modeling_outputs import BaseModelOutput

from artifact.generate.cache import CacheShape, keys_and_values
from artifact.generate.encoder import FEATURES, IDS, MASK, READ, READ_MASK
from errors import UserError
from exporter.language.attention import Attending, Past
from exporter.language.head import Head, heading
from exporter.language.seq2seq.attention import DecoderPass, EncoderPass
from exporter.language.seq2seq.caches import Caches, CrossCache, SelfCache
from exporter.language.tracing import (
    UNKNOWN_CONTEXT,
    VARY,
    cache_axes,
    default_to_last,
    empty_cache,
    name_kept,
    name_step,
    name_value,
    ready_to_trace,
    step_example,
    tidied,
    traced,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Traced:
    """An encoder's graph and a decoder's."""

    encoder: onnx_ir.Model
    decoder: onnx_ir.Model


def writer_shape(model: Any) -> CacheShape:
    """The cache of a model's decoder, as one step of it leaves it; `UserError` for one that leaves none."""
    with torch.inference_mode():
        found = model(**sample(model, 1, 4), decoder_input_ids=torch.zeros(1, 1, dtype=torch.int64), use_cache=True)
    every = getattr(getattr(found.past_key_values, "self_attention_cache", None), "layers", ())
    layers = [layer for layer in every if layer.keys is not None]  # some are made for each of the encoder's layers
    if not layers:
        raise UserError(f"{type(model).__name__} has no cache of keys and values", "take a T5, a BART or a Whisper")
    _, heads, _, size = layers[0].keys.shape
    config = model.config
    context = getattr(config, "max_target_positions", None) or getattr(config, "max_position_embeddings", None)
    kept = tuple(kept for layer in range(len(layers)) for kept in keys_and_values(layer, heads, size))
    return CacheShape(kept, int(context or UNKNOWN_CONTEXT))


def sample(model: Any, rows: int, length: int) -> dict[str, torch.Tensor]:
    """What an encoder can read: ids with their mask, or the features of recordings, which are all equally long."""
    config = model.config
    if model.main_input_name == FEATURES:
        return {FEATURES: torch.zeros(rows, config.num_mel_bins, 2 * config.max_source_positions)}
    ids = torch.arange(rows * length).reshape(rows, length) % config.vocab_size
    return {IDS: ids, MASK: torch.ones_like(ids)}


class _Encode(torch.nn.Module):
    """What an encoder reads, as the keys and values that each of the decoder's layers makes of it."""

    def __init__(self, model: Any, attending: Attending, layers: int) -> None:
        super().__init__()
        self.model, self._attending, self._layers = model, attending, layers

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
    ) -> list[Past]:
        self._attending.current = EncoderPass(attention_mask)
        given = {IDS: input_ids, MASK: attention_mask} if input_features is None else {FEATURES: input_features}
        states = self.model.get_encoder()(**given).last_hidden_state
        kept = CrossCache()
        self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            decoder_input_ids=torch.zeros(states.shape[0], 1, dtype=torch.int64),
            past_key_values=Caches(SelfCache(0, self._layers), kept),
            use_cache=True,
        )
        if len(kept.made) != self._layers:
            raise UserError(f"{len(kept.made)} of {self._layers} layers attend to what was read", "take another model")
        return [kept.made[layer] for layer in range(self._layers)]


class _Step(torch.nn.Module):
    """A pass over new tokens of rows that are equally long: their ids, a mask over all positions so far, the cache, and
    what was read; logits and the cache."""

    def __init__(self, model: Any, shape: CacheShape, attending: Attending, head: Head) -> None:
        super().__init__()
        self.model, self._shape, self._attending, self._head = model, shape, attending, head

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_positions: torch.Tensor,
        past: list[torch.Tensor],
        read: list[Past],
        read_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        tokens = input_ids.shape[1]
        cache = SelfCache(attention_mask.shape[1] - tokens, self._shape.layers)
        given = dict(zip((kept.name for kept in self._shape.kept), past, strict=True))
        now = DecoderPass.over(tokens, attention_mask, given, read=tuple(read), mask=read_mask, new=cache.new)
        self._attending.current = now
        self._head.want(attention_mask, tokens, logits_positions)
        size = self.model.config.d_model
        states = torch.zeros(input_ids.shape[0], read[0][0].shape[2], size)  # asked for its size alone
        logits = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            decoder_input_ids=input_ids,
            past_key_values=Caches(cache, CrossCache(read)),
            use_cache=True,
        ).logits
        return logits, [now.present[name] for name in given]


def trace(model: Any) -> Traced:
    """Trace an fp32 encoder-decoder in eval mode.

    The model is left as it was. Raises `UserError` when it cannot be traced.
    """
    shape = writer_shape(model)
    with ready_to_trace(model) as found:
        encoder = _encoder(model, found, shape)
        with heading(model) as head:
            decoder = _decoder(model, found, head, shape)
    return Traced(encoder, decoder)


def _encoder(model: Any, found: Attending, shape: CacheShape) -> onnx_ir.Model:
    given = sample(model, 2, 6)
    shapes = {name: {0: VARY} | ({} if name == FEATURES else {1: VARY}) for name in given}
    graph = traced(_Encode(model, found, shape.layers), model, given, shapes)
    for value, name in zip(graph.graph.inputs, given, strict=True):
        axes = ("batch", "read") if name != FEATURES else ("batch", *given[name].shape[1:])
        name_value(value, name, axes)
    _name_read(graph.graph.outputs, shape)
    return tidied(_pruned(graph))


def _decoder(model: Any, found: Attending, head: Head, shape: CacheShape) -> onnx_ir.Model:
    (given, axes), is_masked = step_example(shape), model.main_input_name != FEATURES
    given["read"], axes["read"] = _pairs(empty_cache(shape, 2, 9)), _pairs(cache_axes(shape))
    if is_masked:
        given["read_mask"], axes["read_mask"] = torch.ones(2, 9, dtype=torch.int64), {0: VARY, 1: VARY}
    graph = traced(_Step(model, shape, found, head), model, given, axes)
    wanted, more = name_step(graph, shape), graph.graph.inputs[3 + len(shape.kept) :]
    _name_read(more[: len(shape.kept)], shape)
    if is_masked:
        name_value(more[-1], READ_MASK, ("batch", "read"))
    default_to_last(graph, wanted)
    return tidied(_pruned(graph))


def _pairs(each: Sequence[T]) -> list[tuple[T, T]]:
    """What goes for a key and for a value, layer after layer."""
    return list(zip(each[::2], each[1::2], strict=True))


def _name_read(values: Sequence[onnx_ir.Value], shape: CacheShape) -> None:
    """Name the keys and values of what was read."""
    for value, kept in zip(values, shape.kept, strict=True):
        name_kept(value, f"{READ}.{kept.name}", kept, "read")


def _pruned(graph: onnx_ir.Model) -> onnx_ir.Model:
    """Without biases of zeros, and without what only they or the asked sizes needed."""
    for node in graph.graph:
        bias = node.inputs[5] if node.op_type == "MultiHeadAttention" and len(node.inputs) > 5 else None
        source = None if bias is None else bias.producer()
        filled = None if source is None or source.op_type != "Expand" else source.inputs[0]
        tensor = None if filled is None else onnx_ir.convenience.get_const_tensor(filled)
        if tensor is not None and not tensor.numpy().any():
            node.replace_input_with(5, None)
    RemoveUnusedNodesPass()(graph)
    return graph
