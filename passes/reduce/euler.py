"""Spellings of one-qubit unitaries in a basis of gates, over arrays of matrices."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError, suggest
from qcomp.ir.angle import PI
from qcomp.ir.gates import BY_NAME, GATES, NUM_ANGLES
from qcomp.passes.reduce.identities import (
    UNWRITABLE,
    Choice,
    Turn,
    euler_angles,
    snapped,
    table,
)

__all__ = [
    "UNWRITABLE",
    "Basis",
    "Spelling",
    "Turn",
    "distinct",
    "euler_angles",
    "snapped",
    "spelled",
]

_PIECE = 1 << 13
_WEIGHTS = np.arange(1, 16, 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def distinct(matrix: NDArray[np.complex128]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return places of the matrices that differ, and for each matrix which of those it is.

    Equal means bit by bit; a circuit of few kinds of gates has few different chains.

    Args:
        matrix: complex128[n, 2, 2].
    """
    bits = np.ascontiguousarray(matrix).view(np.uint64).reshape(len(matrix), 8)
    folded = (bits ^ (bits >> np.uint64(29))) * _WEIGHTS
    key = np.bitwise_xor.reduce(folded ^ (folded >> np.uint64(32)), axis=1)
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    if not np.array_equal(bits[first[which]], bits):  # two matrices of one key
        everything = np.arange(len(matrix))
        return everything, everything
    return first, which


@dataclass(frozen=True, slots=True)
class Spelling(Choice):
    """One-qubit unitaries as gates, n of them, at most s gates each.

    Attributes:
        product: complex128[n, 2, 2], the gates multiplied out.
        phase_frac: int64[n], exact part of the global phase that the gates lack.
        phase_rem: float64[n], its float part.
    """

    product: NDArray[np.complex128]
    phase_frac: NDArray[np.int64]
    phase_rem: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Basis:
    """One-qubit gates that may be written.

    Attributes:
        names: Their names, in the order given.
    """

    names: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> Basis:
        """Read names joined by dashes.

        Raises:
            UsageError: If one is no one-qubit gate.
        """
        names = tuple(part.strip() for part in text.split("-") if part.strip())
        known = [row.name for row in GATES if row.num_qubits == 1 and row.is_unitary]
        for name in names:
            if name not in known:
                raise UsageError(f"'{name}' is no one-qubit gate", hint=suggest(name, known))
        if not names:
            raise UsageError("the basis is empty", hint="for example basis=rz-sx-x")
        return Basis(names)

    @property
    def foreign(self) -> NDArray[np.int8]:
        """1 for the gates outside the basis, by code."""
        out = np.ones(len(GATES), dtype=np.int8)
        out[[BY_NAME[name].code for name in self.names]] = 0
        return out

    def spell(self, matrix: NDArray[np.complex128]) -> Spelling:
        """Write each matrix with the fewest gates of the basis.

        Args:
            matrix: complex128[n, 2, 2], unitary.

        Returns:
            The spellings; ``length`` is 99 where the basis cannot write the matrix.
        """
        return spelled(self.choose(matrix), matrix)

    def choose(self, matrix: NDArray[np.complex128]) -> Choice:
        """Return the gates that ``spell`` writes, without the phase that they lack.

        Args:
            matrix: complex128[n, 2, 2], unitary.
        """
        return _joined([self._choose(matrix[part]) for part in _pieces(len(matrix))])

    def _choose(self, matrix: NDArray[np.complex128]) -> Choice:
        frac, rem = snapped(np.stack(euler_angles(matrix)))
        return table(self.names).choose(frac, rem)


def spelled(words: Choice, matrix: NDArray[np.complex128]) -> Spelling:
    """Return the gates that were chosen with the phases that they lack.

    Args:
        words: n gates.
        matrix: complex128[n, 2, 2], what they were chosen for.
    """
    return _joined([_spelled(words.take(part), matrix[part]) for part in _pieces(len(matrix))])


def _spelled(words: Choice, matrix: NDArray[np.complex128]) -> Spelling:
    product = _product(words)
    overlap = np.einsum("nij,nij->n", product.conj(), matrix)
    good = words.length < UNWRITABLE
    assert np.all(np.abs(overlap[good]) > 2 - 1e-9), "an identity of the basis is wrong"
    phase = snapped(np.angle(overlap))
    return Spelling(words.code, words.frac, words.rem, words.length, product, *phase)


C = TypeVar("C", bound=Choice)


def _pieces(n: int) -> list[slice]:
    """Return what is worked on at a time: so much stays in the processor's cache."""
    return [slice(at, at + _PIECE) for at in range(0, max(n, 1), _PIECE)]


def _joined(pieces: list[C]) -> C:
    first = pieces[0]
    if len(pieces) == 1:
        return first
    names = [field.name for field in fields(first)]
    return type(first)(
        *(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names)
    )


@functools.cache
def _fixed_matrices() -> NDArray[np.complex128]:
    """Return the matrices of the gates without angles, by code; the unit matrix for others."""
    out = np.tile(np.eye(2, dtype=complex), (len(GATES) + 1, 1, 1))
    for row in GATES:
        if row.num_qubits == 1 and row.is_unitary and row.num_angles == 0:
            out[row.code] = row.matrix()
    return out


def _product(words: Choice) -> NDArray[np.complex128]:
    """Multiply gates out, complex128[n, 2, 2]."""
    steps = _fixed_matrices()[words.code]
    turning = (words.code >= 0) & (NUM_ANGLES[words.code] > 0)
    row, slot = np.nonzero(turning)
    code = words.code[row, slot]
    for kind in np.flatnonzero(np.bincount(code)).tolist():
        mine = code == kind
        at = row[mine], slot[mine]
        value = words.frac[at] * (np.pi / PI) + words.rem[at]
        steps[at] = GATES[kind].matrix(*value.T[: NUM_ANGLES[kind]])
    product = steps[:, 0]
    for k in range(1, words.code.shape[1]):
        rows = np.flatnonzero(words.code[:, k] >= 0)
        if len(rows) == len(product):
            product = steps[:, k] @ product
        elif len(rows):
            product[rows] = steps[rows, k] @ product[rows]
    return product
