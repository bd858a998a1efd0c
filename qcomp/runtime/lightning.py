"""Circuits on PennyLane's ``lightning.qubit``: exact, or sampled there."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, IS_UNITARY
from qcomp.ir.layout import unmapped
from qcomp.ir.program import Readout
from qcomp.ir.run import Run
from qcomp.registry import load
from qcomp.runtime.estimates import Estimate, estimate
from qcomp.simulate import measures
from qcomp.simulate.control_flow import Leaf, final_measurements
from qcomp.simulate.engine import check_memory
from qcomp.simulate.exact import outcome_bits, squared, unitary_runs
from qcomp.simulate.paulis import pauli_table
from qcomp.simulate.readout import reordered
from qcomp.simulate.reference import phase_rows

__all__ = ["on_own_qubits", "run_lightning"]

Rows = NDArray[np.float64]
Bits = NDArray[np.uint8]
Array = NDArray[np.generic]


def run_lightning(
    circuit: Circuit, readout: Readout, rows: Rows, shots: int | None, seed: int
) -> Estimate:
    """Return what a circuit gives back for each row of parameters.

    Args:
        circuit: A circuit that measures at its end only.
        readout: What is read out.
        rows: float64[B, P].
        shots: Samples in place of the readout's own; 0 for exact values.
        seed: Seed of the samples.

    Raises:
        UsageError: If PennyLane is not installed, or the circuit measures before its end.
    """
    qml = _pennylane()
    unitary_runs(unmapped(circuit), "the device 'lightning'")
    count = readout.shots if shots is None else shots
    count = 1 if readout.kind == "bits" else count
    if count and readout.kind == "state":
        raise UsageError(
            "readout 'state' is exact, it cannot be had with shots", hint="give --shots 0"
        )
    if readout.kind == "samples" and not count:
        raise UsageError("readout 'samples' needs shots", hint="give --shots N")
    plain, readout = on_own_qubits(circuit, readout)
    if count:
        found = load("services", "from-samples")(plain, readout, rows, count, _sampler(qml, seed))
        assert isinstance(found, Estimate)
        return found
    return estimate(readout, _read(plain, readout, _states(qml, plain, rows)), 0)


def on_own_qubits(circuit: Circuit, readout: Readout) -> tuple[Circuit, Readout]:
    """Return a mapped circuit on the qubits that it uses, and the readout as that circuit has it.

    Args:
        circuit: The circuit, mapped or not.
        readout: What is read out.
    """
    virtual = circuit.num_qubits if circuit.layout is None else circuit.layout.num_virtual
    plain = unmapped(circuit)
    whole = readout.kind != "expval" and not readout.order and not measures(plain)
    if whole and virtual < plain.num_qubits:
        readout = replace(readout, order=tuple(range(virtual)))
    return plain, readout


def _pennylane() -> Any:  # noqa: ANN401  the module
    if find_spec("pennylane") is None or find_spec("pennylane_lightning") is None:
        raise UsageError(
            "the device 'lightning' needs PennyLane and its lightning simulator",
            hint="pip install 'qcomp[pennylane]'",
        )
    import pennylane

    return pennylane


def _states(qml: Any, circuit: Circuit, rows: Rows) -> NDArray[np.complex128]:  # noqa: ANN401
    """Return the final states, complex128[B, 2^n]."""
    check_memory(circuit.num_qubits, len(rows), copies=1)
    # PennyLane's first wire is the highest bit of an index, ours the last qubit.
    device = qml.device("lightning.qubit", wires=list(reversed(range(circuit.num_qubits))))
    run = Run.concat(unitary_runs(circuit, "the device 'lightning'"))

    @qml.qnode(device, diff_method=None)
    def node(row: Rows) -> object:
        _apply(qml, circuit, run, row)
        return qml.state()

    states = np.array([node(row) for row in rows], dtype=np.complex128)
    states = states.reshape(len(rows), 1 << circuit.num_qubits)
    return states * np.exp(1j * phase_rows(circuit, rows))[:, None]


def _read(circuit: Circuit, readout: Readout, states: NDArray[np.complex128]) -> Array:
    """Return what a readout is of final states, before the measurements at the circuit's end."""
    _, final = final_measurements(circuit)
    if readout.kind == "expval":
        table = pauli_table(readout.observables, circuit.num_qubits)
        table = table.dephased([qubit for qubit, _ in final])
        return table.word_values(states) @ table.coefficients
    if readout.kind == "state":
        return reordered(states, readout.order)
    weight = squared(states)
    if measures(circuit):
        leaf = Leaf(np.arange(len(states)), states, None, (0,) * circuit.num_clbits, final)
        values = outcome_bits(leaf, states.shape[1])
        size = 1 << circuit.num_clbits
        weight = np.stack([np.bincount(values, own, minlength=size) for own in weight])
    return reordered(weight, readout.order)


def _sampler(qml: Any, seed: int) -> Any:  # noqa: ANN401
    """Return a function from settings to bits; see :func:`qcomp.submit.direct.from_samples`."""

    def run(settings: list[Any]) -> list[Bits]:
        return [_sampled(qml, setting, seed + k) for k, setting in enumerate(settings)]

    return run


def _sampled(qml: Any, setting: Any, seed: int) -> Bits:  # noqa: ANN401
    """Return uint8[B, shots, bits] of a circuit that measures at its end."""
    circuit = setting.circuit
    n = circuit.num_qubits
    run = Run.concat(unitary_runs(circuit, "the device 'lightning'"))
    device = qml.device("lightning.qubit", wires=n, seed=seed)

    @qml.set_shots(setting.shots)
    @qml.qnode(device, diff_method=None)
    def node(row: Rows) -> object:
        _apply(qml, circuit, run, row)
        return qml.sample(wires=range(n))

    out = np.zeros((len(setting.rows), setting.shots, circuit.num_clbits), dtype=np.uint8)
    for b, row in enumerate(setting.rows):
        found = np.asarray(node(row), dtype=np.uint8).reshape(setting.shots, n)
        for qubit, clbit in final_measurements(circuit)[1]:
            out[b, :, clbit] = found[:, qubit]
    return out


def _apply(qml: Any, circuit: Circuit, run: Run, row: Rows) -> None:  # noqa: ANN401
    """Queue the gates of a run; operand 0 is the low bit, PennyLane's first wire the high one."""
    angles = circuit.angles_for(row, run)[0]
    for i in np.flatnonzero(IS_UNITARY[run.code]).tolist():
        gate = GATES[int(run.code[i])]
        operands = list(run.operands(i))
        at = int(run.angle[i])
        if gate.name == "mcx":
            qml.MultiControlledX(wires=operands)
        elif operands:
            matrix = gate.matrix(*angles[at : at + gate.num_angles])
            qml.QubitUnitary(matrix, wires=operands[::-1])
        else:
            qml.GlobalPhase(-float(angles[at]))
