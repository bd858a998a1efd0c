"""Equality by two-qubit windows: the blocks of one circuit cancel those of the other, one by one.

The circuit, followed by the inverse of the other, is read gate by gate. Each wire keeps a stack of
two-qubit blocks; a gate joins the block on top when that stands on the same two wires, else it
opens a new block. A block that has become a product of two one-qubit matrices is taken off, and
these join what lies below. Two circuits are the same when nothing but phases is left.

Every block is a certificate of its own: 4 x 4 matrices of at most as many gates as it had, so the
rounding adds up over the blocks that were taken off and not over the circuit's dimension. Works for
any number of qubits, decides what differs in blocks of two neighbours only, and can only say yes.

Written apart from the passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, NUM_ANGLES, NUM_QUBITS, G, Gate
from qcomp.ir.transform import expand, operation_angles

__all__ = ["same_by_windows"]

PRODUCT = 1e-10
"""Largest distance to a product of two matrices at which a block is taken for one."""

OPERATIONS = 2_000_000
"""Operations of both circuits up to which windows are tried."""

Matrix = NDArray[np.complex128]
Step = tuple[tuple[int, ...], Matrix]


def same_by_windows(a: Circuit, b: Circuit) -> float | None:
    """Return a bound of the distance of two circuits up to global phase, None if none was found.

    Args:
        a: Straight-line and unitary, without parameters.
        b: The same, over the same qubits.

    Returns:
        Bound of ``min_phase ||A - phase B||`` in operator norm, but for the rounding inside the
        matrix of one block.
    """
    if len(a) + len(b) > OPERATIONS:
        return None
    wires = _Wires([[] for _ in range(a.num_qubits)])
    for qubits, matrix in _steps(a):
        wires.put(qubits, matrix)
    for qubits, matrix in reversed(list(_steps(b))):
        wires.put(qubits, matrix.conj().T)
    return wires.distance()


@dataclass(slots=True, eq=False)
class _Block:
    """A product of gates on two wires; the first is the low bit of the matrix index."""

    wires: tuple[int, int]
    matrix: Matrix


@dataclass(slots=True)
class _Wires:
    """The blocks of each wire, the newest on top.

    Attributes:
        stacks: Blocks of each wire.
        first: What stands before a wire's blocks, complex128[2, 2].
        error: What the blocks that were taken off differed by from products, summed.
    """

    stacks: list[list[_Block]]
    first: list[Matrix] = field(default_factory=list)
    error: float = 0.0

    def __post_init__(self) -> None:
        self.first = [np.eye(2, dtype=complex) for _ in self.stacks]

    def put(self, qubits: tuple[int, ...], matrix: Matrix) -> None:
        """Put a gate after everything so far."""
        if len(qubits) == 1:
            self._put_one(qubits[0], matrix)
            return
        a, b = qubits
        below = self.stacks[a][-1] if self.stacks[a] else None
        if below is not None and self.stacks[b] and self.stacks[b][-1] is below:
            if below.wires != (a, b):
                matrix = matrix.reshape(2, 2, 2, 2).transpose(1, 0, 3, 2).reshape(4, 4)
            below.matrix = matrix @ below.matrix
            self._take_off(below)
            return
        block = _Block((a, b), matrix)
        self.stacks[a].append(block)
        self.stacks[b].append(block)

    def _put_one(self, wire: int, matrix: Matrix) -> None:
        if not self.stacks[wire]:
            self.first[wire] = matrix @ self.first[wire]
            return
        block = self.stacks[wire][-1]
        # Index (high bit, low bit, columns): the wire's bit is the one that the matrix acts on.
        parts = block.matrix.reshape(2, 2, 4)
        if block.wires[0] == wire:
            block.matrix = np.matmul(matrix, parts).reshape(4, 4)
        else:
            block.matrix = (matrix @ parts.reshape(2, 8)).reshape(4, 4)

    def _take_off(self, block: _Block) -> None:
        """Take a block off that is a product, and hand its factors to what lies below."""
        # realigned[high, low] = high factor's entries times low factor's entries
        realigned = block.matrix.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)
        at = int(np.abs(realigned).argmax())
        row, column = divmod(at, 4)
        pivot = realigned[row, column]
        high, low = realigned[:, column] / pivot, realigned[row]
        distance = float(np.linalg.norm(realigned - np.outer(high, low)))
        if distance > PRODUCT:
            return
        self.error += distance
        a, b = block.wires
        self.stacks[a].pop()
        self.stacks[b].pop()
        self._put_one(a, _special(low.reshape(2, 2)))
        self._put_one(b, _special(high.reshape(2, 2)))

    def distance(self) -> float | None:
        """Return the bound once nothing but phases is left, else None."""
        if any(self.stacks):
            return None
        total = self.error
        for matrix in self.first:
            phase = np.trace(matrix) / 2
            total += float(np.linalg.norm(matrix - phase * np.eye(2))) + abs(1 - abs(phase))
        return float(total)


def _special(matrix: Matrix) -> Matrix:
    """Return the nearest matrix of SU(2), up to sign, of a multiple of a unitary.

    Without it the rounding of one factor would grow with every block below.
    """
    matrix = matrix / np.sqrt(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    x = (matrix[0, 0] + matrix[1, 1].conjugate()) / 2
    y = (matrix[0, 1] - matrix[1, 0].conjugate()) / 2
    size = np.sqrt(abs(x) ** 2 + abs(y) ** 2)
    return np.array([[x, y], [-y.conjugate(), x.conjugate()]]) / size


def _steps(circuit: Circuit) -> Iterator[Step]:
    """Yield (operands, matrix) of gates on at most two qubits, larger gates taken apart."""
    run = circuit.run
    value = run.frac * (np.pi / (1 << 60)) + run.rem
    matrices: dict[int, Matrix] = {}
    place = np.zeros(len(run), dtype=np.int64)
    for code in np.unique(run.code).tolist():
        if NUM_QUBITS[code] in (1, 2) and GATES[code].is_unitary:
            where = np.flatnonzero(run.code == code)
            place[where] = np.arange(len(where))
            first = run.angle[where]
            angles = [value[first + k] for k in range(int(NUM_ANGLES[code]))]
            matrices[code] = (
                GATES[code].matrix(*angles)
                if angles
                else np.broadcast_to(
                    GATES[code].matrix(), (len(where), *GATES[code].matrix().shape)
                )
            )
    for i, (code, at) in enumerate(zip(run.code.tolist(), place.tolist(), strict=True)):
        if code in matrices:
            yield run.operands(i), matrices[code][at]
        elif code != G.GPHASE and code != G.BARRIER:
            values = [float(angle) for angle in operation_angles(circuit, run, i)]
            yield from _parts(GATES[code], run.operands(i), values)


def _parts(row: Gate, qubits: tuple[int, ...], values: list[float]) -> Iterator[Step]:
    """Yield a gate's parts on at most two qubits."""
    if row.kind == "phase":
        return
    if len(qubits) <= 2 and row.num_qubits > 0:
        yield qubits, row.matrix(*values)
        return
    for inner, operands, angles in expand(row, qubits, [Angle.of(value) for value in values]):
        yield from _parts(inner, operands, [float(angle) for angle in angles])
