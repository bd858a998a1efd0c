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
from qcomp.passes.lower.layers.windows import Windows, dense_kernel, windows_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passes.lower.layers.glue import Glue

__all__ = ["Linear", "linear_of", "only_squared"]


@dataclass(frozen=True)
class Linear:
    """``y = x W + b`` of a MatMul or Gemm, or of a Conv for each of its windows.

    Attributes:
        node: The node.
        data: x, [..., in], or images [batch, channels, ...].
        weight: W, float64[in, out].
        bias: b, float64[out]; None without one.
        windows: Of a Conv; a row x is one of them.
    """

    node: ir.Node
    data: ir.Value
    weight: NDArray[np.float64]
    bias: NDArray[np.float64] | None
    windows: Windows | None = None

    @property
    def times(self) -> int:
        """Rows x of one row of the layer's input."""
        return 1 if self.windows is None else len(self.windows.places)

    def rows(self, glue: Glue) -> ir.Value:
        """Write x as float64[rows, in]."""
        x = glue.double(self.data)
        if self.windows is not None:
            return self.windows.rows(glue, x)
        return glue.flat(x, self.weight.shape[0])

    def output(self, glue: Glue, y: ir.Value) -> ir.Value:
        """Write ``x W`` of those rows, [rows, out], as what the layer gives: with b, in shape."""
        if self.bias is not None:
            y = glue.add(y, glue.constant(self.bias))
        if self.windows is not None:
            return self.windows.image(glue, y, self.weight.shape[1])
        return glue.unflat(y, self.data, self.weight.shape[1])


def linear_of(node: ir.Node) -> Linear | str:
    """Return the linear layer of a node, or why it is none."""
    if node.op_type == "MatMul":
        weight = constant_array(node.inputs[1])
        if weight is None or weight.ndim != 2:
            return "its second input is no constant matrix"
        array = np.asarray(weight, dtype=np.float64)
        return _finite(Linear(node, _given(node), array, None))
    if node.op_type == "Conv":
        return _conv(node)
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


def _conv(node: ir.Node) -> Linear | str:
    found = constant_array(node.inputs[1])
    if found is None:
        return "its weight is no constant"
    weight = np.asarray(found, dtype=np.float64)
    windows = windows_of(node, weight.shape[2:])
    if isinstance(windows, str):
        return windows
    bias = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        known = constant_array(node.inputs[2])
        if known is None:
            return "its bias is no constant vector"
        bias = np.asarray(known, dtype=np.float64)
    dense = dense_kernel(weight, int_attribute(node, "group", 1))
    return _finite(Linear(node, _given(node), dense, bias, windows))


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
