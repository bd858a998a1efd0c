"""A circuit drawn as text in Unicode's box-drawing characters."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from qcomp.report.diagram import Diagram, Element, Wire, clip, plan

if TYPE_CHECKING:
    from qcomp.ir.circuit import Circuit

__all__ = ["draw"]

MIN_WIDTH = 40

_LINES = {
    "    ": " ", "--  ": "│", "  --": "─", " - -": "┌", " -- ": "┐", "-  -": "└", "- - ": "┘",
    "-- -": "├", "--- ": "┤", " ---": "┬", "- --": "┴", "----": "┼",
    "==  ": "║", "  ==": "═", "==--": "╫", "--==": "╪", "====": "╬", "= ==": "╩", " ===": "╦",
    " =--": "╥", "= --": "╨", "--= ": "╡", "-- =": "╞", " -==": "╤", "- ==": "╧",
    "-   ": "│", " -  ": "│", "  - ": "─", "   -": "─", "=   ": "║", " =  ": "║",
    "-=--": "┼", "=---": "┼", "==- ": "║", "== -": "║", "  = ": "═", "   =": "═",
}  # fmt: skip
"""Up, down, left, right of a character cell, "-" single and "=" double -> the character."""

_UP, _DOWN, _LEFT, _RIGHT = range(4)
_SIGNS = {"dot": "●", "plus": "⊕", "cross": "╳"}


class _Canvas:
    """Cells that remember which lines leave them, so that lines join where they meet."""

    def __init__(self, height: int, width: int) -> None:
        self.lines = [[[" "] * 4 for _ in range(width)] for _ in range(height)]
        self.text: list[list[str]] = [[""] * width for _ in range(height)]

    def line(self, row: int, column: int, directions: tuple[int, ...], stroke: str = "-") -> None:
        for direction in directions:
            self.lines[row][column][direction] = stroke

    def horizontal(self, row: int, first: int, last: int, stroke: str) -> None:
        for column in range(first, last + 1):
            self.line(row, column, (_LEFT, _RIGHT), stroke)

    def vertical(self, column: int, first: int, last: int, stroke: str = "-") -> None:
        """Draw from the middle of one row to the middle of another."""
        for row in range(first, last + 1):
            if row > first:
                self.line(row, column, (_UP,), stroke)
            if row < last:
                self.line(row, column, (_DOWN,), stroke)

    def write(self, row: int, column: int, text: str) -> None:
        for i, character in enumerate(text):
            self.text[row][column + i] = character

    def box(self, top: int, bottom: int, left: int, right: int) -> None:
        """Draw a box and clear its inside; wires join its sides."""
        for row in range(top + 1, bottom):
            for column in range(left + 1, right):
                self.lines[row][column] = [" "] * 4
            self.line(row, left, (_UP, _DOWN))
            self.line(row, right, (_UP, _DOWN))
            self.lines[row][left][_RIGHT] = self.lines[row][right][_LEFT] = " "
        for row in (top, bottom):
            for column in range(left, right + 1):
                self.line(row, column, (_LEFT,) if column > left else ())
                self.line(row, column, (_RIGHT,) if column < right else ())
        for column in (left, right):
            self.line(top, column, (_DOWN,))
            self.line(bottom, column, (_UP,))

    def rows(self) -> list[str]:
        """Return the lines of text."""
        return [
            "".join(
                text or _LINES.get("".join(cell), "┼")
                for text, cell in zip(texts, cells, strict=True)
            )
            for texts, cells in zip(self.text, self.lines, strict=True)
        ]


def draw(
    circuit: Circuit, max_width: int = 120, *, max_operations: int = 400, max_qubits: int = 40
) -> str:
    """Return the circuit drawn as text.

    Qubits run from left to right, one line each, classical registers as double lines below them.
    A drawing wider than ``max_width`` goes on below in a further band. What is left out is said in
    the last lines; the time taken does not depend on it.

    Args:
        circuit: The circuit.
        max_width: Characters in a line, at least 40.
        max_operations: Operations that are drawn.
        max_qubits: Qubits that are drawn, and classical registers.
    """
    diagram = plan(circuit, max_operations, max_qubits)
    if not diagram.wires:
        return "\n".join((*diagram.header, "(no wires)", *diagram.footer)) + "\n"
    margin = max(len(wire.label) for wire in diagram.wires) + 2
    max_width = max(max_width, MIN_WIDTH)
    room = max_width - margin - 1

    def wrapped(notes: tuple[str, ...]) -> list[str]:
        return [line for note in notes for line in wrap(note, max_width)]

    widths = [max((_width(e, room) for e in column), default=1) for column in diagram.columns]
    lines = wrapped(diagram.header)
    for first, last in _bands(widths, room):
        lines += [""] * (first > 0)
        lines += _band(diagram, margin, widths, first, last)
    lines += wrapped(diagram.footer)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _label_room(room: int) -> int:
    return max(room - 6, 4)


def _width(element: Element, room: int) -> int:
    """Characters that an element's column needs."""
    if element.kind in ("tall", "frame"):
        return min(len(element.text), _label_room(room)) + 4 + (element.kind == "tall")
    if element.kind == "measure":
        return max(3, *(len(mark.text) for mark in element.marks))
    texts = [m.text for m in element.marks if m.sign == "box"]
    return max((min(len(t), _label_room(room)) + 4 for t in texts), default=1)


def _bands(widths: list[int], room: int) -> list[tuple[int, int]]:
    """Split columns into bands [first, last) that are at most ``room`` wide."""
    bands: list[tuple[int, int]] = []
    first, used = 0, 0
    for i, width in enumerate(widths):
        if i > first and used + width + 1 > room:
            bands.append((first, i))
            first, used = i, 0
        used += width + 1
    bands.append((first, len(widths)))
    return bands


def _band(diagram: Diagram, margin: int, widths: list[int], first: int, last: int) -> list[str]:
    width = sum(widths[first:last]) + (last - first) + 1
    canvas = _Canvas(2 * len(diagram.wires) + 1, width)
    for row, wire in enumerate(diagram.wires):
        canvas.horizontal(2 * row + 1, 0, width - 1, _stroke(wire))
    at = 1
    for column in range(first, last):
        for element in diagram.columns[column]:
            _element(canvas, diagram.wires, element, at, widths[column])
        at += widths[column] + 1
    rows = canvas.rows()
    blank = " " * margin
    result = []
    for i, text in enumerate(rows):
        label = f"{diagram.wires[i // 2].label}: ".rjust(margin) if i % 2 else blank
        result.append(label + text)
    # A line between two wires that has nothing on it only costs height.
    return [line for i, line in enumerate(result) if i % 2 or line.strip()]


def _stroke(wire: Wire) -> str:
    return "-" if wire.is_qubit else "="


def _element(
    canvas: _Canvas, wires: tuple[Wire, ...], element: Element, left: int, width: int
) -> None:
    middle = left + width // 2
    top, bottom = 2 * element.top + 1, 2 * element.bottom + 1
    if element.kind in ("tall", "frame"):
        _tall(canvas, element, left, width)
        return
    if element.kind == "barrier":
        rows = {m.row for m in element.marks}
        for row in rows:
            canvas.write(2 * row + 1, middle, "░")
            if row + 1 in rows:
                canvas.write(2 * row + 2, middle, "░")
        return
    if element.kind == "measure":
        box, bit = element.marks
        canvas.vertical(middle, top + 1, bottom, "=")
        canvas.box(top - 1, top + 1, middle - 1, middle + 1)
        canvas.write(top, middle, box.text)
        start = middle - len(bit.text) // 2
        canvas.write(bottom + 1, start, bit.text)
        return
    end = bottom + 1 if element.open_below else bottom
    canvas.vertical(middle, top, end)
    if element.open_below:
        canvas.write(end, middle, "┊")
    for mark in element.marks:
        row = 2 * mark.row + 1
        if mark.sign != "box":
            canvas.write(row, middle, _SIGNS[mark.sign])
            continue
        text = clip(mark.text, width - 4)
        begin = middle - (len(text) + 4) // 2
        canvas.box(row - 1, row + 1, begin, begin + len(text) + 3)
        # The line to the other marks ends at the box's edge.
        canvas.line(row - 1, middle, (_DOWN,), " ")
        canvas.line(row + 1, middle, (_UP,), " ")
        canvas.write(row, begin + 2, text)


def _tall(canvas: _Canvas, element: Element, left: int, width: int) -> None:
    ports = any(mark.sign == "port" for mark in element.marks)
    text = clip(element.text, width - 4 - ports)
    inner = len(text) + 4 + ports
    begin = left + (width - inner) // 2
    top, bottom = 2 * element.top, 2 * element.bottom + 2
    canvas.box(top, bottom, begin, begin + inner - 1)
    canvas.write((top + bottom) // 2, begin + 2 + ports, text)
    for mark in element.marks:
        canvas.write(2 * mark.row + 1, begin + 1, mark.text)
