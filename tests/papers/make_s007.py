"""The networks of S007, and the script that trains them and writes their weights.

Sarkar, "Quantum Transfer Learning for MNIST Classification Using a Hybrid Quantum-Classical
Approach", 2024, arXiv:2408.03351, first version: an autoencoder of 784 pixels to 64 features, a
circuit of five qubits that takes them as rotations, and a classifier of what it measures.

``python -m tests.papers.make_s007 SHARED`` writes ``tests/data/s007_weights.npz`` in about a minute
on one core; SHARED is the folder with ``data/mnist-images-idx3.gz``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import QuantumLayer
from tests.papers.mnist import mnist

WEIGHTS = Path(__file__).parent.parent / "data" / "s007_weights.npz"
QUBITS, FEATURES = 5, 64


def packing() -> Circuit:
    """Return 64 features as 13 layers of rotations, RY and RZ in turn, H and CNOT between."""
    circuit = Circuit(QUBITS, name="packing")
    for first in range(0, FEATURES, QUBITS):
        layer = first // QUBITS
        for q in range(min(QUBITS, FEATURES - first)):
            circuit.append(("ry", "rz")[layer % 2], [q], [Parameter(f"x{first + q}")])
        if first + QUBITS < FEATURES:
            for q in range(QUBITS):
                circuit.h(q)
            for q in range(QUBITS - 1):
                circuit.cx(q, q + 1)
    return circuit


class Angles(nn.Module):
    """Angles from features in [-1, 1]: small ones, as 13 layers of large ones scramble."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * (math.pi / 8)


class Relative(nn.Module):
    """Probabilities by how far they are from equal ones."""

    def forward(self, probabilities: torch.Tensor) -> torch.Tensor:
        return probabilities * (1 << QUBITS) - 1


def encoder() -> nn.Sequential:
    """Return the half of the autoencoder that makes features."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, FEATURES), nn.Tanh()
    )


def decoder() -> nn.Sequential:
    """Return the half that makes pixels."""
    return nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, 784), nn.Sigmoid())


def quantum() -> nn.Sequential:
    """Return what takes features to the probabilities of the 32 outcomes, centred."""
    names = [f"x{k}" for k in range(FEATURES)]
    return nn.Sequential(Angles(), QuantumLayer(packing(), names, probs=True), Relative())


def classifier(width: int) -> nn.Sequential:
    """Return the classifier with normalization and dropout."""
    return nn.Sequential(
        nn.Linear(width, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, 10),
    )


PARTS = {
    "encoder": encoder,
    "decoder": decoder,
    "hybrid": lambda: classifier(1 << QUBITS),
    "classical": lambda: classifier(FEATURES),
}


def trained() -> dict[str, nn.Sequential]:
    """Return the parts with the committed weights, in evaluation mode."""
    parts = {name: make() for name, make in PARTS.items()}
    with np.load(WEIGHTS) as data:
        for name, part in parts.items():
            state = part.state_dict()
            part.load_state_dict(
                {
                    key: torch.from_numpy(data[f"{name}/{key}"]).to(value.dtype)
                    for key, value in state.items()
                }
            )
            part.eval()
    return parts


def steps(
    parameters: Iterator[nn.Parameter], size: int, epochs: int, rate: float
) -> Iterator[tuple[torch.Tensor, torch.optim.Optimizer]]:
    """Yield batches of indices; each is followed by a step of Adam."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    total = epochs * math.ceil(size / 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=total)
    for _ in range(epochs):
        for batch in torch.randperm(size).split(64):
            optimizer.zero_grad()
            yield batch, optimizer
            optimizer.step()
            schedule.step()


def main() -> None:
    """Train the parts one after the other and write their weights."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, x_test, y, y_test = mnist(Path(sys.argv[1]))
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    front, back = encoder(), decoder()
    both = nn.Sequential(front, back)
    for batch, _ in steps(both.parameters(), len(x), 30, 3e-3):
        nn.functional.mse_loss(both(images[batch]), images[batch].flatten(1)).backward()
    parts = {"encoder": front, "decoder": back}
    with torch.no_grad():
        latents, test_latents = front(images), front(torch.from_numpy(x_test))
        feeds = {
            "hybrid": (quantum()(latents), quantum()(test_latents)),
            "classical": (latents, test_latents),
        }
    for name, (feed, test_feed) in feeds.items():
        model = parts[name] = PARTS[name]()
        for batch, _ in steps(model.parameters(), len(x), 40, 1e-2):
            nn.functional.cross_entropy(model(feed[batch]), labels[batch]).backward()
        model.eval()
        with torch.no_grad():
            found = model(test_feed).argmax(dim=1).numpy()
        print(f"{name}: {100 * (found == y_test).mean():.2f} %", flush=True)
    arrays = {
        f"{name}/{key}": tensor.numpy().astype(np.float16)
        for name, part in parts.items()
        for key, tensor in part.state_dict().items()
    }
    np.savez_compressed(WEIGHTS, **arrays)


if __name__ == "__main__":
    main()
