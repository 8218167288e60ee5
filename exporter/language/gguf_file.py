"""A decoder's weights in llama.cpp's own format, so that it is weighed beside the others on the same weights.

There is no vocabulary in the file: runtimes are given ids. What llama.cpp calls things is read from its own package.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from artifact.precision import Precision
from artifact.records import replacing
from errors import UserError


@dataclass(frozen=True, slots=True)
class _Architecture:
    """What llama.cpp calls a family, and whether it rotates pairs of neighbours, not of halves."""

    name: gguf.MODEL_ARCH
    pairs: bool = False


ARCHITECTURES: Mapping[str, _Architecture] = {
    "llama": _Architecture(gguf.MODEL_ARCH.LLAMA, pairs=True),
    "mistral": _Architecture(gguf.MODEL_ARCH.LLAMA, pairs=True),
    "qwen2": _Architecture(gguf.MODEL_ARCH.QWEN2),
    "qwen3": _Architecture(gguf.MODEL_ARCH.QWEN3),
}
"""By transformers' `model_type`."""

KINDS: Mapping[Precision, tuple[Kind, Kind]] = {
    Precision.FP32: (Kind.F32, Kind.F32),
    Precision.FP16: (Kind.F16, Kind.F16),
    Precision.BF16: (Kind.BF16, Kind.BF16),
    Precision.INT8_DYNAMIC: (Kind.Q8_0, Kind.Q8_0),
    Precision.INT4: (Kind.Q4_0, Kind.Q8_0),
}
"""How products are stored, and the table of tokens with a head that shares it: in as many bits as the graphs have."""


def check_written(config: Mapping[str, Any]) -> None:
    """Raise `UserError` for an architecture, a rotation or a window that is not known here, by `config.json`."""
    kind, rotation = str(config.get("model_type")), config.get("rope_parameters") or config.get("rope_scaling") or {}
    if kind not in ARCHITECTURES:
        raise UserError(
            f"models of type {kind} are not written for llama.cpp yet",
            f"leave --gguf out; it takes: {', '.join(ARCHITECTURES)}",
        )
    window = config.get("sliding_window") and config.get("use_sliding_window", True)
    if rotation.get("rope_type", rotation.get("type", "default")) != "default" or window:
        raise UserError(
            f"this {kind} scales its rotation or looks through a window, which is not written for llama.cpp yet",
            "leave --gguf out",
        )


def write_gguf(model: Any, precision: Precision, path: Path) -> None:
    """Write an fp32 model whose products have this precision.

    Raises `UserError` for an architecture or a way of rotating that is not known here.
    """
    config = model.config
    check_written(config.to_dict())
    family = ARCHITECTURES[config.model_type]
    heads, kept = config.num_attention_heads, config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    with replacing(path) as part:
        writer = gguf.GGUFWriter(str(part), gguf.MODEL_ARCH_NAMES[family.name])
        writer.add_vocab_size(config.vocab_size)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(heads)
        writer.add_head_count_kv(kept)
        writer.add_key_length(size)
        writer.add_value_length(size)
        writer.add_rope_dimension_count(size)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_tokenizer_model("none")
        names = gguf.get_tensor_name_map(family.name, config.num_hidden_layers)
        turned = {"q_proj": heads, "k_proj": kept} if family.pairs else {}
        for name, array in _weights(model):
            told = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if told is None:
                raise UserError(f"llama.cpp has no name for {name} of {type(model).__name__}", "leave --gguf out")
            count = turned.get(name.split(".")[-2])
            stored = array if count is None else _in_pairs(array, count)
            kind = _kind(told, stored, precision)
            writer.add_tensor(told, gguf.quants.quantize(np.ascontiguousarray(stored), kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _weights(model: Any) -> list[tuple[str, NDArray[np.float32]]]:
    """Each weight once: a head that shares the table is left out, as llama.cpp leaves it out."""
    tied = getattr(model, "all_tied_weights_keys", {})
    return [(name, weight.float().numpy()) for name, weight in model.state_dict().items() if name not in tied]


def _in_pairs(array: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of a head reordered so that those which rotate together are neighbours."""
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _kind(name: str, array: NDArray[np.float32], precision: Precision) -> Kind:
    """How a weight is stored: vectors, and rows of no whole blocks, in fp32."""
    product, table = KINDS[precision]
    kind: Kind = table if name.startswith("token_embd") else product
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if array.ndim == 2 and array.shape[1] % block == 0 else Kind.F32
