"""PennyLane's operations as steps: gates of our table with PennyLane's own numbers and tensors.

What the gate table has is taken as it is; anything else is taken apart by its own decomposition.
Nothing here looks at the values of parameters, so that they may be tensors of any framework.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.errors import SourceError
from qcomp.frontends.pennylane_controlled import controlled_parts
from qcomp.ir.classical import Binary, Bit, Expr, Lit, Unary

if TYPE_CHECKING:
    from pennylane.operation import Operator
    from pennylane.tape import QuantumScript

__all__ = ["Step", "Steps", "is_tensor", "steps_of"]

_MAX_DEPTH = 60

GATES = {
    "PauliX": "x", "PauliY": "y", "PauliZ": "z", "Hadamard": "h", "S": "s", "T": "t", "SX": "sx",
    "Adjoint(S)": "sdg", "Adjoint(T)": "tdg", "Adjoint(SX)": "sxdg", "RX": "rx", "RY": "ry",
    "RZ": "rz", "PhaseShift": "p", "U1": "p", "U3": "u", "CNOT": "cx", "CY": "cy", "CZ": "cz",
    "CH": "ch", "CRX": "crx", "CRY": "cry", "CRZ": "crz", "ControlledPhaseShift": "cp",
    "SWAP": "swap", "ISWAP": "iswap", "SISWAP": "siswap", "IsingXX": "rxx", "IsingYY": "ryy",
    "IsingZZ": "rzz", "IsingXY": "xy", "Toffoli": "ccx", "CCZ": "ccz", "CSWAP": "cswap",
}  # fmt: skip
"""PennyLane's name -> ours, for gates with the same operands, angles and matrix."""

_STATES = frozenset({"StatePrep", "AmplitudeEmbedding", "MottonenStatePreparation"})
_MATRICES = frozenset({"QubitUnitary", "ControlledQubitUnitary", "BlockEncode"})
_BITS = frozenset({"BasisState", "BasisEmbedding"})
_SKIPPED = frozenset({"Identity", "Snapshot"})


@dataclass(frozen=True, slots=True)
class Step:
    """One operation.

    Attributes:
        name: Its name in the gate table.
        qubits: Its operands.
        params: Its angles: numbers or tensors.
        clbit: The bit that a measurement writes.
        condition: When it is done.
        origin: Number of the operation of the tape that it comes from.
    """

    name: str
    qubits: tuple[int, ...]
    params: tuple[Any, ...] = ()
    clbit: int = -1
    condition: Expr | None = None
    origin: int = 0


@dataclass(frozen=True, slots=True)
class Steps:
    """A tape's operations.

    Attributes:
        steps: In order.
        bits: Identity of a mid-circuit measurement -> its bit.
    """

    steps: tuple[Step, ...]
    bits: Mapping[Any, int]


def is_tensor(value: object) -> bool:
    """Whether a parameter is a tensor of a framework, not a number or an array of numpy."""
    return not isinstance(value, (int, float, complex, str, np.ndarray, np.generic))


def steps_of(
    tape: QuantumScript,
    qubits: Mapping[Any, int],
    line_of: Callable[[int], str] = lambda index: "",
) -> Steps:
    """Return the operations of a tape as steps.

    Args:
        tape: The tape.
        qubits: Wire -> qubit.
        line_of: Where the operation of a number stands in the source, for messages.

    Raises:
        SourceError: If an operation has no form in gates, with its name and line.
    """
    reader = _Reader(qubits, line_of)
    for index, operation in enumerate(tape.operations):
        reader.origin = index
        reader.read(operation, None, 0)
    return Steps(tuple(reader.steps), reader.bits)


class _Reader:
    def __init__(self, qubits: Mapping[Any, int], line_of: Callable[[int], str]) -> None:
        self.qubits = qubits
        self.line_of = line_of
        self.steps: list[Step] = []
        self.bits: dict[Any, int] = {}
        self.origin = 0

    def refused(self, name: str, why: str, hint: str) -> SourceError:
        return SourceError(
            f"the operation {name} cannot be captured",
            where=self.line_of(self.origin),
            why=why,
            hint=hint,
        )

    def read(self, op: Operator, condition: Expr | None, depth: int) -> None:
        """Append the steps of an operation.

        Raises:
            SourceError: If it has none.
        """
        name = op.name
        wires = [self.qubits[wire] for wire in op.wires]

        def add(gate: str, *params: Any, at: Sequence[int] = wires, clbit: int = -1) -> None:  # noqa: ANN401
            self.steps.append(Step(gate, tuple(at), params, clbit, condition, self.origin))

        if name in GATES:
            add(GATES[name], *op.parameters)
        elif name in _SKIPPED:
            return
        elif name == "Rot":
            for gate, angle in zip(("rz", "ry", "rz"), op.parameters, strict=True):
                add(gate, angle)
        elif name == "U2":
            add("u", math.pi / 2, *op.parameters)
        elif name == "GlobalPhase":
            add("gphase", -op.parameters[0], at=())
        elif name == "Barrier":
            add("barrier")
        elif name == "MultiControlledX":
            zeros = [q for q, v in zip(wires, op.control_values, strict=False) if not v]
            for q in zeros:
                add("x", at=(q,))
            add("mcx")
            for q in zeros:
                add("x", at=(q,))
        elif name in ("MidMeasure", "MidMeasureMP"):
            self._measure(op, wires[0], condition, add)
        elif type(op).__name__ == "Conditional":
            inner = self._condition(op.meas_val)
            both = inner if condition is None else Binary("&&", condition, inner)
            self.read(op.base, both, depth + 1)
        else:
            self._decomposed(op, condition, depth)

    def _measure(
        self,
        op: Any,
        qubit: int,
        condition: Expr | None,
        add: Callable[..., None],  # noqa: ANN401
    ) -> None:
        if op.postselect is not None:
            raise self.refused(
                "measure(postselect=...)",
                "a circuit cannot choose what it measures",
                "measure without postselect and select from the results",
            )
        if condition is not None:
            raise self.refused(
                "measure inside cond", "its bit would have no value otherwise", "measure outside"
            )
        bit = self.bits[op.meas_uid] = len(self.bits)
        add("measure", clbit=bit)
        if op.reset:
            add("reset", at=(qubit,))

    def _condition(self, value: Any) -> Expr:  # noqa: ANN401  a MeasurementValue
        """Return a condition over measured bits: true for the branches that are."""
        places = [self.bits[m.meas_uid] for m in value.measurements]
        order = sorted(range(len(places)), key=places.__getitem__)  # PennyLane's own is random
        bits = [places[i] for i in order]
        true = sorted(
            tuple(branch[i] for i in order) for branch, result in value.items() if bool(result)
        )
        if len(bits) == 1 and len(true) == 1:
            return Bit(bits[0]) if true[0][0] else Unary("!", Bit(bits[0]))
        options = [
            _joined(
                "&&",
                [Bit(b) if v else Unary("!", Bit(b)) for b, v in zip(bits, branch, strict=True)],
            )
            for branch in true
        ]
        return _joined("||", options) if options else Lit(False)

    def _decomposed(self, op: Operator, condition: Expr | None, depth: int) -> None:
        import pennylane as qml

        name = op.name
        if depth > _MAX_DEPTH:
            raise self.refused(name, "its decomposition does not end", "decompose it first")
        if any(_varies(value) for value in op.parameters):
            if name in _STATES:
                raise self.refused(
                    name,
                    "the amplitudes are data, and the gates that prepare a state depend on them",
                    "put the data into angles, as AngleEmbedding does",
                )
            if name in _MATRICES:
                raise self.refused(
                    name, "its matrix is data, and its gates depend on it", "use rotations instead"
                )
        if name in _BITS and any(is_tensor(value) for value in op.parameters):
            raise self.refused(
                name, "the bits are data, and they choose gates", "use qml.RX(math.pi * bit, wire)"
            )
        if isinstance(op, qml.operation.Channel):
            raise self.refused(
                name,
                "it is a noise channel, not a gate",
                "leave noise out of the model; a run adds a machine's: --device aer --noise",
            )
        try:
            parts = _parts(op)
        except Exception as error:  # a decomposition is anybody's code
            raise self.refused(
                name,
                f"its decomposition fails: {type(error).__name__}: {str(error)[:200]}",
                "write it with gates",
            ) from error
        if parts is None:
            raise self.refused(
                name,
                "it has no decomposition into gates: it belongs to one device, or to no circuit",
                "use gates, or give the operator a compute_decomposition",
            )
        for part in parts:
            self.read(part, condition, depth + 1)


def _varies(value: object) -> bool:
    """Whether a parameter is a tensor that data or weights reach."""
    import pennylane as qml

    return is_tensor(value) and bool(qml.math.requires_grad(value))


def _parts(op: Operator) -> list[Operator] | None:
    """Return the operations that one is made of; None if it does not say."""
    import pennylane as qml

    if op.name == "Evolution" and op.base.pauli_rep is not None and len(op.base.pauli_rep) == 1:
        ((word, coefficient),) = op.base.pauli_rep.items()
        if not word:
            return [qml.GlobalPhase(coefficient * op.param)]
        return [qml.PauliRot(2 * coefficient * op.param, "".join(word.values()), list(word))]
    with qml.QueuingManager.stop_recording():
        if op.has_decomposition:
            return list(op.decomposition())
        return controlled_parts(op) if hasattr(op, "control_values") else None


def _joined(operator: str, terms: Sequence[Expr]) -> Expr:
    result = terms[0]
    for term in terms[1:]:
        result = Binary(operator, result, term)
    return result
