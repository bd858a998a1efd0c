"""The float weight that a quantized layer of any form really stands for, read from the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError
from qcomp.passes.graph.rewriting import int_attribute, only_use
from qcomp.passes.quantize.arithmetic import (
    Floats,
    Integers,
    dequantize,
    dequantize_blocks,
    unpack_int2,
    unpack_int4,
)
from qcomp.passes.quantize.float8 import round_e4m3
from qcomp.passes.quantize.folded_weights import folded_array

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["dequantized_weight", "stored_weight"]

Channels = npt.NDArray[np.int64] | None


def stored_weight(model: ir.Model, name: str) -> ir.Value | None:
    """The value that a layer's record names as its integers.

    Args:
        model: The quantized graph.
        name: Of an initializer, or of what is made of one when the graph is loaded.
    """
    found = model.graph.initializers.get(name)
    if found is not None or not name:
        return found
    return next((v for node in model.graph for v in node.outputs if v.name == name), None)


def dequantized_weight(levels: ir.Value, channels: Channels = None) -> tuple[Floats, bool]:
    """Dequantize a stored integer weight with the scales that its consumer applies.

    Args:
        levels: The integers, an initializer or what is made of one when the graph is loaded. They
            are read by DequantizeLinear, MatMulInteger, MatMulNBits, a lookup of rows or
            DynamicQuantizeLSTM. Or the float weight that was looked up in a table.
        channels: Indices of the output channels wanted; all by default.

    Returns:
        The float32 weight and whether its rows are output channels of a matrix
        (float32[N, K]; otherwise it lies as the operator takes it: [K, N], or a convolution's).

    Raises:
        PassError: The consumer is none of these.
    """
    for usage in levels.uses():
        node = usage.node
        if usage.idx == 1 and node.op_type in ("Gemm", "MatMul"):  # looked up in a table of floats
            flip = int_attribute(node, "transB") == 1
            return np.asarray(_array(levels, channels, 0 if flip else 1), np.float32), flip
        if node.op_type == "DynamicQuantizeLSTM":
            return _from_lstm(node, usage.idx, channels), False
        if node.op_type in ("Gather", "GatherND"):
            return _from_lookup(node, levels, channels), False
        if node.op_type == "Cast":  # INT4 to INT8, values as they are
            node = next(iter(node.outputs[0].uses())).node
        if node.op_type == "DequantizeLinear":
            user = only_use(node.outputs[0])
            if user is not None and user.op_type == "QuantizeLinear":
                return _from_float8(node, user, levels, channels), False
            rows_out = user is not None and int_attribute(user, "transB") == 1
            return _from_dequantize(node, levels, channels), rows_out
        if node.op_type == "MatMulInteger" and usage.idx == 1:
            return _from_matmul_integer(node, channels), False
        if node.op_type == "MatMulNBits" and usage.idx == 1:
            return _from_matmulnbits(node, channels), True
        if node.op_type == "GatherBlockQuantized" and usage.idx == 0:
            return _from_gather(node, channels), False
    raise PassError(f"no operator dequantizes the weight '{levels.name}'")


def _array(value: ir.Value | None, channels: Channels = None, axis: int = 0) -> Integers:
    array = folded_array(value)
    if array is None:
        raise PassError("a quantized weight's parameter is not a constant")
    return array if channels is None or array.ndim == 0 else array.take(channels, axis)


def _from_dequantize(node: ir.Node, stored: ir.Value, channels: Channels) -> Floats:
    axis, group = int_attribute(node, "axis", 1), int_attribute(node, "block_size")
    # In blocks along one axis of a matrix, the channels lie along the other one.
    along = 1 - axis if group else axis
    levels = _array(stored, channels, along)
    if levels.dtype.itemsize == 1 and levels.dtype.kind not in "iu":
        levels = levels.astype(np.int8)  # ml_dtypes.int4, uint4
    place = along if group else 0
    scale = np.asarray(_array(node.inputs[1], channels, place), np.float32)
    zero = np.zeros(scale.shape, np.int32)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        zero = _array(node.inputs[2], channels, place).astype(np.int32)
    if not group:
        return dequantize(levels, scale, zero, axis if scale.size > 1 else None)
    taken = range(levels.shape[axis])
    steps = np.repeat(scale, group, axis=axis).take(taken, axis=axis)
    zeros = np.repeat(zero, group, axis=axis).take(taken, axis=axis)
    return np.asarray((levels.astype(np.int32) - zeros).astype(np.float32) * steps, np.float32)


def _from_float8(node: ir.Node, rounding: ir.Node, stored: ir.Value, channels: Channels) -> Floats:
    """Levels that become 8-bit floats, times the scale of their channel."""
    back = only_use(rounding.outputs[0])
    if back is None:
        raise PassError("an 8-bit float has no scale behind it", where=str(rounding.name))
    scale = np.asarray(_array(back.inputs[1], channels), np.float32)
    return np.asarray(round_e4m3(_from_dequantize(node, stored, channels)) * scale, np.float32)


def _from_lstm(node: ir.Node, index: int, channels: Channels) -> Floats:
    levels = np.asarray(_array(node.inputs[index]), np.float32).transpose(0, 2, 1)
    scale = np.asarray(_array(node.inputs[8 if index == 1 else 10]), np.float32)
    weight = levels * scale[:, :, None]
    return weight if channels is None else weight.take(channels, 0)


def _from_lookup(node: ir.Node, stored: ir.Value, channels: Channels) -> Floats:
    cast = only_use(node.outputs[0])
    product = None if cast is None else only_use(cast.outputs[0])
    looked_up = None if product is None or product.inputs[1] is None else product.inputs[1]
    scales = None if looked_up is None else looked_up.producer()
    if scales is None:
        raise PassError("a table of integers has no scales behind it", where=str(node.name))
    stored_scales = scales.inputs[0]
    half = None if stored_scales is None else stored_scales.producer()
    if half is not None and half.op_type == "Cast":
        stored_scales = half.inputs[0]
    steps = np.asarray(_array(stored_scales, channels), np.float32)
    return np.asarray(_array(stored, channels), np.float32) * steps


def _from_matmul_integer(node: ir.Node, channels: Channels) -> Floats:
    cast = only_use(node.outputs[0])
    scaled = None if cast is None else only_use(cast.outputs[0])
    product = None if scaled is None or scaled.inputs[1] is None else scaled.inputs[1].producer()
    if product is None or product.op_type != "Mul":
        raise PassError("a MatMulInteger has no scale behind it", where=str(node.name))
    levels, scale = _array(node.inputs[1], channels, 1), _array(product.inputs[1], channels)
    return dequantize(levels, scale, 0, 1)


def _from_matmulnbits(node: ir.Node, channels: Channels) -> Floats:
    bits, group = int_attribute(node, "bits", 4), int_attribute(node, "block_size")
    packed = np.asarray(_array(node.inputs[1], channels), np.uint8)
    scale = np.asarray(_array(node.inputs[2], channels), np.float32)
    levels = _unpacked(packed, bits, group)
    zero = np.full(scale.shape, 1 << (bits - 1), dtype=np.uint8)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        stored = np.asarray(_array(node.inputs[3], channels), np.uint8)
        zero = np.asarray(_unpacked(stored, bits, scale.shape[1]), np.uint8)
    return dequantize_blocks(np.asarray(levels, np.uint8), scale, zero, int_attribute(node, "K"))


def _from_gather(node: ir.Node, channels: Channels) -> Floats:
    """A table in blocks along its rows."""
    bits, group = int_attribute(node, "bits", 4), int_attribute(node, "block_size")
    scale = np.asarray(_array(node.inputs[2], channels), np.float32)
    packed = np.asarray(_array(node.inputs[0], channels), np.uint8)
    packed = packed.reshape(*scale.shape, -1)
    zero = np.asarray(_array(node.inputs[3], channels), np.uint8)
    levels = np.asarray(_unpacked(packed, bits, group), np.uint8)
    zero = np.asarray(_unpacked(zero, bits, scale.shape[1]), np.uint8)
    return dequantize_blocks(levels, scale, zero, scale.shape[1] * group)


def _unpacked(packed: npt.NDArray[np.uint8], bits: int, count: int) -> Integers:
    if bits == 2:
        return unpack_int2(packed, count)
    return unpack_int4(packed, count) if bits == 4 else packed
