"""Rotations about Z in Clifford gates and T, each to an accuracy of its own.

The engine is ``qiskit.synthesis.gridsynth_rz`` (Ross, Selinger 2014, arXiv:1403.2975; in Rust). It
finds the fewest T for an accuracy but for candidates it cannot factor. What it calls accuracy is
twice the operator norm, so it is asked for twice what is wanted; what it returns is measured here,
and asked for again more finely where that is not near enough. From ``COARSE`` up unitaries with few
T are enumerated instead, which sees all of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.angle import PI, radians
from qcomp.passes.synthesize.clifford_t import table
from qcomp.passes.synthesize.clifford_t.normal_form import Word, normal_form, rz_quaternion

__all__ = ["FINEST", "Point", "pareto", "rotation_front", "rotation_word", "unitary_front"]

FINEST = 1e-13
"""The least accuracy that float64 can vouch for."""

COARSE = 4e-3
"""From this accuracy up, the fewest T gates are found by looking at all unitaries."""

_QUARTER = PI >> 1
_ASKED = 2.0
"""What the engine is asked for, over the operator norm that its results then have at most."""


_SWEPT_T = 20
"""T gates up to which a front of a rotation comes from one sweep over all unitaries."""

_NEARER = 1 - 1e-9
"""A next choice is nearer than the one before by at least so much."""


@dataclass(frozen=True, slots=True)
class Point:
    """One choice for a unitary: what it costs, and how near it comes.

    Attributes:
        t_count: T gates.
        error: Operator norm of the difference, the best phase taken.
        word: The gates.
    """

    t_count: int
    error: float
    word: Word


def _engine(angle: float, epsilon: float) -> Word:
    """Return the engine's word for a rotation about Z."""
    from qiskit.synthesis import gridsynth_rz

    circuit = gridsynth_rz(angle, epsilon)
    return normal_form([instruction.operation.name for instruction in circuit.data])


@functools.lru_cache(maxsize=1 << 14)
def _basic(angle: float, epsilon: float) -> Point:
    """Return the cheapest word for an angle in [0, pi/4] within epsilon."""
    target = rz_quaternion(angle)
    for count, error, word in _coarse(angle):
        if error <= epsilon:
            return Point(count, error, word)
    if epsilon >= COARSE:
        found = table.shortest(target, epsilon, 26)
        if found is not None:
            return Point(found.t_count, found.distance(target), found)
    asked = _ASKED * epsilon
    while True:
        word = _engine(angle, asked)
        error = word.distance(target)
        if error <= epsilon:
            return Point(word.t_count, error, word)
        asked /= 2


@functools.lru_cache(maxsize=1 << 12)
def _coarse(angle: float) -> tuple[tuple[int, float, Word], ...]:
    """Return the front of the unitaries with few T."""
    return tuple(table.front(rz_quaternion(angle)))


def _reduced(frac: int, rem: float) -> tuple[float, list[str], list[str]]:
    """Write ``RZ(angle)`` as ``S^k X^m RZ(a) X^m`` with a in [0, pi/4].

    Args:
        frac: Units of pi / 2**60.
        rem: Radians.

    Returns:
        a, and the gates before and after it in the order of a circuit.
    """
    whole = frac % (2 * PI)
    turns = (whole + _QUARTER // 2) // _QUARTER
    rest = radians(whole - turns * _QUARTER) + rem
    more = round(rest / (math.pi / 2))
    rest -= more * (math.pi / 2)
    after = ((), ("s",), ("z",), ("sdg",))[(turns + more) % 4]
    if rest < 0:
        return -rest, ["x"], ["x", *after]
    return rest, [], list(after)


def rotation_word(frac: int, rem: float, epsilon: float) -> Point:
    """Return the cheapest word for ``RZ(frac pi / 2**60 + rem)`` within epsilon.

    Angles that differ by multiples of pi/2 or a sign are synthesised once.

    Args:
        frac: Units of pi / 2**60.
        rem: Radians.
        epsilon: Operator norm of the difference, up to phase.

    Raises:
        UsageError: If the accuracy is none that can be had.
    """
    if not epsilon >= FINEST:
        raise UsageError(
            f"a rotation cannot be synthesised to an error of {epsilon:.3g}",
            why=f"angles and matrices are float64, which vouches for {FINEST:.0e} at best",
            hint="allow a larger error",
        )
    angle, before, after = _reduced(frac, rem)
    point = _basic(angle, epsilon)
    word = normal_form([*before, *point.word.gates, *after])
    return Point(word.t_count, word.distance(rz_quaternion(radians(frac) + rem)), word)


def rotation_front(frac: int, rem: float, coarsest: float, finest: float) -> list[Point]:
    """Return the choices for a rotation from one accuracy to another, T rising, errors falling.

    Words with few T are all in it; then the cheapest within ``coarsest``, and as each next one the
    cheapest that is nearer than the one before, until one is within ``finest``. Cost: a synthesis a
    point, about 1.5 T apart.

    Args:
        frac: Units of pi / 2**60.
        rem: Radians.
        coarsest: Operator norm.
        finest: Operator norm.
    """
    target = rz_quaternion(radians(frac) + rem)
    points = unitary_front(target, 2.0, max(finest, COARSE), _SWEPT_T)
    epsilon = min(coarsest, points[-1].error * _NEARER)
    while points[-1].error > max(finest, FINEST):
        points.append(rotation_word(frac, rem, max(epsilon, FINEST)))
        epsilon = points[-1].error * _NEARER
    return pareto(points)


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both T and error, T rising."""
    out: list[Point] = []
    for point in sorted(points, key=lambda p: (p.t_count, p.error)):
        if not out or point.error < out[-1].error:
            out.append(point)
    return out


@functools.lru_cache(maxsize=1 << 12)
def _swept(
    target: tuple[float, ...], coarsest: float, finest: float, most_t: int
) -> tuple[Point, ...]:
    """Return the points of a sweep, up to the first that is within ``finest``."""
    point = np.array(target)
    out: list[Point] = []
    for word in table.sweep(point, coarsest, most_t):
        out.append(Point(word.t_count, word.distance(point), word))
        if out[-1].error <= finest:
            break
    return tuple(pareto(out))


def unitary_front(
    target: NDArray[np.float64], coarsest: float, finest: float, most_t: int
) -> list[Point]:
    """Return the choices for any unitary, like :func:`rotation_front`, as far as they are found.

    Args:
        target: Unit quaternion, float64[4].
        coarsest: Operator norm.
        finest: Operator norm.
        most_t: Beyond so many T gates the search ends; its time doubles with each.
    """
    return list(_swept(tuple(float(x) for x in target), coarsest, finest, most_t))
