"""Circuits for PennyLane: a tape of its operations, angles computed from numbers or tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qcomp.backends.host_gates import Condition, Operation, operations
from qcomp.errors import UsageError
from qcomp.ir.angle import Angle, radians
from qcomp.ir.circuit import Circuit

if TYPE_CHECKING:
    from pennylane.tape import QuantumScript

__all__ = ["to_pennylane"]

_NAMES = {
    "x": "X", "y": "Y", "z": "Z", "h": "Hadamard", "s": "S", "t": "T", "sx": "SX", "rx": "RX",
    "ry": "RY", "rz": "RZ", "p": "PhaseShift", "u": "U3", "cx": "CNOT", "cy": "CY", "cz": "CZ",
    "ch": "CH", "crx": "CRX", "cry": "CRY", "crz": "CRZ", "cp": "ControlledPhaseShift",
    "swap": "SWAP", "iswap": "ISWAP", "siswap": "SISWAP", "rxx": "IsingXX", "ryy": "IsingYY",
    "rzz": "IsingZZ", "xy": "IsingXY", "ccx": "Toffoli", "ccz": "CCZ", "cswap": "CSWAP",
    "mcx": "MultiControlledX", "id": "Identity", "gphase": "GlobalPhase",
}  # fmt: skip
_ADJOINTS = {"sdg": "S", "tdg": "T", "sxdg": "SX"}


def to_pennylane(
    circuit: Circuit,
    values: Mapping[str, Any] | Sequence[Any] = (),
    wires: Sequence[Any] | None = None,
) -> QuantumScript:
    """Return the circuit as a PennyLane tape without measurements of its result.

    A parameter may be a number or a tensor of any framework that PennyLane takes: an angle such as
    ``2*x + 0.5`` is computed with the framework's own arithmetic, so that gradients and batches go
    through. Gates that PennyLane has not are given by their definitions; measurements, resets and
    conditions on bits become ``qml.measure`` and ``qml.cond``.

    Args:
        circuit: The circuit.
        values: Value of each parameter, by name or in the circuit's order.
        wires: The wires of its qubits; 0 .. n-1 by default.

    Raises:
        TargetError: If control flow has no counterpart in PennyLane.
        UsageError: If a parameter has no value, or PennyLane is not installed.
    """
    try:
        import pennylane as qml
    except ModuleNotFoundError as error:
        raise UsageError(
            "a PennyLane tape needs the package 'pennylane', which is not installed",
            hint="pip install 'qcomp[pennylane]'",
        ) from error
    given = dict(values) if isinstance(values, Mapping) else dict(zip(circuit.params, values))  # noqa: B905  the next lines say what is missing
    missing = [name for name in circuit.params if name not in given]
    if missing:
        raise UsageError(
            f"the circuit '{circuit.name}' has parameters without a value: {', '.join(missing)}",
            why="a PennyLane tape has no symbols",
            hint="give values={'name': number or tensor}",
        )
    labels = list(range(circuit.num_qubits)) if wires is None else list(wires)
    if len(labels) < circuit.num_qubits:
        raise UsageError(f"{len(labels)} wires are too few for {circuit.num_qubits} qubits")
    bits: dict[int, Any] = {}
    with qml.queuing.AnnotatedQueue() as queue:
        for operation in operations(circuit, {*_NAMES, *_ADJOINTS}, "PennyLane"):
            angles = [_value(angle, given) for angle in operation.angles]
            made = _maker(qml, operation, angles, [labels[q] for q in operation.qubits], bits)
            _when(qml, operation.condition, made, bits)
        if not circuit.global_phase.is_zero:
            qml.GlobalPhase(-_value(circuit.global_phase, given))
    return qml.tape.QuantumScript.from_queue(queue)


def _maker(
    qml: Any,  # noqa: ANN401
    operation: Operation,
    angles: Sequence[Any],
    wires: Sequence[Any],
    bits: dict[int, Any],
) -> Callable[[], None]:
    """Return what puts an operation into the queue."""
    name = operation.gate.name

    def make() -> None:
        if name == "measure":
            bits[operation.clbit] = qml.measure(wires[0])
        elif name == "reset":
            qml.measure(wires[0], reset=True)
        elif name == "barrier":
            qml.Barrier(wires)
        elif name == "gphase":
            qml.GlobalPhase(-angles[0])
        elif name == "mcx" and len(wires) == 1:
            qml.X(wires[0])
        elif name in _ADJOINTS:
            qml.adjoint(getattr(qml, _ADJOINTS[name])(wires[0]))
        else:
            getattr(qml, _NAMES[name])(*angles, wires=list(wires))

    return make


def _when(
    qml: Any,  # noqa: ANN401
    condition: Condition,
    make: Callable[[], None],
    bits: Mapping[int, Any],
) -> None:
    """Make an operation under a condition; a bit that nothing has written is 0."""
    if any(value for bit, value in condition if bit not in bits):
        return
    asked = [bits[bit] == value for bit, value in condition if bit in bits]
    if not asked:
        make()
        return
    whole = asked[0]
    for other in asked[1:]:
        whole = whole & other
    qml.cond(whole, make)()


def _value(angle: Angle, given: Mapping[str, Any]) -> Any:  # noqa: ANN401  a number or a tensor
    constant = radians(angle.frac) + angle.rem
    total: Any = None
    for name, coefficient in angle.terms:
        term = given[name] if coefficient == 1 else given[name] * coefficient
        total = term if total is None else total + term
    if total is None:
        return constant
    return total if math.isclose(constant, 0.0, abs_tol=0.0) else total + constant
