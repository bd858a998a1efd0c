"""record-parameters: what rows of data turn the circuits by, and what is read of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qcomp.angle_accuracies import AngleData, CircuitRows
from qcomp.errors import UsageError
from qcomp.execute import HybridSession
from qcomp.ir.program import readout_of
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.simulate import run_readout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qcomp.ir.circuit import Circuit
    from qcomp.ir.program import Program, Readout

__all__ = ["RecordParameters"]


@dataclass(frozen=True)
class RecordParameters(GraphPass):
    """Run the program on its calibration data and keep the rows of parameters of each circuit.

    Preconditions: none. Without data, or where no circuit has a parameter, there is nothing to do.

    Preserves: everything; leaves a :class:`~qcomp.angle_accuracies.CircuitRows` fact.

    Cost: one run of the program in float on the rows that are kept.

    Attributes:
        rows: The most rows that are kept of each circuit.
    """

    name: ClassVar[str] = "record-parameters"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    rows: int = 256

    def __post_init__(self) -> None:
        """Check the option."""
        if self.rows < 1:
            raise UsageError(f"{self.name}: rows is at least 1, not {self.rows}")

    def run(self, program: Program, context: Context) -> bool:
        """Run the program; it stays as it is."""
        wanted = {name for name, circuit in program.circuits.items() if circuit.params}
        if not wanted or context.calibration is None:
            return False
        names = {id(circuit): name for name, circuit in program.circuits.items()}
        found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in wanted}

        def answer(
            circuit: Circuit,
            readout: Readout,
            rows: NDArray[np.float64],
            shots: int | None,
            seed: int,
        ) -> Any:  # noqa: ANN401  whatever the readout gives
            name = names[id(circuit)]
            if name in wanted:
                found[name].append(rows)
            return run_readout(circuit, readout, rows, shots=shots, seed=seed)

        session = HybridSession(program)
        session.on_circuit = answer
        for feeds in context.calibration():
            session.run(feeds, shots=0)
            if all(sum(map(len, parts)) >= self.rows for parts in found.values()):
                break
        known = {}
        for name, parts in found.items():
            if parts:
                texts = _read(program, name)
                known[name] = AngleData(texts, None, np.concatenate(parts)[: self.rows])
        context.put(CircuitRows(known))
        return False


def _read(program: Program, name: str) -> tuple[str, ...]:
    """Return the observables that the nodes of a circuit read; none for other readouts."""
    texts: dict[str, None] = {}
    for node in program.all_circuit_nodes():
        readout = readout_of(node)
        if node.attributes["circuit"].as_string() == name and readout.kind == "expval":
            texts.update(dict.fromkeys(map(str, readout.observables)))
    return tuple(texts)
