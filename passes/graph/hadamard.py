"""Hadamard matrices: H of +1 and -1 with H H^T = n I, made exactly, and their products.

    Sylvester    H_2 = [[1, 1], [1, -1]],    H_2m = H_2 (x) H_m
    Paley I      q = 3 mod 4:  H = I + S,    S = [[0, 1], [-1, Q]]                      n = q + 1
    Paley II     q = 1 mod 4:  H = C (x) [[1, 1], [1, -1]] + I (x) [[1, -1], [-1, -1]],
                 C = [[0, 1], [1, Q]]                                                   n = 2 q + 2

Q[i, j] = chi(i - j) is the Jacobsthal matrix of the field with q = p, p^2 or p^3 elements, p an odd
prime; chi(a) is 1 for squares, -1 for others, 0 for 0. Sizes are 2^k m with m = 1 or one of these:
12, 20, 28, 36, 44, 52, 60, 68, ... (11008 = 32 * 344, 14336 = 512 * 28). Other multiples of 4 (the
first are 92, 116, 156, 172) have matrices of other constructions, which are not here.

A random rotation is ``x -> x D H / sqrt(n)`` with random signs D: of a coordinate of x, however
large, no more than the share 1 / sqrt(n) comes into any one coordinate of the result.

Cost: two products of n (a + b) multiplications a row with a b = n, both about sqrt(n).
Source: Sylvester 1867; Paley 1933, "On orthogonal matrices"; random signs: Ashkboos et al. 2024,
arXiv:2404.00456, section 3.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError

__all__ = [
    "MatrixRotation",
    "Orthogonal",
    "Rotation",
    "hadamard",
    "has_hadamard",
    "near_factors",
    "nearest_sizes",
    "no_size",
]

Float64 = npt.NDArray[np.float64]
Signs = npt.NDArray[np.int8]


def has_hadamard(n: int) -> bool:
    """Whether :func:`hadamard` makes a matrix of that size."""
    return n > 0 and _odd_part(n) is not None


def hadamard(n: int) -> Signs:
    """A Hadamard matrix, int8[n, n] of 1 and -1.

    Raises:
        UsageError: None is known here; the nearest sizes are named.
    """
    m = _odd_part(n) if n > 0 else None
    if m is None:
        raise UsageError(
            f"no Hadamard matrix of size {n} can be made",
            why="sizes are 2^k, or 2^k times q + 1 or 2 (q + 1) for certain powers q of primes",
            hint="the nearest sizes are " + " and ".join(str(near) for near in nearest_sizes(n)),
        )
    H = _base(m)
    while len(H) < n:
        H = np.block([[H, H], [H, -H]])
    return H


def nearest_sizes(n: int) -> list[int]:
    """The largest size below and the smallest above."""
    below = next((k for k in range(n - 1, 0, -1) if has_hadamard(k)), None)
    above = next(k for k in range(max(n, 0) + 1, 2 * max(n, 1) + 2) if has_hadamard(k))
    return [above] if below is None else [below, above]


def no_size(what: str, n: int) -> str:
    """Say that there is no Hadamard matrix of n channels."""
    near = " and ".join(str(size) for size in nearest_sizes(n))
    return f"{what} stays: no Hadamard matrix of size {n} can be made, the nearest are {near}"


@functools.cache
def _odd_part(n: int) -> int | None:
    """The size m of Paley's (or 1) for which n is 2^k m; the smallest there is."""
    if n & (n - 1) == 0:
        return 1
    found, m = None, n
    while m >= 12:
        if m % 4 == 0 and (_paley_one(m) or _paley_two(m)):
            found = m
        if m % 2:
            break
        m //= 2
    return found


def _paley_one(n: int) -> bool:
    return (n - 1) % 4 == 3 and _field(n - 1) is not None


def _paley_two(n: int) -> bool:
    return n % 2 == 0 and (n // 2 - 1) % 4 == 1 and _field(n // 2 - 1) is not None


def _field(q: int) -> tuple[int, int] | None:
    """The prime p and the degree k <= 3 with p^k = q, if there are."""
    for k in (1, 2, 3):
        p = round(q ** (1 / k))
        if p > 1 and p**k == q and all(p % d for d in range(2, int(p**0.5) + 1)):
            return p, k
    return None


def _base(m: int) -> Signs:
    if m == 1:
        return np.ones((1, 1), np.int8)
    if _paley_one(m):
        return _bordered(m - 1, -1) + np.eye(m, dtype=np.int8)
    C = _bordered(m // 2 - 1, 1)
    one = np.array([[1, 1], [1, -1]], np.int8)
    other = np.array([[1, -1], [-1, -1]], np.int8)
    return np.kron(C, one) + np.kron(np.eye(m // 2, dtype=np.int8), other)


def _bordered(q: int, column: int) -> Signs:
    """[[0, 1], [column, Q]] with the Jacobsthal matrix Q of a field, int8[q + 1, q + 1]."""
    field = _field(q)
    assert field is not None
    p, k = field
    powers = p ** np.arange(k)
    digits = np.arange(q)[:, None] // powers % p  # element i as a polynomial of degree < k
    chi = np.full(q, -1, np.int8)
    chi[_squares(digits, p) @ powers] = 1
    chi[0] = 0
    made = np.zeros((q + 1, q + 1), np.int8)
    made[0, 1:] = 1
    made[1:, 0] = column
    for i, row in enumerate(digits):
        made[1 + i, 1:] = chi[(row - digits) % p @ powers]
    return made


def _squares(digits: npt.NDArray[np.int64], p: int) -> npt.NDArray[np.int64]:
    """The squares of all polynomials, modulo p and one that has no factor."""
    k = digits.shape[1]
    product = np.zeros((len(digits), 2 * k - 1), np.int64)
    for i, j in itertools.product(range(k), repeat=2):
        product[:, i + j] += digits[:, i] * digits[:, j]
    t = np.arange(p)
    # Of degree 2 or 3, one without a root has no factor: x^k = -c(x).
    c = next(
        c
        for c in itertools.product(range(p), repeat=k)
        if k == 1 or ((t**k + sum(a * t**i for i, a in enumerate(c))) % p).all()
    )
    for degree in range(2 * k - 2, k - 1, -1):
        product[:, degree - k : degree] -= product[:, degree, None] * np.array(c)
    return product[:, :k] % p


class Orthogonal(Protocol):
    """An orthogonal matrix R of n channels."""

    @property
    def size(self) -> int:
        """Channels, n."""

    def rows(self, X: npt.NDArray[np.generic]) -> Float64:
        """X R along the last axis, float64."""

    def along(self, X: npt.NDArray[np.generic], axis: int) -> Float64:
        """X with its vectors along an axis turned, float64."""


@dataclass(frozen=True, eq=False)
class MatrixRotation:
    """An orthogonal matrix given by its entries, float64[n, n]."""

    entries: Float64

    @property
    def size(self) -> int:
        """Channels, n."""
        return len(self.entries)

    def rows(self, X: npt.NDArray[np.generic]) -> Float64:
        """X R along the last axis, float64."""
        return np.asarray(X, np.float64) @ self.entries

    def along(self, X: npt.NDArray[np.generic], axis: int) -> Float64:
        """X with its vectors along an axis turned, float64."""
        return np.moveaxis(self.rows(np.moveaxis(np.asarray(X), axis, -1)), -1, axis)


@dataclass(frozen=True, eq=False)
class Rotation:
    """The orthogonal matrix R = D H / sqrt(n), for ``keeps_ones`` followed by a reflection G.

    G = I - 2 w w^T / w^T w with w = R^T 1 - 1 takes R^T 1 to 1, so that R G 1 = 1 and 1 R G = 1:
    the mean of a vector is that of its image, and a LayerNormalization takes it off as before.

    Attributes:
        signs: Diagonal of D, float64[n].
        keeps_ones: Whether 1 is mapped to 1.
    """

    signs: Float64
    keeps_ones: bool = False

    @staticmethod
    def random(n: int, rng: np.random.Generator, *, keeps_ones: bool = False) -> Rotation:
        """Draw the signs.

        Raises:
            UsageError: There is no Hadamard matrix of that size.
        """
        if not has_hadamard(n):
            hadamard(n)
        return Rotation(rng.choice(np.array([-1.0, 1.0]), n), keeps_ones)

    @property
    def size(self) -> int:
        """Channels, n."""
        return len(self.signs)

    def along(self, X: npt.NDArray[np.generic], axis: int) -> Float64:
        """X with its vectors along an axis turned, float64; axis 0 of a matrix: R^T X."""
        return np.moveaxis(self.rows(np.moveaxis(np.asarray(X), axis, -1)), -1, axis)

    def rows(self, X: npt.NDArray[np.generic]) -> Float64:
        """X R along the last axis, float64."""
        made = _product(np.asarray(X, np.float64) * self.signs)
        if not self.keeps_ones:
            return made
        w = _product(self.signs) - 1.0
        square = float(w @ w)
        return made if square < 1e-20 else made - (made @ w)[..., None] * (2.0 / square * w)

    def matrix(self) -> Float64:
        """R, float64[n, n]."""
        return self.rows(np.eye(self.size))


def _product(X: Float64) -> Float64:
    """X H / sqrt(n) along the last axis: H = H_a (x) H_b, as X[a, b] -> H_a^T X H_b."""
    n = X.shape[-1]
    m = _odd_part(n)
    assert m is not None
    a = 1
    while a * a < n and (n // m) % (2 * a) == 0:
        a *= 2
    left, right = (hadamard(size).astype(np.float64) for size in (a, n // a))
    parts = left.T @ (X.reshape(-1, a, n // a) @ (right / np.sqrt(n)))
    return parts.reshape(X.shape)


def near_factors(n: int) -> tuple[int, int] | None:
    """Sizes a <= b of Hadamard matrices with a b = n, as near to each other as there are."""
    for a in range(int(n**0.5), 0, -1):
        if n % a == 0 and has_hadamard(a) and has_hadamard(n // a):
            return a, n // a
    return None
