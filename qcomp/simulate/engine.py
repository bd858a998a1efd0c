"""How a run of unitary gates is applied to a batch of states, and what memory that may take."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.run import Run
from qcomp.simulate.batched import evolve_batch, fits_lanes, kept_plan, moving_entries, run_digest
from qcomp.simulate.blocked import evolve_state
from qcomp.simulate.kernels import apply_rows
from qcomp.simulate.plan import Plan
from qcomp.simulate.small import evolve_small
from qcomp.simulate.tape import Tape, tape_of

__all__ = [
    "MEMORY_LIMIT",
    "cached_tape",
    "check_memory",
    "evolve",
    "ground_states",
    "lane_plan",
    "parameter_rows",
    "row_chunks",
]

MEMORY_LIMIT = 1 << 32
"""Bytes that the states of one call may take."""

COMPILED_WORK = 1 << 16
"""Amplitude updates (gates x rows x 2^n) from which on the compiled kernels run.

The choice depends on sizes only, so that equal calls give equal bits.
"""

LONG_RUN = 1 << 13
"""Gates, and amplitudes, that :func:`_is_narrow` goes by."""

_CHUNK_AMPLITUDES = 1 << 18
_CHUNK_COEFFICIENTS = 1 << 20
_TAPES_KEPT = 32

States = NDArray[np.complex128]

_tapes: OrderedDict[bytes, Tape] = OrderedDict()


def cached_tape(circuit: Circuit, run: Run) -> Tape:
    """Return the tape of a run, kept for the next call with an equal one."""
    key = run_digest(circuit, run)
    tape = _tapes.get(key)
    if tape is not None:
        _tapes.move_to_end(key)
        return tape
    tape = _tapes[key] = tape_of(circuit, run)
    if len(_tapes) > _TAPES_KEPT:
        _tapes.popitem(last=False)
    return tape


def parameter_rows(circuit: Circuit, params: ArrayLike | None) -> NDArray[np.float64]:
    """Return parameters as float64[B, P].

    Args:
        circuit: Its ``params`` name the columns.
        params: [B, P], one row [P], or None for a circuit without parameters.

    Raises:
        UsageError: If the number of columns is wrong or a value is not finite.
    """
    count = len(circuit.params)
    rows = np.zeros((1, 0)) if params is None else np.asarray(params, dtype=np.float64)
    if rows.ndim == 1:
        rows = rows[None, :]
    if rows.ndim != 2 or rows.shape[1] != count:
        names = ", ".join(circuit.params[:8]) + (", ..." if count > 8 else "")
        raise UsageError(
            f"circuit '{circuit.name}' takes {count} parameters a row, not {list(rows.shape)}",
            why=f"its parameters are: {names or '(none)'}",
        )
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise UsageError(
            f"circuit '{circuit.name}' was given a parameter that is not finite",
            where=f"row {bad}",
        )
    return np.ascontiguousarray(rows)


def check_memory(num_qubits: int, rows: int = 1, copies: int = 2) -> None:
    """Refuse a state that does not fit.

    Args:
        num_qubits: Qubits n.
        rows: States held at once.
        copies: Arrays of that size held at once.

    Raises:
        UsageError: If ``16 * 2^n * rows * copies`` bytes are over ``MEMORY_LIMIT``.
    """
    need = 16 * copies * max(rows, 1) << num_qubits
    if need > MEMORY_LIMIT:
        raise UsageError(
            f"a statevector of {num_qubits} qubits and {rows} rows needs "
            f"{need / 2**30:,.1f} GiB, over the limit of {MEMORY_LIMIT / 2**30:.0f} GiB",
            hint="simulate fewer qubits or rows at once, or run the circuit on a device",
        )


def row_chunks(num_qubits: int, rows: int) -> Iterator[slice]:
    """Yield slices of rows whose states fit a small, fixed amount of memory."""
    size = max(1, _CHUNK_AMPLITUDES >> num_qubits)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def ground_states(num_qubits: int, rows: int) -> States:
    """Return |0...0> for each row, complex128[rows, 2^n]."""
    states = np.zeros((rows, 1 << num_qubits), dtype=np.complex128)
    states[:, 0] = 1
    return states


def _is_narrow(run: Run, amplitudes: int) -> bool:
    """Whether a run has so many gates on so few amplitudes that planning it would not pay."""
    return len(run) > LONG_RUN and amplitudes < LONG_RUN


def lane_plan(
    circuit: Circuit, run: Run, params: NDArray[np.float64], *, gradient: bool = False
) -> Plan | None:
    """Return the plan by which rows are evolved side by side; None where they had better not be.

    Args:
        circuit: The circuit that the run is a leaf of.
        run: Gates without measurement and reset.
        params: float64[B, P].
        gradient: Whether the plan is to give gradients.
    """
    n, rows = circuit.num_qubits, len(params)
    # A gradient is asked for again and again, and costs several evolutions.
    least = COMPILED_WORK >> 3 if gradient else COMPILED_WORK
    if (len(run) * rows) << n < least or not fits_lanes(n, rows):
        return None
    if _is_narrow(run, rows << n):
        return None
    plan = kept_plan(circuit, run, moving_entries(circuit, run, params), gradient=gradient)
    return plan if fits_lanes(n, rows, plan) else None


def evolve(
    circuit: Circuit,
    run: Run,
    params: NDArray[np.float64],
    states: States,
    *,
    grounded: bool = False,
) -> States:
    """Return the states after a run of unitary gates.

    Args:
        circuit: The circuit that the run is a leaf of.
        run: Gates without measurement and reset.
        params: float64[B, P].
        states: complex128[B, 2^n], C-contiguous; may be changed in place.
        grounded: Whether all states are |0...0>.
    """
    if len(run) * states.size < COMPILED_WORK:
        return evolve_small(cached_tape(circuit, run), params, states)
    plan = lane_plan(circuit, run, params)
    if plan is not None:
        evolve_batch(plan, params, states, grounded=grounded)
        return states
    if not _is_narrow(run, states.size):
        plan = kept_plan(circuit, run, np.zeros(len(run.form), dtype=np.bool_))
        for b in range(len(states)):
            evolve_state(plan, params[b : b + 1], states[b], grounded=grounded)
        return states
    tape = cached_tape(circuit, run)
    apply = apply_rows.compiled()
    for part in coefficient_chunks(tape, len(states)):
        apply(
            states[part],
            tape.kind,
            tape.first,
            tape.second,
            tape.offset,
            tape.varies,
            tape.wide,
            tape.constants,
            tape.coefficients(params[part]),
        )
    return states


def coefficient_chunks(tape: Tape, rows: int, arrays: int = 1) -> Iterator[slice]:
    """Yield slices of rows whose coefficients, ``arrays`` of them, fit a fixed amount of memory."""
    size = max(1, _CHUNK_COEFFICIENTS // max(1, tape.width * arrays))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
