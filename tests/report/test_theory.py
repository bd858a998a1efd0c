"""The bounds that a weight's error is held against, and the words about error feedback."""

from dataclasses import replace

import numpy as np
import pytest

from qcomp.quantization import (
    FeedbackError,
    FeedbackErrors,
    QuantizationRecord,
    QuantizedLayer,
)
from qcomp.report.rounding import rounding_check, rounding_words
from qcomp.report.theory import against_theory, lloyd_max, rate_distortion, uniform


@pytest.mark.parametrize(
    ("bits", "best", "even"),
    [(1, 4.40, 4.40), (2, 9.30, 9.25), (3, 14.62, 14.27), (4, 20.22, 19.38), (5, 26.01, 24.57)],
)
def test_scalar_quantizers_are_those_of_max_s_tables(bits, best, even):
    assert lloyd_max(bits) == pytest.approx(best, abs=0.01)
    assert uniform(bits) == pytest.approx(even, abs=0.01)
    assert uniform(bits) <= lloyd_max(bits) + 1e-6 <= rate_distortion(bits)


def test_many_levels_lose_a_fixed_amount_to_the_bound():
    """Panter and Dite 1951: pi sqrt(3) / 2, 4.35 dB."""
    loss = 10 * np.log10(np.pi * np.sqrt(3) / 2)
    assert rate_distortion(8) - lloyd_max(8) == pytest.approx(loss, abs=0.1)


def test_measured_gaussian_weights_reach_what_theory_says():
    from qcomp.passes.quantize.grids import Grid
    from qcomp.quantization import sqnr

    weight = np.random.default_rng(0).normal(size=(64, 4096)).astype(np.float32)
    grids = Grid(4, 0, True, "lsq").fitted(weight)
    whole = sqnr(weight, grids.real(grids.round(weight)))
    assert whole == pytest.approx(uniform(4), abs=0.5)
    assert whole <= lloyd_max(4)
    blocks = Grid(4, 32, False, "lsq").fitted(weight)
    found = against_theory("u4/32", sqnr(weight, blocks.real(blocks.round(weight))))
    assert found["bits"] == pytest.approx(4 + 20 / 32)
    assert found["over_lloyd_max"] > 0  # a scale a block is worth more than better levels
    assert found["below_bound"] > 3


@pytest.mark.parametrize("kind", ["f32", "", "s8/row", "t4", "e4m3"])
def test_types_without_levels_of_few_bits_have_no_theory(kind):
    assert against_theory(kind, 20.0) == {}


def layer(left, rounded, **more):
    return FeedbackError("l", rounded, left, 100.0, 3, 8, **more)


STORED = QuantizationRecord(
    (QuantizedLayer("l", "MatMul", "weights", "w", "q", "u4/32", "MatMulNBits", "y", "y"),)
)


def test_layers_that_would_be_worse_than_rounding_are_counted():
    fine = FeedbackErrors("gptq", (layer(1.0, 2.0), layer(2.0, 2.0)))
    (check,) = rounding_check(fine, STORED)
    assert check.result == "proved"
    assert "0 of 2 layers above; 6 of 16 output channels keep rounding" in check.how
    (check,) = rounding_check(FeedbackErrors("gptq", (layer(3.0, 2.0),)), STORED)
    assert check.result == "failed"
    assert rounding_check(None, STORED) == []


def test_layers_whose_integers_no_pass_stored_are_not_counted():
    assert rounding_check(FeedbackErrors("gptq", (layer(1.0, 2.0),)), QuantizationRecord()) == []


def test_a_later_pass_takes_the_place_of_an_earlier_one_layer_by_layer():
    first = FeedbackErrors("gptq", (layer(1.0, 2.0), replace(layer(1.0, 2.0), node="k")))
    second = FeedbackErrors("gptaq", (layer(0.5, 2.0),))
    both = second.joined(first)
    assert both.method == "gptq, gptaq"
    assert {error.node: error.left for error in both.layers} == {"k": 1.0, "l": 0.5}
    again = FeedbackErrors("jlcm", (layer(0.1, 2.0), replace(layer(0.1, 2.0), node="k")))
    assert again.joined(both) == again


def test_what_was_tried_is_said_in_the_order_of_its_error():
    one = layer(0.1, 1.0, tried={"rounding": 1.0, "gptq": 0.1}, left_out=("gptaq",))
    (words,) = rounding_words(FeedbackErrors("choose-method", (one,))).values()
    assert words == (
        "the least output error of 2 methods: gptq 30.0 dB (rounding 20.0 dB); "
        "the budget had no work for gptaq"
    )
    (words,) = rounding_words(FeedbackErrors("gptq", (layer(0.5, 2.0),))).values()
    assert words.startswith("error feedback leaves 0.25 of the output error of rounding")
