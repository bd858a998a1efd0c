"""All products of Clifford gates and T with few T, and unitaries looked up among them.

There are ``24 (3 2^m - 2)`` unitaries with at most m T gates, so that about ``3 log2(1/eps) - 5`` T
come within eps of a unitary of no special kind (volume of a ball in SU(2)), a third of what three
rotations about Z take. Longer products are found from two halves: ``U`` is near ``L M`` where
``L^-1 U`` is near ``M``, a search for nearest neighbours on the sphere of unit quaternions.

Source: Matsumoto, Amano 2008 (arXiv:0806.3834) for the enumeration; the direct synthesis of
one-qubit unitaries after Hao, Xu, Tannu 2025 (arXiv:2503.15843), by enumeration and nearest
neighbours in place of their tensor networks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.synthesize.clifford_t.normal_form import (
    Word,
    clifford_quaternions,
    multiply,
    quaternion_of,
    word_of,
)

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

__all__ = ["LISTED_T", "front", "shortest", "sweep"]

LISTED_T = 9
"""Up to so many T gates every unitary is listed: 36,816 of them."""

_RIGHT_T = 12
"""T gates of the right half where two are joined: 98,304 unitaries."""

Quaternions = NDArray[np.float64]

_INVERSE = np.array([1.0, -1.0, -1.0, -1.0])
"""A quaternion times this is its inverse."""


@functools.cache
def _powers(count: int) -> Quaternions:
    """Return the products of ``count`` syllables HT and SHT, float64[2^count, 4].

    Bit ``count - 1 - k`` of the index says which the k-th of them is.
    """
    if count == 0:
        return np.array([[1.0, 0.0, 0.0, 0.0]])
    pair = np.stack([quaternion_of(("t", "h")), quaternion_of(("t", "h", "s"))])
    shorter = _powers(count - 1)
    return multiply(shorter[:, None, :], pair[None, :, :]).reshape(-1, 4)


@functools.cache
def _lefts(count: int) -> Quaternions:
    """Return the normal forms with ``count`` T and no Clifford at the end, T in front last."""
    plain = _powers(count)
    if count == 0:
        return plain
    return np.concatenate([plain, multiply(quaternion_of(("t",)), _powers(count - 1))])


def _syllables(count: int, index: int) -> list[int]:
    """Return the syllables of ``_powers(count)[index]``."""
    return [1 + (index >> (count - 1 - k) & 1) for k in range(count)]


def _left_syllables(count: int, index: int) -> list[int]:
    """Return the syllables of ``_lefts(count)[index]``."""
    if count and index >= 1 << count:
        return [0, *_syllables(count - 1, index - (1 << count))]
    return _syllables(count, index)


@functools.cache
def _listed() -> tuple[Quaternions, NDArray[np.int64]]:
    """Return all unitaries with at most ``LISTED_T`` T, fewest first, and where each T begins."""
    levels = [
        multiply(_lefts(count)[:, None, :], clifford_quaternions()[None]).reshape(-1, 4)
        for count in range(LISTED_T + 1)
    ]
    ends = np.cumsum([len(level) for level in levels])
    return np.concatenate(levels), np.concatenate([[0], ends])


def _listed_word(count: int, index: int) -> Word:
    """Return the word of row ``index`` of one number of T."""
    return word_of(_left_syllables(count, index // 24), index % 24)


def front(target: Quaternions) -> list[tuple[int, float, Word]]:
    """Return the nearest unitary for each number of T up to ``LISTED_T``, where it gets nearer.

    Args:
        target: float64[4].

    Returns:
        (T count, operator norm of the difference up to phase, word), T rising, errors falling.
    """
    points, start = _listed()
    score = np.abs(points @ target)
    out: list[tuple[int, float, Word]] = []
    for count in range(LISTED_T + 1):
        index = int(np.argmax(score[start[count] : start[count + 1]]))
        if out and score[start[count] + index] <= 1 - out[-1][1] ** 2 / 2 + 1e-15:
            continue
        word = _listed_word(count, index)
        error = word.distance(target)
        if not out or error < out[-1][1] - 1e-12:
            out.append((count, error, word))
    return out


@functools.cache
def _tree(count: int) -> cKDTree:
    """Return a tree of the products of ``count`` syllables and a Clifford, with both signs."""
    from scipy.spatial import cKDTree

    half = multiply(_powers(count)[:, None, :], clifford_quaternions()[None]).reshape(-1, 4)
    return cKDTree(np.concatenate([half, -half]), balanced_tree=False, compact_nodes=False)


def _nearest(target: Quaternions, epsilon: float, left: list[int], count: int) -> Word | None:
    """Return the nearest product of syllables ``left`` and ``count`` more within epsilon."""
    points = target
    if left:
        word = word_of(left, 0).quaternion
        points = multiply(np.array(word) * _INVERSE, target)
    apart, index = _tree(count).query(points, k=1, distance_upper_bound=epsilon)
    if not np.isfinite(apart):
        return None
    where = int(index) % (24 << count)
    return word_of([*left, *_syllables(count, where // 24)], where % 24)


def _nearest_joined(target: Quaternions, epsilon: float, left_t: int) -> Word | None:
    """Return the nearest product with ``left_t`` T more than the tree within epsilon, if any."""
    tree: Any = _tree(_RIGHT_T)
    points = multiply(_lefts(left_t) * _INVERSE, target)
    apart, index = tree.query(points, k=1, distance_upper_bound=epsilon)
    best = int(np.argmin(apart))
    if not np.isfinite(apart[best]):
        return None
    where = int(index[best]) % (24 << _RIGHT_T)
    syllables = _left_syllables(left_t, best) + _syllables(_RIGHT_T, where // 24)
    return word_of(syllables, where % 24)


def sweep(target: Quaternions, epsilon: float, most_t: int) -> Iterator[Word]:
    """Yield for each number of T the nearest word, where it is nearer than all before.

    Up to ``LISTED_T`` T by a list, up to 12 by a tree, beyond that by two halves: the time doubles
    with each T, about 0.05 CPU seconds in all up to 26 T.

    Args:
        target: float64[4].
        epsilon: Operator norm, up to phase; what is farther is left out.
        most_t: The most T gates that are of use.
    """
    for count, error, listed in front(target):
        if error <= epsilon and count <= most_t:
            epsilon = error * (1 - 1e-12)
            yield listed
    for count in range(LISTED_T + 1, most_t + 1):
        if count <= _RIGHT_T:
            # T in front is a left half of its own.
            found = [
                _nearest(target, epsilon, [], count),
                _nearest(target, epsilon, [0], count - 1),
            ]
        else:
            found = [_nearest_joined(target, epsilon, count - _RIGHT_T)]
        for word in found:
            if word is not None and (error := word.distance(target)) <= epsilon:
                epsilon = error * (1 - 1e-12)
                yield word


def shortest(target: Quaternions, epsilon: float, most_t: int) -> Word | None:
    """Return a word of the fewest T within epsilon of a unitary, up to phase; None beyond most_t.

    Args:
        target: float64[4].
        epsilon: Operator norm.
        most_t: The most T gates that are of use.
    """
    return next(sweep(target, epsilon, most_t), None)
