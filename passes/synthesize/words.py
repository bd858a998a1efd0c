"""What gates cost, one-qubit unitaries in gates of a basis, and how they get into a run."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI
from qcomp.ir.gates import GATES, NUM_ANGLES, G
from qcomp.ir.run import Run
from qcomp.passes.reduce.euler import Basis, Spelling, Turn, distinct
from qcomp.passes.synthesize.blocks import Index, Matrices
from qcomp.passes.synthesize.weyl import cx_count, weyl

__all__ = ["HUGE", "Costs", "Prices", "Writer", "cx_of_gate", "eighths"]

HUGE = 1e6
"""Price of what cannot be written."""


@functools.cache
def cx_of_gate() -> NDArray[np.int64]:
    """Return the CX gates that a two-qubit gate takes at generic angles, by code; 0 for others."""
    out = np.zeros(len(GATES), dtype=np.int64)
    for row in GATES:
        if row.num_qubits == 2:
            matrix = row.matrix(*(0.37 + 0.29 * k for k in range(row.num_angles)))
            out[row.code] = cx_count(weyl(matrix[None]))[0]
    return out


def eighths(run: Run) -> NDArray[np.bool_]:
    """Which operations have only angles that are multiples of pi/4, bool[n]."""
    out = np.ones(len(run), dtype=bool)
    counts = NUM_ANGLES[run.code]
    for k in range(int(counts.max(initial=0))):
        has = np.flatnonzero(counts > k)
        at = run.angle[has] + k
        out[has] &= (run.rem[at] == 0) & (run.form[at] < 0) & (run.frac[at] % (PI // 4) == 0)
    return out


@dataclass(frozen=True, slots=True)
class Prices:
    """What gates cost, and the one-qubit gates that may be written.

    Attributes:
        basis: One-qubit gates.
        two_qubit: Price of a CX gate.
        rotation: Price of a rotation that is not Clifford, beside its price as a gate.
        gate: Price of any gate.
        pair: The two-qubit gate to write: ``cx``, ``rzz``, ``iswap`` or ``siswap``.
    """

    basis: Basis
    two_qubit: float
    rotation: float
    gate: float
    pair: str = "cx"

    @property
    def middle(self) -> str:
        """What to write between CX gates beside rotations about Z."""
        names = self.basis.names
        turning = "rz" not in names and "p" not in names
        return "h" if "h" in names else "sx" if "sx" in names and not turning else "turn"

    def costs(self, matrix: Matrices) -> Costs:
        """Say what writing one-qubit unitaries costs."""
        first, which = distinct(matrix)
        words = self.basis.choose(matrix[first])
        slots = np.where(words.code >= 0, NUM_ANGLES[words.code], 0)
        most = max(int(slots.max(initial=0)), 1)
        used = slots[:, :, None] > np.arange(most)
        if any(name in self.basis.names for name in _DIRECTED):
            # The direction of an axis is no rotation.
            used[:, :, 1:2] &= (words.code != G.R)[:, :, None]
            used[:, :, 0] &= (words.code != G.GPI) & (words.code != G.GPI2)
        # A float part, or units below a multiple of pi/2, or pi/4.
        frac, rough = words.frac[:, :, :most], words.rem[:, :, :most] != 0
        turning = used & (rough | (frac & (PI // 2 - 1) != 0))
        odd = used & (rough | (frac & (PI // 4 - 1) != 0))
        flat = len(first), -1
        rotations = np.count_nonzero(turning.reshape(flat), axis=1)
        cost = self.gate * words.length + self.rotation * rotations
        cost = np.where(words.length > 5, HUGE, cost)
        return Costs(cost[which], ~odd.reshape(flat).any(axis=1)[which])

    def spell(self, matrix: Matrices) -> tuple[Spelling, NDArray[np.float64]]:
        """Write one-qubit unitaries.

        Returns:
            The gates, and how far they are from the matrices that they stand for, Frobenius norm.
        """
        first, which = distinct(matrix)
        matrix = matrix[first]
        words = self.basis.spell(matrix)
        phase = words.phase_frac * (np.pi / PI) + words.phase_rem
        apart = words.product * np.exp(1j * phase)[:, None, None] - matrix
        error = np.sqrt((np.abs(apart) ** 2).sum(axis=(1, 2)))
        return words.take(which), error[which]


_DIRECTED = ("r", "gpi", "gpi2")


@dataclass(frozen=True, slots=True)
class Costs:
    """What one-qubit unitaries cost as gates of a basis.

    Attributes:
        cost: float64[n], the prices of the gates.
        exact: bool[n], whether all their angles are multiples of pi/4.
    """

    cost: NDArray[np.float64]
    exact: NDArray[np.bool_]

    def take(self, index: Index) -> Costs:
        """Return the costs at these places."""
        return Costs(self.cost[index], self.exact[index])


class Writer:
    """Gates to put into a run, each with its place and an order within the place."""

    def __init__(self, operations: int) -> None:
        self._operations = operations
        self._place: list[Index] = []
        self._rank: list[NDArray[np.int64]] = []
        self._runs: list[Run] = []
        self.phase = (0, 0.0)

    def chains(
        self, spelling: Spelling, place: Index, rank: NDArray[np.int64], wire: NDArray[np.int32]
    ) -> None:
        """Put in one-qubit unitaries."""
        row, slot = np.nonzero(spelling.code >= 0)
        code = spelling.code[row, slot]
        counts = NUM_ANGLES[code].astype(np.int64)
        begin = np.cumsum(counts) - counts
        k = np.arange(int(counts.sum())) - np.repeat(begin, counts)
        source = np.repeat(row, counts), np.repeat(slot, counts), k
        qubit = np.full((len(code), 3), -1, dtype=np.int32)
        qubit[:, 0] = wire[row]
        self._runs.append(
            Run.of(code.astype(np.uint8), qubit, spelling.frac[source], spelling.rem[source])
        )
        self._place.append(place[row])
        self._rank.append(rank[row])
        frac, rem = self.phase
        frac += int(spelling.phase_frac.sum(dtype=np.int64))
        self.phase = (frac & (2 * PI - 1), rem + float(spelling.phase_rem.sum()))

    def pairs(
        self,
        code: int,
        place: Index,
        rank: int,
        first: NDArray[np.int32],
        second: NDArray[np.int32],
        angle: Turn,
    ) -> None:
        """Put in two-qubit gates; the angle counts where the gate takes one."""
        qubit = np.stack([first, second, np.full(len(first), -1, dtype=np.int32)], axis=1)
        angles = angle if NUM_ANGLES[code] else ()
        self._runs.append(Run.of(np.full(len(first), code, dtype=np.uint8), qubit, *angles))
        self._place.append(place)
        self._rank.append(np.full(len(place), rank))

    def run(self, old: Run, keep: NDArray[np.bool_]) -> Run:
        """Return the run with what is kept of it and all that was put in."""
        stay = np.flatnonzero(keep)
        place = np.concatenate([stay, *self._place])
        rank = np.concatenate([np.zeros(len(stay), dtype=np.int64), *self._rank])
        joined = Run.concat([old, *self._runs])
        source = np.concatenate([stay, np.arange(self._operations, len(joined))])
        return joined.select(source[np.lexsort((rank, place))])
