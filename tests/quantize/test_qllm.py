"""QLLM: which channels are taken apart and merged, and what a change of low rank corrects."""

import numpy as np
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.channel_reassembly import find_reassembly, round_tokens
from qcomp.passes.calibrate.qllm import Qllm, ReassembledChannels
from qcomp.passes.quantize.grids import Grid
from qcomp.passmanager import Context
from qcomp.quantization import sqnr

GRID = Grid(4, 0, True, "minmax")


def loud(rng, n, channels):
    """Normal numbers, one channel twenty times as large."""
    x = rng.normal(0, 1, (n, channels)).astype(np.float32)
    x[:, 3] *= 20.0
    return x


def reassembly(x, W, **options):
    W[:, 3] /= 20.0  # as in a trained model: the product needs no more of it than of others
    settings = {"tokens": 4, "thresholds": 12, "assemble": True} | options
    return find_reassembly(x, np.abs(x).max(0), [(W, GRID)], **settings)


def test_channels_taken_apart_make_the_same_product(rng):
    x, W = loud(rng, 64, 16), rng.normal(0, 1, (8, 16)).astype(np.float32)
    found = reassembly(x, W, assemble=False)
    parts = found.parts.astype(int)
    assert parts[3] > 4
    assert parts.sum() == len(found.index)
    made = (x / found.parts)[:, found.index] @ found.rows(W.T)
    np.testing.assert_allclose(made, x @ W.T, rtol=1e-4, atol=1e-4)


def test_the_channels_that_make_room_are_those_that_others_stand_for(rng):
    x, W = loud(rng, 256, 16), rng.normal(0, 1, (8, 16)).astype(np.float32)
    x[:, 8] = 0.5 * x[:, 9]
    x[:, 12] = -2.0 * x[:, 13]
    found = reassembly(x, W)
    assert len(found.index) == 16
    merged = {(i, k): round(r, 4) for i, k, r in found.merged}
    assert merged[9, 8] == 2.0
    assert merged[13, 12] == -0.5
    assert not {i for i, _, _ in found.merged} & set(found.index.tolist())


def test_nothing_is_taken_apart_where_no_channel_is_loud(rng):
    x = rng.uniform(-1, 1, (256, 16)).astype(np.float32)
    assert reassembly(x, rng.normal(0, 1, (8, 16)).astype(np.float32)) is None


def test_tokens_are_rounded_as_quantize_tokens_rounds_them(build, compiled, run, rng):
    x = rng.normal(0, 1, (32, 16)).astype(np.float32)
    program = build(
        "g (float[n, 16] x) => (float[n, 16] y) { y = MatMul(x, w) }",
        {"w": np.eye(16, dtype=np.float32)},
    )
    compiled(program, "quantize-tokens{bits=4}")
    np.testing.assert_allclose(run(program, {"x": x})["y"], round_tokens(x, 4), rtol=1e-5)


GATED = """
g (float[n, 32] x) => (float[n, 32] y) {
    h = LayerNormalization<axis=-1>(x, gain, shift)
    a = MatMul(h, w1)
    b0 = Gemm(h, w2, bias)
    s = Sigmoid(a)
    t = Mul(a, s)
    p = Mul(t, b0)
    y = MatMul(p, w3)
}"""


@pytest.fixture
def weights(rng):
    normal = lambda *shape: rng.normal(0, 0.3, shape).astype(np.float32)  # noqa: E731
    gain = np.ones(32, np.float32)
    gain[[4, 9]] = 15.0
    w2 = normal(32, 48)
    w2[:, 5] *= 20.0
    return {
        "gain": gain,
        "shift": normal(32),
        "w1": normal(32, 48),
        "w2": w2,
        "bias": normal(48),
        "w3": normal(48, 32),
    }


@pytest.fixture
def data(rng):
    return {"x": rng.normal(0, 1, (512, 32)).astype(np.float32)}


def test_columns_of_both_factors_and_a_gather_behind_the_normalization_choose_the_channels(
    build, compiled, run, weights, data
):
    program = build(GATED, weights)
    kinds = [node.op_type for node in program.model.graph]
    before = run(program, data)["y"]
    context = compiled(program, "canonicalise,qllm{assemble=false,rank=0}", data)
    assert set(context.get(ReassembledChannels).added) == {"h", "p"}
    assert [n.op_type for n in program.model.graph] == [kinds[0], "Gather", *kinds[1:]]
    assert sqnr(before, run(program, data)["y"]) > 110.0


def test_rounded_tokens_and_weights_gain_decibels(build, compiled, run, weights, data, rng):
    fresh = {"x": rng.normal(0, 1, (256, 32)).astype(np.float32)}
    found = {}
    store = "quantize-tokens{bits=4,weights=4,group=32,symmetric=false}"
    for steps in ("", "qllm{rank=0},", "qllm{samples=512},"):
        program = build(GATED, weights)
        wanted = run(program, fresh)["y"]
        compiled(program, f"canonicalise,{steps}{store}", data)
        found[steps] = sqnr(wanted, run(program, fresh)["y"])
    assert found["qllm{rank=0},"] > found[""] + 1.0
    assert found["qllm{samples=512},"] > found["qllm{rank=0},"] + 0.5


@pytest.mark.parametrize("made", ["Gelu(x)", "Softmax(x)", "Add(x, x)"])
def test_channels_stay_behind_what_cannot_choose_them(made, build, rng):
    program = build(
        f"g (float[n, 32] x) => (float[n, 8] y) {{ h = {made}\n y = MatMul(h, w) }}",
        {"w": rng.normal(0, 1, (32, 8)).astype(np.float32)},
    )
    context = Context(calibration=lambda: iter([{"x": loud(rng, 64, 32)}]))
    assert not Qllm(rank=0).run(program, context)


def test_layers_that_the_user_excluded_keep_their_weights(build, compiled, weights, data):
    program = build(GATED, weights)
    compiled(program, "canonicalise,select-nodes{exclude=[a]},qllm", data)
    held = {node.inputs[1].name for node in program.model.graph if node.op_type == "MatMul"}
    assert "w1" in held
    assert "w3" not in held


def test_a_second_run_changes_nothing(build, weights, data):
    program = build(GATED, weights)
    context = Context(calibration=lambda: iter([data]))
    assert Qllm().run(program, context)
    assert not Qllm().run(program, context)


def test_without_data_the_pass_says_what_it_needs(build, weights):
    with pytest.raises(PassError, match="outliers"):
        Qllm().run(build(GATED, weights), Context())


@pytest.mark.parametrize(
    "options",
    [{"tokens": 5}, {"bits": 9}, {"norms": "none"}, {"rank": -1}, {"damping": 0.0}, {"rows": 0}],
)
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(UsageError):
        Qllm(**options)
