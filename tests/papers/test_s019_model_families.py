"""S019: fraud detection by four families of quantum models: QSVC, VQC, EstimatorQNN, SamplerQNN.

Breast cancer (212 against 357) stands in for the fraud data: 30 features, PCA to five, five folds.
Weights of the last three are committed; ``make_s019.py`` trains them. Each family is compiled once,
data and weights its inputs, and bound to every fold.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit_machine_learning.algorithms import QSVC
from qiskit_machine_learning.connectors import TorchConnector
from sklearn.metrics import f1_score

import qcomp
from qcomp import QuantumKernel
from qcomp.frontends.qiskit_ml import capture_connector
from qcomp.nn.op import remember_circuit
from tests.papers.make_s019 import WEIGHTS, classifier, feature_map, folds, labels_of

torch.set_num_threads(1)


def test_qsvc_has_the_papers_f1_in_both_classes() -> None:
    kernel = QuantumKernel(feature_map())
    found, meant = [], []
    for x, y, x_test, y_test in folds():
        svc = QSVC(quantum_kernel=kernel).fit(x, y)
        predicted = svc.predict(x_test)
        found.append(predicted)
        meant.append(y_test)
    scores = f1_score(np.concatenate(meant), np.concatenate(found), average=None)
    print(f"QSVC: F1 {scores.round(3)}")
    assert scores.min() >= 0.94
    module = kernel.classifier(svc, x)
    margins = module(torch.from_numpy(x_test)).numpy()
    assert np.array_equal((margins > 0).astype(int), predicted)


def labels(family: str, values: np.ndarray) -> np.ndarray:
    return np.sign(values[:, 0]) if family == "estimator" else values.argmax(axis=1)


@pytest.mark.parametrize("family", ["vqc", "estimator", "sampler"])
def test_a_compiled_family_predicts_what_its_framework_does(family: str) -> None:
    captured = capture_connector(TorchConnector(classifier(family).neural_network))
    artifact = qcomp.compile(captured.circuit, target="ibm-heron")
    (compiled,) = artifact.circuits.values()
    assert compiled.params == captured.circuit.params
    assert {name for name, _, _ in compiled.run.operations()} <= {"cz", "rz", "sx", "x"}
    (text,) = (path.read_text() for path in artifact.path.glob("*.qasm"))
    assert text.count("input float") == len(compiled.params)
    captured.circuit, captured.qasm = compiled, compiled.to_qasm3()
    remember_circuit(captured.qasm, compiled)
    ours, theirs, worst = [], [], 0.0
    with np.load(WEIGHTS) as data:
        weights = [data[f"{family}/{fold}"] for fold in range(5)]
    for (x, y, x_test, y_test), weight in zip(folds(), weights, strict=True):
        given = labels_of(family, y)
        original = classifier(family, weight).fit(x, given)
        captured.weight.data = torch.from_numpy(weight)
        with torch.no_grad(), captured.exact():
            values = captured(torch.from_numpy(x_test)).numpy()
        meant = original.predict_proba(x_test)
        worst = max(worst, np.abs(values - meant).max())
        goal = labels_of(family, y_test)
        ours.append(np.mean(labels(family, values) == goal))
        theirs.append(np.mean(labels(family, meant) == goal))
        few = original.predict(x_test[:10]).ravel()
        assert np.array_equal(few, labels(family, meant[:10]))
    print(
        f"{family}: accuracy {100 * np.mean(ours):.2f} compiled, {100 * np.mean(theirs):.2f} in "
        f"its framework; values differ by {worst:.1e}"
    )
    assert abs(np.mean(ours) - np.mean(theirs)) <= 0.005
    assert worst <= 1e-8
    assert np.mean(ours) > 0.75  # the larger class alone is 0.627
