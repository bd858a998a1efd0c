"""Where a run has rotations that Clifford gates and T do not make, and what stands in their place.

A chain is a stretch of one-qubit gates on one wire with known angles, from its first to its last
rotation by anything but a multiple of pi/4. It is the unit that accuracy is given to: an error on
its qubit is as bad at one place of a chain as at any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI, radians
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES, IS_UNITARY, NUM_ANGLES, G
from qcomp.ir.run import Run
from qcomp.passes.map.rules import Translation
from qcomp.passes.map.to_basis import expand
from qcomp.passes.reduce.leaves import Leaf, Phase
from qcomp.passes.synthesize.clifford_t.normal_form import (
    multiply,
    normal_form,
    phase_of,
    quaternion_of,
    rz_quaternion,
)
from qcomp.passes.synthesize.clifford_t.rotations import (
    FINEST,
    Point,
    pareto,
    rotation_front,
    rotation_word,
    unitary_front,
)

__all__ = ["BASIS", "Chain", "by_rows", "chains_of", "lowered", "rough", "write"]

BASIS = ("h", "x", "y", "z", "s", "sdg", "t", "tdg", "cx")
"""The gates that rotations are made of, and the one that joins qubits."""

_STEP = PI >> 2
_NAMED = {GATES[code].name: code for code in (G.H, G.X, G.Y, G.Z, G.S, G.SDG, G.T, G.TDG)}
_NAME_OF = {code: name for name, code in _NAMED.items()}
_POWERS = ((), ("t",), ("s",), ("s", "t"), ("z",), ("z", "t"), ("sdg",), ("tdg",))
"""k -> gates that make a turn about Z by k pi/4, up to phase."""


@dataclass(frozen=True)
class Chain:
    """A stretch of one-qubit gates with rotations to synthesise.

    Attributes:
        wire: The qubit.
        index: Its gates in the run, in order, the first and the last a rotation.
        names: Clifford and T gates by name; None where a rotation is to be synthesised.
        angles: (units of pi / 2**60, radians) of each such rotation, in order.
        quaternion: What they do together, up to phase.
        phase: That phase, units of pi / 2**60.
    """

    wire: int
    index: tuple[int, ...]
    names: tuple[tuple[str, ...] | None, ...]
    angles: tuple[tuple[int, float], ...]
    quaternion: tuple[float, float, float, float]
    phase: int

    @property
    def size(self) -> int:
        """The number of rotations."""
        return len(self.angles)

    @property
    def target(self) -> NDArray[np.float64]:
        """The unitary to come near to, float64[4]."""
        return np.array(self.quaternion)

    def joined(self, points: Sequence[Point]) -> Point:
        """Return the chain with each rotation written by itself."""
        if len(self.index) == 1:
            return points[0]
        gates: list[str] = []
        rest = iter(points)
        for names in self.names:
            gates += next(rest).word.gates if names is None else names
        return self.written(gates)

    def written(self, gates: Sequence[str]) -> Point:
        """Return the chain written with gates that somebody chose."""
        word = normal_form(gates)
        return Point(word.t_count, word.distance(self.target), word)

    def within(self, epsilon: float, direct_t: int) -> Point:
        """Return the cheapest way found to write the chain within epsilon.

        Each rotation by itself, all to one accuracy, or the whole chain at once where a search
        among unitaries with at most ``direct_t`` T gates finds one that takes fewer.
        """
        share = epsilon
        while True:
            chosen = [rotation_word(*angle, share) for angle in self.angles]
            point = self.joined(chosen)
            if point.error <= epsilon:
                break
            share = max(p.error for p in chosen) * (1 - 1e-9)
        if len(self.angles) > 1 and direct_t > 0:
            most = min(direct_t, point.t_count - 1)
            found = unitary_front(self.target, epsilon, epsilon, most)
            if found:
                return found[0]
        return point

    def front(self, coarsest: float, finest: float, direct_t: int) -> list[Point]:
        """Return the ways to write the chain, T rising, errors falling.

        Args:
            coarsest: Operator norm of the first.
            finest: Operator norm that the last one is within.
            direct_t: T gates up to which the whole chain is searched for at once.
        """
        share = len(self.angles)
        fronts = [rotation_front(*angle, coarsest / share, finest / share) for angle in self.angles]
        if len(self.index) == 1:
            return fronts[0]
        # All rotations within the same error, which falls from one way to the next.
        points: list[Point] = []
        epsilon = coarsest
        while True:
            chosen = [_first_within(front, epsilon) for front in fronts]
            points.append(self.joined(chosen))
            worst = max(point.error for point in chosen)
            if points[-1].error <= finest or worst > epsilon or worst <= FINEST:
                break
            epsilon = worst * (1 - 1e-9)
        if direct_t > 0:
            points += unitary_front(self.target, coarsest, finest, direct_t)
        return pareto(points)


def _first_within(front: Sequence[Point], epsilon: float) -> Point:
    return next((point for point in front if point.error <= epsilon), front[-1])


def rough(run: Run) -> NDArray[np.bool_]:
    """Which operations have only known angles, one of them no multiple of pi/4, bool[n]."""
    some = np.zeros(len(run), dtype=bool)
    free = np.zeros(len(run), dtype=bool)
    counts = NUM_ANGLES[run.code]
    for k in range(int(counts.max(initial=0))):
        has = np.flatnonzero(counts > k)
        at = run.angle[has] + k
        free[has] |= run.form[at] >= 0
        some[has] |= (run.rem[at] != 0) | (run.frac[at] % _STEP != 0)
    return some & ~free & IS_UNITARY[run.code] & (run.code != G.GPHASE)


def by_rows(run: Run) -> NDArray[np.bool_]:
    """Which operations are gates with a free parameter, which rows of data bring, bool[n]."""
    out = np.zeros(len(run), dtype=bool)
    counts = NUM_ANGLES[run.code]
    for k in range(int(counts.max(initial=0))):
        has = np.flatnonzero(counts > k)
        out[has] |= run.form[run.angle[has] + k] >= 0
    return out & IS_UNITARY[run.code] & (run.code != G.GPHASE)


def lowered(run: Run, forms: Forms) -> Leaf:
    """Write all other gates by such angles or parameters as ``rz``, Clifford gates and CX."""
    strange = (rough(run) | by_rows(run)) & (run.code != G.RZ)
    if not strange.any():
        return run, forms, Phase()
    return expand(run, forms, strange, Translation.into((*BASIS, "rz")))


def _plain_names(run: Run, i: int) -> tuple[str, ...] | None:
    """Return a one-qubit Clifford or T operation as gate names up to phase; None for others."""
    code = int(run.code[i])
    if code in _NAME_OF:
        return (_NAME_OF[code],)
    if code not in (G.RZ, G.P):
        return None
    entry = int(run.angle[i])
    if run.form[entry] >= 0 or run.rem[entry] != 0 or run.frac[entry] % _STEP:
        return None
    return _POWERS[int(run.frac[entry]) // _STEP % 8]


def _chain(run: Run, wire: int, index: tuple[int, ...], turning: NDArray[np.bool_]) -> Chain:
    """Read operations of one wire as a chain."""
    total = quaternion_of(())
    phase = 0
    names: list[tuple[str, ...] | None] = []
    angles: list[tuple[int, float]] = []
    for i in index:
        names.append(None if turning[i] else _plain_names(run, i))
        code = int(run.code[i])
        if code in _NAME_OF:
            total = multiply(quaternion_of((_NAME_OF[code],)), total)
            phase += phase_of(_NAME_OF[code]) * (PI >> 3)
            continue
        frac, rem = int(run.frac[run.angle[i]]), float(run.rem[run.angle[i]])
        total = multiply(rz_quaternion(radians(frac) + rem), total)
        if code == G.P:
            phase += frac // 2
        if turning[i]:
            angles.append((frac, rem))
    a, b, c, d = (float(x) for x in total / np.linalg.norm(total))
    return Chain(wire, index, tuple(names), tuple(angles), (a, b, c, d), phase)


def chains_of(run: Run) -> list[Chain]:
    """Return the chains of a lowered run, in the order of their first rotation."""
    turning = rough(run) & (run.code == G.RZ)
    if not turning.any():
        return []
    open_at: dict[int, list[int]] = {}
    done: list[Chain] = []

    def close(wire: int) -> None:
        index = open_at.pop(wire, [])
        while index and not turning[index[-1]]:
            index.pop()
        if index:
            done.append(_chain(run, wire, tuple(index), turning))

    for i in range(len(run)):
        wire = int(run.qubit[i, 0])
        if turning[i]:
            open_at.setdefault(wire, []).append(i)
            continue
        if not run.is_wide[i] and run.qubit[i, 1] < 0 and _plain_names(run, i) is not None:
            if wire in open_at:
                open_at[wire].append(i)
            continue
        operands = (wire,) if run.code[i] == G.MEASURE else run.operands(i)
        for operand in operands:
            close(operand)
    for wire in list(open_at):
        close(wire)
    return sorted(done, key=lambda chain: chain.index[0])


def write(run: Run, chains: Sequence[Chain], points: Sequence[Point]) -> tuple[Run, Phase]:
    """Put the gates that were chosen in the place of the chains' rotations.

    Returns:
        The run, and the exact phase that its gates have besides, which is to be taken out.
    """
    pieces: list[Run] = []
    place: list[int] = []
    gone = np.zeros(len(run), dtype=bool)
    frac = 0
    for chain, point in zip(chains, points, strict=True):
        gone[list(chain.index)] = True
        names = point.word.gates
        qubit = [(chain.wire, -1, -1)] * len(names)
        pieces.append(Run.of([_NAMED[name] for name in names], qubit))
        place += [chain.index[0]] * len(names)
        frac += point.word.phase(chain.target) * (PI >> 3) + chain.phase
    joined = Run.concat([run, *pieces])
    stay = np.flatnonzero(~gone)
    added = np.arange(len(run), len(joined))
    order = np.argsort(np.concatenate([stay, np.array(place, dtype=np.int64)]), kind="stable")
    return joined.select(np.concatenate([stay, added])[order]), Phase(frac % (2 * PI))
