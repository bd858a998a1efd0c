"""How far two circuits are apart in operator norm: the largest change of a state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.budget import OPERATOR_NORM, Entry
from qcomp.errors import PassError, UsageError
from qcomp.ir.circuit import Circuit

__all__ = ["DENSE_QUBITS", "check_within", "operator_distance"]

_ROWS = 3
DENSE_QUBITS = 10
"""The most qubits whose matrices are compared."""


def operator_distance(a: Circuit, b: Circuit, *, up_to_phase: bool = False) -> float | None:
    """Return ``||U - V||``, the largest singular value, of two circuits' matrices.

    Cost: 4^n amplitudes a gate, and a product of matrices.

    Args:
        a: A circuit that is unitary up to measurements at its end.
        b: The same, on as many qubits.
        up_to_phase: Whether a global phase is taken out first, by the trace of ``U^-1 V``.

    Returns:
        The norm, with parameters the largest of three random rows; None where the two have other
        parameters, other layouts, anything that is not unitary, or more than ``DENSE_QUBITS``
        qubits.
    """
    from qcomp.simulate import unitary

    same = a.num_qubits == b.num_qubits and a.layout is b.layout and a.params == b.params
    if not same or a.num_qubits > DENSE_QUBITS:
        return None
    if a.params:
        rows = np.random.default_rng(0).uniform(-np.pi, np.pi, (_ROWS, a.num_params))
        found = [operator_distance(a.bind(r), b.bind(r), up_to_phase=up_to_phase) for r in rows]
        return None if None in found else max(x for x in found if x is not None)
    try:
        u, v = unitary(a), unitary(b)
    except UsageError:
        return None
    if up_to_phase:
        overlap = np.vdot(v, u)
        if overlap != 0:
            v = v * (overlap / abs(overlap))
    apart = u - v
    gram = apart.conj().T @ apart
    return float(np.sqrt(max(np.linalg.eigvalsh(gram)[-1], 0.0)))


def check_within(name: str, before: Circuit, after: Circuit, entries: Sequence[Entry]) -> str:
    """Hold a pass that approximates to what it promised in the ledger, and say how.

    Args:
        name: The pass.
        before: The circuit it was given.
        after: The circuit it made.
        entries: The lines that it entered.

    Raises:
        PassError: If it promised nothing, or the circuit changed by more than it promised.
    """
    if not entries:
        raise PassError(
            f"'{name}' may change what circuits do, but promised nothing",
            hint="enter what it spends: context.ledger.spend(...)",
        )
    bounds = [entry.promised for entry in entries if entry.measure == OPERATOR_NORM]
    if not bounds:
        return "within its share of the budget, as entered in the ledger"
    promised = sum(bounds)
    measured = operator_distance(before, after)
    if measured is None:
        return f"within {promised:.3g} in operator norm, as entered in the ledger"
    if measured > promised + 1e-9:
        raise PassError(
            f"'{name}' changed the circuit '{before.name}' by {measured:.3g} in operator norm, it "
            f"had promised {promised:.3g}",
            hint="this is a fault of the pass; leave it out and report it",
        )
    return f"changed by {measured:.3g} in operator norm, at most {promised:.3g} was promised"
