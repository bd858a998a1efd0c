"""evolve: a Hamiltonian becomes a circuit for its evolution in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.convenience import get_const_tensor

from qcomp.errors import PassError
from qcomp.ir.arrays import array_nodes, put_circuit
from qcomp.ir.observable import Observable
from qcomp.ir.program import Program
from qcomp.passes.synthesize.evolution.trotter import evolve
from qcomp.passmanager import Context, GraphPass, Guarantee

__all__ = ["Evolve"]

_MOST = 24
"""Qubits up to which a circuit is written; its output is a distribution."""


@dataclass(frozen=True)
class Evolve(GraphPass):
    """``H -> prod exp(-i t a_k H_k)``, a product formula for ``exp(-i H t)`` from |0>.

    Each node ``ai.qcomp::Hamiltonian``, a sum of Pauli products, becomes a circuit. Products that
    commute are one group, applied exactly; the formula of order 1, 2 or 4 orders the groups, and
    ``steps`` repeats it for shorter times. A Hamiltonian whose groups commute takes one step
    whatever the options say.

    Preconditions: none; programs without such nodes are left alone.

    Preserves: the evolution within the bound by commutators that is entered in the ledger.

    Cost: the square of the number of terms for the groups, and the gates.

    Source: Suzuki 1991; Childs, Su, Tran, Wiebe, Zhu 2019 (arXiv:1912.08854); groups as van den
    Berg and Temme 2020 (arXiv:2003.13599); each group as de Brugiere and Martiel 2024
    (arXiv:2404.03280).

    Attributes:
        time: Time t, with H in its own unit and hbar = 1.
        steps: Steps r.
        order: 1, 2 or 4.
        grouping: "general", "qubit-wise" or "none".
    """

    name: ClassVar[str] = "evolve"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    time: float = 1.0
    steps: int = 1
    order: int = 2
    grouping: str = "general"

    def run(self, program: Program, context: Context) -> bool:
        """Lower every Hamiltonian of the program."""
        nodes = array_nodes(program, "Hamiltonian")
        for node in nodes:
            observable = _observable(node)
            if max(observable.qubits, default=0) >= _MOST:
                raise PassError(
                    f"the Hamiltonian '{node.name}' acts on qubit {max(observable.qubits)}",
                    why=f"a program's circuits that give distributions have at most {_MOST} qubits",
                    hint="call evolve() of qcomp.passes.synthesize.evolution.trotter for a circuit",
                )
            made = evolve(
                observable,
                self.time,
                steps=self.steps,
                order=self.order,
                grouping=self.grouping,
            )
            assert made.error_bound is not None
            context.ledger.spend(
                self.name, made.error_bound, made.error_bound, "bound of the evolution's error"
            )
            program.notes.append(
                f"the evolution '{node.name}' of {sum(made.groups)} Pauli products in "
                f"{len(made.groups)} commuting groups differs from exp(-i H t) by at most "
                f"{made.error_bound:.3g} in operator norm"
            )
            put_circuit(program, node, made.circuit)
        return bool(nodes)


def _observable(node: ir.Node) -> Observable:
    value = node.inputs[0] if len(node.inputs) == 1 else None
    tensor = None if value is None else get_const_tensor(value)
    if tensor is None or tensor.dtype != ir.DataType.STRING:
        raise PassError(
            f"the node '{node.name}' takes one constant text, a sum of Pauli products",
            hint="read the observable by qcomp.read(Observable.parse('Z0*Z1 + X0'))",
        )
    found = tensor.numpy().ravel()[0]
    return Observable.parse(found.decode() if isinstance(found, bytes) else str(found))
