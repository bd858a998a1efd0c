"""Operations put in the place of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import wrap
from qcomp.ir.gates import BY_NAME, NUM_ANGLES
from qcomp.ir.run import Run

__all__ = ["Part", "gates_at", "spliced"]

Part = tuple[Run, NDArray[np.intp], int]
"""Operations, the position in the old run where each of them goes, their rank among those there."""


def gates_at(
    name: str,
    place: NDArray[np.intp],
    rank: int,
    qubits: Sequence[NDArray[np.int32]],
    frac: Sequence[NDArray[np.int64] | int] = (),
    rem: Sequence[NDArray[np.float64] | float] = (),
    form: Sequence[NDArray[np.int32] | int] = (),
) -> Part:
    """Return one gate on many operands.

    Args:
        name: The gate.
        place: int[k], where each goes.
        rank: Their rank among what goes to the same place.
        qubits: int32[k] of each operand.
        frac: Of each angle int64[k] or one number; 0 where left out.
        rem: Of each angle float64[k] or one number.
        form: Of each angle int32[k] or one number; -1 where left out.
    """
    row = BY_NAME[name]
    k, count = len(place), int(NUM_ANGLES[row.code])
    operands = np.full((k, 3), -1, dtype=np.int32)
    for j, wires in enumerate(qubits):
        operands[:, j] = wires
    parts = (
        (frac, 0, np.dtype(np.int64)),
        (rem, 0.0, np.dtype(np.float64)),
        (form, -1, np.dtype(np.int32)),
    )
    entries = []
    for given, missing, kind in parts:
        table = np.full((k, count), missing, dtype=kind)
        for j, values in enumerate(given):
            table[:, j] = values
        entries.append(table.ravel())
    code = np.full(k, row.code, dtype=np.uint8)
    return Run.of(code, operands, wrap(entries[0]), *entries[1:]), place, rank


def spliced(run: Run, keep: NDArray[np.bool_], parts: Sequence[Part]) -> Run:
    """Return the operations that are kept, at rank 0, and all that is put in.

    Args:
        run: The run.
        keep: bool[n].
        parts: What is put in.
    """
    stay = np.flatnonzero(keep)
    parts = [part for part in parts if len(part[0])]
    place = np.concatenate([stay, *(where for _, where, _ in parts)])
    rank = np.concatenate(
        [np.zeros(len(stay), dtype=np.int64), *(np.full(len(r), rank) for r, _, rank in parts)]
    )
    joined = Run.concat([run, *(added for added, _, _ in parts)])
    source = np.concatenate([stay, np.arange(len(run), len(joined))])
    return joined.select(source[np.lexsort((rank, place))])
