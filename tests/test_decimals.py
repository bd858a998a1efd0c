"""Decimal reading and printing against Python's own, which are correctly rounded."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from qcomp.decimals import (
    MAX_DIGITS,
    MAX_DOUBLE_TEXT,
    decimal_to_double,
    mul_high,
    print_double,
    print_integer,
    print_tables,
    round_to_odd,
    shortest_digits,
)
from qcomp.kernels import kernel


@kernel(calls=(mul_high, round_to_odd, shortest_digits, print_integer, print_double), bare=True)
def print_all(bits, out, ends, high, low):  # type: ignore[no-untyped-def]  # compiled
    at = 0
    for i in range(bits.size):
        at = print_double(bits[i], out, at, high, low)
        ends[i] = at
    return at


@kernel(calls=(mul_high, decimal_to_double), bare=True)
def read_all(digits, exponents, out, exact):  # type: ignore[no-untyped-def]  # compiled
    for i in range(digits.size):
        out[i] = decimal_to_double(digits[i], exponents[i], exact)


def printed(values: NDArray[np.float64]) -> list[str]:
    out = np.empty(len(values) * MAX_DOUBLE_TEXT, dtype=np.uint8)
    ends = np.empty(len(values), dtype=np.int64)
    size = print_all.compiled()(values.view(np.uint64), out, ends, *print_tables())
    text = out[:size].tobytes().decode()
    starts = [0, *ends[:-1].tolist()]
    return [text[a:b] for a, b in zip(starts, ends.tolist(), strict=True)]


def hard_floats(count: int, seed: int) -> NDArray[np.float64]:
    """Every exponent, subnormals, powers of two and ten, their neighbours, halves, short ones."""
    rng = np.random.default_rng(seed)
    bits = [
        rng.integers(0, 0x7FF0000000000000, count, dtype=np.uint64),
        rng.integers(0, 1 << 52, count // 8, dtype=np.uint64),
        np.arange(0, 2047, dtype=np.uint64) << np.uint64(52),
        (np.arange(1, 2048, dtype=np.uint64) << np.uint64(52)) - np.uint64(1),
        np.arange(1, 500, dtype=np.uint64),
        np.array([10.0**k for k in range(-323, 309)]).view(np.uint64),
        np.nextafter(np.array([10.0**k for k in range(-323, 309)]), np.inf).view(np.uint64),
        (rng.integers(0, 1 << 60, count // 8) / 2).view(np.uint64),
        (np.arange(count // 8) / 1000).view(np.uint64),
        rng.uniform(0, 7, count).view(np.uint64),
    ]
    values = np.concatenate(bits).view(np.float64)
    return values[np.isfinite(values)]


def test_printed_floats_are_what_repr_gives() -> None:
    values = hard_floats(200_000, 1)
    assert len(values) > 400_000
    wrong = [
        (repr(value), text)
        for value, text in zip(values.tolist(), printed(values), strict=True)
        if repr(value) != text
    ]
    assert wrong == []


def test_no_printed_float_is_longer_than_the_bound() -> None:
    assert max(map(len, printed(hard_floats(20_000, 2)))) <= MAX_DOUBLE_TEXT


def literals(seed: int) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(seed)
    digits, exponents = [], []
    for value in hard_floats(100_000, seed).tolist():
        mantissa, _, power = repr(value).partition("e")
        whole, _, fraction = mantissa.partition(".")
        digits.append(int(whole + fraction))
        exponents.append(int(power or 0) - len(fraction))
    for size in rng.integers(1, MAX_DIGITS + 1, 100_000).tolist():
        digits.append(int(rng.integers(0, 10**size)))
        exponents.append(int(rng.integers(-330, 300)))
    for value in rng.uniform(0, 1000, 50_000).tolist():
        tie = (Fraction(value) + Fraction(float(np.nextafter(value, 2000)))) / 2
        digits.append(int(tie * 10**15) + int(rng.integers(-1, 2)))
        exponents.append(-15)
    for whole in rng.integers(1 << 53, 1 << 59, 50_000).tolist():
        digits.append((whole >> 7 << 7) | 64)
        exponents.append(0)
    keep = [i for i, d in enumerate(digits) if d < 10**MAX_DIGITS]
    return [digits[i] for i in keep], [exponents[i] for i in keep]


def test_read_literals_are_correctly_rounded_or_left_to_python() -> None:
    digits, exponents = literals(3)
    out = np.empty(len(digits))
    read_all.compiled()(np.array(digits), np.array(exponents), out, False)
    meant = np.array([float(f"{d}e{e}") for d, e in zip(digits, exponents, strict=True)])
    decided = out != -1.0
    assert len(digits) > 400_000
    np.testing.assert_array_equal(out[decided], meant[decided])


def test_angles_of_seventeen_digits_are_decided_without_python() -> None:
    angles = np.random.default_rng(4).uniform(0.001, 7, 50_000)
    pairs = [repr(value).partition(".") for value in angles.tolist()]
    digits = np.array([int(whole + fraction) for whole, _, fraction in pairs])
    exponents = np.array([-len(fraction) for _, _, fraction in pairs])
    out = np.empty(len(digits))
    read_all.compiled()(digits, exponents, out, False)
    np.testing.assert_array_equal(out, angles)


@pytest.mark.parametrize(
    ("digits", "exponent", "value"),
    [(0, 5, 0.0), (5, -1, 0.5), (1, 22, 1e22), (9007199254740992, -22, 9007199254740992e-22)],
)
def test_uncompiled_reading_decides_exact_products(
    digits: int, exponent: int, value: float
) -> None:
    assert decimal_to_double(digits, exponent, True) == value


def test_uncompiled_reading_leaves_the_rest() -> None:
    assert decimal_to_double(12345678901234567, -16, True) == -1.0
    assert decimal_to_double(1, 23, True) == -1.0
