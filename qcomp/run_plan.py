"""How the circuits of an artifact are run: which together, how often, how many rows at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["RunLine", "crossings", "plan_entry", "plan_lines"]

MOST_PRODUCTS = 2000
"""Most Pauli products that are grouped for the plan, as grouping compares each with each."""


@dataclass(frozen=True, slots=True)
class RunLine:
    """One circuit stage.

    Attributes:
        node: The stage.
        circuit: The circuit that it runs.
        loop: The loop that it stands in; "" for none.
        level: Circuits of one level wait for nothing of one another: they can be sent together.
        batch: Stages of one batch run the same circuit at the same level: their rows are joined.
        products: Pauli products that are read; 0 where the bits themselves are.
        settings: Measurement settings for them, products that share a basis being one; None where
            there are too many products to group.
        shots: Shots of each setting as compiled in; 0 for exact values.
        row_bytes: Memory of the state of one row in the simulator.
        rows: Rows that the simulator holds at once.
    """

    node: str
    circuit: str
    loop: str
    level: int
    batch: int
    products: int
    settings: int | None
    shots: int
    row_bytes: int
    rows: int


def plan_lines(stages: Sequence[Mapping[str, Any]]) -> tuple[RunLine, ...]:
    """Return the plan of the stages of ``program.json``, circuits in loops too.

    Cost: quadratic in the Pauli products of a readout, up to ``MOST_PRODUCTS``.
    """
    lines: list[RunLine] = []
    batches: dict[str, int] = {}
    _collect(stages, "", lines, batches)
    return tuple(lines)


def plan_entry(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the plan as ``program.json`` states it."""
    return {
        "crossings": crossings(stages),
        "runs": [asdict(line) for line in plan_lines(stages)],
    }


def crossings(stages: Sequence[Mapping[str, Any]]) -> int:
    """Return how many values go from a classical stage to a circuit or back, a loop's once a step.

    A value that several stages take is counted once.
    """
    maker: dict[str, bool] = {}
    count = 0
    crossed: set[str] = set()
    for stage in stages:
        quantum = stage["kind"] != "graph"
        crossed.update(n for n in stage["inputs"] if maker.get(n, quantum) != quantum)
        if stage["kind"] == "loop":
            count += crossings(stage["stages"])
        outputs = [stage["output"]] if stage["kind"] == "circuit" else stage["outputs"]
        maker.update(dict.fromkeys(outputs, quantum))
    return count + len(crossed)


def _collect(
    stages: Sequence[Mapping[str, Any]], loop: str, lines: list[RunLine], batches: dict[str, int]
) -> None:
    from qcomp.simulate.engine import row_chunks

    level, waiting = -1, True
    for stage in stages:
        if stage["kind"] == "graph":
            waiting = True
            continue
        level += waiting
        waiting = False
        if stage["kind"] == "loop":
            _collect(stage["stages"], stage["node"], lines, batches)
            continue
        readout = stage["readout"]
        key = json.dumps([loop, level, stage["file"], readout])
        products, settings = _settings(readout["observables"])
        layout = stage["layout"]
        qubits = stage["qubits"] if layout is None else len(layout["initial"])
        lines.append(
            RunLine(
                stage["node"],
                stage["circuit"],
                loop,
                level,
                batches.setdefault(key, len(batches)),
                products,
                settings,
                readout["shots"],
                16 << qubits,
                next(row_chunks(qubits, 1 << 62)).stop,
            )
        )


def _settings(texts: Sequence[str]) -> tuple[int, int | None]:
    """Return (Pauli products, settings that measure them); the bits themselves take one."""
    from qcomp.ir.observable import Observable
    from qcomp.mitigation.grouping import group_observables

    observables = [Observable.parse(text) for text in texts]
    words = {word for observable in observables for _, word in observable.terms if word}
    if not words:
        return 0, 1
    if len(words) > MOST_PRODUCTS:
        return len(words), None
    return len(words), sum(bool(group.qubits) for group in group_observables(observables))
