"""Circuits of CX, phases and Hadamards as sums over paths, and the Hadamards as gadgets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from qcomp.passes.synthesize.t_count.parities import Polynomial, bits
from qcomp.passes.synthesize.t_count.pauli_sequence import Gate, Phase, Step

__all__ = ["Correction", "PathSum", "corrections", "linear_network", "read_paths"]


@dataclass
class PathSum:
    """``|x> -> sum over a of exp(i pi/4 f(x, a)) (-1)^(sum L_k a_k) |output(x, a)>``.

    Attributes:
        weight: f, the weight of each parity of the variables modulo 8, in the order met.
        output: The parity on each wire at the end.
        before: L_k, the parity on the wire of Hadamard k before it; a_k is variable ``wires + k``.
    """

    weight: Counter[int] = field(default_factory=Counter)
    output: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)

    def t_count(self) -> int:
        """Return the number of parities with odd weight."""
        return sum(w % 2 for w in self.weight.values())


def read_paths(steps: Iterable[Step], wires: int) -> PathSum:
    """Read h, s, sdg, z, cz and cx gates and phases; Hadamards become variables."""
    paths = PathSum()
    value = [1 << q for q in range(wires)]
    turn = {"s": 2, "sdg": 6, "z": 4}
    for step in steps:
        if isinstance(step, Phase):
            parity = 0
            for q in bits(step.parity):
                parity ^= value[q]
            paths.weight[parity] += step.weight
            continue
        name, a, b = step
        if name == "cx":
            value[b] ^= value[a]
        elif name == "h":
            paths.before.append(value[a])
            value[a] = 1 << (wires + len(paths.before) - 1)
        else:
            paths.weight[value[a]] += turn[name]
    paths.output = value
    return paths


def linear_network(rows: Sequence[int]) -> list[Gate]:
    """Return the CX gates that take ``|x>`` to ``|rows . x>``; the rows are independent."""
    rows = list(rows)
    gates: list[Gate] = []

    def add(source: int, target: int) -> None:
        rows[target] ^= rows[source]
        gates.append(("cx", source, target))

    for q in range(len(rows)):
        if not rows[q] >> q & 1:
            add(next(r for r in range(q + 1, len(rows)) if rows[r] >> q & 1), q)
        for r in range(len(rows)):
            if r != q and rows[r] >> q & 1:
                add(q, r)
    # The gates take the rows to the identity, so backwards they take the identity to the rows.
    return gates[::-1]


@dataclass(frozen=True)
class Correction:
    """What follows where the measurement of a gadget gave 1.

    Attributes:
        gates: s, sdg, z, cz and x gates on the wires that are left.
    """

    gates: tuple[Gate, ...]


def corrections(paths: PathSum) -> list[Correction]:
    """Return what each gadget needs, in order, once the wires hold outputs and the L_k.

    A measurement of L_k along X with outcome 1 leaves ``(-1)^L_k``, as if a_k had been a_k + 1 in
    its own factor only. So a_k is shifted everywhere else: on the wires that hold it by X, in the
    phases by ``f(a_k + 1) - f(a_k)``, which has degree two. All of it was written after Hadamard k,
    on values that the wires that are left still hold.
    """
    wires = len(paths.output)
    held = [*paths.output, *paths.before]
    # Row v of the inverse: which wires add up to variable v.
    variable = [0] * len(held)
    rows = list(held)
    sums = [1 << w for w in range(len(held))]
    for v in range(len(held)):
        pivot = next(r for r in range(v, len(held)) if rows[r] >> v & 1)
        rows[v], rows[pivot] = rows[pivot], rows[v]
        sums[v], sums[pivot] = sums[pivot], sums[v]
        for r in range(len(held)):
            if r != v and rows[r] >> v & 1:
                rows[r] ^= rows[v]
                sums[r] ^= sums[v]
    variable = sums
    result = []
    for k in range(len(paths.before)):
        bit = 1 << (wires + k)
        change = Polynomial()
        for parity, weight in paths.weight.items():
            if parity & bit and weight % 8:
                change.add(_on_wires(parity, variable), -2 * weight)
        for j in range(k + 1, len(paths.before)):
            if paths.before[j] & bit:
                change.add(variable[wires + j], 4)
        turns, pairs = change.clifford()
        gates: list[Gate] = [(("s", "z", "sdg")[t - 1], w, -1) for w, t in turns]
        gates += [("cz", a, b) for a, b in pairs]
        gates += [("x", w, -1) for w, parity in enumerate(held) if parity & bit]
        result.append(Correction(tuple(gates)))
    return result


def _on_wires(parity: int, variable: Sequence[int]) -> int:
    wires = 0
    for v in bits(parity):
        wires ^= variable[v]
    return wires
