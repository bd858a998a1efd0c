"""push-virtual-z: rotations about Z move to where they are needed, through all that lets them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI, wrap
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import AXIS, GATES, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.map.splicing import gates_at, spliced
from qcomp.passes.map.turns import is_turn, phase_of_turns, turns_of
from qcomp.passes.reduce.families import FAMILY
from qcomp.passes.reduce.leaves import Leaf, Phase, call, rewrite_leaves
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["PushVirtualZ"]

PASSES, STOPS, FLIPS, SHIFTS, EXCHANGES, EQUAL, FORGETS, TURNS = range(8)
"""What a gate does to a turn about Z that comes before it on an operand: lets it pass, needs it
there, negates it, takes it off an angle that says a direction, hands it to the other operand, lets
pass what both operands have, forgets it; or is such a turn itself."""

_WIDE, _MCX = -1, G.MCX
_TWO_PI, _FOUR_PI = PI << 1, PI << 2


def _effects() -> NDArray[np.int64]:
    """Effect of each gate on operand k at 4 * code + k, and at 4 * code + 3 its arity."""
    out = np.full((len(GATES), 4), STOPS, dtype=np.int64)
    out[:, :3][AXIS == 3] = PASSES
    out[[G.X, G.Y], 0] = FLIPS
    out[[G.R, G.GPI, G.GPI2], 0] = SHIFTS
    out[G.MS, :2] = SHIFTS
    out[[G.SWAP, G.ISWAP], :2] = EXCHANGES
    out[[G.XY, G.SISWAP, G.SISWAPDG], :2] = EQUAL
    out[G.RESET, 0] = FORGETS
    out[FAMILY == FAMILY[G.RZ], 0] = TURNS
    out[G.BARRIER, 0] = PASSES
    out[:, 3] = np.where(np.arange(len(GATES)) == G.MEASURE, 1, NUM_QUBITS)
    return out


_EFFECTS = _effects()
_DIRECTION = np.array([1 if row.code == G.R else 0 for row in GATES], dtype=np.int64)
"""The angle that is shifted by a turn on operand 0; the next one by a turn on operand 1."""


def _wrapped(units: Any) -> Any:
    """Bring units of pi / 2**60 into [-2 pi, 2 pi)."""
    return ((units + _TWO_PI) & (_FOUR_PI - 1)) - _TWO_PI


@kernel(calls=(_wrapped,))
def _push(
    n: int,
    wires: int,
    code: Any,
    qubit: Any,
    extra: Any,
    angle: Any,
    turn_frac: Any,
    turn_rem: Any,
    turn_form: Any,
    effect: Any,
    direction: Any,
    frac: Any,
    rem: Any,
    node: Any,
    sign: Any,
    parent: Any,
    parent_sign: Any,
    parent_form: Any,
    emit_op: Any,
    emit_wire: Any,
    emit_frac: Any,
    emit_rem: Any,
    emit_node: Any,
    emit_sign: Any,
    shift_frac: Any,
    shift_rem: Any,
    shift_node: Any,
    shift_sign: Any,
    counts: Any,
) -> int:
    """Carry the turn of each wire through a run; say where turns are put down.

    frac, rem, node, sign: the turn of each wire, its symbols being ``sign * value(node)``. Node k
    is ``parent_sign[k] * value(parent[k]) + row(parent_form[k])``, -1 for no parent. emit_*: turns
    to put down before operation ``emit_op``, n at the end; two entries in a row with the same
    place where the symbols of two nodes add up. shift_*: by angle entry. counts: nodes.
    """
    emits = 0
    nodes = 0
    for i in range(n + wires):
        c = 0
        arity = 1
        wide = False
        if i < n:
            c = code[i]
            arity = effect[4 * i + 3]
            if arity == _WIDE:
                wide = True
                arity = qubit[3 * i + 1]
                if c != _MCX:
                    continue
        for k in range(arity):
            what = STOPS
            if i >= n:
                w = i - n
            elif wide:
                w = extra[qubit[3 * i] + k]
                what = STOPS if k == arity - 1 else PASSES
            else:
                w = qubit[3 * i + k]
                what = effect[4 * i + k]
            if what == PASSES:
                continue
            if what == TURNS:
                frac[w] = _wrapped(frac[w] + turn_frac[i])
                rem[w] += turn_rem[i]
                if turn_form[i] >= 0:
                    parent[nodes] = node[w]
                    parent_sign[nodes] = sign[w]
                    parent_form[nodes] = turn_form[i]
                    node[w] = nodes
                    sign[w] = 1
                    nodes += 1
                continue
            if what == FORGETS:
                frac[w] = 0
                rem[w] = 0.0
                node[w] = -1
                continue
            if what == FLIPS:
                frac[w] = _wrapped(-frac[w])
                rem[w] = -rem[w]
                sign[w] = -sign[w]
                continue
            if what == SHIFTS:
                e = angle[i] + direction[c] + k
                shift_frac[e] = frac[w]
                shift_rem[e] = rem[w]
                shift_node[e] = node[w]
                shift_sign[e] = sign[w]
                continue
            if what == EXCHANGES:
                if k == 1:
                    v = qubit[3 * i]
                    a, b, s, t = frac[v], rem[v], node[v], sign[v]
                    frac[v] = frac[w]
                    rem[v] = rem[w]
                    node[v] = node[w]
                    sign[v] = sign[w]
                    frac[w] = a
                    rem[w] = b
                    node[w] = s
                    sign[w] = t
                continue
            v = -1
            if what == EQUAL:
                if k == 1:
                    continue
                v = qubit[3 * i + 1]
                if frac[v] == frac[w] and rem[v] == rem[w] and node[v] == node[w]:
                    if node[v] < 0 or sign[v] == sign[w]:
                        continue
            elif frac[w] == 0 and rem[w] == 0 and node[w] < 0:
                continue
            emit_op[emits] = i if i < n else n
            emit_wire[emits] = w
            emit_frac[emits] = frac[w]
            emit_rem[emits] = rem[w]
            emit_node[emits] = node[w]
            emit_sign[emits] = sign[w]
            emits += 1
            frac[w] = 0
            rem[w] = 0.0
            node[w] = -1
            sign[w] = 1
            if v >= 0:
                emit_op[emits] = i
                emit_wire[emits] = w
                emit_frac[emits] = _wrapped(-frac[v])
                emit_rem[emits] = -rem[v]
                emit_node[emits] = node[v]
                emit_sign[emits] = -sign[v]
                emits += 1
                frac[w] = frac[v]
                rem[w] = rem[v]
                node[w] = node[v]
                sign[w] = sign[v]
    counts[0] = nodes
    return emits


def _effects_of(run: Run) -> NDArray[np.int64]:
    """Return the effect of each operation on operand k at 4 * i + k, its arity at 4 * i + 3."""
    out = _EFFECTS[run.code]
    axial = np.flatnonzero((run.code == G.RX) | (run.code == G.RY))
    entry = run.angle[axial]
    half = (run.form[entry] < 0) & (run.rem[entry] == 0) & (run.frac[entry] % _TWO_PI == PI)
    out[axial[half], 0] = FLIPS
    return out.ravel()


@dataclass(slots=True)
class _Symbols:
    """The symbols of the turns that wires carry.

    Attributes:
        forms: The circuit's forms.
        nodes: Of each node, parameter -> factor.
    """

    forms: Forms
    nodes: list[dict[int, float]]

    @staticmethod
    def of(
        forms: Forms, parent: NDArray[np.int64], sign: NDArray[np.int64], form: NDArray[np.int64]
    ) -> _Symbols:
        """Add up the nodes, each ``sign`` times its parent and a row of the forms."""
        nodes: list[dict[int, float]] = []
        for mother, factor, own in zip(parent.tolist(), sign.tolist(), form.tolist(), strict=True):
            row = {} if mother < 0 else {c: factor * v for c, v in nodes[mother].items()}
            _add(row, forms.row(own), 1)
            nodes.append(row)
        return _Symbols(forms, nodes)

    def row(self, *terms: tuple[int, int], form: int = -1) -> list[tuple[int, float]]:
        """Return ``row(form) + sum of sign * value(node)``, terms being (node, sign)."""
        row: dict[int, float] = {}
        if form >= 0:
            _add(row, self.forms.row(form), 1)
        for node, sign in terms:
            if node >= 0:
                _add(row, self.nodes[node].items(), sign)
        return [(column, value) for column, value in row.items() if value]


def _add(row: dict[int, float], terms: Iterable[tuple[int, float]], sign: int) -> None:
    for column, value in terms:
        row[column] = row.get(column, 0.0) + sign * value


@dataclass(frozen=True, slots=True)
class _Turns:
    """Turns where they are put down, or taken off angles: place, exact, float part, node, sign."""

    place: NDArray[np.int64]
    wire: NDArray[np.int64]
    frac: NDArray[np.int64]
    rem: NDArray[np.float64]
    node: NDArray[np.int64]
    sign: NDArray[np.int64]


def _carried(run: Run, num_qubits: int) -> tuple[_Turns, _Turns, tuple[NDArray[np.int64], ...]]:
    """Return (turns put down, turns by angle entry, parents, signs and rows of the nodes)."""
    n = len(run)
    frac, rem, form = turns_of(run)
    most = 2 * (int(np.count_nonzero(run.qubit >= 0)) + num_qubits) + len(run.extra) + 1
    symbols, entries = int((form >= 0).sum()) + 1, len(run.frac) + 1

    def ints(size: int, value: int = 0) -> NDArray[np.int64]:
        return np.full(size, value, dtype=np.int64)

    nodes = ints(symbols, -1), ints(symbols, 1), ints(symbols, -1)
    put = _Turns(ints(most), ints(most), ints(most), np.zeros(most), ints(most), ints(most))
    off = _Turns(
        np.arange(entries), ints(0), ints(entries), np.zeros(entries), ints(entries, -1),
        ints(entries, 1),
    )  # fmt: skip
    wires = num_qubits + 1
    counts = ints(1)
    size = call(
        _push,
        n,
        (n, num_qubits, run.code, run.qubit.ravel(), run.extra, run.angle, frac, rem, form,
         _effects_of(run), _DIRECTION),
        (ints(wires), np.zeros(wires), ints(wires, -1), ints(wires, 1), *nodes,
         put.place, put.wire, put.frac, put.rem, put.node, put.sign,
         off.frac, off.rem, off.node, off.sign, counts),
    )  # fmt: skip
    put = _Turns(*(getattr(put, f.name)[:size] for f in fields(put)))
    known = int(counts[0])
    return put, off, (nodes[0][:known], nodes[1][:known], nodes[2][:known])


def push_run(run: Run, forms: Forms, num_qubits: int) -> Leaf:
    """Move the turns about Z of one run; the same run comes back when nothing changes.

    Args:
        run: The run.
        forms: The circuit's forms.
        num_qubits: Wires of the circuit.
    """
    turning = is_turn(run)
    if not turning.any():
        return run, forms, Phase()
    put, off, nodes = _carried(run, num_qubits)
    symbols = _Symbols.of(forms, *nodes)

    shifted = np.flatnonzero((off.frac != 0) | (off.rem != 0) | (off.node >= 0))
    added = [
        symbols.row((int(off.node[e]), -int(off.sign[e])), form=int(run.form[e]))
        for e in shifted[off.node[shifted] >= 0].tolist()
    ]
    # Two entries with one place and wire are the two parts of one turn.
    second = np.zeros(len(put.place), dtype=bool)
    second[1:] = (put.place[1:] == put.place[:-1]) & (put.wire[1:] == put.wire[:-1])
    first = np.flatnonzero(~second)
    other = np.append(second[1:], False)[first]
    frac, rem = put.frac[first], put.rem[first]
    frac[other] = wrap(frac[other] + put.frac[first[other] + 1])
    rem[other] += put.rem[first[other] + 1]
    numbers = len(added)
    for k, two in zip(first.tolist(), other.tolist(), strict=True):
        terms = [(int(put.node[j]), int(put.sign[j])) for j in ((k, k + 1) if two else (k,))]
        added.append(symbols.row(*terms))
    new_forms, index = forms.append(added)

    form = run.form.copy()
    form[shifted[off.node[shifted] >= 0]] = index[:numbers]
    entries = len(run.frac)
    frac_off, rem_off = run.frac - off.frac[:entries], run.rem - off.rem[:entries]
    # Directions are the same whole turns further: both parts are brought near to 0.
    far = shifted[np.abs(rem_off[shifted]) > np.pi]
    rem_off[far] -= 2 * np.pi * np.rint(rem_off[far] / (2 * np.pi))
    whole = np.rint((frac_off[shifted] * (np.pi / PI) + rem_off[shifted]) / (2 * np.pi))
    frac_off[shifted] -= whole.astype(np.int64) * _TWO_PI
    turned = run.with_angles(frac_off, rem_off, form)
    rows = index[numbers:]
    # rz(2 pi) is a phase.
    idle = (rem == 0) & (rows < 0) & (frac % _TWO_PI == 0)
    phase = PI * int((idle & (frac % _FOUR_PI != 0)).sum())
    live = ~idle
    wires = put.wire[first][live].astype(np.int32)
    # What is put down last stands before the global phase that a run may end with.
    others = np.flatnonzero(run.code != G.GPHASE)
    place = np.minimum(put.place[first][live], int(others[-1]) + 1)
    part = gates_at("rz", place, -1, (wires,), (frac[live],), (rem[live],), (rows[live],))
    new = spliced(turned, ~turning, [part])
    if new.same_as(run, new_forms, forms):
        return run, forms, Phase()
    half = phase_of_turns(run, forms, turning)
    return new, new_forms, Phase(half.frac + phase, half.rem, half.row)


@dataclass(frozen=True)
class PushVirtualZ(CircuitPass):
    """``G Rz(a) = Rz(a') G'``: turns about Z move on to where a pulse cannot take them up.

    ``r(t, p) Rz(a) = Rz(a) r(t, p - a)``, likewise ``gpi``, ``gpi2`` and each operand of ``ms``;
    ``x Rz(a) = Rz(-a) x``, ``y`` and ``rx(pi)`` too; diagonal gates let a turn pass; ``iswap`` and
    ``swap`` hand it to the other qubit; ``xy`` and ``siswap`` let pass what both qubits have; a
    reset forgets it. Before any other gate, before a measurement and at the end of a run the turn
    is put down as one ``rz``. So on machines that shift the phase of their pulses no turn about Z
    is left but those before measurements, which ``drop-dead-gates`` takes, and those at the end of
    circuits that are not measured.

    Preconditions: none. Control flow, boxes and delays end a run.

    Preserves: the unitary exactly, global phase included; angles with parameters stay affine.

    Cost: linear; with symbols, each turn costs the parameters that its wire carries.

    Source: McKay, Wood, Sheldon, Chow, Gambetta 2017 (arXiv:1612.00858), virtual Z gates; IonQ's
    guide to its native gates.
    """

    name: ClassVar[str] = "push-virtual-z"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with its turns pushed; the same object when none moved."""
        qubits = circuit.num_qubits
        return rewrite_leaves(circuit, lambda run, forms: push_run(run, forms, qubits))
