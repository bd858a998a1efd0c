"""The networks of S039, and the script that trains them and writes their weights.

"Advantages and Bottlenecks of Quantum Machine Learning for Remote Sensing" asks what widths a
quantum hidden layer can have. The network is that of S003, smaller and with 1 to 6 qubits; the
digits of scikit-learn stand in for satellite images.

``python -m tests.papers.make_s039`` writes ``tests/data/s039_weights.npz`` in about a minute on one
core.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import QuantumLayer
from tests.papers.make_s003 import digits

WEIGHTS = Path(__file__).parent.parent / "data" / "s039_weights.npz"
WIDTHS = (1, 2, 3, 4, 5, 6)
EPOCHS = 20


def circuit_of(width: int) -> Circuit:
    """Return the encoding of one angle a qubit and a RealAmplitudes circuit."""
    circuit = Circuit(width, name=f"hidden{width}")
    for q in range(width):
        circuit.ry(Parameter(f"x{q}"), q)
    for layer in range(3):
        for q in range(width):
            circuit.ry(Parameter(f"w{layer}_{q}"), q)
        if layer < 2:
            for a in range(width):
                for b in range(a + 1, width):
                    circuit.cx(a, b)
    return circuit


def network(width: int) -> nn.Sequential:
    """Return the LeNet of S003, smaller, with a hidden layer of ``width`` qubits."""
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(48, width),
        nn.Tanh(),
        Angles(),
        QuantumLayer(circuit_of(width), [f"x{q}" for q in range(width)]),
        nn.Linear(width, 10),
    )
    with torch.no_grad():
        model[-2].weight.uniform_(-0.5, 0.5)
        model[-1].weight.mul_(5.0)
    return model


class Angles(nn.Module):
    """Angles from values in [-1, 1]."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * (math.pi / 2)


def trained(width: int) -> nn.Sequential:
    """Return a network with the committed weights, in evaluation mode."""
    model = network(width)
    with np.load(WEIGHTS) as data:
        state = {key: torch.from_numpy(data[f"{width}/{key}"]) for key in model.state_dict()}
    model.load_state_dict(state)
    return model.eval()


def main() -> None:
    """Train the networks and write their weights."""
    torch.set_num_threads(1)
    x, x_test, y, y_test = digits()
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    arrays = {}
    for width in WIDTHS:
        torch.manual_seed(width)
        model = network(width)
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
        print(f"{width} qubits: {100 * (found == y_test).mean():.2f} %", flush=True)
        for key, tensor in model.state_dict().items():
            arrays[f"{width}/{key}"] = tensor.numpy()
    np.savez_compressed(WEIGHTS, **arrays)


if __name__ == "__main__":
    main()
