"""Circuits as OpenQASM text: straight-line runs by a kernel, control flow as a tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcomp.atomic import atomic_file
from qcomp.backends.openqasm3.expressions import expression_text, type_text
from qcomp.backends.openqasm3.lower import lower_circuit
from qcomp.backends.openqasm3.naming import Names
from qcomp.backends.openqasm3.profiles import Profile, get_profile
from qcomp.backends.openqasm3.runs import RunPrinter
from qcomp.errors import TargetError
from qcomp.ir.angle import Angle
from qcomp.ir.blocks import (
    Assign,
    Block,
    Box,
    Break,
    Continue,
    Delay,
    Duration,
    End,
    For,
    If,
    Item,
    Range,
    Switch,
    While,
    walk_items,
)
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Binary, Bit, Expr, Lit, Unary
from qcomp.ir.definitions import definition
from qcomp.ir.gates import GATES, G, gate, stdgates_names
from qcomp.ir.run import Run

__all__ = ["write_bytes", "write_file", "write_text"]

Sink = Callable[[bytes], object]
_INDENT = "  "
# In the order of the alphabet: Qiskit's reader binds a definition's angles by sorted names.
_ANGLE_NAMES = {"t": "p0", "p": "p1", "l": "p2", "g": "p3"}


def write_text(circuit: Circuit, profile: str = "full") -> str:
    """Return the circuit as OpenQASM text.

    Args:
        circuit: Any circuit.
        profile: A name of ``PROFILES``; ``full`` reads back as the identical circuit.

    Raises:
        TargetError: If the profile cannot say what the circuit holds.
    """
    return write_bytes(circuit, profile).decode()


def write_bytes(circuit: Circuit, profile: str = "full") -> bytes:
    """Return the circuit as OpenQASM text in UTF-8; see :func:`write_text`."""
    parts: list[bytes] = []
    _Writer(circuit, get_profile(profile), parts.append).write()
    return b"".join(parts)


def write_file(circuit: Circuit, path: str | Path, profile: str = "full") -> dict[str, str]:
    """Write the circuit into a file, whole or not at all; see :func:`write_text`.

    Returns:
        Name -> text, for names that the text cannot have as they are.

    Raises:
        TargetError: If the profile cannot say what the circuit holds.
        QcompError: If the file cannot be written.
    """
    with atomic_file(path) as fresh, fresh.open("wb") as file:
        writer = _Writer(circuit, get_profile(profile), file.write)
        writer.write()
    return writer.names.changed


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


class _Writer:
    """One circuit on its way to text."""

    def __init__(self, circuit: Circuit, profile: Profile, sink: Sink) -> None:
        self.profile = profile
        self.sink = sink
        self.circuit = self._prepared(circuit)
        self.used = self._used_gates()
        self._check_gates()
        included = _included(profile)
        defined = frozenset(name for name in self.used if name not in profile.gates)
        self.names = Names(self.circuit, included | defined, profile.version == "2.0")
        self.bits = self._wires(clbits=True)
        self.printer = RunPrinter(
            self.circuit,
            profile,
            self._wires(clbits=False),
            self.bits,
            [self.names(name) for name in self.circuit.params],
        )

    # --- preparing -----------------------------------------------------------------------

    def _prepared(self, circuit: Circuit) -> Circuit:
        """Return the circuit as the profile can say it."""
        profile = self.profile
        if circuit.params and not profile.inputs:
            raise TargetError(
                f"the profile '{profile.name}' has no free parameters",
                where=", ".join(circuit.params[:8]),
                hint="bind the circuit first"
                + (", or use 'portable-param'" if profile.name == "portable" else ""),
            )
        self._check_finite(circuit)
        circuit = circuit.map_runs(_few_controls)
        if profile.flow:
            return circuit
        found = Counter(_construct(i) for i in walk_items(circuit.body) if not isinstance(i, Run))
        if circuit.variables:
            found["a variable"] = len(circuit.variables)
        if found:
            raise TargetError(
                f"the profile '{profile.name}' has no control flow: "
                + ", ".join(f"{what} ({n})" for what, n in sorted(found.items())),
                hint="use the profile 'full'",
            )
        if profile.lowers:
            circuit = lower_circuit(circuit, profile.gates, profile.name)
        elif any((run.code == G.MCX).any() for run in circuit.runs()):
            every = frozenset(row.name for row in GATES if row.name != "mcx")
            circuit = lower_circuit(circuit, every, profile.name)
        if not profile.phase:
            circuit = circuit.map_runs(lambda run: _without(run, G.GPHASE))
        return self._measured_last(circuit) if profile.one_register else circuit

    def _check_finite(self, circuit: Circuit) -> None:
        for run in circuit.runs():
            if not np.isfinite(run.rem).all():
                raise TargetError("an angle is not finite, OpenQASM has no such number")
        if not np.isfinite(circuit.forms.coef).all():
            raise TargetError("a coefficient of a parameter is not finite")

    def _measured_last(self, circuit: Circuit) -> Circuit:
        """Move measurements to the end; barriers, which change no result, are left out."""
        run = _without(circuit.run, G.BARRIER)
        if (run.code == G.RESET).any():
            raise TargetError(f"the profile '{self.profile.name}' has no reset")
        measure = run.code == G.MEASURE
        last = np.full(circuit.num_qubits + 1, -1)
        plain = np.where(measure[:, None], np.array([[True, False, False]]), True)
        for k in range(3):
            np.maximum.at(last, np.where(plain[:, k], run.qubit[:, k], -1), np.arange(len(run)))
        place = np.flatnonzero(measure)
        bits = run.qubit[place, 1]
        if (last[run.qubit[place, 0]] != place).any() or len(np.unique(bits)) != len(bits):
            raise TargetError(
                f"the profile '{self.profile.name}' measures at the end only",
                why="a qubit is used after its measurement, or a bit is written twice",
                hint="use the profile 'full'",
            )
        order = place[np.argsort(bits, kind="stable")]
        new = Circuit(circuit.num_qubits, circuit.num_clbits, circuit.params, circuit.name)
        new.forms = circuit.forms
        run = run.select(np.concatenate([np.flatnonzero(~measure), order]))
        return new.append_item(run) if len(run) else new

    def _used_gates(self) -> list[str]:
        """Return the gates that are called, and those that their definitions call."""
        codes = [np.unique(run.code) for run in self.circuit.runs()]
        present = np.unique(np.concatenate(codes)) if codes else np.zeros(0, dtype=np.uint8)
        found: dict[str, None] = {}

        def visit(name: str) -> None:
            if name not in found:
                if name not in self.profile.gates and self.profile.defines:
                    for step in definition(name):
                        visit(step.gate.name)
                found[name] = None

        for code in present.tolist():
            if GATES[code].is_unitary or GATES[code].name == "mcx":
                visit(GATES[code].name)
        return list(found)

    def _check_gates(self) -> None:
        if self.profile.defines:
            return
        wrong = [name for name in self.used if name not in self.profile.gates]
        if wrong:
            counts = sum(
                (np.bincount(run.code, minlength=len(GATES)) for run in self.circuit.runs()),
                np.zeros(len(GATES), dtype=np.int64),
            )
            raise TargetError(
                f"the profile '{self.profile.name}' has no gates "
                + ", ".join(f"{name} ({counts[gate(name).code]})" for name in sorted(wrong)),
                hint="translate the circuit first: the pass to-basis",
            )

    def _wires(self, *, clbits: bool) -> list[str]:
        """Return the text of each qubit or bit; of the first register that holds it."""
        circuit = self.circuit
        texts = [""] * (circuit.num_clbits if clbits else circuit.num_qubits)
        for register in reversed(circuit.cregs if clbits else circuit.qregs):
            name = self.names(register.name)
            texts[register.start : register.start + register.size] = [
                f"{name}[{i}]" for i in range(register.size)
            ]
        return texts

    # --- writing -------------------------------------------------------------------------

    def write(self) -> None:
        """Write the whole text."""
        self.sink(("\n".join(self._head()) + "\n").encode())
        body = self.circuit.body
        tail = self._whole_measurement(body)
        if tail:
            run = self.circuit.run
            body = (run.select(run.code != G.MEASURE),)
        self._block(body, "")
        self.sink(tail.encode())

    def _head(self) -> list[str]:
        profile, circuit, name = self.profile, self.circuit, self.names
        lines = [f"OPENQASM {profile.version};", f'include "{profile.include}";']
        if profile.defines:
            lines += [self._definition(g) for g in self.used if g not in profile.gates]
        lines += [f"input float[64] {name(param)};" for param in circuit.params]
        if profile.version == "2.0":
            lines += [f"qreg {name(r.name)}[{r.size}];" for r in circuit.qregs]
            lines += [f"creg {name(r.name)}[{r.size}];" for r in circuit.cregs]
        else:
            lines += [f"qubit[{r.size}] {name(r.name)};" for r in circuit.qregs]
            lines += [f"bit[{r.size}] {name(r.name)};" for r in circuit.cregs]
        lines += [f"{type_text(v.type, v.width)} {name(v.name)};" for v in circuit.variables]
        if profile.phase and not circuit.global_phase.is_zero:
            phase = circuit.global_phase
            # Two statements, so that a reader that adds in floats keeps the exact part.
            parts = [Angle(phase.frac, 0.0, phase.terms), Angle(0, phase.rem)]
            lines += [f"gphase({self._angle(part)});" for part in parts if not part.is_zero]
        return lines

    def _angle(self, angle: Angle) -> str:
        terms = tuple((self.names(param), coef) for param, coef in angle.terms)
        if not self.profile.pi:
            return str(Angle(0, float(Angle(angle.frac, angle.rem)), terms))
        return str(Angle(angle.frac, angle.rem, terms))

    def _definition(self, name: str) -> str:
        """Return the definition of a gate of the table, one line."""
        row = gate(name)
        letters = list(_ANGLE_NAMES)[: row.num_angles]
        params = f"({', '.join(_ANGLE_NAMES[n] for n in letters)})" if letters else ""
        steps = []
        for step in definition(name):
            if step.gate.code == G.GPHASE and not self.profile.phase:
                continue
            spelled = self.profile.spelling.get(step.gate.name, step.gate.name)
            named = [
                Angle(a.frac, a.rem, tuple((_ANGLE_NAMES[n], c) for n, c in a.terms))
                for a in step.angles
            ]
            angles = f"({', '.join(str(a) for a in named)})" if named else ""
            wires = ", ".join("abcd"[q] for q in step.qubits)
            steps.append(f"{spelled}{angles}{' ' if wires else ''}{wires};")
        wires = ", ".join("abcd"[: row.num_qubits])
        return f"gate {name}{params} {wires} {{ {' '.join(steps)} }}"

    def _whole_measurement(self, body: Block) -> str:
        """Return ``c = measure q;`` where a profile of one register says all measurements so."""
        circuit = self.circuit
        if not self.profile.one_register or not body or not circuit.num_clbits:
            return ""
        run = circuit.run
        rows = run.qubit[run.code == G.MEASURE, :2]
        every = np.arange(circuit.num_qubits)
        if circuit.num_clbits != circuit.num_qubits or len(rows) != len(every):
            return ""
        if not np.array_equal(rows, np.stack([every, every], axis=1)):
            return ""
        quantum, classical = circuit.qregs[0].name, circuit.cregs[0].name
        return f"{self.names(classical)} = measure {self.names(quantum)};\n"

    def _line(self, text: str) -> None:
        self.sink(f"{text}\n".encode())

    def _expression(self, expr: Expr) -> str:
        return expression_text(expr, lambda index: self.bits[index], self.names)

    def _condition(self, expr: Expr) -> str:
        """Return a condition; compared bits as bits, where a reader wants them so."""
        if self.profile.name == "ibm":
            match expr:
                case Binary("==" | "!=" as op, Bit() as bit, Lit(value)):
                    same = bool(value) == (op == "==")
                    return self._expression(bit if same else Unary("!", bit))
        return self._expression(expr)

    def _block(self, block: Block, indent: str) -> None:
        for item in block:
            self._item(item, indent)

    def _nested(self, head: str, block: Block, indent: str, end: str = "}") -> None:
        self._line(f"{indent}{head} {{")
        self._block(block, indent + _INDENT)
        self._line(f"{indent}{end}")

    def _item(self, item: Item, indent: str) -> None:
        match item:
            case Run():
                self.printer.print(item, indent, self.sink)
            case If(condition, then, orelse):
                end = "} else {" if orelse else "}"
                self._nested(f"if ({self._condition(condition)})", then, indent, end)
                if orelse:
                    self._block(orelse, indent + _INDENT)
                    self._line(f"{indent}}}")
            case For(variable, values, body):
                kind = type_text(variable.type, variable.width)
                head = f"for {kind} {self.names(variable.name)} in {self._values(values)}"
                self._nested(head, body, indent)
            case While(condition, body):
                self._nested(f"while ({self._condition(condition)})", body, indent)
            case Switch(subject, cases, default):
                self._line(f"{indent}switch ({self._expression(subject)}) {{")
                for labels, body in cases:
                    head = f"case {', '.join(str(label) for label in labels)}"
                    self._nested(head, body, indent + _INDENT)
                if default is not None:
                    self._nested("default", default, indent + _INDENT)
                self._line(f"{indent}}}")
            case Box(body, duration):
                self._nested("box" if duration is None else f"box[{_time(duration)}]", body, indent)
            case Delay(duration, qubits):
                wires = ", ".join(self.printer.qubits[q] for q in qubits)
                self._line(f"{indent}delay[{_time(duration)}] {wires};")
            case Assign(target, value):
                self._line(f"{indent}{self._expression(target)} = {self._expression(value)};")
            case Break() | Continue() | End():
                self._line(f"{indent}{type(item).__name__.lower()};")

    def _values(self, values: Range | tuple[int, ...]) -> str:
        if isinstance(values, tuple):
            return f"{{{', '.join(str(v) for v in values)}}}"
        parts = [values.start, values.step, values.stop]
        if values.step == Lit(1):
            parts = [values.start, values.stop]
        return f"[{':'.join(self._expression(part) for part in parts)}]"


def _time(duration: Duration) -> str:
    text = repr(float(duration.value))
    return f"{text.removesuffix('.0')}{duration.unit}"


def _included(profile: Profile) -> frozenset[str]:
    """Return the gate names that the profile's include takes."""
    if profile.version == "3.0":
        return stdgates_names()
    names = {profile.spelling.get(name, name) for name in profile.gates}
    return frozenset(names | profile.gates | {"u2", "u0", "cu3", "c3x", "c4x", "rccx", "rc3x"})


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


def _without(run: Run, code: int) -> Run:
    keep: NDArray[np.bool_] = run.code != code
    return run if keep.all() else run.select(keep)
