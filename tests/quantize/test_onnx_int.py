"""The integer backend: files that load, fusions that are checked, errors that are measured."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.backends.onnx_int import INTEGER_KERNELS, OnnxIntBackend
from qcomp.errors import TargetError
from qcomp.execute import Session
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import (
    FusionReport,
    QuantizationError,
    QuantizationRecord,
    QuantizedLayer,
    sqnr,
)
from qcomp.target import get_target


@pytest.fixture
def write(tmp_path):
    def writer(program, context):
        files = OnnxIntBackend().write(
            program, tmp_path / "model.onnx", get_target("cpu-int8"), context
        )
        return files, context.get(FusionReport)

    return writer


def test_every_operator_of_the_static_plan_becomes_the_planned_kernel(cnn, compiled, write, rng):
    data = {"x": rng.normal(size=(64, 3, 12, 12)).astype(np.float32)}
    context = compiled(cnn, "calibrate,quantize-static", data)
    _, report = write(cnn, context)
    assert report.unfused == ()
    assert {o.node: o.found for o in report.outcomes} == {
        "c1": "QLinearConv",
        "c2": "QLinearConv",
        "c3": "QLinearConv",
        "s": "QLinearAdd",
        "gate": "QLinearSigmoid",
        "m": "QLinearMul",
        "cat": "QLinearConcat",
        "c4": "QLinearConv",
        "l4": "QLinearLeakyRelu",
        "gap": "QLinearGlobalAveragePool",
        "y": "QGemm",
    }
    assert all(o.planned == o.found for o in report.outcomes)
    # Nothing but quantizing the input and moving data is left beside them.
    assert set(report.kernels) - INTEGER_KERNELS <= {
        "QuantizeLinear",
        "Transpose",
        "NhwcMaxPool",
        "Flatten",
        "Reshape",
    }
    assert report.output_sqnr["y"] > 25
    assert (report.samples, report.data, context.warnings) == (64, "calibration", [])


@pytest.mark.parametrize(
    ("pipeline", "kernels"),
    [
        ("calibrate,quantize-static", {"QGemm"}),
        ("quantize-dynamic", {"DynamicQuantizeMatMul"}),
        ("quantize-weights", {"MatMulNBits"}),
        ("quantize-weights{form=dequantize}", {"MatMulNBits"}),
        ("quantize-weights{form=dequantize,symmetric=false}", {"MatMulNBits"}),
    ],
)
def test_an_mlp_is_fused_in_every_scheme(mlp, compiled, write, rng, pipeline, kernels):
    data = {"x": rng.normal(size=(16, 64)).astype(np.float32)}
    _, report = write(mlp, compiled(mlp, pipeline, data))
    assert {o.found for o in report.outcomes} == kernels
    assert report.unfused == ()
    assert len(report.outcomes) == 2


@pytest.mark.parametrize(
    ("body", "kernel"),
    [
        ("a = Gemm<transB=1>(x, w, b)\n y = Tanh(a)", "MatMulIntegerToFloat"),
        ("a = Gemm(x, w)\n y = Sigmoid(a)", "MatMulIntegerToFloat"),
        ("a = Gemm(x, w, b)\n y = LeakyRelu(a)", "MatMulIntegerToFloat"),
        ("a = Gemm(x, w, b)\n r = Relu(a)\n y = Neg(r)", "QGemm"),
        ("a = Gemm(x, w, b)\n y = Gelu(a)", "QGemm"),
        ("m = MatMul(x, w)\n a = Add(m, b)\n y = Relu(a)", "MatMulIntegerToFloat"),
        ("m = MatMul(x, w)\n y = Add(b, m)", "MatMulIntegerToFloat"),
    ],
)
def test_no_bias_or_activation_pulls_a_layer_back_into_float(
    build, compiled, run, write, rng, body, kernel
):
    program = build(
        f"g (float[n, 32] x) => (float[n, 32] y) {{ {body} }}",
        {
            "w": rng.normal(size=(32, 32)).astype(np.float32),
            "b": rng.normal(size=32).astype(np.float32),
        },
    )
    data = {"x": rng.normal(size=(64, 32)).astype(np.float32)}
    before = run(program, data)["y"]
    context = compiled(program, "calibrate,quantize-static,quantization-error", data)
    _, report = write(program, context)
    assert [o.found for o in report.outcomes] == [o.planned for o in report.outcomes] == [kernel]
    assert sqnr(before, run(program, data)["y"]) > 25
    layer = context.need(QuantizationError, "quantization-error").layers[0]
    assert layer.weight_sqnr > 38
    assert layer.output_sqnr > 25


def test_attention_runs_as_integers_and_shares_dynamic_scales(attention, compiled, write, rng):
    data = {
        "x": rng.normal(size=(16, 8, 32)).astype(np.float32),
        "mask": np.zeros((16, 1, 8), np.float32),
    }
    _, report = write(attention, compiled(attention, "quantize-dynamic", data))
    assert {o.found for o in report.outcomes} <= {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}


def test_a_layer_that_does_not_fuse_is_reported_and_warned_of(build, write):
    program = build(
        """
        g (float[n, 4, 5, 5] x) => (float[n, 2, 5, 5] y) {
            wd = DequantizeLinear<axis=0>(w, ws)
            y = Conv(x, wd)
        }""",
        {"w": np.ones((2, 4, 1, 1), np.int8), "ws": np.ones(2, np.float32)},
    )
    context = Context()
    context.put(
        QuantizationRecord(
            (QuantizedLayer("y", "Conv", "static", "", "w", "s8", "QLinearConv", "y", "y"),)
        )
    )
    _, report = write(program, context)
    assert [o.node for o in report.unfused] == ["y"]
    assert "1 of 1 quantized layers" in context.warnings[0]
    assert report.note


def test_without_calibration_data_outputs_are_compared_on_generated_inputs(mlp, compiled, write):
    context = compiled(mlp, "quantize-weights{bits=8}")
    _, report = write(mlp, context)
    assert report.data == "generated"
    assert report.samples > 0
    assert report.output_sqnr["y"] > 35


def test_the_error_of_each_layer_is_measured_against_float(cnn, compiled, rng):
    data = {"x": rng.normal(size=(32, 3, 12, 12)).astype(np.float32)}
    context = compiled(cnn, "calibrate,quantize-static,quantization-error", data)
    error = context.get(QuantizationError)
    by_node = {layer.node: layer for layer in error.layers}
    assert list(by_node) == ["c1", "c2", "c3", "s", "gate", "m", "cat", "c4", "l4", "gap", "y"]
    assert all(35 < by_node[n].weight_sqnr < 60 for n in ("c1", "c2", "c3", "c4", "y"))
    assert by_node["s"].weight_sqnr is None
    assert all(20 < layer.output_sqnr < 60 for layer in error.layers)
    assert error.samples == 32
    assert error.worst(1)[0].output_sqnr == min(layer.output_sqnr for layer in error.layers)
    assert error.outputs["y"] == pytest.approx(by_node["y"].output_sqnr)


def test_a_coarser_weight_has_a_lower_measured_sqnr(mlp, compiled, rng):
    import copy

    data = {"x": rng.normal(size=(32, 64)).astype(np.float32)}
    found = []
    for bits in (8, 4):
        program = copy.copy(mlp)
        program.model = mlp.model.clone()
        context = compiled(program, f"quantize-weights{{bits={bits}}},quantization-error", data)
        found.append(context.get(QuantizationError))
    for fine, coarse in zip(found[0].layers, found[1].layers, strict=True):
        assert fine.weight_sqnr - coarse.weight_sqnr == pytest.approx(24.1, abs=2.0)
        assert fine.output_sqnr > coarse.output_sqnr + 15


def test_the_written_file_runs_by_itself_and_equals_the_program(mlp, compiled, write, run, rng):
    data = {"x": rng.normal(size=(16, 64)).astype(np.float32)}
    context = compiled(mlp, "calibrate,quantize-static", data)
    files, _ = write(mlp, context)
    assert (Session(files[0]).run(data)["y"] == run(mlp, data)["y"]).all()
    onnx.checker.check_model(str(files[0]), full_check=True)


def test_a_graph_that_the_checker_refuses_is_a_target_error(mlp, write):
    mlp.model.graph.append(ir.node("NoSuchOperator", [mlp.model.graph.inputs[0]], name="odd"))
    with pytest.raises(TargetError, match="not valid ONNX"):
        write(mlp, Context())


def test_pipelines_of_the_graph_targets_parse(mlp):
    for name in ("cpu-int8", "cpu-dynamic-int8", "cpu-int4"):
        target = get_target(name)
        assert target.backend == "onnx_int"
        assert str(Pipeline.parse(target.pipeline()))


@pytest.mark.parametrize(
    "pipeline",
    [
        "calibrate,quantize-static",
        "calibrate,quantize-static{weight_bits=4}",
        "quantize-dynamic",
        "quantize-weights",
        "quantize-weights{form=dequantize,symmetric=false}",
    ],
)
def test_the_error_of_a_large_weight_is_estimated_on_some_channels(
    mlp, compiled, rng, monkeypatch, pipeline
):
    from qcomp.passes.analyze import quantization_error as module

    data = {"x": rng.normal(size=(16, 64)).astype(np.float32)}
    context = compiled(mlp, pipeline, data)
    measure = module.MeasureQuantizationError()
    measure.run(mlp, context)
    exact = context.need(QuantizationError, measure.name).layers
    monkeypatch.setattr(module, "_WEIGHT_LIMIT", 16)
    monkeypatch.setattr(module, "_CHANNELS", 7)
    measure.run(mlp, context)
    for all_of_it, some in zip(
        exact, context.need(QuantizationError, measure.name).layers, strict=True
    ):
        assert some.weight_sqnr != all_of_it.weight_sqnr
        assert some.weight_sqnr == pytest.approx(all_of_it.weight_sqnr, abs=2.5)


def test_a_model_that_made_up_inputs_do_not_fit_is_written_and_the_user_is_told(build, write):
    program = build(
        "g (float[n, 4] x, string[n] s) => (float[n, 4] y, string[n] t) "
        "{ y = MatMul(x, w)\n t = Identity(s) }",
        {"w": np.eye(4, dtype=np.float32)},
    )
    context = Context()
    Pipeline.parse("quantize-dynamic").run(program, context)
    files, report = write(program, context)
    assert files[0].exists()
    assert any("made-up inputs" in warning for warning in context.warnings)
    assert report.samples == 0
    assert report.note


def test_a_model_that_collapses_is_warned_of(build, compiled, rng):
    # A value of 1e6 in one channel takes the whole range of the tensor.
    program = build(
        "g (float[n, 8] x) => (float[n, 4] y) { y = MatMul(x, w) }",
        {"w": np.concatenate([np.zeros((1, 4)), np.eye(7, 4)]).astype(np.float32)},
    )
    x = rng.normal(size=(32, 8)).astype(np.float32)
    x[:, 0] = 1e6
    context = compiled(program, "calibrate,quantize-static,quantization-error", {"x": x})
    assert "'y' has only" in context.warnings[0]
    healthy = compiled(
        build(
            "g (float[n, 8] x) => (float[n, 4] y) { y = MatMul(x, w) }",
            {"w": np.eye(8, 4, dtype=np.float32)},
        ),
        "calibrate,quantize-static,quantization-error",
        {"x": rng.normal(size=(32, 8)).astype(np.float32)},
    )
    assert healthy.warnings == []
    entry = healthy.ledger.entries[0]
    assert entry.spender == "quantization-error"
    assert 0 < entry.spent < 1e-3
