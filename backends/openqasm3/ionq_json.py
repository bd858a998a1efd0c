"""Circuits as IonQ's own JSON: native gates, angles in turns.

The format is the ``input`` of a job of IonQ's interface: ``gpi`` and ``gpi2`` with a ``phase``,
``ms`` with two ``phases`` and an ``angle``, ``zz`` with an ``angle``; one turn is 2 pi, phases lie
in [-1, 1]. IonQ measures every qubit at the end: which bit a measurement is written to is not part
of the format.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from qcomp.backends.openqasm3.prepare import prepared
from qcomp.backends.openqasm3.profiles import Profile
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, NUM_ANGLES, G

__all__ = ["ionq_job"]

_HALF_TURN = 1 << 60
_TAU = 2 * np.pi


def ionq_job(circuit: Circuit, profile: Profile) -> bytes:
    """Return a circuit of IonQ's native gates as JSON.

    Args:
        circuit: A circuit without free parameters; its measurements stand at the end.
        profile: The profile ``ionq``.

    Raises:
        TargetError: If the format cannot say what the circuit holds.
    """
    circuit = prepared(circuit, profile)
    run = circuit.run
    turns = _turns(run.frac, run.rem).tolist()
    gates: list[dict[str, object]] = []
    for code, qubits, first in zip(
        run.code.tolist(), run.qubit.tolist(), run.angle.tolist(), strict=True
    ):
        if code == G.MEASURE:
            continue
        name = profile.spelling.get(GATES[code].name, GATES[code].name)
        values = turns[first : first + int(NUM_ANGLES[code])]
        if code == G.MS:
            gates.append(
                {
                    "gate": name,
                    "targets": qubits[:2],
                    "phases": [_reduced(v) for v in values[:2]],
                    "angle": values[2],
                }
            )
        elif code == G.RZZ:
            gates.append({"gate": name, "targets": qubits[:2], "angle": values[0]})
        else:
            gates.append({"gate": name, "target": qubits[0], "phase": _reduced(values[0])})
    head = json.dumps(
        {"format": "ionq.circuit.v0", "gateset": "native", "qubits": circuit.num_qubits}
    )
    body = ",\n".join(f"  {json.dumps(entry)}" for entry in gates)
    return f'{head[:-1]}, "circuit": [\n{body}\n]}}\n'.encode()


def _turns(frac: NDArray[np.int64], rem: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return angles in turns of 2 pi; the exact part stays exact where a double can hold it."""
    return frac / (2.0 * _HALF_TURN) + rem / _TAU


def _reduced(phase: float) -> float:
    """Return a phase in (-0.5, 0.5]: phases of native gates have a period of one turn."""
    less = phase - round(phase)
    return 0.5 if less == -0.5 else less
