"""A device's noise on qiskit-aer: from its error rates, durations and relaxation times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.device import Device
from qcomp.errors import UsageError
from qcomp.ir.blocks import Delay, walk_items
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, IS_UNITARY, NUM_QUBITS, G
from qcomp.ir.layout import active_wires
from qcomp.mitigation.schedule import operation_figures

__all__ = ["Machine", "machine"]

MOST_DENSE = 10
"""Qubits up to which density matrices are used: a gate takes 4^n steps. Beyond, each shot has a
state of its own, and there are no exact values."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The qubits of a device that one circuit uses, noise and all.

    Attributes:
        device: The device of these qubits alone.
        model: The ``qiskit_aer.noise.NoiseModel``.
        has_delays: Whether the circuit waits explicitly, which relaxes qubits too.
    """

    device: Device
    model: Any
    has_delays: bool

    def simulator(self, seed: int, exact: bool) -> Any:  # noqa: ANN401  an AerSimulator
        """Return a simulator with the noise.

        Raises:
            UsageError: If exact values are asked for of too many qubits.
        """
        from qiskit_aer import AerSimulator

        qubits = self.device.num_qubits
        if exact and qubits > MOST_DENSE:
            raise UsageError(
                f"exact values under noise are had up to {MOST_DENSE} qubits, "
                f"the circuit uses {qubits} of the machine, some of them for swaps perhaps",
                hint="give --shots N",
            )
        return AerSimulator(
            method="density_matrix" if qubits <= MOST_DENSE else "statevector",
            noise_model=self.model,
            seed_simulator=seed,
            max_parallel_threads=1,
        )

    def ready(self, circuit: Any) -> Any:  # noqa: ANN401  a QuantumCircuit
        """Return a Qiskit circuit with the relaxation of its delays."""
        if not self.has_delays:
            return circuit
        from qiskit.circuit import Delay as QiskitDelay
        from qiskit_aer.noise.passes import RelaxationNoisePass

        t1, t2 = _times(self.device)
        relaxed = RelaxationNoisePass(
            t1s=t1.tolist(), t2s=t2.tolist(), dt=self.device.dt, op_types=QiskitDelay
        )
        return relaxed(circuit)


def wires_of(circuit: Circuit) -> list[int]:
    """Return the physical qubit of each wire of ``unmapped(circuit)``."""
    if circuit.layout is None:
        return list(range(circuit.num_qubits))
    lead = list(circuit.layout.final)
    used = set(lead)
    return lead + [w for w in np.flatnonzero(active_wires(circuit)).tolist() if w not in used]


def machine(device: Device, circuit: Circuit, wires: Sequence[int]) -> Machine:
    """Return the qubits of a device that a circuit uses, with the noise of each gate on them.

    The noise is that of Qiskit Aer's ``NoiseModel.from_backend``: after each gate relaxation for
    its duration and depolarising for the rest of its error rate; readings are flipped with their
    error rate.

    Args:
        device: The device.
        circuit: The circuit on as many wires as ``wires`` has.
        wires: The physical qubit of each wire.

    Raises:
        UsageError: If the circuit has gates that the device has not, or their rates are unknown.
    """
    _check(device, circuit, wires)
    part = _part(device, wires)
    delays = any(isinstance(item, Delay) for item in walk_items(circuit.body))
    return Machine(part, _model(part), delays)


def _check(device: Device, circuit: Circuit, wires: Sequence[int]) -> None:
    """Check that every gate is one of the device's, with a known rate.

    Raises:
        UsageError: If one is not; gates without rates would run without noise.
    """
    hint = "compile for it: -t ibm-heron --device fake_torino, or the device that you name"
    if max(wires, default=0) >= device.num_qubits:
        raise UsageError(
            f"the circuit uses qubit {max(wires)}, '{device.name}' has {device.num_qubits}",
            hint=hint,
        )
    where = np.array([*wires, 0], dtype=np.int32)
    bits = np.arange(max(circuit.num_clbits, 1), dtype=np.int32)
    for run in circuit.runs():
        rates = operation_figures(run.relabel(where, bits), device, device.errors, ("id", "rz"))
        gate = IS_UNITARY[run.code] & (NUM_QUBITS[run.code] != 0) | (run.code == G.MEASURE)
        lost = np.flatnonzero(gate & np.isnan(rates))
        if len(lost):
            at = int(lost[0])
            name = GATES[run.code[at]].name
            places = ", ".join(str(wires[q]) for q in run.operands(at))
            raise UsageError(
                f"'{device.name}' has no error rate of {name} on qubit {places}",
                why="gates without a rate would run without noise",
                hint=hint,
            )


def _part(device: Device, wires: Sequence[int]) -> Device:
    """Return the device of some qubits, numbered by their places in ``wires``."""
    place = np.full(device.num_qubits, -1, dtype=np.int64)
    place[list(wires)] = np.arange(len(wires))
    moved = place[device.pairs]
    kept = (moved >= 0).all(axis=1)

    def figures(table: Any) -> dict[str, NDArray[np.float64]]:
        # One-qubit figures have an entry a qubit, those of pairs one a pair.
        two = {name for name in table if name in _names(2)}
        return {
            name: values[kept] if name in two else values[list(wires)]
            for name, values in table.items()
        }

    return Device(
        name=device.name,
        num_qubits=len(wires),
        pairs=moved[kept].astype(np.int32),
        gates=device.gates,
        errors=figures(device.errors),
        durations=figures(device.durations),
        t1=device.t1[list(wires)],
        t2=device.t2[list(wires)],
        dt=device.dt,
        timing=device.timing,
    )


def _names(operands: int) -> set[str]:
    return {s for row in GATES if row.num_qubits == operands for s in (row.name, *row.aliases)}


def _times(device: Device) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return T1 and T2, infinite where unknown; T2 is at most 2 T1, as Aer has it."""
    t1 = np.where(np.isnan(device.t1), np.inf, device.t1)
    t2 = np.where(np.isnan(device.t2), np.inf, device.t2)
    return t1, np.minimum(t2, 2 * t1)


def _model(device: Device) -> Any:  # noqa: ANN401  a NoiseModel
    import warnings

    from qiskit_aer.noise import NoiseModel
    from qiskit_aer.noise.device import basic_device_gate_errors, basic_device_readout_errors

    gates = [name for name in device.gates if name in device.errors]
    target = device.to_qiskit_target(gates)
    model = NoiseModel(basis_gates=[*device.gates, "measure", "reset", "delay"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # figures that Aer rounds, such as T2 above 2 T1
        if "measure" in device.errors and not np.isnan(device.errors["measure"]).any():
            for qubits, error in basic_device_readout_errors(target=target):
                model.add_readout_error(error, qubits, warnings=False)
        for name, qubits, error in basic_device_gate_errors(target=target):
            model.add_quantum_error(error, name, qubits, warnings=False)
    return model
