"""The networks of S003, and the script that trains them and writes their weights.

Sebastianelli, Zaidenberg, Spiller, Le Saux, Ullo, "On Circuit-based Hybrid Quantum Neural Networks
for Remote Sensing Imagery Classification", 2021, arXiv:2109.09484: a LeNet whose last hidden layer
is a circuit of four qubits, RY angle encoding, one of three ansaetze, <Z> of every qubit.
EuroSAT cannot be shipped; the digits of scikit-learn stand in for it.

``python -m tests.papers.make_s003`` writes ``tests/data/s003_weights.npz`` in about half a minute
on one core.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import QuantumLayer

WEIGHTS = Path(__file__).parent.parent / "data" / "s003_weights.npz"
ANSAETZE = ("no_entanglement", "bellman", "real_amplitudes")
QUBITS = 4
EPOCHS = 40


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images, test images float32[n, 1, 8, 8] in [0, 1], and their labels."""
    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)[:, None]
    x, x_test, y, y_test = train_test_split(
        images, data.target, train_size=0.6, stratify=data.target, random_state=0
    )
    return x, x_test, y.astype(np.int64), y_test.astype(np.int64)


def circuit_of(ansatz: str) -> Circuit:
    """Return the encoding of four angles and one of the paper's three circuits."""
    circuit = Circuit(QUBITS, name=ansatz)
    for q in range(QUBITS):
        circuit.ry(Parameter(f"x{q}"), q)
    if ansatz == "no_entanglement":
        for q in range(QUBITS):
            circuit.h(q)
            circuit.ry(Parameter(f"w{q}"), q)
    elif ansatz == "bellman":
        circuit.h(0)
        for q in range(QUBITS - 1):
            circuit.cx(q, q + 1)
        for q in range(QUBITS):
            circuit.ry(Parameter(f"w{q}"), q)
        for q in reversed(range(QUBITS - 1)):
            circuit.cx(q, q + 1)
    else:
        for q in range(QUBITS):
            circuit.ry(Parameter(f"w{q}"), q)
        for a in range(QUBITS):
            for b in range(a + 1, QUBITS):
                circuit.cx(a, b)
        for q in range(QUBITS):
            circuit.ry(Parameter(f"v{q}"), q)
    return circuit


class HybridLeNet(torch.nn.Module):
    """LeNet for 8 x 8 images whose last hidden layer is a circuit."""

    def __init__(self, ansatz: str) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(1, 6, 3, padding=1),
            torch.nn.BatchNorm2d(6),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(6, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(64, 32),
            torch.nn.ReLU(),
            torch.nn.Linear(32, QUBITS),
            torch.nn.Tanh(),
        )
        self.quantum = QuantumLayer(circuit_of(ansatz), inputs=[f"x{q}" for q in range(QUBITS)])
        self.head = torch.nn.Linear(QUBITS, 10)
        with torch.no_grad():
            self.quantum.weight.uniform_(-0.5, 0.5)
            self.head.weight.mul_(5.0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the scores of the ten digits, [batch, 10]."""
        return self.head(self.quantum(self.features(image) * math.pi))


def trained(ansatz: str) -> HybridLeNet:
    """Return the network with the committed weights, in evaluation mode."""
    model = HybridLeNet(ansatz)
    with np.load(WEIGHTS) as data:
        state = {name: torch.from_numpy(data[f"{ansatz}/{name}"]) for name in model.state_dict()}
    model.load_state_dict(state)
    return model.eval()


def train(ansatz: str, x: np.ndarray, y: np.ndarray) -> HybridLeNet:
    """Train one network from its fixed seed."""
    torch.manual_seed(ANSAETZE.index(ansatz))
    model = HybridLeNet(ansatz)
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    steps = EPOCHS * math.ceil(len(x) / 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(64):
            loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Train the three networks and write their weights."""
    torch.set_num_threads(1)
    x, x_test, y, y_test = digits()
    arrays = {}
    for ansatz in ANSAETZE:
        model = train(ansatz, x, y)
        with torch.no_grad():
            scores = model(torch.from_numpy(x_test)).argmax(dim=1).numpy()
        print(f"{ansatz}: {100 * (scores == y_test).mean():.2f} %", flush=True)
        for name, tensor in model.state_dict().items():
            arrays[f"{ansatz}/{name}"] = tensor.numpy()
    np.savez_compressed(WEIGHTS, **arrays)


if __name__ == "__main__":
    main()
