"""Gate folding: the same unitary with more gates, so that a machine's noise is scaled up.

``G -> G (G^-1 G)^k`` is the identity on what is computed and ``2 k + 1`` times the noise. Barriers
between the copies keep later reductions from taking them away again.

Source: Giurgica-Tiron, Hindy, LaRose, Mari, Zeng 2020 (arXiv:2005.10921), section III.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError, suggest
from qcomp.ir.blocks import Item, map_leaves
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES, INVERSE_CODE, IS_UNITARY, NUM_ANGLES, NUM_QUBITS, G
from qcomp.ir.run import Run

__all__ = ["METHODS", "FoldMethod", "fold", "fold_scale", "unfold"]

FoldMethod = Literal["global", "local", "two-qubit"]
METHODS: tuple[FoldMethod, ...] = ("global", "local", "two-qubit")
MAX_SCALE = 1001.0

_PI = 1 << 60
_IS_UNIT = IS_UNITARY & ~np.isin(np.arange(len(GATES)), (G.ID, G.GPHASE))
_TURNS = {
    G.SX: (G.RZ, (_PI,), -_PI // 2),
    G.SXDG: (G.RZ, (_PI,), _PI // 2),
    G.SISWAP: (G.RZ, (_PI,), 0),
    G.SISWAPDG: (G.RZ, (_PI,), 0),
    G.ISWAP: (G.RZ, (_PI,), 0),
    G.ZZMAX: (G.R, (_PI, 0), 0),
}
"""Gate -> (code, angles) of a T and a phase with ``G^-1 = exp(i phase) T G T^-1``.

T acts on operand 0, and its first angle is negated in ``T^-1``: the inverse in a machine's own
words, with one noisy gate for one.
"""


def fold(circuit: Circuit, scale: float = 3.0, method: FoldMethod = "global") -> Circuit:
    """Return a circuit that does the same with about ``scale`` times the noise.

    Folds that the circuit already has are taken away first, so the scale counts from the circuit
    as it was. With d gates, ``round(d (scale - 1) / 2)`` of them are folded, some of them often:

    * ``global``: ``U -> U (U^-1 U)^k L^-1 L`` with L the last gates of U, as many as are left over;
      measurements, resets and control flow part a circuit into several U.
    * ``local``: ``G -> G (G^-1 G)^k`` with k differing by at most 1, the larger ones spread evenly.
    * ``two-qubit``: the same, of gates on two and more qubits only.

    An inverse is written with the gate itself where the circuit does not use the inverse's name:
    ``sx^-1 = rz(pi) sx rz(-pi)``, so the circuit stays in a machine's basis.

    Cost: linear in the output.

    Args:
        circuit: Any circuit.
        scale: By how much the number of gates grows, at least 1; scales that are no odd numbers
            are met as closely as the number of gates allows (see :func:`fold_scale`).
        method: ``global``, ``local`` or ``two-qubit``.

    Raises:
        UsageError: If the scale or the method is out of range.
    """
    _check(scale, method)
    bare = unfold(circuit)
    new = _Folder(bare).folded(scale, method)
    return circuit if new.equals(circuit) else new


def fold_scale(circuit: Circuit, scale: float, method: FoldMethod = "global") -> float:
    """Return the scale that :func:`fold` really gives: folded over unfolded number of gates.

    ``1 + 2 round(d (scale - 1) / 2) / d`` for d gates that are folded; 1 where there are none.
    """
    _check(scale, method)
    bare = unfold(circuit)
    d = sum(int(_units(run, method).sum()) for run in bare.runs())
    return 1.0 + 2.0 * math.floor(d * (scale - 1) / 2 + 0.5) / d if d else 1.0


def unfold(circuit: Circuit) -> Circuit:
    """Return the circuit without the folds that :func:`fold` made; the same object without any.

    A fold is told by its form: a gate, a barrier on its operands, the inverse, the barrier, the
    gate; or the same of a whole stretch of gates.
    """
    while any((run.code == G.BARRIER).any() for run in circuit.runs()):
        new = _Folder(circuit).unfolded()
        if new is circuit:
            break
        circuit = new
    return circuit


def _check(scale: float, method: str) -> None:
    if method not in METHODS:
        raise UsageError(f"there is no method '{method}' of folding", hint=suggest(method, METHODS))
    if not 1.0 <= scale <= MAX_SCALE:
        raise UsageError(
            f"a noise scale is between 1 and {MAX_SCALE:.0f}, not {scale}",
            hint="noise can only be made larger; usual scales are 1, 2 and 3",
        )


def _units(run: Run, method: FoldMethod) -> NDArray[np.bool_]:
    """Return which operations count as gates, bool[n]."""
    units: NDArray[np.bool_] = _IS_UNIT[run.code]
    return units & (NUM_QUBITS[run.code] != 1) if method == "two-qubit" else units


class _Folder:
    """Folds of the runs of one circuit; forms of inverted angles are added as they come."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.forms = circuit.forms
        self.counted = 0
        self.phase = 0
        names = np.zeros(len(GATES), dtype=bool)
        for run in circuit.runs():
            names[run.code] = True
        self.outer = np.array(
            [c in _TURNS and (INVERSE_CODE[c] < 0 or not names[INVERSE_CODE[c]])
             for c in range(len(GATES))]
        )  # fmt: skip
        # In a body that may not run there is no place for a phase.
        self.inner = self.outer & [c not in _TURNS or not _TURNS[c][2] for c in range(len(GATES))]

    def _mapped(self, function: Callable[[Run, NDArray[np.bool_]], Run]) -> Circuit:
        """Return the circuit with a function of (run, gates to be turned) applied to each run."""
        body = self.circuit.body
        new: list[Item] = []
        for item in body:
            if isinstance(item, Run):
                new.append(function(item, self.outer))
            else:
                new += map_leaves((item,), lambda run: function(run, self.inner))
        if all(a is b for a, b in zip(new, body, strict=True)):
            return self.circuit
        result = self.circuit.copy(body=tuple(new), forms=self.forms)
        result.add_phase(self.phase)
        return result

    def folded(self, scale: float, method: FoldMethod) -> Circuit:
        """Return the circuit folded, its runs one after the other."""
        half = (scale - 1) / 2

        def one(run: Run, turned: NDArray[np.bool_]) -> Run:
            units = np.flatnonzero(_units(run, method))
            first = self.counted
            self.counted += len(units)
            ends = np.floor((first + np.arange(len(units) + 1)) * half + 0.5).astype(np.int64)
            if not len(units) or ends[-1] == ends[0]:
                return run
            pool = _Pool(run, self.forms, turned)
            self.forms = pool.forms
            if method != "global":
                times = np.zeros(len(run), dtype=np.int64)
                times[units] = np.diff(ends)
                index = pool.local(times)
                self.phase += pool.phase(index)
                return pool.run(index)
            pieces = []
            for start, stop in _segments(run):
                inside = np.flatnonzero((units >= start) & (units < stop))
                if not len(inside):
                    pieces.append(np.arange(start, stop))
                    continue
                total = int(ends[inside[-1] + 1] - ends[inside[0]])
                k, rest = divmod(total, len(inside))
                tail = int(units[inside[len(inside) - rest]]) if rest else stop
                pieces.append(pool.stretch(start, stop, k, tail))
            index = np.concatenate(pieces)
            self.phase += pool.phase(index)
            return pool.run(index)

        return self._mapped(one)

    def unfolded(self) -> Circuit:
        """Return the circuit with one layer of folds taken away."""
        return self._mapped(self._bare)

    def _bare(self, run: Run, turned: NDArray[np.bool_]) -> Run:
        if not (run.code == G.BARRIER).any():
            return run
        pool = _Pool(run, self.forms, turned)
        keep: list[NDArray[np.int64]] = []
        found = False
        for start, stop in _segments(run):
            size = self._stretch_size(pool, start, stop)
            found |= size < stop - start
            keep.append(np.arange(start, start + size))
        if found:
            return run.select(np.concatenate(keep))
        kept, times = pool.local_folds()
        if len(kept) == len(run):
            return run
        bare = run.select(kept)
        again = _Pool(bare, self.forms, turned)
        index = again.local(times)
        self.phase -= again.phase(index)
        return bare

    def _stretch_size(self, pool: _Pool, start: int, stop: int) -> int:
        """Return how many operations of a segment remain when a fold of the whole is undone."""
        run = pool.base
        barriers = start + np.flatnonzero(run.code[start:stop] == G.BARRIER)
        for at in barriers.tolist():
            # U B U^-1 B U ... with U the operations before the barrier.
            size = at - start
            inverse = int((pool.inverse[start:at] >= 0).sum())
            rest = stop - at
            turn = inverse + size + 2
            k, left = divmod(rest, turn)
            if not size or not (k or left):
                continue
            tail = at
            if left:
                lengths = (pool.inverse[start:at] >= 0).sum(axis=1)[::-1] + 1
                count = np.flatnonzero(np.cumsum(lengths) == left - 2)
                if not len(count):
                    continue
                tail = at - int(count[0]) - 1
            index = pool.stretch(start, at, k, tail)
            if len(index) != stop - start:
                continue
            if not np.array_equal(pool.rows.code[index], run.code[start:stop]):
                continue
            part = run.select(np.arange(start, stop))
            if pool.run(index).same_as(part, pool.forms, self.forms):
                self.phase -= pool.phase(index)
                return size
        return stop - start


def _segments(run: Run) -> list[tuple[int, int]]:
    """Return (start, stop) of the stretches between measurements and resets, and those alone."""
    walls = np.flatnonzero((run.code == G.MEASURE) | (run.code == G.RESET))
    cuts = np.unique(np.concatenate([[0, len(run)], walls, walls + 1]))
    return list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))


class _Pool:
    """A run, the inverse of each of its operations, and barriers, as rows to choose from.

    Attributes:
        base: The run, n operations.
        inverse: int64[n, 3], rows of the operation's inverse, -1 where it needs fewer.
        rows: All rows: the run's own first.
        forms: The circuit's forms with those of inverted angles.
    """

    def __init__(self, run: Run, forms: Forms, turned: NDArray[np.bool_]) -> None:
        run = run.normal()
        n = len(run)
        turn = np.flatnonzero(turned[run.code])
        mirror, self.forms = _inverted(run, forms, turned)
        befores = _turns(run, turn, 1)
        afters = _turns(run, turn, -1)
        self.base = run
        self.turned = turned
        self.rows = Run.concat([run, mirror, befores, afters])
        if not n:
            self.rows = run
        self.inverse = np.full((n, 3), -1, dtype=np.int64)
        self.inverse[:, 1] = n + np.arange(n)
        self.inverse[turn, 0] = 2 * n + np.arange(len(turn))
        self.inverse[turn, 2] = 2 * n + len(turn) + np.arange(len(turn))

    def run(self, index: NDArray[np.int64]) -> Run:
        """Return the rows at these places as a run."""
        return self.rows.select(index)

    def _barriers(self, operands: list[tuple[int, ...]]) -> int:
        """Add a barrier on each set of operands; return the row of the first."""
        first = len(self.rows)
        sizes = np.array([len(o) for o in operands], dtype=np.int64)
        qubit = np.full((len(operands), 3), -1, dtype=np.int32)
        qubit[:, 0] = np.cumsum(sizes) - sizes
        qubit[:, 1] = sizes
        extra = np.array([q for o in operands for q in o], dtype=np.int32)
        codes = np.full(len(operands), G.BARRIER, dtype=np.uint8)
        self.rows = Run.concat([self.rows, Run.of(codes, qubit, extra=extra)])
        return first

    def phase(self, index: NDArray[np.int64]) -> int:
        """Return the phase that makes these rows the same as the run, in units of pi / 2**60."""
        n = len(self.base)
        turned = self.base.code[index[(index >= n) & (index < 2 * n)] - n]
        return sum(
            phase * int(np.count_nonzero(turned == c))
            for c, (_, _, phase) in _TURNS.items()
            if self.turned[c]
        )

    def local(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the run with operation i folded ``times[i]`` times."""
        chosen = np.flatnonzero(times)
        first = self._barriers([self.base.operands(i) for i in chosen.tolist()])
        barrier = np.full(len(times), -1, dtype=np.int64)
        barrier[chosen] = first + np.arange(len(chosen))
        own = np.arange(len(times))
        # The columns of one turn: barrier, the inverse's three rows, barrier, the gate.
        turn = np.column_stack([barrier, self.inverse, barrier, own])
        lengths = 1 + 6 * times
        owner = np.repeat(own, lengths)
        place = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        index = np.where(place == 0, owner, turn[owner, (place - 1) % 6])
        return index[index >= 0]

    def stretch(self, start: int, stop: int, k: int, tail: int) -> NDArray[np.int64]:
        """Return the rows of ``U (B U^-1 B U)^k B L^-1 B L``, U from start, L from tail to stop."""
        wires = sorted({q for i in range(start, stop) for q in self.base.operands(i)})
        barrier = np.array([self._barriers([tuple(wires)])])
        forward = np.arange(start, stop)
        turn = [barrier, self._backward(start, stop), barrier, forward]
        parts = [forward, *(turn * k)]
        if tail < stop:
            parts += [barrier, self._backward(tail, stop), barrier, np.arange(tail, stop)]
        return np.concatenate(parts)

    def _backward(self, start: int, stop: int) -> NDArray[np.int64]:
        rows = self.inverse[start:stop][::-1].ravel()
        return rows[rows >= 0]

    def _same(self, i: int, row: int) -> bool:
        """Whether operation i is the operation in a row, angles included."""
        a, b = self.base, self.rows
        count = int(NUM_ANGLES[a.code[i]])
        if a.code[i] != b.code[row] or a.operands(i) != b.operands(row):
            return False
        first, second = int(a.angle[i]), int(b.angle[row])
        return all(
            a.frac[first + k] == b.frac[second + k]
            and a.rem[first + k] == b.rem[second + k]
            and self.forms.row(int(a.form[first + k])) == self.forms.row(int(b.form[second + k]))
            for k in range(count)
        )

    def local_folds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (operations that stay, times each is folded)."""
        run = self.base
        n = len(run)
        keep = np.ones(n, dtype=bool)
        times = np.zeros(n, dtype=np.int64)
        after = 0
        for at in np.flatnonzero(run.code == G.BARRIER).tolist():
            i = at - 1
            if at < max(after, 1) or not _IS_UNIT[run.code[i]]:
                continue
            wires = run.operands(i)
            inverse = self.inverse[i][self.inverse[i] >= 0].tolist()
            size = len(inverse) + 3
            end = at
            while (
                end + size <= n
                and run.code[end] == run.code[end + size - 2] == G.BARRIER
                and run.operands(end) == run.operands(end + size - 2) == wires
                and all(self._same(end + 1 + k, row) for k, row in enumerate(inverse))
                and self._same(end + size - 1, i)
            ):
                end += size
            keep[at:end] = False
            times[i] = (end - at) // size
            after = end
        return np.flatnonzero(keep), times[keep]


def _inverted(run: Run, forms: Forms, turned: NDArray[np.bool_]) -> tuple[Run, Forms]:
    """Return a run whose operation i is the inverse of operation i, or to be turned into it."""
    code = np.where(INVERSE_CODE[run.code] >= 0, INVERSE_CODE[run.code], run.code)
    code = np.where(turned[run.code], run.code, code).astype(np.uint8)
    qubit = run.qubit
    if (run.code == G.DCX).any():
        qubit = qubit.copy()
        swapped = run.code == G.DCX
        qubit[swapped, :2] = qubit[swapped, 1::-1]
    source = np.arange(len(run.frac))
    sign = np.ones(len(run.frac))
    shift = np.zeros(len(run.frac), dtype=np.int64)
    for c in np.unique(run.code[NUM_ANGLES[run.code] > 0]).tolist():
        first = run.angle[run.code == c]
        for i, (origin, factor) in enumerate(GATES[c].inverse_angles):
            source[first + i] = first + origin
            sign[first + i] = factor
        if c == G.GPI2:
            shift[first] = _PI
    grown, form = forms.combine(run.form[source], sign, np.arange(len(source)), len(source))
    frac = run.frac[source] * sign.astype(np.int64) + shift
    mirror = replace(run, code=code, qubit=qubit).with_angles(frac, run.rem[source] * sign, form)
    return mirror, grown


def _turns(run: Run, turn: NDArray[np.int64], sign: int) -> Run:
    """Return the gates before (sign 1) or after (sign -1) the gates at ``turn``, one each."""
    parts = [_TURNS[int(c)] for c in run.code[turn]]
    qubit = np.full((len(turn), 3), -1, dtype=np.int32)
    qubit[:, 0] = run.qubit[turn, 0]
    angles = [(sign * angles[0], *angles[1:]) for _, angles, _ in parts]
    return Run.of([code for code, _, _ in parts], qubit, frac=[a for each in angles for a in each])
