"""resynthesize-cliffords: regions of Clifford gates written with fewer two-qubit gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.reduce.leaves import Leaf, Phase, call, rewrite_leaves
from qcomp.passes.reduce.pauli_carry import ARITY, ROLE, WIDE
from qcomp.passes.synthesize.clifford_words import CLIFFORD, NEITHER, Reading, read
from qcomp.passes.synthesize.cliffords import rewrite, to_run
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["ResynthesizeCliffords"]

_ROUNDS = 8


@kernel()
def _regions(
    n: int,
    code: Any,
    qubit: Any,
    extra: Any,
    role: Any,
    way: Any,
    arity: Any,
    height: Any,
    region: Any,
    parent: Any,
    level: Any,
) -> int:
    """Part a run into levels, Cliffords on even ones, and the Cliffords of a level into regions.

    Operations of one level may stand before all of the next. height: int[wires], zeros; region:
    int[wires], the region of each wire's level, -1 none; parent: int[n], of each region, which is
    named by its first operation; level: int[n].
    """
    for i in range(n):
        parent[i] = i
        if role[i] == NEITHER:
            continue
        c = code[i]
        wide = way[c] == WIDE
        first = qubit[3 * i] if wide else 3 * i
        past = first + (qubit[3 * i + 1] if wide else arity[c])
        top = 0
        for k in range(first, past):
            w = extra[k] if wide else qubit[k]
            if height[w] > top:
                top = height[w]
        clifford = role[i] == CLIFFORD
        if (top % 2 == 0) != clifford:
            top += 1
        level[i] = top
        for k in range(first, past):
            w = extra[k] if wide else qubit[k]
            if height[w] < top:
                height[w] = top
                region[w] = -1
            if not clifford:
                continue
            r = region[w]
            if r >= 0:
                while parent[r] != r:
                    parent[r] = parent[parent[r]]
                    r = parent[r]
                s = i
                while parent[s] != s:
                    s = parent[s]
                # The first operation of a region names it.
                if r < s:
                    parent[s] = r
                else:
                    parent[r] = s
            region[w] = i
    return n


def _parted(run: Run, reading: Reading, num_qubits: int) -> tuple[NDArray[np.int64], ...]:
    """Return (level, region) of each operation, int64[n]; region -1 for what is no Clifford."""
    n = len(run)
    level, parent = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    call(
        _regions,
        n,
        (n, run.code, run.qubit.ravel(), run.extra, reading.role, ROLE, ARITY),
        (
            np.zeros(num_qubits, dtype=np.int64),
            np.full(num_qubits, -1, dtype=np.int64),
            parent,
            level,
        ),
    )
    # A parent comes before its children: halving the way to the root ends after log(n) steps.
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            break
        parent = above
    return level, np.where(reading.role == CLIFFORD, parent, -1)


def resynthesize_run(run: Run, forms: Forms, num_qubits: int, work: int, slack: int) -> Leaf:
    """Rewrite the Clifford regions of one run; the same run where none gets cheaper.

    Args:
        run: The run.
        forms: The circuit's forms.
        num_qubits: Wires of the circuit.
        work: Most cubed wires of a region for each of its two-qubit gates.
        slack: Gates more that a region may take for each CX gate fewer.
    """
    reading = read(run)
    if int(reading.cost[reading.role == CLIFFORD].sum()) < 2:
        return run, forms, Phase()
    level, region = _parted(run, reading, num_qubits)
    inside = np.flatnonzero(region >= 0)
    inside = inside[np.argsort(region[inside], kind="stable")]
    starts = np.flatnonzero(np.diff(region[inside], prepend=-2))
    cost = np.add.reduceat(reading.cost[inside], starts)
    size = np.diff(np.append(starts, len(inside)))
    wire, wires, used = _local(run, inside, np.repeat(np.arange(len(starts)), size))
    chosen = (cost >= 2) & (wires**3 <= work * cost)
    if not chosen.any():
        return run, forms, Phase()
    mask = np.repeat(chosen, size)
    index, cost, size = inside[mask], cost[chosen], size[chosen]
    stream, length, turn = reading.stream(run, index, wire[mask])
    ends = np.cumsum(size)
    first = np.append(0, np.cumsum(length)[ends - 1])
    new = rewrite(stream, first, wires[chosen], cost, size, slack)
    if not new.changed.any():
        return run, forms, Phase()
    eighths = int(new.turns[new.changed].sum())
    eighths += int(turn[np.repeat(new.changed, size)].sum())
    gone = np.zeros(len(run), dtype=bool)
    gone[index[np.repeat(new.changed, size)]] = True

    offset = np.append(0, np.cumsum(wires))[:-1][chosen]
    owner = np.repeat(np.arange(len(size)), np.diff(new.rows))
    rows = new.stream.copy()
    for column in (1, 2):
        rows[:, column] += np.where(rows[:, column] >= 0, offset[owner], 0).astype(np.int32)
    joined = Run.concat([run, to_run(rows, used)])
    stay = np.flatnonzero(~gone)
    source = np.concatenate([stay, np.arange(len(run), len(joined))])
    leader = np.where(region >= 0, region, np.arange(len(run)))
    place = np.concatenate([leader[stay], leader[index[ends - size][owner]]])
    order = np.lexsort((np.arange(len(place)), place, level[place]))
    return joined.select(source[order]), forms, Phase(eighths % 8 * (PI >> 2))


def _local(
    run: Run, index: NDArray[np.int64], group: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Count the wires of each group of operations from 0.

    Returns:
        (operands int32[k, 2] in their group, -1 for none; wires of each group; the wires of the
        run that they stand for, group after group).
    """
    qubit = run.qubit[index, :2].astype(np.int64)
    has = qubit >= 0
    stride = int(qubit.max(initial=0)) + 1
    key = np.repeat(group[:, None], 2, axis=1) * stride + qubit
    known, place = np.unique(key[has], return_inverse=True)
    wires = np.bincount(known // stride, minlength=int(group[-1]) + 1)
    begin = np.cumsum(wires) - wires
    local = np.full((len(index), 2), -1, dtype=np.int32)
    local[has] = place - np.repeat(begin[group][:, None], 2, axis=1)[has]
    return local, wires, (known % stride).astype(np.int32)


@dataclass(frozen=True)
class ResynthesizeCliffords(CircuitPass):
    """``C = exp(i pi k / 4) g_m ... g_1``: a region of Clifford gates from its tableau anew.

    A region is connected and lies between other gates: operations are put in levels, by turns
    Clifford and not, each as early as its wires allow, and the Cliffords of a level fall apart into
    regions. Rotations by exact multiples of pi/2 count as Cliffords. From the tableau of a region,
    wires are freed one after the other, always the one that takes the fewest CX gates; the inverse
    is tried too. A region is rewritten only where it takes fewer CX gates (a ``swap`` counts as
    three), or as many and fewer gates, and no more gates than ``slack`` allows; the new gates are
    ``h``, ``s``, ``sdg``, ``x``, ``z`` and ``cx``.

    The phase is found by letting the old gates and the inverse of the new ones act on |0...0>, as a
    stabilizer state with its phase.

    Preconditions: none. Measurements, resets and barriers part regions; each run of a circuit with
    control flow stands alone.

    Preserves: the unitary exactly, global phase included.

    Cost: for each region of w wires w^3 and for each gate w bits; regions with more than ``work``
    times their two-qubit gates in w^3 stay as they are.

    Source: Bravyi, Shaydulin, Hu, Maslov 2021 (arXiv:2105.02291), section 3 and its table of
    CX costs, where a wire without the pair is not swapped in but takes it over; phase after Bravyi,
    Browne, Calpin, Campbell, Gosset, Howard 2019 (arXiv:1808.00128), section 4.1.

    Attributes:
        work: Most cubed wires of a region, per two-qubit gate in it.
        slack: Gates more that a region may take for each CX gate fewer.
    """

    name: ClassVar[str] = "resynthesize-cliffords"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    work: int = 2000
    slack: int = 0

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with cheaper Clifford regions; the same object when none were."""
        qubits = circuit.num_qubits
        for _ in range(_ROUNDS):
            result = rewrite_leaves(
                circuit,
                lambda run, forms: resynthesize_run(run, forms, qubits, self.work, self.slack),
            )
            if result is circuit:
                break
            circuit = result
        return circuit
