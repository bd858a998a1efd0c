"""Orthogonal matrices on unary states: loaders and pyramids of RBS gates.

A vector of norm 1 is the state ``sum_i x[i] |e_i>``, e_i the basis state with qubit i alone in |1>
(Johri et al., 2020, arXiv:2012.04145). The gate

    RBS(t): |10> -> cos t |10> + sin t |01>,   |01> -> -sin t |10> + cos t |01>

turns the amplitudes of two such states and leaves |00> and |11> alone, so gates on neighbours are
Givens rotations of x, and n (n - 1) / 2 of them in a pyramid of depth 2 n - 3 are any orthogonal
n x n matrix (Landman, Mathur, Li, Strahm, Kazdaghli, Prakash, Kerenidis, 2022, arXiv:2212.07389).
Each costs two CX.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError
from qcomp.ir.angle import AngleLike
from qcomp.ir.circuit import Circuit

__all__ = [
    "Givens",
    "givens_of",
    "rbs",
    "unary_angles",
    "unary_loader",
    "unary_matrix",
]

_ORTHONORMAL = 1e-9
"""Largest entry of ``Q^T Q - 1`` that counts as orthonormal."""


def rbs(circuit: Circuit, angle: AngleLike, first: int, second: int) -> None:
    """Append RBS(angle): |10> of (first, second) goes to cos |10> + sin |01>.

    ``H H . CZ . RY(angle) x RY(-angle) . CZ . H H``: two CX, depth 5 with the Hadamards.
    """
    circuit.h(first).h(second).cz(first, second)
    circuit.append("ry", [first], [angle])
    circuit.append("ry", [second], [-1 * angle])
    circuit.cz(first, second).h(first).h(second)


def unary_angles(values: ArrayLike) -> NDArray[np.float64]:
    """Return the angles of :func:`unary_loader` for vectors, float64[..., n - 1].

    ``angle[i] = atan2(|x[i + 1 :]|, x[i])``; the last is ``atan2(x[n - 1], x[n - 2])``, which keeps
    the sign. The norm is lost, and a zero vector gives zeros.
    """
    x = np.asarray(values, dtype=np.float64)
    tails = np.sqrt(np.cumsum((x**2)[..., ::-1], axis=-1))[..., ::-1][..., 1:]
    tails = np.concatenate([tails[..., :-1], x[..., -1:]], axis=-1)
    return np.arctan2(tails, x[..., :-1])


def unary_loader(circuit: Circuit, angles: Sequence[AngleLike], wires: Sequence[int]) -> None:
    """Append the chain that makes ``sum_i x[i] |e_i>`` of |10...0> on wires.

    Cost: n - 1 RBS gates one after the other.

    Args:
        circuit: Circuit that is appended to; the first wire is in |1>, the others in |0>.
        angles: n - 1 angles of :func:`unary_angles`, numbers or with parameters.
        wires: n qubits.

    Raises:
        UsageError: If there are not n - 1 angles.
    """
    if len(angles) != len(wires) - 1:
        raise UsageError(f"a loader on {len(wires)} wires takes {len(wires) - 1} angles")
    for i, angle in enumerate(angles):
        rbs(circuit, angle, wires[i], wires[i + 1])


@dataclass(frozen=True, slots=True)
class Givens:
    """Rotations of neighbours that take orthonormal columns Q[n, r] to the first r axes.

    ``R_k ... R_1 Q = [diag(signs); 0]``, R_j the RBS gate by ``angles[j]`` of rows ``rows[j]`` and
    ``rows[j] + 1``.

    Attributes:
        rows: The upper row of each rotation, in the order in which they act.
        angles: Their angles, float64[k], ``k = r (2 n - r - 1) / 2``.
        signs: float64[r] of 1 and -1; all 1 where r < n.
    """

    rows: tuple[int, ...]
    angles: NDArray[np.float64]
    signs: NDArray[np.float64]

    def append(
        self, circuit: Circuit, wires: Sequence[int], angles: Sequence[AngleLike] | None = None
    ) -> None:
        """Append ``x -> Q^T x``: the first r amplitudes become ``signs * (Q^T x)``.

        Args:
            circuit: Circuit that is appended to.
            wires: n qubits.
            angles: In place of the own ones, such as parameters.
        """
        for row, angle in zip(
            self.rows, self.angles.tolist() if angles is None else angles, strict=True
        ):
            rbs(circuit, angle, wires[row], wires[row + 1])

    def append_inverse(
        self, circuit: Circuit, wires: Sequence[int], angles: Sequence[AngleLike] | None = None
    ) -> None:
        """Append ``z -> Q (signs * z)`` for z in the first r amplitudes, the others 0."""
        given = self.angles.tolist() if angles is None else angles
        for row, angle in zip(reversed(self.rows), reversed(given), strict=True):
            rbs(circuit, -1 * angle, wires[row], wires[row + 1])


def givens_of(columns: ArrayLike) -> Givens:
    """Return the rotations of neighbours that take orthonormal columns to the first axes.

    Column by column, from the last row up: rotations of different columns on different rows act at
    the same time, in 2 n - 3 layers for a square matrix. Cost: O(n^2 r).

    Args:
        columns: float64[n, r], r <= n, orthonormal.

    Raises:
        UsageError: If they are not orthonormal.
    """
    q = np.array(columns, dtype=np.float64)
    if q.ndim != 2 or not 1 <= q.shape[1] <= q.shape[0]:
        raise UsageError(f"no {list(q.shape)} array has orthonormal columns")
    n, r = q.shape
    error = float(np.abs(q.T @ q - np.eye(r)).max()) if np.isfinite(q).all() else math.inf
    if not error <= _ORTHONORMAL:
        raise UsageError(
            "the columns are not orthonormal",
            why=f"an entry of Q^T Q - 1 is {error:.3g}",
            hint="take the factors of a singular value decomposition",
        )
    rows: list[int] = []
    angles: list[float] = []
    for column in range(r):
        for row in range(n - 2, column - 1, -1):
            # RBS by t maps (a, b) to (a cos t - b sin t, a sin t + b cos t); b becomes 0.
            t = math.atan2(-q[row + 1, column], q[row, column])
            c, s = math.cos(t), math.sin(t)
            q[[row, row + 1]] = np.array([[c, -s], [s, c]]) @ q[[row, row + 1]]
            rows.append(row)
            angles.append(t)
    signs = np.sign(np.diagonal(q)).astype(np.float64)
    return Givens(tuple(rows), np.array(angles, dtype=np.float64), signs)


def unary_matrix(unitary: NDArray[np.complex128], wires: Sequence[int]) -> NDArray[np.complex128]:
    """Return what a circuit's matrix does to the unary states of wires, complex128[n, n]."""
    places = [1 << wire for wire in wires]
    return unitary[np.ix_(places, places)]
