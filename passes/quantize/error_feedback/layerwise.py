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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.ir.stages import captured_values
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.calibrate.layer_rows import Geometry, layer_geometry, read_columns, weight_like
from qcomp.passes.graph.rewriting import check_finite, int_attribute, node_label, static_shape
from qcomp.passes.quantize.error_feedback.finished import Done, Finished
from qcomp.passes.quantize.error_feedback.moments import Moments
from qcomp.passes.quantize.error_feedback.rows import (
    FactorKey,
    Matrix,
    Problem,
    RoundedRows,
    Rounder,
    Shared,
)
from qcomp.passes.quantize.grids import Fit, Grid, Grids
from qcomp.passes.quantize.learn_rounding_graph import Layer, Stream, Twin, make_twin
from qcomp.passes.quantize.tied import tied_weights
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import ChosenWeight, ChosenWeights, FeedbackError, FeedbackErrors

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["ErrorFeedback", "Problem", "Ready", "TokenWeights"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[np.generic]
TokenWeights = Callable[[Layer, int, Array], "Floats | None"]
"""r_t float32[tokens] of a layer's input in a chunk, by the chunk's number and the input itself."""


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
        needs_data: Whether to refuse where no calibration data was given; else the pass then leaves
            the rounding to those behind it.
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
    needs_data: bool = True

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

    def _grid(self, bits: int | None = None, group: int | None = None) -> Grid:
        bits = self.bits if bits is None else bits
        group = self.group if group is None else group
        return Grid(bits, group, self.symmetric, self.fit, positive=self.scheme == "static")

    @abstractmethod
    def choose(self, problem: Problem) -> tuple[Bytes, Grids, str]:
        """Round one matrix.

        Returns:
            Levels uint8[N, K], their grids, and what is to be said about it ("" for nothing).
        """

    def factors(self) -> tuple[FactorKey, ...]:
        """The factors of a Hessian that :meth:`choose` will ask for."""
        return ()

    def token_weights(
        self,
        program: Program,
        layers: Sequence[Layer],
        chunks: Sequence[Mapping[str, Array]],
        context: Context,
    ) -> TokenWeights | None:
        """What every token counts in the second moments; None for the same."""
        return None

    def run(self, program: Program, context: Context) -> bool:
        """Choose integers; the program stays as it is.

        Raises:
            PassError: No calibration data, or a weight with NaN or infinity.
            UsageError: Data that does not fit the model, or bits that no layer can have.
        """
        if context.calibration is None and not self.needs_data:
            return False
        if context.calibration is None:
            raise PassError(
                f"{self.name} has no data to gather second moments from",
                hint="give calibration data (--calib data.npz)",
            )
        everything = self.layers == "all"
        if not everything and not any(map(_over_positions, program.model.graph)):
            return False
        twin = make_twin(program, context, self.scheme, self.bits)
        for layer in twin.layers:
            if not 2 <= layer.bits <= 8:
                raise UsageError(
                    f"{self.name} cannot store '{node_label(layer.node)}' in {layer.bits} bits",
                    hint="bits is 2 to 8",
                )
        groups = _groups(twin, everything)
        if not groups:
            return False
        chunks = self._chunks(program, twin, context)
        chosen: dict[str, ChosenWeight] = {}
        errors: list[FeedbackError] = []
        # In 8 bits a table that is a matrix too is stored once: both have the nearest integers.
        once = self.scheme == "static" and self.bits == 8
        shared = {tie.weight.name for tie in tied_weights(program.model)} if once else set()
        with (
            Finished(context) as finished,
            context.progress.task(self.name, len(twin.layers)) as task,
        ):
            for layer, (weight, error, warning) in self._walk(
                program, twin, chunks, context, finished
            ):
                if warning:
                    context.warn(f"{self.name}: '{error.node}': {warning}")
                if layer.weight not in shared:
                    chosen[layer.weight] = weight
                    errors.append(error)
                task.advance()
        before = context.get(ChosenWeights) or ChosenWeights()
        context.put(before.joined(chosen))
        found = FeedbackErrors(self.name, tuple(errors))
        context.put(found.joined(context.get(FeedbackErrors)))
        return False

    def _chunks(self, program: Program, twin: Twin, context: Context) -> list[dict[str, Array]]:
        """The calibration data in batches, smaller ones where a batch makes large values."""
        assert context.calibration is not None
        chunks: list[dict[str, Array]] = []
        left, size = self.rows, self.batch
        widest = 0
        if all(layer.node.op_type != "Conv" for layer in twin.layers):
            widest = max(_columns(layer) for layer in twin.layers)
        for feeds in checked_batches(program.model, context.calibration(), self.batch):
            count = min(left, max((a.shape[0] for a in feeds.values() if a.ndim), default=1))
            size = min(size, max(1, _VALUES // max(1, _tokens(feeds) * widest)))
            step = size if len({a.shape[0] for a in feeds.values() if a.ndim}) == 1 else count
            if _is_fixed(program):
                step = count
            for start in range(0, count, step):
                end = min(start + step, count)
                chunks.append({n: a[start:end] if a.ndim else a for n, a in feeds.items()})
            left -= count
            if left <= 0:
                break
        return chunks

    def _walk(
        self,
        program: Program,
        twin: Twin,
        chunks: Sequence[Mapping[str, Array]],
        context: Context,
        finished: Finished,
    ) -> Iterator[tuple[Layer, Done]]:
        groups = _groups(twin, self.layers == "all")
        asked = [(layer.weight, layer.bits, layer.group) for layer in twin.layers]
        finished.describe(f"{self.name} {self!r} {asked}", twin.program, chunks)
        found = {layer.weight: finished.find(layer) for group in groups for layer in group}
        waves = _waves(twin, groups)
        last = max(
            (i for i, w in enumerate(waves) if not all(found[x.weight] for g in w for x in g)),
            default=-1,
        )
        streams = [Stream(twin.program, finished.stream(chunks) or chunks, ())]
        if self.asymmetric:
            streams.append(Stream(program, finished.stream(chunks) or chunks, ()))
        weigh = None
        if last >= 0:
            weigh = self.token_weights(program, [group[0] for group in groups], chunks, context)
        for index, wave in enumerate(waves):
            ready: list[Ready] = []
            for layers in wave:
                names = self._advance(streams, layers) if index <= last else []
                for layer in layers:
                    before = found[layer.weight]
                    if before is not None:
                        layer.put_lazily(before[0])
                        yield layer, before
                left = [layer for layer in layers if found[layer.weight] is None]
                for geometry in dict.fromkeys(_geometry(layer) for layer in left):
                    token = None if weigh is None else partial(weigh, layers[0])
                    moments = self._moments(streams, names, geometry, token)
                    said = "" if all([m.settle() for m in moments]) else _NO_SQUARES
                    shared = [Shared(moment.hessian, moment.drift) for moment in moments]
                    inside = [layer for layer in left if _geometry(layer) == geometry]
                    ready += [Ready(layer, geometry, shared, said) for layer in inside]
            yield from self._rounded(ready, finished)

    def _advance(self, streams: Sequence[Stream], layers: Sequence[Layer]) -> list[str]:
        """Run the streams up to the input of some layers; return its name in each."""
        inputs = [_input(layers[0].readers[0])]
        if self.asymmetric:
            inputs.append(_input(layers[0].node))
        for stream, value in zip(streams, inputs, strict=True):
            made = [] if value.producer() is None else [value]
            nodes = stream.missing(made)
            stream.run(stream.part(nodes, made))
        return [value.name or "" for value in inputs]

    def _rounded(self, ready: Sequence[Ready], finished: Finished) -> Iterator[tuple[Layer, Done]]:
        """Round layers that do not wait for each other; factors are held no longer."""
        with Rounder(finished.workers, finished.place) as rounder:
            rounder.prepare([(m, s) for r in ready for m in self.tried(r) for s in r.shared])
            parts = rounder.round(matrix for r in ready for matrix in self._matrices(r))
            for r in ready:
                own = list(islice(parts, len(self.tried(r)) * len(r.shared)))
                chosen, error, warning = self._result(r, own)
                done = finished.keep(r.layer, (chosen, error, r.said or warning))
                r.layer.put_lazily(done[0])
                yield r.layer, done

    def tried(self, ready: Ready) -> Sequence[ErrorFeedback]:
        """The methods that round a layer: this one."""
        return (self,)

    def _moments(
        self,
        streams: Sequence[Stream],
        names: Sequence[str],
        geometry: Geometry,
        weigh: Callable[[int, Array], Floats | None] | None,
    ) -> list[Moments]:
        """Second moments of a layer's input, for each group of a convolution."""
        found: list[Moments] = []
        for index in range(len(streams[0].chunks)):
            rows = [
                _rows(stream.chunks[index][name], geometry)
                for stream, name in zip(streams, names, strict=True)
            ]
            weights = None
            if weigh is not None and not geometry.kernel:
                weights = weigh(index, streams[0].chunks[index][names[0]])
            if not found:
                found = [Moments(rows[0].shape[2], self.asymmetric) for _ in rows[0]]
            for g, moments in enumerate(found):
                floats = rows[1][g] if self.asymmetric else None
                moments.add(rows[0][g], floats, weights)
        return found

    def _matrices(self, ready: Ready) -> Iterator[Matrix]:
        """The matrices of a layer, a method after the other."""
        layer = ready.layer
        columns = read_columns(layer.node, ready.geometry.group)
        check_finite(layer.weight, columns)
        weights = [np.ascontiguousarray(part.T) for part in columns]
        for method in self.tried(ready):
            grid = method._grid(layer.bits, layer.group)
            for weight, shared in zip(weights, ready.shared, strict=True):
                label = node_label(layer.node)
                yield Matrix(method, grid, weight, shared, label, method.asymmetric)

    def _result(self, ready: Ready, parts: Sequence[RoundedRows]) -> Done:
        """What became of a layer, of what became of its matrices."""
        error = FeedbackError(
            node_label(ready.layer.node),
            sum(part.rounded for part in parts),
            sum(part.left for part in parts),
            sum(part.total for part in parts),
            sum(part.kept for part in parts),
            sum(len(part.levels) for part in parts),
        )
        chosen = self._chosen(ready.layer, ready.geometry, parts)
        return chosen, error, next((part.warning for part in parts if part.warning), "")

    def _chosen(
        self, layer: Layer, geometry: Geometry, parts: Sequence[RoundedRows]
    ) -> ChosenWeight:
        """The integers in the weight's own shape, about 0."""
        node = layer.node
        value = node.inputs[1]
        assert value is not None
        assert value.shape is not None
        shape = value.shape.numpy()
        grid = self._grid(layer.bits, layer.group)
        levels = np.stack([part.levels.T for part in parts])
        scales, zeros = [part.scale for part in parts], [part.zero for part in parts]
        half = 1 << (grid.bits - 1)
        integers = (levels.astype(np.int16) - half).astype(np.int8)
        outputs = _output_axis(node)
        group = grid.group or None
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


@dataclass(frozen=True, slots=True)
class Ready:
    """A layer that waits for nothing.

    Attributes:
        layer: To round.
        geometry: Of its input.
        shared: What its matrices share with others of the same input, one for each group.
        said: What is to be said of its input, "" for nothing.
    """

    layer: Layer
    geometry: Geometry
    shared: Sequence[Shared]
    said: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of its matrices."""
        value = self.layer.node.inputs[1]
        assert value is not None
        assert value.shape is not None
        columns = len(self.shared[0].hessian)
        return int(np.prod(value.shape.numpy())) // (columns * len(self.shared)), columns


_NO_SQUARES = "its inputs are too large to be squared, or no numbers: rounded without them"

_VALUES = 1 << 24
"""Numbers of a layer's input in a batch, at most (float32: 64 MB), if a sample has not more."""


def _tokens(feeds: Mapping[str, Array]) -> int:
    """Rows that a matrix product has for one sample."""
    found = 1
    for array in feeds.values():
        inner = array.shape[1:] if np.issubdtype(array.dtype, np.integer) else array.shape[1:-1]
        found = max(found, int(np.prod(inner)))
    return found


def _columns(layer: Layer) -> int:
    """Input channels of a layer's matrix."""
    value = layer.node.inputs[1]
    assert value is not None
    assert value.shape is not None
    return int(value.shape.numpy()[1 - _output_axis(layer.node)])


def _is_fixed(program: Program) -> bool:
    """Whether the graph takes a fixed number of samples at a time."""
    shapes = [static_shape(v) for v in program.model.graph.inputs if not v.is_initializer()]
    return any(shape and shape[0] is not None for shape in shapes)


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
    if node.domain or node.op_type != "MatMul":
        return False
    shape = static_shape(node.inputs[0])
    return shape is not None and len(shape) > 2


def _groups(twin: Twin, everything: bool) -> list[list[Layer]]:
    """Layers that read the same tensor of the twin, in the order in which they can run."""
    groups: dict[ir.Value, list[Layer]] = {}
    for layer in twin.layers:
        if not everything and not _over_positions(layer.node):
            continue
        groups.setdefault(_input(layer.readers[0]), []).append(layer)
    return list(groups.values())


def _waves(twin: Twin, groups: Sequence[list[Layer]]) -> list[list[list[Layer]]]:
    """Groups that do not wait for each other, together: as many layers lie before each.

    In a chain each is alone; the towers of a model go side by side.
    """
    readers = {reader for group in groups for layer in group for reader in layer.readers}
    depths: dict[ir.Value, int] = {}
    for node in twin.program.model.graph:
        depth = max((depths.get(value, 0) for value in captured_values(node)), default=0)
        depths.update(dict.fromkeys(node.outputs, depth + (node in readers)))
    waves: dict[int, list[list[Layer]]] = {}
    for group in groups:
        waves.setdefault(depths.get(_input(group[0].readers[0]), 0), []).append(group)
    return [waves[depth] for depth in sorted(waves)]


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
