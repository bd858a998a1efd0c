"""resynthesize-phase-polynomials: CX and diagonal rotations between walls written with fewer CX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import wrap
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES, INVERSE_CODE, IS_UNITARY, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.passes.reduce.families import FAMILY, PHASED
from qcomp.passes.reduce.leaves import Leaf, Phase, call, rewrite_leaves
from qcomp.passes.reduce.pauli_carry import link_wires
from qcomp.passes.reduce.sums import summands
from qcomp.passes.synthesize.parity_frame import CX, FLIP, ROTATE, SLOTS, SWAP, WALL, WORD
from qcomp.passes.synthesize.parity_network import resynthesize
from qcomp.passes.synthesize.phase_blocks import write_blocks
from qcomp.passes.synthesize.segments import segments
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["ResynthesizePhasePolynomials"]

_VARIANTS: tuple[tuple[int, int, int], ...] = (
    (1, 10, 6),
    (0, 3, 3),
    (1, 20, 20),
    (0, 12, 12),
    (1, 2, 0),
    (0, 0, 0),
    (1, 6, 0),
    (0, 20, 0),
)
"""(eager, weight of B, weight of A) of each try; a CX less in a waiting parity weighs 20."""

_BLOCKS = 8
"""Tries from which on each block between walls is also written by itself, as the papers do it."""

_ROUNDS = 8
_MOST_WIRES = 256


def _kinds() -> NDArray[np.int64]:
    """What each gate is to the kernel, by code."""
    kind = np.full(len(GATES), WALL, dtype=np.int64)
    kind[G.CX], kind[G.X], kind[G.SWAP] = CX, FLIP, SWAP
    kind[(FAMILY == FAMILY[G.Z])] = ROTATE
    return kind


_KIND = _kinds()
_COST = np.array([1, 0, 3, 0, 0])
_COUNT = np.array([1, 1, 3, 1, 1])
_FENCE = ~np.array(IS_UNITARY, dtype=bool) | (NUM_QUBITS < 0)
_ARITY = np.maximum(NUM_QUBITS, 0).astype(np.int64)
_PLAIN = np.zeros(len(GATES), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Segment:
    """Operations ``start`` to ``stop`` of a run, as the kernel wrote them anew.

    Attributes:
        start: First operation.
        stop: One past the last.
        written: int32[k, 3], (kind, a, b) over the run's wires and operations; None as it was.
    """

    start: int
    stop: int
    written: NDArray[np.int32] | None


def _rewritten(run: Run, start: int, stop: int, tries: int) -> NDArray[np.int32] | None:
    """Return the best way found to write a segment, None where it is the one at hand."""
    code = run.code[start:stop]
    kind = _KIND[code]
    cost, count = int(_COST[kind].sum()), int(_COUNT[kind].sum())
    if cost < 2:
        return None
    n = stop - start
    qubit = run.qubit[start:stop]
    used, local = np.unique(qubit, return_inverse=True)
    local = local.reshape(-1).astype(np.int32)
    if used[0] < 0:
        used, local = used[1:], local - 1
    m = len(used)
    words = -(-m // WORD)
    link = np.full(3 * n, n, dtype=np.int32)
    call(
        link_wires,
        n,
        (n, code, local, run.extra, _ARITY, _PLAIN),
        (np.full(m, n, dtype=np.int32), link),
    )
    need = np.bincount(link[link < n], minlength=n).astype(np.int32)
    unit = np.zeros((m, words), dtype=np.int64)
    unit[np.arange(m), np.arange(m) // WORD] = 1 << (np.arange(m, dtype=np.int64) % WORD)
    best: NDArray[np.int32] | None = None
    for eager, order, back in _VARIANTS[:tries]:
        state = np.zeros(5, dtype=np.int64)
        out = np.zeros(3 * count, dtype=np.int32)
        total = call(
            resynthesize,
            n * m,
            (n, m, words, count, eager, order, back, kind, local, _ARITY[code], link),
            (
                need.copy(),
                np.zeros(n, dtype=np.int32),
                np.zeros(n, dtype=np.int32),
                unit.ravel().copy(),
                unit.ravel().copy(),
                np.zeros(m, dtype=np.int8),
                np.zeros(m, dtype=np.int64),
                np.zeros(SLOTS * words, dtype=np.int64),
                np.zeros(SLOTS, dtype=np.int32),
                np.zeros(SLOTS, dtype=np.int32),
                np.zeros(m, dtype=np.int32),
                state,
                out,
            ),
        )
        if total <= count and (int(state[1]), total) < (cost, count):
            cost, count = int(state[1]), total
            best = out.reshape(-1, 3)[:total].copy()
    if tries >= _BLOCKS:
        blocks = write_blocks(
            kind.tolist(), local.reshape(-1, 3).tolist(), _ARITY[code].tolist(), m, cost
        )
        if blocks is not None:
            fewer = int((blocks[:, 0] == CX).sum())
            if len(blocks) <= count and (fewer, len(blocks)) < (cost, count):
                best = blocks
    if best is None:
        return None
    linear = (best[:, 0] == CX) | (best[:, 0] == FLIP)
    best[linear, 1] = used[best[linear, 1]]
    best[best[:, 0] == CX, 2] = used[best[best[:, 0] == CX, 2]]
    turns = best[:, 0] == ROTATE
    best[turns, 1] = used[best[turns, 1]]
    best[turns, 2] += 2 * start
    best[best[:, 0] == WALL, 2] += start
    return best


def _write(run: Run, forms: Forms, segments: list[_Segment]) -> Leaf:
    """Put the segments together: CX and X new, rotations moved and negated, walls as they were."""
    kept = [
        np.stack([np.full(n := s.stop - s.start, WALL), np.full(n, -1), np.arange(s.start, s.stop)])
        if s.written is None
        else s.written.T
        for s in segments
    ]
    kind, wire, last = np.concatenate(kept, axis=1).astype(np.int64)
    linear, turns = (kind == CX) | (kind == FLIP), kind == ROTATE
    minus = turns & (last % 2 == 1)
    source = np.where(turns, last // 2, np.where(linear, 0, last))
    negated = source[minus]

    add = summands(run)
    carried = negated[PHASED[run.code[negated]] == 1]
    phase = Phase.halved(
        2 * int(add.frac[carried].sum(dtype=np.int64)),
        2 * float(add.rem[carried].sum()),
        forms,
        add.form[carried],
        np.full(len(carried), 2.0),
    )
    entry = run.angle[negated]
    entry = entry[entry >= 0]
    frac, rem, form = run.frac.copy(), run.rem.copy(), run.form.copy()
    frac[entry], rem[entry] = wrap(-frac[entry]), -rem[entry]
    forms, form[entry] = forms.combine(
        form[entry], np.full(len(entry), -1.0), np.arange(len(entry)), len(entry)
    )

    code = run.code[source]
    code[minus] = INVERSE_CODE[code[minus]]
    code[kind == CX], code[kind == FLIP] = G.CX, G.X
    qubit = run.qubit[source]
    qubit[linear | turns] = -1
    qubit[linear | turns, 0] = wire[linear | turns]
    qubit[kind == CX, 1] = last[kind == CX]
    angle = np.where(linear, -1, run.angle[source]).astype(np.int32)
    grown = Run(code, qubit, angle, frac, rem, form, run.extra)
    return grown.select(np.arange(len(code))), forms, phase


def resynthesize_run(run: Run, forms: Forms, tries: int, window: int) -> Leaf:
    """Rewrite the segments of one run where that is cheaper; the same run where none is.

    Args:
        run: The run.
        forms: The circuit's forms.
        tries: Ways in which each segment is written; the cheapest counts.
        window: Most operations of a segment.
    """
    parts = [
        _Segment(start, stop, _rewritten(run, start, stop, tries) if free else None)
        for start, stop, free in segments(run, _FENCE[run.code], window, _MOST_WIRES)
    ]
    if all(part.written is None for part in parts):
        return run, forms, Phase()
    return _write(run, forms, parts)


@dataclass(frozen=True)
class ResynthesizePhasePolynomials(CircuitPass):
    """``cx, x, swap, rz: |x> -> exp(i sum of a_k (p_k . x)) |A x + k>``, written with fewer CX.

    The circuit is read as rotations about parities and linear maps between walls, the gates that
    are neither. No CX of the circuit is kept: each rotation waits until one wire holds its parity,
    and CX are written only to bring that about and to give a wall the wire that it acts on. What
    other wires hold meanwhile need not be undone before the wall, so that regions share their CX.
    Each CX shortens one of the lightest waiting parities; among those it is the one that shortens
    all waiting parities and the linear map most.

    A segment is rewritten only where it takes fewer CX (a ``swap`` counts as three), or as many and
    fewer gates, and never more gates. The number of rotations and walls does not change.

    Preconditions: none. Measurements, resets, barriers and ``mcx`` part segments, which have 256
    wires at most; each run of a circuit with control flow stands alone.

    Preserves: the unitary exactly, global phase included; symbols move like numbers.

    Cost: for each operation the wires of its segment, and for each CX written the pairs of wires of
    the lightest parities; times ``tries``, times two where something was saved.

    Source: after Amy, Azimzadeh, Mosca 2018 (arXiv:1712.01859), section 4, with its recursion
    replaced by a greedy choice over all waiting parities; walls after Amy, Maslov, Mosca 2013
    (arXiv:1303.2042), section 5; choice of the next CX after Schmitz et al. 2021
    (arXiv:2103.08602), section V. With eight tries also the papers' own way, block by block:
    :mod:`~qcomp.passes.synthesize.gray_synth` and
    :mod:`~qcomp.passes.synthesize.linear_reversible`.

    Attributes:
        tries: Ways in which each segment is written, 1 to 8; the cheapest counts.
        window: Most operations of a segment.
    """

    name: ClassVar[str] = "resynthesize-phase-polynomials"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    tries: int = 2
    window: int = 4096

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with fewer CX; the same object when none were saved."""
        for _ in range(_ROUNDS):
            result = rewrite_leaves(
                circuit, lambda run, forms: resynthesize_run(run, forms, self.tries, self.window)
            )
            if result is circuit:
                break
            circuit = result
        return circuit
