"""Outliers move from activations into weights: the function stays, the integers get better."""

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.passes.calibrate.smooth_activations import SmoothActivations
from qcomp.passmanager import Context
from qcomp.quantization import sqnr

BLOCK = """
g (float[n, 32] x) => (float[n, 24] y) {
    h = LayerNormalization<axis=-1>(x, gamma, beta)
    a = MatMul(h, w1)
    b = MatMul(h, w2)
    c = Gelu(a)
    y1 = MatMul(c, w3)
    y = Add(y1, b)
}"""


@pytest.fixture
def weights(rng):
    gamma = np.ones(32, np.float32)
    gamma[[3, 17]] = 60.0  # the outlier channels of a transformer
    w1 = rng.normal(0, 0.1, (32, 48)).astype(np.float32)
    w1[[3, 17]] /= 60.0
    return {
        "gamma": gamma,
        "beta": rng.normal(0, 0.1, 32).astype(np.float32),
        "w1": w1,
        "w2": (rng.normal(0, 0.1, (32, 24)) / gamma[:, None]).astype(np.float32),
        "w3": rng.normal(0, 0.1, (48, 24)).astype(np.float32),
    }


@pytest.fixture
def data(rng):
    return {"x": rng.normal(0, 1, (256, 32)).astype(np.float32)}


def test_the_function_stays_and_a_normalization_takes_the_quotient(
    build, compiled, run, weights, data
):
    program = build(BLOCK, weights)
    before = run(program, data)["y"]
    compiled(program, "smooth-activations{gain=50}", data)
    nodes = [node.op_type for node in program.model.graph]
    assert "Mul" not in nodes
    gamma = program.model.graph.node(0).inputs[1].const_value.numpy()
    assert abs(gamma).max() < 30.0
    assert sqnr(before, run(program, data)["y"]) > 100.0


def test_integers_of_a_layer_with_outliers_gain_ten_decibels(build, compiled, run, weights, data):
    plain, smooth = build(BLOCK, weights), build(BLOCK, weights)
    before = run(plain, data)["y"]
    compiled(plain, "calibrate,quantize-static", data)
    compiled(smooth, "smooth-activations,calibrate,quantize-static", data)
    assert sqnr(before, run(smooth, data)["y"]) > sqnr(before, run(plain, data)["y"]) + 10.0


def test_a_tensor_that_others_read_too_is_multiplied_where_that_gains_enough(
    build, compiled, run, weights, data
):
    body = BLOCK.replace("Add(y1, b)", "Add(y1, b)\n z = Relu(h)")
    body = body.replace("=> (float[n, 24] y)", "=> (float[n, 24] y, float[n, 32] z)")
    program = build(body, weights)
    before = run(program, data)
    compiled(program, "smooth-activations{gain=3.0}", data)
    ops = [node.op_type for node in program.model.graph]
    assert ops.count("Mul") == 1
    after = run(program, data)
    assert sqnr(before["y"], after["y"]) > 100.0
    assert (before["z"] == after["z"]).all()


def test_a_second_run_finds_nothing_to_move(build, weights, data):
    from qcomp.passmanager import Context

    program = build(BLOCK, weights)
    context = Context(calibration=lambda: iter([data]))
    assert SmoothActivations().run(program, context)
    assert not SmoothActivations().run(program, context)


def test_without_data_nothing_is_moved(build, weights):
    from qcomp.passmanager import Context

    assert not SmoothActivations().run(build(BLOCK, weights), Context())


def test_it_looks_at_no_more_samples_than_it_is_told(build, compiled, weights, data):
    many = np.resize(data["x"], (6000, *data["x"].shape[1:]))
    many[4500:, 5] *= 1000.0  # an outlier that only the later samples show
    seen = {}
    for count in (4096, 6000):
        program = build(BLOCK, weights)
        compiled(program, f"smooth-activations{{samples={count},batch=512}}", {"x": many})
        seen[count] = program.model.graph.node(0).inputs[1].const_value.numpy()
    assert not np.allclose(seen[4096], seen[6000])


def test_where_samples_are_short_it_looks_at_more_of_them(build, compiled, weights, data):
    x = data["x"].copy()
    x[64:, 5] *= 1000.0  # 64 rows would not show this channel's peak
    seen = {}
    for count in (64, 256):
        program = build(BLOCK, weights)
        compiled(program, f"smooth-activations{{samples={count}}}", {"x": x})
        seen[count] = program.model.graph.node(0).inputs[1].const_value.numpy()
    assert np.array_equal(seen[64], seen[256])


@pytest.mark.parametrize(("loud", "looked_at"), [(1.0, 64), (30.0, 256)])
def test_it_looks_at_more_samples_only_where_something_is_gained(build, rng, loud, looked_at):
    x = rng.normal(size=(256, 32)).astype(np.float32)
    x[:, 7] *= loud
    program = build(
        "g (float[n, 32] x) => (float[n, 8] y) { h = Relu(x) y = MatMul(h, w) }",
        {"w": rng.normal(size=(32, 8)).astype(np.float32)},
    )
    taken = []

    def batches():
        for start in range(0, 256, 8):
            taken.append(start)
            yield {"x": x[start : start + 8]}

    context = Context()
    context.calibration = batches
    assert SmoothActivations().run(program, context) == (loud > 1.0)
    assert looked_at <= 8 * len(taken) <= looked_at + 8


def test_quiet_channels_are_not_blown_up(build, compiled, weights, data):
    gamma = weights["gamma"].copy()
    gamma[5], beta = 1e-4, np.zeros_like(gamma)
    program = build(BLOCK, weights | {"gamma": gamma, "beta": beta})
    compiled(program, "smooth-activations", data)
    scale = program.model.graph.node(0).inputs[1].const_value.numpy()
    assert scale[5] / gamma[5] == pytest.approx(8.0)
    assert (scale / gamma).max() <= 8.0 * (1 + 1e-6)


@pytest.mark.parametrize(
    "options", [{"strengths": (1.5,)}, {"strengths": ()}, {"rows": 0}, {"samples": 0}]
)
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(UsageError):
        SmoothActivations(**options)


ATTENTION = """
g (float[n, 6, 16] x) => (float[n, 6, 16] y) {
    k = MatMul(x, wk)
    k4 = Reshape(k, split)
    kt = Transpose<perm=[0, 2, 3, 1]>(k4)
    q4 = Reshape(x, split)
    qt = Transpose<perm=[0, 2, 1, 3]>(q4)
    scores = MatMul(qt, kt)
    p = Softmax<axis=-1>(scores)
    v = MatMul(x, wv)
    vb = Add(v, bv)
    v4 = Reshape(vb, split)
    vt = Transpose<perm=[0, 2, 1, 3]>(v4)
    mixed = MatMul(p, vt)
    back = Transpose<perm=[0, 2, 1, 3]>(mixed)
    a = Reshape(back, join)
    y = MatMul(a, wo)
}"""


def attention_weights(rng):
    large = np.ones(16, np.float32)
    large[[2, 9]] = 40.0
    normal = lambda *shape: rng.normal(0, 0.2, shape).astype(np.float32)  # noqa: E731
    return {
        "split": np.array([0, 0, 4, 4], np.int64),
        "join": np.array([0, 0, 16], np.int64),
        "wk": normal(16, 16),
        "wv": normal(16, 16) * large,
        "bv": normal(16) * large,
        "wo": normal(16, 16) / large[:, None],
    }


def test_a_quotient_of_an_attentions_result_goes_into_the_projection_of_values(
    build, compiled, run, rng
):
    weights = attention_weights(rng)
    data = {"x": rng.normal(0, 1, (64, 6, 16)).astype(np.float32)}
    plain, program = build(ATTENTION, weights), build(ATTENTION, weights)
    before = run(program, data)["y"]
    compiled(plain, "calibrate,quantize-static", data)
    compiled(program, "smooth-activations{gain=50}", data)
    assert "Mul" not in [node.op_type for node in program.model.graph]
    assert sqnr(before, run(program, data)["y"]) > 100.0
    compiled(program, "calibrate,quantize-static", data)
    gain = sqnr(before, run(program, data)["y"]) - sqnr(before, run(plain, data)["y"])
    assert gain > 3.0


def test_offsets_leave_a_normalization_and_come_back_as_biases(build, compiled, run, rng):
    body = """
g (float[n, 32] x) => (float[n, 24] y) {
    h = LayerNormalization<axis=-1>(x, gamma, beta)
    a = MatMul(h, w1)
    c = Gemm(h, w2)
    d = Add(a, b1)
    y = Add(d, c)
}"""
    beta = rng.normal(0, 30, 32).astype(np.float32)  # each channel has a place of its own
    weights = {
        "gamma": np.ones(32, np.float32),
        "beta": beta,
        "w1": rng.normal(0, 0.1, (32, 24)).astype(np.float32),
        "w2": rng.normal(0, 0.1, (32, 24)).astype(np.float32),
        "b1": np.zeros(24, np.float32),
    }
    data = {"x": rng.normal(0, 1, (256, 32)).astype(np.float32)}
    plain, program = build(body, weights), build(body, weights)
    before = run(program, data)["y"]
    compiled(plain, "calibrate,quantize-static", data)
    compiled(program, "smooth-activations{strengths=[0.5]}", data)
    nodes = [node.op_type for node in program.model.graph]
    assert nodes == ["LayerNormalization", "MatMul", "Gemm", "Add", "Add"]
    assert sqnr(before, run(program, data)["y"]) > 100.0
    compiled(program, "calibrate,quantize-static", data)
    assert sqnr(before, run(program, data)["y"]) > sqnr(before, run(plain, data)["y"]) + 10.0


def test_an_add_is_made_for_an_offset_where_a_layer_has_no_bias(build, compiled, run, rng):
    body = """
g (float[n, 32] x) => (float[n, 24] y) {
    h = LayerNormalization<axis=-1>(x, gamma, beta)
    y = MatMul(h, w1)
}"""
    weights = {
        "gamma": np.ones(32, np.float32),
        "beta": rng.normal(0, 30, 32).astype(np.float32),
        "w1": rng.normal(0, 0.1, (32, 24)).astype(np.float32),
    }
    data = {"x": rng.normal(0, 1, (256, 32)).astype(np.float32)}
    program = build(body, weights)
    before = run(program, data)["y"]
    compiled(program, "smooth-activations", data)
    assert [n.op_type for n in program.model.graph] == ["LayerNormalization", "MatMul", "Add"]
    assert program.model.graph.outputs[0].name == "y"
    assert sqnr(before, run(program, data)["y"]) > 100.0
