"""S127: Yvinec, Dapogny and Bailly 2023, "NUPES: Non-Uniform Post-Training Quantization via Power
Exponent Search", arXiv:2308.05600.

PAPERS.md's own character model has 4.869 in float, 5.376 rounded to three bits, and asks for 5.176:
.605 of what rounding costs. Ours loses less by rounding (4.889 to 4.982), so the share is what is
held, over three draws of calibration data. All from the emitted file in ONNX Runtime.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.execute import optimized
from qcomp.passes.quantize.nupes import power_table, warp
from qcomp.quantization import ChosenWeights, FeedbackErrors, FusionReport
from tests.models import from_text
from tests.papers.low_bit import (
    char_graph,
    char_windows,
    character_divergence,
    character_perplexity,
    compiled,
    digits_accuracy,
)

STORE = "quantize-weights{bits=3,group=256,accuracy_level=0}"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("nupes")


def test_a_power_is_an_automorphism_of_multiplication():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 10_000))
    for a in (0.25, 0.5, 0.83, 1.0, 1.7):
        product = warp(x, a) * warp(y, a)
        assert np.abs(warp(x * y, a) - product).max() <= 1e-12 * max(1.0, np.abs(product).max())
        assert np.abs(warp(warp(x, a), 1 / a) - x).max() <= 1e-12 * np.abs(x).max()


def test_products_of_levels_are_the_level_of_the_product_of_integers():
    i = np.arange(-4, 4)
    for a in (0.5, 0.8, 1.3):
        levels = power_table(3, a)[0].astype(np.float64)
        products = warp(np.multiply.outer(i, i) / 16, 1 / a)
        assert np.abs(np.multiply.outer(levels, levels) - products).max() <= 1e-6


def test_three_bits_cost_less_than_the_paper_row_allows(scratch):
    floating, rounded = (character_perplexity(text, scratch) for text in ("", STORE))
    found = [character_perplexity(f"nupes,{STORE}", scratch, seed=seed) for seed in range(3)]
    shares = (np.array(found) - floating) / (rounded - floating)
    assert shares.mean() <= 0.3  # measured .10, .22 and .14
    assert shares.max() <= 0.605  # asked


def test_learned_exponents_are_nearer_to_float_than_equal_steps(scratch):
    """In divergence: perplexities of three bits lie within their own scatter."""
    learned, even, gptq = (
        character_divergence(f"{text},{STORE}", scratch)
        for text in ("nupes", "nupes{exponent=1}", "gptq{bits=3,group=256,symmetric=true}")
    )
    print(f"\nKL: NUPES {learned:.5f}, a = 1 {even:.5f}, GPTQ {gptq:.5f}")
    assert learned < even
    assert learned <= 0.85 * gptq


def test_a_weight_for_which_equal_steps_are_best_ships_them(tmp_path):
    rng = np.random.default_rng(0)
    even = rng.integers(-8, 8, (64, 64)) / 8
    even[0] = -1.0  # so that every column has its lowest level
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        layers (float[n, 64] x) => (float[n, 48] y) {
            h = MatMul (x, even)
            y = MatMul (h, bell)
        }""",
        even=even.astype(np.float32),
        bell=rng.laplace(size=(64, 48)).astype(np.float32),
    )
    x = rng.standard_normal((512, 64)).astype(np.float32)
    _, context = compiled(model, f"nupes{{bits=4,rows=512}},{STORE}", {"x": x}, tmp_path)
    weights = context.need(ChosenWeights, "nupes").weights
    assert {name: w.table is None for name, w in weights.items()} == {"even": True, "bell": False}
    file = onnx.load(tmp_path / "model.onnx")
    readers = [n.op_type for n in file.graph.node if "MatMul" in n.op_type]
    assert readers == ["MatMulNBits", "MatMul"]


def test_digits_are_not_made_worse_by_the_search(scratch):
    """PAPERS.md: without learning, .5 costs the digits a point (96.43 beside 97.31)."""
    learned = digits_accuracy(f"nupes,{STORE}", scratch, 2)
    half = digits_accuracy(f"nupes{{exponent=0.5}},{STORE}", scratch, 2)
    print(f"\ndigits: {learned:.2f}, a = .5 {half:.2f}")
    assert learned >= 97.31
    assert learned >= half - 0.1


def test_the_file_has_three_bits_a_weight_and_the_table_folds_when_it_is_loaded(scratch):
    _, context = compiled(
        char_graph(), f"nupes{{exponent=0.8}},{STORE}", {"ids": char_windows()}, scratch
    )
    weights = context.need(ChosenWeights, "nupes").weights
    sizes = {t.name: len(t.raw_data) for t in onnx.load(scratch / "model.onnx").graph.initializer}
    for name, weight in weights.items():
        planes = sizes[f"{name}_quantized"] + sizes[f"{name}_quantized_high"]
        assert planes == weight.levels.size * 3 // 8
        assert sizes[f"{name}_table"] == 4 * 8
        assert name not in sizes
    assert not context.need(FusionReport, "the backend").unfused
    runs = optimized(ir.load(scratch / "model.onnx"))
    left = {node.op_type for node in runs.graph}
    assert not left & {"BitShift", "BitwiseAnd", "BitwiseOr"}
    assert {f"{name}_looked_up" for name in weights} <= set(runs.graph.initializers)
    errors = context.need(FeedbackErrors, "nupes").layers
    assert all(layer.left < 0.25 * layer.rounded for layer in errors)
