"""Amplitude encodings: 2^n features as the amplitudes of n qubits, batched."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.constructions.encodings.base import Encoding, Map, Ops, SlotMap, check_sizes, parameters
from qcomp.constructions.multiplexers import gray_code, multiplexed_rotation
from qcomp.ir.circuit import Circuit

__all__ = ["amplitude", "neural_amplitude"]


def amplitude(num_qubits: int, features: int = 0) -> Encoding:
    """Return ``sum_i x_i |i> / |x|`` for real features, signs included.

    A tree of multiplexed RY (Moettoenen et al., 2005, quant-ph/0407010; Grover and Rudolph, 2002,
    quant-ph/0208112). For a whole batch the graph computes norms of halves, their angles
    ``2 atan2`` and one product with the Walsh matrices of all multiplexers. The last CZ of each
    multiplexer is left out: together they are a sign that the features get instead.
    Cost: ``2^n - 1`` RY, ``2^n - n - 1`` CZ; ``2^n`` features make ``4^n`` numbers of the matrix.
    A row of zeros gives |0...0>.

    Args:
        num_qubits: Qubits n.
        features: At most 2^n, zeros behind them; 2^n by default.

    Raises:
        UsageError: If a size does not fit.
    """
    features = features or 1 << num_qubits
    check_sizes("amplitude", num_qubits, features, min(1 << num_qubits, 1 << 12), "add a qubit")
    return _tree("amplitude", num_qubits, features, lambda ops, x, _: x, "sum_i x_i |i> / |x|")


def neural_amplitude(num_qubits: int, features: int = 0) -> Encoding:
    """Return ``sum_i exp(-E_i / 2) |i> / sqrt(Z)``, ``Z = sum_i exp(-E_i)``.

    Features are energies, such as a network's outputs; probabilities are their softmax, amplitudes
    real and positive: the encoding of "Quantum Visual Fields with Neural
    Amplitude Encoding". Cost: as :func:`amplitude`, and an exponential a feature.

    Args:
        num_qubits: Qubits n.
        features: At most 2^n, the others of infinite energy; 2^n by default.

    Raises:
        UsageError: If a size does not fit.
    """
    features = features or 1 << num_qubits
    most = min(1 << num_qubits, 1 << 12)
    check_sizes("neural-amplitude", num_qubits, features, most, "add a qubit")

    def weights(ops: Ops, energy: Any, _: Any) -> Any:  # noqa: ANN401
        low = ops.largest(energy * -1.0)
        return ops.exp((energy * -1.0 - low) / 2.0)

    equation = "sum_i exp(-E_i / 2) |i> / sqrt(sum_i exp(-E_i))"
    return _tree("neural-amplitude", num_qubits, features, weights, equation)


def _tree(method: str, n: int, features: int, first: Map, equation: str) -> Encoding:
    size = 1 << n
    count = size - 1
    index = np.arange(size)
    low = index & (size // 2 - 1)
    signs = np.where((index >> (n - 1)) & np.bitwise_count(low) & 1, -1.0, 1.0)
    taken = [i if i < features else 0 for i in range(size)]
    signs[features:] = 0.0
    matrix = _walsh_matrix(n)

    def compute(ops: Ops, x: Any, weights: Any) -> Any:  # noqa: ANN401
        values = ops.columns(first(ops, x, weights), taken) * ops.constant(signs)
        pairs: list[tuple[Any, Any, Any]] = []
        for level in range(n):
            half = size >> (level + 1)
            a = ops.columns(values, range(0, 2 * half, 2))
            b = ops.columns(values, range(1, 2 * half, 2))
            values = ops.sqrt(a * a + b * b)
            pairs.append((b, a, values))
        halves = [ops.joined(parts) for parts in zip(*pairs, strict=True)]
        return ops.matmul(_twice_atan2(ops, *halves), matrix)

    slots = parameters("phi", count)
    circuit = Circuit(n, params=[f"phi{i}" for i in range(count)], name=method.replace("-", "_"))
    for q in range(n - 1, -1, -1):
        start, half = _level(n, q)
        multiplexed_rotation(
            circuit,
            "y",
            slots[start : start + half],
            range(q + 1, n),
            q,
            last_cx=False,
            entangler="cz",
        )
    return Encoding(
        method,
        circuit,
        tuple(f"x{i}" for i in range(features)),
        slot_map=SlotMap(count, 0, compute),
        equation=equation,
    )


def _level(n: int, qubit: int) -> tuple[int, int]:
    """Return (first slot, slots) of the multiplexer on a qubit: lower qubits come first."""
    size = 1 << n
    return size - (size >> qubit), size >> (qubit + 1)


def _walsh_matrix(n: int) -> NDArray[np.float64]:
    """Return what takes the angles of all multiplexers to their rotations, float64[S, S]."""
    size = 1 << n
    matrix = np.zeros((size - 1, size - 1))
    for q in range(n):
        start, half = _level(n, q)
        masks = gray_code(n - 1 - q)
        odd = np.bitwise_count(masks[None, :] & np.arange(half)[:, None]) & 1
        matrix[start : start + half, start : start + half] = (1.0 - 2.0 * odd) / half
    return matrix


def _twice_atan2(ops: Ops, b: Any, a: Any, norm: Any) -> Any:  # noqa: ANN401
    """Return ``2 atan2(b, a)`` modulo 4 pi; 0 where both are 0, nowhere a division by 0."""
    size = ops.positive(a, a, a * -1.0) + norm
    quarter = ops.atan(b / ops.positive(size, size, size * 0.0 + 1.0))
    return ops.positive(a * -1.0, 2.0 * pi - quarter * 4.0, quarter * 4.0)
