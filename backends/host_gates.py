"""A circuit's operations for hosts that know other gates: one walk, definitions expanded."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from qcomp.errors import TargetError
from qcomp.ir.angle import PI, Angle
from qcomp.ir.blocks import Block, If
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Binary, Bit, Expr, Lit, Register, Unary
from qcomp.ir.definitions import ANGLE_NAMES, Step, definition
from qcomp.ir.gates import GATES, G, Gate
from qcomp.ir.run import Run
from qcomp.ir.transform import operation_angles

__all__ = ["Operation", "half_turns", "operations", "symbols"]

Condition = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation and what it depends on.

    Attributes:
        gate: Its row of the gate table.
        qubits: Its operands.
        angles: Its angles.
        clbit: The bit that a measurement writes.
        condition: (bit, value) pairs that must all hold.
    """

    gate: Gate
    qubits: tuple[int, ...]
    angles: tuple[Angle, ...] = ()
    clbit: int = -1
    condition: Condition = ()


def operations(circuit: Circuit, known: Collection[str], host: str) -> Iterator[Operation]:
    """Yield the operations in order, gates that the host has not replaced by their definitions.

    Args:
        circuit: Any circuit whose control flow is ``if`` on bits.
        known: Names of the gates that the host has.
        host: Its name, for messages.

    Raises:
        TargetError: If it holds other control flow.
    """
    yield from _block(circuit, circuit.body, (), frozenset(known), host)


def _block(
    circuit: Circuit, block: Block, condition: Condition, known: frozenset[str], host: str
) -> Iterator[Operation]:
    for item in block:
        if isinstance(item, Run):
            yield from _run(circuit, item, condition, known, host)
        elif isinstance(item, If):
            holds = _bits(circuit, item.condition, host)
            for body, extra in ((item.then, holds), (item.orelse, _opposite(holds, item, host))):
                _check_writes(body, extra, host)
                yield from _block(circuit, body, (*condition, *extra), known, host)
        else:
            raise TargetError(
                f"{host} has no counterpart of '{type(item).__name__.lower()}'",
                hint="unroll loops and leave delays out, or write OpenQASM 3",
            )


def _run(
    circuit: Circuit, run: Run, condition: Condition, known: frozenset[str], host: str
) -> Iterator[Operation]:
    for i in range(len(run)):
        row = GATES[run.code[i]]
        qubits = run.operands(i)
        clbit = int(run.qubit[i, 1]) if row.code == G.MEASURE else -1
        angles = operation_angles(circuit, run, i)
        yield from _expanded(Operation(row, qubits, angles, clbit, condition), known, host)


def _expanded(operation: Operation, known: frozenset[str], host: str) -> Iterator[Operation]:
    row = operation.gate
    if row.name in known or not row.is_unitary:
        yield operation
        return
    steps = definition(row.name)
    if not steps:
        raise TargetError(f"{host} has no gate '{row.name}'")
    for step in steps:
        yield from _expanded(_of_step(step, operation), known, host)


def _of_step(step: Step, whole: Operation) -> Operation:
    given = dict(zip(ANGLE_NAMES, whole.angles, strict=False))
    angles = []
    for angle in step.angles:
        value = Angle(angle.frac, angle.rem)
        for name, factor in angle.terms:
            value = value + given[name] * factor
        angles.append(value)
    qubits = tuple(whole.qubits[q] for q in step.qubits)
    return Operation(step.gate, qubits, tuple(angles), -1, whole.condition)


# --- conditions ----------------------------------------------------------------------------


def _bits(circuit: Circuit, condition: Expr, host: str) -> Condition:
    """Return the bits that a condition asks for."""
    match condition:
        case Bit(index):
            return ((index, 1),)
        case Unary("!", Bit(index)):
            return ((index, 0),)
        case Binary("==", Bit(index), Lit(value)):
            return ((index, int(value)),)
        case Binary("==", Register(name), Lit(value)):
            register = next(r for r in circuit.cregs if r.name == name)
            bits = range(register.start, register.start + register.size)
            return tuple((bit, int(value) >> i & 1) for i, bit in enumerate(bits))
        case Binary("&&", left, right):
            return (*_bits(circuit, left, host), *_bits(circuit, right, host))
        case _:
            raise TargetError(
                f"{host} has no condition {condition!r}",
                hint="conditions ask for the values of bits and registers",
            )


def _opposite(holds: Condition, item: If, host: str) -> Condition:
    if not item.orelse:
        return ()
    if len(holds) > 1:
        raise TargetError(
            f"{host} has no 'else' of a condition on {len(holds)} bits",
            hint="write the other cases out",
        )
    ((bit, value),) = holds
    return ((bit, 1 - value),)


def _check_writes(body: Block, condition: Condition, host: str) -> None:
    """Refuse a body that measures into the bits that it depends on."""
    bits = [bit for bit, _ in condition]
    for item in body:
        if isinstance(item, Run):
            written = item.qubit[item.code == G.MEASURE, 1].tolist()
            if set(written) & set(bits):
                raise TargetError(
                    f"an 'if' measures into the bit that it depends on, which {host} evaluates "
                    "for each gate"
                )


# --- angles --------------------------------------------------------------------------------


def symbols(circuit: Circuit) -> dict[str, Any]:
    """Return the sympy symbol of each parameter."""
    import sympy

    return {name: sympy.Symbol(name) for name in circuit.params}


def half_turns(angle: Angle, names: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return an angle in half turns: a float, or a sympy expression if it has parameters."""
    total: Any = angle.frac / PI + angle.rem / math.pi
    if angle.terms:
        import sympy

        for name, coefficient in angle.terms:
            factor = int(coefficient) if coefficient.is_integer() else coefficient
            total = total + factor * names[name] / sympy.pi
    return total
