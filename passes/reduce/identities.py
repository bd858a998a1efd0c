"""Identities between one-qubit unitaries and gates, as data that arrays of angles are put into.

An identity holds where some sums of the Euler angles are given multiples of pi/4, and its gates
have such sums as angles. The identities of a basis are found once and put into a table; what fits
each of n matrices best is then found with as many array operations for one identity as for thirty,
which is what counts where n is small.

Cost: some hundred integer and float operations a matrix, about fifty array operations in all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI
from qcomp.ir.gates import BY_NAME, G

__all__ = ["SLOTS", "UNWRITABLE", "Choice", "Table", "Turn", "euler_angles", "snapped", "table"]

UNWRITABLE = 99
SLOTS = 5
"""Gates of an identity at most."""

_SNAP = 5e-14
_GRID_BITS = 12
_QUARTER = PI >> 2
_ANGLES = 3

_VANISHING = (int(G.RZ), int(G.P), int(G.RY), int(G.RX))
"""Gates that are left out where their angle is 0."""

Turn = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Angles as exact units of pi / 2**60 and float parts."""


def snapped(value: NDArray[np.float64]) -> Turn:
    """Split radians into exact parts, where a multiple of pi / 4096 is near, and float parts."""
    grid = np.rint(value * ((1 << _GRID_BITS) / np.pi))
    near = np.abs(value - grid * (np.pi / (1 << _GRID_BITS))) < _SNAP
    exact = grid.astype(np.int64) * (PI >> _GRID_BITS)
    return np.where(near, exact, 0), np.where(near, 0.0, value)


def euler_angles(
    matrix: NDArray[np.complex128],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return theta in [0, pi], phi, lambda with ``matrix = exp(i alpha) u(theta, phi, lambda)``.

    Where theta is 0, all of the rotation is in lambda; where it is pi, all is in phi.

    Args:
        matrix: complex128[n, 2, 2], unitary.
    """
    a, b, c, d = matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1]
    theta = 2 * np.arctan2(np.abs(c), np.abs(a))
    diagonal, flipped = np.abs(c) < 1e-14, np.abs(a) < 1e-14
    # The sum or the difference of phi and lambda comes from the large entries: near a corner the
    # small ones are rounding, and each angle by itself means nothing.
    total, difference = np.angle(d * a.conj()), np.angle(-c * b.conj())
    phi = np.where(diagonal, 0.0, np.where(flipped, difference, np.angle(c * a.conj())))
    lam = np.angle(-b * a.conj())
    lam = np.where(np.abs(c) < 1e-6, total - phi, np.where(np.abs(a) < 1e-6, phi - difference, lam))
    theta = np.where(diagonal, 0.0, np.where(flipped, np.pi, theta))
    return theta, phi, lam


@dataclass(frozen=True, slots=True)
class _Sum:
    """A signed sum of Euler angles and quarters of pi.

    Attributes:
        terms: Places of its terms among theta, phi, lambda, and the same with minus signs.
        quarters: Quarters of pi that are added.
        wrapped: Whether the sum is taken modulo one turn; the rest is phase.
        halved: Whether it is halved after that, and ``more`` quarters are added, wrapped then.
    """

    terms: tuple[int, ...]
    quarters: int = 0
    wrapped: bool = False
    halved: bool = False
    more: int | None = None


_THETA, _PHI, _LAMBDA = (_Sum((place,)) for place in range(3))
_ZERO = _Sum(())
_HALF_TURN = _Sum((), 4)


def _minus(term: _Sum) -> _Sum:
    return replace(term, terms=tuple((place + 3) % 6 for place in term.terms))


def _plus(*terms: _Sum | int) -> _Sum:
    """Add angles, at least one; an integer counts quarters of pi."""
    sums = [term for term in terms if not isinstance(term, int)]
    quarters = sum(term for term in terms if isinstance(term, int))
    if sums[0].halved:
        return replace(sums[0], more=(sums[0].more or 0) + quarters)
    places = tuple(place for term in sums for place in term.terms)
    return _Sum(places, quarters + sum(term.quarters for term in sums), wrapped=True)


def _halved(term: _Sum) -> _Sum:
    return replace(term, halved=True)


_Slot = tuple[int, tuple[_Sum, ...]]
_Condition = tuple[tuple[_Sum, int], ...]
"""Sums, and the quarters of pi that each must be, whole turns apart."""
_Identity = tuple[_Condition, tuple[_Slot, ...]]
"""Where an identity holds, and its gates in time order with their angles."""

_FLAT, _RIGHT, _HALF = ((_THETA, 0),), ((_THETA, 2),), ((_THETA, 4),)
_ALWAYS: _Condition = ()


def _identities(names: tuple[str, ...]) -> Iterator[_Identity]:
    """Yield the identities that a basis has gates for, good ones first."""
    has = {BY_NAME[name].code for name in names}
    yield (*_FLAT, (_plus(_PHI, _LAMBDA), 0)), ()
    for name in names:
        row = BY_NAME[name]
        if row.num_angles == 0:
            turns = [snapped(value) for value in euler_angles(row.matrix()[None])]
            assert not any(rest.any() or (frac % _QUARTER).any() for frac, rest in turns)
            theta, phi, lam = (int(frac[0]) // _QUARTER for frac, _ in turns)
            yield ((_THETA, theta), (_PHI, phi), (_LAMBDA, lam)), ((row.code, ()),)
    z = G.RZ if G.RZ in has else G.P if G.P in has else -1
    if z < 0:
        if G.RY in has:
            yield ((_PHI, 0), (_LAMBDA, 0)), ((G.RY, (_THETA,)),)
            yield ((_PHI, 4), (_LAMBDA, 4)), ((G.RY, (_minus(_THETA),)),)
        if G.RX in has:
            yield ((_PHI, -2), (_LAMBDA, 2)), ((G.RX, (_THETA,)),)
            yield ((_PHI, 2), (_LAMBDA, -2)), ((G.RX, (_minus(_THETA),)),)
    else:
        yield from _around(z, has)
    if G.U in has:
        yield _ALWAYS, ((G.U, (_THETA, _PHI, _LAMBDA)),)
    if G.R in has:
        # r(theta, a) = u(theta, a - pi/2, pi/2 - a)
        yield ((_plus(_PHI, _LAMBDA), 0),), ((G.R, (_THETA, _plus(_PHI, 2))),)
    if z < 0:
        yield from _in_the_plane(has)


def _in_the_plane(has: set[int]) -> Iterator[_Identity]:
    """Yield the identities with turns about axes in the plane alone.

    ``gpi(a) r(t, b) ~ rz(2a - 2b) r(t + pi, b)`` and ``gpi2(a) gpi(b) gpi2(c) ~ rz(a) ry(a + c -
    2b) rz(-c)``.
    """
    middle = _plus(_halved(_plus(_PHI, _minus(_LAMBDA))), 2)
    if G.R in has:
        yield _HALF, ((G.R, (_HALF_TURN, middle)),)
        first = _plus(_THETA, -4), _plus(_minus(_LAMBDA), 2)
        yield _ALWAYS, ((G.R, first), (G.R, (_HALF_TURN, middle)))
    if G.GPI2 in has:
        yield (*_RIGHT, (_plus(_PHI, _LAMBDA), 0)), ((G.GPI2, (_plus(_PHI, 2),)),)
    if G.GPI in has:
        yield _HALF, ((G.GPI, (middle,)),)
        yield _FLAT, ((G.GPI, (_ZERO,)), (G.GPI, (_halved(_plus(_PHI, _LAMBDA)),)))
    if G.GPI in has and G.GPI2 in has:
        yield _RIGHT, ((G.GPI2, (_plus(_minus(_LAMBDA), -2),)), (G.GPI, (_plus(middle, -4),)))
        between = _halved(_plus(_PHI, _minus(_LAMBDA), _minus(_THETA)))
        yield _ALWAYS, ((G.GPI2, (_minus(_LAMBDA),)), (G.GPI, (between,)), (G.GPI2, (_PHI,)))


def _around(z: int, has: set[int]) -> Iterator[_Identity]:
    """Yield the identities with rotations about Z on both sides of something else."""
    theta, phi, lam = _THETA, _PHI, _LAMBDA
    yield _FLAT, ((z, (_plus(phi, lam),)),)
    if G.X in has:
        yield _HALF, ((z, (_plus(lam, _minus(phi), 4),)), (G.X, ()))
    if G.Y in has:
        yield _HALF, ((z, (_plus(lam, _minus(phi)),)), (G.Y, ()))
    if G.H in has:
        yield _RIGHT, ((z, (_plus(lam, 4),)), (G.H, ()), (z, (phi,)))
    if G.SX in has:
        yield _RIGHT, ((z, (_plus(lam, -2),)), (G.SX, ()), (z, (_plus(phi, 2),)))
    if G.SXDG in has:
        yield _RIGHT, ((z, (_plus(lam, 2),)), (G.SXDG, ()), (z, (_plus(phi, -2),)))
    # u(theta, phi, lambda) = rz(phi + lambda) r(theta, pi/2 - lambda)
    axis, rest = _plus(_minus(lam), 2), _plus(phi, lam)
    if G.R in has:
        yield _ALWAYS, ((G.R, (theta, axis)), (z, (rest,)))
    if G.GPI in has:
        yield _HALF, ((G.GPI, (axis,)), (z, (rest,)))
    if G.GPI2 in has:
        yield _RIGHT, ((G.GPI2, (axis,)), (z, (rest,)))
        second = _plus(_minus(lam), _minus(theta), 4)
        pair = (G.GPI2, (_minus(lam),)), (G.GPI2, (second,))
        yield _ALWAYS, (*pair, (z, (_plus(rest, theta),)))
    middle: list[tuple[int, Callable[[_Sum], tuple[_Slot, ...]]]] = []
    if G.RY in has:
        middle.append((0, lambda t: ((G.RY, (t,)),)))
    if G.RX in has:
        middle.append((2, lambda t: ((G.RX, (t,)),)))
    if G.SX in has:
        # sx rz(t) sx is rz(-pi/2) ry(pi - t) rz(-pi/2) up to phase, hence ry(t) between half turns.
        middle.append((99, lambda t: ((G.SX, ()), (z, (_plus(t, 4),)), (G.SX, ()))))
    if G.H in has:
        middle.append((2, lambda t: ((G.H, ()), (z, (t,)), (G.H, ()))))
    for shift, gates in middle:
        for sign in (1, -1):
            turned = theta if sign == 1 else _minus(theta)
            flip = 0 if sign == 1 else 4
            if shift == 99:
                left, rest = _plus(lam, flip), _plus(phi, 4, flip)
            else:
                left, rest = _plus(lam, -shift, flip), _plus(phi, shift, flip)
            yield _ALWAYS, ((z, (left,)), *gates(turned), (z, (rest,)))


@dataclass(frozen=True, slots=True)
class Choice:
    """The gates of n one-qubit unitaries, up to a phase; at most s each.

    Attributes:
        code: int64[n, s], in time order, -1 for no gate.
        frac: int64[n, s, 3], exact parts of their angles.
        rem: float64[n, s, 3], float parts.
        length: int64[n], number of gates; ``UNWRITABLE`` where the basis has no identity.
    """

    code: NDArray[np.int64]
    frac: NDArray[np.int64]
    rem: NDArray[np.float64]
    length: NDArray[np.int64]

    def take(self, index: NDArray[np.intp] | slice) -> Self:
        """Return the words at these places."""
        return type(self)(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class Table:
    """The c identities of a basis over s sums; a test asks whether a sum is so many quarters.

    Attributes:
        terms: int64[3, s], places of a sum's terms as in ``_Sum``; 6 for none, 7 for 0.
        units: int64[s, 1], what is added to them.
        wrap: int64[s, 1], 1 where the sum is taken modulo a turn.
        halved: int64[h], sums that are halved; ``more`` and ``wrap_more`` as above, int64[h, 1].
        tested: int64[t], the sum of each test, and ``units_tested`` what it must be, int64[t, 1].
            The last test but one always holds, the last never does.
        condition: int64[3, c], tests that must hold.
        gates: int64[c], gates of each identity where none vanishes.
        code: int64[c, SLOTS], the gates.
        vanishes: int64[c, SLOTS], the test of whether a gate is left out.
        angle: int64[c, SLOTS, a], the sums that the gates turn by; a angles at most.
    """

    terms: NDArray[np.int64]
    units: NDArray[np.int64]
    wrap: NDArray[np.int64]
    halved: NDArray[np.int64]
    more: NDArray[np.int64]
    wrap_more: NDArray[np.int64]
    tested: NDArray[np.int64]
    units_tested: NDArray[np.int64]
    condition: NDArray[np.int64]
    gates: NDArray[np.int64]
    code: NDArray[np.int64]
    vanishes: NDArray[np.int64]
    angle: NDArray[np.int64]

    def choose(self, frac: NDArray[np.int64], rem: NDArray[np.float64]) -> Choice:
        """Return the shortest identity of each matrix, the first of equally short ones.

        Args:
            frac: int64[3, n], exact parts of theta, phi, lambda.
            rem: float64[3, n], their float parts.
        """
        frac, rem = self._sums(_with_signs(frac), _with_signs(rem))
        tests = np.empty((len(self.tested) + 2, frac.shape[1]), dtype=bool)
        off = (frac[self.tested] - self.units_tested) & (2 * PI - 1)
        np.logical_and(off == 0, rem[self.tested] == 0, out=tests[:-2])
        tests[-2], tests[-1] = True, False
        holds = tests[self.condition].all(axis=0)
        length = self.gates[:, None] - tests[self.vanishes].sum(axis=1)
        length = np.where(holds, length, UNWRITABLE)
        best = length.argmin(axis=0)
        rows = np.arange(len(best))
        code = np.where(tests[self.vanishes[best], rows[:, None]], -1, self.code[best])
        length = length[best, rows]
        code[length == UNWRITABLE] = -1
        at = self.angle[best], rows[:, None, None]
        many = self.angle.shape[2]
        turns = np.zeros((*code.shape, _ANGLES), dtype=np.int64), np.zeros((*code.shape, _ANGLES))
        turns[0][:, :, :many], turns[1][:, :, :many] = frac[at], rem[at]
        return Choice(code, *turns, length)

    def _sums(self, frac: NDArray[np.int64], rem: NDArray[np.float64]) -> Turn:
        """Return all sums of what ``_with_signs`` returns, int64[s, n] and float64[s, n]."""
        first, second, third = self.terms
        total = frac[first] + frac[second] + frac[third] + self.units
        wrapped = ((total + PI) & (2 * PI - 1)) - PI
        total = np.where(self.wrap, wrapped, total)
        rest = rem[first] + rem[second] + rem[third]
        if len(self.halved):
            some, odd = total[self.halved] >> 1, total[self.halved] & 1
            some = some + self.more
            total[self.halved] = np.where(self.wrap_more, ((some + PI) & (2 * PI - 1)) - PI, some)
            rest[self.halved] = rest[self.halved] / 2 + odd * (np.pi / PI / 2)
        return total, rest


def _with_signs(angles: NDArray[Any]) -> NDArray[Any]:
    """Return three angles, their negatives, what changes no sum, and 0; [8, n] of [3, n]."""
    out = np.zeros((8, angles.shape[1]), dtype=angles.dtype)
    out[:3] = angles
    # -0.0 changes nothing, not even the sign of a zero.
    np.negative(out[[0, 1, 2, 6]], out=out[3:7])
    return out


@functools.lru_cache(maxsize=64)
def table(names: tuple[str, ...]) -> Table:
    """Return the identities of a basis.

    Args:
        names: Its gates, in the order of preference among equally short words.
    """
    sums: dict[_Sum, int] = {_ZERO: 0}
    tests: dict[tuple[int, int], int] = {}

    def sum_of(term: _Sum) -> int:
        return sums.setdefault(term, len(sums))

    def test_of(term: _Sum, quarters: int) -> int:
        return tests.setdefault((sum_of(term), quarters % 8), len(tests))

    found = list(_identities(names))
    conditions = [[test_of(*one) for one in condition] for condition, _ in found]
    code = np.full((len(found), SLOTS), -1)
    vanishes = np.full((len(found), SLOTS), -1)
    angle = np.zeros((len(found), SLOTS, _ANGLES), dtype=np.int64)
    for c, (_, slots) in enumerate(found):
        for k, (gate, angles) in enumerate(slots):
            code[c, k] = gate
            if gate in _VANISHING:
                vanishes[c, k] = test_of(angles[0], 0)
            angle[c, k, : len(angles)] = [sum_of(term) for term in angles]
    vanishes[vanishes < 0] = len(tests) + 1
    condition = np.full((3, len(found)), len(tests))
    for c, some in enumerate(conditions):
        condition[: len(some), c] = some
    terms = np.full((3, len(sums)), 6)
    for s, term in enumerate(sums):
        places = term.terms or (7,)
        terms[: len(places), s] = places
    angle = angle[:, :, : max(1, *(len(angles) for _, slots in found for _, angles in slots))]
    halved = [(s, term) for s, term in enumerate(sums) if term.halved]
    return Table(
        terms,
        _column([term.quarters * _QUARTER for term in sums]),
        _column([term.wrapped for term in sums]),
        np.array([s for s, _ in halved], dtype=np.int64),
        _column([(term.more or 0) * _QUARTER for _, term in halved]),
        _column([term.more is not None for _, term in halved]),
        np.array([s for s, _ in tests], dtype=np.int64),
        _column([quarters * _QUARTER for _, quarters in tests]),
        condition,
        (code >= 0).sum(axis=1),
        code,
        vanishes,
        angle,
    )


def _column(values: list[Any]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64).reshape(-1, 1)
