"""Fingerprints of affine forms, so that a kernel sees when symbols cancel.

A coefficient is a double, ``m 2**e`` with integers m and e, and so an element of the integers
modulo the Mersenne prime ``p = 2**61 - 1``. With a random weight for each parameter, ``sum of coef
* weight`` modulo p is linear in the row, exactly: rows sum to zero if, and but for one chance in
2**61 only if, their fingerprints do (Schwartz 1980; Zippel 1979).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.forms import Forms

__all__ = ["PRIME", "fingerprints"]

PRIME = (1 << 61) - 1


def _residue(value: float) -> int:
    numerator, denominator = value.as_integer_ratio()
    return numerator * pow(denominator, -1, PRIME) % PRIME


def _times(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Multiply modulo 2**61 - 1 without leaving 64 bits."""
    low, high = np.uint64((1 << 31) - 1), np.uint64(31)
    a0, a1, b0, b1 = a & low, a >> high, b & low, b >> high
    middle = a1 * b0 + a0 * b1
    m0, m1 = middle & np.uint64((1 << 30) - 1), middle >> np.uint64(30)
    low_part = _reduced(_reduced((m0 << high) + m1) + _reduced(a0 * b0))
    return _reduced(_reduced(a1 * b1) * np.uint64(2) + low_part)


def _reduced(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Reduce modulo 2**61 - 1."""
    result: NDArray[np.uint64] = np.remainder(value, np.uint64(PRIME))
    return result


def _running_sum(terms: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the sums of the first 0, 1, ... n terms."""
    out = np.zeros(len(terms) + 1, dtype=np.uint64)
    np.cumsum(terms, out=out[1:])
    return out


def fingerprints(
    forms: Forms, form: NDArray[np.int32], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return int64[m], the fingerprint in [0, p) of row ``form[k]``, 0 for no row.

    Args:
        forms: The circuit's forms.
        form: int32[m], rows, -1 for none.
        rng: Draws the weights.
    """
    out = np.zeros(len(form), dtype=np.int64)
    used = form >= 0
    if not used.any():
        return out
    weight = rng.integers(1, PRIME, size=int(forms.col.max()) + 1, dtype=np.int64)
    values, which = np.unique(forms.coef, return_inverse=True)
    residues = np.array([_residue(float(v)) for v in values], dtype=np.uint64)
    terms = _times(residues[which], weight[forms.col].astype(np.uint64))
    # Sums of halves below 2**31 stay far from overflow for any row shorter than 2**32 entries.
    low = _running_sum(terms & np.uint64((1 << 31) - 1))
    high = _running_sum(terms >> np.uint64(31))
    first, last = forms.indptr[form[used]], forms.indptr[form[used] + 1]
    low_sum, high_sum = low[last] - low[first], high[last] - high[first]
    shifted = _times(_reduced(high_sum), np.full(len(high_sum), 1 << 31, dtype=np.uint64))
    out[used] = _reduced(_reduced(low_sum) + shifted).astype(np.int64)
    return out
