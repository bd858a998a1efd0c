"""``TensorNetworkClassifier``: trees and chains of SO(4) nodes on few wires (arXiv:1803.11537)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

from qcomp.constructions.two_qubit_blocks import SO4_ANGLES, so4
from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn.zoo.dense import kron, so4_matrix

__all__ = ["TensorNetworkClassifier", "tensor_network_circuit"]

Shape = Literal["tree", "chain"]
LEAF = -1
"""A step of the order of contraction: take the next leaf. Any other number is the node's own."""


def contraction(leaves: int, shape: Shape) -> list[int]:
    """Return the order of contraction: leaves and nodes as a stack machine takes them.

    Args:
        leaves: 2^k for a tree, at least 2 for a chain.
        shape: "tree" joins neighbours, then neighbours of those; "chain" joins each leaf to all
            before it, a matrix product state.

    Raises:
        UsageError: If the shape is unknown or the number of leaves does not fit it.
    """
    if shape not in ("tree", "chain"):
        raise UsageError(f"there is no tensor network '{shape}'", hint="tree or chain")
    if leaves < 2 or (shape == "tree" and leaves & (leaves - 1)):
        raise UsageError(f"a {shape} cannot have {leaves} leaves", hint="a power of two will do")
    steps: list[int] = []
    nodes = 0
    for leaf in range(leaves):
        steps.append(LEAF)
        # A tree joins as often as the number of leaves so far is even, halved and so on.
        joins = ((leaf + 1) & -(leaf + 1)).bit_length() - 1 if shape == "tree" else min(leaf, 1)
        steps += range(nodes, nodes + joins)
        nodes += joins
    return steps


def tensor_network_circuit(leaves: int, shape: Shape = "tree") -> Circuit:
    """Return the circuit of a network of one virtual qubit, its wires used again and again.

    A leaf is RY(pi x), that is ``cos(pi x / 2) |0> + sin(pi x / 2) |1>``. A node is an SO(4) of
    two CX on two wires; the second is reset, and free for the next leaf. Depth first, a tree needs
    ``log2(leaves) + 1`` wires and a chain 2 (Huggins, Patil, Mitchell, Whaley, Stoudenmire, 2019,
    arXiv:1803.11537, section 5). The result is on wire 0.

    Args:
        leaves: As of :func:`contraction`.
        shape: As of :func:`contraction`.

    Returns:
        A circuit of the parameters ``x0`` .., one a leaf, and ``w0`` .., six a node.

    Raises:
        UsageError: As :func:`contraction`.
    """
    steps = contraction(leaves, shape)
    names = [f"x{i}" for i in range(leaves)]
    names += [f"w{i}" for i in range(SO4_ANGLES * (leaves - 1))]
    wires = leaves.bit_length() if shape == "tree" else 2
    circuit = Circuit(wires, 0, names, name=f"tensor_{shape}")
    stack: list[int] = []
    leaf = 0
    for step in steps:
        if step == LEAF:
            wire = len(stack)
            circuit.ry(Parameter(f"x{leaf}") * math.pi, wire)
            stack.append(wire)
            leaf += 1
            continue
        dropped = stack.pop()
        own = range(SO4_ANGLES * step, SO4_ANGLES * (step + 1))
        so4(circuit, [Parameter(f"w{i}") for i in own], stack[-1], dropped)
        if step < leaves - 2:
            circuit.reset(dropped)
    return circuit


class TensorNetworkClassifier(torch.nn.Module):
    """Pixels [B, leaves] in [0, 1] -> probability [B] of class 1.

    The discriminative tensor networks of arXiv:1803.11537 with bond dimension 2: ``forward``
    contracts density matrices of one virtual qubit in plain torch, the export is a circuit that
    measures nothing but its result and resets what it no longer needs.

    Args:
        leaves: As of :func:`contraction`.
        shape: As of :func:`contraction`.
        dtype: Of the weights; torch's default by default.

    Attributes:
        weight: [leaves - 1, 6], the angles of the nodes in the order of contraction.
        circuit: The circuit.
    """

    def __init__(
        self, leaves: int, shape: Shape = "tree", dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.steps = contraction(leaves, shape)
        self.leaves = leaves
        self.circuit = tensor_network_circuit(leaves, shape)
        weight = torch.empty(leaves - 1, SO4_ANGLES, dtype=dtype)
        self.weight = torch.nn.Parameter(weight.normal_(0.0, 0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the probability of class 1.

        Args:
            x: Real [B, leaves].

        Raises:
            UsageError: If the rows have another size.
        """
        if x.shape[-1] != self.leaves:
            raise UsageError(f"the network has {self.leaves} leaves, not {x.shape[-1]}")
        vectors = torch.stack([torch.cos(x * (math.pi / 2)), torch.sin(x * (math.pi / 2))], dim=-1)
        leaves = iter((vectors[..., :, None] * vectors[..., None, :]).unbind(1))
        nodes = so4_matrix(self.weight)
        stack: list[torch.Tensor] = []
        for step in self.steps:
            if step == LEAF:
                stack.append(next(leaves))
                continue
            second = stack.pop()
            joined = nodes[step] @ kron(stack.pop(), second) @ nodes[step].mT
            stack.append(joined[:, :2, :2] + joined[:, 2:, 2:])
        return stack[0][:, 1, 1]

    def __qcomp_circuit__(
        self,
    ) -> tuple[
        Circuit,
        Callable[[torch.Tensor], list[torch.Tensor]],
        list[str],
        Callable[[torch.Tensor], torch.Tensor],
    ]:
        """Return (circuit, its angles, what is read, what becomes of it)."""

        def angles(x: torch.Tensor) -> list[torch.Tensor]:
            return [x, self.weight.flatten()]

        return self.circuit, angles, ["Z0"], lambda values: 0.5 - 0.5 * values[..., 0]
