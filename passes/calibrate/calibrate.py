"""Run calibration data through the float graph and find the range of every activation.

The data is streamed: one batch of activations is in memory at a time, and per tensor a histogram of
fixed size, so memory does not grow with the number of samples. The ranges do not depend on how the
samples are batched, but for ``moving-average``, which averages over batches.

Equations: see the range methods (``minmax.py``, ``moving_average.py``, ``percentile.py``,
``mse.py``, ``entropy.py``).
Preconditions: calibration data in the context, if any value has to be measured.
Preserved: everything; the pass leaves a :class:`qcomp.quantization.TensorStatistics` fact.
Cost: one run of the model over the data; 10 ns a value for histograms.
Source: Krishnamoorthi 2018, arXiv:1806.08342, section 2.5; Wu et al. 2020, arXiv:2004.09602,
section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from qcomp.errors import PassError, UsageError
from qcomp.integer_rules import IntegerRules, integer_rules_of
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.calibrate.entropy import entropy_range
from qcomp.passes.calibrate.minmax import minmax_range
from qcomp.passes.calibrate.moving_average import MovingAverage
from qcomp.passes.calibrate.mse import mse_range
from qcomp.passes.calibrate.percentile import percentile_range
from qcomp.passes.calibrate.statistics import Histogram
from qcomp.passes.calibrate.symmetric_mse import symmetric_mse_range
from qcomp.passes.graph.rewriting import node_label
from qcomp.passes.quantize.static_plan import StaticPlan, plan_static
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import NodeRules, TensorRange, TensorStatistics, rules_of

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["Calibrate"]


_METHODS = ("minmax", "moving-average", "percentile", "mse", "entropy")


def _asked_methods(plan: StaticPlan, rules: NodeRules) -> dict[str, str]:
    """Value name -> the method that the user asks for an operator that reads it; the first one's.

    Raises:
        UsageError: There is no such method.
    """
    source = {node.outputs[0]: node.inputs[0] for node in plan.moves}
    asked: dict[str, str] = {}
    for layer in plan.layers:
        method = rules.options(layer.node).method
        if method is None:
            continue
        if method not in _METHODS:
            raise UsageError(
                f"there is no calibration method '{method}', asked for '{node_label(layer.node)}'",
                hint="minmax, moving-average, percentile, mse or entropy",
            )
        for index in layer.activations:
            value = layer.node.inputs[index]
            while value in source:
                value = source[value]
            name = "" if value is None else value.name or ""
            if name in plan.measured:
                asked.setdefault(name, method)
    return asked


@dataclass(frozen=True)
class Calibrate(GraphPass):
    """Measure the ranges of the activations that ``quantize-static`` will quantize.

    Attributes:
        method: How a range is chosen from the distribution: ``minmax``, ``moving-average``,
            ``percentile``, ``mse`` or ``entropy``.
        percentile: Percent of the values kept by ``percentile``, in (0, 100].
        momentum: Share of the batches before in ``moving-average``, in [0, 1).
        batch: Samples run at a time.
        needs_data: Whether to refuse where no data was given; else nothing is measured then.
    """

    name: ClassVar[str] = "calibrate"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    method: Literal["minmax", "moving-average", "percentile", "mse", "entropy"] = "minmax"
    percentile: float = 99.999
    momentum: float = 0.9
    batch: int = 8
    needs_data: bool = True

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if self.method not in _METHODS:
            raise UsageError(
                f"there is no calibration method '{self.method}'",
                hint="minmax, moving-average, percentile, mse or entropy",
            )
        if not 0.0 < self.percentile <= 100.0:
            raise UsageError(f"a percentile lies in (0, 100], {self.percentile} does not")
        if not 0.0 <= self.momentum < 1.0:
            raise UsageError(f"a momentum lies in [0, 1), {self.momentum} does not")
        if self.batch < 1:
            raise UsageError(f"a batch has at least one sample, not {self.batch}")

    def run(self, program: Program, context: Context) -> bool:
        """Measure; the program stays as it is.

        Raises:
            PassError: No calibration data, or an activation that is not finite.
            UsageError: Data that does not fit the model.
        """
        from qcomp.execute import HybridSession

        rules = rules_of(context)
        machine = integer_rules_of(context)
        plan = plan_static(program.model, rules, machine)
        names = plan.measured
        if not names or (context.calibration is None and not self.needs_data):
            return False
        if context.calibration is None:
            raise PassError(
                f"{len(names)} activations have to be measured, but there is no calibration data",
                hint="give some with --calib data.npz (arrays named as the model's inputs), or "
                "take a target that needs none, as cpu-dynamic-int8",
            )
        given = {value.name for value in program.model.graph.inputs}
        taps = [name for name in names if name not in given]
        session = HybridSession(program, taps=taps, only_taps=True)
        methods = {**dict.fromkeys(names, self.method), **_asked_methods(plan, rules)}
        binned = {name for name in names if methods[name] in ("percentile", "mse", "entropy")}
        histograms = {name: Histogram(bins=name in binned) for name in names}
        averages = {
            name: MovingAverage(self.momentum)
            for name in names
            if methods[name] == "moving-average"
        }
        samples = 0
        batches = checked_batches(program.model, context.calibration(), self.batch)
        with context.progress.task("calibrating", None) as task:
            for index, feeds in enumerate(batches):
                values = {**feeds, **session.run(feeds, taps, seed=context.seed + index)}
                for name in names:
                    array = np.asarray(values[name])
                    try:
                        histograms[name].add(array)
                    except FloatingPointError as error:
                        raise PassError(
                            f"the activation '{name}' holds NaN or infinity",
                            where=f"calibration batch {index}",
                            why="a quantizer needs a finite range",
                            hint="look for an overflow in the model, or for data out of its domain",
                        ) from error
                    if name in averages:
                        averages[name].add(array)
                samples += max((a.shape[0] for a in feeds.values() if a.ndim), default=1)
                task.advance()
        ranges = {
            name: self._range(found, methods[name], machine, averages.get(name))
            for name, found in histograms.items()
        }
        context.put(TensorStatistics(self.method, samples, ranges, methods))
        return False

    def _range(
        self,
        histogram: Histogram,
        method: str,
        machine: IntegerRules,
        average: MovingAverage | None,
    ) -> TensorRange:
        if histogram.count == 0:
            return TensorRange(0.0, 0.0, 0.0, 0.0, 0)
        if average is not None:
            low, high = average.low, average.high
        elif method == "mse" and machine.symmetric:
            low, high = symmetric_mse_range(histogram, machine)
        elif method == "percentile":
            low, high = percentile_range(histogram, self.percentile)
        elif method == "mse":
            low, high = mse_range(histogram)
        elif method == "entropy":
            low, high = entropy_range(histogram)
        else:
            low, high = minmax_range(histogram)
        return TensorRange(low, high, histogram.minimum, histogram.maximum, histogram.count)
