"""Angles are exact where they can be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcomp.errors import UsageError
from qcomp.ir.angle import PI, Angle, Parameter, pi_fraction, snap, snap_array, wrap, wrap_int

dyadic = st.builds(pi_fraction, st.integers(-4096, 4096), st.sampled_from([1, 2, 4, 64, 2**20]))


def test_two_t_rotations_are_exactly_one_s() -> None:
    assert pi_fraction(1, 4) + pi_fraction(1, 4) == pi_fraction(1, 2)


def test_a_float_that_is_a_fraction_of_pi_is_taken_for_it() -> None:
    assert Angle.of(math.pi / 4) == pi_fraction(1, 4)
    assert Angle.of(-3 * math.pi / 8) == pi_fraction(-3, 8)
    assert Angle.of(0.1).frac == 0


def test_four_pi_is_nothing_and_two_pi_is_not() -> None:
    assert pi_fraction(4).is_zero
    assert not pi_fraction(2).is_zero


def test_an_angle_divides_as_it_was_written() -> None:
    assert float(pi_fraction(2) / 3) == pytest.approx(2 * math.pi / 3)
    assert pi_fraction(3) / 2 == pi_fraction(3, 2)
    assert (Angle.of(3 * math.pi) + 2 * math.pi) * 0.5 == pi_fraction(5, 2)
    assert pi_fraction(9, 2) == pi_fraction(1, 2)
    assert hash(pi_fraction(9, 2)) == hash(pi_fraction(1, 2))


@given(dyadic, dyadic, dyadic)
def test_addition_of_fractions_is_exact_and_associative(a: Angle, b: Angle, c: Angle) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b - b == a


@given(st.integers(-(2**20), 2**20), st.integers(0, 20))
def test_every_dyadic_float_snaps_back_to_its_fraction(k: int, m: int) -> None:
    value = k * math.pi / 2**m
    frac, rem = snap(value)
    if abs(value) <= 64:
        assert (frac, rem) == (wrap_int(k * (PI >> m)), 0.0)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20))
def test_snapping_arrays_and_numbers_agree(values: list[float]) -> None:
    frac, rem = snap_array(np.array(values))
    assert [snap(v) for v in values] == list(zip(frac.tolist(), rem.tolist(), strict=True))


def test_symbols_stay_affine() -> None:
    x, y = Parameter("x"), Parameter("y")
    assert 2 * x + y - 2 * x == y
    assert str(2 * x + pi_fraction(1, 4)) == "2.0*x + pi/4"
    assert float((2 * x + 0.5).bind({"x": 0.25})) == 1.0
    assert (x / 2).terms == (("x", 0.5),)


def test_a_product_of_symbols_is_refused() -> None:
    with pytest.raises(UsageError, match="not affine"):
        Parameter("x") * Parameter("y")


@pytest.mark.parametrize("value", [math.nan, math.inf, "pi", None])
def test_what_is_no_finite_number_is_no_angle(value: object) -> None:
    with pytest.raises(UsageError):
        Angle.of(value)  # type: ignore[arg-type]


def test_wrapping_keeps_sums_that_overflow_64_bits_right() -> None:
    big = np.array([(1 << 61) - 1], dtype=np.int64)
    with np.errstate(over="ignore"):
        total = wrap(big + big + big)
    assert total[0] == wrap_int(3 * ((1 << 61) - 1))
