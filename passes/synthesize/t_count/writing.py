"""Segments of Clifford gates and T gates written anew with fewer T, with and without gadgets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qcomp.ir.gates import BY_NAME
from qcomp.ir.run import Run
from qcomp.passes.synthesize.t_count.parities import bits, clifford_difference
from qcomp.passes.synthesize.t_count.path_sum import (
    Correction,
    PathSum,
    corrections,
    linear_network,
    read_paths,
)
from qcomp.passes.synthesize.t_count.pauli_sequence import (
    Gate,
    Phase,
    Step,
    diagonalise,
    inverse,
    pull_back,
)

__all__ = ["Reducer", "Rewritten", "gates_to_run", "rewrite"]

Reducer = Callable[[Sequence[int], int], list[int]]
"""Takes distinct parities of weight 1 and the number of variables; gives fewer."""

_WORDS: tuple[tuple[str, ...], ...] = (
    (),
    ("t",),
    ("s",),
    ("z", "tdg"),
    ("z",),
    ("z", "t"),
    ("sdg",),
    ("tdg",),
)
"""Gates for each multiple of pi/4."""


@dataclass(frozen=True)
class Rewritten:
    """A segment with fewer T gates.

    Attributes:
        gates: Its gates, up to the first measurement where there are gadgets.
        gadgets: What follows each measurement; ancilla k is wire ``wires + k``.
        last: Gates after the gadgets.
        eighths: Phase of all in units of pi/4.
        t_before: T gates of the segment.
        t_after: T gates now.
    """

    gates: list[Gate]
    gadgets: list[Correction]
    last: list[Gate]
    eighths: int
    t_before: int
    t_after: int


def gates_to_run(gates: Sequence[Gate], wires: Sequence[int]) -> Run:
    """Return gates as a run.

    Args:
        gates: The gates.
        wires: The circuit's wire for each of theirs.
    """
    code = [BY_NAME[name].code for name, _, _ in gates]
    rows = [(wires[a], wires[b] if b >= 0 else -1, -1) for _, a, b in gates]
    return Run.of(code, rows)


def _diagonal(weight: Mapping[int, int], pairs: Sequence[tuple[int, int]]) -> list[Gate]:
    """Return gates for phases on parities of wires, and CZ gates."""
    gates: list[Gate] = []
    for parity, w in weight.items():
        if w % 8 == 0 or parity == 0:
            continue
        *others, target = bits(parity)
        ladder: list[Gate] = [("cx", q, target) for q in others]
        gates += ladder
        gates += [(name, target, -1) for name in _WORDS[w % 8]]
        gates += ladder[::-1]
    return gates + [("cz", a, b) for a, b in pairs]


def _reduced(paths: PathSum, variables: int, reduce: Reducer) -> tuple[list[Gate], int]:
    """Return the gates of ``f`` and of the signs ``L_k a_k`` with fewer T, and how many T."""
    wanted = Counter(paths.weight)
    wires = len(paths.output)
    for k, parity in enumerate(paths.before):
        # 4 L a = 2 L + 2 a - 2 (L + a mod 2)
        new = 1 << (wires + k)
        wanted[parity] += 2
        wanted[new] += 2
        wanted[parity ^ new] -= 2
    wanted.pop(0, None)
    odd = [parity for parity, w in wanted.items() if w % 2]
    fewer = reduce(odd, variables)
    if len(fewer) >= len(odd) and not paths.before:
        return _diagonal(wanted, ()), len(odd)
    turns, pairs = clifford_difference(wanted, fewer)
    weight = Counter({1 << a: 2 * t for a, t in turns})
    weight.update(fewer)
    return _diagonal(weight, pairs), len(fewer)


def rewrite(steps: Sequence[Step], wires: int, reduce: Reducer, gadgets: bool) -> Rewritten | None:
    """Write a segment with fewer T gates; None where there are not fewer.

    Args:
        steps: Gates h, x, z, s, sdg, cz, cx and phases of odd weight.
        wires: Wires of the segment.
        reduce: Lowers the number of columns of a parity table.
        gadgets: Whether Hadamards may become ancillas and measurements.
    """
    frame, weights, clifford = pull_back(steps, wires)
    first, written, eighths = diagonalise(frame, weights)
    turned = [*first, *(step for step in written if not isinstance(step, Phase))]
    last = [*inverse(turned), *clifford]
    plain, count = _by_regions(written, wires, reduce)
    best = Rewritten([*first, *plain], [], last, eighths, len(weights), count)
    if gadgets:
        paths = read_paths(written, wires)
        extra = len(paths.before)
        phases, fewer = _reduced(paths, wires + extra, reduce)
        if fewer < count:
            begin: list[Gate] = [("h", wires + k, -1) for k in range(extra)]
            network = linear_network([*paths.output, *paths.before])
            gates = [*first, *begin, *phases, *network]
            best = Rewritten(gates, corrections(paths), last, eighths, len(weights), fewer)
    return best if best.t_after < best.t_before else None


def _by_regions(steps: Sequence[Step], wires: int, reduce: Reducer) -> tuple[list[Gate], int]:
    """Write the steps between each two Hadamards anew; their T gates are counted."""
    gates: list[Gate] = []
    count = 0
    region: list[Step] = []
    for step in [*steps, None]:
        hadamard = not isinstance(step, Phase) and step is not None and step[0] == "h"
        if step is not None and not hadamard:
            region.append(step)
            continue
        paths = read_paths(region, wires)
        phases, fewer = _reduced(paths, wires, reduce)
        gates += phases + linear_network(paths.output)
        count += fewer
        region = []
        if step is not None and not isinstance(step, Phase):
            gates.append(step)
    return gates, count
