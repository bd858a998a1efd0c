"""Circuits as OpenQASM text: straight-line runs by a kernel, control flow as a tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from qcomp.atomic import atomic_file
from qcomp.backends.openqasm3.expressions import expression_text, type_text
from qcomp.backends.openqasm3.ionq_json import ionq_job
from qcomp.backends.openqasm3.naming import Names
from qcomp.backends.openqasm3.prepare import prepared, used_gates
from qcomp.backends.openqasm3.profiles import Profile, get_profile
from qcomp.backends.openqasm3.runs import RunPrinter
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
)
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Binary, Bit, Expr, Lit, Unary
from qcomp.ir.definitions import definition
from qcomp.ir.gates import G, gate
from qcomp.ir.run import Run

__all__ = ["Writer", "write_bytes", "write_file", "write_text"]

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
    known = get_profile(profile)
    if known.version == "json":
        return ionq_job(circuit, known)
    parts: list[bytes] = []
    Writer(circuit, known, parts.append).write()
    return b"".join(parts)


def write_file(circuit: Circuit, path: str | Path, profile: str = "full") -> dict[str, str]:
    """Write the circuit into a file, whole or not at all; see :func:`write_text`.

    Returns:
        Name -> text, for names that the text cannot have as they are.

    Raises:
        TargetError: If the profile cannot say what the circuit holds.
        QcompError: If the file cannot be written.
    """
    known = get_profile(profile)
    with atomic_file(path) as fresh, fresh.open("wb") as file:
        if known.version == "json":
            file.write(ionq_job(circuit, known))
            return {}
        writer = Writer(circuit, known, file.write)
        writer.write()
    return writer.names.changed


def layout_comments(circuit: Circuit, *, physical: bool) -> list[str]:
    """Return the comments that say where a mapped circuit's qubits are; the reader knows them.

    ``// layout physical: 20`` is the number of the machine's qubits, ``// layout initial: 3, 4``
    where the qubits 0 and 1 of the circuit before mapping begin, ``// layout final: 4, 3`` where
    they end; ``// layout moved: 5, 6`` that swaps moved an ancilla from 5 to 6.

    Args:
        circuit: The circuit.
        physical: Whether the text calls qubits ``$0``, so that it declares no number of them.
    """
    layout = circuit.layout
    if layout is None:
        return [f"// layout physical: {circuit.num_qubits}"] if physical else []
    lines = [
        f"// layout physical: {layout.num_physical}",
        f"// layout initial: {', '.join(map(str, layout.initial))}",
        f"// layout final: {', '.join(map(str, layout.final))}",
    ]
    if layout.moved:
        lines.append(f"// layout moved: {', '.join(f'{a}, {b}' for a, b in layout.moved)}")
    return lines


class Writer:
    """One circuit on its way to text.

    Args:
        circuit: Any circuit.
        profile: What is written; not IonQ's JSON.
        sink: Takes the text in pieces.
        bound: Leave the declarations of free parameters out: their values are filled in later.
    """

    def __init__(
        self, circuit: Circuit, profile: Profile, sink: Sink, *, bound: bool = False
    ) -> None:
        self.profile = profile
        self.sink = sink
        self.circuit = prepared(circuit, profile, bound=bound)
        self.used = used_gates(self.circuit, profile)
        self.physical = profile.physical == "always" or (
            profile.physical == "mapped" and circuit.layout is not None
        )
        self.bound = bound
        defined = frozenset(name for name in self.used if name not in profile.gates)
        self.names = Names(self.circuit, profile.included() | defined, profile.version == "2.0")
        self.bits = self._wires(clbits=True)
        self.printer = RunPrinter(
            self.circuit,
            profile,
            self._wires(clbits=False),
            self.bits,
            [self.names(name) for name in self.circuit.params],
        )

    def _wires(self, *, clbits: bool) -> list[str]:
        """Return the text of each qubit or bit; of the first register that holds it."""
        circuit = self.circuit
        if self.physical and not clbits:
            return [f"${i}" for i in range(circuit.num_qubits)]
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
        if self.profile.one_register and body:
            run = self.circuit.run
            measured = run.code == G.MEASURE
            gates = run.select(~measured) if measured.any() else run
            boxed = self.physical and self.profile.verbatim and len(gates) > 0
            if boxed:
                self._line("#pragma braket verbatim\nbox {")
            self.printer.print(gates, _INDENT if boxed else "", self.sink)
            if boxed:
                self._line("}")
            whole = self._whole_measurement(run)
            if whole:
                self._line(whole)
            elif measured.any():
                self.printer.print(run.select(measured), "", self.sink)
        else:
            self._block(body, "")

    def _head(self) -> list[str]:
        profile, circuit, name = self.profile, self.circuit, self.names
        lines = [f"OPENQASM {profile.version};"]
        if profile.include:
            lines.append(f'include "{profile.include}";')
        lines += layout_comments(circuit, physical=self.physical)
        lines += [self._definition(g) for g in self.used if g not in profile.gates]
        if not self.bound:
            lines += [f"input float[64] {name(param)};" for param in circuit.params]
        qregs = () if self.physical else circuit.qregs
        if profile.version == "2.0":
            lines += [f"qreg {name(r.name)}[{r.size}];" for r in qregs]
            lines += [f"creg {name(r.name)}[{r.size}];" for r in circuit.cregs]
        else:
            lines += [f"qubit[{r.size}] {name(r.name)};" for r in qregs]
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
        if self.printer.marked is not None and terms:
            return self.printer.mark_angle(angle)
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

    def _whole_measurement(self, run: Run) -> str:
        """Return ``c = measure q;`` where that says all of a run's measurements."""
        circuit = self.circuit
        rows = run.qubit[run.code == G.MEASURE, :2]
        every = np.arange(circuit.num_qubits)
        if self.physical or circuit.num_clbits != circuit.num_qubits or len(rows) != len(every):
            return ""
        if not np.array_equal(rows, np.stack([every, every], axis=1)):
            return ""
        quantum, classical = circuit.qregs[0].name, circuit.cregs[0].name
        return f"{self.names(classical)} = measure {self.names(quantum)};"

    def _line(self, text: str) -> None:
        self.sink(f"{text}\n".encode())

    def _expression(self, expr: Expr) -> str:
        return expression_text(expr, lambda index: self.bits[index], self.names)

    def _condition(self, expr: Expr) -> str:
        """Return a condition; compared bits as bits, where a reader wants them so."""
        if not self.profile.compared_bits:
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
