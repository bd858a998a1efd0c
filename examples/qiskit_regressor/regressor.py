"""A regressor written with Qiskit Machine Learning, compiled as it stands and run.

Ten measurements of a patient go through a linear layer into four angles, a circuit of Qiskit's
with four expectation values, and a linear layer to the progress of diabetes a year later.

``python examples/qiskit_regressor/regressor.py`` trains it in seconds, as qcomp differentiates the
captured circuit, compiles the module, and says R^2 of the original and of the artifact.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold

import qcomp.nn

QUBITS, EPOCHS = 4, 150


class Regressor(torch.nn.Module):
    """Linear, circuit, linear; the label's mean and deviation are part of it."""

    def __init__(self, mean: float = 0.0, deviation: float = 1.0) -> None:
        super().__init__()
        angles = QuantumCircuit(QUBITS)
        for qubit, x in enumerate(ParameterVector("x", QUBITS)):
            angles.ry(x, qubit)
        ansatz = real_amplitudes(QUBITS, reps=1)
        network = EstimatorQNN(
            circuit=angles.compose(ansatz),
            observables=["IIIZ", "IIZI", "IZII", "ZIII"],
            input_params=angles.parameters,
            weight_params=ansatz.parameters,
        )
        self.before = torch.nn.Linear(10, QUBITS)
        self.quantum = TorchConnector(network)
        self.after = torch.nn.Linear(QUBITS, 1)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the progress of the disease, [batch, 1]."""
        angles = math.pi / 2 * (1 + torch.tanh(self.before(x)))
        return self.mean + self.deviation * self.after(self.quantum(angles))


def folds() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Return (x, y, x_test, y_test) of five folds, features in units of their deviation."""
    x, y = load_diabetes(return_X_y=True)
    x = (x / x.std(axis=0)).astype(np.float32)
    y, split = y.astype(np.float32), KFold(5, shuffle=True, random_state=0).split(x)
    return [(x[a], y[a], x[b], y[b]) for a, b in split]


def train(x: np.ndarray, y: np.ndarray, seed: int = 0) -> Regressor:
    """Return a trained regressor; its circuit is differentiated by qcomp."""
    torch.manual_seed(seed)
    model = Regressor(float(y.mean()), float(y.std()))
    with torch.no_grad():
        model.before.weight.mul_(0.3)
    twin = qcomp.nn.capture(model, torch.from_numpy(x[:2]))  # the same weights, qcomp's simulator
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.02, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        error = twin(torch.from_numpy(x))[:, 0] - torch.from_numpy(y)
        loss = torch.mean((error / model.deviation) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def compiled(model: Regressor, x: np.ndarray) -> qcomp.Artifact:
    """Return the artifact: an INT8 graph, and the circuit in the gates of IBM's Heron."""
    options = {"calibration": {"x": x}, "example_inputs": torch.from_numpy(x[:2])}
    return qcomp.compile(model, target="cpu-int8+ibm-heron", **options)


if __name__ == "__main__":
    x, y, x_test, y_test = folds()[2]
    regressor = train(x, y)
    artifact = compiled(regressor, x)
    original = regressor(torch.from_numpy(x_test)).detach().numpy()
    print(f"R^2 of the model in torch, circuits by Qiskit: {r2_score(y_test, original):.3f}")
    print(f"R^2 of the artifact, exact: {r2_score(y_test, artifact(x_test)):.3f}")
    print(f"R^2 of the artifact, 4096 shots: {r2_score(y_test, artifact(x_test, shots=4096)):.3f}")
