"""A PennyLane classifier of irises: written as usual, trained fast, compiled and run as one.

    python examples/pennylane_classifier/classifier.py out/iris

The model is plain PyTorch and PennyLane. ``qcomp.nn.capture`` gives a twin that shares its weights
and trains on qcomp's simulator; ``qcomp.compile`` takes the model itself.
"""

import sys

import numpy as np
import pennylane as qml
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import qcomp
import qcomp.nn

QUBITS, LAYERS = 4, 3


@qml.qnode(qml.device("lightning.qubit", wires=QUBITS), diff_method="adjoint")
def circuit(inputs, weights):
    """Data into angles, then entangling layers; the angles are not linear in the data."""
    for wire in range(QUBITS):
        qml.RY(torch.pi * inputs[..., wire], wires=wire)
        qml.RZ(inputs[..., wire] * inputs[..., (wire + 1) % QUBITS], wires=wire)
    qml.StronglyEntanglingLayers(weights, wires=range(QUBITS))
    return [qml.expval(qml.Z(wire)) for wire in range(QUBITS)]


class Classifier(torch.nn.Module):
    """Four features [B, 4] -> scores of three species [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Linear(4, QUBITS)
        self.quantum = qml.qnn.TorchLayer(circuit, {"weights": (LAYERS, QUBITS, 3)})
        self.head = torch.nn.Linear(QUBITS, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.quantum(torch.tanh(self.scale(features))))


def data() -> list[np.ndarray]:
    """Features scaled to mean 0 and deviation 1, for training and test; then the labels."""
    features, labels = load_iris(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    return train_test_split(
        features.astype(np.float32), labels, test_size=0.4, random_state=0, stratify=labels
    )


def train(model: Classifier, x: np.ndarray, y: np.ndarray, steps: int = 40) -> None:
    """Train the model's own weights through its captured twin."""
    fast = qcomp.nn.capture(model, torch.zeros(1, 4))
    optimizer = torch.optim.Adam(fast.parameters(), lr=0.1)
    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(fast(features), labels).backward()
        optimizer.step()


def main(folder: str) -> dict[str, float]:
    """Train, compile, run; return the accuracies on held-out flowers."""
    torch.manual_seed(0)
    x_train, x_test, y_train, y_test = data()
    model = Classifier()
    train(model, x_train, y_train)
    artifact = qcomp.compile(
        model,
        target="cpu-int8+ibm-heron",
        example_inputs=torch.zeros(1, 4),
        calibration={"features": x_train},
        out=folder,
    )
    with torch.no_grad():
        scores = {"PennyLane": model.eval()(torch.from_numpy(x_test)).numpy()}
    scores["compiled"] = artifact(x_test)
    scores["compiled, 1000 shots"] = artifact(x_test, shots=1000)
    return {name: float((s.argmax(1) == y_test).mean()) for name, s in scores.items()}


if __name__ == "__main__":
    for name, accuracy in main(sys.argv[1] if len(sys.argv) > 1 else "out/iris").items():
        print(f"{name:22s} {accuracy:.1%}")
