"""The frontend ``pennylane``: a tape, or a QNode with arguments, into a circuit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.errors import SourceError, UsageError
from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.program import Program, Readout

if TYPE_CHECKING:
    from pennylane.tape import QuantumScript

    from qcomp.frontends.pennylane_steps import Steps

__all__ = ["PennylaneFrontend", "from_pennylane"]


def from_pennylane(
    source: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> Circuit:
    """Return the circuit of a PennyLane tape, or of a QNode called with arguments.

    Parameters are numbers, so the circuit has none of its own; a model's layers keep theirs, see
    ``docs/hybrid.md``. Qubit i is the i-th wire of the QNode's device, or of the tape. Measurements
    in the middle are kept, what the tape returns is not part of the circuit.

    Args:
        source: A ``QuantumScript`` or a ``QNode``.
        args: Positional arguments of the QNode.
        kwargs: Keyword arguments of the QNode.

    Raises:
        SourceError: If an operation has no form in gates, or an angle has a batch.
        UsageError: If PennyLane is not installed.
    """
    return _read(source, args, dict(kwargs or {}))[0]


class PennylaneFrontend:
    """Reads PennyLane tapes and QNodes."""

    name = "pennylane"

    def accepts(self, source: object) -> bool:
        """Whether the source is PennyLane's; PennyLane is not imported to find out."""
        return any(
            base.__module__.startswith("pennylane.") and base.__name__ in ("QuantumScript", "QNode")
            for base in type(source).__mro__
        )

    def read(
        self, source: object, *, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Program:
        """Return the program of a tape or QNode: its circuit, and its one kind of result.

        Raises:
            SourceError: See :func:`from_pennylane`; or if it returns several kinds of results.
        """
        from qcomp.frontends.pennylane_readout import readings_of

        circuit, tape, steps, qubits = _read(source, args, dict(kwargs or {}))
        readings, _ = readings_of(tape, steps, qubits)
        if not readings:
            return Program.of_circuit(circuit)
        if len(readings) > 1 or readings[0].before:
            raise SourceError(
                "the circuit returns several kinds of results, or in another basis",
                where=f"the circuit '{circuit.name}'",
                hint="return expectation values, or probabilities of wires, or samples",
            )
        reading = readings[0]
        shots = int(tape.shots.total_shots or 0)
        if reading.kind == "expval":
            observables = tuple(Observable.parse(text) for text in reading.observables)
            return Program.of_circuit(circuit, Readout("expval", observables, shots))
        measured = _built(circuit.name, steps, qubits, reading.final)
        return Program.of_circuit(measured, Readout(reading.kind, (), shots))


def _read(
    source: Any,  # noqa: ANN401
    args: Sequence[Any],
    kwargs: dict[str, Any],
) -> tuple[Circuit, QuantumScript, Steps, dict[Any, int]]:
    try:
        import pennylane as qml
    except ModuleNotFoundError as error:
        raise UsageError(
            "a PennyLane circuit needs the package 'pennylane', which is not installed",
            hint="pip install 'qcomp[pennylane]'",
        ) from error
    from qcomp.frontends.pennylane_circuit import name_of, qubits_of, tape_of
    from qcomp.frontends.pennylane_steps import steps_of

    name = "circuit"
    if isinstance(source, qml.QNode):
        name = name_of(source)
        tape = tape_of(source, (tuple(args), kwargs))
        qubits = qubits_of(tape, source)
    elif isinstance(source, qml.tape.QuantumScript):
        tape = source
        qubits = {wire: qubit for qubit, wire in enumerate(tape.wires)}
    else:
        raise SourceError(f"a {type(source).__name__} is no PennyLane tape or QNode")
    steps = steps_of(tape, qubits, lambda index: f"operation {index}, {tape.operations[index]}")
    return _built(name, steps, qubits), tape, steps, qubits


def _built(
    name: str, steps: Steps, qubits: Mapping[Any, int], final: Sequence[int] = ()
) -> Circuit:
    from qcomp.frontends.pennylane_circuit import build_circuit

    angles = [Angle.of(_number(value, step.name)) for step in steps.steps for value in step.params]
    return build_circuit(steps.steps, angles, len(qubits), len(steps.bits), (), name, final)


def _number(value: Any, gate: str) -> float:  # noqa: ANN401  a number or a tensor
    import pennylane as qml

    array = np.asarray(qml.math.toarray(qml.math.unwrap([value])[0]))
    if array.ndim:
        raise SourceError(
            f"an angle of '{gate}' has {array.shape} values",
            hint="one circuit has one value for each angle: take the rows apart",
        )
    return float(array.real)
