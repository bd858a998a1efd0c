"""Cartan decomposition of two-qubit unitaries, over arrays of matrices.

Every U in U(4) is ``exp(i phi) (L_b (x) L_a) N(x, y, z) (R_b (x) R_a)``, where ``N(x, y, z) =
exp(i (x XX + y YY + z ZZ))``. In the magic basis (Bell states with phases) one-qubit gates on both
wires are the real orthogonal matrices and N is diagonal, so ``M^T M`` of ``M = B^dag U B`` shows N
squared, and its real eigenvectors the gates on the right (Makhlin 2002, arXiv:quant-ph/0002045;
Zhang, Vala, Sastry, Whaley 2003, arXiv:quant-ph/0209120; Cross, Bishop, Sheldon, Nation, Gambetta
2019).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOLERANCE", "Weyl", "cx_count", "cx_counts_with_swap", "kron", "rotation", "weyl"]

TOLERANCE = 1e-13
"""Coordinates this close to a wall of the Weyl chamber are put on it, radians."""

_QUARTER = np.pi / 4
_MIXES = 12
"""Linear combinations that are tried to tell equal eigenvalues apart."""

Array = NDArray[np.float64]
Matrices = NDArray[np.complex128]

# Columns: Phi+, Psi+, Phi-, Psi- with the phases that make local gates real. Where x >= z >= |y|
# their eigenphases descend.
_MAGIC: Matrices = np.array(
    [[1, 0, 1j, 0], [0, 1j, 0, 1], [0, 1j, 0, -1], [1, 0, -1j, 0]], dtype=complex
) / np.sqrt(2)
_X: Matrices = np.array([[0, 1], [1, 0]], dtype=complex)
_Y: Matrices = np.array([[0, -1j], [1j, 0]])
_Z: Matrices = np.diag([1, -1]).astype(complex)
_UNIT: Array = np.eye(2)
_PAULIS = {"x": _X, "y": _Y, "z": _Z}
# Eigenvalues of XX, YY, ZZ on the columns.
_SIGNS: Array = np.array(
    [
        [np.vdot(v, np.kron(p, p) @ v).real for p in (_X, _Y, _Z)]
        for v in np.ascontiguousarray(_MAGIC.T)
    ]
)


def rotation(axis: str, angle: Array | float) -> Matrices:
    """Return ``exp(-i angle/2 P)``, complex128[..., 2, 2].

    Args:
        axis: "x", "y" or "z".
        angle: Radians.
    """
    half = np.asarray(angle, dtype=float)[..., None, None] / 2
    result: Matrices = np.cos(half) * _UNIT - 1j * np.sin(half) * _PAULIS[axis]
    return result


def kron(b: Matrices, a: Matrices) -> Matrices:
    """Return ``b (x) a``, a on the low bit: complex128[n, 4, 4] of two complex128[n, 2, 2]."""
    product: Matrices = b[:, :, None, :, None] * a[:, None, :, None, :]
    return product.reshape(-1, 4, 4)


@dataclass(frozen=True, slots=True)
class Weyl:
    """n decompositions ``U = exp(i phase) (lb (x) la) N(x, y, z) (rb (x) ra)``.

    Coordinates: pi/4 >= x >= z >= abs(y), and y >= 0 where x = pi/4.

    Attributes:
        x, y, z: float64[n], radians; on a wall exactly where within ``TOLERANCE``.
        la, lb: complex128[n, 2, 2], after N on the low and on the high qubit, determinant 1.
        ra, rb: complex128[n, 2, 2], before N.
        error: float64[n], Frobenius norm of U less the product, for the best phase.
    """

    x: Array
    y: Array
    z: Array
    la: Matrices
    lb: Matrices
    ra: Matrices
    rb: Matrices
    error: Array

    def select(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Weyl:
        """Return the decompositions at ``index``."""
        return Weyl(*(getattr(self, f.name)[index] for f in fields(self)))


def weyl(matrix: Matrices) -> Weyl:
    """Decompose two-qubit unitaries.

    Args:
        matrix: complex128[n, 4, 4], unitary; qubit a is the low bit of the index.
    """
    m = _in_magic_basis(matrix)
    gram = np.swapaxes(m, 1, 2) @ m
    vectors = _common_eigenvectors(gram)
    phases = np.angle(np.einsum("nji,njk,nki->ni", vectors, gram, vectors)) / 2
    order, phases, far = _into_chamber(phases)
    m[far] *= 1j
    vectors = np.take_along_axis(vectors, order[:, None, :], axis=2)
    vectors[:, :, 0] *= np.sign(np.linalg.det(vectors))[:, None]
    left = np.real(m @ vectors * np.exp(-1j * phases)[:, None, :])
    # phases = S (x, y, z) with orthogonal columns of S, each of square 4.
    point = _on_walls(phases @ _SIGNS / 4)
    lb, la = _factors(_MAGIC @ left @ _MAGIC.conj().T)
    rb, ra = _factors(_MAGIC @ np.swapaxes(vectors, 1, 2) @ _MAGIC.conj().T)
    middle = (_MAGIC * np.exp(1j * point @ _SIGNS.T)[:, None, :]) @ _MAGIC.conj().T
    product = kron(lb, la) @ middle @ kron(rb, ra)
    overlap = np.einsum("nij,nij->n", product.conj(), matrix)
    product *= (overlap / np.abs(overlap))[:, None, None]
    error = np.sqrt((np.abs(matrix - product) ** 2).sum(axis=(1, 2)))
    return Weyl(point[:, 0], point[:, 1], point[:, 2], la, lb, ra, rb, error)


def _in_magic_basis(matrix: Matrices) -> Matrices:
    special = matrix / np.linalg.det(matrix)[:, None, None] ** 0.25
    result: Matrices = _MAGIC.conj().T @ special @ _MAGIC
    return result


def cx_count(point: Weyl) -> NDArray[np.int64]:
    """Return the fewest CX gates of each, 0 to 3, int64[n].

    Source: Vidal, Dawson 2003 (arXiv:quant-ph/0307177); Shende, Bullock, Markov 2003
    (arXiv:quant-ph/0308045).
    """
    return _fewest(point.x, point.y, point.z)


def _fewest(x: Array, y: Array, z: Array) -> NDArray[np.int64]:
    count = np.where(y == 0, 2, 3)
    flat = (y == 0) & (z == 0)
    count = np.where(flat & (x == _QUARTER), 1, count)
    return np.where(flat & (x == 0), 0, count)


def cx_counts_with_swap(matrix: Matrices) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the fewest CX gates of unitaries, and of each with a swap, without decomposing them.

    The coordinates are in the eigenvalues of ``M^T M``, which a swap multiplies by i.

    Args:
        matrix: complex128[n, 4, 4], unitary.
    """
    m = _in_magic_basis(matrix)
    phases = np.angle(np.linalg.eigvals(np.swapaxes(m, 1, 2) @ m)) / 2
    counts = []
    for turned in (phases, phases + _QUARTER):
        point = _on_walls(_into_chamber(turned)[1] @ _SIGNS / 4)
        counts.append(_fewest(*point.T))
    return counts[0], counts[1]


def _common_eigenvectors(gram: Matrices) -> Array:
    """Return orthogonal float64[n, 4, 4] whose columns diagonalise the symmetric unitaries.

    The real and the imaginary part commute. Eigenvectors of a mixture of them diagonalise both
    unless two pairs of eigenvalues collide in it; then another mixture is taken. Where both pairs
    are equal any vectors do, and where they are near, what is left off the diagonal is as small
    as rounding: the error of a vector is eps / gap, and it counts times the gap.
    """
    vectors = np.zeros(gram.shape)
    best = np.full(len(gram), np.inf)
    rows = np.arange(len(gram))
    for k in range(_MIXES):
        angle = 0.7 + 2.399963229728653 * k
        part = gram[rows]
        _, found = np.linalg.eigh(np.cos(angle) * part.real + np.sin(angle) * part.imag)
        inside = np.swapaxes(found, 1, 2) @ part @ found
        inside[:, range(4), range(4)] = 0
        rest = np.abs(inside).max(axis=(1, 2))
        better = rest < best[rows]
        vectors[rows[better]], best[rows[better]] = found[better], rest[better]
        rows = rows[best[rows] > 1e-14]
        if not len(rows):
            break
    return vectors


def _into_chamber(phases: Array) -> tuple[NDArray[np.intp], Array, NDArray[np.bool_]]:
    """Order and shift eigenphases by multiples of pi so that they descend and sum to 0.

    Multiples of pi and the order are signs and the order of eigenvectors. A quarter turn of all
    is a phase; it is taken where it brings x to pi/4 or less.

    Returns:
        (order, eigenphases in that order, where the quarter turn was taken).
    """
    order, sorted_ = _descending(phases)
    x = (sorted_[:, 0] + sorted_[:, 1]) / 2
    y = (sorted_[:, 1] + sorted_[:, 2]) / 2
    far = (x > _QUARTER + TOLERANCE) | ((np.abs(x - _QUARTER) <= TOLERANCE) & (y < -TOLERANCE))
    if far.any():
        order[far], sorted_[far] = _descending(phases[far] + np.pi / 2)
    return order, sorted_, far


def _descending(phases: Array) -> tuple[NDArray[np.intp], Array]:
    # A phase just below a multiple of pi belongs to those just above it.
    turned = np.mod(phases + 1e-9, np.pi) - 1e-9
    excess = np.rint(turned.sum(axis=1) / np.pi).astype(np.int64)
    order = np.argsort(-turned, axis=1, kind="stable")
    turned = np.take_along_axis(turned, order, axis=1)
    turned -= np.pi * (np.arange(4)[None, :] < excess[:, None])
    again = np.argsort(-turned, axis=1, kind="stable")
    return np.take_along_axis(order, again, axis=1), np.take_along_axis(turned, again, axis=1)


def _on_walls(point: Array) -> Array:
    """Put coordinates (x, y, z) within ``TOLERANCE`` of a wall on it."""
    x, y, z = point.T.copy()
    x = np.where(np.abs(x - _QUARTER) < TOLERANCE, _QUARTER, x)
    z = np.where(np.abs(z - x) < TOLERANCE, x, z)
    z = np.where(np.abs(z) < TOLERANCE, 0.0, z)
    y = np.where(np.abs(y - z) < TOLERANCE, z, y)
    y = np.where(np.abs(y + z) < TOLERANCE, -z, y)
    y = np.where(np.abs(y) < TOLERANCE, 0.0, y)
    x = np.where((z == 0) & (np.abs(x) < TOLERANCE), 0.0, x)
    return np.stack([x, y, z], axis=1)


def _factors(product: Matrices) -> tuple[Matrices, Matrices]:
    """Return (b, a) of determinant 1 with ``product = b (x) a``, up to sign."""
    blocks = product.reshape(-1, 2, 2, 2, 2)
    rows = np.arange(len(product))
    # The block of the largest factor of b is a, times that factor.
    size = np.abs(blocks).max(axis=(2, 4)).reshape(-1, 4)
    i, j = np.divmod(size.argmax(axis=1), 2)
    a = blocks[rows, i, :, j, :]
    a = a / np.sqrt(np.linalg.det(a))[:, None, None]
    b = np.einsum("nikjl,nkl->nij", blocks, a.conj()) / 2
    return b / np.sqrt(np.linalg.det(b))[:, None, None], a
