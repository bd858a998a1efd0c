"""``qcomp sweep``: the Pareto front of bytes or T gates against error and accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcomp.cli.common import EffortOption, JsonOption, SeedOption

if TYPE_CHECKING:
    from qcomp.report.data import Report

__all__ = ["register"]

_FORMS = (".png", ".svg", ".html", ".json")
_LONG = 1e9
"""Seconds of a sweep that was given no time."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sweep", help=_HELP)(sweep_command)


_HELP = """Measure and draw the Pareto front of SOURCE: what accuracy costs.

For a model: bytes against the outputs' error, and against the metric on --eval rows. For a circuit:
T gates against the circuit's error. Each point is one compile under one limit.

Examples:

  qcomp sweep model.onnx --calib data.npz --eval labelled.npz -o front.png -o front.json

  qcomp sweep decoder.onnx --calib data.npz --eval text.txt --points 5 -o front.html

  qcomp sweep model.onnx --calib data.npz --limits 1MB,2MB,4MB -o front.svg

  qcomp sweep circuit.qasm -o front.html

  qcomp sweep circuit.qasm --observable Z0*Z1 --states rows.npz --limits 0.1,0.01 -o front.json

Ctrl-C ends it after the point that is being measured and writes those that there are.
"""


def sweep_command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="ONNX, .pt2 or OpenQASM file.")],
    out: Annotated[
        list[Path] | None,
        typer.Option("-o", "--out", help="File to write: .png, .svg, .html or .json. Repeatable."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("-t", "--target", help="By default cpu-mixed for graphs, clifford+t."),
    ] = None,
    calib: Annotated[
        Path | None, typer.Option("--calib", help="Calibration data of a model, as for compile.")
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--eval", help="What each point is measured on: .npz with inputs and y, or a text."
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="What is measured on labels, as for compile.")
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="Less of your own metric is better.")
    ] = False,
    preprocess: Annotated[
        str | None,
        typer.Option("--preprocess", help="How raw data becomes inputs: FILE.json or module:func."),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="tokenizer.json for a text.")
    ] = None,
    observable: Annotated[
        list[str] | None,
        typer.Option(
            "--observable",
            metavar="Z0*Z1",
            help="Bound the change of observables in place of the operator norm. Repeatable.",
        ),
    ] = None,
    states: Annotated[
        Path | None, typer.Option("--states", help=".npz with the states a circuit begins in.")
    ] = None,
    points: Annotated[int, typer.Option("--points", help="How many limits, 2 or more.")] = 9,
    limits: Annotated[
        str, typer.Option("--limits", metavar="A,B", help="These limits: bytes, or errors.")
    ] = "",
    pipeline: Annotated[
        str | None, typer.Option("-p", "--pipeline", help="A pipeline for a graph.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="S", help="Begin no further point after so long."),
    ] = None,
    effort: EffortOption = "default",
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    from qcomp.cli.common import bars, stopped_by_hand
    from qcomp.deadline import Deadline
    from qcomp.sweeping import sweep

    files = _checked(out or [])
    deadline = Deadline(_LONG if seconds is None else seconds)
    with bars() as progress, stopped_by_hand(deadline):
        report = sweep(
            source,
            target=target,
            calibration=calib,
            evaluation=evaluation,
            metric=metric,
            higher_is_better=False if lower_is_better else None,
            preprocess=preprocess,
            tokenizer=tokenizer,
            observables=observable or (),
            states=states,
            points=points,
            limits=[text.strip() for text in limits.split(",") if text.strip()],
            effort=effort,
            pipeline=pipeline,
            seed=seed,
            deadline=deadline,
            progress=progress,
        )
    assert report.front is not None
    for path in files:
        _write(report, path)
    if json_output:
        print(report.front.to_json(), end="")
        return
    _show(report)
    for path in files:
        print(f"wrote {path}")


def _checked(files: list[Path]) -> list[Path]:
    """Check, before any work is done, that all files can be drawn.

    Raises:
        UsageError: Another suffix, or matplotlib is needed and not installed.
    """
    from qcomp.errors import UsageError
    from qcomp.report.front import needs_matplotlib

    for path in files:
        if path.suffix.lower() not in _FORMS:
            raise UsageError(
                f"a front cannot be written as '{path}'", hint=f"one of {', '.join(_FORMS)}"
            )
        if path.is_dir():
            raise UsageError(f"'{path}' is a folder", hint="give the name of a file inside of it")
        if path.suffix.lower() in (".png", ".svg"):
            needs_matplotlib()
    return files


def _write(report: Report, path: Path) -> None:
    from qcomp.atomic import atomic_file
    from qcomp.report.front import draw_front

    assert report.front is not None
    form = path.suffix.lower()
    with atomic_file(path) as place:
        if form == ".html":
            place.write_text(report.to_html(), encoding="utf-8")
        elif form == ".json":
            place.write_text(report.front.to_json(), encoding="utf-8")
        else:
            draw_front(report.front, place, form[1:])


def _show(report: Report) -> None:
    """Print the front as a table."""
    from qcomp.cli.common import show_table

    front = report.front
    assert front is not None
    columns = [front.cost, "promised", f"error ({front.measure})"]
    columns += [front.metric] if front.metric else []
    columns += ["choice"] if any(point.choice for point in front.points) else []
    rows = []
    for point in front.points:
        row: list[object] = [point.cost, point.promised, point.error]
        row += [point.figure] if front.metric else []
        row += [point.choice] if "choice" in columns else []
        rows.append([*row, "front" if point.best else "dominated"])
    show_table((*columns, ""), rows)
    print(f"measured on {front.data}")
    if front.metric and front.source_figure is not None:
        print(f"the source has {front.metric} {front.source_figure:.4g}")
    for warning in report.warnings:
        print(f"note: {warning}")
