"""Phases of signal processing and series of functions, against the polynomials themselves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev

from qcomp.errors import UsageError
from qcomp.passes.synthesize.polynomial.approximations import (
    approximate,
    exponential_parts,
    inverse_series,
    parts,
    sign_series,
)
from qcomp.passes.synthesize.polynomial.phases import (
    greatest,
    parity_of,
    power_angles,
    response,
    symmetric_phases,
)

GRID = np.cos(np.linspace(0, np.pi, 2001))


def random_series(degree: int, largest: float) -> np.ndarray:
    c = np.random.default_rng(degree).normal(size=degree + 1)
    c[(degree + 1) % 2 :: 2] = 0
    return c * largest / greatest(c)[0]


@pytest.mark.parametrize(
    ("degree", "largest"), [(0, 0.5), (1, 1.0), (2, 0.9), (3, 0.99), (50, 0.999), (101, 1 - 1e-6)]
)
def test_solved_phases_reproduce_random_polynomials_to_1e_12(degree: int, largest: float) -> None:
    coefs = random_series(degree, largest)
    phases = symmetric_phases(coefs)
    assert len(phases) == degree + 1
    assert np.abs(response(phases, GRID).real - chebyshev.chebval(GRID, coefs)).max() < 1e-12


def test_chebyshev_polynomials_touch_one_and_are_reached() -> None:
    coefs = np.eye(8)[7]
    phases = symmetric_phases(coefs)
    assert np.abs(response(phases, GRID).real - chebyshev.chebval(GRID, coefs)).max() < 1e-12


@pytest.mark.parametrize("degree", [0, 1, 3, 40])
def test_rotations_of_powers_reproduce_complex_polynomials(degree: int) -> None:
    rng = np.random.default_rng(degree)
    coefs = rng.normal(size=degree + 1) + 1j * rng.normal(size=degree + 1)
    coefs /= np.abs(np.fft.fft(coefs, 8192)).max() * 1.001
    z = np.exp(2j * np.pi * np.arange(50) / 50)
    state = np.array([np.ones(50), np.zeros(50)], dtype=complex)
    for j, (theta, phi, lam) in enumerate(power_angles(coefs)):
        if j:
            state[0] *= z
        c, s = np.cos(theta), np.sin(theta)
        turn = [
            [np.exp(1j * (lam + phi)) * c, np.exp(1j * phi) * s],
            [np.exp(1j * lam) * s, -c],
        ]
        state = np.array(turn) @ state
    assert np.abs(state[0] - np.polyval(coefs[::-1], z)).max() < 1e-12


@pytest.mark.parametrize("time", [0.0, 0.5, 12.0])
def test_cosine_and_sine_are_the_parts_of_an_evolution(time: float) -> None:
    cosine, sine = exponential_parts(time, 1e-10)
    assert sine.degree == cosine.degree + 1
    for one, exact in ((cosine, np.cos), (sine, np.sin)):
        reached = one.scale * response(symmetric_phases(one.coefs), GRID).real
        assert np.abs(reached - exact(time * GRID)).max() < 1e-10


def test_the_inverse_holds_down_to_the_condition_number() -> None:
    found = inverse_series(4.0, 1e-4)
    x = np.linspace(0.25, 1, 500)
    reached = found.scale * response(symmetric_phases(found.coefs), x).real
    assert parity_of(found.coefs) == 1
    assert np.abs(reached - 1 / x).max() < 1e-4
    assert found.error < 1e-4


def test_the_sign_holds_outside_of_the_gap() -> None:
    found = sign_series(0.2, 1e-4)
    x = np.linspace(0.2, 1, 500)
    reached = found.scale * response(symmetric_phases(found.coefs), x).real
    assert parity_of(found.coefs) == 1
    assert np.abs(reached - 1).max() < 1e-4


def test_a_smooth_function_has_two_parts_of_neighbouring_degrees() -> None:
    found = approximate(np.exp, 14)
    even, odd = parts(found.coefs)
    assert (len(even), len(odd)) == (15, 16)
    both = chebyshev.chebval(GRID, even) + chebyshev.chebval(GRID, odd)
    assert np.abs(found.scale * both - np.exp(GRID)).max() < 1e-12
    assert found.scale == pytest.approx(np.e, rel=1e-5)


def test_what_no_phases_reach_is_said_with_the_next_step() -> None:
    with pytest.raises(UsageError, match="above 1") as caught:
        symmetric_phases([0, 1.5])
    assert "divide it by 1.5" in str(caught.value)
    with pytest.raises(UsageError, match="definite parity") as caught:
        symmetric_phases([0.5, 0.2])
    assert "even and its odd part" in str(caught.value)
    with pytest.raises(UsageError, match="real"):
        symmetric_phases([0, 1j])
    with pytest.raises(UsageError, match="unit circle") as caught:
        power_angles([0.5, 0.5])
    assert "divide it" in str(caught.value)
    with pytest.raises(UsageError, match="several steps"):
        exponential_parts(1e5)
    with pytest.raises(UsageError, match="condition number"):
        inverse_series(0.5)
    with pytest.raises(UsageError, match="precondition"):
        inverse_series(1e4)
    with pytest.raises(UsageError, match="wider gap"):
        sign_series(1e-5)
    with pytest.raises(UsageError, match="no finite value"):
        approximate(lambda x: np.where(x > 0, x, np.inf), 3)
