"""absorb-swaps: swaps become a renaming of the wires after them, noted in the circuit's layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import NUM_QUBITS, G
from qcomp.ir.layout import Layout
from qcomp.ir.run import Run
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["AbsorbSwaps"]


def _triples(run: Run, num_qubits: int) -> dict[int, int]:
    """Return the swaps written as three ``cx``: last one -> first one, nothing between them."""
    last: list[list[int]] = [[] for _ in range(num_qubits)]
    found: dict[int, int] = {}
    for i, c in enumerate(run.code.tolist()):
        wires = run.operands(i)
        for w in wires:
            last[w].append(i)
        if c != G.CX:
            continue
        a, b = wires
        if last[a][-3:] != last[b][-3:] or len(last[a]) < 3:
            continue
        first, middle, _ = last[a][-3:]
        if run.code[first] != G.CX or run.code[middle] != G.CX:
            continue
        if run.operands(first) == wires and run.operands(middle) == (b, a):
            found[i] = first
            # A cx belongs to one swap at most.
            last[a].clear()
            last[b].clear()
    return found


def _absorbed(run: Run, num_qubits: int) -> tuple[Run, NDArray[np.int32]]:
    """Return the run without swaps, and where each wire ends."""
    at = np.arange(num_qubits, dtype=np.int32)
    triples = _triples(run, num_qubits)
    swaps = sorted({*np.flatnonzero(run.code == G.SWAP).tolist(), *triples})
    gone = np.zeros(len(run), dtype=bool)
    gone[swaps] = True
    for end, first in triples.items():
        a, b = run.operands(end)
        for i in range(first, end):
            if NUM_QUBITS[run.code[i]] == 2 and set(run.operands(i)) == {a, b}:
                gone[i] = True
    bits = np.arange(int(run.qubit[run.code == G.MEASURE, 1].max(initial=-1)) + 1, dtype=np.int32)
    parts, begin = [], 0
    for end in [*swaps, len(run)]:
        index = np.arange(begin, end)
        parts.append(run.select(index[~gone[begin:end]]).relabel(at, bits))
        if end < len(run):
            a, b = run.operands(end)
            at[[a, b]] = at[[b, a]]
        begin = end + 1
    return Run.concat(parts), at


@dataclass(frozen=True)
class AbsorbSwaps(CircuitPass):
    """Take swaps out: ``C swap(a, b) = (C with a and b renamed) P``, P noted as where qubits end.

    ``swap`` and three ``cx`` that make one, with nothing between them, go; what comes after acts on
    the wires where the qubits are by then, measurements too, so bits are not renamed. The
    permutation of what is left at the end stands in ``Circuit.layout``.

    Preconditions: whoever reads the qubits at the end goes by the layout, as qcomp's checks, runs
    and observables do. Circuits with control flow, and those that were mapped to a machine (whose
    swaps are there for its couplings), are left alone.

    Preserves: the unitary up to the permutation in the layout, exactly.

    Cost: linear in the operations, and a copy of them.

    Source: elision of final permutations, as in Qiskit's ElidePermutations.
    """

    name: ClassVar[str] = "absorb-swaps"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit without swaps; the same object when it has none."""
        if circuit.layout is not None or not circuit.is_straight_line:
            return circuit
        run = circuit.run
        new, at = _absorbed(run, circuit.num_qubits)
        if len(new) == len(run):
            return circuit
        result = circuit.copy(body=(new,))
        n = circuit.num_qubits
        result.layout = Layout(tuple(range(n)), tuple(at.tolist()), n)
        return result
