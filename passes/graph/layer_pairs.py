"""Pairs of layers whose channels meet: what equalization and the absorption of biases share.

The weight of every layer is seen as one array W[G, I, O, K]: groups, input channels of a group, its
output channels, kernel positions. Input channel c of the layer is (c // I, c % I), output
channel o is (o // O, o % O).

| layer                    | stored as           | G     | K            |
|--------------------------|---------------------|-------|--------------|
| Conv                     | [G O, I, kernel]    | group | kernel size  |
| ConvTranspose            | [G I, O, kernel]    | group | kernel size  |
| Gemm (transB), MatMul    | [I, O] ([O, I])     | 1     | 1            |
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from qcomp.passes.graph.rewriting import (
    constant_tensor,
    int_attribute,
    only_use,
    read_weight,
    string_attribute,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.node_rules import NodeRules

__all__ = [
    "LayerForm",
    "LayerPair",
    "bias_value",
    "constant_addend",
    "has_padding",
    "layer_pairs",
    "read_view",
]

Float64 = npt.NDArray[np.float64]
_T = TypeVar("_T", bound=np.generic)

_SPATIAL = {"Conv", "ConvTranspose"}
_LAYERS = {*_SPATIAL, "Gemm", "MatMul"}
_POOLS = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}


@dataclass(frozen=True, slots=True)
class LayerForm:
    """How a layer's weight is laid out; it stays right when the layer's inputs change.

    Attributes:
        op_type: Its operator.
        groups: G.
        inner: I.
        outer: O.
        kernel: K.
        shape: Dimensions of the stored weight.
        rows_out: Whether rows of a matrix are output channels.
    """

    op_type: str
    groups: int
    inner: int
    outer: int
    kernel: int
    shape: tuple[int, ...]
    rows_out: bool = False

    @staticmethod
    def of(layer: ir.Node) -> LayerForm:
        """The form of a layer whose weight is a constant."""
        tensor = constant_tensor(layer.inputs[1])
        assert tensor is not None
        dims, op = tuple(tensor.shape.numpy()), layer.op_type
        if op in _SPATIAL:
            groups, kernel = int_attribute(layer, "group", 1), int(np.prod(dims[2:]))
            if op == "Conv":
                return LayerForm(op, groups, dims[1], dims[0] // groups, kernel, dims)
            return LayerForm(op, groups, dims[0] // groups, dims[1], kernel, dims)
        if op == "Gemm" and int_attribute(layer, "transB"):
            return LayerForm(op, 1, dims[1], dims[0], 1, dims, rows_out=True)
        return LayerForm(op, 1, dims[0], dims[1], 1, dims)

    def view(self, stored: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """A stored weight as W[G, I, O, K]; a view of it."""
        if self.op_type == "Conv":
            parts = stored.reshape(self.groups, self.outer, self.inner, self.kernel)
            return parts.swapaxes(1, 2)
        matrix = stored.T if self.rows_out else stored
        return matrix.reshape(self.groups, self.inner, self.outer, self.kernel)

    def stored(self, view: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """The inverse of :meth:`view`."""
        if self.op_type == "Conv":
            view = view.swapaxes(1, 2)
        elif self.rows_out:
            view = view[0, :, :, 0].T
        return np.ascontiguousarray(view).reshape(self.shape)

    def spread(self, scales: Float64, side: Literal["in", "out"], repeat: int = 1) -> Float64:
        """Scales of the channels of one side, to multiply W[G, I, O, K]."""
        if side == "in":
            return np.repeat(scales, repeat).reshape(self.groups, self.inner, 1, 1)
        return scales.reshape(self.groups, 1, self.outer, 1)


@dataclass(frozen=True, slots=True)
class LayerPair:
    """Two layers; the second is all that reads what the first makes.

    Attributes:
        first: Conv, ConvTranspose, Gemm or MatMul.
        second: The layer that reads it as input 0.
        between: Operators between them, in order, without the Add of ``bias``.
        bias: The Add of a constant behind a MatMul without bias, if there is one.
        channels: Output channels of ``first``.
        repeat: Input channels of ``second`` for one of these: positions that a Flatten laid out.
    """

    first: ir.Node
    second: ir.Node
    between: tuple[ir.Node, ...] = field(default=())
    bias: ir.Node | None = None
    channels: int = 0
    repeat: int = 1


def layer_pairs(
    model: ir.Model, through: Collection[str], rules: NodeRules | None = None
) -> list[LayerPair]:
    """Return the pairs of the main graph in graph order.

    Args:
        model: The model.
        through: Operators that may stand between the layers; Flatten and pools, if named, only
            where they keep channels apart.
        rules: What the user asks of single operators: no pair has a layer that is excluded.
    """
    pairs = []
    for node in model.graph:
        pair = _pair(node, through) if _is_layer(node) else None
        if pair is None:
            continue
        layers = (pair.first, pair.second)
        if rules is None or not any(rules.options(layer).excluded for layer in layers):
            pairs.append(pair)
    return pairs


def _is_layer(node: ir.Node) -> bool:
    if node.domain or node.op_type not in _LAYERS or len(node.inputs) < 2:
        return False
    weight = constant_tensor(node.inputs[1])
    if weight is None or weight.dtype.name != "FLOAT" or 0 in weight.shape.numpy():
        return False
    if node.op_type in _SPATIAL:
        return len(weight.shape) >= 3
    return len(weight.shape) == 2 and not int_attribute(node, "transA")


def _pair(first: ir.Node, through: Collection[str]) -> LayerPair | None:
    weight = constant_tensor(first.inputs[1])
    assert weight is not None
    own = LayerForm.of(first)
    channels = own.groups * own.outer
    if len(first.inputs) > 2 and first.inputs[2] is not None:
        bias = constant_tensor(first.inputs[2])
        if bias is None or bias.dtype != weight.dtype:
            return None
        if tuple(bias.shape.numpy()) not in ((channels,), (1, channels)):
            return None
    spatial, flat = first.op_type in _SPATIAL, False
    between: list[ir.Node] = []
    added: ir.Node | None = None
    bare = first.op_type == "MatMul"
    value = first.outputs[0]
    while True:
        node = only_use(value)
        if node is None or node.graph is not first.graph or node.domain:
            return None
        if _is_layer(node) and node.inputs[0] is value:
            break
        if bare and not between and constant_addend(node, channels) is not None:
            added, bare = node, False
        elif node.op_type not in through or node.inputs[0] is not value:
            return None
        elif node.op_type == "Flatten":
            if not spatial or int_attribute(node, "axis", 1) != 1:
                return None
            flat = True
            between.append(node)
        elif node.op_type in _POOLS and (flat or not spatial or len(node.outputs) > 1):
            return None
        else:
            between.append(node)
        value = node.outputs[0]
    if (node.op_type in _SPATIAL) != (spatial and not flat):
        return None
    form = LayerForm.of(node)
    read = form.groups * form.inner
    if read % channels or (not flat and read != channels):
        return None
    return LayerPair(first, node, tuple(between), added, channels, read // channels)


def constant_addend(node: ir.Node, channels: int) -> tuple[ir.Node, int] | None:
    """The node with the index of the constant that it adds to each channel, the last axis."""
    if node.op_type not in ("Add", "Sum") or len(node.inputs) != 2:
        return None
    found = [i for i, value in enumerate(node.inputs) if constant_tensor(value) is not None]
    tensor = constant_tensor(node.inputs[found[0]]) if len(found) == 1 else None
    if tensor is None or tensor.dtype.name != "FLOAT":
        return None
    return (node, found[0]) if tuple(tensor.shape.numpy()) == (channels,) else None


def bias_value(pair: LayerPair) -> tuple[ir.Node, int] | None:
    """The node and input index that hold the bias of a pair's first layer, if it has one."""
    if pair.bias is not None:
        return constant_addend(pair.bias, pair.channels)
    has = len(pair.first.inputs) > 2 and pair.first.inputs[2] is not None
    return (pair.first, 2) if has else None


def has_padding(layer: ir.Node) -> bool:
    """Whether a Conv reads zeros from outside its input."""
    if string_attribute(layer, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return True
    pads = layer.attributes.get("pads")
    return pads is not None and any(pads.as_ints())


def read_view(layer: ir.Node) -> Float64:
    """A layer's weight as float64[G, I, O, K]."""
    tensor = constant_tensor(layer.inputs[1])
    assert tensor is not None
    with read_weight(tensor) as stored:
        return np.array(LayerForm.of(layer).view(stored), np.float64)
