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

Where the two sides of a window differ by a Clifford, or by a Clifford and at most three rotations,
these take its place (:mod:`~qcomp.equivalence.pauli_remainders`).

Every step says of the rest that it is the same on both sides if and only if it was before, so the
last matrix decides, yes or no. Works for any number of qubits and without simulating any.

Written apart from the passes.

Source: Litinski 2019 (arXiv:1808.02892), section 1, for rotations and Cliffords.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.typing import NDArray

from qcomp.equivalence.pauli_form import Local, PauliForm, commutes, pauli_form, times
from qcomp.equivalence.pauli_groups import Group, Turn
from qcomp.equivalence.pauli_remainders import SAME, Remainder, carried, quarter_turns, remainder
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

TRIES = 2_000, 8
"""Windows that are looked at before it is given up: so many, and more for each rotation."""

_EXACT, _CLIFFORD, _ROTATIONS = range(3)
"""What may be left of a window: nothing, a Clifford, or a Clifford and at most three rotations."""

_NONE = 1e-13
"""Radians up to which an angle is none, its size counted as error."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two circuits are apart.

    Attributes:
        most: Bound of ``min_phase ||A - phase B||`` in operator norm, but for rounding.
        least: What it is at least, but for what was counted as error.
    """

    most: float
    least: float


def distance_by_pauli_windows(a: Circuit, b: Circuit, inputs: int | None = None) -> Distance | None:
    """Return how far two circuits are apart, None where windows do not come to an end.

    Args:
        a: Straight-line and unitary, without parameters.
        b: The same, over the same qubits.
        inputs: Qubits from this one on are ancillas, which start in |0>.

    Raises:
        AncillasDiffer: If an ancilla of one does not end in |0>.
    """
    forms = [form for c in (a, b) if (form := pauli_form(c, inputs=inputs)) is not None]
    if len(forms) < 2:
        return None
    first, second = (_turns(form) for form in forms)
    if max(len(first), len(second)) > ROTATIONS:
        return None
    rows, goals = ([*form.xs, *form.zs] for form in forms)
    dropped = (forms[0].dropped + forms[1].dropped) / 2
    most = TRIES[0] + TRIES[1] * (len(first) + len(second))
    return _Pair(first, second, rows, goals, dropped, most).distance()


def _turns(form: PauliForm) -> list[Turn]:
    return [Turn(x, z, float(angle)) for (x, z), angle in form.rotations()]


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
    """Two products of rotations, R_A and R_B, that should be the same but for a Clifford E.

    ``R_A = E R_B``, and E is known by what it does to Paulis.

    Attributes:
        first: The rotations of R_A, the first applied first.
        second: Those of R_B.
        rows: Generators of all Paulis.
        goals: ``E^-1 row E`` for each of them.
        error: Counted so far.
        most: Windows looked at before it is given up.
        tries: Windows looked at.
    """

    first: list[Turn]
    second: list[Turn]
    rows: list[Local]
    goals: list[Local]
    error: float
    most: int
    tries: int = 0

    def distance(self) -> Distance | None:
        """Take windows off until the rest is small enough to be compared."""
        while True:
            for _ in range(2):
                self._peel()
                self._mirror()
            compared = self._compared()
            if compared is not None:
                return compared
            if not any(self._both_ends(kind) for kind in (_EXACT, _CLIFFORD, _ROTATIONS)):
                return None

    def _compared(self) -> Distance | None:
        """Compare what is left by one matrix, None where that is too large."""
        quarters = quarter_turns(self.rows, self.goals, QUARTERS)
        if quarters is None:
            return None
        second = self.second + quarters
        if not self.first and not second:
            return Distance(self.error, 0.0)
        group = Group.of(self.first + second)
        size = len(self.first) + len(second)
        if group.entries > ENTRIES or group.entries * size > WORK:
            return None
        most, least = group.apart(self.first, second)
        return Distance(self.error + most, max(0.0, least - self.error))

    def _both_ends(self, kind: int) -> bool:
        found = self._take_windows(kind)
        self._mirror()
        found |= self._take_windows(kind)
        self._mirror()
        return found

    def _peel(self) -> None:
        self.first, self.second, error = _peeled(self.first, self.second)
        self.error += error

    def _mirror(self) -> None:
        """Turn to the inverses: ``R_A^-1 = E^-1 (E R_B E^-1)^-1``."""
        self.first = [turn.inverse() for turn in reversed(self.first)]
        second = [turn.inverse() for turn in reversed(self.second)]
        if self.rows != self.goals:
            second = [
                Turn.of(_mapped(turn.pauli, self.goals, self.rows), turn.angle) for turn in second
            ]
        self.second = second
        self.rows, self.goals = self.goals, self.rows

    def _take_windows(self, kind: int) -> bool:
        """Take off windows at the front; say whether there was one."""
        found = False
        sides = _Side.of(self.first), _Side.of(self.second)
        for which in (0, 1):
            at = 0
            while at < len(sides[which].turns):
                taken = not sides[which].before[at] and self._grown(
                    sides[which].turns[at], sides, kind
                )
                if taken:
                    found = True
                    sides = _Side.of(self.first), _Side.of(self.second)
                else:
                    at += 1
        return found

    def _grown(self, seed: Turn, sides: tuple[_Side, _Side], kind: int) -> bool:
        """Grow a window from a rotation by what stands in its way, and take it off if it is one."""
        chosen = [seed]
        group = Group.of(chosen)
        while group.pairs <= WINDOW[0] and group.center <= WINDOW[1] and self.tries < self.most:
            self.tries += 1
            (first, ways), (second, others) = (side.front(group) for side in sides)
            if first and second and self._taken(group, sides, (first, second), kind):
                return True
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
        return False

    def _taken(
        self,
        group: Group,
        sides: tuple[_Side, _Side],
        places: tuple[list[int], list[int]],
        kind: int,
    ) -> bool:
        """Take a window off if its sides are the same, or are but for a Clifford and a few.

        ``R_A = A D_A``, ``R_B = B D_B`` and ``D_A = K L D_B`` make ``(K^-1 A K) L = (K^-1 E) B``.
        """
        parts = [[side.turns[i] for i in at] for side, at in zip(sides, places, strict=True)]
        left: Remainder | None = None
        if kind == _EXACT:
            most, _ = group.apart(*parts)
            if most <= SAME:
                left = [], [], most
        elif len(parts[0]) + len(parts[1]) > (3 if kind == _ROTATIONS else 0):
            turns = [*(turn.inverse() for turn in reversed(parts[1])), *parts[0]]
            left = remainder(group, turns, loose=kind == _ROTATIONS)
        if left is None:
            return False
        quarters, turns, error = left
        self.error += error
        rest = _without(self.first, places[0])
        self.second = _without(self.second, places[1])
        if quarters:
            rest = [Turn.of(carried(turn.pauli, quarters), turn.angle) for turn in rest]
            self.rows = [carried(row, quarters) for row in self.rows]
        self.first = turns + rest
        return True


def _mapped(pauli: Local, rows: list[Local], images: list[Local]) -> Local:
    """Return what a map that takes rows to images makes of a Pauli."""
    half = len(rows) // 2
    product: Local = (0, 0, 0)
    image: Local = (0, 0, 0)
    for i, row in enumerate(rows):
        if not commutes(pauli, rows[i + half if i < half else i - half]):
            product, image = times(product, row), times(image, images[i])
    return image[0], image[1], (image[2] + pauli[2] - product[2]) & 3


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
