"""What a profile can say: the circuit brought into that form, or an error that names the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcomp.backends.openqasm3.lower import lower_circuit
from qcomp.backends.openqasm3.profiles import Limit, Profile
from qcomp.errors import TargetError
from qcomp.ir.angle import UNIT
from qcomp.ir.blocks import (
    Assign,
    Box,
    Break,
    Continue,
    Delay,
    End,
    For,
    If,
    Item,
    Switch,
    While,
    walk_items,
)
from qcomp.ir.circuit import Circuit
from qcomp.ir.definitions import definition
from qcomp.ir.gates import GATES, G, gate
from qcomp.ir.run import Run

__all__ = ["check_limit", "prepared", "used_gates", "within_a_turn", "without"]

_TOLERANCE = 1e-10
_PERIOD = 4 * np.pi


def prepared(circuit: Circuit, profile: Profile, *, bound: bool = False) -> Circuit:
    """Return the circuit as the profile can say it.

    Args:
        circuit: Any circuit.
        profile: What can be said.
        bound: Whether free parameters will be numbers when the text is written.

    Raises:
        TargetError: If the profile cannot say what the circuit holds; every reason is named.
    """
    if circuit.params and not profile.inputs and not bound:
        raise TargetError(
            f"the profile '{profile.name}' has no free parameters",
            where=", ".join(circuit.params[:8]),
            hint="bind the circuit first (qcomp bind, or circuit.bind(values))"
            + (", or use 'portable-param'" if profile.name == "portable" else ""),
        )
    _check_finite(circuit)
    circuit = circuit.map_runs(_few_controls)
    if not profile.flow:
        _check_flow(circuit, profile)
    if profile.lowers:
        circuit = lower_circuit(circuit, profile.gates, profile.name)
    elif "mcx" not in profile.gates and any((run.code == G.MCX).any() for run in circuit.runs()):
        every = frozenset(row.name for row in GATES if row.name != "mcx")
        circuit = lower_circuit(circuit, every, profile.name)
    if not profile.phase:
        circuit = circuit.map_runs(lambda run: without(run, G.GPHASE))
    _check_gates(circuit, profile)
    if profile.limits:
        circuit = circuit.map_runs(_within_a_turn)
    _check_limits(circuit, profile)
    return _measured_last(circuit, profile) if profile.one_register else circuit


def _check_finite(circuit: Circuit) -> None:
    for run in circuit.runs():
        if not np.isfinite(run.rem).all():
            raise TargetError("an angle is not finite, OpenQASM has no such number")
    if not np.isfinite(circuit.forms.coef).all():
        raise TargetError("a coefficient of a parameter is not finite")


def _construct(item: Item) -> str:
    match item:
        case If():
            return "if"
        case For():
            return "for"
        case While():
            return "while"
        case Switch():
            return "switch"
        case Box():
            return "box"
        case Delay():
            return "delay"
        case Assign():
            return "an assignment"
        case Break() | Continue() | End():
            return type(item).__name__.lower()
        case _:
            return "operations"


def _check_flow(circuit: Circuit, profile: Profile) -> None:
    found = Counter(_construct(i) for i in walk_items(circuit.body) if not isinstance(i, Run))
    if circuit.variables:
        found["a variable"] = len(circuit.variables)
    if found:
        raise TargetError(
            f"the profile '{profile.name}' has no control flow: "
            + ", ".join(f"{what} ({n})" for what, n in sorted(found.items())),
            hint="use the profile 'full'",
        )


def _check_gates(circuit: Circuit, profile: Profile) -> None:
    counts = sum(
        (np.bincount(run.code, minlength=len(GATES)) for run in circuit.runs()),
        np.zeros(len(GATES), dtype=np.int64),
    )
    wrong = [
        name
        for name in used_gates(circuit, profile)
        if name not in profile.gates | profile.defines and counts[gate(name).code]
    ]
    if wrong:
        raise TargetError(
            f"the profile '{profile.name}' has no gates "
            + ", ".join(f"{name} ({counts[gate(name).code]})" for name in sorted(wrong)),
            hint="translate the circuit first: the pass to-basis, or -t with the machine's name",
        )


def within_a_turn(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return angles beyond 2 pi less the multiple of 4 pi, every gate's period, next to them."""
    return np.where(
        np.abs(value) > 0.5 * _PERIOD, value - _PERIOD * np.rint(value / _PERIOD), value
    )


def _within_a_turn(run: Run) -> Run:
    """Return the run with no number beyond 2 pi: a machine that limits angles wants none."""
    value = run.frac * UNIT + run.rem
    far = (np.abs(value) > 0.5 * _PERIOD) & (run.form < 0)
    if not far.any():
        return run
    frac, rem = np.where(far, 0, run.frac), np.where(far, within_a_turn(value), run.rem)
    return run.with_angles(frac, rem, run.form)


def _check_limits(circuit: Circuit, profile: Profile) -> None:
    """Check that angles are such as the machine takes them."""
    for name, limits in profile.limits.items():
        for run in circuit.runs():
            first = run.angle[run.code == gate(name).code]
            for limit in limits:
                entry = first + limit.index
                if limit.step and (run.form[entry] >= 0).any():
                    raise TargetError(
                        f"the profile '{profile.name}' takes {name} at {_allowed(limit)} only",
                        why="an angle of it depends on a free parameter",
                        hint="translate the circuit first: the pass to-basis",
                    )
                value = (run.frac[entry] * UNIT + run.rem[entry])[run.form[entry] < 0]
                check_limit(value, limit, name, profile)


def check_limit(value: NDArray[np.float64], limit: Limit, name: str, profile: Profile) -> None:
    """Check angles of a gate against what the machine takes.

    Raises:
        TargetError: If one of them is something else.
    """
    bad = (value < limit.low - _TOLERANCE) | (value > limit.high + _TOLERANCE)
    if limit.step:
        bad |= np.abs(value - np.rint(value / limit.step) * limit.step) > _TOLERANCE
    if bad.any():
        raise TargetError(
            f"the profile '{profile.name}' takes {name} at {_allowed(limit)} only",
            why=f"{int(bad.sum())} of its angles are others, the first is {float(value[bad][0])!r}",
            hint="translate the circuit first: the pass to-basis",
        )


def _allowed(limit: Limit) -> str:
    if limit.step:
        return f"multiples of {limit.step:.6g} from {limit.low:.6g} to {limit.high:.6g}"
    return f"angles from {limit.low:.6g} to {limit.high:.6g}"


def _measured_last(circuit: Circuit, profile: Profile) -> Circuit:
    """Move measurements to the end; barriers, which change no result, are left out."""
    run = without(circuit.run, G.BARRIER)
    if (run.code == G.RESET).any():
        raise TargetError(f"the profile '{profile.name}' has no reset")
    measure = run.code == G.MEASURE
    if measure.any():
        run = run.select(_measures_last(circuit, run, measure, profile))
    new = Circuit(circuit.num_qubits, circuit.num_clbits, circuit.params, circuit.name)
    new.forms = circuit.forms
    new.layout = circuit.layout
    return new.append_item(run) if len(run) else new


def _measures_last(
    circuit: Circuit, run: Run, measure: NDArray[np.bool_], profile: Profile
) -> NDArray[np.intp]:
    """Return the order of the operations with measurements at the end, by their bits."""
    last = np.full(circuit.num_qubits + 1, -1)
    plain = np.where(measure[:, None], np.array([[True, False, False]]), True)
    for k in range(3):
        np.maximum.at(last, np.where(plain[:, k], run.qubit[:, k], -1), np.arange(len(run)))
    place = np.flatnonzero(measure)
    bits = run.qubit[place, 1]
    if (last[run.qubit[place, 0]] != place).any() or len(np.unique(bits)) != len(bits):
        raise TargetError(
            f"the profile '{profile.name}' measures at the end only",
            why="a qubit is used after its measurement, or a bit is written twice",
            hint="use the profile 'full'",
        )
    order = place[np.argsort(bits, kind="stable")]
    return np.concatenate([np.flatnonzero(~measure), order])


def used_gates(circuit: Circuit, profile: Profile) -> list[str]:
    """Return the gates that are called, and those that their definitions call."""
    codes = [np.unique(run.code) for run in circuit.runs()]
    present = np.unique(np.concatenate(codes)) if codes else np.zeros(0, dtype=np.uint8)
    found: dict[str, None] = {}
    included = profile.included()

    def visit(name: str) -> None:
        if name not in found:
            if name not in profile.gates and name in profile.defines:
                for step in definition(name):
                    if step.gate.name not in included:
                        visit(step.gate.name)
            found[name] = None

    for code in present.tolist():
        if GATES[code].is_unitary or GATES[code].name == "mcx":
            visit(GATES[code].name)
    return list(found)


def _few_controls(run: Run) -> Run:
    """Call X with at most two controls by its name."""
    few = (run.code == G.MCX) & (run.qubit[:, 1] <= 3)
    if not few.any():
        return run
    code, qubit = run.code.copy(), run.qubit.copy()
    for index in np.flatnonzero(few).tolist():
        wires: Sequence[int] = run.operands(index)
        code[index] = (G.X, G.CX, G.CCX)[len(wires) - 1]
        qubit[index] = [*wires, -1, -1][:3]
    kept = Run(code, qubit, run.angle, run.frac, run.rem, run.form, run.extra)
    return kept.normal()


def without(run: Run, code: int) -> Run:
    """Return the run without the operations of one code."""
    keep: NDArray[np.bool_] = run.code != code
    return run if keep.all() else run.select(keep)
