"""keep-cheaper: steps whose result is kept only where the circuit costs less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from qcomp.budget import Ledger
from qcomp.cost import CostModel
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.passmanager import CircuitPass, Context, Guarantee, Pass, Pipeline

if TYPE_CHECKING:
    from qcomp.pipeline_text import Step

__all__ = ["KeepCheaper"]


def _passes(steps: tuple[Step, ...]) -> Iterator[Pass]:
    for step in steps:
        if step.instance is not None:
            yield step.instance
        else:
            yield from _passes(step.group)


@dataclass(frozen=True)
class KeepCheaper(CircuitPass):
    """``C -> steps(C)`` where that costs less, else C.

    Reductions over CX gates share them between rotations, which pays where a CX is the machine's
    gate; one with an interaction of any angle may do better without. Which it is depends on the
    circuit, so both are made.

    Options: ``steps``, the pipeline as text in quotes. ``cost``, a sum of counts with weights, such
    as ``two_qubit`` or ``gates+3*two_qubit``.

    Preconditions: all steps are passes over circuits that preserve the unitary.

    Preserves: what the steps preserve; rounding is entered only where their result is kept.

    Cost: that of the steps.

    Source: none; the cheaper of two circuits is taken.
    """

    name: ClassVar[str] = "keep-cheaper"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    steps: str = ""
    cost: str = "two_qubit"

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the cheaper circuit; the same object when the steps do not make it cheaper.

        Raises:
            UsageError: If the steps or the cost cannot be read, or a step is no pass over circuits
                that preserves the unitary.
        """
        model = CostModel.parse(self.cost)
        pipeline = Pipeline.parse(self.steps)
        for step in _passes(pipeline.steps):
            exact = step.preserves in (Guarantee.EXACT, Guarantee.NUMERIC)
            if not isinstance(step, CircuitPass) or step.only_bits or not exact:
                raise UsageError(
                    f"keep-cheaper cannot try '{step.name}'",
                    why="it is no pass over circuits that preserves the unitary",
                )
        limit = context.ledger.numeric_limit - context.ledger.numeric_spent
        inner = replace(context, ledger=Ledger(numeric_limit=limit))
        program = Program.of_circuit(circuit)
        pipeline.run(program, inner)
        made = program.only_circuit
        if made is circuit or model.of(made) >= model.of(circuit):
            return circuit
        if inner.ledger.numeric_spent:
            context.ledger.spend_numeric(self.name, inner.ledger.numeric_spent)
        return made
