"""Outliers move from activations into weights: the function stays, the integers get better."""

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.passes.calibrate.smooth_activations import SmoothActivations
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


@pytest.mark.parametrize("options", [{"strengths": (1.5,)}, {"strengths": ()}, {"rows": 0}])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(UsageError):
        SmoothActivations(**options)
