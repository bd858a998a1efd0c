"""Adaptive smoothing: only channels with outliers are made smaller, as far as W4A8 gains by it.

    x W = (x / s) (s * W),    s_j = max(1, max|x_j| / t),
    t = argmin || Q_8(x / s) Q_4(s * W) - x W ||^2

Q_8 has a scale a token, Q_4 rounds to nearest in blocks or channels; t goes from the tensor's peak,
where s = 1, down to the median of its channels' peaks, so that at least half of the channels stay
as they are; so do all where less than ``gain`` decibels are won: tensors without outliers. One t is
found for all layers that read a tensor. The quotient goes into what makes the tensor
(:mod:`qcomp.passes.calibrate.quotients`); where nothing takes it, layers stay as they are.

    smooth-outliers{group=0},gptq{group=0,symmetric=true},quantize-tokens

is QQQ, a scale a channel; its groups are ``group=128`` in both. Hessian compensation is ``gptq``.
The options ``bits``, ``group`` and ``symmetric`` are those of the pass behind that quantizes.

Preconditions: calibration data in the context; weights are constants; before quantizing passes.
Preserved: the function, up to float32 rounding.
Cost: one run of the model over ``samples`` samples; for each t one rounding of all weights and a
product with ``rows`` rows.
Source: Zhang et al. 2024 (QQQ), arXiv:2406.09904, section 3 (the abstract and the published code
were read, not the paper). The median as the lower end, the geometric steps and the layers' own
outputs in place of the attention's are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.awq import matrix, read_tensors
from qcomp.passes.calibrate.quotients import Readers, SeenRows, see_rows
from qcomp.passes.graph.rewriting import Editor
from qcomp.passes.quantize.grids import Grid
from qcomp.passes.quantize.integer_reference import token_levels
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import rules_of

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["SmoothOutliers", "SmoothedOutliers"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SmoothedOutliers:
    """What ``smooth-outliers`` did, for reports and for a second run.

    Attributes:
        channels: Tensor -> channels that were made smaller; 0 where nothing was gained.
        gains: Tensor -> decibels of its layers' outputs.
    """

    channels: dict[str, int] = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SmoothOutliers(GraphPass):
    """Make only the channels smaller that have outliers, for 4-bit weights and 8-bit tokens (QQQ).

    Attributes:
        bits: 2 to 8, of the weights later.
        group: Weights along the inputs that share a scale; 0: all of an output channel.
        symmetric: Whether zero points are fixed in the middle.
        gain: Decibels that the layers of a tensor must gain. A search gains some tenths without
            outliers, which are gone on other data; with outliers it gains several.
        steps: Thresholds that are tried below the peak.
        rows: Rows of each activation that the search looks at.
        samples: Samples to look at.
        batch: Samples run at a time.
    """

    name: ClassVar[str] = "smooth-outliers"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    bits: int = 4
    group: int = 0
    symmetric: bool = True
    gain: float = 0.5
    steps: int = 16
    rows: int = 256
    samples: int = 128
    batch: int = 16

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        self._grid(self.bits)
        if min(self.steps, self.rows, self.samples, self.batch) < 1:
            raise UsageError(f"{self.name}: steps, rows, samples and batch are at least 1")
        if not self.gain >= 0.0:
            raise UsageError(f"{self.name}: gain is {self.gain}", hint="0 decibels or more")

    def _grid(self, bits: int) -> Grid:
        return Grid(bits, self.group, self.symmetric, "minmax")

    def run(self, program: Program, context: Context) -> bool:
        """Smooth what pays; return whether anything was moved.

        Raises:
            PassError: No calibration data, or a weight with NaN or infinity.
            UsageError: Data that does not fit the model.
        """
        if context.calibration is None:
            raise PassError(
                f"{self.name} has no data to look for outliers in",
                hint="give calibration data (--calib data.npz)",
            )
        done = context.get(SmoothedOutliers) or SmoothedOutliers()
        groups = {
            readers.source.name or "": readers
            for readers in read_tensors(program.model, context, "dynamic")
            if (readers.source.name or "") not in done.channels
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
        channels, gains = dict(done.channels), dict(done.gains)
        # From the back: a layer's columns that take a quotient change what its own search sees.
        for name, readers in reversed(groups.items()):
            gains[name], s = self._searched(readers, seen[name], context)
            channels[name] = int((s > 1).sum())
            if channels[name]:
                readers.divide(editor, s)
        context.put(SmoothedOutliers(channels, gains))
        return any(channels[name] for name in groups)

    def _searched(self, readers: Readers, seen: SeenRows, context: Context) -> tuple[float, Floats]:
        """Return the decibels gained and s; 0 and ones where nothing gains."""
        ones = np.ones(readers.channels, np.float32)
        if not seen.usable() or readers.quotient() is None:
            return 0.0, ones
        rules, x = rules_of(context), seen.kept
        weights = []
        for layer in readers.layers:
            W = matrix(layer)
            weights.append((W, self._grid(rules.options(layer).bits or self.bits), x @ W.T))
        peak = np.maximum(-seen.low, seen.high)
        least = max(float(np.median(peak)), float(np.finfo(np.float32).tiny))
        tried = []
        for index, t in enumerate(np.geomspace(peak.max(), least, self.steps + 1)):
            s = np.maximum(peak / t, 1).astype(np.float32) if index else ones
            levels, scale = token_levels(x / s, 8)
            rounded = levels.astype(np.float32) * scale
            error = sum(_error(rounded, W * s, wanted, grid) for W, grid, wanted in weights)
            tried.append((error, index, s))
        error, _, s = min(tried, key=lambda entry: entry[:2])
        gain = float(10.0 * np.log10(max(tried[0][0], 1e-300) / max(error, 1e-300)))
        return (gain, s) if gain >= self.gain else (0.0, ones)


def _error(x: Floats, W: Floats, wanted: Floats, grid: Grid) -> float:
    """``|| x Q(W) - wanted ||^2`` for W[N, K]."""
    grids = grid.fitted(W)
    return float(np.sum(np.square(x @ grids.real(grids.round(W)).T - wanted), dtype=np.float64))
