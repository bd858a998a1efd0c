"""``qcomp explain``: every tensor's type, scale, method and reason, as the file really has them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import qcomp
from qcomp.errors import UsageError
from qcomp.report.data import Report
from qcomp.report.explain import Explanation, explain
from tests.models import mlp

DATA = {"x": np.random.default_rng(0).normal(size=(48, 4)).astype(np.float32)}
STATIC = "canonicalise,calibrate{method=mse},quantize-static"


def compiled(folder: Path, **options: Any) -> tuple[Explanation, onnx.ModelProto]:
    """Compile two layers; return what explain says and the graph that was written."""
    source = folder / "m.onnx"
    source.write_bytes(mlp((4, 16, 3)).SerializeToString())
    options = {"target": "cpu-int8", "calibration": DATA, "pipeline": STATIC, **options}
    qcomp.compile(source, out=folder / "out", **options)
    report = Report.from_json((folder / "out" / "report.json").read_text())
    (graph,) = (folder / "out").glob("*.onnx")
    return explain(report), onnx.load(graph)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def test_static_tensors_have_the_scales_that_are_in_the_file(tmp_path: Path) -> None:
    found, model = compiled(tmp_path)
    tensors = {line.name: line for line in found.tensors}
    stored = constants(model)
    assert {"x", "r0", "w0", "b0", "w1", "b1"} == set(tensors)
    x, w = tensors["x"], tensors["w0"]
    assert (x.role, x.type, x.method, x.layers) == ("activation", "u8", "mse", ("h0",))
    assert x.scale_low == x.scale_high == float(stored["x_scale"])
    assert x.zero_point == int(stored["x_zero_point"])
    assert x.low is not None
    assert x.high is not None
    assert x.high - x.low == pytest.approx(255 * float(stored["x_scale"]))
    assert (x.minimum, x.maximum) == (float(DATA["x"].min()), float(DATA["x"].max()))
    assert "48 calibration samples" in x.why
    assert (w.role, w.type, w.method, w.scales) == ("weight", "s8", "round to nearest", 16)
    assert w.scale_low == float(stored["w0_scale"].min())
    assert w.scale_high == float(stored["w0_scale"].max())
    assert w.high == pytest.approx(127 * w.scale_high)
    assert tensors["b0"].type == "s32"
    assert [line.runs for line in found.operators] == ["QGemm", "QGemm"]


def test_an_operator_in_float_says_why_and_so_does_its_weight(tmp_path: Path) -> None:
    found, _ = compiled(tmp_path, exclude=["y"])
    operators = {line.name: line for line in found.operators}
    assert (operators["y"].state, operators["y"].why) == ("float", "excluded by y")
    weight = next(line for line in found.tensors if line.name == "w1")
    assert (weight.type, weight.why) == ("f32", "'y' is in float: excluded by y")


def test_an_override_is_named(tmp_path: Path) -> None:
    found, _ = compiled(tmp_path, override=["op:Gemm{bits=4}", "y{bits=7,method=minmax}"])
    operators = {line.name: line for line in found.operators}
    assert (operators["h0"].type, operators["y"].type) == ("s4", "s7")
    assert operators["y"].why.endswith("bits=7, method=minmax by y")
    assert operators["h0"].why.endswith("bits=4 by op:Gemm")
    methods = {line.name: line.method for line in found.tensors if line.role == "activation"}
    assert methods == {"x": "mse", "r0": "minmax"}


def test_dynamic_scales_are_found_at_run_time(tmp_path: Path) -> None:
    found, model = compiled(tmp_path, target="cpu-dynamic-int8", pipeline=None, calibration=None)
    tensors = {line.name: line for line in found.tensors}
    assert (tensors["x"].method, tensors["x"].scale_low) == ("at run time", None)
    assert tensors["w0"].scale_high == float(constants(model)["w0_scale"].max())
    assert {line.scheme for line in found.operators if line.state == "quantized"} == {"dynamic"}


@pytest.mark.parametrize("form", ["matmulnbits", "dequantize"])
def test_blocks_share_scales(tmp_path: Path, form: str) -> None:
    pipeline = f"canonicalise,quantize-weights{{bits=4,group=16,form={form}}}"
    found, model = compiled(tmp_path, pipeline=pipeline)
    weight = next(line for line in found.tensors if line.name == "w1")
    scales = np.abs(constants(model)["w1_scale"])
    assert (weight.type, weight.scales) == ("s4/16", scales.size)
    assert weight.scale_high == float(scales.max())
    assert "16 values" in weight.why


def test_a_table_has_a_scale_a_row(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>\n'
        "g (int64[n] ids) => (float[n, 8] y) { y = Gather(t, ids) }"
    )
    table = np.random.default_rng(1).normal(size=(128, 8)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "t"))
    artifact = qcomp.compile(model, target="cpu-dynamic-int8", pipeline="quantize-embeddings")
    found = explain(Report.from_json((artifact.path / "report.json").read_text()))
    (line,) = found.tensors
    assert (line.name, line.role, line.type, line.scales) == ("t", "table", "s8/row", 128)
    assert line.scale_high == pytest.approx(float(np.abs(table).max()) / 127, rel=1e-6)


@pytest.mark.parametrize(
    ("op", "shapes", "why"),
    [
        ("LSTM<hidden_size=32>(x, w, r)", {"w": (1, 128, 8), "r": (1, 128, 32)}, "while the graph"),
        ("ConvTranspose<strides=[2]>(x, w)", {"w": (8, 32, 8)}, "computes in float"),
    ],
)
def test_weights_of_recurrent_and_transposed_layers_are_explained(
    op: str, shapes: dict[str, tuple[int, ...]], why: str
) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>\n'
        f"g (float[4, 8, 8] x) => (float y) {{ h = {op}\n y = Relu(h) }}"
    )
    rng = np.random.default_rng(1)
    for name, shape in shapes.items():
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    passes = "quantize-lstm,store-weights{least-bytes=16}"
    artifact = qcomp.compile(model, target="cpu-dynamic-int8", pipeline=passes)
    found = explain(Report.from_json((artifact.path / "report.json").read_text()))
    lines = {line.name: line for line in found.tensors if line.role == "weight"}
    assert set(lines) == set(shapes)
    for line in lines.values():
        assert (line.type, line.method) == ("s8", "round to nearest")
        assert line.scale_high is not None
        assert line.scales > 1
        assert why in line.why


def test_what_came_quantized_is_kept_and_its_scales_are_said(tmp_path: Path) -> None:
    _, model = compiled(tmp_path, exclude=["y"])
    path = tmp_path / "half.onnx"
    onnx.save(model, path)
    artifact = qcomp.compile(path, target="cpu-int8", calibration=DATA, pipeline=STATIC)
    found = explain(Report.from_json((artifact.path / "report.json").read_text()))
    states = {line.name: line.state for line in found.operators}
    assert states == {"h0": "kept", "r0": "kept", "y": "quantized"}
    x = next(line for line in found.tensors if line.name == "x")
    assert x.scale_low == float(constants(model)["x_scale"])
    assert x.why == "the graph had this scale when it came"


def test_scales_of_integer_operators_are_read_from_their_inputs(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([DATA])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    onnx.save(mlp((4, 16, 3)), tmp_path / "m.onnx")
    path = tmp_path / "q.onnx"
    quantize_static(tmp_path / "m.onnx", path, Reader(), quant_format=QuantFormat.QOperator)
    artifact = qcomp.compile(path, target="cpu-int8", calibration=DATA)
    found = explain(Report.from_json((artifact.path / "report.json").read_text()))
    tensors = {line.name: line for line in found.tensors}
    stored = constants(onnx.load(path))
    layers = [line for line in found.operators if line.op == "QGemm"]
    assert [line.state for line in layers] == ["kept"] * 2
    assert {line.role for line in tensors.values()} == {"activation", "weight", "bias"}
    weight = tensors["w0_quantized"]
    assert weight.scale_high == float(stored["w0_scale"].max())
    made = [line for line in tensors.values() if line.role == "activation"]
    assert len(made) >= 3
    for line in made:
        assert line.scale_low == float(stored[f"{line.name.removesuffix('_quantized')}_scale"])
    assert all(line.scales == 0 for line in tensors.values() if line.role == "bias")
    assert {line.why for line in tensors.values()} == {
        "the graph had this scale when it came",
        "the graph had these integers when it came",
    }


def test_names_choose_operators_with_their_tensors(tmp_path: Path) -> None:
    compiled(tmp_path)
    report = Report.from_json((tmp_path / "out" / "report.json").read_text())
    assert [line.name for line in explain(report, ["w0"]).tensors] == ["w0"]
    chosen = explain(report, ["h*"])
    assert [line.name for line in chosen.operators] == ["h0"]
    assert {line.name for line in chosen.tensors} == {"x", "w0", "b0"}
    with pytest.raises(UsageError, match="no tensor 'w9'") as error:
        explain(report, ["w9"])
    assert "'w0'" in error.value.hint


def test_an_artifact_without_a_quantized_graph_is_refused() -> None:
    with pytest.raises(UsageError, match="no quantized graph"):
        explain(Report())


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in the folder of the test."""
    from qcomp.__main__ import main

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["qcomp", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(str(stop.value.code or 0)), said.out, said.err

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return command


def test_the_command_prints_tables_and_json(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    compiled(tmp_path)
    code, text, _ = run("explain", "out")
    assert code == 0
    for word in ("h0", "QGemm", "w0", "round to nearest", "range of 48 calibration samples"):
        assert word in text
    code, text, _ = run("explain", "out", "w0", "--json")
    data = json.loads(text)
    assert code == 0
    assert [line["name"] for line in data["tensors"]] == ["w0"]
    code, _, error = run("explain", "m.onnx")
    assert code == 2
    assert "qcomp compile" in error


def test_inspect_lists_the_names_that_patterns_match(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    found, _ = compiled(tmp_path)
    code, text, _ = run("inspect", "m.onnx", "--nodes", "--json")
    names = [node["name"] for node in json.loads(text)["node_names"]]
    assert code == 0
    assert names == ["h0", "r0", "y"]
    assert {line.name for line in found.operators} <= set(names)
    assert "Gemm" in run("inspect", "m.onnx", "--nodes")[1]


def test_the_command_line_takes_patterns(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    compiled(tmp_path)
    arguments = ("compile", "m.onnx", "-t", "cpu-dynamic-int8", "-o", "o2")
    assert run(*arguments, "--exclude", "y", "--override", "h0{bits=8}")[0] == 0
    _, text, _ = run("explain", "o2", "--json")
    states = {line["name"]: line["state"] for line in json.loads(text)["operators"]}
    assert states == {"h0": "quantized", "y": "float", "r0": "float"}
    code, _, error = run(*arguments, "--include", "op:Gem")
    assert code == 2
    assert "'op:Gemm'" in error


@pytest.mark.parametrize(
    ("target", "weight", "bias"),
    [
        ("tensorrt-int8", "one scale an output channel", ("f32", "machine")),
        ("vitisai-int8", "one scale for the whole tensor", ("s8", "scale of its own")),
        ("qnn-int8", "one scale for the whole tensor", ("s32", "steps of the input's scale")),
    ],
)
def test_tensors_of_accelerators_are_explained_by_their_own_rules(
    tmp_path: Path, target: str, weight: str, bias: tuple[str, str]
) -> None:
    found, _ = compiled(tmp_path, target=target)
    tensors = {line.name: line for line in found.tensors}
    assert weight in tensors["w0"].why
    assert tensors["b0"].type == bias[0]
    if bias[0] != "f32":
        assert tensors["b0"].role == "bias"
        assert bias[1] in tensors["b0"].why
