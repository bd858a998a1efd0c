"""``--max-latency-ratio`` of a compile: costs in its pipeline, and what was measured in the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from qcomp.byte_budget import ByteBudget
from qcomp.errors import UsageError
from qcomp.report.data import CheckLine
from qcomp.sensitivity import AllocatedBits
from qcomp.way_costs import LatencyBudget, WayCosts

if TYPE_CHECKING:
    from qcomp.compilation import Compilation
    from qcomp.passmanager import Context
    from qcomp.target import Target

__all__ = ["latency_checks", "take_limits", "with_costs"]

_SLACK = 1.1
"""Measured over allowed above which the user is told."""


def take_limits(
    context: Context, graph: Target | None, max_bytes: object, max_latency: object, table: object
) -> None:
    """Take what a graph may cost.

    Args:
        context: Of the compile.
        graph: The classical machine.
        max_bytes: As for :meth:`qcomp.byte_budget.ByteBudget.parse`; None for no limit.
        max_latency: As for :meth:`qcomp.way_costs.LatencyBudget.parse`; None for no limit.
        table: Its table.

    Raises:
        UsageError: There is no graph, or what was given cannot be read.
    """
    if max_bytes is not None:
        if graph is None:
            raise UsageError("a limit on bytes is for graphs, the source has none")
        context.put(ByteBudget.parse(max_bytes))
    if max_latency is None:
        if table is not None:
            raise UsageError(
                "a table of latencies is for a limit on latency",
                hint="give --max-latency-ratio 0.7 besides",
            )
        return
    if graph is None:
        raise UsageError("a limit on latency is for graphs, the source has none")
    context.put(LatencyBudget.parse(max_latency, table))


def with_costs(text: str, context: Context) -> str:
    """Return a pipeline with ``measure-costs`` before its ``allocate-bits``, where time counts."""
    if context.get(LatencyBudget) is None or "measure-costs" in text:
        return text
    return text.replace("allocate-bits", "measure-costs,allocate-bits", 1)


def latency_checks(
    job: Compilation, run: Callable[..., object], latency: str = "latency over float's"
) -> list[CheckLine]:
    """Measure the artifact beside the source where latency was limited.

    Args:
        job: The compile.
        run: Runs the artifact.
        latency: The name that the allocator has for it.

    Returns:
        A line with the ratio that the table predicts and the one measured; none without a limit.
    """
    budget, costs = job.context.get(LatencyBudget), job.context.get(WayCosts)
    chosen = job.context.get(AllocatedBits)
    if budget is None or costs is None or chosen is None or job.context.calibration is None:
        return []
    from qcomp.passes.allocate.operator_times import turns_of
    from qcomp.passes.calibrate.batches import checked_batches

    sample = next(checked_batches(job.source.model, job.context.calibration(), 1))
    before, after = turns_of(
        [partial(job.source_session().run, sample, shots=0), partial(run, sample, shots=0)]
    )
    ratio, predicted = after / before, chosen.predicted[latency]
    if ratio > _SLACK * budget.ratio:
        job.context.warn(
            f"the artifact takes {ratio:.2f} of float's time here, {budget.ratio:g} were allowed "
            f"and {predicted:.2f} predicted from times of {costs.machine}"
        )
    how = (
        f"CPU time of one sample over the source's: allowed {budget.ratio:g}, predicted "
        f"{predicted:.3g} (operators timed on {costs.machine}), measured {ratio:.3g}"
    )
    return [CheckLine("latency", how, "measured", ratio, "of float's time")]
