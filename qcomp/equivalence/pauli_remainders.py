"""What is left of a window whose sides are not the same: a Clifford, and at most three rotations.

A product M of rotations about the Paulis of a group is ``K L`` up to phase, K a Clifford and L
rotations about the Paulis of a smaller group. The Paulis Q for which ``M Q M^-1`` is a Pauli again
make a group S; K is chosen to do the same to them, so that ``L = K^-1 M`` commutes with S and is
made of the Paulis that do. Here S leaves room for none (M is a Clifford), for one, or for two that
anticommute, which are Euler angles.

Written apart from the passes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import combinations
from math import atan2, pi

import numpy as np
from numpy.typing import NDArray

from qcomp.equivalence.pauli_form import Local, commutes, times, turned
from qcomp.equivalence.pauli_groups import Group, Turn

__all__ = ["SAME", "Remainder", "carried", "quarter_turns", "remainder"]

QUBITS = 4
"""Pairs and central Paulis of the largest group whose products are taken apart."""

SURE = 1e-12
"""How far from 1 an entry may be that stands for a Pauli."""

SAME = 1e-11
"""How far a product may be from what it was taken apart into."""

Matrix = NDArray[np.complex128]
Remainder = tuple[list[Turn], list[Turn], float]
"""The quarter and half turns of K and the rotations of L, each the first applied first, and how far
M is from ``K L``."""


def quarter_turns(rows: Sequence[Local], goals: Sequence[Local], most: int) -> list[Turn] | None:
    """Return quarter and half turns whose product E makes ``E^-1 row E = goal``, None if too many.

    Each quarter turn is about x F(x), x a Pauli and F the map of Paulis that is left to make: it
    takes x to F(x) where the two anticommute, and leaves all that F leaves.

    Args:
        rows: Hermitian generators of all Paulis at hand; each of the first half anticommutes with
            its equal in the second half and with no other.
        goals: What they should become, the same.
        most: Quarter turns at most.

    Source: Koenig, Smolin 2014 (arXiv:1406.2170), section 2.
    """
    rows = list(rows)
    out: list[Turn] = []
    while True:
        away = [i for i, row in enumerate(rows) if row[:2] != goals[i][:2]]
        if not away:
            break
        if len(out) >= most:
            return None
        x, z, _ = _axis([(rows[i], goals[i]) for i in away])
        out.append(Turn(x, z, pi / 2))
        rows = [turned(row, out[-1].pauli, 1) for row in rows]
    half = len(rows) // 2
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


def carried(pauli: Local, turns: Sequence[Turn]) -> Local:
    """Return ``K^-1 P K``, K the product of quarter and half turns, the first applied first."""
    for turn in reversed(turns):
        pauli = turned(pauli, turn.pauli, round(turn.angle / (pi / 2)) % 4)
    return pauli


def remainder(group: Group, turns: Sequence[Turn], *, loose: bool) -> Remainder | None:
    """Take a product of rotations apart, None where more is left than a Clifford and a few.

    Args:
        group: A group that has all their Paulis.
        turns: The rotations, the first applied first.
        loose: Whether rotations may be left besides the Clifford.
    """
    k = group.pairs + group.center
    if k > QUBITS:
        return None
    matrix = _dense(group.matrix(turns))
    found = _taken_apart(matrix, k, loose)
    if found is None:
        return None
    real = [[_real(turn, group) for turn in part] for part in found[:2]]
    quarters, turns = ([turn for turn in part if turn is not None] for part in real)
    if len(quarters) < len(found[0]) or len(turns) < len(found[1]):
        return None
    return quarters, turns, found[2]


def _dense(blocks: Matrix) -> Matrix:
    """Return blocks as one matrix: central Paulis are Z on the high qubits."""
    count, size, _ = blocks.shape
    out = np.zeros((count, size, count, size), dtype=complex)
    out[np.arange(count), :, np.arange(count)] = blocks
    return out.reshape(count * size, count * size)


def _real(turn: Turn, group: Group) -> Turn | None:
    """Return a rotation over qubits of the matrix as one over the group, None if it has none."""
    x, z = turn.x, turn.z
    if x >> group.pairs:
        return None
    total: Local = (0, 0, (x & z).bit_count() & 3)
    for j in range(group.pairs):
        if x >> j & 1:
            total = times(total, group.generators[2 * j])
    for j in range(group.pairs + group.center):
        if z >> j & 1:
            at = 2 * j + 1 if j < group.pairs else group.pairs + j
            total = times(total, group.generators[at])
    return Turn.of(total, turn.angle)


@functools.cache
def _basis(k: int) -> tuple[tuple[Local, ...], Matrix]:
    """Return all Paulis on so many qubits, Hermitian with sign plus, and their matrices."""
    size = 1 << k
    words = tuple((x, z, (x & z).bit_count() & 3) for x in range(size) for z in range(size))
    column = np.arange(size)
    out = np.zeros((len(words), size, size), dtype=complex)
    for i, (x, z, p) in enumerate(words):
        out[i, column ^ x, column] = 1j**p * (1 - 2.0 * (np.bitwise_count(column & z) & 1))
    return words, out


def _taken_apart(m: Matrix, k: int, loose: bool) -> Remainder | None:
    words, _ = _basis(k)
    # X and Z of each qubit say whether all Paulis stay Paulis.
    image = _images(m, k, np.array([1 << j for j in range(2 * k)]))
    if len(image) < 2 * k:
        if not loose:
            return None
        image = _images(m, k, np.arange(1, len(words)))
    kept = Group.of([Turn(x, z, 0.0) for x, z in image])
    rest = [word for word in words[1:] if all(commutes(word, g) for g in kept.generators)]
    pairs = kept.generators[: 2 * kept.pairs]
    goals = [*pairs[::2]], [*pairs[1::2]]
    rows = [image[g[:2]] for g in goals[0]], [image[g[:2]] for g in goals[1]]
    if rest:
        ends = _ends(words, [*goals[0], *goals[1]], rest, None), None
        if ends[0] is None:
            return None
        g, h = ends[0]
        fixed = image.get(g[:2]) if len(rest) == 1 else None
        others = _ends(words, [*rows[0], *rows[1]], rest, fixed)
        if others is None:
            return None
        for side, (one, other) in ((goals, (g, h)), (rows, others)):
            side[0].append(one)
            side[1].append(other)
    quarters = quarter_turns([*rows[0], *rows[1]], [*goals[0], *goals[1]], 4 * k)
    if quarters is None:
        return None
    left = _product(quarters, k).conj().T @ m
    turns = _euler(left, goals[0][-1], goals[1][-1], len(rest) == 1, k) if rest else []
    together = _product([*turns, *quarters], k).conj().T @ m
    trace = np.trace(together)
    phase = trace / abs(trace) if trace else 1.0
    error = float(np.linalg.norm(together - np.eye(1 << k) * phase))
    return (quarters, turns, error) if error <= SAME else None


def _images(m: Matrix, k: int, which: NDArray[np.intp]) -> dict[tuple[int, int], Local]:
    """Return ``M Q M^-1`` for those of some Paulis Q, by their bits, that it leaves Paulis."""
    words, paulis = _basis(k)
    images = m @ paulis[which] @ m.conj().T
    flat = images.transpose(0, 2, 1).reshape(len(which), -1)
    table = (paulis.reshape(len(words), -1) @ flat.T).real / (1 << k)
    at = np.abs(table).argmax(axis=0)
    value = table[at, np.arange(len(which))]
    out: dict[tuple[int, int], Local] = {}
    for i in np.flatnonzero(np.abs(value) > 1 - SURE).tolist():
        x, z, p = words[at[i]]
        out[words[which[i]][:2]] = x, z, p if value[i] > 0 else (p + 2) & 3
    return out


def _ends(
    words: Sequence[Local], pairs: Sequence[Local], rest: Sequence[Local], first: Local | None
) -> tuple[Local, Local] | None:
    """Return two Paulis that anticommute, and commute with pairs: ``first`` and another.

    Where it is None the first of ``rest`` stands for it, which has to commute with the pairs.
    """
    free = [word for word in words[1:] if all(commutes(word, g) for g in pairs)]
    if first is None:
        first = next((word for word in free if word in rest or len(rest) > 1), None)
    if first is None or len(free) != 3:
        return None
    return first, next(word for word in free if not commutes(word, first))


def _product(turns: Sequence[Turn], k: int) -> Matrix:
    """Return rotations as one matrix."""
    _, paulis = _basis(k)
    out = np.eye(1 << k, dtype=complex)
    for turn in turns:
        other = paulis[(turn.x << k) + turn.z] @ out
        out = np.cos(turn.angle / 2) * out - 1j * np.sin(turn.angle / 2) * other
    return out


def _euler(m: Matrix, g: Local, h: Local, single: bool, k: int) -> list[Turn]:
    """Return rotations about g, h, g whose product is m up to phase; about g alone if single."""
    _, paulis = _basis(k)
    size = 1 << k
    one, other = (paulis[(p[0] << k) + p[1]] * 1j ** (p[2] - (p[0] & p[1]).bit_count())
                  for p in (g, h))  # fmt: skip
    parts = [
        np.trace(basis.conj().T @ m) / size for basis in (np.eye(size), one, other, one @ other)
    ]
    # As matrices of one qubit: g is Z and h is X.
    u = np.array(
        [[parts[0] + parts[1], parts[2] + parts[3]], [parts[2] - parts[3], parts[0] - parts[1]]]
    )
    if single:
        turns = [(g, float(np.angle(u[1, 1]) - np.angle(u[0, 0])))]
    else:
        u = u / np.sqrt(np.linalg.det(u))
        middle = 2 * atan2(abs(u[1, 0]), abs(u[0, 0]))
        total = 2 * float(np.angle(u[1, 1])) if abs(u[1, 1]) > 1e-9 else 0.0
        between = 2 * float(np.angle(1j * u[1, 0])) if abs(u[1, 0]) > 1e-9 else 0.0
        turns = [(g, (total - between) / 2), (h, middle), (g, (total + between) / 2)]
    return [Turn.of(pauli, angle) for pauli, angle in turns if abs(angle) > 1e-14]
