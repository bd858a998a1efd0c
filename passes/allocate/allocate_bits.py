"""Bits and blocks of every tensor under one budget, where the output is sensitive to them.

    minimise  sum_l error(l, b_l, g_l)   subject to   sum_l bytes(l, b_l, g_l) <= max-bytes

or the bytes subject to ``max-error``. What is chosen goes to the passes behind as overrides of
single operators: ``gptq`` and its kin round to those bits and blocks, ``quantize-weights``,
``quantize-static`` and ``quantize-embeddings`` store them. Operators that the user gives bits keep
them.

| ``method``      | what it is                                                                    |
|-----------------|-------------------------------------------------------------------------------|
| `program`       | the integer program, solved exactly by HiGHS                                  |
| `frontier`      | a point of the Pareto front by dynamic programming over 4096 points           |
| `convex`        | its relaxation, the cheaper of two ways, and steps for what is left (QBitOpt) |
| `water-filling` | real bits in closed form from one error a tensor, the nearest choice below it |

``max-ratio`` states the bytes over those of the same tensors in ``uniform`` bits and blocks of 32,
tables in 8 bits.

``--max-bytes`` and ``--max-drop`` of a compile take the place of a budget that the pass has not.
``--max-latency-ratio`` is a further limit of the integer program, and where it is the only one,
errors are minimised below it:

    sum_l (time(l, c_l) - time(l, float)) <= (R - 1) time(float graph)

``max-operations`` limits bit operations over those of 8 bits for all in the same way.

Preconditions: ``measure-sensitivity`` or another pass that leaves Sensitivities; ``measure-costs``
where time or operations are limited.
Preserved: everything; leaves NodeRules and an AllocatedBits fact. The predicted error goes into the
ledger of whoever stores the weights, not of this pass.
Cost: milliseconds for hundreds of tensors.
Source: :mod:`qcomp.passes.allocate.solve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from qcomp.byte_budget import TensorBudget
from qcomp.errors import PassError, UsageError
from qcomp.node_rules import Override
from qcomp.passes.allocate.limits import limits_of
from qcomp.passes.allocate.solve import (
    Limit,
    cheapest,
    convex_relaxation,
    frontier,
    integer_program,
    reverse_water_filling,
)
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import NodeRules, rules_of
from qcomp.sensitivity import AllocatedBits, BitChoice, Sensitivities, TensorSensitivity
from qcomp.way_costs import LatencyBudget

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["AllocateBits", "uniform_choice"]

_POINTS = 4096


@dataclass(frozen=True)
class AllocateBits(GraphPass):
    """Choose the bits and blocks of every tensor.

    Attributes:
        max_bytes: Of all tensors together, in the file; 0 for none.
        max_ratio: The same over the bytes of ``uniform`` bits in blocks of 32; 0 for none.
        max_error: Sum of the errors, in the unit of the sensitivities; 0 for none.
        max_operations: Bit operations over those of 8 bits for all, beside any of these; 0 for
            none.
        uniform: Bits that ``max_ratio`` compares with.
        method: ``program``, ``frontier``, ``convex`` or ``water-filling``.
        needs_data: Whether to refuse where there are no sensitivities.
    """

    name: ClassVar[str] = "allocate-bits"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    max_bytes: int = 0
    max_ratio: float = 0.0
    max_error: float = 0.0
    max_operations: float = 0.0
    uniform: int = 4
    method: Literal["program", "frontier", "convex", "water-filling"] = "program"
    needs_data: bool = True

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: Another method, or not just one budget.
        """
        given = [b for b in (self.max_bytes, self.max_ratio, self.max_error) if b]
        if len(given) > 1 or any(b < 0 for b in given):
            raise UsageError(
                "allocate-bits takes one budget, above 0",
                hint="one of max-bytes, max-ratio and max-error",
            )
        if self.max_operations < 0:
            raise UsageError("allocate-bits: max-operations is above 0", hint="max-operations=0.6")
        if self.method not in ("program", "frontier", "convex", "water-filling"):
            raise UsageError(
                f"allocate-bits: method is '{self.method}'",
                hint="'program', 'frontier', 'convex' or 'water-filling'",
            )

    def run(self, program: Program, context: Context) -> bool:
        """Choose; the program stays as it is.

        Raises:
            PassError: No sensitivities, or a budget that cannot be met.
        """
        table = context.get(Sensitivities)
        if table is None and not self.needs_data:
            return False
        table = context.need(Sensitivities, "measure-sensitivity")
        if not table.tensors:
            return False
        budget = self._budget(table, context)
        items = [[(float(c.bytes), c.error) for c in t.choices] for t in table.tensors]
        also = limits_of(table, context, self.max_operations)
        ways = self._solve(table, items, budget, also)
        picked = [t.choices[w] for t, w in zip(table.tensors, ways, strict=True)]
        chosen = {t.weight: c for t, c in zip(table.tensors, picked, strict=True)}
        context.put(
            AllocatedBits(
                self.method,
                table.method,
                table.unit,
                chosen,
                sum(c.bytes for c in picked),
                sum(c.error for c in picked),
                budget,
                self.max_error or None,
                _uniforms(table.tensors),
                {limit.name: limit.of(ways) + limit.offset for limit in also},
            )
        )
        rules = [
            Override(node, c.bits, reason=f"{c} by {self.name}", group=c.group or None)
            for t, c in zip(table.tensors, picked, strict=True)
            for node in t.nodes
        ]
        context.put(rules_of(context).joined(NodeRules(override=tuple(rules))))
        return False

    def _budget(self, table: Sensitivities, context: Context) -> int | None:
        asked = context.get(TensorBudget)
        if asked is not None:
            return asked.bytes
        if self.max_error:
            return None
        if self.max_bytes:
            return self.max_bytes
        limited = bool(self.max_operations) or context.get(LatencyBudget) is not None
        if limited and not self.max_ratio:
            return sum(max(c.bytes for c in t.choices) for t in table.tensors)
        ratio = self.max_ratio or 1.0
        return int(ratio * sum(uniform_choice(t, self.uniform).bytes for t in table.tensors))

    def _solve(
        self,
        table: Sensitivities,
        items: list[list[tuple[float, float]]],
        budget: int | None,
        also: Sequence[Limit],
    ) -> list[int]:
        if also and self.method != "program":
            raise UsageError(
                f"allocate-bits: the method '{self.method}' keeps to one limit, not to a "
                f"{also[0].name} besides",
                hint="method=program",
            )
        if self.method == "water-filling":
            return self._fill(table.tensors, items, budget)
        if self.method == "convex":
            most = self.max_error if budget is None else None
            ways = convex_relaxation(items, max_cost=budget, max_error=most)
            return _refined(items, ways, budget, self.max_error)
        if self.method == "program":
            if budget is None:
                return integer_program(items, max_error=self.max_error, also=also)
            return integer_program(items, max_cost=budget, also=also)
        front = frontier(items, _POINTS)
        if budget is None:
            return [int(w) for w in front.ways[cheapest(front, self.max_error)]]
        if front.costs[0] > budget:
            raise PassError(
                f"the budget of {budget} bytes cannot be met",
                hint=f"allow {front.costs[0]:.0f}, with an error of {front.errors[0]:.3g}",
            )
        return [int(w) for w in front.ways[np.searchsorted(front.costs, budget, "right") - 1]]

    def _fill(
        self,
        tensors: Sequence[TensorSensitivity],
        items: list[list[tuple[float, float]]],
        budget: int | None,
    ) -> list[int]:
        """Real bits, then the largest choice below them; what is left goes where it gains most."""
        middle = [t.choices[len(t.choices) // 2] for t in tensors]
        width = np.array([8.0 * c.bytes / t.size for c, t in zip(middle, tensors, strict=True)])
        s = np.array([c.error for c in middle]) * 4.0**width
        n = np.array([t.size for t in tensors], np.float64)
        low = min(8.0 * c.bytes / t.size for t in tensors for c in t.choices)
        high = max(8.0 * c.bytes / t.size for t in tensors for c in t.choices)
        bits = reverse_water_filling(
            s,
            n,
            max_bits=None if budget is None else 8.0 * budget,
            max_error=self.max_error or None,
            low=low,
            high=high,
        )
        ways = []
        for t, b in zip(tensors, bits, strict=True):
            fits = [i for i, c in enumerate(t.choices) if 8.0 * c.bytes <= b * t.size + 1e-6]
            ways.append(min(fits, key=lambda i: t.choices[i].error) if fits else 0)
        return _refined(items, ways, budget, self.max_error)


def _refined(
    items: list[list[tuple[float, float]]], ways: list[int], budget: int | None, max_error: float
) -> list[int]:
    """Take the step that gains most error a byte as long as it fits, or as the error is too large.

    Raises:
        PassError: The fewest bytes are too many, or the least error is too large.
    """
    while True:
        cost = sum(part[w][0] for part, w in zip(items, ways, strict=True))
        error = sum(part[w][1] for part, w in zip(items, ways, strict=True))
        if budget is None and error <= max_error:
            return ways
        steps = [
            ((part[w][1] - part[v][1]) / (part[v][0] - part[w][0]), tensor, v)
            for tensor, (part, w) in enumerate(zip(items, ways, strict=True))
            for v in range(len(part))
            if part[v][0] > part[w][0]
            and part[v][1] < part[w][1]
            and (budget is None or cost + part[v][0] - part[w][0] <= budget)
        ]
        if not steps:
            if (budget is not None and cost > budget) or (budget is None and error > max_error):
                raise PassError(
                    "the budget cannot be met",
                    hint=f"the nearest has {cost:.0f} bytes and an error of {error:.3g}",
                )
            return ways
        _, tensor, way = max(steps)
        ways[tensor] = way


def uniform_choice(tensor: TensorSensitivity, bits: int, group: int = 32) -> BitChoice:
    """The choice that all tensors would have: so many bits, in blocks of so many; the nearest."""
    whole = [c for c in tensor.choices if not c.group and c.bits == max(8, bits)]
    return (
        whole[0]
        if whole and bits < whole[0].bits and _is_table(tensor)
        else min(tensor.choices, key=lambda c: (abs(c.bits - bits), abs(c.group - group)))
    )


def _is_table(tensor: TensorSensitivity) -> bool:
    return tensor.op_type in ("Gather", "GatherND")


def _uniforms(tensors: Sequence[TensorSensitivity]) -> dict[str, tuple[int, float]]:
    found = {}
    for bits in sorted({c.bits for t in tensors for c in t.choices}):
        same = [uniform_choice(t, bits) for t in tensors]
        found[str(bits)] = sum(c.bytes for c in same), sum(c.error for c in same)
    return found
