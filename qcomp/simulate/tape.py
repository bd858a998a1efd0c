"""A run of gates as the flat arrays that the compiled statevector kernels read.

Every gate becomes one of four kinds of step, told from its matrix in the gate table:

=========  =====================================================  =======================
kind       what it does to the amplitudes                         coefficients
=========  =====================================================  =======================
``FLIP``   swaps the pair of the target where all controls are 1  none
``PAIR``   a 2 x 2 matrix on the target where all controls are 1  4, row by row
``DIAG``   multiplies by the entry that the operands' bits pick   2^k
``DENSE``  a 2^k x 2^k matrix on k operands                       4^k, row by row
=========  =====================================================  =======================

Coefficients of gates whose angles depend on a circuit parameter are computed for each row of
parameters; all others once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import UNIT
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES, Gate
from qcomp.ir.run import Run

__all__ = [
    "DENSE",
    "DIAG",
    "FLIP",
    "PAIR",
    "SHIFTS",
    "AngleTable",
    "Group",
    "Tape",
    "angle_table",
    "kind_of",
    "tape_of",
]

FLIP, PAIR, DIAG, DENSE = 0, 1, 2, 3

SHIFTS = ((np.pi, (1.0 - np.sqrt(2.0)) / 4.0), (np.pi / 2.0, 0.5))
"""Shift rule for entries of frequencies 0, 1/2 and 1: f' = sum_j a_j (f(x + s_j) - f(x - s_j))."""


@dataclass(frozen=True, slots=True)
class AngleTable:
    """The angles of one run, split into a constant and what the parameters add.

    Attributes:
        base: Radians without the parameters, float64[m].
        form: Row of the circuit's forms that is added, -1 for none, int32[m].
        forms: The circuit's affine forms.
    """

    base: NDArray[np.float64]
    form: NDArray[np.int32]
    forms: Forms

    def rows(self, params: NDArray[np.float64], entries: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the radians of some entries for each row of parameters.

        Args:
            params: float64[B, P].
            entries: Indices into the angle entries, any shape S.

        Returns:
            float64[B, *S].
        """
        flat = entries.reshape(-1)
        values = self.base[flat] + self.forms.evaluate(self.form[flat], params)
        return values.reshape(len(params), *entries.shape)

    def pull_back(self, gradient: NDArray[np.float64], num_params: int) -> NDArray[np.float64]:
        """Return dE/dparameter from dE/dangle: the transposed forms applied to it.

        Args:
            gradient: dE/dangle, float64[B, m].
            num_params: Number of parameters P of the circuit.

        Returns:
            float64[B, P].
        """
        moving = np.flatnonzero(self.form >= 0)
        used, where = np.unique(self.form[moving], return_inverse=True)
        by_form = np.zeros((len(used), len(gradient)))
        np.add.at(by_form, where, gradient[:, moving].T)
        return by_form.T @ self.forms.dense(used, num_params)


def angle_table(circuit: Circuit, run: Run) -> AngleTable:
    """Return the angles of ``run``, a leaf of ``circuit``."""
    return AngleTable(run.frac * UNIT + run.rem, run.form, circuit.forms)


@dataclass(frozen=True, slots=True)
class Group:
    """The steps of one gate whose coefficients are computed together.

    Attributes:
        gate: The gate.
        kind: Kind of its steps.
        entries: Angle entries of each step, int64[g, angles].
        offset: First coefficient of each step, int64[g].
        size: Coefficients of a step.
    """

    gate: Gate
    kind: int
    entries: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: int


@dataclass(frozen=True, slots=True)
class Tape:
    """Steps of a run; see the module's table.

    Attributes:
        kind: Kind of each step, int8[n].
        first: Control mask (FLIP, PAIR) or first index into ``wide``, int64[n].
        second: Target qubit (FLIP, PAIR) or number of operands, int64[n].
        offset: First coefficient, int64[n].
        varies: Whether the coefficients stand in the row's array, bool[n].
        wide: Operands of DIAG and DENSE steps, int64[w].
        constants: Coefficients that no parameter changes, complex128[c].
        inverse_constants: Those of the inverse steps.
        groups: Steps whose coefficients depend on the parameters.
        width: Coefficients of a row.
        entry: First angle entry of each step that varies, else -1, int64[n].
        angles: The run's angles.
    """

    kind: NDArray[np.int8]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    offset: NDArray[np.int64]
    varies: NDArray[np.bool_]
    wide: NDArray[np.int64]
    constants: NDArray[np.complex128]
    inverse_constants: NDArray[np.complex128]
    groups: tuple[Group, ...]
    width: int
    entry: NDArray[np.int64]
    angles: AngleTable

    @property
    def steps(self) -> Iterator[tuple[int, int, int, int, bool]]:
        """Kind, first, second, offset and whether it varies, of each step."""
        columns = (self.kind, self.first, self.second, self.offset, self.varies)
        return zip(*(column.tolist() for column in columns), strict=True)

    def coefficients(
        self, params: NDArray[np.float64], *, inverse: bool = False
    ) -> NDArray[np.complex128]:
        """Return the coefficients that depend on the parameters, complex128[B, width].

        Args:
            params: float64[B, P].
            inverse: Of the inverse steps instead.
        """
        out = np.empty((len(params), self.width), dtype=np.complex128)
        every = self.angles.rows(params, np.arange(len(self.angles.base)))
        for group in self.groups:
            angles = every[:, group.entries]
            matrix = group.gate.matrix(*np.moveaxis(angles, -1, 0))
            _store(out, group, matrix, inverse)
        return out

    def derivatives(self, params: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Return d(coefficient)/d(angle k of its gate), complex128[B, K, width].

        K is the largest number of angles of a gate that varies. Every entry of a gate's matrix
        is a trigonometric polynomial of frequencies 0, 1/2 and 1 in each angle, so the shift
        rule gives its derivative exactly.
        """
        most = max((group.entries.shape[1] for group in self.groups), default=0)
        out = np.zeros((len(params), most, self.width), dtype=np.complex128)
        for group in self.groups:
            angles = np.moveaxis(self.angles.rows(params, group.entries), -1, 0)
            for k in range(len(angles)):
                total: NDArray[np.complex128] | float = 0.0
                for shift, weight in SHIFTS:
                    for sign in (1.0, -1.0):
                        moved = angles.copy()
                        moved[k] += sign * shift
                        total = total + sign * weight * group.gate.matrix(*moved)
                assert isinstance(total, np.ndarray)
                _store(out[:, k], group, total, False)
        return out


def _store(
    out: NDArray[np.complex128], group: Group, matrix: NDArray[np.complex128], inverse: bool
) -> None:
    """Put the coefficients of ``matrix``, complex128[B, g, d, d], at the group's offsets."""
    values = _coefficients_of(matrix, group.kind, inverse)
    out[:, group.offset[:, None] + np.arange(group.size)] = values


def _coefficients_of(
    matrix: NDArray[np.complex128], kind: int, inverse: bool
) -> NDArray[np.complex128]:
    """Return the coefficients of a step with this matrix, complex128[..., size]."""
    if kind == DIAG:
        diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
        return diagonal.conj() if inverse else diagonal
    if kind == PAIR:
        low = matrix.shape[-1] // 2 - 1
        keep = [low, matrix.shape[-1] - 1]
        matrix = matrix[..., keep, :][..., keep]
    if inverse:
        matrix = np.swapaxes(matrix, -1, -2).conj()
    return matrix.reshape(*matrix.shape[:-2], -1)


@functools.cache
def kind_of(code: int) -> tuple[int, int]:
    """Return the kind of a gate's steps and its number of coefficients.

    The matrix is probed at generic angles. A gate is controlled when it leaves the state alone
    unless all operands but the last are 1.
    """
    gate = GATES[code]
    if gate.name == "mcx":
        return FLIP, 0
    probe = 0.37 + 0.51 * np.arange(gate.num_angles)
    matrix = gate.matrix(*probe)
    size = len(matrix)
    if np.array_equal(matrix, np.diag(np.diagonal(matrix))):
        return DIAG, size
    active = [size // 2 - 1, size - 1]
    rest = matrix.copy()
    rest[np.ix_(active, active)] = np.eye(2)
    if np.array_equal(rest, np.eye(size)):
        flips = np.array_equal(matrix[np.ix_(active, active)], [[0, 1], [1, 0]])
        return (FLIP, 0) if flips else (PAIR, 4)
    return DENSE, size * size


def tape_of(circuit: Circuit, run: Run) -> Tape:
    """Return the tape of a run of unitary gates; barriers are left out.

    Args:
        circuit: The circuit that the run is a leaf of.
        run: Gates without measurement and reset.
    """
    table = angle_table(circuit, run)
    unitary = np.array([gate.is_unitary for gate in GATES])
    position = np.flatnonzero(unitary[run.code])
    n = len(position)
    kind = np.zeros(n, dtype=np.int8)
    first = np.zeros(n, dtype=np.int64)
    second = np.zeros(n, dtype=np.int64)
    offset = np.zeros(n, dtype=np.int64)
    varies = np.zeros(n, dtype=np.bool_)
    entry = np.full(n, -1, dtype=np.int64)
    wide: list[NDArray[np.int64]] = []
    wide_size = 0
    constants: list[NDArray[np.complex128]] = []
    inverse_constants: list[NDArray[np.complex128]] = []
    constant_size = 0
    groups: list[Group] = []
    width = 0
    code_at = run.code[position]
    for code in np.unique(code_at):
        gate = GATES[int(code)]
        step_kind, size = kind_of(int(code))
        steps = np.flatnonzero(code_at == code)
        at = position[steps]
        kind[steps] = step_kind
        if gate.num_qubits < 0:
            for step, i in zip(steps, at, strict=True):
                start, count = int(run.qubit[i, 0]), int(run.qubit[i, 1])
                operands = run.extra[start : start + count].astype(np.int64)
                first[step] = int(np.sum(np.left_shift(np.int64(1), operands[:-1])))
                second[step] = operands[-1]
            continue
        operands = run.qubit[at, : gate.num_qubits].astype(np.int64)
        if step_kind in (FLIP, PAIR):
            first[steps] = np.left_shift(np.int64(1), operands[:, :-1]).sum(axis=1)
            second[steps] = operands[:, -1]
        else:
            first[steps] = wide_size + gate.num_qubits * np.arange(len(steps))
            second[steps] = gate.num_qubits
            wide.append(operands.reshape(-1))
            wide_size += operands.size
        entries = run.angle[at].astype(np.int64)[:, None] + np.arange(gate.num_angles)
        moving = (table.form[entries] >= 0).any(axis=1)
        varies[steps] = moving
        fixed = steps[~moving]
        if size and len(fixed):
            angles = table.base[entries[~moving]]
            matrix = gate.matrix(*np.moveaxis(angles, -1, 0))
            matrix = np.broadcast_to(matrix, (len(fixed), *matrix.shape[-2:]))
            for store, inverse in ((constants, False), (inverse_constants, True)):
                store.append(_coefficients_of(matrix, step_kind, inverse).reshape(-1))
            offset[fixed] = constant_size + size * np.arange(len(fixed))
            constant_size += size * len(fixed)
        turning = steps[moving]
        if len(turning):
            offset[turning] = width + size * np.arange(len(turning))
            entry[turning] = entries[moving, 0]
            groups.append(Group(gate, step_kind, entries[moving], offset[turning], size))
            width += size * len(turning)
    return Tape(
        kind=kind,
        first=first,
        second=second,
        offset=offset,
        varies=varies,
        wide=np.concatenate(wide) if wide else np.zeros(0, dtype=np.int64),
        constants=_joined(constants),
        inverse_constants=_joined(inverse_constants),
        groups=tuple(groups),
        width=width,
        entry=entry,
        angles=table,
    )


def _joined(parts: list[NDArray[np.complex128]]) -> NDArray[np.complex128]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.complex128)
