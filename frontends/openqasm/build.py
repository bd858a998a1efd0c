"""From grammar reductions to syntax nodes: one method for each rule or alias of grammar.lark.

The methods run while lark reduces, so no tree is built twice and nothing recurses. A node's place is
that of its first token; its depth is checked here, against deep nesting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from lark import Token, Transformer

from qcomp.errors import SourceError
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.limits import MAX_INTEGER_BITS, MAX_NESTING

__all__ = ["Builder"]

_LEVEL = 8
_LINK = 2
_MAX_DIGITS = MAX_INTEGER_BITS // 4
_MAX_DEPTH = MAX_NESTING * _LEVEL

NodeT = TypeVar("NodeT", bound=s.Node)
Part = object


def _place(parts: Sequence[Part]) -> tuple[int, int]:
    """The line and column of the first token or node among the parts."""
    for part in parts:
        if isinstance(part, Token):
            return part.line or 1, part.column or 1
        if isinstance(part, s.Node):
            return part.line, part.column
        if isinstance(part, list) and part:
            return _place(part)
    return 1, 1


def _nodes(part: Part) -> list[s.Node]:
    if isinstance(part, s.Node):
        return [part]
    if isinstance(part, (list, tuple)):
        return [node for item in part for node in _nodes(item)]
    return []


def _deep(node: NodeT, parts: Sequence[Part]) -> NodeT:
    """Set the node's depth from its parts', and refuse what nests too deeply."""
    depth = 0
    for part in _nodes(list(parts)):
        depth = max(depth, part.depth)
    node.depth = depth + _LEVEL
    if node.depth > _MAX_DEPTH:
        raise SourceError(
            f"nested more than {MAX_NESTING} levels deep",
            line=node.line,
            column=node.column,
            hint="split the expression or the block",
        )
    return node


def _without_underscores(text: str) -> str:
    return text.replace("_", "")


def _integer(token: Token) -> int:
    text = _without_underscores(str(token))
    if len(text) > _MAX_DIGITS:
        raise SourceError(
            f"an integer literal of {len(text)} digits",
            line=token.line or 1,
            column=token.column or 1,
            hint=f"integers have at most {_MAX_DIGITS} digits",
        )
    return int(text, 0) if text[:2].lower() in ("0x", "0b", "0o") else int(text, 10)


def _is(part: Part, *types: str) -> bool:
    return isinstance(part, Token) and part.type in types


class Builder(Transformer[Token, s.Program]):
    """The callbacks of the grammar; `children` are tokens, nodes, lists and None."""

    # ---------------------------------------------------------------- programs

    def version(self, c: list[Token]) -> tuple[int, int]:
        """Read ``OPENQASM 3.0``."""
        major, _, minor = str(c[1]).partition(".")
        return int(major[:6]), int(minor[:6] or 0)

    def program3(self, c: list[Part]) -> s.Program:
        """Collect an OpenQASM 3 program."""
        version = (3, 0)
        if c and isinstance(c[0], tuple):
            version = c.pop(0)  # type: ignore[assignment]
        return s.Program(version, c)  # type: ignore[arg-type]

    def program2(self, c: list[Part]) -> s.Program:
        """Collect an OpenQASM 2 program."""
        return s.Program((2, 0), c[2:])  # type: ignore[arg-type]

    # ---------------------------------------------------------------- lists

    def _items(self, c: list[Part]) -> list[Part]:
        return [part for part in c if part is not None and not _is(part, "LBRACE")]

    operands = expressions = arguments = modifiers = _items
    extern_arguments = defcal_arguments = defcal_operands = _items

    def names(self, c: list[Part]) -> list[Part]:
        """List identifiers, as tokens."""
        return [part for part in c if part is not None]

    def designator(self, c: list[Part]) -> Part:
        """Pass the expression in brackets on."""
        return c[0]

    def returns(self, c: list[Part]) -> Part:
        """Pass a return type on."""
        return c[0]

    def assign_op(self, c: list[Part]) -> Part:
        """Pass the operator's token on."""
        return c[0]

    def defcal_target(self, c: list[Part]) -> Part:
        """Pass the name's token on."""
        return c[0]

    # ---------------------------------------------------------------- expressions

    def name(self, c: list[Token]) -> s.Name:
        """Make a name."""
        return s.Name(*_place(c), str(c[0]))

    def hardware(self, c: list[Token]) -> s.HardwareQubit:
        """Make ``$3``."""
        token = c[0]
        return s.HardwareQubit(*_place(c), int(str(token)[1:][:18]))

    def integer(self, c: list[Token]) -> s.Literal:
        """Make an integer literal."""
        return s.Literal(*_place(c), "int", _integer(c[0]))

    def float_(self, c: list[Token]) -> s.Literal:
        """Make a float literal."""
        return s.Literal(*_place(c), "float", float(_without_underscores(str(c[0]))))

    def imaginary(self, c: list[Token]) -> s.Literal:
        """Make ``2.5im``."""
        text = _without_underscores(str(c[0]))[:-2].strip()
        return s.Literal(*_place(c), "imaginary", float(text))

    def timing(self, c: list[Token]) -> s.Literal:
        """Make ``100ns``; the literal's kind is its unit."""
        text = _without_underscores(str(c[0]))
        unit = next(u for u in ("dt", "ns", "us", "µs", "μs", "ms", "s") if text.endswith(u))
        value = float(text[: -len(unit)].strip())
        return s.Literal(*_place(c), "us" if unit in ("µs", "μs") else unit, value)

    def bitstring(self, c: list[Token]) -> s.Literal:
        """Make ``"0101"``."""
        return s.Literal(*_place(c), "bitstring", _without_underscores(str(c[0])[1:-1]))

    def boolean(self, c: list[Token]) -> s.Literal:
        """Make ``true``."""
        return s.Literal(*_place(c), "bool", str(c[0]) == "true")

    def binary(self, c: list[Part]) -> s.BinaryOp:
        """Make a binary operation; a chain of them counts as one level of nesting."""
        left, op, right = c
        node = s.BinaryOp(*_place(c), str(op), left, right)  # type: ignore[arg-type]
        _deep(node, c)
        if isinstance(left, s.BinaryOp) and isinstance(right, s.Node):
            node.depth = max(left.depth + _LINK, right.depth + _LEVEL)
        return node

    def power2(self, c: list[Part]) -> s.BinaryOp:
        """Make the power that OpenQASM 2 writes ``^``."""
        return _deep(s.BinaryOp(*_place(c), "**", c[0], c[2]), c)  # type: ignore[arg-type]

    def unary(self, c: list[Part]) -> Part:
        """Make a unary operation."""
        if str(c[0]) == "+":
            return c[1]
        return _deep(s.UnaryOp(*_place(c), str(c[0]), c[1]), c)  # type: ignore[arg-type]

    def call(self, c: list[Part]) -> s.Call:
        """Make a call."""
        return _deep(s.Call(*_place(c), str(c[0]), c[1] or []), c)  # type: ignore[arg-type]

    def cast(self, c: list[Part]) -> s.CastCall:
        """Make a cast."""
        return _deep(s.CastCall(*_place(c), c[0], c[1]), c)  # type: ignore[arg-type]

    def durationof(self, c: list[Part]) -> s.DurationOf:
        """Make ``durationof``."""
        return _deep(s.DurationOf(*_place(c), c[1].body), c)  # type: ignore[attr-defined]

    def index(self, c: list[Part]) -> list[Part]:
        """List the entries between two brackets."""
        return [part for part in c if part is not None]

    def indexed(self, c: list[Part]) -> s.Index:
        """Make ``base[items]``."""
        return _deep(s.Index(*_place(c), c[0], c[1]), c)  # type: ignore[arg-type]

    def operand(self, c: list[Part]) -> s.Expression:
        """Make ``name[..][..]``."""
        node: s.Expression = s.Name(*_place(c), str(c[0]))
        for items in c[1:]:
            if items is not None:
                node = _deep(s.Index(node.line, node.column, node, items), [node, items])  # type: ignore[arg-type]
        return node

    def set(self, c: list[Part]) -> s.Set:
        """Make ``{1, 2}``."""
        return _deep(s.Set(*_place(c), self._items(c)), c)  # type: ignore[arg-type]

    def range(self, c: list[Part]) -> s.Range:
        """Make ``start:stop``."""
        start, _, stop = c
        return _deep(s.Range(*_place(c), start, None, stop), c)  # type: ignore[arg-type]

    def stepped_range(self, c: list[Part]) -> s.Range:
        """Make ``start:step:stop``."""
        start, _, step, _, stop = c
        return _deep(s.Range(*_place(c), start, step, stop), c)  # type: ignore[arg-type]

    def array_literal(self, c: list[Part]) -> s.ArrayLiteral:
        """Make ``{1, {2}}``."""
        return _deep(s.ArrayLiteral(*_place(c), self._items(c)), c)  # type: ignore[arg-type]

    def concatenation(self, c: list[Part]) -> s.Concatenation:
        """Make ``a ++ b``."""
        return _deep(s.Concatenation(*_place(c), c), c)  # type: ignore[arg-type]

    def alias(self, c: list[Part]) -> Part:
        """Make the right side of ``let``."""
        return c[0] if len(c) == 1 else self.concatenation(c)

    def measure(self, c: list[Part]) -> s.Measure:
        """Make ``measure q`` as a value."""
        return s.Measure(*_place(c), c[1])  # type: ignore[arg-type]

    def _callee(self, target: Part) -> tuple[str, list[s.Expression], s.Expression | None]:
        """Split ``name(args)[duration]`` before operands; refuse anything else there."""
        duration: s.Expression | None = None
        if isinstance(target, s.Index) and isinstance(target.base, s.Call):
            if len(target.items) == 1 and not isinstance(target.items[0], (s.Range, s.Set)):
                duration = target.items[0]
                target = target.base
        if isinstance(target, s.Name):
            return target.name, [], duration
        if isinstance(target, s.Call):
            return target.name, target.arguments, duration
        line, column = _place([target])
        raise SourceError(
            "only a gate's name, with its angles in brackets, can stand before qubits",
            line=line,
            column=column,
        )

    def quantum_call(self, c: list[Part]) -> s.QuantumCall:
        """Make ``name(args) q`` as a value."""
        name, arguments, _ = self._callee(c[0])
        return _deep(s.QuantumCall(*_place(c), name, arguments, c[1]), c)  # type: ignore[arg-type]

    # ---------------------------------------------------------------- types

    def sized_type(self, c: list[Part]) -> s.ScalarType:
        """Make ``int[8]``."""
        return s.ScalarType(*_place(c), str(c[0]), c[1])  # type: ignore[arg-type]

    def plain_type(self, c: list[Part]) -> s.ScalarType:
        """Make ``bool``."""
        return s.ScalarType(*_place(c), str(c[0]))

    def complex_type(self, c: list[Part]) -> s.ScalarType:
        """Make ``complex[float[64]]``; only a float can be its base."""
        base = c[1]
        if isinstance(base, s.ScalarType) and base.kind != "float":
            raise SourceError(
                f"complex[{base.kind}] is no type",
                line=base.line,
                column=base.column,
                hint="write complex[float[64]]",
            )
        return s.ScalarType(*_place(c), "complex", None, base)  # type: ignore[arg-type]

    def array_type(self, c: list[Part]) -> s.ArrayType:
        """Make ``array[int, 2]``."""
        return s.ArrayType(*_place(c), c[1], c[2])  # type: ignore[arg-type]

    def array_reference(self, c: list[Part]) -> s.ArrayType:
        """Make ``mutable array[int, 2]``."""
        return s.ArrayType(*_place(c), c[2], c[3], str(c[0]))  # type: ignore[arg-type]

    def rank_reference(self, c: list[Part]) -> s.ArrayType:
        """Make ``readonly array[int, #dim = 2]``."""
        return s.ArrayType(*_place(c), c[2], [], str(c[0]), c[4])  # type: ignore[arg-type]

    def extern_argument(self, c: list[Part]) -> Part:
        """Pass an extern's argument type on."""
        return c[0]

    def defcal_argument(self, c: list[Part]) -> Part:
        """Pass a defcal's argument on."""
        return c[0]

    def argument(self, c: list[Part]) -> s.Argument:
        """Make a classical argument."""
        return s.Argument(*_place(c), str(c[1]), c[0])  # type: ignore[arg-type]

    def qubit_argument(self, c: list[Part]) -> s.Argument:
        """Make ``qubit[n] q``."""
        return s.Argument(*_place(c), str(c[2]), None, c[1])  # type: ignore[arg-type]

    def qreg_argument(self, c: list[Part]) -> s.Argument:
        """Make ``qreg q[n]``."""
        return s.Argument(*_place(c), str(c[1]), None, c[2])  # type: ignore[arg-type]

    def creg_argument(self, c: list[Part]) -> s.Argument:
        """Make ``creg c[n]``."""
        place = _place(c)
        return s.Argument(*place, str(c[1]), s.ScalarType(*place, "bit", c[2]))  # type: ignore[arg-type]

    # ---------------------------------------------------------------- declarations

    def annotated(self, c: list[Part]) -> s.Annotated:
        """Make an annotated statement."""
        return _deep(s.Annotated(*_place(c), str(c[0])[1:].strip(), c[1]), c)  # type: ignore[arg-type]

    def pragma(self, c: list[Token]) -> s.Pragma:
        """Make a pragma; a trailing line comment is not part of it."""
        text = str(c[0]).lstrip("#")[len("pragma") :]
        return s.Pragma(*_place(c), text.strip())

    def scope(self, c: list[Part]) -> s.Block:
        """Make a block."""
        return _deep(s.Block(*_place(c), self._items(c)), c)  # type: ignore[arg-type]

    def include(self, c: list[Token]) -> s.Include:
        """Make an include."""
        return s.Include(*_place(c), str(c[1])[1:-1])

    def defcalgrammar(self, c: list[Token]) -> s.Calibration:
        """Make ``defcalgrammar``."""
        return s.Calibration(*_place(c), "defcalgrammar", str(c[1])[1:-1])

    def cal(self, c: list[Part]) -> s.Calibration:
        """Make a ``cal`` block."""
        return s.Calibration(*_place(c), "cal")

    def defcal(self, c: list[Part]) -> s.Calibration:
        """Make a ``defcal``."""
        return s.Calibration(*_place(c), "defcal", str(c[1]))

    def declaration(self, c: list[Part]) -> s.ClassicalDeclaration:
        """Make ``int x = 1;``."""
        node = s.ClassicalDeclaration(*_place(c), c[0], str(c[1]), c[2])  # type: ignore[arg-type]
        return _deep(node, c)

    def const_declaration(self, c: list[Part]) -> s.ClassicalDeclaration:
        """Make ``const int x = 1;``."""
        node = s.ClassicalDeclaration(*_place(c), c[1], str(c[2]), c[3], constant=True)  # type: ignore[arg-type]
        return _deep(node, c)

    def creg(self, c: list[Part]) -> s.ClassicalDeclaration:
        """Make ``creg c[2];``."""
        place = _place(c)
        kind = s.ScalarType(*place, "bit", c[2])  # type: ignore[arg-type]
        return s.ClassicalDeclaration(*place, kind, str(c[1]), None)

    def io(self, c: list[Part]) -> s.IoDeclaration:
        """Make ``input float x;``."""
        return s.IoDeclaration(*_place(c), str(c[0]), c[1], str(c[2]))  # type: ignore[arg-type]

    def qreg(self, c: list[Part]) -> s.QuantumDeclaration:
        """Make ``qreg q[2];``."""
        return s.QuantumDeclaration(*_place(c), str(c[1]), c[2])  # type: ignore[arg-type]

    def qubit(self, c: list[Part]) -> s.QuantumDeclaration:
        """Make ``qubit[2] q;``."""
        return s.QuantumDeclaration(*_place(c), str(c[2]), c[1])  # type: ignore[arg-type]

    def let(self, c: list[Part]) -> s.Alias:
        """Make ``let a = q[0:1];``."""
        return _deep(s.Alias(*_place(c), str(c[1]), c[2]), c)  # type: ignore[arg-type]

    def def_(self, c: list[Part]) -> s.SubroutineDefinition:
        """Make a subroutine."""
        node = s.SubroutineDefinition(*_place(c), str(c[1]), c[2] or [], c[3], c[4].body)  # type: ignore[arg-type,attr-defined]
        return _deep(node, c)

    def extern(self, c: list[Part]) -> s.Extern:
        """Make an extern."""
        return s.Extern(*_place(c), str(c[1]))

    def gate(self, c: list[Part]) -> s.GateDefinition:
        """Make a gate definition."""
        parameters = [str(token) for token in c[2] or []]  # type: ignore[attr-defined]
        qubits = [str(token) for token in c[3]]  # type: ignore[attr-defined]
        node = s.GateDefinition(*_place(c), str(c[1]), parameters, qubits, c[4].body)  # type: ignore[attr-defined]
        return _deep(node, c)

    def opaque(self, c: list[Part]) -> s.Opaque:
        """Make an opaque gate."""
        parameters = [str(token) for token in c[2] or []]  # type: ignore[attr-defined]
        return s.Opaque(*_place(c), str(c[1]), parameters, [str(t) for t in c[3]])  # type: ignore[attr-defined]

    # ---------------------------------------------------------------- operations

    def plain_modifier(self, c: list[Part]) -> s.Modifier:
        """Make ``inv @``."""
        return s.Modifier(*_place(c), "inv")

    def modifier(self, c: list[Part]) -> s.Modifier:
        """Make ``ctrl(2) @`` or ``pow(2) @``."""
        return _deep(s.Modifier(*_place(c), str(c[0]), c[1]), c)  # type: ignore[arg-type]

    def gate_call(self, c: list[Part]) -> s.Statement:
        """Make a gate call; with an arrow it is the call of a measuring defcal."""
        name, arguments, duration = self._callee(c[0])
        if c[3] is not None:
            call = s.QuantumCall(*_place(c), name, arguments, c[1])  # type: ignore[arg-type]
            return s.MeasureStatement(*_place(c), call, c[3])  # type: ignore[arg-type]
        return _deep(s.GateCall(*_place(c), [], name, arguments, c[1], duration), c)  # type: ignore[arg-type]

    def modified_call(self, c: list[Part]) -> s.GateCall:
        """Make a gate call with modifiers."""
        node = s.GateCall(*_place(c), c[0], str(c[1]), c[2] or [], c[4], c[3])  # type: ignore[arg-type]
        return _deep(node, c)

    def gphase(self, c: list[Part]) -> s.GateCall:
        """Make ``gphase(x);``."""
        return self.modified_gphase([[], *c])

    def modified_gphase(self, c: list[Part]) -> s.GateCall:
        """Make ``ctrl @ gphase(x) q;``."""
        node = s.GateCall(*_place(c), c[0], "gphase", c[2] or [], c[4] or [], c[3])  # type: ignore[arg-type]
        return _deep(node, c)

    def call2(self, c: list[Part]) -> s.GateCall:
        """Make a gate call of OpenQASM 2."""
        return _deep(s.GateCall(*_place(c), [], str(c[0]), c[1] or [], c[2]), c)  # type: ignore[arg-type]

    def assignment(self, c: list[Part]) -> s.Assignment:
        """Make an assignment; its target is a name with indices."""
        target = c[0]
        while isinstance(target, s.Index):
            target = target.base
        if not isinstance(target, s.Name):
            line, column = _place(c)
            raise SourceError("only a variable can be assigned to", line=line, column=column)
        return _deep(s.Assignment(*_place(c), c[0], str(c[1]), c[2]), c)  # type: ignore[arg-type]

    def expression_statement(self, c: list[Part]) -> s.ExpressionStatement:
        """Make an expression on its own."""
        return _deep(s.ExpressionStatement(*_place(c), c[0]), c)  # type: ignore[arg-type]

    def measure_statement(self, c: list[Part]) -> s.MeasureStatement:
        """Make ``measure q -> c;``."""
        value = s.Measure(*_place(c), c[1])  # type: ignore[arg-type]
        return s.MeasureStatement(*_place(c), value, c[3] if len(c) > 3 else None)  # type: ignore[arg-type]

    def reset(self, c: list[Part]) -> s.Reset:
        """Make a reset."""
        return s.Reset(*_place(c), c[1])  # type: ignore[arg-type]

    def barrier(self, c: list[Part]) -> s.Barrier:
        """Make a barrier."""
        return s.Barrier(*_place(c), c[1] or [])  # type: ignore[arg-type]

    def delay(self, c: list[Part]) -> s.Delay:
        """Make a delay."""
        return _deep(s.Delay(*_place(c), c[1], c[2] or []), c)  # type: ignore[arg-type]

    def nop(self, c: list[Part]) -> s.Nop:
        """Make a nop."""
        return s.Nop(*_place(c), c[1] or [])  # type: ignore[arg-type]

    def box(self, c: list[Part]) -> s.Box:
        """Make a box."""
        return _deep(s.Box(*_place(c), c[1], c[2].body), c)  # type: ignore[arg-type,attr-defined]

    # ---------------------------------------------------------------- control flow

    def if_(self, c: list[Part]) -> s.If:
        """Make an if."""
        orelse = c[4] if len(c) > 4 else None
        return _deep(s.If(*_place(c), c[1], c[2], orelse), c)  # type: ignore[arg-type]

    def if2(self, c: list[Part]) -> s.If:
        """Make an if of OpenQASM 2."""
        return _deep(s.If(*_place(c), c[1], c[2], None), c)  # type: ignore[arg-type]

    def while_(self, c: list[Part]) -> s.While:
        """Make a while."""
        return _deep(s.While(*_place(c), c[1], c[2]), c)  # type: ignore[arg-type]

    def for_(self, c: list[Part]) -> s.For:
        """Make a for."""
        _, kind, name, _, values, body = c
        return _deep(s.For(*_place(c), kind, str(name), values, body), c)  # type: ignore[arg-type]

    def case(self, c: list[Part]) -> Part:
        """Keep a case as (labels, block)."""
        return (c[1], c[2])

    def default(self, c: list[Part]) -> Part:
        """Keep a default as (None, block)."""
        return (None, c[1])

    def switch(self, c: list[Part]) -> s.Switch:
        """Make a switch; default comes last and once."""
        cases: list[tuple[list[s.Expression], s.Block]] = []
        default: s.Block | None = None
        for labels, block in c[2:]:  # type: ignore[attr-defined]
            if default is not None:
                what = "a second default" if labels is None else "a case after the default"
                raise SourceError(f"{what} in a switch", line=block.line, column=block.column)
            if labels is None:
                default = block
            else:
                cases.append((labels, block))
        return _deep(s.Switch(*_place(c), c[1], cases, default), c)  # type: ignore[arg-type]

    def return_(self, c: list[Part]) -> s.Return:
        """Make a return."""
        return _deep(s.Return(*_place(c), c[1]), c)  # type: ignore[arg-type]

    def break_(self, c: list[Part]) -> s.Break:
        """Make a break."""
        return s.Break(*_place(c))

    def continue_(self, c: list[Part]) -> s.Continue:
        """Make a continue."""
        return s.Continue(*_place(c))

    def end(self, c: list[Part]) -> s.End:
        """Make an end."""
        return s.End(*_place(c))
