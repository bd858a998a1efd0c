"""Blocks: the small tree of control flow whose leaves are straight-line runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from qcomp.ir.classical import Bit, ClassicalVar, Expr, Register, VarRef
from qcomp.ir.run import Run

__all__ = [
    "Assign",
    "Block",
    "Box",
    "Break",
    "Continue",
    "Delay",
    "Duration",
    "End",
    "For",
    "If",
    "Item",
    "Range",
    "Switch",
    "While",
    "map_items",
    "map_leaves",
    "sub_blocks",
    "walk_items",
]

TimeUnit = Literal["ns", "us", "ms", "s", "dt"]


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time; ``dt`` is the machine's own time step."""

    value: float
    unit: TimeUnit


@dataclass(frozen=True, slots=True)
class Range:
    """The integers start, start + step, ... up to and including stop, as in OpenQASM 3."""

    start: Expr
    stop: Expr
    step: Expr


@dataclass(frozen=True, slots=True, eq=False)
class If:
    """``then`` when the condition holds, else ``orelse``."""

    condition: Expr
    then: Block
    orelse: Block = ()


@dataclass(frozen=True, slots=True, eq=False)
class For:
    """The body once for each value of the variable."""

    variable: ClassicalVar
    values: Range | tuple[int, ...]
    body: Block


@dataclass(frozen=True, slots=True, eq=False)
class While:
    """The body as long as the condition holds."""

    condition: Expr
    body: Block


@dataclass(frozen=True, slots=True, eq=False)
class Switch:
    """The body whose labels hold the subject's value, else the default (None: nothing)."""

    subject: Expr
    cases: tuple[tuple[tuple[int, ...], Block], ...]
    default: Block | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """A body kept together, with a duration where one was asked for."""

    body: Block
    duration: Duration | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """The qubits idle for a duration."""

    duration: Duration
    qubits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Assign:
    """A run-time assignment to a bit, a register or a variable."""

    target: Bit | Register | VarRef
    value: Expr


@dataclass(frozen=True, slots=True)
class Break:
    """Leave the innermost loop."""


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on with the innermost loop's next round."""


@dataclass(frozen=True, slots=True)
class End:
    """Stop the program."""


Item = Run | If | For | While | Switch | Box | Delay | Assign | Break | Continue | End
Block = tuple[Item, ...]


def sub_blocks(item: Item) -> tuple[Block, ...]:
    """Return the blocks directly inside an item."""
    match item:
        case If(_, then, orelse):
            return (then, orelse)
        case For(_, _, body) | While(_, body) | Box(body, _):
            return (body,)
        case Switch(_, cases, default):
            return (*(body for _, body in cases), *(() if default is None else (default,)))
        case _:
            return ()


def walk_items(block: Block) -> Iterator[Item]:
    """Yield every item of the tree, parents before children, in program order."""
    for item in block:
        yield item
        for inner in sub_blocks(item):
            yield from walk_items(inner)


def map_leaves(block: Block, function: Callable[[Run], Run]) -> Block:
    """Return the block with ``function`` applied to each run; the same object if none changed."""
    return map_items(block, lambda item: function(item) if isinstance(item, Run) else item)


def map_items(block: Block, function: Callable[[Item], Item | None]) -> Block:
    """Return the block with ``function`` applied to each item, children first.

    ``None`` drops the item. The same object comes back when nothing changed.
    """
    out: list[Item] = []
    changed = False
    for item in block:
        new = function(_map_children(item, function))
        changed |= new is not item
        if new is not None and not (isinstance(new, Run) and not len(new)):
            out.append(new)
        elif new is not None:
            changed = True
    return tuple(out) if changed else block


def _map_children(item: Item, function: Callable[[Item], Item | None]) -> Item:
    match item:
        case If(_, then, orelse):
            new_then, new_else = map_items(then, function), map_items(orelse, function)
            if new_then is then and new_else is orelse:
                return item
            return replace(item, then=new_then, orelse=new_else)
        case For(_, _, body) | While(_, body) | Box(body, _):
            new_body = map_items(body, function)
            return item if new_body is body else replace(item, body=new_body)
        case Switch(_, cases, default):
            new_cases = tuple((labels, map_items(body, function)) for labels, body in cases)
            new_default = None if default is None else map_items(default, function)
            if new_default is default and all(
                new is old for (_, new), (_, old) in zip(new_cases, cases, strict=True)
            ):
                return item
            return replace(item, cases=new_cases, default=new_default)
        case _:
            return item
