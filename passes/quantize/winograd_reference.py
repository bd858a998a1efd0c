"""Seven-bit kernels in NumPy: products summed in 16 bits, and convolution by Winograd's F(2, 3).

**Sums in 16 bits.** Of two factors in [-63, 63] eight products fit a signed 16-bit sum, whatever
they are, and nine need not:

    8 * 63 * 63 = 31,752 <= 32,767 < 35,721 = 9 * 63 * 63

So a kernel for processors without 8-bit dot products adds eight products in int16 lanes before it
widens the sum. The u8 * s8 instruction of such processors (``vpmaddubsw``) adds two and saturates:

    2 * 255 * 127 = 64,770 > 32,767        2 * 255 * 63 = 32,130 <= 32,767

which is why weights of 7 bits, ``quantize-static{weight-bits=7}``, are exact there.

**F(2, 3).** A 3 x 3 convolution with stride 1, tile by tile of 4 x 4 inputs d and 2 x 2 outputs:

    Y = A^T [ (G g G^T) * (B^T d B) ] A            16 products a tile in place of 36

G holds halves. With G' = 2 G all is integer: U = G' g G'^T is 4 times as large, and so is Y, whose
division by 4 leaves no rest: integers in, the same integers as the direct sum out.

| tensor         | bound                | 7 bits | u8 and s8 |
|----------------|----------------------|--------|-----------|
| V = B^T d B    | 4 max abs(d)         | 252    | 1,020     |
| U = G' g G'^T  | 9 max abs(g)         | 567    | 1,143     |

Both fit int16. Their products are summed over the channels in int32, as many as
:func:`winograd_channels` says.

Source: Wu et al. 2020, "EasyQuant", arXiv:2006.16669; Lavin and Gray 2015,
arXiv:1509.09308, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.quantize.arithmetic import Integers

__all__ = ["dot_int16", "fits_winograd", "int16_terms", "winograd_channels", "winograd_conv"]

Sums = npt.NDArray[np.int64]

_B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.int16)
_G_2 = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], np.int16)
_A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.int64)
_INT16 = np.iinfo(np.int16).max
_INT32 = np.iinfo(np.int32).max


def int16_terms(left: int, right: int) -> int:
    """Return how many products of factors up to ``left`` and ``right`` fit a 16-bit sum.

    >>> int16_terms(63, 63), int16_terms(255, 63), int16_terms(255, 127)
    (8, 2, 1)
    """
    return _INT16 // (left * right)


def dot_int16(
    a: npt.NDArray[np.int8], b: npt.NDArray[np.int8], terms: int = 8
) -> npt.NDArray[np.int32]:
    """``a @ b`` with ``terms`` products at a time summed in 16 bits, which wrap around.

    Args:
        a: int8[..., K].
        b: int8[K, N].
        terms: Products in one 16-bit sum; exact up to ``int16_terms(max |a|, max |b|)``.

    Returns:
        int32[..., N].
    """
    sums = np.zeros((*a.shape[:-1], b.shape[1]), np.int32)
    for start in range(0, a.shape[-1], terms):
        left = a[..., start : start + terms].astype(np.int16)
        # NumPy's int16 product wraps as the lanes of a processor do.
        sums += np.matmul(left, b[start : start + terms].astype(np.int16)).astype(np.int32)
    return sums


def winograd_channels(left: int, right: int) -> int:
    """Return how many input channels of F(2, 3) fit 32-bit sums for such largest magnitudes.

    >>> winograd_channels(63, 63), winograd_channels(255, 127)
    (15029, 1841)
    """
    return _INT32 // (4 * left * 9 * right)


def fits_winograd(
    kernel: Sequence[int], strides: Sequence[int] = (), dilations: Sequence[int] = ()
) -> bool:
    """Whether F(2, 3) computes such a convolution: 3 x 3, stride and dilation 1."""
    return tuple(kernel) == (3, 3) and all(step == 1 for step in (*strides, *dilations))


def winograd_conv(
    x: Integers,
    w: Integers,
    x_zero: int = 0,
    *,
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
    group: int = 1,
) -> Sums:
    """Integer convolution by F(2, 3), equal to ``integer_reference.conv_integer``.

    Args:
        x: 8-bit [N, C, H, W]; padding inserts ``x_zero``.
        w: 8-bit [M, C / group, 3, 3], zero point 0.
        x_zero: Zero point of ``x``.
        pads: Top, left, bottom, right.
        strides: Ones.
        dilations: Ones.
        group: Number of groups.

    Returns:
        int64[N, M, H', W'].

    Raises:
        UsageError: Another kernel, stride or dilation, or more channels than 32-bit sums take.
    """
    if not fits_winograd(w.shape[2:], strides, dilations):
        raise UsageError(
            f"F(2, 3) has no {' x '.join(map(str, w.shape[2:]))} convolution with strides "
            f"{list(strides)} and dilations {list(dilations)}",
            hint="3 x 3 with stride and dilation 1",
        )
    centred = x.astype(np.int16) - np.int16(x_zero)
    peak = max(1, int(np.abs(centred).max(initial=0))), max(1, int(np.abs(w.astype(int)).max()))
    if w.shape[1] > winograd_channels(*peak):
        raise UsageError(
            f"{w.shape[1]} channels overflow 32-bit sums",
            hint=f"at most {winograd_channels(*peak)}",
        )
    top, left, bottom, right = list(pads) or [0] * 4
    images, channels = x.shape[:2]
    height, width = x.shape[2] + top + bottom - 2, x.shape[3] + left + right - 2
    if height < 1 or width < 1:
        return np.zeros((images, w.shape[0], max(0, height), max(0, width)), np.int64)
    rows, columns = -(-height // 2), -(-width // 2)
    below, beside = bottom + 2 * rows - height, right + 2 * columns - width
    d = np.pad(centred, ((0, 0), (0, 0), (top, below), (left, beside)))
    tiles = np.lib.stride_tricks.sliding_window_view(d, (4, 4), axis=(2, 3))[:, :, ::2, ::2]
    V = _both_sides(_B_T, tiles).reshape(images, group, channels // group, rows, columns, 16)
    U = _both_sides(_G_2, w.astype(np.int16)).reshape(group, w.shape[0] // group, -1, 16)
    # float64 products and sums of these integers are exact: they stay far below 2^53.
    M = np.einsum("ngcijt,gmct->ngmijt", V.astype(np.float64), U.astype(np.float64), optimize=True)
    M = np.rint(M).astype(np.int64).reshape(images, w.shape[0], rows, columns, 4, 4)
    Y = _both_sides(_A_T, M)
    assert not (Y & 3).any()
    whole = (Y >> 2).transpose(0, 1, 2, 4, 3, 5).reshape(images, -1, 2 * rows, 2 * columns)
    return np.ascontiguousarray(whole[:, :, :height, :width])


def _both_sides(
    transform: npt.NDArray[np.signedinteger], tiles: npt.NDArray[np.signedinteger]
) -> npt.NDArray[np.signedinteger]:
    """``T t T^T`` of every tile, in the tiles' own integer type."""
    return np.asarray(np.matmul(np.matmul(transform, tiles), transform.T))
