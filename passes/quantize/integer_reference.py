"""Every quantized operator that qcomp emits, in NumPy, computed as ONNX Runtime's kernels do.

Accumulators are exact integers (computed in float64, exact below 2^53). Requantization follows
MLAS: the int32 sum is converted to float32, multiplied by one float32 factor, clamped and rounded
to the nearest integer, ties to even:

    q_y = rint(clip(float32(acc) * float32(s_x * s_w / s_y), min - z_y, max - z_y)) + z_y

| acc  | factor | z_y | u8 result                      |
|------|--------|-----|--------------------------------|
|    5 |    0.5 |   0 | 2    (2.5, tie to even)        |
|    7 |    0.5 |   0 | 4    (3.5, tie to even)        |
|   -1 |    0.5 | 128 | 128  (-0.5 rounds to 0)        |
|   -3 |    0.5 | 128 | 126  (-1.5, tie to even: -2)   |
|  -11 |    0.1 | 128 | 127                            |
| 9999 |    0.5 |  10 | 255  (saturates)               |

Every function is within one integer step of ONNX Runtime, and the tests hold it to that; most are
equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from qcomp.passes.quantize.arithmetic import (
    Floats,
    Integers,
    blocks,
    dequantize,
    quantize,
    unpack_int4,
)
from qcomp.passes.quantize.integer_types import UINT8, IntegerType

__all__ = [
    "conv_integer",
    "dynamic_quantize_linear",
    "dynamic_quantize_matmul",
    "lookup",
    "matmul_integer",
    "matmul_integer_to_float",
    "matmul_nbits",
    "qgemm",
    "qlinear_add",
    "qlinear_concat",
    "qlinear_conv",
    "qlinear_global_average_pool",
    "qlinear_matmul",
    "qlinear_mul",
    "requantize",
    "token_levels",
    "token_matmul",
]

Sums = npt.NDArray[np.int64]
_CHUNK_BYTES = 1 << 26


def requantize(
    sums: Sums, factor: npt.ArrayLike, zero_point: int, kind: IntegerType = UINT8
) -> Integers:
    """Integer sums to levels of ``kind``; see the table above.

    Args:
        sums: int64 accumulators (of int32 range).
        factor: ``s_x * s_w / s_y`` in float32, scalar or broadcastable to ``sums``.
        zero_point: Zero point of the result.
        kind: Type of the result.
    """
    value = sums.astype(np.float32) * np.asarray(factor, dtype=np.float32)
    np.clip(value, kind.min - zero_point, kind.max - zero_point, out=value)
    return (np.rint(value) + np.float32(zero_point)).astype(kind.storage)


def matmul_integer(
    a: Integers, b: Integers, a_zero: npt.ArrayLike = 0, b_zero: npt.ArrayLike = 0
) -> Sums:
    """``sum_k (a[.., m, k] - a_zero) (b[.., k, n] - b_zero[n])``, exact (ONNX MatMulInteger)."""
    left = a.astype(np.float64) - np.asarray(a_zero, dtype=np.float64)
    right = b.astype(np.float64) - np.asarray(b_zero, dtype=np.float64)
    return np.asarray(np.rint(left @ right), dtype=np.int64)


def conv_integer(
    x: Integers,
    w: Integers,
    x_zero: int = 0,
    *,
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
    group: int = 1,
) -> Sums:
    """Integer convolution with symmetric weights, exact (ONNX ConvInteger).

    Args:
        x: [N, C, d1, ..., dn]; padding inserts ``x_zero``.
        w: [M, C / group, k1, ..., kn], zero point 0.
        x_zero: Zero point of ``x``.
        pads: Begin of each axis, then end of each axis.
        strides: One a spatial axis.
        dilations: One a spatial axis.
        group: Number of groups.

    Returns:
        int64[N, M, e1, ..., en].
    """
    rank = x.ndim - 2
    pads, strides = list(pads) or [0] * (2 * rank), list(strides) or [1] * rank
    dilations = list(dilations) or [1] * rank
    kernel = w.shape[2:]
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    margin = [(0, 0), (0, 0), *((pads[i], pads[i + rank]) for i in range(rank))]
    weights = w.astype(np.float64).reshape(group, w.shape[0] // group, -1)
    channels = x.shape[1] // group
    image = 8 * int(np.prod(x.shape[1:])) * int(np.prod(kernel))
    step = max(1, _CHUNK_BYTES // max(1, image))
    results = []
    for start in range(0, x.shape[0], step):
        part = np.pad(x[start : start + step].astype(np.float64) - x_zero, margin)
        windows = np.lib.stride_tricks.sliding_window_view(
            part, spans, axis=tuple(range(2, 2 + rank))
        )
        picks = tuple(slice(None, None, s) for s in strides)
        taps = tuple(slice(None, None, d) for d in dilations)
        windows = windows[(slice(None), slice(None), *picks, *taps)]
        size, out = windows.shape[0], windows.shape[2 : 2 + rank]
        columns = windows.reshape(size, group, channels, *out, *kernel)
        places = tuple(range(3, 3 + rank))
        columns = columns.transpose(0, 1, *places, 2, *range(3 + rank, 3 + 2 * rank))
        columns = columns.reshape(size, group, int(np.prod(out)), -1)
        sums = np.swapaxes(columns @ weights.transpose(0, 2, 1), 2, 3)
        results.append(np.rint(sums).astype(np.int64).reshape(size, w.shape[0], *out))
    if not results:
        return np.zeros((0, w.shape[0], *([0] * rank)), dtype=np.int64)
    return np.concatenate(results)


def _factor(x_scale: npt.ArrayLike, w_scale: npt.ArrayLike, y_scale: npt.ArrayLike) -> Floats:
    """``x_scale * w_scale / y_scale``, in the float32 order of ONNX Runtime."""
    product = np.asarray(x_scale, np.float32) * np.asarray(w_scale, np.float32)
    return np.asarray(product / np.asarray(y_scale, np.float32), dtype=np.float32)


def _channels(values: npt.ArrayLike, ndim: int) -> npt.NDArray[np.generic]:
    """Per-channel values shaped for axis 1 of an ``ndim``-dimensional tensor."""
    array = np.asarray(values)
    return array.reshape(1, -1, *([1] * (ndim - 2))) if array.ndim else array


def qlinear_conv(
    x: Integers,
    x_scale: float,
    x_zero: int,
    w: Integers,
    w_scale: npt.ArrayLike,
    y_scale: float,
    y_zero: int,
    bias: npt.NDArray[np.int32] | None = None,
    *,
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
    group: int = 1,
) -> Integers:
    """ONNX QLinearConv with u8 data and symmetric s8 weights (scale a channel): u8[N, M, ...]."""
    sums = conv_integer(x, w, x_zero, pads=pads, strides=strides, dilations=dilations, group=group)
    if bias is not None:
        sums = sums + _channels(bias, sums.ndim).astype(np.int64)
    return requantize(sums, _channels(_factor(x_scale, w_scale, y_scale), sums.ndim), y_zero)


def qlinear_matmul(
    a: Integers,
    a_scale: float,
    a_zero: int,
    b: Integers,
    b_scale: npt.ArrayLike,
    b_zero: npt.ArrayLike,
    y_scale: float,
    y_zero: int,
) -> Integers:
    """ONNX QLinearMatMul, u8 result; ``b_scale`` is a scalar or one a column."""
    sums = matmul_integer(a, b, a_zero, b_zero)
    return requantize(sums, _factor(a_scale, b_scale, y_scale), y_zero)


def qgemm(
    a: Integers,
    a_scale: float,
    a_zero: int,
    b: Integers,
    b_scale: npt.ArrayLike,
    bias: npt.NDArray[np.int32] | None,
    y_scale: float | None = None,
    y_zero: int = 0,
    *,
    transpose_b: bool = False,
) -> npt.NDArray[np.generic]:
    """com.microsoft::QGemm with alpha 1: u8, or float32 when ``y_scale`` is None."""
    sums = matmul_integer(a, b.T if transpose_b else b, a_zero)
    if bias is not None:
        sums = sums + bias.astype(np.int64)
    if y_scale is None:
        product = np.asarray(a_scale, np.float32) * np.asarray(b_scale, np.float32)
        return sums.astype(np.float32) * product
    return requantize(sums, _factor(a_scale, b_scale, y_scale), y_zero)


def matmul_integer_to_float(
    a: Integers,
    a_scale: npt.ArrayLike,
    a_zero: npt.ArrayLike,
    b: Integers,
    b_scale: npt.ArrayLike,
    b_zero: npt.ArrayLike = 0,
    bias: Floats | None = None,
) -> Floats:
    """com.microsoft::MatMulIntegerToFloat: ``sums * (a_scale * b_scale) + bias`` in float32."""
    sums = matmul_integer(a, b, a_zero, b_zero).astype(np.float32)
    product = np.asarray(a_scale, np.float32) * np.asarray(b_scale, np.float32)
    result = np.asarray(sums * product, dtype=np.float32)
    return result if bias is None else result + bias


def dynamic_quantize_linear(x: Floats) -> tuple[Integers, np.float32, int]:
    """ONNX DynamicQuantizeLinear: u8 levels, scale and zero point of the whole tensor.

    | x                | scale      | zero point | levels        |
    |------------------|------------|------------|---------------|
    | 0, 2.55          | 0.01       | 0          | 0 255         |
    | -1, 1.55         | 0.01       | 100        | 0 255         |
    | 1.0, 2.55        | 0.01       | 0          | 100 255       |
    """
    low, high = np.float32(x.min(initial=0.0)), np.float32(x.max(initial=0.0))
    scale = (high - low) / np.float32(UINT8.max)
    scale = scale if scale > 0 else np.float32(1.0)
    zero = int(np.rint(np.clip(-low / scale, UINT8.min, UINT8.max)))
    return quantize(x, scale, zero, UINT8), scale, zero


def dynamic_quantize_matmul(
    x: Floats, b: Integers, b_scale: npt.ArrayLike, bias: Floats | None = None
) -> Floats:
    """com.microsoft::DynamicQuantizeMatMul with symmetric weights."""
    levels, scale, zero = dynamic_quantize_linear(x)
    return matmul_integer_to_float(levels, scale, zero, b, b_scale, 0, bias)


def qlinear_add(
    a: Integers,
    a_scale: float,
    a_zero: int,
    b: Integers,
    b_scale: float,
    b_zero: int,
    y_scale: float,
    y_zero: int,
) -> Integers:
    """com.microsoft::QLinearAdd on u8, in the arithmetic of MLAS.

    ``rint(a * (s_a / s_y) + b * (s_b / s_y) + (z_y - z_a s_a / s_y - z_b s_b / s_y))``.
    """
    ratio_a = np.float32(a_scale) / np.float32(y_scale)
    ratio_b = np.float32(b_scale) / np.float32(y_scale)
    # Float64 stands for the kernel's fused multiply-add; the constant is rounded as in the kernel.
    fixed = np.float32(y_zero) - (ratio_a * np.float32(a_zero) + ratio_b * np.float32(b_zero))
    inner = (a.astype(np.float64) * ratio_a + np.float64(fixed)).astype(np.float32)
    value = (b.astype(np.float64) * ratio_b + inner.astype(np.float64)).astype(np.float32)
    return np.clip(np.rint(value), UINT8.min, UINT8.max).astype(np.uint8)


def qlinear_mul(
    a: Integers,
    a_scale: float,
    a_zero: int,
    b: Integers,
    b_scale: float,
    b_zero: int,
    y_scale: float,
    y_zero: int,
) -> Integers:
    """com.microsoft::QLinearMul on u8: ``rint((a - z_a)(b - z_b) s_a s_b / s_y + z_y)``."""
    product = (a.astype(np.float32) - np.float32(a_zero)) * (
        b.astype(np.float32) - np.float32(b_zero)
    )
    ratio = np.float32(a_scale) * np.float32(b_scale) / np.float32(y_scale)
    value = (product.astype(np.float64) * ratio + y_zero).astype(np.float32)
    return np.clip(np.rint(value), UINT8.min, UINT8.max).astype(np.uint8)


def lookup(
    x: Integers,
    x_scale: float,
    x_zero: int,
    y_scale: float,
    y_zero: int,
    function: Callable[[Floats], Floats],
) -> Integers:
    """A unary u8 operator by its 256-entry table (QLinearSigmoid, QLinearLeakyRelu)."""
    table = function(dequantize(np.arange(256, dtype=np.uint8), x_scale, x_zero))
    return np.asarray(quantize(table, y_scale, y_zero, UINT8)[x])


def qlinear_concat(
    parts: Sequence[tuple[Integers, float, int]], y_scale: float, y_zero: int, axis: int
) -> Integers:
    """com.microsoft::QLinearConcat: each part is moved to the result's scale, then joined."""
    moved = [lookup(x, scale, zero, y_scale, y_zero, lambda real: real) for x, scale, zero in parts]
    return np.concatenate(moved, axis=axis)


def qlinear_global_average_pool(
    x: Integers, x_scale: float, x_zero: int, y_scale: float, y_zero: int
) -> Integers:
    """com.microsoft::QLinearGlobalAveragePool on u8[N, C, ...] (channels first)."""
    axes = tuple(range(2, x.ndim))
    count = int(np.prod(x.shape[2:]))
    sums = x.astype(np.int64).sum(axis=axes, keepdims=True) - x_zero * count
    factor = np.float32(x_scale) / (np.float32(count) * np.float32(y_scale))
    return requantize(sums, factor, y_zero)


def matmul_nbits(
    a: Floats,
    packed: npt.NDArray[np.uint8],
    scale: Floats,
    zero: npt.NDArray[np.uint8] | None,
    *,
    columns: int,
    group: int,
    bits: int = 4,
    accuracy_level: int = 0,
) -> Floats:
    """com.microsoft::MatMulNBits: ``a @ W.T`` with W from blocks, see ``quantize_blocks``.

    Args:
        a: float32[..., K].
        packed: uint8[N, B, group * bits / 8].
        scale: float32[N, B].
        zero: Packed zero points uint8[N, ceil(B * bits / 8)]; None is the middle of the range.
        columns: K.
        group: Block length.
        bits: 4 or 8.
        accuracy_level: 0 computes in float; 4 rounds each block of a row of ``a`` to int8 first
            (scale = max |a| / 127), as the runtime's fast kernel does.

    Returns:
        float32[..., N].
    """
    count = scale.shape[1]
    levels = unpack_int4(packed, group) if bits == 4 else packed
    if zero is None:
        offset: npt.NDArray[np.generic] = np.full(scale.shape, 1 << (bits - 1), dtype=np.uint8)
    else:
        offset = unpack_int4(zero, count) if bits == 4 else zero
    q = levels.astype(np.float64) - offset.astype(np.float64)[:, :, None]
    rows = blocks(np.ascontiguousarray(a.reshape(-1, columns)), group)
    if accuracy_level == 4:
        peak = np.abs(rows).max(axis=2, keepdims=True)
        step = np.where(peak > 0, peak / np.float32(127.0), np.float32(1.0)).astype(np.float32)
        rows = np.rint(rows * (np.float32(1.0) / step)).astype(np.float32) * step
    w = q * scale.astype(np.float64)[:, :, None]
    result = rows.reshape(rows.shape[0], -1).astype(np.float64) @ w.reshape(w.shape[0], -1).T
    return np.asarray(result.reshape(*a.shape[:-1], -1), dtype=np.float32)


def token_levels(x: Floats, bits: int) -> tuple[Integers, Floats]:
    """Levels int8 [..., K] and scales float32[..., 1] of rows, as in ``quantize-tokens``."""
    reach = np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    scale = reach / np.float32((1 << (bits - 1)) - 1)
    return np.rint(x / scale).astype(np.int8), scale


def token_matmul(x: Floats, b: Integers, b_scale: npt.ArrayLike, bits: int) -> Floats:
    """``y = s_x (s_b sum_k q_x q_b)`` of :func:`token_levels`; s_b one a column."""
    levels, scale = token_levels(x, bits)
    sums = matmul_integer(levels, b).astype(np.float32)
    return np.asarray(sums * np.asarray(b_scale, np.float32) * scale, np.float32)
