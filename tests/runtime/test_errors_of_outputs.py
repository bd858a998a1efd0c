"""Standard errors of an artifact's outputs, straight from circuits and behind classical stages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import qcomp
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import QuantumLayer
from qcomp.runtime.artifact import Artifact

X = np.array([[0.3, 1.2], [1.9, -0.5], [0.1, 0.2]], dtype=np.float32)
SHOTS = 400


def circuit() -> Circuit:
    """Two qubits apart: values that share shots are not told to be correlated."""
    out = Circuit(2, name="pair")
    out.ry(Parameter("x0"), 0).ry(Parameter("x1"), 1).rx(Parameter("w"), 1)
    return out


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    layer = QuantumLayer(circuit(), inputs=["x0", "x1"], weights=[0.4], dtype=torch.float32)
    head = torch.nn.Linear(2, 1)
    with torch.no_grad():
        head.weight[:] = torch.tensor([[3.0, -2.0]])
    model = torch.nn.Sequential(layer, head).eval()
    folder = tmp_path_factory.mktemp("hybrid") / "out"
    program = qcomp.read(model, example_inputs=torch.from_numpy(X), output_names=["score"])
    return qcomp.compile(
        program, target="cpu-int8+portable", calibration=X, out=folder, effort="fast"
    )


def test_errors_behind_a_linear_layer_are_the_spread_over_seeds(artifact: Artifact) -> None:
    runs = [artifact(X, shots=SHOTS, seed=seed) for seed in range(120)]
    spread = np.std(runs, axis=0)
    values, errors = artifact(X, shots=SHOTS, seed=5, errors=True)
    assert np.array_equal(values, runs[5])
    assert errors.shape == values.shape
    assert errors == pytest.approx(spread, rel=0.4)


def test_exact_runs_have_no_errors(artifact: Artifact) -> None:
    values, errors = artifact(X, errors=True)
    assert not errors.any()
    assert np.array_equal(values, artifact(X))


def test_batches_give_the_errors_of_all_rows(artifact: Artifact) -> None:
    values, errors = artifact(X, shots=SHOTS, errors=True, batch_size=2)
    assert values.shape == errors.shape == (3, 1)
    assert (errors > 0).all()


def test_an_output_that_a_circuit_gives_has_the_errors_of_its_shots(tmp_path: Path) -> None:
    alone = qcomp.compile(circuit(), target="portable", out=tmp_path / "alone", effort="fast")
    rows = np.array([[0.3, 1.2, 0.4]])
    values, errors = alone(rows, shots=SHOTS, errors=True)
    p = np.clip(values, 0.5 / SHOTS, 1 - 0.5 / SHOTS)
    assert errors == pytest.approx(np.sqrt(p * (1 - p) / SHOTS))


def test_the_command_line_gives_errors_as_json_and_in_the_file(
    artifact: Artifact, tmp_path: Path
) -> None:
    from qcomp.cli.main import app

    data, out = tmp_path / "x.npz", tmp_path / "y.npz"
    np.savez(data, **{artifact.inputs[0]: X})
    options = ["--input", str(data), "--output", str(out), "--shots", "100", "--errors", "--json"]
    result = CliRunner().invoke(app, ["run", str(artifact.path), *options])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["score"]
    assert np.shape(found["values"]) == np.shape(found["errors"]) == (3, 1)
    with np.load(out) as written:
        assert np.array_equal(written["score.error"], np.array(found["errors"]))


def test_devices_of_an_artifact_agree(artifact: Artifact) -> None:
    exact = artifact(X)
    for device in ("aer", "lightning"):
        found = artifact(X, device=device, cache=False)
        assert found == pytest.approx(exact, abs=1e-6)
