"""Phases as polynomials: parities with weights modulo 8, and the Clifford part of a difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from qcomp.errors import PassError

__all__ = ["Polynomial", "bits", "clifford_difference"]


def bits(mask: int) -> Iterator[int]:
    """Yield the positions of the ones of a mask, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


@dataclass
class Polynomial:
    """``sum l_a x_a + sum q_ab x_a x_b + sum c_abc x_a x_b x_c``, a phase in units of pi/4.

    Attributes:
        linear: Weights of variables, modulo 8.
        square: Weights of pairs a < b, modulo 8.
        cube: Triples a < b < c with weight 4; the others have none.
    """

    linear: Counter[int] = field(default_factory=Counter)
    square: Counter[tuple[int, int]] = field(default_factory=Counter)
    cube: set[tuple[int, int, int]] = field(default_factory=set)

    def add(self, parity: int, weight: int) -> None:
        """Add a parity: ``x + y + z - 2 (xy + yz + zx) + 4 xyz`` modulo 8 for three variables.

        Args:
            parity: Mask of its variables.
            weight: Multiple of pi/4.
        """
        variables = list(bits(parity))
        for i, a in enumerate(variables):
            self.linear[a] += weight
            if weight % 4 == 0:
                continue
            for j in range(i):
                self.square[variables[j], a] -= 2 * weight
                if weight % 2:
                    for k in range(j):
                        self.cube ^= {(variables[k], variables[j], a)}

    def clifford(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return ((variable, quarter turns) of S gates, (a, b) of CZ gates) for this phase.

        Raises:
            PassError: If it is not a Clifford.
        """
        s = [(a, w % 8) for a, w in sorted(self.linear.items()) if w % 8]
        cz = [(pair, w % 8) for pair, w in sorted(self.square.items()) if w % 8]
        if self.cube or any(w % 2 for _, w in s) or any(w % 4 for _, w in cz):
            raise PassError("two phase polynomials differ by more than a Clifford")
        return [(a, w // 2) for a, w in s], [pair for pair, _ in cz]


def clifford_difference(
    wanted: Mapping[int, int], parities: Iterable[int]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the S and CZ gates that are missing when each parity has weight 1.

    Args:
        wanted: Weight of each parity modulo 8.
        parities: What is there.

    Raises:
        PassError: If more than Clifford gates are missing.
    """
    rest = Polynomial()
    for parity, weight in wanted.items():
        rest.add(parity, weight)
    for parity in parities:
        rest.add(parity, -1)
    return rest.clifford()
