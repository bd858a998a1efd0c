"""How a compiled circuit is known to do what its source does, or to be within its budget."""

from __future__ import annotations

import math

import numpy as np

from qcomp.angle_accuracies import (
    AngleBudget,
    AngleBudgets,
    AngleData,
    CircuitRows,
    RowAccuracies,
    data_of,
)
from qcomp.budget import OPERATOR_NORM
from qcomp.equivalence.distance import DENSE_QUBITS, operator_distance
from qcomp.errors import PassError
from qcomp.ir.circuit import Circuit
from qcomp.passmanager import Context
from qcomp.registry import load
from qcomp.report.data import CheckLine, Result

__all__ = ["check_circuit"]

_TRIED = 3
"""Random rows on which matrices of circuits with parameters are compared."""


def check_circuit(
    name: str,
    before: Circuit,
    after: Circuit,
    context: Context,
    *,
    only_bits: bool,
    from_zero: bool,
    may_differ: bool,
) -> CheckLine:
    """Compare a compiled circuit with its source.

    Args:
        name: Its name.
        before: The source.
        after: What was compiled.
        context: Seed and budget.
        only_bits: Whether only the joint distribution of classical bits has to be the same.
        from_zero: Whether the circuits begin in |0...0>.
        may_differ: Whether a pass was allowed to change what the circuit does.

    Raises:
        PassError: If it does something else, or changed by more than it was allowed.
    """
    budgets = (context.get(AngleBudgets) or AngleBudgets()).by_circuit
    budget = budgets.get(before.name, budgets.get(after.name))
    if budget is not None:
        return _within(name, before, after, budget, context)
    from qcomp.equivalence import check

    verdict = check(before, after, context.seed, only_bits=only_bits, from_zero=from_zero)
    if verdict.equal is False and not may_differ:
        raise PassError(
            f"the circuit '{name}' does not do what its source does, so it is not written",
            why=f"{verdict.how}: error {verdict.error:.3g}",
            hint="run again with --verify-each to find the pass, and report it",
        )
    result: Result = "not checked" if verdict.equal is None else "failed"
    if verdict.equal:
        result = "measured" if verdict.error else "proved"
    return CheckLine(
        f"the bits of the circuit '{name}' are those of its source"
        if only_bits
        else f"the circuit '{name}' does what its source does",
        verdict.how,
        result,
        None if verdict.equal is None else verdict.error,
        "largest difference",
    )


def _within(
    name: str, before: Circuit, after: Circuit, budget: AngleBudget, context: Context
) -> CheckLine:
    """Measure what the budget bounds."""
    if budget.measure != OPERATOR_NORM:
        return _change(name, before, after, budget, context)
    promised = context.ledger.promised_norm if budget.limit is None else budget.limit
    measured = _distance(before, after, context)
    rows = f" of {_TRIED} random rows" if after.params else ""
    how = f"matrices{rows}, up to a global phase; promised {promised:.3g}"
    if measured is None:
        measured = context.ledger.spent_norm
        how = (
            f"each word against its rotation, errors added, beyond {DENSE_QUBITS} qubits; "
            f"promised {promised:.3g}"
        )
    _hold(name, measured, promised, OPERATOR_NORM)
    return CheckLine(
        f"the circuit '{name}' is within its budget", how, "measured", measured, OPERATOR_NORM
    )


def _distance(before: Circuit, after: Circuit, context: Context) -> float | None:
    """Return the largest operator norm, over random rows where rows bring angles."""
    if not after.params or after.num_qubits > DENSE_QUBITS:
        return operator_distance(before, after, up_to_phase=True)
    found = context.need(RowAccuracies, "synthesize-rotations").in_order[after.name]
    bound = load("services", "bound-in-words")
    apart = []
    for row in context.rng("within").uniform(-np.pi, np.pi, (_TRIED, after.num_params)):
        values = dict(zip(after.params, row.tolist(), strict=True))
        exact = before.bind({name: values.get(name, 0.0) for name in before.params})
        apart.append(operator_distance(exact, bound(after, row, found), up_to_phase=True))
    return None if None in apart else max(x for x in apart if x is not None)


def _change(
    name: str, before: Circuit, after: Circuit, budget: AngleBudget, context: Context
) -> CheckLine:
    """Measure the largest change of an observable over the rows of data."""
    from qcomp.simulate.from_states import expectations_from

    known = context.get(CircuitRows)
    data = data_of(after.name, context.get(AngleData), known) or AngleData()
    texts = data.read_of(before)
    params = data.params
    values = [expectations_from(before, data.states, params, texts)]
    if after.params and params is not None:
        found = context.need(RowAccuracies, "synthesize-rotations").in_order[after.name]
        after, params = load("services", "in-words")(after, params, found)
    values.append(expectations_from(after, data.states, params, texts))
    measured = float(np.abs(values[0] - values[1]).max(initial=0.0))
    _hold(name, measured, math.inf if budget.limit is None else budget.limit, "of an observable")
    rows = len(values[0])
    promised = "" if budget.limit is None else f"; promised {budget.limit:.3g}"
    return CheckLine(
        f"the circuit '{name}' is within its budget",
        f"{len(texts)} observables on {rows} {'row' if rows == 1 else 'rows'} of data, "
        f"simulated{promised}",
        "measured",
        measured,
        "largest change",
    )


def _hold(name: str, measured: float, promised: float, measure: str) -> None:
    if measured > promised + 1e-9:
        raise PassError(
            f"the circuit '{name}' changed by {measured:.3g} {measure}, {promised:.3g} was "
            "promised, so it is not written",
            hint="run again with --verify-each to find the pass, and report it",
        )
