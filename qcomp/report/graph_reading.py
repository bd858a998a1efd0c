"""Small questions to a graph that its report asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = [
    "SHORT",
    "array_of",
    "divided_by_token",
    "input_of",
    "label_of",
    "name_of",
    "readers_of",
    "type_of",
]

SHORT = {
    "BFLOAT16": "bf16",
    "DOUBLE": "f64",
    "FLOAT": "f32",
    "FLOAT16": "f16",
    "FLOAT8E4M3FN": "e4m3",
    "INT16": "s16",
    "INT32": "s32",
    "INT4": "s4",
    "INT8": "s8",
    "UINT16": "u16",
    "UINT4": "u4",
    "UINT8": "u8",
}
"""ONNX type -> its name in reports."""


def divided_by_token(node: ir.Node) -> ir.Value | None:
    """What is divided by a scale of each token and then quantized; None for other operators."""
    steps = node.inputs[0] if node.op_type == "QuantizeLinear" else None
    divided = None if steps is None else steps.producer()
    if (
        divided is None
        or divided.op_type != "Div"
        or "_token_scale" not in name_of(divided.inputs[1])
    ):
        return None
    return divided.inputs[0]


def readers_of(value: ir.Value) -> Iterator[str]:
    """Names of the operators that work with a value, behind casts and pairs."""
    for usage in value.uses():
        if usage.node.op_type in ("Cast", "DequantizeLinear", "QuantizeLinear"):
            yield from readers_of(usage.node.outputs[0])
        else:
            yield label_of(usage.node)


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """An input that may be left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def label_of(node: ir.Node) -> str:
    """The name of an operator."""
    from qcomp.node_rules import node_name

    return node_name(node)


def name_of(value: ir.Value | None) -> str:
    """The name of a value; "" for none."""
    return "" if value is None else value.name or ""


def type_of(value: ir.Value | None) -> str:
    """Its type in short, as u8; "" where it is not known."""
    return "" if value is None or value.dtype is None else SHORT.get(value.dtype.name, "")


def array_of(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The array of a constant; None for other values."""
    if value is None or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())
