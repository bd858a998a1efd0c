"""Operators between convolutions: the kernel they become, and the simulator against the runtime."""

import numpy as np
import pytest

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.passes.quantize.integer_simulator import IntegerSimulator
from qcomp.passes.quantize.static_plan import plan_static
from qcomp.quantization import FusionReport
from qcomp.target import get_target

CASES = {
    "nearest resize stays on integers": (
        'c = Conv<pads=[1,1,1,1]>(x, w)\n r = Relu(c)\n s = Resize<mode="nearest">(r, , scales)\n'
        "y = Conv(s, w8)",
        {"QLinearConv": 2, "Resize": 1, "DequantizeLinear": 1},
    ),
    "average pooling": (
        "c = Conv(x, w)\n s = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c)\n y = Conv(s, w8)",
        {"QLinearConv": 2, "QLinearAveragePool": 1},
    ),
    "padded average pooling": (
        "c = Conv(x, w)\n"
        "s = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(c)\n"
        "y = Conv(s, w8)",
        {"QLinearConv": 2, "QLinearAveragePool": 1},
    ),
    "same padding and a transpose": (
        'c = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)\n'
        "s = Transpose<perm=[0,1,3,2]>(c)\n y = Conv(s, w8)",
        {"QLinearConv": 2, "DequantizeLinear": 1},
    ),
    "zero padding and depth to space": (
        "c = Conv(x, w)\n s = Pad(c, pads, zero)\n t = DepthToSpace<blocksize=2>(s)\n"
        "y = Conv(t, w2)",
        {"QLinearConv": 2},
    ),
    "a clip below zero, an add of two convolutions, a product": (
        "c = Conv(x, w)\n d = Conv(x, v)\n a = Add(c, d)\n r = Relu(a)\n m = Mul(r, c)\n"
        "k = Clip(m, minus, one)\n y = Conv(k, w8)",
        {"QLinearConv": 3, "QLinearAdd": 1, "QLinearMul": 1},
    ),
    "three dimensions in one": (
        "u = Unsqueeze(x, axis)\n c = Conv(u, w3)\n r = Relu(c)\n s = Squeeze(r, axis)\n"
        "y = Conv(s, w8)",
        {"QLinearConv": 2},
    ),
}


@pytest.fixture
def weights(rng):
    def draw(*shape):
        return rng.normal(0, 0.3, shape).astype(np.float32)

    return {
        "w": draw(8, 3, 3, 3),
        "v": draw(8, 3, 3, 3),
        "w8": draw(4, 8, 3, 3),
        "w2": draw(4, 2, 3, 3),
        "w3": draw(8, 3, 1, 3, 3),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "axis": np.array([2]),
        "zero": np.float32(0),
        "minus": np.float32(-1),
        "one": np.float32(1),
    }


@pytest.mark.parametrize("case", CASES)
def test_the_operator_runs_on_integers_and_is_simulated(
    build, compiled, run, weights, rng, tmp_path, case
):
    body, kernels = CASES[case]
    used = {name: array for name, array in weights.items() if f" {name}" in body}
    program = build(f"g (float[n, 3, 10, 10] x) => (float[n, a, b, e] y) {{ {body} }}", used)
    data = {"x": rng.normal(size=(16, 3, 10, 10)).astype(np.float32)}
    context = compiled(program, "calibrate,quantize-static", data)
    OnnxIntBackend().write(program, tmp_path / "m.onnx", get_target("cpu-int8"), context)
    report = context.need(FusionReport, "onnx_int")
    assert report.unfused == ()
    assert {kind: report.kernels.get(kind, 0) for kind in kernels} == kernels
    assert report.output_sqnr["y"] > 25
    names = tuple(n.outputs[0].name for n in program.model.graph if n.op_type == "QuantizeLinear")
    ours = IntegerSimulator(program.model).run(data, watch=names)
    theirs = run(program, data, taps=names)
    for name in names:
        distance = np.abs(ours[name].astype(int) - theirs[name].astype(int))
        assert distance.max() <= 1, name
        assert (distance == 0).mean() > 0.98, name


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('c = Conv(x, w)\n s = Resize<mode="linear">(c, , scales)\n y = Neg(s)', "interpolation"),
        ("c = Conv(x, w)\n s = Tanh(c)\n y = Neg(s)", "no integer kernel"),
        ("c = Conv(x, w)\n s = Add(c, one)\n y = Neg(s)", "inputs are float"),
        ("y = ConvTranspose(x, wt)", "no integer kernel"),
        ("y = BatchNormalization(x, g, g, g, g)", "fuse-batch-norm"),
    ],
)
def test_an_operator_left_in_float_is_listed_with_its_reason(build, weights, body, reason):
    extra = {"wt": np.ones((3, 2, 3, 3), np.float32), "g": np.ones(3, np.float32)}
    used = {n: a for n, a in (weights | extra).items() if f" {n}" in body}
    program = build(f"g (float[n, 3, 10, 10] x) => (float[n, a, b, e] y) {{ {body} }}", used)
    assert any(reason in op.reason for op in plan_static(program.model).float_ops)


def test_an_embedding_is_reported_and_a_gather_of_activations_is_not(build):
    program = build(
        "g (int64[n] ids, float[n, 4] x) => (float[n, 4] y, float[n, 4] z) "
        "{ y = Gather(table, ids)\n z = Gather(x, ids) }",
        {"table": np.ones((5, 4), np.float32)},
    )
    listed = plan_static(program.model).float_ops
    assert [op.node for op in listed] == ["y"]
    assert "embedding" in listed[0].reason
