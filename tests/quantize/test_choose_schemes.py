"""Static or dynamic, layer by layer: by what the user asks, or by what is measured."""

import json

import numpy as np
import onnx
import pytest

import qcomp
from qcomp.errors import UsageError
from qcomp.passes.calibrate.choose_schemes import ChooseSchemes
from qcomp.quantization import sqnr
from qcomp.report.data import Report
from tests.models import from_text, mlp

RNG = np.random.default_rng(2)
CHOSEN = (
    "canonicalise,calibrate,choose-schemes{batch=1},quantize-static,"
    "quantize-dynamic{only-asked=true}"
)


def report_of(artifact):
    return Report.from_json(json.dumps(artifact.report))


def schemes(artifact):
    found = report_of(artifact).quantization
    assert found is not None
    return {line.layer: line.scheme for line in found.layers}


def waves():
    """Two products of inputs whose size differs a hundredfold from sample to sample, or not."""
    weights = {n: RNG.normal(size=(16, 8)).astype(np.float32) for n in ("w", "v")}
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        net (float[batch, 4, 16] x, float[batch, 4, 16] s) => (float[batch, 4, 8] y) {
            a = MatMul (x, w)
            t = Tanh (a)
            b = MatMul (s, v)
            u = Tanh (b)
            y = Add (t, u)
        }""",
        **weights,
    )
    size = np.float32(10.0) ** RNG.uniform(-2, 0, (64, 1, 1)).astype(np.float32)
    x = RNG.normal(size=(64, 4, 16)).astype(np.float32) * size
    s = RNG.uniform(-1, 1, (64, 4, 16)).astype(np.float32)
    return model, {"x": x, "s": s}


def test_an_input_whose_size_changes_from_batch_to_batch_is_rounded_at_run_time():
    model, data = waves()
    artifact = qcomp.compile(model, target="cpu-int8", calibration=data, pipeline=CHOSEN)
    assert schemes(artifact) == {"a": "dynamic", "b": "static"}
    report = report_of(artifact)
    (line,) = [x for x in report.quantization.layers if x.layer == "a"]
    assert "dB better with the range of each batch" in line.why
    assert any("a row's result depends a little on its batch" in text for text in report.warnings)
    static = qcomp.compile(
        model,
        target="cpu-int8",
        calibration=data,
        pipeline="canonicalise,calibrate,quantize-static",
    )
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    small = {name: array[:1] for name, array in data.items()}
    small["x"] = data["x"][[int(np.abs(data["x"]).max((1, 2)).argmin())]]
    wanted = session.run(None, small)[0]
    assert sqnr(wanted, artifact.run(small)["y"]) > sqnr(wanted, static.run(small)["y"])


def test_what_the_user_asks_wins_over_what_is_measured():
    model, data = waves()
    artifact = qcomp.compile(
        model,
        target="cpu-int8",
        calibration=data,
        pipeline=CHOSEN,
        override=["a{scheme=static}", "b{scheme=dynamic}"],
    )
    assert schemes(artifact) == {"a": "static", "b": "dynamic"}


def test_one_layer_of_cpu_int8_is_dynamic_where_the_user_asks(tmp_path):
    data = {"x": RNG.normal(size=(48, 8)).astype(np.float32)}
    artifact = qcomp.compile(
        mlp((8, 16, 16, 4)),
        target="cpu-int8",
        calibration=data,
        override=["h1{scheme=dynamic}"],
        out=tmp_path / "out",
    )
    assert schemes(artifact) == {"h0": "static", "h1": "dynamic", "y": "static"}
    kinds = [node.op_type for node in onnx.load(tmp_path / "out" / "stage0.onnx").graph.node]
    assert kinds.count("DynamicQuantizeLinear") == kinds.count("MatMulInteger") == 1
    tensors = {line.name: line for line in report_of(artifact).quantization.tensors}
    assert any("batch" in line.why for line in tensors.values() if line.method == "at run time")
    assert any("its batch" in text for text in artifact.report["warnings"])


def test_no_layer_of_cpu_int8_is_dynamic_without_being_asked():
    data = {"x": RNG.normal(size=(48, 8)).astype(np.float32)}
    artifact = qcomp.compile(mlp((8, 16, 4)), target="cpu-int8", calibration=data)
    assert set(schemes(artifact).values()) == {"static"}
    assert not any("its batch" in text for text in artifact.report["warnings"])


def test_a_dynamic_layer_with_many_channels_keeps_its_scales():
    """Scales of a weight are not halved: what multiplies them is found at run time."""
    weight = RNG.normal(size=(8, 4200)).astype(np.float32)
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        net (float[batch, 8] x) => (float[batch, 4200] y) { y = MatMul (x, w) }""",
        w=weight,
    )
    x = RNG.normal(size=(16, 8)).astype(np.float32)
    artifact = qcomp.compile(model, target="cpu-dynamic-int8", calibration={"x": x})
    assert sqnr(x @ weight, artifact(x)) > 35


def test_options_out_of_range_are_refused():
    with pytest.raises(UsageError, match="at least 1"):
        ChooseSchemes(batch=0)
