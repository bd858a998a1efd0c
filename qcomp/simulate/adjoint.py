"""The backward sweep of a plan over many rows at once; see :mod:`qcomp.simulate.lanes`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.kernels import kernel
from qcomp.simulate.lanes import (
    LANES,
    STEP,
    STEPS,
    apply_step,
    read_rows,
    rotate,
    scaled,
    spread_constants,
    spread_rows,
)
from qcomp.simulate.tables import odd, picked, spread

__all__ = ["adjoint_lanes"]

Reals = NDArray[np.float64]
States = NDArray[np.complex128]
Ints = NDArray[np.int64]


def _move_back(buf: Reals, moves: NDArray[np.int32], diagonal: States, kept: Reals) -> None:
    """Undo :func:`qcomp.simulate.lanes.forward_lanes`'s move along the cycles."""
    last = 0
    after = 0
    for k in range(len(moves) - 1, -1, -1):
        i = moves[k]
        closes = i < 0
        if closes:
            i = ~i
        x = buf[i * STEP : (i + 1) * STEP]
        opens = k == 0 or moves[k - 1] < 0
        if closes:
            last = i
            if not opens:
                kept[:] = x
        else:
            d = diagonal[i]
            scaled(buf[after * STEP : (after + 1) * STEP], x, d.real, -d.imag)
        if opens:
            d = diagonal[last]
            if closes:
                if d != 1.0:
                    scaled(x, x, d.real, -d.imag)
            else:
                scaled(x, kept, d.real, -d.imag)
        after = i


def _observed(
    psi: Reals, lam: Reals, x: Ints, z: Ints, factor: States, weight: Reals, total: Reals
) -> None:
    """Set ``lam`` to ``sum_t weight[t] P_t psi``, weight float64[T LANES]."""
    size = len(psi) // STEP
    for i in range(size):
        total[:] = 0.0
        for t in range(len(x)):
            if x[t] == 0:
                sign = -1.0 if odd(i & z[t]) else 1.0
                for r in range(LANES):
                    total[r] += sign * weight[t * LANES + r]
        a = psi[i * STEP : (i + 1) * STEP]
        b = lam[i * STEP : (i + 1) * STEP]
        for r in range(LANES):
            b[r] = total[r] * a[r]
            b[LANES + r] = total[r] * a[LANES + r]
    for t in range(len(x)):
        if x[t] == 0:
            continue
        scale = weight[t * LANES : (t + 1) * LANES]
        for i in range(size):
            sign = -1.0 if odd(i & z[t]) else 1.0
            re, im = sign * factor[t].real, sign * factor[t].imag
            a = psi[i * STEP : (i + 1) * STEP]
            j = i ^ x[t]
            b = lam[j * STEP : (j + 1) * STEP]
            for r in range(LANES):
                b[r] += scale[r] * (re * a[r] - im * a[LANES + r])
                b[LANES + r] += scale[r] * (re * a[LANES + r] + im * a[r])


def _moments(lam: Reals, psi: Reals, target: int, g: Reals) -> None:
    """Set ``g`` to Im <lam| X, Y, Z |psi> on the target, float64[3 LANES]."""
    g[:] = 0.0
    stride = 1 << target
    for base in range(0, len(psi) // STEP, 2 * stride):
        for i in range(base, base + stride):
            j = i + stride
            a = lam[i * STEP : (i + 1) * STEP]
            b = lam[j * STEP : (j + 1) * STEP]
            p = psi[i * STEP : (i + 1) * STEP]
            q = psi[j * STEP : (j + 1) * STEP]
            for r in range(LANES):
                ar, ai, br, bi = a[r], a[LANES + r], b[r], b[LANES + r]
                pr, pi, qr, qi = p[r], p[LANES + r], q[r], q[LANES + r]
                g[r] += ar * qi - ai * qr + br * pi - bi * pr
                g[LANES + r] += br * pr + bi * pi - ar * qr - ai * qi
                g[2 * LANES + r] += ar * pi - ai * pr - br * qi + bi * qr


def _overlap(
    lam: Reals, psi: Reals, kind: int, first: int, second: int, wide: Ints, out: Reals
) -> None:
    """Set out[c] = d<lam|step|psi>/d(coefficient c) in each lane."""
    size = len(psi) // STEP
    count = 4 if kind == 1 else (1 << second if kind == 2 else 1 << (2 * second))
    out[: count * STEP] = 0.0
    if kind == 2:
        for i in range(size):
            at = picked(i, wide, first, second) * STEP
            _overlapped(lam, i, psi, i, out[at : at + STEP])
        return
    full = 1 << second
    half = 2 if kind == 1 else full
    mask = full if kind == 1 else spread(full - 1, wide, first, second)
    must = first if kind == 1 else 0
    for base in range(size):
        if base & mask == 0 and base & must == must:
            for row in range(half):
                i = base | (row << second if kind == 1 else spread(row, wide, first, second))
                for column in range(half):
                    j = column << second if kind == 1 else spread(column, wide, first, second)
                    at = (row * half + column) * STEP
                    _overlapped(lam, i, psi, base | j, out[at : at + STEP])


def _overlapped(lam: Reals, i: int, psi: Reals, j: int, out: Reals) -> None:
    """Add ``conj(lam_i) psi_j`` to ``out``."""
    a = lam[i * STEP : (i + 1) * STEP]
    p = psi[j * STEP : (j + 1) * STEP]
    for r in range(LANES):
        out[r] += a[r] * p[r] + a[LANES + r] * p[LANES + r]
        out[LANES + r] += a[r] * p[LANES + r] - a[LANES + r] * p[r]


@kernel(calls=(*STEPS, _move_back, _observed, _moments, _overlapped, _overlap))
def adjoint_lanes(
    states: States,
    weights: Reals,
    x: Ints,
    z: Ints,
    factor: States,
    kind: NDArray[np.int8],
    first: Ints,
    second: Ints,
    place: Ints,
    at: Ints,
    fused: Ints,
    wide: Ints,
    turns: Reals,
    moves: NDArray[np.int32],
    diagonals: States,
    constants: States,
    varying: States,
    stop: int,
    moments: Reals,
    overlaps: States,
) -> None:
    """Walk a plan backwards and collect what its gradient is made of (arXiv:2009.02823).

    Args:
        states: Final states, complex128[B, 2^n].
        weights: Of the words, float64[B, T]; of the amplitudes' squares, float64[B, 2^n], where
            there are no words.
        x: Of the words, int64[T].
        z: Of the words.
        factor: Of the words.
        kind: The plan's field.
        first: The plan's field.
        second: The plan's field.
        place: The plan's field.
        at: First coefficient of an operation in the lanes.
        fused: The plan's field.
        wide: The plan's field.
        turns: Of the values.
        moves: The plan's field.
        diagonals: Of the forward monomial layers.
        constants: Of the inverse values.
        varying: Of the inverse values.
        stop: Operations at the start, all fused, that need not be undone.
        moments: Set to Im <lam| X, Y, Z |psi> behind each fused matrix, float64[B, f, 3].
        overlaps: Set to d<lam|operation|psi>/d(coefficient) of the others, complex128[B, w + v].
    """
    rows = len(varying)
    size = states.shape[1]
    psi = np.zeros(STEP * size)
    lam = np.zeros(STEP * size)
    width = len(constants)
    w = np.zeros(STEP * (width + varying.shape[1] + 4))
    work = np.zeros(8 * STEP)
    g = np.zeros(64 * STEP)
    weight = np.zeros(LANES * weights.shape[1])
    total = np.zeros(LANES)
    spread_constants(w, constants)
    for start in range(0, rows, LANES):
        most = min(LANES, rows - start)
        spread_rows(w, width, varying, start)
        read_rows(psi, states, start)
        for r in range(LANES):
            for t in range(weights.shape[1]):
                weight[t * LANES + r] = weights[min(start + r, rows - 1), t]
        if len(x):
            _observed(psi, lam, x, z, factor, weight, total)
        else:
            for i in range(size):
                for r in range(LANES):
                    lam[i * STEP + r] = weight[i * LANES + r] * psi[i * STEP + r]
                    lam[i * STEP + LANES + r] = weight[i * LANES + r] * psi[i * STEP + LANES + r]
        for k in range(len(kind) - 1, -1, -1):
            a, b = first[k], second[k]
            if kind[k] == 5:
                _move_back(psi, moves[place[k]], diagonals[place[k]], work[:STEP])
                _move_back(lam, moves[place[k]], diagonals[place[k]], work[:STEP])
                continue
            f = fused[k]
            if f >= 0:
                _moments(lam, psi, b, g[: 3 * LANES])
                for r in range(most):
                    for axis in range(3):
                        moments[start + r, f, axis] = g[axis * LANES + r]
                if k < stop:
                    continue
                if kind[k] == 4:
                    c, s = turns[place[k], 0], turns[place[k], 1]
                    rotate(psi, b, c, -s)
                    rotate(lam, b, c, -s)
                else:
                    apply_step(psi, 1, a, b, wide, w, at[k], work)
                    apply_step(lam, 1, a, b, wide, w, at[k], work)
                continue
            apply_step(psi, kind[k], a, b, wide, w, at[k], work)
            _overlap(lam, psi, kind[k], a, b, wide, g)
            count = 4 if kind[k] == 1 else (1 << b if kind[k] == 2 else 1 << (2 * b))
            for r in range(most):
                for c in range(count):
                    overlaps[start + r, at[k] + c] = complex(
                        g[c * STEP + r], g[c * STEP + LANES + r]
                    )
            apply_step(lam, kind[k], a, b, wide, w, at[k], work)
