"""Two-qubit leaves of a larger unitary: two CX gates each, and a diagonal that moves on."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.synthesize.pair_circuits import write_pair
from qcomp.passes.synthesize.unitary.sketch import Matrix, Sketch
from qcomp.passes.synthesize.weyl import Weyl, weyl

__all__ = ["pair_sketches", "without_diagonals"]

_YY: Matrix = np.array([[0, 0, 0, -1], [0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 0]], dtype=complex)
_ZZ = np.array([1.0, -1.0, -1.0, 1.0])
_REAL = 1e-12
"""Where the imaginary part of the trace is less, two CX gates are enough as it is."""


def without_diagonals(matrix: Matrix) -> Matrix:
    """Return leaves that two CX gates write but for the last, diagonals moved on to the next.

    ``U = exp(i a ZZ) V``: V needs two CX gates exactly where ``tr(V YY V^T YY)``, V of determinant
    1, is real (Shende, Bullock, Markov 2004, quant-ph/0308045, proposition III.2). With
    ``G = U YY U^T`` that is ``tan 2a = Im tr(G YY) / Re tr(G YY ZZ)``.

    Args:
        matrix: complex128[n, 4, 4], in the order of time; what stands between them is diagonal.
    """
    out = matrix.copy()
    carried = np.ones(4, dtype=complex)
    for k in range(len(out)):
        u = out[k] * carried[None, :]
        if k < len(out) - 1:
            special = u / np.linalg.det(u) ** 0.25
            gamma = special @ _YY @ special.T @ _YY
            imaginary, real = np.trace(gamma).imag, float((np.diag(gamma) * _ZZ).sum().real)
            angle = 0.0 if abs(imaginary) < _REAL else np.arctan2(imaginary, real) / 2
            carried = np.exp(1j * angle * _ZZ)
            u = u * carried.conj()[:, None]
        out[k] = u
    return out


def pair_sketches(matrix: Matrix, *, flat: NDArray[np.bool_] | None = None) -> list[Sketch]:
    """Return the circuits of two-qubit unitaries on the wires 0 and 1.

    Args:
        matrix: complex128[n, 4, 4].
        flat: Which of them are known to need two CX gates at most; their third coordinate is
            rounding.
    """
    point = weyl(matrix)
    if flat is not None:
        point = dataclasses.replace(point, y=np.where(flat, 0.0, point.y))
    return _sketches(point, matrix)


def _sketches(point: Weyl, matrix: Matrix) -> list[Sketch]:
    circuits = write_pair(point, "turn", "cx").around(point)
    overlap = np.einsum("nij,nij->n", circuits.unitary().conj(), matrix)
    phase = np.angle(overlap)
    out = []
    for k in range(len(matrix)):
        sketch = Sketch(2)
        sketch.phase = float(phase[k])
        for wire in range(2):
            sketch.one(wire, circuits.right[k, wire])
        count = int(circuits.count[k])
        for step in range(count):
            control = int(circuits.control[k, step])
            sketch.cx(control, 1 - control)
            if step < count - 1:
                for wire in range(2):
                    sketch.one(wire, circuits.middle[k, step, wire])
        for wire in range(2):
            sketch.one(wire, circuits.left[k, wire])
        out.append(sketch)
    return out
