"""The one trace of a causal language model."""

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnx_ir
import torch

from artifact.generate.decoder import POSITIONS, CacheShape
from errors import UserError
from exporter.causal.attention import Attending, Pass, Past, attending
from exporter.causal.norms import OPSET, norming
from exporter.causal.rotary import rotating
from exporter.clean import name_nodes, strip
from exporter.tie import tie
from exporter.trace import hushed_tracer
from models.checkpoint import quiet

UNKNOWN_CONTEXT = 2048
"""Positions of a model that does not say how many it has."""


def cache_shape(model: Any) -> CacheShape:
    """Read from a model's configuration. Raises `UserError` for one without a cache of keys and values."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    layers = getattr(config, "num_hidden_layers", None)
    if not heads or not layers or model.get_output_embeddings() is None:
        raise UserError(f"{type(model).__name__} has no cache of keys and values", "take a decoder, such as a Llama")
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return CacheShape(layers, kept, size, int(getattr(config, "max_position_embeddings", 0) or UNKNOWN_CONTEXT))


def _empty(shape: CacheShape, rows: int, positions: int) -> list[Past]:
    """A cache of zeros for so many rows."""
    size = rows, shape.heads, positions, shape.head_size
    return [(torch.zeros(size), torch.zeros(size)) for _ in range(shape.layers)]


class Step(torch.nn.Module):
    """A pass over new tokens: their ids, a mask over all positions so far, and the cache; logits and the cache.

    Rows begin at position 0 and are filled up at their end, so that every row has a place of its own for the next
    token. With an empty cache this is the prompt, with one token for each row a step.
    """

    def __init__(self, model: Any, attending: Attending) -> None:
        super().__init__()
        self.model, self._attending = model, attending
        self._wanted: torch.Tensor | None = None
        self._hook = model.get_output_embeddings().register_forward_pre_hook(self._keep)

    def close(self) -> None:
        """Take the hook off the model again."""
        self._hook.remove()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_positions: torch.Tensor,
        past_key_values: list[Past],
    ) -> tuple[torch.Tensor, list[Past]]:
        tokens = input_ids.shape[1]
        last = attention_mask.sum(dim=1).to(torch.int32) - 1
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens:]
        total = torch.tensor(attention_mask.shape[1], dtype=torch.int32)
        now = self._attending.current = Pass(past_key_values, last, total)
        ends = (last.to(torch.int64) + 1 - attention_mask.shape[1] + tokens).clamp(min=1, max=tokens)
        self._wanted = torch.where(logits_positions < 0, logits_positions + ends[:, None], logits_positions)
        logits = self.model(input_ids=input_ids, position_ids=positions, use_cache=False).logits
        if len(now.present) != len(past_key_values):
            raise UserError(
                f"{len(now.present)} of {len(past_key_values)} layers of this {type(self.model).__name__} attend",
                "models that mix attention with other layers cannot be exported yet",
            )
        return logits, [now.present[layer] for layer in range(len(past_key_values))]

    def _keep(self, module: Any, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """Of the last layer's states only those whose logits are wanted."""
        states, wanted = given[0], self._wanted
        if wanted is None:
            raise RuntimeError("this hook is for a trace")
        rows, tokens, size = states.shape
        flat = wanted + torch.arange(rows)[:, None] * tokens
        return (states.reshape(rows * tokens, size)[flat.reshape(-1)].reshape(rows, -1, size),)


def trace(model: Any) -> onnx_ir.Model:
    """Trace an fp32 causal model in eval mode to a graph that serves both the prompt and each token after it.

    Inputs and outputs are named as onnxruntime-genai knows them. The model is left as it was. Raises `UserError` when
    it cannot be traced.
    """
    shape = cache_shape(model)
    vary = torch.export.Dim.DYNAMIC
    grown = {0: vary, 2: vary}
    shapes = {
        "input_ids": {0: vary, 1: vary},
        "attention_mask": {0: vary, 1: vary},
        "logits_positions": {0: vary, 1: vary},
        "past_key_values": [(grown, grown)] * shape.layers,
    }
    given = {
        "input_ids": torch.arange(6).reshape(2, 3),
        "attention_mask": torch.ones(2, 7, dtype=torch.int64),
        "logits_positions": torch.tensor([[1, 2], [0, 2]]),
        "past_key_values": _empty(shape, 2, 16),
    }
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(hushed_tracer())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        found = stack.enter_context(attending(model))
        stack.enter_context(rotating(model, found, shape))
        stack.enter_context(norming(model))
        step = Step(model, found)
        try:
            graph = _traced(step, given, shapes)
        except UserError:
            raise
        except Exception as error:  # torch.export fails in many types, all of them about this model
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{type(model).__name__} cannot be traced: {first}", "take another model") from error
        finally:
            step.close()
    return _cleaned(graph, shape)


def _traced(step: Step, given: Mapping[str, Any], shapes: Mapping[str, Any]) -> onnx_ir.Model:
    with torch.no_grad():
        exported = torch.export.export(
            step,
            (),
            dict(given),
            dynamic_shapes=dict(shapes),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(exported, dynamo=True, optimize=True, opset_version=OPSET, verbose=False)
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return program.model


def _cleaned(graph: onnx_ir.Model, shape: CacheShape) -> onnx_ir.Model:
    """Names, axes and the default of which logits are wanted; nothing of the builder."""
    ids, mask, wanted, *past = graph.graph.inputs
    logits, *present = graph.graph.outputs
    axes = {"input_ids": ("batch", "sequence"), "attention_mask": ("batch", "total"), POSITIONS: ("batch", "kept")}
    for value, name in zip((ids, mask, wanted), axes, strict=True):
        value.name, value.shape = name, onnx_ir.Shape(axes[name])
    words = None if logits.shape is None else logits.shape[2]
    logits.name = "logits"
    logits.shape = onnx_ir.Shape(
        ("batch", 1, words)
    )  # what serves gets; onnxruntime-genai allocates as it is told here
    for values, begin in ((past, "past_key_values"), (present, "present")):
        for value, name in zip(values, shape.names, strict=True):
            value.name = f"{begin}.{name}"
            value.shape = onnx_ir.Shape(("batch", shape.heads, "positions", shape.head_size))
    _join_reshapes(graph)
    for node in graph.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None  # expressions of the tracer's symbols
    name_nodes(graph)
    wanted.shape = onnx_ir.Shape(("kept_rows", "kept"))
    wanted.const_value = onnx_ir.tensor(np.array([[-1]], dtype=np.int64), name=POSITIONS)
    graph.graph.register_initializer(wanted)
    return strip(tie(graph))


def _join_reshapes(graph: onnx_ir.Model) -> None:
    """Drop what splits states into heads where the attention takes them whole, and joins them again."""
    for node in graph.graph:
        if node.op_type != "Reshape" or node.inputs[0] is None:
            continue
        first = node.inputs[0].producer()
        if first is not None and first.op_type == "Reshape":
            node.replace_input_with(0, first.inputs[0])
        source, made = node.inputs[0], node.outputs[0]
        if source is not None and source.shape is not None and source.shape == made.shape:
            made.replace_all_uses_with(source)
