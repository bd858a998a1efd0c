"""Train the hybrid classifier of handwritten digits and write the files beside this script.

A small convolutional encoder turns an 8 x 8 image into eight angles, a circuit of eight qubits and
32 two-qubit gates turns the angles into eight expectation values, and a linear layer turns those
into ten scores. There is no way around the circuit.

Run it from anywhere: ``python examples/digits_hybrid/train.py``. It takes about a minute on one
core and is seeded; ``--out`` writes elsewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import qcomp
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import QuantumLayer

QUBITS = 8
LAYERS = 4
EPOCHS = 30
CALIBRATION_SAMPLES = 256


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images, test images float32[n, 1, 8, 8] in [0, 1], and their labels."""
    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)[:, None]
    x, x_test, y, y_test = train_test_split(
        images, data.target, train_size=0.6, stratify=data.target, random_state=0
    )
    return x, x_test, y.astype(np.int64), y_test.astype(np.int64)


def ansatz() -> Circuit:
    """Return the circuit: angle encoding, then layers of rotations and a ring of CX."""
    circuit = Circuit(QUBITS, name="digits")
    for q in range(QUBITS):
        circuit.ry(Parameter(f"x{q}"), q)
    for layer in range(LAYERS):
        for q in range(QUBITS):
            circuit.ry(Parameter(f"a{layer}_{q}"), q)
            circuit.rz(Parameter(f"b{layer}_{q}"), q)
        for q in range(QUBITS):
            circuit.cx(q, (q + 1) % QUBITS)
    for q in range(QUBITS):
        circuit.ry(Parameter(f"c{q}"), q)
    return circuit


class HybridDigits(torch.nn.Module):
    """Convolutional encoder, quantum layer, linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.BatchNorm2d(32),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(128, QUBITS),
            torch.nn.Tanh(),
        )
        self.quantum = QuantumLayer(
            ansatz(),
            inputs=[f"x{q}" for q in range(QUBITS)],
            observables=[f"Z{q}" for q in range(QUBITS)],
        )
        self.head = torch.nn.Linear(QUBITS, 10)
        with torch.no_grad():
            # Small angles start near the encoding alone; expectation values are small numbers.
            self.quantum.weight.uniform_(-0.3, 0.3)
            self.head.weight.mul_(6.0)

    def measured(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the quantum layer's output, [batch, 8]."""
        return self.quantum(self.encoder(pixels) * (math.pi / 2))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the scores of the ten digits, [batch, 10]."""
        return self.head(self.measured(pixels))


def train(model: HybridDigits, x: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """Train all parts together."""
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    steps = epochs * math.ceil(len(x) / 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(x))
        total = 0.0
        for batch in order.split(64):
            loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total / len(x):.4f}", flush=True)
    model.eval()


@torch.no_grad()
def judge(model: HybridDigits, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the accuracy, and the accuracy with the circuit's output replaced by its mean."""
    measured = model.measured(torch.from_numpy(x))
    scores = model.head(measured).argmax(dim=1).numpy()
    flat = model.head(measured.mean(dim=0, keepdim=True).expand_as(measured)).argmax(dim=1).numpy()
    return {
        "accuracy": float((scores == y).mean()),
        "accuracy_with_mean_quantum_output": float((flat == y).mean()),
        "digits_predicted": len(set(scores.tolist())),
    }


def main() -> None:
    """Train, judge, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, x_test, y, y_test = digits()
    model = HybridDigits()
    start = time.perf_counter()
    train(model, x, y, options.epochs)
    seconds = time.perf_counter() - start
    figures = judge(model, x_test, y_test)
    figures["two_qubit_gates"] = float(ansatz().stats().two_qubit)
    print(json.dumps(figures, indent=1))
    print(f"trained in {seconds:.1f} s")

    options.out.mkdir(parents=True, exist_ok=True)
    # The exporter's own fusion is off: fusing BatchNorm is the compiler's work.
    program = qcomp.read(
        model,
        example_inputs=torch.from_numpy(x[:2]),
        output_names=["scores"],
        optimize=False,
    )
    program.save(options.out / "digits_hybrid.onnx")
    np.savez_compressed(options.out / "calibration.npz", pixels=x[:CALIBRATION_SAMPLES])
    np.savez_compressed(options.out / "eval.npz", pixels=x_test, y=y_test)


if __name__ == "__main__":
    main()
