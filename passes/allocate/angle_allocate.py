"""allocate-angles: each rotation's accuracy, under one limit for the whole circuit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.angle_accuracies import (
    AngleAccuracies,
    AngleAccuracy,
    AngleBudget,
    AngleBudgets,
    AngleData,
    CircuitRows,
    RowAccuracies,
    RowKey,
    data_of,
)
from qcomp.budget import OPERATOR_NORM
from qcomp.errors import PassError, UsageError
from qcomp.ir.circuit import Circuit
from qcomp.passes.allocate.angle_effects import Effects
from qcomp.passes.allocate.angle_fronts import (
    Allocation,
    Allocations,
    change_costs,
    closed_form,
    predicted_saving,
)
from qcomp.passes.reduce.leaves import rewrite_leaves
from qcomp.passes.synthesize.clifford_t.chains import Chain, chains_of, lowered
from qcomp.passes.synthesize.clifford_t.rotations import FINEST
from qcomp.passes.synthesize.clifford_t.row_words import RowTurn, row_turns, with_words
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["AllocateAngles", "effects_of", "in_place", "keep"]

_ROUNDS = 6
"""How often words are looked for elsewhere, where the first ones do not hold the limit."""

_ROOM = 3.0
"""The largest change over rows and observables is taken to be so many times the mean, at first."""

_LUCK, _SCANNED = 0.9, 13
"""How many allocations are tried, and down to what share of the T gates that were found."""

_COARSE = 0.1
"""About what accuracy a front is shown at where no limit says one."""

_STEP = 6.0
_MARGIN = 1 + 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AllocateAngles(CircuitPass):
    """``min sum_i T(e_i)  subject to  sum_i s_i e_i <= E``: closed form, then a knapsack of words.

    Three limits, one at a time:

    * ``error``: ``sum_i e_i <= E`` bounds the operator norm of the whole change;
    * ``observable_error``: the largest change of an observable over the rows of data, by simulation
      of the rows with the words in the rotations' places. Sensitivities (a turn about any axis, to
      second order, see :mod:`qcomp.passes.allocate.angle_effects`) only guide the split;
    * ``t``: at most so many T gates, and the least error: of the observables where there is data,
      else in operator norm.

    A rotation by a parameter gets an accuracy, too; its T gates are the mean over rows of data, or
    over the circle where there are none, and its word is found when a row is bound.

    Preconditions: ``synthesize-rotations`` right behind it. Observables need a circuit that is
    unitary up to measurements at its end; without data from the caller (an
    :class:`~qcomp.angle_accuracies.AngleData`) they are Z of every qubit from |0...0>.

    Preserves: everything; leaves the accuracies as a fact.

    Cost: some ten syntheses a chain; two sweeps over 128 rows at most, and some over all rows.

    Source: reverse water-filling (Cover, Thomas, Elements of Information Theory, 10.3) over
    ``T(e) = 3 log2(1/e)``; the knapsack by dynamic programming, see
    :mod:`qcomp.passes.allocate.solve`.

    Attributes:
        error: The operator norm, 0 for no such limit.
        observable_error: The change of an observable, 0 for no such limit.
        t: The T gates, -1 for no such limit.
        direct_t: Chains are looked for at once among unitaries with at most so many T.
    """

    name: ClassVar[str] = "allocate-angles"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    error: float = 0.0
    observable_error: float = 0.0
    t: int = -1
    direct_t: int = 26

    def __post_init__(self) -> None:
        """Check the limits."""
        given = [
            name
            for name, is_given in (
                ("error", self.error != 0),
                ("observable_error", self.observable_error != 0),
                ("t", self.t >= 0),
            )
            if is_given
        ]
        if len(given) > 1:
            raise UsageError(
                f"{self.name}: {' and '.join(given)} contradict one another",
                hint="give one limit; the others are then as small as that allows",
            )
        for name in ("error", "observable_error"):
            value = getattr(self, name)
            if value and not 0 < value < 2:
                raise UsageError(f"{self.name}: {name} lies between 0 and 2, not {value:g}")

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit itself; what was allocated is kept as a fact."""
        if not (self.error or self.observable_error or self.t >= 0):
            raise UsageError(
                "no limit was given to share among rotations",
                hint="allocate-angles{error=1e-3}, {observable_error=0.01} or {t=3000}",
            )
        whole = rewrite_leaves(circuit, lowered)
        data = data_of(circuit.name, context.get(AngleData), context.get(CircuitRows))
        chains = [chain for run in whole.runs() for chain in chains_of(run)]
        turns = row_turns(whole, None if data is None else data.params)
        if chains or turns:
            chosen, budget = self._choose(whole, chains, turns, data)
            keep(circuit, turns, chosen, context)
            context.put((context.get(AngleBudgets) or AngleBudgets()).with_budget(budget))
        return circuit

    def _choose(
        self,
        circuit: Circuit,
        chains: list[Chain],
        turns: list[RowTurn],
        data: AngleData | None,
    ) -> tuple[Allocation, AngleBudget]:
        if self.error:
            return self._by_norm(circuit, [*chains, *turns])
        if self.observable_error or (data is not None and (data.params is not None or not turns)):
            effects = effects_of(circuit, data or AngleData(), turns)
            if self.observable_error:
                return self._by_change(circuit, effects, turns)
            return self._by_t(circuit, [*chains, *turns], effects)
        return self._by_t(circuit, [*chains, *turns], None)

    def _by_norm(
        self, circuit: Circuit, chains: Sequence[Chain | RowTurn]
    ) -> tuple[Allocation, AngleBudget]:
        """Return the allocation with the fewest T within an operator norm."""
        sizes = np.array([chain.size for chain in chains], dtype=np.float64)
        centre = np.maximum(self.error * sizes / sizes.sum(), FINEST)
        _check_reachable(self.error, len(chains), OPERATOR_NORM)
        for _ in range(_ROUNDS):
            found = Allocations(chains, centre, lambda _, errors: errors * _MARGIN, self.direct_t)
            fits = np.flatnonzero(found.costs <= self.error)
            if len(fits):
                chosen = found[int(fits[0])]
                return chosen, AngleBudget(
                    circuit.name, OPERATOR_NORM, self.error, chosen.norm, chosen.t_count, 0.0
                )
            centre = np.maximum(centre / _STEP, FINEST)
        raise _unmet(f"an error of {self.error:.3g} in operator norm", found, OPERATOR_NORM)

    def _by_change(
        self, circuit: Circuit, effects: Effects, turns: list[RowTurn]
    ) -> tuple[Allocation, AngleBudget]:
        """Return the allocation with the fewest T that changes observables by no more."""
        limit = self.observable_error
        chains: list[Chain | RowTurn] = [*effects.chains, *turns]
        _check_reachable(limit, len(chains), "observables")
        exact = effects.values()
        sensitivities = effects.sensitivities()
        slopes = np.maximum(sensitivities.first, 1e-3 * sensitivities.second)
        centre = closed_form(slopes, limit / _ROOM, independent=True)

        def change(allocation: Allocation) -> float:
            return float(np.abs(effects.values(in_place(allocation, effects)) - exact).max())

        for _ in range(_ROUNDS):
            found = Allocations(chains, centre, change_costs(sensitivities), self.direct_t)
            low, high = -1, len(found) - 1
            best, least = found[high], change(found[high])
            if least <= limit:
                while high - low > 1:
                    middle = (low + high) // 2
                    allocation = found[middle]
                    if (changed := change(allocation)) <= limit:
                        high, best, least = middle, allocation, changed
                    else:
                        low = middle
                # Signs of errors are chance, so some allocations with fewer T hold the limit, too.
                below = np.searchsorted(found.t_counts[:high], _LUCK * best.t_count)
                for index in np.unique(np.linspace(below, high, _SCANNED, dtype=np.int64)[:-1]):
                    allocation = found[int(index)]
                    if (changed := change(allocation)) <= limit:
                        best, least = allocation, changed
                        break
                sizes = [chain.size for chain in chains]
                saving = predicted_saving(np.repeat(slopes, sizes))
                return best, AngleBudget(
                    circuit.name, "observables", limit, least, best.t_count, saving
                )
            centre = np.maximum(centre / _STEP, FINEST)
        raise PassError(
            f"a change of observables by at most {limit:.3g} cannot be met",
            why=f"the nearest that was found is {least:.3g}, with {best.t_count} T gates",
            hint=f"allow {least:.3g}; the front: {_front_text(found)}",
        )

    def _by_t(
        self, circuit: Circuit, chains: Sequence[Chain | RowTurn], effects: Effects | None
    ) -> tuple[Allocation, AngleBudget]:
        """Return the allocation with the least error of those with few enough T."""
        fixed = circuit.stats().t_count
        room = self.t - fixed
        if room < 0:
            some = Allocations(
                chains, np.full(len(chains), _COARSE), lambda _, errors: errors, self.direct_t
            )
            raise PassError(
                f"{self.t} T gates cannot be met",
                why=f"the circuit has {fixed} of them beside the rotations",
                hint=f"allow {fixed} or more, or reduce them first (--effort max); the front "
                f"({OPERATOR_NORM}): {_front_text(some, fixed)}",
            )
        cost = (lambda _, errors: errors) if effects is None else None
        slopes = np.ones(len(chains))
        if effects is not None:
            sensitivities = effects.sensitivities()
            slopes = np.maximum(sensitivities.first, 1e-3 * sensitivities.second)
            cost = change_costs(sensitivities)
        assert cost is not None
        # 3 log2(1/e) T a rotation, and less by about 2, is what words have.
        rotations = sum(chain.size for chain in chains)
        typical = 2.0 ** (-(room / rotations + 2) / 3)
        centre = closed_form(slopes, typical * float(len(chains)) * float(slopes.mean()))
        for _ in range(_ROUNDS):
            found = Allocations(chains, centre, cost, self.direct_t)
            if found.t_counts[-1] >= room or centre.min() <= FINEST:
                break
            centre = np.maximum(centre / _STEP, FINEST)
        chosen = found[int(np.flatnonzero(found.t_counts <= room)[-1])]
        spent, measure = chosen.norm, OPERATOR_NORM
        if effects is not None:
            changed = effects.values(in_place(chosen, effects))
            spent = float(np.abs(changed - effects.values()).max())
            measure = "observables"
        return chosen, AngleBudget(circuit.name, measure, None, spent, chosen.t_count + fixed, 0.0)


def effects_of(circuit: Circuit, data: AngleData, turns: Sequence[RowTurn]) -> Effects:
    """Return the effects of errors in a lowered circuit.

    Raises:
        PassError: If it has control flow, or parameters and no rows of them.
    """
    if not circuit.is_straight_line:
        raise PassError(
            f"the circuit '{circuit.name}' has control flow: what errors do to observables "
            "cannot be followed there",
            hint="bound the operator norm: error, or --max-error",
        )
    if turns and data.params is None:
        raise PassError(
            f"the circuit '{circuit.name}' has parameters, and no rows of them are known",
            why="what errors do to observables depends on the angles that rows of data bring",
            hint="give rows: --calib data.npz; or bound the operator norm: --max-error",
        )
    return Effects(circuit, chains_of(circuit.run), data, [turn.index[0] for turn in turns])


def in_place(allocation: Allocation, effects: Effects) -> list[Floats]:
    """Return what an allocation puts in the place of chains and of rotations by parameters."""
    return [np.array(point.word.quaternion) for point in allocation.points] + [
        with_words(effects.angles[:, k], point.error).quaternions
        for k, point in enumerate(allocation.by_rows)
    ]


def keep(circuit: Circuit, turns: Sequence[RowTurn], chosen: Allocation, context: Context) -> None:
    """Leave an allocation as a fact, for ``synthesize-rotations``."""
    given = context.get(AngleAccuracies) or AngleAccuracies()
    words = [
        AngleAccuracy(max(point.error * _MARGIN, FINEST), point.word.gates)
        for point in chosen.points
    ]
    context.put(given.with_circuit(circuit, words))
    finest: dict[RowKey, float] = {}
    for turn, point in zip(turns, chosen.by_rows, strict=True):
        finest[turn.key] = min(point.error, finest.get(turn.key, point.error))
    if finest:
        rows = context.get(RowAccuracies) or RowAccuracies()
        context.put(rows.with_circuit(circuit.name, finest))


def _check_reachable(limit: float, chains: int, what: str) -> None:
    least = FINEST * chains
    if limit < least:
        raise PassError(
            f"an error of {limit:.3g} ({what}) cannot be met",
            why=f"{chains} rotations in float64 are off by {least:.1e} together",
            hint=f"allow {least:.1e} or more",
        )


def _front_text(found: Allocations, fixed: int = 0) -> str:
    """Return some points of a front in words, T gates beside the rotations counted."""
    index = np.unique(np.linspace(0, len(found) - 1, 5).astype(int))
    points = [found[int(i)] for i in index]
    return ", ".join(f"{point.t_count + fixed} T at {point.norm:.2e}" for point in points)


def _unmet(what: str, found: Allocations, measure: str) -> PassError:
    least = found[len(found) - 1]
    return PassError(
        f"{what} cannot be met",
        why=f"the nearest that was found is {least.norm:.3g} with {least.t_count} T gates",
        hint=f"allow {least.norm:.3g}; the front ({measure}): {_front_text(found)}",
    )
