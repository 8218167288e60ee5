"""Weights that a model shares stay one in the file, also where one of the two layers reads them transposed."""

from collections import defaultdict
from collections.abc import Hashable

import numpy as np
import onnx_ir

from exporter.edit import Editor, drop_unused_constants

LEAST_BYTES = 1024
"""Smaller weights are not worth a node."""

FEW = 64
"""Numbers by which weights are told apart before all are compared."""


def tie(graph: onnx_ir.Model) -> onnx_ir.Model:
    """Replace in place each weight that is another one, or a matrix that is another's transpose, by that other one.

    ONNX Runtime folds the `Transpose` when it loads the file, so it costs nothing when the graph runs.
    """
    editor = Editor(graph)
    alike: defaultdict[Hashable, list[tuple[onnx_ir.Value, np.ndarray]]] = defaultdict(list)
    for value in list(graph.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or len(tensor.shape) < 2 or tensor.nbytes < LEAST_BYTES:
            continue
        if value.is_graph_output() or not value.uses():
            continue
        array = tensor.numpy()
        others = alike[_mark(array)]
        same = next((other for other, known in others if np.array_equal(known, array)), None)
        turned = next((other for other, known in others if array.ndim == 2 and np.array_equal(known.T, array)), None)
        if same is not None:
            value.replace_all_uses_with(same)
        elif turned is not None:
            reader = min((use.node for use in value.uses()), key=graph.graph.index)
            (transposed,) = editor.add(
                reader, "Transpose", [turned], [f"{value.name}.tied"], dtype=tensor.dtype, perm=[1, 0]
            )
            transposed.shape = value.shape
            value.replace_all_uses_with(transposed)
        else:
            others.append((value, array))
    drop_unused_constants(graph)
    return graph


def untie(graph: onnx_ir.Model) -> onnx_ir.Model:
    """Give each layer its own weight again, in place, so that it can be derived like any other."""
    editor = Editor(graph)
    for node in list(graph.graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or source.const_value is None or len(source.const_value.shape) != 2:
            continue
        if list(node.attributes.get_ints("perm", [1, 0])) != [1, 0]:
            continue
        array = np.ascontiguousarray(source.const_value.numpy().T)
        name = str(node.outputs[0].name).removesuffix(".tied")
        node.outputs[0].replace_all_uses_with(editor.constant(name, array, source.const_value.dtype))
        graph.graph.remove(node, safe=True)
    return graph


def _mark(array: np.ndarray) -> Hashable:
    """What two weights have in common if they are equal, or one is the other's transpose: cheap to find."""
    if array.ndim > 2:
        return array.dtype, array.shape, array.ravel()[:FEW].tobytes()
    return array.dtype, tuple(sorted(array.shape)), array.diagonal()[:FEW].tobytes()
