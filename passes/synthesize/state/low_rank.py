"""States of low Schmidt rank: a small state, copies of its bits, an isometry on each half.

``psi = sum_i s_i |u_i> |v_i>`` over the cut in the middle; kept to its 2^m greatest terms it is a
state ``sum_i s_i |i>`` of m qubits, CX that copy i to the other half, and gates on each half that
take |i> to |u_i> and |v_i>. The CX of each part are as many as its angles need by counting (an
isometry of 2^m columns in N dimensions has ``2 N 2^m - 4^m`` numbers, ``2^m`` of them phases that
the small state takes over), and the angles of all parts are fitted together. With m all of a half
this is Plesch's and Brukner's splitting.

Sources: Plesch, Brukner 2011 (arXiv:1003.5760); Araujo, Blank, Araujo, da Silva 2023
(arXiv:2111.03132).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.synthesize.state.cx_form import Matrices
from qcomp.passes.synthesize.state.fit import Fit, fit_shape, least_cx, ring_pairs

__all__ = ["low_rank_fit", "low_rank_pairs", "schmidt", "truncated"]


def schmidt(vector: Matrices) -> NDArray[np.float64]:
    """Return the Schmidt coefficients over the cut in the middle, greatest first."""
    wires = len(vector).bit_length() - 1
    values: NDArray[np.float64] = np.linalg.svd(
        vector.reshape(-1, 1 << wires // 2), compute_uv=False
    ).astype(np.float64)
    return values


def truncated(vector: Matrices, bits: int) -> tuple[Matrices, float]:
    """Return the state of the ``2^bits`` greatest Schmidt terms, norm 1, and its fidelity."""
    wires = len(vector).bit_length() - 1
    left, values, right = np.linalg.svd(vector.reshape(-1, 1 << wires // 2), full_matrices=False)
    rank = 1 << bits
    kept: Matrices = ((left[:, :rank] * values[:rank]) @ right[:rank]).reshape(-1)
    weight = float((values[:rank] ** 2).sum())
    return kept / np.sqrt(weight), weight / float((values**2).sum())


def _isometry_cx(wires: int, bits: int, real: bool) -> int:
    """Return the CX whose angles are enough for ``2^bits`` columns on some wires."""
    size, columns = 1 << wires, 1 << bits
    if real:
        numbers = size * columns - columns * (columns + 1) // 2
        return max(0, -((wires - numbers) // 2))
    numbers = 2 * size * columns - columns * columns - columns
    return max(0, -((2 * wires - numbers) // 4))


def low_rank_pairs(wires: int, bits: int, real: bool, extra: int = 0) -> NDArray[np.int64]:
    """Return the CX of a state of Schmidt rank ``2^bits``, int64[K, 2].

    Args:
        wires: Qubits; the lower half is ``wires // 2``.
        bits: Qubits of the small state.
        real: Whether gates are RY only.
        extra: CX beyond what counting asks for, on each part.
    """
    low = wires // 2
    parts = []
    if bits > 1:
        parts.append(ring_pairs(bits, least_cx(bits, real) + extra))
    if bits:
        parts.append(np.array([(i, low + i) for i in range(bits)], dtype=np.int64))
    for start, size in ((0, low), (low, wires - low)):
        if size > 1:
            count = _isometry_cx(size, bits, real) + extra
            parts.append(start + ring_pairs(size, count))
    return np.concatenate(parts) if parts else np.empty((0, 2), dtype=np.int64)


def low_rank_fit(vector: Matrices, bits: int, until: float, steps: int = 80) -> Fit:
    """Fit a state cut to Schmidt rank ``2^bits``; a CX more on each part where it is not met.

    Args:
        vector: float64[2^n] or complex128[2^n] of norm 1.
        bits: Qubits of the small state.
        until: Loss that is small enough, against the state that is cut.
        steps: Steps of a try at most.
    """
    wires = len(vector).bit_length() - 1
    goal, _ = truncated(vector, bits)
    real = not np.iscomplexobj(vector)
    best: Fit | None = None
    for extra in range(4):
        pairs = low_rank_pairs(wires, bits, real, extra)
        found = fit_shape(goal, pairs, steps=steps, until=until, seed=1)
        if best is None or found.loss < best.loss:
            best = found
        if found.loss <= until:
            break
    assert best is not None
    return best
