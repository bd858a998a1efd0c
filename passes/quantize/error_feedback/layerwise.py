"""Layers visited in the order of the graph, each with its quantized predecessors.

The *twin* of the program, which will be quantized, runs forward part by part, up to the inputs of
the next layers that read the same tensor; there second moments are gathered, the weights are
rounded, and from then on the twin computes with them. Beside it, where calibration is asymmetric,
the float program runs the same parts. Only values that later parts read are held.

Preconditions: calibration data.
Cost: one run of the model over the data (two where calibration is asymmetric), K^2 floats for the
input of a layer, and what the method takes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.calibrate.layer_rows import (
    Geometry,
    layer_geometry,
    read_columns,
    weight_like,
)
from qcomp.passes.graph.rewriting import check_finite, int_attribute, node_label, static_shape
from qcomp.passes.quantize.error_feedback.descent import descend, output_errors, refit
from qcomp.passes.quantize.error_feedback.factor import Factor, inverse_factor
from qcomp.passes.quantize.error_feedback.moments import Moments
from qcomp.passes.quantize.grids import Fit, Grid, Grids
from qcomp.passes.quantize.learn_rounding_graph import Layer, Stream, Twin, make_twin
from qcomp.passes.quantize.tied import tied_weights
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import ChosenWeight, ChosenWeights, FeedbackError, FeedbackErrors

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["ErrorFeedback", "Problem"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One matrix to round.

    Attributes:
        weight: float32[N, K], rows are output channels.
        hessian: H float32[K, K].
        drift: D float32[K, K], None where calibration is symmetric.
        importance: diag(H) float32[K].
        nearest: Grids fitted to the weight as it is.
        label: Of the layer, for messages.
        factors: Of H, found for other layers of the same input.
    """

    weight: Floats
    hessian: Floats
    drift: Floats | None
    importance: Floats
    nearest: Grids
    label: str
    factors: dict[tuple[float, bool], Factor | None] = field(default_factory=dict)

    def factor(self, damping: float, order: npt.NDArray[np.intp] | None) -> Factor | None:
        """The factor of the inverse of H, its rows and columns in ``order``; None if H has none.

        Args:
            damping: Share of the mean diagonal.
            order: As they are, or by ``importance``.
        """
        key = (damping, order is not None)
        if key not in self.factors:
            hessian = self.hessian if order is None else self.hessian[np.ix_(order, order)]
            self.factors[key] = inverse_factor(hessian, damping)
        return self.factors[key]


@dataclass(frozen=True)
class ErrorFeedback(GraphPass):
    """What GPTQ, GPTAQ, GPFQ and RSQ share: a pass that chooses integers for weights.

    Rows of a weight are independent; where rounding to nearest gives a row the smaller error, it
    is kept, so that no layer is worse than rounded.

    Attributes:
        bits: 2 to 8.
        group: Weights along the inputs that share a scale; 0: all of an output channel.
        symmetric: Whether zero points are fixed in the middle.
        fit: How grids are fitted: minmax, mse, lsq or hqq.
        scheme: What the weights are for: ``weights`` (activations in float) or ``static``
            (activations quantized as well, as ``quantize-static`` will).
        sweeps: Sweeps of coordinate descent over the levels at the end.
        refits: Times that scales are fitted to the levels that descent found, each followed by
            another descent.
        layers: ``all``, or ``positions``: products over the positions of sequences (MatMul of
            inputs known to have more than two axes), whose few samples are many rows.
        rows: Calibration samples, at most.
        batch: Samples run at a time.
    """

    preserves: ClassVar[Guarantee] = Guarantee.EXACT
    asymmetric: ClassVar[bool] = False

    bits: int = 4
    group: int = 32
    symmetric: bool = False
    fit: Fit = "mse"
    scheme: Literal["weights", "static"] = "weights"
    sweeps: int = 4
    refits: int = 1
    layers: Literal["all", "positions"] = "all"
    rows: int = 128
    batch: int = 16

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        self._grid()
        if self.scheme not in ("weights", "static"):
            raise UsageError(
                f"{self.name}: scheme is '{self.scheme}'", hint="'weights' or 'static'"
            )
        if self.layers not in ("all", "positions"):
            raise UsageError(f"{self.name}: layers is '{self.layers}'", hint="'all' or 'positions'")
        if self.scheme == "static" and (self.group or not self.symmetric):
            raise UsageError(
                f"{self.name}: integer kernels have one scale an output channel and no zero point",
                hint="scheme=static goes with group=0,symmetric=true",
            )
        for name in ("rows", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{self.name}: {name} is at least 1")
        if self.sweeps < 0:
            raise UsageError(f"{self.name}: sweeps is at least 0")

    def _grid(self, bits: int | None = None) -> Grid:
        bits = self.bits if bits is None else bits
        return Grid(bits, self.group, self.symmetric, self.fit, positive=self.scheme == "static")

    @abstractmethod
    def choose(self, problem: Problem) -> tuple[Bytes, Grids, str]:
        """Round one matrix.

        Returns:
            Levels uint8[N, K], their grids, and what is to be said about it ("" for nothing).
        """

    def importance(self, values: Mapping[str, Array], name: str) -> Floats | None:
        """Weight r_t of every row of one tensor of a batch, None for 1."""
        return None

    def extra_values(self, program: Program, name: str) -> Sequence[str]:
        """Names of values that :meth:`importance` of a tensor looks at."""
        return ()

    def run(self, program: Program, context: Context) -> bool:
        """Choose integers; the program stays as it is.

        Raises:
            PassError: No calibration data, or a weight with NaN or infinity.
            UsageError: Data that does not fit the model.
        """
        if context.calibration is None:
            raise PassError(
                f"{self.name} has no data to gather second moments from",
                hint="give calibration data (--calib data.npz)",
            )
        twin = make_twin(program, context, self.scheme, self.bits)
        groups = _groups(twin, self.layers == "all")
        if not groups:
            return False
        chunks: list[dict[str, Array]] = []
        left = self.rows
        for feeds in checked_batches(program.model, context.calibration(), self.batch):
            count = min(left, max((a.shape[0] for a in feeds.values() if a.ndim), default=1))
            chunks.append({n: a[:count] if a.ndim else a for n, a in feeds.items()})
            left -= count
            if left <= 0:
                break
        chosen: dict[str, ChosenWeight] = {}
        errors: list[FeedbackError] = []
        # In 8 bits a table that is a matrix too is stored once: both have the nearest integers.
        once = self.scheme == "static" and self.bits == 8
        shared = {tie.weight.name for tie in tied_weights(program.model)} if once else set()
        with context.progress.task(self.name, len(twin.layers)) as task:
            for layer, weight, error in self._walk(program, twin, chunks, context):
                if layer.weight not in shared:
                    chosen[layer.weight] = weight
                    errors.append(error)
                task.advance()
        before = context.get(ChosenWeights) or ChosenWeights()
        context.put(before.joined(chosen))
        context.put(FeedbackErrors(self.name, tuple(errors)))
        return False

    def _walk(
        self,
        program: Program,
        twin: Twin,
        chunks: Sequence[Mapping[str, Array]],
        context: Context,
    ) -> Iterator[tuple[Layer, ChosenWeight, FeedbackError]]:
        groups = _groups(twin, self.layers == "all")
        streams = [Stream(twin.program, chunks, ())]
        if self.asymmetric:
            streams.append(Stream(program, chunks, ()))
        for layers in groups:
            inputs = [_input(layers[0].readers[0])]
            if self.asymmetric:
                inputs.append(_input(layers[0].node))
            extra = [
                list(self.extra_values(s.program, v.name or ""))
                for s, v in zip(streams, inputs, strict=True)
            ]
            for stream, value, more in zip(streams, inputs, extra, strict=True):
                targets = [value, *(stream.value(name) for name in more)]
                made = [t for t in targets if t.producer() is not None]
                nodes = stream.missing(made)
                stream.run(stream.part(nodes, made))
            names = [value.name or "" for value in inputs]
            for geometry in dict.fromkeys(_geometry(layer) for layer in layers):
                inside = [layer for layer in layers if _geometry(layer) == geometry]
                moments = self._moments(streams, names, geometry)
                factors: list[dict[tuple[float, bool], Factor | None]] = [{} for _ in moments]
                for layer in inside:
                    weight, error = self._round(layer, geometry, moments, factors, context)
                    layer.put(weight.real())
                    yield layer, weight, error

    def _moments(
        self, streams: Sequence[Stream], names: Sequence[str], geometry: Geometry
    ) -> list[Moments]:
        """Second moments of a layer's input, for each group of a convolution."""
        found: list[Moments] = []
        for index in range(len(streams[0].chunks)):
            rows = [
                _rows(stream.chunks[index][name], geometry)
                for stream, name in zip(streams, names, strict=True)
            ]
            weights = self.importance(streams[0].chunks[index], names[0])
            if not found:
                found = [Moments(rows[0].shape[2], self.asymmetric) for _ in rows[0]]
            for g, moments in enumerate(found):
                floats = rows[1][g] if self.asymmetric else None
                moments.add(rows[0][g], floats, weights)
        return found

    def _round(
        self,
        layer: Layer,
        geometry: Geometry,
        moments: Sequence[Moments],
        factors: Sequence[dict[tuple[float, bool], Factor | None]],
        context: Context,
    ) -> tuple[ChosenWeight, FeedbackError]:
        label = node_label(layer.node)
        columns = read_columns(layer.node, geometry.group)
        check_finite(layer.weight, columns)
        grid = self._grid(layer.bits)
        levels = np.empty(columns.shape, dtype=np.uint8)
        scales, zeros = [], []
        rounded = left = total = 0.0
        kept = 0
        for g, moment in enumerate(moments):
            weight = np.ascontiguousarray(columns[g].T)
            diagonal = np.einsum("ii->i", moment.hessian).copy()
            nearest = grid.fitted(weight, diagonal)
            problem = Problem(
                weight, moment.hessian, moment.drift, diagonal, nearest, label, factors[g]
            )
            plain = nearest.round(weight)
            found, grids, warning = self.choose(problem)
            if warning:
                context.warn(f"{self.name}: '{label}': {warning}")
            for turn in range(self.refits + 1 if self.sweeps else 0):
                if turn:
                    grids = refit(weight, found, grids, moment.hessian, moment.drift)
                found = descend(weight, found, grids, moment.hessian, moment.drift, self.sweeps)
            before = output_errors(weight, nearest.real(plain), moment.hessian, moment.drift)
            after = output_errors(weight, grids.real(found), moment.hessian, moment.drift)
            worse = after > before
            levels[g] = np.where(worse[:, None], plain, found).T
            scales.append(np.where(worse[:, None], nearest.scale, grids.scale))
            zeros.append(np.where(worse[:, None], nearest.zero, grids.zero))
            rounded += float(before.sum())
            left += float(np.minimum(before, after).sum())
            total += float(np.einsum("nk,nk->", weight @ moment.hessian, weight, dtype=np.float64))
            kept += int(worse.sum())
        error = FeedbackError(
            label, rounded, left, total, kept, columns.shape[0] * columns.shape[2]
        )
        return self._chosen(layer, geometry, levels, scales, zeros, grid), error

    def _chosen(
        self,
        layer: Layer,
        geometry: Geometry,
        levels: Bytes,
        scales: Sequence[Floats],
        zeros: Sequence[Floats],
        grid: Grid,
    ) -> ChosenWeight:
        """The integers in the weight's own shape, about 0."""
        node = layer.node
        value = node.inputs[1]
        assert value is not None
        assert value.shape is not None
        shape = value.shape.numpy()
        half = 1 << (grid.bits - 1)
        integers = (levels.astype(np.int16) - half).astype(np.int8)
        outputs = _output_axis(node)
        group = self.group or None
        if group is None:
            scale = np.concatenate(scales)[:, 0]
            zero = np.concatenate(zeros)[:, 0]
            axis = outputs
        else:
            scale, zero = scales[0], zeros[0]
            axis = 1 - outputs
            if axis == 0:
                scale, zero = scale.T, zero.T
        zero_point = None
        if not grid.symmetric:
            zero_point = np.ascontiguousarray((zero - half).astype(np.int8))
        return ChosenWeight(
            weight_like(node, integers, shape).astype(np.int8),
            np.ascontiguousarray(scale, dtype=np.float32),
            zero_point,
            axis,
            group,
            grid.bits,
            str(self),
        )


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _geometry(layer: Layer) -> Geometry:
    value = layer.node.inputs[1]
    assert value is not None
    assert value.shape is not None
    return layer_geometry(layer.node, value.shape.numpy())


def _output_axis(node: ir.Node) -> int:
    if node.op_type == "Conv":
        return 0
    return 0 if node.op_type == "Gemm" and int_attribute(node, "transB") else 1


def _over_positions(node: ir.Node) -> bool:
    shape = static_shape(node.inputs[0])
    return node.op_type == "MatMul" and shape is not None and len(shape) > 2


def _groups(twin: Twin, everything: bool) -> list[list[Layer]]:
    """Layers that read the same tensor of the twin, in the order in which they can run."""
    groups: dict[ir.Value, list[Layer]] = {}
    for layer in twin.layers:
        if not everything and not _over_positions(layer.node):
            continue
        groups.setdefault(_input(layer.readers[0]), []).append(layer)
    return list(groups.values())


def _rows(array: Array, geometry: Geometry) -> Floats:
    """The rows of a layer's input, float32[group, n, K]."""
    x = np.asarray(array, np.float32)
    if not geometry.kernel:
        return x.reshape(1, -1, x.shape[-1])
    windows = geometry.windows(x)
    rank = len(geometry.kernel)
    order = (0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank))
    count = windows.shape[0] * int(np.prod(windows.shape[2 : 2 + rank]))
    flat = windows.transpose(order).reshape(count, geometry.group, -1)
    return np.ascontiguousarray(flat.transpose(1, 0, 2))
