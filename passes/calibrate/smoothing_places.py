"""Where quotients and offsets of an activation go without an operator of their own.

A projection of values: attention mixes the rows of ``v = x W + b`` and leaves its channels apart,

    softmax(q k') (v / s) = (softmax(q k') v) / s

so the columns of W and b take a quotient of the attention's result. Each of those columns has a
scale of its own in 8 bits, so the projection's integers stay what they are.

A bias: for any z, one value a channel,

    x W + b = (x - z) W + (b + z W)

so the layers that read a tensor give back what its normalization took off.

Source: Xiao et al. 2022, arXiv:2211.10438, section 4; Wei et al. 2023, arXiv:2304.09145, section
4.1 (channel-wise shifting).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.passes.graph.layer_pairs import constant_addend
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    constant_array,
    constant_tensor,
    float_attribute,
    ints_attribute,
    node_label,
    only_use,
    read_weight,
    static_shape,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "BiasPlace",
    "ValueProjection",
    "bias_place",
    "layer_of_values",
    "scale_weight",
    "value_projection",
]

Floats = npt.NDArray[np.float32]

_HEADS = (0, 2, 1, 3)
"""Order of axes that exchanges positions and heads."""


@dataclass(frozen=True)
class ValueProjection:
    """The layer whose output channels an attention's result keeps.

    Attributes:
        layer: ``x W``, a MatMul.
        bias: The Add of its bias with the index of the constant; None where it has none.
        heads: Heads, each of which has its channels side by side.
    """

    layer: ir.Node
    bias: tuple[ir.Node, int] | None
    heads: int


def value_projection(source: ir.Value, *, repeated: bool = False) -> ValueProjection | None:
    """The projection of values behind a tensor that is an attention's result, or None.

    Found is ``Reshape(Transpose(p Transpose(Reshape(x W + b))))`` with nothing else reading what
    stands between.

    Args:
        source: The tensor.
        repeated: Whether heads may be repeated: ``p Reshape(Expand(Unsqueeze(Transpose(...))))``.
    """
    joined = _maker(source, "Reshape")
    moved = None if joined is None else _maker(joined.inputs[0], "Transpose", joined)
    mixed = None if moved is None else _maker(moved.inputs[0], "MatMul", moved)
    copies = _repetition(mixed) if repeated and mixed is not None else None
    reader, place = (mixed, 1) if copies is None else (copies, 0)
    values = None if reader is None else _maker(reader.inputs[place], "Transpose", reader)
    split = None if values is None else _maker(values.inputs[0], "Reshape", values)
    if joined is None or moved is None or values is None or split is None:
        return None
    if any(ints_attribute(node, "perm") != _HEADS for node in (moved, values)):
        return None
    heads, width = _lengths(split, 4)[2:]
    channels = heads * width
    wide = _lengths(joined, 3)[2]
    if not channels or wide % channels or (wide != channels and copies is None) or not wide:
        return None
    return layer_of_values(split.inputs[0], split, channels, heads)


def layer_of_values(
    values: ir.Value | None, reader: ir.Node, channels: int, heads: int
) -> ValueProjection | None:
    """The product, with or without a bias, that makes what ``reader`` alone reads, or None."""
    add = _maker(values, "Add", reader)
    bias = None if add is None else constant_addend(add, channels)
    if add is not None and bias is None:
        return None
    user = reader if add is None or bias is None else add
    rows = values if add is None or bias is None else add.inputs[1 - bias[1]]
    layer = _maker(rows, "MatMul", user)
    tensor = None if layer is None else constant_tensor(layer.inputs[1])
    if layer is None or tensor is None or tensor.dtype.name != "FLOAT":
        return None
    shape = tuple(tensor.shape.numpy())
    if len(shape) != 2 or shape[1] != channels:
        return None
    return ValueProjection(layer, bias, heads)


def _repetition(mixed: ir.Node) -> ir.Node | None:
    """The Unsqueeze at which heads of values begin to be repeated, or None."""
    joined = _maker(mixed.inputs[1], "Reshape", mixed)
    spread = None if joined is None else _maker(joined.inputs[0], "Expand", joined)
    apart = None if spread is None else _maker(spread.inputs[0], "Unsqueeze", spread)
    if joined is None or apart is None:
        return None
    axes = constant_array(apart.inputs[1])
    before = static_shape(apart.inputs[0])
    width = 0 if before is None or len(before) != 4 else before[3]
    fits = width and _lengths(joined, 4)[3] == width
    return apart if fits and axes is not None and axes.reshape(-1).tolist() == [2] else None


def _lengths(reshape: ir.Node, rank: int) -> list[int]:
    """Lengths of the axes that a Reshape makes; 0 for one that is not known, or of another rank."""
    shape = static_shape(reshape.outputs[0])
    if shape is None:
        array = constant_array(reshape.inputs[1])
        shape = () if array is None else tuple(int(n) for n in array.reshape(-1).astype(np.int64))
    known = [0 if n is None else max(n, 0) for n in shape]
    return known if len(known) == rank else [0] * rank


def _maker(value: ir.Value | None, kind: str, user: ir.Node | None = None) -> ir.Node | None:
    """The node of that type that makes a value, which no other than ``user`` reads."""
    node = None if value is None else value.producer()
    if value is None or node is None or node.op_type != kind:
        return None
    return node if user is None or only_use(value) is user else None


@dataclass(frozen=True)
class BiasPlace:
    """Where a constant can be added to a layer's output.

    Attributes:
        layer: MatMul or Gemm.
        holder: Node and input index of the bias; None where an Add has to be made.
    """

    layer: ir.Node
    holder: tuple[ir.Node, int] | None

    def add(self, editor: Editor, shift: npt.NDArray[np.float64]) -> None:
        """Add to each output channel."""
        if self.holder is not None:
            node, index = self.holder
            old = constant_array(node.inputs[index]) if index < len(node.inputs) else None
            if old is None:
                node.resize_inputs(index + 1)
                made = editor.initializer(f"{node_label(node)}_bias", shift.astype(np.float32))
                node.replace_input_with(index, made)
            else:
                _replace(editor, node, index, (old.astype(np.float64) + shift).reshape(old.shape))
            return
        y = self.layer.outputs[0]
        made = editor.initializer(f"{node_label(self.layer)}_bias", shift.astype(np.float32))
        add = editor.node("Add", [y, made], name=f"{node_label(self.layer)}_Add", after=self.layer)
        editor.replace_value(y, add.outputs[0])
        add.replace_input_with(0, y)


def bias_place(layer: ir.Node, channels: int) -> BiasPlace | None:
    """Where a layer of so many output channels takes a constant; None where it takes none."""
    if layer.op_type == "Gemm":
        if (
            float_attribute(layer, "alpha", 1.0) != 1.0
            or float_attribute(layer, "beta", 1.0) != 1.0
        ):
            return None
        bias = layer.inputs[2] if len(layer.inputs) > 2 else None
        array = constant_array(bias)
        fits = bias is None or (array is not None and array.shape == (channels,))
        return BiasPlace(layer, (layer, 2)) if fits else None
    user = only_use(layer.outputs[0])
    return BiasPlace(layer, None if user is None else constant_addend(user, channels))


def _replace(editor: Editor, node: ir.Node, index: int, made: npt.NDArray[np.generic]) -> None:
    old = node.inputs[index]
    assert old is not None
    new = editor.initializer(f"{old.name}_smooth", np.asarray(made, np.float32))
    node.replace_input_with(index, new)
    editor.drop_if_unused(old)


def scale_weight(editor: Editor, layer: ir.Node, factors: Floats) -> None:
    """Multiply a layer's weight by factors that broadcast to its shape, when it is needed."""
    value = layer.inputs[1]
    tensor = constant_tensor(value)
    assert value is not None
    assert tensor is not None

    def compute() -> Mapping[str, npt.NDArray[np.generic]]:
        with read_weight(tensor) as W:
            return {"weight": np.asarray(W, np.float32) * factors}

    parts = SharedParts(compute, {"weight": (tensor.dtype, tensor.shape.numpy())})
    made = editor.initializer(f"{value.name or node_label(layer)}_smooth", parts.tensor("weight"))
    layer.replace_input_with(1, made)
    editor.drop_if_unused(value)
