"""collect-rzz: a turn about Z between two equal CX gates is one interaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import AXIS, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.map.splicing import gates_at, spliced
from qcomp.passes.map.turns import is_turn, phase_of_turns, turns_of
from qcomp.passes.reduce.leaves import Leaf, Phase, call, rewrite_leaves
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["CollectRzz"]

_AXES = AXIS.astype(np.int64)
_AXES[G.MEASURE, 0] = 3
_AXES = _AXES.ravel()
_ARITY = np.where(np.arange(len(NUM_QUBITS)) == G.MEASURE, 1, NUM_QUBITS).astype(np.int64)
_CX, _WIDE, _Z = G.CX, -1, 3
_ROUNDS = 64
"""Rounds at most; each takes CX gates away."""


@kernel()
def _pairs(
    n: int,
    code: Any,
    qubit: Any,
    extra: Any,
    turn: Any,
    axes: Any,
    arity: Any,
    opened: Any,
    turns: Any,
    broken: Any,
    partner: Any,
) -> int:
    """Find pairs of equal CX gates with nothing but turns about Z between them on the target.

    opened: int[wires], the CX gate whose target the wire was, if only turns came since, -1 none.
    turns: int[wires], how many. broken: int[wires], the last operation that is not diagonal on the
    wire. partner: int[n], of the first CX gate of a pair the second. Returns the number of pairs.
    """
    pairs = 0
    for i in range(n):
        c = code[i]
        k = arity[c]
        if turn[i] == 1:
            w = qubit[3 * i]
            if opened[w] >= 0:
                turns[w] += 1
            continue
        if k == _WIDE:
            first = qubit[3 * i]
            for j in range(first, first + qubit[3 * i + 1]):
                opened[extra[j]] = -1
                broken[extra[j]] = i
            continue
        if c == _CX:
            a = qubit[3 * i]
            b = qubit[3 * i + 1]
            j = opened[b]
            if j >= 0 and turns[b] > 0 and qubit[3 * j] == a and broken[a] < j:
                partner[j] = i
                pairs += 1
                # The interaction is diagonal on both wires: nothing is open there any more.
                opened[a] = -1
                opened[b] = -1
                continue
            opened[a] = -1
            opened[b] = i
            turns[b] = 0
            broken[b] = i
            continue
        for j in range(k):
            w = qubit[3 * i + j]
            opened[w] = -1
            if axes[3 * c + j] != _Z:
                broken[w] = i
    return pairs


@kernel()
def _within(n: int, code: Any, qubit: Any, turn: Any, partner: Any, inside: Any, other: Any) -> int:
    """Say which turns stand between the CX gates of a pair: ``other`` is the control there.

    inside: int[wires], 1 + the control of the pair that is open on the target.
    """
    count = 0
    for i in range(n):
        if turn[i] == 1:
            w = qubit[3 * i]
            if inside[w] > 0:
                other[i] = inside[w] - 1
                count += 1
        elif code[i] == _CX:
            b = qubit[3 * i + 1]
            inside[b] = 1 + qubit[3 * i] if partner[i] >= 0 else 0
    return count


def collect_run(run: Run, forms: Forms, num_qubits: int, symbols: bool = True) -> Leaf:
    """Write the interactions of one run; the same run comes back when it has none.

    Args:
        run: The run.
        forms: The circuit's forms.
        num_qubits: Wires of the circuit.
        symbols: Whether turns by angles with parameters are taken.
    """
    n = len(run)
    frac, rem, form = turns_of(run)
    turning = is_turn(run) & (symbols | (form < 0))
    if np.count_nonzero(run.code == G.CX) < 2 or not turning.any():
        return run, forms, Phase()
    turn = turning.astype(np.int8)
    wires = num_qubits + 1
    partner = np.full(n, -1, dtype=np.int64)
    table = run.code, run.qubit.ravel()
    minus, zero = np.full(wires, -1, dtype=np.int64), np.zeros(wires, dtype=np.int64)
    pairs = call(
        _pairs,
        n,
        (n, *table, run.extra, turn, _AXES, _ARITY),
        (minus.copy(), zero.copy(), minus.copy(), partner),
    )
    if not pairs:
        return run, forms, Phase()
    other = np.full(n, -1, dtype=np.int64)
    call(_within, n, (n, *table, turn, partner), (zero.copy(), other))
    keep = np.ones(n, dtype=bool)
    opening = np.flatnonzero(partner >= 0)
    keep[opening] = keep[partner[opening]] = False
    inside = np.flatnonzero(other >= 0)
    keep[inside] = False
    operands = other[inside].astype(np.int32), run.qubit[inside, 0]
    rows = form[inside].astype(np.int32)
    part = gates_at("rzz", inside, 0, operands, (frac[inside],), (rem[inside],), (rows,))
    return spliced(run, keep, [part]), forms, phase_of_turns(run, forms, ~keep)


@dataclass(frozen=True)
class CollectRzz(CircuitPass):
    """``CX(a, b) Rz_b(t) CX(a, b) = Rzz_ab(t)``.

    Between the two gates the target has nothing but turns about Z, the control nothing that is not
    diagonal there. For machines that have the interaction at any angle, or write it with fewer
    gates than two CX; angles with parameters, which no block on two qubits takes in, are kept.

    Options: ``symbols``, whether angles with parameters are taken; not where the machine's gate has
    limits that such an angle may leave.

    Preconditions: none; best after reductions over ``cx``.

    Preserves: the unitary exactly, global phase included.

    Cost: linear for each round; rounds go on while gates go.

    Source: the definition of ``rzz`` in OpenQASM's libraries (arXiv:2104.14722).
    """

    name: ClassVar[str] = "collect-rzz"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    symbols: bool = True

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with its interactions; the same object when it has none."""
        qubits = circuit.num_qubits
        for _ in range(_ROUNDS):
            before = circuit
            circuit = rewrite_leaves(
                circuit, lambda run, forms: collect_run(run, forms, qubits, self.symbols)
            )
            if circuit is before:
                break
        return circuit
