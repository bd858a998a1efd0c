"""How Clifford gates turn Paulis, as tables for kernels.

A Pauli on one wire is two bits: X = 1, Z = 2, Y = 3; on operands (0, 1) it is ``a | b << 2``.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.gates import AXIS, GATES, NUM_QUBITS

__all__ = ["AXIS_BITS", "PRODUCT", "clifford_tables"]

AXIS_BITS: NDArray[np.int64] = np.array([0, 1, 3, 2])[AXIS].astype(np.int64).ravel()
"""The Pauli along which gate c acts on operand k, at 3 c + k, as bits; 0 none."""

PRODUCT: NDArray[np.int64] = np.zeros(16, dtype=np.int64)
"""Power of i in the product of one-wire Paulis p and q, at 4 p + q: ``X Y = i Z``."""

for _p, _q in ((1, 3), (3, 2), (2, 1)):
    PRODUCT[4 * _p + _q], PRODUCT[4 * _q + _p] = 1, 3


@functools.cache
def _paulis() -> NDArray[np.complex128]:
    """Return complex128[16, 4, 4], the Pauli of each ``a | b << 2``; operand 0 is the low bit."""
    one = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[1, 0], [0, -1]], [[0, -1j], [1j, 0]]])
    return np.stack([np.kron(one[k >> 2], one[k & 3]) for k in range(16)])


@functools.cache
def clifford_tables() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (forward, back) over the Clifford gates on one or two wires; zeros for other gates.

    forward: int64[gates * 16], at ``16 c + P`` the Pauli ``U P U^-1``, its sign in bit 4.
    back: int64[gates * 4], at ``4 c + m`` the Pauli ``U^-1 (1 << m) U`` without its sign.
    """
    forward = np.zeros((len(GATES), 16), dtype=np.int64)
    back = np.zeros((len(GATES), 4), dtype=np.int64)
    paulis = _paulis()
    for row in GATES:
        if not row.clifford:
            continue
        u: NDArray[np.complexfloating] = row.matrix()
        if NUM_QUBITS[row.code] == 1:
            u = np.kron(np.eye(2), u)
        turned = u @ paulis @ u.conj().T
        overlap = np.einsum("aij,bji->ab", turned, paulis).real / 4
        image = np.abs(overlap).argmax(axis=1)
        forward[row.code] = image | (overlap[np.arange(16), image] < 0) << 4
        origin = np.argsort(image)
        back[row.code] = origin[[1, 2, 4, 8]]
    return forward.ravel(), back.ravel()
