"""Gates replaced by simpler ones, over arrays, until a profile has them all."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import TargetError
from qcomp.ir.angle import Angle, Parameter, pi_fraction, wrap
from qcomp.ir.circuit import Circuit
from qcomp.ir.definitions import Step, definition, multi_controlled_x
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES, NUM_ANGLES, G, gate
from qcomp.ir.run import Run

__all__ = ["lower_circuit"]

_T, _P, _L = Parameter("t"), Parameter("p"), Parameter("l")
_ROUNDS = 12


@functools.cache
def _rules() -> dict[str, tuple[Step, ...]]:
    """Return the steps by which the table's primitives are written without ``u`` and ``cx``."""

    def steps(*parts: tuple[str, tuple[int, ...], tuple[Angle, ...]]) -> tuple[Step, ...]:
        return tuple(Step(gate(name), qubits, angles) for name, qubits, angles in parts)

    return {
        "id": (),
        "sdg": steps(("z", (0,), ()), ("s", (0,), ())),
        "tdg": steps(("z", (0,), ()), ("s", (0,), ()), ("t", (0,), ())),
        "sx": steps(("h", (0,), ()), ("s", (0,), ()), ("h", (0,), ())),
        "sxdg": steps(("h", (0,), ()), ("sdg", (0,), ()), ("h", (0,), ())),
        "p": steps(("gphase", (), (_T / 2,)), ("rz", (0,), (_T,))),
        "u": steps(
            ("gphase", (), (_P / 2 + _L / 2,)),
            ("rz", (0,), (_L,)),
            ("ry", (0,), (_T,)),
            ("rz", (0,), (_P,)),
        ),
        "r": steps(
            ("rz", (0,), (pi_fraction(1, 2) - _P,)),
            ("ry", (0,), (_T,)),
            ("rz", (0,), (_P - pi_fraction(1, 2),)),
        ),
        "cx": steps(("h", (1,), ()), ("cz", (0, 1), ()), ("h", (1,), ())),
    }


def _steps(name: str, native: frozenset[str]) -> tuple[Step, ...] | None:
    found = definition(name)
    if name in _rules() and "cx" not in native:
        return _rules()[name]
    return found or None


def lower_circuit(circuit: Circuit, native: frozenset[str], profile: str) -> Circuit:
    """Return the circuit in gates of ``native``; its matrix is unchanged, global phase included.

    Steps of definitions come in the order of the definition; angles stay exact where halves of
    them are. Cost: linear in the gates that come out.

    Args:
        circuit: Any circuit.
        native: Names of gates that stay; ``gphase``, ``measure``, ``reset`` and ``barrier`` do too.
        profile: For messages.

    Raises:
        TargetError: If a gate has no definition that ends in ``native``.
    """
    native = native | {"gphase", "measure", "reset", "barrier"}
    keep = np.array([row.name in native for row in GATES])
    forms = circuit.forms

    def lowered(run: Run) -> Run:
        nonlocal forms
        for _ in range(_ROUNDS):
            if keep[run.code].all():
                return run
            run = _expand_wide(run, keep)
            run, forms = _expand(run, forms, keep, native, profile)
        left = sorted({GATES[code].name for code in run.code[~keep[run.code]]})
        raise TargetError(f"the profile '{profile}' has no gate for: {', '.join(left)}")

    body = circuit.map_runs(lowered)
    return circuit if body is circuit else body.copy(forms=forms)


def _expand_wide(run: Run, keep: NDArray[np.bool_]) -> Run:
    """Write each ``mcx`` as gates on at most three qubits."""
    where = np.flatnonzero(run.code == G.MCX)
    if keep[G.MCX] or not len(where):
        return run
    parts = []
    last = 0
    for index in where.tolist():
        parts.append(run.select(np.arange(last, index)))
        operands = run.operands(index)
        code, qubit, frac = [], [], []
        for step in multi_controlled_x(len(operands) - 1):
            code.append(step.gate.code)
            wires = [operands[q] for q in step.qubits]
            qubit.append([*wires, -1, -1][:3])
            frac += [angle.frac for angle in step.angles]
        parts.append(Run.of(code, qubit, frac))
        last = index + 1
    parts.append(run.select(np.arange(last, len(run))))
    return Run.concat(parts)


def _expand(
    run: Run, forms: Forms, keep: NDArray[np.bool_], native: frozenset[str], profile: str
) -> tuple[Run, Forms]:
    """Replace each gate that does not stay by the steps of its definition, once."""
    present = np.unique(run.code)
    steps: dict[int, tuple[Step, ...]] = {}
    for code in present[~keep[present]].tolist():
        found = _steps(GATES[code].name, native)
        if found is None:
            raise TargetError(
                f"the profile '{profile}' has no gate '{GATES[code].name}'",
                hint="translate the circuit first: the pass to-basis",
            )
        steps[code] = found
    size = np.ones(len(GATES), dtype=np.int64)
    for code, found in steps.items():
        size[code] = len(found)
    count = size[run.code]
    start = np.cumsum(count) - count
    total = int(count.sum())
    code = np.zeros(total, dtype=np.uint8)
    qubit = np.full((total, 3), -1, dtype=np.int32)
    stay = keep[run.code]
    code[start[stay]] = run.code[stay]
    qubit[start[stay]] = run.qubit[stay]
    for old, found in steps.items():
        rows = np.flatnonzero(run.code == old)
        for k, step in enumerate(found):
            code[start[rows] + k] = step.gate.code
            for place, q in enumerate(step.qubits):
                qubit[start[rows] + k, place] = run.qubit[rows, q]
    out = Run.of(code, qubit, extra=run.extra)
    frac, rem = out.frac, out.rem
    targets: list[NDArray[np.int64]] = []
    sources: list[NDArray[np.int32]] = []
    scales: list[NDArray[np.float64]] = []

    def add(entry: NDArray[np.int64], source: NDArray[np.int64], scale: float) -> None:
        numerator, denominator = scale.as_integer_ratio()
        whole = run.frac[source] * numerator
        part = whole % denominator
        frac[entry] += (whole - part) // denominator
        rem[entry] += run.rem[source] * scale + part * (np.pi / (1 << 60) / denominator)
        targets.append(entry)
        sources.append(run.form[source])
        scales.append(np.full(len(entry), scale))

    for same in np.unique(run.code[stay]).tolist():
        rows = np.flatnonzero(run.code == same)
        new, old_entry = out.angle[start[rows]].astype(np.int64), run.angle[rows].astype(np.int64)
        for k in range(int(NUM_ANGLES[same])):
            add(new + k, old_entry + k, 1.0)
    for old, found in steps.items():
        rows = np.flatnonzero(run.code == old)
        for k, step in enumerate(found):
            for place, angle in enumerate(step.angles):
                entry = out.angle[start[rows] + k].astype(np.int64) + place
                frac[entry] += angle.frac
                rem[entry] += angle.rem
                for name, coef in angle.terms:
                    add(entry, run.angle[rows].astype(np.int64) + "tplg".index(name), coef)
    form = out.form
    if targets:
        forms, form = forms.combine(
            np.concatenate(sources),
            np.concatenate(scales),
            np.concatenate(targets),
            len(out.frac),
        )
    return replace(out, frac=wrap(frac), rem=rem, form=form), forms
