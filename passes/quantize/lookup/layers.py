"""What the passes share that choose levels of tables, layer by layer, for a layer's output.

The twin of the program runs forward up to the inputs of the layers that read one tensor; there
second moments H are gathered, the levels of these layers are chosen, and from then on the twin
computes with them. Only values that later parts read are held.

Preconditions: calibration data; ``quantize-weights`` behind it stores the levels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.graph.rewriting import check_finite, node_label
from qcomp.passes.graph.sort_neurons import SortedNeurons
from qcomp.passes.quantize.error_feedback.factor import Factor, inverse_factor
from qcomp.passes.quantize.error_feedback.moments import Moments
from qcomp.passes.quantize.learn_rounding_graph import Layer, Stream, Twin, make_twin
from qcomp.passes.quantize.lookup.codes import Codes, nearest
from qcomp.passes.quantize.static_plan import weight_axis
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import ChosenWeight, ChosenWeights, FeedbackError, FeedbackErrors

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["LookupPass", "Problem", "even_table", "peak_scales"]

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One matrix whose levels are chosen.

    Attributes:
        weight: float32[N, K], rows are output channels.
        hessian: H float32[K, K].
        factor: Of its inverse, in ``order``; None where no damping makes one.
        order: The columns, largest diag(H) first.
        bits: Of the levels.
        sorted: Whether ``sort-neurons`` has put the rows in order.
    """

    weight: Floats
    hessian: Floats
    factor: Factor | None
    order: npt.NDArray[np.intp]
    bits: int
    sorted: bool = False


@dataclass(frozen=True)
class LookupPass(GraphPass):
    """What NUPES and JLCM share: a pass that chooses levels of tables.

    Attributes:
        bits: 2 to 8.
        rows: Calibration samples, at most.
        batch: Samples run at a time.
        damping: Share of the mean of diag(H) that is added to it before it is factored.
        sweeps: Sweeps of coordinate descent over the levels, each time.
    """

    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    bits: int = 3
    rows: int = 128
    batch: int = 16
    damping: float = 0.01
    sweeps: int = 4

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if not 2 <= self.bits <= 8:
            raise UsageError(f"{self.name}: bits is {self.bits}", hint="2 to 8")
        if min(self.rows, self.batch) < 1 or self.sweeps < 0:
            raise UsageError(f"{self.name}: rows and batch are at least 1, sweeps at least 0")
        if not 0.0 < self.damping < 1.0:
            raise UsageError(f"{self.name}: damping lies between 0 and 1, not at {self.damping}")

    @abstractmethod
    def choose(self, problem: Problem) -> tuple[Codes, bool, str]:
        """Choose the levels of one matrix.

        Returns:
            The levels, whether their steps are equal, and how they were chosen, for reports.
        """

    def run(self, program: Program, context: Context) -> bool:
        """Choose levels; the program stays as it is.

        Raises:
            PassError: No calibration data, or a weight with NaN or infinity.
            UsageError: Data that does not fit the model.
        """
        if context.calibration is None:
            raise PassError(
                f"{self.name} has no data to gather second moments from",
                hint="give calibration data (--calib data.npz)",
            )
        twin = make_twin(program, context, "weights", self.bits)
        if not twin.layers:
            return False
        chunks = list(self._chunks(program, context))
        moved = context.get(SortedNeurons) or SortedNeurons(frozenset())
        chosen: dict[str, ChosenWeight] = {}
        errors: list[FeedbackError] = []
        with context.progress.task(self.name, len(twin.layers)) as task:
            for layer, hessian in _walk(twin, chunks):
                chosen[layer.weight], error = self._layer(
                    layer, hessian, layer.weight in moved.weights
                )
                errors.append(error)
                layer.put(chosen[layer.weight].real())
                task.advance()
        before = context.get(ChosenWeights) or ChosenWeights()
        context.put(before.joined(chosen))
        found = FeedbackErrors(self.name, tuple(errors))
        context.put(found.joined(context.get(FeedbackErrors)))
        return False

    def _chunks(self, program: Program, context: Context) -> Iterator[dict[str, Array]]:
        """The calibration data, up to the rows that are asked for."""
        assert context.calibration is not None
        left = self.rows
        for feeds in checked_batches(program.model, context.calibration(), self.batch):
            count = min(left, max((a.shape[0] for a in feeds.values() if a.ndim), default=1))
            yield {n: a[:count] if a.ndim else a for n, a in feeds.items()}
            left -= count
            if left <= 0:
                return

    def _layer(
        self, layer: Layer, hessian: Floats, moved: bool
    ) -> tuple[ChosenWeight, FeedbackError]:
        value, axis = layer.node.inputs[1], weight_axis(layer.node)
        array = np.asarray(float_weight(value).numpy(), np.float32)
        check_finite(layer.weight, array)
        w = np.ascontiguousarray(array if axis == 0 else array.T)
        order = np.argsort(-np.einsum("kk->k", hessian), kind="stable")
        factor = inverse_factor(hessian[np.ix_(order, order)], self.damping)
        problem = Problem(w, hessian, factor, order, layer.bits, moved)
        codes, even, method = self.choose(problem)
        peak = peak_scales(w)
        plain = nearest(w, peak, even_table(layer.bits), np.zeros(len(w), np.intp))
        before, after = plain.errors(w, hessian), codes.errors(w, hessian)
        error = FeedbackError(
            node_label(layer.node),
            float(before.sum()),
            float(after.sum()),
            float(np.einsum("nk,nk->", w @ hessian, w, dtype=np.float64)),
            0,
            len(w),
        )
        return _chosen(codes, even, layer.bits, axis, method), error


def _walk(twin: Twin, chunks: Sequence[Mapping[str, Array]]) -> Iterator[tuple[Layer, Floats]]:
    """Layers in the order in which they can run, with H of their inputs as they are by then."""
    groups: dict[ir.Value, list[Layer]] = {}
    for layer in twin.layers:
        value = layer.readers[0].inputs[0]
        assert value is not None
        groups.setdefault(value, []).append(layer)
    stream = Stream(twin.program, chunks, ())
    for value, layers in groups.items():
        made = [] if value.producer() is None else [value]
        stream.run(stream.part(stream.missing(made), made))
        moments: Moments | None = None
        for chunk in stream.chunks:
            x = np.asarray(chunk[value.name or ""], np.float32)
            x = x.reshape(-1, x.shape[-1])
            moments = moments or Moments(x.shape[1])
            moments.add(x)
        assert moments is not None
        for layer in layers:
            yield layer, moments.hessian


def _chosen(codes: Codes, even: bool, bits: int, axis: int, method: str) -> ChosenWeight:
    """The levels as quantizing passes take them."""
    levels = (codes.levels.astype(np.int16) - (1 << (bits - 1))).astype(np.int8)
    levels = np.ascontiguousarray(levels if axis == 0 else levels.T)
    if even:
        scale = codes.scale / np.float32(1 << (bits - 1))
        return ChosenWeight(levels, scale, None, axis, None, bits, method)
    count, rows = len(codes.table), len(codes.scale)
    scale, book = codes.scale, codes.book
    if bool((scale == 1).all()):
        scale = np.ones((), np.float32)
    together = rows % count == 0 and np.array_equal(book, np.arange(rows) // (rows // count))
    numbers = None if together else book.astype(np.uint8)
    return ChosenWeight(
        levels, scale, None, axis, None, bits, method, np.ascontiguousarray(codes.table), numbers
    )


def even_table(bits: int) -> Floats:
    """Equal steps from -1 up, float32[1, 2^bits]."""
    half = 1 << (bits - 1)
    return (np.arange(-half, half, dtype=np.float32) / np.float32(half))[None]


def peak_scales(weight: Floats) -> Floats:
    """Scales float32[N] that give the value of largest magnitude of each row the lowest level."""
    low, high = weight.min(axis=1), weight.max(axis=1)
    scale = np.where(high > -low, -high, -low).astype(np.float32)
    return np.where(np.abs(scale) < np.finfo(np.float32).tiny, np.float32(1), scale)
