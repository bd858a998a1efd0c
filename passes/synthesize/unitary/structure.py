"""Unitaries that are seen to be cheap: diagonals, products with one qubit, multiplexers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qcomp.passes.synthesize.unitary.block_zxz import demultiplex, multiplexed_rz
from qcomp.passes.synthesize.unitary.sketch import Matrix, Sketch

__all__ = ["structured"]

_ZERO = 1e-12
"""Entries below are rounding."""


def structured(matrix: Matrix, write: Callable[[Matrix], Sketch]) -> Sketch | None:
    """Return the circuit of a unitary with structure; None where none is seen.

    * a diagonal: a multiplexed RZ on each qubit by those below it, ``2^n - 2`` CX gates;
    * ``u`` on one qubit times V on the others: the gates of V;
    * A or B on the others, which one by a qubit: ``V (D + D*) W``, ``2 c(n-1) + 2^(n-1)`` CX gates
      (Shende, Bullock, Markov 2006, quant-ph/0406176, theorem 12).

    Args:
        matrix: complex128[2^n, 2^n], unitary, n >= 2.
        write: Gives the circuit of a smaller unitary.
    """
    n = len(matrix).bit_length() - 1
    if np.abs(matrix - np.diag(np.diag(matrix))).max() < _ZERO:
        return _diagonal(matrix)
    half = len(matrix) // 2
    for q in range(n):
        sides = (half >> q, 2, 1 << q)
        parts = matrix.reshape(*sides, *sides).transpose(1, 4, 0, 2, 3, 5)
        block = parts.reshape(2, 2, half, half)
        others = [wire for wire in range(n) if wire != q]
        size = np.linalg.norm(block, axis=(2, 3))
        largest = np.unravel_index(size.argmax(), (2, 2))
        v = block[largest] * (np.sqrt(half) / size.max())
        u = np.einsum("ijkl,kl->ij", block, v.conj()) / half
        sketch = Sketch(n)
        if np.abs(block - u[:, :, None, None] * v).max() < _ZERO:
            sketch.one(q, u)
            sketch.extend(write(v), others)
            return sketch
        if np.abs(block[[0, 1], [1, 0]]).max() < _ZERO:
            left, angles, right = demultiplex(block[0, 0][None], block[1, 1][None])
            middle = Sketch(n)
            multiplexed_rz(middle, angles[0], n - 1)
            sketch.extend(write(right[0]), others)
            sketch.extend(middle, [*others, q])
            sketch.extend(write(left[0]), others)
            return sketch
    return None


def _diagonal(matrix: Matrix) -> Sketch:
    phases = np.angle(np.diag(matrix))
    sketch = Sketch(len(phases).bit_length() - 1)
    for target in range(sketch.num_qubits - 1, -1, -1):
        low, high = phases[: 1 << target], phases[1 << target :]
        multiplexed_rz(sketch, high - low, target)
        phases = (low + high) / 2
    sketch.phase += float(phases[0])
    return sketch
