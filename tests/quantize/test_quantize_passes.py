"""The static, dynamic and weight-only passes: what they emit, what they leave, what they refuse."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.passes.quantize.dequantized_weights import dequantized_weight
from qcomp.passes.quantize.quantize_dynamic import QuantizeDynamic
from qcomp.passes.quantize.quantize_static import QuantizeStatic
from qcomp.passes.quantize.quantize_weights import QuantizeWeights
from qcomp.passes.quantize.static_plan import plan_static
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import QuantizationRecord, sqnr

STATIC = "calibrate,quantize-static"
STATIC4 = "calibrate,quantize-static{weight_bits=4}"
WEIGHT_PIPELINES = [
    f"quantize-weights{{{options}}}"
    for options in (
        "bits=4",
        "bits=4,symmetric=false",
        "bits=4,group=16,form=dequantize",
        "bits=4,symmetric=false,form=dequantize",
        "bits=8,form=dequantize",
        "bits=8,group=64,symmetric=false",
        "accuracy_level=0",
    )
]


@pytest.fixture
def images(rng):
    return {"x": rng.normal(size=(16, 3, 12, 12)).astype(np.float32)}


@pytest.fixture
def rows(rng):
    return {"x": rng.normal(size=(64, 64)).astype(np.float32)}


def kinds(program):
    return [node.op_type for node in program.model.graph]


def types_of(program, op):
    return {
        node.inputs[0].dtype.name
        for node in program.model.graph
        if node.op_type == op and node.inputs[0].dtype is not None
    }


def check_model(program):
    onnx.checker.check_model(ir.to_proto(program.model), full_check=True)


def test_static_stores_weights_in_s8_symmetric_and_the_bias_of_a_gemm_in_s32(cnn, compiled, images):
    compiled(cnn, STATIC, images)
    check_model(cnn)
    graph = cnn.model.graph
    gemms = {n.inputs[1].producer().inputs[0].name for n in graph if n.op_type == "Gemm"}
    for name in ("w1", "w2", "w3", "w4", "w5"):
        assert name not in graph.initializers
        levels = graph.initializers[f"{name}_quantized"].const_value.numpy()
        assert levels.dtype == np.int8
        assert levels.min() >= -127
        if f"{name}_quantized" in gemms:
            assert not graph.initializers[f"{name}_zero_point"].const_value.numpy().any()
    biases = [n.inputs[2].producer().inputs[0] for n in graph if n.op_type == "Gemm"]
    assert biases
    assert all(bias.const_value.dtype == ir.DataType.INT32 for bias in biases)


def test_a_convolution_keeps_its_float_bias_and_needs_no_zero_points(cnn, compiled, images):
    before = cnn.model.graph.initializers["b1"].const_value.numpy()
    compiled(cnn, STATIC, images)
    graph = cnn.model.graph
    assert (graph.initializers["b1"].const_value.numpy() == before).all()
    assert "w1_zero_point" not in graph.initializers
    assert "b1_scale" not in graph.initializers


def test_static_bias_is_scaled_by_input_and_weight(cnn, compiled, images):
    before = cnn.model.graph.initializers["b5"].const_value.numpy()
    compiled(cnn, STATIC, images)
    values = {name: v.const_value.numpy() for name, v in cnn.model.graph.initializers.items()}
    gemm = next(node for node in cnn.model.graph if node.op_type == "Gemm")
    step = values[gemm.inputs[0].producer().inputs[1].name] * values["w5_scale"]
    assert (values["b5_scale"] == step).all()
    assert np.abs(values["b5_quantized"] * step - before).max() <= 0.51 * step.max()


def test_static_shares_the_scale_along_operators_that_move_data(cnn, compiled, images):
    compiled(cnn, STATIC, images)
    scales = {
        n.outputs[0].name: n.inputs[1].name
        for n in cnn.model.graph
        if n.op_type == "QuantizeLinear"
    }
    assert scales["p_quantized"] == scales["cat_quantized"] == "cat_scale"
    assert scales["f_quantized"] == scales["gap_quantized"] == "gap_scale"


def test_static_leaves_the_last_layer_s_output_in_float(mlp, compiled, rows):
    compiled(mlp, STATIC, rows)
    output = mlp.model.graph.outputs[0]
    assert output.name == "y"
    assert output.producer().op_type == "Gemm"


def test_a_convolution_that_is_a_graph_output_keeps_the_output_s_name(build, compiled, run, rng):
    program = build(
        "g (float[n, 1, 4, 4] x) => (float[n, 1, 2, 2] y, float[n, 1, 2, 2] z) "
        "{ y = Conv(x, w)\n z = Neg(y) }",
        {"w": rng.normal(size=(1, 1, 3, 3)).astype(np.float32)},
    )
    data = {"x": rng.normal(size=(8, 1, 4, 4)).astype(np.float32)}
    before = run(program, data)
    compiled(program, STATIC, data)
    check_model(program)
    after = run(program, data)
    assert list(after) == ["y", "z"]
    for name in after:
        assert sqnr(before[name], after[name]) > 30
    assert (after["z"] == -after["y"]).all()


def test_static_keeps_attention_scores_and_the_mask_in_float(attention, compiled, run, rng):
    mask = np.zeros((16, 1, 8), np.float32)
    mask[:, :, 5:] = -1e4
    data = {"x": rng.normal(size=(16, 8, 32)).astype(np.float32), "mask": mask}
    before = run(attention, data)["y"]
    context = compiled(attention, STATIC, data)
    check_model(attention)
    assert sqnr(before, run(attention, data)["y"]) > 24
    record = context.get(QuantizationRecord)
    assert [layer.kernel for layer in record.layers] == ["MatMulIntegerToFloat"] * 4
    reasons = {op.node: op.reason for op in record.float_ops}
    assert "mask" in reasons["scores"]
    assert set(reasons) == {"scores", "masked", "p", "o", "r", "norm"}
    assert all(reasons.values())


def test_a_weight_that_two_layers_share_is_stored_once(attention, compiled, rng):
    data = {
        "x": rng.normal(size=(4, 8, 32)).astype(np.float32),
        "mask": np.zeros((4, 1, 8), np.float32),
    }
    compiled(attention, STATIC, data)
    names = [n for n in attention.model.graph.initializers if n.startswith("wv_quantized")]
    assert names == ["wv_quantized"]


def test_a_bias_much_larger_than_its_weights_does_not_overflow(build, compiled, run, rng):
    program = build(
        "g (float[n, 4] x) => (float[n, 2] y) { y = Gemm(x, w, b) }",
        {"w": np.full((4, 2), 1e-9, np.float32), "b": np.array([100.0, -50.0], np.float32)},
    )
    data = {"x": rng.normal(size=(8, 4)).astype(np.float32)}
    compiled(program, STATIC, data)
    out = run(program, data)["y"]
    np.testing.assert_allclose(out, np.tile([[100.0, -50.0]], (8, 1)), rtol=1e-4)


@pytest.mark.parametrize(("bits", "most", "decibels"), [(7, 63, 30), (4, 7, 12)])
def test_weights_can_be_stored_in_fewer_bits(mlp, compiled, run, rows, bits, most, decibels):
    before = run(mlp, rows)["y"]
    context = compiled(mlp, f"calibrate,quantize-static{{weight_bits={bits}}}", rows)
    check_model(mlp)
    value = mlp.model.graph.initializers["w1_quantized"]
    assert value.const_value.dtype.name == ("INT4" if bits == 4 else "INT8")
    levels = value.const_value.numpy().astype(int)
    assert np.abs(levels).max() == most
    assert sqnr(before, run(mlp, rows)["y"]) > decibels
    assert [layer.weight_type for layer in context.get(QuantizationRecord).layers] == [
        f"s{bits}"
    ] * 2


@pytest.mark.parametrize("pipeline", [STATIC, "quantize-dynamic", *WEIGHT_PIPELINES])
def test_an_mlp_is_valid_smaller_close_to_float_and_quantized_once(
    mlp, compiled, run, rows, pipeline
):
    before = run(mlp, rows)["y"]
    size = len(ir.to_proto(mlp.model).SerializeToString())
    context = compiled(mlp, pipeline, rows)
    check_model(mlp)
    after = run(mlp, rows)["y"]
    assert sqnr(before, after) > (15 if "bits=4" in pipeline or "level" in pipeline else 35)
    assert len(ir.to_proto(mlp.model).SerializeToString()) < 0.6 * size
    assert len(context.get(QuantizationRecord).layers) == 2
    text = ir.to_proto(mlp.model).SerializeToString()
    for step in Pipeline.parse(pipeline).steps:
        assert not step.instance.run(mlp, context)
    assert ir.to_proto(mlp.model).SerializeToString() == text


@pytest.mark.parametrize("pipeline", [STATIC, STATIC4, "quantize-dynamic", *WEIGHT_PIPELINES])
def test_stored_integers_stand_for_the_float_weight(mlp, compiled, rows, pipeline):
    floats = {n: v.const_value.numpy() for n, v in mlp.model.graph.initializers.items()}
    context = compiled(mlp, pipeline, rows)
    for layer in context.get(QuantizationRecord).layers:
        levels = mlp.model.graph.initializers[layer.quantized]
        back, _ = dequantized_weight(levels)
        weight = floats[layer.weight]
        back = back if back.shape == weight.shape else back.T
        bits = int(layer.weight_type[1])
        assert sqnr(weight, back) > (15 if bits == 4 else 38)


@pytest.mark.parametrize("pipeline", ["quantize-dynamic", "quantize-weights"])
def test_convolutions_are_left_in_float_and_reported(cnn, compiled, pipeline):
    record = compiled(cnn, pipeline).get(QuantizationRecord)
    assert [layer.op_type for layer in record.layers] == ["Gemm"]
    convolutions = [op for op in record.float_ops if op.op_type == "Conv"]
    assert len(convolutions) == 4
    assert all(op.reason for op in convolutions)


@pytest.mark.parametrize("name", ["quantize-dynamic", "quantize-weights", "quantize-static"])
def test_a_pass_that_could_quantize_nothing_says_so(build, compiled, name):
    weights = {"w": np.ones((4, 4), np.float32)}
    context = compiled(
        build("g (float[4, 4] x) => (float[4, 4] y) { y = Gemm<alpha=0.5>(x, w) }", weights), name
    )
    assert "alpha or beta differs from 1" in context.warnings[0]
    done = compiled(build("g (float[4, 4] x) => (float[4, 4] y) { y = Relu(x) }", {}), name)
    assert done.warnings == []


def test_dynamic_quantizes_a_shared_activation_once(attention):
    QuantizeDynamic().run(attention, Context())
    assert kinds(attention).count("DynamicQuantizeLinear") == 2
    assert kinds(attention).count("MatMulInteger") == 4


@pytest.mark.parametrize("form", ["matmulnbits", "dequantize"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_input_channels_that_a_group_does_not_divide_are_padded(
    build, compiled, run, rng, form, symmetric
):
    program = build(
        "g (float[n, 50] x) => (float[n, 24] y) { y = MatMul(x, w) }",
        {"w": rng.normal(size=(50, 24)).astype(np.float32)},
    )
    data = {"x": rng.normal(size=(9, 50)).astype(np.float32)}
    before = run(program, data)["y"]
    text = f"quantize-weights{{form={form},symmetric={str(symmetric).lower()}}}"
    compiled(program, text)
    check_model(program)
    assert sqnr(before, run(program, data)["y"]) > 17


@pytest.mark.parametrize("pipeline", [STATIC, "quantize-dynamic", *WEIGHT_PIPELINES])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(mlp, compiled, pipeline, value):
    weight = mlp.model.graph.initializers["w2"].const_value.numpy().copy()
    weight[3, 2] = value
    mlp.model.graph.initializers["w2"].const_value = ir.tensor(weight, name="w2")
    # Calibration runs the float graph, which must not be what finds it.
    context = Context()
    if pipeline == STATIC:
        weight[3, 2] = 0.0
        compiled_context = compiled(mlp, "calibrate", {"x": np.ones((2, 64), np.float32)})
        weight[3, 2] = value
        context = compiled_context
        pipeline = "quantize-static"
    with pytest.raises(PassError, match="w2") as caught:
        Pipeline.parse(pipeline).run(mlp, context)
    assert "[3, 2]" in str(caught.value)


def test_static_without_calibration_says_what_is_missing(mlp):
    with pytest.raises(PassError, match="calibrate"):
        QuantizeStatic().run(mlp, Context())


def test_a_graph_that_changed_after_calibration_is_refused(mlp, compiled, rows):
    context = compiled(mlp, "calibrate", rows)
    next(iter(mlp.model.graph)).inputs[0].name = "other"
    with pytest.raises(PassError, match="'other' was not measured"):
        QuantizeStatic().run(mlp, context)


@pytest.mark.parametrize(
    ("pipeline", "opset"), [("quantize-weights{form=dequantize}", 17), (STATIC, 11)]
)
def test_an_opset_that_is_too_old_is_refused(build, compiled, pipeline, opset):
    program = build(
        "g (float[n, 4] x) => (float[n, 4] y) { y = MatMul(x, w) }",
        {"w": np.eye(4, dtype=np.float32)},
        opset=opset,
    )
    with pytest.raises(PassError, match=f"opset {opset}"):
        compiled(program, pipeline, {"x": np.ones((2, 4), np.float32)})


@pytest.mark.parametrize(
    "options", ["bits=9", "group=48", "accuracy_level=1", "method=magic", "form=packed"]
)
def test_weight_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError):
        Pipeline.parse(f"quantize-weights{{{options}}}")


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        ("y = Gemm<alpha=0.5>(x, w)", {"w": (4, 4)}, "alpha"),
        ("y = Gemm<transA=1>(x, w)", {"w": (4, 4)}, "transA"),
        ("y = MatMul(x, w)", {"w": (4,)}, "rank 1"),
        ("y = Gemm(x, w, b)", {"w": (4, 4), "b": (1,)}, "1 values for 4 channels"),
        ("y = MatMul(x, x)", {}, "activations"),
        ("h = Relu(w)\n y = Gemm(x, h)", {"w": (4, 4)}, "not a constant"),
    ],
)
def test_what_cannot_be_quantized_is_left_with_its_reason(build, body, weights, reason):
    program = (
        build(
            f"g (float[4, 4] x) => (float[a, b] y) {{ {body} }}",
            {name: np.ones(shape, np.float32) for name, shape in weights.items()},
        )
        if "rank" not in reason
        else build(f"g (float[4, 4] x) => (float[a] y) {{ {body} }}", {"w": np.ones(4, np.float32)})
    )
    plan = plan_static(program.model)
    assert plan.layers == []
    assert any(reason in op.reason for op in plan.float_ops)
    assert not QuantizeDynamic().run(program, Context())


def test_layers_inside_control_flow_and_overridable_weights_are_left_and_reported(build, rng):
    program = build(
        """
        g (float[4, 4] x, bool c, float[4, 4] v) => (float[4, 4] y, float[4, 4] z) {
            y = If (c) <
                then_branch = t () => (float[4, 4] a) { a = MatMul(x, w) },
                else_branch = e () => (float[4, 4] b) { b = Neg(x) }
            >
            z = MatMul(x, v)
        }""",
        {"w": np.eye(4, dtype=np.float32), "v": np.eye(4, dtype=np.float32)},
    )
    plan = plan_static(program.model)
    assert plan.layers == []
    reasons = {op.node: op.reason for op in plan.float_ops}
    assert "control-flow" in reasons["a"]
    assert "activations" in reasons["z"]


def test_the_same_input_gives_the_same_bytes(compiled, rng, images, request):
    texts = []
    for _ in range(2):
        program = request.getfixturevalue("build")  # the same source twice
        rng = np.random.default_rng(3)
        program = program(
            "g (float[n, 3, 12, 12] x) => (float[n, 4, 10, 10] y) { y = Conv(x, w) }",
            {"w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32)},
        )
        compiled(program, "calibrate{method=mse},quantize-static", images)
        texts.append(ir.to_proto(program.model).SerializeToString())
    assert texts[0] == texts[1]


def test_weight_only_keeps_large_weights_on_disk_until_the_model_is_saved(mlp):
    QuantizeWeights().run(mlp, Context())
    values = mlp.model.graph.initializers.values()
    lazy = [v.name for v in values if isinstance(v.const_value, ir.LazyTensor)]
    assert lazy == ["w1_quantized", "w1_scale", "w2_quantized", "w2_scale"]
