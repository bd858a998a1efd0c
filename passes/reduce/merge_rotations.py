"""merge-rotations: rotations about the same parity of wires become one."""

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
from qcomp.passes.reduce.families import VOCABULARY
from qcomp.passes.reduce.leaves import Leaf, Phase, call, rewrite_leaves
from qcomp.passes.reduce.sums import Groups, summands, write_groups
from qcomp.passes.reduce.symbols import PRIME, fingerprints
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["MergeRotations"]

_GENERIC, _FLIP, _CX, _SWAP, _DCX, _BARRIER, _MCX, _RESET, _NONE = range(9)
_ROTATE, _ZZ, _PHASE, _CRZ, _CCZ = range(9, 14)


def _roles() -> NDArray[np.int64]:
    """What each gate does to the labels, by code."""
    role = np.full(len(GATES), _GENERIC, dtype=np.int64)
    for code, what in (
        ((G.X, G.Y), _FLIP),
        ((G.CX, G.CY), _CX),
        ((G.SWAP, G.ISWAP), _SWAP),
        ((G.DCX,), _DCX),
        ((G.ID, G.Z, G.S, G.SDG, G.T, G.TDG, G.P, G.RZ), _ROTATE),
        ((G.RZZ,), _ZZ),
        ((G.CZ, G.CS, G.CSDG, G.CP), _PHASE),
        ((G.CRZ,), _CRZ),
        ((G.CCZ,), _CCZ),
        ((G.MCX,), _MCX),
        ((G.BARRIER,), _BARRIER),
        ((G.RESET,), _RESET),
        ((G.GPHASE, G.MEASURE), _NONE),
    ):
        role[list(code)] = what
    return role


_ROLE = _roles()
_KEEPS = (AXIS == 3).astype(np.int64).ravel()
_GROUPED = np.isin(_ROLE, [_ROTATE, _ZZ, _PHASE, _CRZ, _CCZ])
_FRESH = np.where(_ROLE == _GENERIC, np.maximum(NUM_QUBITS, 0), 0).astype(np.int64)
_SALTS = 8
_FLIPPED = 1 << 62
_PLAIN = _FLIPPED - 1
_HALF = (1 << 31) - 1
_TWO_PI = 1 << 61
_FOUR_PI = 1 << 62


@kernel()
def _scan(
    n: int,
    code: Any,
    qubit: Any,
    extra: Any,
    frac: Any,
    rem: Any,
    symbol: Any,
    role: Any,
    keeps: Any,
    words: Any,
    fresh_low: Any,
    fresh_high: Any,
    low: Any,
    high: Any,
    table: Any,
    key_low: Any,
    key_high: Any,
    group: Any,
    sign: Any,
    leader: Any,
    size: Any,
    sum_frac: Any,
    sum_rem: Any,
    sum_symbol: Any,
    sum_words: Any,
) -> int:
    """Group the diagonal gates of a run by the hash of what they are a function of.

    low, high: int64[wires], the label of each wire, 62 random bits each; bit 62 of ``low`` is the
    complement. table: int64[2^k], groups by hashed key, -1 empty. The first salts of ``fresh`` tell
    the kinds of groups apart.
    """
    mask = len(table) - 1
    drawn = _SALTS
    count = 0
    for i in range(n):
        c = code[i]
        what = role[c]
        a = qubit[3 * i]
        b = qubit[3 * i + 1]
        if what == _NONE:
            continue
        if what == _GENERIC:
            for k in range(3):
                w = qubit[3 * i + k]
                if w >= 0 and keeps[3 * c + k] == 0:
                    low[w] = fresh_low[drawn]
                    high[w] = fresh_high[drawn]
                    drawn += 1
            continue
        if what == _FLIP:
            low[a] ^= _FLIPPED
            continue
        if what == _CX:
            low[b] ^= low[a]
            high[b] ^= high[a]
            continue
        if what == _SWAP:
            x = low[a]
            low[a] = low[b]
            low[b] = x
            x = high[a]
            high[a] = high[b]
            high[b] = x
            continue
        if what == _DCX:
            low[b] ^= low[a]
            high[b] ^= high[a]
            low[a] ^= low[b]
            high[a] ^= high[b]
            continue
        if what == _BARRIER or what == _MCX:
            for k in range(a if what == _BARRIER else a + b - 1, a + b):
                w = extra[k]
                low[w] = fresh_low[drawn]
                high[w] = fresh_high[drawn]
                drawn += 1
            continue
        if what == _RESET:
            low[a] = 0
            high[a] = 0
            continue
        # A key of 124 bits and a sign: the parity itself, or a product of parities mixed by
        # products of halves, which no linear relation between labels survives.
        s = 1
        if what == _ROTATE:
            x = low[a] & _PLAIN
            y = high[a]
            if low[a] & _FLIPPED:
                s = -1
        elif what == _ZZ:
            x = (low[a] ^ low[b]) & _PLAIN
            y = high[a] ^ high[b]
            if (low[a] ^ low[b]) & _FLIPPED:
                s = -1
        else:
            x = fresh_low[what - _PHASE]
            y = fresh_high[what - _PHASE]
            for k in range(3):
                w = qubit[3 * i + k]
                if w >= 0:
                    p = low[w] & _PLAIN
                    q = high[w]
                    if what == _CRZ and k == 1:
                        if low[w] & _FLIPPED:
                            s = -1
                        p ^= fresh_low[4]
                        q ^= fresh_high[4]
                    elif low[w] & _FLIPPED:
                        p ^= fresh_low[5]
                        q ^= fresh_high[5]
                    x ^= (p & _HALF) * (q & _HALF)
                    y ^= ((p >> 31) & _HALF) * ((q >> 31) & _HALF)
        slot = (x ^ (y >> 20)) & mask
        g = table[slot]
        while g >= 0 and (key_low[g] != x or key_high[g] != y):
            slot = (slot + 1) & mask
            g = table[slot]
        if g < 0:
            g = count
            count += 1
            table[slot] = g
            key_low[g] = x
            key_high[g] = y
            leader[g] = i
        elif what == _ROTATE and role[code[leader[g]]] == _ZZ:
            leader[g] = i
        group[i] = g
        sign[i] = s
        size[g] += 1
        sum_words[g] |= words[c]
        total = sum_frac[g] + s * frac[i] + _TWO_PI
        sum_frac[g] = (total & (_FOUR_PI - 1)) - _TWO_PI
        sum_rem[g] += s * rem[i]
        if symbol[i] != 0:
            total = sum_symbol[g] + s * symbol[i]
            if total < 0:
                total += PRIME
            elif total >= PRIME:
                total -= PRIME
            sum_symbol[g] = total
    return count


def merge_run(run: Run, forms: Forms, num_qubits: int, rng: np.random.Generator) -> Leaf:
    """Merge the rotations of one run; the same run comes back when there is nothing to merge.

    Args:
        run: The run.
        forms: The circuit's forms.
        num_qubits: Wires of the circuit.
        rng: Draws the labels; the result does not depend on them.
    """
    room = int(np.count_nonzero(_GROUPED[run.code]))
    if not room:
        return run, forms, Phase()
    add = summands(run)
    groups = Groups.blank(len(run), room)
    draws = _SALTS + int(_FRESH[run.code].sum()) + len(run.extra)
    labels = rng.integers(0, 1 << 62, size=(2, num_qubits + draws), dtype=np.int64)
    count = call(
        _scan,
        len(run),
        (
            len(run),
            run.code,
            run.qubit.ravel(),
            run.extra,
            add.frac,
            add.rem,
            fingerprints(forms, add.form, rng),
            _ROLE,
            _KEEPS,
            VOCABULARY,
            labels[0, num_qubits:],
            labels[1, num_qubits:],
        ),
        (
            labels[0, :num_qubits],
            labels[1, :num_qubits],
            np.full(1 << int(2 * room).bit_length(), -1, dtype=np.int32),
            np.zeros(room, dtype=np.int64),
            np.zeros(room, dtype=np.int64),
            *groups.arrays(),
        ),
    )
    return write_groups(run, forms, add, groups, count)


@dataclass(frozen=True)
class MergeRotations(CircuitPass):
    """Merge rotations about the same parity of wires, wherever they stand.

    ``rz(a) on parity f, ..., rz(b) on parity f = rz(a + b) on parity f``, and -b on 1 + f.

    Every wire carries a random 124-bit label. ``cx`` adds the control's label to the target's,
    ``x`` complements, ``swap`` swaps, a gate that is not diagonal on a wire draws a fresh label
    there; two diagonal gates on equal labels are functions of the same parity and meet at the
    first of them. ``rzz`` is a rotation about the sum of two labels; ``cz``, ``cs``, ``cp``,
    ``crz`` and ``ccz`` meet when all their wires carry the same labels. Equal labels of different
    parities have one chance in 2^124 a pair.

    Preconditions: none. A measurement is diagonal on its wire and lets rotations pass; ``reset``
    leaves the constant 0, about which rotations are phases; a barrier draws fresh labels; each run
    of a circuit with control flow stands alone.

    Preserves: the unitary exactly, global phase included. Exact parts add in integers, float parts
    in float64, symbolic parts as rows: ``forms' = S forms``. Fractions of pi keep their names (t,
    s, z) where named gates took part; a sum of 3/4 or 5/4 pi is one ``rz``.

    Cost: linear, one hash lookup a rotation.

    Source: phase folding after Amy, Maslov, Mosca 2013 (arXiv:1303.2042), section 4, and Nam, Ross,
    Su, Childs, Maslov 2017 (arXiv:1710.07345), section 4.4.
    """

    name: ClassVar[str] = "merge-rotations"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with rotations merged; the same object when none were."""
        rng = context.rng(self.name)
        return rewrite_leaves(
            circuit, lambda run, forms: merge_run(run, forms, circuit.num_qubits, rng)
        )
