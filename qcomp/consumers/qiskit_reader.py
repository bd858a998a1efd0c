"""Qiskit as a consumer: its readers, and its matrices in a small exact simulation with branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.consumers.outcomes import MAX_QUBITS, Outcome
from qcomp.ir.circuit import Circuit

__all__ = ["QiskitReader"]

_LEAST = 1e-14
_MAX_BRANCHES = 4096
_MAX_BITS = 20
_SILENT = ("barrier", "delay", "id")

State = NDArray[np.complex128]


class _NotSimulated(Exception):
    """A construct that has no exact simulation here."""


class QiskitReader:
    """``qiskit.qasm3.loads`` or, for OpenQASM 2, ``qiskit.qasm2.loads``."""

    def load(self, text: str, values: Mapping[str, float], ours: Circuit) -> object:
        """Read, and bind the inputs by name."""
        from qiskit import qasm2, qasm3

        if text.lstrip("\ufeff \t\r\n").startswith("OPENQASM 2"):
            return qasm2.loads(text, custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
        circuit = qasm3.loads(text)
        named = {parameter.name: parameter for parameter in circuit.parameters}
        bound = {named[name]: value for name, value in values.items() if name in named}
        return circuit.assign_parameters(bound)

    def outcome(self, loaded: object) -> Outcome | str:
        """Return the distribution of Qiskit's circuit."""
        circuit: Any = loaded
        data = [
            (
                step.operation,
                tuple(circuit.find_bit(q).index for q in step.qubits),
                tuple(circuit.find_bit(c).index for c in step.clbits),
            )
            for step in circuit.data
        ]
        used = sorted({q for operation, wires, _ in data if operation.name not in _SILENT
                       for q in wires})  # fmt: skip
        if len(used) > MAX_QUBITS:
            return f"{len(used)} qubits are more than {MAX_QUBITS}"
        place = {qubit: k for k, qubit in enumerate(used)}
        measured = _final(data)
        if measured is not None:
            return Outcome(_evolved(data, place), tuple(used), measured)
        if circuit.num_clbits > _MAX_BITS:
            return f"{circuit.num_clbits} classical bits are more than {_MAX_BITS}"
        try:
            weights = np.zeros(1 << circuit.num_clbits)
            ground = np.zeros(1 << len(used), dtype=np.complex128)
            ground[0] = 1.0
            start: _Branch = (ground, 0)
            wires = {circuit.qubits[q]: k for q, k in place.items()}
            bits = {bit: i for i, bit in enumerate(circuit.clbits)}
            for state, value in _run(circuit, [start], wires, bits):
                weights[value] += float(np.vdot(state, state).real)
        except _NotSimulated as error:
            return f"{error} has no exact simulation"
        return Outcome(weights, tuple(range(circuit.num_clbits)), None)


def _final(
    data: Sequence[tuple[Any, tuple[int, ...], tuple[int, ...]]],
) -> tuple[tuple[int, int | None], ...] | None:
    """Return the measurements if all of them stand at the end and nothing else is classical."""
    measured: list[tuple[int, int | None]] = []
    done: set[int] = set()
    bits: set[int] = set()
    for operation, qubits, clbits in data:
        if operation.name in _SILENT:
            continue
        if done & set(qubits) or bits & set(clbits):
            return None
        if operation.name == "measure":
            measured.append((qubits[0], clbits[0]))
            done.add(qubits[0])
            bits.add(clbits[0])
        elif clbits or operation.name in ("reset", "initialize"):
            return None
    return tuple(measured)


def _evolved(
    data: Sequence[tuple[Any, tuple[int, ...], tuple[int, ...]]], place: Mapping[int, int]
) -> NDArray[np.float64]:
    """Return the probabilities before the measurements, by Qiskit's own Statevector."""
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import Statevector

    unitary = QuantumCircuit(len(place))
    for operation, qubits, _ in data:
        if operation.name not in (*_SILENT, "measure"):
            unitary.append(operation, [place[q] for q in qubits])
    result: NDArray[np.float64] = np.abs(Statevector(unitary).data) ** 2
    return result


_Branch = tuple[State, int]


def _run(
    circuit: Any,  # noqa: ANN401  Qiskit's circuit
    branches: list[_Branch],
    wires: Mapping[Any, int],
    bits: Mapping[Any, int],
) -> list[_Branch]:
    """Run a circuit, or a block of one, on unnormalised states with their classical bits."""
    for step in circuit.data:
        operation = step.operation
        name = operation.name
        if name in _SILENT:
            continue
        if name == "measure":
            qubit, bit = wires[step.qubits[0]], bits[step.clbits[0]]
            branches = [
                (state, value & ~(1 << bit) | outcome << bit)
                for before, value in branches
                for outcome, state in _projected(before, qubit)
            ]
        elif name == "reset":
            qubit = wires[step.qubits[0]]
            branches = [
                (_flipped(state, qubit) if outcome else state, value)
                for before, value in branches
                for outcome, state in _projected(before, qubit)
            ]
        elif name == "if_else":
            after: list[_Branch] = []
            for branch in branches:
                holds = _holds(operation.condition, branch[1], bits)
                chosen = operation.blocks[:1] if holds else operation.blocks[1:]
                if not chosen or chosen[0] is None:
                    after.append(branch)
                    continue
                block = chosen[0]
                inner_wires = {q: wires[o] for q, o in zip(block.qubits, step.qubits, strict=True)}
                inner_bits = {c: bits[o] for c, o in zip(block.clbits, step.clbits, strict=True)}
                after += _run(block, [branch], inner_wires, inner_bits)
            branches = after
        elif step.clbits or not hasattr(operation, "to_matrix"):
            raise _NotSimulated(f"'{name}'")
        else:
            matrix = _matrix(operation)
            qubits = [wires[q] for q in step.qubits]
            branches = [(_applied(matrix, state, qubits), value) for state, value in branches]
        if len(branches) > _MAX_BRANCHES:
            raise _NotSimulated(f"more than {_MAX_BRANCHES} branches")
    return branches


def _matrix(operation: Any) -> State:  # noqa: ANN401  Qiskit's gate
    from qiskit.quantum_info import Operator

    return np.asarray(Operator(operation).data)


def _applied(matrix: State, state: State, qubits: Sequence[int]) -> State:
    """Apply a matrix whose first qubit is the least significant bit of its index."""
    n = int(np.log2(len(state)))
    axes = [n - 1 - q for q in reversed(qubits)]
    k = len(qubits)
    tensor = np.tensordot(
        matrix.reshape((2,) * (2 * k)), state.reshape((2,) * n), (range(k, 2 * k), axes)
    )
    return np.moveaxis(tensor, range(k), axes).reshape(-1)


def _projected(state: State, qubit: int) -> Iterator[tuple[int, State]]:
    index = np.arange(len(state))
    for outcome in (0, 1):
        part = np.where((index >> qubit) & 1 == outcome, state, 0)
        if float(np.vdot(part, part).real) > _LEAST:
            yield outcome, part


def _flipped(state: State, qubit: int) -> State:
    return state[np.arange(len(state)) ^ (1 << qubit)]


def _holds(condition: Any, value: int, bits: Mapping[Any, int]) -> bool:  # noqa: ANN401
    """Whether a condition of Qiskit holds for the classical bits."""
    if isinstance(condition, tuple):
        target, wanted = condition
        return _read(target, value, bits) == int(wanted)
    return bool(_evaluate(condition, value, bits))


def _read(target: Any, value: int, bits: Mapping[Any, int]) -> int:  # noqa: ANN401
    if target in bits:
        return value >> bits[target] & 1
    return sum((value >> bits[bit] & 1) << i for i, bit in enumerate(target))


def _evaluate(node: Any, value: int, bits: Mapping[Any, int]) -> int:  # noqa: ANN401
    """Return the value of a classical expression of Qiskit."""
    from qiskit.circuit.classical import expr, types

    def inner(part: object) -> int:
        return _evaluate(part, value, bits)

    match node:
        case expr.Var():
            return _read(node.var, value, bits)
        case expr.Value():
            return int(node.value)
        case expr.Cast():
            return inner(node.operand)
        case expr.Unary(op=expr.Unary.Op.LOGIC_NOT):
            return int(not inner(node.operand))
        case expr.Unary(op=expr.Unary.Op.BIT_NOT) if isinstance(node.type, types.Bool):
            return int(not inner(node.operand))
        case expr.Binary(op=expr.Binary.Op.EQUAL):
            return int(inner(node.left) == inner(node.right))
        case expr.Binary(op=expr.Binary.Op.NOT_EQUAL):
            return int(inner(node.left) != inner(node.right))
        case expr.Binary(op=expr.Binary.Op.LOGIC_AND):
            return int(bool(inner(node.left)) and bool(inner(node.right)))
        case expr.Binary(op=expr.Binary.Op.LOGIC_OR):
            return int(bool(inner(node.left)) or bool(inner(node.right)))
        case _:
            raise _NotSimulated(f"the condition {type(node).__name__}")
