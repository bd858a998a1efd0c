"""Blocks partitioned by entropy, and graphs of two towers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.errors import UsageError
from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.passes.quantize.entropy_blocks import entropy, entropy_blocks, only_from
from qcomp.passes.quantize.learn_rounding_graph import blocks_of, make_twin
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import ChosenWeights, LearnedRounding
from tests.models import from_text

pytest.importorskip("torch")


def two_towers():
    rng = np.random.default_rng(0)
    weights = {n: (rng.standard_normal((16, 16)) / 4).astype(np.float32) for n in "abcdefg"}
    return from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        towers (float[n, 16] image, float[n, 16] question) => (float[n, 16] answer) {
            i1 = MatMul (image, a)
            i2 = Relu (i1)
            i3 = MatMul (i2, b)
            i4 = Add (i3, i2)
            q1 = MatMul (question, c)
            q2 = Relu (q1)
            q3 = MatMul (q2, d)
            both = Mul (i4, q3)
            t1 = MatMul (both, e)
            t2 = Relu (t1)
            t3 = MatMul (t2, f)
            t4 = Add (t3, both)
            answer = MatMul (t4, g)
        }""",
        **weights,
    )


@pytest.fixture
def program() -> Program:
    found = Program(ir.from_proto(two_towers()))
    Pipeline.parse("canonicalise,fold-constants").run(found, Context())
    return found


@pytest.fixture
def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    mix = rng.standard_normal((16, 16)) * np.exp(-np.arange(16) / 4)[:, None]
    names = ("image", "question")
    return {n: (rng.standard_normal((256, 16)) @ mix).astype(np.float32) for n in names}


def units(program, span=1):
    twin = make_twin(program, Context(), "weights", 4)
    return blocks_of(program.model.graph, twin.layers, span)


def weights(blocks):
    return ["".join(layer.weight for layer in block.layers) for block in blocks]


def test_entropy_is_the_logarithm_of_the_width_over_which_values_spread():
    rng = np.random.default_rng(0)
    for width in (0.5, 1.0, 8.0):
        values = rng.uniform(0, width, 200_000).astype(np.float32)
        assert abs(entropy(values) - np.log2(width)) < 0.02
    assert entropy(np.ones(9, np.float32)) == float("-inf")


def test_each_tower_is_cut_by_itself(program):
    assert weights(units(program)) == ["a", "b", "c", "d", "ef", "g"]


def test_joined_blocks_hold_all_that_reads_their_inner_results(program):
    # b's result is read by the product behind the other tower: no block ends between the two.
    assert weights(units(program, span=2)) == ["ab", "cd", "efg"]
    assert weights(units(program, span=6)) == ["abcdefg"]


@pytest.mark.parametrize(
    ("entropies", "span", "expected"),
    [
        ((5, 0, 5, 0, 5, 0), 2, ["ab", "cd", "efg"]),
        ((0, 5, 0, 5, 0, 0), 2, ["ab", "c", "def", "g"]),
        ((0, 0, 0, 0, 0, 0), 1, ["a", "b", "c", "d", "ef", "g"]),
        ((float("-inf"), 1, 1, 1, 1, 1), 2, ["ab", "cd", "efg"]),
    ],
)
def test_cuts_are_where_entropies_are_least(program, entropies, span, expected):
    assert weights(entropy_blocks(units(program), entropies, span)) == expected


def test_a_tower_is_what_depends_on_one_input_alone(program):
    graph = program.model.graph
    names = {value.name for value in only_from(graph, "image")}
    assert names == {"image", "i1", "i2", "i3", "i4"}
    assert only_from(graph, "") == set()


@pytest.mark.parametrize("more", ["", ",tower=image", ",granularity=layer"])
def test_four_bits_learned_behind_rounded_tokens_come_nearer_to_float(program, inputs, more):
    real = HybridSession(program).run(inputs)["answer"]
    learn = f"learn-rounding{{bits=4,scheme=tokens,activations=4,steps=60,span=2{more}}},"
    if "granularity" not in more:
        learn = learn.replace("span=2", "span=2,granularity=entropy")
    errors = []
    for text in ("", learn):
        copy = Program(program.model.clone())
        context = Context(calibration=lambda: iter([inputs]))
        Pipeline.parse(f"{text}quantize-tokens{{bits=4,weights=4}}").run(copy, context)
        errors.append(np.square(HybridSession(copy).run(inputs)["answer"] - real).mean())
    assert errors[1] < 0.8 * errors[0]
    assert len(context.need(ChosenWeights, "learn-rounding").weights) == 7
    assert not context.need(LearnedRounding, "learn-rounding").refused


def test_a_tower_that_no_input_has_and_odd_bits_are_one_error(program, inputs):
    with pytest.raises(UsageError, match="no input 'pictures'"):
        Pipeline.parse("learn-rounding{tower=pictures}").run(
            program, Context(calibration=lambda: iter([inputs]))
        )
    with pytest.raises(UsageError, match="activations"):
        Pipeline.parse("learn-rounding{activations=5}")
