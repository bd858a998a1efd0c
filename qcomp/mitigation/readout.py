"""Readout mitigation: what was measured, corrected for bits that were read wrongly.

Each qubit has a confusion matrix ``M[read, true]`` of its own; readings of n qubits go by their
tensor product. It is never built: expectation values of Pauli products are corrected qubit by
qubit, distributions on the bit strings that were seen.

Sources: Bravyi, Sheldon, Kandala, Mckay, Gambetta 2020 (arXiv:2006.14044) for the tensor-product
model; Nation, Kang, Sundaresan, Gambetta 2021 (arXiv:2108.12518) for the subspace of what was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.device import Device
from qcomp.errors import UsageError
from qcomp.mitigation.grouping import Group

__all__ = ["Confusion", "nearest_distribution"]

Floats = NDArray[np.float64]

_DIRECT = 2048
_ROUNDS = 200
_CLOSE = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Confusion matrices of some qubits.

    Attributes:
        qubits: The qubits, in the order of the columns of measured bits.
        matrices: float64[n, 2, 2]; ``matrices[j, read, true]`` are probabilities, columns sum to 1.
    """

    qubits: tuple[int, ...]
    matrices: Floats

    def __post_init__(self) -> None:
        """Check the matrices.

        Raises:
            UsageError: If they are no confusion matrices, or a qubit is read at random.
        """
        m = self.matrices
        if m.shape != (len(self.qubits), 2, 2) or not np.allclose(m.sum(axis=1), 1.0):
            raise UsageError(
                "confusion matrices are 2 x 2, one a qubit, with columns that sum to 1"
            )
        for qubit, one in zip(self.qubits, m, strict=True):
            if np.linalg.det(one) < 1e-3:
                raise UsageError(
                    f"the readout of qubit {qubit} cannot be mitigated",
                    why=f"1 is read with probability {one[1, 0]:.3f} of 0, {one[1, 1]:.3f} of 1",
                    hint="take another qubit: --initial-layout",
                )

    @staticmethod
    def of_rates(qubits: Sequence[int], rates: ArrayLike) -> Confusion:
        """Return matrices with the same error rate for 0 and 1, float64[n]."""
        e = np.asarray(rates, dtype=np.float64)
        return Confusion(tuple(qubits), np.moveaxis(np.array([[1 - e, e], [e, 1 - e]]), -1, 0))

    @staticmethod
    def of_device(device: Device, qubits: Sequence[int]) -> Confusion:
        """Return matrices from a device's error rates of ``measure``.

        Raises:
            UsageError: If a rate is unknown.
        """
        rates = device.error("measure")[list(qubits)]
        lost = [q for q, rate in zip(qubits, rates, strict=True) if np.isnan(rate)]
        if lost:
            raise UsageError(
                f"'{device.name}' does not say the readout error of qubit {lost[0]}",
                hint="measure it: calibrate with circuits of all zeros and all ones",
            )
        return Confusion.of_rates(qubits, rates)

    @staticmethod
    def of_calibration(qubits: Sequence[int], zeros: ArrayLike, ones: ArrayLike) -> Confusion:
        """Return matrices from bits that were read of all zeros and of all ones.

        Args:
            qubits: The qubits of the columns.
            zeros: uint8[shots, n], read after |0..0> was made.
            ones: uint8[shots, n], read after |1..1> was made.
        """
        low, high = (np.asarray(b).mean(axis=0, dtype=np.float64) for b in (zeros, ones))
        matrices = np.array([[1 - low, 1 - high], [low, high]])
        return Confusion(tuple(qubits), np.moveaxis(matrices, -1, 0))

    def values(self, group: Group, bits: ArrayLike) -> Floats:
        """Return the mean of each product of a group without readout errors, float64[..., W].

        ``<Z_S> = mean over shots of prod_(q in S) z_q(bit)`` with ``z_q = (1, -1) M_q^-1``: the
        mean is free of bias; the variance grows by about ``prod (1 - e_0 - e_1)^-2``.

        Args:
            group: The group, measured on :attr:`qubits`.
            bits: uint8[..., shots, n], columns as :attr:`qubits`.

        Cost: shots times the letters of the products.
        """
        array = np.asarray(bits)
        z = np.array([1.0, -1.0]) @ np.linalg.inv(self.matrices)
        factors = np.where(array.astype(bool), z[:, 1], z[:, 0])
        column = {q: j for j, q in enumerate(self.qubits)}
        out = np.empty((*array.shape[:-2], len(group.words)))
        for w, (read, sign) in enumerate(zip(group.reads, group.signs, strict=True)):
            product = factors[..., [column[q] for q in read]].prod(axis=-1)
            out[..., w] = sign * product.mean(axis=-1)
        return out

    def distribution(self, bits: ArrayLike) -> tuple[NDArray[np.uint8], Floats]:
        """Return (bit strings uint8[K, n], their quasi-probabilities float64[K]).

        ``A x = p`` over the K strings that were seen, ``A_ij = prod_q M_q[s_i, s_j]`` with columns
        made to sum to 1 again; solved directly, or for more than 2048 strings by iteration with
        the diagonal as preconditioner. Quasi-probabilities sum to 1 and may be a little negative.

        Args:
            bits: uint8[shots, n], columns as :attr:`qubits`.

        Cost: K^2 n for the matrix, K^3 to solve it directly.

        Raises:
            UsageError: If iteration does not converge: readout errors are too large.
        """
        seen, count = np.unique(np.asarray(bits, np.uint8), axis=0, return_counts=True)
        p = count / count.sum()
        if len(seen) <= _DIRECT:
            matrix = self._columns(seen, seen)
            matrix /= matrix.sum(axis=0)
            return seen, np.linalg.solve(matrix, p)
        blocks = [slice(i, i + _DIRECT) for i in range(0, len(seen), _DIRECT)]
        sums = np.concatenate([self._columns(seen, seen[b]).sum(axis=0) for b in blocks])
        right = np.arange(len(self.qubits))
        own = np.prod(self.matrices[right, seen, seen], axis=1) / sums
        x = p / own
        x /= x.sum()
        for _ in range(_ROUNDS):
            image = np.concatenate([self._columns(seen[b], seen) @ (x / sums) for b in blocks])
            rest = p - image
            error = float(np.abs(rest).sum())
            if error < _CLOSE:
                return seen, x
            if error > 1e6:
                break
            x = x + rest / own
        raise UsageError(
            "readout mitigation does not converge",
            why=f"{len(seen)} different bit strings, readout errors up to "
            f"{1 - self.matrices[:, [0, 1], [0, 1]].min():.2f}",
            hint="measure fewer qubits, or mitigate expectation values in place of distributions",
        )

    def _columns(self, read: NDArray[np.uint8], true: NDArray[np.uint8]) -> Floats:
        """Return ``A_ij = prod_q M_q[read_i, true_j]``, float64[len(read), len(true)]."""
        out = np.ones((len(read), len(true)))
        for j, matrix in enumerate(self.matrices):
            out *= matrix[read[:, j][:, None], true[:, j][None, :]]
        return out


def nearest_distribution(quasi: Floats) -> Floats:
    """Return the probability distribution nearest to quasi-probabilities in least squares.

    The most negative ones become 0 and what they lacked is taken evenly from the rest: Smolin,
    Gambetta, Smith 2011 (arXiv:1106.5458). Cost: a sort.
    """
    order = np.argsort(quasi)[::-1]
    sums = np.cumsum(quasi[order])
    ranks = np.arange(1, len(quasi) + 1)
    kept = int(np.flatnonzero(quasi[order] - (sums - 1) / ranks > 0)[-1])
    shift = (sums[kept] - 1) / (kept + 1)
    return np.asarray(np.maximum(quasi - shift, 0.0))
