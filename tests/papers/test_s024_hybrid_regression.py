"""S024: hybrid networks for continuous variables: linear, circuit, linear on scaled labels.

The diabetes data of scikit-learn in five folds; the circuit is Qiskit Machine Learning's. The
network is that of ``examples/qiskit_regressor``; the weights are committed, ``make_s024.py`` trains
them. Ridge regression on the same folds is the bar.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

import qcomp
from qcomp.frontends.qiskit_ml import capture_connector
from tests.papers.make_s024 import EXAMPLE, example, trained

torch.set_num_threads(1)


def values(model: Any, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(x)).numpy()


@pytest.fixture(scope="module")
def artifacts() -> list[Any]:
    """The first fold's module compiled; the others' weights put into its program and compiled."""
    module = example()
    (x, *_), *rest = module.folds()
    found = [module.compiled(trained(0), x)]
    program = qcomp.read(trained(0), example_inputs=torch.from_numpy(x[:2]))
    for fold, (x, *_) in enumerate(rest, 1):
        other = program.copy()
        weights = dict(trained(fold).named_parameters()) | dict(trained(fold).named_buffers())
        for name, value in other.model.graph.initializers.items():
            if name in weights:
                value.const_value = onnx_ir.tensor(weights.pop(name).detach().numpy(), name=name)
        assert not weights, f"not in the program: {list(weights)}"
        found.append(qcomp.compile(other, target="cpu-int8+ibm-heron", calibration={"x": x[:128]}))
    return found


def test_compiled_r2_is_that_of_torch_and_no_worse_than_ridge_on_five_folds(
    artifacts: list[Any],
) -> None:
    torch_r2, compiled_r2, ridge_r2 = [], [], []
    for fold, (x, y, x_test, y_test) in enumerate(example().folds()):
        compiled_r2.append(r2_score(y_test, artifacts[fold](x_test)))
        torch_r2.append(r2_score(y_test, values(trained(fold), x_test)))
        ridge_r2.append(Ridge(0.1 * len(x)).fit(x, y).score(x_test, y_test))
    print(
        f"R^2: torch {np.mean(torch_r2):.4f}, compiled {np.mean(compiled_r2):.4f}, "
        f"ridge {np.mean(ridge_r2):.4f}"
    )
    assert np.abs(np.subtract(compiled_r2, torch_r2)).max() <= 0.005
    assert np.mean(compiled_r2) >= np.mean(ridge_r2) - 0.03
    assert np.mean(ridge_r2) == pytest.approx(0.488, abs=0.01)


def test_the_example_trains_compiles_and_runs_in_less_than_a_hundred_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 100
    module = example()
    monkeypatch.setattr(module, "EPOCHS", 60)
    x, y, x_test, y_test = module.folds()[2]
    model = module.train(x, y)
    assert type(model.quantum).__name__ == "TorchConnector"
    model.quantum = capture_connector(model.quantum)
    assert r2_score(y_test, values(model, x_test)) > 0.5


def test_the_artifact_runs_with_shots_in_the_gates_of_the_machine(artifacts: list[Any]) -> None:
    _, _, x_test, y_test = example().folds()[2]
    artifact = artifacts[2]
    exact = r2_score(y_test, artifact(x_test))
    sampled = r2_score(y_test, artifact(x_test, shots=4096, seed=1))
    assert sampled == pytest.approx(exact, abs=0.02)
    assert sampled != exact
    (circuit,) = artifact.circuits.values()
    names = {name for name, _, _ in circuit.run.operations()}
    assert names <= {"cz", "rz", "sx", "x", "measure", "barrier"}
