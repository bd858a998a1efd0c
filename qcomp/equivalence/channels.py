"""Circuits that measure, reset or branch, compared by what they do to random states."""

from __future__ import annotations

from math import pi

import numpy as np
from numpy.typing import NDArray

from qcomp.equivalence.verdict import TOLERANCE, Verdict
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.simulate.control_flow import leaves

__all__ = ["check_channels"]

DENSITY_QUBITS = 7
"""Qubits up to which whole density matrices are compared."""

DISTRIBUTION_QUBITS = 14
"""Qubits up to which distributions of outcomes are compared."""

STATES = 3
"""Random product states that go in."""

OUTCOMES = 1 << 12
"""Different values of the classical bits that are told apart."""

Table = dict[int, NDArray[np.complex128]]
"""Value of the classical bits -> unnormalised density matrix, or distribution, after it."""


def check_channels(
    a: Circuit,
    b: Circuit,
    rng: np.random.Generator,
    *,
    only_bits: bool = False,
    inputs: int | None = None,
) -> Verdict:
    """Compare two circuits outcome by outcome, exactly, every branch followed.

    Up to 7 qubits the state left behind after each value of the classical bits is compared as a
    density matrix, up to 14 the joint distribution of the bits and of all qubits measured in a
    random product basis. Both start in the same random product states, parameters at random.

    Args:
        a: The reference.
        b: The candidate.
        rng: Draws the states, bases and parameters.
        only_bits: Compare the joint distribution of the bits, whatever state is left.
        inputs: Qubits that random states go in on, the others start in |0>; all by default.
    """
    n = a.num_qubits
    if n > DISTRIBUTION_QUBITS:
        return Verdict(
            None,
            f"not checked: circuits with measurements or control flow inside are followed up to "
            f"{DISTRIBUTION_QUBITS} qubits, these have {n}",
            float("nan"),
        )
    dense = n <= DENSITY_QUBITS and not only_bits
    what = "states after each outcome" if dense else "joint distributions of bits and qubits"
    if only_bits:
        what = "joint distributions of the bits"
    how = f"{what}, from {STATES} random product states" + (
        " and bindings of the parameters" if a.params else ""
    )
    error = 0.0
    try:
        for _ in range(STATES):
            values = {name: float(rng.uniform(-pi, pi)) for name in a.params}
            before = _turns(a, rng)
            before[inputs:] *= 0 if inputs is not None else 1
            after = None if dense or only_bits else _turns(a, rng)
            first = _outcomes(a, values, before, after, dense)
            second = _outcomes(b, values, before, after, dense)
            if only_bits:
                first, second = _summed(first), _summed(second)
            difference = _largest_difference(first, second)
            error = max(error, difference)
            if difference > TOLERANCE:
                detail = {"parameters": values} if values else {}
                return Verdict(False, how, error, 0.0, detail)
    except UsageError as reason:
        return Verdict(None, f"not checked: {reason.what}", float("nan"))
    return Verdict(True, how, error)


def _turns(circuit: Circuit, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return random angles (theta, phi) of a direction for each qubit."""
    count = circuit.num_qubits
    return np.stack([np.arccos(rng.uniform(-1, 1, count)), rng.uniform(-pi, pi, count)], axis=1)


def _turned(circuit: Circuit, turns: NDArray[np.float64]) -> Circuit:
    out = Circuit(circuit.num_qubits, circuit.num_clbits, circuit.params, cregs=circuit.cregs)
    for q, (theta, phi) in enumerate(turns.tolist()):
        out.u(theta, phi, 0.0, q)
    return out


def _outcomes(
    circuit: Circuit,
    values: dict[str, float],
    before: NDArray[np.float64],
    after: NDArray[np.float64] | None,
    dense: bool,
) -> Table:
    """Return what is left after each value of the classical bits."""
    whole = _turned(circuit, before).compose(circuit)
    if after is not None:
        whole = whole.compose(_turned(circuit, after))
    row = np.array([[values[name] for name in whole.params]])
    n = circuit.num_qubits
    index = np.arange(1 << n)
    table: Table = {}
    for leaf in leaves(whole, row):
        fixed = sum(bit << place for place, bit in enumerate(leaf.bits))
        label = np.full(1 << n, fixed)
        for qubit, bit in leaf.final:
            label = (label & ~(1 << bit)) | ((index >> qubit & 1) << bit)
        state = leaf.states[0]
        for value in np.unique(label).tolist():
            part = np.where(label == value, state, 0)
            made = np.outer(part, part.conj()) if dense else np.abs(part) ** 2
            table[value] = table[value] + made if value in table else made.astype(complex)
        if len(table) > OUTCOMES:
            raise UsageError(f"more than {OUTCOMES} values of the classical bits")
    return table


def _summed(table: Table) -> Table:
    """Return the chance of each value of the bits."""
    return {value: part.sum(keepdims=True) for value, part in table.items()}


def _largest_difference(first: Table, second: Table) -> float:
    return max(
        float(np.abs(first.get(value, 0) - second.get(value, 0)).max())
        for value in {**first, **second}
    )
