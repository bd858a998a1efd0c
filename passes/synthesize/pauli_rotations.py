"""resynthesize-pauli-rotations: rotations about Paulis of many wires written with fewer CX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI, Angle, wrap
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import INVERSE_CODE, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.passes.reduce.cancel_inverses import CancelInverses
from qcomp.passes.reduce.families import FAMILY, PHASED
from qcomp.passes.reduce.fuse_one_qubit import FuseOneQubit
from qcomp.passes.reduce.leaves import Leaf, Phase, call, rewrite_leaves
from qcomp.passes.reduce.merge_rotations import MergeRotations
from qcomp.passes.reduce.pauli_carry import ROLE
from qcomp.passes.reduce.pauli_carry import TURN as ROTATES
from qcomp.passes.reduce.pauli_tables import AXIS_BITS, PRODUCT
from qcomp.passes.reduce.sums import Summands, summands
from qcomp.passes.synthesize import clifford_phase as follow
from qcomp.passes.synthesize import pauli_frame as frame
from qcomp.passes.synthesize.parity_frame import SLOTS, WORD
from qcomp.passes.synthesize.pauli_network import rewrite
from qcomp.passes.synthesize.segments import segments
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["ResynthesizePauliRotations"]

_VARIANTS: tuple[tuple[int, int, int], ...] = (
    (30, 10, 2),
    (10, 10, 0),
    (40, 5, 5),
    (20, 20, 10),
)
"""(what can be written next, all that waits, rows of the Clifford), the weights of each try."""

_MOST_WIRES = WORD
_ROUNDS = 8
_WIDE = 40
"""Wires from which on a segment of few operations is not tried."""

_CODES = np.array([G.H, G.CX, G.SDG, G.X, G.Z], dtype=np.uint8)
"""Gate of each kind that the kernel writes, but for rotations."""

_ARITY = np.maximum(NUM_QUBITS, 0).astype(np.int64)


def _kinds(run: Run, add: Summands) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each operation what it is to the kernel, and its axes and quarters."""
    code = run.code
    kind = np.full(len(run), frame.FENCE, dtype=np.int64)
    for gate, what in ((G.H, frame.H), (G.CX, frame.CX), (G.CZ, frame.CZ)):
        kind[code == gate] = what
    kind[code == G.SWAP] = frame.SWAP
    turns = ROLE[code] == ROTATES
    clifford = (add.rem == 0) & (add.form < 0) & (add.frac % (PI >> 1) == 0) & (_ARITY[code] == 1)
    kind[turns] = np.where(clifford[turns], frame.QUARTER, frame.TURN)
    aux = AXIS_BITS.reshape(-1, 3)[code]
    return kind, aux[:, 0] + 4 * aux[:, 1] + 16 * ((add.frac >> 59) & 3)


def _clifford(
    run: Run,
    kind: NDArray[np.int64],
    wire: NDArray[np.intp],
    aux: NDArray[np.int64],
    frac: NDArray[np.int64],
) -> tuple[list[tuple[int, int, int]], int]:
    """Return the Clifford gates of a segment as simple ones, and the eighths of phase beside."""
    gates: list[tuple[int, int, int]] = []
    eighths = 0
    for i, what in enumerate(kind.tolist()):
        a, b = int(wire[i, 0]), int(wire[i, 1])
        if what == frame.H:
            gates.append((follow.H, a, -1))
        elif what == frame.CX:
            gates.append((follow.CX, a, b))
        elif what == frame.CZ:
            gates += [(follow.H, b, -1), (follow.CX, a, b), (follow.H, b, -1)]
        elif what == frame.SWAP:
            gates += [(follow.CX, a, b), (follow.CX, b, a), (follow.CX, a, b)]
        elif what == frame.QUARTER:
            # exp(-i k pi/4 Z) = exp(-i k pi/4) S^k, turned to the axis; named gates have no phase.
            axis = int(aux[i]) & 3
            into = {1: [follow.H], 2: [], 3: [follow.SDG, follow.H]}[axis]
            back = {1: [follow.H], 2: [], 3: [follow.H, follow.S]}[axis]
            steps = [*into, *[follow.S] * ((int(aux[i]) >> 4) & 3), *back]
            gates += [(step, a, -1) for step in steps]
            eighths -= (1 - int(PHASED[run.code[i]])) * (int(frac[i]) >> 59)
    return gates, eighths


_INVERSE = {follow.S: follow.SDG, follow.SDG: follow.S}
_WRITTEN = {
    frame.H: follow.H,
    frame.CX: follow.CX,
    frame.SDG: follow.SDG,
    frame.X: follow.X,
    frame.Z: follow.Z,
}


def _phase(gates: list[tuple[int, int, int]], written: NDArray[np.int32], m: int) -> int:
    """Return the eighths of a turn between given Clifford gates and those written."""
    undo = [(_WRITTEN[kind], a, b) for kind, a, b in written.tolist()[::-1] if kind != frame.TURN]
    gates = gates + [(_INVERSE.get(kind, kind), a, b) for kind, a, b in undo]
    if not gates:
        return 0
    kind, first, second = np.array(gates, dtype=np.int64).T
    return call(
        follow.clifford_phase,
        len(gates) * m,
        (len(gates), m, kind, first, second),
        tuple(np.zeros(m, dtype=np.int64) for _ in range(6)),
    )


@dataclass(frozen=True, slots=True)
class _Rewriter:
    """What is needed to rewrite the segments of one circuit.

    Attributes:
        circuit: The circuit.
        context: Seeds for the passes that tidy up.
        tries: Ways in which a segment is written.
        window: Most operations of a segment.
        basis: One-qubit gates, as of fuse-one-qubit.
        two_qubit: What a CX weighs; any gate weighs one beside.
    """

    circuit: Circuit
    context: Context
    tries: int
    window: int
    basis: str
    two_qubit: float

    def run(self, run: Run, forms: Forms) -> Leaf:
        """Rewrite the segments of one run where that is cheaper."""
        add = summands(run)
        kind, aux = _kinds(run, add)
        parts: list[Run] = []
        total = Angle()
        changed = False
        for start, stop, free in segments(run, kind == frame.FENCE, self.window, _MOST_WIRES):
            part = run.select(np.arange(start, stop))
            here = slice(start, stop)
            if free and (kind[here] == frame.TURN).any():
                better = self._rewritten(part, kind[here], aux[here], forms)
                if better is not None:
                    part, forms, phase = better
                    total += phase
                    changed = True
            parts.append(part)
        if not changed:
            return run, forms, Phase()
        column = {name: i for i, name in enumerate(self.circuit.params)}
        row = tuple((column[name], factor) for name, factor in total.terms)
        # A phase is the same modulo 2 pi.
        frac = ((total.frac + PI) & (2 * PI - 1)) - PI
        return Run.concat(parts), forms, Phase(frac, total.rem, row)

    def _cost(self, run: Run) -> float:
        two = NUM_QUBITS[run.code] == 2
        swaps = run.code == G.SWAP
        return self.two_qubit * (int(two.sum()) + 2 * int(swaps.sum())) + len(run)

    def _rewritten(
        self, run: Run, kind: NDArray[np.int64], aux: NDArray[np.int64], forms: Forms
    ) -> tuple[Run, Forms, Angle] | None:
        """Return the cheapest way found to write a segment, None where it is the one at hand."""
        n = len(run)
        used, local = np.unique(run.qubit, return_inverse=True)
        local = local.reshape(-1)
        if used[0] < 0:
            used, local = used[1:], local - 1
        m = len(used)
        cost = self._cost(run)
        cx = int((NUM_QUBITS[run.code] == 2).sum() + 2 * (run.code == G.SWAP).sum())
        turns = int((kind == frame.TURN).sum())
        if m > _MOST_WIRES or cx < 2 or (m > _WIDE and n < 4 * m):
            return None
        add = summands(run)
        best: NDArray[np.int32] | None = None
        least = cost
        for front, ahead, rows in _VARIANTS[: self.tries]:
            written = self._network(
                kind, local, _ARITY[run.code], aux, m, 4 * n, cx, front, ahead, rows
            )
            if written is None:
                continue
            # What is written takes at least its CX and its rotations; of the rest some will go.
            made = int((written[:, 0] == frame.CX).sum())
            likely = (self.two_qubit + 1) * made + turns + (len(written) - made - turns) / 4
            if likely < least:
                least, best = likely, written
        if best is None:
            return None
        spelled, more, phase = _spelled(run, add, best, used, forms)
        new, grown, angle = self._tidied(spelled, more, phase.angle(self.circuit.params))
        if self._cost(new) >= cost:
            return None
        gates, eighths = _clifford(run, kind, local.reshape(-1, 3), aux, add.frac)
        eighths += _phase(gates, best, m)
        return new, grown, angle + Angle((eighths % 8) << 58)

    def _network(
        self,
        kind: NDArray[np.int64],
        local: NDArray[np.intp],
        arity: NDArray[np.int64],
        aux: NDArray[np.int64],
        m: int,
        limit: int,
        most: int,
        front: int,
        ahead: int,
        rows: int,
    ) -> NDArray[np.int32] | None:
        """Return int32[k, 3], what the kernel writes; None beyond the limits."""
        words = -(-2 * m // WORD)
        row = np.arange(2 * m)
        rx, rz = np.zeros((m, words), dtype=np.int64), np.zeros((m, words), dtype=np.int64)
        for bits, part in ((rx, 0), (rz, 1)):
            mine = row[part::2]
            bits[np.arange(m), mine // WORD] = np.int64(1) << (mine % WORD)
        out = np.zeros(3 * limit, dtype=np.int32)
        total = call(
            rewrite,
            2 * len(kind) * m,
            (
                len(kind),
                m,
                words,
                limit,
                most,
                front,
                ahead,
                rows,
                kind,
                local,
                arity,
                aux,
                PRODUCT,
            ),
            (
                np.zeros(m, dtype=np.int64),
                np.zeros(m, dtype=np.int64),
                rx.ravel(),
                rz.ravel(),
                np.zeros(words, dtype=np.int64),
                np.zeros(12, dtype=np.int64),
                np.zeros(SLOTS, dtype=np.int64),
                np.zeros(SLOTS, dtype=np.int64),
                np.zeros(m, dtype=np.int64),
                np.zeros(m, dtype=np.int64),
                np.zeros(7, dtype=np.int64),
                out,
            ),
        )
        return out.reshape(-1, 3)[:total] if total <= limit else None

    def _tidied(self, run: Run, forms: Forms, phase: Angle) -> tuple[Run, Forms, Angle]:
        """Merge, cancel and fuse what was written."""
        circuit = self.circuit.copy(body=(run,), forms=forms)
        circuit.global_phase = phase
        for step in (MergeRotations(), CancelInverses(), FuseOneQubit(self.basis)):
            circuit = step.run(circuit, self.context)
        return circuit.run, circuit.forms, circuit.global_phase


def _spelled(
    run: Run, add: Summands, written: NDArray[np.int32], used: NDArray[np.int32], forms: Forms
) -> tuple[Run, Forms, Phase]:
    """Return what the kernel wrote as a run over the circuit's wires, and its phase."""
    kind, wire, last = written.astype(np.int64).T
    turns, cx = kind == frame.TURN, kind == frame.CX
    source = np.where(turns, last // 2, 0)
    minus = turns & (last % 2 == 1)
    negated = source[minus]
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
    code[turns & (FAMILY[code] != FAMILY[G.Z])] = G.RZ
    code[minus] = INVERSE_CODE[code[minus]]
    code[~turns] = _CODES[np.minimum(kind[~turns], len(_CODES) - 1)]
    qubit = np.full((len(kind), 3), -1, dtype=np.int32)
    qubit[:, 0] = used[wire]
    qubit[cx, 1] = used[last[cx]]
    angle = np.where(turns, run.angle[source], -1).astype(np.int32)
    grown = Run(code, qubit, angle, frac, rem, form, run.extra[:0])
    return grown.select(np.arange(len(code))), forms, phase


@dataclass(frozen=True)
class ResynthesizePauliRotations(CircuitPass):
    """``C exp(-i a_k/2 P_k) ... exp(-i a_1/2 P_1)`` with a Clifford C, written with fewer CX.

    All Cliffords are moved to the end, which leaves rotations about Paulis of several wires. A gate
    ``exp(i pi/4 (1 - P_a)(1 - Q_b))``, a CX up to gates on one wire, multiplies by ``Q_b`` the
    Paulis that do not commute with ``P_a`` and by ``P_a`` those that do not commute with ``Q_b``.
    Such gates are written until nothing is left: each shortens one of the lightest rotations that
    can come next, and is the one that shortens those, all that wait, and the Clifford most. A
    rotation is written when its Pauli is down to one wire; at the end C is written in the same way.
    What was written is tidied up by merge-rotations, cancel-inverses and fuse-one-qubit.

    A segment is rewritten only where ``two_qubit`` times its CX plus its gates get less, and its CX
    do not get more (a ``swap`` counts as three).

    Preconditions: none. Clifford gates but for h, cx, cz, swap and quarters of rotations, other
    gates, measurements, resets and barriers part segments (``to-basis`` first), which have 62 wires
    at most; each run of a circuit with control flow stands alone.

    Preserves: the unitary, global phase included: exactly, but for the rounding of fuse-one-qubit
    where it fuses float angles. Symbols move like numbers.

    Cost: for each gate the wires of its segment, for each CX written the pairs of wires of the
    lightest rotations and the 62 rotations that wait at a time; times ``tries``, and again where
    something was saved in a circuit of one window.

    Source: Schmitz, Sawaya, Johri, Matsuura 2021 (arXiv:2103.08602), sections III to V; Paykin et
    al. 2023 (arXiv:2305.10966), section IV, for circuits of Cliffords and rotations.

    Attributes:
        basis: One-qubit gates, as of fuse-one-qubit.
        two_qubit: What a CX weighs beside the one that every gate weighs.
        tries: Ways in which each segment is written, 1 to 4; the cheapest counts.
        window: Most operations of a segment.
    """

    name: ClassVar[str] = "resynthesize-pauli-rotations"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    basis: str = "own"
    two_qubit: float = 4.0
    tries: int = 2
    window: int = 4096

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with fewer CX; the same object when none were saved."""
        small = all(len(run) <= self.window for run in circuit.runs())
        for _ in range(_ROUNDS if small else 1):
            rewriter = _Rewriter(
                circuit, context, self.tries, self.window, self.basis, self.two_qubit
            )
            result = rewrite_leaves(circuit, rewriter.run)
            if result is circuit:
                break
            circuit = result
        return circuit
