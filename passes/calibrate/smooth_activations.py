"""Outliers of activations move into the weights that multiply them, where they cost less.

For a matrix product over K input channels and any s > 0,

    x W = (x / s) (s * W)        s_j = max|x_j| ** a / max|W_j| ** (1 - a)

One scale serves a whole activation tensor, so a channel that is much larger than the others takes
the resolution of all of them; a weight has a scale for each output channel and bears it better. The
strength a is searched for each tensor: the a with the least squared error of the integer products,

    e(a) = || Q8(x / s) Q8(s * W) - x W ||^2

over rows of the calibration data, all layers that read the tensor together. The quotient 1 / s goes
into the scale and bias of the normalization that makes the tensor, where nothing else reads it, or
into the projection of values of the attention that makes it; elsewhere a Mul is inserted, if the
layers gain ``gain`` decibels by it.

A channel that lies to one side of zero wastes half of its range. Where a normalization with a bias
makes the tensor, the middles z of the channels' ranges leave that bias and z W goes into the biases
of the layers, if that lowers e(a) (:mod:`qcomp.passes.calibrate.smoothing_places`).

A second run finds s = 1: quotients of this family make another one of it.

Preconditions: calibration data in the context; weights are constants; before ``calibrate``.
Preserved: the function, up to float32 rounding.
Cost: one run of the model over ``samples`` samples; |strengths| products of ``rows`` rows a layer.
Source: Xiao et al. 2022, arXiv:2211.10438, equation 4; one strength a tensor in place of one a
model. Offsets: Wei et al. 2023, arXiv:2304.09145, section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.integer_rules import IntegerRules, integer_rules_of
from qcomp.passes.calibrate.quotients import Readers, SeenRows, inner_axis, see_rows
from qcomp.passes.calibrate.smoothing_places import BiasPlace, bias_place
from qcomp.passes.graph.rewriting import Editor, constant_array, read_weight
from qcomp.passes.quantize.arithmetic import affine_parameters, dequantize, quantize
from qcomp.passes.quantize.arithmetic import symmetric_scale as weight_scale
from qcomp.passes.quantize.integer_types import INT8, UINT8
from qcomp.passes.quantize.static_plan import plan_static
from qcomp.passes.quantize.tied import tied_weights
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import GeneratedData, NodeRules, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["SmoothActivations"]

Floats = npt.NDArray[np.float32]

_OFFSETS: Mapping[str, int] = {"LayerNormalization": 2, "SkipLayerNormalization": 3}
"""Operator -> its input that shifts each channel of its first output."""

_MOST = 8.0
"""What a quiet channel is multiplied by at most: other samples may find it louder than these."""

_ADD_GAIN = 0.5
"""Decibels that offsets must gain where an Add has to be made for them."""

_LEAST_GAIN = 0.05
"""Decibels below which nothing is moved: rounding of the search itself."""

_ENOUGH = 4096
"""Rows of a tensor that tell its channels' peaks: one that few rows excite is missed in fewer."""

_TINY = 1e-5


@dataclass(frozen=True, slots=True)
class _Moves:
    """What the search found for one tensor.

    Attributes:
        gain: Decibels that its layers gain.
        least: Decibels that it must be worth.
        quotients: s, float32[K].
        offsets: z, float32[K].
        places: Where the layers take z W.
    """

    gain: float
    least: float
    quotients: Floats
    offsets: Floats
    places: list[BiasPlace]

    @property
    def pay(self) -> bool:
        return self.gain >= self.least


@dataclass(frozen=True)
class SmoothActivations(GraphPass):
    """Move outliers of activations into the weights that read them, as far as it helps.

    Attributes:
        strengths: Values of the exponent a that are tried, each in [0, 1].
        rows: Rows of each activation that the search looks at.
        gain: Decibels that the layers must gain where a Mul has to be inserted.
        samples: Samples to look at; more where they show less than 4,096 rows of a tensor, and
            that something is gained.
        batch: Samples run at a time.
    """

    name: ClassVar[str] = "smooth-activations"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    strengths: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    rows: int = 256
    gain: float = 2.0
    samples: int = 64
    batch: int = 8

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if not self.strengths or not all(0.0 <= a <= 1.0 for a in self.strengths):
            raise UsageError("smooth-activations: strengths lie in [0, 1]", hint="0.5, 0.7, 0.9")
        if min(self.rows, self.samples, self.batch) < 1:
            raise UsageError("smooth-activations: rows, samples and batch are at least 1")

    def run(self, program: Program, context: Context) -> bool:
        """Move what pays; return whether anything was moved.

        Raises:
            UsageError: Data that does not fit the model.
        """
        found = _groups(program.model, rules_of(context), integer_rules_of(context))
        groups = {group.source.name or "": group for group in found}
        if not groups or context.calibration is None:
            return False
        smooth = self
        if context.get(GeneratedData) is not None:
            # Peaks of single channels on made up data are no more than a guess.
            smooth = replace(self, strengths=tuple(0.5 * a for a in self.strengths))

        def is_worth_more(name: str, seen: SeenRows) -> bool:
            moves = smooth._moves(groups[name], seen)
            return moves is not None and moves.pay

        seen = see_rows(
            program,
            list(groups),
            context,
            samples=self.samples,
            rows=self.rows,
            batch=self.batch,
            enough=_ENOUGH,
            worth=is_worth_more,
        )
        editor = Editor(program.model)
        moved = [smooth._smooth(editor, group, seen[name]) for name, group in groups.items()]
        return any(moved)

    def _smooth(self, editor: Editor, group: _Group, seen: SeenRows) -> bool:
        moves = self._moves(group, seen)
        if moves is None or not moves.pay:
            return False
        if moves.offsets.any():
            group.shift(editor, moves.offsets, moves.places)
        group.divide(editor, moves.quotients)
        return True

    def _moves(self, group: _Group, seen: SeenRows) -> _Moves | None:
        """What the layers of a tensor would gain; None where nothing can be said."""
        if not seen.usable():
            return None
        W = group.weights()
        if not W.any() or not np.isfinite(W).all():
            return None
        low, high = np.minimum(seen.low, 0), np.maximum(seen.high, 0)
        plain = _error(seen.kept, W, seen.kept @ W, low, high)
        error, s = self._searched(seen.kept, W, low, high)
        places = group.bias_places()
        z = np.zeros_like(s)
        if places:
            middle = np.asarray((seen.low + seen.high) / 2, np.float32)
            x, low, high = (
                np.asarray(part - middle, np.float32) for part in (seen.kept, seen.low, seen.high)
            )
            shifted, other = self._searched(x, W, low, high)
            least = 0.0 if all(place.holder for place in places) else _ADD_GAIN
            if _decibels(error, shifted) > least:
                error, s, z = shifted, other, middle
        folds = group.quotient() is not None
        least = _LEAST_GAIN if folds else max(self.gain, _LEAST_GAIN)
        return _Moves(_decibels(plain, error), least, s, z, places)

    def _searched(self, x: Floats, W: Floats, low: Floats, high: Floats) -> tuple[float, Floats]:
        """Return the least error that the strengths give, and its quotients s."""
        peak, reach = np.maximum(-low, high), np.abs(W).max(1)
        peak = np.maximum(peak, _TINY * peak.max())
        reach = np.maximum(reach, _TINY * reach.max())
        wanted = x @ W
        tried = []
        for a in self.strengths:
            s = peak**a / reach ** (1.0 - a)
            s = np.maximum(s / np.exp(np.log(s).mean()), 1.0 / _MOST).astype(np.float32)
            tried.append((_error(x / s, W * s[:, None], wanted, low / s, high / s), a, s))
        error, _, s = min(tried, key=lambda entry: entry[:2])
        return error, s


def _decibels(before: float, after: float) -> float:
    return float(10.0 * np.log10(max(before, 1e-300) / max(after, 1e-300)))


def _error(x: Floats, W: Floats, wanted: Floats, low: Floats, high: Floats) -> float:
    """Return ``|| Q8(x) Q8(W) - wanted ||^2`` for channel ranges [low, high]."""
    activation = affine_parameters(float(low.min()), float(high.max()), UINT8)
    levels = quantize(x, activation.scale, activation.zero_point, UINT8)
    scale = weight_scale(W, INT8, 1)
    weight = dequantize(quantize(W, scale, 0, INT8, 1), scale, 0, 1)
    got = dequantize(levels, activation.scale, activation.zero_point) @ weight
    return float(np.sum((got.astype(np.float64) - wanted) ** 2))


class _Group(Readers):
    """The layers that read one tensor, and where an offset of it goes."""

    def bias_places(self) -> list[BiasPlace]:
        """Where the layers give back what a normalization takes off; [] if one of them cannot."""
        node = self.normalization()
        index = None if node is None else _OFFSETS.get(node.op_type)
        if node is None or index is None or len(node.inputs) <= index or not node.inputs[index]:
            return []
        places = []
        for layer in self.layers:
            shape = float_weight(layer.inputs[1]).shape.numpy()
            place = bias_place(layer, int(shape[1 - inner_axis(layer)]))
            if place is None:
                return []
            places.append(place)
        return places

    def shift(self, editor: Editor, z: Floats, places: list[BiasPlace]) -> None:
        """Take z off the normalization's result and give z W back behind the layers."""
        node = self.normalization()
        assert node is not None
        index = _OFFSETS[node.op_type]
        beta = node.inputs[index]
        array = constant_array(beta)
        assert beta is not None
        assert array is not None
        made = np.asarray(array.reshape(-1).astype(np.float32) - z, array.dtype)
        node.replace_input_with(index, editor.initializer(f"{beta.name}_shifted", made))
        editor.drop_if_unused(beta)
        for place in places:
            with read_weight(float_weight(place.layer.inputs[1])) as W:
                view = np.asarray(W if inner_axis(place.layer) == 0 else W.T, np.float64)
                place.add(editor, z.astype(np.float64) @ view)


def _groups(model: ir.Model, rules: NodeRules, machine: IntegerRules) -> list[_Group]:
    """Return the tensors that integer matrix products will read, in graph order."""
    groups: dict[ir.Value, _Group] = {}
    # Their integers are those of the table, as long as the weights are.
    tied = {tie.layer for tie in tied_weights(model)}
    for layer in plan_static(model, rules, machine).layers:
        source = layer.node.inputs[0]
        if layer.node in tied:
            continue
        if layer.weighted and layer.node.op_type in ("MatMul", "Gemm") and source is not None:
            if layer.node.graph is model.graph and (source.dtype is None or source.dtype == 1):
                groups.setdefault(source, _Group(source, rules)).layers.append(layer.node)
    return list(groups.values())
