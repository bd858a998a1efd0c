"""The frontend ``pytket``: a pytket ``Circuit`` into a circuit.

pytket counts angles in half turns. Gates that the gate table has are taken as they are, all others
through pytket's own decompositions, global phase included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qcomp.errors import SourceError
from qcomp.frontends.names import identifier, registers_of, unique
from qcomp.frontends.sympy_angles import is_symbolic, turns
from qcomp.ir.angle import Angle, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Binary, Bit, Expr, Unary
from qcomp.pytket_gates import PYTKET

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["PytketFrontend", "from_pytket"]

_SAME = {theirs: ours for ours, theirs in PYTKET.items() if ours != "ms"}
"""pytket's gates -> ours with the same matrix, the angles in the same order."""

Emit = Callable[..., object]
_HALF = pi_fraction(1, 2)
_BUILT: dict[str, Callable[[Emit, Sequence[int], Sequence[Angle]], object]] = {
    "V": lambda emit, q, a: emit("rx", q, [_HALF]),
    "Vdg": lambda emit, q, a: emit("rx", q, [-_HALF]),
    "CV": lambda emit, q, a: emit("crx", q, [_HALF]),
    "CVdg": lambda emit, q, a: emit("crx", q, [-_HALF]),
    "U2": lambda emit, q, a: emit("u", q, [_HALF, *a]),
    "CU3": lambda emit, q, a: emit("cu", q, [*a, Angle()]),
    "TK1": lambda emit, q, a: [
        emit("rz", q, [a[2]]), emit("rx", q, [a[1]]), emit("rz", q, [a[0]])
    ],
    "TK2": lambda emit, q, a: [
        emit("rxx", q, [a[0]]), emit("ryy", q, [a[1]]), emit("rzz", q, [a[2]])
    ],
    "AAMS": lambda emit, q, a: emit("ms", q, [a[1], a[2], a[0]]),
    "BRIDGE": lambda emit, q, a: emit("cx", [q[0], q[2]]),
}  # fmt: skip


def from_pytket(circuit: object, name: str = "") -> Circuit:
    """Return the circuit of a ``pytket.Circuit``.

    Qubits keep pytket's order; symbols become parameters, in the order of their names.

    Args:
        circuit: The circuit; it is not changed.
        name: The new circuit's name; pytket's by default.

    Raises:
        SourceError: If it holds what no gate machine runs, all of it listed with counts, or an
            angle that is not affine in the symbols.
    """
    if not PytketFrontend().accepts(circuit):
        raise SourceError(f"a {type(circuit).__name__} is no pytket.Circuit")
    return _Reader(circuit, name).read()


class PytketFrontend:
    """Reads pytket circuits."""

    name = "pytket"

    def accepts(self, source: object) -> bool:
        """Whether the source is a pytket circuit; pytket is not imported to find out."""
        return any(
            base.__name__ == "Circuit" and base.__module__.startswith("pytket.")
            for base in type(source).__mro__
        )

    def read(self, source: object, *, name: str = "") -> Program:
        """Return the program of a pytket circuit.

        Raises:
            SourceError: See :func:`from_pytket`.
        """
        from qcomp.ir.program import Program

        return Program.of_circuit(from_pytket(source, name))


class _Reader:
    def __init__(self, source: Any, name: str) -> None:  # noqa: ANN401
        self.source = source.copy()
        self.source.replace_implicit_wire_swaps()
        self.where = f"the circuit '{source.name or 'circuit'}'"
        symbols = sorted(symbol.name for symbol in source.free_symbols())
        self.names = dict(zip(symbols, unique([identifier(s) for s in symbols]), strict=True))
        self.unsupported: Counter[str] = Counter()
        qubits, bits = source.qubits, source.bits
        self.circuit = Circuit(
            len(qubits),
            len(bits),
            tuple(self.names.values()),
            name or identifier(source.name or "circuit"),
            qregs=registers_of([_place(qubit) for qubit in qubits], "q"),
            cregs=registers_of([_place(bit) for bit in bits], "c"),
        )

    def read(self) -> Circuit:
        """Return the circuit.

        Raises:
            SourceError: If anything in it cannot be kept.
        """
        qubits = {qubit: i for i, qubit in enumerate(self.source.qubits)}
        bits = {bit: i for i, bit in enumerate(self.source.bits)}
        self._commands(self.source, qubits, bits, whole=True)
        if self.unsupported:
            listed = ", ".join(f"{what} ({n})" for what, n in sorted(self.unsupported.items()))
            raise SourceError(
                f"the circuit '{self.circuit.name}' holds what cannot be kept: {listed}",
                hint="remove these operations first",
            )
        return self.circuit

    def _commands(
        self,
        source: Any,  # noqa: ANN401
        qubits: Mapping[object, int],
        bits: Mapping[object, int],
        *,
        whole: bool,
    ) -> None:
        if is_symbolic(source.phase) or source.phase:
            self.circuit.gphase(self._turns(source.phase))
        for command in source.get_commands():
            args = list(command.args)
            op = command.op
            if op.type.name != "Conditional":
                self._operation(op, args, qubits, bits, whole=whole)
                continue
            condition = _condition([bits[bit] for bit in args[: op.width]], op.value)
            with self.circuit.if_(condition):
                self._operation(op.op, args[op.width :], qubits, bits, whole=whole)

    def _operation(
        self,
        op: Any,  # noqa: ANN401
        args: list[Any],
        qubits: Mapping[object, int],
        bits: Mapping[object, int],
        *,
        whole: bool,
    ) -> None:
        """Append one operation; ``whole`` unless it comes from a decomposition already."""
        kind = op.type.name
        if kind == "Measure":
            self.circuit.measure(qubits[args[0]], bits[args[1]])
        elif kind in _SAME or kind in _BUILT:
            operands = [qubits[arg] for arg in args if arg in qubits]
            if kind == "Barrier":
                if operands:
                    self.circuit.barrier(*operands)
                return
            angles = [self._turns(angle) for angle in op.params]
            if kind in _SAME:
                self.circuit.append(_SAME[kind], operands, angles)
            else:
                _BUILT[kind](self.circuit.append, operands, angles)
        elif whole:
            self._decomposed(op, args, qubits, bits)
        else:
            self.unsupported[f"'{kind}'"] += 1

    def _decomposed(
        self, op: Any, args: list[Any], qubits: Mapping[object, int], bits: Mapping[object, int]
    ) -> None:  # noqa: ANN401
        from pytket import Circuit as TketCircuit
        from pytket import OpType
        from pytket.passes import AutoRebase, DecomposeBoxes

        own_qubits = [qubits[arg] for arg in args if arg in qubits]
        own_bits = [bits[arg] for arg in args if arg in bits]
        part = TketCircuit(len(own_qubits), len(own_bits))
        places = {qubit: i for qubit, i in zip(own_qubits, part.qubits, strict=True)}
        cells = {bit: i for bit, i in zip(own_bits, part.bits, strict=True)}
        try:
            part.add_gate(op, [places[qubits[a]] if a in qubits else cells[bits[a]] for a in args])
            DecomposeBoxes().apply(part)
            AutoRebase({OpType.CX, OpType.Rz, OpType.Rx}).apply(part)
            part.replace_implicit_wire_swaps()
        except RuntimeError:
            self.unsupported[f"'{op.type.name}'"] += 1
            return
        self._commands(
            part,
            dict(zip(part.qubits, own_qubits, strict=True)),
            dict(zip(part.bits, own_bits, strict=True)),
            whole=False,
        )

    def _turns(self, value: Any) -> Angle:  # noqa: ANN401
        return turns(value, self.names, self.where)


def _place(unit: Any) -> tuple[str, int]:  # noqa: ANN401  a Qubit or Bit
    index = unit.index
    return (unit.reg_name, index[0]) if len(index) == 1 else (str(unit), 0)


def _condition(bits: Sequence[int], value: int) -> Expr:
    """Return that bits, the least significant first, hold a value."""
    parts: list[Expr] = [
        Bit(bit) if value >> i & 1 else Unary("!", Bit(bit)) for i, bit in enumerate(bits)
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = Binary("&&", whole, part)
    return whole
