"""What AWQ and adaptive smoothing share: a quotient searched for each tensor that layers read.

    x W = (x / s) (s * W)

Tensors are taken from the back of the graph to its front, since a layer's columns that take a
quotient change what that layer's own search sees.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.quotients import Readers, SeenRows, inner_axis, see_rows
from qcomp.passes.graph.rewriting import Editor, check_finite, read_weight
from qcomp.passes.quantize.grids import Grid
from qcomp.passes.quantize.static_plan import matmul_weight_reason
from qcomp.passes.quantize.tied import tied_weights
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import ChosenWeight, ChosenWeights, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["Found", "QuotientSearch", "decibels", "matrix", "read_tensors"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What the search found for one tensor.

    Attributes:
        number: What reports say of it; 0 where nothing moves.
        gain: Decibels of its layers' outputs.
        s: float32[K]; ones where nothing moves.
    """

    number: float
    gain: float
    s: Floats


@dataclass(frozen=True)
class QuotientSearch(GraphPass):
    """A pass that divides tensors and multiplies the weights of the layers that read them.

    Attributes:
        bits: 2 to 8, of the weights later.
        group: Weights along the inputs that share a scale; 0: all of an output channel.
        symmetric: Whether zero points are fixed in the middle.
        steps: Steps of the search.
        rows: Rows of each activation that the search looks at.
        samples: Samples to look at.
        batch: Samples run at a time.
    """

    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC
    scheme: ClassVar[str]
    """Of the pass that will quantize the layers."""

    bits: int = 4
    group: int = 32
    symmetric: bool = False
    steps: int = 20
    rows: int = 512
    samples: int = 128
    batch: int = 16

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        self.grid()
        if min(self.steps, self.rows, self.samples, self.batch) < 1:
            raise UsageError(f"{self.name}: steps, rows, samples and batch are at least 1")

    def grid(self, bits: int | None = None) -> Grid:
        """What weights are rounded to."""
        return Grid(self.bits if bits is None else bits, self.group, self.symmetric, "minmax")

    def grid_of(self, layer: ir.Node, context: Context) -> Grid:
        """What a layer's weight is rounded to, as the user asks."""
        return self.grid(rules_of(context).options(layer).bits)

    @abstractmethod
    def searched(self, readers: Readers, seen: SeenRows, context: Context) -> Found:
        """Find the quotients of a tensor that was seen and that something takes."""

    @abstractmethod
    def done(self, context: Context) -> Mapping[str, float]:
        """Tensor -> its number, of earlier runs."""

    @abstractmethod
    def keep(self, context: Context, found: Mapping[str, Found]) -> None:
        """Remember what was found."""

    def chosen(self, layer: ir.Node, x: Floats, context: Context) -> dict[str, ChosenWeight]:
        """Integers of a layer, where the pass chooses them, too."""
        return {}

    def run(self, program: Program, context: Context) -> bool:
        """Move what pays; return whether anything was moved.

        Raises:
            PassError: No calibration data, or a weight with NaN or infinity.
            UsageError: Data that does not fit the model.
        """
        if context.calibration is None:
            raise PassError(
                f"{self.name} has no data to see the activations of",
                hint="give calibration data (--calib data.npz)",
            )
        # A quotient gives a tensor that this pass makes the name it had.
        done = self.done(context)
        groups = {
            name: readers
            for readers in read_tensors(program.model, context, self.scheme)
            if (name := readers.source.name or "") not in done
        }
        if not groups:
            return False
        seen = see_rows(
            program,
            list(groups),
            context,
            samples=self.samples,
            rows=self.rows,
            batch=self.batch,
        )
        editor = Editor(program.model)
        found: dict[str, Found] = {}
        chosen: dict[str, ChosenWeight] = {}
        for name, readers in reversed(groups.items()):
            result = Found(0.0, 0.0, np.ones(readers.channels, np.float32))
            if seen[name].usable():
                if readers.quotient() is not None:
                    result = self.searched(readers, seen[name], context)
                if result.number:
                    readers.divide(editor, result.s)
                for layer in readers.layers:
                    chosen |= self.chosen(layer, seen[name].kept / result.s, context)
            found[name] = result
        self.keep(context, found)
        if chosen:
            context.put((context.get(ChosenWeights) or ChosenWeights()).joined(chosen))
        return any(result.number for result in found.values())


def read_tensors(model: ir.Model, context: Context, scheme: str) -> list[Readers]:
    """The tensors that layers with weights to quantize read, in graph order.

    Args:
        model: The model.
        context: Has what the user asks of operators.
        scheme: Of the pass that will quantize them.
    """
    rules = rules_of(context)
    # Their integers are those of the table, as long as the weights are.
    tied = {tie.layer for tie in tied_weights(model)}
    found: dict[ir.Value, Readers] = {}
    for layer in model.graph:
        if layer.domain or layer.op_type not in ("MatMul", "Gemm") or layer in tied:
            continue
        if rules.options(layer).refusal(scheme) or matmul_weight_reason(layer):
            continue
        source = layer.inputs[0]
        if source is not None and (source.dtype is None or source.dtype == 1):
            found.setdefault(source, Readers(source, rules, products=True)).layers.append(layer)
    return list(found.values())


def matrix(layer: ir.Node) -> Floats:
    """A layer's weight, float32[N, K].

    Raises:
        PassError: It holds NaN or infinity.
    """
    value = layer.inputs[1]
    with read_weight(float_weight(value)) as W:
        check_finite("" if value is None else value.name or "", W)
        return np.ascontiguousarray(W if inner_axis(layer) == 1 else W.T, dtype=np.float32)


def decibels(before: float, after: float) -> float:
    """10 log10 of a ratio of squared errors."""
    return float(10.0 * np.log10(max(before, 1e-300) / max(after, 1e-300)))
