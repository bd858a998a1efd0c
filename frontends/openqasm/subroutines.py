"""Subroutines: every call is executed where it stands, with its own variables."""

from __future__ import annotations

import numpy as np

from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.flow import DeadCode, Frame, ReturnSignal
from qcomp.frontends.openqasm.limits import MAX_CALL_DEPTH
from qcomp.frontends.openqasm.memory import (
    BitRegister,
    Qubits,
    Subroutine,
    Symbol,
    Unsupported,
    Variable,
)
from qcomp.frontends.openqasm.statements import Statements
from qcomp.frontends.openqasm.values import (
    VOID,
    ArrayType,
    ScalarType,
    Value,
    cast,
    default,
    fail,
    is_runtime,
    known_int,
)
from qcomp.ir.blocks import Break
from qcomp.ir.classical import Bit, VarRef

__all__ = ["Subroutines"]


class Subroutines(Statements):
    """The interpreter's part that calls subroutines."""

    def call_subroutine(self, node: s.Call) -> Value:
        """Execute a call and return its value."""
        symbol = self.memory.find(node.name)
        if isinstance(symbol, Unsupported):
            fail(node, f"'{node.name}' is {symbol.what}", why="its body is outside the program")
        if not isinstance(symbol, Subroutine):
            fail(node, f"'{node.name}' is not a subroutine")
        routine = symbol.definition
        if len(node.arguments) != len(routine.arguments):
            fail(
                node,
                f"'{node.name}' takes {len(routine.arguments)} argument"
                f"{'s' * (len(routine.arguments) != 1)}, {len(node.arguments)} were given",
            )
        if sum(frame.kind == "def" for frame in self.frames) >= MAX_CALL_DEPTH:
            fail(
                node,
                f"subroutines call each other more than {MAX_CALL_DEPTH} levels deep",
                why="a call is executed where it stands, so recursion must end",
            )
        returns = None
        if routine.returns is not None:
            kind = self.type_of(routine.returns)
            assert isinstance(kind, ScalarType)
            returns = kind
        scope: dict[str, Symbol] = {}
        copies: list[tuple[Variable, s.Expression]] = []
        for wanted, given in zip(routine.arguments, node.arguments, strict=True):
            if wanted.name in scope:
                fail(wanted, f"two arguments are named '{wanted.name}'")
            scope[wanted.name] = self._bind(wanted, given, copies)
        wires = [w for q in scope.values() if isinstance(q, Qubits) for w in q.wires]
        if len(set(wires)) != len(wires):
            fail(node, f"'{node.name}' is given the same qubit twice")
        result = self._run(routine, scope, returns, node)
        for variable, target in copies:
            self.store(target, Value(variable.type, variable.data), node)
        return result

    def _bind(
        self, wanted: s.Argument, given: s.Expression, copies: list[tuple[Variable, s.Expression]]
    ) -> Symbol:
        """Return what an argument's name stands for inside the subroutine."""
        if wanted.type is None:
            qubits = self.qubits(given)
            size = 1 if wanted.size is None else self.size(wanted.size, "the size of an argument")
            if len(qubits.wires) != size:
                fail(
                    given,
                    f"'{wanted.name}' takes {size} qubit{'s' * (size != 1)}, "
                    f"{len(qubits.wires)} were given",
                )
            return Qubits(qubits.wires, single=wanted.size is None)
        if isinstance(wanted.type, s.ArrayType):
            return self._bind_array(wanted, wanted.type, given, copies)
        kind = self.type_of(wanted.type)
        assert isinstance(kind, ScalarType)
        value = cast(self.evaluate(given), kind, given)
        if kind.kind == "bit":
            size = kind.width or 1
            if is_runtime(value.data):
                register = BitRegister(wanted.name, kind, [None] * size, written=True)
                self.memory.write_bits([(register, i) for i in range(size)], value, given)
                return register
            number = known_int(value, given, "the argument")
            register = BitRegister(wanted.name, kind, [number >> i & 1 for i in range(size)])
            if self.memory.looping:
                self.memory.wires(register)
            return register
        variable = Variable(wanted.name, kind, default(kind))
        self.memory.write(variable, value, given)
        return variable

    def _bind_array(
        self,
        wanted: s.Argument,
        kind: s.ArrayType,
        given: s.Expression,
        copies: list[tuple[Variable, s.Expression]],
    ) -> Variable:
        base = self.type_of(kind.base)
        value = self.evaluate(given)
        if not isinstance(value.type, ArrayType):
            fail(given, f"'{wanted.name}' takes an array, not a {value.type}")
        if value.type.base != base:
            fail(given, f"'{wanted.name}' takes an array of {base}, not of {value.type.base}")
        if kind.rank is not None:
            rank = self.size(kind.rank, "the number of dimensions")
            if len(value.type.shape) != rank:
                fail(
                    given,
                    f"'{wanted.name}' takes an array of {rank} dimension"
                    f"{'s' * (rank != 1)}, not of {len(value.type.shape)}",
                )
        else:
            shape = tuple(self.size(n, "a dimension of an array") for n in kind.shape)
            if shape != value.type.shape:
                fail(
                    given,
                    f"'{wanted.name}' takes an array of shape {shape}, not of {value.type.shape}",
                )
        assert isinstance(value.data, np.ndarray)
        if kind.access == "mutable":
            if isinstance(given, s.Name):
                symbol = self.memory.get(given)
                if isinstance(symbol, Variable) and not symbol.constant and not symbol.readonly:
                    return symbol
            if not isinstance(given, s.Index):
                fail(given, f"'{wanted.name}' is mutable and takes a variable")
        variable = Variable(wanted.name, value.type, value.data.copy())
        if kind.access == "mutable":
            copies.append((variable, given))
        else:
            variable.readonly = True
        return variable

    def _run(
        self,
        routine: s.SubroutineDefinition,
        scope: dict[str, Symbol],
        returns: ScalarType | None,
        node: s.Call,
    ) -> Value:
        frame = Frame("def", self.memory.depth, returns=returns)
        result: Value | None = None
        with self.frame(frame), self.memory.frame() as opened:
            opened.update(scope)
            try:
                self.run_block(routine.body)
            except ReturnSignal as signal:
                result = signal.value
        if frame.flag is not None:
            self.lower_flag(frame.flag)
            if returns is not None and frame.result is not None:
                return cast(Value(_stored(returns), frame.result.data), returns, node)
        if returns is None:
            return Value(VOID, 0)
        if result is None:
            fail(node, f"'{routine.name}' ends without a return, though it returns {returns}")
        return result

    def run_return(self, node: s.Return) -> None:
        """Leave the innermost subroutine."""
        frame = next((f for f in reversed(self.frames) if f.kind == "def"), None)
        if frame is None:
            fail(node, "'return' outside a subroutine")
        value: Value | None = None
        if node.value is not None:
            value = self.evaluate(node.value)
            if frame.returns is None:
                if value.type != VOID:
                    fail(
                        node,
                        "a value is returned from a subroutine without a return type",
                        hint="write def name(...) -> type { ... }",
                    )
                value = None
        elif frame.returns is not None:
            fail(node, f"'return' without a value, {frame.returns} is needed")
        if value is not None and frame.returns is not None:
            value = cast(value, frame.returns, node)
        if self.memory.depth == frame.depth:
            raise ReturnSignal(self._kept(value, node))
        self._return_at_run_time(frame, value, node)

    def _kept(self, value: Value | None, node: s.Return) -> Value | None:
        """Return a run-time value that later assignments cannot change."""
        if value is None or not is_runtime(value.data) or isinstance(value.data, (Bit, VarRef)):
            return value
        stored = _stored(value.scalar)
        variable = Variable("returned", stored, default(stored))
        self.memory.write(variable, cast(value, stored, node), node)
        return cast(Value(stored, variable.data), value.scalar, node)

    def _return_at_run_time(self, frame: Frame, value: Value | None, node: s.Return) -> None:
        for inner in reversed(self.frames):
            if inner.kind == "trial":
                self.need_run_time(inner)
            if inner is frame:
                break
        if value is not None:
            stored = _stored(value.scalar)
            if frame.result is None:
                frame.result = Variable("result", stored, default(stored), pinned=1)
            self.memory.write(frame.result, cast(value, stored, node), node)
        frame.flag = self.raise_flag(frame.flag, "returned", node)
        frame.left = True
        for inner in reversed(self.frames):
            if inner.kind == "native":
                self.emitter.block.append(Break())
                break
            if inner is frame:
                break
        raise DeadCode


def _stored(kind: ScalarType) -> ScalarType:
    """Return the type of a variable that holds a value: registers are held as integers."""
    return ScalarType("uint", kind.width) if kind.kind == "bit" and kind.width else kind
