"""What a layer computes, read from its node: its matrix and its bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.graph.rewriting import (
    constant_array,
    float_attribute,
    int_attribute,
    node_label,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Linear", "linear_of", "only_squared"]


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
