"""``--max-drop`` of a hybrid model for Clifford gates and T: bytes and T gates under one number.

    minimise  bytes * T   subject to  the figure on the labelled samples drops by at most so much

A split is a pair: bytes for the tensors, and a change of observables for the circuits' rotations.
``allocate-bits`` shares the first out, the knapsack of ``allocate-angles`` the second; the figure
of the whole program, weights and words in place, judges. T is the mean over the labelled samples.
The product is free of units: a percent of bytes is worth a percent of T gates.

For each of some byte budgets the coarsest words that meet the drop are found by halving, and near
the best once more, with steps half as wide. Signs of errors are chance, so some coarser words are
tried beyond. Cost: a compile of the graph for each byte budget, some ten runs of the samples for
each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.angle_accuracies import AngleBudget, AngleBudgets, CircuitRows, RowAccuracies
from qcomp.errors import PassError
from qcomp.loop_bodies import run_passes
from qcomp.passmanager import Pipeline
from qcomp.registry import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from qcomp.bits_bound import Allotted, Allotter
    from qcomp.compilation import Compilation
    from qcomp.ir.circuit import Circuit
    from qcomp.ir.program import Program, Readout
    from qcomp.largest_drop import Drop
    from qcomp.passes.allocate.angle_effects import Effects
    from qcomp.passes.allocate.angle_fronts import Allocations
    from qcomp.passes.synthesize.clifford_t.row_words import RowTurn
    from qcomp.passmanager import Context

__all__ = ["Split", "Splits", "run_jointly"]

_BYTES = 9
_CHANGES = 40
_BEYOND = 6
_ROUNDS = 2
_COARSEST, _FINEST = 2.0, 0.02
"""Change of observables, root mean square as far as slopes say."""


@dataclass(frozen=True, slots=True)
class Split:
    """One way to spend, and what came of it.

    Attributes:
        bytes: Of the graph's file.
        t: T gates of the circuits of one sample, on average.
        drop: How much worse the figure is.
        tensors: Bytes that the tensors were given.
        change: Change of observables that the rotations were given.
    """

    bytes: int
    t: float
    drop: float
    tensors: int
    change: float

    @property
    def cost(self) -> float:
        """What is made least: bytes times T gates, at least one."""
        return self.bytes * max(self.t, 1.0)


@dataclass(frozen=True)
class _Side:
    """A circuit: its rotations, and its front of T gates against change."""

    circuit: Circuit
    turns: list[RowTurn]
    effects: Effects
    front: Allocations


class Splits:
    """Measures splits of one budget between a graph's bytes and its circuits' T gates.

    Args:
        job: The compile, circuits merged and their rows recorded.
        made: Its graph, up to the sensitivities.
        drop: The drop.
    """

    def __init__(self, job: Compilation, made: Allotter, drop: Drop) -> None:
        from qcomp.accuracy_bound import score_of

        self.job, self.made, self.drop = job, made, drop
        self._program, self._context = job.program, job.context
        self.source = score_of(job, job.source_session())
        self.allowed = drop.allowed(self.source)
        self.known: dict[tuple[int, float], Split] = {}
        self._graphs: dict[int, Allotted] = {}
        self._words: dict[float, tuple[dict[str, Circuit], RowAccuracies]] = {}
        self._sides = {
            name: side
            for name, circuit in job.program.circuits.items()
            if (side := _side_of(circuit, job.context)) is not None
        }

    def graph(self, tensors: int) -> Allotted:
        """Return the graph with so many bytes for its tensors."""
        if tensors not in self._graphs:
            self._graphs[tensors] = self.made.with_tensors(tensors)
        return self._graphs[tensors]

    def words(self, change: float, context: Context | None = None) -> Program:
        """Return the circuits with words for some change of their observables.

        Args:
            change: What each observable may change by, root mean square, as far as slopes say.
            context: Learns what was allocated and promised; nobody by default.
        """
        from qcomp.passes.allocate.angle_allocate import in_place, keep

        own = context or self._context.branch()
        program = self._program.copy()
        for side in self._sides.values():
            costs = side.front.costs
            fits = np.flatnonzero(costs <= change**2)
            chosen = side.front[int(fits[0]) if len(fits) else len(side.front) - 1]
            keep(side.circuit, side.turns, chosen, own)
            moved = side.effects.values(in_place(chosen, side.effects)) - side.effects.values()
            budget = AngleBudget(
                side.circuit.name, "observables", None, float(np.abs(moved).max()),
                chosen.t_count, 0.0,
            )  # fmt: skip
            own.put((own.get(AngleBudgets) or AngleBudgets()).with_budget(budget))
        Pipeline.parse("synthesize-rotations").run(program, own)
        return program

    def _circuits(self, change: float) -> tuple[dict[str, Circuit], RowAccuracies]:
        if change not in self._words:
            context = self._context.branch()
            circuits = dict(self.words(change, context).circuits)
            self._words[change] = circuits, _in_order(circuits, context)
        return self._words[change]

    def measure(self, tensors: int, change: float) -> Split:
        """Measure one split on the labelled samples."""
        tensors = max(self.made.least, min(tensors, self.made.most))
        key = (tensors, change)
        if key not in self.known:
            graph = self.graph(tensors)
            circuits, found = self._circuits(change)
            program = graph.program.copy()
            program.circuits.update(circuits)
            lost, t = self.figure(program, found)
            self.known[key] = Split(graph.bytes, t, lost, tensors, change)
        return self.known[key]

    def figure(self, program: Program, found: RowAccuracies) -> tuple[float, float]:
        """Return a program's drop on the labelled samples, and its T gates a sample.

        Args:
            program: Quantized, its circuits in Clifford gates, T and rotations by parameters.
            found: How near the words of these rotations come.
        """
        from qcomp.accuracy_bound import score_of
        from qcomp.execute import HybridSession
        from qcomp.simulate import run_readout

        total = 0.0

        def answer(
            circuit: Circuit,
            readout: Readout,
            rows: NDArray[np.float64],
            shots: int | None,
            seed: int,
        ) -> Any:  # noqa: ANN401  whatever the readout gives
            nonlocal total
            accuracies = found.in_order.get(circuit.name, ())
            total += float(load("services", "row-t-counts")(circuit, rows, accuracies).sum())
            circuit, rows = load("services", "in-words")(circuit, rows, accuracies)
            return run_readout(circuit, readout, rows, shots=shots, seed=seed)

        session = HybridSession(program)
        session.on_circuit = answer
        score = score_of(self.job, session)
        assert self.job.labels is not None
        return self.drop.of(self.source, score), total / len(self.job.labels.labels)

    def meets(self, split: Split) -> bool:
        """Whether a split keeps the drop."""
        return split.drop <= self.allowed

    def coarsest(self, tensors: int) -> Split | None:
        """Return the cheapest split that was found to meet the drop with so many bytes."""
        changes = np.geomspace(_FINEST, _COARSEST, _CHANGES).tolist()
        low, high = 0, _CHANGES
        if not self.meets(self.measure(tensors, changes[0])):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if self.meets(self.measure(tensors, changes[middle])):
                low = middle
            else:
                high = middle
        tried = [self.measure(tensors, c) for c in changes[low : low + 1 + _BEYOND]]
        return min((s for s in tried if self.meets(s)), key=lambda split: split.cost)

    def search(self) -> Split:
        """Return the split of the least bytes times T that was found within the drop.

        Raises:
            PassError: No split meets the drop; says the nearest.
        """
        ends = math.log(self.made.least), math.log(self.made.most)
        places = np.linspace(*ends, _BYTES)
        step = float(places[1] - places[0])
        found = [self.coarsest(round(math.exp(place))) for place in places]
        kept = [split for split in found if split is not None]
        if not kept:
            near = min(self.known.values(), key=lambda split: split.drop)
            raise PassError(
                f"a drop of at most {self.drop} in {self.source.metric} cannot be met",
                why=f"the least is {near.drop:.4g}, allowed is {self.allowed:.4g}, with "
                f"{near.bytes:,} bytes and {near.t:.0f} T gates a sample",
                hint=f"allow {max(near.drop, 0.0):.4g}; the front: {self._front_text()}",
            )
        best = min(kept, key=lambda split: split.cost)
        for _ in range(_ROUNDS):
            step /= 2
            middle = math.log(best.tensors)
            for place in (middle - step, middle + step):
                split = self.coarsest(round(math.exp(min(max(place, ends[0]), ends[1]))))
                if split is not None and split.cost < best.cost:
                    best = split
        return best

    def _front_text(self) -> str:
        """Return some measured splits that no other beats in both cost and drop, in words."""
        front: list[Split] = []
        for split in sorted(self.known.values(), key=lambda one: (one.cost, one.drop)):
            if not front or split.drop < front[-1].drop:
                front.append(split)
        index = np.unique(np.linspace(0, len(front) - 1, 5).astype(int))
        return ", ".join(
            f"{front[i].bytes:,} bytes and {front[i].t:.0f} T at {front[i].drop:.3g}" for i in index
        )


def _in_order(circuits: Mapping[str, Circuit], context: Context) -> RowAccuracies:
    """Return the accuracies of rotations by parameters by their places."""
    found = context.get(RowAccuracies) or RowAccuracies()
    for circuit in circuits.values():
        if circuit.name in found.by_circuit and circuit.params:
            found = found.ordered(circuit.name, load("services", "row-keys")(circuit))
    return found


def _side_of(circuit: Circuit, context: Context) -> _Side | None:
    from qcomp.angle_accuracies import AngleData, data_of
    from qcomp.passes.allocate.angle_allocate import effects_of
    from qcomp.passes.allocate.angle_fronts import Allocations, change_costs
    from qcomp.passes.reduce.leaves import rewrite_leaves
    from qcomp.passes.synthesize.clifford_t.chains import chains_of, lowered
    from qcomp.passes.synthesize.clifford_t.row_words import row_turns

    whole = rewrite_leaves(circuit, lowered)
    data = data_of(circuit.name, context.get(AngleData), context.get(CircuitRows)) or AngleData()
    turns = row_turns(whole, data.params)
    chains = [chain for run in whole.runs() for chain in chains_of(run)]
    if not chains and not turns:
        return None
    effects = effects_of(whole, data, turns)
    sensitivities = effects.sensitivities()
    slopes = np.maximum(sensitivities.first, 0.05 * sensitivities.second.max())
    count = math.sqrt(len(slopes))
    centre = np.clip(0.05 / (count * slopes), 1e-3, 0.5)
    front = Allocations(
        [*chains, *turns], centre, change_costs(sensitivities), 20, wider=30.0, finer=30.0
    )
    return _Side(whole, turns, effects, front)


def run_jointly(job: Compilation, made: Allotter, drop: Drop, rest: str) -> Allotted:
    """Choose a split, and put its words in the place of the job's circuits.

    Args:
        job: The compile; its circuits become those of the split.
        made: Its graph, up to the sensitivities.
        drop: The drop.
        rest: The pipeline of circuits behind their synthesis.

    Returns:
        The graph of the split.

    Raises:
        PassError: No split meets the drop, or what came of it in the end does not.
    """
    splits = Splits(job, made, drop)
    best = splits.search()
    graph = splits.graph(best.tensors)
    program = splits.words(best.change, graph.context)
    job.context.target, target = job.circuit, job.context.target
    job.records += run_passes(program, rest, graph.context, None)
    job.context.target = target
    graph.program.circuits.update(program.circuits)
    found = _in_order(program.circuits, graph.context)
    lost, t = splits.figure(graph.program, found)
    measure = f"drop of {splits.source.metric}: {best.bytes:,} bytes, {t:.1f} T gates a sample"
    graph.context.ledger.spend("--max-drop", splits.allowed, max(lost, 0.0), measure)
    return graph
