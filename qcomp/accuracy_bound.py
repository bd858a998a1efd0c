"""``--max-drop``: the search for the layers that have to stay in float.

Layers are ordered by the noise that each adds to the outputs by itself. The first k of them stay in
float; k doubles until the drop is met and is then halved in: about 2 log2(layers) compiles. Then
parts of these k are taken back, halves first, single layers in the end, for as long as the drop is
met without them: at most 2 log2(k) compiles more. Every set is judged by the figure itself, on all
labelled samples.

Source: Zeller and Hildebrandt 2002, "Simplifying and isolating failure-inducing input", IEEE TSE
28(2), for the halves (ddmin); the order and the budget are our own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qcomp.errors import PassError, UsageError
from qcomp.largest_drop import Drop, KeptLayer, KeptLayers
from qcomp.loop_bodies import run_passes
from qcomp.model_file import model_bytes
from qcomp.quantization import (
    FloatReference,
    NodeRules,
    QuantizationRecord,
    StoredCaches,
    rules_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.compilation import Compilation
    from qcomp.execute import HybridSession
    from qcomp.feeds import Score
    from qcomp.ir.program import Program
    from qcomp.passmanager import Context, PassRecord

__all__ = ["Trial", "run_within", "score_of", "search"]

Observer = Callable[["PassRecord", "Program"], None]

_SAMPLES = 8
"""Samples on which layers are quantized one at a time, and whose runs are timed."""

_TIMED_RUNS = 9


@dataclass(slots=True)
class Trial:
    """One way to compile.

    Attributes:
        program: What came out.
        context: Its facts.
        records: The passes that ran.
        score: Its figure.
    """

    program: Program
    context: Context
    records: list[PassRecord] = field(default_factory=list)
    score: Score | None = None


def search(
    attempt: Callable[[Sequence[str]], Trial],
    first: Trial,
    order: Sequence[str],
    drop: Drop,
    source: Score,
) -> tuple[Trial, tuple[str, ...], int]:
    """Find few of the worst layers that have to stay in float.

    Args:
        attempt: Compiles with these layers in float.
        first: The trial with none of them.
        order: Layers, the worst first.
        drop: The drop.
        source: The figure of the source.

    Returns:
        The trial that meets the drop, the layers kept, the worst first, and how many trials were
        made.

    Raises:
        PassError: Not even with all layers in float.
    """
    allowed = drop.allowed(source)
    made: dict[tuple[str, ...], Trial] = {(): first}

    def trial(kept: Sequence[str]) -> Trial:
        if tuple(kept) not in made:
            made[tuple(kept)] = attempt(kept)
        return made[tuple(kept)]

    def drop_with(kept: Sequence[str]) -> float:
        score = trial(kept).score
        assert score is not None
        return drop.of(source, score)

    def worse(count: int) -> float:
        return drop_with(order[:count])

    low, high = 0, 1
    if worse(0) <= allowed:
        return first, (), 1
    while high < len(order) and worse(high) > allowed:
        low, high = high, 2 * high
    high = min(high, len(order))
    if not order or worse(high) > allowed:
        best = min(map(drop_with, list(made)))
        raise PassError(
            f"a drop of at most {drop} in {source.metric} cannot be met",
            why=f"the least drop was {best:.4g}, allowed is {allowed:.4g}, with up to all "
            f"{len(order)} layers in float: other passes of the pipeline cost it",
            hint="allow a larger drop, or give a shorter pipeline with -p",
        )
    while high - low > 1:
        middle = (low + high) // 2
        if worse(middle) <= allowed:
            high = middle
        else:
            low = middle
    kept = _thinned(tuple(order[:high]), lambda few: drop_with(few) <= allowed)
    return trial(kept), kept, len(made)


def _thinned(kept: tuple[str, ...], meets: Callable[[tuple[str, ...]], bool]) -> tuple[str, ...]:
    """Take layers back that are not needed; the last one is, with all others before it."""
    budget = 2 * math.ceil(math.log2(len(kept)))
    parts = 2
    while len(kept) > 1 and budget > 0:
        front = len(kept) - 1
        parts = min(parts, front)
        ends = [round(i * front / parts) for i in range(parts + 1)]
        for start, end in zip(ends[-2::-1], ends[:0:-1], strict=True):  # the least noisy first
            budget -= 1
            few = kept[:start] + kept[end:]
            if meets(few):
                kept, parts = few, max(2, parts - 1)
                break
            if budget <= 0:
                break
        else:
            if parts == front:
                break
            parts *= 2
    return kept


def run_within(job: Compilation, drop: Drop, text: str, observer: Observer | None) -> None:
    """Run the graph's pipeline of a compile so often that the figure drops by at most so much.

    Args:
        job: The compile: its program, context and records become those of the way that was found.
        drop: The drop.
        text: The pipeline.
        observer: Called after each pass of the way without layers in float.

    Raises:
        PassError: If the drop cannot be met.
    """
    from qcomp.execute import HybridSession

    program, context = job.program, job.context

    def attempt(kept: Sequence[str]) -> Trial:
        own, facts = program.copy(), context.branch()
        if kept:
            facts.put(rules_of(facts).joined(NodeRules(exclude=tuple(kept))))
        records = run_passes(own, text, facts, None if kept else observer)
        if facts.get(StoredCaches) is not None:
            raise UsageError(
                "a largest drop cannot be held: the cache comes in and goes out in integers",
                why="labelled samples are float's, and with an empty past nothing of it is rounded",
                hint="leave --max-drop or quantize-cache out",
            )
        return Trial(own, facts, records, score_of(job, HybridSession(own)))

    source = score_of(job, job.source_session())
    first = attempt(())
    layers = _worst_layers(job, first)
    found, names, trials = search(attempt, first, [x.node for x in layers], drop, source)
    assert first.score is not None
    assert found.score is not None
    kept = KeptLayers(
        drop,
        source.metric,
        source.value,
        first.score.value,
        found.score.value,
        tuple(layer for layer in layers if layer.node in names),
        len(layers),
        trials,
        model_bytes(first.program.model),
        model_bytes(found.program.model),
        _times(job, first.program, found.program) if names and _is_cpu(job) else (),
    )
    job.program, job.context = found.program, found.context
    job.records += found.records
    job.context.put(kept)
    _explain(job.context, kept)


def score_of(job: Compilation, session: HybridSession) -> Score:
    """The figure of a program on the labelled samples."""
    assert job.labels is not None
    scorer = job.scorer()
    output = job.source.model.graph.outputs[0].name or ""
    start = 0
    for feeds in job.labels.batches():
        value = session.run(feeds, [output], shots=0)[output]
        scorer.add(value, job.labels.labels[start : start + len(value)])
        start += len(value)
    return scorer.result()


def _worst_layers(job: Compilation, trial: Trial) -> list[KeptLayer]:
    """The layers with weights of a compiled program by the noise that each adds alone."""
    from qcomp.passes.analyze.layer_noise import layer_noise

    record = trial.context.get(QuantizationRecord)
    reference = trial.context.get(FloatReference)
    layers = [layer for layer in record.layers if layer.weight] if record else []
    if reference is None or not layers or reference.program.circuits:
        return [KeptLayer(layer.node, layer.op_type, 0.0) for layer in layers]
    few = _small_batch(job)
    noise = layer_noise(reference.program, trial.program, layers, [few], trial.context)
    found = [KeptLayer(x.node, x.op_type, noise[x.node]) for x in layers]
    return sorted(found, key=lambda layer: -layer.noise)


def _small_batch(job: Compilation) -> dict[str, Any]:
    """A few samples, of the labelled ones."""
    assert job.labels is not None
    feeds = next(iter(job.labels.batches()))
    shapes = {value.name: value.shape for value in job.source.model.graph.inputs}
    return {
        name: array if _is_fixed(shapes.get(name)) else array[:_SAMPLES]
        for name, array in feeds.items()
    }


def _is_fixed(shape: ir.Shape | None) -> bool:
    return shape is None or not len(shape) or isinstance(shape[0], int)


def _is_cpu(job: Compilation) -> bool:
    """Whether the machine is one of the kind that the compile runs on."""
    integers = None if job.graph is None else job.graph.integers
    return integers is None or integers.is_cpu


def _times(job: Compilation, quantized: Program, written: Program) -> tuple[float, ...]:
    """Least CPU seconds of a small batch: source, all layers quantized, as written; interleaved."""
    from qcomp.execute import HybridSession

    feeds = _small_batch(job)
    sessions = [job.source_session(), HybridSession(quantized), HybridSession(written)]
    best = [math.inf] * len(sessions)
    for _ in range(_TIMED_RUNS):
        for index, session in enumerate(sessions):
            start = time.process_time()
            session.run(feeds, shots=0)
            best[index] = min(best[index], time.process_time() - start)
    return tuple(best)


def _explain(context: Context, kept: KeptLayers) -> None:
    """Say of the layers that stayed in float why they did."""
    record = context.get(QuantizationRecord)
    reasons = {layer.node: _reason(layer, kept.drop) for layer in kept.kept}
    if record is not None and reasons:
        floats = [replace(op, reason=reasons.get(op.node, op.reason)) for op in record.float_ops]
        context.put(replace(record, float_ops=tuple(floats)))
    if kept.kept and len(kept.kept) == kept.layers:
        context.warn(f"a drop of at most {kept.drop} was met only with all layers in float")


def _reason(layer: KeptLayer, drop: Drop) -> str:
    alone = f": alone it leaves the outputs {layer.decibels:.1f} dB" if layer.noise else ""
    return f"kept in float to drop by at most {drop}{alone}"
