"""What becomes of a program between its last pass and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcomp.binding import SlottedCircuits
from qcomp.passmanager import run_pass
from qcomp.pipeline_text import make_pass
from qcomp.registry import load
from qcomp.report.data import CheckLine

if TYPE_CHECKING:
    from pathlib import Path

    from qcomp.ir.program import Program
    from qcomp.passmanager import Context
    from qcomp.target import Target

__all__ = ["slot_checks", "write_bundle"]


def write_bundle(
    program: Program,
    graph: Target | None,
    circuit: Target | None,
    folder: Path,
    context: Context,
) -> None:
    """Write a compiled program; the graph of a hybrid one computes all angles.

    Args:
        program: The program; it is as it was when this returns.
        graph: The classical machine.
        circuit: The quantum machine.
        folder: An empty folder.
        context: Learns which circuits have slots.

    Raises:
        QcompError: If a machine cannot take its part, or a file cannot be written.
    """
    if program.is_hybrid:
        program = program.copy()
        run_pass(make_pass("bind-to-slots"), program, context)
    load("backends", "bundle")(graph, circuit).write(program, folder, context)


def slot_checks(context: Context) -> list[CheckLine]:
    """Return how it is known that the graph computes the angles of the circuits."""
    found = context.get(SlottedCircuits)
    if found is None or not found.errors:
        return []
    what = "the angles that the graph computes are those of the circuits"
    count = len(found.errors)
    how = f"{count} circuit{'s' * (count > 1)}, gate by gate, on random parameters"
    return [CheckLine(what, how, "measured", max(found.errors.values()), "radians")]
