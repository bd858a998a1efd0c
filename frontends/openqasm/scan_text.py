"""Words, numbers and angles of the scanner: helpers that its kernel calls.

The same functions run uncompiled on ``bytes`` and compiled on a uint8 array; literals they cannot
decide come back as a request.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcomp.decimals import MAX_DIGITS, decimal_to_double
from qcomp.ir.angle import FULL_TURN, PI, SNAP_BITS

__all__ = [
    "ASK",
    "BAD",
    "GROW",
    "OK",
    "Column",
    "Kinds",
    "Output",
    "State",
    "SymbolTable",
    "add_term",
    "exact_units",
    "find_word",
    "scan_angle",
    "scan_number",
    "scan_product",
    "skip",
]

OK, BAD, GROW, ASK = range(4)
"""How the scan of a part ended: taken, not known here, an array is full, a literal is asked for."""


class Kinds:
    """What a name means."""

    GATE, QUBITS, BITS, PARAMETER, PI, MEASURE, CTRL, U2, CU3 = range(1, 10)


class State:
    """Slots of the int64 array that outlives a call of the kernel."""

    AT, GATES, ANGLES, FORMS, TERMS, EXTRA, UNITS, VERSION = range(8)
    QUBITS, FROM, TO, GIVEN, EXACT, SIZE = range(8, 14)


class SymbolTable(NamedTuple):
    """Names by open addressing.

    Attributes:
        slots: int32[power of two], symbol or -1.
        symbols: int32[n, 6], a row of ``Column`` for each symbol.
        names: uint8[...], the names one after the other.
        seen: int64[qubits], statement that touched a qubit last.
    """

    slots: NDArray[np.int32]
    symbols: NDArray[np.int32]
    names: NDArray[np.uint8]
    seen: NDArray[np.int64]


class Column:
    """What is known of a symbol.

    ``START`` and ``LENGTH`` of its name in ``names``; ``KIND``, of ``Kinds``; ``VALUE``: gate code,
    first qubit or bit, or parameter; ``SIZE`` of a register (-1: one qubit or bit, not indexed) or
    the number of operands of a gate of any number of them (-1: any); ``ROW``: the last form that is
    one term of this parameter, -1 for none.
    """

    START, LENGTH, KIND, VALUE, SIZE, ROW = range(6)


class Output(NamedTuple):
    """The arrays of a run and of its forms, partly filled.

    ``operand`` is room for the operands of a statement; ``phase`` float64[1] the float part of the
    global phase (its exact part is ``state[UNITS]``).
    """

    code: NDArray[np.uint8]
    qubit: NDArray[np.int32]
    angle: NDArray[np.int32]
    extra: NDArray[np.int32]
    frac: NDArray[np.int64]
    rem: NDArray[np.float64]
    form: NDArray[np.int32]
    indptr: NDArray[np.int64]
    col: NDArray[np.int32]
    coef: NDArray[np.float64]
    operand: NDArray[np.int64]
    phase: NDArray[np.float64]


_PI = math.pi
_HALF_TURN = FULL_TURN >> 1
_TURN_MASK = FULL_TURN - 1
_SNAP_SCALE = float(1 << SNAP_BITS)
_SNAP_UNIT = PI >> SNAP_BITS
_EXACT = 1 << 53
_SPARE = (1 << 62) // 10
_LARGEST = 1e300
_NONE, _INTEGER, _REAL, _ASKED = range(4)
_PARAMETER, _PI_NAME = Kinds.PARAMETER, Kinds.PI
_VERSION, _FROM, _TO, _GIVEN = State.VERSION, State.FROM, State.TO, State.GIVEN
_EXACT_ONLY = State.EXACT
_START, _LENGTH, _KIND = Column.START, Column.LENGTH, Column.KIND
_VALUE = Column.VALUE
_WORD = np.array(
    [byte >= 128 or chr(byte).isalnum() or byte == 95 for byte in range(256)], dtype=np.uint8
)


def skip(buf: NDArray[np.uint8], at: int, end: int) -> int:
    """Return the first byte from ``at`` that is neither space nor comment."""
    while at < end:
        c = buf[at]
        if c == 32 or c == 10 or c == 13 or c == 9:
            at += 1
        elif c == 47 and at + 1 < end and buf[at + 1] == 47:
            while at < end and buf[at] != 10 and buf[at] != 13:
                at += 1
        elif c == 47 and at + 1 < end and buf[at + 1] == 42:
            stop = at + 2
            while stop + 1 < end and not (buf[stop] == 42 and buf[stop + 1] == 47):
                stop += 1
            if stop + 1 >= end:
                return at
            at = stop + 2
        else:
            return at
    return at


def find_word(
    buf: NDArray[np.uint8],
    at: int,
    end: int,
    slots: NDArray[np.int32],
    symbols: NDArray[np.int32],
    names: NDArray[np.uint8],
) -> tuple[int, int]:
    """Return (end of the name or ``$0`` at ``at``, its symbol or -1)."""
    code = 0
    stop = at
    if at < end and buf[at] == 36:
        code = 36
        stop = at + 1
    while stop < end and _WORD[buf[stop]]:
        code = (code * 31 + buf[stop]) & 0xFFFFFFFFFF
        stop += 1
    mask = slots.size - 1
    slot = code & mask
    while slots[slot] >= 0:
        symbol = slots[slot]
        if symbols[symbol, _LENGTH] == stop - at:
            start = symbols[symbol, _START]
            same = 0
            while same < stop - at and names[start + same] == buf[at + same]:
                same += 1
            if same == stop - at:
                return stop, symbol
        slot = (slot + 1) & mask
    return stop, -1


def scan_number(
    buf: NDArray[np.uint8],
    at: int,
    end: int,
    state: NDArray[np.int64],
    given: NDArray[np.float64],
) -> tuple[int, int, int, float]:
    """Return (end, kind, value if an integer, value) of the number at ``at``.

    A literal that is not decided here is looked up among the ``given`` ones, or asked for.
    """
    start = at
    digits = 0
    count = 0
    exponent = 0
    dropped = False
    real = False
    any_digit = False
    if buf[at] == 48 and at + 1 < end and 48 <= buf[at + 1] <= 57:
        return at, _NONE, 0, 0.0
    while at < end:
        c = buf[at]
        if 48 <= c <= 57:
            any_digit = True
            if count < MAX_DIGITS or (count == MAX_DIGITS and digits < _SPARE):
                digits = digits * 10 + (c - 48)
                if digits > 0:
                    count += 1
                if real:
                    exponent -= 1
            else:
                if c != 48:
                    dropped = True
                if not real:
                    exponent += 1
        elif c == 46 and not real:
            real = True
        else:
            break
        at += 1
    if not any_digit:
        return at, _NONE, 0, 0.0
    if at < end and (buf[at] == 101 or buf[at] == 69):
        real = True
        at += 1
        negative = at < end and buf[at] == 45
        if at < end and (buf[at] == 45 or buf[at] == 43):
            at += 1
        if at >= end or not (48 <= buf[at] <= 57):
            return at, _NONE, 0, 0.0
        power = 0
        while at < end and 48 <= buf[at] <= 57:
            power = min(power * 10 + (buf[at] - 48), 100000)
            at += 1
        exponent += -power if negative else power
    if at < end and (_WORD[buf[at]] or buf[at] == 46):
        return at, _NONE, 0, 0.0
    if not real:
        if exponent != 0:
            return at, _NONE, 0, 0.0
        return at, _INTEGER, digits, float(digits)
    value = decimal_to_double(digits, exponent, state[_EXACT_ONLY] != 0)
    if (
        dropped
        and value >= 0.0
        and value != decimal_to_double(digits + 1, exponent, state[_EXACT_ONLY] != 0)
    ):
        value = -1.0
    if value < 0.0:
        for k in range(state[_GIVEN]):
            if given[2 * k] == start:
                return at, _REAL, 0, float(given[2 * k + 1])
        state[_FROM] = start
        state[_TO] = at
        return at, _ASKED, 0, 0.0
    return at, _REAL, 0, float(value)


def add_term(
    col: NDArray[np.int32],
    coef: NDArray[np.float64],
    first: int,
    last: int,
    column: int,
    value: float,
) -> int:
    """Add ``value * parameter`` to the row at ``first:last``, sorted, and return its end."""
    place = last
    while place > first and col[place - 1] >= column:
        place -= 1
    if place < last and col[place] == column:
        coef[place] += value
        return last
    for k in range(last, place, -1):
        col[k] = col[k - 1]
        coef[k] = coef[k - 1]
    col[place] = column
    coef[place] = value
    return last + 1


def exact_units(numerator: int, denominator: int) -> tuple[bool, int]:
    """Return (True, units) of ``numerator * pi / denominator`` when that is a whole number."""
    shift = 0
    while denominator & 1 == 0:
        denominator >>= 1
        shift += 1
    if numerator % denominator != 0:
        return False, 0
    numerator //= denominator
    while shift > 60 and numerator & 1 == 0 and numerator != 0:
        numerator >>= 1
        shift -= 1
    if shift > 60:
        return numerator == 0, 0
    # Modulo 4 pi first, so that the product stays below 2**63.
    numerator &= (1 << min(shift + 2, 62)) - 1
    return True, numerator << (60 - shift)


def scan_product(
    buf: NDArray[np.uint8],
    at: int,
    end: int,
    slots: NDArray[np.int32],
    symbols: NDArray[np.int32],
    names: NDArray[np.uint8],
    state: NDArray[np.int64],
    given: NDArray[np.float64],
) -> tuple[int, int, int, float, int]:
    """Return (end, status, units, value, parameter symbol or -1) of ``a*b/c ...`` at ``at``.

    Factors are numbers, pi and at most one parameter. The value is what double arithmetic gives
    from left to right, except for a whole multiple of pi over a power of two, which is exact.
    """
    negative = False
    while at < end and buf[at] == 45:
        negative = not negative
        at = skip(buf, at + 1, end)
    value = 1.0
    numerator = 1
    denominator = 1
    exact = True
    whole = True
    turns = 0
    symbol = -1
    divide = False
    while True:
        if at >= end:
            return at, BAD, 0, 0.0, -1
        c = buf[at]
        if 48 <= c <= 57 or c == 46:
            at, kind, integer, real = scan_number(buf, at, end, state, given)
            if kind == _ASKED:
                return at, ASK, 0, 0.0, -1
            if kind == _NONE or (divide and real == 0.0):
                return at, BAD, 0, 0.0, -1
            if kind == _REAL:
                exact = False
                whole = False
            elif divide and whole and state[_VERSION] == 3:
                # Division of integers truncates in OpenQASM 3: no business of this kernel.
                return at, BAD, 0, 0.0, -1
            elif divide:
                exact = exact and denominator <= (1 << 62) // integer
                denominator = denominator * integer if exact else 1
            else:
                exact = exact and (integer == 0 or numerator <= (1 << 62) // integer)
                numerator = numerator * integer if exact else 1
            value = value / real if divide else value * real
        elif _WORD[c]:
            at, name = find_word(buf, at, end, slots, symbols, names)
            if name < 0 or divide:
                return at, BAD, 0, 0.0, -1
            if symbols[name, _KIND] == _PI_NAME:
                turns += 1
                value *= _PI
            elif symbols[name, _KIND] == _PARAMETER and symbol < 0:
                symbol = name
            else:
                return at, BAD, 0, 0.0, -1
            whole = False
        else:
            return at, BAD, 0, 0.0, -1
        at = skip(buf, at, end)
        if at < end and buf[at] == 47:
            divide = True
        elif at + 1 < end and buf[at] == 42 and buf[at + 1] != 42:
            divide = False
        else:
            break
        at = skip(buf, at + 1, end)
    if (whole and (not exact or numerator > _EXACT)) or not abs(value) <= _LARGEST:
        return at, BAD, 0, 0.0, -1
    units = 0
    if symbol < 0:
        done = False
        if turns == 1 and exact:
            done, units = exact_units(numerator, denominator)
        if not done and abs(value) <= 64.0:
            steps = value * _SNAP_SCALE / _PI
            nearest = int(steps + 0.5) if steps > 0 else int(steps - 0.5)
            if nearest * _PI / _SNAP_SCALE == value:
                done = True
                units = nearest * _SNAP_UNIT
        if done:
            value = 0.0
    if negative:
        return at, OK, -units, -value, symbol
    return at, OK, units, value, symbol


def scan_angle(
    buf: NDArray[np.uint8],
    at: int,
    end: int,
    slots: NDArray[np.int32],
    symbols: NDArray[np.int32],
    names: NDArray[np.uint8],
    state: NDArray[np.int64],
    given: NDArray[np.float64],
    col: NDArray[np.int32],
    coef: NDArray[np.float64],
    first: int,
) -> tuple[int, int, int, float, int, int]:
    """Return (end, status, units, radians, end of the terms from ``first``, last symbol)."""
    units = 0
    radians = 0.0
    last = first
    only = -1
    negative = False
    while True:
        at, status, part, value, symbol = scan_product(
            buf, at, end, slots, symbols, names, state, given
        )
        if status != OK:
            return at, status, 0, 0.0, first, -1
        if negative:
            part = -part
            value = -value
        if symbol >= 0:
            if value != 0.0:
                if last >= col.size:
                    return at, GROW, 0, 0.0, first, -1
                last = add_term(col, coef, first, last, symbols[symbol, _VALUE], value)
                only = symbol
        else:
            units = ((units + part + _HALF_TURN) & _TURN_MASK) - _HALF_TURN
            radians += value
        if at < end and (buf[at] == 43 or buf[at] == 45):
            negative = buf[at] == 45
            at = skip(buf, at + 1, end)
        else:
            break
    if not abs(radians) <= _LARGEST:
        return at, BAD, 0, 0.0, first, -1
    kept = first
    for k in range(first, last):
        if coef[k] != 0.0:
            col[kept] = col[k]
            coef[kept] = coef[k]
            kept += 1
    return at, OK, units, radians, kept, only
