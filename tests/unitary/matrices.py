"""Matrices that unitaries are tested on: random, with structure, degenerate."""

from __future__ import annotations

import numpy as np

Matrix = np.ndarray


def haar(num_qubits: int, seed: int) -> Matrix:
    """A random unitary of Haar's measure."""
    rng = np.random.default_rng(seed)
    size = 1 << num_qubits
    z = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
    q, r = np.linalg.qr(z)
    return q * (np.diag(r) / np.abs(np.diag(r)))


def orthogonal(num_qubits: int, seed: int) -> Matrix:
    """A random orthogonal matrix of determinant -1."""
    size = 1 << num_qubits
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    return (q * np.where(np.arange(size) == 0, -np.linalg.det(q), 1.0)).astype(complex)


def permutation(num_qubits: int, seed: int) -> Matrix:
    """A random permutation."""
    size = 1 << num_qubits
    return np.eye(size, dtype=complex)[np.random.default_rng(seed).permutation(size)]


def fourier(num_qubits: int) -> Matrix:
    """The quantum Fourier transform."""
    size = 1 << num_qubits
    index = np.arange(size)
    return np.exp(2j * np.pi / size * np.outer(index, index)) / np.sqrt(size)


def increment(num_qubits: int) -> Matrix:
    """x -> x + 1."""
    return np.roll(np.eye(1 << num_qubits, dtype=complex), 1, axis=0)


def diagonal(num_qubits: int, seed: int) -> Matrix:
    """A random diagonal."""
    return np.diag(np.exp(2j * np.pi * np.random.default_rng(seed).random(1 << num_qubits)))


def multiplexer(num_qubits: int, seed: int, qubit: int) -> Matrix:
    """Two random unitaries on the other qubits, which one by a qubit."""
    parts = haar(num_qubits - 1, seed), haar(num_qubits - 1, seed + 1)
    index = np.arange(1 << num_qubits)
    bit = index >> qubit & 1
    rest = (index & ((1 << qubit) - 1)) | (index >> (qubit + 1) << qubit)
    out = np.zeros((len(index), len(index)), dtype=complex)
    for value, part in enumerate(parts):
        at = np.flatnonzero(bit == value)
        out[np.ix_(at, at)] = part[np.ix_(rest[at], rest[at])]
    return out


def controlled(block: Matrix, num_controls: int) -> Matrix:
    """A unitary on the low qubits where all controls, the high ones, are 1."""
    size = len(block) << num_controls
    out = np.eye(size, dtype=complex)
    out[-len(block) :, -len(block) :] = block
    return out


def degenerate(num_qubits: int, seed: int) -> Matrix:
    """A random unitary with two eigenvalues only."""
    v = haar(num_qubits, seed)
    half = 1 << (num_qubits - 1)
    return (v * np.repeat([1.0, np.exp(0.7j)], [half - 1, half + 1])) @ v.conj().T
