"""Bias correction: the mean error that integers add to each output channel goes into its bias.

Rounding a weight W to W_q, and its input x to x_q, shifts the mean of an output channel by

    e_c = E[W_q x_q]_c - E[W x]_c                 b'_c = b_c - e_c

which the next layers take for signal. Three ways to know e:

* ``local``: the float program runs on the calibration data, and beside each layer the same layer
  with W_q and with its input rounded to the integers' grid. What earlier layers added to its input
  is left out: it is corrected there.
* ``data``: both programs run on the calibration data, layer by layer from the front, so that a
  layer is corrected behind layers that are correct already. e is then exact on these data.
* ``analytic``: e = (W_q - W) E[x], without data. E[x] of a channel behind a Relu or Clip to [a, b]
  is that of a clipped normal distribution with the mean m and deviation s that the
  BatchNormalization folded in front of it had (beta and abs(gamma)):

    E[x] = m (Phi(v) - Phi(u)) + s (phi(u) - phi(v)) + a Phi(u) + b (1 - Phi(v))
    u = (a - m) / s,  v = (b - m) / s             (b = inf: v = inf, no last term)

``auto`` leaves products over the positions of sequences (MatMul of another rank than 2) alone:
positions that only pad a row would count in their means, and on transformers it costs decibels.

Int32 biases change by whole steps, those of 8-bit convolutions are float in the file.

Preconditions: ``quantize-static`` ran in this pipeline.
Preserved: nothing exactly; each layer is corrected once a pipeline, as the fact
:class:`qcomp.quantization.CorrectedBiases` says.
Cost: ``local``: a run of the float program over at most ``samples`` samples, and for each batch one
sample of every layer with the dequantized weights, which are in memory; ``data``: a run of the
float program and one of the integer program for each layer; ``analytic``: a pass over the weights.
Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2 and appendix C and D; Nagel et al. 2021,
arXiv:2106.08295, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.integer_rules import IntegerRules, integer_rules_of
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.graph.layer_pairs import LayerForm, constant_addend, read_view
from qcomp.passes.graph.rewriting import (
    Editor,
    constant_array,
    node_label,
    only_use,
    static_shape,
)
from qcomp.passes.quantize.dequantized_weights import dequantized_weight, stored_weight
from qcomp.passes.quantize.machine_form import bias_levels
from qcomp.passes.quantize.mean_errors import mean_error
from qcomp.passes.quantize.static_plan import activation_bounds
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import (
    ChannelMoments,
    CorrectedBiases,
    FloatReference,
    QuantizationRecord,
    QuantizedLayer,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["CorrectBias", "clipped_normal_mean"]

Float64 = npt.NDArray[np.float64]
Feeds = Mapping[str, npt.NDArray[np.generic]]

_LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class CorrectBias(GraphPass):
    """Take the mean error of integer layers out of their biases.

    Attributes:
        method: ``local``, ``data``, ``analytic``, or ``auto``: ``local`` if there are calibration
            data, else ``analytic``, without products over positions of sequences.
        samples: Samples to run, at most.
        batch: Samples run at a time.
    """

    name: ClassVar[str] = "correct-bias"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    method: Literal["auto", "local", "data", "analytic"] = "auto"
    samples: int = 128
    batch: int = 8

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if self.method not in ("auto", "local", "data", "analytic"):
            raise UsageError(
                f"correct-bias has no method '{self.method}'", hint="auto, local, data or analytic"
            )
        if self.samples < 1 or self.batch < 1:
            raise UsageError("correct-bias: samples and batch are at least 1")

    def run(self, program: Program, context: Context) -> bool:
        """Correct what has a bias; return whether any changed.

        Raises:
            PassError: ``local`` or ``data`` is asked for and there are no calibration data.
            UsageError: Data that does not fit the model.
        """
        record, reference = context.get(QuantizationRecord), context.get(FloatReference)
        if record is None or reference is None:
            return False
        fact = context.get(CorrectedBiases) or CorrectedBiases({}, {})
        known = {*fact.layers, *fact.left}
        layers = [
            layer
            for layer in record.layers
            if layer.scheme == "static" and layer.weight and layer.node not in known
        ]
        if not layers:
            return False
        if self.method in ("local", "data") and context.calibration is None:
            raise PassError(
                "correct-bias has no calibration data", hint="--calib data.npz, or method=analytic"
            )
        machine = integer_rules_of(context)
        places, left = _places(program, reference.program, layers, machine)
        if self.method == "auto":
            left |= {p.layer.node: _POSITIONS for p in places if _over_positions(p.float_node)}
            places = [place for place in places if place.layer.node not in left]
        editor = Editor(program.model)
        done: dict[str, float] = {}
        if self.method == "analytic" or context.calibration is None:
            changes = _by_moments(program, places, context, left)
        elif self.method == "data":
            changes = self._by_data(program, reference.program, places, context)
        else:
            changes = self._by_layer(program, reference.program, places, context)
        for place, change in changes:
            done[place.layer.node] = place.add(editor, change)
        context.put(CorrectedBiases({**fact.layers, **done}, {**fact.left, **left}))
        return any(done.values())

    def _batches(self, program: Program, context: Context) -> Iterator[tuple[int, Feeds]]:
        assert context.calibration is not None
        taken = 0
        batches = checked_batches(program.model, context.calibration(), self.batch)
        for index, feeds in enumerate(batches):
            if taken >= self.samples:
                return
            yield context.seed + index, feeds
            taken += _rows(feeds)

    def _by_data(
        self, program: Program, reference: Program, places: list[_Place], context: Context
    ) -> Iterator[tuple[_Place, Float64]]:
        """Yield the corrections from the front; each is made before the next is measured."""
        wanted = self._means(reference, {p.real: p.axis for p in places}, context)
        with context.progress.task("correcting biases", len(places)) as task:
            for place in places:
                name = place.value.name or ""
                found = self._means(program, {name: place.axis}, context)
                if name in found:
                    yield place, wanted[place.real] - found[name]
                task.advance()

    def _by_layer(
        self, program: Program, reference: Program, places: list[_Place], context: Context
    ) -> Iterator[tuple[_Place, Float64]]:
        """Yield the corrections of layers that read float values, rounded."""
        if not places:
            return
        twins = type(program)(reference.model.clone(), reference.circuits, reference.source)
        editor = Editor(twins.model)
        nodes = {node_label(node): node for node in twins.model.graph}
        names = {
            place.layer.node: mean_error(
                editor, nodes[place.layer.node], place.node, _rounded(program, place)
            )
            for place in places
        }
        from qcomp.execute import HybridSession

        session = HybridSession(twins, taps=list(names.values()))
        total: dict[str, Float64] = {}
        rows = 0
        for seed, feeds in self._batches(twins, context):
            count = _rows(feeds)
            values = session.run(feeds, list(names.values()), seed=seed)
            for node, name in names.items():
                shift = count * np.asarray(values[name], np.float64)
                total[node] = total[node] + shift if node in total else shift
            rows += count
        for place in places:
            if rows:
                yield place, -total[place.layer.node] / rows

    def _means(
        self, program: Program, axes: Mapping[str, int], context: Context
    ) -> dict[str, Float64]:
        """Mean of each channel of some values over the data."""
        from qcomp.execute import HybridSession

        if not axes:
            return {}
        names = list(axes)
        session = HybridSession(program, taps=names)
        sums: dict[str, tuple[int, Float64]] = {}
        for seed, feeds in self._batches(program, context):
            values = session.run(feeds, names, seed=seed)
            for name in names:
                flat = np.moveaxis(np.asarray(values[name]), axes[name], -1)
                count, total = sums.get(name, (0, np.zeros(flat.shape[-1])))
                rows = flat.size // flat.shape[-1]
                outer = tuple(range(flat.ndim - 1))
                sums[name] = (count + rows, total + flat.sum(outer, dtype=np.float64))
        return {name: total / count for name, (count, total) in sums.items() if count}


_POSITIONS = "positions that pad a sequence would count in its mean: method=local takes it too"


def _over_positions(node: ir.Node) -> bool:
    """Whether a matrix product reads more than rows, or may."""
    shape = static_shape(node.inputs[0])
    return node.op_type == "MatMul" and (shape is None or len(shape) != 2)


def _rows(feeds: Feeds) -> int:
    return max((array.shape[0] for array in feeds.values() if array.ndim), default=1)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the bias of one integer layer is.

    Attributes:
        layer: Its record.
        float_node: The layer in the float graph.
        real: Name of its result there.
        node: The integer layer.
        value: The same result in the integer graph.
        holder: Node and input index of the bias.
        machine: The form that biases have.
    """

    layer: QuantizedLayer
    float_node: ir.Node
    real: str
    node: ir.Node
    value: ir.Value
    holder: tuple[ir.Node, int]
    machine: IntegerRules

    @property
    def axis(self) -> int:
        return 1 if self.layer.op_type == "Conv" else -1

    def add(self, editor: Editor, change: Float64) -> float:
        """Add to the bias; return the largest change that was made."""
        if not np.isfinite(change).all():
            return 0.0
        node, index = self.holder
        value = node.inputs[index] if len(node.inputs) > index else None
        pair = None if value is None else value.producer()
        if pair is not None and pair.op_type == "DequantizeLinear":
            return _add_steps(editor, pair, change)
        if value is None and not self._float_bias():
            return self._new_integers(editor, change)
        old = constant_array(value)
        b = np.zeros(len(change)) if old is None else old.reshape(-1).astype(np.float64)
        made = (b + change).astype(np.float32)
        if (made == b.astype(np.float32)).all():
            return 0.0
        if old is not None:
            made = made.reshape(old.shape)
        name = node_label(node) if value is None or not value.name else value.name
        _put(node, index, editor.initializer(f"{name}_corrected", made))
        if value is not None:
            editor.drop_if_unused(value)
        return float(np.abs(change).max())

    def _float_bias(self) -> bool:
        """Whether the machine takes a float bias of this layer, or rounds it itself."""
        weight = self.node.inputs[1].producer() if self.node.inputs[1] is not None else None
        levels = None if weight is None else weight.inputs[0]
        made = None if levels is None else levels.producer()
        return self.machine.bias_of(self.node.op_type) == "float" and made is None

    def _new_integers(self, editor: Editor, change: Float64) -> float:
        """Give a layer without bias one of integers: s32 in steps of s_x s_W, or s8."""
        pairs = [value.producer() for value in self.node.inputs[:2] if value is not None]
        steps = [constant_array(pair.inputs[1]) for pair in pairs if pair is not None]
        assert len(steps) == 2
        step = np.asarray(np.multiply(*(np.asarray(s, np.float32) for s in steps)), np.float32)
        form = "s8" if self.machine.bias == "s8" else "s32"
        levels, scale = bias_levels(change.astype(np.float32), form, step, self.machine)
        if not levels.any():
            return 0.0
        name = node_label(self.node)
        point = np.zeros(scale.shape, levels.dtype)
        zero = [editor.initializer(f"{name}_bias_zero_point", point)] if form == "s8" else []
        made = editor.node(
            "DequantizeLinear",
            [
                editor.initializer(f"{name}_bias_quantized", levels),
                editor.initializer(f"{name}_bias_scale", scale),
                *zero,
            ],
            {"axis": 0},
            name=f"{name}_bias_DequantizeLinear",
            domain=pairs[1].domain if pairs[1] is not None else "",
            before=self.node,
        )
        _put(self.node, 2, made.outputs[0])
        return float(np.abs(levels.astype(np.float32) * scale).max())


def _put(node: ir.Node, index: int, value: ir.Value) -> None:
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _add_steps(editor: Editor, pair: ir.Node, change: Float64) -> float:
    """Add whole steps to a bias of integers."""
    levels, scale = constant_array(pair.inputs[0]), constant_array(pair.inputs[1])
    old = pair.inputs[0]
    assert levels is not None
    assert scale is not None
    assert old is not None
    steps = np.rint(change / scale.astype(np.float64))
    if not steps.any():
        return 0.0
    limits = np.iinfo(np.int8 if levels.dtype == np.int8 else np.int32)
    made = np.clip(levels.astype(np.float64) + steps, limits.min, limits.max).astype(levels.dtype)
    pair.replace_input_with(0, editor.initializer(f"{old.name}_corrected", made))
    editor.drop_if_unused(old)
    return float(np.abs(steps * scale).max())


def _places(
    program: Program, reference: Program, layers: list[QuantizedLayer], machine: IntegerRules
) -> tuple[list[_Place], dict[str, str]]:
    """Find the biases in graph order, and say why a layer has no place for one."""
    before = {node_label(node): node for node in reference.model.graph}
    after = {node_label(node): node for node in program.model.graph}
    order = {node: index for index, node in enumerate(program.model.graph)}
    places: list[_Place] = []
    left: dict[str, str] = {}
    for layer in layers:
        real = before.get(layer.node)
        node = after.get(layer.node)
        if node is None or node.op_type not in _LAYERS:
            node = after.get(f"{layer.node}_MatMul")
        if real is None or node is None or node.op_type not in _LAYERS:
            left[layer.node] = "it is not found in both graphs"
            continue
        value = node.outputs[0]
        holder: tuple[ir.Node, int] | None = (node, 2)
        if node.op_type == "MatMul":
            user = only_use(value)
            channels = LayerForm.of(real).outer
            holder = None if user is None else constant_addend(user, channels)
            if holder is None:
                left[layer.node] = "a matrix product without an addition behind it has no bias"
                continue
            if real.op_type == "Gemm":
                value = holder[0].outputs[0]
        assert holder is not None
        name = real.outputs[0].name or ""
        places.append(_Place(layer, real, name, node, value, holder, machine))
    places.sort(key=lambda place: order[place.node])
    return places, left


def clipped_normal_mean(mean: Float64, deviation: Float64, low: float, high: float) -> Float64:
    """Mean of normal values clipped to [low, high], see the module's equation."""
    s = np.maximum(deviation, 1e-30)
    u, v = (low - mean) / s, (high - mean) / s

    def density(z: Float64) -> Float64:
        return np.asarray(np.exp(-0.5 * np.minimum(z * z, 1400.0)) / np.sqrt(2.0 * np.pi))

    def ndtr(z: Float64) -> Float64:  # Phi
        return np.array([0.5 * math.erfc(-x / math.sqrt(2.0)) for x in z.tolist()])

    inside = mean * (ndtr(v) - ndtr(u)) + s * (density(u) - density(v))
    if np.isfinite(low):
        inside = inside + low * ndtr(u)
    if np.isfinite(high):
        inside = inside + high * ndtr(-v)
    return np.asarray(inside, np.float64)


def _rounded(program: Program, place: _Place) -> npt.NDArray[np.float32]:
    """The weight that the integers of a layer stand for, laid out as the float one."""
    levels = stored_weight(program.model, place.layer.quantized)
    assert levels is not None
    stored, rows_out = dequantized_weight(levels)
    form = LayerForm.of(place.float_node)
    return stored.T if form.op_type != "Conv" and rows_out != form.rows_out else stored


def _by_moments(
    program: Program,
    places: list[_Place],
    context: Context,
    left: dict[str, str],
) -> Iterator[tuple[_Place, Float64]]:
    """Yield the corrections that the moments of BatchNormalizations tell."""
    fact = context.get(ChannelMoments)
    moments = {} if fact is None else fact.moments
    for place in places:
        source = place.float_node.inputs[0]
        producer = None if source is None else source.producer()
        bounds = None if producer is None else activation_bounds(producer)
        before = None if producer is None or bounds is None else producer.inputs[0]
        known = None if before is None else moments.get(before.name or "")
        form = LayerForm.of(place.float_node)
        if known is None or bounds is None or known[0].size != form.groups * form.inner:
            left[place.layer.node] = "no BatchNormalization tells the mean of its input"
            continue
        rounded = np.ascontiguousarray(_rounded(program, place)).astype(np.float64)
        error = form.view(rounded) - read_view(place.float_node)
        expected = form.spread(clipped_normal_mean(*known, *bounds), "in")
        yield place, -(error * expected).sum((1, 3)).reshape(-1)
