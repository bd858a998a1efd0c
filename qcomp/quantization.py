"""Facts about quantization: what was measured, what was done, how well it went.

Passes put them into the context; backends and reports read them. They are plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.chosen_weights import ChosenWeight, ChosenWeights
from qcomp.node_rules import NodeOptions, NodeRules, rules_of

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = [
    "AbsorbedBiases",
    "CachedTensor",
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
    "StoredCaches",
    "TokenCaches",
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
        tried: Method -> its error, where several were; the least is ``left``.
        left_out: Methods that the budget had no work for.
    """

    node: str
    rounded: float
    left: float
    total: float
    kept: int
    channels: int
    tried: Mapping[str, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FeedbackErrors:
    """What error feedback did, layer by layer in the order of the graph.

    Attributes:
        method: Name of the pass; of several passes, with commas.
        layers: One entry a layer.
    """

    method: str
    layers: tuple[FeedbackError, ...]

    def joined(self, before: FeedbackErrors | None) -> FeedbackErrors:
        """With the layers of an earlier pass that this one did not round again."""
        done = {error.node for error in self.layers}
        kept = () if before is None else tuple(e for e in before.layers if e.node not in done)
        if before is None or not kept:
            return self
        names = dict.fromkeys([*before.method.split(", "), self.method])
        return FeedbackErrors(", ".join(names), (*kept, *self.layers))


@dataclass(frozen=True, slots=True)
class ResidualTerms:
    """What ``quantize-residual`` left of each weight.

    Attributes:
        errors: Layer -> largest error of its weight over the largest weight, by order.
    """

    errors: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class CachedTensor:
    """Keys or values of one attention that are rounded for each token and head.

    Attributes:
        node: The operator that reads them.
        part: ``keys`` or ``values``; the input of the graph that brings them.
        bits: Of a channel.
        heads: How many there are; None where the graph does not say.
        width: Channels of a head; None where the graph does not say.
    """

    node: str
    part: str
    bits: int
    heads: int | None
    width: int | None

    @property
    def bytes(self) -> int | None:
        """Bytes of a token in a cache: integers, and 16 bits for scale and offset of each head."""
        if self.heads is None or self.width is None:
            return None
        return self.heads * (-(-self.width * self.bits // 8) + 4)

    @property
    def float_bytes(self) -> int | None:
        """Bytes of a token in a cache of float32."""
        return None if self.heads is None or self.width is None else 4 * self.heads * self.width


@dataclass(frozen=True, slots=True)
class TokenCaches:
    """Keys and values that ``quantize-tokens{kv=...}`` rounds.

    Attributes:
        tensors: In graph order.
    """

    tensors: tuple[CachedTensor, ...]


@dataclass(frozen=True, slots=True)
class StoredCaches:
    """Keys and values that ``quantize-cache`` makes integers: the graph's interface is another.

    Attributes:
        tensors: In the order of the graph's inputs.
    """

    tensors: tuple[CachedTensor, ...]


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """One operator that now computes with integers.

    Attributes:
        node: Name of the operator in the source graph.
        op_type: Its operator type there.
        scheme: ``static``, ``dynamic``, ``weights`` or ``float8``.
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
