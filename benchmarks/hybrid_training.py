"""A training epoch of a hybrid classifier: qcomp's layer beside PennyLane's, in one run.

Digits of scikit-learn, 8 qubits, 4 strongly entangling layers, batches of 32, Adam; a linear layer
before the circuit and one behind it. Steps of all configurations take turns in one process with one
thread, and processor seconds are counted, so that other work on the machine moves all of them
alike. What is printed for an epoch is the median step times the steps of an epoch.

``OMP_NUM_THREADS=1 python benchmarks/hybrid_training.py [--steps N]``
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pennylane as qml
import torch
from sklearn.datasets import load_digits

from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import QuantumLayer

QUBITS, LAYERS, BATCH, TRAINING_IMAGES = 8, 4, 32, 1078
PEERS = (
    ("default.qubit", "backprop"),
    ("lightning.qubit", "adjoint"),
)
"""PennyLane's configurations; ``default.qubit`` with ``adjoint`` takes a hundred times as long."""


def strongly_entangling() -> Circuit:
    """Return the circuit of ``AngleEmbedding`` and ``StronglyEntanglingLayers``."""
    circuit = Circuit(QUBITS, name="strongly_entangling")
    for q in range(QUBITS):
        circuit.rx(Parameter(f"x{q}"), q)
    for layer in range(LAYERS):
        for q in range(QUBITS):
            a, b, c = (Parameter(f"w{layer}_{q}_{k}") for k in range(3))
            circuit.rz(a, q).ry(b, q).rz(c, q)
        for q in range(QUBITS):
            circuit.cx(q, (q + layer % (QUBITS - 1) + 1) % QUBITS)
    return circuit


def first_weights() -> torch.Tensor:
    """Return the weights that all start from, float32[LAYERS, QUBITS, 3]."""
    return 2 * math.pi * torch.rand(LAYERS, QUBITS, 3, generator=torch.Generator().manual_seed(1))


def model_of(quantum: torch.nn.Module) -> torch.nn.Sequential:
    """Return the classifier around a quantum layer."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(64, QUBITS), torch.nn.Tanh(), quantum, torch.nn.Linear(QUBITS, 10)
    )


def pennylane_layer(device: str, method: str, weights: torch.Tensor) -> torch.nn.Module:
    """Return PennyLane's layer with the given weights, float32[LAYERS, QUBITS, 3]."""

    @qml.qnode(qml.device(device, wires=QUBITS), interface="torch", diff_method=method)
    def node(inputs: torch.Tensor, weights: torch.Tensor) -> list[object]:
        qml.AngleEmbedding(inputs, wires=range(QUBITS))
        qml.StronglyEntanglingLayers(weights, wires=range(QUBITS))
        return [qml.expval(qml.PauliZ(q)) for q in range(QUBITS)]

    layer = qml.qnn.TorchLayer(node, {"weights": (LAYERS, QUBITS, 3)})
    with torch.no_grad():
        layer.qnode_weights["weights"].copy_(weights)
    return layer


def stepper(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[int], float]:
    """Return a function that makes training step ``i`` and returns its loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step(i: int) -> float:
        rows = torch.arange(i * BATCH, (i + 1) * BATCH) % len(x)
        loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def measure(steps: int = 10, peers: Sequence[tuple[str, str]] = PEERS) -> dict[str, Any]:
    """Return processor seconds of an epoch of each, and how far the losses are apart.

    Args:
        steps: Steps of each configuration that are measured, after two that are not.
        peers: Devices and methods of PennyLane.
    """
    torch.set_num_threads(1)
    data = load_digits()
    x = torch.from_numpy((data.images.reshape(-1, 64) / 16).astype(np.float32))[:TRAINING_IMAGES]
    y = torch.from_numpy(data.target[:TRAINING_IMAGES].astype(np.int64))
    weights = (
        torch.rand(LAYERS, QUBITS, 3, generator=torch.Generator().manual_seed(1)) * 2 * math.pi
    )
    ours = QuantumLayer(
        strongly_entangling(), [f"x{q}" for q in range(QUBITS)], weights=weights.reshape(-1)
    )
    contenders = {"qcomp adjoint": stepper(model_of(ours), x, y)}
    for device, method in peers:
        layer = pennylane_layer(device, method, weights)
        contenders[f"{device} {method}"] = stepper(model_of(layer), x, y)
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    losses: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(steps + 2):
        for name, step in contenders.items():
            start = time.process_time()
            losses[name].append(step(i))
            if i >= 2:
                spent[name].append(time.process_time() - start)
    epoch = math.ceil(TRAINING_IMAGES / BATCH)
    seconds = {name: epoch * float(np.median(times)) for name, times in spent.items()}
    fastest = min(value for name, value in seconds.items() if name != "qcomp adjoint")
    apart = max(
        abs(a - b)
        for name in losses
        for a, b in zip(losses[name], losses["qcomp adjoint"], strict=True)
    )
    return {
        "epoch_cpu_seconds": {name: round(value, 4) for name, value in seconds.items()},
        "times_faster_than_the_fastest_peer": round(fastest / seconds["qcomp adjoint"], 2),
        "losses_apart": apart,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    print(json.dumps(measure(parser.parse_args().steps), indent=1))


if __name__ == "__main__":
    main()
