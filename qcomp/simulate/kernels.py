"""Compiled statevector kernels over a batch of rows, complex128[B, 2^n].

Each row's whole run is applied before the next row is touched, so that a small state stays in the
processor's cache. The steps are those of :mod:`qcomp.simulate.tape`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.kernels import kernel
from qcomp.simulate.tables import apply_diagonal, apply_flip, odd, picked, spread

__all__ = ["adjoint_rows", "apply_rows", "pauli_rows", "weighted_pauli_rows"]

States = NDArray[np.complex128]
Ints = NDArray[np.int64]


def _apply_pair(state: States, mask: int, target: int, c: States, at: int) -> None:
    """Apply the 2 x 2 matrix c[at:at+4] to the target where all bits of ``mask`` are 1."""
    c00, c01, c10, c11 = c[at], c[at + 1], c[at + 2], c[at + 3]
    stride = 1 << target
    for base in range(0, len(state), 2 * stride):
        if mask == 0:
            for i in range(base, base + stride):
                a, b = state[i], state[i + stride]
                state[i] = c00 * a + c01 * b
                state[i + stride] = c10 * a + c11 * b
        else:
            for i in range(base, base + stride):
                if i & mask == mask:
                    a, b = state[i], state[i + stride]
                    state[i] = c00 * a + c01 * b
                    state[i + stride] = c10 * a + c11 * b


def _apply_dense(
    state: States, wide: Ints, start: int, count: int, c: States, at: int, work: States
) -> None:
    """Apply a 2^k x 2^k matrix to k operands; ``work`` holds 2^k amplitudes."""
    size = 1 << count
    mask = spread(size - 1, wide, start, count)
    for base in range(len(state)):
        if base & mask == 0:
            for j in range(size):
                work[j] = state[base | spread(j, wide, start, count)]
            for r in range(size):
                total = 0j
                for j in range(size):
                    total += c[at + r * size + j] * work[j]
                state[base | spread(r, wide, start, count)] = total


def _apply_step(
    state: States,
    kind: int,
    first: int,
    second: int,
    wide: Ints,
    c: States,
    at: int,
    work: States,
) -> None:
    """Apply one step; kinds are 0 FLIP, 1 PAIR, 2 DIAG, 3 DENSE."""
    if kind == 0:
        apply_flip(state, first, second)
    elif kind == 1:
        _apply_pair(state, first, second, c, at)
    elif kind == 2:
        apply_diagonal(state, wide, first, second, c, at)
    else:
        _apply_dense(state, wide, first, second, c, at, work)


_STEP = (_apply_pair, apply_flip, picked, apply_diagonal, spread, _apply_dense, _apply_step)


@kernel(calls=_STEP)
def apply_rows(
    states: States,
    kind: NDArray[np.int8],
    first: Ints,
    second: Ints,
    offset: Ints,
    varies: NDArray[np.bool_],
    wide: Ints,
    constants: States,
    coefficients: States,
) -> None:
    """Apply the steps to every row of ``states``, complex128[B, 2^n], in place.

    Args:
        states: The rows.
        kind: The tape's field.
        first: The tape's field.
        second: The tape's field.
        offset: The tape's field.
        varies: The tape's field.
        wide: The tape's field.
        constants: The tape's field.
        coefficients: Of the steps that vary, complex128[B, width].
    """
    work = np.zeros(32, dtype=np.complex128)
    for row in range(len(states)):
        state = states[row]
        own = coefficients[row]
        for i in range(len(kind)):
            if varies[i]:
                _apply_step(state, kind[i], first[i], second[i], wide, own, offset[i], work)
            else:
                _apply_step(state, kind[i], first[i], second[i], wide, constants, offset[i], work)


def _overlap_step(
    left: States,
    right: States,
    kind: int,
    first: int,
    second: int,
    wide: Ints,
    out: States,
) -> None:
    """Set out[c] = d<left|step|right>/d(coefficient c) for the step's coefficients."""
    if kind == 1:
        m00 = m01 = m10 = m11 = 0j
        stride = 1 << second
        for base in range(0, len(left), 2 * stride):
            for i in range(base, base + stride):
                if i & first == first:
                    a, b = left[i].conjugate(), left[i + stride].conjugate()
                    p, q = right[i], right[i + stride]
                    m00 += a * p
                    m01 += a * q
                    m10 += b * p
                    m11 += b * q
        out[0], out[1], out[2], out[3] = m00, m01, m10, m11
    elif kind == 2:
        out[: 1 << second] = 0
        for i in range(len(left)):
            out[picked(i, wide, first, second)] += left[i].conjugate() * right[i]
    elif kind == 3:
        size = 1 << second
        out[: size * size] = 0
        mask = spread(size - 1, wide, first, second)
        for base in range(len(left)):
            if base & mask == 0:
                for r in range(size):
                    a = left[base | spread(r, wide, first, second)].conjugate()
                    for j in range(size):
                        out[r * size + j] += a * right[base | spread(j, wide, first, second)]


@kernel(calls=(*_STEP, _overlap_step))
def adjoint_rows(
    psi: States,
    lam: States,
    kind: NDArray[np.int8],
    first: Ints,
    second: Ints,
    offset: Ints,
    varies: NDArray[np.bool_],
    wide: Ints,
    inverse_constants: States,
    inverse_coefficients: States,
    derivatives: States,
    entry: Ints,
    gradient: NDArray[np.float64],
) -> None:
    """Walk the steps backwards and collect dE/dangle (arXiv:2009.02823, algorithm 1).

    Args:
        psi: Final states, complex128[B, 2^n]; undone in place.
        lam: The observable applied to them, complex128[B, 2^n]; undone in place.
        kind: The tape's field.
        first: The tape's field.
        second: The tape's field.
        offset: The tape's field.
        varies: The tape's field.
        wide: The tape's field.
        inverse_constants: The tape's field.
        inverse_coefficients: complex128[B, width].
        derivatives: complex128[B, K, width].
        entry: The tape's field.
        gradient: Added to at the angle entries, float64[B, m].
    """
    work = np.zeros(32, dtype=np.complex128)
    overlap = np.zeros(64, dtype=np.complex128)
    angles = derivatives.shape[1]
    for row in range(len(psi)):
        right, left = psi[row], lam[row]
        own = inverse_coefficients[row]
        for i in range(len(kind) - 1, -1, -1):
            k, a, b, at = kind[i], first[i], second[i], offset[i]
            if varies[i]:
                _apply_step(right, k, a, b, wide, own, at, work)
                _overlap_step(left, right, k, a, b, wide, overlap)
                size = 4 if k == 1 else (1 << b if k == 2 else 1 << (2 * b))
                for angle in range(angles):
                    total = 0.0
                    moved = False
                    for c in range(size):
                        d = derivatives[row, angle, at + c]
                        if d != 0:
                            moved = True
                            total += (d * overlap[c]).real
                    if moved:
                        gradient[row, entry[i] + angle] += 2.0 * total
                _apply_step(left, k, a, b, wide, own, at, work)
            else:
                _apply_step(right, k, a, b, wide, inverse_constants, at, work)
                _apply_step(left, k, a, b, wide, inverse_constants, at, work)


@kernel(calls=(odd,))
def pauli_rows(states: States, x: Ints, z: Ints, factor: States, out: NDArray[np.float64]) -> None:
    """Set out[b, t] = <state b| P_t |state b>.

    ``P_t |i> = factor_t (-1)^|i & z_t| |i ^ x_t>``.

    Args:
        states: complex128[B, 2^n].
        x: Bits where the words have X or Y, int64[T].
        z: Bits where the words have Z or Y, int64[T].
        factor: i to the number of Y, complex128[T].
        out: float64[B, T].
    """
    part = np.zeros(64)
    for row in range(len(states)):
        state = states[row]
        for t in range(len(x)):
            if x[t] == 0 and len(state) >= 64:
                part[:] = 0.0
                for base in range(0, len(state), 64):
                    sign = -1.0 if odd(base & z[t]) else 1.0
                    block = state[base : base + 64]
                    for i in range(64):
                        v = block[i]
                        part[i] += sign * (v.real * v.real + v.imag * v.imag)
                weight = 0.0
                for i in range(64):
                    weight += -part[i] if odd(i & z[t]) else part[i]
                out[row, t] = weight
            elif x[t] == 0:
                weight = 0.0
                for i in range(len(state)):
                    p = state[i].real * state[i].real + state[i].imag * state[i].imag
                    weight += -p if odd(i & z[t]) else p
                out[row, t] = weight
            else:
                total = 0j
                for i in range(len(state)):
                    v = state[i ^ x[t]].conjugate() * state[i]
                    total += -v if odd(i & z[t]) else v
                out[row, t] = (factor[t] * total).real


@kernel(calls=(odd,))
def weighted_pauli_rows(
    states: States, x: Ints, z: Ints, factor: States, weight: NDArray[np.float64], out: States
) -> None:
    """Set out[b] = sum_t weight[b, t] P_t |state b>; arguments as :func:`pauli_rows`."""
    for row in range(len(states)):
        state = states[row]
        target = out[row]
        target[:] = 0
        for t in range(len(x)):
            scale = factor[t] * weight[row, t]
            if scale != 0:
                for i in range(len(state)):
                    v = scale * state[i]
                    target[i ^ x[t]] += -v if odd(i & z[t]) else v
