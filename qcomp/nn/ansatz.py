"""Circuits with trained weights that papers and frameworks name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit

__all__ = ["efficient_su2"]

Entanglement = Literal["linear", "reverse_linear", "circular", "full"]


def efficient_su2(
    num_qubits: int,
    reps: int = 3,
    entanglement: Entanglement = "reverse_linear",
    gates: Sequence[str] = ("ry", "rz"),
    name: str = "efficient_su2",
) -> Circuit:
    """Return layers of rotations of every qubit with CX between them.

    The hardware-efficient ansatz of Kandala et al., 2017, arXiv:1704.05018, with the gates, the
    pairs and the order of parameters of Qiskit's ``efficient_su2``.

    Args:
        num_qubits: Qubits n.
        reps: Layers of CX; one layer of rotations more.
        entanglement: Which pairs: neighbours upwards, downwards, a ring, or all.
        gates: Rotations of each qubit in a layer.
        name: The circuit's name.

    Returns:
        A circuit of ``(reps + 1) * len(gates) * n`` parameters ``w0``, ``w1`` ...

    Raises:
        UsageError: If a size or a name makes no sense.
    """
    if num_qubits < 1 or reps < 0:
        raise UsageError("an ansatz has at least one qubit and no negative number of layers")
    chain = [(q, q + 1) for q in range(num_qubits - 1)]
    ring = [(num_qubits - 1, 0)] if num_qubits > 2 else []
    pairs = {
        "linear": chain,
        "reverse_linear": chain[::-1],
        "circular": ring + chain,
        "full": [(a, b) for a in range(num_qubits) for b in range(a + 1, num_qubits)],
    }
    if entanglement not in pairs:
        raise UsageError(
            f"there is no entanglement '{entanglement}'", hint="one of " + ", ".join(pairs)
        )
    circuit = Circuit(num_qubits, name=name)
    count = 0
    for layer in range(reps + 1):
        for gate in gates:
            for q in range(num_qubits):
                circuit.append(gate, [q], [Parameter(f"w{count}")])
                count += 1
        if layer < reps:
            for a, b in pairs[entanglement]:
                circuit.cx(a, b)
    return circuit
