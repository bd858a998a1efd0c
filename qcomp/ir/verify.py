"""The verifier: each invariant of a circuit stated once, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from qcomp.errors import PassError
from qcomp.ir.blocks import Assign, Delay, For, If, Item, Range, Switch, While, walk_items
from qcomp.ir.classical import Bit, Expr, Register, VarRef, walk
from qcomp.ir.gates import GATES, NUM_ANGLES, NUM_QUBITS, G
from qcomp.ir.run import Run

if TYPE_CHECKING:
    from qcomp.ir.circuit import Circuit

__all__ = ["verify"]


def verify(circuit: Circuit, after: str = "") -> None:
    """Check that a circuit is well-formed.

    1. Every code is a row of the gate table.
    2. Every operand is a wire of the circuit, and no operation has the same wire twice.
    3. A gate's angles are entries of the angle arrays, and no two gates share entries.
    4. An angle's units lie in [-2**61, 2**61), its float part is finite, its form is a row.
    5. Every form names parameters of the circuit, sorted, with finite non-zero coefficients.
    6. Registers cover the wires without gaps and overlaps, and no name stands for two things.
    7. Control flow names only bits, registers and variables that exist.
    8. A layout is one of as many physical qubits as the circuit has.

    Args:
        circuit: The circuit.
        after: The pass that made it, named in the error.

    Raises:
        PassError: If an invariant does not hold; names the pass and the ten operations around.
    """
    for message, run, index in _faults(circuit):
        where = f"circuit '{circuit.name}'" + (f", after '{after}'" if after else "")
        raise PassError(
            message,
            where=where,
            why=_around(circuit, run, index) if run is not None else "",
            hint="this is a fault of the pass, not of the input; please report it" if after else "",
        )


def _faults(circuit: Circuit) -> Iterator[tuple[str, Run | None, int]]:
    yield from ((text, None, 0) for text in _declaration_faults(circuit))
    variables = {v.name for v in circuit.variables}
    for item in walk_items(circuit.body):
        if isinstance(item, For):
            variables.add(item.variable.name)
    for item in walk_items(circuit.body):
        if isinstance(item, Run):
            yield from ((text, item, index) for text, index in _run_faults(circuit, item))
        else:
            yield from ((text, None, 0) for text in _item_faults(circuit, item, variables))


def _declaration_faults(circuit: Circuit) -> Iterator[str]:
    for kind, registers, wires in (
        ("quantum", circuit.qregs, circuit.num_qubits),
        ("classical", circuit.cregs, circuit.num_clbits),
    ):
        covered = 0
        for register in sorted(registers, key=lambda r: r.start):
            if register.start != covered or register.size < 1:
                yield f"the {kind} register '{register.name}' leaves a gap or overlaps"
            covered = register.start + register.size
        if covered != wires:
            yield f"the {kind} registers cover {covered} wires of {wires}"
    layout = circuit.layout
    if layout is not None and layout.num_physical != circuit.num_qubits:
        yield f"the layout is one of {layout.num_physical} qubits, there are {circuit.num_qubits}"
    names = [r.name for r in (*circuit.qregs, *circuit.cregs)]
    names += [v.name for v in circuit.variables] + list(circuit.params)
    if len(set(names)) != len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        yield f"the name {', '.join(twice)} stands for two things"
    forms = circuit.forms
    if len(forms.col) and (forms.col.min() < 0 or forms.col.max() >= circuit.num_params):
        yield "a form names a parameter that the circuit does not have"
    if not np.isfinite(forms.coef).all() or (forms.coef == 0).any():
        yield "a form has a coefficient that is zero or not finite"
    if (np.diff(forms.indptr) < 0).any() or forms.indptr[-1] != len(forms.col):
        yield "the rows of the forms are not in order"
    if any(name not in circuit.params for name, _ in circuit.global_phase.terms):
        yield "the global phase names a parameter that the circuit does not have"


def _run_faults(circuit: Circuit, run: Run) -> Iterator[tuple[str, int]]:
    n = len(run)
    if run.qubit.shape != (n, 3) or len(run.angle) != n:
        yield "the arrays of a run have different lengths", 0
        return
    if n and run.code.max() >= len(GATES):
        yield "a code is no gate of the table", int(run.code.argmax())
        return
    arity = NUM_QUBITS[run.code].astype(np.int64)
    wide = arity < 0
    measure = run.code == G.MEASURE
    for column in range(3):
        used = ~wide & (arity > column)
        q = run.qubit[:, column]
        bad = used & ((q < 0) | (q >= circuit.num_qubits))
        bad |= ~wide & ~used & ~(measure & (column == 1)) & (q != -1)
        for other in range(column):
            bad |= used & (q == run.qubit[:, other])
        if bad.any():
            yield f"operand {column} is no wire, or is a wire used twice", int(bad.argmax())
    bad = measure & ((run.qubit[:, 1] < 0) | (run.qubit[:, 1] >= circuit.num_clbits))
    if bad.any():
        yield "a measurement writes to no classical bit", int(bad.argmax())
    for i in np.flatnonzero(wide):
        first, count, _ = (int(v) for v in run.qubit[i])
        operands = run.extra[first : first + count]
        if (
            first < 0
            or len(operands) != count
            or len(set(operands.tolist())) != count
            or (count and (operands.min() < 0 or operands.max() >= circuit.num_qubits))
        ):
            yield "a wide operation has operands that are no wires, or one twice", int(i)
    yield from _angle_faults(circuit, run)


def _angle_faults(circuit: Circuit, run: Run) -> Iterator[tuple[str, int]]:
    count = NUM_ANGLES[run.code].astype(np.int64)
    total = len(run.frac)
    if not len(run.rem) == len(run.form) == total:
        yield "the angle arrays have different lengths", 0
        return
    turning = count > 0
    bad = turning & ((run.angle < 0) | (run.angle + count > total))
    bad |= ~turning & (run.angle != -1)
    if bad.any():
        yield "a gate's angles are no entries of the angle arrays", int(bad.argmax())
        return
    first, length = run.angle[turning].astype(np.int64), count[turning]
    entry = np.repeat(first - (np.cumsum(length) - length), length) + np.arange(int(length.sum()))
    if len(np.unique(entry)) != len(entry):
        yield "two gates share an angle entry", 0
    if total:
        if run.frac.min() < -(1 << 61) or run.frac.max() >= 1 << 61:
            yield "an angle's units are not reduced modulo 4 pi", 0
        if not np.isfinite(run.rem).all():
            yield "an angle is not finite", 0
        if run.form.min() < -1 or run.form.max() >= len(circuit.forms):
            yield "an angle's form is no row of the forms", 0


def _item_faults(circuit: Circuit, item: Item, variables: set[str]) -> Iterator[str]:
    expressions: list[Expr] = []
    match item:
        case If() | While():
            expressions = [item.condition]
        case Switch():
            expressions = [item.subject]
        case For(values=Range(start, stop, step)):
            expressions = [start, stop, step]
        case Assign(target, value):
            expressions = [target, value]
        case Delay(_, qubits):
            if any(not 0 <= q < circuit.num_qubits for q in qubits):
                yield "a delay acts on no qubit"
        case _:
            pass
    registers = {r.name for r in circuit.cregs}
    for expression in expressions:
        for part in walk(expression):
            if isinstance(part, Bit) and not 0 <= part.index < circuit.num_clbits:
                yield f"a condition reads the classical bit {part.index}, which is not there"
            if isinstance(part, Register) and part.name not in registers:
                yield f"a condition reads the register '{part.name}', which is not there"
            if isinstance(part, VarRef) and part.name not in variables:
                yield f"an expression reads the variable '{part.name}', which is not there"


def _around(circuit: Circuit, run: Run, index: int) -> str:
    lines = ["the operations around it:"]
    for i in range(max(0, index - 5), min(len(run), index + 6)):
        code = int(run.code[i])
        name = GATES[code].name if code < len(GATES) else f"code {code}"
        mark = ">" if i == index else " "
        lines.append(f"    {mark} {i}: {name} {run.qubit[i].tolist()} angle {int(run.angle[i])}")
    return "\n".join(lines)
