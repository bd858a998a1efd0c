"""Compiled kernels over many rows of one circuit at once.

``LANES`` rows lie side by side: amplitude i of a block is ``LANES`` real parts and then as many
imaginary ones, so that every step is the same short vector operation whatever qubit it acts on. A
block's whole run is applied before the next block is touched. The operations are those of
:mod:`qcomp.simulate.plan`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.kernels import kernel
from qcomp.simulate.tables import odd, picked, spread

__all__ = [
    "LANES",
    "STEP",
    "STEPS",
    "apply_step",
    "forward_lanes",
    "read_rows",
    "rotate",
    "scaled",
    "spread_constants",
    "spread_rows",
]

LANES = 8
"""Rows in flight."""

STEP = 2 * LANES

Reals = NDArray[np.float64]
States = NDArray[np.complex128]
Ints = NDArray[np.int64]


def rotate(buf: Reals, target: int, c: float, s: float) -> None:
    """Apply [[c, -s], [s, c]] to the target."""
    width = STEP << target
    for base in range(0, len(buf), 2 * width):
        x = buf[base : base + width]
        y = buf[base + width : base + 2 * width]
        for r in range(width):
            a, b = x[r], y[r]
            x[r] = c * a - s * b
            y[r] = s * a + c * b


def _pair(buf: Reals, mask: int, target: int, w: Reals) -> None:
    """Apply the 2 x 2 matrices ``w``, float64[4 STEP], to the target where ``mask`` is 1."""
    stride = 1 << target
    size = len(buf) // STEP
    for base in range(0, size, 2 * stride):
        for i in range(base, base + stride):
            if i & mask == mask:
                j = i + stride
                x = buf[i * STEP : (i + 1) * STEP]
                y = buf[j * STEP : (j + 1) * STEP]
                for r in range(LANES):
                    ar, ai, br, bi = x[r], x[LANES + r], y[r], y[LANES + r]
                    pr, pi = w[r], w[LANES + r]
                    qr, qi = w[2 * LANES + r], w[3 * LANES + r]
                    x[r] = pr * ar - pi * ai + qr * br - qi * bi
                    x[LANES + r] = pr * ai + pi * ar + qr * bi + qi * br
                    pr, pi = w[4 * LANES + r], w[5 * LANES + r]
                    qr, qi = w[6 * LANES + r], w[7 * LANES + r]
                    y[r] = pr * ar - pi * ai + qr * br - qi * bi
                    y[LANES + r] = pr * ai + pi * ar + qr * bi + qi * br


def _diagonal(buf: Reals, wide: Ints, start: int, count: int, w: Reals) -> None:
    """Multiply each amplitude by the coefficients that its operand bits pick."""
    for i in range(len(buf) // STEP):
        at = picked(i, wide, start, count) * STEP
        x = buf[i * STEP : (i + 1) * STEP]
        c = w[at : at + STEP]
        for r in range(LANES):
            a, b = x[r], x[LANES + r]
            x[r] = c[r] * a - c[LANES + r] * b
            x[LANES + r] = c[r] * b + c[LANES + r] * a


def _dense(buf: Reals, wide: Ints, start: int, count: int, w: Reals, work: Reals) -> None:
    """Apply 2^k x 2^k matrices to k operands; ``work`` holds 2^k amplitudes."""
    size = 1 << count
    mask = spread(size - 1, wide, start, count)
    for base in range(len(buf) // STEP):
        if base & mask == 0:
            for j in range(size):
                at = (base | spread(j, wide, start, count)) * STEP
                work[j * STEP : (j + 1) * STEP] = buf[at : at + STEP]
            for row in range(size):
                at = (base | spread(row, wide, start, count)) * STEP
                x = buf[at : at + STEP]
                x[:] = 0.0
                for j in range(size):
                    c = w[(row * size + j) * STEP : (row * size + j + 1) * STEP]
                    y = work[j * STEP : (j + 1) * STEP]
                    for r in range(LANES):
                        x[r] += c[r] * y[r] - c[LANES + r] * y[LANES + r]
                        x[LANES + r] += c[r] * y[LANES + r] + c[LANES + r] * y[r]


def scaled(x: Reals, y: Reals, re: float, im: float) -> None:
    """Set ``x`` to ``(re + i im) y``; they may be one."""
    for r in range(LANES):
        a, b = y[r], y[LANES + r]
        x[r] = re * a - im * b
        x[LANES + r] = re * b + im * a


def _move(buf: Reals, moves: NDArray[np.int32], diagonal: States, kept: Reals) -> None:
    """Move amplitudes along their cycles, each times the diagonal where it arrives."""
    opened = True
    first = 0
    into = 0
    for k in range(len(moves)):
        i = moves[k]
        closes = i < 0
        if closes:
            i = ~i
        x = buf[i * STEP : (i + 1) * STEP]
        if opened:
            first = i
            if not closes:
                kept[:] = x
        else:
            d = diagonal[into]
            scaled(buf[into * STEP : (into + 1) * STEP], x, d.real, d.imag)
        if closes:
            d = diagonal[i]
            if i == first:
                if d != 1.0:
                    scaled(x, x, d.real, d.imag)
            else:
                scaled(x, kept, d.real, d.imag)
        opened = closes
        into = i


def _product(buf: Reals, prefix: int, second: Ints, at: Ints, w: Reals, work: Reals) -> None:
    """Set the product of the first columns of the prefix's matrices; other qubits are |0>."""
    n = 0
    while STEP << n < len(buf):
        n += 1
    buf[:STEP] = 0.0
    buf[:LANES] = 1.0
    for q in range(n):
        found = -1
        for k in range(prefix):
            if second[k] == q:
                found = at[k]
        size = 1 << q
        if found < 0:
            buf[size * STEP : 2 * size * STEP] = 0.0
            continue
        low = w[found * STEP : (found + 1) * STEP]
        high = w[(found + 2) * STEP : (found + 3) * STEP]
        for i in range(size):
            x = buf[i * STEP : (i + 1) * STEP]
            y = buf[(i + size) * STEP : (i + size + 1) * STEP]
            for r in range(LANES):
                a, b = x[r], x[LANES + r]
                y[r] = high[r] * a - high[LANES + r] * b
                y[LANES + r] = high[r] * b + high[LANES + r] * a
                x[r] = low[r] * a - low[LANES + r] * b
                x[LANES + r] = low[r] * b + low[LANES + r] * a


def spread_rows(w: Reals, at: int, values: States, start: int) -> None:
    """Put coefficients complex128[B, v] of the rows from ``start`` on into the lanes."""
    last = len(values) - 1
    for r in range(LANES):
        row = min(start + r, last)
        for k in range(values.shape[1]):
            c = values[row, k]
            w[(at + k) * STEP + r] = c.real
            w[(at + k) * STEP + LANES + r] = c.imag


def spread_constants(w: Reals, values: States) -> None:
    """Put coefficients complex128[v] into all lanes."""
    for k in range(len(values)):
        w[k * STEP : k * STEP + LANES] = values[k].real
        w[k * STEP + LANES : (k + 1) * STEP] = values[k].imag


def read_rows(buf: Reals, states: States, start: int) -> None:
    """Put rows of states into the lanes."""
    last = len(states) - 1
    for r in range(LANES):
        state = states[min(start + r, last)]
        for i in range(len(state)):
            buf[i * STEP + r] = state[i].real
            buf[i * STEP + LANES + r] = state[i].imag


def _write(buf: Reals, states: States, start: int) -> None:
    """Put the lanes into rows of states."""
    for r in range(min(LANES, len(states) - start)):
        state = states[start + r]
        for i in range(len(state)):
            state[i] = complex(buf[i * STEP + r], buf[i * STEP + LANES + r])


def _word(buf: Reals, x: int, z: int, factor: complex, total: Reals) -> None:
    """Set ``total`` to the expectation value of one Pauli word in each lane."""
    total[:] = 0.0
    size = len(buf) // STEP
    if x == 0:
        for i in range(size):
            a = buf[i * STEP : (i + 1) * STEP]
            sign = -1.0 if odd(i & z) else 1.0
            for r in range(LANES):
                total[r] += sign * (a[r] * a[r] + a[LANES + r] * a[LANES + r])
        return
    for i in range(size):
        j = i ^ x
        if i < j:
            a = buf[i * STEP : (i + 1) * STEP]
            b = buf[j * STEP : (j + 1) * STEP]
            sign = -2.0 if odd(i & z) else 2.0
            re, im = sign * factor.real, sign * factor.imag
            for r in range(LANES):
                u = a[r] * b[r] + a[LANES + r] * b[LANES + r]
                v = a[LANES + r] * b[r] - a[r] * b[LANES + r]
                total[r] += re * u - im * v


def apply_step(
    buf: Reals,
    kind: int,
    first: int,
    second: int,
    wide: Ints,
    w: Reals,
    at: int,
    work: Reals,
) -> None:
    """Apply one operation with coefficients in lanes."""
    c = w[at * STEP :]
    if kind == 1:
        _pair(buf, first, second, c)
    elif kind == 2:
        _diagonal(buf, wide, first, second, c)
    else:
        _dense(buf, wide, first, second, c, work)


STEPS = (
    odd,
    picked,
    spread,
    rotate,
    _pair,
    _diagonal,
    _dense,
    scaled,
    spread_rows,
    spread_constants,
    read_rows,
    apply_step,
)
"""What the kernels of both directions call."""


@kernel(calls=(*STEPS, _move, _product, _write, _word))
def forward_lanes(
    starts: States,
    skip: int,
    kind: NDArray[np.int8],
    first: Ints,
    second: Ints,
    place: Ints,
    at: Ints,
    wide: Ints,
    turns: Reals,
    moves: NDArray[np.int32],
    diagonals: States,
    constants: States,
    varying: States,
    x: Ints,
    z: Ints,
    factor: States,
    states: States,
    words: Reals,
) -> None:
    """Apply a plan to a batch of rows; give their states, or expectation values of words.

    Args:
        starts: States to start from, complex128[B, 2^n]; none where the start is |0...0>.
        skip: Operations of the prefix, made into a product state where there are no ``starts``.
        kind: The plan's field.
        first: The plan's field.
        second: The plan's field.
        place: The plan's field.
        at: First coefficient of an operation in the lanes, those that vary after the others.
        wide: The plan's field.
        turns: Of the values.
        moves: The plan's field.
        diagonals: What each monomial layer multiplies by, complex128[layers, 2^n].
        constants: Of the values.
        varying: Of the values.
        x: Of the words, int64[T]; see :func:`qcomp.simulate.kernels.pauli_rows`.
        z: Of the words.
        factor: Of the words.
        states: Set to the final states, complex128[B, 2^n]; or complex128[0, 2^n].
        words: Set to the words' values, float64[B, T].
    """
    rows = len(varying)
    buf = np.zeros(STEP * states.shape[1])
    width = len(constants)
    w = np.zeros(STEP * (width + varying.shape[1] + 4))
    work = np.zeros(8 * STEP)
    total = np.zeros(LANES)
    spread_constants(w, constants)
    for start in range(0, rows, LANES):
        spread_rows(w, width, varying, start)
        begin = 0
        if len(starts):
            read_rows(buf, starts, start)
        else:
            _product(buf, skip, second, at, w, work)
            begin = skip
        for k in range(begin, len(kind)):
            if kind[k] == 4:
                c, s = turns[place[k], 0], turns[place[k], 1]
                if s != 0.0 or c != 1.0:
                    rotate(buf, second[k], c, s)
            elif kind[k] == 5:
                _move(buf, moves[place[k]], diagonals[place[k]], work[:STEP])
            else:
                apply_step(buf, kind[k], first[k], second[k], wide, w, at[k], work)
        for t in range(len(x)):
            _word(buf, x[t], z[t], factor[t], total)
            for r in range(min(LANES, rows - start)):
                words[start + r, t] = total[r]
        if len(states):
            _write(buf, states, start)
