"""Groups of Paulis, and products of rotations about them as matrices, whatever they touch.

A group of s pairs that anticommute and z Paulis that commute with all is as good as the Paulis of s
qubits and z signs: what rotations about its Paulis make is 2^z blocks of 2^s x 2^s entries.

Source: Gottesman 1997 (arXiv:quant-ph/9705052), section 3.2.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

from qcomp.equivalence.pauli_form import Local, commutes, times

__all__ = ["Group", "Turn"]


@dataclass(frozen=True, slots=True)
class Turn:
    """``exp(-i angle/2 P)``, P Hermitian with sign plus."""

    x: int
    z: int
    angle: float

    @staticmethod
    def of(pauli: Local, angle: float) -> Turn:
        """Return the rotation about a Hermitian Pauli of either sign."""
        x, z, p = pauli
        return Turn(x, z, -angle if (p - (x & z).bit_count()) & 3 == 2 else angle)

    def inverse(self) -> Turn:
        """Return the rotation back."""
        return Turn(self.x, self.z, -self.angle)

    @property
    def pauli(self) -> Local:
        """The Pauli with its phase."""
        return self.x, self.z, (self.x & self.z).bit_count() & 3


@dataclass(frozen=True, slots=True)
class Group:
    """The Paulis that some generate, as matrices: X and Z on a qubit a pair, a sign a central one.

    Attributes:
        generators: Hermitian: pairs that anticommute with each other and with no other, one behind
            the other, then those that commute with all.
        pairs: Number of pairs.
        center: Number of those that commute with all.
        pivots: The group's bits (x, z), reduced, by their highest bit.
        support: Qubits that any of them acts on, as a bit mask.
    """

    generators: tuple[Local, ...]
    pairs: int
    center: int
    pivots: dict[int, tuple[int, int]] = field(repr=False, compare=False)
    support: int = field(repr=False, compare=False)

    @staticmethod
    def of(turns: Iterable[Turn]) -> Group:
        """Return the group that the Paulis of rotations generate."""
        free, pivots = _independent(turns)
        support = functools.reduce(operator.or_, (x | z for x, z, _ in free), 0)
        paired: list[Local] = []
        central: list[Local] = []
        while free:
            g = free.pop(0)
            at = next((i for i, other in enumerate(free) if not commutes(g, other)), None)
            if at is None:
                central.append(g)
                continue
            h = free.pop(at)
            paired += [g, h]
            free = [_cleared(other, g, h) for other in free]
        return Group((*paired, *central), len(paired) // 2, len(central), pivots, support)

    @property
    def entries(self) -> int:
        """Entries of a matrix."""
        return 1 << (2 * self.pairs + self.center)

    def has(self, x: int, z: int) -> bool:
        """Whether a Pauli is in the group, whatever its phase."""
        return not (x | z) & ~self.support and _reduced((x, z), self.pivots) == (0, 0)

    def fights(self, pauli: Local) -> bool:
        """Whether a Pauli does not commute with all of the group."""
        return not all(commutes(pauli, other) for other in self.generators)

    def _written(self, pauli: Local) -> tuple[int, int, int, int]:
        """Return a Pauli as ``i^p X^x Z^z C^c`` over the generators: (x, z, c, p)."""
        x = z = c = 0
        product: Local = (0, 0, 0)
        for j in range(self.pairs):
            x |= (not commutes(pauli, self.generators[2 * j + 1])) << j
            z |= (not commutes(pauli, self.generators[2 * j])) << j
        for j in range(self.pairs):
            if x >> j & 1:
                product = times(product, self.generators[2 * j])
        for j in range(self.pairs):
            if z >> j & 1:
                product = times(product, self.generators[2 * j + 1])
        rest = pauli[0] ^ product[0], pauli[1] ^ product[1]
        central = self.generators[2 * self.pairs :]
        if rest != (0, 0):
            c = _combination(rest, [(g[0], g[1]) for g in central])
            for j, g in enumerate(central):
                if c >> j & 1:
                    product = times(product, g)
        return x, z, c, (pauli[2] - product[2]) & 3

    def matrix(self, turns: Iterable[Turn]) -> NDArray[np.complex128]:
        """Return rotations about Paulis of the group as blocks, complex128[2^z, 2^s, 2^s]."""
        size = 1 << self.pairs
        matrix = np.zeros((1 << self.center, size, size), dtype=complex)
        matrix[:, np.arange(size), np.arange(size)] = 1
        for turn in turns:
            matrix = self._turned(matrix, turn.pauli, turn.angle)
        return matrix

    def apart(self, first: Sequence[Turn], second: Sequence[Turn]) -> tuple[float, float]:
        """Return (bound of the distance of two products up to phase, least that it is)."""
        size = 1 << self.pairs
        matrix = self.matrix([*first, *(turn.inverse() for turn in reversed(second))])
        trace = np.trace(matrix, axis1=1, axis2=2).sum()
        phase = trace / abs(trace) if abs(trace) > 1e-6 else 1.0
        matrix[:, np.arange(size), np.arange(size)] -= phase
        most = float(np.sqrt((np.abs(matrix) ** 2).sum(axis=(1, 2)).max()))
        # The trace's phase is at most three times as far as the best one.
        return most, float(np.abs(matrix).max()) / 3

    def _turned(
        self, matrix: NDArray[np.complex128], pauli: Local, angle: float
    ) -> NDArray[np.complex128]:
        x, z, c, p = self._written(pauli)
        row = np.arange(1 << self.pairs)
        # X^x Z^z takes row r to row r ^ x with the sign of r & z.
        sign = 1j**p * (1 - 2.0 * (np.bitwise_count((row ^ x) & z) & 1))
        block = 1 - 2.0 * (np.bitwise_count(np.arange(1 << self.center) & c) & 1)
        other = matrix[:, row ^ x] * (-1j * sin(angle / 2) * sign)[None, :, None]
        out: NDArray[np.complex128] = cos(angle / 2) * matrix + other * block[:, None, None]
        return out


def _cleared(pauli: Local, g: Local, h: Local) -> Local:
    """Return a Pauli times g and h as is needed for it to commute with both, Hermitian."""
    x, z, _ = pauli
    if not commutes(pauli, g):
        x, z = x ^ h[0], z ^ h[1]
    if not commutes(pauli, h):
        x, z = x ^ g[0], z ^ g[1]
    return x, z, (x & z).bit_count() & 3


def _independent(turns: Iterable[Turn]) -> tuple[list[Local], dict[int, tuple[int, int]]]:
    """Return the Paulis that are no product of those before them, and the same reduced."""
    pivots: dict[int, tuple[int, int]] = {}
    out = []
    for turn in turns:
        rest = _reduced((turn.x, turn.z), pivots)
        if rest != (0, 0):
            pivots[_top(rest)] = rest
            out.append(turn.pauli)
    return out, pivots


def _top(bits: tuple[int, int]) -> int:
    return 2 * bits[0].bit_length() if bits[0] else 2 * bits[1].bit_length() - 1


def _reduced(bits: tuple[int, int], pivots: dict[int, tuple[int, int]]) -> tuple[int, int]:
    while bits != (0, 0):
        row = pivots.get(_top(bits))
        if row is None:
            break
        bits = bits[0] ^ row[0], bits[1] ^ row[1]
    return bits


def _combination(goal: tuple[int, int], rows: Sequence[tuple[int, int]]) -> int:
    """Return which rows add up to a goal, as a bit mask."""
    pivots: dict[int, tuple[tuple[int, int], int]] = {}
    for j, row in enumerate(rows):
        mask = 1 << j
        while row != (0, 0) and _top(row) in pivots:
            other, used = pivots[_top(row)]
            row, mask = (row[0] ^ other[0], row[1] ^ other[1]), mask ^ used
        pivots[_top(row)] = row, mask
    found = 0
    while goal != (0, 0):
        row, used = pivots[_top(goal)]
        goal, found = (goal[0] ^ row[0], goal[1] ^ row[1]), found ^ used
    return found
