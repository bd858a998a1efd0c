"""Circuits from circuits: bound, inverted, controlled, composed; and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.angle import Angle, snap_array
from qcomp.ir.blocks import Assign, Block, Delay, For, If, Item, Range, Switch, While, map_items
from qcomp.ir.classical import Binary, Bit, Call, Cast, Expr, Lit, Register, Unary
from qcomp.ir.definitions import definition, multi_controlled_x
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES, INVERSE_CODE, NUM_ANGLES, G, Gate, gate
from qcomp.ir.run import Run

if TYPE_CHECKING:
    from qcomp.ir.circuit import Circuit

__all__ = ["bind", "compose", "control", "expand", "inverse", "operation_angles", "same"]


# --- binding -----------------------------------------------------------------------------


def bind(circuit: Circuit, values: Mapping[str, float] | Sequence[float]) -> Circuit:
    """Return the circuit with some or all parameters replaced by numbers."""
    if not isinstance(values, Mapping):
        row = np.asarray(values, dtype=float)
        if row.shape != (circuit.num_params,):
            raise UsageError(
                f"the circuit '{circuit.name}' has {circuit.num_params} parameters, "
                f"values of shape {row.shape} were given"
            )
        values = dict(zip(circuit.params, row.tolist(), strict=True))
    unknown = [name for name in values if name not in circuit.params]
    if unknown:
        raise UsageError(
            f"the circuit '{circuit.name}' has no parameter {', '.join(unknown)}",
            hint="its parameters: " + (", ".join(circuit.params[:12]) or "none"),
        )
    number = np.array([float(values.get(name, 0.0)) for name in circuit.params])
    if not np.isfinite(number).all():
        raise UsageError("parameters must be finite numbers")
    fixed = np.array([name in values for name in circuit.params], dtype=bool)
    left = tuple(name for name in circuit.params if name not in values)
    forms, moved, index = _split_forms(circuit.forms, fixed, number)

    def bound(run: Run) -> Run:
        live = run.form >= 0
        if not live.any():
            return run
        extra = np.where(live, moved[run.form], 0.0)
        snapped, rest = snap_array(extra)
        form = np.where(live, index[run.form], -1).astype(np.int32)
        return run.with_angles(run.frac + snapped, run.rem + rest, form)

    new = circuit.map_runs(bound).copy(forms=forms)
    new.params = left
    new.global_phase = circuit.global_phase.bind(values)
    return new


def _split_forms(
    forms: Forms, fixed: NDArray[np.bool_], number: NDArray[np.float64]
) -> tuple[Forms, NDArray[np.float64], NDArray[np.int32]]:
    """Return (rows over the free parameters, each row's bound sum, each row's new index)."""
    row = np.repeat(np.arange(len(forms)), np.diff(forms.indptr))
    taken = fixed[forms.col]
    moved = np.zeros(max(len(forms), 1))
    np.add.at(moved, row[taken], forms.coef[taken] * number[forms.col[taken]])
    column = (np.cumsum(~fixed) - 1).astype(np.int32)
    kept, count = row[~taken], np.zeros(len(forms), dtype=np.int64)
    np.add.at(count, kept, 1)
    alive = count > 0
    index = np.where(alive, np.cumsum(alive) - 1, -1).astype(np.int32)
    result = Forms(
        np.concatenate([[0], np.cumsum(count[alive])]).astype(np.int64),
        column[forms.col[~taken]],
        forms.coef[~taken],
    )
    return result, moved, index if len(index) else np.full(1, -1, np.int32)


# --- single operations ---------------------------------------------------------------------


def operation_angles(circuit: Circuit, run: Run, index: int) -> tuple[Angle, ...]:
    """Return the angles of one operation as values; for tools, drawing and tests."""
    first, count = int(run.angle[index]), int(NUM_ANGLES[run.code[index]])
    return tuple(
        Angle(
            int(run.frac[k]),
            float(run.rem[k]),
            tuple(sorted((circuit.params[c], v) for c, v in circuit.forms.row(int(run.form[k])))),
        )
        for k in range(first, first + count)
    )


def expand(
    row: Gate, qubits: Sequence[int], angles: Sequence[Angle]
) -> list[tuple[Gate, tuple[int, ...], tuple[Angle, ...]]]:
    """Return one gate in simpler gates by its definition, one level down; empty for primitives."""
    steps = multi_controlled_x(len(qubits) - 1) if row.name == "mcx" else definition(row.name)
    known = dict(zip("tplg", angles, strict=False))
    return [
        (
            step.gate,
            tuple(qubits[q] for q in step.qubits),
            tuple(_substitute(angle, known) for angle in step.angles),
        )
        for step in steps
    ]


def _substitute(angle: Angle, known: Mapping[str, Angle]) -> Angle:
    total = Angle(angle.frac, angle.rem)
    for name, coef in angle.terms:
        value = known[name]
        total += value / (1 / coef) if abs(coef) == 0.5 else value * coef
    return total


# --- inverse -------------------------------------------------------------------------------


def _require_unitary(circuit: Circuit, what: str) -> Run:
    run = circuit.run if circuit.is_straight_line else None
    if run is None or np.isin(run.code, (G.MEASURE, G.RESET)).any():
        raise UsageError(
            f"'{circuit.name}' cannot be {what}: it measures, resets or has control flow",
            hint="take the unitary part alone",
        )
    return run


def inverse(circuit: Circuit) -> Circuit:
    """Return the inverse of a unitary circuit: gates in reverse order, each inverted."""
    run = _require_unitary(circuit, "inverted")
    if (INVERSE_CODE[run.code] < 0).any():
        circuit = _expanded(circuit, [GATES[c].name for c in np.flatnonzero(INVERSE_CODE < 0)])
        run = circuit.run
    backward = run.select(np.arange(len(run))[::-1])
    code = INVERSE_CODE[backward.code].astype(np.uint8)
    frac, rem, form = backward.frac.copy(), backward.rem.copy(), backward.form.copy()
    source = np.arange(len(frac))
    sign = -np.ones(len(frac))
    for row in GATES:
        if row.num_angles == 0 or row.inverse_angles == ((0, -1),):
            continue
        first = backward.angle[backward.code == row.code]
        for i, (origin, factor) in enumerate(row.inverse_angles):
            source[first + i] = first + origin
            sign[first + i] = factor
    forms, form = circuit.forms.combine(form[source], sign, np.arange(len(frac)), len(frac))
    turned = replace(backward, code=code).with_angles(
        frac[source] * sign.astype(np.int64), rem[source] * sign, form
    )
    new = circuit.copy(body=(turned,) if len(turned) else (), forms=forms)
    new.global_phase = -circuit.global_phase
    new.layout = None if circuit.layout is None else circuit.layout.inverse()
    return new


def _expanded(circuit: Circuit, names: Sequence[str]) -> Circuit:
    """Return a straight-line circuit with the named gates replaced by their definitions."""
    new = circuit.copy(body=())
    run = circuit.run
    for i, (name, qubits, _) in enumerate(run.operations()):
        angles = operation_angles(circuit, run, i)
        if name in names:
            for row, operands, values in expand(gate(name), qubits, angles):
                new.append(row.name, operands, values)
        else:
            new.append(name, qubits, angles)
    return new


# --- control -------------------------------------------------------------------------------

_CONTROLLED = {
    "x": "cx",
    "y": "cy",
    "z": "cz",
    "h": "ch",
    "s": "cs",
    "sdg": "csdg",
    "sx": "csx",
    "sxdg": "csxdg",
    "p": "cp",
    "rx": "crx",
    "ry": "cry",
    "rz": "crz",
    "cx": "ccx",
    "cz": "ccz",
    "swap": "cswap",
    "ccx": "mcx",
    "mcx": "mcx",
    "gphase": "p",
}


def control(circuit: Circuit, num_controls: int) -> Circuit:
    """Return the circuit under controls, which become the qubits 0 .. num_controls-1."""
    from qcomp.ir.circuit import Circuit as CircuitClass
    from qcomp.ir.circuit import RegisterDecl

    if num_controls < 1:
        raise UsageError("a circuit needs at least one control to be controlled")
    _require_unitary(circuit, "controlled")
    for _ in range(num_controls):
        qregs = [RegisterDecl(r.name, r.size, r.start + 1) for r in circuit.qregs]
        taken = {r.name for r in (*qregs, *circuit.cregs)}
        names = (f"ctrl{i or ''}" for i in range(len(taken) + 1))
        name = next(n for n in names if n not in taken)
        new = CircuitClass(
            circuit.num_qubits + 1,
            circuit.num_clbits,
            circuit.params,
            circuit.name,
            qregs=(RegisterDecl(name, 1, 0), *qregs),
            cregs=circuit.cregs,
        )
        run = circuit.run
        for i, (gate_name, qubits, _angle) in enumerate(run.operations()):
            shifted = tuple(q + 1 for q in qubits)
            _append_controlled(new, gate(gate_name), shifted, operation_angles(circuit, run, i))
        if not circuit.global_phase.is_zero:
            new.p(circuit.global_phase, 0)
        new.layout = None if circuit.layout is None else circuit.layout.controlled()
        circuit = new
    return circuit


def _append_controlled(
    new: Circuit, row: Gate, qubits: tuple[int, ...], angles: tuple[Angle, ...]
) -> None:
    if row.kind == "barrier":
        new.barrier(*qubits)
    elif row.name == "id":
        new.id(qubits[0])
    elif row.name == "u":
        theta, phi, lam = angles
        new.append("cu", (0, *qubits), (theta, phi, lam, Angle()))
    elif row.name in _CONTROLLED:
        new.append(_CONTROLLED[row.name], (0, *qubits), angles)
    else:
        for inner, operands, values in expand(row, qubits, angles):
            _append_controlled(new, inner, operands, values)


# --- composition ---------------------------------------------------------------------------


def compose(
    first: Circuit,
    second: Circuit,
    qubits: Sequence[int] | None = None,
    clbits: Sequence[int] | None = None,
) -> Circuit:
    """Return ``first`` followed by ``second`` on the given wires."""
    where = _wires("qubits", qubits, second.num_qubits, first.num_qubits)
    bits = _wires("classical bits", clbits, second.num_clbits, first.num_clbits)
    if second.variables and first.variables:
        clash = {v.name for v in first.variables} & {v.name for v in second.variables}
        if clash:
            raise UsageError(f"both circuits have a variable {', '.join(sorted(clash))}")
    params = first.params + tuple(p for p in second.params if p not in first.params)
    column = {name: i for i, name in enumerate(params)}
    moved = second.forms.remap(np.array([column[p] for p in second.params], dtype=np.int32))
    offset = len(first.forms)
    forms = Forms(
        np.concatenate([first.forms.indptr, first.forms.indptr[-1] + moved.indptr[1:]]),
        np.concatenate([first.forms.col, moved.col]),
        np.concatenate([first.forms.coef, moved.coef]),
    )

    def relabel(item: Item) -> Item:
        if isinstance(item, Run):
            run = item.relabel(where, bits)
            form = np.where(run.form >= 0, run.form + offset, -1)
            return replace(run, form=form.astype(np.int32))
        return _relabel_item(item, where, bits, second)

    new = first.copy(forms=forms)
    new.params = params
    new.variables = first.variables + second.variables
    for item in map_items(second.body, relabel):
        new.append_item(item)
    new.global_phase = first.global_phase + second.global_phase
    return new


def _wires(kind: str, given: Sequence[int] | None, need: int, have: int) -> NDArray[np.int32]:
    wires = list(range(need)) if given is None else [int(w) for w in given]
    if len(wires) != need or len(set(wires)) != need or any(not 0 <= w < have for w in wires):
        raise UsageError(
            f"the appended circuit needs {need} different {kind} among {have}, got {wires}"
        )
    return np.array(wires, dtype=np.int32)


def _relabel_item(
    item: Item, qubits: NDArray[np.int32], clbits: NDArray[np.int32], circuit: Circuit
) -> Item:
    def expr(e: Expr) -> Expr:
        match e:
            case Bit(index):
                return Bit(int(clbits[index]))
            case Register(name):
                return _register_value(name, circuit, clbits)
            case Unary(op, a):
                return Unary(op, expr(a))
            case Binary(op, a, b):
                return Binary(op, expr(a), expr(b))
            case Cast(kind, width, a):
                return Cast(kind, width, expr(a))
            case Call(function, arguments):
                return Call(function, tuple(expr(a) for a in arguments))
            case _:
                return e

    match item:
        case If() | While():
            return replace(item, condition=expr(item.condition))
        case For(values=Range(start, stop, step)):
            return replace(item, values=Range(expr(start), expr(stop), expr(step)))
        case Switch():
            return replace(item, subject=expr(item.subject))
        case Delay():
            return replace(item, qubits=tuple(int(qubits[q]) for q in item.qubits))
        case Assign(Bit(index), value):
            return Assign(Bit(int(clbits[index])), expr(value))
        case Assign(Register(name), _):
            raise UsageError(
                f"a circuit that assigns to the whole register '{name}' cannot be composed",
                hint="assign its bits one by one",
            )
        case Assign(target, value):
            return Assign(target, expr(value))
        case _:
            return item


def _register_value(name: str, circuit: Circuit, clbits: NDArray[np.int32]) -> Expr:
    """Return the integer of a register over its relabelled bits, sum of bit << i."""
    decl = next(r for r in circuit.cregs if r.name == name)
    total: Expr | None = None
    for i in range(decl.size):
        bit: Expr = Cast("uint", decl.size, Bit(int(clbits[decl.start + i])))
        term = Binary("<<", bit, Lit(i)) if i else bit
        total = term if total is None else Binary("|", total, term)
    assert total is not None
    return total


# --- comparison ----------------------------------------------------------------------------


def same(a: Circuit, b: Circuit) -> bool:
    """Whether two circuits are equal entry by entry; notes and names do not count."""
    return (
        (a.num_qubits, a.num_clbits, a.params) == (b.num_qubits, b.num_clbits, b.params)
        and (a.qregs, a.cregs, a.variables) == (b.qregs, b.cregs, b.variables)
        and (a.global_phase, a.layout) == (b.global_phase, b.layout)
        and _same_blocks(a.body, b.body, a.forms, b.forms)
    )


def _same_blocks(x: Block | None, y: Block | None, f: Forms, g: Forms) -> bool:
    if x is None or y is None or len(x) != len(y):
        return x is y
    return all(_same_items(i, j, f, g) for i, j in zip(x, y, strict=True))


def _same_items(x: Item, y: Item, f: Forms, g: Forms) -> bool:
    if type(x) is not type(y):
        return False
    if isinstance(x, Run) and isinstance(y, Run):
        return x.same_as(y, f, g)
    for slot in fields(x):
        left, right = getattr(x, slot.name), getattr(y, slot.name)
        if slot.name in ("then", "orelse", "body", "default"):
            if not _same_blocks(left, right, f, g):
                return False
        elif slot.name == "cases":
            if [labels for labels, _ in left] != [labels for labels, _ in right]:
                return False
            pairs = zip(left, right, strict=True)
            if not all(_same_blocks(p[1], q[1], f, g) for p, q in pairs):
                return False
        elif left != right:
            return False
    return True
