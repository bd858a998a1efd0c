"""``--tokens``: one 4-bit command, and the kernel that suits what the model is run on."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.models import mlp


@pytest.fixture
def model(folder: Path) -> str:
    Path("m.onnx").write_bytes(mlp((64, 64, 32)).SerializeToString())
    return "m.onnx"


@pytest.mark.parametrize(
    ("tokens", "kernel"),
    [
        ("decode", "MatMulNBits"),
        ("prefill", "DynamicQuantizeMatMul"),
        ("both", "DynamicQuantizeMatMul"),
    ],
)
def test_tokens_choose_the_kernel_of_4_bit_weights(model, cli, tokens, kernel):
    shown = cli("compile", model, "-t", "cpu-int4", "--tokens", tokens, "-o", "out")
    assert shown.code == 0, shown.err
    layers = json.loads(Path("out/report.json").read_text())["quantization"]["layers"]
    assert {layer["kernel"] for layer in layers} == {kernel}
    explained = json.loads(cli("explain", "out", "--json").out)
    assert {line["runs"] for line in explained["operators"] if line["type"]} == {kernel}
    weights = [line for line in explained["tensors"] if line["role"] == "weight"]
    assert [(line["name"], line["type"]) for line in weights] == [("w0", "u4/32"), ("w1", "u4/32")]
    from_loading_on = "eight bits with one scale an output channel from loading on"
    assert all((from_loading_on in line["why"]) == (tokens != "decode") for line in weights)


def test_outliers_of_activations_are_smoothed_where_one_scale_serves_them_all(model, cli):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 64)).astype(np.float32)
    x[:, 5] *= 100
    np.savez("x.npz", x=x)
    found = {}
    for tokens in ("decode", "both"):
        out = f"out_{tokens}"
        shown = cli(
            *("compile", model, "-t", "cpu-int4", "--calib", "x.npz", "--tokens", tokens, "-o", out)
        )
        assert shown.code == 0, shown.err
        report = json.loads(Path(out, "report.json").read_text())
        found[tokens] = min(layer["output_sqnr"] for layer in report["quantization"]["layers"])
    plain = "canonicalise,quantize-weights{symmetric=false}"  # no pass is put into one's own text
    shown = cli(
        *("compile", model, "-t", "cpu-int4", "--calib", "x.npz", "-p", plain),
        *("--tokens", "both", "-o", "own"),
    )
    assert shown.code == 0, shown.err
    report = json.loads(Path("own/report.json").read_text())
    own = min(layer["output_sqnr"] for layer in report["quantization"]["layers"])
    assert found["both"] > own + 1.5
    assert found["both"] > found["decode"] - 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-t", "cpu-int4", "--tokens", "prefil"), "did you mean 'prefill'?"),
        (("-t", "cpu-int4", "--tokens", "128"), "tokens is '128'"),
        (("-t", "cpu-dynamic-int8", "--tokens", "decode"), "has no 'quantize-weights'"),
        (("-p", "canonicalise", "-t", "cpu-int4", "--tokens", "both"), "take -t cpu-int4"),
    ],
)
def test_tokens_that_mean_nothing_are_refused(model, cli, arguments, message):
    shown = cli("compile", model, *arguments, "-o", "out")
    assert shown.code == 2
    assert "Traceback" not in shown.err
    assert message in shown.err
    assert not Path("out").exists()
