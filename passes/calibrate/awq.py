"""Channels with large activations get finer steps: their weights are scaled up before rounding.

A weight of few bits errs by up to half a step, whatever its size; the output errs by that times
the activation. So input channels are scaled by what the data show of their activations,

    x W = (x / s) (s * W),      s_j = mean|x_j| ** a,      a = argmin || (x / s) Q(s * W) - x W ||^2

with Q rounding to nearest in blocks, and a from {0, 1/steps, ..., 1}, one for all layers that read
a tensor. s is divided by the square root of its largest times its smallest value. The quotient goes
into what makes the tensor: normalizations, projections of values, products before a Relu or one
factor of a product of two (:mod:`qcomp.passes.calibrate.quotients`); where nothing takes it, layers
stay as they are, so the graph has the operators that it had. ``clip`` also chooses the integers, on
grids whose range is shrunk to the least squared error weighted by mean x_j ** 2.

The options ``bits``, ``group`` and ``symmetric`` are those of the pass behind it that quantizes:
``quantize-weights``, or ``gptq`` and its like. A second run in the same pipeline leaves the tensors
alone that the first looked at.

Preconditions: calibration data in the context; weights are constants; before quantizing passes.
Preserved: the function, up to float32 rounding.
Cost: one run of the model over ``samples`` samples; for each exponent one rounding of all weights
and a product with ``rows`` rows.
Source: Lin et al. 2023, arXiv:2306.00978 (AWQ), equations 4 and 5. Ours: the search looks at the
layers' own outputs, not the blocks'; the clipped range at diagonal moments.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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

__all__ = ["Awq", "ScaledByActivations", "matrix", "read_tensors"]

Floats = npt.NDArray[np.float32]

_LEAST_GAIN = 0.05
"""Decibels below which nothing is moved: rounding of the search itself."""

_TINY = 1e-4
"""Share of the largest mean|x_j| that a channel has at least: one that never spoke may yet."""


@dataclass(frozen=True, slots=True)
class ScaledByActivations:
    """What AWQ did, for reports and for a second run.

    Attributes:
        exponents: Tensor -> its exponent a; 0 where nothing was gained.
        gains: Tensor -> decibels of its layers' outputs.
    """

    exponents: dict[str, float] = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Awq(GraphPass):
    """Scale weights up where activations are large, so that rounding hurts less (AWQ).

    Attributes:
        bits: 2 to 8, of the weights later.
        group: Weights along the inputs that share a scale; 0: all of an output channel.
        symmetric: Whether zero points are fixed in the middle.
        steps: Exponents that are tried above 0.
        clip: Whether the integers are chosen here, on grids with a searched range.
        rows: Rows of each activation that the search looks at.
        samples: Samples to look at.
        batch: Samples run at a time.
    """

    name: ClassVar[str] = "awq"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    bits: int = 4
    group: int = 32
    symmetric: bool = False
    steps: int = 20
    clip: bool = False
    rows: int = 512
    samples: int = 128
    batch: int = 16

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        self._grid()
        if min(self.steps, self.rows, self.samples, self.batch) < 1:
            raise UsageError("awq: steps, rows, samples and batch are at least 1")

    def _grid(self, bits: int | None = None) -> Grid:
        return Grid(self.bits if bits is None else bits, self.group, self.symmetric, "minmax")

    def run(self, program: Program, context: Context) -> bool:
        """Scale what pays; return whether anything was scaled.

        Raises:
            PassError: No calibration data, or a weight with NaN or infinity.
            UsageError: Data that does not fit the model.
        """
        if context.calibration is None:
            raise PassError(
                "awq has no data to see the activations of",
                hint="give calibration data (--calib data.npz)",
            )
        done = context.get(ScaledByActivations) or ScaledByActivations()
        # A quotient gives a tensor that this pass makes the name it had.
        groups = [
            readers
            for readers in read_tensors(program.model, context, "weights")
            if (readers.source.name or "") not in done.exponents
        ]
        if not groups:
            return False
        seen = see_rows(
            program,
            [readers.source.name or "" for readers in groups],
            context,
            samples=self.samples,
            rows=self.rows,
            batch=self.batch,
        )
        editor = Editor(program.model)
        exponents, gains = dict(done.exponents), dict(done.gains)
        chosen: dict[str, ChosenWeight] = {}
        moved = False
        # From the back: a layer's columns that take a quotient change what its own search sees.
        for readers in reversed(groups):
            name = readers.source.name or ""
            a, gain, s = self._searched(readers, seen[name], context)
            exponents[name], gains[name] = a, gain
            if a:
                readers.divide(editor, s)
                moved = True
            if self.clip and seen[name].usable():
                for layer in readers.layers:
                    chosen |= self._chosen(layer, seen[name].kept / s, context)
        context.put(ScaledByActivations(exponents, gains))
        if chosen:
            context.put((context.get(ChosenWeights) or ChosenWeights()).joined(chosen))
        return moved

    def _searched(
        self, readers: Readers, seen: SeenRows, context: Context
    ) -> tuple[float, float, Floats]:
        """Return the best exponent, its gain in decibels and s; 0, 0 and ones where none gains."""
        ones = np.ones(readers.channels, np.float32)
        if not seen.usable() or readers.quotient() is None:
            return 0.0, 0.0, ones
        x = seen.kept
        weights = [(matrix(layer), self._grid_of(layer, context)) for layer in readers.layers]
        mean = np.abs(x).mean(0)
        mean = np.maximum(mean, _TINY * mean.max())
        tried = []
        for step in range(self.steps + 1):
            a = step / self.steps
            s = mean**a
            s = (s / np.sqrt(s.max() * s.min())).astype(np.float32)
            error = sum(_output_error(x, W, s, grid) for W, grid in weights)
            tried.append((error, a, s))
        error, a, s = min(tried, key=lambda entry: entry[:2])
        gain = float(10.0 * np.log10(max(tried[0][0], 1e-300) / max(error, 1e-300)))
        return (a, gain, s) if gain >= _LEAST_GAIN else (0.0, 0.0, ones)

    def _grid_of(self, layer: ir.Node, context: Context) -> Grid:
        return self._grid(rules_of(context).options(layer).bits)

    def _chosen(self, layer: ir.Node, x: Floats, context: Context) -> dict[str, ChosenWeight]:
        """Integers of a layer on grids with a searched range."""
        value = layer.inputs[1]
        assert value is not None
        grid = replace(self._grid_of(layer, context), fit="mse")
        W = matrix(layer)
        grids = grid.fitted(W, np.square(x).mean(0))
        half = 1 << (grid.bits - 1)
        levels = (grids.round(W).astype(np.int16) - half).astype(np.int8)
        scale, zero = grids.scale, (grids.zero - half).astype(np.int8)
        inner = inner_axis(layer)
        if inner == 0:
            levels = levels.T
        if not grid.group:
            scale, zero = scale[:, 0], zero[:, 0]
        elif inner == 0:
            scale, zero = scale.T, zero.T
        weight = ChosenWeight(
            np.ascontiguousarray(levels),
            np.ascontiguousarray(scale),
            None if grid.symmetric else np.ascontiguousarray(zero),
            inner if grid.group else 1 - inner,
            grid.group or None,
            grid.bits,
            str(self),
        )
        return {value.name or "": weight}


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


def _output_error(x: Floats, W: Floats, s: Floats, grid: Grid) -> float:
    """``|| (x / s) Q(s W) - x W ||^2`` for W[N, K]."""
    scaled = W * s
    grids = grid.fitted(scaled)
    off = grids.real(grids.round(scaled))
    off -= scaled
    off /= s
    return float(np.sum(np.square(x @ off.T), dtype=np.float64))
