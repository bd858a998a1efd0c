"""Whether a circuit with ancillas does what another one does without them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.equivalence.verdict import TOLERANCE, Verdict
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.simulate.control_flow import leaves

__all__ = ["check_with_ancillas"]

CHOI_QUBITS = 12
"""Qubits of the largest state followed: the circuit's and a copy of those of the reference."""

Table = dict[int, NDArray[np.complex128]]


def check_with_ancillas(a: Circuit, b: Circuit, seed: int = 0) -> Verdict:
    """Compare a circuit with one that has more qubits and bits, behind those of the first.

    The ancillas start in |0> and are traced out, and so are the bits that only the second circuit
    has. Both act on one half of a maximally entangled state; for each value of the first circuit's
    bits the density matrices of what is left are compared, which decides the channels exactly.

    Args:
        a: The reference.
        b: The candidate.
        seed: Seed of the parameters' values.
    """
    n = a.num_qubits
    if b.num_qubits + n > CHOI_QUBITS:
        return Verdict(
            None,
            f"not checked: circuits with ancillas are followed up to {CHOI_QUBITS} qubits and "
            f"copies, these need {b.num_qubits + n}",
            float("nan"),
        )
    row = np.random.default_rng(seed).uniform(-np.pi, np.pi, size=(1, a.num_params))
    try:
        first, second = _choi(a, n, a.num_clbits, row), _choi(b, n, a.num_clbits, row)
    except UsageError as reason:
        return Verdict(None, f"not checked: {reason.what}", float("nan"))
    zero = np.zeros((1 << 2 * n, 1 << 2 * n))
    error = max(
        float(np.abs(first.get(key, zero) - second.get(key, zero)).max()) * (1 << n)
        for key in first.keys() | second.keys()
    )
    how = "the channels, ancillas traced out, from every outcome"
    return Verdict(error <= TOLERANCE, how, error, rung="channels")


def _choi(circuit: Circuit, n: int, bits: int, row: NDArray[np.float64]) -> Table:
    """Return the Choi matrix, complex128[4^n, 4^n], for each value of the first bits."""
    size = circuit.num_qubits
    whole = Circuit(
        size + n, circuit.num_clbits, circuit.params,
        cregs=circuit.cregs, variables=circuit.variables,
    )  # fmt: skip
    for q in range(n):
        whole.h(q)
        whole.cx(q, size + q)
    whole = whole.compose(circuit, range(size))
    index = np.arange(1 << (size + n))
    table: Table = {}
    for leaf in leaves(whole, row):
        fixed = sum(bit << place for place, bit in enumerate(leaf.bits[:bits]))
        label = np.full(len(index), fixed)
        for qubit, bit in leaf.final:
            if bit < bits:
                label = (label & ~(1 << bit)) | ((index >> qubit & 1) << bit)
        for value in np.unique(label).tolist():
            part = np.where(label == value, leaf.states[0], 0).reshape(1 << n, -1, 1 << n)
            kept = part.transpose(0, 2, 1).reshape(1 << 2 * n, -1)
            made = kept @ kept.conj().T
            table[value] = table[value] + made if value in table else made
    return table
