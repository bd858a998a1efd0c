"""Amazon Braket as a consumer: its parser, its local simulator, its emulator of native gates."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from qcomp.consumers.outcomes import MAX_QUBITS, Outcome
from qcomp.ir.circuit import Circuit

__all__ = ["Braket", "Emulator"]

_NATIVE = {
    "rigetti": ["rx", "rz", "iswap", "cz"],
    "iqm": ["prx", "cz"],
    "ionq": ["gpi", "gpi2", "ms", "zz"],
}


class Braket:
    """``Circuit.from_ir``, and the exact state of ``LocalSimulator``."""

    def load(self, text: str, values: Mapping[str, float], ours: Circuit) -> object:
        """Parse with values for the inputs."""
        from braket.circuits import Circuit as BraketCircuit

        return BraketCircuit.from_ir(text, inputs=dict(values) or None)

    def outcome(self, loaded: object) -> Outcome | str:
        """Return the state's probabilities; Braket tells which qubits are measured, not where."""
        from braket.circuits import Circuit as BraketCircuit
        from braket.devices import LocalSimulator

        circuit: Any = loaded
        gates, measured = [], []
        for step in circuit.instructions:
            if step.operator.name == "Measure":
                measured += [int(q) for q in step.target]
            else:
                gates.append(step)
        unitary = BraketCircuit(gates)
        qubits = sorted(int(q) for q in unitary.qubits)
        if len(qubits) > MAX_QUBITS:
            return f"{len(qubits)} qubits are more than {MAX_QUBITS}"
        order = tuple((q, None) for q in measured)
        if not qubits:
            return Outcome(np.ones(1), (), order)
        unitary.state_vector()
        state = LocalSimulator("braket_sv").run(unitary, shots=0).result().values[0]
        # The least of its qubits is the most significant bit of the index.
        return Outcome(np.abs(np.asarray(state)) ** 2, tuple(reversed(qubits)), order)


class Emulator(Braket):
    """Amazon Braket's emulator of a device: it refuses what is not native in a verbatim box.

    The device has the vendor's native gates, as many qubits as the text names, all of them coupled
    and without errors: connectivity is the mapping's business and is checked with the device there.

    Args:
        vendor: ``rigetti``, ``iqm`` or ``ionq``.
    """

    def __init__(self, vendor: str) -> None:
        self._vendor = vendor

    def load(self, text: str, values: Mapping[str, float], ours: Circuit) -> object:
        """Parse, and let the emulator judge."""
        circuit: Any = super().load(text, values, ours)
        _emulator(self._vendor, max(ours.num_qubits, 2)).validate(_listed(circuit))
        return circuit


def _listed(circuit: Any) -> Any:  # noqa: ANN401  Braket's own class
    """Return the circuit with its instructions listed once.

    The emulator asks for ``circuit.instructions`` once a gate and Braket sorts all of them each
    time, which takes minutes for 10,000 gates.
    """
    listed = copy.copy(circuit)
    listed.__class__ = type("Listed", (type(circuit),), {"instructions": circuit.instructions})
    return listed


@functools.cache
def _emulator(vendor: str, num_qubits: int) -> Any:  # noqa: ANN401  Braket's own class
    from braket.device_schema.result_type import ResultType
    from braket.device_schema.standardized_gate_model_qpu_device_properties_v1 import (
        OneQubitProperties,
    )
    from braket.emulation.device_emulator_properties import DeviceEmulatorProperties
    from braket.emulation.local_emulator import LocalEmulator

    time = {"value": 1.0, "standardError": None, "unit": "S"}
    one = OneQubitProperties.parse_obj(
        {
            "T1": time,
            "T2": time,
            "oneQubitFidelity": [
                {"fidelity": 1.0, "fidelityType": {"name": name}}
                for name in ("RANDOMIZED_BENCHMARKING", "READOUT")
            ],
        }
    )
    properties = DeviceEmulatorProperties(
        qubitCount=num_qubits,
        nativeGateSet=_NATIVE[vendor],
        connectivityGraph={},
        oneQubitProperties={str(qubit): one for qubit in range(num_qubits)},
        twoQubitProperties={},
        supportedResultTypes=[ResultType(name="Sample", observables=["z"], minShots=1)],
    )
    return LocalEmulator.from_device_properties(properties)
