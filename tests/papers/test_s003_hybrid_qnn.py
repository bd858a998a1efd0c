"""S003: a LeNet with a circuit of four qubits, compiled end to end (arXiv:2109.09484).

Scikit-learn's digits stand in for EuroSAT. The weights of the three networks are committed;
``make_s003.py`` trains them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import qcomp
from qcomp.execute import HybridSession
from tests.papers.make_s003 import ANSAETZE, HybridLeNet, circuit_of, digits, trained

torch.set_num_threads(1)

SHOTS = 4096
TARGET = "cpu-int8+ibm-heron"


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibration images, test images, and the test labels."""
    x, x_test, _, y_test = digits()
    assert (len(x), len(x_test)) == (1078, 719)
    return x[:256], x_test, y_test


def torch_scores(model: HybridLeNet, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def points(scores: np.ndarray, labels: np.ndarray) -> float:
    return 100.0 * float((scores.argmax(axis=1) == labels).mean())


@pytest.mark.parametrize("ansatz", ANSAETZE)
def test_int8_and_4096_shots_stay_within_a_point_of_torch(
    ansatz: str, data: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    calibration, images, labels = data
    model = trained(ansatz)
    float_scores = torch_scores(model, images)
    reference = points(float_scores, labels)
    assert reference > 95.0

    program = qcomp.read(model, example_inputs=torch.zeros(2, 1, 8, 8))
    (output,) = HybridSession(program).run({"image": images}).values()
    assert abs(points(np.asarray(output), labels) - reference) <= 0.1
    assert np.abs(output - float_scores).max() < 1e-4

    artifact = qcomp.compile(
        model,
        target=TARGET,
        calibration={"image": calibration},
        example_inputs=torch.zeros(2, 1, 8, 8),
    )
    exact = points(artifact(images), labels)
    sampled = points(artifact(images, shots=SHOTS, seed=1), labels)
    print(f"{ansatz}: torch {reference:.2f}, INT8 exact {exact:.2f}, {SHOTS} shots {sampled:.2f}")
    assert abs(exact - reference) <= 1.0
    assert abs(sampled - reference) <= 1.0
    assert not np.array_equal(artifact(images[:8], shots=SHOTS), artifact(images[:8]))
    names = {name for c in artifact.circuits.values() for name, _, _ in c.run.operations()}
    assert names <= {"cz", "rz", "sx", "x", "measure", "barrier"}
    texts = [path.read_text() for path in artifact.path.glob("*.qasm")]
    assert len(texts) == 1
    assert "input float" in texts[0]


def test_one_command_compiles_all_of_it_within_ten_seconds(
    tmp_path: Path, data: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    """Processor time of a fresh process, which other work on the machine does not change."""
    program = qcomp.read(trained("real_amplitudes"), example_inputs=torch.zeros(2, 1, 8, 8))
    program.save(tmp_path / "net.onnx")
    np.savez(tmp_path / "calibration.npz", image=data[0])
    command = [sys.executable, "-c", "from qcomp.cli.main import main; main()"]
    command += ["compile", "net.onnx", "-t", TARGET, "--calib", "calibration.npz", "-o", "out"]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"compile: {seconds:.1f} s of processor time")
    assert seconds <= 10.0
    assert (tmp_path / "out" / "program.json").is_file()


def test_the_ansaetze_are_those_of_the_paper() -> None:
    two_qubit = {ansatz: circuit_of(ansatz).stats().two_qubit for ansatz in ANSAETZE}
    assert two_qubit == {"no_entanglement": 0, "bellman": 6, "real_amplitudes": 6}
    for ansatz in ANSAETZE:
        names = [name for name, _, _ in circuit_of(ansatz).run.operations()]
        assert names[:4] == ["ry"] * 4
