"""merge-pauli-rotations: rotations about the same Pauli become one, across Hadamards too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qcomp.ir.angle import PI
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.reduce.families import VOCABULARY
from qcomp.passes.reduce.leaves import Leaf, Phase, call, rewrite_leaves
from qcomp.passes.reduce.pauli_carry import (
    ARITY,
    AXES,
    AXIAL,
    FREE,
    GONE,
    NONE,
    ROLE,
    TABLE,
    TURN,
    WIDE,
    carry,
    link_wires,
    pop,
    push,
)
from qcomp.passes.reduce.pauli_tables import PRODUCT, clifford_tables
from qcomp.passes.reduce.sums import Groups, summands, write_groups
from qcomp.passes.reduce.symbols import PRIME, fingerprints
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["MergePauliRotations"]

_BARRIER, _MCX, _H, _CX = G.BARRIER, G.MCX, G.H, G.CX
_TWO_PI = 1 << 61
_FOUR_PI = 1 << 62
_QUARTER = 59
_NEVER, _UNKNOWN = -2, -1


@kernel(calls=(push, pop, carry))
def _scan(
    n: int,
    visits: int,
    code: Any,
    qubit: Any,
    extra: Any,
    link: Any,
    frac: Any,
    rem: Any,
    symbol: Any,
    role: Any,
    arity: Any,
    axis: Any,
    forward: Any,
    back: Any,
    product: Any,
    words: Any,
    fresh: Any,
    turn: Any,
    label: Any,
    table: Any,
    key: Any,
    older: Any,
    blocker: Any,
    pauli: Any,
    marked: Any,
    touched: Any,
    heap: Any,
    visited: Any,
    group: Any,
    sign: Any,
    leader: Any,
    size: Any,
    sum_frac: Any,
    sum_rem: Any,
    sum_symbol: Any,
    sum_words: Any,
) -> int:
    """Group the rotations of a run that are about the same Pauli and meet.

    label: int64[2 wires], random labels of ``C^-1 X_q C`` at 2 q and of ``C^-1 Z_q C`` at 2 q + 1,
    C the Cliffords so far; products of Paulis are sums of labels. turn: int8[n], what each
    rotation is now: quarter turns, or FREE. table: int32[2^k], the latest open group of each
    Pauli, hashed, -1 empty, -2 - g for the slot of group g where none is open; older: int32[g],
    the one before. blocker: int32[g], the operation that the latest check met. The rest is Groups.
    """
    mask = len(table) - 1
    drawn = 0
    count = 0
    for i in range(n):
        c = code[i]
        what = role[c]
        if what == NONE:
            continue
        if what == TABLE:
            a = 2 * qubit[3 * i]
            if c == _H:
                x = label[a]
                label[a] = label[a + 1]
                label[a + 1] = x
            elif c == _CX:
                b = 2 * qubit[3 * i + 1]
                label[a] ^= label[b]
                label[b + 1] ^= label[a + 1]
            else:
                b = 2 * qubit[3 * i + 1] if arity[c] == 2 else a
                x0 = label[a]
                z0 = label[a + 1]
                x1 = label[b]
                z1 = label[b + 1]
                for m in range(2 * arity[c]):
                    bits = back[4 * c + m]
                    x = 0
                    if bits & 1:
                        x ^= x0
                    if bits & 2:
                        x ^= z0
                    if bits & 4:
                        x ^= x1
                    if bits & 8:
                        x ^= z1
                    if m < 2:
                        label[a + m] = x
                    else:
                        label[b + m - 2] = x
            continue
        if what == AXIAL or what == WIDE:
            first = 3 * i
            past = first + arity[c]
            if what == WIDE:
                first = qubit[3 * i]
                past = first + qubit[3 * i + 1]
            for k in range(first, past):
                if what == AXIAL:
                    a = 2 * qubit[k]
                    p = axis[3 * c + k - first]
                else:
                    a = 2 * extra[k]
                    p = 0
                    if c == _MCX:
                        p = 1 if k == past - 1 else 2
                if p == 3:
                    # Only the product of both labels, that of Y, is kept.
                    label[a] ^= fresh[drawn]
                    label[a + 1] ^= fresh[drawn]
                    drawn += 1
                if p != 1 and p != 3:
                    label[a] = fresh[drawn]
                    drawn += 1
                if p != 2 and p != 3:
                    label[a + 1] = fresh[drawn]
                    drawn += 1
            continue
        t = turn[i]
        if t == GONE:
            group[i] = count
            leader[count] = i
            size[count] = 1
            sum_frac[count] = frac[i]
            count += 1
            continue
        x = 0
        for k in range(arity[c]):
            a = 2 * qubit[3 * i + k]
            p = axis[3 * c + k]
            if p & 1:
                x ^= label[a]
            if p & 2:
                x ^= label[a + 1]
        if t == FREE:
            slot = (x ^ (x >> 23)) & mask
            g = table[slot]
            while g != -1 and key[g if g >= 0 else -2 - g] != x:
                slot = (slot + 1) & mask
                g = table[slot]
            s = 0
            if g >= 0:
                b = blocker[g]
                if b >= 0 and role[code[b]] == TURN and turn[b] != FREE:
                    b = _UNKNOWN
                if b == _UNKNOWN:
                    left = visits * n - visited[0]
                    s = carry(
                        leader[g],
                        i,
                        left if left > visits else visits,
                        n,
                        code,
                        qubit,
                        extra,
                        link,
                        role,
                        arity,
                        axis,
                        forward,
                        product,
                        turn,
                        pauli,
                        marked,
                        touched,
                        heap,
                        visited,
                    )
                    if s == 0:
                        blocker[g] = _NEVER
                    elif s >= 2:
                        blocker[g] = s - 2
                        s = 0
            if s == 0:
                older[count] = g
                g = count
                count += 1
                table[slot] = g
                key[g] = x
                blocker[g] = _UNKNOWN
                group[i] = g
                sign[i] = 1
                leader[g] = i
                size[g] = 1
                sum_frac[g] = frac[i]
                sum_rem[g] = rem[i]
                sum_symbol[g] = symbol[i]
                sum_words[g] = words[c]
                continue
            j = leader[g]
            s *= sign[j]
            group[i] = g
            sign[i] = s
            size[g] += 1
            sum_words[g] |= words[c]
            total = sum_frac[g] + s * frac[i] + _TWO_PI
            total = (total & (_FOUR_PI - 1)) - _TWO_PI
            sum_frac[g] = total
            sum_rem[g] += s * rem[i]
            if symbol[i] != 0:
                y = sum_symbol[g] + s * symbol[i]
                if y < 0:
                    y += PRIME
                elif y >= PRIME:
                    y -= PRIME
                sum_symbol[g] = y
            stays = i
            if arity[code[j]] < arity[c]:
                stays = j
                turn[i] = GONE
            else:
                leader[g] = i
                turn[j] = GONE
            t = FREE
            if sum_rem[g] == 0 and sum_symbol[g] == 0 and total & ((1 << _QUARTER) - 1) == 0:
                t = (sign[stays] * (total >> _QUARTER)) & 3
                # Closed: a Clifford meets nothing, and what it covered is open again.
                table[slot] = older[g] if older[g] != -1 else -2 - g
            turn[stays] = t
        if t == 1 or t == 3:
            for k in range(arity[c]):
                a = 2 * qubit[3 * i + k]
                p = axis[3 * c + k]
                if p & 2:
                    label[a] ^= x
                if p & 1:
                    label[a + 1] ^= x
    return count


def merge_run(
    run: Run, forms: Forms, num_qubits: int, visits: int, rng: np.random.Generator
) -> Leaf:
    """Merge the Pauli rotations of one run; the same run comes back when none meet.

    Args:
        run: The run.
        forms: The circuit's forms.
        num_qubits: Wires of the circuit.
        visits: Most operations visited, per operation of the run.
        rng: Draws the labels; the result does not depend on them.
    """
    n = len(run)
    turns = ROLE[run.code] == TURN
    add = summands(run)
    clifford = (add.rem == 0) & (add.form < 0) & (add.frac % (PI >> 1) == 0)
    turn = np.where(clifford, (add.frac >> _QUARTER) & 3, FREE).astype(np.int8)
    room = int(np.count_nonzero(turns & ((turn == FREE) | (turn == GONE))))
    if not room:
        return run, forms, Phase()
    places = 3 * n + len(run.extra)
    link = np.full(places, n, dtype=np.int32)
    shape = (n, run.code, run.qubit.ravel(), run.extra)
    call(link_wires, n, (*shape, ARITY, ROLE), (np.full(num_qubits, n, dtype=np.int32), link))
    fresh = int(ARITY[run.code[ROLE[run.code] == AXIAL]].sum()) + len(run.extra)
    labels = rng.integers(0, 1 << 62, size=2 * (num_qubits + fresh), dtype=np.int64)
    forward, back = clifford_tables()
    groups = Groups.blank(n, room)
    count = call(
        _scan,
        n,
        (
            n,
            visits,
            *shape[1:],
            link,
            add.frac,
            add.rem,
            fingerprints(forms, add.form, rng),
            ROLE,
            ARITY,
            AXES,
            forward,
            back,
            PRODUCT,
            VOCABULARY,
            labels[2 * num_qubits :],
        ),
        (
            turn,
            labels[: 2 * num_qubits],
            np.full(1 << int(2 * room).bit_length(), -1, dtype=np.int32),
            np.zeros(room, dtype=np.int64),
            np.zeros(room, dtype=np.int32),
            np.zeros(room, dtype=np.int32),
            np.zeros(num_qubits, dtype=np.int8),
            np.zeros(num_qubits, dtype=np.int8),
            np.zeros(num_qubits, dtype=np.int32),
            np.zeros(num_qubits + 3, dtype=np.int32),
            np.zeros(1, dtype=np.int64),
            *groups.arrays(),
        ),
    )
    return write_groups(run, forms, add, groups, count)


@dataclass(frozen=True)
class MergePauliRotations(CircuitPass):
    """``exp(-i a/2 P) W exp(-i b/2 Q) = W exp(-i (a + b)/2 Q)`` where ``W P W^-1 = Q``; -a for -Q.

    With all Cliffords moved to one end a circuit is a sequence of Pauli rotations; two about one
    Pauli meet when every rotation between them commutes with it. The sequence is never written
    down. Every wire carries a random label for each of its two Pauli generators seen from the
    start; equal labels name a candidate, and its Pauli is then carried forward gate by gate, on the
    wires where it is not the identity, until it arrives, or stops at a rotation that it does not
    commute with. So labels only save work: a merge is checked exactly, its sign found on the way.
    A sum that is a multiple of pi/2 is a Clifford from then on and turns what follows.

    Other gates stay where they are; the sum stands in the place of the later rotation, or of the
    one on fewer wires where they differ.

    Preconditions: none. A Pauli passes gates that are neither Clifford nor a rotation where it acts
    along their axis on each operand, and measurements likewise; ``reset`` and barriers let nothing
    pass; each run of a circuit with control flow stands alone.

    Preserves: the unitary exactly, global phase included, symbols like numbers.

    Cost: linear for the labels, one lookup a rotation, and for each candidate the operations on the
    wires of its Pauli between the two; all of them together at most ``visits`` times the size of
    the run, so that a deep circuit stays linear (``merge-rotations`` first leaves little to visit).
    A candidate known to be blocked is not tried again while the blocking rotation stands.

    Source: Vandaele, Perdrix, Vuillot 2024 (arXiv:2407.07846), algorithms BBMerge and FastTMerge;
    Zhang, Chen 2019 (arXiv:1903.12456), section 3.

    Attributes:
        visits: Most operations visited, per operation of the run, in all checks together; where
            they are used up, most in each check.
    """

    name: ClassVar[str] = "merge-pauli-rotations"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    visits: int = 100

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with rotations merged; the same object when none were."""
        rng = context.rng(self.name)
        return rewrite_leaves(
            circuit, lambda run, forms: merge_run(run, forms, circuit.num_qubits, self.visits, rng)
        )
