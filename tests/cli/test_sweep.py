"""``qcomp sweep``: the Pareto front of a model's bytes and of a circuit's T gates, as files."""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp.circuit_checks import check_circuit
from qcomp.deadline import Deadline
from qcomp.report.front import FrontPoint, FrontSection, best_points, draw_front
from qcomp.sweeping import in_halves, sweep
from tests.cli.commands import done, strict
from tests.papers.digits_mlp import digits

MODEL = Path(__file__).parents[1] / "data" / "digits_cnn.onnx"
CIRCUIT = """OPENQASM 3.0;
include "stdgates.inc";
qubit[2] q;
rz(0.3) q[0];
h q[0];
cx q[0], q[1];
ry(1.234) q[1];
"""


@pytest.fixture
def files(folder: Path) -> None:
    """A model with its data, a circuit, and states that it begins in."""
    train, held, _, held_y = digits()
    Path("m.onnx").write_bytes(MODEL.read_bytes())
    np.savez("x.npz", image=train[:64].reshape(-1, 1, 8, 8))
    np.savez("e.npz", image=held[:200].reshape(-1, 1, 8, 8), y=held_y[:200])
    Path("c.qasm").write_text(CIRCUIT)
    Path("exact.qasm").write_text(CIRCUIT.replace("0.3", "pi/4").replace("1.234", "pi/2"))
    rows = np.random.default_rng(0).normal(size=(5, 4))
    np.savez("rows.npz", states=rows / np.linalg.norm(rows, axis=1)[:, None])


def test_a_models_front_is_measured_on_rows_held_out_and_written_in_all_forms(files, cli):
    names = ("f.png", "f.svg", "f.html", "f.json")
    outputs = [part for name in names for part in ("-o", name)]
    text = done(
        cli("sweep", "m.onnx", "--calib", "x.npz", "--eval", "e.npz", "--points", 3, *outputs)
    )
    front = strict(Path("f.json").read_text())
    assert (front["schema"], front["cost"], front["metric"]) == ("qcomp-front", "bytes", "accuracy")
    points = front["points"]
    assert [p["cost"] for p in points] == sorted(p["cost"] for p in points)
    assert all(p["error"] > 3 * points[-1]["error"] > 0 for p in points[:-1])
    assert points[-1]["figure"] >= front["source_figure"] - 0.02
    assert any(p["best"] for p in points)
    assert "4 x 2 bit" in [p["choice"] for p in points]
    assert points[-1]["choice"] == "4 x 8 bit"
    for point in points:
        assert str(point["cost"]) in text
    assert "200 rows of the evaluation data" in text
    assert Path("f.png").read_bytes().startswith(b"\x89PNG")
    assert "accuracy against bytes" in Path("f.svg").read_text()
    page = Path("f.html").read_text()
    assert "Pareto front" in page
    assert page.count("<circle") == len(points)
    assert f"{points[0]['cost']:,}" in page
    assert "<script" not in page


def test_a_point_is_what_a_compile_to_as_many_bytes_writes(files, cli):
    shown = done(
        cli("sweep", "m.onnx", "--calib", "x.npz", "--eval", "e.npz", "--limits", "30kB", "--json")
    )
    (point,) = strict(shown)["points"]
    artifact = qcomp.compile(
        "m.onnx", target="cpu-mixed", calibration="x.npz", labels="e.npz", max_bytes="30kB", out="o"
    )
    assert point["cost"] == next(Path("o").glob("*.onnx")).stat().st_size <= 30_000
    assert point["figure"] == dict(artifact.report)["accuracy"][0]["compiled"]


def test_a_circuits_front_trades_t_gates_for_error_within_every_limit(files, cli):
    done(cli("sweep", "c.qasm", "--points", 3, "-o", "f.json"))
    points = strict(Path("f.json").read_text())["points"]
    assert [p["promised"] for p in points] == pytest.approx([1e-1, 1e-3, 1e-5])
    assert [p["cost"] for p in points] == sorted({p["cost"] for p in points})
    assert all(p["best"] and p["error"] <= p["promised"] for p in points)
    Path("mid.qasm").write_text(CIRCUIT)
    artifact = qcomp.compile("mid.qasm", target="clifford+t", max_error=1e-3, out="o")
    assert dict(artifact.report)["circuits"][0]["after"]["t_count"] == points[1]["cost"]


def test_observables_and_states_bound_a_circuits_front(files, cli):
    options = ("--observable", "Z0*Z1", "--states", "rows.npz", "--limits", "0.1,1%")
    text = done(cli("sweep", "c.qasm", *options, "-o", "f.json"))
    front = strict(Path("f.json").read_text())
    assert front["measure"] == "largest change of an observable"
    assert all(p["error"] <= p["promised"] for p in front["points"])
    assert "1 observables on 5 rows" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("m.onnx", "needs calibration data"),
        ("m.onnx --calib x.npz -o f.gif", "cannot be written as 'f.gif'"),
        ("m.onnx --calib x.npz --points 1", "at least 2 points"),
        ("m.onnx --calib x.npz --limits 3", "3 bytes cannot be met"),
        ("m.onnx --calib x.npz --limits lots", "'lots' is no number of bytes"),
        ("m.onnx --calib x.npz -t cpu-int8", "shares no bits out"),
        ("m.onnx --calib x.npz -t clifford+t", "is no target for one alone"),
        ("m.onnx --calib x.npz --observable Z0", "are for circuits"),
        ("m.onnx --calib x.npz --metric accuracy", "a metric needs labels"),
        ("c.qasm --calib x.npz", "are for graphs"),
        ("c.qasm --limits 5", "between 0 and 2"),
        ("c.qasm -t ibm-heron", "rotations of any angle"),
        ("exact.qasm", "no rotation but multiples of pi/4"),
        ("none.qasm", "there is no file"),
    ],
)
def test_what_has_no_front_is_one_clear_error(files, cli, arguments, message):
    shown = cli("sweep", *arguments.split())
    assert shown.code != 0
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert not list(Path().glob("f.*"))


def test_without_matplotlib_images_are_refused_before_any_work(files, cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    shown = cli("sweep", "c.qasm", "-o", "f.png")
    assert shown.code == 2
    assert "pip install 'qcomp[plots]'" in shown.err
    done(cli("sweep", "c.qasm", "--points", 2, "-o", "f.html", "-o", "f.json"))


def test_ctrl_c_writes_the_points_that_there_are(files, cli, monkeypatch):
    count = 0

    def interrupted(*arguments, **options):
        nonlocal count
        count += 1
        if count == 2:
            signal.raise_signal(signal.SIGINT)
        return check_circuit(*arguments, **options)

    monkeypatch.setattr("qcomp.sweeping.check_circuit", interrupted)
    before = signal.getsignal(signal.SIGINT)
    shown = cli("sweep", "c.qasm", "--points", 50, "-o", "f.json")
    assert shown.code == 0
    assert "Ctrl-C again" in shown.err
    assert "stopped after 2 of 50 points" in shown.out
    points = json.loads(Path("f.json").read_text())["points"]
    assert [p["promised"] for p in points] == pytest.approx([1e-1, 1e-5])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_time_that_is_over_ends_after_one_point(files):
    deadline = Deadline(1.0, clock=iter([0.0, *[5.0] * 50]).__next__)
    report = sweep("c.qasm", points=5, deadline=deadline)
    assert len(report.front.points) == 1
    assert report.warnings == ("stopped after 1 of 5 points",)


def test_ends_come_first_then_the_middle_of_each_gap():
    assert in_halves(9) == [0, 8, 4, 2, 6, 1, 3, 5, 7]
    assert in_halves(1) == [0]
    assert sorted(in_halves(12)) == list(range(12))


def test_dominated_points_are_not_on_the_front():
    costs, losses = [3.0, 1.0, 2.0, 2.0, 4.0], [1.0, 5.0, 6.0, 2.0, 1.0]
    assert best_points(costs, losses) == [True, True, False, True, False]


@pytest.mark.parametrize("form", ["png", "svg"])
def test_equal_fronts_are_drawn_with_equal_bytes(tmp_path, form):
    points = (FrontPoint(10, 0.1, 0.1, best=True), FrontPoint(12, 0.2, 0.2))
    front = FrontSection("bytes", "nats", "4 rows", points=points)
    for name in "ab":
        draw_front(front, tmp_path / name, form)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
