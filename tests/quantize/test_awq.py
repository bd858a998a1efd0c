"""AWQ: weights of channels with large activations get finer steps; the function stays."""

import numpy as np
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.awq import Awq, ScaledByActivations
from qcomp.passmanager import Context
from qcomp.quantization import ChosenWeights, sqnr
from tests.papers.low_bit import char_model, character_perplexity, compiled

STORE = "quantize-weights{bits=3,group=32,symmetric=false,accuracy_level=0}"
AWQ = "awq{bits=3}"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("awq")


def outlier_channels(rng, *shape):
    """Normal numbers with three loud channels, the last axis."""
    x = rng.normal(0, 1, shape).astype(np.float32)
    x[..., [3, 11, 20]] *= 20.0
    return x


PLACES = {
    "a fused normalization": "h = LayerNormalization<axis=-1>(x, gain, shift)\n y = MatMul(h, w)",
    "a normalization written out": """q = Mul(x, x)
    m = ReduceMean<axes=[-1]>(q)
    e = Add(m, epsilon)
    r = Sqrt(e)
    u = Div(x, r)
    g = Mul(u, gain)
    h = Add(g, shift)
    y = MatMul(h, w)""",
    "a product before": "a = MatMul(x, v)\n b = Add(a, shift)\n h = Relu(b)\n y = MatMul(h, w)",
    "a Gemm before": "a = Gemm<transB=1>(x, v, shift)\n h = Relu(a)\n y = Gemm<transB=1>(h, w)",
    "one of two factors": """a = MatMul(x, v)
    c = Sigmoid(x)
    h = Mul(c, a)
    y = MatMul(h, w)""",
}


@pytest.mark.parametrize("place", PLACES)
def test_the_quotient_goes_into_what_makes_the_activation(place, build, run, rng):
    ops = PLACES[place].replace("<axes=[-1]>(q)", "(q, last)")
    program = build(
        f"g (float[n, 32] x) => (float[n, 32] y) {{\n {ops}\n}}",
        {
            "gain": np.abs(outlier_channels(rng, 32)) + 0.1,
            "shift": rng.normal(0, 0.1, 32).astype(np.float32),
            "epsilon": np.float32(1e-5),
            "last": np.array([-1]),
            "v": rng.normal(0, 1, (32, 32)).astype(np.float32) * np.logspace(0, 1.5, 32, dtype="f"),
            "w": rng.normal(0, 1, (32, 32)).astype(np.float32),
        },
    )
    data = {"x": rng.normal(0, 1, (256, 32)).astype(np.float32)}
    before, kinds = run(program, data)["y"], [node.op_type for node in program.model.graph]
    context = Context(calibration=lambda: iter([data]))
    assert Awq(bits=3).run(program, context)
    assert [node.op_type for node in program.model.graph] == kinds
    assert sqnr(before, run(program, data)["y"]) > 110.0
    done = context.get(ScaledByActivations)
    assert done.exponents["h"] > 0.0
    assert done.gains["h"] > 0.05
    assert not Awq(bits=3).run(program, context)


def test_layers_stay_where_nothing_takes_the_quotient(build, run, rng):
    program = build(
        "g (float[n, 32] x) => (float[n, 8] y) { h = Gelu(x)\n y = MatMul(h, w) }",
        {"w": rng.normal(0, 1, (32, 8)).astype(np.float32)},
    )
    data = {"x": outlier_channels(rng, 64, 32)}
    assert not Awq().run(program, Context(calibration=lambda: iter([data])))


def test_a_product_that_the_user_excluded_takes_no_quotient(build, compiled, rng):
    weights = {
        "v": outlier_channels(rng, 32, 32),
        "w": rng.normal(0, 1, (32, 8)).astype(np.float32),
    }
    data = {"x": rng.normal(0, 1, (64, 32)).astype(np.float32)}
    held = []
    for pipeline in ("awq", "select-nodes{exclude=[h]},awq"):
        program = build(
            "g (float[n, 32] x) => (float[n, 8] y) { h = MatMul(x, v)\n y = MatMul(h, w) }", weights
        )
        compiled(program, pipeline, data)
        held.append([node.inputs[1].name for node in program.model.graph])
    assert held == [["v_smooth", "w_smooth"], ["v", "w"]]


def test_the_outputs_of_rounded_layers_gain_on_rows_that_were_not_looked_at(
    build, compiled, run, rng
):
    body = """g (float[n, 32] x) => (float[n, 24] y) {
    h = LayerNormalization<axis=-1>(x, gain, shift)
    y = MatMul(h, w) }"""
    weights = {
        "gain": np.abs(outlier_channels(rng, 32)) + 0.1,
        "shift": np.zeros(32, np.float32),
        "w": rng.normal(0, 1, (32, 24)).astype(np.float32),
    }
    data, fresh = ({"x": rng.normal(0, 1, (256, 32)).astype(np.float32)} for _ in range(2))
    store = "quantize-weights{bits=4,symmetric=false,accuracy_level=0}"
    found = {}
    for steps in ("", "awq,", "awq{clip=true},"):
        program = build(body, weights)
        wanted = run(program, fresh)["y"]
        compiled(program, steps + store, data)
        found[steps] = sqnr(wanted, run(program, fresh)["y"])
    assert found["awq,"] > found[""] + 2.0
    assert found["awq{clip=true},"] > found[""] + 2.0


def test_outliers_of_the_character_model_cost_half_as_much_and_its_logits_stay(scratch):
    floating = character_perplexity("", scratch, outliers=True)
    plain = character_perplexity(STORE, scratch, outliers=True)
    scaled = character_perplexity(f"{AWQ},{STORE}", scratch, outliers=True)
    assert scaled - floating <= 0.5 * (plain - floating)
    weights, alphabet = char_model.load()
    train, held_out = char_model.split(char_model.tokens(alphabet))
    model = char_model.graph(char_model.with_outliers(weights))
    feeds = {"ids": held_out[:16, :-1]}
    data = {"ids": char_model.calibration(train, 16)}
    logits = [
        compiled(model, pipeline, data, scratch)[0].run(feeds)["logits"]
        for pipeline in ("canonicalise", AWQ)
    ]
    assert np.abs(logits[0] - logits[1]).max() <= 1e-4


def test_clipping_lowers_the_perplexity_of_three_bits_where_there_are_no_outliers(scratch):
    plain = character_perplexity(STORE, scratch)
    clipped = character_perplexity(f"awq{{bits=3,clip=true}},{STORE}", scratch)
    assert clipped < plain


def test_error_feedback_behind_it_gains_more_than_either(scratch):
    choose = "gptq{bits=3}"
    alone, both = (
        np.mean([character_perplexity(p, scratch, seed=s, outliers=True) for s in range(2)])
        for p in (f"{choose},{STORE}", f"{AWQ},{choose},{STORE}")
    )
    assert both < alone
    assert both < character_perplexity(f"{AWQ},{STORE}", scratch, outliers=True)


def test_clipped_integers_are_handed_on_with_the_pass_for_their_method(build, rng):
    W = rng.normal(0, 1, (8, 32)).astype(np.float32)
    program = build("g (float[n, 32] x) => (float[n, 8] y) { y = Gemm<transB=1>(x, w) }", {"w": W})
    context = Context(
        calibration=lambda: iter([{"x": rng.normal(0, 1, (64, 32)).astype(np.float32)}])
    )
    assert not Awq(clip=True).run(program, context)
    chosen = context.get(ChosenWeights).weights["w"]
    assert chosen.method == "awq{clip=true}"
    assert sqnr(W, chosen.real()) > 18.0


def test_without_data_the_pass_says_what_it_needs(build, rng):
    program = build(
        "g (float[n, 4] x) => (float[n, 4] y) { y = MatMul(x, w) }", {"w": np.eye(4, dtype="f")}
    )
    with pytest.raises(PassError, match="activations"):
        Awq().run(program, Context())


@pytest.mark.parametrize("options", [{"bits": 1}, {"steps": 0}, {"group": -1}, {"rows": 0}])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(UsageError):
        Awq(**options)
