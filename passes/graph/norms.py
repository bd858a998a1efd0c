"""Normalizations over the last axis, as one operator or as exporters write them out.

    RMS     y = x / sqrt(mean(x^2) + e) * gain
    layer   y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + e) * gain + bias

Written out: Pow(x, 2) or Mul(x, x), ReduceMean, Add e, Sqrt, Div by it or Mul by its inverse, Mul
by the gain; the other kind has Sub(x, ReduceMean(x)) before and Add of the bias behind.

Source: Zhang and Sennrich 2019, arXiv:1910.07467; Ba et al. 2016, arXiv:1607.06450.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from qcomp.passes.graph.rewriting import (
    constant_array,
    int_attribute,
    ints_attribute,
    node_label,
    only_use,
    static_shape,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Norm", "find_norms"]

_FUSED = {
    "LayerNormalization": "layer",
    "RMSNormalization": "rms",
    "SimplifiedLayerNormalization": "rms",
}


@dataclass(frozen=True, eq=False)
class Norm:
    """One normalization.

    Attributes:
        kind: ``rms`` or ``layer``.
        name: Of the operator that gives the result.
        source: What it reads.
        result: What it gives, behind gain and bias.
        nodes: The operators that it is made of.
        gain: The node and input that hold the gain, if there is one.
        bias: The node and input that hold the bias, if there is one.
    """

    kind: Literal["rms", "layer"]
    name: str
    source: ir.Value
    result: ir.Value
    nodes: frozenset[ir.Node]
    gain: tuple[ir.Node, int] | None
    bias: tuple[ir.Node, int] | None


def find_norms(graph: ir.Graph) -> list[Norm]:
    """Return the normalizations over last axes whose gains and biases are constants."""
    found = []
    for node in graph:
        norm = _fused(node) if node.op_type in _FUSED else _written_out(node)
        if norm is not None:
            found.append(norm)
    return found


def _fused(node: ir.Node) -> Norm | None:
    source = node.inputs[0]
    rank = None if source is None else static_shape(source)
    axis = int_attribute(node, "axis", -1)
    last = axis == -1 or (rank is not None and axis == len(rank) - 1)
    if source is None or not last or any(value.uses() for value in node.outputs[1:]):
        return None
    held = [
        (node, index)
        for index in (1, 2)
        if index < len(node.inputs) and node.inputs[index] is not None
    ]
    if any(constant_array(node.inputs[index]) is None for _, index in held):
        return None
    gain = next((place for place in held if place[1] == 1), None)
    bias = next((place for place in held if place[1] == 2), None)
    kind: Literal["rms", "layer"] = "layer" if node.op_type == "LayerNormalization" else "rms"
    if kind == "rms" and bias is not None:
        return None
    return Norm(kind, node_label(node), source, node.outputs[0], frozenset([node]), gain, bias)


def _written_out(node: ir.Node) -> Norm | None:
    """The normalization whose quotient ``x / root`` is made by a node."""
    if node.domain or node.op_type not in ("Div", "Mul") or len(node.inputs) != 2:
        return None
    x, root = node.inputs[0], node.inputs[1]
    nodes = {node}
    if node.op_type == "Mul":
        inverse = _inverse(root)
        if inverse is None:
            x, root = root, x
            inverse = _inverse(root)
        if inverse is None:
            return None
        nodes.add(inverse)
        root = inverse.inputs[-1]
    squared = _mean_square(root, nodes)
    if x is None or squared is None or squared is not x:
        return None
    kind: Literal["rms", "layer"] = "rms"
    source: ir.Value | None = x
    centred = _producer(x, "Sub")
    if centred is not None:
        mean = _producer(centred.inputs[1], "ReduceMean")
        if mean is not None and mean.inputs[0] is centred.inputs[0] and _over_last(mean):
            kind, source = "layer", mean.inputs[0]
            nodes |= {centred, mean}
    result, gain, bias = node.outputs[0], None, None
    scale = _constant_step(result, "Mul")
    if scale is not None:
        gain, result = scale, scale[0].outputs[0]
        nodes.add(scale[0])
    shift = _constant_step(result, "Add") if kind == "layer" else None
    if shift is not None:
        bias, result = shift, shift[0].outputs[0]
        nodes.add(shift[0])
    assert source is not None
    return Norm(kind, node_label(node), source, result, frozenset(nodes), gain, bias)


def _mean_square(root: ir.Value | None, nodes: set[ir.Node]) -> ir.Value | None:
    """The x of sqrt(mean(x^2) + e); the nodes between are added to ``nodes``."""
    sqrt = _producer(root, "Sqrt")
    add = None if sqrt is None else _producer(sqrt.inputs[0], "Add")
    if sqrt is None or add is None:
        return None
    mean = next((m for v in add.inputs if (m := _producer(v, "ReduceMean")) is not None), None)
    constant = [array for v in add.inputs if (array := constant_array(v)) is not None]
    if mean is None or len(constant) != 1 or constant[0].size != 1 or not _over_last(mean):
        return None
    square = None if mean.inputs[0] is None else mean.inputs[0].producer()
    if square is None or square.domain or square.op_type not in ("Pow", "Mul"):
        return None
    if square.op_type == "Pow":
        power = constant_array(square.inputs[1])
        if power is None or power.size != 1 or float(power.reshape(-1)[0]) != 2.0:
            return None
    elif square.inputs[0] is not square.inputs[1]:
        return None
    nodes |= {sqrt, add, mean, square}
    return square.inputs[0]


def _inverse(value: ir.Value | None) -> ir.Node | None:
    """The Reciprocal, or the Div of 1, that makes a value; its last input is what it inverts."""
    divided = _producer(value, "Div")
    if divided is None:
        return _producer(value, "Reciprocal")
    one = constant_array(divided.inputs[0])
    return divided if one is not None and one.size == 1 and (one == 1.0).all() else None


def _over_last(mean: ir.Node) -> bool:
    """Whether a ReduceMean goes over the last axis alone and keeps it."""
    if not int_attribute(mean, "keepdims", 1):
        return False
    axes = ints_attribute(mean, "axes")
    if len(mean.inputs) > 1:
        array = constant_array(mean.inputs[1])
        axes = () if array is None else tuple(int(a) for a in array.astype(np.int64).reshape(-1))
    shape = static_shape(mean.inputs[0])
    return axes == (-1,) or (shape is not None and axes == (len(shape) - 1,))


def _producer(value: ir.Value | None, kind: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == kind and not node.domain else None


def _constant_step(value: ir.Value, kind: str) -> tuple[ir.Node, int] | None:
    """The one node of a type that reads a value and a constant vector, and the constant's index."""
    node = only_use(value)
    if node is None or node.domain or node.op_type != kind or len(node.inputs) != 2:
        return None
    index = 1 if node.inputs[0] is value else 0
    array = constant_array(node.inputs[index])
    return None if array is None or array.size != max(array.shape, default=0) else (node, index)
