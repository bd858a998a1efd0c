"""Equality by windows of Pauli rotations: what two normal forms do not share, compared by itself.

Two circuits are ``C_A R_A`` and ``C_B R_B``: Pauli rotations, then a Clifford
(:mod:`~qcomp.equivalence.pauli_form`). They are the same if and only if ``R_A = E R_B`` with
``E = C_A^-1 C_B``, which is written as quarter turns about Paulis. Then, front and back,

* a rotation that can come first on both sides goes from both;
* two products of rotations that can come first, of Paulis out of one small group, go from both
  where they are the same matrix: a window;

until the Paulis left over generate a group that is small enough for a matrix of its own. A group of
s pairs that anticommute and z Paulis that commute with all is 2^z blocks of 2^s x 2^s entries,
however many qubits it touches: Euler angles, Cartan decompositions and Toffoli gates that were
written in another way are windows of one to four pairs.

Every step says of the rest that it is the same on both sides if and only if it was before, so the
last matrix decides, yes or no. Works for any number of qubits and without simulating any.

Written apart from the passes.

Sources: Litinski 2019 (arXiv:1808.02892), section 1; symplectic transvections: Koenig, Smolin 2014
(arXiv:1406.2170), section 2; the group's algebra: Gottesman 1997 (arXiv:quant-ph/9705052),
section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import pi

import numpy as np
from numpy.typing import NDArray

from qcomp.equivalence.pauli_form import Local, PauliForm, commutes, pauli_form, times, turned
from qcomp.equivalence.pauli_groups import Group, Turn
from qcomp.ir.circuit import Circuit

__all__ = ["Distance", "distance_by_pauli_windows"]

ROTATIONS = 8_000
"""Rotations of either circuit up to which windows are tried."""

QUARTERS = 96
"""Quarter turns up to which the Cliffords may differ."""

ENTRIES = 1 << 21
"""Entries of the largest matrix of what is left over."""

WORK = 1 << 30
"""Entries times rotations that one matrix may take."""

WINDOW = (4, 4)
"""Pairs that anticommute, and Paulis that commute with all, of a window that goes early."""

LEFT = 512
"""Rotations left over up to which windows look, on either side."""

WAYS = 3
"""Rotations in the way of a window, on either side, of which one becomes part of it."""

TRIES = 2_000
"""Windows that are looked at before it is given up."""

_NONE = 1e-13
"""Radians up to which an angle is none, its size counted as error."""

_SAME = 1e-11
"""Distance up to which the two sides of a window are the same, counted as error."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two circuits are apart.

    Attributes:
        most: Bound of ``min_phase ||A - phase B||`` in operator norm, but for rounding.
        least: What it is at least, but for what was counted as error.
    """

    most: float
    least: float


def distance_by_pauli_windows(a: Circuit, b: Circuit) -> Distance | None:
    """Return how far two circuits are apart, None where windows do not come to an end.

    Args:
        a: Straight-line and unitary, without parameters.
        b: The same, over the same qubits.
    """
    forms = pauli_form(a), pauli_form(b)
    if forms[0] is None or forms[1] is None:
        return None
    first, second = (_turns(form) for form in forms if form is not None)
    if max(len(first), len(second)) > ROTATIONS:
        return None
    first, second, error = _peeled(first, second)
    quarters = _quarters(forms[0], forms[1])
    if quarters is None:
        return None
    second += quarters
    pair = _Pair(first, second, error + (forms[0].dropped + forms[1].dropped) / 2)
    return pair.distance()


def _turns(form: PauliForm) -> list[Turn]:
    return [Turn(x, z, float(angle)) for (x, z), angle in form.rotations()]


def _quarters(a: PauliForm, b: PauliForm) -> list[Turn] | None:
    """Return quarter and half turns whose product is ``C_A^-1 C_B``, the first applied first.

    Each quarter turn is about x F(x), x a Pauli and F the map of Paulis that is left to make: it
    takes x to F(x) where the two anticommute, and leaves all that F leaves.
    """
    rows, goals = [*a.xs, *a.zs], [*b.xs, *b.zs]
    out: list[Turn] = []
    while True:
        away = [i for i, row in enumerate(rows) if row[:2] != goals[i][:2]]
        if not away:
            break
        if len(out) >= QUARTERS:
            return None
        x, z, _ = _axis([(rows[i], goals[i]) for i in away])
        turn = Turn(x, z, pi / 2)
        rows = [turned(row, turn.pauli, 1) for row in rows]
        out.append(turn)
    half = (len(rows)) // 2
    flip: Local = (0, 0, 0)
    for i, (row, goal) in enumerate(zip(rows, goals, strict=True)):
        if row[2] != goal[2]:
            flip = times(flip, goals[i + half if i < half else i - half])
    if flip[0] or flip[1]:
        out.append(Turn(flip[0], flip[1], pi))
    return out[::-1]


def _axis(pairs: Sequence[tuple[Local, Local]]) -> Local:
    """Return ``x F(x)`` for a Pauli x that anticommutes with F(x), for any x where there is none.

    Args:
        pairs: (x, F(x)) of generators, x and F(x) not the same.
    """
    for row, goal in pairs:
        if not commutes(row, goal):
            return times(row, goal)
    for (row, goal), (other, aim) in combinations(pairs, 2):
        if commutes(row, aim) != commutes(other, goal):
            return times(times(row, other), times(goal, aim))
    return times(*pairs[0])


def _peeled(first: list[Turn], second: list[Turn]) -> tuple[list[Turn], list[Turn], float]:
    """Take off what can come first on both sides; return what is left and the error made.

    One pass is enough: what keeps a rotation from its equal keeps what stands behind it, too.
    """
    words = max(1, -(-max((max(t.x, t.z).bit_length() for t in first + second), default=1) // 64))
    left, behind = _Packed(words, len(first)), _Packed(words, len(second))
    places: dict[tuple[int, int], list[int]] = {}
    for j, turn in enumerate(second):
        behind.put(turn.x, turn.z)
        places.setdefault((turn.x, turn.z), []).append(j)
    kept: list[Turn] = []
    rest: list[Turn | None] = list(second)
    error = 0.0
    for turn in first:
        same = places.get((turn.x, turn.z))
        if not same or not left.commute(turn.x, turn.z, len(kept)) or not (
            behind.commute(turn.x, turn.z, same[0])
        ):  # fmt: skip
            left.put(turn.x, turn.z)
            kept.append(turn)
            continue
        other = second[same[0]].angle
        angle = (turn.angle - other + pi) % (2 * pi) - pi
        if abs(angle) > _NONE:
            left.put(turn.x, turn.z)
            kept.append(Turn(turn.x, turn.z, angle))
        else:
            error += abs(angle) / 2
        behind.take(same[0])
        rest[same.pop(0)] = None
    return kept, [turn for turn in rest if turn is not None], error


class _Packed:
    """Paulis as rows of bits.

    Args:
        words: Words of 64 bits a row.
        size: Rows at most.
    """

    def __init__(self, words: int, size: int) -> None:
        self._bits = np.zeros((2, size, words), dtype=np.uint64)
        self._words, self._count = words, 0

    def put(self, x: int, z: int) -> None:
        """Append a Pauli."""
        self._bits[:, self._count] = self._packed(x), self._packed(z)
        self._count += 1

    def take(self, at: int) -> None:
        """Make a row the identity."""
        self._bits[:, at] = 0

    def commute(self, x: int, z: int, stop: int) -> bool:
        """Whether a Pauli commutes with all rows before ``stop``."""
        xs, zs = self._bits[:, :stop]
        mixed = (xs & self._packed(z)) ^ (zs & self._packed(x))
        return not (np.bitwise_count(mixed).sum(axis=1) & 1).any()

    def fights(self) -> list[int]:
        """Return for each row a bit mask of the rows before it that it does not commute with."""
        xs, zs = self._bits
        mixed = (xs[:, None] & zs[None]) ^ (zs[:, None] & xs[None])
        odd = np.tril(np.bitwise_count(mixed).sum(axis=2) & 1)
        packed = np.packbits(odd.astype(np.uint8), axis=1, bitorder="little")
        return [int.from_bytes(row.tobytes(), "little") for row in packed]

    def _packed(self, bits: int) -> NDArray[np.uint64]:
        return np.frombuffer(bits.to_bytes(8 * self._words, "little"), dtype=np.uint64)


@dataclass(slots=True)
class _Pair:
    """Two products of rotations that should be the same.

    Attributes:
        first: One of them, the first applied first.
        second: The other.
        error: Counted so far.
        tries: Windows looked at.
    """

    first: list[Turn]
    second: list[Turn]
    error: float
    tries: int = 0

    def distance(self) -> Distance | None:
        """Take windows off until the rest is small enough to be compared."""
        while True:
            self._reverse()
            self._peel()
            self._reverse()
            self._peel()
            if not self.first and not self.second:
                return Distance(self.error, 0.0)
            group = Group.of(self.first + self.second)
            if group.entries <= ENTRIES and group.entries * self._size <= WORK:
                most, least = group.apart(self.first, self.second)
                return Distance(self.error + most, max(0.0, least - self.error))
            found = self._take_windows()
            self._reverse()
            found |= self._take_windows()
            self._reverse()
            if not found:
                return None

    @property
    def _size(self) -> int:
        return len(self.first) + len(self.second)

    def _peel(self) -> None:
        self.first, self.second, error = _peeled(self.first, self.second)
        self.error += error

    def _reverse(self) -> None:
        """Turn to the inverses of both."""
        self.first, self.second = (
            [Turn(t.x, t.z, -t.angle) for t in reversed(side)] for side in (self.first, self.second)
        )

    def _take_windows(self) -> bool:
        """Take off windows at the front; say whether there was one."""
        found = False
        sides = _Side.of(self.first), _Side.of(self.second)
        for which in (0, 1):
            at = 0
            while at < len(sides[which].turns):
                window = None
                if not sides[which].before[at]:
                    window = self._grown(sides[which].turns[at], sides)
                if window is None:
                    at += 1
                    continue
                found = True
                self.first = _without(self.first, window[0])
                self.second = _without(self.second, window[1])
                sides = _Side.of(self.first), _Side.of(self.second)
        return found

    def _grown(self, seed: Turn, sides: tuple[_Side, _Side]) -> tuple[list[int], list[int]] | None:
        """Grow a window from a rotation, by what stands in its way; the places of its two sides."""
        chosen = [seed]
        group = Group.of(chosen)
        while group.pairs <= WINDOW[0] and group.center <= WINDOW[1] and self.tries < TRIES:
            self.tries += 1
            (first, ways), (second, others) = (side.front(group) for side in sides)
            if first and second:
                most, _ = group.apart(
                    [sides[0].turns[i] for i in first], [sides[1].turns[i] for i in second]
                )
                if most <= _SAME:
                    self.error += most
                    return first, second
            best: tuple[int, Turn, Group] | None = None
            for turn in (*ways, *others):
                larger = Group.of([*chosen, turn])
                gain = sum(len(side.front(larger)[0]) for side in sides)
                gain -= 2 * (2 * larger.pairs + larger.center)
                if best is None or gain > best[0]:
                    best = gain, turn, larger
            if best is None:
                break
            chosen.append(best[1])
            group = best[2]
        return None


@dataclass(frozen=True, slots=True)
class _Side:
    """The first rotations of a product, and what keeps each of them from the front.

    Attributes:
        turns: The rotations.
        before: For each a bit mask of those before it that it does not commute with.
    """

    turns: list[Turn]
    before: list[int]

    @staticmethod
    def of(turns: list[Turn]) -> _Side:
        """Look at the first rotations of a product."""
        turns = turns[:LEFT]
        words = max(1, -(-max((max(t.x, t.z).bit_length() for t in turns), default=1) // 64))
        rows = _Packed(words, len(turns))
        for turn in turns:
            rows.put(turn.x, turn.z)
        return _Side(turns, rows.fights())

    def front(self, group: Group) -> tuple[list[int], list[Turn]]:
        """Return the places of what can come first within a group, and what stands in its way."""
        inside: list[int] = []
        ways: list[Turn] = []
        outside = 0
        for i, (turn, mask) in enumerate(zip(self.turns, self.before, strict=True)):
            if mask & outside:
                outside |= 1 << i
            elif group.has(turn.x, turn.z):
                inside.append(i)
            else:
                outside |= 1 << i
                if len(ways) < WAYS and group.fights(turn.pauli):
                    ways.append(turn)
        return inside, ways


def _without(side: list[Turn], places: Iterable[int]) -> list[Turn]:
    gone = frozenset(places)
    return [turn for i, turn in enumerate(side) if i not in gone]
