"""From what the backward sweep of a plan collects to the gradient in the circuit's angles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.simulate.adjoint import adjoint_lanes
from qcomp.simulate.batched import NO_WORDS, Tables, row_blocks, run_tables, tables_of
from qcomp.simulate.paulis import PauliTable
from qcomp.simulate.plan import Gates, Plan, one_qubit_axis
from qcomp.simulate.tables import chain_gradients
from qcomp.simulate.tape import SHIFTS
from qcomp.simulate.values import Values, coefficients_of, matrices_of

__all__ = ["angle_gradients"]

Reals = NDArray[np.float64]
States = NDArray[np.complex128]

_GENERATORS = -0.5j * np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


def angle_gradients(
    plan: Plan, params: Reals, table: PauliTable | None, weights: Reals, entries: int
) -> Reals:
    """Return the gradient of ``sum_t weights[b, t] <P_t>_b`` in the angle entries, float64[B, m].

    Args:
        plan: A plan made for gradients.
        params: float64[B, P].
        table: The words P_t; without them the weights are those of the basis states.
        weights: float64[B, T], or float64[B, 2^n].
        entries: Number of angle entries m.
    """
    out = np.zeros((len(params), entries))
    for part in row_blocks(plan, len(params), arrays=6):
        found = tables_of(plan, params[part])
        moments, overlaps = _swept(found, table, weights[part])
        _collect(plan, found.values, moments, overlaps, out[part])
    return out


def _swept(found: Tables, table: PauliTable | None, weights: Reals) -> tuple[Reals, States]:
    plan, values = found.plan, found.values
    rows = len(weights)
    states = np.empty((rows, 1 << plan.num_qubits), dtype=np.complex128)
    run_tables(found, states[:0], NO_WORDS, states, np.zeros((rows, 0)))
    moments = np.zeros((rows, len(plan.chain), 3))
    overlaps = np.zeros((rows, sum(plan.widths)), dtype=np.complex128)
    words = NO_WORDS if table is None else table
    assert plan.moves is not None
    adjoint_lanes(
        states,
        np.ascontiguousarray(weights),
        words.x,
        words.z,
        words.factor,
        plan.kind,
        plan.first,
        plan.second,
        plan.place,
        found.at,
        plan.fused,
        plan.wide,
        values.turns,
        plan.moves,
        found.diagonals,
        values.constants[plan.inverses[0]].conj(),
        values.varying[:, plan.inverses[1]].conj(),
        plan.prefix,
        moments,
        overlaps,
    )
    return moments, overlaps


def _collect(plan: Plan, values: Values, moments: Reals, overlaps: States, out: Reals) -> None:
    rows, most = len(moments), max((g.entries.shape[1] for g in plan.ones), default=0)
    one = np.zeros((plan.num_ones[0], most, 2, 2), dtype=np.complex128)
    many = np.zeros((rows, plan.num_ones[1], most, 2, 2), dtype=np.complex128)
    one_entry = np.full(plan.num_ones[0], -1, dtype=np.int64)
    many_entry = np.full(plan.num_ones[1], -1, dtype=np.int64)
    for gates in plan.ones:
        if not _learns(plan, gates):
            continue
        (many_entry if gates.varies else one_entry)[gates.place] = gates.entries[:, 0]
        axis = one_qubit_axis(gates.code)
        slopes = many if gates.varies else one
        if axis >= 0:
            slopes[..., gates.place, 0, :, :] = _GENERATORS[axis]
            continue
        back = (values.many if gates.varies else values.one)[..., gates.place, :, :]
        back = back.conj().swapaxes(-1, -2)
        for k, slope in enumerate(_slopes(gates, values, rows)):
            slopes[..., gates.place, k, :, :] = slope @ back
    chain_gradients(
        plan.chain,
        plan.chain_varies,
        values.left,
        values.one,
        values.many,
        one,
        many,
        one_entry,
        many_entry,
        moments,
        out,
    )
    for gates in plan.wides:
        if not _learns(plan, gates):
            continue
        start = gates.place + (plan.widths[0] if gates.varies else 0)
        for k, slope in enumerate(_slopes(gates, values, rows)):
            found = coefficients_of(slope, gates.kind)
            own = overlaps[:, start[:, None] + np.arange(found.shape[-1])]
            out[:, gates.entries[:, k]] = 2 * np.sum((found * own).real, axis=-1)


def _learns(plan: Plan, gates: Gates) -> bool:
    """Whether an angle of the gates depends on a parameter."""
    return bool((plan.angles.form[gates.entries] >= 0).any())


def _slopes(gates: Gates, values: Values, rows: int) -> list[States]:
    """Return d(matrix)/d(angle k) for each k; see :data:`qcomp.simulate.tape.SHIFTS`."""
    angles = values.angles.of(gates)
    out = []
    for k in range(len(angles)):
        total = np.zeros((), dtype=np.complex128)
        for shift, weight in SHIFTS:
            for sign in (1.0, -1.0):
                moved = list(angles)
                moved[k] = moved[k] + sign * shift
                total = total + sign * weight * matrices_of(gates, moved, rows)
        out.append(total)
    return out
