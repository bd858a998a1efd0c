"""``--metric`` and ``--max-drop`` on the command line: what a user sees, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.models import mlp

STATIC = "canonicalise,calibrate,quantize-static"
METRICS = """
def agreement(outputs, labels):
    return (outputs.argmax(1) == labels).mean()


def broken(outputs, labels):
    raise ValueError("no way")


def text(outputs, labels):
    return "good"


def nan(outputs, labels):
    return float("nan")
"""


@pytest.fixture
def files(folder: Path) -> Path:
    """A model, data, labels and metrics in the current folder."""
    rng = np.random.default_rng(1)
    Path("m.onnx").write_bytes(mlp((4, 16, 3)).SerializeToString())
    x = rng.normal(size=(64, 4)).astype(np.float32)
    np.savez("x.npz", x=x)
    np.savez("y.npz", x=x, y=rng.integers(0, 3, 64))
    np.savez("short.npz", y=np.zeros(7, int))
    np.savez("many.npz", x=x, y=rng.integers(0, 9, 64))
    bad = x.copy()
    bad[3] = np.nan
    np.savez("nan.npz", x=bad, y=rng.integers(0, 3, 64))
    Path("mine.py").write_text(METRICS)
    return folder


def test_a_largest_drop_is_met_and_said(files, cli):
    arguments = ("compile", "m.onnx", "-t", "cpu-int8", "--calib", "x.npz", "--labels", "y.npz")
    shown = cli(*arguments, "--metric", "mine.py:agreement", "--max-drop", "5%", "-o", "out")
    assert shown.code == 0, shown.err
    assert "mine.py:agreement gets worse by at most 5% with all layers quantized" in shown.out
    assert "mine.py:agreement on 64 samples" in shown.out
    report = json.loads(Path("out/report.json").read_text())
    assert report["bound"]["drop"] == "5%"
    assert "Largest drop" in Path("out/report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--labels short.npz", "7 labels for 64 samples"),
        ("--labels many.npz", "the model has 3 classes"),
        ("--labels nan.npz", "nan"),
        ("--labels y.npz --metric acuracy", "did you mean 'accuracy'"),
        ("--labels y.npz --metric mine.py:broken", "ValueError: no way"),
        ("--labels y.npz --metric mine.py:text", "returned str, no number"),
        ("--labels y.npz --metric mine.py:nan", "the metric returned nan"),
        ("--labels y.npz --metric mine.py:agrement", "did you mean 'agreement'"),
        ("--labels y.npz --metric none.py:f", "no file 'none.py'"),
        ("--labels y.npz --metric cosine", "vectors of one length"),
        ("--metric accuracy", "a metric needs labels"),
        ("--max-drop 1%", "a largest drop needs labels"),
        ("--labels y.npz --max-drop lots", "'lots' is no drop"),
        ("--labels y.npz --max-drop=-1%", "'-1%' is no drop"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_error(files, cli, options, message):
    arguments = ("compile", "m.onnx", "-t", "cpu-int8", "-p", STATIC, "--calib", "x.npz")
    shown = cli(*arguments, *options.split(), "-o", "out")
    assert shown.code != 0
    assert message in shown.err.lower() if message == "nan" else message in shown.err
    assert "Traceback" not in shown.err
    assert shown.err.count("error:") == 1
    assert not Path("out").exists()
