"""Extrapolation to zero noise: each model is exact on its own curves."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.mitigation import extrapolate, fold_scale, zero_noise
from qcomp.mitigation.extrapolation import METHODS, held_out_residuals

SCALES = np.array([1.0, 2.0, 3.0, 5.0])


def test_linear_richardson_and_polynomial_are_exact_on_polynomials() -> None:
    rng = np.random.default_rng(0)
    for degree, names in ((1, ("linear", "polynomial", "richardson")), (2, ("polynomial",))):
        coefs = rng.normal(size=(7, 2, degree + 1))
        values = np.einsum("abi,ik->abk", coefs, np.vander(SCALES, degree + 1, increasing=True).T)
        for name in (*names, "richardson"):
            found = extrapolate(SCALES, values, name)
            assert found.values.shape == (7, 2)
            assert np.abs(found.values - coefs[..., 0]).max() < 1e-10


def test_exponential_is_exact_on_decays_with_a_fitted_and_a_known_asymptote() -> None:
    rng = np.random.default_rng(1)
    a, b, c = rng.normal(size=(3, 40))
    values = a[:, None] + b[:, None] * np.exp(-(0.05 + np.abs(c))[:, None] * 0.5 * SCALES)
    assert np.abs(extrapolate(SCALES, values, "exponential").values - a - b).max() < 1e-5
    known = extrapolate(SCALES[:2], values[:, :2], "exponential", asymptote=a)
    assert np.abs(known.values - a - b).max() < 1e-6


def test_curves_that_change_sign_or_do_not_decay_have_an_exponential_too() -> None:
    flat = extrapolate(SCALES, np.full((1, 4), 0.3), "exponential")
    assert flat.values == pytest.approx(0.3)
    crossing = 0.5 - 0.2 * SCALES
    assert extrapolate(SCALES, crossing, "exponential").values == pytest.approx(0.5, abs=1e-2)


def test_richardson_matches_the_published_formula() -> None:
    values = np.array([0.7, 0.5, 0.4, 0.3])
    total = 0.0
    for k, x in enumerate(SCALES):
        others = np.delete(SCALES, k)
        total += values[k] * np.prod(others / (others - x))
    assert extrapolate(SCALES, values, "richardson").values == pytest.approx(total)


def test_auto_takes_the_candidate_with_the_least_error_on_scales_held_out() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    decays = 0.1 + 0.8 * np.exp(-0.7 * x)
    found = extrapolate(x, decays)
    assert found.method == "exponential"
    assert found.residuals == held_out_residuals(x, decays)
    assert found.residuals["exponential"] == min(found.residuals.values())
    lines = 0.9 - 0.1 * x
    assert extrapolate(x, lines).method == "linear"


def test_auto_never_takes_the_network_unless_it_is_named() -> None:
    x = np.array([1.0, 3.0, 5.0, 7.0])
    rng = np.random.default_rng(2)
    for _ in range(5):
        found = extrapolate(x, rng.normal(size=(6, 4)))
        assert found.method != "learned"
        assert "learned" not in found.residuals
    named = extrapolate(x, np.exp(-0.3 * x), candidates=("linear", "learned"))
    assert set(named.residuals) == {"linear", "learned"}


def test_the_network_is_the_same_for_the_same_seed_and_moves_with_the_curve() -> None:
    x = np.array([1.0, 3.0, 5.0])
    values = 0.2 + 0.7 * np.exp(-0.2 * x)[None, :] * np.array([[1.0], [-2.0]])
    first = extrapolate(x, values, "learned", seed=3).values
    assert (first == extrapolate(x, values, "learned", seed=3).values).all()
    moved = extrapolate(x, 4.0 + values, "learned", seed=3).values
    assert np.allclose(moved, first + 4.0)
    assert np.abs(first - (0.2 + 0.7 * np.array([1.0, -2.0]))).max() < 0.1


def test_too_few_scales_unknown_methods_and_wrong_shapes_are_refused() -> None:
    for scales, values, method in (
        ([1.0], [0.5], "linear"),
        ([1.0, 1.0], [0.5, 0.5], "linear"),
        ([1.0, 3.0], [0.5, 0.4, 0.3], "linear"),
        ([1.0, 3.0], [0.5, 0.4], "polynomial"),
        ([1.0, 3.0], [0.5, 0.4], "exponential"),
        ([1.0, 3.0], [0.5, np.nan], "linear"),
        ([1.0, 3.0], [0.5, 0.4], "quadratic"),
    ):
        with pytest.raises(UsageError):
            extrapolate(scales, values, method)  # type: ignore[arg-type]
    assert extrapolate([1.0, 3.0], [0.5, 0.4]).method == "linear"
    assert METHODS[0] == "auto"


def test_zero_noise_extrapolates_over_the_scales_that_folding_gives() -> None:
    circuit = Circuit(2)
    circuit.h(0).cx(0, 1).t(1).h(1).s(0)

    def noisy(folded: Circuit) -> np.ndarray:
        gates = sum(name != "barrier" for name, _, _ in folded.run.operations())
        return np.array([0.8, -0.5]) * np.exp(-0.02 * gates)

    for folding in ("global", "local"):
        found = zero_noise(circuit, noisy, scales=(1, 1.5, 2, 3), folding=folding, method="auto")
        assert found.scales.tolist() == [fold_scale(circuit, s, folding) for s in (1, 1.5, 2, 3)]
        assert found.method in ("exponential", "polynomial", "richardson")
        assert np.abs(found.values - [0.8, -0.5]).max() < 1e-4
    with pytest.raises(UsageError, match="too few gates"):
        zero_noise(circuit, noisy, scales=(1, 1.01))
