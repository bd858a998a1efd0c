"""Indices that a measurement decides: one case of a switch for each value they can have.

``x q[n];`` with n known at run time becomes ``switch (n) { case 0 { x q[0]; } case 1 { ... } }``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace

from qcomp.errors import SourceError
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.emit import RawBlock, RawSwitch
from qcomp.frontends.openqasm.flow import ControlFlow
from qcomp.frontends.openqasm.limits import MAX_CHOICES
from qcomp.frontends.openqasm.values import RunTimeIndex, fail

__all__ = ["Choices"]


class Choices(ControlFlow):
    """The interpreter's part that deals with run-time indices."""

    def by_cases(self, node: s.Statement, index: RunTimeIndex) -> None:
        """Emit a statement once for each value of an index in it that is known at run time."""
        item = index.node
        if not _splits(node):
            fail(item, "an index is known only at run time", why="it depends on a measurement")
        if index.extent > MAX_CHOICES:
            fail(
                item,
                f"an index into {index.extent} entries that is known only at run time",
                why=f"it becomes a switch, of at most {MAX_CHOICES} cases",
            )
        cases: list[tuple[tuple[int, ...], RawBlock]] = []
        first: SourceError | None = None
        with self.memory.pinned(self._assigned([node]), node):
            for value in range(index.extent):
                chosen = _with_index(node, item, value)
                try:
                    block = self.collect(lambda chosen=chosen: self.execute(chosen))  # type: ignore[misc]
                except SourceError as error:
                    # A value that has no meaning here, such as cx q[n], q[0] at n = 0.
                    first = first or error
                    continue
                cases.append(((value,), block))
        if not cases and first is not None:
            raise first
        self.emitter.block.append(RawSwitch(index.expression, cases, None))


def _splits(node: s.Statement) -> bool:
    """Whether the statement does nothing before its operands are known."""
    if isinstance(node, s.Assignment):
        return not any(isinstance(n, s.Call) for n in s.walk([node]))
    return isinstance(node, (s.GateCall, s.Reset, s.MeasureStatement))


def _with_index(node: s.Statement, item: s.Expression, value: int) -> s.Statement:
    """Return the statement with every index that reads like `item` replaced by a number."""

    def exchange(part: s.Node) -> s.Node | None:
        if isinstance(part, s.Expression) and _alike(part, item):
            return s.Literal(part.line, part.column, "int", value)
        return None

    result = _mapped(node, exchange, inside=False)
    assert isinstance(result, s.Statement)
    return result


def _alike(a: object, b: object) -> bool:
    """Whether two pieces of syntax are the same text, places apart."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_alike(x, y) for x, y in zip(a, b, strict=True))
    if is_dataclass(a) and isinstance(a, s.Node):
        names = [f.name for f in fields(a) if f.name not in ("line", "column", "depth")]
        return all(_alike(getattr(a, name), getattr(b, name)) for name in names)
    return a == b


def _mapped(part: object, exchange: Callable[[s.Node], s.Node | None], *, inside: bool) -> object:
    """Return a piece of syntax with index entries exchanged; only entries between brackets are."""
    if isinstance(part, list):
        return [_mapped(entry, exchange, inside=inside) for entry in part]
    if not isinstance(part, s.Node) or not is_dataclass(part):
        return part
    if inside:
        new = exchange(part)
        if new is not None:
            return new
    changes = {
        f.name: _mapped(
            getattr(part, f.name), exchange, inside=isinstance(part, s.Index) and f.name == "items"
        )
        for f in fields(part)
        if f.init
    }
    return replace(part, **changes)  # type: ignore[arg-type]
