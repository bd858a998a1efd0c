"""learn-rotations: matrices stay orthogonal, the function stays, rounding costs less."""

from __future__ import annotations

import sys

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.passes.graph.learn_rotations import LearnedRotations, LearnRotations, _Start
from qcomp.passes.graph.rotation_torch import RotationLearner
from qcomp.passmanager import Context, Pipeline
from tests.papers.low_bit import char_model
from tests.passes.rotate_helpers import arrays_of
from tests.passes.test_rotate import PRE_NORM, WIDTH, program

RNG = np.random.default_rng(11)
SMALL = "rows=32,batch=8"
IDS = {"ids": RNG.integers(0, 10, 64), "positions": RNG.integers(0, 16, 64)}


def learned(model: Program, options: str, data=IDS) -> Context:
    pytest.importorskip("torch")
    context = Context(calibration=lambda: iter([data]))
    text = f"canonicalise,fold-constants,learn-rotations{{{options}}}"
    Pipeline.parse(text).run(model, context)
    return context


@pytest.fixture
def matrices(monkeypatch):
    """What was learned."""
    found = []
    kept = RotationLearner.matrices
    monkeypatch.setattr(
        RotationLearner, "matrices", lambda self: found.append(kept(self)) or found[-1]
    )
    return found


@pytest.fixture
def decoder():
    weights, alphabet = char_model.load()
    train, _ = char_model.split(char_model.tokens(alphabet))
    model = Program(ir.from_proto(char_model.graph(char_model.with_outliers(weights))))
    return model, {"ids": char_model.calibration(train, 32)}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ("steps=100,rate=0.01", 1 + 2 + 2 * 2 + 2),
        ("steps=50,factors=false", 1 + 2),
        ("steps=4,rate=0.005,method=loss,weights=8", 1 + 2 + 2 * 2 + 2),
    ],
)
def test_a_decoder_turns_by_orthogonal_matrices_and_rounding_costs_less(
    decoder, matrices, options, count
):
    model, data = decoder
    before = HybridSession(model).run({"ids": data["ids"][:4]})["logits"]
    context = learned(model, f"{SMALL},{options}", data)
    after = HybridSession(model).run({"ids": data["ids"][:4]})["logits"]
    assert np.abs(after - before).max() <= 1e-4
    found = context.need(LearnedRotations, "learn-rotations")
    assert found.after < found.before
    assert not context.warnings
    assert len(matrices[0]) == count
    for R in matrices[0].values():
        assert np.abs(R.T @ R - np.eye(len(R))).max() <= 1e-12
        assert np.abs(R - np.eye(len(R))).max() > 0.01
    names = arrays_of(model)
    assert {"embedding_rotated", "head_rotated"} <= set(names)
    kept = dict(arrays_of(model))
    Pipeline.parse(f"learn-rotations{{{options}}}").run(model, context)  # turns nothing again
    assert all(np.array_equal(kept[name], array) for name, array in arrays_of(model).items())


def test_the_same_seed_gives_the_same_bytes(decoder):
    found = []
    for _ in range(2):
        model = Program(decoder[0].model.clone(), {}, "")
        learned(model, f"{SMALL},steps=10", decoder[1])
        found.append(ir.to_proto(model.model).SerializeToString(deterministic=True))
    assert found[0] == found[1]


@pytest.mark.parametrize("norm", ["LayerNormalization", "RMSNormalization"])
def test_a_stream_that_is_centred_turns_with_its_mean(norm, matrices):
    model = program(PRE_NORM, norm)
    before = HybridSession(model).run(IDS)["y"]
    context = learned(model, f"{SMALL},steps=30,kv=0")
    assert np.abs(HybridSession(model).run(IDS)["y"] - before).max() <= 1e-4
    stream = next(R for R in matrices[0].values() if len(R) == WIDTH)
    kept = np.abs(stream.sum(axis=0) - 1).max() <= 1e-9
    assert kept == (norm == "LayerNormalization")
    assert context.need(LearnedRotations, "learn-rotations").after > 0


def test_matrices_that_lose_on_samples_held_back_are_not_taken():
    turned, plain = program(PRE_NORM), program(PRE_NORM)
    context = learned(turned, f"{SMALL},steps=1,rate=3.0,kv=0,method=loss")
    found = context.need(LearnedRotations, "learn-rotations")
    assert found.after >= found.before
    assert any("on samples held back" in warning for warning in context.warnings)
    Pipeline.parse("canonicalise,fold-constants,rotate{online=true}").run(plain, Context())
    now, wanted = arrays_of(turned), arrays_of(plain)
    assert all(np.allclose(now[name], array, atol=1e-5) for name, array in wanted.items())


def test_sizes_without_hadamard_matrices_begin_at_random_where_they_are_folded():
    context = Context()
    folded, online = _Start(context, "rotate.stream"), _Start(context, None)
    assert online.draw("the queries of 's'", 22, False) is None
    assert online.learned({})("the queries of 's'", 22, False) is None
    wanted = "learn-rotations: the queries of 's' stays: no Hadamard matrix of size 22 can be made"
    assert context.warnings[0].startswith(wanted)
    for keeps_ones in (False, True):
        rotation = folded.draw("the residual stream", 22, keeps_ones)
        R, _ = folded.found[rotation]
        assert np.abs(R @ R.T - np.eye(22)).max() <= 1e-12
        assert (np.abs(R.sum(axis=0) - 1).max() <= 1e-12) == keeps_ones
        assert np.array_equal(folded.learned(folded.found)("", 22, False).entries, R) != keeps_ones


def test_an_operator_without_gradient_is_named():
    model = program(PRE_NORM.replace("s = Tanh (c)", "s = Celu (c)"))
    with pytest.raises(PassError) as error:
        learned(model, SMALL)
    assert "Celu has no gradient here" in str(error.value)
    assert "'rotate' turns the network by Hadamard matrices without learning" in str(error.value)


def test_without_torch_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    context = Context(calibration=lambda: iter([IDS]))
    with pytest.raises(UsageError, match="learn-rotations needs PyTorch, which is not installed"):
        Pipeline.parse("learn-rotations").run(program(PRE_NORM), context)


def test_without_data_it_asks_for_them():
    pytest.importorskip("torch")
    with pytest.raises(PassError, match="learn-rotations has no calibration data"):
        Pipeline.parse("learn-rotations").run(program(PRE_NORM), Context())


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"bits": 1}, "bits is 1"),
        ({"bits": 0, "kv": 0}, "nothing is rounded"),
        ({"bits": 0}, "the scales of activations that stay in float cost nothing"),
        ({"weights": 4}, "scales are those of activations, weights=4 has none"),
        ({"rate": 0.0}, "an option is too small"),
        ({"steps": -1}, "an option is too small"),
        ({"loss": "luck"}, "loss is 'luck'"),
        ({"method": "luck"}, "method is 'luck'"),
    ],
)
def test_options_outside_their_range_are_refused(options, what):
    with pytest.raises(UsageError, match=what):
        LearnRotations(**options)
