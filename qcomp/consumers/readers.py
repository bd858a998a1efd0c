"""The reference parser, pyqasm and pytket as consumers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qcomp.consumers.outcomes import MAX_QUBITS, Outcome, our_outcome
from qcomp.ir.circuit import Circuit

__all__ = ["PyQasm", "PyTket", "Reference"]


class Reference:
    """The reference parser: it has no meaning of its own, so its tree is printed and read again."""

    def load(self, text: str, values: Mapping[str, float], ours: Circuit) -> object:
        """Parse."""
        import openqasm3

        if text.lstrip("\ufeff \t\r\n").startswith("OPENQASM 2"):
            raise ValueError("the reference parser is one of OpenQASM 3")
        return openqasm3.parse(text), dict(values)

    def outcome(self, loaded: object) -> Outcome | str:
        """Simulate what it prints."""
        import openqasm3

        tree, values = _parts(loaded)
        circuit = Circuit.from_qasm(openqasm3.dumps(tree))
        return our_outcome(circuit.bind(values) if values else circuit)


class PyQasm:
    """pyqasm: semantic checks, and every gate written out."""

    def load(self, text: str, values: Mapping[str, float], ours: Circuit) -> object:
        """Load, validate and unroll; return the unrolled text."""
        import pyqasm

        module = pyqasm.loads(text)
        module.validate()
        module.unroll()
        return pyqasm.dumps(module)

    def outcome(self, loaded: object) -> Outcome | str:
        """Simulate the unrolled text."""
        return our_outcome(Circuit.from_qasm(str(loaded)))


class PyTket:
    """pytket's reader of OpenQASM 2."""

    def load(self, text: str, values: Mapping[str, float], ours: Circuit) -> object:
        """Read; wires are named by register and index."""
        from pytket.qasm import circuit_from_qasm_str

        qubits = {(r.name, i): r.start + i for r in ours.qregs for i in range(r.size)}
        bits = {(r.name, i): r.start + i for r in ours.cregs for i in range(r.size)}
        width = max((r.size for r in ours.cregs), default=1)
        return circuit_from_qasm_str(text, maxwidth=max(width, 1)), qubits, bits

    def outcome(self, loaded: object) -> Outcome | str:
        """Return the state vector's probabilities and the measurements at the end."""
        from pytket.circuit import Circuit as TketCircuit
        from pytket.circuit import OpType

        circuit, qubits, bits = _parts(loaded)
        unitary = TketCircuit()
        commands = circuit.get_commands()
        used = sorted({q for c in commands for q in c.qubits}, key=lambda q: (q.reg_name, q.index))
        if len(used) > MAX_QUBITS:
            return f"{len(used)} qubits are more than {MAX_QUBITS}"
        for qubit in used:
            unitary.add_qubit(qubit)
        measured: list[tuple[int, int | None]] = []
        gone: set[Any] = set()
        for command in commands:
            kind = command.op.type
            if kind == OpType.Barrier:
                continue
            if kind in (OpType.Conditional, OpType.Reset) or gone & set(command.qubits):
                return "pytket's state vector has no measurement inside a circuit"
            if kind == OpType.Measure:
                gone.add(command.qubits[0])
                measured.append((_wire(qubits, command.qubits[0]), _wire(bits, command.bits[0])))
            else:
                unitary.add_gate(command.op, command.qubits)
        try:
            state = unitary.get_statevector()
        except RuntimeError as error:
            return f"pytket's simulator: {error}"
        # Its first qubit is the most significant bit of the index.
        wires = tuple(_wire(qubits, q) for q in reversed(unitary.qubits))
        return Outcome(np.abs(state) ** 2, wires, tuple(measured))


def _parts(loaded: object) -> tuple[Any, ...]:
    assert isinstance(loaded, tuple)
    return loaded


def _wire(numbers: Mapping[tuple[str, int], int], unit: Any) -> int:  # noqa: ANN401  pytket's
    return numbers[(unit.reg_name, unit.index[0])]
