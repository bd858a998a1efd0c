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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.angle import PI, radians
from qcomp.passes.synthesize.clifford_t import table
from qcomp.passes.synthesize.clifford_t.normal_form import Word, normal_form, rz_quaternion

__all__ = ["FINEST", "Point", "rotation_front", "rotation_word", "unitary_front"]

FINEST = 1e-13
"""The least accuracy that float64 can vouch for."""

COARSE = 4e-3
"""From this accuracy up, the fewest T gates are found by looking at all unitaries."""

_QUARTER = PI >> 1
_ASKED = 2.0
"""What the engine is asked for, over the operator norm that its results then have at most."""


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

    The first is the cheapest within ``coarsest``; each next one is the cheapest that is nearer than
    the one before, until one is within ``finest``. Cost: one synthesis a point, about 1.5 T apart.

    Args:
        frac: Units of pi / 2**60.
        rem: Radians.
        coarsest: Operator norm; 2 for all.
        finest: Operator norm.
    """
    out: list[Point] = []
    epsilon = coarsest
    while True:
        point = rotation_word(frac, rem, epsilon)
        while out and out[-1].t_count >= point.t_count:
            out.pop()
        out.append(point)
        if point.error <= max(finest, FINEST):
            return out
        epsilon = max(point.error * (1 - 1e-9), FINEST)


@functools.lru_cache(maxsize=1 << 12)
def _unitary(target: tuple[float, float, float, float], epsilon: float, most_t: int) -> Word | None:
    """Return the shortest word for any unitary within epsilon."""
    return table.shortest(np.array(target), epsilon, most_t)


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
    a, b, c, d = (float(x) for x in target)
    out: list[Point] = []
    epsilon = coarsest
    while True:
        word = _unitary((a, b, c, d), epsilon, most_t)
        if word is None:
            return out
        point = Point(word.t_count, word.distance(target), word)
        while out and out[-1].t_count >= point.t_count:
            out.pop()
        out.append(point)
        if point.error <= max(finest, FINEST):
            return out
        epsilon = point.error * (1 - 1e-9)
