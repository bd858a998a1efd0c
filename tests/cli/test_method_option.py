"""``--method``: how weights of few bits are rounded, and what each layer got and why."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcomp
from qcomp.rounding_method import with_method
from qcomp.target import get_target
from tests.models import mlp

EXAMPLE = Path(__file__).parents[2] / "examples" / "char_model"
sys.path.insert(0, str(EXAMPLE))

import char_model  # noqa: E402

sys.path.remove(str(EXAMPLE))


def test_method_auto_says_what_each_layer_got_and_why(folder, cli):
    weights, alphabet = char_model.load()
    train, _ = char_model.split(char_model.tokens(alphabet))
    onnx.save(char_model.graph(weights), "m.onnx")
    np.savez("calib.npz", ids=char_model.calibration(train, 48))
    shown = cli(
        *("compile", "m.onnx", "-t", "cpu-int4", "--calib", "calib.npz"),
        *("--method", "auto", "-o", "out"),
    )
    assert shown.code == 0, shown.err
    assert "no layer's output error on the calibration data is above" in shown.out
    report = json.loads(Path("out/report.json").read_text())
    assert "choose-method" in report["targets"][0]["pipeline"]
    explained = json.loads(cli("explain", "out", "--json").out)
    products = [line for line in explained["operators"] if line["op"] == "MatMul" and line["type"]]
    assert len(products) == 15
    for line in products:
        assert "the least output error of" in line["why"]
        assert "rounding" in line["why"]
        assert line["theory"]["bound"] > line["theory"]["lloyd_max"] > line["theory"]["uniform"]
    chosen = {line["method"] for line in explained["tensors"] if line["role"] == "weight"}
    assert all(method.endswith(" by choose-method") for method in chosen)


@pytest.mark.parametrize(
    ("method", "has", "lacks"),
    [
        ("auto", "choose-method,quantize-embeddings", "gptq"),
        ("gptaq", "gptaq,quantize-embeddings", "gptq{"),
        ("rounding", "needs_data=false},quantize-embeddings", "gptq"),
    ],
)
def test_a_method_takes_the_place_of_the_target_s(method, has, lacks):
    text = "".join(with_method(None, method, get_target("cpu-int4"), "default").split())
    assert has in text
    assert lacks not in text


def test_a_method_stands_before_what_stores_and_keeps_the_options_of_the_other():
    target = get_target("cpu-int4")
    assert with_method("a,quantize-weights", "auto", target, "default") == (
        "a,choose-method,quantize-weights"
    )
    text = with_method("gptq{bits=3,order=activation},quantize-weights", "auto", target, "default")
    assert text == "choose-method{bits=3},quantize-weights"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "outo"), "did you mean 'auto'"),
        (("--method", "auto"), "choose-method has no data"),
        (("--method", "auto", "-p", "canonicalise"), "stores no weights"),
    ],
)
def test_a_method_that_cannot_be_is_one_clear_error(folder, cli, arguments, message):
    Path("m.onnx").write_bytes(mlp((16, 8)).SerializeToString())
    shown = cli("compile", "m.onnx", "-t", "cpu-int4", *arguments, "-o", "out")
    assert shown.code != 0
    assert message in shown.err
    assert "Traceback" not in shown.err


def test_python_takes_the_method_too():
    x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    artifact = qcomp.compile(mlp((64, 32)), target="cpu-int4", calibration={"x": x}, method="auto")
    assert "by choose-method" in json.dumps(dict(artifact.report))
