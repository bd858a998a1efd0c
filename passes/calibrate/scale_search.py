"""The search for the scale of one activation and of the weights that multiply it.

Equations and source: see :mod:`qcomp.passes.calibrate.optimize_scales`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.integer_rules import IntegerRules
from qcomp.passes.calibrate.layer_rows import (
    Geometry,
    layer_bias,
    read_columns,
    weight_columns,
    weight_like,
)
from qcomp.passes.graph.rewriting import check_finite
from qcomp.passes.quantize.activation_parameters import activation_parameters
from qcomp.passes.quantize.arithmetic import (
    Affine,
    affine_parameters,
    dequantize,
    quantize,
    symmetric_scale,
)
from qcomp.passes.quantize.integer_types import IntegerType
from qcomp.passes.quantize.static_plan import PlannedLayer, activation_bounds, weight_axis
from qcomp.passes.quantize.weights import float_weight
from qcomp.quantization import ChosenWeight, NodeRules, TensorRange

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passes.calibrate.optimize_scales import OptimizeScales

__all__ = ["METHOD", "Key", "Search", "Unit", "best_factors"]

Floats = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

METHOD = "optimize-scales"
"""How reports call what was found."""

Key = tuple[str, Geometry]


@dataclass(slots=True, eq=False)
class Unit:
    """A stored activation and the layers that read it.

    Attributes:
        origin: The value that gets the scale; the layers may read it behind moves.
        layers: Layers with weights, in graph order.
        keys: For each of them, name and geometry of the value that it reads.
        carried: Whether an Add, Mul, Concat or pool reads it too.
    """

    origin: ir.Value
    layers: list[PlannedLayer] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    carried: bool = False


class _Layer:
    """One layer in the search: its rows, its float output, its weight as it is quantized now.

    ``free`` says whether the scales of its weight are searched for: nobody chose its integers, and
    the machine takes a scale for each output channel.
    """

    def __init__(
        self, node: ir.Node, x: Floats, group: int, kind: IntegerType, fixed: ChosenWeight | None
    ) -> None:
        self.node, self.group, self.x = node, group, x
        self.kind = kind
        self.columns = read_columns(node, group)
        check_finite(str(node.inputs[1] and node.inputs[1].name), self.columns)
        self.bias = layer_bias(node, group)
        self.wanted = self.product(x, self.columns)
        self.free = fixed is None
        if fixed is not None:
            self.quantized = weight_columns(node, fixed.real(), group)

    def product(self, x: Floats, columns: Floats) -> Floats:
        """``x W + b``, float32[group, rows, M / group]."""
        result = np.matmul(x, columns)
        return result if self.bias is None else result + self.bias

    def sums(self, x: Floats, columns: Floats) -> tuple[Float64, Float64]:
        """<O, O'> and <O', O'> of each output channel, float64[group, M / group]."""
        got = self.product(x, columns)
        return (
            (self.wanted * got).sum(1, dtype=np.float64),
            (got * got).sum(1, dtype=np.float64),
        )

    def nearness(self, x: Floats, measure: str) -> float:
        """How near O' is to O with the weights as they are now."""
        return _nearness(self.wanted, self.product(x, self.quantized), measure)


class Search:
    """The search for one activation and the weights that multiply it."""

    def __init__(
        self,
        options: OptimizeScales,
        unit: Unit,
        samples: Mapping[Key, Floats],
        start: TensorRange,
        chosen: Mapping[str, ChosenWeight],
        rules: NodeRules,
        machine: IntegerRules,
    ) -> None:
        self.options = options
        self.machine = machine
        self.start = start
        self.unit = unit
        spaced = np.linspace(options.least, options.most, options.points)
        self.factors = np.concatenate([[1.0], spaced]).astype(np.float32)
        self.layers: list[_Layer] = []
        self.scales: list[Floats] = []
        for layer, key in zip(unit.layers, unit.keys, strict=True):
            name = layer.node.inputs[1].name or ""  # type: ignore[union-attr]
            bits = rules.options(layer.node).bits or options.weight_bits
            fixed = chosen.get(name)
            kind = IntegerType(bits, signed=True, narrow=True)
            each = _Layer(layer.node, samples[key], key[1].group, kind, fixed)
            scale = np.zeros(0, np.float32)
            each.free = fixed is None and layer.node.op_type in machine.per_channel
            if fixed is None:
                single = options.weight_scales == "tensor" or not each.free
                axis = None if single else 1
                flat = each.columns.transpose(1, 0, 2).reshape(each.columns.shape[1], -1)
                scale = np.atleast_1d(symmetric_scale(flat, kind, axis))
                each.quantized = self._fake(each, scale)
            self.layers.append(each)
            self.scales.append(scale)

    def run(self) -> TensorRange:
        """Alternate; return the range of the activation."""
        factor = np.float32(1.0)
        if not any(layer.x.size for layer in self.layers):
            return self.start
        for _ in range(self.options.rounds):
            x = [self._rounded(layer.x, factor) for layer in self.layers]
            moved = False
            for index, layer in enumerate(self.layers):
                moved |= layer.free and self._weigh(index, layer, x[index])
            scores = [self._score(f * factor) for f in self.factors]
            best = int(np.argmax(scores))
            factor = factor * self.factors[best]
            if not best and not moved:
                break
        low, high = self._range(factor)
        return replace(self.start, low=low, high=high)

    def weights(self) -> dict[str, ChosenWeight]:
        """The integers of the weights that were searched."""
        found = {}
        for layer, scale in zip(self.layers, self.scales, strict=True):
            value = layer.node.inputs[1]
            assert value is not None
            if not layer.free:
                continue
            shape = [int(dim) for dim in float_weight(value).shape.numpy()]
            levels = quantize(layer.columns, self._along(layer, scale), 0, layer.kind)
            single = self.options.weight_scales == "tensor"
            found[value.name or ""] = ChosenWeight(
                levels=np.asarray(weight_like(layer.node, levels, shape), np.int8),
                scale=scale.reshape(()) if single else scale,
                zero_point=None,
                axis=weight_axis(layer.node),
                group=None,
                bits=layer.kind.bits,
                method=METHOD,
            )
        return found

    def _along(self, layer: _Layer, scale: Floats) -> Floats:
        """Scales shaped for the columns [group, K, M / group]."""
        return scale if scale.size == 1 else scale.reshape(layer.group, 1, -1)

    def _fake(self, layer: _Layer, scale: Floats) -> Floats:
        step = self._along(layer, scale)
        return dequantize(quantize(layer.columns, step, 0, layer.kind), step, 0)

    def _rounded(self, x: Floats, factor: np.float32) -> Floats:
        """The rows on the grid of the activation's range times a factor."""
        found = self._affine(*self._range(factor))
        levels = quantize(x, found.scale, found.zero_point, found.type)
        return dequantize(levels, found.scale, found.zero_point)

    def _range(self, factor: np.float32) -> tuple[float, float]:
        """The start times a factor, inside of the Relu or Clip in front of the quantizer."""
        low, high = float(factor) * self.start.low, float(factor) * self.start.high
        producer = self.unit.origin.producer()
        bounds = None if producer is None else activation_bounds(producer)
        return (low, high) if bounds is None else (max(low, bounds[0]), min(high, bounds[1]))

    def _affine(self, low: float, high: float) -> Affine:
        if self.options.activation_bits == 7:
            return affine_parameters(low, high, IntegerType(7, signed=False))
        return activation_parameters(low, high, self.machine)

    def _weigh(self, index: int, layer: _Layer, x: Floats) -> bool:
        """Search the scales of one weight; return whether any changed."""
        scale = self.scales[index]
        pairs = [layer.sums(x, self._fake(layer, factor * scale)) for factor in self.factors]
        a = np.stack([pair[0].reshape(-1) for pair in pairs])
        b = np.stack([pair[1].reshape(-1) for pair in pairs])
        if self.options.weight_scales == "tensor":
            a, b = a.sum(1, keepdims=True), b.sum(1, keepdims=True)
        best = best_factors(a, b, self.options.measure)
        if not best.any():
            return False
        self.scales[index] = np.asarray(scale * self.factors[best], np.float32)
        layer.quantized = self._fake(layer, self.scales[index])
        return True

    def _score(self, factor: np.float32) -> float:
        """Mean nearness of all that reads the activation."""
        rounded: dict[int, Floats] = {}
        total = []
        for layer in self.layers:
            key = id(layer.x)
            if key not in rounded:
                rounded[key] = self._rounded(layer.x, factor)
            total.append(layer.nearness(rounded[key], self.options.measure))
        if self.unit.carried:
            x = self.layers[0].x
            total.append(_nearness(x, rounded[id(x)], self.options.measure))
        return float(np.mean(total))


def best_factors(a: Float64, b: Float64, measure: str) -> npt.NDArray[np.intp]:
    """Index of each channel's factor for the least error, or the largest cosine; 0 is the start.

    Args:
        a: <O_m, O'_m>, float64[factors, channels].
        b: <O'_m, O'_m>, the same shape.
        measure: ``error``, ||O - O'||^2; or ``cosine``, sum a / sqrt(sum b).
    """
    if measure == "error":
        return np.argmin(b - 2.0 * a, axis=0)
    channels = np.arange(a.shape[1])
    best = np.zeros(a.shape[1], np.intp)
    while True:
        top, bottom = a[best, channels].sum(), b[best, channels].sum()
        if top <= 0.0 or bottom <= 0.0:
            return best
        found = np.argmin(top / bottom * b - 2.0 * a, axis=0)
        after = a[found, channels].sum(), b[found, channels].sum()
        if after[0] * abs(after[0]) * bottom <= top * abs(top) * after[1]:
            return best
        best = found


def _nearness(wanted: Floats, got: Floats, measure: str) -> float:
    """cos(O, O'), or 1 - ||O - O'||^2 / ||O||^2."""
    left, right = wanted.reshape(-1).astype(np.float64), got.reshape(-1).astype(np.float64)
    if measure == "error":
        error = left - right
        return 1.0 - float(error @ error) / max(float(left @ left), 1e-300)
    norm = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / norm if norm else float(not left.any())
