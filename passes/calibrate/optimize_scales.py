"""Scales searched for: of weights and activations in turn, for the outputs that they give.

Ranges from a distribution of values (``calibrate``) say nothing of what the layer does with them.
Here the scales of each layer are those whose integer output points where the float one does. With
rows x of its input, W, b and scales S_x, S_w of its quantizers Q,

    maximise  cos(O, O'),     O = x W + b,     O' = Q(x; S_x) Q(W; S_w) + b

first S_w over factors [least, most] of its start with S_x fixed, then S_x with S_w fixed, and
again until neither changes, at most ``rounds`` times. Layers that read one tensor share S_x: the
mean of their cosines counts, with that of the tensor itself where an Add, Mul or Concat reads it.

S_w has a scale for each output channel m, and the cosine is that of the whole layer. Since

    cos^2(O, O') = 1 - min_t ||O - t O'||^2 / ||O||^2

channels separate for a fixed t = <O, O'> / <O', O'>: each takes the factor with the least
||O_m - t O'_m||^2, then t is computed anew; the cosine never falls.

The cosine does not see t, but what comes behind the layer does. ``measure=error``, the default,
fixes t = 1: the least ||O - O'||^2. A U-Net loses .4 dB by the cosine and gains .6 dB by the error.

The start is what ``calibrate`` found and max |w|: nothing gets worse on the rows. Ranges are left
in :class:`qcomp.quantization.TensorStatistics`, weights in
:class:`qcomp.quantization.ChosenWeights`; weights that a pass has chosen already keep their
integers.

``layers=auto`` leaves products over the positions of sequences (MatMul of another rank than 2) as
they are: a sentence transformer gains a tenth of a decibel by them and takes ten times as long.

Preconditions: ``calibrate`` ran directly before, on the same graph.
Preserved: everything; the graph does not change.
Cost: a run of the model over the data for each 64 MB of rows, then 2 ``rounds`` ``points`` products
of ``rows`` rows with each weight.
Source: Wu et al. 2020, "EasyQuant", arXiv:2006.16669, equations 4 to 7 and algorithm 1 (there with
one scale a layer or channel, [0.5, 2] and 100 points; above a maximum there is nothing to find).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.calibrate.layer_rows import (
    Geometry,
    RowSample,
    layer_bias,
    layer_geometry,
    read_columns,
    weight_columns,
    weight_like,
)
from qcomp.passes.graph.rewriting import check_finite, static_shape
from qcomp.passes.quantize.arithmetic import (
    affine_parameters,
    dequantize,
    quantize,
    symmetric_scale,
)
from qcomp.passes.quantize.integer_types import IntegerType
from qcomp.passes.quantize.static_plan import PlannedLayer, StaticPlan, plan_static, weight_axis
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import (
    ChosenWeight,
    ChosenWeights,
    NodeRules,
    TensorRange,
    TensorStatistics,
    rules_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["OptimizeScales"]

Floats = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_METHOD = "optimize-scales"
_BUDGET = 1 << 26
"""Bytes of rows that are held at a time."""


@dataclass(frozen=True)
class OptimizeScales(GraphPass):
    """Search the scales of weights and activations for the outputs of each layer (EasyQuant).

    Attributes:
        measure: ``error``, or the paper's ``cosine``.
        least: Smallest factor that is tried.
        most: Largest factor that is tried.
        points: Factors between them.
        rounds: Times that weights and activations take turns, at most.
        rows: Rows of a layer's input that the search looks at.
        layers: ``auto``: without products over positions of sequences; ``all``.
        weight_bits: As in ``quantize-static``.
        activation_bits: As in ``quantize-static``.
        weight_scales: As in ``quantize-static``.
        batch: Samples run at a time.
    """

    name: ClassVar[str] = _METHOD
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    measure: Literal["error", "cosine"] = "error"
    least: float = 0.5
    most: float = 1.2
    points: int = 18
    rounds: int = 2
    rows: int = 512
    layers: Literal["auto", "all"] = "auto"
    weight_bits: Literal[8, 7, 4] = 8
    activation_bits: Literal[8, 7] = 8
    weight_scales: Literal["channel", "tensor"] = "channel"
    batch: int = 8

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if not 0.0 < self.least <= self.most:
            raise UsageError(f"optimize-scales: no factor lies in [{self.least}, {self.most}]")
        for name in ("points", "rounds", "rows", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"optimize-scales: {name} is at least 1")
        if self.weight_bits not in (8, 7, 4) or self.activation_bits not in (8, 7):
            raise UsageError(
                f"optimize-scales: weights of {self.weight_bits} and activations of "
                f"{self.activation_bits} bits",
                hint="weights of 8, 7 or 4, activations of 8 or 7",
            )
        for name, known in (
            ("weight_scales", ("channel", "tensor")),
            ("layers", ("auto", "all")),
            ("measure", ("error", "cosine")),
        ):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"optimize-scales: {name} is '{getattr(self, name)}'", hint=" or ".join(known)
                )

    def run(self, program: Program, context: Context) -> bool:
        """Search; the program stays as it is.

        Raises:
            PassError: No ranges to start from, or no calibration data.
            UsageError: Data that does not fit the model.
        """
        rules = rules_of(context)
        plan = plan_static(program.model, rules)
        statistics = context.get(TensorStatistics)
        done = {} if statistics is None else statistics.methods
        units = [
            unit
            for unit in _units(plan, self.layers == "all")
            if done.get(unit.origin.name or "") != _METHOD
        ]
        if not units:
            return False
        if statistics is None or context.calibration is None:
            raise PassError(
                "optimize-scales has no ranges to start from",
                why="no calibration ran in this pipeline",
                hint="give calibration data (--calib data.npz), put 'calibrate' before this pass",
            )
        chosen = dict((context.get(ChosenWeights) or ChosenWeights()).weights)
        ranges, methods = dict(statistics.ranges), dict(statistics.methods)
        with context.progress.task("searching scales", len(units)) as task:
            for part in _parts(units, self.rows):
                for unit, samples in self._read(program, part, context):
                    name = unit.origin.name or ""
                    if name not in ranges:
                        raise PassError(
                            f"the range of '{name}' was not measured",
                            why="the graph changed after 'calibrate'",
                            hint="put 'calibrate' directly before 'optimize-scales'",
                        )
                    search = _Search(self, unit, samples, ranges[name], chosen, rules)
                    ranges[name] = search.run()
                    methods[name] = _METHOD
                    chosen.update(search.weights())
                    task.advance()
        context.put(replace(statistics, ranges=ranges, methods=methods))
        context.put(ChosenWeights(chosen))
        return False

    def _read(
        self, program: Program, units: list[_Unit], context: Context
    ) -> Iterator[tuple[_Unit, Mapping[_Key, Floats]]]:
        """Run the data once; yield units with the rows of their layers' inputs."""
        from qcomp.execute import HybridSession

        assert context.calibration is not None
        samples = {
            key: RowSample(key[1], self.rows, np.random.default_rng([context.seed, index]))
            for index, key in enumerate(dict.fromkeys(key for unit in units for key in unit.keys))
        }
        given = {value.name for value in program.model.graph.inputs}
        taps = list(dict.fromkeys(name for name, _ in samples if name not in given))
        session = HybridSession(program, taps=taps, only_taps=True)
        batches = checked_batches(program.model, context.calibration(), self.batch)
        for index, feeds in enumerate(batches):
            values = {**feeds, **session.run(feeds, taps, seed=context.seed + index)}
            for (name, _), sample in samples.items():
                sample.add(np.asarray(values[name]))
        left = [key for unit in units for key in unit.keys]
        rows: dict[_Key, Floats] = {}
        for unit in units:
            for key in dict.fromkeys(unit.keys):
                if key not in rows:
                    rows[key] = samples[key].take()
            yield unit, rows
            for key in unit.keys:
                left.remove(key)
                if key not in left:
                    del rows[key]


_Key = tuple[str, Geometry]


@dataclass(slots=True, eq=False)
class _Unit:
    """A stored activation and the layers that read it.

    Attributes:
        origin: The value that gets the scale; the layers may read it behind moves.
        layers: Layers with weights, in graph order.
        keys: For each of them, name and geometry of the value that it reads.
        carried: Whether an Add, Mul, Concat or pool reads it too.
    """

    origin: ir.Value
    layers: list[PlannedLayer] = field(default_factory=list)
    keys: list[_Key] = field(default_factory=list)
    carried: bool = False


def _units(plan: StaticPlan, sequences: bool) -> list[_Unit]:
    """The activations that layers with weights read, in graph order.

    Args:
        plan: Of the graph.
        sequences: Whether products over the positions of sequences count as layers.
    """
    source = {node.outputs[0]: node.inputs[0] for node in plan.moves}
    units: dict[ir.Value, _Unit] = {}
    carried: set[ir.Value] = set()
    for layer in plan.layers:
        for index in layer.activations:
            value = layer.node.inputs[index]
            assert value is not None
            origin = value
            while origin in source:
                moved = source[origin]
                assert moved is not None
                origin = moved
            if origin.name not in plan.measured:
                continue
            if not layer.weighted or not _is_layer(layer.node, sequences):
                carried.add(origin)
                continue
            unit = units.setdefault(origin, _Unit(origin))
            shape = [int(dim) for dim in float_weight(layer.node.inputs[1]).shape.numpy()]
            unit.layers.append(layer)
            unit.keys.append((value.name or "", layer_geometry(layer.node, shape)))
    for unit in units.values():
        unit.carried = unit.origin in carried
    return list(units.values())


def _is_layer(node: ir.Node, sequences: bool) -> bool:
    """Whether a layer's scales are searched for."""
    if node.op_type == "MatMul" and not sequences:
        shape = static_shape(node.inputs[0])
        return shape is not None and len(shape) == 2
    return node.op_type in ("Conv", "Gemm", "MatMul")


def _parts(units: list[_Unit], rows: int) -> Iterator[list[_Unit]]:
    """Cut the units into pieces whose rows fit the budget together."""
    part: list[_Unit] = []
    size = 0
    for unit in units:
        bytes_ = 0
        for layer in unit.layers:
            shape = [int(dim) for dim in float_weight(layer.node.inputs[1]).shape.numpy()]
            outputs = shape[weight_axis(layer.node)]
            group = layer_geometry(layer.node, shape).group
            bytes_ += 4 * rows * group * int(np.prod(shape)) // max(1, outputs)
        if part and size + bytes_ > _BUDGET:
            yield part
            part, size = [], 0
        part.append(unit)
        size += bytes_
    if part:
        yield part


class _Layer:
    """One layer in the search: its rows, its float output, its weight as it is quantized now."""

    def __init__(
        self, node: ir.Node, x: Floats, group: int, kind: IntegerType, fixed: ChosenWeight | None
    ) -> None:
        self.node, self.group, self.x = node, group, x
        self.kind = kind
        self.columns = read_columns(node, group)
        check_finite(str(node.inputs[1] and node.inputs[1].name), self.columns)
        self.bias = layer_bias(node, group)
        self.wanted = self.product(x, self.columns)
        self.fixed = fixed
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


class _Search:
    """The search for one activation and the weights that multiply it."""

    def __init__(
        self,
        options: OptimizeScales,
        unit: _Unit,
        samples: Mapping[_Key, Floats],
        start: TensorRange,
        chosen: Mapping[str, ChosenWeight],
        rules: NodeRules,
    ) -> None:
        self.options = options
        self.start = start
        self.unit = unit
        self.kind = IntegerType(options.activation_bits, signed=False)
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
            if fixed is None:
                axis = None if options.weight_scales == "tensor" else 1
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
                moved |= layer.fixed is None and self._weigh(index, layer, x[index])
            scores = [self._score(f * factor) for f in self.factors]
            best = int(np.argmax(scores))
            factor = factor * self.factors[best]
            if not best and not moved:
                break
        low, high = float(factor) * self.start.low, float(factor) * self.start.high
        return replace(self.start, low=low, high=high)

    def weights(self) -> dict[str, ChosenWeight]:
        """The integers of the weights that were searched."""
        found = {}
        for layer, scale in zip(self.layers, self.scales, strict=True):
            value = layer.node.inputs[1]
            assert value is not None
            if layer.fixed is not None:
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
                method=_METHOD,
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
        low, high = float(factor) * self.start.low, float(factor) * self.start.high
        found = affine_parameters(low, high, self.kind)
        levels = quantize(x, found.scale, found.zero_point, self.kind)
        return dequantize(levels, found.scale, found.zero_point)

    def _weigh(self, index: int, layer: _Layer, x: Floats) -> bool:
        """Search the scales of one weight; return whether any changed."""
        scale = self.scales[index]
        pairs = [layer.sums(x, self._fake(layer, factor * scale)) for factor in self.factors]
        a = np.stack([pair[0].reshape(-1) for pair in pairs])
        b = np.stack([pair[1].reshape(-1) for pair in pairs])
        if self.options.weight_scales == "tensor":
            a, b = a.sum(1, keepdims=True), b.sum(1, keepdims=True)
        best = _best_factors(a, b, self.options.measure)
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


def _best_factors(a: Float64, b: Float64, measure: str) -> npt.NDArray[np.intp]:
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
