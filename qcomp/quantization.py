"""Facts about quantization: what was measured, what was done, how well it went.

Passes put them into the context; backends and reports read them. They are plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError
from qcomp.node_rules import NodeOptions, NodeRules, rules_of

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = [
    "AbsorbedBiases",
    "ChannelMoments",
    "ChosenWeight",
    "ChosenWeights",
    "CorrectedBiases",
    "FeedbackError",
    "FeedbackErrors",
    "FloatOp",
    "FloatReference",
    "FusionOutcome",
    "FusionReport",
    "GeneratedData",
    "LayerError",
    "LearnedRounding",
    "NodeOptions",
    "NodeRules",
    "QuantizationError",
    "QuantizationRecord",
    "QuantizedLayer",
    "ResidualTerms",
    "SqnrSum",
    "TensorRange",
    "TensorStatistics",
    "rules_of",
    "sqnr",
]


@dataclass(frozen=True, slots=True)
class TensorRange:
    """The range that a quantizer of one tensor must cover.

    Attributes:
        low: Lower end chosen by the method, at most ``high``.
        high: Upper end chosen by the method.
        minimum: Smallest value seen.
        maximum: Largest value seen.
        count: Number of values seen.
    """

    low: float
    high: float
    minimum: float
    maximum: float
    count: int


@dataclass(frozen=True, slots=True)
class TensorStatistics:
    """Ranges of activation tensors by value name: what ``calibrate`` leaves in the context.

    Attributes:
        method: Name of the range method.
        samples: Number of calibration samples.
        ranges: Value name -> range.
        methods: Value name -> its own method; ``method`` for a name that is missing.
    """

    method: str
    samples: int
    ranges: Mapping[str, TensorRange]
    methods: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class ChannelMoments:
    """Mean and standard deviation of activations by channel, as BatchNormalizations had them.

    ``fuse-batch-norm`` leaves them: a normalized value has mean beta and deviation |gamma|. Passes
    that scale or shift such a value keep them right.

    Attributes:
        moments: Value name -> (mean float64[C], standard deviation float64[C]).
    """

    moments: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]


@dataclass(frozen=True, slots=True)
class GeneratedData:
    """The calibration data are made up: ``generate-data`` leaves this, and no samples were given.

    Attributes:
        samples: Number of rows.
        inputs: Input name -> what it was made to be, in words.
    """

    samples: int
    inputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AbsorbedBiases:
    """What ``absorb-bias`` moved.

    Attributes:
        layers: Layer before the Relu -> (channels that were shifted, largest shift).
    """

    layers: Mapping[str, tuple[int, float]]


@dataclass(frozen=True, slots=True)
class CorrectedBiases:
    """What ``correct-bias`` did.

    Attributes:
        layers: Layer -> largest change of its bias.
        left: Layer that was not corrected -> why.
    """

    layers: Mapping[str, float]
    left: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class ChosenWeight:
    """The integers of one weight that a pass chose, as ONNX DequantizeLinear reads them.

        W ~ (levels - zero_point) scale

    | scales    | axis             | group | shape of scale and zero_point            |
    |-----------|------------------|-------|------------------------------------------|
    | a tensor  | any              | None  | []                                       |
    | a channel | output channels  | None  | [C]                                      |
    | a block   | input channels K | g     | the weight's, ceil(K / g) along the axis |

    Attributes:
        levels: int8, shaped as the float weight, in [-2^(bits-1), 2^(bits-1) - 1].
        scale: float32, may be negative in blocks.
        zero_point: int8 in the same range; None for 0.
        axis: Axis of the weight that channels, or blocks, lie along.
        group: Weights that share a scale; None for a whole channel or tensor.
        bits: 2 to 8.
        method: How they were chosen, for reports.

    Raises:
        PassError: Parts that do not fit together.
    """

    levels: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int8] | None
    axis: int
    group: int | None
    bits: int
    method: str

    def __post_init__(self) -> None:
        """Check shapes, types and ranges."""
        shape, half = self.levels.shape, 1 << (self.bits - 1)
        wanted: list[tuple[int, ...]] = [(), shape[self.axis : self.axis + 1]]
        if self.group is not None:
            count = -(-shape[self.axis] // self.group)
            wanted = [(*shape[: self.axis], count, *shape[self.axis + 1 :])]
        arrays = [self.levels] + ([] if self.zero_point is None else [self.zero_point])
        if not 2 <= self.bits <= 8 or not 0 <= self.axis < len(shape):
            raise PassError(f"integers of {self.bits} bits along axis {self.axis}", hint="2 to 8")
        if self.scale.shape not in wanted or self.scale.dtype != np.float32:
            raise PassError(
                f"scales {self.scale.dtype}{list(self.scale.shape)} do not fit integers "
                f"{list(shape)}",
                hint=f"float32, one of the shapes {wanted}",
            )
        if self.zero_point is not None and self.zero_point.shape != self.scale.shape:
            raise PassError("zero points and scales have different shapes")
        for array in arrays:
            if array.dtype != np.int8 or (array < -half).any() or (array > half - 1).any():
                raise PassError(f"integers outside of [{-half}, {half - 1}], or not int8")

    def transposed(self) -> ChosenWeight:
        """The same of the transposed matrix."""
        blocked = self.group is not None
        zero = self.zero_point
        return replace(
            self,
            levels=np.ascontiguousarray(self.levels.T),
            scale=np.ascontiguousarray(self.scale.T) if blocked else self.scale,
            zero_point=np.ascontiguousarray(zero.T) if blocked and zero is not None else zero,
            axis=1 - self.axis,
        )

    def spread(self, part: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Scales or zero points so that they broadcast over the weight."""
        if part.ndim == 0:
            return part
        if self.group is None:
            return part.reshape([-1 if a == self.axis else 1 for a in range(self.levels.ndim)])
        wide = np.repeat(part, self.group, axis=self.axis)
        return wide.take(range(self.levels.shape[self.axis]), axis=self.axis)

    def real(self) -> npt.NDArray[np.float32]:
        """The float32 weight that the integers stand for."""
        levels = self.levels.astype(np.float32)
        if self.zero_point is not None:
            levels -= self.spread(self.zero_point).astype(np.float32)
        return np.asarray(levels * self.spread(self.scale).astype(np.float32), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ChosenWeights:
    """Weights whose integers a pass chose: quantizing passes take them and round nothing.

    They stand for the float weights that the graph has: passes that change those come before.

    Attributes:
        weights: Name of the float weight -> its integers.
    """

    weights: Mapping[str, ChosenWeight] = field(default_factory=dict)

    def find(self, name: str | None, shape: tuple[int, ...]) -> ChosenWeight | None:
        """The integers of a weight; None if nobody chose them.

        Raises:
            PassError: The weight has another shape by now.
        """
        chosen = self.weights.get(name or "")
        if chosen is not None and chosen.levels.shape != tuple(shape):
            raise PassError(
                f"the integers chosen for '{name}' are for another shape",
                why=f"{list(chosen.levels.shape)} were chosen, the graph has {list(shape)}",
                hint=f"put the pass that chose them ({chosen.method}) behind those that change "
                "weights",
            )
        return chosen

    def joined(self, more: Mapping[str, ChosenWeight]) -> ChosenWeights:
        """Return these and more, which win."""
        return ChosenWeights({**self.weights, **more})


@dataclass(frozen=True, slots=True)
class LearnedRounding:
    """What ``learn-rounding`` did.

    Attributes:
        layers: Weight -> (whether learned integers were kept, decibels that its block gained over
            rounding to nearest on rows that were kept back).
        refused: Block that was not learned as a whole -> its operators without a gradient.
    """

    layers: dict[str, tuple[bool, float]]
    refused: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class FeedbackError:
    """What error feedback did to one layer.

    Attributes:
        node: Its name.
        rounded: Squared output error rounded to nearest, on the same grids' kind.
        left: Squared output error of what was chosen; against float's outputs where calibration is
            asymmetric, less what no choice can change.
        total: Squared output.
        kept: Output channels where rounding to nearest was better and stayed.
        channels: Output channels.
    """

    node: str
    rounded: float
    left: float
    total: float
    kept: int
    channels: int


@dataclass(frozen=True, slots=True)
class FeedbackErrors:
    """What error feedback did, layer by layer in the order of the graph.

    Attributes:
        method: Name of the pass.
        layers: One entry a layer.
    """

    method: str
    layers: tuple[FeedbackError, ...]


@dataclass(frozen=True, slots=True)
class ResidualTerms:
    """What ``quantize-residual`` left of each weight.

    Attributes:
        errors: Layer -> largest error of its weight over the largest weight, by order.
    """

    errors: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """One operator that now computes with integers.

    Attributes:
        node: Name of the operator in the source graph.
        op_type: Its operator type there.
        scheme: ``static``, ``dynamic`` or ``weights``.
        weight: Name of the float weight, "" if it has none.
        quantized: Name of the integer weight, "" if it has none.
        weight_type: As ``s8`` or ``u4/32`` (bits/group); "" if it has no weight.
        kernel: The integer kernel that ONNX Runtime is expected to run for it.
        source: Name of the value it computes in the float graph.
        output: Name of that value in the quantized graph, as a float tensor.
        method: How its weight was rounded; "" for to nearest.
    """

    node: str
    op_type: str
    scheme: str
    weight: str
    quantized: str
    weight_type: str
    kernel: str
    source: str
    output: str
    method: str = ""


@dataclass(frozen=True, slots=True)
class FloatOp:
    """One operator that was left in float, and why."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class QuantizationRecord:
    """All layers that were quantized and all operators that were not, in graph order.

    Attributes:
        layers: Quantized operators.
        float_ops: Operators left in float with the reason.
    """

    layers: tuple[QuantizedLayer, ...] = ()
    float_ops: tuple[FloatOp, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class FloatReference:
    """The program before the first quantizing pass; its weights are shared, not copied."""

    program: Program


@dataclass(frozen=True, slots=True)
class LayerError:
    """Quantization error of one layer.

    Attributes:
        node: Name of the operator in the source graph.
        op_type: Its operator type there.
        weight_sqnr: Signal-to-quantization-noise ratio of its weight in dB; None without weight.
        output_sqnr: The same of its output, all earlier layers quantized too; None if not run.
    """

    node: str
    op_type: str
    weight_sqnr: float | None
    output_sqnr: float | None


@dataclass(frozen=True, slots=True)
class QuantizationError:
    """Quantization error per layer, in graph order.

    Attributes:
        layers: One entry a quantized layer.
        outputs: Graph output -> SQNR in dB over the samples.
        samples: Number of samples that outputs were compared on; 0 if none were.
        data: ``calibration``, ``generated`` or "" if outputs were not compared.
    """

    layers: tuple[LayerError, ...]
    outputs: Mapping[str, float]
    samples: int
    data: str

    def worst(self, count: int = 10) -> tuple[LayerError, ...]:
        """Return the layers with the lowest output SQNR (of the weight where it did not run)."""
        return tuple(sorted(self.layers, key=_badness)[:count])


def _badness(layer: LayerError) -> float:
    for value in (layer.output_sqnr, layer.weight_sqnr):
        if value is not None:
            return value
    return float("inf")


@dataclass(frozen=True, slots=True)
class FusionOutcome:
    """What became of one quantized layer in ONNX Runtime's optimised graph.

    Attributes:
        node: Name of the operator in the source graph.
        planned: The integer kernel that was counted on.
        found: The operator that runs in its place; "" when none could be told.
        integer: Whether that is an integer kernel.
    """

    node: str
    planned: str
    found: str
    integer: bool


@dataclass(frozen=True, slots=True)
class FusionReport:
    """Which quantized layers really run as integer kernels, and how far the outputs moved.

    Attributes:
        outcomes: One entry a quantized layer, in graph order.
        kernels: Operator type -> count, over the whole optimised graph.
        output_sqnr: Graph output -> SQNR in dB against float.
        samples: Number of samples compared; 0 if none were.
        data: ``calibration``, ``generated`` or "" if outputs were not compared.
        note: Why outputs were not compared, if they were not.
    """

    outcomes: tuple[FusionOutcome, ...]
    kernels: Mapping[str, int]
    output_sqnr: Mapping[str, float]
    samples: int
    data: str
    note: str = ""

    @property
    def unfused(self) -> tuple[FusionOutcome, ...]:
        """The layers that stayed in float against the plan."""
        return tuple(outcome for outcome in self.outcomes if not outcome.integer)


_CHUNK = 1 << 20
"""Values that are compared at a time."""


class SqnrSum:
    """Signal-to-quantization-noise ratio over a stream of batches."""

    __slots__ = ("noise", "signal")

    def __init__(self) -> None:
        self.signal = 0.0
        self.noise = 0.0

    def add(self, reference: npt.NDArray[np.generic], quantized: npt.NDArray[np.generic]) -> None:
        """Count one batch. Positions where the reference is not finite (masks) are left out."""
        flat, other = reference.reshape(-1), quantized.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            real = flat[start : start + _CHUNK].astype(np.float64)
            error = real - other[start : start + _CHUNK].astype(np.float64)
            keep = np.isfinite(real)
            if not keep.all():
                real, error = real[keep], error[keep]
            self.signal += float(real @ real)
            self.noise += float(error @ error)

    @property
    def decibels(self) -> float:
        """``10 log10(sum r^2 / sum (r - q)^2)``; inf without noise, -inf without signal."""
        if self.noise == 0.0:
            return float("inf")
        if self.signal == 0.0 or not np.isfinite(self.noise):
            return float("-inf")
        return float(10.0 * np.log10(self.signal / self.noise))


def sqnr(reference: npt.NDArray[np.generic], quantized: npt.NDArray[np.generic]) -> float:
    """Signal-to-quantization-noise ratio of one tensor in dB, see :class:`SqnrSum`."""
    total = SqnrSum()
    total.add(reference, quantized)
    return total.decibels
