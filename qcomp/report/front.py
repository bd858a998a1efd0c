"""The Pareto front that ``qcomp sweep`` draws: bytes or T gates against error and accuracy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qcomp.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FrontPoint", "FrontSection", "best_points", "draw_front", "needs_matplotlib"]

SCHEMA = "qcomp-front"
"""Name of the JSON format."""

_INK, _SOFT, _LINE = "#1d2430", "#7a8699", "#2f6fb2"


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """What came of one limit.

    Attributes:
        cost: Bytes of the graph's file, or T gates.
        promised: What the allocator said: predicted error of the outputs, or the limit that was
            kept to.
        error: What was measured, in the section's unit.
        figure: The metric on the evaluation data; None without any.
        choice: In words: how many tensors have how many bits.
        best: Whether no other point is as cheap and as good, and one of both better.
    """

    cost: int
    promised: float
    error: float
    figure: float | None = None
    choice: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class FrontSection:
    """A front.

    Attributes:
        cost: What it costs: ``bytes`` or ``T gates``.
        measure: What ``error`` is: ``nats``, ``noise over signal``, ``operator norm``, ...
        data: What it was measured on, in words.
        metric: Name of the figure; "" without one.
        source_cost: Of the source: bytes of its file; None for circuits.
        source_figure: The metric of the source.
        higher_is_better: Whether more of the metric is better.
        points: The points, the cheapest first.
    """

    cost: str
    measure: str
    data: str
    metric: str = ""
    source_cost: int | None = None
    source_figure: float | None = None
    higher_is_better: bool = True
    points: tuple[FrontPoint, ...] = ()

    @property
    def title(self) -> str:
        """What a plot of it shows."""
        return f"{self.metric or 'error'} against {self.cost}"

    @property
    def vertical(self) -> str:
        """What the vertical axis shows."""
        return self.metric or f"measured error, {self.measure}"

    @property
    def logarithmic(self) -> bool:
        """Whether the vertical axis is one of logarithms: errors are, figures are not."""
        return not self.metric and all(point.error > 0 for point in self.points)

    def height(self, point: FrontPoint) -> float:
        """Return what a point shows on the vertical axis."""
        return point.error if point.figure is None else point.figure

    def to_json(self) -> str:
        """Return JSON text; numbers that JSON lacks are null."""
        body = {"schema": SCHEMA, "version": 1, **asdict(self)}
        return json.dumps(_finite(body), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def best_points(costs: Sequence[float], losses: Sequence[float]) -> list[bool]:
    """Say of each point whether it is on the front: nothing dominates it.

    Of points that are equal in both the first one is.

    Args:
        costs: Less is better.
        losses: Less is better.
    """
    order = sorted(range(len(costs)), key=lambda i: (costs[i], losses[i], i))
    found, least = [False] * len(costs), math.inf
    for index in order:
        if losses[index] < least:
            found[index], least = True, losses[index]
    return found


def needs_matplotlib() -> None:
    """Check that images can be drawn.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(
            "images are drawn by matplotlib, which is not installed",
            hint="pip install 'qcomp[plots]', or write .html or .json",
        ) from None


def draw_front(front: FrontSection, path: Path, form: str) -> None:
    """Draw the front as an image; the same front gives the same bytes.

    Args:
        front: The front.
        path: Where to write.
        form: ``png`` or ``svg``.

    Raises:
        UsageError: matplotlib is not installed.
    """
    needs_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": SCHEMA, "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
        axes: Axes = figure.subplots()
        drawn = [(p.cost, front.height(p), p.best) for p in front.points]
        best = [(x, y) for x, y, kept in drawn if kept]
        rest = [(x, y) for x, y, kept in drawn if not kept]
        axes.plot(*zip(*best, strict=True), "o-", color=_LINE, label="front")
        if rest:
            axes.plot(*zip(*rest, strict=True), "o", mfc="none", color=_SOFT, label="dominated")
        if front.metric and front.source_figure is not None:
            axes.axhline(front.source_figure, color=_SOFT, ls="--", lw=1, label="source")
        if front.logarithmic:
            axes.set_yscale("log")
        axes.set_xlabel(front.cost)
        axes.set_ylabel(front.vertical)
        axes.set_title(front.title, color=_INK)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(frameon=False)
        made = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(path, format=form, metadata=made)
