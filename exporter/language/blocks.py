"""Weights in blocks of 4 or 8 bits, each block with a scale and a zero point; a table and a head that share a weight
share its blocks, so it is stored once.

The layouts are those of ONNX Runtime's contrib operators MatMulNBits and GatherBlockQuantized.
"""

from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import onnx_ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from exporter.edit import MICROSOFT, Editor, drop_unused_constants
from exporter.four_bit import block_product
from exporter.language.memory import lay_aside, return_freed_memory
from exporter.language.moments import Moments
from exporter.layers import Layer, LayerKind, find_layers, layer_name

STEP = "model."
"""How names of modules begin in the graph: the traced step holds the model."""

Stored = tuple[onnx_ir.Value, onnx_ir.Value, onnx_ir.Value]
"""Packed numbers, scales and zero points."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A weight of (outputs, inputs): packed uint8 (outputs, blocks, bytes), scales (outputs, blocks), and zero points
    packed to uint8 (outputs, bytes)."""

    packed: NDArray[np.uint8]
    scales: NDArray[np.float16]
    zeros: NDArray[np.uint8]


SHRUNK = tuple(1 - step / 40 for step in range(-1, 9))
"""Shares of a block's span that its steps may cover instead: cutting off its ends can make all others finer."""

DAMPING = 0.01
"""Added to each input's own moment, as a share of their mean, so that inputs that hardly vary stay apart."""


TOGETHER = 64
"""Columns whose errors are handed on to all that follow in one product."""


ROWS = 4096
"""Rows that are rounded together where none makes up for another."""

TRIMMED = 8
"""Groups of weights after which memory is given back. Never, and what stays of each lies between holes: a process grew
by 1.1 GB for 135 million weights. After each, and a third of the time goes into asking for it again."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Scales and zero points, float32: of blocks (blocks, 1), or of each weight."""

    scale: torch.Tensor
    zero: torch.Tensor
    most: int

    def round(self, weights: torch.Tensor) -> torch.Tensor:
        """Whole numbers from 0 to `most`."""
        return (weights / self.scale).round_().add_(self.zero).clamp_(0, self.most)

    def value(self, whole: torch.Tensor) -> torch.Tensor:
        """What they stand for."""
        return (whole - self.zero) * self.scale


def steps_of(blocks: torch.Tensor, bits: int) -> Steps:
    """The steps of each block of (blocks, weights) that round it with the least squared error, of several spans.

    Zero is always a step, so blocks may be filled up with zeros.
    """
    most = 2**bits - 1
    least, greatest = blocks.amin(dim=1, keepdim=True).clamp(max=0), blocks.amax(dim=1, keepdim=True).clamp(min=0)
    best: Steps | None = None
    error = torch.full_like(least, torch.inf)
    for share in SHRUNK if bits == 4 else (1.0,):
        scale = ((greatest - least) * (share / most)).half().float()  # as it is stored
        scale[scale == 0] = 1
        found = Steps(scale, (-least * share / scale).round_().clamp_(0, most), most)
        wrong = found.value(found.round(blocks)).sub_(blocks).square_().sum(dim=1, keepdim=True)
        better = wrong < error
        error = torch.where(better, wrong, error)
        best = (
            found
            if best is None
            else Steps(torch.where(better, scale, best.scale), torch.where(better, found.zero, best.zero), most)
        )
    if best is None:
        raise ValueError("no span to try")
    return best


def in_blocks(weight: torch.Tensor, bits: int, block: int, moments: torch.Tensor | None = None) -> Blocks:
    """Round a weight of (outputs, inputs) in blocks of each row.

    With the second moments of its inputs (inputs, inputs), columns are rounded one after another, and those that follow
    make up for the error so far as inputs vary together: GPTQ (Frantar et al., ICLR 2023). The steps of all blocks are
    chosen before, so that columns may be taken in the order in which their inputs matter, the most first.
    """
    if moments is None and len(weight) > ROWS:  # a table is as long as its vocabulary
        parts = [in_blocks(weight[row : row + ROWS], bits, block) for row in range(0, len(weight), ROWS)]
        return _joined(parts)
    outputs, inputs = weight.shape
    count = -(-inputs // block)
    filled = torch.nn.functional.pad(weight.detach().clone().float(), (0, count * block - inputs))
    blocks = filled.reshape(-1, block)
    steps = steps_of(blocks, bits)
    whole = steps.round(blocks).reshape(outputs, -1)
    if moments is not None:
        each = [part.reshape(outputs, count).repeat_interleave(block, 1) for part in (steps.scale, steps.zero)]
        by_column = Steps(each[0][:, :inputs], each[1][:, :inputs], steps.most)
        whole[:, :inputs] = _compensated(filled[:, :inputs], by_column, moments)
    packed = _packed(whole.to(torch.uint8).reshape(outputs, count, block).numpy(), bits)
    zeros = _packed(steps.zero.to(torch.uint8).reshape(outputs, count).numpy(), bits)
    return Blocks(packed, steps.scale.reshape(outputs, count).half().numpy(), zeros)


def _compensated(weight: torch.Tensor, steps: Steps, moments: torch.Tensor) -> torch.Tensor:
    """Whole numbers for a weight, whose steps are given for each element, in the order of its columns."""
    order = moments.diagonal().argsort(descending=True, stable=True)
    upper = _compensation(moments[order][:, order])
    left, scale, zero = (part.T[order].contiguous() for part in (weight, steps.scale, steps.zero))  # a column is a row
    whole = torch.empty_like(left)
    for start in range(0, len(order), TOGETHER):
        stop = min(start + TOGETHER, len(order))
        errors = torch.empty_like(left[start:stop])
        for column in range(start, stop):
            now = Steps(scale[column], zero[column], steps.most)
            whole[column] = rounded = now.round(left[column])
            errors[column - start] = error = (left[column] - now.value(rounded)) / upper[column, column]
            left[column:stop] -= upper[column, column:stop, None] * error
        left[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    return whole[order.argsort()].T


def _compensation(moments: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor U of the inverse of damped moments, UᵀU: if those are R·Rᵀ with R upper, it is the
    inverse of R."""
    damped = moments.double()
    damped = damped + torch.eye(len(damped)) * (DAMPING * damped.diagonal().mean()).clamp(min=1e-12)
    upper = torch.linalg.cholesky(damped.flip(0, 1)).flip(0, 1).float()
    found: torch.Tensor = torch.linalg.solve_triangular(upper, torch.eye(len(upper)), upper=True)
    return found


def _packed(numbers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Numbers of the last axis in as few bytes as they need, the even ones in the low halves."""
    if bits == 8:
        return numbers
    if numbers.shape[-1] % 2:
        numbers = np.concatenate([numbers, np.zeros_like(numbers[..., :1])], axis=-1)
    return np.asarray(numbers[..., 0::2] | (numbers[..., 1::2] << 4), dtype=np.uint8)


def block_quantized(
    graph: onnx_ir.Model,
    bits: int,
    block: int,
    *,
    head_bits: int | None = None,
    level: int = 4,
    moments: Moments | None = None,
) -> onnx_ir.Model:
    """Quantise every product and every table in place; tables, and a head that shares one, have `head_bits`.

    At accuracy `level` 4 kernels round activations to int8, each block of each token by itself, so that no row of a
    batch depends on another; at 0 they do not round. `moments` are of the layers' inputs, by their modules' names.
    """
    editor = Editor(graph)
    tables = {str(layer.weight.name) for layer in find_layers(graph) if _is_table(layer, block)}
    products = {node: product for node in graph.graph if (product := _product(node))}
    own = {node: product for node, product in products.items() if product.name not in tables}
    learnt = _learnt(own, bits, block, moments or {})
    shared: dict[str, Stored] = {}
    for nodes in _together(products, tables):
        parts = [products[node] for node in nodes]
        name = _joint_name([part.name for part in parts])
        wide = head_bits or bits if name in tables else bits
        stored = shared.get(name)
        if stored is None:
            rounded = [learnt.get(node) or in_blocks(products[node].tensor, wide, block) for node in nodes]
            stored = _stored(editor, name, wide, _joined(rounded))
        if name in tables:
            shared[name] = stored
        _multiply(editor, nodes, parts, stored, bits=wide, block=block, accuracy_level=level)
    for layer in find_layers(graph):
        if _is_table(layer, block):
            _look_up(editor, layer, shared, head_bits or bits, block)
    RemoveUnusedNodesPass()(graph)
    drop_unused_constants(graph)
    return graph


def _is_table(layer: Layer, block: int) -> bool:
    """Whether a lookup's rows are whole blocks: those of position biases are as short as there are heads."""
    return layer.kind is LayerKind.GATHER and layer.array.shape[1] % block == 0


@dataclass(frozen=True, slots=True)
class _Product:
    """The constant that is multiplied with: its name, its values as (outputs, inputs), and the module it is of."""

    name: str
    array: NDArray[np.float32]
    module: str

    @property
    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(np.array(self.array))


def _product(node: onnx_ir.Node) -> _Product | None:
    """What a node multiplies with, if that is a constant; a tied head's weight is a table's."""
    weight = node.inputs[1] if node.op_type == "MatMul" and not node.domain else None
    turned = weight.producer() if weight is not None else None
    if turned is not None and turned.op_type == "Transpose":
        weight = turned.inputs[0]
    if weight is None or weight.const_value is None or len(weight.const_value.shape) != 2:
        return None
    array = weight.const_value.numpy()
    return _Product(str(weight.name), array if turned is not None else array.T, layer_name(node).removeprefix(STEP))


def _learnt(
    products: Mapping[onnx_ir.Node, _Product], bits: int, block: int, moments: Moments
) -> dict[onnx_ir.Node, Blocks]:
    """The weights whose inputs are known, rounded. Those that read the same are rounded together: columns are taken one
    after another, and to take a longer one hardly takes longer."""
    readers: defaultdict[int, list[onnx_ir.Node]] = defaultdict(list)  # by the moments that they share
    for node, product in products.items():
        if product.module in moments:
            readers[id(moments[product.module])].append(node)
    learnt: dict[onnx_ir.Node, Blocks] = {}
    for number, nodes in enumerate(readers.values()):
        alike = [products[node] for node in nodes]
        blocks = in_blocks(torch.cat([item.tensor for item in alike]), bits, block, moments[alike[0].module])
        ends = np.cumsum([len(item.array) for item in alike])[:-1]
        parts = (np.split(array, ends) for array in (blocks.packed, blocks.scales, blocks.zeros))
        learnt |= {node: Blocks(*part) for node, part in zip(nodes, zip(*parts, strict=True), strict=True)}
        lay_aside(item.array for item in alike)
        if not number % TRIMMED:
            return_freed_memory()
    return learnt


def _together(products: Mapping[onnx_ir.Node, _Product], tables: Collection[str]) -> list[list[onnx_ir.Node]]:
    """Products that read the same value, in the graph's order; one with a table, which has other bits, alone.

    A step of a decoder waits for its threads after each product, however small, and rounds activations for each anew.
    """
    readers: defaultdict[Hashable, list[onnx_ir.Node]] = defaultdict(list)
    for node, product in products.items():
        readers[node if product.name in tables else node.inputs[0]].append(node)
    return list(readers.values())


def _joint_name(names: Sequence[str]) -> str:
    """A weight's own name, or what the names of several have in common."""
    if len(names) == 1:
        return names[0]
    levels = zip(*(name.split(".") for name in names), strict=False)
    common = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    return ".".join([*common, "joint"])


def _joined(parts: Sequence[Blocks]) -> Blocks:
    """The rows of several weights below each other."""
    if len(parts) == 1:
        return parts[0]
    return Blocks(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("packed", "scales", "zeros")))


def _multiply(
    editor: Editor, nodes: Sequence[onnx_ir.Node], parts: Sequence[_Product], stored: Stored, **how: int
) -> None:
    """Let one product stand for several that read the same, whose weights lie below each other in `stored`."""
    first, outputs = nodes[0], [part.array.shape[0] for part in parts]
    name = f"{_joint_name([layer_name(node) for node in nodes])}.product"
    shape = parts[0].array.shape[1], sum(outputs)
    product = block_product(editor, first, name, [first.inputs[0], *stored], shape, **how)
    if len(nodes) == 1:
        editor.replace(first, product)
        return
    lengths = editor.constant(f"{name}.lengths", np.array(outputs, dtype=np.int64))
    kind = onnx_ir.DataType.FLOAT
    each = editor.add(
        first, "Split", [product, lengths], [f"{layer_name(node)}.part" for node in nodes], dtype=kind, axis=-1
    )
    for node, part in zip(nodes, each, strict=True):
        editor.replace(node, part)


def _stored(editor: Editor, name: str, bits: int, found: Blocks) -> Stored:
    packed = editor.constant(f"{name}.int{bits}", found.packed)
    halves, zeros = (
        editor.constant(f"{name}.{part}", array)
        for part, array in (("scale", found.scales), ("zero_point", found.zeros))
    )
    first = next(iter(editor.graph))  # before every node that may read it; engines fold it when they load the file
    kind = onnx_ir.DataType.FLOAT
    (scales,) = editor.add(first, "Cast", [halves], [f"{name}.steps"], dtype=kind, to=int(kind))
    return packed, scales, zeros


def _look_up(editor: Editor, layer: Layer, shared: Mapping[str, Stored], bits: int, block: int) -> None:
    """Replace a lookup by one of quantised rows, which a head may share."""
    name = str(layer.weight.name)
    packed, scales, zeros = shared.get(name) or _stored(
        editor, name, bits, in_blocks(torch.from_numpy(np.array(layer.array)), bits, block)
    )
    rows = editor.constant(f"{name}.rows", np.array([layer.array.shape[0], -1], dtype=np.int64))
    (flat,) = editor.add(layer.node, "Reshape", [packed, rows], [f"{layer.name}.flat"], dtype=onnx_ir.DataType.UINT8)
    (found,) = editor.add(
        layer.node,
        "GatherBlockQuantized",
        [flat, layer.node.inputs[1], scales, zeros],
        [f"{layer.name}.rows"],
        domain=MICROSOFT,
        dtype=onnx_ir.DataType.FLOAT,
        gather_axis=0,
        quantize_axis=1,
        block_size=block,
        bits=bits,
    )
    editor.replace(layer.node, found)
