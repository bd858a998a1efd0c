"""Linear reversible circuits: an invertible matrix over GF(2) as CX gates, by Patel, Markov, Hayes.

``|x> -> |A x>`` is a product of row additions ``row t += row c``, one a ``cx c, t``. Gaussian
elimination takes n^2 of them; here the columns are taken in sections of w, and rows that are the
same inside a section are first cleared by one addition each, which leaves 2^w patterns to
eliminate. One triangle takes at most ``n^2/w + n + n (2^w - 1)`` additions, so a matrix
O(n^2 / log n) with w = log2(n) / 2, and no method takes fewer than that in general.

Source: Patel, Markov, Hayes 2003 (arXiv:quant-ph/0302002), algorithm 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.kernels import kernel
from qcomp.passes.reduce.leaves import call

__all__ = ["linear_reversible", "lower_triangle"]

Matrix = NDArray[np.int64]


@kernel()
def lower_triangle(n: int, width: int, a: Any, seen: Any, out: Any) -> int:
    """Clear a matrix below its diagonal by additions of rows; return how many.

    a: int[n n], rows of zeros and ones, invertible; upper triangular with ones on the diagonal
    afterwards. width: columns of a section. seen: int[2^width], work space. out: int[2 n (n + 1)],
    (c, t) of each ``row t += row c``, in order.
    """
    count = 0
    for start in range(0, n, width):
        stop = min(start + width, n)
        for k in range(1 << (stop - start)):
            seen[k] = -1
        for t in range(start, n):
            pattern = 0
            for j in range(start, stop):
                pattern = 2 * pattern + a[t * n + j]
            if pattern == 0:
                continue
            c = seen[pattern]
            if c < 0:
                seen[pattern] = t
                continue
            for j in range(n):
                a[t * n + j] ^= a[c * n + j]
            out[2 * count] = c
            out[2 * count + 1] = t
            count += 1
        for d in range(start, stop):
            for r in range(d + 1, n):
                if a[r * n + d] == 0:
                    continue
                if a[d * n + d] == 0:
                    for j in range(n):
                        a[d * n + j] ^= a[r * n + j]
                    out[2 * count] = r
                    out[2 * count + 1] = d
                    count += 1
                for j in range(n):
                    a[r * n + j] ^= a[d * n + j]
                out[2 * count] = d
                out[2 * count + 1] = r
                count += 1
    return count


def _lower(a: Matrix, width: int) -> tuple[Matrix, Matrix]:
    """Return (what is left of a matrix, the additions int64[k, 2] that cleared it)."""
    n = len(a)
    left = a.reshape(-1).astype(np.int64)
    out = np.zeros(2 * n * (n + 2), dtype=np.int64)
    seen = np.zeros(1 << min(width, n), dtype=np.int64)
    count = call(lower_triangle, n * n * n // 4, (n, width), (left, seen, out))
    return left.reshape(n, n), out[: 2 * count].reshape(-1, 2)


def _written(a: Matrix, width: int) -> Matrix:
    """Return the CX gates of a matrix, int64[k, 2], (control, target), the first applied first.

    ``R_k .. R_1 A = U`` and ``S_j .. S_1 U^T = 1`` give ``A = R_1 .. R_k S_j^T .. S_1^T``.
    """
    upper, lower = _lower(a, width)
    _, rest = _lower(np.ascontiguousarray(upper.T), width)
    return np.concatenate([rest[:, ::-1], lower[::-1]])


def linear_reversible(a: NDArray[np.integer], width: int | None = None) -> Matrix:
    """Write an invertible matrix over GF(2) as CX gates.

    The matrix, its transpose, its inverse and both are tried, read backwards and with controls and
    targets exchanged as that asks for, at every width of a section; the fewest gates count.

    Args:
        a: [n, n], zeros and ones: wire i is to hold the sum of the wires j with ``a[i, j] = 1``.
        width: Columns of a section; 1 to log2(n) + 1, each, by default.

    Returns:
        int64[k, 2], (control, target) of each CX, the first applied first.

    Raises:
        ValueError: If the matrix is not square, or has no inverse.
    """
    a = np.asarray(a, dtype=np.int64) & 1
    n = len(a)
    if a.shape != (n, n):
        raise ValueError(f"the matrix of a linear map is square, this one is {a.shape}")
    if n == 0:
        return np.zeros((0, 2), dtype=np.int64)
    widths = range(1, n.bit_length() + 1) if width is None else (width,)
    best = _written(a, widths[0])
    if not np.array_equal(_product(best, n), a):
        raise ValueError("the matrix has no inverse over GF(2)")
    inverse = _product(best[::-1], n)
    for w in widths:
        tries = (
            _written(a, w),
            _written(np.ascontiguousarray(a.T), w)[::-1, ::-1],
            _written(inverse, w)[::-1],
            _written(np.ascontiguousarray(inverse.T), w)[:, ::-1],
        )
        best = min((best, *tries), key=len)
    return np.ascontiguousarray(best)


def _product(gates: Matrix, n: int) -> Matrix:
    """Return the matrix of CX gates."""
    out = np.eye(n, dtype=np.int64)
    for c, t in gates.tolist():
        out[t] ^= out[c]
    return out
