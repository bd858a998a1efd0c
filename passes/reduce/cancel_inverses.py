"""cancel-inverses: gates that meet their inverse through what they commute with vanish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import AXIS, GATES, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.reduce.families import CONTROLLED, FAMILY, MODE, SYMMETRY, VOCABULARY
from qcomp.passes.reduce.leaves import Leaf, call, rewrite_leaves
from qcomp.passes.reduce.sums import Groups, summands, write_groups
from qcomp.passes.reduce.symbols import PRIME, fingerprints
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["CancelInverses", "cancel_run"]

_TWO_PI = 1 << 61
_FOUR_PI = 1 << 62
_PAIRS = 64
_SLOTS = 1 << 12
_BARRIER, _MCX, _MEASURE = G.BARRIER, G.MCX, G.MEASURE


def _kinds() -> NDArray[np.int64]:
    """How gates meet, by code: their family; from 64 on, pairs of whole gates; -1 not at all."""
    kind = FAMILY.copy()
    for code in (G.U, G.R, G.CU):
        kind[code] = _PAIRS + code
    return kind


def _axes() -> NDArray[np.int64]:
    """Axis of each gate on operand k at 3 * code + k; a measurement is diagonal."""
    axes = AXIS.astype(np.int64)
    axes[G.MEASURE, 0] = 3
    return axes.ravel()


def _inverse_angles() -> NDArray[np.int64]:
    """For each code and angle i of the inverse: source + 1, negative where the sign is -1."""
    table = np.zeros((len(GATES), 4), dtype=np.int64)
    for row in GATES:
        for i, (source, sign) in enumerate(row.inverse_angles):
            table[row.code, i] = sign * (source + 1)
    return table


_KIND = _kinds()
_SINGLE = np.where(NUM_QUBITS == 1, _KIND, -1)
_INVERSE_ANGLES = _inverse_angles().ravel()
_PERIOD_MASK = np.where(MODE == CONTROLLED, _FOUR_PI - 1, _TWO_PI - 1)
_AXIS = _axes()


def _opposite(
    frac: Any, rem: Any, symbol: Any, table: Any, row: int, first: int, second: int
) -> Any:
    """Whether the angles from entry ``second`` on are those of the inverse of entries ``first``."""
    for i in range(4):
        source = table[4 * row + i]
        if source == 0:
            break
        if source > 0:
            j = first + source - 1
            if frac[second + i] != frac[j] or rem[second + i] != rem[j]:
                return False
            if symbol[second + i] != symbol[j]:
                return False
        else:
            j = first - source - 1
            if (frac[second + i] + frac[j]) & (_FOUR_PI - 1) != 0 or rem[second + i] != -rem[j]:
                return False
            if (symbol[second + i] + symbol[j]) % PRIME != 0:
                return False
    return True


@kernel(calls=(_opposite,))
def _sweep(
    n: int,
    code: Any,
    qubit: Any,
    key_qubit: Any,
    extra: Any,
    angle: Any,
    angle_frac: Any,
    angle_rem: Any,
    angle_symbol: Any,
    frac: Any,
    rem: Any,
    kind: Any,
    axis: Any,
    period: Any,
    words: Any,
    inverse_angles: Any,
    top: Any,
    table: Any,
    latest: Any,
    older: Any,
    segment: Any,
    segment_axis: Any,
    segment_live: Any,
    segment_below: Any,
    dead: Any,
    group: Any,
    sign: Any,
    leader: Any,
    size: Any,
    sum_frac: Any,
    sum_rem: Any,
    sum_symbol: Any,
    sum_words: Any,
) -> int:
    """Group the gates of a run that meet and add up, pairs that vanish among them.

    A wire is a stack of segments, each of gates that act along one axis there and so commute on
    this wire; a gate with no axis is a segment of its own. Two gates meet when they lie in the
    same, last segment of every wire they act on. A gate that vanished leaves its segments; an
    empty segment uncovers the one below.

    top: int[wires], last segment, -1 none. segment: int[3 n + extra], that of each operand.
    segment_axis, segment_live, segment_below: int[3 n + extra]. table: int[2^k], for each kind of
    gate on each operands, hashed, an operation of that kind there; latest: int[2^k], the last
    group of it that is still there; older: int[groups], the one before. A group under the latest
    can meet nothing until that one is gone. dead: int8[n], gates of pairs that vanished. The rest
    is Groups; a pair of whole gates has size 0 there. Returns the number of groups, -1 where the
    table is too small.
    """
    mask = len(table) - 1
    segments = 0
    count = 0
    claimed = 0
    for i in range(n):
        c = code[i]
        what = kind[c]
        wide = False
        first = 3 * i
        arity = 0
        if c == _BARRIER or c == _MCX:
            wide = True
            first = qubit[3 * i]
            arity = qubit[3 * i + 1]
        elif c == _MEASURE:
            arity = 1
        else:
            while arity < 3 and qubit[3 * i + arity] >= 0:
                arity += 1
        shift = 3 * n if wide else 0
        if arity == 0:
            continue
        symbol = 0
        if angle[i] >= 0 and what < _PAIRS:
            symbol = angle_symbol[angle[i]]
        if 0 <= what < _PAIRS and rem[i] == 0 and symbol == 0 and frac[i] & period[what] == 0:
            group[i] = count
            leader[count] = i
            size[count] = 1
            sum_frac[count] = frac[i]
            count += 1
            continue
        found = -1
        gone = False
        slot = 0
        if what >= 0:
            h = what
            for k in range(arity):
                w = extra[first + k] if wide else key_qubit[first + k]
                h = (h * 40503 + w * 30011 + (h >> 17)) & 1099511627775
            slot = (h ^ (h >> 20)) & mask
            while table[slot] >= 0:
                j = table[slot]
                same = kind[code[j]] == what
                other = 3 * j
                if wide and same:
                    other = qubit[3 * j]
                    same = qubit[3 * j + 1] == arity
                if same:
                    for k in range(arity):
                        w = extra[first + k] if wide else key_qubit[first + k]
                        v = extra[other + k] if wide else key_qubit[other + k]
                        if v != w:
                            same = False
                            break
                if same:
                    break
                slot = (slot + 1) & mask
            if table[slot] < 0:
                claimed += 1
                if 2 * claimed > mask:
                    return -1
                table[slot] = i
                latest[slot] = -1
            found = latest[slot]
            if found >= 0:
                j = leader[found]
                other = qubit[3 * j] if wide else 3 * j
                for k in range(arity):
                    w = extra[first + k] if wide else key_qubit[first + k]
                    if segment[shift + other + k] != top[w]:
                        found = -1
                        break
            if found >= 0 and what >= _PAIRS:
                j = leader[found]
                if _opposite(
                    angle_frac, angle_rem, angle_symbol, inverse_angles, c, angle[j], angle[i]
                ):
                    dead[i] = 1
                    dead[j] = 1
                    gone = True
                else:
                    found = -1
            elif found >= 0:
                g = found
                group[i] = g
                size[g] += 1
                sum_words[g] |= words[c]
                total = sum_frac[g] + frac[i] + _TWO_PI
                sum_frac[g] = (total & (_FOUR_PI - 1)) - _TWO_PI
                sum_rem[g] += rem[i]
                total = sum_symbol[g] + symbol
                if total >= PRIME:
                    total -= PRIME
                sum_symbol[g] = total
                if sum_rem[g] == 0 and total == 0 and sum_frac[g] & period[what] == 0:
                    gone = True
            if found >= 0:
                if gone:
                    latest[slot] = older[found]
                    j = leader[found]
                    other = qubit[3 * j] if wide else 3 * j
                    for k in range(arity):
                        w = extra[other + k] if wide else key_qubit[other + k]
                        s = top[w]
                        segment_live[s] -= 1
                        while s >= 0 and segment_live[s] == 0:
                            s = segment_below[s]
                        top[w] = s
                continue
        for k in range(arity):
            w = extra[first + k] if wide else key_qubit[first + k]
            a = 0
            if not wide:
                a = axis[3 * c + k]
            elif c == _MCX:
                a = 1 if k == arity - 1 else 3
            s = top[w]
            if a == 0 or s < 0 or segment_axis[s] != a:
                segment_below[segments] = s
                segment_axis[segments] = a
                s = segments
                top[w] = s
                segments += 1
            segment_live[s] += 1
            segment[shift + first + k] = s
        if what >= 0:
            g = count
            count += 1
            leader[g] = i
            if what < _PAIRS:
                group[i] = g
                size[g] = 1
                sum_frac[g] = frac[i]
                sum_rem[g] = rem[i]
                sum_symbol[g] = symbol
                sum_words[g] = words[c]
            older[g] = latest[slot]
            latest[slot] = g
    return count


def cancel_run(
    run: Run, forms: Forms, num_qubits: int, rng: np.random.Generator, single: bool = False
) -> Leaf:
    """Cancel and add up the gates of one run; the same run comes back when none met.

    Args:
        run: The run.
        forms: The circuit's forms.
        num_qubits: Wires of the circuit.
        rng: Draws weights to tell symbolic sums from zero; the result does not depend on them.
        single: Let only one-qubit gates meet.
    """
    kind = _SINGLE if single else _KIND
    n = len(run)
    room = int(np.count_nonzero(kind[run.code] >= 0))
    add = summands(run)
    inputs = (
        n,
        run.code,
        run.qubit.ravel(),
        _ordered(run).ravel(),
        run.extra,
        run.angle,
        run.frac,
        run.rem,
        fingerprints(forms, run.form, rng),
        add.frac,
        add.rem,
        kind,
        _AXIS,
        _PERIOD_MASK,
        VOCABULARY,
        _INVERSE_ANGLES,
    )
    places = 3 * n + len(run.extra)
    # Different operands are few beside the gates: a small table stays in the processor's cache.
    slots, most = _SLOTS, 1 << int(2 * room + 1).bit_length()
    while True:
        slots = min(slots, most)
        groups = Groups.blank(n, room)
        dead = np.zeros(n, dtype=np.int8)
        count = call(
            _sweep,
            n,
            inputs,
            (
                np.full(num_qubits, -1, dtype=np.int32),
                np.full(slots, -1, dtype=np.int32),
                np.empty(slots, dtype=np.int32),
                np.empty(room, dtype=np.int32),
                np.empty(places, dtype=np.int32),
                np.empty(places, dtype=np.int8),
                np.zeros(places, dtype=np.int32),
                np.empty(places, dtype=np.int32),
                dead,
                *groups.arrays(),
            ),
        )
        if count >= 0:
            return write_groups(run, forms, add, groups, count, dead.astype(bool))
        slots *= 16


def _ordered(run: Run) -> NDArray[np.int32]:
    """Return the operands with those that may trade places in ascending order."""
    symmetry = SYMMETRY[run.code]
    qubit = run.qubit.copy()
    for which, columns in ((1, (0, 1)), (2, (1, 2)), (3, (0, 1, 2))):
        rows = symmetry == which
        if rows.any():
            qubit[np.ix_(rows, columns)] = np.sort(qubit[np.ix_(rows, columns)], axis=1)
    return qubit


@dataclass(frozen=True)
class CancelInverses(CircuitPass):
    """Cancel inverse gates, and add up rotations, through whatever they commute with.

    ``G ... G^-1 = ...`` and ``R(a) ... R(b) = R(a + b) ...`` where ... commutes with G and R.

    What a gate commutes with is told by the gate table, operand by operand: ``cx`` moves along Z
    on its control and along X on its target, so it meets its twin through diagonal gates on the
    control, through other targets, and through gates that share either axis. Named gates are
    powers of their rotation (``sx sx = x``, ``cs cs = cz``, ``h h = 1``); ``u``, ``r`` and ``cu``
    meet their inverse.

    Preconditions: none. A measurement is diagonal on its wire; reset and barrier let nothing pass;
    each run of a circuit with control flow stands alone.

    Preserves: the unitary exactly, global phase included; symbolic angles cancel and add like
    numbers.

    Cost: one sweep, linear, one hash lookup a gate. Whatever a cancellation uncovers is met in the
    same sweep, as a stack.

    Source: the commutation rules of Nam, Ross, Su, Childs, Maslov 2017 (arXiv:1710.07345), section
    4.3, and Iten et al. 2019 (arXiv:1909.05270), told by axes instead of templates.
    """

    name: ClassVar[str] = "cancel-inverses"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with inverse pairs gone; the same object when there were none."""
        rng = context.rng(self.name)
        return rewrite_leaves(
            circuit, lambda run, forms: cancel_run(run, forms, circuit.num_qubits, rng)
        )
