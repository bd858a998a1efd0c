"""Images read back from probabilities or counts."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError

__all__ = ["decode_image"]


def decode_image(
    counts: ArrayLike | Mapping[str, int],
    shape: tuple[int, int],
    *,
    method: str = "frqi",
    low: float = 0.0,
    high: float = 1.0,
    bits: int = 0,
) -> NDArray[np.float64]:
    """Return the image that probabilities or counts of all its qubits say.

    FRQI: ``low + (high - low) (2 / pi) atan2(sqrt(p_1), sqrt(p_0))`` of each position, exact for
    exact probabilities; with N shots its error falls as 1 / sqrt(N). NEQR: the mean of the numbers
    seen at each position, exact once each was seen. A position that was never seen is NaN.

    Args:
        counts: [2^n] probabilities or counts, qubit 0 the least significant bit; or bit string
            (qubit 0 last) -> count.
        shape: (height, width) of the image; the state's are the next powers of two.
        method: "frqi" or "neqr".
        low: Brightness of angle 0 or number 0.
        high: Brightness of angle pi/2 or of the largest number.
        bits: Bits of a brightness, for NEQR.

    Returns:
        float64[height, width].

    Raises:
        UsageError: If the counts are those of another number of qubits.
    """
    if method not in ("frqi", "neqr") or (method == "neqr") != bool(bits):
        raise UsageError(
            f"there is no image by '{method}' of {bits} bits",
            hint="frqi has no bits, neqr at least one",
        )
    columns, rows = ((size - 1).bit_length() for size in (shape[1], shape[0]))
    qubits = columns + rows + (bits or 1)
    seen = _table(counts, qubits)
    size = (1 << rows, 1 << columns)
    if bits:
        parts = seen.reshape(1 << bits, *size)
        total = parts.sum(axis=0)
        number = np.tensordot(np.arange(1 << bits, dtype=np.float64), parts, axes=1)
        number = np.where(total > 0, number / np.where(total > 0, total, 1.0), np.nan)
        share = number / ((1 << bits) - 1)
    else:
        dark, bright = np.sqrt(np.maximum(seen, 0.0).reshape(2, *size))
        share = np.where(dark + bright > 0, np.arctan2(bright, dark) * 2 / pi, np.nan)
    image: NDArray[np.float64] = low + (high - low) * share
    return image[: shape[0], : shape[1]]


def _table(counts: ArrayLike | Mapping[str, int], qubits: int) -> NDArray[np.float64]:
    if isinstance(counts, Mapping):
        table = np.zeros(1 << qubits)
        for text, count in counts.items():
            key = text.replace(" ", "")
            if len(key) != qubits or set(key) - {"0", "1"}:
                raise UsageError(f"'{text}' is no outcome of {qubits} qubits")
            table[int(key, 2)] += count
        return table
    table = np.asarray(counts, dtype=np.float64).ravel()
    if len(table) != 1 << qubits:
        raise UsageError(
            f"the image has {1 << qubits} outcomes on {qubits} qubits, {len(table)} were given",
            hint="measure all of its qubits",
        )
    return table
