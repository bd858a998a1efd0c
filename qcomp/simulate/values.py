"""The numbers of a plan at some parameters: rotations, diagonals and coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.gates import GATES
from qcomp.simulate.plan import Gates, Plan
from qcomp.simulate.tables import fuse
from qcomp.simulate.tape import DIAG, PAIR

__all__ = ["Angles", "Values", "coefficients_of", "matrices_of", "values_of"]

Reals = NDArray[np.float64]
States = NDArray[np.complex128]


class Angles:
    """The angles of a plan's gates: one row for those that do not vary."""

    def __init__(self, plan: Plan, params: Reals) -> None:
        table = plan.angles
        self._one = table.rows(params[:1], np.arange(len(table.base)))[0]
        varying = [g.entries.reshape(-1) for g in (*plan.ones, *plan.wides) if g.varies]
        self._entries = np.unique(np.concatenate(varying)) if varying else np.zeros(0, np.int64)
        self._many = table.rows(params, self._entries)

    def of(self, gates: Gates) -> list[Reals]:
        """Return each angle of some gates, float64[g] or, of those that vary, float64[B, g]."""
        if not gates.varies:
            return list(self._one[gates.entries].T)
        where = np.searchsorted(self._entries, gates.entries)
        return [self._many[:, where[:, k]] for k in range(where.shape[1])]


@dataclass(frozen=True, slots=True)
class Values:
    """What the kernels read.

    Attributes:
        turns: Cosine and sine of each real rotation, float64[f, 2].
        start: Diagonals at the start of each monomial layer, complex128[layers, n, 2].
        end: Those at its end.
        constants: Coefficients that are the same for all rows, complex128[w].
        varying: The others, complex128[B, v].
        left: The diagonal ``l`` of each fused matrix that is split, else ones, complex128[f, 2].
        one: Matrices of the one-qubit gates that do not vary, complex128[g, 2, 2].
        many: The others, complex128[B, h, 2, 2].
        fused: The fused matrices that do not vary, complex128[f, 2, 2].
        angles: The angles of all gates.
    """

    turns: Reals
    start: States
    end: States
    constants: States
    varying: States
    left: States
    one: States
    many: States
    fused: States
    angles: Angles


def matrices_of(gates: Gates, angles: list[Reals], rows: int) -> States:
    """Return the matrices of some gates, complex128[(B,) g, d, d]."""
    matrix = GATES[gates.code].matrix(*angles)
    lead = (rows, len(gates.place)) if gates.varies else (len(gates.place),)
    return np.broadcast_to(matrix, (*lead, *matrix.shape[-2:]))


def coefficients_of(matrix: States, kind: int) -> States:
    """Return the coefficients of an operation with this matrix, complex128[..., size]."""
    if kind == DIAG:
        return np.diagonal(matrix, axis1=-2, axis2=-1)
    if kind == PAIR:
        low = matrix.shape[-1] // 2 - 1
        matrix = matrix[..., low :: matrix.shape[-1] - 1 - low, low :: matrix.shape[-1] - 1 - low]
    return matrix.reshape(*matrix.shape[:-2], -1)


def values_of(plan: Plan, params: Reals) -> Values:
    """Return the numbers of a plan.

    Args:
        plan: The plan.
        params: float64[B, P]; angles that do not vary are those of the first row.
    """
    rows, n = len(params), plan.num_qubits
    angles = Angles(plan, params)
    one = np.empty((plan.num_ones[0], 2, 2), dtype=np.complex128)
    many = np.empty((rows, plan.num_ones[1], 2, 2), dtype=np.complex128)
    for gates in plan.ones:
        matrix = matrices_of(gates, angles.of(gates), rows)
        if gates.varies:
            many[:, gates.place] = matrix
        else:
            one[gates.place] = matrix
    constants = np.empty(plan.widths[0], dtype=np.complex128)
    varying = np.empty((rows, plan.widths[1]), dtype=np.complex128)
    for gates in plan.wides:
        matrix = matrices_of(gates, angles.of(gates), rows)
        found = coefficients_of(matrix, gates.kind)
        where = gates.place[:, None] + np.arange(found.shape[-1])
        if gates.varies:
            varying[:, where] = found
        else:
            constants[where] = found
    fused = np.empty((len(plan.chain), 2, 2), dtype=np.complex128)
    fuse(plan.chain, plan.chain_varies, plan.fused_at, one, many, fused, varying)
    whole = np.flatnonzero(~plan.split & ~plan.chain_varies)
    into = plan.fused_at[whole][:, None] + np.arange(4)
    constants[into] = fused[whole].reshape(-1, 4)
    split = np.flatnonzero(plan.split)
    left, turn, right = _split(fused[split])
    turns = np.empty((len(plan.chain), 2))
    turns[split] = turn
    start = np.ones((plan.layers, n, 2), dtype=np.complex128)
    end = np.ones((plan.layers, n, 2), dtype=np.complex128)
    target = plan.chain_target[split]
    lefts = np.ones((len(plan.chain), 2), dtype=np.complex128)
    lefts[split] = left
    start[plan.after[split], target] = left
    end[plan.before[split], target] = right
    return Values(turns, start, end, constants, varying, lefts, one, many, fused, angles)


def _split(matrix: States) -> tuple[States, Reals, States]:
    """Return ``l``, (c, s) and ``r`` of ``U = diag(l) [[c, -s], [s, c]] diag(r)``.

    Args:
        matrix: Unitary matrices, complex128[f, 2, 2].
    """
    u00, u01, u10, u11 = (matrix[:, i, j] for i in (0, 1) for j in (0, 1))
    c, s = np.abs(u00), np.abs(u10)
    scale = np.sqrt(c * c + s * s)
    a, b = np.angle(u00), np.angle(u10)
    d = np.where(c >= s, np.angle(u11) - b, np.angle(-u01) - a)
    left = np.exp(1j * np.stack([a, b], axis=1))
    right = np.exp(1j * np.stack([np.zeros_like(d), d], axis=1))
    return left, np.stack([c / scale, s / scale], axis=1), right
