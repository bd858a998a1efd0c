"""Offsets that a Relu never cuts move into the bias behind it."""

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.passes.calibrate.absorb_bias import AbsorbBias
from qcomp.passmanager import Context
from qcomp.quantization import AbsorbedBiases, ChannelMoments, sqnr

BODY = """
g (float[n, 3, 8, 8] x) => (float[n, 6] y) {
    c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
    r1 = Relu(c1)
    c2 = Conv<group=2>(r1, w2)
    r2 = Relu(c2)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r2)
    f = Flatten(p)
    y = Gemm<transB=1>(f, w3, b3)
}"""


@pytest.fixture
def weights(rng):
    b1 = rng.normal(0, 0.3, 4).astype(np.float32)
    b1[[0, 3]] = [40.0, 25.0]
    return {
        "w1": rng.normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32),
        "b1": b1,
        "w2": rng.normal(0, 0.2, (4, 2, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 0.2, (6, 4 * 9)).astype(np.float32),
        "b3": rng.normal(0, 0.2, 6).astype(np.float32),
    }


@pytest.fixture
def data(rng):
    return {"x": rng.normal(0, 1, (64, 3, 8, 8)).astype(np.float32)}


def bias(program, node, index=2):
    return program.model.graph.node(node).inputs[index].const_value.numpy()


def test_high_channels_are_shifted_and_the_function_nearly_stays(
    build, compiled, run, weights, data
):
    program = build(BODY, weights)
    before = run(program, data)["y"]
    context = compiled(program, "absorb-bias", data)
    shifted = bias(program, 0)
    assert shifted[0] < 10.0
    assert shifted[3] < 10.0
    assert (shifted[[1, 2]] == weights["b1"][[1, 2]]).all()
    assert sqnr(before, run(program, data)["y"]) > 40.0
    layers = context.need(AbsorbedBiases, "absorb-bias").layers
    assert layers["c1"][0] == 2
    assert 30.0 < layers["c1"][1] < 40.0
    assert any("absorb-bias moved" in text for text in context.warnings)


def test_integers_of_a_tensor_with_offsets_gain_seven_decibels(build, compiled, run, weights, data):
    plain, absorbed = build(BODY, weights), build(BODY, weights)
    before = run(plain, data)["y"]
    compiled(plain, "calibrate,quantize-static", data)
    compiled(absorbed, "absorb-bias,calibrate,quantize-static", data)
    gain = sqnr(before, run(absorbed, data)["y"]) - sqnr(before, run(plain, data)["y"])
    assert gain > 7.0


def test_a_convolution_that_reads_padding_takes_no_offset(build, compiled, weights, data):
    body = BODY.replace("<group=2>(r1, w2)", "<group=2, pads=[0,0,1,1]>(r1, w2)")
    program = build(body, weights)
    compiled(program, "absorb-bias", data)
    assert (bias(program, 0) == weights["b1"]).all()


def test_batch_normalizations_tell_the_moments_without_data(build, rng):
    program = build(
        "g (float[n, 8] x) => (float[n, 4] y) "
        "{ a = Gemm(x, w1)\n b = BatchNormalization(a, gamma, beta, mean, var)\n"
        " h = Relu(b)\n m = MatMul(h, w2)\n y = Add(m, b2) }",
        {
            "w1": rng.normal(0, 1, (8, 5)).astype(np.float32),
            "gamma": np.array([1, -1, 0.5, 1, 1], np.float32),
            "beta": np.array([0, 5, 5, 2, -9], np.float32),
            "mean": np.zeros(5, np.float32),
            "var": np.ones(5, np.float32),
            "w2": rng.normal(0, 1, (5, 4)).astype(np.float32),
            "b2": np.zeros(4, np.float32),
        },
    )
    from qcomp.passmanager import Pipeline

    context = Context()
    Pipeline.parse("fuse-batch-norm,absorb-bias").run(program, context)
    c = np.array([0, 2, 3.5, 0, 0])
    w2 = program.model.graph.node(2).inputs[1].const_value.numpy()
    np.testing.assert_allclose(bias(program, 3, 1), c @ w2, rtol=1e-6)
    ((mean, _),) = context.need(ChannelMoments, "fuse-batch-norm").moments.values()
    assert mean.tolist() == [0, 3, 1.5, 2, -9]
    assert not AbsorbBias().run(program, context)


def test_without_data_and_statistics_nothing_moves(build, weights):
    assert not AbsorbBias().run(build(BODY, weights), Context())


@pytest.mark.parametrize("options", [{"deviations": -1.0}, {"deviations": float("nan")}])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(UsageError):
        AbsorbBias(**options)
