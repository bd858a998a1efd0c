"""How much worse a figure of merit may get, and what it cost to keep to that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcomp.errors import UsageError

if TYPE_CHECKING:
    from qcomp.feeds import Score

__all__ = ["Drop", "KeptLayer", "KeptLayers"]


@dataclass(frozen=True, slots=True)
class Drop:
    """How much worse a figure may get.

    Attributes:
        amount: The drop: a share of the source's figure if ``relative``, else in its own units.
        relative: Whether it was given in percent.
    """

    amount: float
    relative: bool

    @staticmethod
    def parse(value: object) -> Drop:
        """Read ``0.5%`` or a number.

        Raises:
            UsageError: If it is neither, or negative.
        """
        text = str(value).strip()
        relative = text.endswith("%")
        try:
            amount = float(text.removesuffix("%"))
        except ValueError:
            amount = math.nan
        if isinstance(value, bool) or not math.isfinite(amount) or amount < 0:
            raise UsageError(
                f"'{value}' is no drop",
                hint="0.5% of the source's figure, or 0.005 in the figure's own units",
            )
        return Drop(amount / 100.0 if relative else amount, relative)

    def __str__(self) -> str:
        """Return the drop as it is given."""
        return f"{100.0 * self.amount:g}%" if self.relative else f"{self.amount:g}"

    def allowed(self, source: Score) -> float:
        """Return the largest drop in the figure's own units."""
        return self.amount * abs(source.value) if self.relative else self.amount

    def of(self, source: Score, compiled: Score) -> float:
        """Return how much worse a figure is; negative where it is better."""
        change = source.value - compiled.value
        return -change if source.higher_is_better is False else change


@dataclass(frozen=True, slots=True)
class KeptLayer:
    """A layer that stayed in float: its type, and the noise over signal that it adds alone."""

    node: str
    op_type: str
    noise: float

    @property
    def decibels(self) -> float:
        """Signal over that noise; inf without noise."""
        return -10.0 * math.log10(self.noise) if self.noise > 0 else math.inf


@dataclass(frozen=True, slots=True)
class KeptLayers:
    """What a largest drop cost.

    Attributes:
        drop: The drop that was asked for.
        metric: The figure.
        source: Of the source.
        quantized: Of the program with all layers quantized.
        reached: Of the program that was written.
        kept: Layers in float, the worst one first.
        layers: Layers that could be quantized.
        trials: Programs that were compiled and judged.
        bytes_quantized: Weights with all layers quantized.
        bytes_reached: Weights as written.
        times: Seconds of CPU of a small batch: source, all quantized, as written; empty where
            nothing was kept.
    """

    drop: Drop
    metric: str
    source: float
    quantized: float
    reached: float
    kept: tuple[KeptLayer, ...]
    layers: int
    trials: int
    bytes_quantized: int
    bytes_reached: int
    times: tuple[float, ...] = ()
