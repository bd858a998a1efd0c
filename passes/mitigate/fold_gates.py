"""fold-gates: the same circuit with its noise scaled up, for zero-noise extrapolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.circuit import Circuit
from qcomp.mitigation.folding import FoldMethod, fold
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["FoldGates"]


@dataclass(frozen=True)
class FoldGates(CircuitPass):
    """Write gates as ``G (G^-1 G)^k``, so that a machine's noise is about ``scale`` times as large.

    With d gates, ``round(d (scale - 1) / 2)`` are folded. ``global`` folds the circuit as a whole,
    ``U (U^-1 U)^k L^-1 L`` with L its last gates; ``local`` gate by gate, spread evenly;
    ``two-qubit`` the same, of gates on two and more qubits. Folds of an earlier run are taken away
    first, so ``scale`` counts from the circuit as it was, and a scale of 1 takes them all away.

    Preconditions: none. Measurements, resets and control flow part the stretches that ``global``
    folds. Inverses are written in the words of the circuit (``sx^-1 = rz(pi) sx rz(-pi)``).

    Preserved: the unitary exactly, and so is the folding by every pass that respects barriers: the
    copies stand between barriers. What the copies next to a barrier-free neighbour have in common
    with it is merged as in the circuit itself, so this pass belongs behind all reductions.

    Cost: linear in the output.

    Source: Giurgica-Tiron, Hindy, LaRose, Mari, Zeng 2020 (arXiv:2005.10921), section III.

    Attributes:
        scale: By how much the number of gates grows, 1 to 1001.
        method: global, local or two-qubit.
    """

    name: ClassVar[str] = "fold-gates"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    scale: float = 3.0
    method: FoldMethod = "global"

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the folded circuit; the same object when it is folded so already."""
        return fold(circuit, self.scale, self.method)
