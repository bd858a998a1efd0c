"""States as torch tensors [batch, 2^n]: the zoo's reference, with nothing of the simulator."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = [
    "apply_two",
    "canonical_matrix",
    "euler_matrix",
    "kron",
    "rotation",
    "so4_matrix",
    "su4_matrix",
]

_PAULIS = {
    "x": torch.tensor([[0, 1], [1, 0]], dtype=torch.complex128),
    "y": torch.tensor([[0, -1j], [1j, 0]], dtype=torch.complex128),
    "z": torch.tensor([[1, 0], [0, -1]], dtype=torch.complex128),
}


def rotation(axis: str, angle: torch.Tensor) -> torch.Tensor:
    """Return ``exp(-i angle P / 2)`` for angles [...], complex[..., 2, 2].

    Args:
        axis: "x", "y" or "z".
        angle: Radians.
    """
    kind = torch.promote_types(angle.dtype, torch.complex64)
    pauli = _PAULIS[axis].to(kind)
    half = angle.to(kind)[..., None, None] / 2
    return torch.cos(half) * torch.eye(2, dtype=kind) - 1j * torch.sin(half) * pauli


def euler_matrix(angles: torch.Tensor) -> torch.Tensor:
    """Return RZ(c) RY(b) RZ(a) for angles a, b, c of the last axis, complex[..., 2, 2]."""
    a, b, c = angles.unbind(-1)
    return rotation("z", c) @ rotation("y", b) @ rotation("z", a)


def kron(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the matrix of one gate on each of two qubits, ``first`` the less significant."""
    product = torch.einsum("...ij,...kl->...ikjl", second, first)
    return product.flatten(-2).flatten(-3, -2)


def canonical_matrix(angles: torch.Tensor) -> torch.Tensor:
    """Return ``exp(i (a XX + b YY + c ZZ))``, complex[4, 4], by its eigenvectors, the Bell states.

    Args:
        angles: a, b, c.
    """
    a, b, c = angles.unbind(-1)
    out = torch.zeros(4, 4, dtype=torch.promote_types(angles.dtype, torch.complex64))
    even = [torch.exp(1j * c) * f(a - b) for f in (torch.cos, torch.sin)]
    odd = [torch.exp(-1j * c) * f(a + b) for f in (torch.cos, torch.sin)]
    parts = [(0, 0, even[0]), (3, 3, even[0]), (0, 3, 1j * even[1]), (3, 0, 1j * even[1]),
             (1, 1, odd[0]), (2, 2, odd[0]), (1, 2, 1j * odd[1]), (2, 1, 1j * odd[1])]  # fmt: skip
    for row, column, value in parts:
        unit = torch.zeros_like(out)
        unit[row, column] = 1
        out = out + value * unit
    return out


def su4_matrix(angles: torch.Tensor) -> torch.Tensor:
    """Return the matrix of ``qcomp.constructions.two_qubit_blocks.su4``, up to its phase.

    Args:
        angles: 15 of them.
    """
    before = kron(euler_matrix(angles[0:3]), euler_matrix(angles[3:6]))
    after = kron(euler_matrix(angles[9:12]), euler_matrix(angles[12:15]))
    return after @ canonical_matrix(angles[6:9]) @ before


def apply_two(states: torch.Tensor, matrix: torch.Tensor, wires: Sequence[int]) -> torch.Tensor:
    """Return the states after a gate on two wires.

    Args:
        states: complex[batch, 2^n]; wire q is bit q of the index.
        matrix: complex[4, 4]; ``wires[0]`` is the less significant bit of its index.
        wires: Two of them.
    """
    size = int(states.shape[-1])
    n = size.bit_length() - 1
    tensor = states.reshape(-1, *([2] * n))
    axes = [n - wires[1], n - wires[0]]
    moved = torch.movedim(tensor, axes, [1, 2])
    out = matrix @ moved.reshape(len(tensor), 4, size // 4)
    return torch.movedim(out.reshape(moved.shape), [1, 2], axes).reshape(states.shape)


def so4_matrix(angles: torch.Tensor) -> torch.Tensor:
    """Return the matrices of ``qcomp.constructions.two_qubit_blocks.so4``, real[..., 4, 4].

    Args:
        angles: [..., 6].
    """
    kind = torch.promote_types(angles.dtype, torch.complex64)
    half = 0.5**0.5
    # The magic basis: S on both, H on the second, CX from it to the first.
    magic = torch.tensor(
        [[1, 0, 1j, 0], [0, 1j, 0, -1], [0, 1j, 0, 1], [1, 0, -1j, 0]], dtype=torch.complex128
    )
    magic = (half * magic).to(kind)
    middle = kron(euler_matrix(angles[..., 0:3]), euler_matrix(angles[..., 3:6]))
    return (magic.mH @ middle @ magic).real
