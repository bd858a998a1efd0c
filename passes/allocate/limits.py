"""What bits are shared out under beside bytes and errors, and the front that limits choose from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from qcomp.errors import PassError, UsageError
from qcomp.passes.allocate.solve import Items, Limit, frontier, integer_program
from qcomp.way_costs import LatencyBudget, WayCosts

if TYPE_CHECKING:
    from qcomp.passmanager import Context
    from qcomp.sensitivity import Sensitivities

__all__ = ["fewest_bytes", "front_words", "limits_of"]

_POINTS = 256
_SHOWN = 4


def limits_of(
    table: Sensitivities, context: Context, max_operations: float = 0.0
) -> tuple[Limit, ...]:
    """What the integer program keeps to beside bytes: time, and bit operations.

    Args:
        table: The tensors.
        context: With the user's limit on latency, if there is one.
        max_operations: Bit operations over those of 8 bits for all; 0 for no limit.

    Raises:
        PassError: Costs were not measured.
        UsageError: Both at once.
    """
    budget = context.get(LatencyBudget)
    if budget is None and not max_operations:
        return ()
    if budget is not None and max_operations:
        raise UsageError(
            "allocate-bits takes a limit on latency or on bit operations, not both",
            hint="leave max-operations out",
        )
    costs = context.need(WayCosts, "measure-costs")
    if budget is not None:
        ratios = [costs.ratios(t.weight) for t in table.tensors]
        return (Limit(ratios, budget.ratio - 1.0, "latency over float's", 1.0),)
    counted = [costs.operations[t.weight] for t in table.tensors]
    widest = [part[-1] / t.choices[-1].bits for part, t in zip(counted, table.tensors, strict=True)]
    whole = 8.0 * sum(widest) or 1.0
    shares = [[cost / whole for cost in part] for part in counted]
    return (Limit(shares, max_operations, "count of bit operations over 8 bits'"),)


def fewest_bytes(table: Sensitivities, context: Context) -> int:
    """The fewest bytes of all tensors together within the limit on latency, if there is one.

    Raises:
        PassError: No choices are so fast; says the nearest, and the front.
    """
    also = limits_of(table, context)
    sizes = [[float(c.bytes) for c in t.choices] for t in table.tensors]
    if not also:
        return int(sum(map(min, sizes)))
    (limit,) = also
    if limit.least > limit.most:
        errors = [[c.error for c in t.choices] for t in table.tensors]
        items = [list(zip(*pair, strict=True)) for pair in zip(limit.values, errors, strict=True)]
        raise PassError(
            f"a {limit.name} of at most {limit.shown(limit.most)} cannot be met",
            why=f"the least that these choices have is {limit.shown(limit.least)}",
            hint=f"allow {limit.shown(limit.least)}; "
            + front_words(items, table.unit, limit.shown),
        )
    ways = integer_program(
        [[(size, size) for size in part] for part in sizes],
        max_cost=sum(map(max, sizes)),
        also=also,
    )
    return int(sum(part[w] for part, w in zip(sizes, ways, strict=True)))


def front_words(items: Items, unit: str, shown: Callable[[float], str]) -> str:
    """Some points of a front, in words.

    Args:
        items: Costs and errors.
        unit: Of errors.
        shown: A cost in words.
    """
    front = frontier(items, _POINTS)
    wanted = np.linspace(front.costs[0], front.costs[-1], _SHOWN)
    places = np.unique(np.searchsorted(front.costs, wanted, "right") - 1)
    points = [f"{shown(float(front.costs[i]))}: {front.errors[i]:.3g}" for i in places]
    return f"the front in {unit}: {', '.join(points)}"
