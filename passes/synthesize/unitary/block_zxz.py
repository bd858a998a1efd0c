"""Block-ZXZ decomposition of unitaries on n qubits, all matrices of one size at once.

With t the highest qubit and A, B, C, ... on the others (De Vos, De Baerdemacker 2016,
arXiv:1512.07240)::

    U = (A1 (+) A2) H_t (I (+) B) H_t (I (+) C)
    A1 = (S_X + i S_Y) U_X,  C^dag = i U_Y^dag U_X,  A2 = U_21 + U_22 C^dag,  B = 2 A1^dag X - I

from the polar decompositions ``X = S_X U_X``, ``Y = S_Y U_Y`` of the upper blocks. A multiplexer is
``A1 (+) A2 = V (D (+) D^dag) W`` with ``A1 A2^dag = V D^2 V^dag`` (Shende, Bullock, Markov 2006,
quant-ph/0406176, theorem 12), its middle a multiplexed RZ. The outer multiplexers give W and V to
the inner one, and a CX gate each, which beyond H_t is a CZ; so there are four unitaries on n - 1
qubits and ``3 2^(n-1) - 2`` CX gates (Krol, Al-Ars 2024, arXiv:2403.13692, section 4).

Leaves are on qubits 0 .. k-1, and all that stands between them is diagonal there: a leaf may be
written up to a diagonal on its left, which the next leaf takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.constructions.multiplexers import gray_code, walsh_angles
from qcomp.passes.synthesize.unitary.sketch import Matrix, Sketch

__all__ = ["Leaves", "demultiplex", "eigen", "multiplexed_rz", "split"]

_OFF = 1e-13
"""Most of a diagonalised matrix that may be off the diagonal before a slower method is taken."""

_ZERO = 1e-14
"""Rotations by less are left out."""

_SMALL = 32
"""Rows up to which many matrices are diagonalised at once."""

_H: Matrix = np.array([[1, 1], [1, -1]], dtype=complex) / np.sqrt(2)


def eigen(matrix: Matrix) -> tuple[NDArray[np.float64], Matrix]:
    """Return phases and orthonormal eigenvectors of unitaries.

    ``cos(a) Re U + sin(a) Im U``, the Hermitian parts, has the eigenvectors of U unless two
    eigenvalues collide in it; then the matrix is brought to Schur's form.

    Args:
        matrix: complex128[b, m, m], unitary.

    Returns:
        float64[b, m] phases p and complex128[b, m, m] V, ``U = V diag(exp(i p)) V^dag``.
    """
    adjoint = np.swapaxes(matrix, 1, 2).conj()
    b, m = matrix.shape[:2]
    vectors = np.empty_like(matrix)
    poor = np.ones(b, dtype=bool)
    if m <= _SMALL:
        turn = np.exp(0.7j)
        _, vectors = np.linalg.eigh((turn.conj() * matrix + turn * adjoint) / 2)
        inside = np.swapaxes(vectors, 1, 2).conj() @ matrix @ vectors
        inside[:, range(m), range(m)] = 0
        poor = np.abs(inside).max(axis=(1, 2)) > _OFF
    if poor.any():
        from scipy.linalg import schur

        for k in np.flatnonzero(poor):
            vectors[k] = schur(matrix[k], output="complex")[1]
    values = np.einsum("bji,bjk,bki->bi", vectors.conj(), matrix, vectors)
    return np.angle(values), vectors


def demultiplex(one: Matrix, two: Matrix) -> tuple[Matrix, NDArray[np.float64], Matrix]:
    """Return V, angles and W with ``one (+) two = (I (x) V) RZ_t(angles) (I (x) W)``.

    Args:
        one: complex128[b, m, m], where the qubit t is 0.
        two: The same, where it is 1.

    Returns:
        complex128[b, m, m], float64[b, m] radians, complex128[b, m, m].
    """
    phases, v = eigen(one @ np.swapaxes(two, 1, 2).conj())
    d = np.exp(0.5j * phases)
    w = d[:, :, None] * (np.swapaxes(v, 1, 2).conj() @ two)
    return v, -phases, w


def _polar(block: Matrix) -> tuple[Matrix, Matrix]:
    """Return S and U with ``block = S U``, S positive semidefinite and U unitary."""
    v, s, w = np.linalg.svd(block)
    return (v * s[:, None, :]) @ np.swapaxes(v, 1, 2).conj(), v @ w


@dataclass(frozen=True, slots=True)
class Leaves:
    """A unitary as ``4^d`` unitaries on few qubits, and multiplexed rotations between them.

    Attributes:
        matrix: complex128[4^d, 2^k, 2^k], in the order of time.
        angles: For each of the levels, the widest last: float64[b, 3, 2^j], the angles of the
            three multiplexed RZ of each of its b unitaries.
    """

    matrix: Matrix
    angles: tuple[NDArray[np.float64], ...]

    def join(self, sketch: Sketch, number: int) -> None:
        """Append what stands between the leaves ``number - 1`` and ``number``."""
        level = 0
        while number % 4 == 0:
            number //= 4
            level += 1
        kind = number % 4
        angles = self.angles[level][number // 4, kind - 1]
        target = len(angles).bit_length() - 1
        if kind == 3:
            sketch.one(target, _H)
        multiplexed_rz(sketch, angles, target, without=("last", "none", "first")[kind - 1])
        if kind == 1:
            sketch.one(target, _H)


def multiplexed_rz(
    sketch: Sketch, angles: NDArray[np.float64], target: int, without: str = "none"
) -> None:
    """Append ``sum_j |j><j| (x) RZ(angles[j])``, controls 0 .. target-1: 2^target CX gates.

    The target walks through parities of the controls in the order of a Gray code; those whose
    rotation is zero are left out.

    Args:
        sketch: Where to.
        angles: float64[2^target], radians.
        target: The qubit that turns.
        without: ``last`` or ``first`` leaves out the CX gate at that end, controlled by the highest
            control: what is left is the rotation and that CX gate after, or before, it.
    """
    turns = walsh_angles(angles)
    masks = gray_code(target)
    high = 1 << target >> 1
    order = np.flatnonzero(np.abs(np.remainder(turns + np.pi, 2 * np.pi) - np.pi) > _ZERO).tolist()
    # A turn by 2 pi is a sign.
    sketch.phase += float(np.pi * np.rint(np.delete(turns, order) / (2 * np.pi)).sum())
    here, end = (high if without == "first" else 0), (high if without == "last" else 0)
    for k in reversed(order) if without == "first" else order:
        here = _flip(sketch, here, int(masks[k]), target)
        sketch.rz(target, float(turns[k]))
    _flip(sketch, here, end, target)


def _flip(sketch: Sketch, here: int, there: int, target: int) -> int:
    """Append the CX gates that bring the target from one parity of the controls to another."""
    for control in range(target):
        if (here ^ there) >> control & 1:
            sketch.cx(control, target)
    return there


def split(matrix: Matrix, qubits: int) -> Leaves:
    """Split a unitary down to leaves.

    Args:
        matrix: complex128[2^n, 2^n].
        qubits: Qubits k of a leaf, 2 <= k <= n.

    Cost: O(8^n) operations.
    """
    level = matrix[None]
    angles: list[NDArray[np.float64]] = []
    while level.shape[1] > 1 << qubits:
        b, size = level.shape[:2]
        half = size // 2
        x, y = level[:, :half, :half], level[:, :half, half:]
        low, high = level[:, half:, :half], level[:, half:, half:]
        (s_x, u_x), (s_y, u_y) = _polar(x), _polar(y)
        a1 = (s_x + 1j * s_y) @ u_x
        c_dag = 1j * np.swapaxes(u_y, 1, 2).conj() @ u_x
        a2 = low + high @ c_dag
        inner = 2 * np.swapaxes(a1, 1, 2).conj() @ x - np.eye(half)
        v_a, turn_a, w_a = demultiplex(a1, a2)
        eye = np.broadcast_to(np.eye(half, dtype=complex), x.shape)
        v_c, turn_c, w_c = demultiplex(eye, np.swapaxes(c_dag, 1, 2).conj())
        # The CX gates of the outer rotations, controlled by the highest qubit, are CZ gates here.
        sign = np.where(np.arange(half) >= half // 2, -1.0, 1.0)
        one, two = w_a @ v_c, sign[:, None] * (w_a @ inner @ v_c) * sign[None, :]
        v_b, turn_b, w_b = demultiplex(one, two)
        level = np.stack([w_c, w_b, v_b, v_a], axis=1).reshape(4 * b, half, half)
        angles.append(np.stack([turn_c, turn_b, turn_a], axis=1))
    return Leaves(level, tuple(angles[::-1]))
