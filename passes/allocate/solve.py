"""Allocators: one budget, and for every tensor one of several ways that cost and err differently.

    minimise   sum_l error(l, c_l)   subject to   sum_l cost(l, c_l) <= budget,   one c_l for each l

or the other way round. It is the multiple-choice knapsack problem.

* :func:`integer_program` hands it to HiGHS (``scipy.optimize.milp``): exact, and with further
  limits besides, such as one on time.
* :func:`convex_relaxation` lets a tensor lie between two ways: a linear program over the lower
  convex hulls of the errors, in which all tensors but one take a single way.
* :func:`frontier` merges tensor by tensor and drops what is dominated: every point of the exact
  Pareto front by dynamic programming, or, thinned to some points a step, near it.
* :func:`reverse_water_filling` is the closed form where bits are real numbers:

      minimise sum n_i b_i  subject to  sum s_i 4^-b_i <= E:     b_i = log4(s_i / (n_i mu))

  every tensor is left with the error n_i mu, in proportion to its size; a tensor that would leave
  [low, high] stays at the end of that range, and mu is that of the others.

Source: multiple-choice knapsack, Nemhauser and Ullmann 1969; dynamic programming over bit settings,
Cai et al. 2020 (ZeroQ), arXiv:2001.00281, section 3.3; integer program, Yao et al. 2021 (HAWQ-V3),
arXiv:2011.10680, equation 4; convex reallocation whose real bits are then made whole, Peters et al.
2023 (QBitOpt), arXiv:2307.04535, there again and again while a network is trained, here once;
water-filling, Cover and Thomas, Elements of Information Theory, 10.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError

__all__ = [
    "Front",
    "Items",
    "Limit",
    "cheapest",
    "convex_relaxation",
    "fewest",
    "frontier",
    "integer_program",
    "reverse_water_filling",
]

_INFEASIBLE = 2
"""HiGHS: no ways keep to the limits."""

Floats = npt.NDArray[np.float64]
Items = Sequence[Sequence[tuple[float, float]]]
"""For every tensor its ways, each (cost, error)."""


@dataclass(frozen=True, slots=True, eq=False)
class Front:
    """Points of a Pareto front, the cheapest first: more cost, less error.

    Attributes:
        costs: float64[P].
        errors: float64[P].
        ways: intp[P, tensors], the way of each tensor.
    """

    costs: Floats
    errors: Floats
    ways: npt.NDArray[np.intp]

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.costs)


def integer_program(
    items: Items,
    *,
    max_cost: float | None = None,
    max_error: float | None = None,
    also: Sequence[Limit] = (),
) -> list[int]:
    """Return the best way of every tensor, exactly.

    Args:
        items: Costs and errors.
        max_cost: Errors are minimised below it; or
        max_error: costs are minimised below it.
        also: What else is limited.

    Raises:
        PassError: The budget cannot be met; says the nearest that can.
    """
    limit = max_cost if max_cost is not None else max_error
    assert limit is not None
    index = 0 if max_cost is not None else 1
    bounded = Limit([[way[index] for way in ways] for ways in items], limit, "")
    least = bounded.least
    if least > limit:
        raise _too_small(items, index == 0, limit, least)
    wanted = [[way[1 - index] for way in ways] for ways in items]
    found = _solved(wanted, (bounded, *also))
    if found is None:
        raise _together(bounded, index == 0, also)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """A bound on a sum over tensors beside the budget.

    Attributes:
        values: Of each way of each tensor.
        most: Their largest sum.
        name: For messages, such as ``latency over float's``.
        offset: What is added to the sum where it is shown.
    """

    values: Sequence[Sequence[float]]
    most: float
    name: str
    offset: float = 0.0

    @property
    def least(self) -> float:
        """The smallest sum there is."""
        return float(sum(min(part) for part in self.values))

    def of(self, ways: Sequence[int]) -> float:
        """The sum of some ways."""
        return float(sum(part[w] for part, w in zip(self.values, ways, strict=True)))

    def shown(self, total: float) -> str:
        """A sum as messages have it."""
        return f"{total + self.offset:.4g}"


def fewest(costs: Sequence[Sequence[float]], also: Sequence[Limit]) -> list[int] | None:
    """Return the ways of the least cost under limits, None where no ways keep to them."""
    return _solved(costs, also)


def convex_relaxation(
    items: Items, *, max_cost: float | None = None, max_error: float | None = None
) -> list[int]:
    """Return the ways of the convex problem, a tensor between two of them taking the cheaper one.

    Its solution is never worse than the integer program's; what whole ways leave of the budget is
    for the caller to spend.

    Args:
        items: Costs and errors.
        max_cost: Errors are minimised below it; or
        max_error: costs are minimised below it.

    Raises:
        PassError: The budget cannot be met; says the nearest that can.
    """
    limit = max_cost if max_cost is not None else max_error
    assert limit is not None
    index = 0 if max_cost is not None else 1
    bounded = Limit([[way[index] for way in ways] for ways in items], limit, "")
    if bounded.least > limit:
        raise _too_small(items, index == 0, limit, bounded.least)
    shares = _shares([[way[1 - index] for way in ways] for ways in items], (bounded,), whole=False)
    assert shares is not None
    return [
        min(np.flatnonzero(part > _TAKEN).tolist(), key=lambda way, ways=ways: ways[way])  # type: ignore[misc]
        for part, ways in zip(shares, items, strict=True)
    ]


_TAKEN = 1e-6
"""Share of a way from which on a tensor lies in between."""


def _solved(wanted: Sequence[Sequence[float]], limits: Sequence[Limit]) -> list[int] | None:
    shares = _shares(wanted, limits, whole=True)
    if shares is None:
        return None
    return _within(wanted, [int(np.argmax(part)) for part in shares], limits)


def _shares(
    wanted: Sequence[Sequence[float]], limits: Sequence[Limit], *, whole: bool
) -> list[Floats] | None:
    """How much of each way every tensor takes; None where no ways keep to the limits."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    goal = np.array([value for part in wanted for value in part])
    sizes = [len(part) for part in wanted]
    owner = np.repeat(np.arange(len(wanted)), sizes)
    one = csr_array((np.ones(len(goal)), (owner, np.arange(len(goal)))))
    constraints = [LinearConstraint(one, 1, 1)]
    for limit in limits:
        row = np.array([value for part in limit.values for value in part])
        # Rows are scaled, so that HiGHS' tolerances mean the same whatever the unit.
        scale = max(abs(limit.most), abs(limit.least), float(np.finfo(float).tiny))
        constraints.append(LinearConstraint(row[None] / scale, -np.inf, limit.most / scale))
    found = milp(
        goal / (float(np.abs(goal).max()) or 1.0),
        constraints=constraints,
        integrality=np.full(len(goal), int(whole)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        if found.status == _INFEASIBLE:
            return None
        raise PassError(f"the integer program has no solution: {found.message}")
    return np.split(np.asarray(found.x, np.float64), np.cumsum(sizes)[:-1])


def _within(
    wanted: Sequence[Sequence[float]], ways: list[int], limits: Sequence[Limit]
) -> list[int] | None:
    """The same ways, cheaper ones where HiGHS' tolerance let a limit be passed."""
    while over := next((limit for limit in limits if limit.of(ways) > limit.most), None):
        swaps = [
            (wanted[l][v] - wanted[l][w], l, v)
            for l, (part, w) in enumerate(zip(over.values, ways, strict=True))  # noqa: E741
            for v in range(len(part))
            if part[v] < part[w]
            and all(x.values[l][v] <= x.values[l][w] for x in limits if x is not over)
        ]
        if not swaps:
            return None
        _, tensor, way = min(swaps)
        ways[tensor] = way
    return ways


def _together(bounded: Limit, by_cost: bool, also: Sequence[Limit]) -> PassError:
    """Two limits that cannot both hold: the nearest for each if the other stays."""
    what = "bytes" if by_cost else "error"
    (other,) = also
    slow = fewest(other.values, [bounded])
    near = fewest(bounded.values, [other])
    assert slow is not None
    if near is None:
        return PassError(
            f"a {other.name} of at most {other.shown(other.most)} cannot be met",
            why=f"the least that these choices have is {other.shown(other.least)}",
            hint=f"allow {other.shown(other.least)}, or more",
        )
    return PassError(
        f"{bounded.most:,.6g} {what} and a {other.name} of at most {other.shown(other.most)} "
        "contradict one another",
        why=f"with so many {what} the least {other.name} is {other.shown(other.of(slow))}",
        hint=f"allow {other.shown(other.of(slow))}, or {bounded.of(near):,.6g} {what}",
    )


def _too_small(items: Items, by_cost: bool, limit: float, least: float) -> PassError:
    ends = [sum(min(way[k] for way in ways) for ways in items) for k in (0, 1)]
    what = "bytes" if by_cost else "error"
    return PassError(
        f"the budget of {limit:.6g} {what} cannot be met",
        why=f"the least that these choices have is {least:.6g}",
        hint=f"allow {least:.6g}, or give more ways; the front goes from {ends[0]:.6g} bytes to an "
        f"error of {ends[1]:.3g}",
    )


def frontier(items: Items, points: int | None = None) -> Front:
    """Return the Pareto front of all tensors together.

    Args:
        items: Costs and errors.
        points: Points that are kept after each tensor, evenly spaced in cost with both ends; None
            keeps all, and the front is exact.
    """
    costs, errors = np.zeros(1), np.zeros(1)
    came: list[npt.NDArray[np.intp]] = []
    picked: list[npt.NDArray[np.intp]] = []
    for ways in items:
        cost, error = np.array(ways, np.float64).T
        all_costs = (costs[:, None] + cost).ravel()
        all_errors = (errors[:, None] + error).ravel()
        order = np.lexsort((all_errors, all_costs))
        lowest = np.minimum.accumulate(all_errors[order])
        better = np.ones(len(order), bool)
        better[1:] = lowest[1:] < lowest[:-1]
        keep = order[better]
        if points is not None and len(keep) > points:
            wanted = np.linspace(all_costs[keep[0]], all_costs[keep[-1]], points)
            near = np.searchsorted(all_costs[keep], wanted, side="right") - 1
            keep = keep[np.unique(np.r_[0, near, len(keep) - 1])]
        came.append(keep // len(cost))
        picked.append(keep % len(cost))
        costs, errors = all_costs[keep], all_errors[keep]
    ways_of = np.zeros((len(costs), len(items)), np.intp)
    at = np.arange(len(costs))
    for tensor in range(len(items) - 1, -1, -1):
        ways_of[:, tensor] = picked[tensor][at]
        at = came[tensor][at]
    return Front(costs, errors, ways_of)


def cheapest(front: Front, max_error: float) -> int:
    """The first point of a front with no more than some error.

    Raises:
        PassError: There is none; says the nearest.
    """
    found = np.flatnonzero(front.errors <= max_error)
    if not len(found):
        raise PassError(
            f"an error of {max_error:.3g} cannot be met",
            why=f"the least that these choices have is {front.errors[-1]:.3g}",
            hint=f"allow {front.errors[-1]:.3g}, at {front.costs[-1]:.6g} bytes",
        )
    return int(found[0])


def reverse_water_filling(
    s: npt.ArrayLike,
    n: npt.ArrayLike,
    *,
    max_error: float | None = None,
    max_bits: float | None = None,
    low: float = 0.0,
    high: float = 16.0,
) -> Floats:
    """Return the real numbers of bits b_i of the closed form, see the module.

    Args:
        s: s_i >= 0, the error of a tensor with no bits, so that it has s_i 4^-b_i with b_i.
        n: n_i > 0, values of each tensor.
        max_error: E; or
        max_bits: the largest sum n_i b_i.
        low: Fewest bits of a tensor.
        high: Most bits of a tensor.

    Raises:
        PassError: The budget cannot be met within [low, high].
    """
    s, n = np.asarray(s, np.float64), np.asarray(n, np.float64)
    levels = np.full(s.shape, -np.inf)  # log4(s / n): bits where mu is 1
    np.log(s / n, out=levels, where=s > 0)
    levels = np.where(s > 0, levels / np.log(4.0), -np.inf)

    def bits(level: float) -> Floats:
        return np.clip(levels - level, low, high)

    def spent(level: float) -> float:
        found = bits(level)
        if max_bits is not None:
            return float((n * found).sum())
        return -float((s * 4.0**-found).sum())

    limit = max_bits if max_bits is not None else -(max_error or 0.0)
    real = levels[s > 0]
    if not len(real):
        return np.full(s.shape, float(low))
    ends = np.unique(np.concatenate([real - high, real - low]))
    top, bottom = spent(float(ends[-1])), spent(float(ends[0]))
    # More bits cost more of max_bits; fewer err more of max_error.
    if (top > limit) if max_bits is not None else (bottom < limit):
        nearest = top if max_bits is not None else -bottom
        raise PassError(
            f"a budget of {abs(limit):.6g} cannot be met with {low:g} to {high:g} bits",
            hint=f"allow {nearest:.6g}",
        )
    if (bottom <= limit) if max_bits is not None else (top >= limit):
        return bits(float(ends[0] if max_bits is not None else ends[-1]))
    # Between two ends the tensors that are clamped stay the same, and mu has a closed form.
    values = np.array([spent(float(end)) for end in ends])
    after = int(np.searchsorted(-values, -limit, side="left"))
    a, b = float(ends[after - 1]), float(ends[after])
    middle = levels - (a + b) / 2
    free = (middle > low) & (middle < high)
    fixed = bits((a + b) / 2)[~free]
    if max_bits is not None:
        rest = max_bits - float((n[~free] * fixed).sum())
        level = (float((n * np.where(free, levels, 0.0)).sum()) - rest) / float(n[free].sum())
    else:
        rest = -limit - float((s[~free] * 4.0**-fixed).sum())
        level = float(np.log(rest / n[free].sum()) / np.log(4.0))
    return bits(level)
