"""Angle and dense angle encoding: one or two features a qubit, no two-qubit gates."""

from __future__ import annotations

from math import pi

from qcomp.constructions.encodings.base import Encoding, check_sizes, parameters
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit

__all__ = ["angle", "dense_angle"]


def angle(num_qubits: int, features: int = 0, *, axis: str = "y", scale: float = 1.0) -> Encoding:
    """Return ``prod_i R_axis(scale x_i) |0>``, one feature a qubit.

    Cost: n rotations. Source: PennyLane's ``AngleEmbedding``; Schuld and Petruccione, 2018.

    Args:
        num_qubits: Qubits n.
        features: At most n; n by default.
        axis: "x", "y" or "z"; a rotation about z follows a Hadamard gate.
        scale: Radians for a feature of 1.

    Raises:
        UsageError: If a size or the axis does not fit.
    """
    features = features or num_qubits
    check_sizes("angle", num_qubits, features, num_qubits, "take 'dense-angle' or 'reupload'")
    if axis not in ("x", "y", "z"):
        raise UsageError(f"there is no axis '{axis}'", hint="one of x, y, z")
    x = parameters("x", features)
    circuit = Circuit(num_qubits, params=[f"x{i}" for i in range(features)], name="angle")
    for q in range(features):
        if axis == "z":
            circuit.h(q)
        circuit.append(f"r{axis}", [q], [scale * x[q]])
    return Encoding("angle", circuit, circuit.params, equation="prod_i R(scale x_i) |0>")


def dense_angle(num_qubits: int, features: int = 0, *, scale: float = 2 * pi) -> Encoding:
    """Return ``(x)_q cos(s x_2q / 2) |0> + exp(i s x_2q+1) sin(s x_2q / 2) |1>``.

    Two features a qubit; with the default scale 2 pi the state of LaRose and Coyle, 2020,
    arXiv:2003.01695, equation 8. Cost: 2n rotations.

    Args:
        num_qubits: Qubits n.
        features: At most 2n; 2n by default.
        scale: Radians for a feature of 1, s.

    Raises:
        UsageError: If a size does not fit.
    """
    features = features or 2 * num_qubits
    check_sizes("dense-angle", num_qubits, features, 2 * num_qubits, "take 'reupload'")
    x = parameters("x", features)
    circuit = Circuit(num_qubits, params=[f"x{i}" for i in range(features)], name="dense_angle")
    for i in range(features):
        circuit.append("p" if i % 2 else "ry", [i // 2], [scale * x[i]])
    return Encoding(
        "dense-angle", circuit, circuit.params, equation="(x)_q P(s x_2q+1) RY(s x_2q) |0>"
    )
