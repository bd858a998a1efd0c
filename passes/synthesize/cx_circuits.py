"""Two-qubit unitaries as circuits of at most three CX gates, over arrays of Cartan decompositions.

With N(x, y, z) = exp(i (x XX + y YY + z ZZ)), operators applied from right to left and ~ up to
phase, CX(a, b) with control a:

* ``N(pi/4, 0, 0) ~ H_a CX(a, b) RZ_a(-pi/2) RX_b(-pi/2) H_a``
* ``N(x, 0, 0) = H_a H_b CX(a, b) RZ_b(-2x) CX(a, b) H_a H_b``
* ``N(x, 0, z) = CX(a, b) RX_a(-2x) RZ_b(-2z) CX(a, b)``
* ``N(pi/4, 0, pi/4) = V iSWAP V^dag``, V = RX(pi/2) on both, ``iSWAP = H_b CX(b, a) CX(a, b) H_a
  S_a S_b``
* ``N(x, y, z) ~ S_a CX(b, a) RY_b(pi/2 - 2y) CX(a, b) RZ_a(pi/2 - 2z) RY_b(2x - pi/2) CX(b, a)
  SDG_b``

Sources: Vidal, Dawson 2003 (arXiv:quant-ph/0307177); Vatan, Williams 2003 (arXiv:quant-ph/0308006),
figure 6; Shende, Bullock, Markov 2003 (arXiv:quant-ph/0308045).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.gates import GATES, G, gate
from qcomp.passes.reduce.euler import euler_angles
from qcomp.passes.synthesize.blocks import CX, Matrices, oriented
from qcomp.passes.synthesize.weyl import Weyl, cx_count, kron, rotation

__all__ = [
    "MIDDLES",
    "PAULIS",
    "PairCircuits",
    "between",
    "free_of_slack",
    "mirrored",
    "restored",
    "write",
]

MIDDLES = ("h", "sx", "turn")
"""What stands between CX gates beside rotations about Z: ``h``, ``sx``, or rx and ry themselves."""

_H, _S, _SDG, _SX = (gate(name).matrix() for name in ("h", "s", "sdg", "sx"))
_EYE: Matrices = np.eye(2, dtype=complex)
PAULIS: Matrices = np.stack([_EYE, *(gate(name).matrix() for name in "xzy")])
"""I, X, Z, Y: the product of two is at the exclusive or of their numbers, up to phase."""
_QUARTER_X, _BACK_X = (rotation("x", turn) for turn in (np.pi / 2, -np.pi / 2))
_QUARTER_Z, _BACK_Z = (rotation("z", turn) for turn in (np.pi / 2, -np.pi / 2))
_HALF_Z = rotation("z", np.pi)
_QUARTER = np.pi / 4
_LEVEL = 1e-9
"""Below it an Euler angle is taken for 0 in choosing what moves; what moves does so exactly."""


@dataclass(frozen=True, slots=True)
class PairCircuits:
    """n circuits of one two-qubit gate and others on one qubit, a = 0 and b = 1.

    Attributes:
        count: int64[n], number of two-qubit gates.
        code: int64[n], which gate: ``cx``, ``rzz``, or one that is symmetric.
        control: int64[n, 3], which qubit controls each ``cx``.
        angle: float64[n, 3], the angle of each ``rzz``.
        middle: complex128[n, 2, 2, 2, 2], gates after two-qubit gate k on qubit j.
        left: complex128[n, 2, 2, 2], gates after the last.
        right: complex128[n, 2, 2, 2], gates before the first.
    """

    count: NDArray[np.int64]
    code: NDArray[np.int64]
    control: NDArray[np.int64]
    angle: NDArray[np.float64]
    middle: Matrices
    left: Matrices
    right: Matrices

    def turned(self, where: NDArray[np.bool_]) -> PairCircuits:
        """Return the circuits, with the qubits exchanged where that is asked for.

        Args:
            where: bool[n].
        """
        one, two = where[:, None, None, None], where[:, None, None, None, None]
        return replace(
            self,
            control=np.where(where[:, None], 1 - self.control, self.control),
            middle=np.where(two, self.middle[:, :, ::-1], self.middle),
            left=np.where(one, self.left[:, ::-1], self.left),
            right=np.where(one, self.right[:, ::-1], self.right),
        )

    def around(self, point: Weyl) -> PairCircuits:
        """Return circuits of N with the decompositions' gates on both sides."""
        left = np.stack([point.la, point.lb], axis=1) @ self.left
        right = self.right @ np.stack([point.ra, point.rb], axis=1)
        return replace(self, left=left, right=right)

    def unitary(self) -> Matrices:
        """Multiply the circuits out, complex128[n, 4, 4]."""
        product = kron(self.right[:, 1], self.right[:, 0])
        for k in range(3):
            used = np.flatnonzero(self.count > k)
            if not len(used):
                break
            step = self._gates(used, k)
            if k < 2:
                step = kron(self.middle[used, k, 1], self.middle[used, k, 0]) @ step
            product[used] = step @ product[used]
        return kron(self.left[:, 1], self.left[:, 0]) @ product

    def _gates(self, used: NDArray[np.intp], k: int) -> Matrices:
        """Return the matrices of two-qubit gate k of some circuits."""
        code = self.code[used]
        step: Matrices = np.broadcast_to(CX, (len(used), 4, 4)).copy()
        for kind in np.flatnonzero(np.bincount(code)).tolist():
            angles = (self.angle[used[code == kind], k],) if kind == G.RZZ else ()
            step[code == kind] = GATES[kind].matrix(*angles)
        return oriented(step, self.control[used, k] == 1)


def _about(axis: str, matrix: Matrices) -> NDArray[np.float64]:
    """Return alpha with ``matrix = R(alpha) T`` where T takes the fewest rotations.

    For X, T is ``RZ RX``, for Y it is ``RX RY``; a rotation about another axis that T would begin
    with is taken into alpha where it can be.
    """
    frame = _H if axis == "x" else _QUARTER_X
    theta, phi, lam = euler_angles(frame @ matrix @ frame.conj().T)
    flat, half = theta < _LEVEL, theta > np.pi - _LEVEL
    return np.where(flat, phi + lam, np.where(half, phi - lam + np.pi, phi + np.pi / 2))


def free_of_slack(point: Weyl, before_a: Matrices, before_b: Matrices) -> Weyl:
    """Move what commutes with N, or passes it changing qubits, from its right to its left.

    On a wall of the Weyl chamber the decomposition is not unique, and rotations that it happens to
    have on both sides of N are one too many. What moves is chosen so that the gates on the right,
    after those before them, take few rotations.

    Args:
        point: n decompositions.
        before_a: complex128[n, 2, 2], gates on the low qubit before the unitary.
        before_b: complex128[n, 2, 2], those on the high qubit.
    """
    x, y, z = point.x, point.y, point.z
    la, lb, ra, rb = (m.copy() for m in (point.la, point.lb, point.ra, point.rb))
    left = np.ones(len(x), dtype=bool)

    def rows(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
        found = np.flatnonzero(mask & left)
        left[found] = False
        return found

    # Most walls have no point on them, and what is done for none takes as long as for some.
    if len(at := rows(x == 0)):
        la[at], lb[at] = la[at] @ ra[at], lb[at] @ rb[at]
        ra[at] = rb[at] = _EYE
    if len(at := rows((x == _QUARTER) & (y == _QUARTER))):
        la[at], lb[at] = la[at] @ rb[at], lb[at] @ ra[at]
        ra[at] = rb[at] = _EYE
    if len(at := rows(z == 0)):
        for own, r, before in ((la, ra, before_a), (lb, rb, before_b)):
            turn = rotation("x", _about("x", r[at] @ before[at]))
            own[at], r[at] = own[at] @ turn, _dagger(turn) @ r[at]
    if len(at := rows((x == _QUARTER) & (z == _QUARTER))):
        for own, r, before in ((lb, ra, before_a), (la, rb, before_b)):
            turn = rotation("y", _about("y", r[at] @ before[at]))
            own[at], r[at] = own[at] @ turn, _dagger(turn) @ r[at]
    # N(x, -x, x) = Y_a N(-x, -x, -x) Y_a
    for mask, frame in ((x == y, _EYE), (x == -y, PAULIS[3])):
        if not len(at := rows(mask & (x == z))):
            continue
        turn = ra[at] @ before_a[at]
        on_b = frame @ turn @ frame
        la[at], lb[at] = la[at] @ turn, lb[at] @ on_b
        ra[at], rb[at] = _dagger(turn) @ ra[at], _dagger(on_b) @ rb[at]
    for mask, axis, sign in ((x == z, "y", 1), (z == y, "x", 1), (z == -y, "x", -1)):
        if not len(at := rows(mask)):
            continue
        angle = _about(axis, ra[at] @ before_a[at])
        turn, on_b = rotation(axis, angle), rotation(axis, sign * angle)
        la[at], lb[at] = la[at] @ turn, lb[at] @ on_b
        ra[at], rb[at] = _dagger(turn) @ ra[at], _dagger(on_b) @ rb[at]
    return Weyl(x, y, z, la, lb, ra, rb, point.error)


def _dagger(matrix: Matrices) -> Matrices:
    result: Matrices = np.swapaxes(matrix, 1, 2).conj()
    return result


def restored(point: Weyl, pauli: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the Pauli that goes to the right of N on both qubits, beside those mirrored there.

    Args:
        point: n decompositions.
        pauli: int64[n, k], the product of the Paulis on the two qubits, numbers as in ``PAULIS``.
    """
    z_flips, x_flips = pauli & 1, pauli >> 1
    out = x_flips * (point.x == _QUARTER)[:, None]
    out = out ^ 2 * z_flips * (point.z == _QUARTER)[:, None]
    result: NDArray[np.int64] = out ^ 3 * (z_flips ^ x_flips) * (point.y == _QUARTER)[:, None]
    return result


def mirrored(point: Weyl, a: NDArray[np.int64], b: NDArray[np.int64]) -> Weyl:
    """Put Paulis on both sides of N: ``N(x, y, z) ~ P N(x', y', z') P``, P on qubits a and b.

    Coordinates change signs: with the product of the Paulis I, X, Z, Y those in none, (y, z),
    (x, y), (x, z). A coordinate pi/4 stays, for ``N(-pi/4, 0, 0) ~ N(pi/4, 0, 0) XX``.

    Args:
        point: n decompositions.
        a: int64[n], the Pauli on qubit a, a row of ``PAULIS``.
        b: int64[n], that on qubit b.
    """
    pauli = a ^ b
    again = restored(point, pauli[:, None])[:, 0]
    signs = 1.0 - 2.0 * np.stack([pauli >> 1, (pauli & 1) ^ (pauli >> 1), pauli & 1])
    x, y, z = (
        np.where(np.abs(value) == _QUARTER, value, sign * value)
        for value, sign in zip((point.x, point.y, point.z), signs, strict=True)
    )
    return Weyl(
        x,
        y,
        z,
        point.la @ PAULIS[a],
        point.lb @ PAULIS[b],
        PAULIS[a ^ again] @ point.ra,
        PAULIS[b ^ again] @ point.rb,
        point.error,
    )


def write(point: Weyl, middle: str) -> PairCircuits:
    """Write the middle N of each decomposition with the fewest CX gates.

    Args:
        point: n decompositions; coordinates may have any sign, but for pi/4.
        middle: One of ``MIDDLES``.
    """
    n = len(point.x)
    count = cx_count(point)
    mids, left, right = (np.empty((n, *size, 2, 2), dtype=complex) for size in ((2, 2), (2,), (2,)))
    mids[:] = left[:] = right[:] = _EYE
    control = np.zeros((n, 3), dtype=np.int64)
    x, y, z = point.x, point.y, point.z

    one = count == 1
    if one.any():
        left[one, 0] = _H
        right[one, 0] = _BACK_Z @ _H
        right[one, 1] = _BACK_X

    two = count == 2
    if two.any():
        single = two & (z == 0)
        left[single] = right[single] = _H
        mids[single, 0, 1] = rotation("z", -2 * x[single])

        both = (x == _QUARTER) & (z == _QUARTER) & (y == 0)
        left[both] = _QUARTER_X
        left[both, 1] = _QUARTER_X @ _H
        right[both] = _S @ _QUARTER_X.conj().T
        right[both, 0] = _H @ _S @ _QUARTER_X.conj().T
        control[both, 1] = 1

        two &= ~single & ~both
        mids[two, 0, 1] = rotation("z", -2 * z[two])
        between(two, x, middle, mids, left, right)

    three = count == 3
    if three.any():
        control[three] = (1, 0, 1)
        _fill_three(three, x, y, z, middle, mids, left, right)

    code, angle = np.full(n, G.CX, dtype=np.int64), np.zeros((n, 3))
    return PairCircuits(count, code, control, angle, mids, left, right)


def between(
    rows: NDArray[np.bool_],
    x: NDArray[np.float64],
    middle: str,
    mids: Matrices,
    left: Matrices,
    right: Matrices,
) -> None:
    """``RX_a(-2x)`` between CX gates that a controls: rotations about Z pass them."""
    angle = -2 * x[rows]
    if middle == "sx":
        # RX(t) ~ RZ(pi/2) SX RZ(t + pi) SX RZ(pi/2)
        mids[rows, 0, 0] = _SX @ rotation("z", angle + np.pi) @ _SX
        left[rows, 0] = right[rows, 0] = _QUARTER_Z
    else:
        mids[rows, 0, 0] = rotation("x", angle)
    if middle != "turn":
        # RX(-pi/2) ~ Z SX Z ~ RZ(pi/2) H RZ(pi/2)
        quarter = rows & (x == _QUARTER)
        mids[quarter, 0, 0] = _H if middle == "h" else _SX
        left[quarter, 0] = right[quarter, 0] = _QUARTER_Z if middle == "h" else _HALF_Z


def _fill_three(
    rows: NDArray[np.bool_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    middle: str,
    mids: Matrices,
    left: Matrices,
    right: Matrices,
) -> None:
    """The identity of Vatan and Williams; what passes a CX gate is moved outside.

    ``RY(t) ~ RX(pi/2) RZ(pi/2 - t) H RZ(pi/2)``: the rotations about X meet across the target of
    the CX gate in the middle and cancel, those about Z pass the controls. So one ``rz`` and one
    ``h`` or ``sx`` are left of each ``ry``.
    """
    swap = rows & (y == _QUARTER)
    mids[rows, 0, 0] = rotation("z", np.pi / 2 - 2 * z[rows])
    left[rows, 0] = _S
    plain = rows if middle == "turn" else swap
    mids[plain, 0, 1] = rotation("y", 2 * x[plain] - np.pi / 2)
    mids[plain, 1, 1] = rotation("y", np.pi / 2 - 2 * y[plain])
    right[plain, 1] = _SDG
    if middle == "turn":
        return
    rows = rows & ~swap
    if middle == "h":
        mids[rows, 0, 1] = rotation("z", np.pi - 2 * x[rows]) @ _H
        mids[rows, 1, 1] = _H @ rotation("z", 2 * y[rows] - np.pi)
        left[rows, 1] = _SDG
    else:
        mids[rows, 0, 1] = rotation("z", -np.pi / 2 - 2 * x[rows]) @ _SX
        mids[rows, 1, 1] = _SX @ rotation("z", 2 * y[rows] - np.pi / 2)
        right[rows, 1] = _QUARTER_Z
