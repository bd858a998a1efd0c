"""The report as one self-contained HTML page: no scripts, no network, dark and light."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from qcomp.report.data import AccuracyLine, LayerLine, PassLine, Report, Sizes
from qcomp.report.front import FrontSection
from qcomp.report.svg import Bars, Dot, bar_chart, curve_chart, dot_chart

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["render", "worst_layers"]

Change = tuple[str, int | None, int | None, str]
"""A row of a table of changes: name, before, after, change in words."""

MAX_BARS = 40
"""Layers drawn as bars with their names; more become dots over their number."""

MAX_WORST = 10
"""Layers listed as the worst, and marked in the plot."""

_COUNT_NAMES = {
    "qubits": "qubits",
    "clbits": "classical bits",
    "gates": "gates",
    "two_qubit": "two-qubit gates",
    "multi_qubit": "gates on three and more qubits",
    "t_count": "T gates",
    "rotations": "non-Clifford rotations",
    "depth": "depth",
    "two_qubit_depth": "two-qubit depth",
    "measurements": "measurements",
    "control_flow": "control-flow blocks",
    "nodes": "graph nodes",
    "weight_bytes": "weight bytes",
}
_PLOTTED = ("gates", "two_qubit", "depth")
_SHORT = {"nodes": "nodes", "gates": "gates", "two_qubit": "2q gates", "depth": "depth"}


def render(report: Report) -> str:
    """Return the page of a report."""
    quantization = report.quantization
    return _template().render(
        report=report,
        size_rows=_size_rows(report.sizes),
        pass_rows=[(line, _deltas(line)) for line in report.passes],
        pass_seconds=sum(line.seconds for line in report.passes),
        pass_plot=_pass_plot(report.passes),
        layer_plot=_layer_plot(quantization.layers) if quantization else "",
        worst_layers=worst_layers(quantization.layers) if quantization else [],
        count_rows=[_count_rows(c.before, c.after) for c in report.circuits],
        accuracy_rows=[_accuracy_row(line) for line in report.accuracy],
        summary=_summary(report),
        front_plot=_front_plot(report.front) if report.front else "",
    )


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        size=size_text, decibels=decibels_text, count=_count_text, small=_small_text
    )
    text = files("qcomp.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text)


def size_text(value: float | None) -> str:
    """Return bytes for people, in powers of 1000."""
    if value is None:
        return "–"
    amount = float(value)
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(amount) < 1000 or unit == "GB":
            return f"{amount:,.0f} {unit}" if unit == "bytes" else f"{amount:,.1f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def decibels_text(value: float | None) -> str:
    """Return a ratio in dB; ``exact`` when there is no noise at all."""
    if value is None or value != value:
        return "–"
    if value == float("inf"):
        return "exact"
    return "no signal" if value == float("-inf") else f"{value:.1f}"


def _count_text(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _small_text(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}"


def _change(before: float | None, after: float | None) -> str:
    if not before or after is None:
        return "–" if before != after else ""
    if before == after:
        return "same"
    return f"{(after - before) / before:+.0%}".replace("-", "\N{MINUS SIGN}")


def _size_rows(sizes: Sizes | None) -> list[Change]:
    if sizes is None:
        return []
    rows: list[Change] = []
    if sizes.graphs is not None:
        change = _change(sizes.source, sizes.graphs)
        rows.append(("model file (source) and ONNX graphs", sizes.source, sizes.graphs, change))
    if sizes.weights_before is not None or sizes.weights_after is not None:
        before, after = sizes.weights_before, sizes.weights_after
        rows.append(("weights", before, after, _change(before, after)))
    return rows


def _count_rows(before: Mapping[str, int], after: Mapping[str, int]) -> list[Change]:
    rows = []
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key), after.get(key)
        if old or new:
            change = _change(old, new) if before else ""
            rows.append((_count_name(key), old, new, change))
    return rows


def _count_name(key: str) -> str:
    return _COUNT_NAMES.get(key, key.replace("_", " "))


def _deltas(line: PassLine) -> list[tuple[str, int, int]]:
    """Return (count, before, after) for what a pass changed."""
    return [
        (
            _SHORT.get(key, _count_name(key)),
            line.before.get(key, 0),
            new,
        )
        for key, new in line.after.items()
        if new != line.before.get(key, 0)
    ]


def _pass_plot(passes: Sequence[PassLine]) -> str:
    """Draw the counts of the circuits before the first pass and after each that changed them."""
    keys = [k for k in _PLOTTED if any(p.before.get(k) or p.after.get(k) for p in passes)]
    if not keys:
        return ""
    rows = [Bars("source", tuple(passes[0].before.get(k) for k in keys))]
    for line in passes:
        if any(line.before.get(k) != line.after.get(k) for k in keys):
            rows.append(Bars(line.name, tuple(line.after.get(k) for k in keys)))
    title = "Gates, two-qubit gates and depth after each pass that changed them"
    return bar_chart(rows, [_COUNT_NAMES[k] for k in keys], "count", title, digits=0)


def worst_layers(layers: Sequence[LayerLine]) -> list[LayerLine]:
    """Return the ten layers with the lowest output SQNR, worst first; of few layers, half."""
    measured = [line for line in layers if line.output_sqnr is not None]
    count = min(MAX_WORST, (len(measured) + 1) // 2)
    return sorted(measured, key=lambda line: line.output_sqnr or 0.0)[:count]


def _layer_plot(layers: Sequence[LayerLine]) -> str:
    names = ("weight", "output")
    worst = {line.layer for line in worst_layers(layers)}
    rows = [
        Bars(line.layer, (line.weight_sqnr, line.output_sqnr), line.layer in worst)
        for line in layers
    ]
    shown = [k for k in range(2) if any(row.values[k] is not None for row in rows)]
    if not shown:
        return ""
    rows = [Bars(row.name, tuple(row.values[k] for k in shown), row.marked) for row in rows]
    series = [names[k] for k in shown]
    unit, title = "SQNR, dB (higher is better)", "Quantization error of each layer"
    if len(rows) <= MAX_BARS:
        return bar_chart(rows, series, unit, title)
    return dot_chart(rows, series, unit, "layer, in graph order", title)


def _front_plot(front: FrontSection) -> str:
    dots = []
    for point in front.points:
        height = front.height(point)
        tip = f"{point.cost:,} {front.cost}: {height:.4g}"
        dots.append(Dot(point.cost, height, f"{tip} ({point.choice})", point.best))
    return curve_chart(dots, front.cost, front.vertical, front.title, logarithmic=front.logarithmic)


def _accuracy_row(line: AccuracyLine) -> tuple[str, str, str, str, int]:
    """Return (metric, source, compiled, change, samples); an accuracy is shown in percent."""
    if "accuracy" in line.metric:
        before, after = f"{100 * line.source:.2f} %", f"{100 * line.compiled:.2f} %"
        change = f"{100 * (line.compiled - line.source):+.2f} points"
    else:
        before, after = f"{line.source:.4g}", f"{line.compiled:.4g}"
        change = f"{line.compiled - line.source:+.2g}"
    return line.metric, before, after, change.replace("-", "\N{MINUS SIGN}"), line.samples


def _summary(report: Report) -> list[tuple[str, str, str]]:
    """Return the figures at the top: (name, figure, remark)."""
    cards = []
    for line in report.accuracy:
        metric, _, figure, change, _ = _accuracy_row(line)
        cards.append((metric, figure, f"{change} against the source"))
    sizes = report.sizes
    if sizes and sizes.weights_before and sizes.weights_after is not None:
        factor = sizes.weights_before / max(sizes.weights_after, 1)
        cards.append(("weights", size_text(sizes.weights_after), f"{factor:.1f} times smaller"))
    for circuit in report.circuits[:3]:
        gates, two = circuit.after.get("gates"), circuit.after.get("two_qubit")
        if gates is None:
            continue
        remark = f"{two:,} on two qubits" if two is not None else ""
        cards.append((f"gates of {circuit.name}", f"{gates:,}", remark))
    made = [check for check in report.checks if check.result in ("proved", "measured")]
    if report.checks:
        bad = sum(check.result == "failed" for check in report.checks)
        left = len(report.checks) - len(made)
        remark = f"{bad} failed" if bad else f"{left} not checked" if left else "none left out"
        cards.append(("checks passed", f"{len(made)} of {len(report.checks)}", remark))
    return cards
