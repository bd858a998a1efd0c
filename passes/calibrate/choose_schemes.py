"""Static or dynamic, layer by layer: whose input is better rounded by a scale found at run time.

For the weight W of a matrix product and its input x, with Q_s the grid of the calibrated range and
Q_d the grid of the least and the largest value of one batch,

    e_s = sum ||(Q_s(x) - x) W||^2        e_d = sum ||(Q_d(x) - x) W||^2

over rows of the calibration data. Where 10 log10(e_s / e_d) >= ``gain``, the layer is left to
``quantize-dynamic`` (DynamicQuantizeMatMul, as fast as the static kernel). One scale holds for a
whole tensor there: a row's result then depends a little on its batch, which the report warns of.
Layers whose result is u8 for other integer layers stay static.

Preconditions: ``calibrate`` ran; ``quantize-static`` and ``quantize-dynamic`` come behind.
Preserved: everything; the pass leaves overrides in :class:`qcomp.node_rules.NodeRules`.
Cost: a run of the model over at most ``samples`` samples, two products of ``rows`` rows a layer and
batch.
Source: the errors are those of Krishnamoorthi 2018, arXiv:1806.08342, section 2; dynamic ranges:
Jacob et al. 2018, arXiv:1712.05877, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.integer_rules import integer_rules_of
from qcomp.node_rules import NodeRules, Override, rules_of
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.graph.rewriting import int_attribute, node_label
from qcomp.passes.quantize.arithmetic import Affine, affine_parameters, dequantize, quantize
from qcomp.passes.quantize.integer_types import UINT8
from qcomp.passes.quantize.static_plan import PlannedLayer, plan_static
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import TensorStatistics

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["ChooseSchemes"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ChooseSchemes(GraphPass):
    """Leave the layers to quantize-dynamic whose inputs a scale found at run time suits better.

    Attributes:
        gain: Decibels by which the error has to be smaller.
        samples: Samples to run, at most.
        batch: Samples run at a time: the batch whose range counts.
        rows: Rows of an activation that are compared in each batch.
    """

    name: ClassVar[str] = "choose-schemes"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    gain: float = 3.0
    samples: int = 64
    batch: int = 8
    rows: int = 64

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if min(self.samples, self.batch, self.rows) < 1:
            raise UsageError("choose-schemes: samples, batch and rows are at least 1")

    def run(self, program: Program, context: Context) -> bool:
        """Measure and choose; the program stays as it is.

        Raises:
            UsageError: Data that does not fit the model.
        """
        rules, statistics = rules_of(context), context.get(TensorStatistics)
        machine = integer_rules_of(context)
        if context.calibration is None or statistics is None or not machine.is_cpu:
            return False
        layers = [
            layer
            for layer in plan_static(program.model, rules, machine).layers
            if layer.weighted
            and layer.output is None
            and layer.node.op_type in ("MatMul", "Gemm")
            and rules.options(layer.node).scheme is None
            and _name(layer) in statistics.ranges
        ]
        if not layers:
            return False
        errors = self._errors(program, layers, statistics, context)
        chosen = []
        for layer, (static, dynamic) in zip(layers, errors, strict=True):
            gain = 10.0 * np.log10(static / dynamic) if dynamic > 0 < static else 0.0
            if gain >= self.gain:
                reason = f"its input is rounded {gain:.1f} dB better with the range of each batch"
                chosen.append(Override(node_label(layer.node), scheme="dynamic", reason=reason))
        if chosen:
            # What the user asks comes later and wins.
            context.put(NodeRules(override=tuple(chosen)).joined(rules))
        return False

    def _errors(
        self,
        program: Program,
        layers: list[PlannedLayer],
        statistics: TensorStatistics,
        context: Context,
    ) -> list[tuple[float, float]]:
        """Squared errors of each layer's result, static and dynamic."""
        from qcomp.execute import HybridSession

        assert context.calibration is not None
        names = list(dict.fromkeys(_name(layer) for layer in layers))
        given = {value.name for value in program.model.graph.inputs}
        taps = [name for name in names if name not in given]
        session = HybridSession(program, taps=taps, only_taps=True)
        fixed = {name: _affine(statistics, name) for name in names}
        sums = np.zeros((len(layers), 2))
        taken = 0
        batches = checked_batches(program.model, context.calibration(), self.batch)
        with context.progress.task("static or dynamic", None) as task:
            for index, feeds in enumerate(batches):
                if taken >= self.samples:
                    break
                values = {**feeds, **session.run(feeds, taps, seed=context.seed + index)}
                noise = {name: self._noise(np.asarray(values[name]), fixed[name]) for name in names}
                for place, layer in enumerate(layers):
                    W = _matrix(layer)
                    for kind, part in enumerate(noise[_name(layer)]):
                        moved = (part @ W).astype(np.float64)
                        sums[place, kind] += float(np.vdot(moved, moved))
                taken += max((a.shape[0] for a in feeds.values() if a.ndim), default=1)
                task.advance()
        return [(float(a), float(b)) for a, b in sums]

    def _noise(self, value: npt.NDArray[np.generic], fixed: Affine) -> tuple[Floats, Floats]:
        """Rounding errors of rows of an activation: with the calibrated range, and its own."""
        flat = value.reshape(-1, value.shape[-1]).astype(np.float32, copy=False)
        own = affine_parameters(float(flat.min()), float(flat.max()), UINT8)
        x = flat[:: max(1, len(flat) // self.rows)][: self.rows]
        static, dynamic = (
            dequantize(quantize(x, a.scale, a.zero_point, UINT8), a.scale, a.zero_point) - x
            for a in (fixed, own)
        )
        return static, dynamic


def _name(layer: PlannedLayer) -> str:
    value = layer.node.inputs[0]
    return "" if value is None else value.name or ""


def _affine(statistics: TensorStatistics, name: str) -> Affine:
    found = statistics.ranges[name]
    return affine_parameters(found.low, found.high, UINT8)


def _matrix(layer: PlannedLayer) -> Floats:
    """The weight as float32[K, N]."""
    W = np.asarray(float_weight(layer.node.inputs[1]).numpy(), np.float32)
    return W.T if int_attribute(layer.node, "transB") else W
