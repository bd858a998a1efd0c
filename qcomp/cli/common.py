"""What the commands share: options, progress bars, tables, JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from qcomp.deadline import Deadline
    from qcomp.ir.program import Program
    from qcomp.passmanager import PassRecord, Task

__all__ = [
    "CouplingOption",
    "DeviceOption",
    "EffortOption",
    "FractionalOption",
    "JsonOption",
    "LayoutOption",
    "MapOption",
    "PrintAfterOption",
    "SecondsOption",
    "SeedOption",
    "TimePassesOption",
    "VerifyEachOption",
    "bars",
    "emit_json",
    "layout_of",
    "pass_observer",
    "saying_how_to_go_on",
    "show_table",
    "show_times",
    "stopped_by_hand",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed: the same seed, the same bytes.")]
EffortOption = Annotated[
    str, typer.Option("--effort", help="fast, default or max: which named pipeline runs.")
]
SecondsOption = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        metavar="S",
        help="With --effort max: look for something better for so long; Ctrl-C ends it earlier "
        "and writes the best so far. By default a number of steps, the same each time.",
    ),
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
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Map circuits to this machine: fake_torino and IBM's other fake or real machines, "
        "line-20, grid-10x10, heavy-hex-7, or a JSON file.",
    ),
]
CouplingOption = Annotated[
    Path | None,
    typer.Option(
        "--coupling",
        metavar="FILE",
        help="Map circuits to these coupled pairs: a JSON list, or text with a pair a line.",
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option("--initial-layout", metavar="3,4,5", help="The physical qubit of each qubit."),
]
MapOption = Annotated[
    bool, typer.Option("--map/--no-map", help="Map circuits to the machine's couplings.")
]
FractionalOption = Annotated[
    bool, typer.Option("--fractional", help="Use gates of the machine's fractional mode.")
]


def layout_of(text: str | None) -> tuple[int, ...] | None:
    """Return the qubits of text such as ``3,4,5``.

    Raises:
        UsageError: If it is no list of numbers.
    """
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) < 10 for word in words):
        from qcomp.errors import UsageError

        raise UsageError(f"'{text}' is no list of qubits", hint="--initial-layout 3,4,5")
    return tuple(int(word) for word in words)


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


@contextmanager
def stopped_by_hand(deadline: Deadline | None) -> Iterator[None]:
    """Let the first Ctrl-C end the time that was given, so that the best so far is written.

    The second one stops the program, as the first does where no time was given.
    """
    import signal

    if deadline is None:
        yield
        return
    usual = signal.getsignal(signal.SIGINT)

    def stop(_signal: int, _frame: object) -> None:
        deadline.stop()
        signal.signal(signal.SIGINT, usual)
        print("stopping: the best so far is kept; Ctrl-C again to stop at once", file=sys.stderr)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


@contextmanager
def saying_how_to_go_on() -> Iterator[None]:
    """On Ctrl-C, print what is kept of long work, if anything is."""
    try:
        yield
    except KeyboardInterrupt as stop:
        for note in getattr(stop, "__notes__", ()):
            print(note, file=sys.stderr)
        raise


def emit_json(data: object) -> None:
    """Print data as JSON on standard output; numbers that JSON does not have become null."""
    print(json.dumps(_finite(data), indent=1, default=str, allow_nan=False))


def _finite(data: object) -> object:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data


_LONGEST_NAME = 40
"""Characters of a first column up to which it is never cut."""


def show_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "", err: bool = False
) -> None:
    """Print a table, on standard error if asked for; numbers are aligned to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        whole = i == 0 and all(len(str(row[i])) <= _LONGEST_NAME for row in rows)
        table.add_column(
            column, justify="right" if numeric else "left", overflow="fold", no_wrap=whole
        )
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row))
    is_terminal = (sys.stderr if err else sys.stdout).isatty()
    width = None if is_terminal else 10_000  # a file or a pipe gets each row on one line
    Console(width=width, stderr=err).print(table, markup=False)


def show_runs(runs: Sequence[Mapping[str, Any]]) -> None:
    """Print how the circuits of an artifact are to be run, a line a stage."""
    columns = ("circuit stage", "circuit", "loop", "level", "batch", "products", "settings",
               "shots", "row bytes", "rows at once")  # fmt: skip
    fields = ("node", "circuit", "loop", "level", "batch", "products", "settings", "shots",
              "row_bytes", "rows")  # fmt: skip
    rows = [["not grouped" if run[key] is None else run[key] for key in fields] for run in runs]
    show_table(columns, rows)


def pass_observer(
    print_after: list[str] | None, json_output: bool = False
) -> Callable[[PassRecord, Program], None] | None:
    """Return an observer that prints the program after the named passes.

    Args:
        print_after: Names of passes.
        json_output: Whether standard output is for JSON alone; standard error takes the programs.

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
            file = sys.stderr if json_output else sys.stdout
            print(f"// after {record.name}", file=file)
            print(program_text(program), end="", file=file)

    return observe


def program_text(program: Program) -> str:
    """Return a program as text: OpenQASM 3 for circuits, ONNX's text for the graph."""
    parts = []
    if not program.is_circuit:
        parts.append(str(program.model.graph) + "\n")
    parts += [circuit.to_qasm3() for circuit in program.circuits.values()]
    return "".join(parts)


def show_times(records: Sequence[PassRecord], err: bool = False) -> None:
    """Print what each pass took and changed, on standard error if asked for."""
    rows = [
        (r.name, r.seconds, delta(r.before, r.after), r.check or "not checked") for r in records
    ]
    show_table(("pass", "CPU s", "change", "check"), rows, err=err)


def delta(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Return the counts that a pass changed as text: ``gates -12, depth -3``."""
    keys = [k for k in after if after[k] != before.get(k, 0)]
    return ", ".join(f"{k} {after[k] - before.get(k, 0):+d}" for k in keys) or "nothing"
