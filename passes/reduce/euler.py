"""Spellings of one-qubit unitaries in a basis of gates, over arrays of matrices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError, suggest
from qcomp.ir.angle import PI
from qcomp.ir.gates import BY_NAME, GATES, NUM_ANGLES, G

__all__ = ["Basis", "Spelling", "Turn", "distinct", "euler_angles", "snapped"]

_SNAP = 5e-14
_GRID_BITS = 12
_UNWRITABLE = 99
_PIECE = 1 << 13
_WEIGHTS = np.arange(1, 16, 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)

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


def _plus(*terms: Turn | int) -> Turn:
    """Add angles, at least one; an integer counts quarters of pi."""
    turns = [term for term in terms if not isinstance(term, int)]
    frac, rem = turns[0]
    for more, rest in turns[1:]:
        frac, rem = frac + more, rem + rest
    quarters = sum(term for term in terms if isinstance(term, int))
    if quarters:
        frac = frac + quarters * (PI >> 2)
    # One turn is enough: the rest is phase, which is measured at the end.
    return ((frac + PI) & (2 * PI - 1)) - PI, rem


def _minus(term: Turn) -> Turn:
    return -term[0], -term[1]


def _is(turn: Turn, quarters: int) -> NDArray[np.bool_]:
    """Whether an angle is exactly that many quarters of pi, whole turns apart."""
    frac, rem = turn
    result: NDArray[np.bool_] = (rem == 0) & ((frac - quarters * (PI >> 2)) % (2 * PI) == 0)
    return result


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


def distinct(matrix: NDArray[np.complex128]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return places of the matrices that differ, and for each matrix which of those it is.

    Equal means bit by bit; a circuit of few kinds of gates has few different chains.

    Args:
        matrix: complex128[n, 2, 2].
    """
    bits = np.ascontiguousarray(matrix).view(np.uint64).reshape(len(matrix), 8)
    folded = (bits ^ (bits >> np.uint64(29))) * _WEIGHTS
    key = np.bitwise_xor.reduce(folded ^ (folded >> np.uint64(32)), axis=1)
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    if not np.array_equal(bits[first[which]], bits):  # two matrices of one key
        everything = np.arange(len(matrix))
        return everything, everything
    return first, which


@dataclass(frozen=True, slots=True)
class Spelling:
    """One-qubit unitaries as gates, n of them, at most s gates each.

    Attributes:
        code: int64[n, s], gates in time order, -1 for no gate.
        frac: int64[n, s, 3], exact parts of their angles.
        rem: float64[n, s, 3], float parts.
        length: int64[n], number of gates.
        phase_frac: int64[n], exact part of the global phase that the gates lack.
        phase_rem: float64[n], its float part.
    """

    code: NDArray[np.int64]
    frac: NDArray[np.int64]
    rem: NDArray[np.float64]
    length: NDArray[np.int64]
    phase_frac: NDArray[np.int64]
    phase_rem: NDArray[np.float64]

    def take(self, index: NDArray[np.intp]) -> Spelling:
        """Return the spellings at these places."""
        return Spelling(
            self.code[index],
            self.frac[index],
            self.rem[index],
            self.length[index],
            self.phase_frac[index],
            self.phase_rem[index],
        )

    def product(self) -> NDArray[np.complex128]:
        """Multiply the gates out, without the phases, complex128[n, 2, 2]."""
        product = np.empty((len(self.length), 2, 2), dtype=complex)
        product[:] = np.eye(2)
        value = self.frac * (np.pi / PI) + self.rem
        steps = np.empty((*self.code.shape, 2, 2), dtype=complex)
        used = np.bincount(self.code.ravel() + 1, minlength=1)[1:]
        for code in np.flatnonzero(used).tolist():
            row, slot = np.nonzero(self.code == code)
            angles = [value[row, slot, i] for i in range(NUM_ANGLES[code])]
            steps[row, slot] = GATES[code].matrix(*angles)
        for k in range(self.code.shape[1]):
            rows = np.flatnonzero(self.code[:, k] >= 0)
            if len(rows):
                product[rows] = steps[rows, k] @ product[rows]
        return product


Slot = tuple[int, tuple[Turn, ...]]
Candidate = tuple[NDArray[np.bool_], tuple[Slot, ...]]
"""Where an identity holds, and its gates in time order with their angles."""


@dataclass(frozen=True, slots=True)
class Basis:
    """One-qubit gates that may be written.

    Attributes:
        names: Their names, in the order given.
    """

    names: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> Basis:
        """Read names joined by dashes.

        Raises:
            UsageError: If one is no one-qubit gate.
        """
        names = tuple(part.strip() for part in text.split("-") if part.strip())
        known = [row.name for row in GATES if row.num_qubits == 1 and row.is_unitary]
        for name in names:
            if name not in known:
                raise UsageError(f"'{name}' is no one-qubit gate", hint=suggest(name, known))
        if not names:
            raise UsageError("the basis is empty", hint="for example basis=rz-sx-x")
        return Basis(names)

    @property
    def foreign(self) -> NDArray[np.int8]:
        """1 for the gates outside the basis, by code."""
        out = np.ones(len(GATES), dtype=np.int8)
        out[[BY_NAME[name].code for name in self.names]] = 0
        return out

    def spell(self, matrix: NDArray[np.complex128]) -> Spelling:
        """Write each matrix with the fewest gates of the basis.

        Args:
            matrix: complex128[n, 2, 2], unitary.

        Returns:
            The spellings; ``length`` is 99 where the basis cannot write the matrix.
        """
        # In pieces that stay in the processor's cache.
        pieces = [
            self._spell(matrix[at : at + _PIECE]) for at in range(0, max(len(matrix), 1), _PIECE)
        ]
        if len(pieces) == 1:
            return pieces[0]
        return Spelling(
            *(
                np.concatenate([getattr(piece, f.name) for piece in pieces])
                for f in fields(Spelling)
            )
        )

    def _spell(self, matrix: NDArray[np.complex128]) -> Spelling:
        n = len(matrix)
        angles = tuple(snapped(value) for value in euler_angles(matrix))
        best = Spelling(
            np.full((n, 5), -1, dtype=np.int64),
            np.zeros((n, 5, 3), dtype=np.int64),
            np.zeros((n, 5, 3)),
            np.full(n, _UNWRITABLE, dtype=np.int64),
            np.zeros(n, dtype=np.int64),
            np.zeros(n),
        )
        for holds, slots in self._candidates(*angles):
            _offer(best, holds, slots)
        _add_phases(best, matrix)
        return best

    def _candidates(self, theta: Turn, phi: Turn, lam: Turn) -> Iterator[Candidate]:
        """Yield the identities that the basis has gates for, good ones first."""
        has = {BY_NAME[name].code for name in self.names}
        everywhere = np.ones(len(theta[0]), dtype=bool)
        flat, right, half = _is(theta, 0), _is(theta, 2), _is(theta, 4)
        yield flat & _is(_plus(phi, lam), 0), ()
        for name in self.names:
            row = BY_NAME[name]
            if row.num_angles == 0:
                frac, rem = _turns_of(row.code)
                same = everywhere
                for k, (whole, rest) in enumerate((theta, phi, lam)):
                    same = same & ((whole - frac[k]) % (2 * PI) == 0) & (rest == rem[k])
                yield same, ((row.code, ()),)
        z = G.RZ if G.RZ in has else G.P if G.P in has else -1
        if z < 0:
            if G.RY in has:
                yield _is(phi, 0) & _is(lam, 0), ((G.RY, (theta,)),)
                yield _is(phi, 4) & _is(lam, 4), ((G.RY, (_minus(theta),)),)
            if G.RX in has:
                yield _is(phi, -2) & _is(lam, 2), ((G.RX, (theta,)),)
                yield _is(phi, 2) & _is(lam, -2), ((G.RX, (_minus(theta),)),)
        else:
            yield from _around(z, has, theta, phi, lam, flat, right, half)
        if G.U in has:
            yield everywhere, ((G.U, (theta, phi, lam)),)
        if G.R in has:
            # r(theta, a) = u(theta, a - pi/2, pi/2 - a)
            yield _is(_plus(phi, lam), 0), ((G.R, (theta, _plus(phi, 2))),)
        if z < 0:
            yield from _in_the_plane(has, theta, phi, lam, flat, right, half)


def _in_the_plane(
    has: set[int],
    theta: Turn,
    phi: Turn,
    lam: Turn,
    flat: NDArray[np.bool_],
    right: NDArray[np.bool_],
    half: NDArray[np.bool_],
) -> Iterator[Candidate]:
    """Yield the identities with turns about axes in the plane alone.

    ``gpi(a) r(t, b) ~ rz(2a - 2b) r(t + pi, b)`` and ``gpi2(a) gpi(b) gpi2(c) ~ rz(a) ry(a + c -
    2b) rz(-c)``.
    """
    everywhere = np.ones(len(flat), dtype=bool)
    middle = _plus(_halved(_plus(phi, _minus(lam))), 2)
    if G.R in has:
        full = np.array([PI]), np.zeros(1)
        yield half, ((G.R, (full, middle)),)
        first = _plus(theta, -4), _plus(_minus(lam), 2)
        yield everywhere, ((G.R, first), (G.R, (full, middle)))
    if G.GPI2 in has:
        yield right & _is(_plus(phi, lam), 0), ((G.GPI2, (_plus(phi, 2),)),)
    if G.GPI in has:
        yield half, ((G.GPI, (middle,)),)
        turn = (np.zeros(1, dtype=np.int64), np.zeros(1))
        yield flat, ((G.GPI, (turn,)), (G.GPI, (_halved(_plus(phi, lam)),)))
    if G.GPI in has and G.GPI2 in has:
        yield right, ((G.GPI2, (_plus(_minus(lam), -2),)), (G.GPI, (_plus(middle, -4),)))
        between = _halved(_plus(phi, _minus(lam), _minus(theta)))
        yield everywhere, ((G.GPI2, (_minus(lam),)), (G.GPI, (between,)), (G.GPI2, (phi,)))


def _halved(turn: Turn) -> Turn:
    frac, rem = turn
    return frac >> 1, rem / 2 + (frac & 1) * (np.pi / PI / 2)


def _around(
    z: int,
    has: set[int],
    theta: Turn,
    phi: Turn,
    lam: Turn,
    flat: NDArray[np.bool_],
    right: NDArray[np.bool_],
    half: NDArray[np.bool_],
) -> Iterator[Candidate]:
    """Yield the identities with rotations about Z on both sides of something else."""
    everywhere = np.ones(len(flat), dtype=bool)
    yield flat, ((z, (_plus(phi, lam),)),)
    if half.any():
        if G.X in has:
            yield half, ((z, (_plus(lam, _minus(phi), 4),)), (G.X, ()))
        if G.Y in has:
            yield half, ((z, (_plus(lam, _minus(phi)),)), (G.Y, ()))
    if right.any():
        if G.H in has:
            yield right, ((z, (_plus(lam, 4),)), (G.H, ()), (z, (phi,)))
        if G.SX in has:
            yield right, ((z, (_plus(lam, -2),)), (G.SX, ()), (z, (_plus(phi, 2),)))
        if G.SXDG in has:
            yield right, ((z, (_plus(lam, 2),)), (G.SXDG, ()), (z, (_plus(phi, -2),)))
    # u(theta, phi, lambda) = rz(phi + lambda) r(theta, pi/2 - lambda)
    axis, rest = _plus(_minus(lam), 2), _plus(phi, lam)
    if G.R in has:
        yield everywhere, ((G.R, (theta, axis)), (z, (rest,)))
    if G.GPI in has:
        yield half, ((G.GPI, (axis,)), (z, (rest,)))
    if G.GPI2 in has:
        yield right, ((G.GPI2, (axis,)), (z, (rest,)))
        second = _plus(_minus(lam), _minus(theta), 4)
        pair = (G.GPI2, (_minus(lam),)), (G.GPI2, (second,))
        yield everywhere, (*pair, (z, (_plus(rest, theta),)))
    middle: list[tuple[int, Callable[[Turn], tuple[Slot, ...]]]] = []
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
            yield everywhere, ((z, (left,)), *gates(turned), (z, (rest,)))


@functools.cache
def _turns_of(code: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return theta, phi, lambda of a gate without angles, exact parts and float parts."""
    turns = [snapped(value) for value in euler_angles(GATES[code].matrix()[None])]
    return tuple(int(frac[0]) for frac, _ in turns), tuple(float(rem[0]) for _, rem in turns)


def _offer(best: Spelling, holds: NDArray[np.bool_], slots: tuple[Slot, ...]) -> None:
    """Take the candidate wherever it holds and is shorter than the best so far."""
    fixed = sum(gate not in _VANISHING for gate, _ in slots)
    rows = np.flatnonzero(holds & (best.length > fixed))
    if not len(rows):
        return
    code = np.full((len(rows), best.code.shape[1]), -1, dtype=np.int64)
    for k, (gate, angles) in enumerate(slots):
        idle = _is(angles[0], 0) if gate in _VANISHING else None
        code[:, k] = gate if idle is None else np.where(_at(idle, rows), -1, gate)
    length = (code >= 0).sum(axis=1)
    shorter = length < best.length[rows]
    if not shorter.all():
        rows, code, length = rows[shorter], code[shorter], length[shorter]
    best.code[rows] = code
    best.length[rows] = length
    for k, (_, angles) in enumerate(slots):
        for i, (frac, rem) in enumerate(angles):
            best.frac[rows, k, i] = _at(frac, rows)
            best.rem[rows, k, i] = _at(rem, rows)


def _at(values: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """Return the values at these rows; one value stands for all."""
    return values[rows] if len(values) > 1 else values


def _add_phases(best: Spelling, matrix: NDArray[np.complex128]) -> None:
    """Fill in the phase by which each spelling differs from its matrix."""
    overlap = np.einsum("nij,nij->n", best.product().conj(), matrix)
    good = best.length < _UNWRITABLE
    assert np.all(np.abs(overlap[good]) > 2 - 1e-9), "an identity of the basis is wrong"
    best.phase_frac[:], best.phase_rem[:] = snapped(np.angle(overlap))
