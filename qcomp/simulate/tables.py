"""Compiled kernels that make the tables of a plan: products of gates, monomial layers, bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.kernels import kernel

__all__ = [
    "apply_diagonal",
    "apply_flip",
    "chain_gradients",
    "cycles",
    "fuse",
    "layer_diagonals",
    "odd",
    "picked",
    "spread",
]

States = NDArray[np.complex128]
Ints = NDArray[np.int64]


def apply_flip(state: States, mask: int, target: int) -> None:
    """Swap the pair of the target where all bits of ``mask`` are 1."""
    stride = 1 << target
    for base in range(0, len(state), 2 * stride):
        for i in range(base, base + stride):
            if i & mask == mask:
                a = state[i]
                state[i] = state[i + stride]
                state[i + stride] = a


def picked(i: int, wide: Ints, start: int, count: int) -> int:
    """Return the bits of ``i`` at the operands, operand 0 lowest."""
    index = 0
    for k in range(count):
        index |= ((i >> wide[start + k]) & 1) << k
    return index


def apply_diagonal(state: States, wide: Ints, start: int, count: int, c: States, at: int) -> None:
    """Multiply each amplitude by the coefficient that its operand bits pick."""
    if count == 0:
        for i in range(len(state)):
            state[i] *= c[at]
    elif count == 1:
        stride = 1 << wide[start]
        low, high = c[at], c[at + 1]
        for base in range(0, len(state), 2 * stride):
            for i in range(base, base + stride):
                state[i] *= low
            for i in range(base + stride, base + 2 * stride):
                state[i] *= high
    else:
        for i in range(len(state)):
            state[i] *= c[at + picked(i, wide, start, count)]


def _apply_flip_index(source: NDArray[np.int32], mask: int, target: int) -> None:
    """Swap the pair of the target where all bits of ``mask`` are 1, of whole numbers."""
    stride = 1 << target
    for i in range(len(source)):
        if i & stride == 0 and i & mask == mask:
            a = source[i]
            source[i] = source[i + stride]
            source[i + stride] = a


def spread(i: int, wide: Ints, start: int, count: int) -> int:
    """Return the index whose bits at the operands are ``i``'s low bits and all others 0."""
    index = 0
    for k in range(count):
        index |= ((i >> k) & 1) << wide[start + k]
    return index


def _product_diagonal(factors: States, out: States) -> None:
    """Set the diagonal of a product of one-qubit diagonals, complex128[n, 2]."""
    out[0] = 1.0
    for q in range(len(factors)):
        size = 1 << q
        for i in range(size):
            out[i + size] = out[i] * factors[q, 1]
            out[i] *= factors[q, 0]


@kernel(calls=(apply_flip, picked, apply_diagonal, _product_diagonal))
def layer_diagonals(
    start: States,
    end: States,
    kind: NDArray[np.int8],
    first: Ints,
    second: Ints,
    place: Ints,
    bounds: Ints,
    wide: Ints,
    constants: States,
    out: States,
) -> None:
    """Set out[l, i] to what monomial layer l multiplies the amplitude that arrives at i by.

    Args:
        start: Diagonals of each qubit at the layer's start, complex128[layers, n, 2].
        end: Those at its end.
        kind: FLIP or DIAG, of the plan's steps.
        first: Of the plan's steps.
        second: Of the plan's steps.
        place: Of the plan's steps.
        bounds: First step of each layer.
        wide: The plan's field.
        constants: Of the values.
        out: complex128[layers, 2^n].
    """
    work = np.zeros(out.shape[1], dtype=np.complex128)
    for layer in range(len(out)):
        state = out[layer]
        _product_diagonal(start[layer], state)
        for k in range(bounds[layer], bounds[layer + 1]):
            if kind[k] == 0:
                apply_flip(state, first[k], second[k])
            else:
                apply_diagonal(state, wide, first[k], second[k], constants, place[k])
        _product_diagonal(end[layer], work)
        for i in range(len(state)):
            state[i] *= work[i]


@kernel(calls=(_apply_flip_index,))
def cycles(
    kind: NDArray[np.int8],
    first: Ints,
    second: Ints,
    source: NDArray[np.int32],
    out: NDArray[np.int32],
) -> None:
    """Set ``out`` to the cycles along which flips move amplitudes.

    ``c_k`` takes the amplitude of ``c_(k+1)`` and the last of a cycle, written as its complement,
    that of the first.

    Args:
        kind: Of the steps of one layer.
        first: Of the steps.
        second: Of the steps.
        source: Room for int32[2^n].
        out: int32[2^n].
    """
    for i in range(len(source)):
        source[i] = i
    for k in range(len(kind)):
        if kind[k] == 0:
            _apply_flip_index(source, first[k], second[k])
    at = 0
    for i in range(len(source)):
        if source[i] < 0:
            continue
        j = i
        while True:
            after = source[j]
            source[j] = -1
            if after == i:
                out[at] = ~j
                at += 1
                break
            out[at] = j
            at += 1
            j = after


@kernel()
def fuse(
    chain: Ints,
    varies: NDArray[np.bool_],
    place: Ints,
    one: States,
    many: States,
    fixed: States,
    varying: States,
) -> None:
    """Multiply the one-qubit gates of each chain.

    Args:
        chain: Gates, first one first, -1 where there are no more, int64[f, d].
        varies: Whether a product differs from row to row, bool[f].
        place: First coefficient of each product.
        one: Matrices of the gates that do not vary, complex128[g, 2, 2].
        many: The others, complex128[B, h, 2, 2]; their numbers start at g.
        fixed: Set to the products that do not vary, complex128[f, 2, 2].
        varying: Set to the others' coefficients, complex128[B, v].
    """
    for f in range(len(chain)):
        for row in range(len(many) if varies[f] else 1):
            a, b, c, d = 1 + 0j, 0j, 0j, 1 + 0j
            for k in range(chain.shape[1]):
                g = chain[f, k]
                if g < 0:
                    break
                if g < len(one):
                    p, q, r, s = one[g, 0, 0], one[g, 0, 1], one[g, 1, 0], one[g, 1, 1]
                else:
                    h = g - len(one)
                    p, q = many[row, h, 0, 0], many[row, h, 0, 1]
                    r, s = many[row, h, 1, 0], many[row, h, 1, 1]
                a, b, c, d = p * a + q * c, p * b + q * d, r * a + s * c, r * b + s * d
            if not varies[f]:
                fixed[f, 0, 0], fixed[f, 0, 1], fixed[f, 1, 0], fixed[f, 1, 1] = a, b, c, d
                continue
            at = place[f]
            varying[row, at], varying[row, at + 3] = a, d
            varying[row, at + 1], varying[row, at + 2] = b, c


def odd(bits: int) -> int:
    """Return the parity of the ones in ``bits``, below 2^32."""
    bits ^= bits >> 16
    bits ^= bits >> 8
    bits ^= bits >> 4
    bits ^= bits >> 2
    bits ^= bits >> 1
    return bits & 1


@kernel()
def chain_gradients(
    chain: Ints,
    varies: NDArray[np.bool_],
    left: States,
    one: States,
    many: States,
    one_slopes: States,
    many_slopes: States,
    one_entry: Ints,
    many_entry: Ints,
    moments: NDArray[np.float64],
    gradient: NDArray[np.float64],
) -> None:
    """Set the gradient in the angles of fused one-qubit gates.

    With ``U = A_m ... A_1`` and ``S = A_m ... A_(j+1)``, ``dU U^-1 = S (dA_j A_j^-1) S^-1`` is
    ``-i/2 (v_x X + v_y Y + v_z Z)`` up to a phase, and the gradient is ``v`` times the moments.

    Args:
        chain: Gates of each product, int64[f, d].
        varies: Whether it differs from row to row, bool[f].
        left: The diagonal that follows where the moments are taken, complex128[f, 2].
        one: Matrices of the gates that do not vary, complex128[g, 2, 2].
        many: The others, complex128[B, h, 2, 2].
        one_slopes: ``dA A^-1`` for each angle, complex128[g, k, 2, 2].
        many_slopes: complex128[B, h, k, 2, 2].
        one_entry: First angle entry of each gate, -1 for none, int64[g].
        many_entry: Of those that vary, int64[h].
        moments: Im <lam| X, Y, Z |psi>, float64[B, f, 3].
        gradient: dE/dangle, float64[B, m]; set at the gates' entries.
    """
    rows = len(moments)
    angles = one_slopes.shape[1]
    for f in range(len(chain)):
        turn = left[f, 0].conjugate() * left[f, 1]
        for row in range(rows if varies[f] else 1):
            a, b, c, d = 1 + 0j, 0j, 0j, 1 + 0j
            for at in range(chain.shape[1] - 1, -1, -1):
                g = chain[f, at]
                if g < 0:
                    continue
                if g < len(one):
                    matrix, slopes, entry = one[g], one_slopes[g], one_entry[g]
                else:
                    h = g - len(one)
                    matrix, slopes, entry = many[row, h], many_slopes[row, h], many_entry[h]
                for k in range(angles if entry >= 0 else 0):
                    p, q, r, s = slopes[k, 0, 0], slopes[k, 0, 1], slopes[k, 1, 0], slopes[k, 1, 1]
                    if p == 0 and q == 0 and r == 0 and s == 0:
                        continue
                    ap, aq = a * p + b * r, a * q + b * s
                    cp, cq = c * p + d * r, c * q + d * s
                    k00 = ap * a.conjugate() + aq * b.conjugate()
                    k11 = cp * c.conjugate() + cq * d.conjugate()
                    k01 = (ap * c.conjugate() + aq * d.conjugate()) * turn
                    x, y, z = -2 * k01.imag, -2 * k01.real, k11.imag - k00.imag
                    for i in range(row if varies[f] else 0, row + 1 if varies[f] else rows):
                        g3 = moments[i, f]
                        gradient[i, entry + k] = x * g3[0] + y * g3[1] + z * g3[2]
                p, q, r, s = matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]
                a, b, c, d = a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s
