"""What the commands share: options, progress bars, tables, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from qcomp.ir.program import Program
    from qcomp.passmanager import PassRecord, Task

__all__ = [
    "EffortOption",
    "JsonOption",
    "PrintAfterOption",
    "SeedOption",
    "TimePassesOption",
    "VerifyEachOption",
    "bars",
    "emit_json",
    "pass_observer",
    "show_table",
    "show_times",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed: the same seed, the same bytes.")]
EffortOption = Annotated[
    str, typer.Option("--effort", help="fast, default or max: which named pipeline runs.")
]
VerifyEachOption = Annotated[
    bool, typer.Option("--verify-each", help="Check what every pass promises, after every pass.")
]
PrintAfterOption = Annotated[
    list[str] | None,
    typer.Option("--print-after", metavar="PASS", help="Print the program after this pass."),
]
TimePassesOption = Annotated[
    bool, typer.Option("--time-passes", help="Print each pass's CPU seconds and what it changed.")
]


class _BarTask:
    def __init__(self, bars: Bars, task: Any) -> None:  # noqa: ANN401  rich's task id
        self._bars, self._task = bars, task

    def advance(self, steps: float = 1) -> None:
        """Move the bar."""
        self._bars.advance(self._task, steps)


class _BarProgress:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars

    def task(self, description: str, total: float | None) -> AbstractContextManager[Task]:
        """Open a bar that disappears when its work is done."""

        @contextmanager
        def opened() -> Iterator[Task]:
            task = self._bars.add_task(description, total=total)
            try:
                yield _BarTask(self._bars, task)
            finally:
                self._bars.remove_task(task)

        return opened()


@contextmanager
def bars() -> Iterator[Any]:
    """Give a progress for :class:`~qcomp.passmanager.Context`: bars on a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        yield _BarProgress(shown)


def emit_json(data: object) -> None:
    """Print data as JSON on standard output."""
    print(json.dumps(data, indent=1, default=str))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print a table; numbers are aligned to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row))
    Console(soft_wrap=not sys.stdout.isatty()).print(table, markup=False)


def pass_observer(print_after: list[str] | None) -> Callable[[PassRecord, Program], None] | None:
    """Return an observer that prints the program after the named passes.

    Raises:
        UsageError: If one of the names is no pass.
    """
    if not print_after:
        return None
    from qcomp.errors import UsageError, suggest
    from qcomp.registry import names

    for name in print_after:
        if name not in names("passes"):
            known = names("passes")
            raise UsageError(f"there is no pass named '{name}'", hint=suggest(name, known))

    def observe(record: PassRecord, program: Program) -> None:
        if record.name.partition("{")[0] in print_after:
            print(f"// after {record.name}")
            print(program_text(program), end="")

    return observe


def program_text(program: Program) -> str:
    """Return a program as text: OpenQASM 3 for circuits, ONNX's text for the graph."""
    parts = []
    if not program.is_circuit:
        parts.append(str(program.model.graph) + "\n")
    parts += [circuit.to_qasm3() for circuit in program.circuits.values()]
    return "".join(parts)


def show_times(records: Sequence[PassRecord]) -> None:
    """Print what each pass took and changed."""
    rows = [
        (r.name, r.seconds, delta(r.before, r.after), r.check or "not checked") for r in records
    ]
    show_table(("pass", "CPU s", "change", "check"), rows)


def delta(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Return the counts that a pass changed as text: ``gates -12, depth -3``."""
    keys = [k for k in after if after[k] != before.get(k, 0)]
    return ", ".join(f"{k} {after[k] - before.get(k, 0):+d}" for k in keys) or "nothing"


def existing(path: Path | None) -> Path | None:
    """Return the path; stop with a usage error when there is no such file or folder.

    Raises:
        UsageError: If it does not exist.
    """
    from qcomp.errors import UsageError

    if path is not None and not path.exists():
        raise UsageError(f"there is no file '{path}'")
    return path
