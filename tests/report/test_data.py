"""The report's JSON: a round trip, versions, and clear refusals."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from qcomp.budget import Ledger
from qcomp.errors import SourceError
from qcomp.ir.circuit import Circuit
from qcomp.passmanager import PassRecord
from qcomp.quantization import (
    FloatOp,
    FusionOutcome,
    FusionReport,
    LayerError,
    QuantizationError,
    QuantizationRecord,
    QuantizedLayer,
)
from qcomp.report.collect import (
    budget_lines,
    circuit_section,
    file_lines,
    pass_lines,
    quantization_section,
)
from qcomp.report.data import SCHEMA, VERSION, LayerLine, Quantization, Report
from qcomp.report.theory import against_theory


def test_json_reads_back_to_an_equal_report(full_report: Callable[..., Report]) -> None:
    for report in (Report(), full_report(), full_report(60, "<ö>")):
        assert Report.from_json(report.to_json()) == report


def test_json_is_strict_and_names_its_version(full_report: Callable[..., Report]) -> None:
    data = json.loads(full_report().to_json(), parse_constant=pytest.fail)
    assert (data["schema"], data["version"]) == (SCHEMA, VERSION)
    assert data["quantization"]["layers"][1]["weight_sqnr"] == "inf"
    assert "svg" not in data["circuits"][0]


def test_numbers_that_json_lacks_survive() -> None:
    layers = (LayerLine("a", "Conv", weight_sqnr=-math.inf), LayerLine("b", "Conv"))
    report = Report(quantization=Quantization(layers))
    assert Report.from_json(report.to_json()) == report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other"}, "no report of qcomp"),
        ({"version": VERSION + 1}, "reads versions up to"),
        ({"version": "1"}, "reads versions up to"),
        ({"seed": "seven"}, "'report.seed' cannot be 'seven'"),
        ({"seed": True}, "'report.seed' cannot be True"),
        ({"passes": {}}, "'report.passes' cannot be"),
        ({"passes": [{"name": "x"}]}, "'report.passes[0]' lacks seconds, changed"),
        ({"checks": [{"what": "x", "result": "maybe"}]}, "'report.checks[0].result' cannot be"),
        ({"circuits": [{"name": "x", "svg": "<b>"}]}, "'report.circuits[0]' has no part 'svg'"),
        ({"surprise": 1}, "'report' has no part 'surprise'"),
    ],
)
def test_what_is_no_report_is_refused_with_its_place(
    change: dict[str, object], message: str
) -> None:
    data = {**json.loads(Report().to_json()), **change}
    with pytest.raises(SourceError) as caught:
        Report.from_json(json.dumps(data))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(SourceError):
        Report.from_json(text)


def test_facts_of_the_passes_become_lines() -> None:
    record = QuantizationRecord(
        (
            QuantizedLayer("a", "Conv", "static", "w", "wq", "s8", "QLinearConv", "x", "y"),
            QuantizedLayer("b", "Conv", "static", "v", "vq", "s8", "QLinearConv", "y", "z"),
        ),
        (FloatOp("c", "Softmax", "stays"),),
    )
    error = QuantizationError(
        (LayerError("a", "Conv", 40.0, 30.0),), {"logits": 28.0}, 64, "calibration"
    )
    fusion = FusionReport(
        (
            FusionOutcome("a", "QLinearConv", "QLinearConv", True),
            FusionOutcome("b", "QLinearConv", "Conv", False),
        ),
        {"QLinearConv": 1},
        {},
        0,
        "",
    )
    section = quantization_section(record, error, fusion)
    assert section is not None
    assert section.layers[0] == LayerLine(
        *("a", "Conv", "static", "s8", 40.0, 30.0, "w", "QLinearConv", "QLinearConv"),
        why="integers all through, with scales from calibration",
        theory=against_theory("s8", 40.0),
    )
    assert section.layers[1].output_sqnr is None
    assert (section.samples, section.data, section.outputs) == (64, "calibration", {"logits": 28.0})
    line = section.fusions[0]
    assert (line.planned, line.achieved) == (2, 1)
    assert line.missed == ("b (runs as Conv)",)
    assert quantization_section(None) is None


def test_records_and_ledger_become_lines(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.spend_numeric("to-basis", 1e-12)
    assert budget_lines(ledger)[0].spent == 1e-12
    line = pass_lines([PassRecord("x", 0.5, True, {"gates": 2}, {"gates": 1}, "exact")])[0]
    assert (line.name, line.before, line.after) == ("x", {"gates": 2}, {"gates": 1})
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.txt").write_bytes(b"abc")
    (found,) = file_lines(tmp_path)
    assert (found.name, found.bytes, found.sha256[:8]) == ("inner/b.txt", 3, "ba7816bf")


def test_a_circuit_section_holds_counts_and_both_drawings(layered: Callable[..., Circuit]) -> None:
    section = circuit_section("c", layered())
    assert section.after["gates"] == 56
    assert "q[7]:" in section.drawing
    assert section.svg.startswith("<svg")
