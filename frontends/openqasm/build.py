"""From grammar reductions to syntax nodes: statements and whole programs.

The methods run while lark reduces, one for each rule or alias of grammar.lark, so no tree is built
twice and nothing recurses.
"""

from __future__ import annotations

from lark import Token

from qcomp.errors import SourceError
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.build_expressions import ExpressionBuilder, Part, deep, place

__all__ = ["Builder"]


class Builder(ExpressionBuilder):
    """All callbacks of the grammar."""

    # ---------------------------------------------------------------- programs

    def version(self, c: list[Token]) -> tuple[int, int]:
        """Read ``OPENQASM 3.0``."""
        major, _, minor = str(c[1]).partition(".")
        try:
            return int(major[:6]), int(minor[:6] or 0)
        except ValueError:
            line, column = place(c[1:])
            raise SourceError(
                f"{c[1]} is no version of OpenQASM",
                line=line,
                column=column,
                hint="write OPENQASM 3.0;",
            ) from None

    def program3(self, c: list[Part]) -> s.Program:
        """Collect an OpenQASM 3 program."""
        version = (3, 0)
        if c and isinstance(c[0], tuple):
            version = c.pop(0)  # type: ignore[assignment]
        return s.Program(version, c)  # type: ignore[arg-type]

    def program2(self, c: list[Part]) -> s.Program:
        """Collect an OpenQASM 2 program."""
        return s.Program((2, 0), c[2:])  # type: ignore[arg-type]

    # ---------------------------------------------------------------- declarations

    def annotated(self, c: list[Part]) -> s.Annotated:
        """Make an annotated statement."""
        return deep(s.Annotated(*place(c), str(c[0])[1:].strip(), c[1]), c)  # type: ignore[arg-type]

    def pragma(self, c: list[Token]) -> s.Pragma:
        """Make a pragma; a trailing line comment is not part of it."""
        text = str(c[0]).lstrip("#")[len("pragma") :]
        return s.Pragma(*place(c), text.strip())

    def scope(self, c: list[Part]) -> s.Block:
        """Make a block."""
        return deep(s.Block(*place(c), self.items(c)), c)  # type: ignore[arg-type]

    def include(self, c: list[Token]) -> s.Include:
        """Make an include."""
        return s.Include(*place(c), str(c[1])[1:-1])

    def defcalgrammar(self, c: list[Token]) -> s.Calibration:
        """Make ``defcalgrammar``."""
        return s.Calibration(*place(c), "defcalgrammar", str(c[1])[1:-1])

    def cal(self, c: list[Part]) -> s.Calibration:
        """Make a ``cal`` block."""
        return s.Calibration(*place(c), "cal")

    def defcal(self, c: list[Part]) -> s.Calibration:
        """Make a ``defcal``."""
        return s.Calibration(*place(c), "defcal", str(c[1]))

    def declaration(self, c: list[Part]) -> s.ClassicalDeclaration:
        """Make ``int x = 1;``."""
        node = s.ClassicalDeclaration(*place(c), c[0], str(c[1]), c[2])  # type: ignore[arg-type]
        return deep(node, c)

    def const_declaration(self, c: list[Part]) -> s.ClassicalDeclaration:
        """Make ``const int x = 1;``."""
        node = s.ClassicalDeclaration(*place(c), c[1], str(c[2]), c[3], constant=True)  # type: ignore[arg-type]
        return deep(node, c)

    def creg(self, c: list[Part]) -> s.ClassicalDeclaration:
        """Make ``creg c[2];``."""
        at = place(c)
        kind = s.ScalarType(*at, "bit", c[2])  # type: ignore[arg-type]
        return s.ClassicalDeclaration(*at, kind, str(c[1]), None)

    def io(self, c: list[Part]) -> s.IoDeclaration:
        """Make ``input float x;``."""
        return s.IoDeclaration(*place(c), str(c[0]), c[1], str(c[2]))  # type: ignore[arg-type]

    def qreg(self, c: list[Part]) -> s.QuantumDeclaration:
        """Make ``qreg q[2];``."""
        return s.QuantumDeclaration(*place(c), str(c[1]), c[2])  # type: ignore[arg-type]

    def qubit(self, c: list[Part]) -> s.QuantumDeclaration:
        """Make ``qubit[2] q;``."""
        return s.QuantumDeclaration(*place(c), str(c[2]), c[1])  # type: ignore[arg-type]

    def let(self, c: list[Part]) -> s.Alias:
        """Make ``let a = q[0:1];``."""
        return deep(s.Alias(*place(c), str(c[1]), c[2]), c)  # type: ignore[arg-type]

    def def_(self, c: list[Part]) -> s.SubroutineDefinition:
        """Make a subroutine."""
        node = s.SubroutineDefinition(*place(c), str(c[1]), c[2] or [], c[3], c[4].body)  # type: ignore[arg-type,attr-defined]
        return deep(node, c)

    def extern(self, c: list[Part]) -> s.Extern:
        """Make an extern."""
        return s.Extern(*place(c), str(c[1]))

    def gate(self, c: list[Part]) -> s.GateDefinition:
        """Make a gate definition."""
        parameters = [str(token) for token in c[2] or []]  # type: ignore[attr-defined]
        qubits = [str(token) for token in c[3]]  # type: ignore[attr-defined]
        node = s.GateDefinition(*place(c), str(c[1]), parameters, qubits, c[4].body)  # type: ignore[attr-defined]
        return deep(node, c)

    def opaque(self, c: list[Part]) -> s.Opaque:
        """Make an opaque gate."""
        parameters = [str(token) for token in c[2] or []]  # type: ignore[attr-defined]
        return s.Opaque(*place(c), str(c[1]), parameters, [str(t) for t in c[3]])  # type: ignore[attr-defined]

    # ---------------------------------------------------------------- operations

    def plain_modifier(self, c: list[Part]) -> s.Modifier:
        """Make ``inv @``."""
        return s.Modifier(*place(c), "inv")

    def modifier(self, c: list[Part]) -> s.Modifier:
        """Make ``ctrl(2) @`` or ``pow(2) @``."""
        return deep(s.Modifier(*place(c), str(c[0]), c[1]), c)  # type: ignore[arg-type]

    def gate_call(self, c: list[Part]) -> s.Statement:
        """Make a gate call; with an arrow it is the call of a measuring defcal."""
        name, arguments, duration = self.callee(c[0])
        if c[3] is not None:
            call = s.QuantumCall(*place(c), name, arguments, c[1])  # type: ignore[arg-type]
            return s.MeasureStatement(*place(c), call, c[3])  # type: ignore[arg-type]
        return deep(s.GateCall(*place(c), [], name, arguments, c[1], duration), c)  # type: ignore[arg-type]

    def modified_call(self, c: list[Part]) -> s.GateCall:
        """Make a gate call with modifiers."""
        node = s.GateCall(*place(c), c[0], str(c[1]), c[2] or [], c[4], c[3])  # type: ignore[arg-type]
        return deep(node, c)

    def gphase(self, c: list[Part]) -> s.GateCall:
        """Make ``gphase(x);``."""
        return self.modified_gphase([[], *c])

    def modified_gphase(self, c: list[Part]) -> s.GateCall:
        """Make ``ctrl @ gphase(x) q;``."""
        node = s.GateCall(*place(c), c[0], "gphase", c[2] or [], c[4] or [], c[3])  # type: ignore[arg-type]
        return deep(node, c)

    def call2(self, c: list[Part]) -> s.GateCall:
        """Make a gate call of OpenQASM 2."""
        return deep(s.GateCall(*place(c), [], str(c[0]), c[1] or [], c[2]), c)  # type: ignore[arg-type]

    def assignment(self, c: list[Part]) -> s.Assignment:
        """Make an assignment; its target is a name with indices."""
        target = c[0]
        while isinstance(target, s.Index):
            target = target.base
        if not isinstance(target, s.Name):
            line, column = place(c)
            raise SourceError("only a variable can be assigned to", line=line, column=column)
        return deep(s.Assignment(*place(c), c[0], str(c[1]), c[2]), c)  # type: ignore[arg-type]

    def expression_statement(self, c: list[Part]) -> s.ExpressionStatement:
        """Make an expression on its own."""
        return deep(s.ExpressionStatement(*place(c), c[0]), c)  # type: ignore[arg-type]

    def measure_statement(self, c: list[Part]) -> s.MeasureStatement:
        """Make ``measure q -> c;``."""
        value = s.Measure(*place(c), c[1])  # type: ignore[arg-type]
        return s.MeasureStatement(*place(c), value, c[3] if len(c) > 3 else None)  # type: ignore[arg-type]

    def reset(self, c: list[Part]) -> s.Reset:
        """Make a reset."""
        return s.Reset(*place(c), c[1])  # type: ignore[arg-type]

    def barrier(self, c: list[Part]) -> s.Barrier:
        """Make a barrier."""
        return s.Barrier(*place(c), c[1] or [])  # type: ignore[arg-type]

    def delay(self, c: list[Part]) -> s.Delay:
        """Make a delay."""
        return deep(s.Delay(*place(c), c[1], c[2] or []), c)  # type: ignore[arg-type]

    def nop(self, c: list[Part]) -> s.Nop:
        """Make a nop."""
        return s.Nop(*place(c), c[1] or [])  # type: ignore[arg-type]

    def box(self, c: list[Part]) -> s.Box:
        """Make a box."""
        return deep(s.Box(*place(c), c[1], c[2].body), c)  # type: ignore[arg-type,attr-defined]

    # ---------------------------------------------------------------- control flow

    def if_(self, c: list[Part]) -> s.If:
        """Make an if."""
        orelse = c[4] if len(c) > 4 else None
        return deep(s.If(*place(c), c[1], c[2], orelse), c)  # type: ignore[arg-type]

    def if2(self, c: list[Part]) -> s.If:
        """Make an if of OpenQASM 2."""
        return deep(s.If(*place(c), c[1], c[2], None), c)  # type: ignore[arg-type]

    def while_(self, c: list[Part]) -> s.While:
        """Make a while."""
        return deep(s.While(*place(c), c[1], c[2]), c)  # type: ignore[arg-type]

    def for_(self, c: list[Part]) -> s.For:
        """Make a for."""
        _, kind, name, _, values, body = c
        return deep(s.For(*place(c), kind, str(name), values, body), c)  # type: ignore[arg-type]

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
        items: list[tuple[list[s.Expression] | None, s.Block]] = c[2:]  # type: ignore[assignment]
        for labels, block in items:
            if default is not None:
                what = "a second default" if labels is None else "a case after the default"
                raise SourceError(f"{what} in a switch", line=block.line, column=block.column)
            if labels is None:
                default = block
            else:
                cases.append((labels, block))
        return deep(s.Switch(*place(c), c[1], cases, default), c)  # type: ignore[arg-type]

    def return_(self, c: list[Part]) -> s.Return:
        """Make a return."""
        return deep(s.Return(*place(c), c[1]), c)  # type: ignore[arg-type]

    def break_(self, c: list[Part]) -> s.Break:
        """Make a break."""
        return s.Break(*place(c))

    def continue_(self, c: list[Part]) -> s.Continue:
        """Make a continue."""
        return s.Continue(*place(c))

    def end(self, c: list[Part]) -> s.End:
        """Make an end."""
        return s.End(*place(c))
