"""The networks of S004, and the script that trains them and writes their weights.

Senokosov, Sedykh, Sagingalieva, Kyriacou, Melnikov, "Quantum machine learning for image
classification", 2024, arXiv:2304.09224: a network with circuits in parallel, and one whose first
layer is a quanvolution. Each has a classical twin with more parameters.

``python -m tests.papers.make_s004`` writes ``tests/data/s004_weights.npz`` in about two minutes on
one core.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import CircuitBank, Quanvolution
from tests.papers.make_s003 import digits

WEIGHTS = Path(__file__).parent.parent / "data" / "s004_weights.npz"
QUBITS = 4
COPIES = 4
PIXELS = [f"x{q}" for q in range(QUBITS)]


def block() -> Circuit:
    """Return the encoding of four values and two layers of rotations and a ring of CX."""
    circuit = Circuit(QUBITS, name="block")
    for q in range(QUBITS):
        circuit.ry(Parameter(f"x{q}"), q)
    for layer in range(2):
        for q in range(QUBITS):
            circuit.rz(Parameter(f"a{layer}_{q}"), q).ry(Parameter(f"b{layer}_{q}"), q)
        for q in range(QUBITS):
            circuit.cx(q, (q + 1) % QUBITS)
    for q in range(QUBITS):
        circuit.ry(Parameter(f"c{q}"), q)
    return circuit


def features(first: int, second: int) -> list[nn.Module]:
    """Return two convolutions of an 8 x 8 image, [batch, 4 second]."""
    return [
        nn.Conv2d(1, first, 3, padding=1),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    ]


class Scaled(nn.Module):
    """Angles from values in [-1, 1]."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * (math.pi / 2)


def parallel() -> nn.Sequential:
    """Return the network with four circuits of four qubits in parallel."""
    width = QUBITS * COPIES
    return nn.Sequential(
        *features(8, 16),
        nn.Linear(64, width),
        nn.Tanh(),
        Scaled(),
        CircuitBank(block(), PIXELS, COPIES),
        nn.Linear(width, 10),
    )


def quanvolutional(side: int = 8) -> nn.Sequential:
    """Return the network whose first layer is a circuit of four qubits over 2 x 2 patches."""
    pairs = [f"Z{a}*Z{b}" for a in range(QUBITS) for b in range(a + 1, QUBITS)]
    observables = [f"Z{q}" for q in range(QUBITS)] + pairs
    size = (side - 2) // 2 + 1
    return nn.Sequential(
        Quanvolution(block(), PIXELS, 2, observables=observables),
        nn.Flatten(),
        nn.Linear(len(observables) * size**2, 10),
    )


def parallel_twin() -> nn.Sequential:
    """Return the classical network beside :func:`parallel`."""
    return nn.Sequential(*features(8, 16), nn.Linear(64, 121), nn.ReLU(), nn.Linear(121, 10))


def quanvolutional_twin() -> nn.Sequential:
    """Return the classical network beside :func:`quanvolutional`."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 2, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(160, 40),
        nn.ReLU(),
        nn.Linear(40, 10),
    )


MODELS = {
    "parallel": parallel,
    "parallel_twin": parallel_twin,
    "quanvolutional": quanvolutional,
    "quanvolutional_twin": quanvolutional_twin,
}


def trained(name: str) -> nn.Sequential:
    """Return a network with the committed weights, in evaluation mode."""
    model = MODELS[name]()
    with np.load(WEIGHTS) as data:
        state = {key: torch.from_numpy(data[f"{name}/{key}"]) for key in model.state_dict()}
    model.load_state_dict(state)
    return model.eval()


def train(name: str, x: np.ndarray, y: np.ndarray, epochs: int = 60) -> nn.Sequential:
    """Train one network from its fixed seed."""
    torch.manual_seed(list(MODELS).index(name))
    model = MODELS[name]()
    if name == "parallel":
        with torch.no_grad():  # start near the encoding alone; expectation values are small
            model[-2].quantum.weight.uniform_(-0.3, 0.3)
            model[-1].weight.mul_(5.0)
    rate, decay = (4e-2, 1e-1) if name.startswith("quanv") else (2e-2, 1e-2)
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    steps = epochs * math.ceil(len(x) / 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Train the networks and write their weights."""
    torch.set_num_threads(1)
    x, x_test, y, y_test = digits()
    arrays = {}
    if WEIGHTS.exists() and len(sys.argv) > 1:
        with np.load(WEIGHTS) as data:
            arrays = dict(data)
    for name in sys.argv[1:] or MODELS:
        model = train(name, x, y)
        with torch.no_grad():
            scores = model(torch.from_numpy(x_test)).argmax(dim=1).numpy()
        count = sum(p.numel() for p in model.parameters())
        print(f"{name}: {count} parameters, {100 * (scores == y_test).mean():.2f} %", flush=True)
        for key, tensor in model.state_dict().items():
            arrays[f"{name}/{key}"] = tensor.numpy()
    np.savez_compressed(WEIGHTS, **arrays)


if __name__ == "__main__":
    main()
