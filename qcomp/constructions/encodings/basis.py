"""Basis encoding: features as the bits of a basis state."""

from __future__ import annotations

from math import pi
from typing import Any

from qcomp.constructions.encodings.base import Encoding, Ops, SlotMap, check_sizes, parameters
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit

__all__ = ["basis"]


def basis(num_qubits: int, features: int = 0, *, bits: int = 1) -> Encoding:
    """Return ``|v_0> |v_1> ...`` with ``v_i = floor(2^bits x_i)``, held within 0 .. 2^bits - 1.

    Features lie in [0, 1); with one bit the threshold is 1/2, so that bits as numbers 0 and 1 are
    themselves. Qubit ``bits i + j`` is bit j of feature i, as RY(pi v_ij). Cost: n rotations.

    Args:
        num_qubits: Qubits n.
        features: At most n / bits; so many by default.
        bits: Bits of a feature.

    Raises:
        UsageError: If a size does not fit.
    """
    if bits < 1:
        raise UsageError(f"a feature has at least one bit, not {bits}")
    features = features or num_qubits // bits
    check_sizes("basis", num_qubits, features, num_qubits // bits, "take fewer bits a feature")
    top = float(2**bits - 1)

    def compute(ops: Ops, x: Any, _: Any) -> Any:  # noqa: ANN401
        value = ops.floor(x * float(2**bits))
        value = ops.positive(value, value, value * 0.0)
        value = ops.positive(value - top, value * 0.0 + top, value)
        spread = ops.columns(value, [i // bits for i in range(features * bits)])
        if bits == 1:
            return spread
        import numpy as np

        powers = np.tile(2.0 ** np.arange(bits), features)
        halves = ops.floor(spread / ops.constant(powers))
        return halves - ops.floor(halves / 2.0) * 2.0

    slots = features * bits
    circuit = Circuit(num_qubits, params=[f"phi{i}" for i in range(slots)], name="basis")
    for q, bit in enumerate(parameters("phi", slots)):
        circuit.ry(pi * bit, q)
    return Encoding(
        "basis",
        circuit,
        tuple(f"x{i}" for i in range(features)),
        slot_map=SlotMap(slots, 0, compute),
        equation="|floor(2^bits x)>",
    )
