"""resynthesize-windows: three-qubit windows with the fewest CX gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.ir.angle import PI, wrap
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.passes.reduce.euler import Basis
from qcomp.passes.reduce.leaves import Leaf, Phase, rewrite_leaves
from qcomp.passes.synthesize.blocks import Matrices
from qcomp.passes.synthesize.clifford_chains import CX_COST, Op, OpCosts, merged, quarter_turns
from qcomp.passes.synthesize.frames import PAIRS, Plane, frame_table, plane, shortest_network
from qcomp.passes.synthesize.signed_paulis import (
    PARTS,
    Pulled,
    anticommute,
    local_cliffords,
    on_qubit,
)
from qcomp.passes.synthesize.words import Prices
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["ResynthesizeWindows"]

_AXIS = {G.RX: "X", G.RY: "Y", G.RZ: "Z", G.T: "Z", G.TDG: "Z"}
_EIGHTH = {G.T: 1, G.TDG: -1}
_AROUND = {"Z": ((), ()), "X": ((G.H,), (G.H,)), "Y": ((G.SX,), (G.SXDG,))}
"""What to put before and after a rotation about Z to have one about another axis."""
_MOST_ROTATIONS = 62
_MOST_CX = 9
"""CX gates of a window at most."""
_REACH = 300
"""Operations after a window's first that are looked at."""
_CHOICES = 3
"""Third qubits that are tried."""
_VISITS = 50
"""Windows that are collected at most for each that may be searched: many are known already."""
_VARIANTS = 6
"""Shortest networks of which the cheapest is taken."""
_OTHER = -1


@dataclass(frozen=True, slots=True)
class _Turn:
    """A rotation of a window: about the pulled-back Pauli ``bits``, by ``sign`` times its angle."""

    bits: int
    sign: int
    code: int
    entry: int

    @property
    def sign_of_name(self) -> int:
        """Eighths of pi of global phase that the gate's name carries."""
        return _EIGHTH.get(self.code, 0)


class _Window:
    """What a window does: rotations about Paulis at its input, then a Clifford circuit."""

    def __init__(self, ops: Sequence[Op], place: dict[int, int], quarters: Sequence[int]) -> None:
        self.turns: list[_Turn] = []
        plain: list[Op] = []
        self.cost = 0
        self.clifford = Pulled()
        self.steps: list[tuple[int, tuple[int, ...], int]] = []
        for code, qubits, entry, sign in ops:
            at = tuple(place[q] for q in qubits)
            self.cost += CX_COST.get(code, 0)
            if code not in _AXIS:
                self.clifford.apply(code, at)
                self.steps.append((code, at, 0))
                plain.append((code, at, -1, 1))
                continue
            bits = on_qubit(_AXIS[code], at[0])
            halves = quarters[entry] if entry >= 0 else _OTHER
            if halves >= 0:
                self.clifford.turn(bits, sign * halves)
                self.steps.append((code, at, sign * halves))
                plain.extend((c, at, -1, 1) for c in quarter_turns(code, sign * halves))
            else:
                pulled, own = self.clifford.signed(bits)
                sign *= _EIGHTH.get(code, 1)
                self.turns.append(_Turn(pulled, own * sign, code, entry))
                plain.append((code, at, entry, sign))
        self._plain = plain

    def planes(self) -> tuple[Plane, ...]:
        """Return the planes of the Clifford circuit at the end."""
        ends = [[bits for _, bits, _ in self.clifford.letters(q)] for q in range(3)]
        return tuple(plane(end[0], end[1]) for end in ends)

    @property
    def key(self) -> tuple[object, ...]:
        """What a search depends on."""
        return (self.cost, self.planes(), *(turn.bits for turn in self.turns))

    def shorter(self, room: int, prices: OpCosts) -> list[Op] | None:
        """Return gates on qubits 0, 1, 2 that do the same with fewer CX gates, None for none.

        Of several of the fewest CX gates the cheapest is taken, if it is cheaper than the window.
        """
        if len(self.turns) > _MOST_ROTATIONS:
            return None
        pauli = [turn.bits for turn in self.turns]
        waits = [
            sum(1 << j for j in range(k) if anticommute(pauli[j], pauli[k]))
            for k in range(len(pauli))
        ]
        target = frame_table().of(self.planes())
        arrays = np.array(pauli, dtype=np.int64), np.array(waits, dtype=np.int64)
        best, least, limit = None, prices.of(merged(self._plain)) - 1e-6, self.cost - 1
        for variant in range(_VARIANTS):
            network = shortest_network(*arrays, target, limit, room, variant)
            if network is None:
                break
            limit = len(network.moves)
            new = merged(self._written(network.moves, network.steps))
            if prices.of(new) < least:
                best, least = new, prices.of(new)
        return best

    def _written(self, moves: Sequence[int], steps: Sequence[Sequence[int]]) -> list[Op]:
        table = frame_table()
        pulled = Pulled()
        out: list[Op] = []
        frame = 0

        def emit(code: int, *qubits: int) -> None:
            pulled.apply(code, qubits)
            out.append((code, qubits, -1, 1))

        for k, rotations in enumerate(steps):
            for j in rotations:
                self._turn(self.turns[j], pulled, out)
            if k == len(moves):
                break
            pair, i, j = moves[k] // 9, moves[k] // 3 % 3, moves[k] % 3
            a, b = PAIRS[pair]
            letters = []
            for q, element in ((a, i), (b, j)):
                wanted = int(table.planes[frame, q, element])
                letters.append(next(x for x, bits, _ in pulled.letters(q) if bits == wanted))
            # The control has to be Z, the target X: take the direction of fewer gates.
            if (letters[0] != "Z") + (letters[1] != "X") > (letters[1] != "Z") + (
                letters[0] != "X"
            ):
                a, b, letters = b, a, letters[::-1]
            if letters[0] != "Z":
                emit(G.H if letters[0] == "X" else G.SX, a)
            if letters[1] != "X":
                emit(G.H if letters[1] == "Z" else G.S, b)
            emit(G.CX, a, b)
            frame = int(table.following[frame * 27 + moves[k]])
        for q in range(3):
            now = {bits: (letter, sign) for letter, bits, sign in pulled.letters(q)}
            key: list[str | int] = []
            for letter in "XZ":
                bits, sign = self.clifford.signed(on_qubit(letter, q))
                key += [now[bits][0], now[bits][1] * sign]
            x, x_sign, z, z_sign = key
            assert isinstance(x, str) and isinstance(z, str)  # noqa: PT018
            assert isinstance(x_sign, int) and isinstance(z_sign, int)  # noqa: PT018
            for code in local_cliffords()[x, x_sign, z, z_sign]:
                emit(code, q)
        return out

    @staticmethod
    def _turn(turn: _Turn, pulled: Pulled, out: list[Op]) -> None:
        """Write a rotation where it is one on one qubit."""
        q, letter, sign = next(
            (q, letter, sign)
            for q in range(3)
            for letter, bits, sign in pulled.letters(q)
            if bits == turn.bits
        )
        sign *= turn.sign
        before, after = _AROUND[letter]
        out.extend((code, (q,), -1, 1) for code in before)
        if turn.entry < 0:
            out.append((G.T if sign > 0 else G.TDG, (q,), -1, 1))
        else:
            out.append((G.RZ, (q,), turn.entry, sign))
        out.extend((code, (q,), -1, 1) for code in after)

    def phase_over(self, ops: Sequence[Op]) -> int:
        """Return the global phase of this window less that of other gates, units of pi / 2**60."""
        mine = theirs = np.eye(8, dtype=complex)
        eighths = sum(turn.sign_of_name for turn in self.turns)
        for code, at, halves in self.steps:
            angles = (halves * np.pi / 2,) if code in _AXIS else ()
            mine = _on_three(GATES[code].matrix(*angles), at) @ mine
        for code, at, entry, _ in ops:
            eighths -= _EIGHTH.get(code, 0)
            if entry < 0 and code not in _EIGHTH:
                theirs = _on_three(GATES[code].matrix(), at) @ theirs
        overlap = np.vdot(theirs, mine)
        quarter = round(np.angle(overlap) / (np.pi / 4))
        return quarter * (PI >> 2) + eighths * (PI >> 3)


def _on_three(matrix: Matrices, at: tuple[int, ...]) -> Matrices:
    """Return a gate on qubits ``at`` of three, complex128[8, 8]."""
    size = len(at)
    column = np.arange(8)
    inner = sum((column >> q & 1) << k for k, q in enumerate(at))
    out = np.zeros((8, 8), dtype=complex)
    for row in range(1 << size):
        target = column.copy()
        for k, q in enumerate(at):
            target = target & ~(1 << q) | ((row >> k & 1) << q)
        out[target, column] += matrix[row, inner]
    return out


@dataclass(frozen=True, slots=True)
class _Reach:
    """Operations that can be brought together, and those between them.

    Attributes:
        wires: Their qubits.
        inside: Their places, ascending.
        after: Places of the operations between that have to come after them.
        skipped: Whether as many gates were left out as was asked for.
    """

    wires: tuple[int, ...]
    inside: list[int]
    after: set[int]
    skipped: bool

    def shape(self, ops: Sequence[Op], quarters: Sequence[int]) -> tuple[object, ...]:
        """Return what a search depends on: the gates on qubits 0, 1, 2 without their angles."""
        place = {q: k for k, q in enumerate(self.wires)}
        out: list[tuple[object, ...]] = []
        for i in self.inside:
            code, qubits, entry, sign = ops[i]
            quarter = sign * quarters[entry] if entry >= 0 and quarters[entry] >= 0 else None
            out.append((code, *(place[q] for q in qubits), quarter))
        return tuple(out)


def _grow(ops: Sequence[Op], start: int, skip: int, most: int) -> _Reach:
    """Collect operations on at most three qubits from ``start`` on.

    Args:
        ops: All operations.
        start: A two-qubit gate.
        skip: So many gates that would bring in a third qubit are left out first.
        most: CX gates at most.
    """
    wires = list(ops[start][1])
    cost = CX_COST[ops[start][0]]
    inside, after = [start], set()
    inner, closed = set(wires), set[int]()
    for i in range(start + 1, min(len(ops), start + _REACH)):
        code, qubits, _, _ = ops[i]
        if inner.isdisjoint(qubits):
            if not closed.isdisjoint(qubits):
                closed.update(qubits)
                after.add(i)
            continue
        fresh = [q for q in qubits if q not in wires]
        price = CX_COST.get(code, 0)
        fits = code != _OTHER and closed.isdisjoint(qubits) and cost + price <= most
        if fits and fresh:
            fits = len(wires) + len(fresh) <= 3 and not skip
            skip -= skip > 0
        if fits:
            wires += fresh
            inner.update(fresh)
            inside.append(i)
            cost += price
            continue
        closed.update(qubits)
        after.add(i)
        if inner <= closed:
            break
    return _Reach(tuple(wires), inside, after, not skip)


def shorten(
    ops: list[Op], quarters: Sequence[int], searches: int, room: int, prices: OpCosts
) -> tuple[list[Op], int, int] | None:
    """Replace windows until none gets shorter.

    Args:
        ops: The operations.
        quarters: For each angle entry its multiple of pi/2, modulo 8; -1 where it is none.
        searches: Windows to search at most.
        room: Nodes that one search may visit.
        prices: What gates cost.

    Returns:
        (operations, the global phase that they lack in units of pi / 2**60, searches left); None
        where nothing got shorter.
    """
    phase = 0
    hopeless: set[tuple[object, ...]] = set()
    improved, shorter = True, False
    visits = _VISITS * searches
    while improved and searches > 0 and visits > 0:
        improved = False
        at = 0
        while at < len(ops) and searches > 0 and visits > 0:
            found = None
            if ops[at][0] in CX_COST:
                for skip in range(_CHOICES):
                    visits -= 1
                    reach = _grow(ops, at, skip, _MOST_CX)
                    if not reach.skipped:
                        break
                    shape = reach.shape(ops, quarters)
                    if shape in hopeless:
                        continue
                    place = {q: k for k, q in enumerate(reach.wires)}
                    window = _Window([ops[i] for i in reach.inside], place, quarters)
                    if window.cost < 2 or window.key in hopeless:
                        hopeless.add(shape)
                        continue
                    searches -= 1
                    new = window.shorter(room, prices)
                    if new is not None:
                        found = reach, window, new
                        break
                    hopeless.update((shape, window.key))
            if found is None:
                at += 1
                continue
            reach, window, new = found
            phase += window.phase_over(new)
            ops = _spliced(ops, reach, new)
            improved = shorter = True
    return (ops, phase, searches) if shorter else None


def _spliced(ops: list[Op], reach: _Reach, new: list[Op]) -> list[Op]:
    first, last = reach.inside[0], reach.inside[-1]
    inside = set(reach.inside)
    between = [i for i in range(first, last + 1) if i not in inside]
    back = [
        (code, tuple(reach.wires[q] for q in qubits), entry, sign)
        for code, qubits, entry, sign in new
    ]
    return [
        *ops[:first],
        *(ops[i] for i in between if i not in reach.after),
        *back,
        *(ops[i] for i in between if i in reach.after),
        *ops[last + 1 :],
    ]


def resynthesize_run(
    run: Run, forms: Forms, searches: int, room: int, prices: Prices
) -> tuple[Leaf, int]:
    """Shorten the windows of one run; the same run comes back when none got shorter.

    Args:
        run: The run.
        forms: The circuit's forms.
        searches: Windows to search at most.
        room: Nodes that one search may visit.
        prices: What gates cost.

    Returns:
        ((the run, the forms, the phase), searches left).
    """
    ops = _listed(run)
    exact = (run.form < 0) & (run.rem == 0) & (run.frac % (PI >> 1) == 0)
    quarters = np.where(exact, run.frac // (PI >> 1) % 8, -1)
    result = shorten(ops, quarters.tolist(), searches, room, OpCosts(prices))
    if result is None:
        return (run, forms, Phase()), searches
    ops, phase, searches = result
    others = np.array([op[2] if op[0] == _OTHER else -1 for op in ops], dtype=np.int64)
    known = [op for op in ops if op[0] != _OTHER]
    entry = np.array([e for _, _, e, _ in known if e >= 0], dtype=np.int64)
    sign = np.array([s for _, _, e, s in known if e >= 0], dtype=np.int64)
    forms, form = forms.combine(
        run.form[entry], sign.astype(np.float64), np.arange(len(entry)), len(entry)
    )
    added = Run.of(
        [code for code, _, _, _ in known],
        [(*qubits, -1, -1)[:3] for _, qubits, _, _ in known],
        wrap(run.frac[entry] * sign),
        run.rem[entry] * sign,
        form,
    )
    source = others.copy()
    source[others < 0] = len(run) + np.arange(len(known))
    new = Run.concat([run, added]).select(source)
    return (new, forms, Phase(phase & (2 * PI - 1))), searches


def _listed(run: Run) -> list[Op]:
    """Return the operations of a run; what no window takes stands for itself."""
    ops: list[Op] = []
    codes, angles, rows = run.code.tolist(), run.angle.tolist(), run.qubit.tolist()
    for i, code in enumerate(codes):
        if code in _AXIS or code in PARTS:
            ops.append((code, tuple(rows[i][: NUM_QUBITS[code]]), angles[i], 1))
        elif code in (G.MEASURE, G.RESET):
            ops.append((_OTHER, (rows[i][0],), i, 1))
        else:
            ops.append((_OTHER, run.operands(i), i, 1))
    return ops


@dataclass(frozen=True)
class ResynthesizeWindows(CircuitPass):
    """``R_m C_m ... R_1 C_1 = L C'_k R'_k ... C'_1 R'_1`` on three qubits, k CX gates at least.

    A window of Clifford gates and rotations is a sequence of rotations about Paulis of its input
    and one Clifford circuit at its end. The fewest CX gates between which every rotation becomes a
    one-qubit gate, in an order that keeps those which do not commute, and after which the Clifford
    circuit is one-qubit gates, are found by breadth-first search over the 6,720 Clifford circuits
    on three qubits up to one-qubit gates and the sets of rotations done.

    Of several such circuits the cheapest is taken, if it is cheaper than the window.

    Options: ``searches``, windows to search at most in a circuit; ``room``, nodes that one search
    may visit: the work is bounded by their product, for windows known from before are not searched
    again and at most 50 are looked at for each search. A window that runs out of room stays.
    ``basis``, the one-qubit gates that Clifford gates are counted in, as of fuse-one-qubit;
    ``two_qubit``, ``gate``: prices of a CX gate and of any gate.

    Preconditions: works on cx, cz, cy, swap, the one-qubit Clifford gates, t, tdg, rz, rx and ry;
    other gates, measurements, resets and barriers stay where they are. Angles may be symbols.

    Preserves: the unitary exactly, global phase included; the rotations and their angles up to
    sign. CX gates get fewer wherever something changes; one-qubit gates may get more until
    fuse-one-qubit has run.

    Cost: searches times room.

    Source: Pauli networks as in Amy, Azimzadeh, Mosca 2018 (arXiv:1712.01859) for CX gates; tables
    of optimal Clifford circuits as in Bravyi, Latone, Maslov 2020 (arXiv:2012.09061).
    """

    name: ClassVar[str] = "resynthesize-windows"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    searches: int = 5000
    room: int = 8192
    basis: str = "h-x-rz"
    two_qubit: float = 8.0
    gate: float = 1.0

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with windows shortened; the same object when none got shorter.

        Raises:
            UsageError: If the basis names something that is no one-qubit gate.
        """
        left = self.searches
        prices = Prices(Basis.parse(self.basis), self.two_qubit, 0.0, self.gate)

        def rewrite(run: Run, forms: Forms) -> Leaf:
            nonlocal left
            leaf, left = resynthesize_run(run, forms, left, self.room, prices)
            return leaf

        return rewrite_leaves(circuit, rewrite)
