"""Scale, zero point, quantize, dequantize, pack: the arithmetic of every quantizer, in one place.

A real value r and its integer q are related by

    q = clip(round(r / scale) + zero_point, min, max)        r' = (q - zero_point) * scale

(Jacob et al. 2018, arXiv:1712.05877, equation 1; Krishnamoorthi 2018, arXiv:1806.08342,
equations 1-6). ``round`` is to the nearest integer, ties to the even one, as in IEEE 754, ONNX
QuantizeLinear and ONNX Runtime's kernels:

| r / scale | -2.5 | -1.5 | -0.6 | -0.5 | 0.5 | 0.6 | 1.5 | 2.5 | 3.49999 |
|-----------|------|------|------|------|-----|-----|-----|-----|---------|
| round     |   -2 |   -2 |   -1 |    0 |   0 |   1 |   2 |   2 |       3 |

All division and multiplication is float32, because the runtime's is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from qcomp.passes.quantize.integer_types import IntegerType

__all__ = [
    "Affine",
    "affine_parameters",
    "blocks",
    "dequantize",
    "dequantize_blocks",
    "pack_int2",
    "pack_int4",
    "quantize",
    "quantize_blocks",
    "symmetric_scale",
    "unpack_int2",
    "unpack_int4",
    "within",
]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.generic]

_MOST_SHRINKING = 0.98
_TINY = np.float32(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Affine:
    """Scale and zero point of one tensor (per-tensor).

    Attributes:
        scale: Positive float32 step between two neighbouring integers.
        zero_point: The integer that stands for 0.0, inside the type's closed range.
        type: The integer type.
    """

    scale: float
    zero_point: int
    type: IntegerType

    @property
    def low(self) -> float:
        """Lowest real value that can be represented."""
        return (self.type.min - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """Highest real value that can be represented."""
        return (self.type.max - self.zero_point) * self.scale


def affine_parameters(low: float, high: float, kind: IntegerType) -> Affine:
    """Scale and zero point for values in [low, high].

    The range is first widened to hold 0.0, so that zero padding is exact:

        scale = (high - low) / (max - min)          zero_point = round(min - low / scale)

    A constant tensor of zeros gets scale 1.

    >>> from qcomp.passes.quantize.integer_types import UINT8
    >>> affine_parameters(-1.0, 1.0, UINT8).zero_point   # float32(2 / 255) is above 2 / 255
    127
    >>> affine_parameters(0.5, 2.55, UINT8).zero_point     # widened to [0, 2.55]
    0

    Args:
        low: Lowest value, finite.
        high: Highest value, finite, not below ``low``.
        kind: Integer type of the result.

    Returns:
        The parameters; the scale is exactly representable in float32.
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if high - low <= 0.0:
        return Affine(1.0, int(np.clip(0, kind.min, kind.max)), kind)
    scale = max(np.float32((high - low) / kind.levels), _TINY)
    zero_point = int(np.clip(np.rint(kind.min - low / float(scale)), kind.min, kind.max))
    return Affine(float(scale), zero_point, kind)


def within(parameters: Affine, low: float, high: float) -> Affine:
    """Shrink the scale until [low, high], which holds 0, holds every representable value.

    A Clip to [low, high] in front of such a quantizer changes nothing, so the runtime removes it.
    A range mostly on one side of 0 may need a much smaller scale; then it is left as it is.

    >>> from qcomp.passes.quantize.integer_types import UINT8
    >>> p = within(affine_parameters(-1.0, 1.0, UINT8), -1.0, 1.0)
    >>> p.zero_point, p.scale, p.low, p.high         # with scale 2 / 255 it would reach 1.0039
    (127, 0.0078125, -0.9921875, 1.0)
    """
    scale = np.float32(parameters.scale)
    for end, level in ((low, parameters.type.min), (high, parameters.type.max)):
        steps = np.float32(level - parameters.zero_point)
        if steps and abs(scale * steps) > abs(np.float32(end)) > 0:
            scale = np.float32(end) / steps
            while abs(scale * steps) > abs(np.float32(end)):
                scale = np.nextafter(scale, np.float32(0.0))
    if scale < np.float32(_MOST_SHRINKING * parameters.scale):
        return parameters
    return replace(parameters, scale=float(scale))


def symmetric_scale(
    weight: Floats, kind: IntegerType, axis: int | None, bias_floor: Floats | None = None
) -> Floats:
    """Scale of a symmetric quantizer (zero point 0): ``max |w| / max``.

    Args:
        weight: float32 tensor.
        kind: Signed integer type.
        axis: Channel axis, or None for one scale for the tensor.
        bias_floor: Smallest scale a channel may have (float32[channels]): with it an int32 bias
            of that channel does not overflow.

    Returns:
        float32[channels], or a float32 scalar array for ``axis=None``. A channel of zeros takes
        the largest scale of the tensor (1 when every channel is zero).
    """
    if axis is None:
        peak = np.asarray(np.max(np.abs(weight), initial=0.0), dtype=np.float32)
    else:
        others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
        peak = np.maximum(
            weight.max(axis=others, initial=0.0), -weight.min(axis=others, initial=0.0)
        )
    scale = np.asarray(peak / np.float32(kind.max), dtype=np.float32)
    largest = scale.max(initial=0.0)
    scale = np.where(scale < _TINY, largest if largest >= _TINY else np.float32(1.0), scale)
    if bias_floor is not None:
        scale = np.maximum(scale, bias_floor)
    return np.asarray(scale, dtype=np.float32)


_SLAB = 1 << 23
"""Values that are quantized at a time (float32: 32 MB)."""

_Number = TypeVar("_Number", np.float32, np.int32)


def _along(array: npt.NDArray[_Number], ndim: int, axis: int | None) -> npt.NDArray[_Number]:
    """Reshape a per-channel parameter so that it broadcasts over ``axis``."""
    if axis is None or array.ndim == 0:
        return array.reshape(()) if array.size == 1 else array
    shape = [1] * ndim
    shape[axis] = array.size
    return array.reshape(shape)


def quantize(
    real: Floats,
    scale: npt.ArrayLike,
    zero_point: npt.ArrayLike,
    kind: IntegerType,
    axis: int | None = None,
) -> Integers:
    """Quantize, as ONNX QuantizeLinear: float32 division, ties to even, saturation.

    | real (scale 0.5, zero point 0, s8) | -64.0 | -0.75 | -0.25 | 0.25 | 0.75 | 1.25 | 100 |
    |------------------------------------|-------|-------|-------|------|------|------|-----|
    | integer                            |  -127 |    -2 |     0 |    0 |    2 |    2 | 127 |

    Args:
        real: float32 tensor.
        scale: Scalar, or float32[channels] with ``axis``.
        zero_point: Scalar, or integer[channels] with ``axis``.
        kind: Integer type of the result.
        axis: Channel axis, None for per-tensor.

    Returns:
        Integers in [kind.min, kind.max] in the type's storage.
    """
    step = _along(np.asarray(scale, dtype=np.float32), real.ndim, axis)
    zero = _along(np.asarray(zero_point, dtype=np.float32), real.ndim, axis)
    if real.size <= _SLAB or real.ndim == 0:
        return _quantized(real, step, zero, kind)
    result = np.empty(real.shape, dtype=kind.storage)
    rows = max(1, _SLAB * len(real) // real.size)
    for start in range(0, len(real), rows):
        part = slice(start, start + rows)
        own = [p[part] if p.ndim and len(p) == len(real) else p for p in (step, zero)]
        result[part] = _quantized(real[part], own[0], own[1], kind)
    return result


def _quantized(real: Floats, step: Floats, zero: Floats, kind: IntegerType) -> Integers:
    levels = np.rint(real / step)
    np.clip(levels, kind.min - zero, kind.max - zero, out=levels)
    levels += zero
    return levels.astype(kind.storage)


def dequantize(
    levels: Integers, scale: npt.ArrayLike, zero_point: npt.ArrayLike, axis: int | None = None
) -> Floats:
    """``(q - zero_point) * scale`` in float32, as ONNX DequantizeLinear."""
    step = _along(np.asarray(scale, dtype=np.float32), levels.ndim, axis)
    zero = _along(np.asarray(zero_point, dtype=np.int32), levels.ndim, axis)
    return np.asarray((levels.astype(np.int32) - zero).astype(np.float32) * step, np.float32)


def blocks(weight: Floats, group: int) -> Floats:
    """Split the rows of float32[N, K] into float32[N, ceil(K / group), group], zeros at the end."""
    rows, columns = weight.shape
    count = -(-columns // group)
    if count * group != columns:
        weight = np.pad(weight, ((0, 0), (0, count * group - columns)))
    return weight.reshape(rows, count, group)


def quantize_blocks(
    weight: Floats, group: int, bits: int, symmetric: bool
) -> tuple[npt.NDArray[np.uint8], Floats, npt.NDArray[np.uint8]]:
    """Round every block of ``group`` weights to nearest with a scale (and zero point) of its own.

    Symmetric: the value of largest magnitude, e, is mapped to the lowest level exactly, so all
    2^bits levels are used: ``scale = e / -2^(bits-1)`` (it may be negative), zero point
    2^(bits-1). Asymmetric: ``scale = (max - min) / (2^bits - 1)`` with 0.0 inside the range,
    or the symmetric grid where its squared error is smaller.

    | block (4 bit)         | symmetric: scale, integers | asymmetric: scale, zero, integers |
    |-----------------------|----------------------------|-----------------------------------|
    | -0.8, 0.4, 0.05, 0.7  | 0.1,   0 12 8 15           | 0.1, 8,   0 12 8 15               |
    | 0.8, -0.4, 0.0, 0.15  | -0.1,  0 12 8 6            | 0.08, 5,  15 0 5 7                |

    Args:
        weight: float32[N, K], rows are output channels.
        group: Block length along K.
        bits: 2 to 8.
        symmetric: Whether the zero point is fixed in the middle.

    Returns:
        Integers uint8[N, B, group] in [0, 2^bits - 1], scales float32[N, B] and zero points
        uint8[N, B], with B = ceil(K / group).
    """
    w = blocks(weight, group)
    top, middle = (1 << bits) - 1, 1 << (bits - 1)
    high, low = w.max(axis=2), w.min(axis=2)
    scale = (np.where(high > -low, high, low) / np.float32(-middle)).astype(np.float32)
    scale[np.abs(scale) < _TINY] = 1.0
    zero = np.full(scale.shape, middle, dtype=np.uint8)
    levels = _block_levels(w, scale, zero, top)
    if symmetric:
        return levels, scale, zero
    high, low = np.maximum(high, 0.0), np.minimum(low, 0.0)
    scale_2 = ((high - low) / np.float32(top)).astype(np.float32)
    scale_2[scale_2 < _TINY] = 1.0
    zero_2 = np.clip(np.rint(-low / scale_2), 0, top).astype(np.uint8)
    levels_2 = _block_levels(w, scale_2, zero_2, top)
    better = _block_error(w, levels_2, scale_2, zero_2) <= _block_error(w, levels, scale, zero)
    return (
        np.where(better[:, :, None], levels_2, levels),
        np.where(better, scale_2, scale),
        np.where(better, zero_2, zero),
    )


def _block_levels(
    w: Floats, scale: Floats, zero: npt.NDArray[np.uint8], top: int
) -> npt.NDArray[np.uint8]:
    levels = w / scale[:, :, None]
    np.rint(levels, out=levels)
    levels += zero[:, :, None]
    np.clip(levels, 0, top, out=levels)
    return levels.astype(np.uint8)


def _block_error(
    w: Floats, levels: npt.NDArray[np.uint8], scale: Floats, zero: npt.NDArray[np.uint8]
) -> Floats:
    """Squared error of each block, float32[N, B]."""
    noise = levels.astype(np.float32)
    noise -= zero[:, :, None]
    noise *= scale[:, :, None]
    noise -= w
    return np.asarray(np.einsum("nbg,nbg->nb", noise, noise), dtype=np.float32)


def dequantize_blocks(
    levels: npt.NDArray[np.uint8], scale: Floats, zero: npt.NDArray[np.uint8], columns: int
) -> Floats:
    """The float32[N, columns] that :func:`quantize_blocks` stands for."""
    real = (levels.astype(np.float32) - zero[:, :, None].astype(np.float32)) * scale[:, :, None]
    return np.asarray(real.reshape(levels.shape[0], -1)[:, :columns], dtype=np.float32)


def pack_int4(levels: npt.NDArray[np.uint8] | npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Pack 4-bit values two a byte along the last axis, the first in the low half.

    | values      | bytes     |
    |-------------|-----------|
    | 1, 2, 3     | 0x21 0x03 |
    | -8, 7       | 0x78      |
    | -1, -2      | 0xEF      |

    Args:
        levels: int8 in [-8, 7] or uint8 in [0, 15], any shape [..., n].

    Returns:
        uint8[..., ceil(n / 2)]; an odd end is filled with 0.
    """
    nibbles = levels.view(np.uint8) & np.uint8(15)
    if nibbles.shape[-1] % 2:
        nibbles = np.pad(nibbles, [(0, 0)] * (nibbles.ndim - 1) + [(0, 1)])
    return np.asarray(nibbles[..., 0::2] | (nibbles[..., 1::2] << np.uint8(4)), dtype=np.uint8)


def unpack_int4(packed: npt.NDArray[np.uint8], count: int, signed: bool = False) -> Integers:
    """Inverse of :func:`pack_int4`: ``count`` values along the last axis."""
    pair = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)
    nibbles = pair.reshape(*packed.shape[:-1], -1)[..., :count]
    if not signed:
        return nibbles
    return ((nibbles ^ np.uint8(8)).astype(np.int8) - np.int8(8)).astype(np.int8)


def pack_int2(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pack values in [0, 3] four a byte along the last axis, the first in the lowest bits.

    | values         | bytes     |
    |----------------|-----------|
    | 1, 2, 3, 0     | 0x39      |
    | 3, 0, 0, 1, 2  | 0x43 0x02 |
    """
    rest = -levels.shape[-1] % 4
    if rest:
        levels = np.pad(levels, [(0, 0)] * (levels.ndim - 1) + [(0, rest)])
    four = levels.reshape(*levels.shape[:-1], -1, 4) << np.arange(0, 8, 2, dtype=np.uint8)
    return np.asarray(np.bitwise_or.reduce(four, axis=-1), dtype=np.uint8)


def unpack_int2(packed: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
    """Inverse of :func:`pack_int2`: ``count`` values along the last axis."""
    four = (packed[..., None] >> np.arange(0, 8, 2, dtype=np.uint8)) & np.uint8(3)
    return np.asarray(four.reshape(*packed.shape[:-1], -1)[..., :count], dtype=np.uint8)
