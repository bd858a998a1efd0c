"""The worst layers of a page: marked in the plot, listed in a table; what a largest drop kept."""

import xml.etree.ElementTree as ET

import pytest

from qcomp.report.data import BoundLine, KeptLine, LayerLine, Quantization, Report
from qcomp.report.page import worst_layers


def layers(count: int) -> tuple[LayerLine, ...]:
    """Layers in graph order whose output error grows by turns."""
    return tuple(
        LayerLine(f"layer{i}", "Conv", "static", "s8", 40.0 + i, 20.0 + (7 * i) % count)
        for i in range(count)
    )


def plot_of(page: str) -> ET.Element:
    start = page.index("<svg")
    return ET.fromstring(page[start : page.index("</svg>", start) + 6])


@pytest.mark.parametrize(("count", "marked"), [(3, 2), (24, 10), (80, 10)])
def test_the_layers_with_the_lowest_output_sqnr_are_marked_and_listed(count, marked):
    found = layers(count)
    worst = worst_layers(found)
    assert len(worst) == marked
    least = sorted(line.output_sqnr for line in found)[:marked]
    assert [line.output_sqnr for line in worst] == least
    page = Report(quantization=Quantization(found, samples=4, data="calibration")).to_html()
    assert f"The {marked} worst layers" in page
    plot = plot_of(page)
    named = [e for e in plot.iter() if "worst" in e.get("class", "")]
    if count <= 40:
        assert {e.text for e in named} == {line.layer for line in worst}
    else:  # a dot for the weight and one for the output of each
        assert len(named) == 2 * marked
    order = [e.text for e in plot.iter() if "name" in e.get("class", "").split()]
    assert order == ([line.layer for line in found] if count <= 40 else [])


def test_layers_whose_outputs_were_not_compared_are_not_called_worst():
    found = (LayerLine("a", "Gemm", "weights", "u4/32", 18.0, None),)
    assert worst_layers(found) == []
    assert "worst" not in Report(quantization=Quantization(found)).to_html().split("</style>")[1]


def test_what_a_largest_drop_kept_and_cost_is_said_and_survives_json():
    kept = (KeptLine("head", "Gemm", 17.5), KeptLine("<b>", "Conv", 20.0))
    bound = BoundLine("0.5%", "accuracy", 0.9, 0.8, 0.897, kept, 9, 5, 10**6, 2 * 10**6, 0.5, 0.75)
    report = Report(bound=bound)
    assert Report.from_json(report.to_json()) == report
    assert "2 of 9 layers stay in float" in bound.sentence
    assert "0.75 of float's in place of 0.50" in bound.sentence
    page = report.to_html()
    assert "17.5" in page
    assert "&lt;b&gt;" in page
    assert "5 ways to compile" in page
