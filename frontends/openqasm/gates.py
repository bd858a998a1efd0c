"""Gate calls: names, definitions, modifiers, broadcasting.

A gate applied to certain angles under certain modifiers expands once, to a list of operations of
the gate table on numbered qubits; every further call copies that list onto its own qubits.
"""

from __future__ import annotations

import functools
import math
from importlib import resources

from qcomp.errors import SourceError, suggest
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.controls import controlled
from qcomp.frontends.openqasm.emit import Op, RawBlock
from qcomp.frontends.openqasm.exact_angles import exact_angle
from qcomp.frontends.openqasm.expressions import Evaluator
from qcomp.frontends.openqasm.limits import MAX_GATE_DEPTH, MAX_REMEMBERED
from qcomp.frontends.openqasm.memory import Gate, Qubits, Symbol, Unsupported, Variable
from qcomp.frontends.openqasm.parser import parse
from qcomp.frontends.openqasm.powers import inverted, raised
from qcomp.frontends.openqasm.values import (
    FLOAT,
    Affine,
    ArrayType,
    Value,
    fail,
    is_runtime,
    known_int,
)
from qcomp.ir.angle import Angle
from qcomp.ir.definitions import definition
from qcomp.ir.gates import BY_NAME, stdgates_names

__all__ = ["GateCalls"]

Applied = tuple[str, float]
BUILT_IN = frozenset({"U", "gphase"})


@functools.cache
def library() -> dict[str, s.GateDefinition]:
    """Return the gates that other tools know and the gate table lacks, by name."""
    text = resources.files(__package__).joinpath("library.inc").read_text(encoding="utf-8")
    return {item.name: item for item in parse(text).body if isinstance(item, s.GateDefinition)}


class GateCalls(Evaluator):
    """The interpreter's part that deals with gates."""

    includes: set[str]
    in_gate: int
    templates: dict[tuple[object, ...], tuple[list[Op], int]]
    remembered: int

    def run_gate_body(self, body: list[s.Statement]) -> None:
        """Execute the statements of a gate body; the interpreter's part."""
        raise NotImplementedError

    # ---------------------------------------------------------------- names

    def gate_of(self, name: str, node: s.Node) -> s.GateDefinition | str:
        """Return what a gate's name stands for: a definition, or a name of the gate table.

        Raises:
            SourceError: If it stands for no gate.
        """
        symbol = self.memory.find(name)
        if isinstance(symbol, Gate):
            return symbol.known or symbol.definition
        if isinstance(symbol, Unsupported):
            fail(
                node,
                f"'{name}' is {symbol.what}, without a matrix",
                hint="give the gate a definition: gate name(...) q { ... }",
            )
        row = BY_NAME.get(name)
        if symbol is not None and not (row is not None and self._separate_names(symbol)):
            fail(node, f"'{name}' is not a gate")
        if row is not None and (row.kind == "unitary" or name == "gphase"):
            self._note_missing_include(name)
            return row.name
        if name in library():
            self._note_missing_include(name)
            return library()[name]
        known = {n for n in BY_NAME if BY_NAME[n].kind == "unitary"} | set(library())
        for scope in self.memory.scopes:
            known |= {n for n, found in scope.items() if isinstance(found, Gate)}
        if self.two and name in ("qubit", "bit", "int", "float", "let", "input"):
            fail(
                node,
                f"there is no gate '{name}'",
                hint=f"{name} is OpenQASM 3; begin the source with OPENQASM 3.0;",
            )
        hint = suggest(name, known)
        fail(
            node,
            f"there is no gate '{name}'",
            hint=hint if hint.startswith("did you mean") else "define it before its first use",
        )

    def _separate_names(self, symbol: Symbol) -> bool:
        """Whether a variable may share its name with a standard gate.

        In OpenQASM 2 a parameter may, and in a source without an include no gate is declared that a
        variable could clash with.
        """
        if isinstance(symbol, Variable) and symbol.constant and self.in_gate:
            return self.two or "stdgates.inc" not in self.includes
        return isinstance(symbol, Variable) and (self.two or not self.includes)

    def _note_missing_include(self, name: str) -> None:
        if name in BUILT_IN or self.in_gate:
            return
        if "stdgates.inc" in self.includes and name in stdgates_names():
            return
        if {"qelib1.inc", "hqslib1.inc"} & self.includes or (self.two and name == "CX"):
            return
        if not self.includes:
            self.notes[
                "no include is given; gates without a definition are read as the standard gates "
                "of that name"
            ] = None
        else:
            self.notes[
                f"'{name}' is defined neither in the source nor by its include; it is read as the "
                "known gate of that name"
            ] = None

    # ---------------------------------------------------------------- calls

    def call_gate(self, node: s.GateCall) -> None:
        """Apply a gate to its operands, over registers where they are given."""
        if node.duration is not None:
            fail(
                node,
                f"a duration on the gate '{node.name}'",
                why="gate durations are fixed by the machine's calibration",
            )
        angles = tuple(self.angle(argument) for argument in node.arguments)
        modifiers = self._modifiers(node)
        key = (self._identity(node), angles, modifiers, len(node.operands))
        known = self.templates.get(key)
        if known is None:
            known = self._template(node, angles, modifiers)
            if not angles or modifiers or len(known[0]) > 1:
                self._keep(key, known)
        ops, num_qubits = known
        operands = [self.qubits(operand) for operand in node.operands]
        if node.name == "gphase" and len(operands) > num_qubits:
            self.notes[f"line {node.line}: the qubits of 'gphase' are not used, it is a phase of "
                       "the whole state"] = None  # fmt: skip
            operands = operands[:num_qubits]
        if len(operands) != num_qubits:
            fail(
                node,
                f"'{node.name}' acts on {num_qubits} qubit{'s' * (num_qubits != 1)}"
                + (" with its modifiers" if modifiers else "")
                + f", {len(operands)} were given",
            )
        sizes = {len(q.wires) for q in operands if not q.single}
        if len(sizes) > 1:
            fail(
                node,
                f"'{node.name}' is applied to registers of different sizes: "
                + ", ".join(str(n) for n in sorted(sizes)),
            )
        times = sizes.pop() if sizes else 1
        self.emitter.count(times * len(ops), node)
        self.step(node, 1 + times * (1 + len(ops)) // 64)
        for i in range(times):
            wires = tuple(q.wires[0] if q.single else q.wires[i] for q in operands)
            if len(set(wires)) != len(wires):
                fail(node, f"'{node.name}' is given the same qubit twice")
            self._place(ops, wires)

    def _keep(self, key: tuple[object, ...], known: tuple[list[Op], int]) -> None:
        """Remember an expansion; forget all of them before they fill the memory."""
        self.remembered += 1 + len(known[0])
        if self.remembered > MAX_REMEMBERED:
            self.templates.clear()
            self.remembered = 1 + len(known[0])
        self.templates[key] = known

    def _identity(self, node: s.GateCall) -> object:
        symbol = self.memory.find(node.name)
        return symbol.definition if isinstance(symbol, Gate) else node.name

    def _place(self, ops: list[Op], wires: tuple[int, ...]) -> None:
        block = self.emitter.block
        for op in ops:
            block.append(Op(op.name, tuple([wires[q] for q in op.qubits]), op.angles))
        self.emitter.emitted += len(ops)

    def angle(self, node: s.Expression) -> float | Affine:
        """Return a gate's angle, not reduced: a definition may divide it."""
        if not self.in_gate and isinstance(node, s.BinaryOp):
            exact = exact_angle(node, self._parameter_form)
            if exact is not None and exact.units:
                return exact
        value = self.evaluate(node)
        data = value.data
        if isinstance(data, Affine):
            return data
        if is_runtime(data):
            fail(
                node,
                "a gate's angle that depends on a measurement",
                why="angles are fixed before the circuit runs",
                hint="choose between gates with if or switch",
            )
        if isinstance(value.type, ArrayType) or value.type.kind in ("duration", "complex"):
            fail(node, f"a gate's angle is a real number, not of type {value.type}")
        if value.type.kind == "bit" and value.type.width:
            fail(node, f"a gate's angle is a real number, not of type {value.type}")
        if not isinstance(data, (bool, int, float)):
            fail(node, f"a gate's angle is a real number, not of type {value.type}")
        number = float(data) if abs(data) < 1e300 else math.inf
        if not math.isfinite(number):
            fail(node, "a gate's angle must be a finite number")
        return number

    def _parameter_form(self, name: str) -> object:
        """Return a parameter's form, None for a name that is not declared, else its symbol."""
        symbol = self.memory.find(name)
        return symbol.data if isinstance(symbol, Variable) and symbol.constant else symbol

    def _modifiers(self, node: s.GateCall) -> tuple[Applied, ...]:
        applied: list[Applied] = []
        for modifier in node.modifiers:
            if modifier.kind == "inv":
                applied.append(("inv", 0.0))
                continue
            if modifier.argument is None:
                applied.append((modifier.kind, 1.0))
                continue
            value = self.evaluate(modifier.argument)
            if modifier.kind == "pow":
                applied.append(("pow", self._exponent(value, modifier)))
                continue
            count = known_int(value, modifier, f"the number of controls of {modifier.kind}")
            if count < 1:
                fail(modifier, f"{modifier.kind}({count}) needs at least one control")
            applied.append((modifier.kind, float(min(count, 1 << 20))))
        return tuple(applied)

    @staticmethod
    def _exponent(value: Value, node: s.Node) -> float:
        data = value.data
        if isinstance(data, (bool, int, float)) and value.scalar.kind != "bit":
            if abs(data) < 1e15:
                return float(data)
            fail(node, "the exponent of pow is too large")
        if isinstance(data, Affine):
            fail(
                node,
                "the exponent of pow is an input parameter",
                why="a power is not affine in its exponent",
            )
        fail(node, f"the exponent of pow is a number known now, not of type {value.type}")

    # ---------------------------------------------------------------- expansion

    def _template(
        self, node: s.GateCall, angles: tuple[float | Affine, ...], modifiers: tuple[Applied, ...]
    ) -> tuple[list[Op], int]:
        meaning = self.gate_of(node.name, node)
        if isinstance(meaning, str):
            ops, num_qubits = self._primitive(node, meaning, angles, modifiers)
        else:
            self.emitter.count(self._least_size(meaning, {}), node)
            ops, num_qubits = self._expanded(meaning, angles, node)
        waiting: list[bool] = []
        for kind, argument in [*reversed(modifiers), ("end", 0.0)]:
            if kind.endswith("ctrl"):
                waiting[:0] = [kind == "ctrl"] * int(argument)
                continue
            if waiting:
                ops = controlled(ops, num_qubits, waiting, node)
                num_qubits += len(waiting)
                waiting = []
            if kind == "inv":
                ops = inverted(ops)
            elif kind == "pow":
                ops = raised(ops, num_qubits, argument, node)
            self.emitter.count(len(ops), node)
        return ops, num_qubits

    def _least_size(self, gate: s.GateDefinition, known: dict[int, int], depth: int = 0) -> int:
        """Return a lower bound of the operations that a gate expands to, without expanding it.

        So a definition that doubles forty times is refused at once, and not when memory is full of
        its first two million operations. Loops and powers may come to nothing and do not count.
        """
        if depth > MAX_GATE_DEPTH:
            return 0
        total = 0
        for call in gate.body:
            if not isinstance(call, s.GateCall):
                continue
            if any(modifier.kind == "pow" for modifier in call.modifiers):
                continue
            symbol = self.memory.find(call.name)
            if not isinstance(symbol, Gate) or symbol.known:
                total += 1
                continue
            inner = symbol.definition
            if id(inner) not in known:
                known[id(inner)] = self._least_size(inner, known, depth + 1)
            total += known[id(inner)]
        return total

    @staticmethod
    def _primitive(
        node: s.GateCall,
        name: str,
        angles: tuple[float | Affine, ...],
        modifiers: tuple[Applied, ...],
    ) -> tuple[list[Op], int]:
        row = BY_NAME[name]
        if len(angles) != row.num_angles:
            fail(
                node,
                f"'{node.name}' takes {row.num_angles} angle"
                f"{'s' * (row.num_angles != 1)}, {len(angles)} were given",
            )
        num_qubits = row.num_qubits
        if num_qubits < 0:
            added = sum(int(n) for kind, n in modifiers if kind.endswith("ctrl"))
            num_qubits = max(1, len(node.operands) - added)
        values = tuple(a.angle() if isinstance(a, Affine) else Angle.of(a) for a in angles)
        return [Op(name, tuple(range(num_qubits)), values)], num_qubits

    def _expanded(
        self, gate: s.GateDefinition, angles: tuple[float | Affine, ...], node: s.Node
    ) -> tuple[list[Op], int]:
        if len(angles) != len(gate.parameters):
            fail(
                node,
                f"'{gate.name}' takes {len(gate.parameters)} angle"
                f"{'s' * (len(gate.parameters) != 1)}, {len(angles)} were given",
            )
        if self.in_gate >= MAX_GATE_DEPTH:
            fail(node, f"gate definitions call each other more than {MAX_GATE_DEPTH} levels deep")
        outer, block = self.emitter.block, RawBlock()
        emitted = self.emitter.emitted
        self.in_gate += 1
        with self.memory.frame() as scope:
            for name, angle in zip(gate.parameters, angles, strict=True):
                number = angle.plain() if isinstance(angle, Affine) else angle
                scope[name] = Variable(name, FLOAT, number, constant=True)
            for i, name in enumerate(gate.qubits):
                scope[name] = Qubits((i,), single=True)
            self.emitter.block = block
            try:
                self.run_gate_body(gate.body)
            finally:
                self.emitter.block = outer
                self.in_gate -= 1
                self.emitter.emitted = emitted
        ops = [item for item in block if isinstance(item, Op)]
        return ops, len(gate.qubits)

    # ---------------------------------------------------------------- definitions

    def known_as(self, gate: s.GateDefinition) -> str:
        """Return the gate of the table that the definition spells out step for step, or nothing.

        So a text that carries the definitions of the table reads back as the gates it was made of.
        """
        row = BY_NAME.get(gate.name)
        if row is None or row.name != gate.name or not row.definition_text:
            return ""
        if (len(gate.parameters), len(gate.qubits)) != (row.num_angles, row.num_qubits):
            return ""
        angles = tuple(Affine(0.0, ((letter, 1.0),)) for letter in "tplg"[: row.num_angles])
        try:
            ops, _ = self._expanded(gate, angles, gate)
        except SourceError:
            return ""
        told = [(op.name, op.qubits, op.angles) for op in ops]
        meant = [(step.gate.name, step.qubits, step.angles) for step in definition(row.name)]
        return row.name if told == meant else ""

    def check_definition(self, gate: s.GateDefinition) -> None:
        """Check what a definition can be checked for before it is called.

        Raises:
            SourceError: If it names something unknown, or holds what no gate can hold.
        """
        names = [*gate.parameters, *gate.qubits]
        for name in names:
            if names.count(name) > 1:
                fail(gate, f"the gate '{gate.name}' uses the name '{name}' twice")
        qubits, local = set(gate.qubits), set(names)
        for node in s.walk(gate.body):
            if isinstance(node, s.GateCall):
                if node.name in local and (node.name in qubits or "stdgates.inc" in self.includes):
                    fail(node, f"'{node.name}' is not a gate")
                if node.name == gate.name and self.memory.find(gate.name) is None:
                    fail(node, f"the gate '{gate.name}' calls itself")
                self.gate_of(node.name, node)
                for operand in node.operands:
                    self._check_operand(operand, qubits, gate)
            elif isinstance(node, s.For):
                local.add(node.name)
            elif isinstance(node, s.Barrier):
                for operand in node.operands:
                    self._check_operand(operand, qubits, gate)
            elif isinstance(node, (s.Block, s.Nop, s.If, s.Annotated, s.Pragma)):
                continue
            elif isinstance(node, s.Statement):
                fail(
                    node,
                    f"a gate cannot contain {_described(node)}",
                    why="a gate is unitary",
                    hint="use a subroutine: def ... { ... }",
                )

    @staticmethod
    def _check_operand(operand: s.Expression, qubits: set[str], gate: s.GateDefinition) -> None:
        if isinstance(operand, s.Index):
            fail(
                operand,
                f"inside '{gate.name}' a qubit cannot be indexed",
                hint="a gate's qubits are single qubits",
            )
        if isinstance(operand, s.HardwareQubit):
            fail(operand, f"inside '{gate.name}' only its own qubits can be used")
        if isinstance(operand, s.Name) and operand.name not in qubits:
            fail(
                operand,
                f"'{operand.name}' is not a qubit of the gate '{gate.name}'",
                hint="only the gate's own qubits can be used inside it",
            )

    def qubits(self, operand: s.Expression) -> Qubits:
        """Return the qubits that an operand means.

        Raises:
            SourceError: If it means none.
        """
        if isinstance(operand, s.HardwareQubit):
            if self.in_gate:
                fail(operand, "a physical qubit inside a gate definition")
            return Qubits((self.emitter.physical_qubit(operand.index, operand),), single=True)
        if isinstance(operand, s.Concatenation):
            parts = [self.qubits(part) for part in operand.parts]
            return Qubits(tuple(wire for part in parts for wire in part.wires))
        chain: list[s.Index] = []
        target = operand
        while isinstance(target, s.Index):
            chain.append(target)
            target = target.base
        if not isinstance(target, s.Name):
            fail(operand, "a qubit is needed here")
        symbol = self.memory.get(target)
        if not isinstance(symbol, Qubits):
            fail(target, f"'{target.name}' is not a qubit")
        for link in reversed(chain):
            if (symbol.single and link is not chain[-1]) or len(link.items) != 1:
                fail(link, f"'{target.name}' has not that many dimensions")
            where = self.positions(link.items[0], len(symbol.wires), f"'{target.name}'")
            if isinstance(where, int):
                symbol = Qubits((symbol.wires[where],), single=True)
            else:
                symbol = Qubits(tuple(symbol.wires[i] for i in where))
        return symbol


def _described(node: s.Statement) -> str:
    names = {
        "MeasureStatement": "a measurement", "Reset": "a reset", "Delay": "a delay",
        "Assignment": "an assignment", "ClassicalDeclaration": "a declaration",
        "QuantumDeclaration": "a declaration", "ExpressionStatement": "an expression statement",
        "Return": "a return",
    }  # fmt: skip
    kind = type(node).__name__
    return names.get(kind, f"a '{kind.lower()}' statement")
