"""Circuits for pytket: the same registers, symbols, phase, measurements and conditions."""

from __future__ import annotations

import re
from typing import Any

from qcomp.backends.host_gates import Operation, half_turns, operations, symbols
from qcomp.errors import TargetError, UsageError
from qcomp.ir.circuit import Circuit
from qcomp.pytket_gates import PYTKET

__all__ = ["to_pytket"]

_REGISTER = re.compile(r"[a-z][A-Za-z0-9_]*")


def to_pytket(circuit: Circuit) -> Any:  # noqa: ANN401  pytket is optional
    """Return the circuit as a ``pytket.Circuit``; parameters become sympy symbols.

    Gates that pytket has not are given by their definitions. Names of registers that pytket does
    not take get a letter before them.

    Raises:
        TargetError: If control flow has no counterpart in pytket.
        UsageError: If pytket is not installed.
    """
    try:
        import pytket
    except ModuleNotFoundError as error:
        raise UsageError(
            "a pytket circuit needs the package 'pytket', which is not installed",
            hint="pip install 'qcomp[pytket]'",
        ) from error
    result = pytket.Circuit(name=circuit.name)
    for registers, letter, add in (
        (circuit.qregs, "q", result.add_q_register),
        (circuit.cregs, "c", result.add_c_register),
    ):
        for register in registers:
            fits = _REGISTER.fullmatch(register.name)
            add(register.name if fits else letter + register.name, register.size)
    names = symbols(circuit)
    host = _Host(pytket, result, circuit, names)
    for operation in operations(circuit, PYTKET, "pytket"):
        host.put(operation)
    result.add_phase(half_turns(circuit.global_phase, names))
    return result


class _Host:
    def __init__(self, pytket: Any, result: Any, circuit: Circuit, names: dict[str, Any]) -> None:  # noqa: ANN401
        self.types = pytket.OpType
        self.result = result
        self.names = names
        # pytket sorts its wires by name; ours follow the registers.
        self.qubits = [q for r in circuit.qregs for q in _wires(result.q_registers, r, "q")]
        self.bits = [b for r in circuit.cregs for b in _wires(result.c_registers, r, "c")]

    def put(self, operation: Operation) -> None:
        """Append an operation."""
        name = operation.gate.name
        wires = [self.qubits[q] for q in operation.qubits]
        given: dict[str, Any] = {}
        if operation.condition:
            values = {bit: value for bit, value in operation.condition}
            if any(values[bit] != value for bit, value in operation.condition):
                return  # the same bit must be 0 and 1: it never happens
            given["condition_bits"] = [self.bits[bit] for bit in values]
            given["condition_value"] = sum(v << i for i, v in enumerate(values.values()))
        if name == "measure":
            self.result.Measure(wires[0], self.bits[operation.clbit], **given)
        elif name == "reset":
            self.result.add_gate(self.types.Reset, wires, **given)
        elif name == "barrier":
            if wires:
                self.result.add_barrier(wires)
        else:
            angles = [half_turns(angle, self.names) for angle in operation.angles]
            if name == "ms":
                angles = [angles[2], angles[0], angles[1]]
            kind = getattr(self.types, PYTKET[name], None)
            if kind is None:
                raise TargetError(f"this version of pytket has no gate '{PYTKET[name]}'")
            self.result.add_gate(kind, angles, wires, **given)


def _wires(registers: list[Any], register: Any, letter: str) -> list[Any]:  # noqa: ANN401
    for own in registers:
        if own.name in (register.name, letter + register.name):
            return [own[i] for i in range(register.size)]
    raise TargetError(f"pytket has no register '{register.name}'")
