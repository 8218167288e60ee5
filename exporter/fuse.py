"""Profiles: a graph of standard operators, or one whose parts are fused into ONNX Runtime's own."""

from collections import Counter
from dataclasses import dataclass

import onnx_ir

from exporter.clean import strip
from exporter.edit import MICROSOFT
from exporter.options import Profile

STEPS = {Profile.ORT: "cpu", Profile.ORT_GPU: "cuda"}
"""The provider whose kernels each fused profile is for."""

FUSABLE = {
    "LayerNormalization": ("SkipLayerNormalization",),
    "Gelu": ("BiasGelu", "FastGelu"),
    "Softmax": ("MultiHeadAttention", "Attention"),
}
"""Standard operators that remain where a fusion did not match, and what they become where it did."""

QUANTIZED = frozenset({"MatMulNBits"})
"""Operators of ONNX Runtime's own that stand for one layer, and so are no fusion."""


@dataclass(frozen=True, slots=True)
class Fusions:
    """Fused operators by name, and standard ones that were not fused although they may be."""

    fused: dict[str, int]
    unfused: dict[str, int]


def fuse(graph: onnx_ir.Model, profile: Profile) -> onnx_ir.Model:
    """Fuse a finished graph in place as its profile says; every fusion computes what it replaces."""
    if profile in STEPS:
        from transformers.exporters.onnxruntime_fusions import fuse_for_onnxruntime

        fuse_for_onnxruntime(graph, STEPS[profile])
        strip(graph)
    return graph


def fusions(graph: onnx_ir.Model) -> Fusions:
    """What is fused in a graph, and what is not."""
    own = Counter(node.op_type for node in graph.graph if node.domain == MICROSOFT and node.op_type not in QUANTIZED)
    fused = dict(sorted(own.items()))
    left = Counter(node.op_type for node in graph.graph if not node.domain)
    return Fusions(fused, {name: left[name] for name in FUSABLE if left[name]})
