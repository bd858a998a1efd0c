"""Decimal text and float64, both ways, correctly rounded, for compiled kernels.

Reading follows D. Lemire, "Number parsing at a gigabyte per second" (2021, arXiv:2101.11408),
Section 5: one 64 x 128 bit product decides almost every literal, and what it cannot decide is
left to ``float``. Writing follows R. Giulietti, "The Schubfach way to render doubles" (2020),
Section 9: the shortest digits that read back as the same float, nearest to it among those.

The functions below are helpers for :func:`qcomp.kernels.kernel`; all integers are 64 bits wide.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_DIGITS",
    "MAX_DOUBLE_TEXT",
    "decimal_to_double",
    "mul_high",
    "print_double",
    "print_integer",
    "print_tables",
    "round_to_odd",
    "shortest_digits",
]

MAX_DIGITS = 18
"""Significant digits that always fit an int64, by which a scanner collects them."""

MAX_DOUBLE_TEXT = 25
"""Longest text that :func:`print_double` writes, in bytes."""

_LOW32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_FOUR = np.uint64(4)
_TEN = np.uint64(10)
_FORTY = np.uint64(40)
_ALL_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_UNDECIDED = np.uint64(0x1FF)
_HIDDEN_BIT = np.uint64(1 << 52)
_FRACTION_MASK = np.uint64((1 << 52) - 1)
_EXACT_LIMIT = 1 << 53
_MIN_POWER = -342
_MAX_POWER = 308
_MIN_PRINT_POWER = -292


def _halves(values: list[int]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    high = np.array([value >> 64 for value in values], dtype=np.uint64)
    low = np.array([value & ((1 << 64) - 1) for value in values], dtype=np.uint64)
    return high, low


def _power_of_five(q: int) -> int:
    """Return 5^q scaled to 128 bits: truncated for q >= 0, one above the quotient below."""
    if q >= 0:
        power = 5**q
        shift = 128 - power.bit_length()
        return power << shift if shift >= 0 else power >> -shift
    power = 5**-q
    width = (power - 1).bit_length()
    if q >= -27:
        return (1 << (width + 127)) // power + 1
    value = (1 << (2 * width + 128)) // power + 1
    return value >> max(0, value.bit_length() - 128)


_READ_HIGH, _READ_LOW = _halves([_power_of_five(q) for q in range(_MIN_POWER, _MAX_POWER + 1)])
_TENS = np.array([float(10**k) for k in range(23)])
_TWOS = np.ldexp(1.0, np.arange(-1074, 972))


@functools.cache
def print_tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return 10^k rounded up to 128 bits, k from -292 to 324, upper and lower halves."""
    values = []
    for k in range(_MIN_PRINT_POWER, 325):
        if k >= 0:
            power = 10**k
            shift = power.bit_length() - 128
            values.append(power << -shift if shift <= 0 else -(-power >> shift))
        else:
            power = 10**-k
            exponent = power.bit_length() + 127
            value = -(-(1 << exponent) // power)
            if value >> 128:
                value = -(-(1 << (exponent - 1)) // power)
            values.append(value)
    return _halves(values)


def mul_high(a: np.uint64, b: np.uint64) -> np.uint64:
    """Return the upper 64 bits of the 128-bit product of two uint64."""
    a0 = a & _LOW32
    a1 = a >> _SHIFT32
    b0 = b & _LOW32
    b1 = b >> _SHIFT32
    cross = a1 * b0 + (a0 * b0 >> _SHIFT32)
    middle = a0 * b1 + (cross & _LOW32)
    return a1 * b1 + (cross >> _SHIFT32) + (middle >> _SHIFT32)


def decimal_to_double(digits: int, exponent: int, exact: bool) -> float:
    """Return ``digits * 10**exponent`` correctly rounded, or -1.0 when it is not decided here.

    Decided are exact products and all normal results that are not within one unit of the
    128-bit product of a tie.

    Args:
        digits: A natural number below 2^63.
        exponent: Any integer.
        exact: Decide exact products only: for uncompiled code, whose integers are not 64 bits.
    """
    if digits == 0:
        return 0.0
    if digits <= _EXACT_LIMIT and -22 <= exponent <= 22:
        if exponent < 0:
            return float(digits) / _TENS[-exponent]
        return float(digits) * _TENS[exponent]
    if exact or exponent < -300 or exponent > 280:
        return -1.0
    w = np.uint64(digits)
    shift = 0
    for step in (32, 16, 8, 4, 2, 1):
        if w >> np.uint64(64 - step) == np.uint64(0):
            w = w << np.uint64(step)
            shift += step
    row = exponent - _MIN_POWER
    upper = mul_high(w, _READ_HIGH[row])
    lower = w * _READ_HIGH[row]
    if upper & _UNDECIDED == _UNDECIDED:
        carry = mul_high(w, _READ_LOW[row])
        lower = lower + carry
        if lower < carry:
            upper = upper + _ONE
    if lower == _ALL_ONES:
        return -1.0
    top = upper >> np.uint64(63)
    cut = top + np.uint64(9)
    mantissa = upper >> cut
    power = (((152170 + 65536) * exponent) >> 16) + 63 + np.int64(top) - shift
    if lower <= _ONE and -4 <= exponent <= 23 and mantissa & np.uint64(3) == _ONE:
        # Half-way cases can only be exact here: round them to even.
        if mantissa << cut == upper:
            mantissa = mantissa & ~_ONE
    mantissa = (mantissa + (mantissa & _ONE)) >> _ONE
    if power < -1022 or power > 1022:
        return -1.0
    return float(np.int64(mantissa)) * _TWOS[power - 52 + 1074]


def round_to_odd(g_high: np.uint64, g_low: np.uint64, factor: np.uint64) -> np.uint64:
    """Return the upper third of a 128 x 64 bit product, its last bit set when inexact."""
    carry = mul_high(g_low, factor)
    lower = g_high * factor
    upper = mul_high(g_high, factor)
    lower = lower + carry
    if lower < carry:
        upper = upper + _ONE
    if lower > _ONE:
        return upper | _ONE
    return upper


def shortest_digits(
    bits: np.uint64, g_high: NDArray[np.uint64], g_low: NDArray[np.uint64]
) -> tuple[np.uint64, np.int64]:
    """Return (d, k) with d * 10^k the shortest decimal of a positive finite float64.

    Args:
        bits: The float's bits, sign clear, not zero, not infinite.
        g_high: Upper halves of :func:`print_tables`.
        g_low: Lower halves.
    """
    fraction = bits & _FRACTION_MASK
    biased = np.int64(bits >> np.uint64(52))
    if biased != 0:
        c = fraction | _HIDDEN_BIT
        q = biased - 1075
        if -52 <= q <= 0:
            whole = c >> np.uint64(-q)
            if whole << np.uint64(-q) == c:
                return whole, np.int64(0)
    else:
        c = fraction
        q = np.int64(-1074)
    closer = fraction == np.uint64(0) and biased > 1
    if closer:
        k = (q * 1262611 - 524031) >> 22
        left = _FOUR * c - _ONE
    else:
        k = (q * 1262611) >> 22
        left = _FOUR * c - _TWO
    h = np.uint64(q + ((-k * 1741647) >> 19) + 1)
    row = -k - _MIN_PRINT_POWER
    odd = c & _ONE
    lower = round_to_odd(g_high[row], g_low[row], left << h) + odd
    middle = round_to_odd(g_high[row], g_low[row], (_FOUR * c) << h)
    upper = round_to_odd(g_high[row], g_low[row], (_FOUR * c + _TWO) << h) - odd
    s = middle // _FOUR
    if s >= _TEN:
        tenth = s // _TEN
        down = lower <= _FORTY * tenth
        up = _FORTY * tenth + _FORTY <= upper
        if down != up:
            return (tenth + _ONE if up else tenth), k + 1
    down = lower <= _FOUR * s
    up = _FOUR * s + _FOUR <= upper
    if down != up:
        return (s + _ONE if up else s), k
    half = _FOUR * s + _TWO
    if middle > half or (middle == half and s & _ONE == _ONE):
        return s + _ONE, k
    return s, k


def print_integer(value: int | np.int64, out: NDArray[np.uint8], at: int) -> int:
    """Write a natural number below 2^63 at ``out[at:]`` and return the end."""
    length = 1
    rest = value
    while rest >= 10:
        rest //= 10
        length += 1
    rest = value
    for place in range(at + length - 1, at - 1, -1):
        out[place] = 48 + rest % 10
        rest //= 10
    return at + length


def print_double(
    bits: np.uint64,
    out: NDArray[np.uint8],
    at: int,
    g_high: NDArray[np.uint64],
    g_low: NDArray[np.uint64],
) -> int:
    """Write the magnitude of a finite float64 as ``repr`` does and return the end.

    Args:
        bits: The float's bits; the sign is not looked at.
        out: Where to write; at least ``MAX_DOUBLE_TEXT`` bytes after ``at``.
        at: First byte to write.
        g_high: Upper halves of :func:`print_tables`.
        g_low: Lower halves.
    """
    bits = bits & np.uint64(0x7FFFFFFFFFFFFFFF)
    if bits == np.uint64(0):
        out[at] = 48
        out[at + 1] = 46
        out[at + 2] = 48
        return at + 3
    d, k = shortest_digits(bits, g_high, g_low)
    while d % _TEN == np.uint64(0):
        d = d // _TEN
        k += 1
    digits = np.int64(d)
    length = 1
    rest = digits // 10
    while rest > 0:
        rest //= 10
        length += 1
    point = length + k
    if 0 < point <= 16:
        if k >= 0:
            end = print_integer(digits, out, at)
            for _ in range(k):
                out[end] = 48
                end += 1
            out[end] = 46
            out[end + 1] = 48
            return end + 2
        for place in range(at + length, at + point, -1):
            out[place] = 48 + digits % 10
            digits //= 10
        out[at + point] = 46
        for place in range(at + point - 1, at - 1, -1):
            out[place] = 48 + digits % 10
            digits //= 10
        return at + length + 1
    if -4 < point <= 0:
        out[at] = 48
        out[at + 1] = 46
        for place in range(at + 2, at + 2 - point):
            out[place] = 48
        return print_integer(digits, out, at + 2 - int(point))
    end = print_integer(digits, out, at + 1)
    out[at] = out[at + 1]
    if length > 1:
        out[at + 1] = 46
    else:
        end = at + 1
    exponent = point - 1
    out[end] = 101
    out[end + 1] = 45 if exponent < 0 else 43
    exponent = abs(exponent)
    if exponent < 10:
        out[end + 2] = 48
        end += 1
    return print_integer(exponent, out, end + 2)
