"""prepare-state: a vector becomes a circuit that makes its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcomp.budget import OPERATOR_NORM
from qcomp.ir.arrays import array_nodes, array_of, put_circuit
from qcomp.ir.program import Program
from qcomp.passes.synthesize.state.preparation import EXACT, Attempt, prepare_state
from qcomp.passmanager import Context, GraphPass, Guarantee

__all__ = ["PrepareState"]


@dataclass(frozen=True)
class PrepareState(GraphPass):
    """Replace a node ``ai.qcomp::State`` by a circuit C with ``C |0> = psi``.

    ``auto`` tries all methods and takes the circuit of the fewest CX gates that reaches
    ``|<psi|C|0>|^2 >= fidelity``: multiplexed gates, merged basis states (sparse), layers of
    matrix product states (mps) and of trees, a Schmidt form, and angles fitted between CX in a
    ring. Each is simulated; the circuit's note says what it costs, what it reaches, and what the
    others cost.

    Preserves: the state to 1e-9 at fidelity 1, global phase included; else the fidelity. Real
    vectors get RY and CX only, but from ``schmidt``.

    Cost: exact, of random states, at most ``2^n - n - 1`` CX gates (multiplexed), and about
    ``2^(n-1)`` by ``auto`` to 8 qubits.

    Source: Bergholm et al., 2005, quant-ph/0410066; Plesch and Brukner, 2011, arXiv:1003.5760;
    Rudolph et al., 2023, arXiv:2208.13673; see ``docs/lowering.md``.

    Attributes:
        method: "auto", "multiplexed", "sparse", "mps", "tree", "schmidt" or "fitted".
        fidelity: What the fidelity has to be, in (0, 1].
    """

    name: ClassVar[str] = "prepare-state"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    method: str = "auto"
    fidelity: float = 1.0

    def run(self, program: Program, context: Context) -> bool:
        """Lower every state; return whether there was one.

        Raises:
            UsageError: If there is no such method, or it does not reach the fidelity.
        """
        nodes = array_nodes(program, "State")
        for node in nodes:
            found = prepare_state(array_of(node), method=self.method, fidelity=self.fidelity)
            circuit = found.circuit
            stats = circuit.stats()
            # With the best phase |psi - phi|^2 = 2 - 2 |<psi|phi>|.
            allowed = max(2 - 2 * self.fidelity**0.5, 0.0) ** 0.5 + EXACT
            spent = max(2 - 2 * found.fidelity**0.5, 0.0) ** 0.5
            context.ledger.spend(self.name, allowed, spent, OPERATOR_NORM)
            circuit.notes = (
                f"the state '{node.name}': {stats.qubits} qubits, {stats.two_qubit} CX gates, "
                f"depth {stats.depth}, fidelity {found.fidelity:.6g} ({found.method}); tried "
                + ", ".join(_words(attempt) for attempt in found.tried),
            )
            put_circuit(program, node, circuit)
        return bool(nodes)


def _words(attempt: Attempt) -> str:
    if attempt.two_qubit is None:
        return f"{attempt.method} none"
    return f"{attempt.method} {attempt.two_qubit} CX"
