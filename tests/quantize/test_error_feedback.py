"""The arithmetic of error feedback, held against plain definitions."""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.passes.quantize.error_feedback import factor as factor_module
from qcomp.passes.quantize.error_feedback.columns import _carry, _round_columns, feed_back
from qcomp.passes.quantize.error_feedback.descent import descend, output_errors
from qcomp.passes.quantize.error_feedback.factor import inverse_factor
from qcomp.passes.quantize.error_feedback.greedy_path import follow_path
from qcomp.passes.quantize.error_feedback.moments import Moments
from qcomp.passes.quantize.error_feedback.rows import Matrix, Rounder, Shared
from qcomp.passes.quantize.gptq import Gptq
from qcomp.passes.quantize.grids import FITS, Grid

RNG = np.random.default_rng(7)


def correlated(columns: int, tokens: int = 400) -> np.ndarray:
    mix = RNG.standard_normal((columns, columns)) * np.exp(-np.arange(columns) / 6)[:, None]
    return (RNG.standard_normal((tokens, columns)) @ mix + 0.2).astype(np.float32)


def moments_of(x: np.ndarray, floats: np.ndarray | None = None) -> Moments:
    found = Moments(x.shape[1], floats is not None)
    found.add(x, floats)
    return found


def test_moments_do_not_depend_on_how_the_tokens_are_batched():
    x, floats = correlated(12), correlated(12)
    weights = RNG.uniform(0.1, 1.0, len(x)).astype(np.float32)
    whole, parts = Moments(12, True), Moments(12, True)
    whole.add(x, floats, weights)
    for start, end in itertools.pairwise((0, 1, 90, 91, 400)):
        parts.add(x[start:end], floats[start:end], weights[start:end])
    assert parts.tokens == 400
    np.testing.assert_allclose(parts.hessian, whole.hessian, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(parts.drift, whole.drift, rtol=1e-3, atol=1e-4)
    r = weights.astype(np.float64)[:, None] ** 2
    wanted = 2 / 400 * x.astype(np.float64).T @ (r * x)
    np.testing.assert_allclose(whole.hessian, wanted, rtol=1e-3, atol=1e-4)


def test_the_factor_is_that_of_the_damped_inverse():
    hessian = moments_of(correlated(20)).hessian
    found = inverse_factor(hessian, 0.01)
    assert found is not None
    assert np.array_equal(found.upper, np.triu(found.upper))
    damped = hessian.astype(np.float64)
    damped += 0.01 * np.diag(damped).mean() * np.eye(20)
    upper = found.upper.astype(np.float64)
    np.testing.assert_allclose(upper.T @ upper @ damped, np.eye(20), atol=2e-6)


@pytest.mark.parametrize("kind", ["well conditioned", "badly conditioned", "dead"])
def test_a_large_factor_is_found_in_float32_where_that_is_enough(monkeypatch, kind):
    tried = []

    def factored(hessian, diagonal, dead, dtype):
        tried.append(dtype)
        return real(hessian, diagonal, dead, dtype)

    real = factor_module._factored
    monkeypatch.setattr(factor_module, "_factored", factored)
    monkeypatch.setattr(factor_module, "_SINGLE", 200)
    x = correlated(200)
    if kind == "badly conditioned":
        x = 1.0 + 1e-4 * x
    if kind == "dead":
        x[:, 7] = 0.0
    hessian = moments_of(x).hessian
    found = inverse_factor(hessian, 1e-5 if kind == "badly conditioned" else 0.01)
    assert found is not None
    assert tried == [np.float32, *[np.float64] * (kind == "badly conditioned")]
    monkeypatch.setattr(factor_module, "_SINGLE", 201)
    exact = inverse_factor(hessian, found.damping)
    assert exact is not None
    off = np.abs(found.upper - exact.upper).max() / np.abs(exact.upper).max()
    assert off < 1e-3
    assert off == 0 if kind == "badly conditioned" else off > 0


def test_a_singular_hessian_takes_more_damping_and_dead_inputs_cost_nothing():
    x = correlated(10)
    x[:, 3] = 0.0
    x[:, 5] = x[:, 4]
    hessian = moments_of(x).hessian
    found = inverse_factor(hessian, 0.01)
    assert found is not None
    assert found.dead.tolist() == [i == 3 for i in range(10)]
    indefinite = hessian.astype(np.float64)
    indefinite[4, 5] = indefinite[5, 4] = 1.05 * indefinite[4, 4]
    found = inverse_factor(indefinite, 1e-6)
    assert found is not None
    assert found.damping > 1e-6
    assert inverse_factor(np.full((2, 2), np.nan), 0.01) is None


@pytest.mark.parametrize("order", ["natural", "reverse"])
@pytest.mark.parametrize("block", [4, 16, 128])
def test_feedback_is_the_removal_of_one_column_after_the_other(order, block):
    """The update by U and by blocks against one that inverts the Hessian anew for each column."""
    K = 16
    moments = moments_of(correlated(K))
    weight = RNG.standard_normal((5, K)).astype(np.float32)
    grids = Grid(3, 8, False, "minmax").fitted(weight)
    turn = np.arange(K) if order == "natural" else np.arange(K)[::-1].copy()
    hessian = moments.hessian[np.ix_(turn, turn)]
    factor = inverse_factor(hessian, 0.01)
    assert factor is not None
    levels, _ = feed_back(
        weight, factor, grids, order=None if order == "natural" else turn, block=block
    )
    damped = hessian.astype(np.float64)
    damped += 0.01 * np.diag(damped).mean() * np.eye(K)
    scale, zero = grids.columns(K)
    for row in range(len(weight)):
        w = weight[row, turn].astype(np.float64)
        for i in range(K):
            j = turn[i]
            q = np.clip(np.rint(w[i] / scale[row, j]) + zero[row, j], 0, 7)
            assert levels[row, j] == q
            inverse = np.linalg.inv(damped[i:, i:])
            error = w[i] - (q - zero[row, j]) * scale[row, j]
            w[i:] -= error / inverse[0, 0] * inverse[0]


def test_groups_fitted_on_their_turn_take_up_the_errors_before_them():
    K = 64
    moments = moments_of(correlated(K))
    weight = RNG.standard_normal((40, K)).astype(np.float32)
    importance = np.diag(moments.hessian).copy()
    factor = inverse_factor(moments.hessian, 0.01)
    assert factor is not None
    start = Grid(2, 16, False, "minmax").fitted(weight, importance)
    errors = {}
    for static in (True, False):
        levels, grids = feed_back(weight, factor, start, importance=importance, static=static)
        errors[static] = output_errors(weight, grids.real(levels), moments.hessian).sum()
        assert np.array_equal(grids.scale[:, 0], start.scale[:, 0])
        assert np.array_equal(grids.scale, start.scale) == static
    plain = output_errors(weight, start.real(start.round(weight)), moments.hessian).sum()
    assert errors[False] < errors[True] < plain


@pytest.mark.parametrize("K", [2, 4, 6])
def test_asymmetric_steps_are_least_squares_solutions(K):
    """S117: after each column the rest is what brute-force least squares finds, to 1e-6.

    Column i of weight w becomes q; the later ones move by d, the d that makes d X equal to
    w (x~_i - x_i) best, with d_i = q - w.
    """
    x = correlated(K, 60).astype(np.float64)
    floats = x + 0.1 * RNG.standard_normal(x.shape)
    hessian, drift = x.T @ x, (floats - x).T @ x
    lower = np.linalg.cholesky(np.linalg.inv(hessian))
    upper = lower.T
    carry = np.triu(drift @ upper.T, 1) @ upper
    weight = RNG.standard_normal((K, 1)).astype(np.float32)
    scale, zero = np.full((1, 1), 0.5), np.full((1, 1), 4.0)
    w = weight[:, 0].astype(np.float64)
    kept, levels = weight.astype(np.float64), np.empty((K, 1), np.uint8)
    group = np.zeros(K, np.intp)
    errors = np.empty((K, 1))
    _round_columns.python(kept, 0, upper, carry, scale, zero, group, 7.0, levels, errors)
    for i in range(K):
        assert kept[i, 0] == pytest.approx(w[i], abs=1e-5)
        real = (float(levels[i, 0]) - 4.0) * 0.5
        residual = w[i] * (floats[:, i] - x[:, i])
        moved = real - w[i]
        rest, *_ = np.linalg.lstsq(x[:, i + 1 :], residual - moved * x[:, i], rcond=None)
        w[i + 1 :] += rest


def test_the_carry_of_asymmetric_calibration_is_what_its_equation_says():
    K = 20
    upper = np.triu(RNG.standard_normal((K, K))).astype(np.float32)
    drift = RNG.standard_normal((K, K)).astype(np.float32)
    wanted = np.triu(drift @ upper.T, 1) @ upper
    np.testing.assert_allclose(_carry(drift, upper), wanted, atol=1e-3)


def test_the_compiled_kernel_does_what_its_python_form_does():
    K = 24
    factor = inverse_factor(moments_of(correlated(K)).hessian, 0.01)
    assert factor is not None
    results = []
    for form in (_round_columns.python, _round_columns.compiled()):
        w = np.random.default_rng(1).standard_normal((K, 6)).astype(np.float32)
        levels, errors = np.empty(w.shape, np.uint8), np.empty_like(w)
        scale, zero = np.full((3, 6), 0.3, np.float32), np.full((3, 6), 8, np.float32)
        empty, group, top = np.empty((0, 0), np.float32), np.arange(K) // 8, np.float32(15)
        form(w, 0, factor.upper, empty, scale, zero, group, top, levels, errors)
        results.append((w, levels, errors))
    np.testing.assert_array_equal(results[0][1], results[1][1])
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-5)


def test_descent_ends_where_no_single_level_helps_and_hurts_no_row():
    K = 12
    x = correlated(K)
    moments = moments_of(x, x + 0.05 * RNG.standard_normal(x.shape).astype(np.float32))
    weight = RNG.standard_normal((8, K)).astype(np.float32)
    grids = Grid(2, 4, False, "minmax").fitted(weight)
    start = grids.round(weight)

    def errors(levels):
        return output_errors(weight, grids.real(levels), moments.hessian, moments.drift)

    found = descend(weight, start, grids, moments.hessian, moments.drift, sweeps=100).levels
    assert (errors(found) <= errors(start) + 1e-5).all()
    assert errors(found).sum() < 0.9 * errors(start).sum()
    least = errors(found)
    for column, level in itertools.product(range(K), range(4)):
        tried = found.copy()
        tried[:, column] = level
        assert (errors(tried) >= least - 1e-4).all()


@pytest.mark.parametrize("threshold", ["none", "hard", "soft"])
def test_the_path_by_moments_is_the_path_by_vectors(threshold):
    K = 10
    x = correlated(K, 50)
    floats = x + 0.1 * RNG.standard_normal(x.shape).astype(np.float32)
    moments = moments_of(x, floats)
    weight = RNG.standard_normal((4, K)).astype(np.float32)
    grids = Grid(3, 0, False, "minmax").fitted(weight)
    found = follow_path(weight, moments.hessian, grids, moments.drift, threshold, 0.2)
    scale, zero = grids.columns(K)
    for row in range(len(weight)):
        u = np.zeros(len(x))
        for t in range(K):
            z = x[:, t] @ (u + weight[row, t] * floats[:, t]) / (x[:, t] @ x[:, t])
            if threshold == "hard" and abs(z) <= 0.2:
                z = 0.0
            if threshold == "soft":
                z = np.sign(z) * max(abs(z) - 0.2, 0.0)
            steps = np.clip(np.rint(z / scale[row, t]) + zero[row, t], 0, 7) - zero[row, t]
            assert found[row, t] == steps + zero[row, t]
            u += weight[row, t] * floats[:, t] - steps * scale[row, t] * x[:, t]


def test_thresholds_make_weights_sparse():
    weight = RNG.standard_normal((30, 20)).astype(np.float32)
    hessian = moments_of(correlated(20)).hessian
    grids = Grid(4, 0, True, "minmax").fitted(weight)
    zeros = {
        kind: np.count_nonzero(follow_path(weight, hessian, grids, None, kind, 0.5) == 8)
        for kind in ("none", "hard", "soft")
    }
    assert zeros["none"] < zeros["hard"]
    assert zeros["none"] < zeros["soft"]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [0, 5, 16])
def test_a_fitted_grid_is_no_worse_than_one_over_the_whole_range(fit, bits, group):
    weight = RNG.standard_t(3, (20, 37)).astype(np.float32)
    importance = RNG.uniform(0.1, 2.0, 37).astype(np.float32)
    grids = Grid(bits, group, False, fit).fitted(weight, importance)
    assert grids.scale.shape == (20, -(-37 // (group or 37)))
    assert np.isin(grids.zero, np.arange(2**bits)).all()
    levels = grids.round(weight)
    assert levels.max() < 2**bits
    if fit == "hqq":
        return  # it lowers another norm
    plain = Grid(bits, group, False, "minmax").fitted(weight, importance)

    def error(found):
        return (importance * (found.real(found.round(weight)) - weight) ** 2).sum()

    best = error(Grid(bits, group, True, "minmax").fitted(weight, importance))
    assert error(grids) <= max(best, error(plain)) * 1.0001


def test_the_robust_fit_lowers_the_norm_that_it_is_fitted_to():
    weight = RNG.standard_t(3, (50, 64)).astype(np.float32)
    found = {fit: Grid(3, 32, False, fit).fitted(weight) for fit in ("minmax", "mse", "hqq")}
    norm = {
        fit: (np.abs(grids.real(grids.round(weight)) - weight) ** 0.7).sum()
        for fit, grids in found.items()
    }
    assert norm["hqq"] < 0.97 * min(norm["minmax"], norm["mse"])


def test_positive_scales_are_positive():
    weight = RNG.standard_normal((50, 8)).astype(np.float32)
    assert (Grid(4, 0, True, "mse").fitted(weight).scale < 0).any()
    assert (Grid(4, 0, True, "mse", positive=True).fitted(weight).scale > 0).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 1}, "2 to 8 bits"),
        ({"bits": 9}, "2 to 8 bits"),
        ({"group": -1}, "at least one weight"),
        ({"fit": "best"}, "there is no fit 'best'"),
        ({"fit": "hqq", "symmetric": True}, "moves the zero point"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(options, words):
    with pytest.raises(UsageError, match=words):
        Grid(**options)


def test_the_weight_of_one_matrix_is_not_held_while_the_next_is_read():
    moments = moments_of(correlated(16))
    held, most = [], []

    def matrices():
        for seed in range(4):
            weight = np.random.default_rng(seed).standard_normal((8, 16)).astype(np.float32)
            held.append(weakref.ref(weight))
            most.append(sum(reference() is not None for reference in held))
            yield Matrix(Gptq(), Grid(4, 8), weight, Shared(moments.hessian, None), "layer")
            del weight

    assert len(list(Rounder().round(matrices()))) == 4
    assert most == [1, 1, 1, 1]
