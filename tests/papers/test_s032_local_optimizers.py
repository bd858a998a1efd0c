"""S032: COBYLA, AQGD and SPSA train a compiled classifier by shifted circuits (arXiv:2102.08949).

Breast cancer in five principal components stands in for the restaurant reviews of the paper, which
are not to be had; the figures are means over five folds.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import qcomp
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import QuantumLayer, efficient_su2, minimize, train_layer
from qcomp.nn.optimizers import OPTIMIZERS
from qcomp.runtime.parameter_shift import shift_gradients
from qcomp.simulate import expectation_gradients, expectations

torch.set_num_threads(1)

FEATURES = 5
EPOCHS = 25
TRAINED = 80
"""Training rows of a fold that the circuits see; the classical models see all."""


@pytest.fixture(scope="module")
def compiled() -> Circuit:
    """Return encoding and ansatz in the gates of a machine, its angles still parameters."""
    circuit = Circuit(FEATURES, name="vqc")
    for q in range(FEATURES):
        circuit.ry(Parameter(f"x{q}"), q)
    circuit = circuit.compose(efficient_su2(FEATURES, reps=1))
    (found,) = qcomp.compile(circuit, target="ibm-heron", mapping=False).circuits.values()
    names = {name for name, _, _ in found.run.operations()}
    assert names <= {"cz", "rz", "sx", "x"}
    return found


def folds() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Return training and test data of each fold, five angles in [-pi/2, pi/2] a row."""
    data = load_breast_cancer()
    out = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(
        data.data, data.target
    ):
        front = make_pipeline(StandardScaler(), PCA(FEATURES), StandardScaler())
        x = np.tanh(front.fit_transform(data.data[train])) * np.pi / 2
        x_test = np.tanh(front.transform(data.data[test])) * np.pi / 2
        out.append((x, x_test, data.target[train], data.target[test]))
    return out


def test_gradients_of_the_compiled_program_by_shifts_are_the_adjoint_ones(
    compiled: Circuit,
) -> None:
    rng = np.random.default_rng(0)
    rows, cotangent = rng.normal(size=(4, len(compiled.params))), rng.normal(size=(4, 1))
    exact = expectation_gradients(compiled, rows, ["Z0"], cotangent)
    found = shift_gradients(compiled, rows, cotangent, lambda c, r: expectations(c, r, ["Z0"]))
    assert np.abs(exact).max() > 0.1
    assert np.abs(found - exact).max() <= 1e-8


def test_aqgd_beats_cobyla_at_equal_epochs_and_the_accuracy_of_the_paper(compiled: Circuit) -> None:
    table: dict[str, list[tuple[float, float]]] = {}
    for x, x_test, y, y_test in folds():
        rows, labels = torch.from_numpy(x[:TRAINED]), torch.from_numpy(2.0 * y[:TRAINED] - 1)
        for optimizer in OPTIMIZERS:
            weights = np.random.default_rng(0).uniform(-0.3, 0.3, 20)
            layer = QuantumLayer(
                compiled,
                [f"x{q}" for q in range(FEATURES)],
                ["Z0"],
                weights=weights,
                gradient="parameter-shift",
                dtype=torch.float64,
            )

            def loss(layer: QuantumLayer = layer) -> torch.Tensor:
                return ((layer(rows)[:, 0] - labels) ** 2).mean()  # noqa: B023  called here only

            train_layer(optimizer, layer, loss, EPOCHS, rate=0.3, momentum=0.7)
            found = (layer(torch.from_numpy(x_test)).detach().numpy()[:, 0] > 0).astype(int)
            table.setdefault(optimizer, []).append(scores(found, y_test))
        for name, model in (
            ("SVM", SVC()),
            ("gradient boosting", GradientBoostingClassifier(n_estimators=30, random_state=0)),
            ("random forest", RandomForestClassifier(n_estimators=30, random_state=0)),
        ):
            table.setdefault(name, []).append(scores(model.fit(x, y).predict(x_test), y_test))
    means = {name: np.mean(values, axis=0) for name, values in table.items()}
    for name, (accuracy, f1) in means.items():
        print(f"{name}: accuracy {accuracy:.2f} %, F {f1:.3f}")
    assert means["aqgd"][0] >= means["cobyla"][0]
    assert means["aqgd"][0] >= 77.0
    assert means["spsa"][0] > 60.0


def scores(found: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    return 100 * float((found == labels).mean()), float(f1_score(labels, found))


def test_efficient_su2_is_that_of_qiskit() -> None:
    from qiskit.circuit.library import efficient_su2 as theirs

    rng = np.random.default_rng(0)
    for entanglement in ("linear", "reverse_linear", "circular", "full"):
        mine = efficient_su2(4, 2, entanglement)
        other = theirs(4, reps=2, entanglement=entanglement)
        values = rng.normal(size=mine.num_params)
        bound = Circuit.from_qiskit(other.assign_parameters(values))
        observables = ["Z0", "X1*Y2", "Y3"]
        found = expectations(mine, values, observables)
        assert np.abs(found - expectations(bound, None, observables)).max() < 1e-12
    with pytest.raises(qcomp.QcompError, match="no entanglement 'ring'"):
        efficient_su2(3, entanglement="ring")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimizer_finds_the_bottom_of_a_bowl(optimizer: str) -> None:
    target = np.array([0.5, -1.0, 2.0])

    def loss(weights: np.ndarray) -> float:
        return float(((weights - target) ** 2).sum())

    course = minimize(
        optimizer, loss, np.zeros(3), 150, gradient=lambda w: 2 * (w - target), momentum=0.5
    )
    assert loss(course.weights) < 0.05 * loss(np.zeros(3))
    assert course.evaluations <= 300
    again = minimize(
        optimizer, loss, np.zeros(3), 150, gradient=lambda w: 2 * (w - target), momentum=0.5
    )
    assert np.array_equal(again.weights, course.weights)


def test_wrong_optimizers_are_refused() -> None:
    def loss(weights: np.ndarray) -> float:
        return float(weights.sum())

    with pytest.raises(qcomp.QcompError, match="no optimizer named 'cobila'"):
        minimize("cobila", loss, [0.0], 3)
    with pytest.raises(qcomp.QcompError, match="needs the gradient"):
        minimize("aqgd", loss, [0.0], 3)
    with pytest.raises(qcomp.QcompError, match="must be positive"):
        minimize("spsa", loss, [0.0], 0)
