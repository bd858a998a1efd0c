"""What becomes of a program between its last pass and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcomp.angle_accuracies import CircuitRows, RowAccuracies, RowTCounts
from qcomp.binding import SlottedCircuits
from qcomp.passmanager import run_pass
from qcomp.pipeline_text import make_pass
from qcomp.registry import load
from qcomp.report.data import CheckLine

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

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
    _order_accuracies(program, context)
    if program.is_hybrid:
        program = program.copy()
        run_pass(make_pass("bind-to-slots"), program, context)
    load("backends", "bundle")(graph, circuit).write(program, folder, context)


def slot_checks(context: Context) -> list[CheckLine]:
    """Return how it is known that the graph computes the angles, and what rows cost in T gates."""
    lines = _row_lines(context)
    found = context.get(SlottedCircuits)
    if found is None or not found.errors:
        return lines
    what = "the angles that the graph computes are those of the circuits"
    count = len(found.errors)
    how = f"{count} circuit{'s' * (count > 1)}, gate by gate, on random parameters"
    return [CheckLine(what, how, "measured", max(found.errors.values()), "radians"), *lines]


def _order_accuracies(program: Program, context: Context) -> None:
    """Give each rotation by a parameter its accuracy by its place, and count T gates on rows."""
    found = context.get(RowAccuracies)
    if found is None:
        return
    known = (context.get(CircuitRows) or CircuitRows()).by_circuit
    counts: dict[str, tuple[int, NDArray[np.int64]]] = {}
    for name, circuit in program.circuits.items():
        if circuit.name in found.by_circuit and circuit.params:
            found = found.ordered(circuit.name, load("services", "row-keys")(circuit))
            data = known.get(circuit.name)
            if data is not None and data.params is not None:
                accuracies = found.in_order[circuit.name]
                rows = load("services", "row-t-counts")(circuit, data.params, accuracies)
                counts[name] = circuit.stats().t_count, rows
    context.put(found)
    context.put(RowTCounts(counts))


def _row_lines(context: Context) -> list[CheckLine]:
    counts = (context.get(RowTCounts) or RowTCounts()).by_circuit
    return [
        CheckLine(
            f"T gates of the circuit '{name}' on rows of data",
            f"{len(rows)} rows, each with its own words: {fixed} T gates are the same for all, "
            f"with them {rows.min()} to {rows.max()}, on average",
            "measured",
            float(rows.mean()),
            "T gates",
        )
        for name, (fixed, rows) in counts.items()
    ]
