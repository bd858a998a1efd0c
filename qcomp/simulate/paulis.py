"""Observables as tables of Pauli words, and their expectation values in batches of states."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.observable import Observable
from qcomp.simulate.kernels import pauli_rows, weighted_pauli_rows

__all__ = ["PauliTable", "pauli_table"]

SMALL_WORK = 1 << 15
"""Amplitudes times words up to which nothing is compiled to read expectation values."""

States = NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class PauliTable:
    """The different Pauli words of some observables, and the observables as their sums.

    Word t acts as ``P_t |i> = factor_t (-1)^|i & z_t| |i ^ x_t>``.

    Attributes:
        x: Bits where the word has X or Y, int64[T].
        z: Bits where the word has Z or Y, int64[T].
        factor: i to the number of Y, complex128[T].
        coefficients: Observable k is ``sum_t coefficients[t, k] P_t``, float64[T, K].
    """

    x: NDArray[np.int64]
    z: NDArray[np.int64]
    factor: States
    coefficients: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self.x)

    def dephased(self, qubits: Sequence[int]) -> PauliTable:
        """Return the table after these qubits were measured: X and Y on them average to 0."""
        mask = sum(1 << q for q in set(qubits))
        keep = (self.x & mask) == 0
        return PauliTable(self.x[keep], self.z[keep], self.factor[keep], self.coefficients[keep])

    def word_values(self, states: States) -> NDArray[np.float64]:
        """Return <state b| P_t |state b>, float64[B, T]."""
        if states.size * len(self) < SMALL_WORK:
            return self._small_values(states)
        out = np.zeros((len(states), len(self)))
        if out.size:
            compute = pauli_rows.by_size(states.size * len(self))
            compute(states, self.x, self.z, self.factor, out)
        return out

    def _small_values(self, states: States) -> NDArray[np.float64]:
        """Do the same in plain NumPy, word by word."""
        size = states.shape[1]
        out = np.empty((len(states), len(self)))
        squared = states.real**2 + states.imag**2
        for t, (x, z) in enumerate(zip(self.x.tolist(), self.z.tolist(), strict=True)):
            signs = _signs(size, z)
            if x == 0:
                out[:, t] = squared @ signs
            else:
                moved = states[:, np.arange(size) ^ x].conj() * states
                out[:, t] = (self.factor[t] * (moved @ signs)).real
        return out

    def apply(self, states: States, cotangent: NDArray[np.float64]) -> States:
        """Return ``sum_k cotangent[b, k] O_k |state b>``, complex128[B, 2^n]."""
        weight = cotangent @ self.coefficients.T
        out = np.zeros_like(states)
        if len(self):
            compute = weighted_pauli_rows.by_size(states.size * len(self))
            compute(states, self.x, self.z, self.factor, weight, out)
        return out

    def bases(self) -> list[tuple[int, int, NDArray[np.intp]]]:
        """Return groups of words that one measurement setting reads together.

        Words are put greedily, in order, into the first group that they commute with qubit by
        qubit. Every group is (bits read in the X basis, bits read in the Y basis, its words).
        """
        groups: list[tuple[int, int, int, list[int]]] = []
        for t in range(len(self)):
            xs = int(self.x[t]) & ~int(self.z[t])
            ys = int(self.x[t]) & int(self.z[t])
            zs = int(self.z[t]) & ~int(self.x[t])
            for g, (gx, gy, gz, words) in enumerate(groups):
                if not (xs & (gy | gz) or ys & (gx | gz) or zs & (gx | gy)):
                    groups[g] = (gx | xs, gy | ys, gz | zs, [*words, t])
                    break
            else:
                groups.append((xs, ys, zs, [t]))
        return [(gx, gy, np.array(words, dtype=np.intp)) for gx, gy, _, words in groups]


@functools.lru_cache(maxsize=1024)
def _signs(size: int, mask: int) -> NDArray[np.float64]:
    """Return (-1)^|i & mask|, float64[size]."""
    return 1.0 - 2.0 * (np.bitwise_count(np.arange(size) & mask) & 1)


def pauli_table(observables: Sequence[Observable | str], num_qubits: int) -> PauliTable:
    """Return the table of some observables.

    Args:
        observables: Observables, or their text such as ``"0.5*Z0*Z1 + X2"``.
        num_qubits: Qubits of the circuit.

    Raises:
        UsageError: If there is none, or one acts on a qubit that the circuit does not have.
    """
    if not observables:
        raise UsageError("an expectation value needs at least one observable")
    return _table(tuple(observables), num_qubits)


@functools.lru_cache(maxsize=64)  # a layer asks for the same table at every step of its training
def _table(observables: tuple[Observable | str, ...], num_qubits: int) -> PauliTable:
    words: dict[tuple[int, int], int] = {}
    entries: list[tuple[int, int, float]] = []
    for k, item in enumerate(observables):
        observable = Observable.parse(item) if isinstance(item, str) else item
        for coef, factors in observable.terms:
            x = z = 0
            for qubit, letter in factors:
                if not 0 <= qubit < num_qubits:
                    raise UsageError(
                        f"observable '{observable}' acts on qubit {qubit}",
                        why=f"the circuit has qubits 0 .. {num_qubits - 1}",
                    )
                x |= (letter in "XY") << qubit
                z |= (letter in "ZY") << qubit
            entries.append((words.setdefault((x, z), len(words)), k, float(coef)))
    coefficients = np.zeros((len(words), len(observables)))
    for t, k, coef in entries:
        coefficients[t, k] += coef
    masks = np.array(list(words), dtype=np.int64).reshape(-1, 2)
    factor = np.array([1j ** (x & z).bit_count() for x, z in words], dtype=np.complex128)
    return PauliTable(masks[:, 0].copy(), masks[:, 1].copy(), factor, coefficients)
