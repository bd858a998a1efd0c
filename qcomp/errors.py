"""The errors of qcomp: one root, few kinds, each with what, where, why and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "PassError",
    "QcompError",
    "SourceError",
    "TargetError",
    "UsageError",
    "suggest",
]


class QcompError(Exception):
    """The root of all errors that a user can meet.

    Args:
        what: What went wrong, one sentence.
        where: The place: a file with line and column, a node, a gate.
        why: The reason, when it is not plain from ``what``.
        hint: What to do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        """Return the whole message, a line for each part that is there."""
        lines = [self.what]
        if self.where:
            lines.append(f"  at: {self.where}")
        if self.why:
            lines.append(f"  because: {self.why}")
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)


class SourceError(QcompError):
    """The input cannot be read: syntax, meaning, safety bounds, unsupported constructs.

    Args:
        what: What went wrong.
        where: The place; made from ``line`` and ``column`` when empty.
        why: The reason.
        hint: What to do next.
        line: Line in the source, from 1; 0 when the source has no lines.
        column: Column in the source, from 1; 0 when the source has no lines.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        why: str = "",
        hint: str = "",
        line: int = 0,
        column: int = 0,
    ) -> None:
        self.line = line
        self.column = column
        if line and not where:
            where = f"line {line}, column {column}"
        super().__init__(what, where=where, why=why, hint=hint)


class PassError(QcompError):
    """A pass cannot do its work, or broke its contract."""


class TargetError(QcompError):
    """The target cannot do what the program needs."""


class UsageError(QcompError):
    """The caller's arguments are wrong: names, options, shapes of what was passed in."""

    exit_code = 2


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known names.

    Args:
        name: What the user wrote.
        known: The names there are.

    Returns:
        ``"did you mean 'x'?"``, or the list of known names when none is near.
    """
    names = sorted(known)
    lower = {item.lower(): item for item in names}
    found = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    near = [lower[item] for item in found]
    if near:
        return "did you mean " + " or ".join(f"'{item}'" for item in near) + "?"
    return "known names: " + ", ".join(names)
