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

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.passes.calibrate.quotient_search import Found, QuotientSearch, decibels, matrix
from qcomp.passes.calibrate.quotients import Readers, SeenRows, inner_axis
from qcomp.passes.quantize.grids import Grid
from qcomp.passmanager import Context
from qcomp.quantization import ChosenWeight

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Awq", "ScaledByActivations"]

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
class Awq(QuotientSearch):
    """Scale weights up where activations are large, so that rounding hurts less (AWQ).

    Attributes:
        steps: Exponents that are tried above 0.
        clip: Whether the integers are chosen here, on grids with a searched range.
    """

    name: ClassVar[str] = "awq"
    scheme: ClassVar[str] = "weights"

    clip: bool = False

    def done(self, context: Context) -> Mapping[str, float]:
        """Tensor -> its exponent, of earlier runs."""
        return (context.get(ScaledByActivations) or ScaledByActivations()).exponents

    def keep(self, context: Context, found: Mapping[str, Found]) -> None:
        """Remember exponents and gains."""
        before = context.get(ScaledByActivations) or ScaledByActivations()
        exponents = before.exponents | {name: each.number for name, each in found.items()}
        gains = before.gains | {name: each.gain for name, each in found.items()}
        context.put(ScaledByActivations(exponents, gains))

    def searched(self, readers: Readers, seen: SeenRows, context: Context) -> Found:
        """Find the best exponent; 0 where none gains."""
        x = seen.kept
        weights = [(matrix(layer), self.grid_of(layer, context)) for layer in readers.layers]
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
        gain = decibels(tried[0][0], error)
        if gain >= _LEAST_GAIN:
            return Found(a, gain, s)
        return Found(0.0, 0.0, np.ones(readers.channels, np.float32))

    def chosen(self, layer: ir.Node, x: Floats, context: Context) -> dict[str, ChosenWeight]:
        """Integers of a layer on grids with a searched range."""
        if not self.clip:
            return {}
        value = layer.inputs[1]
        assert value is not None
        grid = replace(self.grid_of(layer, context), fit="mse")
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


def _output_error(x: Floats, W: Floats, s: Floats, grid: Grid) -> float:
    """``|| (x / s) Q(s W) - x W ||^2`` for W[N, K]."""
    scaled = W * s
    grids = grid.fitted(scaled)
    off = grids.real(grids.round(scaled))
    off -= scaled
    off /= s
    return float(np.sum(np.square(x @ off.T), dtype=np.float64))
