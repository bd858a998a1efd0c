"""A run of gates on many rows at once: plans kept, tables made, the compiled kernels called."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.circuit import Circuit
from qcomp.ir.run import Run
from qcomp.simulate.lanes import LANES, forward_lanes
from qcomp.simulate.paulis import PauliTable
from qcomp.simulate.plan import Plan, plan_of
from qcomp.simulate.tables import cycles, layer_diagonals
from qcomp.simulate.values import Values, values_of

__all__ = [
    "NO_WORDS",
    "Tables",
    "evolve_batch",
    "fits_lanes",
    "kept_plan",
    "moving_entries",
    "row_blocks",
    "run_digest",
    "run_tables",
    "tables_of",
    "words_of_batch",
]

MAX_QUBITS = 13
"""Qubits up to which a block of rows stays in a processor's cache of the second level."""

MIN_ROWS = 4
"""Rows from which on lanes beat one row at a time."""

_TABLE_ENTRIES = 1 << 22
_BLOCK_COEFFICIENTS = 1 << 20
_PLANS_KEPT = 64

States = NDArray[np.complex128]
Reals = NDArray[np.float64]

_plans: OrderedDict[bytes, Plan] = OrderedDict()


def moving_entries(circuit: Circuit, run: Run, params: Reals) -> NDArray[np.bool_]:
    """Return the angle entries in which the rows differ, bool[m]."""
    moving = np.zeros(len(run.form), dtype=np.bool_)
    columns = (params != params[:1]).any(axis=0)
    if columns.any():
        forms = circuit.forms
        hit = np.concatenate([[0], np.cumsum(columns[forms.col])])
        varies = hit[forms.indptr[1:]] > hit[forms.indptr[:-1]]
        live = run.form >= 0
        moving[live] = varies[run.form[live]]
    return moving


def run_digest(circuit: Circuit, run: Run) -> bytes:
    """Return a name for what a run does: equal runs have equal ones."""
    digest = hashlib.blake2b(digest_size=16)
    forms = circuit.forms
    arrays = (run.code, run.qubit, run.extra, run.angle, run.frac, run.rem, run.form)
    for array in (*arrays, forms.indptr, forms.col, forms.coef):
        digest.update(len(array).to_bytes(8, "little"))
        digest.update(array.tobytes())
    digest.update(circuit.num_qubits.to_bytes(8, "little"))
    return digest.digest()


def kept_plan(
    circuit: Circuit, run: Run, moving: NDArray[np.bool_], *, gradient: bool = False
) -> Plan:
    """Return the plan of a run, kept for the next call with an equal one."""
    key = run_digest(circuit, run) + moving.tobytes() + bytes([gradient])
    known = _plans.get(key)
    if known is None:
        known = _plans[key] = plan_of(circuit, run, moving, gradient=gradient)
        if len(_plans) > _PLANS_KEPT:
            _plans.popitem(last=False)
    else:
        _plans.move_to_end(key)
    return known


def fits_lanes(num_qubits: int, rows: int, plan: Plan | None = None) -> bool:
    """Whether rows of a plan are evolved side by side."""
    layers = 1 if plan is None else plan.layers
    small = num_qubits <= MAX_QUBITS and layers << num_qubits <= _TABLE_ENTRIES
    return small and rows >= MIN_ROWS


@dataclass(frozen=True, slots=True)
class Tables:
    """A plan with its numbers.

    Attributes:
        plan: The plan.
        values: Its numbers.
        diagonals: What each monomial layer multiplies by, complex128[layers, 2^n].
        at: First coefficient of each operation, those that vary after the others, int64[k].
    """

    plan: Plan
    values: Values
    diagonals: States
    at: NDArray[np.int64]


def tables_of(plan: Plan, params: Reals) -> Tables:
    """Return a plan's numbers at some rows of parameters."""
    values = values_of(plan, params)
    size = 1 << plan.num_qubits
    steps = (plan.step_kind, plan.step_first, plan.step_second, plan.step_place)
    if plan.moves is None:
        moves = np.empty((plan.layers, size), dtype=np.int32)
        source = np.empty(size, dtype=np.int32)
        for layer in range(plan.layers):
            part = slice(plan.step_layer[layer], plan.step_layer[layer + 1])
            cycles(steps[0][part], steps[1][part], steps[2][part], source, moves[layer])
        plan.moves = moves
    diagonals = np.empty((plan.layers, size), dtype=np.complex128)
    bounds, wide = plan.step_layer, plan.wide
    layer_diagonals(values.start, values.end, *steps, bounds, wide, values.constants, diagonals)
    at = plan.place + np.where(plan.varies, len(values.constants), 0)
    return Tables(plan, values, diagonals, at)


def row_blocks(plan: Plan, rows: int, arrays: int = 1) -> list[slice]:
    """Return slices of rows, ``arrays`` of whose coefficients fit a fixed amount of memory."""
    size = max(1, _BLOCK_COEFFICIENTS // max(1, (plan.widths[1] + plan.num_ones[1] * 4) * arrays))
    size = -(-size // LANES) * LANES
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def run_tables(
    found: Tables, starts: States, table: PauliTable, states: States, words: Reals
) -> None:
    """Run the compiled kernel; see :func:`qcomp.simulate.lanes.forward_lanes`.

    Where the rows begin with the same layers, these are applied to one row, whose state all others
    start from.
    """
    shared = _shared_operations(found.plan)
    if shared and not len(starts) and len(found.values.varying) > LANES:
        starts = np.empty((1, states.shape[1]), dtype=np.complex128)
        _run_operations(found, slice(0, shared), 1, starts[:0], NO_WORDS, starts, words[:1, :0])
    else:
        shared = 0
    rows = len(found.values.varying)
    _run_operations(found, slice(shared, None), rows, starts, table, states, words)


def _shared_operations(plan: Plan) -> int:
    """Return how many operations at the start no row differs in; 0 if it is but a product state."""
    varying = np.flatnonzero(plan.varies)
    first = int(varying[0]) if len(varying) else len(plan.kind)
    return first if first > plan.prefix + 1 else 0


def _run_operations(
    found: Tables,
    part: slice,
    rows: int,
    starts: States,
    table: PauliTable,
    states: States,
    words: Reals,
) -> None:
    """Run some of a plan's operations on the first rows; one state to start from is every row's."""
    plan, values = found.plan, found.values
    assert plan.moves is not None
    forward_lanes(
        starts,
        plan.prefix,
        plan.kind[part],
        plan.first[part],
        plan.second[part],
        plan.place[part],
        found.at[part],
        plan.wide,
        values.turns,
        plan.moves,
        found.diagonals,
        values.constants,
        values.varying[:rows],
        table.x,
        table.z,
        table.factor,
        states,
        words,
    )


NO_WORDS = PauliTable(
    np.zeros(0, dtype=np.int64),
    np.zeros(0, dtype=np.int64),
    np.zeros(0, dtype=np.complex128),
    np.zeros((0, 0)),
)
"""What is read of states that are wanted themselves."""


def evolve_batch(plan: Plan, params: Reals, states: States, *, grounded: bool = False) -> None:
    """Apply a plan to rows of states, complex128[B, 2^n], in place.

    Args:
        plan: The plan.
        params: float64[B, P].
        states: The states.
        grounded: Start from |0...0> whatever the states are.
    """
    for part in row_blocks(plan, len(params)):
        own = states[part]
        starts = own[:0] if grounded else own
        found = tables_of(plan, params[part])
        run_tables(found, starts, NO_WORDS, own, np.zeros((len(own), 0)))


def words_of_batch(plan: Plan, params: Reals, table: PauliTable) -> Reals:
    """Return expectation values of words in the state that |0...0> becomes, float64[B, T]."""
    out = np.empty((len(params), len(table)))
    none = np.zeros((0, 1 << plan.num_qubits), dtype=np.complex128)
    for part in row_blocks(plan, len(params)):
        run_tables(tables_of(plan, params[part]), none, table, none, out[part])
    return out
