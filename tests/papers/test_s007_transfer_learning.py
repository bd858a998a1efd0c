"""S007: an autoencoder, 64 features on five qubits, and a classifier (arXiv:2408.03351).

MNIST stands in for Fashion-MNIST. ``make_s007.py`` trains the parts; their weights are committed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import qcomp
from tests.papers.make_s007 import FEATURES, QUBITS, packing, quantum, trained
from tests.papers.mnist import mnist

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(shared: Path) -> tuple[np.ndarray, ...]:
    return mnist(shared)


def points(scores: np.ndarray, labels: np.ndarray) -> float:
    return 100 * float((scores.argmax(axis=1) == labels).mean())


def test_the_compiled_chain_is_within_half_a_point_of_torch(data: tuple[np.ndarray, ...]) -> None:
    x, images, _, labels = data
    parts = trained()
    model = nn.Sequential(parts["encoder"], quantum(), parts["hybrid"]).eval()
    baseline = nn.Sequential(parts["encoder"], parts["classical"]).eval()
    with torch.no_grad():
        reference = points(model(torch.from_numpy(images)).numpy(), labels)
        classical = points(baseline(torch.from_numpy(images)).numpy(), labels)
    artifact = qcomp.compile(
        model,
        target="cpu-int8+ibm-heron",
        calibration={"input": x[:256]},
        example_inputs=torch.zeros(2, 1, 28, 28),
    )
    found = points(artifact(images), labels)
    counted = points(artifact(images, shots=4096, seed=1), labels)
    print(
        f"torch {reference:.2f}, compiled {found:.2f}, 4096 shots {counted:.2f}, "
        f"classical on the 64 features {classical:.2f}"
    )
    assert reference > 70.0
    assert abs(found - reference) <= 0.5
    assert abs(counted - reference) <= 3.0
    assert classical > reference  # as in the paper: no advantage is claimed
    import onnx

    operators = {n.op_type for f in artifact.path.glob("*.onnx") for n in onnx.load(f).graph.node}
    assert not operators & {"BatchNormalization", "Dropout"}


def test_the_int8_encoder_keeps_the_reconstruction(data: tuple[np.ndarray, ...]) -> None:
    x, images, _, _ = data
    parts = trained()
    artifact = qcomp.compile(
        parts["encoder"],
        target="cpu-int8",
        calibration={"input": x[:256]},
        example_inputs=torch.zeros(2, 1, 28, 28),
    )
    pixels = torch.from_numpy(images)
    with torch.no_grad():
        errors = [
            float(nn.functional.mse_loss(parts["decoder"](latents), pixels.flatten(1)))
            for latents in (parts["encoder"](pixels), torch.from_numpy(artifact(images)))
        ]
    print(f"mean squared error: float {errors[0]:.5f}, INT8 {errors[1]:.5f}")
    assert errors[0] < 0.04  # of the mean image: 0.067
    assert errors[1] <= 1.05 * errors[0]


def test_the_features_fill_thirteen_layers_of_rotations() -> None:
    circuit = packing()
    assert (circuit.num_qubits, circuit.num_params) == (QUBITS, FEATURES)
    names = [name for name, _, _ in circuit.run.operations()]
    assert names.count("ry") + names.count("rz") == 64
    assert (names.count("h"), names.count("cx")) == (12 * 5, 12 * 4)
