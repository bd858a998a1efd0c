"""Unitaries on one and two qubits as products of any finite set of gates, given as matrices.

Guided search: all different products of up to half the length are tabulated, and a remainder
``L^-1 U`` is looked up among them, nearest first; what is left after a prefix is so known exactly
half-way to the end, the best heuristic that a search over prefixes can have. The first length with
a hit is the shortest there is for the accuracy, as far as the table reaches. It needs no inverses.

Beyond that, one qubit and a set closed under inverses, the theorem of Solovay and Kitaev:

    U = D U_n,   D = V W V^-1 W^-1 + O(|D - 1|^(3/2)),   each of V, W by the level below

which gets 1.5 times the digits for 5 times the length, from the search's words in place of short
ones.

Source: AQ*: Chen et al. 2022 (arXiv:2204.06904) for the setting of bases with and without inverses
(their heuristic is learned, this one computed); Dawson, Nielsen 2005 (arXiv:quant-ph/0505030).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import PassError, UsageError

__all__ = ["FiniteBasis", "Product"]

Matrices = NDArray[np.complex128]

_TABLE = {2: 60_000, 4: 12_000}
"""Products that are tabulated, by the size of the matrices."""

_LEFTS = {2: 60_000, 4: 6_000}
"""Prefixes of one length that are tried."""

_LEVELS = 6
"""Levels of Solovay and Kitaev at most."""


@dataclass(frozen=True)
class Product:
    """A product of basis gates near a unitary.

    Attributes:
        names: In the order of a circuit.
        error: Operator norm of the difference, up to a global phase.
    """

    names: tuple[str, ...]
    error: float


def _special(matrix: Matrices) -> Matrices:
    """Return matrices divided by a root of their determinants, complex128[..., d, d]."""
    size = matrix.shape[-1]
    root = np.linalg.det(matrix) ** (1 / size)
    return matrix / root[..., None, None]


def _distance(u: Matrices, v: Matrices) -> float:
    """Return the operator norm of ``U - exp(i p) V`` at the best phase of the trace."""
    overlap = np.vdot(v, u)
    phase = overlap / abs(overlap) if overlap else 1.0
    return float(np.linalg.norm(u - phase * v, 2))


def _quaternions(matrix: Matrices) -> NDArray[np.float64]:
    """Return special unitaries of one qubit as unit vectors, float64[n, 4]."""
    return np.stack(
        [
            matrix[:, 0, 0].real,
            -matrix[:, 0, 1].imag,
            -matrix[:, 0, 1].real,
            -matrix[:, 0, 0].imag,
        ],
        axis=1,
    )


def _keys(matrix: Matrices) -> list[bytes]:
    """Return keys that are equal for matrices that differ by a phase."""
    flat = matrix.reshape(len(matrix), -1)
    # No product of usual gates has an entry of this size, so rounding does not move the choice.
    first = np.argmax(np.abs(flat) > 0.3137, axis=1)
    lead = flat[np.arange(len(flat)), first]
    turned = np.round(flat * (abs(lead) / lead)[:, None], 6) + (0.0 + 0.0j)
    return [row.tobytes() for row in turned]


class FiniteBasis:
    """A finite set of gates on one or two qubits.

    Args:
        gates: Name -> unitary matrix, all 2 x 2 or all 4 x 4; operand 0 is the least significant
            bit.

    Raises:
        UsageError: If a matrix is not unitary or has another size.
    """

    def __init__(self, gates: Mapping[str, ArrayLike]) -> None:
        if not gates:
            raise UsageError("a basis needs a gate", hint='FiniteBasis({"h": h, "t": t})')
        self.names = tuple(gates)
        matrices = [np.asarray(gates[name], dtype=np.complex128) for name in self.names]
        size = matrices[0].shape
        for name, matrix in zip(self.names, matrices, strict=True):
            if matrix.shape not in ((2, 2), (4, 4)) or matrix.shape != size:
                raise UsageError(
                    f"the gate '{name}' has shape {list(matrix.shape)}",
                    hint="give matrices that are all 2 x 2 or all 4 x 4",
                )
            if not np.allclose(matrix @ matrix.conj().T, np.eye(len(matrix)), atol=1e-9):
                raise UsageError(f"the gate '{name}' is not unitary")
        self._gates = _special(np.stack(matrices))
        self._size = size[0]
        self._trees: dict[int, Any] = {}

    @functools.cached_property
    def inverses(self) -> dict[str, str]:
        """Name -> the gate that is its inverse up to phase, where the basis has one."""
        keys = dict(zip(_keys(self._gates), self.names, strict=True))
        turned = _keys(self._gates.conj().transpose(0, 2, 1))
        return {
            name: keys[key] for name, key in zip(self.names, turned, strict=True) if key in keys
        }

    @property
    def is_inverse_closed(self) -> bool:
        """Whether it has the inverse of each of its gates."""
        return len(self.inverses) == len(self.names)

    @functools.cached_property
    def _levels(self) -> list[tuple[Matrices, NDArray[np.int64], NDArray[np.int64]]]:
        """Products by length: matrices, the number of the one without the last gate, that gate."""
        size = self._size
        none = np.zeros(1, dtype=np.int64)
        out = [(np.eye(size, dtype=np.complex128)[None], none, none)]
        seen = set(_keys(out[0][0]))
        total = 1
        while total < _TABLE[size] and len(out[-1][0]):
            before = out[-1][0]
            products = (self._gates[:, None] @ before[None]).reshape(-1, size, size)
            keep = []
            for number, key in enumerate(_keys(products)):
                if key not in seen:
                    seen.add(key)
                    keep.append(number)
            index = np.array(keep, dtype=np.int64)
            out.append((products[index], index % len(before), index // len(before)))
            total += len(index)
        return [level for level in out if len(level[0])]

    def _word(self, length: int, number: int) -> tuple[str, ...]:
        """Return the names of a product of the table, in the order of a circuit."""
        names: list[str] = []
        for level in range(length, 0, -1):
            _, parent, gate = self._levels[level]
            names.append(self.names[int(gate[number])])
            number = int(parent[number])
        return tuple(reversed(names))

    def _tree(self, length: int) -> Any:  # noqa: ANN401  scipy's tree has no types
        """Return the products of one length as points of both signs, to look neighbours up."""
        from scipy.spatial import cKDTree

        if length not in self._trees:
            points = _quaternions(self._levels[length][0])
            self._trees[length] = cKDTree(np.concatenate([points, -points]))
        return self._trees[length]

    def _nearest(self, remainders: Matrices, length: int) -> tuple[int, int]:
        """Return the remainder and the product of one length that are nearest to one another."""
        right = self._levels[length][0]
        if self._size == 2:
            apart, index = self._tree(length).query(_quaternions(_special(remainders)))
            best = int(np.argmin(apart))
            return best, int(index[best]) % len(right)
        flat = right.reshape(len(right), -1).conj().T
        found = (-1.0, 0, 0)
        for start in range(0, len(remainders), 512):
            part = remainders[start : start + 512]
            score = np.abs(part.reshape(len(part), -1) @ flat)
            row, column = np.unravel_index(int(np.argmax(score)), score.shape)
            found = max(found, (float(score[row, column]), start + int(row), int(column)))
        return found[1], found[2]

    def search(self, target: ArrayLike, epsilon: float) -> Product:
        """Return the shortest product within epsilon, as far as the table reaches.

        Returns:
            The product; the nearest that was found, where none is within epsilon.

        Raises:
            UsageError: If the target has another size.
        """
        wanted = np.asarray(target, dtype=np.complex128)
        if wanted.shape != (self._size, self._size):
            raise UsageError(
                f"the target has shape {list(wanted.shape)}, the gates are {self._size} x "
                f"{self._size}"
            )
        depth = len(self._levels) - 1
        best = Product((), _distance(wanted, self._levels[0][0][0]))
        for length in range(1, 2 * depth + 1):
            if best.error <= epsilon:
                break
            right = min(length, depth)
            left = length - right
            if len(self._levels[left][0]) > _LEFTS[self._size]:
                break
            # Prefixes act last: the product is left times right.
            heads = self._levels[left][0]
            remainders = heads.conj().transpose(0, 2, 1) @ wanted
            row, column = self._nearest(remainders, right)
            error = _distance(wanted, heads[row] @ self._levels[right][0][column])
            if error < best.error - 1e-12:
                best = Product((*self._word(right, column), *self._word(left, row)), error)
        return best

    def synthesize(self, target: ArrayLike, epsilon: float) -> Product:
        """Return a product within epsilon: by search, beyond its reach by Solovay and Kitaev.

        Raises:
            PassError: If none was found; says the nearest.
        """
        found = self.search(target, epsilon)
        if found.error <= epsilon:
            return found
        if self._size == 2 and self.is_inverse_closed:
            for level in range(1, _LEVELS + 1):
                finer = self.solovay_kitaev(target, level)
                if finer.error <= epsilon:
                    return finer
        raise PassError(
            f"no product of {', '.join(self.names)} within {epsilon:.3g} was found",
            why=f"the nearest is off by {found.error:.3g}, with {len(found.names)} gates",
            hint=f"allow {found.error:.3g}"
            + ("" if self.is_inverse_closed else ", or add the gates' inverses"),
        )

    def solovay_kitaev(self, target: ArrayLike, level: int) -> Product:
        """Return a product by so many levels of Solovay and Kitaev on top of the search.

        Raises:
            UsageError: If the basis is not closed under inverses, or has two qubits.
        """
        if self._size != 2 or not self.is_inverse_closed:
            raise UsageError(
                "Solovay and Kitaev's theorem is used on one qubit, with the gates' inverses",
                hint="search needs neither",
            )
        wanted = np.asarray(target, dtype=np.complex128)
        names = self._level(_special(wanted[None])[0], level)
        return Product(names, _distance(wanted, self._matrix(names)))

    def _matrix(self, names: tuple[str, ...]) -> Matrices:
        total: Matrices = np.eye(self._size, dtype=np.complex128)
        for name in names:
            total = self._gates[self.names.index(name)] @ total
        return total

    def _level(self, target: Matrices, level: int) -> tuple[str, ...]:
        if level == 0:
            return self.search(target, _FIRST).names
        near = self._level(target, level - 1)
        v, w = _commutator(_special((target @ self._matrix(near).conj().T)[None])[0])
        first, second = self._level(v, level - 1), self._level(w, level - 1)
        # V W V^-1 W^-1 after what is near, in the order of a circuit.
        return (*near, *self._inverse(second), *self._inverse(first), *second, *first)

    def _inverse(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self.inverses[name] for name in reversed(names))


_FIRST = 0.01
"""Accuracy of the search below Solovay and Kitaev's levels."""


def _commutator(near_one: Matrices) -> tuple[Matrices, Matrices]:
    """Return V, W with ``V W V^-1 W^-1`` near 1 (Dawson, Nielsen, section 4.1)."""
    if near_one[0, 0].real + near_one[1, 1].real < 0:
        near_one = -near_one
    point = _quaternions(near_one[None])[0]
    half = float(np.arccos(np.clip(point[0], -1, 1)))
    # sin(half) = 2 sin^2(phi/2) sqrt(1 - sin^4(phi/2)) for turns by phi about X and Y.
    sine = np.sin(half)
    quarter = np.sqrt(np.sqrt((1 - np.sqrt(max(1 - sine**2, 0.0))) / 2))
    angle = float(np.arcsin(np.clip(quarter, 0, 1)))
    v, w = _turn(np.array([1.0, 0, 0]), angle), _turn(np.array([0, 1.0, 0]), angle)
    made = _quaternions((v @ w @ v.conj().T @ w.conj().T)[None])[0]
    start, end = made[1:], point[1:]
    if np.linalg.norm(end) < 1e-15:
        return v, w
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    size = float(np.linalg.norm(axis))
    if size < 1e-12:
        axis, size = np.array([-start[1], start[0], 0.0]), 0.0
    turn = _turn(axis / max(float(np.linalg.norm(axis)), 1e-300),
                 float(np.arctan2(size, start @ end)) / 2)  # fmt: skip
    return turn @ v @ turn.conj().T, turn @ w @ turn.conj().T


def _turn(axis: NDArray[np.float64], half: float) -> Matrices:
    """Return ``exp(-i half axis.sigma)``."""
    x, y, z = (float(value) for value in axis)
    sigma = np.array([[z, x - 1j * y], [x + 1j * y, -z]])
    return np.cos(half) * np.eye(2) - 1j * np.sin(half) * sigma
