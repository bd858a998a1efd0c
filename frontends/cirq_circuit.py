"""The frontend ``cirq``: a ``cirq.Circuit`` into a circuit.

Cirq's gates are powers with a shift of phase: ``X**t`` with shift s is ``e^(i pi t (s + 1/2))
rx(pi t)``. All that the gate table knows is taken as it is, all else through Cirq's own
decompositions, whose phase, where they leave one out, is put back.
"""

from __future__ import annotations

import cmath
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.errors import SourceError
from qcomp.frontends.names import identifier, unique
from qcomp.frontends.sympy_angles import angle_of, is_symbolic, turns
from qcomp.ir.angle import Angle, pi_fraction
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.classical import Binary, Bit, Expr, Lit, Register, Unary
from qcomp.ir.transform import operation_angles

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["CirqFrontend", "from_cirq"]

_QUARTER = pi_fraction(1, 4)
_MAX_MATRIX = 6
"""Qubits of an operation whose decomposition's phase is looked up in matrices."""


def from_cirq(circuit: object, name: str = "") -> Circuit:
    """Return the circuit of a ``cirq.Circuit``.

    Qubits are numbered in Cirq's order, symbols become parameters in the order of their names, and
    each measurement key becomes a classical register.

    Args:
        circuit: A ``Circuit`` or ``FrozenCircuit``; it is not changed.
        name: The new circuit's name.

    Raises:
        SourceError: If it holds what no gate machine runs, all of it listed with counts, or an
            angle that is not affine in the symbols.
    """
    if not CirqFrontend().accepts(circuit):
        raise SourceError(f"a {type(circuit).__name__} is no cirq.Circuit")
    return _Reader(circuit, name).read()


class CirqFrontend:
    """Reads Cirq circuits."""

    name = "cirq"

    def accepts(self, source: object) -> bool:
        """Whether the source is a Cirq circuit; Cirq is not imported to find out."""
        return any(
            base.__name__ == "AbstractCircuit" and base.__module__.startswith("cirq.")
            for base in type(source).__mro__
        )

    def read(self, source: object, *, name: str = "") -> Program:
        """Return the program of a Cirq circuit.

        Raises:
            SourceError: See :func:`from_cirq`.
        """
        from qcomp.ir.program import Program

        circuit = from_cirq(source, name)
        program = Program.of_circuit(circuit)
        program.notes.extend(circuit.notes)
        return program


Put = Callable[..., object]


def _x_power(put: Put, q: Sequence[int], a: Angle) -> None:
    put("gphase", (), [a / 2])
    put("rx", q, [a])


def _y_power(put: Put, q: Sequence[int], a: Angle) -> None:
    put("gphase", (), [a / 2])
    put("ry", q, [a])


def _h_power(put: Put, q: Sequence[int], a: Angle) -> None:
    put("ry", q, [-_QUARTER])
    put("p", q, [a])
    put("ry", q, [_QUARTER])


def _cx_power(put: Put, q: Sequence[int], a: Angle) -> None:
    put("h", q[1:])
    put("cp", q, [a])
    put("h", q[1:])


def _swap_power(put: Put, q: Sequence[int], a: Angle) -> None:
    put("gphase", (), [a / 4])
    for name in ("rxx", "ryy", "rzz"):
        put(name, q, [a / 2])


def _pair_power(name: str) -> Callable[[Put, Sequence[int], Angle], object]:
    def build(put: Put, q: Sequence[int], a: Angle) -> None:
        put("gphase", (), [a / 2])
        put(name, q, [a])

    return build


@dataclass(frozen=True, slots=True)
class _Power:
    """How the powers of one of Cirq's gates are written, without a shift of phase.

    Attributes:
        names: Exponent -> the gate that it is.
        rotation: The gate that it is with the shift -1/2, its angle pi times the exponent.
        build: Appends any power, given pi times the exponent.
    """

    names: Mapping[float, str]
    rotation: str = ""
    build: Callable[[Put, Sequence[int], Angle], object] | None = None


_POWERS: dict[str, _Power] = {
    "XPowGate": _Power({1: "x", 0.5: "sx", -0.5: "sxdg"}, "rx", _x_power),
    "YPowGate": _Power({1: "y"}, "ry", _y_power),
    "ZPowGate": _Power(
        {1: "z", 0.5: "s", -0.5: "sdg", 0.25: "t", -0.25: "tdg"},
        "rz",
        lambda put, q, a: put("p", q, [a]),
    ),
    "HPowGate": _Power({1: "h"}, "", _h_power),
    "CXPowGate": _Power({1: "cx", 0.5: "csx", -0.5: "csxdg"}, "", _cx_power),
    "CZPowGate": _Power(
        {1: "cz", 0.5: "cs", -0.5: "csdg"}, "", lambda put, q, a: put("cp", q, [a])
    ),
    "SwapPowGate": _Power({1: "swap"}, "", _swap_power),
    "ISwapPowGate": _Power(
        {1: "iswap", 0.5: "siswap", -0.5: "siswapdg"}, "", lambda put, q, a: put("xy", q, [a])
    ),
    "XXPowGate": _Power({}, "rxx", _pair_power("rxx")),
    "YYPowGate": _Power({}, "ryy", _pair_power("ryy")),
    "ZZPowGate": _Power({}, "rzz", _pair_power("rzz")),
    "CCXPowGate": _Power({1: "ccx"}),
    "CCZPowGate": _Power({1: "ccz"}),
}


_CONTROLLED = {"y": "cy", "h": "ch", "rx": "crx", "ry": "cry", "rz": "crz"}


def _plain_name(gate: Any) -> str:  # noqa: ANN401
    """Return the gate that a power of Cirq's is, when it is a plain gate or rotation."""
    power = _power_of(gate)
    if power is None:
        return ""
    if gate.global_shift == -0.5:
        return power.rotation
    return power.names.get(1, "") if gate.exponent == 1 and not gate.global_shift else ""


def _power_of(gate: object) -> _Power | None:
    for base in type(gate).__mro__:
        if base.__name__ in _POWERS and base.__module__.startswith("cirq."):
            return _POWERS[base.__name__]
    return None


class _Reader:
    def __init__(self, source: Any, name: str) -> None:  # noqa: ANN401
        import cirq

        self.operations = list(_flat(source))
        qubits = sorted(source.all_qubits())
        wide = [q for q in qubits if q.dimension != 2]
        if wide:
            raise SourceError(f"the wire {wide[0]} has {wide[0].dimension} levels, a qubit has 2")
        self.qubits = {qubit: i for i, qubit in enumerate(qubits)}
        sizes: dict[Any, int] = {}
        for operation in self.operations:
            if isinstance(operation.without_classical_controls().gate, cirq.MeasurementGate):
                key = cirq.measurement_key_obj(operation)
                sizes[key] = max(sizes.get(key, 0), len(operation.qubits))
        texts = unique([identifier(str(key)) for key in sizes])
        starts = np.cumsum([0, *sizes.values()]).tolist()
        self.registers = {
            key: RegisterDecl(text, size, start)
            for (key, size), text, start in zip(sizes.items(), texts, starts, strict=False)
        }
        symbols = sorted(cirq.parameter_names(source))
        self.names = dict(zip(symbols, unique([identifier(s) for s in symbols]), strict=True))
        self.unsupported: Counter[str] = Counter()
        self.circuit = Circuit(
            len(qubits),
            starts[-1],
            tuple(self.names.values()),
            name or "circuit",
            cregs=tuple(self.registers.values()),
        )
        self.where = f"the circuit '{self.circuit.name}'"

    def read(self) -> Circuit:
        """Return the circuit.

        Raises:
            SourceError: If anything in it cannot be kept.
        """
        for operation in self.operations:
            self._operation(operation)
        if self.unsupported:
            listed = ", ".join(f"{what} ({n})" for what, n in sorted(self.unsupported.items()))
            raise SourceError(
                f"{self.where} holds what cannot be kept: {listed}",
                hint="remove these operations first",
            )
        return self.circuit

    def _operation(self, operation: Any) -> None:  # noqa: ANN401
        import cirq

        controls = operation.classical_controls
        if controls:
            inner = operation.without_classical_controls()
            conditions = [self._condition(c) for c in sorted(controls, key=str)]
            if any(condition is None for condition in conditions):
                self.unsupported["a condition that is no measurement key"] += 1
                return
            whole = conditions[0]
            for part in conditions[1:]:
                assert whole is not None
                assert part is not None
                whole = Binary("&&", whole, part)
            assert whole is not None
            with self.circuit.if_(whole):
                self._operation(inner)
            return
        gate, wires = operation.gate, [self.qubits[q] for q in operation.qubits]
        if isinstance(gate, cirq.MeasurementGate):
            self._measure(gate, wires)
        elif isinstance(gate, cirq.ResetChannel):
            self.circuit.reset(wires[0])
        elif isinstance(gate, cirq.ControlledGate):
            self._controlled(gate, wires)
        elif not self._known(gate, wires):
            self._decomposed(operation, wires)

    def _controlled(self, gate: Any, wires: Sequence[int]) -> None:  # noqa: ANN401
        """Append a controlled gate: its own circuit, controlled, once for each control value."""
        import cirq

        count = gate.num_controls()
        controls, targets = wires[:count], wires[count:]
        inner = gate.sub_gate
        values = [tuple(int(v) for v in row) for row in gate.control_values.expand()]
        name = _CONTROLLED.get(_plain_name(inner)) if values == [(1,)] else None
        if name is not None:
            angles = [self._turns(inner.exponent)] if name.startswith("cr") else []
            self.circuit.append(name, wires, angles)
            return
        qubits = cirq.LineQubit.range(len(targets))
        part = _Reader(cirq.Circuit(inner(*qubits), cirq.I.on_each(*qubits)), "controlled")
        part.names = self.names
        made = part.read().control(count)
        for row in values:
            zeros = [wire for wire, value in zip(controls, row, strict=True) if not value]
            for wire in zeros:
                self.circuit.x(wire)
            places = [*controls, *targets]
            self.circuit.gphase(made.global_phase)
            for run in made.runs():
                for i, (which, operands, _) in enumerate(run.operations()):
                    angles = list(operation_angles(made, run, i))
                    self.circuit.append(which, [places[q] for q in operands], angles)
            for wire in zeros:
                self.circuit.x(wire)

    def _measure(self, gate: Any, wires: Sequence[int]) -> None:  # noqa: ANN401
        if gate.confusion_map:
            self.unsupported["a measurement with a confusion map"] += 1
            return
        import cirq

        start = self.registers[cirq.measurement_key_obj(gate)].start
        for i, (wire, flipped) in enumerate(zip(wires, gate.full_invert_mask(), strict=True)):
            if flipped:
                self.circuit.x(wire)
            self.circuit.measure(wire, start + i)
            if flipped:
                self.circuit.x(wire)

    def _condition(self, control: Any) -> Expr | None:  # noqa: ANN401
        import cirq

        (key,) = control.keys if len(control.keys) == 1 else (None,)
        if key not in self.registers:
            return None
        register = self.registers[key]
        if isinstance(control, cirq.SympyCondition):
            return _equality(control.expr, register)
        if not isinstance(control, cirq.KeyCondition):
            return None
        if register.size == 1:
            return Bit(register.start)
        return Binary("!=", Register(register.name), Lit(0))

    # --- gates -----------------------------------------------------------------------------

    def _known(self, gate: Any, q: Sequence[int]) -> bool:  # noqa: ANN401
        """Append a gate that is known with all its parameters; tell whether it is."""
        import cirq

        put, turn = self.circuit.append, self._turns
        power = _power_of(gate)
        if power is not None:
            t, shift = gate.exponent, gate.global_shift
            if not is_symbolic(t) and not shift and float(t) in power.names:
                put(power.names[float(t)], q)
            elif shift == -0.5 and power.rotation:
                put(power.rotation, q, [turn(t)])
            elif power.build is None:
                return False
            else:
                power.build(put, q, turn(t))
                if shift:
                    self.circuit.gphase(turn(t * shift))
            return True
        match gate:
            case cirq.IdentityGate():
                for wire in q:
                    put("id", [wire])
            case cirq.CSwapGate():
                put("cswap", q)
            case cirq.PhasedXPowGate():
                self.circuit.gphase(turn(gate.exponent * (gate.global_shift + 0.5)))
                put("r", q, [turn(gate.exponent), turn(gate.phase_exponent)])
            case cirq.PhasedXZGate():
                x, z, a = gate.x_exponent, gate.z_exponent, gate.axis_phase_exponent
                put("p", q, [turn(-a)])
                _x_power(put, q, turn(x))
                put("p", q, [turn(a + z)])
            case cirq.FSimGate():
                put("xy", q, [self._radians(-2 * gate.theta)])
                put("cp", q, [self._radians(-gate.phi)])
            case cirq.GlobalPhaseGate():
                return self._phase(gate.coefficient)
            case _:
                return False
        return True

    def _phase(self, coefficient: Any) -> bool:  # noqa: ANN401
        """Append a global phase; tell whether it is one whose angle is known."""
        if not is_symbolic(coefficient):
            self.circuit.gphase(cmath.phase(complex(coefficient)))
            return True
        import sympy

        exponent = sympy.expand(sympy.log(coefficient) / sympy.I, force=True)
        if exponent.has(sympy.log):
            return False
        self.circuit.gphase(self._radians(exponent))
        return True

    def _decomposed(self, operation: Any, wires: Sequence[int]) -> None:  # noqa: ANN401
        """Append Cirq's own decomposition of an operation, with the phase that it leaves out."""
        import cirq

        parts = cirq.decompose_once(operation, None)
        if parts is None:
            what = operation.gate if operation.gate is not None else operation
            self.unsupported[f"'{type(what).__name__}'"] += 1
            return
        parts = list(parts)
        foreign = [q for part in parts for q in part.qubits if q not in self.qubits]
        if foreign:
            self.unsupported[f"'{type(operation.gate).__name__}', which takes ancillas"] += 1
            return
        if not cirq.is_parameterized(operation) and len(wires) <= _MAX_MATRIX:
            whole = cirq.unitary(operation, None)
            built = cirq.Circuit(parts)
            if whole is not None and cirq.has_unitary(built):
                found = built.unitary(qubit_order=operation.qubits)
                overlap = np.vdot(found, whole)
                if abs(cmath.phase(overlap)) > 1e-9:
                    self.circuit.gphase(cmath.phase(overlap))
        for part in parts:
            self._operation(part)

    def _turns(self, value: Any) -> Angle:  # noqa: ANN401
        return turns(value, self.names, self.where)

    def _radians(self, value: Any) -> Angle:  # noqa: ANN401
        return angle_of(value, self.names, self.where)


def _equality(expression: Any, register: RegisterDecl) -> Expr | None:  # noqa: ANN401
    """Return the condition that a key of one bit is 0 or 1, None for any other expression."""
    import sympy

    if register.size != 1 or not isinstance(expression, sympy.Eq):
        return None
    key, value = expression.args
    if not key.is_Symbol or value not in (0, 1):
        return None
    return Bit(register.start) if value == 1 else Unary("!", Bit(register.start))


def _flat(source: Any) -> list[Any]:  # noqa: ANN401
    """Return the operations in order, without tags, repeated circuits unrolled."""
    import cirq

    found = []
    for operation in source.all_operations():
        plain = operation.untagged
        if isinstance(plain, cirq.CircuitOperation):
            found += _flat(plain.mapped_circuit(deep=True))
        else:
            found.append(plain)
    return found
