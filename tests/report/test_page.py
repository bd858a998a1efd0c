"""The HTML page: holds the figures, needs no network, survives hostile names."""

import dataclasses
import html.parser
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.report.collect import circuit_section
from qcomp.report.data import AccuracyLine, CheckLine, CircuitSection, Report, SourceLine
from qcomp.report.page import size_text
from qcomp.report.svg import Bars, bar_chart, circuit_svg, dot_chart

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(html.parser.HTMLParser):
    """Checks that every tag is closed; gathers text, tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_every_figure_stands_on_the_page(full_report: Callable[..., Report]) -> None:
    text = Page(full_report().to_html()).text
    for figure in (
        "97.22 %", "96.94 %", "−0.28 points", "360",  # accuracy
        "431.2 kB", "118.3 kB", "104.2 kB", "4.0 times smaller",  # sizes
        "42.5", "exact", "30.2", "left in float", "31.5 dB", "256",  # quantization
        "QLinearConv", "/layer3/Conv (runs as Conv)",  # fusions
        "gates 168 → 120", "1.250", "nothing",  # passes
        "measured, error 3.2e-15 (largest amplitude difference)", "proved", "not checked",
        "2.5e-14", "points of accuracy",  # budget
        "ab" * 32, "onnxruntime 1.27.0", "3.41 s", "basis gates cz, rz, sx, x",
    ):  # fmt: skip
        assert figure in text, figure


def test_page_needs_no_network_and_no_scripts(full_report: Callable[..., Report]) -> None:
    page = full_report().to_html()
    found = Page(page)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name in ("src", "href", "xlink:href")]
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert not re.search(r"https?:|url\(|@import", page)


def test_hostile_names_are_shown_as_text(full_report: Callable[..., Report]) -> None:
    name = '<script>alert(1)</script>"onload="x'
    page = full_report(name=name).to_html()
    found = Page(page)
    assert "script" not in found.tags
    assert not [key for key, _ in found.attributes if key.startswith("on")]
    assert "<script>alert(1)</script>" in found.text


def test_hostile_wire_names_stay_inside_the_drawing() -> None:
    circuit = Circuit(1, name="</svg><script>", qregs=(RegisterDecl("<b>&", 1, 0),))
    circuit.x(0)
    section = circuit_section(circuit.name, circuit)
    found = Page(Report(circuits=(section,)).to_html())
    assert not {"script", "b"} & set(found.tags) - {"b"}
    ET.fromstring(circuit_svg(circuit))


def test_every_section_may_be_absent(full_report: Callable[..., Report]) -> None:
    full = full_report()
    for field in dataclasses.fields(Report):
        empty = getattr(Report(), field.name)
        Page(dataclasses.replace(full, **{field.name: empty}).to_html())
        Page(dataclasses.replace(Report(), **{field.name: getattr(full, field.name)}).to_html())
    assert "h2" not in Page(Report().to_html()).tags


def test_a_page_from_json_shows_the_text_drawing_in_place_of_the_picture(
    full_report: Callable[..., Report],
) -> None:
    report = Report.from_json(full_report().to_json())
    assert "q[7]:" in Page(report.to_html()).text


def test_many_layers_become_dots(full_report: Callable[..., Report]) -> None:
    page = full_report(60).to_html()
    assert "60 quantized layers" in page
    assert page.count("<circle") >= 120


def test_a_circuit_without_counts_before_shows_only_counts_after() -> None:
    text = Page(Report(circuits=(CircuitSection("c", after={"gates": 12}),)).to_html()).text
    assert "before" not in text
    assert "12" in text


def test_unfinished_checks_are_called_by_their_name() -> None:
    assert CheckLine("x").sentence == "not checked"
    assert CheckLine("x", result="measured", error=0.25).sentence == "measured, error 0.25"
    text = Page(Report(checks=(CheckLine("x", result="failed"),)).to_html()).text
    assert "0 of 1 1 failed" in text


@pytest.mark.parametrize("values", [(), (0.0,), (-3.0, 5.0), (math.inf, 1.0), (math.nan, 2e9)])
def test_plots_are_well_formed_for_any_values(values: tuple[float, ...]) -> None:
    rows = [Bars(f"<{i}>", (value, None)) for i, value in enumerate(values)]
    ET.fromstring(bar_chart(rows, ["a", "b"], "dB", "a & b"))
    ET.fromstring(dot_chart(rows, ["a", "b"], "dB", "layer", "a & b"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (3.2e9, "3.2 GB"),
     (5e12, "5,000.0 GB")],
)  # fmt: skip
def test_sizes_are_written_for_people(value: float | None, text: str) -> None:
    assert size_text(value) == text


def test_the_page_of_a_large_circuit_is_small(layered: Callable[..., Circuit]) -> None:
    circuit = layered(20, 200)
    page = Report(circuits=(circuit_section("c", circuit),)).to_html()
    assert len(page) < 200_000
    assert "the drawing stops after" in page


def test_a_metric_that_is_no_accuracy_is_no_percentage() -> None:
    line = AccuracyLine("mean squared error", 0.0123, 0.0125, 10)
    text = Page(Report(accuracy=(line,)).to_html()).text
    assert "mean squared error 0.0123 0.0125 +0.0002 10" in text


def test_the_source_may_be_text_without_a_file() -> None:
    text = Page(Report(source=SourceLine("OpenQASM text", "openqasm", 12)).to_html()).text
    assert "OpenQASM text, read by the frontend openqasm, 12 bytes" in text
