"""Channels between two layers take the same range of weights; the function stays."""

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.passes.graph.cross_layer_equalize import CrossLayerEqualize
from qcomp.passmanager import Context
from qcomp.quantization import ChannelMoments, sqnr

CHAIN = """
g (float[n, 6, 9, 9] x) => (float[n, 5] y) {
    c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
    r1 = Relu(c1)
    c2 = Conv<pads=[1,1,1,1], group=8>(r1, w2, b2)
    r2 = LeakyRelu<alpha=0.1>(c2)
    c3 = Conv<strides=[2,2]>(r2, w3)
    r3 = PRelu(c3, slope)
    c4 = ConvTranspose<group=2>(r3, w4, b4)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c4)
    f = Flatten(p)
    y = Gemm<transB=1, alpha=0.5, beta=2.0>(f, w5, b5)
}"""


def spread_weights(rng, *shape, axis=0):
    """Weights whose channels differ by three orders of magnitude."""
    factors = 10.0 ** rng.uniform(-1.5, 1.5, shape[axis])
    other = [1] * len(shape)
    other[axis] = shape[axis]
    return (rng.normal(0, 0.3, shape) * factors.reshape(other)).astype(np.float32)


@pytest.fixture
def chain(build, rng):
    return build(
        CHAIN,
        {
            "w1": spread_weights(rng, 8, 6, 3, 3),
            "b1": rng.normal(0, 1, 8).astype(np.float32),
            "w2": spread_weights(rng, 8, 1, 3, 3),
            "b2": rng.normal(0, 1, 8).astype(np.float32),
            "w3": spread_weights(rng, 4, 8, 3, 3),
            "slope": np.full((4, 1, 1), 0.3, np.float32),
            "w4": spread_weights(rng, 4, 3, 2, 2),
            "b4": rng.normal(0, 1, 6).astype(np.float32),
            "w5": spread_weights(rng, 5, 6 * 4, axis=1),
            "b5": rng.normal(0, 1, 5).astype(np.float32),
        },
    )


def weight(program, index):
    layers = [n for n in program.model.graph if n.op_type in ("Conv", "ConvTranspose", "Gemm")]
    return layers[index].inputs[1].const_value.numpy()


def test_the_function_of_a_chain_of_every_kind_of_layer_stays(chain, run, rng):
    feeds = {"x": rng.normal(0, 1, (3, 6, 9, 9)).astype(np.float32)}
    before = run(chain, feeds)["y"]
    assert CrossLayerEqualize().run(chain, Context())
    assert sqnr(before, run(chain, feeds)["y"]) > 100.0


def test_both_sides_of_every_channel_have_the_same_range(chain):
    CrossLayerEqualize().run(chain, Context())
    rows = np.abs(weight(chain, 0)).max((1, 2, 3))
    depthwise = np.abs(weight(chain, 1)).max((1, 2, 3))
    columns = np.abs(weight(chain, 2)).max((0, 2, 3))
    np.testing.assert_allclose(rows, depthwise, rtol=1e-3)
    np.testing.assert_allclose(depthwise, columns, rtol=1e-3)
    out = np.abs(weight(chain, 2)).max((1, 2, 3))
    np.testing.assert_allclose(out, np.abs(weight(chain, 3)).max((1, 2, 3)), rtol=1e-3)
    out = np.abs(weight(chain, 3).reshape(2, 2, 3, 4)).max((1, 3)).reshape(-1)
    flat = np.abs(weight(chain, 4)).reshape(5, 6, 4).max((0, 2))
    np.testing.assert_allclose(out, flat, rtol=1e-3)


def test_the_weights_are_computed_late_yet_after_later_passes(chain, compiled, run, rng):
    feeds = {"x": rng.normal(0, 1, (32, 6, 9, 9)).astype(np.float32)}
    before = run(chain, feeds)["y"]
    compiled(chain, "cross-layer-equalize,calibrate,quantize-static", feeds)
    assert sqnr(before, run(chain, feeds)["y"]) > 15.0


def test_a_second_run_changes_nothing(chain):
    assert CrossLayerEqualize().run(chain, Context())
    assert not CrossLayerEqualize().run(chain, Context())


@pytest.mark.parametrize(
    "body",
    [
        "a = MatMul(x, w1)\n h = Sigmoid(a)\n y = MatMul(h, w2)",
        "a = MatMul(x, w1)\n h = Clip(a, zero, six)\n y = MatMul(h, w2)",
        "a = MatMul(x, w1)\n h = Relu(a)\n k = MatMul(h, w2)\n z = Exp(h)\n"
        " s = ReduceSum<keepdims=1>(z)\n y = Add(k, s)",
    ],
    ids=["another function", "an upper bound", "another reader"],
)
def test_layers_joined_otherwise_are_left_alone(build, rng, body):
    program = build(
        f"g (float[n, 6] x) => (float[n, 4] y) {{ {body} }}",
        {
            "w1": spread_weights(rng, 6, 8, axis=1),
            "w2": spread_weights(rng, 8, 4),
            **({"zero": np.float32(0), "six": np.float32(6)} if "Clip" in body else {}),
        },
    )
    assert not CrossLayerEqualize().run(program, Context())


def test_the_bias_behind_a_matmul_is_scaled_and_dead_channels_are_kept(build, run, rng):
    w1, w2 = spread_weights(rng, 6, 8, axis=1), spread_weights(rng, 8, 4)
    w1[:, 2] = 0.0
    w2[5] = 0.0
    program = build(
        "g (float[n, 3, 6] x) => (float[n, 3, 4] y) "
        "{ a = MatMul(x, w1)\n b = Add(bias, a)\n h = Relu(b)\n y = MatMul(h, w2) }",
        {"w1": w1, "bias": rng.normal(0, 1, 8).astype(np.float32), "w2": w2},
    )
    feeds = {"x": rng.normal(0, 1, (5, 3, 6)).astype(np.float32)}
    before = run(program, feeds)["y"]
    assert CrossLayerEqualize().run(program, Context())
    assert sqnr(before, run(program, feeds)["y"]) > 100.0
    assert np.array_equal(program.model.graph.node(0).inputs[1].const_value.numpy()[:, 5], w1[:, 5])


def test_the_moments_of_a_batch_normalization_follow_its_channels(build, compiled, rng):
    program = build(
        "g (float[n, 3, 5, 5] x) => (float[n, 2, 3, 3] y) "
        "{ a = Conv(x, w1)\n b = BatchNormalization(a, gamma, beta, mean, var)\n"
        " r = Relu(b)\n y = Conv(r, w2) }",
        {
            "w1": spread_weights(rng, 4, 3, 1, 1),
            "gamma": np.array([0.5, 1, -2, 3], np.float32),
            "beta": np.array([0.0, 1, 2, 3], np.float32),
            "mean": np.zeros(4, np.float32),
            "var": np.ones(4, np.float32),
            "w2": spread_weights(rng, 2, 4, 3, 3, axis=1),
        },
    )
    context = compiled(program, "fuse-batch-norm")
    ((name, (mean, deviation)),) = context.need(ChannelMoments, "fuse-batch-norm").moments.items()
    assert mean.tolist() == [0, 1, 2, 3]
    assert deviation.tolist() == [0.5, 1, 2, 3]
    old = weight(program, 0)
    CrossLayerEqualize().run(program, context)
    s = np.abs(old).max((1, 2, 3)) / np.abs(weight(program, 0)).max((1, 2, 3))
    scaled = context.need(ChannelMoments, "fuse-batch-norm").moments[name]
    np.testing.assert_allclose(scaled[0], mean / s, rtol=1e-5)
    np.testing.assert_allclose(scaled[1], deviation / s, rtol=1e-5)


@pytest.mark.parametrize("options", [{"sweeps": 0}, {"tolerance": 0.0}, {"tolerance": 1.0}])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(UsageError):
        CrossLayerEqualize(**options)
