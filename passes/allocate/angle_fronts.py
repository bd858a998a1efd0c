"""One budget over the rotations of a circuit: which of its words each chain takes.

    minimise  sum_i 3 log2(1/e_i)   subject to  sum_i s_i e_i <= E        (operator norm: s_i = 1)

has the closed form ``e_i = E / (n s_i)``: every chain spends the same. Against one accuracy for
all, ``e = E / sum_i s_i``, that saves ``3 sum_i log2(mean(s) / s_i)`` T gates, that is
``3 n log2(mean / geometric mean)``. With independent errors, ``sum_i (s_i e_i)^2 <= E^2``, the e_i
are in proportion to ``1/s_i`` as well.

Words are no continuum: a chain has some, with T counts and errors of their own, and near a multiple
of pi/4 one without T. So the closed form only says where to look; among the words found there the
choice is the multiple-choice knapsack of :mod:`qcomp.passes.allocate.solve`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.angle_accuracies import AngleSensitivities
from qcomp.passes.allocate.solve import frontier
from qcomp.passes.synthesize.clifford_t.chains import Chain
from qcomp.passes.synthesize.clifford_t.rotations import FINEST, Point
from qcomp.passes.synthesize.clifford_t.row_words import RowPoint, RowTurn

__all__ = ["Allocation", "Allocations", "change_costs", "closed_form", "predicted_saving"]

_WIDER, _FINER = 8.0, 6.0
"""How far around the closed form words are looked for."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Allocation:
    """One word for every chain.

    Attributes:
        t_count: T gates together.
        norm: Sum of the words' errors, operator norm.
        cost: What was made least beside T.
        points: The words of the chains.
        by_rows: The accuracies of rotations by parameters.
    """

    t_count: int
    norm: float
    cost: float
    points: tuple[Point, ...]
    by_rows: tuple[RowPoint, ...] = ()


def predicted_saving(weights: Floats) -> float:
    """Return the T gates that ``e_i = E / (n s_i)`` saves against ``e = E / sum(s)``."""
    used = weights[weights > 0]
    return 3 * float(np.log2(used.mean() / used).sum())


def closed_form(weights: Floats, limit: float, *, independent: bool = False) -> Floats:
    """Return the accuracies that spend a limit with the fewest T, in [FINEST, 1].

    Args:
        weights: Change of the output for an error, float64[n].
        limit: What the errors may add up to.
        independent: Whether squares add up.
    """
    count = max(len(weights), 1)
    share = limit / (math.sqrt(count) if independent else count)
    with np.errstate(divide="ignore"):
        return np.clip(share / weights, FINEST, 1.0)


class Allocations:
    """The front of T and cost over all chains, exact: T counts are integers.

    Args:
        chains: The chains, and the rotations by parameters.
        centre: About what accuracy each has, float64[n].
        cost: (chain, errors) to what they cost; sums over chains are made less.
        direct_t: T gates up to which a chain is looked for at once.
        wider: How far around the centre words are looked for, towards few T.
        finer: The same towards small errors.
    """

    def __init__(
        self,
        chains: Sequence[Chain | RowTurn],
        centre: Floats,
        cost: Callable[[int, Floats], Floats],
        direct_t: int,
        *,
        wider: float = _WIDER,
        finer: float = _FINER,
    ) -> None:
        self._fronts: list[Sequence[Point | RowPoint]] = [
            chain.front(min(2.0, float(e) * wider), max(float(e) / finer, FINEST), direct_t)
            for chain, e in zip(chains, centre, strict=True)
        ]
        items = []
        for number, points in enumerate(self._fronts):
            costs = cost(number, np.array([point.error for point in points]))
            items.append([(float(p.t_count), float(c)) for p, c in zip(points, costs, strict=True)])
        self._front = frontier(items)

    def __len__(self) -> int:
        """Return the number of allocations, the one with the fewest T first."""
        return len(self._front)

    @property
    def t_counts(self) -> NDArray[np.int64]:
        """The T gates of each, int64[n]."""
        return np.rint(self._front.costs).astype(np.int64)

    @property
    def costs(self) -> Floats:
        """The cost of each, float64[n]."""
        return self._front.errors

    def __getitem__(self, index: int) -> Allocation:
        """Return one of them."""
        ways = self._front.ways[index]
        points = tuple(front[int(way)] for front, way in zip(self._fronts, ways, strict=True))
        return Allocation(
            sum(point.t_count for point in points),
            sum(point.error for point in points),
            float(self._front.errors[index]),
            tuple(point for point in points if isinstance(point, Point)),
            tuple(point for point in points if isinstance(point, RowPoint)),
        )


def change_costs(found: AngleSensitivities) -> Callable[[int, Floats], Floats]:
    """Return the square of the change of observables by errors of a chain."""
    return lambda chain, errors: found.change(chain, errors) ** 2
