"""The turns about Z of a run, whatever gates say them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import wrap_int
from qcomp.ir.forms import Forms
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.passes.reduce.families import FAMILY, NAMED_TURN, PHASED
from qcomp.passes.reduce.leaves import Phase

__all__ = ["is_turn", "phase_of_turns", "turns_of"]


def is_turn(run: Run) -> NDArray[np.bool_]:
    """Return which operations are turns about Z on one qubit, bool[n]."""
    result: NDArray[np.bool_] = FAMILY[run.code] == FAMILY[G.RZ]
    return result


def turns_of(run: Run) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return the angle of each operation as ``rz``: exact part, float part, row of the forms.

    It is 0 for operations that are no turns about Z.
    """
    n = len(run)
    turning = is_turn(run)
    frac = np.where(turning, NAMED_TURN[run.code], 0)
    rem, form = np.zeros(n), np.full(n, -1, dtype=np.int64)
    angled = np.flatnonzero(turning & (run.angle >= 0))
    entry = run.angle[angled]
    frac[angled], rem[angled], form[angled] = run.frac[entry], run.rem[entry], run.form[entry]
    return frac, rem, form


def phase_of_turns(run: Run, forms: Forms, which: NDArray[np.bool_]) -> Phase:
    """Return the phase that some turns have beside their ``rz``: ``p(t) = exp(i t/2) rz(t)``.

    Args:
        run: The run.
        forms: The circuit's forms.
        which: bool[n], the turns.
    """
    frac, rem, form = turns_of(run)
    phased = np.flatnonzero(which & is_turn(run) & (PHASED[run.code] == 1))
    total = wrap_int(int(frac[phased].sum(dtype=np.int64)))
    rows = form[phased].astype(np.int32)
    return Phase.halved(total, float(rem[phased].sum()), forms, rows, np.ones(len(phased)))
