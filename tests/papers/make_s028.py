"""The networks of S028, and the script that trains them and writes their weights.

Shahzad, "Hybrid Quantum-Classical Model for Image Classification", 2025, arXiv:2509.13353: a
convolutional network whose last hidden layer is a circuit, and a classical twin.

``python -m tests.papers.make_s028 SHARED`` writes ``tests/data/s028_weights.npz`` in about two
minutes on one core; SHARED is the folder with ``data/mnist-images-idx3.gz``.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qcomp.nn import QuantumLayer
from tests.papers.make_s003 import circuit_of
from tests.papers.mnist import mnist

WEIGHTS = Path(__file__).parent.parent / "data" / "s028_weights.npz"
QUBITS, EPOCHS = 4, 20


class Angles(nn.Module):
    """Angles from values in [-1, 1]."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * math.pi


def network(name: str) -> nn.Sequential:
    """Return the network "hybrid", or "classical" with a dense layer in the circuit's place."""
    front = [
        nn.Conv2d(1, 8, 5, stride=2, padding=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(144, 32),
        nn.ReLU(),
    ]
    if name == "classical":
        return nn.Sequential(*front, nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))
    quantum = QuantumLayer(circuit_of("real_amplitudes"), [f"x{q}" for q in range(QUBITS)])
    head = nn.Linear(QUBITS, 10)
    with torch.no_grad():
        quantum.weight.uniform_(-0.5, 0.5)
        head.weight.mul_(5.0)
    return nn.Sequential(*front, nn.Linear(32, QUBITS), nn.Tanh(), Angles(), quantum, head)


def trained(name: str) -> nn.Sequential:
    """Return a network with the committed weights, in evaluation mode."""
    model = network(name)
    with np.load(WEIGHTS) as data:
        state = {key: torch.from_numpy(data[f"{name}/{key}"]) for key in model.state_dict()}
    model.load_state_dict(state)
    return model.eval()


def main() -> None:
    """Train both networks and write their weights."""
    torch.set_num_threads(1)
    x, x_test, y, y_test = mnist(Path(sys.argv[1]))
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    arrays = {}
    for name in ("hybrid", "classical"):
        torch.manual_seed(0)
        model = network(name)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        steps = EPOCHS * math.ceil(len(x) / 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(x)).split(64):
                loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        model.eval()
        with torch.no_grad():
            found = model(torch.from_numpy(x_test)).argmax(dim=1).numpy()
        print(f"{name}: {100 * (found == y_test).mean():.2f} %", flush=True)
        for key, tensor in model.state_dict().items():
            arrays[f"{name}/{key}"] = tensor.numpy()
    np.savez_compressed(WEIGHTS, **arrays)


if __name__ == "__main__":
    main()
