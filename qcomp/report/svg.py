"""Circuits and plots as inline SVG that takes its colours from the page around it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log10
from typing import TYPE_CHECKING

from qcomp.report.diagram import Diagram, Element, clip, plan

if TYPE_CHECKING:
    from qcomp.ir.circuit import Circuit

__all__ = ["Bars", "Dot", "bar_chart", "circuit_svg", "curve_chart", "dot_chart"]

ROW = 40
"""Height of a wire, pixels."""

BOX = 28
"""Height of a gate's box."""

CHARACTER = 7.3
"""Width of one character of the labels."""

GAP = 10
"""Space between two columns."""

_NAME_ROOM = 32


def _text(x: float, y: float, text: str, anchor: str = "middle", style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def _rect(x: float, y: float, width: float, height: float, style: str, title: str = "") -> str:
    head = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{style}"'
    )
    return f"{head}><title>{escape(title)}</title></rect>" if title else f"{head}/>"


def _svg(width: float, height: float, label: str, style: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'class="{style}" role="img" aria-label="{escape(label)}">' + "".join(parts) + "</svg>"
    )


# --- circuits --------------------------------------------------------------------------------


def circuit_svg(
    circuit: Circuit, max_width: int = 1080, *, max_operations: int = 300, max_qubits: int = 40
) -> str:
    """Return the circuit as SVG, in bands of at most ``max_width`` pixels.

    What is left out is said in the last lines.

    Args:
        circuit: The circuit.
        max_width: Pixels.
        max_operations: Operations that are drawn.
        max_qubits: Qubits that are drawn, and classical registers.
    """
    diagram = plan(circuit, max_operations, max_qubits)
    margin = CHARACTER * max((len(w.label) for w in diagram.wires), default=0) + 14
    room = max(max_width - margin - GAP, 120)
    widths = [max(_width(e, room) for e in column) for column in diagram.columns]
    bands, first, used = [], 0, 0.0
    for i, width in enumerate(widths):
        if i > first and used + width + GAP > room:
            bands.append((first, i))
            first, used = i, 0.0
        used += width + GAP
    bands.append((first, len(widths)))
    parts: list[str] = []
    y = 4.0
    for line in diagram.header:
        y += 18
        parts.append(_text(4, y, line, "start", "note"))
    whole = 0.0
    for first, last in bands:
        width = margin + sum(widths[first:last]) + GAP * (last - first + 1)
        whole = max(whole, width)
        if diagram.wires:
            parts += _band(diagram, widths, first, last, margin, y, width)
            y += len(diagram.wires) * ROW + 12
    for line in diagram.footer:
        y += 18
        parts.append(_text(4, y, line, "start", "note"))
        whole = max(whole, CHARACTER * len(line) + 8)
    name = f"circuit {clip(circuit.name)}, {circuit.num_qubits} qubits"
    return _svg(max(whole, 160), y + 10, name, "circuit", parts)


def _width(element: Element, room: float) -> float:
    if element.kind in ("tall", "frame"):
        texts = [element.text]
    else:
        texts = [m.text for m in element.marks if m.sign == "box"]
    longest = max((len(t) for t in texts), default=0)
    return min(max(24.0, CHARACTER * longest + 14 + 12 * (element.kind == "tall")), room)


def _band(
    diagram: Diagram,
    widths: list[float],
    first: int,
    last: int,
    margin: float,
    y: float,
    width: float,
) -> list[str]:
    parts: list[str] = []
    for row, wire in enumerate(diagram.wires):
        at = y + (row + 0.5) * ROW
        parts.append(_text(margin - 8, at + 4, wire.label, "end", "wire-name"))
        if wire.is_qubit:
            parts.append(_line(margin, at, width, at, "wire"))
        else:
            parts.append(_line(margin, at - 1.5, width, at - 1.5, "bits"))
            parts.append(_line(margin, at + 1.5, width, at + 1.5, "bits"))
    x = margin + GAP
    for column in range(first, last):
        for element in diagram.columns[column]:
            parts += _element(element, x + widths[column] / 2, y)
        x += widths[column] + GAP
    return parts


def _element(element: Element, x: float, y: float) -> list[str]:
    def at(row: int) -> float:
        return y + (row + 0.5) * ROW

    top, bottom = at(element.top), at(element.bottom)
    if element.kind in ("tall", "frame"):
        half = _width(element, 1e9) / 2
        height = bottom - top + BOX
        style = "frame" if element.kind == "frame" else "gate wide"
        parts = [_rect(x - half, top - BOX / 2, 2 * half, height, style)]
        parts += [_text(x - half + 8, at(m.row) + 4, m.text, style="port") for m in element.marks]
        shift = 4 if element.marks else 0
        return [*parts, _text(x + shift, (top + bottom) / 2 + 4, element.text)]
    if element.kind == "barrier":
        return [_rect(x - 4, at(m.row) - ROW / 2 + 1, 8, ROW - 2, "barrier") for m in element.marks]
    if element.kind == "measure":
        bit = element.marks[1]
        return [
            _line(x, top, x, bottom - 5, "bits"),
            f'<path d="M{x - 4:.1f} {bottom - 8:.1f}h8l-4 7z" class="arrow"/>',
            *_box(x, top, "M", "gate measure"),
            _text(x + 5, bottom + 15, bit.text, "start", "bit"),
        ]
    end = bottom + ROW / 2 if element.open_below else bottom
    parts = [_line(x, top, x, end, "link" + (" open" if element.open_below else ""))]
    for mark in element.marks:
        here = at(mark.row)
        if mark.sign == "box":
            parts += _box(x, here, mark.text, "gate")
        elif mark.sign == "dot":
            parts.append(f'<circle cx="{x:.1f}" cy="{here:.1f}" r="4.5" class="dot"/>')
        elif mark.sign == "plus":
            parts.append(f'<circle cx="{x:.1f}" cy="{here:.1f}" r="10" class="plus"/>')
            parts.append(_line(x - 10, here, x + 10, here, "link"))
            parts.append(_line(x, here - 10, x, here + 10, "link"))
        else:
            parts.append(_line(x - 6, here - 6, x + 6, here + 6, "link"))
            parts.append(_line(x - 6, here + 6, x + 6, here - 6, "link"))
    return parts


def _box(x: float, y: float, text: str, style: str) -> list[str]:
    half = max(24.0, CHARACTER * len(text) + 14) / 2
    return [_rect(x - half, y - BOX / 2, 2 * half, BOX, style), _text(x, y + 4, text)]


# --- plots -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bars:
    """One row of a chart: its name, a value for each series or None, and whether it stands out."""

    name: str
    values: tuple[float | None, ...]
    marked: bool = False


def bar_chart(
    rows: Sequence[Bars], series: Sequence[str], unit: str, title: str, digits: int = 1
) -> str:
    """Return horizontal bars, a group for each row, with a value axis and a legend.

    Args:
        rows: The rows, drawn from the top.
        series: Names of the values of a row.
        unit: What the axis shows.
        title: What the whole plot shows, for readers that cannot see it.
        digits: Digits after the point of the numbers at the bars.
    """
    values = [v for row in rows for v in row.values if v is not None and isfinite(v)]
    ticks = _ticks(min([0.0, *values]), max([0.0, *values]))
    names = [clip(row.name, _NAME_ROOM) for row in rows]
    left = CHARACTER * max((len(n) for n in names), default=0) + 14
    right, plot = 64.0, 640.0
    thick = 11.0
    step = thick * len(series) + 12
    top = 30.0
    height = top + step * len(rows) + 40

    def at(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * plot

    parts = _legend(series, left)
    end = top + step * len(rows)
    parts += _axis(ticks, at, top, end, unit, left + plot / 2)
    for i, row in enumerate(rows):
        y = top + i * step + 6
        middle = y + thick * len(series) / 2
        style = "name worst" if row.marked else "name"
        parts.append(_text(left - 8, middle + 4, names[i], "end", style))
        for k, value in enumerate(row.values):
            if value is None:
                continue
            # A value without bound (an exact layer) fills the axis and says so.
            shown = value if isfinite(value) else ticks[-1] if value > 0 else ticks[0]
            label = f"{value:,.{digits}f}" if isfinite(value) else "exact" if value > 0 else "–"
            x1, x2 = sorted((at(0.0), at(shown)))
            tip = f"{row.name}: {series[k]} {label} {unit}"
            parts.append(_rect(x1, y + k * thick, x2 - x1, thick - 2, f"bar s{k}", tip))
            parts.append(_text(x2 + 5, y + k * thick + 8.5, label, "start", "value"))
    return _svg(left + plot + right, height, title, "plot", parts)


def dot_chart(rows: Sequence[Bars], series: Sequence[str], unit: str, axis: str, title: str) -> str:
    """Return one dot for each value over the row's number, for many rows.

    Args:
        rows: The rows, drawn from the left; names show when a dot is pointed at.
        series: Names of the values of a row.
        unit: What the vertical axis shows.
        axis: What the horizontal axis shows.
        title: What the whole plot shows, for readers that cannot see it.
    """
    values = [v for row in rows for v in row.values if v is not None and isfinite(v)]
    ticks = _ticks(min([0.0, *values]), max([0.0, *values]))
    left, width, top, plot = 62.0, 960.0, 30.0, 240.0

    def up(value: float) -> float:
        return top + plot - (value - ticks[0]) / (ticks[-1] - ticks[0]) * plot

    def across(number: float) -> float:
        return left + (number + 0.5) / max(len(rows), 1) * width

    parts = _legend(series, left)
    for tick in ticks:
        parts.append(_line(left, up(tick), left + width, up(tick), "grid"))
        parts.append(_text(left - 6, up(tick) + 4, _number(tick), "end", "tick"))
    step = max(1, round(len(rows) / 8))
    for number in range(0, len(rows), step):
        parts.append(_text(across(number), top + plot + 16, str(number + 1), style="tick"))
    parts.append(_text(left + width / 2, top + plot + 34, axis, style="axis"))
    middle = top + plot / 2
    parts.append(
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" class="axis" '
        f'transform="rotate(-90 14 {middle:.0f})">{escape(unit)}</text>'
    )
    for i, row in enumerate(rows):
        for k, value in enumerate(row.values):
            if value is None or value != value or value == float("-inf"):
                continue
            label = f"{value:.1f}" if isfinite(value) else "exact"
            style, size = (f"bar s{k} worst", 5) if row.marked else (f"bar s{k}", 3)
            tip = escape(f"{row.name}: {series[k]} {label} {unit}")
            parts.append(
                f'<circle cx="{across(i):.1f}" cy="{up(min(value, ticks[-1])):.1f}" r="{size}" '
                f'class="{style}"><title>{tip}</title></circle>'
            )
    return _svg(left + width + 10, top + plot + 46, title, "plot", parts)


@dataclass(frozen=True, slots=True)
class Dot:
    """One point of a curve: where it is, what shows when it is pointed at, and whether it leads."""

    x: float
    y: float
    tip: str
    marked: bool = True


def curve_chart(
    dots: Sequence[Dot], across: str, up: str, title: str, *, logarithmic: bool = False
) -> str:
    """Return points over a horizontal axis; a line joins those that are marked.

    Args:
        dots: The points, from the left.
        across: What the horizontal axis shows.
        up: What the vertical axis shows.
        title: What the whole plot shows, for readers that cannot see it.
        logarithmic: Whether the vertical axis is one of logarithms; all y are above 0 then.
    """
    left, width, top, plot = 84.0, 720.0, 16.0, 300.0
    xs = _ticks(min(d.x for d in dots), max(d.x for d in dots))
    heights = [log10(d.y) if logarithmic else d.y for d in dots]
    ys = _ticks(min(heights), max(heights))
    if logarithmic:
        ys = [float(k) for k in range(floor(min(heights)), -floor(-max(heights)) + 1)]
        ys = ys if len(ys) > 1 else [ys[0], ys[0] + 1]

    def right_of(x: float) -> float:
        return left + (x - xs[0]) / (xs[-1] - xs[0]) * width

    def above(y: float) -> float:
        return top + plot - (y - ys[0]) / (ys[-1] - ys[0]) * plot

    parts = _axis(xs, right_of, top, top + plot, across, left + width / 2)
    for tick in ys:
        text = f"1e{tick:+.0f}" if logarithmic else _number(tick)
        parts.append(_line(left, above(tick), left + width, above(tick), "grid"))
        parts.append(_text(left - 6, above(tick) + 4, text, "end", "tick"))
    middle = top + plot / 2
    parts.append(
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" class="axis" '
        f'transform="rotate(-90 14 {middle:.0f})">{escape(up)}</text>'
    )
    at = [(right_of(d.x), above(y)) for d, y in zip(dots, heights, strict=True)]
    led = [place for place, dot in zip(at, dots, strict=True) if dot.marked]
    for (x1, y1), (x2, y2) in itertools.pairwise(led):
        parts.append(_line(x1, y1, x2, y2, "link"))
    for (x, y), dot in zip(at, dots, strict=True):
        style = "bar s0" if dot.marked else "bar s2"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="{style}">'
            f"<title>{escape(dot.tip)}</title></circle>"
        )
    return _svg(left + width + 30, top + plot + 46, title, "plot", parts)


def _legend(series: Sequence[str], x: float) -> list[str]:
    parts = []
    for k, name in enumerate(series):
        parts.append(_rect(x, 8, 10, 10, f"bar s{k}"))
        parts.append(_text(x + 15, 17, name, "start", "tick"))
        x += 15 + CHARACTER * len(name) + 18
    return parts


def _axis(
    ticks: Sequence[float],
    at: Callable[[float], float],
    top: float,
    end: float,
    unit: str,
    middle: float,
) -> list[str]:
    parts = []
    for tick in ticks:
        parts.append(_line(at(tick), top, at(tick), end, "grid"))
        parts.append(_text(at(tick), end + 15, _number(tick), style="tick"))
    return [*parts, _text(middle, end + 33, unit, style="axis")]


def _number(value: float) -> str:
    if value and (abs(value) >= 1e7 or abs(value) < 1e-3):
        return f"{value:.0e}"
    return f"{value:,.10g}"


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers, about five, from at most ``low`` to at least ``high``."""
    span = high - low
    if not span > 0:
        return [low, low + 1.0]
    raw = span / 5
    unit = 10.0 ** floor(log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first = floor(low / step)
    last = -floor(-high / step)
    return [round(k * step, 12) for k in range(first, last + 1)]
