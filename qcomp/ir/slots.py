"""Slots: a circuit whose parameters are its own angles, and the affine map that computes them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import UNIT, Angle, snap_array
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.run import Run

__all__ = ["SlotForm", "angle_difference", "to_slots"]

MOST_ENTRIES = 1 << 22
"""Most entries of the map's dense matrix: 32 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class SlotForm:
    """A circuit in slots: ``slots = parameters @ matrix + offset``.

    Attributes:
        circuit: The circuit; its parameters are the slots.
        matrix: float64[P, K] from the parameters that it had to its slots.
        offset: float64[K], radians.
    """

    circuit: Circuit
    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Entries:
    """Angle entries with a form, in program order; the global phase is the last if it is kept."""

    frac: NDArray[np.int64]
    rem: NDArray[np.float64]
    form: NDArray[np.int32]


def to_slots(circuit: Circuit, *, keep_phase: bool = True) -> SlotForm | None:
    """Return the circuit with slots for its angles.

    ::

        angle_e = f_e . x + c_e  ->  angle_e = k_e s_j + d_e,   s_j = f_j . x + c_j

    Angles whose rows f are multiples of one another share a slot s_j. The slot is the first of
    them, constant included; the others keep a factor k_e and a difference d_e, which is exact
    where the factor is 1 or -1. So there are as few slots as the angles allow.

    Args:
        circuit: A circuit with parameters.
        keep_phase: Whether the global phase keeps its parameters. Nothing but the state itself
            shows them.

    Returns:
        The slots a0, a1 ... in the order in which they are first used, or None where the circuit
        depends on no parameter or the map has more than ``MOST_ENTRIES`` entries.

    Cost: linear in the circuit; the map has one entry for each parameter and slot.
    """
    forms, entries, phase_kept = _entries(circuit, keep_phase)
    if not len(entries.form):
        return None
    owner, factor, first = _classes(forms, entries)
    if circuit.num_params * len(first) > MOST_ENTRIES:
        return None
    matrix = forms.dense(entries.form[first], circuit.num_params).T
    offset = entries.frac[first] * UNIT + entries.rem[first]
    pairs, row = np.unique(
        np.stack([owner.astype(np.float64), factor], axis=1), axis=0, return_inverse=True
    )
    table = Forms(
        np.arange(len(pairs) + 1, dtype=np.int64), pairs[:, 0].astype(np.int32), pairs[:, 1]
    )
    frac, rem = _differences(entries, owner, factor, first)
    new = _with_entries(circuit, table, frac, rem, row.ravel().astype(np.int32))
    new.params = _names(circuit, len(first))
    phase = circuit.global_phase
    new.global_phase = Angle(phase.frac, phase.rem)
    if phase_kept:
        term = (new.params[int(owner[-1])], float(factor[-1]))
        new.global_phase = Angle(int(frac[-1]), float(rem[-1]), (term,))
    return SlotForm(new, np.ascontiguousarray(matrix), offset)


def angle_difference(circuit: Circuit, form: SlotForm, rows: NDArray[np.float64]) -> float:
    """Return the largest difference between the angles of a circuit and of its slot form.

    Args:
        circuit: The circuit as it was.
        form: What :func:`to_slots` made of it.
        rows: float64[B, P], parameters of the circuit as it was.

    Returns:
        Radians; infinity where the two have other gates.
    """
    slots = rows @ form.matrix + form.offset
    largest = 0.0
    for before, after in itertools.zip_longest(circuit.runs(), form.circuit.runs()):
        if (
            before is None
            or after is None
            or not np.array_equal(before.code, after.code)
            or not np.array_equal(before.qubit, after.qubit)
        ):
            return np.inf
        error = circuit.angles_for(rows, before) - form.circuit.angles_for(slots, after)
        error = np.remainder(error + 2 * np.pi, 4 * np.pi) - 2 * np.pi
        largest = max(largest, float(np.abs(error).max(initial=0.0)))
    return largest


def _entries(circuit: Circuit, keep_phase: bool) -> tuple[Forms, _Entries, bool]:
    runs = circuit.runs() or [Run.empty()]
    frac, rem, form = (
        np.concatenate([getattr(run, name)[run.form >= 0] for run in runs])
        for name in ("frac", "rem", "form")
    )
    forms, phase = circuit.forms, circuit.global_phase
    kept = bool(keep_phase and phase.terms)
    if kept:
        column = {name: i for i, name in enumerate(circuit.params)}
        forms, where = forms.append([[(column[name], coef) for name, coef in phase.terms]])
        frac = np.append(frac, np.int64(phase.frac))
        rem, form = np.append(rem, phase.rem), np.append(form, where).astype(np.int32)
    return forms, _Entries(frac, rem, form), kept


def _classes(
    forms: Forms, entries: _Entries
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return (slot of each entry, its factor, the entry that each slot is)."""
    used, place, index = np.unique(entries.form, return_index=True, return_inverse=True)
    slot = np.zeros(len(used), dtype=np.int64)
    lead = np.zeros(len(used))
    known: dict[tuple[tuple[int, float], ...], int] = {}
    first: list[int] = []
    for i in np.argsort(place, kind="stable").tolist():
        row = forms.row(int(used[i]))
        lead[i] = row[0][1]
        key = tuple((column, coef / row[0][1]) for column, coef in row)
        if key not in known:
            known[key] = len(known)
            first.append(int(place[i]))
        slot[i] = known[key]
    owner, leads = slot[index.ravel()], lead[index.ravel()]
    starts = np.array(first, dtype=np.int64)
    return owner, leads / leads[starts][owner], starts


def _differences(
    entries: _Entries,
    owner: NDArray[np.int64],
    factor: NDArray[np.float64],
    first: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what each angle has beside its slot: exact units and radians."""
    frac0, rem0 = entries.frac[first][owner], entries.rem[first][owner]
    sign = np.where(np.abs(factor) == 1.0, factor, 0.0)
    frac = entries.frac - sign.astype(np.int64) * frac0
    rem = entries.rem - sign * rem0
    other = (sign == 0) & ((frac0 != 0) | (rem0 != 0))
    if other.any():
        own = entries.frac[other] * UNIT + entries.rem[other]
        taken = factor[other] * (frac0[other] * UNIT + rem0[other])
        frac[other], rem[other] = snap_array(own - taken)
    return frac, rem


def _with_entries(
    circuit: Circuit,
    forms: Forms,
    frac: NDArray[np.int64],
    rem: NDArray[np.float64],
    form: NDArray[np.int32],
) -> Circuit:
    """Return the circuit with new values in the entries that have a form, in program order."""
    done = 0

    def filled(run: Run) -> Run:
        nonlocal done
        live = run.form >= 0
        count = int(live.sum())
        if not count:
            return run
        part = slice(done, done + count)
        done += count
        new_frac, new_rem, new_form = run.frac.copy(), run.rem.copy(), run.form.copy()
        new_frac[live], new_rem[live], new_form[live] = frac[part], rem[part], form[part]
        return run.with_angles(new_frac, new_rem, new_form)

    return circuit.map_runs(filled).copy(forms=forms)


def _names(circuit: Circuit, count: int) -> tuple[str, ...]:
    """Return a0, a1 ..., or with another letter in front where the circuit has such names."""
    taken = {register.name for register in (*circuit.qregs, *circuit.cregs)}
    taken |= {variable.name for variable in circuit.variables}
    for prefix in itertools.chain("a", (f"angle{i}_" for i in itertools.count())):
        names = tuple(f"{prefix}{i}" for i in range(count))
        if taken.isdisjoint(names):
            return names
    raise AssertionError("there is always a free name")
