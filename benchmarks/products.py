"""How fast one row goes through weights in each format: those of a few layers, and of more than caches hold.

Run by hand on a quiet machine:

    .venv/bin/python -m benchmarks.products

A language model that writes multiplies one row by all of its weights for each token. Where the weights of a few layers,
which fit a core's cache, take as long for each byte as those of many, the kernel is what takes the time, not memory.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.defs import onnx_opset_version

READS, WRITES = 576, 768
"""Width of the row, which is SmolLM2-135M's, and of each product."""

FEW, MANY = 1_800_000, 400_000_000
"""Bytes of weights in all: a core's own cache often has 2 MB, and the one that all share up to some hundred."""

Arrays = dict[str, np.ndarray[Any, Any]]

Made = tuple[NodeProto, list[TensorProto], int]
"""A product, its weights, and their bytes."""


@dataclass(frozen=True)
class Format:
    """`make` gives the product that writes an output of this name."""

    name: str
    make: Callable[[str], Made]


def plain(output: str) -> Made:
    """As it was trained."""
    weights = _random(output).standard_normal((READS, WRITES)).astype(np.float32)
    return helper.make_node("MatMul", ["x", f"{output}.w"], [output]), *_stored({f"{output}.w": weights})


def by_channel(output: str) -> Made:
    """8 bits with one scale for each column; the row is rounded to 8 bits, too."""
    draw = _random(output)
    weights = draw.integers(-127, 127, (READS, WRITES), dtype=np.int8)
    arrays: Arrays = {f"{output}.w": weights, f"{output}.s": draw.random(WRITES, dtype=np.float32)}
    node = helper.make_node("DynamicQuantizeMatMul", ["x", *arrays], [output], domain="com.microsoft")
    return node, *_stored(arrays)


def by_block(bits: int, block: int) -> Callable[[str], Made]:
    """With one scale for each block of a column; the row is rounded to 8 bits for the product."""

    def make(output: str) -> Made:
        draw = _random(output)
        weights = draw.integers(0, 256, (WRITES, READS // block, block * bits // 8), dtype=np.uint8)
        scales = draw.random(WRITES * READS // block, dtype=np.float32)
        arrays: Arrays = {f"{output}.w": weights, f"{output}.s": scales}
        sizes: dict[str, Any] = {"K": READS, "N": WRITES, "bits": bits, "block_size": block, "accuracy_level": 4}
        node = helper.make_node("MatMulNBits", ["x", *arrays], [output], domain="com.microsoft", **sizes)
        return node, *_stored(arrays)

    return make


FORMATS = (
    Format("fp32", plain),
    Format("int8, a scale for each column", by_channel),
    Format("int8, blocks of 32", by_block(8, 32)),
    Format("int4, blocks of 32", by_block(4, 32)),
    Format("int4, blocks of 64", by_block(4, 64)),
)


def _random(output: str) -> np.random.Generator:
    """Other numbers for each product: an engine may keep equal weights once."""
    return np.random.default_rng(list(output.encode()))


def _stored(arrays: Arrays) -> tuple[list[TensorProto], int]:
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return tensors, sum(array.nbytes for array in arrays.values())


def graph(format_: Format, size_bytes: int) -> tuple[ModelProto, int]:
    """As many products of the same row as have so many bytes of weights, and how many bytes these are."""
    _, _, each = format_.make("y")
    made = [format_.make(f"y{number}") for number in range(max(1, size_bytes // each))]
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node, _, _ in made]
    row = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, READS])
    weights = [tensor for _, tensors, _ in made for tensor in tensors]
    opsets = [helper.make_opsetid("", min(21, onnx_opset_version())), helper.make_opsetid("com.microsoft", 1)]
    body = helper.make_graph([node for node, _, _ in made], "products", [row], outputs, weights)
    return helper.make_model(body, opset_imports=opsets, ir_version=10), each * len(made)


def main() -> None:
    """Print, for each format, gigabytes and thousand million weights in a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    for threads in options.threads:
        print(
            f"{threads} threads, median of {options.rounds} rounds: {FEW / 1e6:.1f} and {MANY / 1e6:.0f} MB of weights"
        )
        for line in table(threads, options.rounds):
            print(line)


def table(threads: int, rounds: int) -> Sequence[str]:
    """A line for each format; all are timed in turns."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = threads, 3
    sessions = {}
    for format_ in FORMATS:
        for size_bytes in (FEW, MANY):
            made, found = graph(format_, size_bytes)
            session = ort.InferenceSession(made.SerializeToString(), settings, providers=["CPUExecutionProvider"])
            sessions[format_.name, size_bytes] = session, found
    row = {"x": np.random.default_rng(1).standard_normal((1, 1, READS)).astype(np.float32)}
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in sessions}
    for _ in range(rounds):
        for key in random.sample(list(sessions), len(sessions)):
            session, _ = sessions[key]
            session.run(None, row)
            begun = perf_counter()
            session.run(None, row)
            seconds[key].append(perf_counter() - begun)
    lines = []
    for format_ in FORMATS:
        rates = [sessions[format_.name, size][1] / median(seconds[format_.name, size]) for size in (FEW, MANY)]
        each = format_.make("y")[2] / (READS * WRITES)
        told = "   ".join(f"{rate / 1e9:5.1f} GB/s {rate / each / 1e9:5.1f} G weights/s" for rate in rates)
        lines.append(f"  {format_.name:30} {told}")
    return lines


if __name__ == "__main__":
    main()
