"""S004: circuits in parallel, and a quanvolution (arXiv:2304.09224).

``make_s004.py`` trains the networks; their weights are committed.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

import qcomp
from qcomp.execute import HybridSession
from qcomp.nn import CircuitBank, Quanvolution, bank_circuit
from qcomp.runtime import devices
from qcomp.simulate import expectations
from tests.papers.make_s003 import digits
from tests.papers.make_s004 import COPIES, PIXELS, QUBITS, block, quanvolutional, trained

torch.set_num_threads(1)


def scores(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def parity(model: torch.nn.Module, images: np.ndarray) -> float:
    """Return how far the program is from torch, both in float64."""
    model = model.double()
    images = images.astype(np.float64)
    program = qcomp.read(model, example_inputs=torch.from_numpy(images[:2]))
    assert len(program.circuits) == 1  # for all patches, and for all circuits of a bank
    (found,) = HybridSession(program).run({"input": images}).values()
    return float(np.abs(found - scores(model, images)).max())


def test_the_circuits_in_parallel_are_one_circuit_and_give_what_torch_gives() -> None:
    """From behind the convolutions, which ONNX Runtime does not run in float64."""
    _, images, _, _ = digits()
    model = trained("parallel")
    assert parity(model[9:], scores(model[:9], images)) <= 1e-6


def test_the_quanvolution_is_one_circuit_and_gives_what_torch_gives() -> None:
    _, images, _, _ = digits()
    assert parity(trained("quanvolutional"), images) <= 1e-6


def test_two_thousand_mnist_images_give_what_torch_gives(shared: Path) -> None:
    with gzip.open(shared / "data" / "mnist-images-idx3.gz") as file:
        pixels = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 1, 28, 28)[:2000] / 255
    torch.manual_seed(0)
    assert parity(quanvolutional(28).eval(), pixels) <= 1e-6


@pytest.mark.parametrize("name", ["parallel", "quanvolutional"])
def test_a_fourth_of_the_parameters_is_within_half_a_point_of_the_twin(name: str) -> None:
    _, images, _, labels = digits()
    figures = []
    for model in (trained(name), trained(f"{name}_twin")):
        count = sum(p.numel() for p in model.parameters())
        accuracy = 100 * float((scores(model, images).argmax(axis=1) == labels).mean())
        figures.append((count, accuracy))
    (few, hybrid), (many, twin) = figures
    print(f"{name}: {few} parameters {hybrid:.2f} %, twin {many} parameters {twin:.2f} %")
    assert many >= 4 * few
    assert hybrid >= twin - 0.5


def test_a_bank_as_one_wide_circuit_has_the_depth_of_a_block_and_the_same_values() -> None:
    wide = bank_circuit(block(), COPIES)
    assert wide.num_qubits == QUBITS * COPIES
    assert wide.stats().depth == block().stats().depth
    torch.manual_seed(0)
    bank = CircuitBank(block(), PIXELS, COPIES).double()
    features = torch.rand(2, QUBITS * COPIES, dtype=torch.float64)
    narrow = scores(bank, features.numpy())
    columns = bank.quantum.circuit.params
    values = np.concatenate(
        [features.reshape(2, COPIES, -1).numpy(), bank.quantum.weight.detach().expand(2, -1, -1)],
        axis=2,
    )
    order = [columns.index(name) for name in block().params]
    rows = values[:, :, order].reshape(2, -1)
    observables = [f"Z{q}" for q in range(wide.num_qubits)]
    assert np.abs(expectations(wide, rows, observables) - narrow).max() < 1e-12


def test_compiled_depth_of_a_bank_is_that_of_a_block() -> None:
    block_depth, bank_depth = (
        next(iter(qcomp.compile(c, target="all-to-all").circuits.values())).stats().depth
        for c in (block(), bank_circuit(block(), COPIES))
    )
    assert bank_depth == block_depth


def test_the_compiled_quanvolution_runs_each_different_patch_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, images, _, labels = digits()
    artifact = qcomp.compile(
        trained("quanvolutional"),
        target="cpu-int8+ibm-heron",
        effort="fast",
        calibration={"input": x[:128]},
        example_inputs=torch.zeros(2, 1, 8, 8),
    )
    assert len(artifact.circuits) == 1
    ran = []
    inner = devices.DEVICES["sim"]

    def counted(circuit: object, readout: object, rows: np.ndarray, *rest: object) -> object:
        ran.append(len(rows))
        return inner(circuit, readout, rows, *rest)

    monkeypatch.setitem(devices.DEVICES, "sim", counted)
    found = artifact(images)
    patches = images.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4)
    different = len(np.unique(patches, axis=0))
    print(f"{sum(ran)} of {len(patches)} patches run, {different} are different")
    assert sum(ran) <= different < len(patches)
    float_scores = scores(trained("quanvolutional"), images)
    accuracy, reference = (100 * (s.argmax(axis=1) == labels).mean() for s in (found, float_scores))
    assert abs(accuracy - reference) <= 0.5


def test_a_circuit_that_does_not_fit_the_patch_is_refused() -> None:
    with pytest.raises(qcomp.QcompError, match="takes 4 values, a patch of 3 x 3 has 9"):
        Quanvolution(block(), PIXELS, 3)
    with pytest.raises(qcomp.QcompError, match="at least one circuit"):
        CircuitBank(block(), PIXELS, 0)
