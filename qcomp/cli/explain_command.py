"""``qcomp explain``: what every operator and tensor of an artifact got, and why."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcomp.cli.common import JsonOption

if TYPE_CHECKING:
    from qcomp.report.data import TensorLine

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain", help=_HELP)(explain_command)


_HELP = """Say of every operator and tensor which type, scale and method it got, and why.

ARTIFACT is a folder that 'qcomp compile' wrote. What stayed in float is listed with the reason.

Examples:

  qcomp explain out

  qcomp explain out '/layer1/*' --json
"""


def explain_command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="What 'compile' wrote.")],
    tensors: Annotated[
        list[str] | None,
        typer.Argument(metavar="TENSOR", help="Names or globs of tensors and operators."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    from qcomp.artifact_format import REPORT
    from qcomp.cli.common import emit_json, show_runs, show_table
    from qcomp.errors import UsageError
    from qcomp.report.data import Report
    from qcomp.report.explain import explain

    path = artifact / REPORT
    if not path.is_file():
        raise UsageError(
            f"'{artifact}' has no {REPORT}", hint="give the folder that 'qcomp compile -o' wrote"
        )
    found = explain(Report.from_json(path.read_text(encoding="utf-8")), tensors or ())
    if json_output:
        emit_json(asdict(found))
        return
    if found.runs:
        show_runs([asdict(line) for line in found.runs])
    if found.operators:
        show_table(
            (
                "operator",
                "op",
                "state",
                "scheme",
                "weight",
                "runs as",
                "weight dB",
                "output dB",
                "why",
            ),
            [
                (
                    line.name,
                    line.op,
                    line.state,
                    line.scheme,
                    line.type,
                    line.runs,
                    *(
                        "" if ratio is None else f"{ratio:.1f}"
                        for ratio in (line.weight_sqnr, line.output_sqnr)
                    ),
                    line.why,
                )
                for line in found.operators
            ],
        )
    if found.tensors:
        show_table(
            ("tensor", "role", "type", "scale", "range", "method", "why"),
            [
                (
                    line.name,
                    line.role,
                    line.type,
                    _scale(line),
                    _range(line),
                    line.method,
                    line.why,
                )
                for line in found.tensors
            ],
        )


def _scale(line: TensorLine) -> str:
    """The scale, or the least and the largest of several; with the zero point."""
    if line.scale_low is None or line.scale_high is None:
        return ""
    text = f"{line.scale_low:.3g}"
    if line.scales > 1:
        text += f" to {line.scale_high:.3g} ({line.scales})"
    return text + (f", zero {line.zero_point}" if line.zero_point else "")


def _range(line: TensorLine) -> str:
    """What the type covers, and what was seen."""
    if line.low is None or line.high is None:
        return ""
    text = f"{line.low:.3g} to {line.high:.3g}"
    if line.minimum is not None and line.maximum is not None:
        text += f" (seen {line.minimum:.3g} to {line.maximum:.3g})"
    return text
