"""The PennyLane transform ``optimize_tape``: qcomp's gate reduction inside a QNode.

::

    from qcomp.pennylane_transform import optimize_tape

    @optimize_tape
    @qml.qnode(device)
    def circuit(x, w): ...

Angles that are tensors stay parameters of the circuit while it is reduced, so gradients, batches
and every interface of PennyLane go through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pennylane as qml

from qcomp.backends.pennylane_tape import to_pennylane
from qcomp.driver import optimize
from qcomp.errors import SourceError
from qcomp.frontends.pennylane_circuit import build_circuit
from qcomp.frontends.pennylane_steps import Steps, is_tensor, steps_of
from qcomp.ir.angle import Angle, Parameter
from qcomp.ir.circuit import Circuit

if TYPE_CHECKING:
    from pennylane.tape import QuantumScript

__all__ = ["optimize_tape"]

_BY_THEMSELVES = ("MidMeasure", "MidMeasureMP", "Conditional")


@qml.transform
def optimize_tape(
    tape: QuantumScript, effort: str = "default", pipeline: str | None = None, seed: int = 0
) -> Any:  # noqa: ANN401  PennyLane's tapes and a function
    """Reduce the gates of a tape; what it returns stays the same.

    Mid-circuit measurements, conditional operations, and operations without a form in gates, such
    as the preparation of amplitudes, stay as they are; what stands between them is reduced. A part
    that would not have fewer gates stays as it was.

    Args:
        tape: The tape.
        effort: ``fast``, ``default`` or ``max``.
        pipeline: A pipeline of circuit passes in place of the effort's.
        seed: Seed of everything random.

    Returns:
        One tape, and the function that takes its result as it is.
    """
    operations: list[Any] = []
    with qml.QueuingManager.stop_recording():
        for part, steps in _parts(tape):
            if steps is not None:
                part = _reduced(part, steps, tape.wires, effort, pipeline, seed)
            operations += part
    new = qml.tape.QuantumScript(operations, tape.measurements, shots=tape.shots)
    new.trainable_params = qml.math.get_trainable_indices(new.get_parameters(trainable_only=False))
    return [new], lambda results: results[0]


def _parts(tape: QuantumScript) -> Iterator[tuple[list[Any], Steps | None]]:
    """Yield the operations in runs that have steps, and one by one those that have none."""
    qubits = {wire: qubit for qubit, wire in enumerate(tape.wires)}

    def steps(operations: Sequence[Any]) -> Steps:
        return steps_of(qml.tape.QuantumScript(operations), qubits)

    run: list[Any] = []
    for operation in tape.operations:
        known = type(operation).__name__ not in _BY_THEMSELVES
        if known:
            try:
                steps([operation])
            except SourceError:
                known = False
        if known:
            run.append(operation)
            continue
        if run:
            yield run, steps(run)
        run = []
        yield [operation], None
    if run:
        yield run, steps(run)


def _reduced(
    part: list[Any],
    steps: Steps,
    wires: Sequence[Any],
    effort: str,
    pipeline: str | None,
    seed: int,
) -> list[Any]:
    """Return the reduced operations of a run, or the run itself."""
    names: dict[int, str] = {}
    values: dict[str, Any] = {}
    angles = []
    for step in steps.steps:
        for value in step.params:
            if not (is_tensor(value) or np.ndim(value) or qml.math.requires_grad(value)):
                angles.append(Angle.of(float(value)))
                continue
            if id(value) not in names:
                names[id(value)] = f"p{len(names)}"
                values[names[id(value)]] = value
            angles.append(Parameter(names[id(value)]))
    circuit = build_circuit(steps.steps, angles, len(wires), 0, list(values))
    reduced = optimize(circuit, effort=effort, pipeline=pipeline, seed=seed)
    assert isinstance(reduced, Circuit)
    if _price(reduced) >= _price(circuit):
        return part
    return list(to_pennylane(reduced, values, wires).operations)


def _price(circuit: Circuit) -> tuple[int, int]:
    stats = circuit.stats()
    return stats.two_qubit, stats.gates
