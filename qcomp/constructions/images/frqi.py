"""FRQI and NEQR: an image as a state over positions and brightness, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.constructions.images.decode import decode_image
from qcomp.constructions.images.tables import Table, append_table, plan_table
from qcomp.errors import UsageError, suggest
from qcomp.ir.circuit import Circuit

__all__ = ["IMAGES", "ImageState", "encode_image", "frqi", "neqr"]

MAX_QUBITS = 20
"""Most qubits of an image's positions."""


@dataclass(frozen=True, slots=True)
class ImageState:
    """An image as a circuit from |0...0>, and what reads it back.

    Attributes:
        method: "frqi" or "neqr".
        circuit: Its qubits are the columns' bits, the rows' bits, and then the brightness.
        shape: (height, width) of the image.
        padded: The same of the state, powers of two.
        low: Brightness of angle 0, or of number 0.
        high: Brightness of angle pi/2, or of the largest number.
        bits: Bits of a brightness; 0 for FRQI, whose brightness is an angle.
        tables: How the brightness was written, a table for each of its qubits.
        dropped: Largest change of a pixel by weights that were left out.
    """

    method: str
    circuit: Circuit
    shape: tuple[int, int]
    padded: tuple[int, int]
    low: float
    high: float
    bits: int
    tables: tuple[Table, ...]
    dropped: float

    @property
    def cost(self) -> str:
        """What the image costs, in one sentence."""
        stats = self.circuit.stats()
        ways = " and ".join(dict.fromkeys(table.method for table in self.tables))
        return (
            f"{self.shape[0]}x{self.shape[1]} pixels by '{self.method}' ({ways}): "
            f"{stats.qubits} qubits, {stats.two_qubit} two-qubit gates, depth {stats.depth}"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, a sentence each."""
        found = [self.cost]
        if self.padded != self.shape:
            found.append(
                f"the image of {self.shape[0]}x{self.shape[1]} pixels was padded to "
                f"{self.padded[0]}x{self.padded[1]} by repeating its last row and column; "
                "decode() cuts that off"
            )
        if self.dropped > 0:
            share = self.dropped / (self.high - self.low)
            found.append(
                f"left out weights change a pixel by at most {self.dropped:.3g} ({share:.1%} of "
                "the range of brightness)"
            )
        return tuple(found)

    def decode(self, counts: ArrayLike | Mapping[str, int]) -> NDArray[np.float64]:
        """Return the image that measurements say, see :func:`decode_image`."""
        return decode_image(
            counts, self.shape, method=self.method, low=self.low, high=self.high, bits=self.bits
        )


def frqi(
    image: ArrayLike,
    *,
    epsilon: float = 0.0,
    way: str = "auto",
    low: float | None = None,
    high: float | None = None,
) -> ImageState:
    """Return ``2^-n/2 sum_i (cos t_i |0> + sin t_i |1>) |i>``, ``t_i`` from 0 (low) to pi/2 (high).

    Flexible representation of quantum images (Le, Dong and Hirota, 2011). The rotations by
    ``2 t_i`` are written as in 'Improved FRQI on superconducting processors and its restrictions in
    the NISQ era': Gray codes, dropped Walsh weights, merged equal pixels, relative phases;
    :func:`~qcomp.constructions.images.tables.plan_table` takes the cheapest.
    Cost: H on each position qubit, ``2^n - 1`` two-qubit gates at most for 2^n pixels.

    Args:
        image: Real numbers [h, w].
        epsilon: Weights of the angles ``2 t`` of at most so many radians are dropped.
        way: "walsh", "cubes" or "auto".
        low: Brightness of angle 0; the smaller of 0 and the darkest pixel by default.
        high: Brightness of angle pi/2; the brightest pixel by default.

    Raises:
        UsageError: If it is no image, or a number is out of its range.
    """
    pixels, padded, low, high = _checked(image, epsilon, way, low, high)
    angles = pi * (padded - low) / (high - low)
    table = plan_table(angles.ravel(), epsilon=epsilon, method=way)
    change = float(np.abs(table.angles() - angles.ravel()).max()) * (high - low) / pi
    circuit = _positions(padded, 1, "frqi")
    append_table(circuit, table, range(table.bits), table.bits)
    dropped = change if change > 1e-9 * (high - low) else 0.0
    return ImageState("frqi", circuit, pixels.shape, padded.shape, low, high, 0, (table,), dropped)


def neqr(
    image: ArrayLike,
    *,
    bits: int = 0,
    way: str = "auto",
    low: float | None = None,
    high: float | None = None,
) -> ImageState:
    """Return ``2^-n/2 sum_i |v_i> |i>``, ``v_i`` the brightness as a whole number of some bits.

    Novel enhanced quantum representation (Zhang, Lu, Gao and Wang, 2013). Each bit is a qubit
    turned from |0> by pi where the bit is set, by the means of :func:`frqi`, so equal pixels are
    merged in each bit. Cost: ``2^n - 1`` two-qubit gates at most for each bit.

    Args:
        image: Real numbers [h, w].
        bits: Bits of a brightness; by default as many as whole numbers from 0 need, else 8.
        way: "walsh", "cubes" or "auto".
        low: Brightness of number 0; the smaller of 0 and the darkest pixel by default.
        high: Brightness of the largest number; with whole numbers and ``bits`` left open
            ``2^bits - 1``, else the brightest pixel.

    Raises:
        UsageError: If it is no image, or a number is out of its range.
    """
    pixels = np.asarray(image, dtype=np.float64)
    whole = bool(pixels.size and np.array_equal(pixels, np.round(pixels)) and pixels.min() >= 0)
    if not 0 <= bits <= 16:
        raise UsageError(f"a brightness has 1 .. 16 bits, not {bits}", hint="8 is usual")
    if not bits:
        needed = int(pixels.max()).bit_length() if whole else 8
        bits = max(1, min(needed, 16))
        if whole and high is None and low is None and needed <= 16:
            low, high = 0.0, float((1 << bits) - 1)
    pixels, padded, low, high = _checked(image, 0.0, way, low, high)
    top = (1 << bits) - 1
    share = top * (padded - low) / (high - low)
    numbers = np.round(share).astype(np.int64).ravel()
    circuit = _positions(padded, bits, "neqr")
    tables = []
    for bit in range(bits):
        table = plan_table(pi * (numbers >> bit & 1).astype(np.float64), method=way)
        append_table(circuit, table, range(table.bits), table.bits + bit)
        tables.append(table)
    rounded = float(np.abs(share.ravel() - numbers).max()) * (high - low) / top
    dropped = rounded if rounded > 1e-9 * (high - low) else 0.0
    return ImageState(
        "neqr", circuit, pixels.shape, padded.shape, low, high, bits, tuple(tables), dropped
    )


IMAGES: Mapping[str, Callable[..., ImageState]] = MappingProxyType({"frqi": frqi, "neqr": neqr})
"""Name -> function of an image and options."""


def encode_image(image: ArrayLike, method: str = "frqi", **options: object) -> ImageState:
    """Return an image as a state.

    Args:
        image: Real numbers [h, w].
        method: "frqi" or "neqr".
        options: Those of the method.

    Raises:
        UsageError: If there is no such method, or the method takes no such image or option.
    """
    if method not in IMAGES:
        raise UsageError(f"there is no method '{method}' for images", hint=suggest(method, IMAGES))
    return IMAGES[method](image, **options)


def _checked(
    image: ArrayLike, epsilon: float, way: str, low: float | None, high: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
    """Return (pixels, pixels padded to powers of two, low, high)."""
    raw = np.asarray(image)
    if raw.ndim != 2 or not raw.size or raw.dtype.kind not in "biuf":
        raise UsageError(
            f"an image is a matrix of real numbers, not {raw.dtype} of shape {list(raw.shape)}",
            hint="give one channel [h, w] at a time",
        )
    pixels = raw.astype(np.float64)
    if not np.isfinite(pixels).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(pixels))[0]]
        raise UsageError(f"the pixel {at} is {pixels[tuple(at)]}", hint="replace it by a number")
    if epsilon < 0 or not np.isfinite(epsilon):
        raise UsageError(f"epsilon must not be negative, not {epsilon}", hint="0 drops nothing")
    if way not in ("auto", "walsh", "cubes"):
        raise UsageError(f"there is no way '{way}'", hint="one of auto, walsh, cubes")
    sizes = [(size - 1).bit_length() for size in pixels.shape]
    if sum(sizes) > MAX_QUBITS:
        raise UsageError(
            f"an image of {pixels.shape[0]}x{pixels.shape[1]} pixels is too large",
            why=f"it has more than 2^{MAX_QUBITS} of them, each a rotation",
            hint="cut it into tiles",
        )
    low = min(0.0, float(pixels.min())) if low is None else float(low)
    high = float(pixels.max()) if high is None else float(high)
    if high <= low and low == float(pixels.min()) == float(pixels.max()):
        high = low + 1.0  # an image of one brightness, dark
    if not low <= float(pixels.min()) <= float(pixels.max()) <= high or high <= low:
        raise UsageError(
            f"the pixels go from {pixels.min():g} to {pixels.max():g}, not from {low:g} to "
            f"{high:g}",
            hint="leave low and high out",
        )
    more = [(0, (1 << size) - have) for size, have in zip(sizes, pixels.shape, strict=True)]
    return pixels, np.pad(pixels, more, mode="edge"), low, high


def _positions(padded: NDArray[np.float64], more: int, name: str) -> Circuit:
    bits = padded.size.bit_length() - 1
    circuit = Circuit(bits + more, name=name)
    for q in range(bits):
        circuit.h(q)
    return circuit
