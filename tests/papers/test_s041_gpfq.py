"""S041: Zhang, Zhou and Saab 2022, "Post-training Quantization for Neural Networks with Provable
Guarantees", arXiv:2201.11113 (GPFQ).
"""

from __future__ import annotations

import numpy as np

from qcomp.passes.quantize.error_feedback.descent import output_errors
from qcomp.passes.quantize.error_feedback.greedy_path import follow_path
from qcomp.passes.quantize.error_feedback.moments import Moments
from qcomp.passes.quantize.grids import Grid
from qcomp.quantization import FeedbackErrors
from tests.papers.digits_mlp import SEEDS, digits, mlp
from tests.papers.low_bit import compiled, digits_accuracy


def test_two_bit_digits_keep_97_percent(tmp_path):
    store = "quantize-weights{bits=2,group=256,symmetric=false,accuracy_level=0}"
    choose = "gpfq{bits=2,group=256,fit=minmax,rows=2048}"
    assert digits_accuracy(f"{choose},{store}", tmp_path) >= 97.0


def test_the_first_layer_errs_by_a_third_of_what_rounding_does(tmp_path):
    ratios = []
    for seed in SEEDS:
        choose = "gpfq{bits=2,group=256,fit=minmax,rows=2048}"
        _, context = compiled(mlp(seed), choose, {"x": digits()[0]}, tmp_path)
        first = context.need(FeedbackErrors, "gpfq").layers[0]
        ratios.append(first.left / first.rounded)
    assert np.mean(ratios) <= 0.35


def test_the_relative_error_of_gaussian_layers_falls_linearly_in_their_width():
    rng = np.random.default_rng(0)
    widths = np.array([64, 128, 256, 512])
    errors = []
    for width in widths:
        x = rng.standard_normal((32, width)).astype(np.float32)
        weight = rng.uniform(-1, 1, (48, width)).astype(np.float32)
        moments = Moments(width)
        moments.add(x)
        grids = Grid(2, 0, False, "minmax").fitted(weight)
        levels = follow_path(weight, moments.hessian, grids)
        error = output_errors(weight, grids.real(levels), moments.hessian).sum()
        errors.append(error / np.einsum("nk,nk->", weight @ moments.hessian, weight))
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert -1.3 <= slope <= -0.7
