"""Where circuits run: the built-in simulator, or qiskit-aer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.layout import unmapped
from qcomp.ir.observable import Observable
from qcomp.ir.program import Readout

__all__ = ["DEVICES", "run_on"]

Array = NDArray[np.generic]
Rows = NDArray[np.float64]


def run_on(
    device: str, circuit: Circuit, readout: Readout, rows: Rows, shots: int | None, seed: int
) -> Array:
    """Return what a circuit gives back for each row of parameters.

    Args:
        device: A key of ``DEVICES``.
        circuit: The circuit.
        readout: What is read out.
        rows: float64[B, P], parameters in the circuit's order.
        shots: Samples in place of the readout's own; 0 for exact values.
        seed: Seed of the samples.

    Returns:
        The array [B, ...] that :class:`~qcomp.ir.program.Readout` describes.
    """
    return DEVICES[device](circuit, readout, rows, shots, seed)


def _sim(circuit: Circuit, readout: Readout, rows: Rows, shots: int | None, seed: int) -> Array:
    from qcomp.simulate import run_readout

    return np.asarray(run_readout(circuit, readout, rows, shots=shots, seed=seed))


def _aer(circuit: Circuit, readout: Readout, rows: Rows, shots: int | None, seed: int) -> Array:
    try:
        from qiskit_aer import AerSimulator
    except ModuleNotFoundError as error:
        raise UsageError(
            "the device 'aer' needs the package 'qiskit-aer'", hint="pip install qiskit-aer"
        ) from error
    count = readout.shots if shots is None else shots
    virtual = circuit.num_qubits if circuit.layout is None else circuit.layout.num_virtual
    circuit = unmapped(circuit)
    simulator = AerSimulator(seed_simulator=seed, max_parallel_threads=1)
    if readout.kind == "expval" and not count:
        return _aer_exact(simulator, circuit, readout.observables, rows)
    if not count and readout.kind != "bits":
        raise UsageError(
            f"the device 'aer' gives '{readout.kind}' from samples only", hint="give --shots N"
        )
    if readout.kind == "expval":
        return _aer_sampled(simulator, circuit, readout.observables, rows, count)
    return _aer_bits(simulator, circuit, readout, rows, count or 1, virtual)


def _aer_exact(
    simulator: object, circuit: Circuit, observables: tuple[Observable, ...], rows: Rows
) -> Array:
    from qiskit.quantum_info import SparsePauliOp

    operators = [
        SparsePauliOp.from_sparse_list(
            [("".join(p for _, p in term), [q for q, _ in term], c) for c, term in o.terms],
            circuit.num_qubits,
        )
        for o in observables
    ]
    out = np.empty((len(rows), len(operators)))
    for b, row in enumerate(rows):
        bound = circuit.bind(row.tolist()).to_qiskit()
        bound.remove_final_measurements()
        for operator in operators:
            bound.save_expectation_value(operator, range(circuit.num_qubits),
                                         label=f"e{operators.index(operator)}")  # fmt: skip
        data = simulator.run(bound).result().data()  # type: ignore[attr-defined]
        out[b] = [np.real(data[f"e{k}"]) for k in range(len(operators))]
    return out


def _aer_sampled(
    simulator: object,
    circuit: Circuit,
    observables: tuple[Observable, ...],
    rows: Rows,
    shots: int,
) -> Array:
    """Measure each Pauli product in its own rotated basis, ``shots`` samples each."""
    out = np.zeros((len(rows), len(observables)))
    for b, row in enumerate(rows):
        bound = circuit.bind(row.tolist())
        for k, observable in enumerate(observables):
            for coef, product in observable.terms:
                if not product:
                    out[b, k] += coef
                    continue
                circuit_k = bound.copy()
                for q, pauli in product:
                    if pauli == "Y":
                        circuit_k.sdg(q)
                    if pauli != "Z":
                        circuit_k.h(q)
                circuit_k.measure_all()
                bits = _memory(simulator, circuit_k, shots)[:, -circuit.num_qubits :]
                parity = bits[:, [q for q, _ in product]].sum(axis=1) % 2
                out[b, k] += coef * float(1 - 2 * parity.mean())
    return out


def _aer_bits(
    simulator: object, circuit: Circuit, readout: Readout, rows: Rows, shots: int, virtual: int
) -> Array:
    """Measure; of a circuit without measurements its first ``virtual`` qubits."""
    from qcomp.simulate import measures

    results: list[Array] = []
    for row in rows:
        bound = circuit.bind(row.tolist())
        if not measures(circuit):
            bound = bound.copy().measure_all()
        bits = _memory(simulator, bound, shots)
        whole = bits.shape[1] if measures(circuit) else virtual
        order = list(readout.order) or list(range(whole))
        bits = bits[:, order]
        if readout.kind == "probs":
            index = bits.astype(np.int64) @ (1 << np.arange(bits.shape[1]))
            results.append(np.bincount(index, minlength=1 << bits.shape[1]) / shots)
        else:
            results.append(bits[0] if readout.kind == "bits" else bits)
    return np.stack(results)


def _memory(simulator: object, circuit: Circuit, shots: int) -> NDArray[np.uint8]:
    """Return the classical bits of each shot, uint8[shots, num_clbits], bit 0 first."""
    job = simulator.run(circuit.to_qiskit(), shots=shots, memory=True)  # type: ignore[attr-defined]
    words = [word.replace(" ", "")[::-1] for word in job.result().get_memory()]
    return np.array([[int(c) for c in word] for word in words], dtype=np.uint8)


DEVICES: dict[str, Callable[[Circuit, Readout, Rows, int | None, int], Array]] = {
    "sim": _sim,
    "aer": _aer,
}
"""Name -> function; ``sim`` is built in."""
