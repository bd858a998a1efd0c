"""The committed digits model: what it is, and what compiling costs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import qcomp
from qcomp.execute import HybridSession
from qcomp.ir.program import Program

FOLDER = Path(__file__).parents[2] / "examples" / "digits_hybrid"
MODEL = FOLDER / "digits_hybrid.onnx"
CALIBRATION = FOLDER / "calibration.npz"
Data = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def held_back() -> Data:
    with np.load(FOLDER / "eval.npz") as data:
        return data["pixels"], data["y"]


@pytest.fixture(scope="module")
def program() -> Program:
    return qcomp.read(MODEL)


def points(scores: np.ndarray, labels: np.ndarray) -> float:
    return 100.0 * float((scores.argmax(axis=1) == labels).mean())


def float_points(program: Program, held_back: Data) -> float:
    scores = HybridSession(program).run({"pixels": held_back[0]})["scores"]
    return points(scores, held_back[1])


def test_the_files_are_small_and_hold_the_split_that_is_named(held_back: Data) -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 1 << 20
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    x, x_test, _, y_test = train_test_split(
        images, digits.target, train_size=0.6, stratify=digits.target, random_state=0
    )
    assert np.array_equal(held_back[0], x_test)
    assert np.array_equal(held_back[1], y_test)
    with np.load(CALIBRATION) as data:
        assert data.files == ["pixels"]
        assert np.array_equal(data["pixels"], x[: len(data["pixels"])])


def test_the_model_is_a_hybrid_one_with_a_circuit_worth_compiling(program: Program) -> None:
    stats = program.only_circuit.stats()
    assert 6 <= stats.qubits <= 8
    assert stats.two_qubit >= 30
    graph = program.model.graph
    assert str(graph.inputs[0].shape) == "[batch,1,8,8]"
    assert [node.op_type for node in graph].count("BatchNormalization") == 2


def test_the_float_model_is_accurate_on_all_ten_classes(program: Program, held_back: Data) -> None:
    scores = HybridSession(program).run({"pixels": held_back[0]})["scores"]
    assert points(scores, held_back[1]) >= 95.0
    for digit in range(10):
        own = held_back[1] == digit
        assert points(scores[own], held_back[1][own]) >= 90.0


def test_without_the_circuit_the_model_is_lost(program: Program, held_back: Data) -> None:
    """The head is applied to the circuit's output, and to that output's mean."""
    (node,) = program.circuit_nodes()
    session = HybridSession(program, taps=[node.outputs[0].name])
    result = session.run({"pixels": held_back[0]})
    measured = result[node.outputs[0].name]
    weights = program.model.graph.initializers
    w, b = (weights[f"head.{name}"].const_value.numpy() for name in ("weight", "bias"))
    assert np.abs(measured @ w.T + b - result["scores"]).max() < 1e-4
    mean = np.broadcast_to(measured.mean(axis=0), measured.shape)
    lost = points(result["scores"], held_back[1]) - points(mean @ w.T + b, held_back[1])
    assert lost >= 10.0


@pytest.mark.parametrize(("target", "allowed"), [("cpu-int8", 0.5), ("cpu-int4", 1.5)])
def test_compiling_keeps_the_accuracy(
    program: Program, held_back: Data, target: str, allowed: float
) -> None:
    reference = float_points(program, held_back)
    artifact = qcomp.compile(MODEL, target=f"{target}+ibm-heron", calibration=CALIBRATION)
    exact = points(artifact(held_back[0]), held_back[1])
    print(f"float {reference:.2f}, {target} {exact:.2f}")
    assert abs(exact - reference) <= allowed
    sampled = points(artifact(held_back[0], shots=1000, seed=1), held_back[1])
    assert abs(sampled - reference) <= 2.0
