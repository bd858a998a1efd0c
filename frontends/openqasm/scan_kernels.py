"""The kernel of the scanner: straight-line statements from bytes into the arrays of a run.

One pass over the text, no tree. A statement is either taken whole or left untouched: what the
kernel does not know it hands back by its position.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.decimals import decimal_to_double, mul_high
from qcomp.frontends.openqasm.scan_text import (
    ASK,
    BAD,
    GROW,
    OK,
    Column,
    Kinds,
    Output,
    State,
    SymbolTable,
    add_term,
    exact_units,
    find_word,
    scan_angle,
    scan_number,
    scan_product,
    skip,
)
from qcomp.ir.angle import FULL_TURN
from qcomp.ir.gates import NUM_ANGLES, NUM_QUBITS, G
from qcomp.kernels import kernel

__all__ = ["Status", "scan_statements"]


class Status:
    """Why the kernel stopped."""

    DONE, GROW, OTHER, NUMBER, CHUNK, PHASE = range(6)


_DONE, _FULL, _OTHER, _NUMBER = Status.DONE, Status.GROW, Status.OTHER, Status.NUMBER
_CHUNK, _PHASE = Status.CHUNK, Status.PHASE
_GATE, _QUBITS, _BITS = Kinds.GATE, Kinds.QUBITS, Kinds.BITS
_MEASURE, _CTRL, _U2, _CU3 = Kinds.MEASURE, Kinds.CTRL, Kinds.U2, Kinds.CU3
_GPHASE, _U, _CU, _X, _MCX = G.GPHASE, G.U, G.CU, G.X, G.MCX
_MEASURE_CODE, _BARRIER = G.MEASURE, G.BARRIER
_AT, _GATES, _ANGLES, _FORMS, _TERMS = State.AT, State.GATES, State.ANGLES, State.FORMS, State.TERMS
_EXTRA, _UNITS, _VERSION, _NUM_QUBITS = State.EXTRA, State.UNITS, State.VERSION, State.QUBITS
_GIVEN = State.GIVEN
_KIND, _VALUE, _SIZE, _ROW = Column.KIND, Column.VALUE, Column.SIZE, Column.ROW
_HALF_PI = 1 << 59
_HALF_TURN = FULL_TURN >> 1
_TURN_MASK = FULL_TURN - 1


def scan_operand(
    buf: NDArray[np.uint8],
    at: int,
    end: int,
    slots: NDArray[np.int32],
    symbols: NDArray[np.int32],
    names: NDArray[np.uint8],
    kind: int,
) -> tuple[int, int, int]:
    """Return (end, first qubit or bit or -1, size) of an operand; size -1 is a single one."""
    at, symbol = find_word(buf, at, end, slots, symbols, names)
    if symbol < 0 or symbols[symbol, _KIND] != kind:
        return at, -1, 0
    at = skip(buf, at, end)
    size = symbols[symbol, _SIZE]
    start = symbols[symbol, _VALUE]
    if at >= end or buf[at] != 91:
        return at, start, size
    at = skip(buf, at + 1, end)
    index = 0
    digits = 0
    while at < end and 48 <= buf[at] <= 57:
        index = index * 10 + (buf[at] - 48)
        digits += 1
        at += 1
    at = skip(buf, at, end)
    if digits == 0 or digits > 9 or index >= size or at >= end or buf[at] != 93:
        return at, -1, 0
    return skip(buf, at + 1, end), start + index, -1


def scan_angles(
    buf: NDArray[np.uint8],
    at: int,
    end: int,
    slots: NDArray[np.int32],
    symbols: NDArray[np.int32],
    names: NDArray[np.uint8],
    state: NDArray[np.int64],
    given: NDArray[np.float64],
    frac: NDArray[np.int64],
    rem: NDArray[np.float64],
    form: NDArray[np.int32],
    indptr: NDArray[np.int64],
    col: NDArray[np.int32],
    coef: NDArray[np.float64],
    count: int,
    angles: int,
    forms: int,
    terms: int,
) -> tuple[int, int, int, int]:
    """Scan ``(a, b, ...)`` into the entries from ``angles``: (end, status, forms, terms)."""
    for k in range(count):
        if at >= end or buf[at] != (40 if k == 0 else 44):
            return at, BAD, forms, terms
        at = skip(buf, at + 1, end)
        at, status, units, radians, last, symbol = scan_angle(
            buf, at, end, slots, symbols, names, state, given, col, coef, terms
        )
        if status != OK:
            return at, status, forms, terms
        frac[angles + k] = units
        rem[angles + k] = radians
        row = -1
        if last > terms:
            known = symbols[symbol, _ROW]
            if (
                last == terms + 1
                and 0 <= known < forms
                and indptr[known + 1] == indptr[known] + 1
                and col[indptr[known]] == col[terms]
                and coef[indptr[known]] == coef[terms]
            ):
                row = known
            else:
                if forms + 1 >= indptr.size:
                    return at, GROW, forms, terms
                row = forms
                if last == terms + 1:
                    symbols[symbol, _ROW] = row
                forms += 1
                terms = last
                indptr[forms] = terms
        form[angles + k] = row
    if at >= end or buf[at] != 41:
        return at, BAD, forms, terms
    return skip(buf, at + 1, end), OK, forms, terms


def scan_operands(
    buf: NDArray[np.uint8],
    at: int,
    end: int,
    slots: NDArray[np.int32],
    symbols: NDArray[np.int32],
    names: NDArray[np.uint8],
    operand: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Scan ``a, b[1], ...;`` into ``operand`` as (start, size): (end, status, operands)."""
    count = 0
    while at < end and buf[at] != 59:
        if count > 0:
            if buf[at] != 44:
                return at, BAD, 0
            at = skip(buf, at + 1, end)
        at, start, size = scan_operand(buf, at, end, slots, symbols, names, _QUBITS)
        if start < 0:
            return at, BAD, 0
        if 2 * count + 2 > operand.size:
            return at, GROW, 0
        operand[2 * count] = start
        operand[2 * count + 1] = size
        count += 1
    if at >= end:
        return at, BAD, 0
    return at + 1, OK, count


def scan_measure(
    buf: NDArray[np.uint8],
    at: int,
    end: int,
    slots: NDArray[np.int32],
    symbols: NDArray[np.int32],
    names: NDArray[np.uint8],
    bits_first: bool,
) -> tuple[int, int, int, int]:
    """Return (end or -1, first qubit, first bit, size) of a measurement.

    ``at`` stands behind ``measure`` in ``measure q -> c;`` or, when ``bits_first``, before the
    bits of ``c = measure q;``.
    """
    first = -1
    bit_size = 0
    if bits_first:
        at, first, bit_size = scan_operand(buf, at, end, slots, symbols, names, _BITS)
        if first < 0 or at >= end or buf[at] != 61:
            return -1, 0, 0, 0
        at, symbol = find_word(buf, skip(buf, at + 1, end), end, slots, symbols, names)
        if symbol < 0 or symbols[symbol, _KIND] != _MEASURE:
            return -1, 0, 0, 0
    at, qubit, size = scan_operand(buf, skip(buf, at, end), end, slots, symbols, names, _QUBITS)
    if qubit < 0:
        return -1, 0, 0, 0
    if not bits_first:
        if at + 1 >= end or buf[at] != 45 or buf[at + 1] != 62:
            return -1, 0, 0, 0
        at, first, bit_size = scan_operand(
            buf, skip(buf, at + 2, end), end, slots, symbols, names, _BITS
        )
    if first < 0 or size != bit_size or at >= end or buf[at] != 59:
        return -1, 0, 0, 0
    return at + 1, qubit, first, size


def scan_control(
    buf: NDArray[np.uint8],
    at: int,
    end: int,
    slots: NDArray[np.int32],
    symbols: NDArray[np.int32],
    names: NDArray[np.uint8],
) -> tuple[int, int]:
    """Return (end or -1, operands) of ``(n) @ x`` behind ``ctrl``; n >= 3, as fewer have names."""
    at = skip(buf, at, end)
    if at >= end or buf[at] != 40:
        return -1, 0
    at = skip(buf, at + 1, end)
    count = 0
    while at < end and 48 <= buf[at] <= 57 and count < 100000:
        count = count * 10 + (buf[at] - 48)
        at += 1
    at = skip(buf, at, end)
    if count < 3 or at >= end or buf[at] != 41:
        return -1, 0
    at = skip(buf, at + 1, end)
    if at >= end or buf[at] != 64:
        return -1, 0
    at, symbol = find_word(buf, skip(buf, at + 1, end), end, slots, symbols, names)
    if symbol < 0 or symbols[symbol, _KIND] != _GATE or symbols[symbol, _VALUE] != _X:
        return -1, 0
    return skip(buf, at, end), count + 1


def emit_wide(
    out: Output, table: SymbolTable, gate: int, extra: int, count: int, everything: int, stamp: int
) -> int:
    """Write an operation on any number of qubits; return the end in ``extra``, -1 if wrong."""
    begin = extra
    if count == 0:
        for q in range(everything):
            out.extra[extra] = q
            extra += 1
    for k in range(count):
        start = out.operand[2 * k]
        for q in range(start, start + max(1, out.operand[2 * k + 1])):
            if table.seen[q] == stamp:
                return -1
            table.seen[q] = stamp
            out.extra[extra] = q
            extra += 1
    out.qubit[gate, 0] = begin
    out.qubit[gate, 1] = extra - begin
    out.qubit[gate, 2] = -1
    return extra


def emit_gates(
    out: Output, code: int, count: int, copies: int, num_angles: int, gate: int, angles: int
) -> bool:
    """Write the copies of a gate broadcast over registers; False if operands coincide."""
    for copy in range(copies):
        row = gate + copy
        out.code[row] = code
        for k in range(3):
            q = -1
            if k < count:
                q = out.operand[2 * k]
                if out.operand[2 * k + 1] >= 0:
                    q += copy
            out.qubit[row, k] = q
        a, b, c = out.qubit[row, 0], out.qubit[row, 1], out.qubit[row, 2]
        if b >= 0 and (a == b or b == c or a == c):
            return False
        out.angle[row] = angles + copy * num_angles if num_angles > 0 else -1
        if copy > 0:
            for k in range(num_angles):
                out.frac[angles + copy * num_angles + k] = out.frac[angles + k]
                out.rem[angles + copy * num_angles + k] = out.rem[angles + k]
                out.form[angles + copy * num_angles + k] = out.form[angles + k]
    return True


@kernel(
    calls=(
        mul_high,
        decimal_to_double,
        skip,
        find_word,
        scan_number,
        add_term,
        exact_units,
        scan_product,
        scan_angle,
        scan_operand,
        scan_angles,
        scan_operands,
        scan_measure,
        scan_control,
        emit_wide,
        emit_gates,
    ),
    bare=True,
)
def scan_statements(
    buf: NDArray[np.uint8],
    end: int,
    table: SymbolTable,
    state: NDArray[np.int64],
    given: NDArray[np.float64],
    out: Output,
    limit: int,
) -> int:
    """Take statements from ``state[AT]`` on until something stops it; return a ``Status``.

    Args:
        buf: The text; uint8 array, or ``bytes`` when uncompiled.
        end: Its length.
        table: What names mean.
        state: Where the scan stands; only whole statements are counted.
        given: Pairs (start, value) of literals that were asked for, in the statement at hand.
        out: The arrays to fill.
        limit: Stop with ``CHUNK`` once there are so many gates.

    Returns:
        ``DONE`` at the end of the text, ``GROW`` when an array is full, ``OTHER`` at a statement
        that the kernel does not know, ``NUMBER`` when a literal is to be given, ``CHUNK``, or
        ``PHASE`` behind a global phase with parameters, which stands in the next angle entry.
    """
    slots, symbols, names = table.slots, table.symbols, table.names
    while True:
        gate = state[_GATES]
        angles = state[_ANGLES]
        forms = state[_FORMS]
        terms = state[_TERMS]
        begin = skip(buf, state[_AT], end)
        state[_AT] = begin
        if begin >= end:
            return _DONE
        if gate >= limit:
            return _CHUNK
        if gate + 1 >= out.code.size or angles + 8 >= out.frac.size:
            return _FULL
        at, symbol = find_word(buf, begin, end, slots, symbols, names)
        if symbol < 0:
            return _OTHER
        kind = symbols[symbol, _KIND]
        if kind == _MEASURE or (kind == _BITS and state[_VERSION] == 3):
            at, qubit, bit, size = scan_measure(
                buf, begin if kind == _BITS else at, end, slots, symbols, names, kind == _BITS
            )
            if at < 0:
                return _OTHER
            copies = max(1, size)
            if gate + copies > out.code.size:
                return _FULL
            for k in range(copies):
                out.code[gate + k] = _MEASURE_CODE
                out.qubit[gate + k, 0] = qubit + k
                out.qubit[gate + k, 1] = bit + k
                out.qubit[gate + k, 2] = -1
                out.angle[gate + k] = -1
            state[_GATES] = gate + copies
            state[_AT] = at
            continue
        code = symbols[symbol, _VALUE]
        wide = -1
        if kind == _CTRL:
            code = _MCX
            at, wide = scan_control(buf, at, end, slots, symbols, names)
            if at < 0:
                return _OTHER
        elif kind == _U2:
            code = _U
            out.frac[angles] = _HALF_PI
            out.rem[angles] = 0.0
            out.form[angles] = -1
        elif kind == _CU3:
            code = _CU
            out.frac[angles + 3] = 0
            out.rem[angles + 3] = 0.0
            out.form[angles + 3] = -1
        elif kind != _GATE:
            return _OTHER
        else:
            wide = symbols[symbol, _SIZE]
        at = skip(buf, at, end)
        num_angles = NUM_ANGLES[code]
        if num_angles > 0:
            at, status, forms, terms = scan_angles(
                buf,
                at,
                end,
                slots,
                symbols,
                names,
                state,
                given,
                out.frac,
                out.rem,
                out.form,
                out.indptr,
                out.col,
                out.coef,
                num_angles - (1 if kind == _U2 or kind == _CU3 else 0),
                angles + (1 if kind == _U2 else 0),
                forms,
                terms,
            )
            if status != OK:
                return _NUMBER if status == ASK else _FULL if status == GROW else _OTHER
        at, status, count = scan_operands(buf, at, end, slots, symbols, names, out.operand)
        if status != OK:
            return _FULL if status == GROW else _OTHER
        if code == _GPHASE:
            if count != 0:
                return _OTHER
            state[_GIVEN] = 0
            state[_AT] = at
            if out.form[angles] >= 0:
                return _PHASE
            units = state[_UNITS] + out.frac[angles]
            state[_UNITS] = ((units + _HALF_TURN) & _TURN_MASK) - _HALF_TURN
            out.phase[0] += out.rem[angles]
            continue
        copies = 1
        if NUM_QUBITS[code] < 0:
            total = 0
            for k in range(count):
                total += max(1, out.operand[2 * k + 1])
                if code == _MCX and out.operand[2 * k + 1] >= 0:
                    return _OTHER
            if code == _BARRIER and count == 0 and state[_VERSION] == 3:
                total = state[_NUM_QUBITS]
            if total == 0 or (wide >= 0 and count != wide):
                return _OTHER
            extra = state[_EXTRA]
            if extra + total > out.extra.size:
                return _FULL
            extra = emit_wide(out, table, gate, extra, count, state[_NUM_QUBITS], begin + 1)
            if extra < 0:
                return _OTHER
            out.code[gate] = code
            out.angle[gate] = -1
            state[_EXTRA] = extra
        else:
            if count != NUM_QUBITS[code]:
                return _OTHER
            size = -1
            for k in range(count):
                other = out.operand[2 * k + 1]
                if other >= 0 and size >= 0 and other != size:
                    return _OTHER
                size = max(size, other)
            copies = max(1, size)
            if gate + copies > out.code.size or angles + copies * num_angles > out.frac.size:
                return _FULL
            if not emit_gates(out, code, count, copies, num_angles, gate, angles):
                return _OTHER
        state[_GATES] = gate + copies
        state[_ANGLES] = angles + copies * num_angles
        state[_FORMS] = forms
        state[_TERMS] = terms
        state[_GIVEN] = 0
        state[_AT] = at
