"""One small circuit many times over: quanvolution over patches, banks of circuits in parallel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.nn.layer import QuantumLayer

__all__ = ["CircuitBank", "Quanvolution", "bank_circuit"]


class Quanvolution(torch.nn.Module):
    """A circuit swept over the patches of an image, one output channel for each observable.

    The trainable form of the quanvolutional layer (Henderson, Shakya, Pradhan, Cook, 2019,
    arXiv:1904.04767; Senokosov et al., 2024, arXiv:2304.09224). All patches of a batch are rows of
    one circuit, exported as one node; exact results of equal patches are computed once.

    Args:
        circuit: What :class:`QuantumLayer` takes.
        inputs: Its data parameters: the values of a patch, channel by channel, row by row.
        kernel_size: Side of a patch.
        stride: Step between patches; ``kernel_size`` by default.
        scale: What pixels are multiplied by to make angles.
        observables: What is measured; Z of every qubit when None.
        weights: First values of the trained weights.

    Attributes:
        quantum: The layer of one patch.
    """

    def __init__(
        self,
        circuit: object,
        inputs: Sequence[str],
        kernel_size: int,
        *,
        stride: int | None = None,
        scale: float = math.pi,
        observables: Sequence[Observable | str] | None = None,
        weights: Sequence[float] | np.ndarray | torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.quantum = QuantumLayer(circuit, inputs, observables, weights=weights)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.scale = scale
        if kernel_size < 1 or self.stride < 1:
            raise UsageError("a patch and the step between patches are at least 1")
        if len(self.quantum.input_names) % kernel_size**2:
            raise UsageError(
                f"the circuit takes {len(self.quantum.input_names)} values, a patch of "
                f"{kernel_size} x {kernel_size} has {kernel_size**2} a channel"
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the expectation values of each patch.

        Args:
            images: Floating point [batch, channels, height, width].

        Returns:
            Tensor[batch, observables, H, W], ``H = (height - kernel_size) // stride + 1``.
        """
        size, step = self.kernel_size, self.stride
        patches = images.unfold(2, size, step).unfold(3, size, step)  # [b, c, H, W, k, k]
        rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)
        measured: torch.Tensor = self.quantum(rows * self.scale)
        return measured.permute(0, 3, 1, 2)


class CircuitBank(torch.nn.Module):
    """Circuits of one shape side by side, each with its slice of the features and its own weights.

    ``y = concat_j readout(circuit(x[j n : (j + 1) n], w_j))``, the parallel hybrid network of
    Senokosov, Sedykh, Sagingalieva, Kyriacou, Melnikov, 2024, arXiv:2304.09224. It runs, and is
    exported, as one circuit of n qubits whose rows are the slices; :func:`bank_circuit` gives the
    same as one wide circuit of the same depth.

    Args:
        circuit: What :class:`QuantumLayer` takes.
        inputs: Its data parameters, the features of a slice.
        copies: Number of circuits k.
        observables: What is measured on each; Z of every qubit when None.

    Attributes:
        quantum: The layer of all circuits, its weight [k, W].
    """

    def __init__(
        self,
        circuit: object,
        inputs: Sequence[str],
        copies: int,
        observables: Sequence[Observable | str] | None = None,
    ) -> None:
        super().__init__()
        if copies < 1:
            raise UsageError(f"a bank has at least one circuit, not {copies}")
        self.copies = copies
        self.quantum = QuantumLayer(circuit, inputs, observables)
        width = self.quantum.weight.shape[0]
        weights = torch.empty(copies, width, dtype=self.quantum.weight.dtype)
        self.quantum.weight = torch.nn.Parameter(weights.uniform_(-math.pi, math.pi))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the readouts side by side.

        Args:
            features: Floating point [..., k D], D the data parameters of a circuit.

        Returns:
            Tensor[..., k K], K the number of observables.
        """
        slices = features.unflatten(-1, (self.copies, len(self.quantum.input_names)))
        measured: torch.Tensor = self.quantum(slices)
        return measured.flatten(-2)


def bank_circuit(circuit: Circuit, copies: int) -> Circuit:
    """Return ``copies`` of a circuit on qubits of their own: the same depth, k times the qubits.

    Copy j has the qubits j n to (j + 1) n - 1 and the parameters ``name_j``, the copies' parameters
    one after the other.

    Args:
        circuit: A circuit without control flow.
        copies: Number of copies k, at least 1.
    """
    n, bits = circuit.num_qubits, circuit.num_clbits
    names = [f"{name}_{j}" for j in range(copies) for name in circuit.params]
    out = Circuit(n * copies, bits * copies, names, name=f"{circuit.name}_bank")
    for j in range(copies):
        own = circuit.copy()
        own.params = tuple(f"{name}_{j}" for name in circuit.params)
        qubits = [j * n + q for q in range(n)]
        out = out.compose(own, qubits, [j * bits + c for c in range(bits)])
    return out
