"""``choose-method``: each layer by the method that measures the least output error."""

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.passes.quantize.choose_method import METHODS, ChooseMethod
from qcomp.quantization import ChosenWeights, FeedbackErrors

CHAIN = """
g (float[n, 48] x) => (float[n, 24] y) {
    a = MatMul(x, w0)
    b = Relu(a)
    c = MatMul(b, w1)
    d = Relu(c)
    y = MatMul(d, w2)
}"""
SHAPES = {"w0": (48, 64), "w1": (64, 40), "w2": (40, 24)}


@pytest.fixture
def chain(build, rng):
    weights = {name: rng.standard_t(4, shape).astype(np.float32) for name, shape in SHAPES.items()}
    mixing = rng.normal(size=(48, 48)) * np.geomspace(1, 0.05, 48)
    return build(CHAIN, weights), {"x": (rng.normal(size=(256, 48)) @ mixing).astype(np.float32)}


def facts(compiled, program, text, data):
    context = compiled(program.copy(), text, data)
    return context.get(FeedbackErrors).layers, context.get(ChosenWeights)


EVERY = "methods=[rounding,lsq,hqq,gptq,gptq-ordered,gptaq,gptaq-ordered,gpfq]"


def test_the_sum_of_measured_errors_is_at_most_that_of_the_best_single_method(chain, compiled):
    program, data = chain
    layers, _ = facts(compiled, program, f"choose-method{{bits=3,{EVERY},budget=100}}", data)
    assert len(layers) == 3
    assert all(set(layer.tried) == set(METHODS) for layer in layers)
    assert all(layer.left == min(layer.tried.values()) for layer in layers)
    single = {method: sum(layer.tried[method] for layer in layers) for method in METHODS}
    assert sum(layer.left for layer in layers) <= min(single.values())
    assert min(single, key=single.__getitem__) != "rounding"


def test_the_integers_are_those_of_the_method_that_is_named(chain, compiled):
    """Behind the first layer's rounding, GPTQ alone comes to the same integers."""
    program, data = chain
    _, chosen = facts(compiled, program, "choose-method{methods=[gptq-ordered]}", data)
    _, alone = facts(compiled, program, "gptq{order=activation}", data)
    for name in SHAPES:
        assert chosen.weights[name].method == "gptq-ordered by choose-method"
        np.testing.assert_array_equal(chosen.weights[name].levels, alone.weights[name].levels)
        np.testing.assert_array_equal(chosen.weights[name].scale, alone.weights[name].scale)


@pytest.mark.parametrize("budget", [0.0, 1.0, 2.5, 6.0])
def test_no_more_work_is_done_than_the_budget_has(chain, compiled, monkeypatch, budget):
    from qcomp.passes.quantize.error_feedback import rows

    program, data = chain
    done = []
    real = rows._round

    def spied(slab):
        order = getattr(slab.method, "order", "")
        done.append((type(slab.method).__name__, order, slab.weight.shape))
        return real(slab)

    monkeypatch.setattr(rows, "_round", spied)
    asked = "methods=[gptq,gptq-ordered,gptaq,gptaq-ordered,gpfq]"
    layers, _ = facts(
        compiled, program, f"choose-method{{{asked},rivals=[],budget={budget}}}", data
    )
    names = {"Gptq": "gptq", "Gptaq": "gptaq", "Gpfq": "gpfq", "_Nearest": "rounding"}
    chooser = ChooseMethod(budget=budget)
    for layer, shape in zip(layers, SHAPES.values(), strict=True):
        spent = [chooser.work(names[kind], *rest) for kind, _, rest in done if rest == shape[::-1]]
        floor = chooser.work("rounding", *shape[::-1])  # never left out
        assert sum(spent) <= max(budget, floor)
        assert len(layer.tried) + len(layer.left_out) == 6
        assert "rounding" in layer.tried
    if not budget:
        assert all(set(layer.tried) == {"rounding"} for layer in layers)


def test_the_descent_at_the_end_is_counted_in_units_of_work():
    """A unit is GPTQ with it, so what does without takes the smaller share of one."""
    plain, improved, fitted = (
        ChooseMethod(sweeps=sweeps, refits=refits) for sweeps, refits in ((0, 0), (4, 0), (4, 1))
    )
    K, N = 300, 500
    units = [K**3 / 1.5 + passes * N * K**2 for passes in (1, 2, 4)]
    for chooser, unit in zip((plain, improved, fitted), units, strict=True):
        assert chooser.work("gptq", N, K) == 1.0
        assert chooser.work("gpfq", N, K) == pytest.approx(N * K**2 / unit)
        assert chooser.work("gptaq", N, K) == pytest.approx(1 + 2 * K**3 / unit)


def test_the_same_data_give_the_same_choice(chain, compiled):
    program, data = chain
    first, second = (facts(compiled, program, "choose-method", data) for _ in range(2))
    assert first[0] == second[0]
    for name in SHAPES:
        np.testing.assert_array_equal(first[1].weights[name].levels, second[1].weights[name].levels)


def test_convolutions_in_integers_are_chosen_for_as_well(build, compiled, rng):
    body = "g (float[n, 8, 9, 9] x) => (float[n, 6, 7, 7] y) { y = Conv(x, w) }"
    program = build(body, {"w": rng.normal(size=(6, 8, 3, 3)).astype(np.float32)})
    data = {"x": rng.normal(size=(32, 8, 9, 9)).astype(np.float32)}
    text = "calibrate,choose-method{group=0,symmetric=true,scheme=static}"
    ((layer,), _) = facts(compiled, program, text, data)
    assert layer.left <= min(layer.tried.values())
    assert layer.left < layer.rounded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("gptg",)}, "there is no method 'gptg'"),
        ({"methods": ("hqq",), "symmetric": True}, "hqq moves zero points"),
        ({"budget": -1.0}, "budget is at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        ChooseMethod(**options)


def outputs(program, data):
    from qcomp.execute import Session

    return Session(program.model).run(data)["y"]


def distance(program, text, data, compiled, given):
    changed = program.copy()
    compiled(changed, f"{text},quantize-weights{{symmetric=false,accuracy_level=0}}", given)
    y = outputs(program, data)
    return float(((outputs(changed, data) - y) ** 2).sum() / (y**2).sum())


@pytest.mark.parametrize("rival", ["gptq-ordered", "gptaq", "lsq"])
def test_the_outputs_decide_between_the_choice_and_one_method_for_all(chain, compiled, rival):
    """Rows behind those that are rounded on judge; the better of the two is what comes out."""
    program, data = chain
    used = "rows=64,bits=3"
    held = {"x": data["x"][64:80]}
    alone = {"gptq-ordered": f"gptq{{order=activation,{used}}}", "gptaq": f"gptaq{{{used}}}"}
    alone["lsq"] = f"choose-method{{methods=[],fit=lsq,rivals=[],{used}}}"
    layers = f"choose-method{{rivals=[],{used}}}"
    single = distance(program, alone[rival], held, compiled, data)
    mixed = distance(program, layers, held, compiled, data)
    both = distance(program, f"choose-method{{rivals=[{rival}],{used}}}", held, compiled, data)
    assert both == pytest.approx(min(single, mixed), rel=1e-4)
    assert single != pytest.approx(mixed, rel=1e-3)


def test_a_method_for_all_that_wins_is_named(chain, compiled):
    program, data = chain
    _, chosen = facts(compiled, program, "choose-method{methods=[],rivals=[gptq-ordered]}", data)
    for weight in chosen.weights.values():
        assert weight.method == "gptq-ordered for all layers by choose-method"
