"""What a layer computes, read from its node: the matrix, the filter, the function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.graph.rewriting import (
    constant_array,
    float_attribute,
    int_attribute,
    ints_attribute,
    node_label,
    static_shape,
    string_attribute,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Convolution", "Linear", "convolution_of", "linear_of", "only_squared"]


@dataclass(frozen=True)
class Linear:
    """``y = x W + b`` of a MatMul or Gemm.

    Attributes:
        node: The node.
        data: x, [..., in].
        weight: W, float64[in, out].
        bias: b, float64[out]; None without one.
    """

    node: ir.Node
    data: ir.Value
    weight: NDArray[np.float64]
    bias: NDArray[np.float64] | None


@dataclass(frozen=True)
class Convolution:
    """A Conv on images.

    Attributes:
        node: The node.
        data: x, [batch, in, height, width].
        weight: float64[out, in, k, l].
        bias: float64[out]; None without one.
        strides: Steps of the window.
        pads: Zeros at top, left, bottom, right.
    """

    node: ir.Node
    data: ir.Value
    weight: NDArray[np.float64]
    bias: NDArray[np.float64] | None
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]


def linear_of(node: ir.Node) -> Linear | str:
    """Return the linear layer of a node, or why it is none."""
    if node.op_type == "MatMul":
        weight = constant_array(node.inputs[1])
        if weight is None or weight.ndim != 2:
            return "its second input is no constant matrix"
        array = np.asarray(weight, dtype=np.float64)
        return _finite(Linear(node, _given(node), array, None))
    if node.op_type != "Gemm":
        return f"a {node.op_type} is no matrix product"
    weight = constant_array(node.inputs[1])
    if weight is None:
        return "its weight is no constant"
    if int_attribute(node, "transA"):
        return "its input is transposed (transA)"
    array = np.asarray(weight, dtype=np.float64) * float_attribute(node, "alpha", 1.0)
    if int_attribute(node, "transB"):
        array = np.ascontiguousarray(array.T)
    bias = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        found = constant_array(node.inputs[2])
        if found is None or found.ndim > 1:
            return "its bias is no constant vector"
        wide = np.asarray(found, dtype=np.float64) * float_attribute(node, "beta", 1.0)
        bias = np.broadcast_to(wide, (array.shape[1],))
    return _finite(Linear(node, _given(node), array, bias))


def convolution_of(node: ir.Node) -> Convolution | str:
    """Return the convolution of a node, or why it is none that can be lowered."""
    if node.op_type != "Conv":
        return f"a {node.op_type} is no convolution"
    weight = constant_array(node.inputs[1])
    if weight is None or weight.ndim != 4:
        return "its filter is no constant on two axes"
    if int_attribute(node, "group", 1) != 1:
        return "it has groups"
    if any(step != 1 for step in ints_attribute(node, "dilations")):
        return "its filter is dilated"
    if string_attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its zeros depend on the size of the image (auto_pad)"
    shape = static_shape(node.inputs[0])
    if shape is None or len(shape) != 4 or None in shape[1:]:
        return "the size of its image is not known"
    bias = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        found = constant_array(node.inputs[2])
        if found is None:
            return "its bias is no constant"
        bias = np.asarray(found, dtype=np.float64)
    steps = ints_attribute(node, "strides") or (1, 1)
    pads = ints_attribute(node, "pads") or (0, 0, 0, 0)
    array = np.asarray(weight, dtype=np.float64)
    if not np.isfinite(array).all():
        return "its filter is not finite"
    return Convolution(
        node, _given(node), array, bias, (steps[0], steps[1]), (pads[0], pads[1], pads[2], pads[3])
    )


def only_squared(node: ir.Node) -> bool:
    """Whether all that the graph reads of a node's output is its square or its absolute value."""
    out = node.outputs[0]
    if out.is_graph_output() or not out.uses():
        return False
    for use in out.uses():
        user = use.node
        if user.op_type == "Abs":
            continue
        if user.op_type == "Mul" and user.inputs[0] is user.inputs[1]:
            continue
        power = constant_array(user.inputs[1]) if user.op_type == "Pow" else None
        if power is None or power.size != 1 or float(power.reshape(-1)[0]) != 2.0:
            return False
    return True


def _given(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None, node_label(node)
    return value


def _finite(layer: Linear) -> Linear | str:
    return layer if np.isfinite(layer.weight).all() else "its weight is not finite"
