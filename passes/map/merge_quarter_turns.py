"""merge-quarter-turns: two quarter turns with a symbol between them are one pulse by that angle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.map.splicing import gates_at, spliced
from qcomp.passes.reduce.leaves import Leaf, Phase, call, rewrite_leaves
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["MergeQuarterTurns"]

_ARITY = np.where(np.arange(len(NUM_QUBITS)) == G.MEASURE, 1, NUM_QUBITS).astype(np.int64)
_HALF = PI >> 1
OTHER, PULSE, DIRECTED, TURN = range(4)
"""What an operation is: anything else, ``sx``, ``r`` by a quarter, ``rz``."""


@kernel()
def _find(
    n: int,
    code: Any,
    qubit: Any,
    extra: Any,
    arity: Any,
    kind: Any,
    symbol: Any,
    last: Any,
    turn: Any,
    partner: Any,
    between: Any,
) -> int:
    """Find pairs of quarter turns about which a symbol says something.

    last: int[wires], the quarter turn that a wire ends with, -1 none. turn: int[wires], the ``rz``
    after it, -1 none. partner: int[n], of the first of a pair the second. between: int[n], the
    ``rz`` between them. Returns the number of pairs.
    """
    pairs = 0
    for i in range(n):
        what = kind[i]
        w = qubit[3 * i]
        if what == TURN:
            if last[w] >= 0 and turn[w] < 0 and kind[last[w]] == PULSE:
                turn[w] = i
            else:
                last[w] = -1
            continue
        if what == PULSE or what == DIRECTED:
            j = last[w]
            found = False
            if j >= 0 and kind[j] == what:
                if what == PULSE:
                    found = turn[w] >= 0 and symbol[turn[w]] == 1
                else:
                    found = symbol[j] == 1 or symbol[i] == 1
            if found:
                partner[j] = i
                between[j] = turn[w]
                pairs += 1
                last[w] = -1
            else:
                last[w] = i
                turn[w] = -1
            continue
        k = arity[code[i]]
        if k < 0:
            for j in range(w, w + qubit[3 * i + 1]):
                last[extra[j]] = -1
            continue
        for j in range(k):
            last[qubit[3 * i + j]] = -1
    return pairs


def _kinds(run: Run, into: str) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Return (what each operation is, whether its direction or turn has a symbol)."""
    n = len(run)
    kind, symbol = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int8)
    if into == "rx":
        kind[run.code == G.SX] = PULSE
        at = np.flatnonzero(run.code == G.RZ)
        kind[at], symbol[at] = TURN, run.form[run.angle[at]] >= 0
        return kind, symbol
    at = np.flatnonzero(run.code == G.R)
    entry = run.angle[at]
    quarter = (run.frac[entry] == _HALF) & (run.rem[entry] == 0) & (run.form[entry] < 0)
    kind[at[quarter]], symbol[at] = DIRECTED, run.form[entry + 1] >= 0
    return kind, symbol


def merge_run(run: Run, forms: Forms, num_qubits: int, into: str) -> Leaf:
    """Merge the quarter turns of one run; the same run comes back when there are none.

    Args:
        run: The run.
        forms: The circuit's forms.
        num_qubits: Wires of the circuit.
        into: ``r`` or ``rx``.
    """
    n = len(run)
    kind, symbol = _kinds(run, into)
    if not symbol.any():
        return run, forms, Phase()
    partner, between = (np.full(n, -1, dtype=np.int64) for _ in range(2))
    wires = [np.full(num_qubits + 1, -1, dtype=np.int64) for _ in range(2)]
    inputs = n, run.code, run.qubit.ravel(), run.extra, _ARITY, kind, symbol
    if not call(_find, n, inputs, (*wires, partner, between)):
        return run, forms, Phase()
    first = np.flatnonzero(partner >= 0)
    second = partner[first]
    keep = np.ones(n, dtype=bool)
    keep[first] = keep[second] = False
    wire = run.qubit[first, 0]
    k = len(first)
    if into == "rx":
        middle = between[first]
        keep[middle] = False
        entry = run.angle[middle]
        rz = gates_at("rz", first, 0, (wire,), (-_HALF,))
        angle = (run.frac[entry] + PI,), (run.rem[entry],), (run.form[entry],)
        pulse = gates_at("rx", middle, 0, (wire,), *angle)
        after = gates_at("rz", second, 0, (wire,), (PI + _HALF,))
        return spliced(run, keep, [rz, pulse, after]), forms, Phase(k * (PI + _HALF))
    a, b = run.angle[first] + 1, run.angle[second] + 1
    frac, rem = run.frac[a] - run.frac[b], run.rem[a] - run.rem[b]
    # The difference of the directions, and its opposite.
    form = np.concatenate([run.form[a], run.form[b], run.form[a], run.form[b]])
    scale = np.repeat([1.0, -1.0, -1.0, 1.0], k)
    group = np.concatenate([np.tile(np.arange(k), 2), k + np.tile(np.arange(k), 2)])
    forms, rows = forms.combine(form, scale, group, 2 * k)
    pulse = gates_at(
        "r", first, 0, (wire,), (frac + PI, run.frac[a] + _HALF), (rem, run.rem[a]),
        (rows[:k], run.form[a]),
    )  # fmt: skip
    after = gates_at("rz", second, 0, (wire,), (PI - frac,), (-rem,), (rows[k:],))
    return spliced(run, keep, [pulse, after]), forms, Phase(k * PI)


@dataclass(frozen=True)
class MergeQuarterTurns(CircuitPass):
    """``r(pi/2, q) r(pi/2, p) = -rz(pi - p + q) r(pi + p - q, p + pi/2)``, p first.

    Likewise ``sx rz(t) sx ~ rz(3 pi/2) rx(t + pi) rz(-pi/2)``. A rotation by an angle with
    parameters reaches a machine as two quarter turns; where it has pulses of any angle, one does,
    and the angle stays affine. Pairs of numbers are for fuse-one-qubit.

    Options: ``into``: ``r`` or ``rx``, the pulse.

    Preconditions: none; nothing may stand between the pulses but one ``rz`` between ``sx``. Best
    after push-virtual-z where the pulse is ``r``.

    Preserves: the unitary exactly, global phase included.

    Cost: linear.

    Source: Euler angles; McKay, Wood, Sheldon, Chow, Gambetta 2017 (arXiv:1612.00858), equation 9.
    """

    name: ClassVar[str] = "merge-quarter-turns"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    into: Literal["r", "rx"] = "r"

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with fewer pulses; the same object when there are no such pairs."""
        qubits = circuit.num_qubits
        return rewrite_leaves(circuit, lambda run, forms: merge_run(run, forms, qubits, self.into))
