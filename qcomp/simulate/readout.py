"""What a Circuit node gives: the one place that says what its readout means.

=========  =======================================  ==========================================
kind       exact (shots = 0)                        with shots
=========  =======================================  ==========================================
expval     expectation values, float64[B, K]        means over shots; each measurement setting
                                                    is run with all the shots
probs      distribution, float64[B, 2^m]            relative frequencies, float64[B, 2^m]
bits       one sample, uint8[B, m]                  the same
samples    refused                                  uint8[B, shots, m]
state      amplitudes, complex128[B, 2^n]           refused
=========  =======================================  ==========================================

m counts the classical bits of a circuit that measures; a circuit without measurement is measured
whole at its end, bit i being qubit i. ``order`` makes new bit i the old bit ``order[i]``; bits of
``probs``, ``bits`` and ``samples`` that it leaves out are summed over or dropped.

Of a circuit that was mapped onto a machine, the qubits are those of the circuit before: what is
read out is the same, and only the qubits in use are simulated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.layout import unmapped
from qcomp.ir.observable import Observable
from qcomp.ir.program import Readout
from qcomp.simulate.control_flow import Leaf, final_measurements, leaves
from qcomp.simulate.engine import parameter_rows, row_chunks
from qcomp.simulate.exact import (
    bit_distribution,
    expectations,
    outcome_bits,
    probabilities,
    squared,
    statevector,
)
from qcomp.simulate.paulis import PauliTable, pauli_table

__all__ = [
    "estimated_expectations",
    "measures",
    "measures_inside",
    "reordered",
    "run_readout",
    "sample",
    "sampled_expectations",
]

_SQRT_HALF = np.sqrt(0.5)


def measures(circuit: Circuit) -> bool:
    """Whether the circuit measures anything."""
    return any((run.code == G.MEASURE).any() for run in circuit.runs())


def sample(
    circuit: Circuit, params: ArrayLike | None, shots: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return sampled bits.

    Args:
        circuit: Any circuit; one without measurement is measured whole at its end.
        params: float64[B, P], one row, or None.
        shots: Shots of each row, at least 1.
        rng: Where draws come from; same generator state, same bits.

    Returns:
        uint8[B, shots, m], m the classical bits, or the qubits of a circuit without measurement.

    Raises:
        UsageError: If ``shots`` is below 1 or the circuit is too large.
    """
    if shots < 1:
        raise UsageError(f"sampling needs at least 1 shot, not {shots}")
    rows = parameter_rows(circuit, params)
    whole = not measures(circuit)
    width = circuit.num_qubits if whole else circuit.num_clbits
    out = np.zeros((len(rows), shots, width), dtype=np.uint8)
    for part in row_chunks(circuit.num_qubits, len(rows)):
        into = out[part]
        filled = np.zeros(len(into), dtype=np.int64)
        split = False
        for leaf in leaves(circuit, rows[part], shots, rng):
            wires = [(q, q) for q in range(width)] if whole else list(leaf.final)
            base = np.zeros(width, dtype=np.uint8)
            if not whole:
                base[:] = leaf.bits
            assert leaf.shots is not None
            for i, row in enumerate(leaf.rows.tolist()):
                count = int(leaf.shots[i])
                split |= count < shots
                bits = into[row, filled[row] : filled[row] + count]
                bits[:] = base
                filled[row] += count
                if wires:
                    index = _draw(leaf.states[i], count, rng)
                    for qubit, clbit in wires:
                        bits[:, clbit] = (index >> qubit) & 1
        if split:  # shots came out leaf by leaf: their order must carry no meaning
            for row in range(len(into)):
                into[row] = into[row][rng.permutation(shots)]
    return out


def _draw(state: NDArray[np.complex128], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return ``count`` basis states drawn from a state, int64[count]."""
    total = np.cumsum(squared(state))
    index = np.searchsorted(total, rng.random(count) * total[-1], side="right")
    return np.minimum(index, len(state) - 1).astype(np.int64)


def _counts(leaf: Leaf, weight: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return how often each basis state comes out of the leaf's shots, int64[r, 2^n]."""
    assert leaf.shots is not None
    if weight.shape[1] <= int(leaf.shots.max()):
        chance = weight / weight.sum(axis=1, keepdims=True)
        return rng.multinomial(leaf.shots, chance)
    out = np.zeros(weight.shape, dtype=np.int64)
    for i in range(len(weight)):
        total = np.cumsum(weight[i])
        draws = rng.random(int(leaf.shots[i])) * total[-1]
        index = np.minimum(np.searchsorted(total, draws, side="right"), weight.shape[1] - 1)
        out[i] = np.bincount(index, minlength=weight.shape[1])
    return out


def sampled_expectations(
    circuit: Circuit,
    params: ArrayLike | None,
    observables: Sequence[Observable | str],
    shots: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return means over shots, float64[B, K].

    Words that commute qubit by qubit share a measurement setting, found greedily; each setting is
    run with all the shots.

    Raises:
        UsageError: If an observable does not fit, or the circuit is too large.
    """
    return estimated_expectations(circuit, params, observables, shots, rng)[0]


def estimated_expectations(
    circuit: Circuit,
    params: ArrayLike | None,
    observables: Sequence[Observable | str],
    shots: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what :func:`sampled_expectations` does, and the standard errors, float64[B, K] each.

    Shots of one setting give the variance of each observable's share there, covariances between
    its words included; settings are independent.
    """
    if shots < 1:
        raise UsageError(f"sampling needs at least 1 shot, not {shots}")
    rows = parameter_rows(circuit, params)
    table = pauli_table(observables, circuit.num_qubits)
    table = table.dephased([qubit for qubit, _ in final_measurements(circuit)[1]])
    words = np.zeros((len(rows), len(table)))
    variance = np.zeros((len(rows), table.coefficients.shape[1]))
    for part in row_chunks(circuit.num_qubits, len(rows)):
        known: Leaf | None = None
        for xs, ys, group in table.bases():
            found = [known] if known else list(leaves(circuit, rows[part], shots, rng))
            if len(found) == 1 and len(found[0].rows) == part.stop - part.start:
                known = found[0] if not measures_inside(circuit) else None
            moments = np.zeros((2, part.stop - part.start, variance.shape[1]))
            for leaf in found:
                rotated = _rotated(leaf.states, xs, ys)
                counts = _counts(leaf, squared(rotated), rng)
                signs = _signs(table, group, counts.shape[1])
                words[part.start + leaf.rows[:, None], group] += counts @ signs / shots
                share = signs @ table.coefficients[group]
                moments[0, leaf.rows] += counts @ share / shots
                moments[1, leaf.rows] += counts @ share**2 / shots
            spread = np.maximum(moments[1] - moments[0] ** 2, 0)
            variance[part] += spread / max(1, shots - 1)
    return words @ table.coefficients, np.sqrt(variance)


def measures_inside(circuit: Circuit) -> bool:
    """Whether the circuit measures or resets before its end, so that every run may differ."""
    body, _ = final_measurements(circuit)
    inner = circuit.copy(body=body)
    return any(((run.code == G.MEASURE) | (run.code == G.RESET)).any() for run in inner.runs())


def _rotated(states: NDArray[np.complex128], xs: int, ys: int) -> NDArray[np.complex128]:
    """Return the states with the Y, X bases of some qubits turned to Z: H sdg and H."""
    for qubit in range(int(xs | ys).bit_length()):
        if not (xs | ys) >> qubit & 1:
            continue
        view = states.reshape(len(states), -1, 2, 1 << qubit)
        low = view[:, :, 0]
        high = view[:, :, 1] * (-1j if ys >> qubit & 1 else 1.0)
        turned = np.stack([low + high, low - high], axis=2) * _SQRT_HALF
        states = turned.reshape(states.shape)
    return states


def _signs(table: PauliTable, group: NDArray[np.intp], size: int) -> NDArray[np.float64]:
    """Return the eigenvalue of each word in each basis state of its setting, float64[size, g]."""
    index = np.arange(size, dtype=np.int64)
    masks = (table.x | table.z)[group]
    odd = np.bitwise_count(index[:, None] & masks[None, :]) & 1
    return 1.0 - 2.0 * odd


def _sampled_distribution(
    circuit: Circuit, params: NDArray[np.float64], shots: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return relative frequencies of the measured bits, float64[B, 2^m]."""
    whole = not measures(circuit)
    size = 1 << (circuit.num_qubits if whole else circuit.num_clbits)
    out = np.zeros((len(params), size))
    for part in row_chunks(circuit.num_qubits, len(params)):
        into = out[part]
        for leaf in leaves(circuit, params[part], shots, rng):
            counts = _counts(leaf, squared(leaf.states), rng)
            if whole:
                into[leaf.rows] += counts
                continue
            values = outcome_bits(leaf, counts.shape[1])
            for i, row in enumerate(leaf.rows.tolist()):
                into[row] += np.bincount(values, counts[i], minlength=size)
    return out / shots


def run_readout(
    circuit: Circuit,
    readout: Readout,
    params: ArrayLike | None,
    shots: int | None = None,
    seed: int = 0,
) -> NDArray[np.generic]:
    """Return what a Circuit node gives for a batch of parameter rows; see the module's table.

    Args:
        circuit: The node's circuit.
        readout: The node's kind, observables, shots and order.
        params: float64[B, P], one row, or None.
        shots: Instead of the readout's own shots; 0 for the exact result.
        seed: Seed of the draws; the same seed gives the same result.

    Raises:
        UsageError: If the readout cannot be had of this circuit, or the circuit is too large.
    """
    count = readout.shots if shots is None else shots
    if count < 0:
        raise UsageError(f"the number of shots must not be negative, not {count}")
    virtual = circuit.num_qubits if circuit.layout is None else circuit.layout.num_virtual
    circuit = unmapped(circuit)
    rows = parameter_rows(circuit, params)
    rng = np.random.default_rng(seed)
    order = readout.order
    if virtual < circuit.num_qubits and readout.kind != "expval" and not measures(circuit):
        order = _checked(order, virtual)
    match readout.kind:
        case "expval":
            if order:
                raise UsageError("readout 'expval' takes no output order")
            if count:
                return sampled_expectations(circuit, rows, readout.observables, count, rng)
            return expectations(circuit, rows, readout.observables)
        case "probs":
            if count:
                values = _sampled_distribution(circuit, rows, count, rng)
            elif measures(circuit):
                values = bit_distribution(circuit, rows)
            else:
                values = probabilities(circuit, rows)
            return reordered(values, order)
        case "bits":
            bits = sample(circuit, rows, 1, rng)[:, 0]
            return bits[:, list(_checked(order, bits.shape[1]))]
        case "samples":
            if not count:
                raise UsageError(
                    "readout 'samples' needs shots", hint="give shots=1024, or ask for probs"
                )
            bits = sample(circuit, rows, count, rng)
            return bits[:, :, list(_checked(order, bits.shape[2]))]
        case "state":
            if count:
                raise UsageError("readout 'state' is exact, it cannot be had with shots")
            if order and len(order) != virtual:
                raise UsageError("the order of a state must name every qubit")
            return reordered(statevector(circuit, rows)[:, : 1 << virtual], order)


def _checked(order: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return the order of bits, all in their own order when empty.

    Raises:
        UsageError: If it names a bit twice or one that is not there.
    """
    if not order:
        return tuple(range(size))
    if len(set(order)) < len(order) or not all(0 <= i < size for i in order):
        raise UsageError(
            f"the output order {list(order)} does not fit", why=f"there are {size} bits"
        )
    return order


def reordered(values: NDArray[np.generic], order: tuple[int, ...]) -> NDArray[np.generic]:
    """Return [B, 2^m] with new index bit i the old bit order[i], the others summed over."""
    if not order:
        return values
    m = values.shape[1].bit_length() - 1
    _checked(order, m)
    tensor = values.reshape(len(values), *([2] * m))
    keep = [m - bit for bit in reversed(order)]
    rest = [axis for axis in range(1, m + 1) if axis not in keep]
    moved = np.transpose(tensor, [0, *keep, *rest]).reshape(len(values), 1 << len(order), -1)
    return moved[:, :, 0] if not rest else moved.sum(axis=2)
