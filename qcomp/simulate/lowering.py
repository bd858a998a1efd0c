"""The tree of blocks as a list of instructions with jumps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qcomp.ir.blocks import (
    Assign,
    Block,
    Box,
    Break,
    Continue,
    Delay,
    End,
    For,
    If,
    Range,
    Switch,
    While,
)
from qcomp.ir.classical import Bit, ClassicalVar, Expr, Register, VarRef
from qcomp.ir.gates import G
from qcomp.ir.run import Run

__all__ = [
    "Apply",
    "Halt",
    "Instruction",
    "Jump",
    "JumpTable",
    "JumpUnless",
    "LoopNext",
    "LoopStart",
    "Lowering",
    "Measure",
    "Reset",
    "Store",
]


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply a run of unitary gates."""

    run: Run


@dataclass(frozen=True, slots=True)
class Measure:
    """Measure a qubit into a bit."""

    qubit: int
    clbit: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Put a qubit into |0>."""

    qubit: int


@dataclass(slots=True)
class Jump:
    """Go on elsewhere."""

    target: int = -1


@dataclass(slots=True)
class JumpUnless:
    """Go on elsewhere unless the condition holds."""

    condition: Expr
    target: int = -1


@dataclass(slots=True)
class JumpTable:
    """Go on where the subject's value says."""

    subject: Expr
    targets: dict[int, int] = field(default_factory=dict)
    default: int = -1


@dataclass(frozen=True, slots=True)
class Store:
    """Store the value of an expression."""

    target: Bit | Register | VarRef
    value: Expr


@dataclass(frozen=True, slots=True)
class LoopStart:
    """Work out the values of a for loop."""

    slot: int
    values: Range | tuple[int, ...]


@dataclass(slots=True)
class LoopNext:
    """Give the loop variable its next value, or go on elsewhere."""

    slot: int
    variable: ClassicalVar
    target: int = -1


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop the program."""


Instruction = (
    Apply | Measure | Reset | Jump | JumpUnless | JumpTable | Store | LoopStart | LoopNext | Halt
)


class Lowering:
    """Turns the tree of blocks into instructions with jumps."""

    def __init__(self) -> None:
        self.code: list[Instruction] = []
        self._loops: list[tuple[list[Jump], int]] = []
        self._slots = 0

    def block(self, block: Block) -> None:
        """Append a block's instructions."""
        for item in block:
            match item:
                case Run():
                    self._run(item)
                case If(condition, then, orelse):
                    self._if(condition, then, orelse)
                case For():
                    self._for(item)
                case While(condition, body):
                    start = len(self.code)
                    test = JumpUnless(condition)
                    self.code.append(test)
                    test.target = self._loop(body, start)
                case Switch():
                    self._switch(item)
                case Box(body, _):
                    self.block(body)
                case Assign(target, value):
                    self.code.append(Store(target, value))
                case Break():
                    jump = Jump()
                    self._loops[-1][0].append(jump)
                    self.code.append(jump)
                case Continue():
                    self.code.append(Jump(self._loops[-1][1]))
                case End():
                    self.code.append(Halt())
                case Delay():
                    continue

    def _run(self, run: Run) -> None:
        split = np.flatnonzero((run.code == G.MEASURE) | (run.code == G.RESET))
        start = 0
        for i in split.tolist():
            self._unitary(run, start, i)
            qubit, clbit = int(run.qubit[i, 0]), int(run.qubit[i, 1])
            measured = run.code[i] == G.MEASURE
            self.code.append(Measure(qubit, clbit) if measured else Reset(qubit))
            start = i + 1
        self._unitary(run, start, len(run))

    def _unitary(self, run: Run, start: int, stop: int) -> None:
        if start < stop:
            whole = start == 0 and stop == len(run)
            self.code.append(Apply(run if whole else run.select(np.arange(start, stop))))

    def _if(self, condition: Expr, then: Block, orelse: Block) -> None:
        test = JumpUnless(condition)
        self.code.append(test)
        self.block(then)
        if orelse:
            leave = Jump()
            self.code.append(leave)
            test.target = len(self.code)
            self.block(orelse)
            leave.target = len(self.code)
        else:
            test.target = len(self.code)

    def _loop(self, body: Block, start: int) -> int:
        """Append a loop's body and its jump back; return where the program goes on."""
        self._loops.append(([], start))
        self.block(body)
        self.code.append(Jump(start))
        breaks, _ = self._loops.pop()
        for jump in breaks:
            jump.target = len(self.code)
        return len(self.code)

    def _for(self, item: For) -> None:
        slot = self._slots
        self._slots += 1
        self.code.append(LoopStart(slot, item.values))
        start = len(self.code)
        step = LoopNext(slot, item.variable)
        self.code.append(step)
        step.target = self._loop(item.body, start)

    def _switch(self, item: Switch) -> None:
        table = JumpTable(item.subject)
        self.code.append(table)
        exits = []
        for labels, body in item.cases:
            for label in labels:
                table.targets.setdefault(label, len(self.code))
            self.block(body)
            exits.append(Jump())
            self.code.append(exits[-1])
        table.default = len(self.code)
        self.block(item.default or ())
        for jump in exits:
            jump.target = len(self.code)
