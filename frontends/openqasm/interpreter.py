"""The interpreter: executes what is known at compile time and emits the rest as a Circuit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcomp.errors import QcompError, SourceError
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.emit import Emitter, Op, RawIf
from qcomp.frontends.openqasm.flow import DeadCode, EndSignal
from qcomp.frontends.openqasm.includes import Includes
from qcomp.frontends.openqasm.limits import MAX_NESTING, MAX_STEPS, STEPS_PER_NODE
from qcomp.frontends.openqasm.memory import Memory, Unsupported
from qcomp.frontends.openqasm.pragmas import Pragmas, Results
from qcomp.frontends.openqasm.values import Affine, RunTimeIndex, fail, known_int
from qcomp.ir.angle import Angle
from qcomp.ir.blocks import Delay, Duration
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit

__all__ = ["Reading", "interpret"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source means: its circuit, the results it asks for, and what a user should know."""

    circuit: Circuit
    results: Results
    notes: tuple[str, ...]


def interpret(
    program: s.Program,
    *,
    folder: Path | None = None,
    name: str = "circuit",
    inputs: Mapping[str, float] | None = None,
    mapped: bool = False,
) -> Reading:
    """Return the meaning of a program.

    Args:
        program: Its syntax tree.
        folder: Where its includes lie; None forbids them.
        name: The circuit's name.
        inputs: Values for ``input`` variables that the compiler must know.
        mapped: Whether the source is of a mapped circuit: what is in a verbatim box is then read
            as what it is, the circuit's gates.

    Raises:
        SourceError: If the program has an error or uses what a gate machine cannot run.
    """
    interpreter = Interpreter(program, folder, dict(inputs or {}))
    interpreter.mapped = mapped
    try:
        return interpreter.run(name)
    except RecursionError:
        node = interpreter.current
        raise SourceError(
            f"nested more than {MAX_NESTING} levels deep",
            line=node.line,
            column=node.column,
            hint="split the block, or call fewer subroutines inside one another",
        ) from None


class Interpreter(Pragmas):
    """Runs one program."""

    def __init__(self, program: s.Program, folder: Path | None, inputs: dict[str, float]) -> None:
        self.program = program
        self.two = program.version[0] == 2
        self.emitter = Emitter()
        self.memory = Memory(self.emitter)
        self.notes = {}
        self.steps = 0
        self.max_steps = MAX_STEPS
        self.includes = set()
        self.in_gate = 0
        self.templates = {}
        self.remembered = 0
        self.frames = []
        self.subroutine_bodies = {}
        self.inputs = inputs
        self.outputs = []
        self.files = Includes(folder)
        self.results = Results()
        self.verbatim = None
        self.mapped = False
        self.open_box = False
        self.feedback: dict[int, int] = {}
        self.current: s.Node = s.Node(1, 1)

    def run(self, name: str) -> Reading:
        """Execute the program."""
        self.max_steps += STEPS_PER_NODE * refuse_unsupported(self.program.body)
        try:
            self.run_block(self.program.body)
        except (EndSignal, DeadCode):
            pass
        unknown = set(self.inputs) - self.memory.globals.keys()
        if unknown:
            fail(self.current, f"the source has no input '{min(unknown)}'")
        self.write_outputs(self.current)
        circuit = self.emitter.circuit(name)
        circuit.notes = tuple(self.notes)
        return Reading(circuit, self.results, tuple(self.notes))

    # ---------------------------------------------------------------- statements

    def execute(self, node: s.Statement) -> None:
        """Execute one statement."""
        self.current = node
        self.step(node)
        if self.verbatim is not None:
            if not isinstance(node, s.Box):
                fail(self.verbatim, "a verbatim pragma stands before a box")
            self.verbatim = None
            self.open_box = self.mapped
        block = self.emitter.block
        length = len(block)
        try:
            _ACTIONS[type(node)](self, node)
        except RunTimeIndex as index:
            del block[length:]
            self.by_cases(node, index)
        except QcompError as error:
            if isinstance(error, SourceError) and error.line:
                raise
            raise SourceError(
                error.what, line=node.line, column=node.column, why=error.why, hint=error.hint
            ) from None

    def run_gate_body(self, body: list[s.Statement]) -> None:
        """Execute the statements of a gate body."""
        self.run_block(body)

    def run_gate_call(self, node: s.GateCall) -> None:
        """Execute a gate call."""
        if node.name in ("measure_ff", "cc_prx") and self.memory.find(node.name) is None:
            self._feed_forward(node)
        elif node.name == "delay" and isinstance(self.memory.find("delay"), Unsupported):
            self._opaque_delay(node)
        else:
            self.call_gate(node)

    def _opaque_delay(self, node: s.GateCall) -> None:
        """Execute ``delay(172) q;``, as Qiskit writes a delay in dt into OpenQASM 2."""
        if len(node.arguments) != 1 or not node.operands:
            fail(node, "'delay' takes one duration in dt and qubits")
        length = self.angle(node.arguments[0])
        if isinstance(length, Affine) or length < 0:
            fail(node, "a delay is a number of dt, not negative and known now")
        wires = [wire for operand in node.operands for wire in self.qubits(operand).wires]
        self.emitter.block.append(Delay(Duration(length, "dt"), tuple(dict.fromkeys(wires))))

    def _feed_forward(self, node: s.GateCall) -> None:
        """Execute Braket's ``measure_ff(key)`` and ``cc_prx(a, b, key)`` of IQM machines."""
        measures = node.name == "measure_ff"
        if len(node.arguments) != (1 if measures else 3) or len(node.operands) != 1:
            fail(node, f"'{node.name}' does not take these arguments")
        if node.modifiers:
            fail(node, f"'{node.name}' cannot be modified")
        key = known_int(self.evaluate(node.arguments[-1]), node, "the feedback key")
        wire = self.qubits(node.operands[0]).wires[0]
        if measures:
            if key not in self.feedback:
                (self.feedback[key],) = self.emitter.add_bits(f"ff_{abs(key)}", 1, node)
            self.emitter.measure(wire, self.feedback[key])
            return
        if key not in self.feedback:
            fail(
                node,
                f"the feedback key {key} was not measured",
                hint=f"measure_ff({key}) must come first",
            )
        values = tuple(self.angle(argument) for argument in node.arguments[:2])
        angles = tuple(v.angle() if isinstance(v, Affine) else Angle.of(v) for v in values)
        body: list[Op] = [Op("r", (wire,), angles)]
        self.emitter.block.append(RawIf(Bit(self.feedback[key]), list(body), []))

    def run_measure(self, node: s.MeasureStatement) -> None:
        """Execute ``measure q -> c;``."""
        if not isinstance(node.value, s.Measure):
            self.evaluate(node.value)
            return
        self.measure_into(node.value, node.target, node)

    def run_assignment(self, node: s.Assignment) -> None:
        """Execute an assignment; measurements go straight into their bits."""
        if node.op == "=" and isinstance(node.value, s.Measure):
            self.measure_into(node.value, node.target, node)
        else:
            self.assign(node)

    def run_declaration(self, node: s.ClassicalDeclaration) -> None:
        """Execute a declaration; a measured initial value goes straight into its bits."""
        measured = isinstance(node.value, s.Measure) and isinstance(node.type, s.ScalarType)
        if measured and not node.constant and node.type.kind == "bit":  # type: ignore[union-attr]
            place = (node.line, node.column)
            self.declare(s.ClassicalDeclaration(*place, node.type, node.name, None))
            assert isinstance(node.value, s.Measure)
            self.measure_into(node.value, s.Name(*place, node.name), node)
        else:
            self.declare(node)

    def run_calibration(self, node: s.Calibration) -> None:
        """Note a calibration grammar; cal and defcal were refused before."""
        self.notes[f"line {node.line}: defcalgrammar is not used, no calibration is"] = None

    def run_annotated(self, node: s.Annotated) -> None:
        """Execute an annotated statement; the annotation is noted."""
        self.notes[f"line {node.line}: the annotation @{node.text[:40]} is not used"] = None
        self.execute(node.statement)

    def run_opaque(self, node: s.Opaque) -> None:
        """Declare an opaque gate."""
        self.declare_unsupported(node.name, "an opaque gate", node)

    def run_extern(self, node: s.Extern) -> None:
        """Declare an extern."""
        self._global_only(node, "externs")
        self.declare_unsupported(node.name, "an extern", node)

    def run_nop(self, node: s.Nop) -> None:
        """Check the operands of a nop."""
        for operand in node.operands:
            self.qubits(operand)


_ACTIONS: dict[type[s.Statement], Callable[[Interpreter, Any], None]] = {
    s.Alias: Interpreter.declare_alias,
    s.Annotated: Interpreter.run_annotated,
    s.Assignment: Interpreter.run_assignment,
    s.Barrier: Interpreter.barrier,
    s.Block: Interpreter.run_body,
    s.Box: Interpreter.box,
    s.Break: Interpreter.run_break,
    s.Calibration: Interpreter.run_calibration,
    s.ClassicalDeclaration: Interpreter.run_declaration,
    s.Continue: Interpreter.run_continue,
    s.Delay: Interpreter.delay,
    s.End: Interpreter.run_end,
    s.ExpressionStatement: Interpreter.evaluate_statement,
    s.Extern: Interpreter.run_extern,
    s.For: Interpreter.run_for,
    s.GateCall: Interpreter.run_gate_call,
    s.GateDefinition: Interpreter.define_gate,
    s.If: Interpreter.run_if,
    s.Include: Interpreter.include,
    s.IoDeclaration: Interpreter.declare_io,
    s.MeasureStatement: Interpreter.run_measure,
    s.Nop: Interpreter.run_nop,
    s.Opaque: Interpreter.run_opaque,
    s.Pragma: Interpreter.run_pragma,
    s.QuantumDeclaration: Interpreter.declare_qubits,
    s.Reset: Interpreter.reset,
    s.Return: Interpreter.run_return,
    s.SubroutineDefinition: Interpreter.define_subroutine,
    s.Switch: Interpreter.run_switch,
    s.While: Interpreter.run_while,
}


# ---------------------------------------------------------------- unsupported constructs


def refuse_unsupported(body: list[s.Statement]) -> int:
    """Raise one error that lists every construct no gate machine can run, with counts.

    Returns:
        The number of nodes of the syntax tree.

    Raises:
        SourceError: If there is any.
    """
    found: Counter[str] = Counter()
    first: dict[str, s.Node] = {}
    outside = {n.name: "extern" for n in body if isinstance(n, s.Extern)}
    outside |= {
        n.name: "opaque gate" for n in body if isinstance(n, s.Opaque) and n.name != "delay"
    }
    nodes = 0
    for node in s.walk(body):
        nodes += 1
        what = _unsupported(node, outside)
        if what:
            found[what] += 1
            first.setdefault(what, node)
    if not found:
        return nodes
    listed = ", ".join(
        f"{what} ({count}, first at line {first[what].line})" for what, count in found.items()
    )
    node = min(first.values(), key=lambda n: (n.line, n.column))
    raise SourceError(
        f"the program uses what a gate machine cannot run: {listed}",
        line=node.line,
        column=node.column,
        why="these need pulses, a scheduler or code outside the program",
        hint="give gates as definitions, and times as numbers",
    )


def _unsupported(node: s.Node, outside: dict[str, str]) -> str:
    match node:
        case s.Calibration(kind=("cal" | "defcal") as kind):
            return kind
        case s.ScalarType(kind="stretch"):
            return "stretch"
        case s.DurationOf():
            return "durationof"
        case s.QuantumCall():
            return f"the measuring defcal '{node.name}'"
        case s.Call() if outside.get(node.name) == "extern":
            return f"a call of the extern '{node.name}'"
        case s.GateCall() if outside.get(node.name) == "opaque gate":
            return f"the opaque gate '{node.name}'"
        case s.Pragma() if node.text.split()[:2] == ["braket", "noise"]:
            return "a noise pragma"
        case _:
            return ""
