"""Data re-uploading: features enter again and again between trained rotations."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcomp.constructions.encodings.base import Encoding, Ops, SlotMap, check_sizes, parameters
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit

__all__ = ["daruan", "reupload"]


def reupload(num_qubits: int, features: int = 0, *, layers: int = 3) -> Encoding:
    """Return ``prod_l E prod_q U(theta_lq + w_lq * x) |0>``, ``U(a) = RZ(a_2) RY(a_1) RZ(a_0)``.

    The universal classifier of Perez-Salinas et al., 2020, arXiv:1907.02085, equation 7, on one or
    several qubits; E is CZ between neighbours, from alternating ends, left out after the last
    layer. More than three features take several U a layer; angles without a feature are weights
    alone. The graph computes ``theta + w * x``, so weights that are constants become numbers there.
    Cost: ``layers * n * ceil(D / 3)`` one-qubit gates, ``(layers - 1) (n - 1)`` CZ.

    Args:
        num_qubits: Qubits n; each takes all features.
        features: D; 3 by default.
        layers: Layers.

    Raises:
        UsageError: If a size does not fit.
    """
    features = features or 3
    check_sizes("reupload", num_qubits, features, 1 << 16)
    _check_layers("reupload", layers)
    gates = -(-features // 3)
    place = list(range(features)) * (layers * num_qubits)
    slots = parameters("phi", len(place))
    free = parameters("u", (3 * gates - features) * layers * num_qubits)
    shifts = [f"v{i}" for i in range(len(place))]
    factors = [f"w{i}" for i in range(len(place))]
    circuit = Circuit(
        num_qubits,
        params=[*(f"phi{i}" for i in range(len(slots))), *(f"u{i}" for i in range(len(free)))],
        name="reupload",
    )
    slot, rest = iter(slots), iter(free)
    for layer in range(layers):
        for q in range(num_qubits):
            for k in range(3 * gates):
                value = next(slot) if k < features else next(rest)
                circuit.append("ry" if k % 3 == 1 else "rz", [q], [value])
        if layer + 1 < layers:
            chain = [(q, q + 1) for q in range(num_qubits - 1)]
            for a, b in chain if layer % 2 == 0 else chain[::-1]:
                circuit.cz(a, b)
    count = len(place)

    def compute(ops: Ops, x: Any, weights: Any) -> Any:  # noqa: ANN401
        shift = ops.columns(weights, range(count))
        factor = ops.columns(weights, range(count, 2 * count))
        return shift + factor * ops.columns(x, place)

    return Encoding(
        "reupload",
        circuit,
        tuple(f"x{i}" for i in range(features)),
        (*shifts, *factors, *circuit.params[count:]),
        SlotMap(count, 2 * count, compute),
        equation="prod_l E prod_q U(v_lq + w_lq x) |0>",
    )


def daruan(num_qubits: int, features: int = 0, *, layers: int = 3) -> Encoding:
    """Return ``(x)_q W_r prod_l RZ(a_lq x_q + b_lq) W_lq H |0>``, ``W = RY(theta_1) RZ(theta_0)``.

    One feature a qubit, its pre-processing a, b trained: with ``a_l`` growing as powers the
    spectrum grows exponentially in the layers (DARUAN: Jiang et al., 2025, arXiv:2509.14026). Its
    expectation of Z is the activation function of an edge of a QKAN. Cost: 3 layers + 3 gates on
    each qubit, no two-qubit gates.

    Args:
        num_qubits: Qubits n.
        features: At most n; n by default.
        layers: Repeats of the data r.

    Raises:
        UsageError: If a size does not fit.
    """
    features = features or num_qubits
    check_sizes("daruan", num_qubits, features, num_qubits, "take 'reupload'")
    _check_layers("daruan", layers)
    count = layers * features
    slots = parameters("phi", count)
    theta = parameters("u", 2 * (layers + 1) * features)
    circuit = Circuit(
        num_qubits,
        params=[*(f"phi{i}" for i in range(count)), *(f"u{i}" for i in range(len(theta)))],
        name="daruan",
    )
    for q in range(features):
        circuit.h(q)
        for layer in range(layers + 1):
            at = 2 * (layer * features + q)
            circuit.rz(theta[at], q).ry(theta[at + 1], q)
            if layer < layers:
                circuit.rz(slots[layer * features + q], q)
    place = list(np.tile(np.arange(features), layers))

    def compute(ops: Ops, x: Any, weights: Any) -> Any:  # noqa: ANN401
        factor = ops.columns(weights, range(count))
        shift = ops.columns(weights, range(count, 2 * count))
        return factor * ops.columns(x, place) + shift

    return Encoding(
        "daruan",
        circuit,
        tuple(f"x{i}" for i in range(features)),
        (
            *(f"a{i}" for i in range(count)),
            *(f"b{i}" for i in range(count)),
            *circuit.params[count:],
        ),
        SlotMap(count, 2 * count, compute),
        equation="(x)_q W_r prod_l RZ(a_lq x_q + b_lq) W_lq H |0>",
    )


def _check_layers(method: str, layers: int) -> None:
    if layers < 1:
        raise UsageError(f"the encoding '{method}' has at least one layer, not {layers}")
