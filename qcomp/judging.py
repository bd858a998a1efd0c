"""What source and artifact reach on labels and on text, as lines of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qcomp.report.data import AccuracyLine, CheckLine

if TYPE_CHECKING:
    from qcomp.execute import HybridSession
    from qcomp.feeds import Evaluation, Scorer
    from qcomp.feeds.texts import TextEvaluation
    from qcomp.ir.program import Program
    from qcomp.passmanager import Context
    from qcomp.runtime.artifact import Artifact

__all__ = ["judge_labels", "judge_text", "other_inputs"]


def other_inputs(context: Context, what: str, source: Program | None = None) -> list[CheckLine]:
    """Say why an artifact does not run beside its source; nothing where it does.

    Args:
        context: Of its compilation.
        what: That it was to be run for.
        source: The source, where exact values are to be compared.
    """
    from qcomp.ir.program import readout_of
    from qcomp.quantization import StoredCaches

    if context.get(StoredCaches) is not None:
        return [CheckLine(what, "its cache comes in and goes out in integers", "not checked")]
    nodes = [] if source is None else source.all_circuit_nodes()
    if any(readout_of(node).kind == "samples" for node in nodes):
        return [CheckLine(what, "samples have no exact values to compare", "not checked")]
    return []


def judge_labels(
    labels: Evaluation,
    scorer: Callable[[], Scorer],
    session: HybridSession,
    artifact: Artifact,
) -> tuple[AccuracyLine, CheckLine]:
    """Score both on labelled samples.

    Args:
        labels: The samples.
        scorer: Makes a scorer of what the user measures.
        session: The source.
        artifact: What it became.
    """
    output = artifact.outputs[0]
    source, compiled = scorer(), scorer()
    start = 0
    for feeds in labels.batches():
        before, after = session.run(feeds, shots=0), artifact.run(feeds, shots=0)
        there = labels.labels[start : start + len(before[output])]
        source.add(before[output], there)
        compiled.add(after[output], there)
        start += len(there)
    a, b = source.result(), compiled.result()
    how = f"{a.metric} on {a.n} labelled samples, {a.value:.4f} before, {b.value:.4f} after"
    change = abs(a.value - b.value)
    return (
        AccuracyLine(a.metric, a.value, b.value, a.n),
        CheckLine("accuracy", how, "measured", change, f"change of {a.metric}"),
    )


def judge_text(
    text: TextEvaluation, session: HybridSession, artifact: Artifact
) -> tuple[list[AccuracyLine], list[CheckLine]]:
    """Compare both on a text.

    Args:
        text: In tokens.
        session: The source.
        artifact: What it became.
    """

    def run(one: Any) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:  # noqa: ANN401
        return lambda feeds: one.run(feeds, shots=0)

    lines, checks = [], []
    for found in text.judge(run(session), run(artifact)):
        lines.append(AccuracyLine(*found))
        words = f"{found.source:.4f} before, {found.compiled:.4g} after"
        how = f"{found.metric} on {found.samples} samples of {text.where}, {words}"
        change = abs(found.source - found.compiled)
        checks.append(CheckLine("text", how, "measured", change, f"change of {found.metric}"))
    return lines, checks
