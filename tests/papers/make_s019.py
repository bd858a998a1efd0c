"""The four model families of S019 on breast cancer, and the script that trains three of them.

``python -m tests.papers.make_s019`` writes ``tests/data/s019_weights.npz`` in about a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit_machine_learning.algorithms import VQC, NeuralNetworkClassifier
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from qiskit_machine_learning.optimizers import OptimizerResult
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from qcomp.frontends.qiskit_ml import capture_connector

WEIGHTS = Path(__file__).parent.parent / "data" / "s019_weights.npz"
FEATURES = 5
EPOCHS = 60
Fold = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def folds() -> Iterator[Fold]:
    """Yield (x, y, x_test, y_test) of five folds: PCA to five features in [0, 0.5]."""
    x, y = load_breast_cancer(return_X_y=True)
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
        scale = make_pipeline(
            StandardScaler(), PCA(FEATURES, random_state=0), MinMaxScaler((0, 0.5))
        )
        yield scale.fit_transform(x[train]), y[train], scale.transform(x[test]), y[test]


def feature_map() -> QuantumCircuit:
    """Return the encoding that all four families share."""
    return zz_feature_map(FEATURES, reps=1)


def _optimizer(weights: np.ndarray) -> Callable[..., OptimizerResult]:
    """Return an optimizer that has found its weights already."""

    def minimize(fun: Any, x0: Any, jac: Any = None, bounds: Any = None) -> OptimizerResult:
        result = OptimizerResult()
        result.x, result.fun, result.nfev = weights, 0.0, 0
        return result

    return minimize


def parity(bits: int) -> int:
    """Return the class that a bit string votes for."""
    return bits.bit_count() % 2


def classifier(family: str, weights: np.ndarray | None = None) -> Any:
    """Return a classifier of Qiskit Machine Learning with these weights."""
    ansatz = real_amplitudes(FEATURES, reps=2)
    optimizer = _optimizer(np.zeros(ansatz.num_parameters) if weights is None else weights)
    if family == "vqc":
        return VQC(feature_map=feature_map(), ansatz=ansatz, optimizer=optimizer)
    encoding = feature_map()
    parts = {
        "circuit": encoding.compose(ansatz),
        "input_params": encoding.parameters,
        "weight_params": ansatz.parameters,
    }
    if family == "estimator":
        return NeuralNetworkClassifier(EstimatorQNN(**parts), optimizer=optimizer)
    network = SamplerQNN(**parts, interpret=parity, output_shape=2)
    return NeuralNetworkClassifier(network, loss="cross_entropy", one_hot=True, optimizer=optimizer)


def labels_of(family: str, y: np.ndarray) -> np.ndarray:
    """Return labels as a family takes them: signs for an expectation value."""
    return 2 * y - 1 if family == "estimator" else y


def train(family: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return weights for one fold."""
    torch.manual_seed(0)
    layer = TorchConnector(classifier(family).neural_network)
    model = capture_connector(layer)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    inputs, goal = torch.from_numpy(x), torch.from_numpy(labels_of(family, y))
    for _ in range(EPOCHS):
        values = model(inputs)
        if family == "estimator":
            loss = torch.mean((values[:, 0] - goal) ** 2)
        else:
            loss = torch.nn.functional.nll_loss(torch.log(values + 1e-6), goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layer.weight.detach().numpy().astype(np.float64)


def main() -> None:
    """Train and write the weights."""
    torch.set_num_threads(1)
    arrays = {}
    for fold, (x, y, _, _) in enumerate(folds()):
        for family in ("vqc", "estimator", "sampler"):
            arrays[f"{family}/{fold}"] = train(family, x, y)
    np.savez_compressed(WEIGHTS, **arrays)


if __name__ == "__main__":
    main()
