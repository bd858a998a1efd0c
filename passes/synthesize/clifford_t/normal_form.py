"""Products of Clifford gates and T on one qubit: unit quaternions, and their normal form.

A unit quaternion (a, b, c, d) stands for ``a I - i (b X + c Y + d Z)``, a unitary of determinant 1.
For two of them ``||U - V|| = |u - v|``: the operator norm is the Euclidean distance, and up to a
global phase it is the smaller of ``|u - v|`` and ``|u + v|``.

Every product of Clifford gates and T is ``(T | 1) (HT | SHT)* C`` for exactly one Clifford C, with
the fewest T (Matsumoto, Amano 2008, arXiv:0806.3834; Giles, Selinger 2013, arXiv:1312.6584).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CLIFFORDS",
    "SYLLABLES",
    "Word",
    "clifford_quaternions",
    "distance",
    "multiply",
    "normal_form",
    "phase_of",
    "quaternion_of",
    "rz_quaternion",
    "word_of",
]

Quaternions = NDArray[np.float64]

_ROOT = math.sqrt(0.5)
_SIN, _COS = math.sin(math.pi / 8), math.cos(math.pi / 8)

_GATES: dict[str, tuple[tuple[float, float, float, float], int]] = {
    "h": ((0.0, _ROOT, 0.0, _ROOT), 4),
    "x": ((0.0, 1.0, 0.0, 0.0), 4),
    "y": ((0.0, 0.0, 1.0, 0.0), 4),
    "z": ((0.0, 0.0, 0.0, 1.0), 4),
    "s": ((_ROOT, 0.0, 0.0, _ROOT), 2),
    "sdg": ((_ROOT, 0.0, 0.0, -_ROOT), -2),
    "t": ((_COS, 0.0, 0.0, _SIN), 1),
    "tdg": ((_COS, 0.0, 0.0, -_SIN), -1),
}
"""Gate -> its quaternion, and the phase it has besides, in units of pi/8."""

SYLLABLES = ("t", "ht", "sht")
"""What a normal form is made of, as a product of matrices: the first only in front."""


def multiply(u: Quaternions, v: Quaternions) -> Quaternions:
    """Return the products ``U V``, float64[..., 4]; shapes broadcast."""
    a, b, c, d = (u[..., k] for k in range(4))
    e, f, g, h = (v[..., k] for k in range(4))
    return np.stack(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g + c * e + d * f - b * h,
            a * h + d * e + b * g - c * f,
        ],
        axis=-1,
    )


def distance(u: Quaternions, v: Quaternions) -> NDArray[np.float64]:
    """Return the operator norm of ``U - V`` up to sign, float64[...]."""
    return np.minimum(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1))


def rz_quaternion(angle: float) -> Quaternions:
    """Return the rotation about Z by an angle in radians, float64[4]."""
    return np.array([math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)])


def quaternion_of(gates: Iterable[str]) -> Quaternions:
    """Return the product of gates in the order of a circuit, up to phase, float64[4]."""
    total = np.array([1.0, 0.0, 0.0, 0.0])
    for name in gates:
        total = multiply(np.array(_GATES[name][0]), total)
    return total


def phase_of(name: str) -> int:
    """Return the phase of a gate beside its quaternion, in units of pi/8."""
    return _GATES[name][1]


@functools.cache
def _clifford_words() -> tuple[tuple[str, ...], ...]:
    """Return 24 words in the order of a circuit, each with the fewest gates, one a Clifford."""
    found: list[tuple[str, ...]] = [()]
    points = [quaternion_of(())]
    level: list[tuple[str, ...]] = [()]
    while level:
        after: list[tuple[str, ...]] = []
        for word in level:
            for name in ("x", "y", "z", "s", "sdg", "h"):
                point = quaternion_of((*word, name))
                if min(float(distance(point, other)) for other in points) > 1e-6:
                    found.append((*word, name))
                    points.append(point)
                    after.append((*word, name))
        level = after
    return tuple(found)


CLIFFORDS = _clifford_words()
"""The 24 Clifford gates on one qubit up to phase, as words in the order of a circuit."""


@functools.cache
def clifford_quaternions() -> Quaternions:
    """Return the Clifford gates' quaternions, float64[24, 4]."""
    return np.stack([quaternion_of(word) for word in CLIFFORDS])


def _find_clifford(point: Quaternions) -> int:
    """Return the number of the Clifford that a quaternion is."""
    return int(np.argmax(np.abs(clifford_quaternions() @ point)))


@functools.cache
def _tables() -> tuple[list[list[int]], list[tuple[int, int]], list[list[int]]]:
    """Return products C1 C2, how T passes a Clifford from the right, and prefixes.

    The second says for each C: ``C T = P C'`` with P a syllable's number and C' a Clifford's. The
    third: for each syllable P and Clifford C the number of ``P T^-1 S C``, that is what ``P T C``
    is when two T meet.
    """
    points = clifford_quaternions()
    count = len(points)
    product = [[_find_clifford(multiply(points[i], points[j])) for j in range(count)]
               for i in range(count)]  # fmt: skip
    t = quaternion_of(("t",))
    prefix = [quaternion_of(text) for text in ((), ("h",), ("h", "s"))]
    passing: list[tuple[int, int]] = []
    for i in range(count):
        for k, left in enumerate(prefix):
            # C T = P C' needs (left T)^-1 C T to be a Clifford.
            head = multiply(left, t)
            inverse = head * np.array([1.0, -1.0, -1.0, -1.0])
            rest = multiply(multiply(inverse, points[i]), t)
            if np.abs(np.abs(points @ rest) - 1).min() < 1e-9:
                passing.append((k, _find_clifford(rest)))
                break
    s = quaternion_of(("s",))
    doubled = [
        [_find_clifford(multiply(multiply(left, s), point)) for point in points] for left in prefix
    ]
    return product, passing, doubled


@dataclass(frozen=True, slots=True)
class Word:
    """Gates that make a unitary, with the fewest T.

    Attributes:
        gates: In the order of a circuit.
        t_count: How many of them are T.
        eighths: The phase in units of pi/8: the product of the gates' matrices is
            ``exp(i pi eighths / 8)`` times the unitary of the quaternion.
        quaternion: What the gates make, float64[4].
    """

    gates: tuple[str, ...]
    t_count: int
    eighths: int
    quaternion: tuple[float, float, float, float]

    def distance(self, target: Quaternions) -> float:
        """Return how far it is from a unitary in operator norm, up to phase."""
        return float(distance(np.array(self.quaternion), target))

    def phase(self, target: Quaternions) -> int:
        """Return the phase, units of pi/8, by which the gates come nearest to a quaternion."""
        near = float(np.dot(self.quaternion, target)) >= 0
        return (-self.eighths + (0 if near else 8)) % 16


def word_of(syllables: Sequence[int], clifford: int) -> Word:
    """Return the word of a normal form.

    Args:
        syllables: Numbers of ``SYLLABLES`` as a product of matrices, 0 only in front.
        clifford: Number of the Clifford gate at the right end.
    """
    gates = list(CLIFFORDS[clifford])
    for number in reversed(syllables):
        gates += reversed(SYLLABLES[number])
    point = quaternion_of(gates)
    eighths = sum(_GATES[name][1] for name in gates) % 16
    a, b, c, d = (float(x) for x in point / np.linalg.norm(point))
    return Word(tuple(gates), len(syllables), eighths, (a, b, c, d))


def normal_form(gates: Iterable[str]) -> Word:
    """Return the word with the fewest T that makes what these gates make, up to phase.

    One table lookup a gate.

    Args:
        gates: Names in the order of a circuit: h, x, y, z, s, sdg, t, tdg.
    """
    product, passing, doubled = _tables()
    syllables: list[int] = []
    tail = 0
    singles = _singles()
    for name in reversed(tuple(gates)):
        if name in ("t", "tdg"):
            if name == "tdg":
                tail = product[tail][singles["sdg"]]
            number, rest = passing[tail]
            if number == 0 and syllables:
                tail = doubled[syllables.pop()][rest]
            else:
                syllables.append(number)
                tail = rest
        else:
            tail = product[tail][singles[name]]
    return word_of(syllables, tail)


@functools.cache
def _singles() -> dict[str, int]:
    """Return gate -> number of its Clifford."""
    return {
        name: _find_clifford(np.array(point))
        for name, (point, _) in _GATES.items()
        if name not in ("t", "tdg")
    }
