"""Concats whose inputs take the scale of the result, and Resizes: what is rounded once more."""

import numpy as np
import pytest

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.execute import HybridSession
from qcomp.passes.quantize.shared_scales import share_scales
from qcomp.passes.quantize.static_plan import plan_static
from qcomp.quantization import FusionReport, TensorStatistics
from qcomp.target import get_target

SKIP = """
g (float[n, 3, 12, 12] x) => (float[n, 4, a, e] y) {
    c1 = Conv<pads=[1,1,1,1]>(x, w1)
    a = Relu(c1)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)
    c2 = Conv<pads=[1,1,1,1]>(p, w2)
    b = Relu(c2)
    up = Resize<mode="nearest">(b, , scales)
    cat = Concat<axis=1>(up, a)
    y = Conv(cat, w3)
}"""


def skip_weights(rng, gain=1.0):
    def draw(*shape):
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    return {
        "w1": draw(8, 3, 3, 3),
        "w2": np.float32(gain) * draw(8, 8, 3, 3),
        "w3": draw(4, 16, 3, 3),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }


def scales_of(program, *names):
    """Scale and zero point of values, as their QuantizeLinear has them."""
    found = {}
    for node in program.model.graph:
        if node.op_type == "QuantizeLinear" and node.inputs[0].name in names:
            parts = [float(value.const_value.numpy()) for value in node.inputs[1:]]
            found[node.inputs[0].name] = tuple(parts)
    return [found[name] for name in names]


def compiled_skip(build, compiled, rng, gain):
    program = build(SKIP, skip_weights(rng, gain))
    data = {"x": rng.normal(size=(16, 3, 12, 12)).astype(np.float32)}
    return program, data, compiled(program, "calibrate,quantize-static", data)


def test_both_ways_of_a_skip_connection_share_a_scale_and_are_joined_byte_by_byte(
    build, compiled, rng, tmp_path
):
    program, data, context = compiled_skip(build, compiled, rng, 1.0)
    a, up, cat = scales_of(program, "a", "up", "cat")
    assert a == up == cat
    names = ["a_quantized", "up_quantized", "cat_quantized"]
    found = HybridSession(program, taps=names).run(data)
    joined = np.concatenate([found["up_quantized"], found["a_quantized"]], axis=1)
    np.testing.assert_array_equal(found["cat_quantized"], joined)
    OnnxIntBackend().write(program, tmp_path / "m.onnx", get_target("cpu-int8"), context)
    report = context.need(FusionReport, "onnx_int")
    assert report.unfused == ()
    assert report.kernels["QLinearConcat"] == 1
    assert report.kernels["Resize"] == 1  # on u8: no pair stands around it
    assert report.kernels["DequantizeLinear"] == 1
    assert report.output_sqnr["y"] > 30


@pytest.mark.parametrize(("gain", "alone"), [(20.0, "a"), (0.01, None)])
def test_an_input_with_other_readers_keeps_a_range_much_smaller_than_the_common_one(
    build, compiled, rng, gain, alone
):
    """``b`` is read by the Concat alone: it takes any common range; ``a`` would lose bits."""
    program, _, _ = compiled_skip(build, compiled, rng, gain)
    a, up, cat = scales_of(program, "a", "up", "cat")
    assert up == cat
    assert (a == cat) == (alone is None)


def test_a_relu_keeps_its_zero_point_beside_an_input_with_negative_values(build, compiled, rng):
    body = SKIP.replace("b = Relu(c2)", "b = Identity(c2)")
    program = build(body, skip_weights(rng))
    data = {"x": rng.normal(size=(16, 3, 12, 12)).astype(np.float32)}
    compiled(program, "calibrate,quantize-static", data)
    a, up, cat = scales_of(program, "a", "up", "cat")
    assert a[1] == 0.0
    assert up == cat
    assert cat[1] > 0.0


def test_nested_concats_share_one_scale(build, compiled, rng):
    """As in a network where every layer reads all results before it."""
    body = """
    g (float[n, 3, 8, 8] x) => (float[n, 4, a, e] y) {
        c0 = Conv<pads=[1,1,1,1]>(x, w0)
        c1 = Conv<pads=[1,1,1,1]>(c0, w1)
        one = Concat<axis=1>(c1, c0)
        c2 = Conv<pads=[1,1,1,1]>(one, w2)
        two = Concat<axis=1>(c2, one)
        y = Conv(two, w3)
    }"""
    weights = {
        "w0": rng.normal(0, 0.2, (3, 3, 3, 3)).astype(np.float32),
        "w1": rng.normal(0, 0.2, (5, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.12, (5, 8, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 0.1, (4, 13, 3, 3)).astype(np.float32),
    }
    program = build(body, weights)
    data = {"x": rng.normal(size=(16, 3, 8, 8)).astype(np.float32)}
    compiled(program, "calibrate,quantize-static", data)
    assert len({*scales_of(program, "c0", "c1", "one", "c2", "two")}) == 1


def test_without_a_concat_the_ranges_stay(cnn, build, compiled, rng):
    program = build(
        "g (float[n, 3, 8, 8] x) => (float[n, 4, a, e] y) { c = Conv(x, w)\n y = Conv(c, v) }",
        {"w": np.ones((4, 3, 3, 3), np.float32), "v": np.ones((4, 4, 3, 3), np.float32)},
    )
    data = {"x": rng.normal(size=(4, 3, 8, 8)).astype(np.float32)}
    context = compiled(program, "calibrate", data)
    before = context.need(TensorStatistics, "x")
    assert share_scales(plan_static(program.model), before).ranges == before.ranges


def test_a_linear_resize_stays_in_float_between_integers_and_says_why(
    build, compiled, rng, tmp_path
):
    from qcomp.quantization import QuantizationRecord

    program = build(SKIP.replace('"nearest"', '"linear"'), skip_weights(rng))
    data = {"x": rng.normal(size=(16, 3, 12, 12)).astype(np.float32)}
    context = compiled(program, "calibrate,quantize-static", data)
    OnnxIntBackend().write(program, tmp_path / "m.onnx", get_target("cpu-int8"), context)
    report = context.need(FusionReport, "onnx_int")
    assert report.unfused == ()
    assert report.output_sqnr["y"] > 30
    left = {op.op_type: op.reason for op in context.need(QuantizationRecord, "x").float_ops}
    assert "cuts fractions off" in left["Resize"]
