"""``qcomp sweep``: one compile for each of several limits, each of them measured: a Pareto front.

* A model: bytes for all tensors that have a choice, evenly spaced on a scale of logarithms between
  the fewest and the most. What stands before ``allocate-bits`` runs once. Measured is how far the
  outputs are from float's, and the metric where there is evaluation data.
* A circuit: limits on its error, T gates counted. What stands before ``allocate-angles`` runs once.
  Measured is what the limit bounds: matrices up to ten qubits, or observables on rows of states.

The ends come first, then halves between them, so that a sweep that is stopped has a front, too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.angle_accuracies import AngleBudgets
from qcomp.angle_limits import AngleLimits, circuit_pipeline
from qcomp.bits_bound import Allotted, Allotter, shares_bits
from qcomp.byte_budget import ByteBudget
from qcomp.circuit_checks import check_circuit
from qcomp.compilation import Compilation
from qcomp.driver import read
from qcomp.errors import PassError, UsageError
from qcomp.loop_bodies import run_passes
from qcomp.passmanager import Context, Pipeline, Progress
from qcomp.report import collect
from qcomp.report.data import Report, SourceLine
from qcomp.report.front import FrontPoint, FrontSection, best_points
from qcomp.sensitivity import AllocatedBits
from qcomp.target_choice import check_fit, choose_targets

if TYPE_CHECKING:
    from qcomp.deadline import Deadline
    from qcomp.execute import HybridSession
    from qcomp.ir.program import Program
    from qcomp.passes.analyze.output_loss import OutputLoss
    from qcomp.target import Target

__all__ = ["in_halves", "sweep"]

_CALIBRATION_ROWS = 256
_ERRORS = (1e-1, 1e-5)
"""Limits on the error of a circuit, the first and the last."""


def sweep(
    source: object,
    *,
    target: str | None = None,
    calibration: object = None,
    evaluation: str | Path | None = None,
    metric: object = None,
    higher_is_better: bool | None = None,
    preprocess: object = None,
    tokenizer: str | Path | None = None,
    observables: Sequence[str] = (),
    states: object = None,
    points: int = 9,
    limits: Sequence[str] = (),
    effort: str = "default",
    pipeline: str | None = None,
    seed: int = 0,
    deadline: Deadline | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure the front of a model's bytes or a circuit's T gates.

    Args:
        source: Anything :func:`qcomp.read` takes: a graph, or a circuit.
        target: ``cpu-mixed`` for a graph, ``clifford+t`` for a circuit; by default these.
        calibration: As for :func:`qcomp.compile`.
        evaluation: Rows with labels (``.npz``) or a text on which each point is measured; without
            it the outputs are compared on calibration rows.
        metric: What is measured on labels.
        higher_is_better: Whether more of a function's figure is better.
        preprocess: How raw data becomes inputs.
        tokenizer: Of a text.
        observables: Of a circuit: their largest change is bounded in place of the operator norm.
        states: Rows that observables are measured on.
        points: How many limits, at least 2.
        limits: The limits themselves in their place: ``"2MB"``, or errors of a circuit.
        effort: Which of the target's pipelines.
        pipeline: Of a graph, in its place; with an ``allocate-bits`` without a budget.
        seed: Seed of everything random.
        deadline: When no further point is begun.
        progress: Where it shows how far it is.

    Returns:
        A report with the front, its points the cheapest first.

    Raises:
        UsageError: If an argument is wrong, or there are both a graph and circuits.
        PassError: If there is nothing to trade, or a limit cannot be met.
    """
    start = time.process_time()
    program = read(source)
    if program is source:
        program = program.copy()
    if not limits and points < 2:
        raise UsageError(f"a front has at least 2 points, not {points}")
    name = program.source if len(program.source) < 4096 else ""
    given_data = calibration is not None or evaluation is not None
    if program.is_circuit:
        if given_data:
            raise UsageError(
                "calibration and evaluation data are for graphs, the source is a circuit",
                hint="--states rows.npz gives the states that it begins in",
            )
        machine = _machine(target or "clifford+t", "circuit")
        context = _context(seed, progress, machine)
        front = _circuit_front(
            program, context, machine, effort, observables, states, points, limits, deadline
        )
    elif program.circuits:
        raise UsageError(
            "the source has a graph and circuits: their budgets are swept one at a time",
            hint="'qcomp compile' takes both under one --max-drop; sweep the graph or the circuit",
        )
    else:
        if observables or states is not None:
            raise UsageError("observables and states are for circuits, the source is a graph")
        machine = _machine(target or "cpu-mixed", "graph")
        context = _context(seed, progress, machine)
        job = Compilation(program, machine, None, context)
        labels = None
        if evaluation is not None and Path(evaluation).suffix in (".npz", ".npy"):
            evaluation, labels = None, evaluation
        job.take_data(calibration, labels, preprocess, pipeline)
        job.take_text(evaluation, tokenizer)
        job.take_figure(metric, higher_is_better, None)
        front = _graph_front(job, machine, effort, pipeline, points, limits, deadline)
    return Report(
        title=f"qcomp sweep: {Path(name).name or 'a source in memory'}",
        source=SourceLine(Path(name).name or "in memory"),
        targets=(collect.target_line(machine, effort),),
        seed=seed,
        cpu_seconds=time.process_time() - start,
        versions=collect.versions(),
        front=front,
        warnings=tuple(context.warnings),
    )


def in_halves(count: int) -> list[int]:
    """Return 0 to count - 1, both ends first, then the middle of each gap, the wide ones first."""
    found = [0, count - 1] if count > 1 else [0]
    gaps = [(0, count - 1)]
    while gaps:
        low, high = gaps.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            found.append(middle)
            gaps += [(low, middle), (middle, high)]
    return found


def _machine(target: str, kind: str) -> Target:
    graph, circuit = choose_targets(target)
    found = graph if kind == "graph" else circuit
    if found is None or (graph is not None and circuit is not None):
        what = "graph" if kind == "graph" else "circuit"
        raise UsageError(
            f"the source is a {what}, '{target}' is no target for one alone",
            hint=f"-t {'cpu-mixed' if kind == 'graph' else 'clifford+t'}",
        )
    return found


def _context(seed: int, progress: Progress | None, machine: Target) -> Context:
    context = Context(seed=seed, target=machine)
    if progress is not None:
        context.progress = progress
    return context


def _begun(limits: Sequence[Any], context: Context, deadline: Deadline | None) -> Iterator[Any]:
    """Yield limits in the order they are tried, until the time is over; at least one."""
    with context.progress.task("sweep", len(limits)) as task:
        for count, index in enumerate(in_halves(len(limits))):
            if count and deadline is not None and deadline.is_over:
                context.warn(f"stopped after {count} of {len(limits)} points")
                return
            yield limits[index]
            task.advance()


def _finished(points: Sequence[FrontPoint], section: FrontSection) -> FrontSection:
    """Put the points in order and say which are on the front; equal ones are one."""
    ordered = sorted(set(points), key=lambda p: (p.cost, p.error))
    sign = -1.0 if section.metric and section.higher_is_better else 1.0
    losses = [sign * section.height(point) for point in ordered]
    best = best_points([float(point.cost) for point in ordered], losses)
    marked = tuple(replace(p, best=b) for p, b in zip(ordered, best, strict=True))
    return replace(section, points=marked)


# --- graphs ------------------------------------------------------------------------------------


def _graph_front(
    job: Compilation,
    machine: Target,
    effort: str,
    pipeline: str | None,
    points: int,
    limits: Sequence[str],
    deadline: Deadline | None,
) -> FrontSection:
    text = job.pipeline_text(machine, effort, pipeline)
    if not shares_bits(text):
        raise UsageError(
            "the pipeline shares no bits out, so that there is no front",
            hint="take -t cpu-mixed, or give a pipeline with measure-sensitivity,allocate-bits",
        )
    wanted = [ByteBudget.parse(limit) for limit in limits]
    made = Allotter(job.program, job.context, text)
    sizes = np.geomspace(made.least, made.most, points).round().astype(int).tolist()
    judge = _Judge(job)
    found = []
    for limit in _begun(wanted or sizes, job.context, deadline):
        allotted = made.below(limit) if wanted else made.with_tensors(limit)
        found.append(_measured(judge, allotted))
    return _finished(found, judge.section(job))


def _measured(judge: _Judge, allotted: Allotted) -> FrontPoint:
    from qcomp.execute import HybridSession

    chosen = allotted.context.need(AllocatedBits, "allocate-bits")
    error, figure = judge(HybridSession(allotted.program))
    counts = Counter(choice.bits for choice in chosen.chosen.values())
    words = ", ".join(f"{counts[bits]} x {bits} bit" for bits in sorted(counts))
    return FrontPoint(allotted.bytes, chosen.error, error, figure, words)


@dataclass(frozen=True, slots=True)
class _Figure:
    metric: str
    source: float
    higher_is_better: bool


class _Judge:
    """Runs what was compiled beside the source.

    Args:
        job: The compile, with its data.
    """

    def __init__(self, job: Compilation) -> None:
        from qcomp.passes.analyze.output_loss import output_loss

        self._job = job
        self._source = job.source_session()
        self._losses: list[OutputLoss] = output_loss(job.source, "auto")
        self._figure: _Figure | None = None
        self._rows = 0

    def __call__(self, session: HybridSession) -> tuple[float, float | None]:
        """Return the error of the outputs, and the metric."""
        job = self._job
        lost = np.zeros((len(self._losses), 2))
        kept: dict[str, Any] = {}
        self._rows = 0

        def source(feeds: Mapping[str, Any]) -> Mapping[str, Any]:
            kept.clear()
            kept.update(self._source.run(feeds, shots=0))
            return kept

        def compiled(feeds: Mapping[str, Any]) -> Mapping[str, Any]:
            got = session.run(feeds, shots=0)
            for index, loss in enumerate(self._losses):
                lost[index] += loss.of(kept[loss.name], got[loss.name])
            self._rows += len(next(iter(feeds.values())))
            return got

        if job.text is not None:
            first = job.text.judge(source, compiled)[0]
            falls = first.metric == "perplexity"
            self._figure = _Figure(first.metric, first.source, not falls)
            return self._sum(lost), first.compiled
        if job.labels is not None:
            scorers = job.scorer(), job.scorer()
            output = job.source.model.graph.outputs[0].name or ""
            start = 0
            for feeds in job.labels.batches():
                for scorer, run in zip(scorers, (source, compiled), strict=True):
                    value = run(feeds)[output]
                    scorer.add(value, job.labels.labels[start : start + len(value)])
                start += len(value)
            before, after = (scorer.result() for scorer in scorers)
            self._figure = _Figure(
                before.metric, before.value, before.higher_is_better is not False
            )
            return self._sum(lost), after.value
        from qcomp.passes.calibrate.batches import checked_batches

        assert job.context.calibration is not None
        for feeds in checked_batches(job.source.model, job.context.calibration()):
            source(feeds)
            compiled(feeds)
            if self._rows >= _CALIBRATION_ROWS:
                break
        return self._sum(lost), None

    @staticmethod
    def _sum(lost: np.ndarray[Any, np.dtype[np.float64]]) -> float:
        moved, scale = lost.T
        return float(np.divide(moved, scale, out=np.zeros_like(moved), where=scale > 0).sum())

    def section(self, job: Compilation) -> FrontSection:
        """Return the section without its points."""
        where = "the calibration data" if job.text is None and job.labels is None else ""
        if where:
            job.context.warn("measured on the calibration samples, not on unseen data")
        path = Path(job.source.source) if len(job.source.source) < 4096 else None
        is_file = path is not None and path.is_file()
        figure = self._figure
        return FrontSection(
            "bytes",
            self._losses[0].unit,
            f"{self._rows} rows of {where or 'the evaluation data'}",
            "" if figure is None else figure.metric,
            path.stat().st_size if is_file and path is not None else None,
            None if figure is None else figure.source,
            figure is None or figure.higher_is_better,
        )


# --- circuits ----------------------------------------------------------------------------------


def _circuit_front(
    program: Program,
    context: Context,
    machine: Target,
    effort: str,
    observables: Sequence[str],
    states: object,
    points: int,
    limits: Sequence[str],
    deadline: Deadline | None,
) -> FrontSection:
    check_fit(machine, program.circuits.items())
    by_norm = not observables and states is None
    option = "error" if by_norm else "observable_error"
    wanted = [
        AngleLimits.of(**{option: limit}, observables=observables, states=states)
        for limit in limits or np.geomspace(*_ERRORS, points).tolist()
    ]
    first = wanted[0]
    assert first is not None
    context.put(first)
    text = circuit_pipeline(context, machine, effort)
    before, after = text.split(f"{first.step},")
    ready = program.copy()
    run_passes(ready, before.strip().removesuffix(","), context)
    source = program.only_circuit
    found = []
    for limit in _begun(wanted, context, deadline):
        assert limit is not None
        own, facts = ready.copy(), context.branch()
        facts.put(limit)
        Pipeline.parse(f"{limit.step},{after}").run(own, facts)
        if not (facts.get(AngleBudgets) or AngleBudgets()).by_circuit:
            raise PassError(
                f"the circuit '{source.name}' has no rotation but multiples of pi/4",
                why="nothing is approximated, so that T gates and error are not traded",
                hint=f"qcomp compile -t {machine.name} makes it exact",
            )
        check = check_circuit(
            source.name,
            source,
            own.only_circuit,
            facts,
            only_bits=False,
            from_zero=False,
            may_differ=True,
        )
        promised = limit.error if by_norm else limit.observable_error
        gates = own.only_circuit.stats().t_count
        found.append(FrontPoint(gates, promised or 0.0, check.error or 0.0))
        data = check.how.partition(";")[0]
    measure = "operator norm" if by_norm else "largest change of an observable"
    return _finished(found, FrontSection("T gates", measure, data))
