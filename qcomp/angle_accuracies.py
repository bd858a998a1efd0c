"""How accurately each rotation of a circuit is to be synthesised."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcomp.ir.circuit import Circuit

__all__ = ["AngleAccuracies"]


@dataclass(frozen=True)
class AngleAccuracies:
    """What was allocated, by the name of the circuit.

    Attributes:
        by_circuit: Operator norm of each chain of rotations on one wire, in the order of the
            circuit (see :mod:`qcomp.passes.synthesize.clifford_t.chains`).
    """

    by_circuit: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def of(self, circuit: Circuit) -> tuple[float, ...] | None:
        """Return the accuracies of a circuit, None where nothing was allocated to it."""
        return self.by_circuit.get(circuit.name)
