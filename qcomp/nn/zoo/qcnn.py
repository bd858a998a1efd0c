"""``QCNN``: a quantum convolutional network of amplitudes (Cong, Choi, Lukin, arXiv:1810.03787)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

from qcomp.constructions.encodings import encoding
from qcomp.constructions.two_qubit_blocks import SU4_ANGLES, su4
from qcomp.errors import UsageError
from qcomp.ir.angle import Angle, Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from qcomp.nn.torch_ops import TORCH_OPS
from qcomp.nn.zoo.dense import apply_two, rotation, su4_matrix

__all__ = ["QCNN", "qcnn_circuit"]

Pooling = Literal["rotate", "measure"]
PER_LAYER = SU4_ANGLES + 2
"""Weights of a layer: one convolution, and the two rotations of its pooling."""


def _layers(num_qubits: int) -> list[tuple[list[tuple[int, int]], list[tuple[int, int]]]]:
    """Return the (convolved pairs, pooled pairs) of each layer; a pool keeps its second wire."""
    out = []
    wires = list(range(num_qubits))
    while len(wires) > 1:
        even = list(zip(wires[0::2], wires[1::2], strict=True))
        odd = list(zip(wires[1::2], [*wires[2::2], wires[0]], strict=True))
        out.append((even + (odd if len(wires) > 2 else []), [(b, a) for a, b in even]))
        wires = wires[0::2]
    return out


def qcnn_circuit(num_qubits: int, pooling: Pooling = "rotate") -> Circuit:
    """Return the network's circuit behind its input: convolutions and pooling, down to wire 0.

    A layer is one SU(4) of three CX on all neighbours of a ring, its 15 angles the same
    everywhere, then on each pair of wires RZ(a) of the second one if the first is 1, else RX(b).

    Args:
        num_qubits: A power of two.
        pooling: "rotate" controls the rotations and drops the wire; "measure" measures it, turns
            the other by the outcome, and resets it: a wire that is free for others.

    Returns:
        A circuit of ``17 log2(n)`` parameters ``w0`` ..., one for each weight however often used.

    Raises:
        UsageError: If the number of qubits is no power of two, or the pooling is unknown.
    """
    if num_qubits < 2 or num_qubits & (num_qubits - 1):
        raise UsageError(f"a QCNN halves its wires, which {num_qubits} cannot be to the end")
    if pooling not in ("rotate", "measure"):
        raise UsageError(f"there is no pooling '{pooling}'", hint="rotate or measure")
    layers = _layers(num_qubits)
    names = [f"w{i}" for i in range(PER_LAYER * len(layers))]
    bits = num_qubits - 1 if pooling == "measure" else 0
    circuit = Circuit(num_qubits, bits, names, name="qcnn")
    weights = [Parameter(name) for name in names]
    bit = 0
    for number, (pairs, pools) in enumerate(layers):
        own = weights[PER_LAYER * number : PER_LAYER * (number + 1)]
        for first, second in pairs:
            su4(circuit, own[:SU4_ANGLES], first, second)
        for dropped, kept in pools:
            if pooling == "rotate":
                _turn(circuit, own[-2], own[-1], dropped, kept)
                continue
            circuit.measure(dropped, bit)
            with circuit.if_(Bit(bit)):
                circuit.rz(own[-2], kept)
            with circuit.else_():
                circuit.rx(own[-1], kept)
            circuit.reset(dropped)
            bit += 1
    return circuit


def _turn(circuit: Circuit, z: Angle, x: Angle, control: int, target: int) -> None:
    """Append RZ(z) of the target if the control is 1, else RX(x): three gates on two qubits.

    Each of the two is a rotation between two flips by the control, and CX with CZ is one of them:
    ``Z X = i Y``.
    """
    circuit.rz(z / 2, target).cx(control, target).rz(z / -2, target)
    circuit.cy(control, target).s(control)
    circuit.rx(x / 2, target).cz(control, target).rx(x / 2, target)


class QCNN(torch.nn.Module):
    """Amplitudes [B, 2^n] -> probability [B] that the last wire is read as 1.

    The network of Cong, Choi and Lukin, 2019, arXiv:1810.03787, with the pooling of Hur, Kim and
    Park, 2022, arXiv:2108.00661. ``forward`` follows the state in plain torch, fast to train; the
    export is the circuit, with input angles computed from the data in the classical graph.

    Args:
        num_qubits: n, a power of two.
        pooling: As of :func:`qcnn_circuit`; both give the same values.
        dtype: Of the weights; torch's default by default.

    Attributes:
        weight: [17 log2(n)].
        circuit: The whole circuit, input angles first.
    """

    def __init__(
        self, num_qubits: int, pooling: Pooling = "rotate", dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        ansatz = qcnn_circuit(num_qubits, pooling)
        self.input = encoding("amplitude", num_qubits)
        names = (*self.input.circuit.params, *ansatz.params)
        whole = Circuit(num_qubits, ansatz.num_clbits, names, name="qcnn")
        self.num_qubits = num_qubits
        self.circuit = whole.compose(self.input.circuit).compose(ansatz)
        weight = torch.empty(len(ansatz.params), dtype=dtype)
        self.weight = torch.nn.Parameter(weight.uniform_(-math.pi, math.pi))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the probability of class 1.

        Args:
            x: Real [B, 2^n]; a row of zeros is |0...0>.

        Raises:
            UsageError: If the rows have another size.
        """
        if x.shape[-1] != 1 << self.num_qubits:
            raise UsageError(f"{self.num_qubits} qubits hold {1 << self.num_qubits} amplitudes, "
                             f"not {x.shape[-1]}")  # fmt: skip
        kind = torch.promote_types(self.weight.dtype, torch.complex64)
        norm = x.norm(dim=-1, keepdim=True)
        ground = torch.nn.functional.pad((norm == 0).to(x.dtype), (0, x.shape[-1] - 1))
        states = (x / torch.where(norm > 0, norm, 1.0) + ground).to(kind)
        for number, (pairs, pools) in enumerate(_layers(self.num_qubits)):
            own = self.weight[PER_LAYER * number : PER_LAYER * (number + 1)]
            convolution = su4_matrix(own[:SU4_ANGLES])
            turns = [rotation("x", own[-1]), rotation("z", own[-2])]
            pooling = torch.block_diag(*turns)
            for pair in pairs:
                states = apply_two(states, convolution, pair)
            for dropped, kept in pools:
                states = apply_two(states, pooling, (kept, dropped))
        return (states[:, 1::2].abs() ** 2).sum(dim=-1)

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
            made = self.input.slot_map
            assert made is not None
            return [made.compute(TORCH_OPS, x.to(torch.float64), None), self.weight]

        def output(values: torch.Tensor) -> torch.Tensor:
            return (0.5 - 0.5 * values[..., 0]).to(self.weight.dtype)

        return self.circuit, angles, ["Z0"], output
