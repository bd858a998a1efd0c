"""drop-barriers: barriers no longer keep gates apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["DropBarriers"]


@dataclass(frozen=True)
class DropBarriers(CircuitPass):
    """A; barrier; B = A; B.

    Preconditions: none; control flow and measurement may stand anywhere.
    Preserved: exactly. A barrier orders operations, it does nothing to the state.
    Cost: linear in the number of operations.
    Source: OpenQASM 3 specification, "Barrier".

    Attributes:
        max_qubits: Only barriers on at most so many qubits are dropped; 0 drops all.
    """

    name: ClassVar[str] = "drop-barriers"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    max_qubits: int = 0

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit without the barriers."""
        return circuit.map_runs(self._without_barriers)

    def _without_barriers(self, run: Run) -> Run:
        dropped = run.code == G.BARRIER
        if self.max_qubits:
            # A barrier is a wide operation: its row holds (offset, number of qubits, -1).
            dropped &= run.qubit[:, 1] <= self.max_qubits
        return run.select(np.flatnonzero(~dropped)) if dropped.any() else run
