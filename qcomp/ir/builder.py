"""The builder: methods that append to a circuit, gate by gate, for people and frontends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from qcomp.errors import UsageError, suggest
from qcomp.ir.angle import Angle, AngleLike, wrap_int
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
from qcomp.ir.classical import Bit, ClassicalVar, Expr, Register, VarRef
from qcomp.ir.forms import Forms
from qcomp.ir.gate_methods import GateMethods
from qcomp.ir.gates import BY_NAME, G, Gate
from qcomp.ir.run import Run

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Builder"]

_Finish = Callable[[Block], Item]
AbstractBody = AbstractContextManager[None]


class _Pending:
    """Operations that were appended and not yet turned into arrays."""

    __slots__ = ("code", "extra", "frac", "qubit", "rem", "terms")

    def __init__(self) -> None:
        self.code: list[int] = []
        self.qubit: list[tuple[int, int, int]] = []
        self.frac: list[int] = []
        self.rem: list[float] = []
        self.terms: list[tuple[tuple[str, float], ...]] = []
        self.extra: list[int] = []


class Builder(GateMethods):
    """What :class:`~qcomp.ir.circuit.Circuit` can append; not used by itself."""

    num_qubits: int
    num_clbits: int
    params: tuple[str, ...]
    _forms: Forms
    global_phase: Angle
    _blocks: list[list[Item]]
    _pending: _Pending

    def append(
        self, name: str, qubits: Sequence[int], angles: Sequence[AngleLike] = (), clbit: int = -1
    ) -> Self:
        """Append an operation of the gate table.

        Args:
            name: A gate's name or alias.
            qubits: Its operands, in the order of the gate table.
            angles: Its angles, radians: numbers or affine expressions of parameters. A parameter
                that the circuit does not have yet is added at the end of ``params``.
            clbit: The classical bit that a measurement writes.

        Raises:
            UsageError: If the gate is unknown or its operands or angles do not fit.
        """
        gate = BY_NAME.get(name)
        if gate is None:
            raise UsageError(f"there is no gate '{name}'", hint=suggest(name, BY_NAME))
        operands = [int(q) for q in qubits]
        self._check(gate, operands, len(angles))
        values = [Angle.of(angle) for angle in angles]
        if gate.code == G.GPHASE and len(self._blocks) == 1:
            self._declare(values[0])
            self.global_phase += values[0]
            return self
        pending = self._pending
        if gate.num_qubits < 0:
            row = (len(pending.extra), len(operands), -1)
            pending.extra.extend(operands)
        elif gate.kind == "measure":
            if not 0 <= clbit < self.num_clbits:
                raise UsageError(f"there is no classical bit {clbit} among {self.num_clbits}")
            row = (operands[0], clbit, -1)
        else:
            first, second, third, *_ = (*operands, -1, -1, -1)
            row = (first, second, third)
        pending.code.append(gate.code)
        pending.qubit.append(row)
        for value in values:
            self._declare(value)
            pending.frac.append(wrap_int(value.frac))
            pending.rem.append(value.rem)
            pending.terms.append(value.terms)
        return self

    def _check(self, gate: Gate, operands: list[int], num_angles: int) -> None:
        if gate.num_qubits >= 0 and len(operands) != gate.num_qubits:
            raise UsageError(
                f"'{gate.name}' acts on {gate.num_qubits} qubits, {len(operands)} were given"
            )
        if num_angles != gate.num_angles:
            raise UsageError(f"'{gate.name}' takes {gate.num_angles} angles, not {num_angles}")
        if gate.name == "mcx" and not operands:
            raise UsageError("'mcx' needs a target")
        for q in operands:
            if not 0 <= q < self.num_qubits:
                raise UsageError(f"there is no qubit {q} among {self.num_qubits}")
        if len(set(operands)) != len(operands):
            raise UsageError(f"'{gate.name}' was given the same qubit twice: {operands}")

    def _declare(self, value: Angle) -> None:
        for name, _ in value.terms:
            if name not in self.params:
                self.params = (*self.params, name)

    def _flush(self) -> None:
        """Turn what is pending into a run at the end of the open block."""
        pending = self._pending
        if not pending.code:
            return
        column = {name: i for i, name in enumerate(self.params)}
        self._forms, form = self._forms.append(
            [(column[name], coef) for name, coef in terms] for terms in pending.terms
        )
        run = Run.of(
            np.array(pending.code, dtype=np.uint8),
            np.array(pending.qubit, dtype=np.int32),
            np.array(pending.frac, dtype=np.int64),
            np.array(pending.rem, dtype=np.float64),
            form,
            np.array(pending.extra, dtype=np.int32),
        )
        self._pending = _Pending()
        self._push(run)

    def _push(self, item: Item) -> None:
        block = self._blocks[-1]
        if isinstance(item, Run) and block and isinstance(block[-1], Run):
            block[-1] = Run.concat([block[-1], item])
        else:
            block.append(item)

    def append_item(self, item: Item) -> Self:
        """Append a run or a piece of control flow whose forms are rows of this circuit's."""
        self._flush()
        self._push(item)
        return self

    @contextmanager
    def _open(self, finish: _Finish) -> Iterator[None]:
        self._flush()
        self._blocks.append([])
        try:
            yield
        finally:
            self._flush()
            body = tuple(self._blocks.pop())
        self._blocks[-1].append(finish(body))

    def if_(self, condition: Expr) -> AbstractBody:
        """Open ``if (condition)``: ``with c.if_(Bit(0)): c.x(1)``."""
        return self._open(lambda body: If(condition, body))

    @contextmanager
    def else_(self) -> Iterator[None]:
        """Open the ``else`` of the ``if`` that was closed last.

        Raises:
            UsageError: If no ``if`` stands right before it.
        """
        self._flush()
        before = self._blocks[-1][-1] if self._blocks[-1] else None
        if not isinstance(before, If) or before.orelse:
            raise UsageError("'else_' must stand right after an 'if_'")
        self._blocks.append([])
        try:
            yield
        finally:
            self._flush()
            body = tuple(self._blocks.pop())
        self._blocks[-1][-1] = If(before.condition, before.then, body)

    def while_(self, condition: Expr) -> AbstractBody:
        """Open ``while (condition)``."""
        return self._open(lambda body: While(condition, body))

    def for_(self, variable: ClassicalVar, values: Range | tuple[int, ...]) -> AbstractBody:
        """Open ``for variable in values``."""
        return self._open(lambda body: For(variable, values, body))

    def box(self, duration: Duration | None = None) -> AbstractBody:
        """Open a box."""
        return self._open(lambda body: Box(body, duration))

    def capture(self, into: list[Block]) -> AbstractBody:
        """Collect what is appended as a block into a list instead of the circuit."""
        return self._collect(into)

    @contextmanager
    def _collect(self, into: list[Block]) -> Iterator[None]:
        self._flush()
        self._blocks.append([])
        try:
            yield
        finally:
            self._flush()
            into.append(tuple(self._blocks.pop()))

    def switch(
        self,
        subject: Expr,
        cases: Sequence[tuple[tuple[int, ...], Block]],
        default: Block | None = None,
    ) -> Self:
        """Append a switch over blocks made by :meth:`capture`."""
        return self.append_item(Switch(subject, tuple(cases), default))

    def assign(self, target: Bit | Register | VarRef, value: Expr) -> Self:
        """Append a run-time assignment."""
        return self.append_item(Assign(target, value))

    def delay(self, duration: Duration, *qubits: int) -> Self:
        """Append an idle time; on all qubits when none is given."""
        return self.append_item(Delay(duration, qubits or tuple(range(self.num_qubits))))

    def break_(self) -> Self:
        """Append ``break``."""
        return self.append_item(Break())

    def continue_(self) -> Self:
        """Append ``continue``."""
        return self.append_item(Continue())

    def end(self) -> Self:
        """Append ``end``."""
        return self.append_item(End())

    def measure(self, qubit: int, clbit: int) -> Self:
        """Measure a qubit in the Z basis into a classical bit."""
        return self.append("measure", (qubit,), clbit=clbit)

    def barrier(self, *qubits: int) -> Self:
        """Append a barrier; on all qubits when none is given."""
        return self.append("barrier", qubits or range(self.num_qubits))

    def reset(self, qubit: int) -> Self:
        """Put a qubit into |0>."""
        return self.append("reset", (qubit,))

    def gphase(self, angle: AngleLike) -> Self:
        """Multiply by ``exp(i angle)``."""
        return self.append("gphase", (), (angle,))
