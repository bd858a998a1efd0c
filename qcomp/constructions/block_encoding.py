"""Block encodings: a matrix as a corner of a unitary, by linear combinations and by FABLE.

A circuit U on ``n`` system qubits and ``a`` ancillas above them encodes A with subnormalisation
``scale`` when::

    A = scale (<0|_a (x) I) U (|0>_a (x) I)

=====================  ==================  ==========  ==========================================
what                   scale               ancillas    CX, at most
=====================  ==================  ==========  ==========================================
``pauli_combination``  sum of |c_j|        k           (2 n + 3) 2^k, T <= 2^k terms
``linear_combination`` sum of |c_j|        k + 1       3 2^k, T + 1 Toffolis of k, controlled U_j
``fable``              2^n max |A_ij|      n + 1       4^n (2 4^n if complex) + 3 n
dilation               |A|                 1           two unitaries of n qubits, 2^n - 1
=====================  ==================  ==========  ==========================================

The dilation needs a unitary synthesised and stands in
``qcomp.passes.synthesize.polynomial.dilation``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.constructions.multiplexers import (
    diagonal,
    gray_code,
    multiplexed_rotation,
    parity_rotations,
    walsh,
    walsh_angles,
)
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable

__all__ = [
    "BlockEncoding",
    "fable",
    "hermitian_part",
    "linear_combination",
    "pauli_combination",
    "pauli_products",
    "prepare_amplitudes",
    "square_matrix",
]


@dataclass(frozen=True, slots=True, eq=False)
class BlockEncoding:
    """A circuit whose block at ancillas 0 is a matrix divided by ``scale``.

    Attributes:
        circuit: The circuit; qubits 0 .. num_system-1 are the system, the others ancillas.
        num_system: System qubits n.
        scale: Subnormalisation: the matrix is ``scale`` times the block.
        method: How it was made.
        error: Bound of the block's error in operator norm, times ``scale``; 0 where it is exact.
    """

    circuit: Circuit
    num_system: int
    scale: float
    method: str
    error: float = 0.0

    @property
    def num_ancillas(self) -> int:
        """Ancillas, the qubits above the system."""
        return self.circuit.num_qubits - self.num_system

    @property
    def ancillas(self) -> tuple[int, ...]:
        """The ancillas' numbers."""
        return tuple(range(self.num_system, self.circuit.num_qubits))


def square_matrix(matrix: ArrayLike) -> NDArray[np.complex128]:
    """Return a matrix of size 2^n by 2^n as complex128.

    Raises:
        UsageError: If it is not square, its size is no power of two, or it holds NaN.
    """
    a = np.asarray(matrix, dtype=np.complex128)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or not len(a):
        raise UsageError(
            f"a block encoding takes a square matrix, not an array of shape {list(a.shape)}",
            hint="pad it with zeros to a square whose size is a power of two",
        )
    if len(a) & (len(a) - 1):
        size = 1 << len(a).bit_length()
        raise UsageError(
            f"a matrix of size {len(a)} does not fit qubits: the size is no power of two",
            hint=f"pad it with zeros to {size} x {size}; its block stays the same",
        )
    if not np.isfinite(a).all():
        raise UsageError("the matrix holds NaN or infinity", hint="give finite numbers")
    return a


def prepare_amplitudes(builder: Circuit, amplitudes: ArrayLike, wires: Sequence[int]) -> None:
    """Append a circuit with ``|0> -> sum_x amplitudes[x] |x>`` for amplitudes that are >= 0.

    One multiplexed RY a qubit, from the highest down, ``2^k - 2`` CX (Moettoenen et al. 2005,
    quant-ph/0407010, section 3).

    Args:
        builder: Circuit that is appended to.
        amplitudes: float64[2^k], of norm 1.
        wires: k qubits; index bit i is ``wires[i]``.
    """
    k = len(wires)
    weight = np.asarray(amplitudes, dtype=np.float64) ** 2
    for level in range(k):
        sums = weight.reshape(1 << (level + 1), -1).sum(axis=1).reshape(-1, 2)
        angles = 2 * np.arctan2(np.sqrt(sums[:, 1]), np.sqrt(sums[:, 0]))
        multiplexed_rotation(
            builder, "y", walsh_angles(angles), wires[k - level :], wires[k - 1 - level]
        )


def _coefficients(coefs: Sequence[complex], count: int) -> tuple[NDArray[np.complex128], float]:
    """Return (complex128[2^k], sum of magnitudes), padded with zeros."""
    given = np.asarray(coefs, dtype=np.complex128)
    if given.shape != (count,) or not count:
        raise UsageError(f"{count} unitaries take as many coefficients, not {list(given.shape)}")
    total = float(np.abs(given).sum())
    if not np.isfinite(total) or total == 0:
        raise UsageError(
            "the coefficients of a linear combination must be finite and not all 0",
            hint="leave out terms of coefficient 0",
        )
    k = max(count - 1, 0).bit_length()
    out = np.zeros(1 << k, dtype=np.complex128)
    out[:count] = given
    return out, total


def linear_combination(coefs: Sequence[complex], unitaries: Sequence[Circuit]) -> BlockEncoding:
    """Return the block encoding of ``sum_j coefs[j] U_j``: PREPARE, SELECT, PREPARE inverse.

    SELECT raises a flag where the index is j, by Toffolis of k controls at both ends and of k - 1
    between neighbours of a Gray code, and controls U_j by it (Childs and Wiebe 2012,
    arXiv:1202.5822; Babbush et al. 2018, arXiv:1805.03662). Subnormalisation: sum of |coefs|.

    Args:
        coefs: T complex numbers.
        unitaries: T circuits on the same qubits, without measurements.

    Raises:
        UsageError: If the circuits have different sizes, or the coefficients do not fit them.
    """
    c, total = _coefficients(coefs, len(unitaries))
    k = len(c).bit_length() - 1
    n = unitaries[0].num_qubits
    if any(u.num_qubits != n for u in unitaries):
        raise UsageError(
            "the unitaries of a linear combination act on the same number of qubits, not "
            f"{sorted({u.num_qubits for u in unitaries})}"
        )
    flags = int(k > 1)
    circuit = Circuit(n + k + flags, name="linear_combination")
    index = list(range(n, n + k))
    amplitudes = np.sqrt(np.abs(c) / total)
    prepare = Circuit(circuit.num_qubits)
    prepare_amplitudes(prepare, amplitudes, index)
    circuit = circuit.compose(prepare)
    flag = n + k if flags else (index[0] if k else -1)
    order = [int(j) for j in gray_code(k) if j < len(unitaries)]
    before = -1
    for j in order:
        if flags:
            _raise_flag(circuit, before, j, index, flag)
        elif k and j == 0:
            circuit.x(flag)
        wires = list(range(n))
        circuit = (
            circuit.compose(unitaries[j].control(), [flag, *wires])
            if k
            else circuit.compose(unitaries[j], wires)
        )
        if k == 1 and j == 0:
            circuit.x(flag)
        before = j
    if flags:
        _raise_flag(circuit, before, -1, index, flag)
    diagonal(circuit, np.angle(c), index)
    circuit = circuit.compose(prepare.inverse())
    return BlockEncoding(circuit, n, total, "lcu")


def _raise_flag(circuit: Circuit, old: int, new: int, index: Sequence[int], flag: int) -> None:
    """Turn a flag that says that the index is ``old`` into one for ``new``; -1 for no index."""
    if old >= 0 and new >= 0 and (old ^ new).bit_count() > 1:
        _raise_flag(circuit, old, -1, index, flag)
        old = -1
    here = new if new >= 0 else old
    both = old ^ new if old >= 0 and new >= 0 else 0
    controls = [q for i, q in enumerate(index) if not both >> i & 1]
    zeros = [q for i, q in enumerate(index) if not (both | here) >> i & 1]
    for q in zeros:
        circuit.x(q)
    circuit.append("mcx", [*controls, flag])
    for q in zeros:
        circuit.x(q)


Products = Sequence[tuple[complex, tuple[tuple[int, str], ...]]]
"""(coefficient, ((qubit, Pauli), ...)) pairs, as an observable's terms."""


def pauli_products(matrix: ArrayLike, smallest: float = 0.0) -> Products:
    """Return the Pauli products that a matrix is a sum of, by falling magnitude.

    ``A = sum_{x,z} c_xz X^x Z^z`` with ``c_xz = 2^-n sum_i (-1)^{z.i} A[i ^ x, i]``: one Walsh
    transform for each of the 2^n diagonals.

    Args:
        matrix: [2^n, 2^n].
        smallest: Coefficients up to so much times the largest are left out.

    Raises:
        UsageError: If the matrix is not square of a size 2^n, or is 0.
    """
    a = square_matrix(matrix)
    size = len(a)
    i = np.arange(size)
    diagonals = np.array([a[i ^ x, i] for x in range(size)])
    coefs = walsh(diagonals.real) + 1j * walsh(diagonals.imag)
    largest = float(np.abs(coefs).max())
    if largest == 0:
        raise UsageError("the matrix is 0", hint="there is nothing to encode")
    kept = np.argwhere(np.abs(coefs) > max(smallest, 1e-15) * largest).tolist()
    out: list[tuple[complex, tuple[tuple[int, str], ...]]] = []
    for x, z in sorted(kept, key=lambda at: -abs(coefs[at[0], at[1]])):
        letters = tuple(
            (q, "IXZY"[(x >> q & 1) + 2 * (z >> q & 1)])
            for q in range(size.bit_length() - 1)
            if (x | z) >> q & 1
        )
        # X Z = -i Y
        out.append((complex(coefs[x, z] * (-1j) ** (x & z).bit_count()), letters))
    return out


def pauli_combination(terms: Observable | Products, num_qubits: int | None = None) -> BlockEncoding:
    """Return the block encoding of a sum of Pauli products.

    SELECT is written qubit by qubit: ``X^{x_j} Z^{z_j}`` with exponents that the index chooses is,
    up to a phase of the index, a multiplexed rotation by 0 or pi, ``2^k`` CX each; all phases and
    signs are one diagonal of the index (Childs and Wiebe 2012, arXiv:1202.5822).
    Subnormalisation: sum of |c_j|.

    Args:
        terms: The sum, of T terms.
        num_qubits: System qubits; as many as the terms act on by default.

    Raises:
        UsageError: If there is no term, or one acts beyond the qubits.
    """
    products: Products = terms.terms if isinstance(terms, Observable) else terms
    used = max((q for _, product in products for q, _ in product), default=-1) + 1
    n = max(used, 1) if num_qubits is None else num_qubits
    if used > n:
        raise UsageError(f"a Pauli product acts on qubit {used - 1}, there are {n} qubits")
    c, total = _coefficients([coef for coef, _ in products], len(products))
    k = len(c).bit_length() - 1
    circuit = Circuit(n + k, name="pauli_combination")
    index = list(range(n, n + k))
    turns = np.zeros((2, n, len(c)))
    phase = np.angle(c)
    for j, (_, product) in enumerate(products):
        for qubit, pauli in product:
            turns[0, qubit, j] = pauli in "XY"
            turns[1, qubit, j] = pauli in "ZY"
            phase[j] += np.pi / 2 * (pauli == "Y")  # Y = i X Z
    # RX(pi) RZ(pi) = (-i X)(-i Z)
    phase += np.pi / 2 * turns.sum(axis=(0, 1))
    prepare = Circuit(n + k)
    prepare_amplitudes(prepare, np.sqrt(np.abs(c) / total), index)
    circuit = circuit.compose(prepare)
    for axis, which in (("z", 1), ("x", 0)):
        for q in range(n):
            if turns[which, q].any():
                factors = walsh_angles(np.pi * turns[which, q])
                pairs = list(zip(gray_code(k).tolist(), factors, strict=True))
                parity_rotations(circuit, axis, pairs, index, q)
    diagonal(circuit, phase, index)
    circuit = circuit.compose(prepare.inverse())
    return BlockEncoding(circuit, n, total, "pauli")


def fable(matrix: ArrayLike, cutoff: float = 0.0) -> BlockEncoding:
    """Return the block encoding of a dense matrix by one multiplexed rotation (FABLE).

    ``A_ij / (2^n max|A|)``: rows are spread by Hadamards, a flag is turned by
    ``2 arccos |a_ij|`` (and, for complex entries, about Z by minus twice the entry's angle),
    multiplexed by row and column; rows and columns are exchanged, and the spreading undone. Camps
    and Van Beeumen 2022, arXiv:2205.00081; angles of the Gray code below ``cutoff`` are left out.

    Args:
        matrix: [2^n, 2^n].
        cutoff: Angles that are left out, radians; each adds at most half of it to the error of
            every entry.

    Raises:
        UsageError: If the matrix is not square of a size 2^n, or is 0.
    """
    a = square_matrix(matrix)
    n = len(a).bit_length() - 1
    largest = float(np.abs(a).max())
    if largest == 0:
        raise UsageError("the matrix is 0", hint="there is nothing to encode")
    circuit = Circuit(2 * n + 1, name="fable")
    system, rows, flag = list(range(n)), list(range(n, 2 * n)), 2 * n
    for q in rows:
        circuit.h(q)
    # Bit i of the entry's number is column bit i, then row bit i.
    entries = (a / largest).reshape(-1)
    real = not np.abs(entries.imag).any()
    dropped = 0.0
    size = entries.real if real else np.abs(entries)
    jobs = [("y", 2 * np.arccos(np.clip(size, -1, 1)))]
    if not real:
        jobs.append(("z", -2 * np.angle(entries)))
    for axis, angles in jobs:
        factors = walsh_angles(angles)
        small = np.abs(factors) < cutoff
        dropped += float(np.abs(factors[small]).sum())
        pairs = zip(gray_code(2 * n)[~small].tolist(), factors[~small], strict=True)
        parity_rotations(circuit, axis, list(pairs), [*system, *rows], flag)
    for p, q in zip(system, rows, strict=True):
        circuit.swap(p, q)
    for q in rows:
        circuit.h(q)
    scale = largest * (1 << n)
    return BlockEncoding(circuit, n, scale, "fable", scale * dropped / 2)


def hermitian_part(encoding: BlockEncoding) -> BlockEncoding:
    """Return the block encoding of ``(A + A^dag) / 2``: one ancilla, U and its inverse controlled.

    The Hermitian part has a singular value transformation that is a polynomial of the matrix.
    """
    whole = encoding.circuit.num_qubits
    circuit = Circuit(whole + 1, name="hermitian_part")
    wires = [whole, *range(whole)]
    circuit.h(whole)
    circuit = circuit.compose(encoding.circuit.control(), wires)
    circuit.x(whole)
    circuit = circuit.compose(encoding.circuit.inverse().control(), wires)
    circuit.x(whole)
    circuit.h(whole)
    return replace(encoding, circuit=circuit, method=f"hermitian part of {encoding.method}")
