"""Matrices of the gates, over arrays of angles. Operand 0 is the least significant bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Matrix", "MatrixFunction", "controlled", "fixed", "pauli_rotation", "phase", "r", "u"]

Matrix = NDArray[np.complex128]
MatrixFunction = Callable[..., Matrix]

PAULI: dict[str, Matrix] = {
    "I": np.eye(2, dtype=complex),
    "X": np.array([[0, 1], [1, 0]], dtype=complex),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]).astype(complex),
}


def fixed(*rows: ArrayLike) -> MatrixFunction:
    """Return a function of no angles that gives the matrix with these rows."""
    matrix: Matrix = np.array(rows, dtype=complex)
    return lambda: matrix


def controlled(target: MatrixFunction, controls: int = 1) -> MatrixFunction:
    """Return the matrix function with ``controls`` controls put before the target's operands.

    The controls are the operands 0 .. controls-1, the low bits of the index.
    """

    def matrix(*angles: ArrayLike) -> Matrix:
        inner = target(*angles)
        size = inner.shape[-1]
        out = np.zeros((*inner.shape[:-2], size << controls, size << controls), dtype=complex)
        out[..., :, :] = np.eye(size << controls)
        active = (np.arange(size) << controls) | ((1 << controls) - 1)
        out[..., active[:, None], active[None, :]] = inner
        return out

    return matrix


def pauli_rotation(word: str) -> MatrixFunction:
    """Return ``exp(-i theta/2 P)``; ``word[k]`` is the Pauli on operand k."""
    pauli: Matrix = PAULI[word[0]]
    for letter in word[1:]:
        pauli = np.kron(PAULI[letter], pauli).astype(complex)

    entries = [(row, int(np.flatnonzero(pauli[row])[0])) for row in range(len(pauli))]

    def matrix(theta: ArrayLike) -> Matrix:
        half = np.asarray(theta, dtype=float) / 2
        cosine, sine = np.cos(half), np.sin(half)
        result = np.zeros((*half.shape, len(pauli), len(pauli)), dtype=complex)
        for row, column in entries:
            result[..., row, row] = cosine
            result[..., row, column] += -1j * pauli[row, column] * sine
        return result

    return matrix


def phase(lam: ArrayLike) -> Matrix:
    """Return ``diag(1, exp(i lam))``."""
    lam = np.asarray(lam, dtype=float)
    out = np.zeros((*lam.shape, 2, 2), dtype=complex)
    out[..., 0, 0] = 1
    out[..., 1, 1] = np.exp(1j * lam)
    return out


def u(theta: ArrayLike, phi: ArrayLike, lam: ArrayLike) -> Matrix:
    """Return ``[[c, -e^(i lam) s], [e^(i phi) s, e^(i (phi + lam)) c]]``, c, s of theta/2."""
    theta, phi, lam = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (theta, phi, lam)))
    c, s = np.cos(theta / 2), np.sin(theta / 2)
    out = np.empty((*theta.shape, 2, 2), dtype=complex)
    out[..., 0, 0] = c
    out[..., 0, 1] = -np.exp(1j * lam) * s
    out[..., 1, 0] = np.exp(1j * phi) * s
    out[..., 1, 1] = np.exp(1j * (phi + lam)) * c
    return out


def cu_target(theta: ArrayLike, phi: ArrayLike, lam: ArrayLike, gamma: ArrayLike) -> Matrix:
    """Return ``e^(i gamma) u(theta, phi, lam)``, the block that ``cu`` controls."""
    result: Matrix = np.exp(1j * np.asarray(gamma, dtype=float))[..., None, None] * u(
        theta, phi, lam
    )
    return result


def r(theta: ArrayLike, phi: ArrayLike) -> Matrix:
    """Return ``exp(-i theta/2 (cos phi X + sin phi Y))``, also called prx."""
    phi = np.asarray(phi, dtype=float)
    return u(theta, phi - np.pi / 2, np.pi / 2 - phi)


def gpi(phi: ArrayLike) -> Matrix:
    """Return ``cos phi X + sin phi Y``, half a turn about an axis in the plane."""
    result: Matrix = 1j * r(np.pi, phi)
    return result


def gpi2(phi: ArrayLike) -> Matrix:
    """Return ``exp(-i pi/4 (cos phi X + sin phi Y))``, a quarter turn."""
    return r(np.pi / 2, phi)


def ms(phi0: ArrayLike, phi1: ArrayLike, theta: ArrayLike) -> Matrix:
    """Return ``exp(-i theta/2 A x B)``, A = gpi(phi0) on operand 0, B = gpi(phi1) on operand 1."""
    a, b = gpi(phi0), gpi(phi1)
    half = np.asarray(theta, dtype=float)[..., None, None] / 2
    both = b[..., :, None, :, None] * a[..., None, :, None, :]
    both = both.reshape(*both.shape[:-4], 4, 4)
    result: Matrix = np.cos(half) * np.eye(4) - 1j * np.sin(half) * both
    return result


def xy(theta: ArrayLike) -> Matrix:
    """Return ``exp(i theta/4 (XX + YY))``: iswap is at pi, its square root at pi/2."""
    half = np.asarray(theta, dtype=float) / 2
    out = np.zeros((*half.shape, 4, 4), dtype=complex)
    out[..., 0, 0] = out[..., 3, 3] = 1
    out[..., 1, 1] = out[..., 2, 2] = np.cos(half)
    out[..., 1, 2] = out[..., 2, 1] = 1j * np.sin(half)
    return out


def gphase(gamma: ArrayLike) -> Matrix:
    """Return the 1 x 1 matrix ``[[exp(i gamma)]]``."""
    result: Matrix = np.exp(1j * np.asarray(gamma, dtype=float))[..., None, None]
    return result
