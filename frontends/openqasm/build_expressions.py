"""From grammar reductions to syntax nodes: expressions and types.

The methods run while lark reduces, so no tree is built twice and nothing recurses. A node's place
is that of its first token; its depth is checked here, against deep nesting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from lark import Token, Transformer

from qcomp.errors import SourceError
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.limits import MAX_INTEGER_BITS, MAX_NESTING

__all__ = ["ExpressionBuilder", "Part", "deep", "place"]

_LEVEL = 8
_LINK = 1
_MAX_DIGITS = MAX_INTEGER_BITS // 4
_MAX_DEPTH = MAX_NESTING * _LEVEL

_LEVELS = ("||", "&&", "|", "^", "&", "== !=", "< <= > >=", "<< >>", "+ -", "* / %")
_RANK = {op: rank for rank, ops in enumerate(_LEVELS) for op in ops.split()}
_UNARY = len(_LEVELS)
_POWER = _UNARY + 1
_RANK["**"] = _POWER

NodeT = TypeVar("NodeT", bound=s.Node)
Part = object


def place(parts: Sequence[Part]) -> tuple[int, int]:
    """The line and column of the first token or node among the parts."""
    for part in parts:
        if isinstance(part, Token):
            return part.line or 1, part.column or 1
        if isinstance(part, s.Node):
            return part.line, part.column
        if isinstance(part, list) and part:
            return place(part)
    return 1, 1


def _depth(parts: Sequence[Part]) -> int:
    """The greatest depth of the nodes in nested lists."""
    depth = 0
    for part in parts:
        if isinstance(part, s.Node):
            depth = max(depth, part.depth)
        elif isinstance(part, (list, tuple)):
            depth = max(depth, _depth(part))
    return depth


def deep(node: NodeT, parts: Sequence[Part]) -> NodeT:
    """Set the node's depth from its parts', and refuse what nests too deeply."""
    node.depth = _depth(parts) + _LEVEL
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


class ExpressionBuilder(Transformer[Token, s.Program]):
    """The callbacks of lists, expressions and types; `c` holds tokens, nodes, lists and None."""

    # ---------------------------------------------------------------- lists

    def items(self, c: list[Part]) -> list[Part]:
        """List what is there, braces apart."""
        return [part for part in c if part is not None and not _is(part, "LBRACE")]

    operands = expressions = arguments = modifiers = items
    extern_arguments = defcal_arguments = defcal_operands = items

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
        return s.Name(*place(c), str(c[0]))

    def hardware(self, c: list[Token]) -> s.HardwareQubit:
        """Make ``$3``."""
        token = c[0]
        return s.HardwareQubit(*place(c), int(str(token)[1:][:18]))

    def integer(self, c: list[Token]) -> s.Literal:
        """Make an integer literal."""
        return s.Literal(*place(c), "int", _integer(c[0]))

    def float_(self, c: list[Token]) -> s.Literal:
        """Make a float literal."""
        return s.Literal(*place(c), "float", float(_without_underscores(str(c[0]))))

    def imaginary(self, c: list[Token]) -> s.Literal:
        """Make ``2.5im``."""
        text = _without_underscores(str(c[0]))[:-2].strip()
        return s.Literal(*place(c), "imaginary", float(text))

    def timing(self, c: list[Token]) -> s.Literal:
        """Make ``100ns``; the literal's kind is its unit."""
        text = _without_underscores(str(c[0]))
        unit = next(u for u in ("dt", "ns", "us", "µs", "μs", "ms", "s") if text.endswith(u))
        value = float(text[: -len(unit)].strip())
        return s.Literal(*place(c), "us" if unit in ("µs", "μs") else unit, value)

    def bitstring(self, c: list[Token]) -> s.Literal:
        """Make ``"0101"``."""
        return s.Literal(*place(c), "bitstring", _without_underscores(str(c[0])[1:-1]))

    def boolean(self, c: list[Token]) -> s.Literal:
        """Make ``true``."""
        return s.Literal(*place(c), "bool", str(c[0]) == "true")

    def binary(self, c: list[Part]) -> s.BinaryOp:
        """Make a binary operation; a chain of them counts as one level of nesting."""
        left, op, right = c
        node = s.BinaryOp(*place(c), str(op), left, right)  # type: ignore[arg-type]
        deep(node, c)
        if isinstance(left, s.BinaryOp) and isinstance(right, s.Node):
            node.depth = max(left.depth + _LINK, right.depth + _LEVEL)
        return node

    def row(self, c: list[Part]) -> Part:
        """Make a row of operators and operands into a tree, by precedence."""
        values: list[Part] = []
        waiting: list[tuple[int, Token]] = []

        def apply() -> None:
            rank, op = waiting.pop()
            right = values.pop()
            if rank == _UNARY:
                values.append(self.unary([op, right]))
            else:
                values.append(self.binary([values.pop(), op, right]))

        operand_next = True
        for part in c:
            if not isinstance(part, Token):
                values.append(part)
                operand_next = False
            elif operand_next:
                waiting.append((_UNARY, part))
            else:
                rank = _RANK[str(part)]
                while waiting and waiting[-1][0] >= rank + (rank == _POWER):
                    apply()
                waiting.append((rank, part))
                operand_next = True
        while waiting:
            apply()
        return values[0]

    def power2(self, c: list[Part]) -> s.BinaryOp:
        """Make the power that OpenQASM 2 writes ``^``."""
        return deep(s.BinaryOp(*place(c), "**", c[0], c[2]), c)  # type: ignore[arg-type]

    def unary(self, c: list[Part]) -> Part:
        """Make a unary operation."""
        if str(c[0]) == "+":
            return c[1]
        return deep(s.UnaryOp(*place(c), str(c[0]), c[1]), c)  # type: ignore[arg-type]

    def call(self, c: list[Part]) -> s.Call:
        """Make a call."""
        return deep(s.Call(*place(c), str(c[0]), c[1] or []), c)  # type: ignore[arg-type]

    def cast(self, c: list[Part]) -> s.CastCall:
        """Make a cast."""
        return deep(s.CastCall(*place(c), c[0], c[1]), c)  # type: ignore[arg-type]

    def durationof(self, c: list[Part]) -> s.DurationOf:
        """Make ``durationof``."""
        return deep(s.DurationOf(*place(c), c[1].body), c)  # type: ignore[attr-defined]

    def index(self, c: list[Part]) -> list[Part]:
        """List the entries between two brackets."""
        return [part for part in c if part is not None]

    def indexed(self, c: list[Part]) -> s.Index:
        """Make ``base[items]``."""
        return deep(s.Index(*place(c), c[0], c[1]), c)  # type: ignore[arg-type]

    def operand(self, c: list[Part]) -> s.Expression:
        """Make ``name[..][..]``."""
        node: s.Expression = s.Name(*place(c), str(c[0]))
        for items in c[1:]:
            if items is not None:
                node = deep(s.Index(node.line, node.column, node, items), [node, items])  # type: ignore[arg-type]
        return node

    def set(self, c: list[Part]) -> s.Set:
        """Make ``{1, 2}``."""
        return deep(s.Set(*place(c), self.items(c)), c)  # type: ignore[arg-type]

    def range(self, c: list[Part]) -> s.Range:
        """Make ``start:stop``."""
        start, _, stop = c
        return deep(s.Range(*place(c), start, None, stop), c)  # type: ignore[arg-type]

    def stepped_range(self, c: list[Part]) -> s.Range:
        """Make ``start:step:stop``."""
        start, _, step, _, stop = c
        return deep(s.Range(*place(c), start, step, stop), c)  # type: ignore[arg-type]

    def array_literal(self, c: list[Part]) -> s.ArrayLiteral:
        """Make ``{1, {2}}``."""
        return deep(s.ArrayLiteral(*place(c), self.items(c)), c)  # type: ignore[arg-type]

    def concatenation(self, c: list[Part]) -> s.Concatenation:
        """Make ``a ++ b``."""
        return deep(s.Concatenation(*place(c), c), c)  # type: ignore[arg-type]

    def alias(self, c: list[Part]) -> Part:
        """Make the right side of ``let``."""
        return c[0] if len(c) == 1 else self.concatenation(c)

    def measure(self, c: list[Part]) -> s.Measure:
        """Make ``measure q`` as a value."""
        return s.Measure(*place(c), c[1])  # type: ignore[arg-type]

    def callee(self, target: Part) -> tuple[str, list[s.Expression], s.Expression | None]:
        """Split ``name(args)[duration]`` before operands; refuse anything else there."""
        duration: s.Expression | None = None
        if isinstance(target, s.Index) and isinstance(target.base, (s.Call, s.Name)):
            if len(target.items) == 1 and not isinstance(target.items[0], (s.Range, s.Set)):
                duration = target.items[0]
                target = target.base
        if isinstance(target, s.Name):
            return target.name, [], duration
        if isinstance(target, s.Call):
            return target.name, target.arguments, duration
        line, column = place([target])
        raise SourceError(
            "only a gate's name, with its angles in brackets, can stand before qubits",
            line=line,
            column=column,
        )

    def quantum_call(self, c: list[Part]) -> s.QuantumCall:
        """Make ``name(args) q`` as a value."""
        name, arguments, _ = self.callee(c[0])
        return deep(s.QuantumCall(*place(c), name, arguments, c[1]), c)  # type: ignore[arg-type]

    # ---------------------------------------------------------------- types

    def sized_type(self, c: list[Part]) -> s.ScalarType:
        """Make ``int[8]``."""
        return s.ScalarType(*place(c), str(c[0]), c[1])  # type: ignore[arg-type]

    def plain_type(self, c: list[Part]) -> s.ScalarType:
        """Make ``bool``."""
        return s.ScalarType(*place(c), str(c[0]))

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
        return s.ScalarType(*place(c), "complex", None, base)  # type: ignore[arg-type]

    def array_type(self, c: list[Part]) -> s.ArrayType:
        """Make ``array[int, 2]``."""
        return s.ArrayType(*place(c), c[1], c[2])  # type: ignore[arg-type]

    def array_reference(self, c: list[Part]) -> s.ArrayType:
        """Make ``mutable array[int, 2]``."""
        return s.ArrayType(*place(c), c[2], c[3], str(c[0]))  # type: ignore[arg-type]

    def rank_reference(self, c: list[Part]) -> s.ArrayType:
        """Make ``readonly array[int, #dim = 2]``."""
        return s.ArrayType(*place(c), c[2], [], str(c[0]), c[4])  # type: ignore[arg-type]

    def extern_argument(self, c: list[Part]) -> Part:
        """Pass an extern's argument type on."""
        return c[0]

    def defcal_argument(self, c: list[Part]) -> Part:
        """Pass a defcal's argument on."""
        return c[0]

    def argument(self, c: list[Part]) -> s.Argument:
        """Make a classical argument."""
        return s.Argument(*place(c), str(c[1]), c[0])  # type: ignore[arg-type]

    def qubit_argument(self, c: list[Part]) -> s.Argument:
        """Make ``qubit[n] q``."""
        return s.Argument(*place(c), str(c[2]), None, c[1])  # type: ignore[arg-type]

    def qreg_argument(self, c: list[Part]) -> s.Argument:
        """Make ``qreg q[n]``."""
        return s.Argument(*place(c), str(c[1]), None, c[2])  # type: ignore[arg-type]

    def creg_argument(self, c: list[Part]) -> s.Argument:
        """Make ``creg c[n]``."""
        at = place(c)
        return s.Argument(*at, str(c[1]), s.ScalarType(*at, "bit", c[2]))  # type: ignore[arg-type]
