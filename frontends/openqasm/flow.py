"""Control flow: what is decided now is executed now, what a measurement decides is emitted.

A ``break``, ``continue`` or ``return`` that a run-time condition decides inside a loop or
subroutine that is unrolled or inlined sets a flag; what would have been skipped is put under
``if (!flag)``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.emit import (
    RawBlock,
    RawFor,
    RawIf,
    RawSwitch,
    RawWhile,
)
from qcomp.frontends.openqasm.gates import GateCalls
from qcomp.frontends.openqasm.limits import MAX_UNROLL
from qcomp.frontends.openqasm.memory import Variable, assigned_names
from qcomp.frontends.openqasm.values import (
    BOOL,
    INT,
    RUNTIME_TYPES,
    ArrayType,
    ScalarType,
    Value,
    as_bool,
    as_expr,
    cast,
    fail,
    is_runtime,
    known_int,
)
from qcomp.ir.blocks import Assign, Break, Continue, End, Range
from qcomp.ir.classical import Binary, ClassicalVar, Expr, Lit, Unary, VarRef

__all__ = ["ControlFlow", "DeadCode", "EndSignal", "Frame", "ReturnSignal"]


@dataclass(slots=True, eq=False)
class Frame:
    """A loop or subroutine being executed.

    Attributes:
        kind: "unrolled", "trial" (unrolled if it works out), "native" (a run-time loop) or "def".
        depth: Nesting of run-time regions around it.
        flag: The run-time flag that leaves it, once one was needed; `left` while it may be set.
        skip: The run-time flag that ends the current round; `skipped` while it may be set.
        returns: A subroutine's return type.
        result: Where a subroutine's value goes when a measurement decides which return is taken.
    """

    kind: str
    depth: int
    flag: VarRef | None = None
    left: bool = False
    skip: VarRef | None = None
    skipped: bool = False
    returns: ScalarType | None = None
    result: Variable | None = None


class BreakSignal(Exception):
    """A break that is decided now."""


class ContinueSignal(Exception):
    """A continue that is decided now."""


class ReturnSignal(Exception):
    """A return that is decided now."""

    def __init__(self, value: Value | None) -> None:
        super().__init__()
        self.value = value


class EndSignal(Exception):
    """An end that is decided now."""


class DeadCode(Exception):
    """The rest of the current run-time block is never reached."""


class NeedRunTime(Exception):
    """The loop of this frame must be run at run time."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = frame


class ControlFlow(GateCalls):
    """The interpreter's part that deals with blocks, branches and loops."""

    frames: list[Frame]
    subroutine_bodies: dict[str, list[s.Statement]]

    def execute(self, node: s.Statement) -> None:
        """Execute one statement; the interpreter's part."""
        raise NotImplementedError

    # ---------------------------------------------------------------- blocks

    def run_block(self, body: list[s.Statement]) -> None:
        """Execute statements in the open scope, heeding flags that one of them may set."""
        for i, statement in enumerate(body):
            self.execute(statement)
            flags = self._flags()
            if flags and i + 1 < len(body):
                rest = body[i + 1 :]
                condition = self._none_of(flags)
                self.region(rest, condition, lambda rest=rest: self.run_block(rest), statement)  # type: ignore[misc]
                return

    def run_body(self, node: s.Statement) -> None:
        """Execute a statement or a block in its own scope."""
        with self.memory.scope():
            self.run_block(node.body if isinstance(node, s.Block) else [node])

    def _flags(self) -> list[VarRef]:
        flags: list[VarRef] = []
        for frame in self.frames:
            if frame.left and frame.flag is not None:
                flags.append(frame.flag)
            if frame.skipped and frame.skip is not None:
                flags.append(frame.skip)
        return flags

    @staticmethod
    def _none_of(flags: list[VarRef]) -> Expr:
        total: Expr = flags[0]
        for flag in flags[1:]:
            total = Binary("||", total, flag)
        return Unary("!", total)

    def _assigned(self, *bodies: list[s.Statement]) -> list[str]:
        flat = [statement for body in bodies for statement in body]
        return assigned_names(flat, self.subroutine_bodies)

    def region(
        self,
        body: list[s.Statement],
        condition: Expr,
        run: Callable[[], None],
        node: s.Node,
    ) -> None:
        """Emit ``if (condition)`` around what `run` emits for `body`."""
        with self.memory.pinned(self._assigned(body), node):
            then = self.collect(run)
        if then:
            self.emitter.block.append(RawIf(condition, then, []))

    def collect(self, run: Callable[[], None]) -> RawBlock:
        """Return what `run` emits, as a block that runs only sometimes."""
        outer, block = self.emitter.block, RawBlock()
        self.emitter.block = block
        self.memory.depth += 1
        try:
            run()
        except DeadCode:
            pass
        finally:
            self.memory.depth -= 1
            self.emitter.block = outer
        return block

    # ---------------------------------------------------------------- branches

    def run_if(self, node: s.If) -> None:
        """Execute or emit an ``if``."""
        condition = as_bool(self.evaluate(node.condition), node.condition)
        if isinstance(condition, bool):
            chosen = node.then if condition else node.orelse
            if chosen is not None:
                self.run_body(chosen)
            return
        bodies = [node.then] + ([] if node.orelse is None else [node.orelse])
        orelse = RawBlock()
        with self.memory.pinned(self._assigned(bodies), node):
            then = self.collect(lambda: self.run_body(node.then))
            if node.orelse is not None:
                alternative = node.orelse
                orelse = self.collect(lambda: self.run_body(alternative))
        self.emitter.block.append(RawIf(condition, then, orelse))

    def run_switch(self, node: s.Switch) -> None:
        """Execute or emit a ``switch``."""
        if not node.cases:
            fail(node, "a switch needs at least one case")
        subject = self.evaluate(node.subject)
        kind = subject.type
        if isinstance(kind, ArrayType) or kind.kind not in ("int", "uint", "bit", "bool"):
            fail(node.subject, f"a switch is over an integer, not over {kind}")
        labels = self._labels(node)
        if not is_runtime(subject.data):
            number = known_int(subject, node.subject, "the subject of a switch")
            for found, (_, block) in zip(labels, node.cases, strict=True):
                if number in found:
                    self.run_body(block)
                    return
            if node.default is not None:
                self.run_body(node.default)
            return
        blocks = [block for _, block in node.cases]
        if node.default is not None:
            blocks.append(node.default)
        with self.memory.pinned(self._assigned(list(blocks)), node):
            made = [self.collect(functools.partial(self.run_body, block)) for block in blocks]
        default = made.pop() if node.default is not None else None
        cases = list(zip(labels, made, strict=True))
        self.emitter.block.append(RawSwitch(as_expr(subject, node), cases, default))

    def _labels(self, node: s.Switch) -> list[tuple[int, ...]]:
        seen: set[int] = set()
        labels: list[tuple[int, ...]] = []
        for expressions, _ in node.cases:
            found = []
            for expression in expressions:
                for inner in s.walk([s.ExpressionStatement(node.line, node.column, expression)]):
                    symbol = self.memory.find(inner.name) if isinstance(inner, s.Name) else None
                    if isinstance(symbol, Variable) and not symbol.constant:
                        fail(inner, f"a case must be constant, '{symbol.name}' is a variable")
                value = known_int(self.evaluate(expression), expression, "a case")
                if value in seen:
                    fail(expression, f"the case {value} stands twice in the switch")
                seen.add(value)
                found.append(value)
            labels.append(tuple(found))
        return labels

    # ---------------------------------------------------------------- leaving

    def _loop(self, node: s.Statement, word: str) -> Frame:
        for frame in reversed(self.frames):
            if frame.kind == "def":
                break
            return frame
        fail(node, f"'{word}' outside a loop")

    def run_break(self, node: s.Break) -> None:
        """Leave the innermost loop."""
        frame = self._loop(node, "break")
        if frame.kind == "native":
            self.emitter.block.append(Break())
            raise DeadCode
        if self.memory.depth == frame.depth:
            raise BreakSignal
        if frame.kind == "trial":
            self.need_run_time(frame)
        frame.flag = self.raise_flag(frame.flag, "left", node)
        frame.left = True
        raise DeadCode

    def run_continue(self, node: s.Continue) -> None:
        """Go on with the innermost loop's next round."""
        frame = self._loop(node, "continue")
        if frame.kind == "native":
            self.emitter.block.append(Continue())
            raise DeadCode
        if self.memory.depth == frame.depth:
            raise ContinueSignal
        if frame.kind == "trial":
            self.need_run_time(frame)
        frame.skip = self.raise_flag(frame.skip, "skipped", node)
        frame.skipped = True
        raise DeadCode

    @staticmethod
    def need_run_time(frame: Frame) -> NoReturn:
        """Give up executing a loop now: a measurement decides how it ends."""
        raise NeedRunTime(frame)

    def raise_flag(self, flag: VarRef | None, name: str, node: s.Node) -> VarRef:
        """Set a flag at run time; make it at its first use."""
        if flag is None:
            flag = self.emitter.add_variable(name, BOOL, node)
        self.emitter.block.append(Assign(flag, Lit(True)))
        return flag

    def lower_flag(self, flag: VarRef) -> None:
        """Clear a flag before it may be set again."""
        self.emitter.block.append(Assign(flag, Lit(False)))

    def run_end(self, node: s.End) -> None:
        """Stop the program."""
        if self.memory.depth == 0:
            raise EndSignal
        self.emitter.block.append(End())
        raise DeadCode

    # ---------------------------------------------------------------- loops

    @contextmanager
    def frame(self, frame: Frame) -> Iterator[Frame]:
        """Open a frame."""
        self.frames.append(frame)
        self.memory.looping += frame.kind == "native"
        try:
            yield frame
        finally:
            self.memory.looping -= frame.kind == "native"
            self.frames.pop()

    def run_while(self, node: s.While) -> None:
        """Execute a ``while`` now if its condition stays known, else emit it."""
        body = [node.body]
        names = self._assigned(body)
        kept = self.memory.snapshot(names)
        block = self.emitter.block
        length, emitted = len(block), self.emitter.emitted
        if not self.memory.keep and self._try_while(node):
            return
        del block[length:]
        self.emitter.emitted = emitted
        self.memory.restore(kept)
        with self.memory.pinned(names, node):
            condition = as_bool(self.evaluate(node.condition), node.condition)
            if isinstance(condition, bool):
                if not condition:
                    return
                condition = Lit(True)
            with self.frame(Frame("native", self.memory.depth + 1)):
                inner = self.collect(lambda: self.run_body(node.body))
        block.append(RawWhile(condition, inner))
        self._leave_outer()

    def _try_while(self, node: s.While) -> bool:
        """Execute the loop now; False if a measurement decides how long it runs."""
        rounds = 0
        with self.frame(Frame("trial", self.memory.depth)) as frame:
            while True:
                condition = as_bool(self.evaluate(node.condition), node.condition)
                if not isinstance(condition, bool):
                    return False
                if not condition:
                    return True
                rounds += 1
                self._check_rounds(rounds, node)
                try:
                    self.run_body(node.body)
                except BreakSignal:
                    return True
                except ContinueSignal:
                    continue
                except NeedRunTime as need:
                    if need.frame is frame:
                        return False
                    raise

    @staticmethod
    def _check_rounds(rounds: int, node: s.Node) -> None:
        if rounds > MAX_UNROLL:
            fail(
                node,
                f"the loop runs more than {MAX_UNROLL} rounds at compile time",
                hint="is its condition ever false?",
            )

    def run_for(self, node: s.For) -> None:
        """Unroll a ``for`` over values known now, else emit a loop."""
        kind = self.type_of(node.type)
        assert isinstance(kind, ScalarType)
        if kind.kind not in ("int", "uint", "bit", "bool", "float", "angle"):
            fail(node, f"a loop's variable cannot be of type {kind}")
        if isinstance(node.values, s.Range):
            self._for_range(node, node.values, kind)
            return
        if isinstance(node.values, s.Set):
            values = [cast(self.evaluate(item), kind, item) for item in node.values.items]
        else:
            values = self._entries(node.values, kind)
        if self.memory.keep and all(isinstance(v.data, int) for v in values):
            self._native_for(node, kind, tuple(int(v.data) for v in values))  # type: ignore[arg-type]
            return
        self._unroll(node, kind, values)

    def _entries(self, node: s.Expression, kind: ScalarType) -> list[Value]:
        value = self.evaluate(node)
        if isinstance(value.type, ArrayType):
            if len(value.type.shape) != 1:
                fail(node, "a loop runs over an array of one dimension")
            base = value.type.base
            return [cast(Value(base, data), kind, node) for data in value.data]  # type: ignore[union-attr]
        if value.type.kind == "bit" and value.type.width:
            bits = [self.take(value, [_literal(node, i)], node, "the register")
                    for i in range(value.type.width)]  # fmt: skip
            return [cast(bit, kind, node) for bit in bits]
        fail(node, f"a loop runs over a range, a set, an array or bits, not over {value.type}")

    def _for_range(self, node: s.For, item: s.Range, kind: ScalarType) -> None:
        if item.start is None or item.stop is None:
            fail(item, "a loop's range needs a start and a stop")
        parts = [cast(self.evaluate(item.start), INT, item.start),
                 cast(self.evaluate(item.stop), INT, item.stop),
                 Value(INT, 1) if item.step is None
                 else cast(self.evaluate(item.step), INT, item.step)]  # fmt: skip
        if any(is_runtime(part.data) for part in parts):
            start, stop, step = (as_expr(part, item) for part in parts)
            self._native_for(node, kind, Range(start, stop, step))
            return
        first, last, stride = (known_int(part, item, "a loop's bound") for part in parts)
        if stride == 0:
            fail(item, "a loop's step is zero")
        values = range(first, last + (1 if stride > 0 else -1), stride)
        rounds = max(0, (last - first) // stride + 1)
        if rounds > MAX_UNROLL or (self.memory.keep and rounds):
            if rounds > MAX_UNROLL:
                self.notes[f"line {node.line}: the loop of {rounds} rounds is kept as a loop"] = (
                    None
                )
            self._native_for(node, kind, Range(Lit(first), Lit(last), Lit(stride)))
            return
        self._unroll(node, kind, (cast(Value(INT, v), kind, item) for v in values))

    def _unroll(self, node: s.For, kind: ScalarType, values: Iterator[Value] | list[Value]) -> None:
        rounds = 0
        with self.frame(Frame("unrolled", self.memory.depth)) as frame:
            for value in values:
                rounds += 1
                self._check_rounds(rounds, node)
                if frame.flag is None:
                    try:
                        self._round(node, kind, value)
                    except BreakSignal:
                        break
                    except ContinueSignal:
                        pass
                else:
                    run = functools.partial(self._round, node, kind, value)
                    self.region([node.body], Unary("!", frame.flag), run, node)
                frame.left = False
                if frame.skipped and frame.skip is not None:
                    self.lower_flag(frame.skip)
                    frame.skipped = False
            if frame.flag is not None:
                self.lower_flag(frame.flag)

    def _round(self, node: s.For, kind: ScalarType, value: Value) -> None:
        self.step(node)
        with self.memory.scope() as scope:
            variable = Variable(node.name, kind, value.data)
            if is_runtime(value.data):
                variable.data = 0
                self.memory.write(variable, value, node)
            scope[node.name] = variable
            self.run_body(node.body)

    def _native_for(self, node: s.For, kind: ScalarType, values: Range | tuple[int, ...]) -> None:
        if kind.kind not in ("int", "uint"):
            fail(node, f"a run-time loop counts with int or uint, not with {kind}")
        storage = self.emitter.unique(node.name)
        counter = ClassicalVar(storage, RUNTIME_TYPES[kind.kind], kind.width)

        def run() -> None:
            with self.memory.scope() as scope:
                scope[node.name] = Variable(node.name, kind, VarRef(storage), constant=True)
                self.run_body(node.body)

        with (
            self.memory.pinned(self._assigned([node.body]), node),
            self.frame(Frame("native", self.memory.depth + 1)),
        ):
            body = self.collect(run)
        self.emitter.block.append(RawFor(counter, values, body))
        self._leave_outer()

    def _leave_outer(self) -> None:
        """Carry a return out of the run-time loops around the one that was just emitted."""
        native = False
        for frame in reversed(self.frames):
            if frame.kind == "native":
                native = True
            elif frame.kind == "def":
                if native and frame.left and frame.flag is not None:
                    self.emitter.block.append(RawIf(frame.flag, [Break()], []))
                return


def _literal(node: s.Node, value: int) -> s.Literal:
    return s.Literal(node.line, node.column, "int", value)
