"""An image as a Hamiltonian: exp(i t H(x)) with H the symmetric part of its matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.constructions.encodings.base import Encoding, check_sizes
from qcomp.constructions.multiplexers import gray_code, multiplexed_rotation, walsh
from qcomp.errors import UsageError
from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit

__all__ = ["hamiltonian", "image_hamiltonian", "image_unitary"]


def image_hamiltonian(images: ArrayLike, num_qubits: int) -> NDArray[np.float64]:
    """Return ``H = (M + M^T) / 2``, M the image filled with zeros to 2^n rows and columns.

    Args:
        images: float64[..., h, w] with h and w at most 2^n.
        num_qubits: Qubits n.

    Returns:
        float64[..., 2^n, 2^n], real and symmetric.

    Raises:
        UsageError: If an image is larger.
    """
    pixels = np.asarray(images, dtype=np.float64)
    size = 1 << num_qubits
    if pixels.ndim < 2 or max(pixels.shape[-2:]) > size:
        raise UsageError(
            f"images of shape {list(pixels.shape)} do not fit a Hamiltonian on {num_qubits} qubits",
            hint=f"give [..., h, w] with h and w at most {size}",
        )
    matrix = np.zeros((*pixels.shape[:-2], size, size))
    matrix[..., : pixels.shape[-2], : pixels.shape[-1]] = pixels
    return (matrix + np.swapaxes(matrix, -1, -2)) / 2


def image_unitary(images: ArrayLike, num_qubits: int, time: float = 1.0) -> NDArray[np.complex128]:
    """Return ``exp(i t H)`` of each image, exactly, complex128[..., 2^n, 2^n].

    A unitary that depends on data: ``synthesize_unitary`` makes a circuit of each when it is bound,
    with other gates for other images. :func:`hamiltonian` is one circuit for all.

    Args:
        images: As for :func:`image_hamiltonian`.
        num_qubits: Qubits n.
        time: t.

    Raises:
        UsageError: If an image is larger than the qubits take.
    """
    values, vectors = np.linalg.eigh(image_hamiltonian(images, num_qubits))
    phases = np.exp(1j * time * values)[..., None, :]
    found: NDArray[np.complex128] = (vectors * phases) @ np.swapaxes(vectors, -1, -2)
    return found


def hamiltonian(
    num_qubits: int, features: int = 0, *, time: float = 1.0, steps: int = 1, order: int = 2
) -> Encoding:
    """Return ``exp(i t H(x)) |+...+>`` by Trotter steps whose angles are affine in the pixels.

    Hamiltonian embedding of an image (arXiv:2407.14055), for compile once, bind many. The terms of
    H that flip the same bits m commute, all of them: they are one multiplexed RX, by
    ``-2 t H[y, y ^ m]`` of the other qubits y, between CX that turn the mask m into one bit; m = 0
    is a diagonal. So there are 2^n factors, not 4^n. Error of order t^3 / steps^2 (order 2).
    Cost of a step of order 1: ``2^n - 2 + (2^n - 1) 2^(n-1) + 2 sum_m (|m| - 1)`` CX at most; the
    exact unitary of one image is cheaper and its circuit no other image's (:func:`image_unitary`).

    Args:
        num_qubits: Qubits n.
        features: Pixels of a square image, row by row, at most 4^n; 4^n by default.
        time: t.
        steps: Trotter steps.
        order: 1, or 2 for the symmetric product.

    Raises:
        UsageError: If a size does not fit.
    """
    features = features or 4**num_qubits
    side = round(features**0.5)
    check_sizes("hamiltonian", num_qubits, features, min(4**num_qubits, 1 << 12), "add a qubit")
    if side * side != features:
        raise UsageError(
            f"the encoding 'hamiltonian' takes the pixels of a square image, not {features}",
            hint=f"cut or fill it to {side * side} pixels",
        )
    if steps < 1 or order not in (1, 2):
        raise UsageError(f"a Trotter product has steps >= 1 and order 1 or 2, not {steps}, {order}")
    pixels = np.eye(features).reshape(features, side, side)
    entries = image_hamiltonian(pixels, num_qubits).transpose(1, 2, 0)
    circuit = Circuit(num_qubits, params=[f"x{i}" for i in range(features)], name="hamiltonian")
    for q in range(num_qubits):
        circuit.h(q)
    groups = list(range(1 << num_qubits))
    step = time / steps
    for _ in range(steps):
        if order == 1:
            for mask in groups:
                _group(circuit, entries, mask, step)
        else:
            for mask in groups[:-1]:
                _group(circuit, entries, mask, step / 2)
            _group(circuit, entries, groups[-1], step)
            for mask in groups[-2::-1]:
                _group(circuit, entries, mask, step / 2)
    return Encoding(
        "hamiltonian",
        circuit,
        circuit.params,
        equation="exp(i t H(x)) |+...+>, by a Trotter product",
        note=f"a Trotter product of order {order} in {steps} steps; image_unitary() is exact",
    )


def _group(circuit: Circuit, entries: NDArray[np.float64], mask: int, time: float) -> None:
    """Append ``exp(i t sum of the terms that flip the bits of mask)``."""
    n = circuit.num_qubits
    size = 1 << n
    if mask == 0:
        phases = _walsh_rows(entries[np.arange(size), np.arange(size)]) * time
        for k in range(n - 1, -1, -1):
            part = -2.0 * phases[(1 << k) : (2 << k)][gray_code(k)]
            multiplexed_rotation(circuit, "z", _angles(part), range(k), k)
        circuit.append("gphase", [], _angles(phases[:1]))
        return
    target = (mask & -mask).bit_length() - 1
    others = [q for q in range(n) if q != target]
    for q in others:
        if mask >> q & 1:
            circuit.cx(target, q)
    y = [sum((i >> b & 1) << q for b, q in enumerate(others)) for i in range(size // 2)]
    angles = _walsh_rows(entries[y, [i ^ mask for i in y]]) * (-2.0 * time)
    multiplexed_rotation(circuit, "x", _angles(angles[gray_code(n - 1)]), others, target)
    for q in reversed(others):
        if mask >> q & 1:
            circuit.cx(target, q)


def _walsh_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return walsh(rows.T).T


def _angles(rows: NDArray[np.float64]) -> list[Angle]:
    """Return each row as an angle: its entries are factors of the pixels."""
    return [
        Angle(0, 0.0, tuple(sorted((f"x{i}", float(row[i])) for i in np.flatnonzero(row))))
        for row in rows
    ]
