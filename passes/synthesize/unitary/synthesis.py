"""``synthesize_unitary``: the circuit of a matrix, by the method that takes the fewest CX gates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from qcomp.errors import UsageError, suggest
from qcomp.ir.arrays import MAX_QUBITS
from qcomp.ir.circuit import Circuit
from qcomp.passes.synthesize.unitary.block_zxz import split
from qcomp.passes.synthesize.unitary.numeric import bound, fit_cycle, numeric_leaf, search
from qcomp.passes.synthesize.unitary.pairs import pair_sketches, without_diagonals
from qcomp.passes.synthesize.unitary.sketch import Matrix, Sketch
from qcomp.passes.synthesize.unitary.structure import structured

__all__ = ["METHODS", "distance_from_unitary", "nearest_unitary", "sketch_of", "synthesize_unitary"]

METHODS = ("auto", "numeric", "block-zxz")
"""``auto``: structure, then numeric synthesis where it takes seconds; ``numeric``: up to 5 qubits
as a whole, beyond that in leaves of 4; ``block-zxz``: by the closed decomposition alone."""

_LEAF_OF = {4: 7, 3: 8}
"""Qubits of numeric leaves -> qubits up to which ``auto`` takes them."""

_CHEAP = 2
"""CX gates that no search would make fewer."""

ACCURACY = 1e-6
"""How far from unitary a matrix may be, operator norm: single precision is nearer."""


def distance_from_unitary(matrix: Matrix) -> float:
    """Return how far a matrix is from the nearest unitary, operator norm: max |sigma - 1|."""
    return float(np.abs(np.linalg.svd(matrix, compute_uv=False) - 1).max())


def nearest_unitary(matrix: Matrix) -> Matrix:
    """Return the unitary that is nearest to a matrix: the factor of its polar decomposition."""
    v, _, w = np.linalg.svd(matrix)
    return v @ w


def check_matrix(matrix: ArrayLike) -> Matrix:
    """Return a matrix as complex128[2^n, 2^n].

    Raises:
        UsageError: If it is none, or has entries that are not finite.
    """
    array = np.asarray(matrix)
    if array.dtype.kind not in "biufc" or array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise UsageError(
            f"a unitary is a square matrix of numbers, not an array {array.dtype}{array.shape}"
        )
    size = len(array)
    if size < 2 or size & (size - 1):
        raise UsageError(
            f"a unitary of qubits has 2^n rows, this matrix has {size}",
            hint="extend it by ones on the diagonal",
        )
    if size > 1 << MAX_QUBITS["Unitary"]:
        raise UsageError(
            f"a unitary of {size} rows is too large: at most {MAX_QUBITS['Unitary']} qubits"
        )
    if not np.isfinite(array).all():
        raise UsageError("the matrix has entries that are no finite numbers")
    return array.astype(np.complex128)


def closed_count(num_qubits: int) -> int:
    """Return the CX gates of block-ZXZ: ``22/48 4^n - 3/2 2^n + 5/3``, 3 for two qubits."""
    n = num_qubits
    return 0 if n < 2 else (22 * 4**n - 72 * 2**n + 80) // 48


def synthesize_unitary(
    matrix: ArrayLike, *, method: str = "auto", accuracy: float = ACCURACY, seed: int = 0
) -> Circuit:
    """Return a circuit of CX and one-qubit gates whose unitary is the matrix, phase included.

    Qubit 0 is the lowest bit of an index. See the section "Unitaries" of ``docs/lowering.md`` for
    the methods, their equations and costs.

    Args:
        matrix: complex128[2^n, 2^n], unitary, at most 12 qubits.
        method: One of ``METHODS``.
        accuracy: How far from unitary the matrix may be, operator norm; the nearest unitary is
            taken then.
        seed: Seed of the numeric methods' starts.

    Raises:
        UsageError: If the matrix is not unitary (the message says what can be done instead), or
            the method is unknown.
    """
    values = check_matrix(matrix)
    away = distance_from_unitary(values)
    if away > accuracy:
        raise not_unitary(values, away, accuracy)
    return sketch_of(nearest_unitary(values), method, seed).circuit()


def not_unitary(matrix: Matrix, away: float, accuracy: float) -> UsageError:
    """Return the error for a matrix that is too far from unitary, with what to do and its cost."""
    n = len(matrix).bit_length() - 1
    norm = float(np.linalg.norm(matrix, 2))
    near = f"raise accuracy above {away:.2g} to take the nearest unitary; or " if away < 0.1 else ""
    return UsageError(
        f"the matrix is not unitary: a singular value is {away:.3g} away from 1, "
        f"at most {accuracy:.0e} is taken",
        why=f"its largest singular value is {norm:.6g}",
        hint=f"{near}encode it in a unitary of one more qubit, its dilation: dilation(matrix) of "
        f"qcomp.passes.synthesize.polynomial.dilation, {n + 1} qubits, "
        f"at most {2 * closed_count(n) + (1 << n) - 1} CX gates; the result comes "
        f"with probability |A psi|^2 / {norm**2:.3g}",
    )


def sketch_of(matrix: Matrix, method: str = "auto", seed: int = 0) -> Sketch:
    """Return the circuit of a unitary as a sketch.

    Args:
        matrix: complex128[2^n, 2^n], unitary.
        method: One of ``METHODS``.
        seed: Seed of the numeric methods' starts.

    Raises:
        UsageError: If the method is unknown.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method '{method}'", hint=suggest(method, METHODS))
    n = len(matrix).bit_length() - 1
    if n == 1:
        sketch = Sketch(1)
        sketch.one(0, matrix)
        return sketch
    if n == 2 or method == "block-zxz":
        return by_leaves(matrix, 2, seed)
    seen = structured(matrix, lambda part: sketch_of(part, method, seed))
    if seen is not None and (n > 4 or seen.cx_count <= _CHEAP):
        return seen
    if n <= 4 or (n == 5 and method == "numeric"):
        known = [by_leaves(matrix, 2, seed), *([] if seen is None else [seen])]
        found = search(matrix, known, seed)
        return min([*known, *([] if found is None else [found])], key=lambda s: s.cx_count)
    leaf = 4 if method == "numeric" else next((k for k, m in _LEAF_OF.items() if n <= m), 2)
    return by_leaves(matrix, leaf, seed)


def by_leaves(matrix: Matrix, leaf: int, seed: int = 0) -> Sketch:
    """Return the circuit by block-ZXZ down to leaves, which are written up to diagonals.

    Args:
        matrix: complex128[2^n, 2^n], n >= 2.
        leaf: Qubits of a leaf: 2 by Cartan's decomposition, 3 and 4 by numeric synthesis.
        seed: Seed of numeric synthesis.
    """
    n = len(matrix).bit_length() - 1
    leaves = split(matrix, leaf)
    write = _pairs if leaf == 2 else _numeric(seed)
    sketch = Sketch(n)
    for number, part in enumerate(write(leaves.matrix)):
        if number:
            leaves.join(sketch, number)
        sketch.extend(part, range(leaf))
    return sketch


def _pairs(matrix: Matrix) -> list[Sketch]:
    pairs = without_diagonals(matrix)
    return pair_sketches(pairs, flat=np.arange(len(pairs)) < len(pairs) - 1)


def _numeric(seed: int) -> Callable[[Matrix], list[Sketch]]:
    def write(matrix: Matrix) -> list[Sketch]:
        rng = np.random.default_rng([seed, len(matrix)])
        qubits = matrix.shape[1].bit_length() - 1
        out: list[Sketch] = []
        carried = np.ones(matrix.shape[1], dtype=complex)
        for number, leaf in enumerate(matrix):
            unitary = leaf * carried[None, :]
            found = numeric_leaf(unitary, rng) if number < len(matrix) - 1 else None
            if found is not None:
                carried = found.phases.conj()
                out.append(found.template.sketch(found.angles))
                continue
            carried = np.ones(len(leaf), dtype=complex)
            last = next(
                (f for k in range(2 * qubits)
                 if (f := fit_cycle(unitary, bound(qubits) + k, 4, rng)) is not None),
                None,
            )  # fmt: skip
            out.append(by_leaves(unitary, 2) if last is None else last.sketch())
        return out

    return write
