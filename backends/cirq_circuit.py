"""Circuits for Cirq: the same qubits, symbols, phase, measurements and conditions."""

from __future__ import annotations

import cmath
from collections.abc import Callable, Mapping
from typing import Any

from qcomp.backends.host_gates import Operation, half_turns, operations, symbols
from qcomp.errors import UsageError
from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit

__all__ = ["to_cirq"]


def to_cirq(circuit: Circuit) -> Any:  # noqa: ANN401  Cirq is optional
    """Return the circuit as a ``cirq.Circuit`` on ``LineQubit`` 0 .. n-1.

    Parameters become sympy symbols. Gates that Cirq has not are given by their definitions. Each
    classical bit is a measurement key: the register's name where it has one bit, else
    ``name_i``. Cirq has no barrier: where one stands, a new moment begins.

    Raises:
        TargetError: If control flow has no counterpart in Cirq.
        UsageError: If Cirq is not installed.
    """
    try:
        import cirq
    except ModuleNotFoundError as error:
        raise UsageError(
            "a Cirq circuit needs the package 'cirq-core', which is not installed",
            hint="pip install 'qcomp[cirq]'",
        ) from error
    gates, names = _gates(cirq), symbols(circuit)
    qubits = cirq.LineQubit.range(circuit.num_qubits)
    keys = [
        register.name if register.size == 1 else f"{register.name}_{i}"
        for register in circuit.cregs
        for i in range(register.size)
    ]
    result = cirq.Circuit()
    strategy = cirq.InsertStrategy.EARLIEST
    after_barrier = cirq.InsertStrategy.NEW_THEN_INLINE
    place = strategy
    for operation in operations(circuit, gates, "Cirq"):
        if operation.gate.name == "barrier":
            place = after_barrier
            continue
        wires = [qubits[q] for q in operation.qubits]
        result.append(_made(cirq, operation, gates, names, wires, keys), strategy=place)
        place = strategy
    phase = circuit.global_phase
    if not phase.is_zero:
        result.append(_global_phase(cirq, phase, names))
    missing = [q for q in qubits if q not in result.all_qubits()]
    if missing:  # a qubit of a Cirq circuit is one that something acts on
        result.append(cirq.I.on_each(*missing))
    return result


def _made(
    cirq: Any,  # noqa: ANN401
    operation: Operation,
    gates: Mapping[str, Callable[..., Any]],
    names: dict[str, Any],
    wires: list[Any],
    keys: list[str],
) -> list[Any]:
    """Return what Cirq has for one operation, in order."""
    name = operation.gate.name
    if name == "measure":
        made = [cirq.measure(wires[0], key=keys[operation.clbit])]
    elif name == "reset":
        made = [cirq.reset(wires[0])]
    elif name == "gphase":
        made = [_global_phase(cirq, operation.angles[0], names)]
    elif name == "mcx":
        made = [cirq.X(wires[-1]).controlled_by(*wires[:-1]) if wires[:-1] else cirq.X(wires[0])]
    else:
        turns = [half_turns(angle, names) for angle in operation.angles]
        found = gates[name](*turns)
        made = [gate(*wires) for gate in (found if isinstance(found, tuple) else (found,))]
    return [_conditional(part, operation, keys) for part in made]


def _conditional(made: Any, operation: Operation, keys: list[str]) -> Any:  # noqa: ANN401
    for bit, value in operation.condition:
        control: Any = keys[bit]
        if not value:
            import sympy

            control = sympy.Eq(sympy.Symbol(keys[bit]), 0)
        made = made.with_classical_controls(control)
    return made


def _global_phase(cirq: Any, angle: Angle, names: dict[str, Any]) -> Any:  # noqa: ANN401
    if not angle.terms:
        return cirq.global_phase_operation(cmath.exp(1j * float(angle)))
    import sympy

    radians = sympy.expand(sympy.pi * half_turns(angle, names))
    return cirq.global_phase_operation(sympy.exp(sympy.I * radians))


def _gates(cirq: Any) -> dict[str, Callable[..., Any]]:  # noqa: ANN401
    """Return gate -> what makes it, or the gates in order, of its angles in half turns."""

    def rotation(kind: Any) -> Callable[..., Any]:  # noqa: ANN401
        return lambda t: kind(exponent=t, global_shift=-0.5)

    def controlled(make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *angles: make(*angles).controlled()

    plain = {
        "id": cirq.I, "x": cirq.X, "y": cirq.Y, "z": cirq.Z, "h": cirq.H, "s": cirq.S,
        "sdg": cirq.S**-1, "t": cirq.T, "tdg": cirq.T**-1, "sx": cirq.X**0.5, "sxdg": cirq.X**-0.5,
        "cx": cirq.CX, "cy": cirq.Y.controlled(), "cz": cirq.CZ, "ch": cirq.H.controlled(),
        "cs": cirq.CZ**0.5, "csdg": cirq.CZ**-0.5, "csx": cirq.CX**0.5, "csxdg": cirq.CX**-0.5,
        "swap": cirq.SWAP, "iswap": cirq.ISWAP, "siswap": cirq.SQRT_ISWAP,
        "siswapdg": cirq.SQRT_ISWAP_INV, "zzmax": cirq.ZZPowGate(exponent=0.5, global_shift=-0.5),
        "ccx": cirq.CCX, "ccz": cirq.CCZ, "cswap": cirq.CSWAP,
    }  # fmt: skip
    rx, ry, rz = (rotation(g) for g in (cirq.XPowGate, cirq.YPowGate, cirq.ZPowGate))
    made: dict[str, Callable[..., Any]] = {
        "p": lambda t: cirq.ZPowGate(exponent=t),
        "rx": rx, "ry": ry, "rz": rz,
        "u": lambda t, p, lam: (cirq.ZPowGate(exponent=lam), ry(t), cirq.ZPowGate(exponent=p)),
        "r": lambda t, p: cirq.PhasedXPowGate(exponent=t, phase_exponent=p, global_shift=-0.5),
        "cp": lambda t: cirq.CZPowGate(exponent=t),
        "crx": controlled(rx), "cry": controlled(ry), "crz": controlled(rz),
        "rxx": rotation(cirq.XXPowGate), "ryy": rotation(cirq.YYPowGate),
        "rzz": rotation(cirq.ZZPowGate),
        "xy": lambda t: cirq.ISwapPowGate(exponent=t),
    }  # fmt: skip
    made.update({name: (lambda gate=gate: gate) for name, gate in plain.items()})
    made.update(dict.fromkeys(("gphase", "mcx")))  # type: ignore[arg-type]  # made by themselves
    return made
