"""Clifford gates as words in h, s, sdg, x, z and cx, with their phases, and words made short.

A stream is int32[k, 4] rows (kind, a, b, c). ``TURN`` is a rotation about a Pauli: operands a and b
(-1 for none) and, read in, the Pauli on them ``p | q << 2`` (X = 1, Z = 2, Y = 3) as c.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI
from qcomp.ir.gates import GATES, NUM_QUBITS, G, gate
from qcomp.ir.matrices import Matrix
from qcomp.ir.run import Run
from qcomp.passes.reduce.pauli_carry import ROLE
from qcomp.passes.reduce.pauli_carry import TURN as TURNS
from qcomp.passes.reduce.pauli_tables import AXIS_BITS
from qcomp.passes.reduce.sums import summands

__all__ = [
    "CLIFFORD",
    "CODES",
    "COST",
    "CX",
    "H",
    "NEITHER",
    "OTHER",
    "ROTATION",
    "SDG",
    "TURN",
    "S",
    "X",
    "Z",
    "Reading",
    "local_words",
    "read",
]

H, S, SDG, X, Z, CX, TURN = range(7)
"""Kinds of rows of a stream."""

CODES: NDArray[np.uint8] = np.array([G.H, G.S, G.SDG, G.X, G.Z, G.CX], dtype=np.uint8)
"""Gate of each kind."""

NEITHER, CLIFFORD, ROTATION, OTHER = range(4)
"""What an operation is: no gate on a wire, a Clifford gate, a Pauli rotation, anything else."""

_KINDS = {"h": H, "s": S, "sdg": SDG, "x": X, "z": Z, "cx": CX}
_WORDS = {
    "id": "",
    "x": "x a",
    "y": "z a;x a",
    "z": "z a",
    "h": "h a",
    "s": "s a",
    "sdg": "sdg a",
    "sx": "h a;s a;h a",
    "sxdg": "h a;sdg a;h a",
    "cx": "cx a b",
    "cy": "sdg b;cx a b;s b",
    "cz": "h b;cx a b;h b",
    "swap": "cx a b;cx b a;cx a b",
    "iswap": "s a;s b;h a;cx a b;cx b a;h b",
    "dcx": "cx a b;cx b a",
    "ecr": "h b;cx a b;s b;cx a b;h b;x a",
    "zzmax": "s a;s b;h b;cx a b;h b",
}
"""Clifford gates without angles."""

_FRAMES = {
    "rz": ("", "a", ""),
    "p": ("", "a", ""),
    "rx": ("h a", "a", "h a"),
    "ry": ("sdg a;h a", "a", "h a;s a"),
    "rzz": ("cx a b", "b", "cx a b"),
    "rxx": ("h a;h b;cx a b", "b", "cx a b;h a;h b"),
    "ryy": ("sdg a;sdg b;h a;h b;cx a b", "b", "cx a b;h a;h b;s a;s b"),
    "rzx": ("h b;cx a b", "b", "cx a b;h b"),
}
"""Rotations: (word before, wire that turns about Z, word after)."""

_TURN_WORDS = ("", "s {}", "z {}", "sdg {}")

COST: NDArray[np.int64] = np.zeros(len(GATES), dtype=np.int64)
"""Two-qubit gates that a Clifford gate or rotation counts for, by code."""

for _name in ("cx", "cy", "cz", "ecr", "zzmax"):
    COST[gate(_name).code] = 1
for _name, _cost in {"dcx": 2, "iswap": 2, "swap": 3}.items():
    COST[gate(_name).code] = _cost
for _name in ("rzz", "rxx", "ryy", "rzx"):
    COST[gate(_name).code] = 2


def _steps(text: str) -> list[tuple[int, int, int]]:
    steps = []
    for part in filter(None, text.split(";")):
        name, *operands = part.split()
        wires = ["ab".index(letter) for letter in operands]
        steps.append((_KINDS[name], wires[0], wires[1] if len(wires) > 1 else -1))
    return steps


@dataclass(frozen=True, slots=True)
class _Table:
    """Words of the Clifford gates by ``8 code + quarter turns``.

    Attributes:
        first: int64[8 gates], first step.
        length: int64[8 gates], steps; 0 where there are none.
        phase: int64[8 gates], eighths of a turn that the gate has more than its word.
        steps: int32[k, 3], (kind, operand, operand).
    """

    first: NDArray[np.int64]
    length: NDArray[np.int64]
    phase: NDArray[np.int64]
    steps: NDArray[np.int32]


def _product(steps: list[tuple[int, int, int]], num_qubits: int) -> Matrix:
    total: Matrix = np.eye(1 << num_qubits, dtype=complex)
    swap = gate("swap").matrix()
    names = {kind: name for name, kind in _KINDS.items()}
    for kind, a, b in steps:
        step: Matrix = gate(names[kind]).matrix()
        if b < 0 and num_qubits == 2:
            eye: Matrix = np.eye(2, dtype=complex)
            pair = (eye, step) if a == 0 else (step, eye)
            step = np.kron(*pair).astype(complex)
        elif b == 0:
            step = swap @ step @ swap
        total = step @ total
    return total


def _eighths(whole: Matrix, part: Matrix) -> int:
    overlap = np.trace(part.conj().T @ whole) / len(whole)
    return round(float(np.angle(overlap)) / (np.pi / 4)) % 8


@functools.cache
def _table() -> _Table:
    size = 8 * len(GATES)
    first, length, phase = (np.zeros(size, dtype=np.int64) for _ in range(3))
    rows: list[tuple[int, int, int]] = []

    def put(slot: int, text: str, matrix: Matrix, num_qubits: int) -> None:
        steps = _steps(text)
        first[slot], length[slot] = len(rows), len(steps)
        phase[slot] = _eighths(matrix, _product(steps, num_qubits))
        rows.extend(steps)

    for name, text in _WORDS.items():
        row = gate(name)
        put(8 * row.code, text, row.matrix(), row.num_qubits)
    for name, (before, wire, after) in _FRAMES.items():
        row = gate(name)
        for k in range(8):
            turn = _TURN_WORDS[k % 4].format(wire)
            text = ";".join(filter(None, (before, turn, after))) if turn else ""
            put(8 * row.code + k, text, row.matrix(k * np.pi / 2), row.num_qubits)
    return _Table(first, length, phase, np.array(rows, dtype=np.int32))


@dataclass(frozen=True, slots=True)
class Reading:
    """A run read as Clifford gates and Pauli rotations.

    Attributes:
        role: int8[n], NEITHER, CLIFFORD, ROTATION or OTHER.
        quarters: int64[n], quarter turns modulo 8 of the Clifford rotations, 0 for other gates.
        cost: int64[n], two-qubit gates of each operation that is no OTHER.
    """

    role: NDArray[np.int8]
    quarters: NDArray[np.int64]
    cost: NDArray[np.int64]

    def stream(
        self, run: Run, index: NDArray[np.int64], local: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Return operations as a stream.

        Args:
            run: The run that was read.
            index: int64[k], positions of Clifford gates and rotations.
            local: int32[k, 2], their operands in the stream, -1 for none.

        Returns:
            (stream; rows of each operation; eighths of a turn that each has more than its rows).
        """
        table = _table()
        code = run.code[index]
        turns = self.role[index] == ROTATION
        slot = 8 * code.astype(np.int64) + self.quarters[index]
        length = np.where(turns, 1, table.length[slot])
        owner = np.repeat(np.arange(len(index)), length)
        inside = np.arange(len(owner)) - np.repeat(np.cumsum(length) - length, length)
        out = np.zeros((len(owner), 4), dtype=np.int32)
        step = table.steps[np.where(turns[owner], 0, table.first[slot][owner] + inside)]
        out[:, 0] = step[:, 0]
        out[:, 1] = local[owner, np.maximum(step[:, 1], 0)]
        out[:, 2] = np.where(step[:, 2] >= 0, local[owner, np.maximum(step[:, 2], 0)], -1)
        turned = turns[owner]
        axes = AXIS_BITS.reshape(-1, 3)[code[owner[turned]]]
        two = NUM_QUBITS[code[owner[turned]]] == 2
        out[turned, 0] = TURN
        out[turned, 1] = local[owner[turned], 0]
        out[turned, 2] = np.where(two, local[owner[turned], 1], -1)
        out[turned, 3] = axes[:, 0] | np.where(two, axes[:, 1], 0) << 2
        return out, length, np.where(turns, 0, table.phase[slot])


def read(run: Run) -> Reading:
    """Say what each operation of a run is."""
    add = summands(run)
    turning = ROLE[run.code] == TURNS
    fixed = np.array([row.clifford for row in GATES])[run.code]
    exact = turning & (add.rem == 0) & (add.form < 0) & (add.frac % (PI >> 1) == 0)
    role = np.full(len(run), OTHER, dtype=np.int8)
    role[turning] = ROTATION
    role[fixed | exact] = CLIFFORD
    role[run.code == G.GPHASE] = NEITHER
    quarters = np.where(exact & ~fixed, (add.frac // (PI >> 1)) % 8, 0)
    cost = COST[run.code]
    whole = (cost == 2) & exact & (NUM_QUBITS[run.code] == 2) & ~fixed
    # A quarter turn about two Paulis is one cx, half a turn none.
    cost = np.where(whole, quarters % 2, cost)
    return Reading(role, quarters, cost)


@functools.cache
def local_words() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the one-qubit Clifford group over h, s, sdg, x and z, up to phase.

    Returns:
        (next, length, words): ``next[5 g + k]`` is g followed by a gate of kind k, ``length[g]``
        the gates of the shortest word of g, ``words[4 g + i]`` the kind of its gate i; g = 0 is
        the identity.
    """
    names = ("h", "s", "sdg", "x", "z")
    gates = [gate(name).matrix() for name in names]
    found: list[Matrix] = [np.eye(2, dtype=complex)]
    words: list[tuple[int, ...]] = [()]

    def place(matrix: Matrix) -> int:
        for i, known in enumerate(found):
            if abs(abs(np.trace(known.conj().T @ matrix)) - 2) < 1e-9:
                return i
        return -1

    at = 0
    while at < len(found):
        for k, matrix in enumerate(gates):
            product = matrix @ found[at]
            if place(product) < 0:
                found.append(product)
                words.append((*words[at], k))
        at += 1
    follow = [place(matrix @ known) for known in found for matrix in gates]
    length = [len(word) for word in words]
    flat = [k for word in words for k in (*word, 0, 0, 0, 0)[: max(4, len(word))]]
    return np.array(follow), np.array(length), np.array(flat)
