"""S028: what a hybrid classifier and its classical twin cost and withstand (arXiv:2509.13353).

MNIST stands in for Fashion-MNIST. ``make_s028.py`` trains the networks; their weights are
committed. No advantage of either is claimed: both are printed.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import qcomp
from qcomp.nn.twins import Costs, costs_of, fgsm
from tests.papers.make_s028 import trained
from tests.papers.mnist import mnist

torch.set_num_threads(1)

EPSILON = 0.1


@pytest.fixture(scope="module")
def reports(shared: Path) -> dict[str, Costs]:
    x, images, _, labels = mnist(shared)
    out = {}
    for name, target in (("hybrid", "cpu-int8+ibm-heron"), ("classical", "cpu-int8")):
        model = trained(name)
        artifact = qcomp.compile(
            model,
            target=target,
            calibration={"input": x[:256]},
            example_inputs=torch.zeros(2, 1, 28, 28),
        )
        out[name] = costs_of(model, artifact, images, labels, EPSILON)
        print(name, asdict(out[name]))
    return out


@pytest.mark.parametrize("name", ["hybrid", "classical"])
def test_clean_and_attacked_accuracies_of_the_artifact_are_within_a_point_of_torch(
    reports: dict[str, Costs], name: str
) -> None:
    found = reports[name]
    assert found.float_accuracy > 90.0
    assert abs(found.accuracy - found.float_accuracy) <= 1.0
    assert abs(found.robust_accuracy - found.float_robust_accuracy) <= 1.0
    assert found.robust_accuracy < found.accuracy - 5.0


def test_the_report_says_what_each_costs(reports: dict[str, Costs]) -> None:
    hybrid, classical = reports["hybrid"], reports["classical"]
    assert hybrid.parameters == 208 + 16 + 1168 + 32 + 4640 + 132 + 8 + 50
    assert hybrid.macs == 14 * 14 * 200 + 7 * 7 * 1152 + 144 * 32 + 128 + 40
    assert classical.macs == 14 * 14 * 200 + 7 * 7 * 1152 + 144 * 32 + 512 + 160
    (circuit,) = hybrid.circuits.values()
    assert circuit["qubits"] == 4
    assert circuit["two_qubit"] >= 3
    assert circuit["depth"] > 3
    assert not classical.circuits
    for found in (hybrid, classical):
        assert found.bytes > found.parameters
        assert found.seconds_per_batch > 0


def test_an_attack_moves_each_pixel_by_epsilon_and_raises_the_loss() -> None:
    model = trained("hybrid")
    images = np.random.default_rng(0).uniform(0.2, 0.8, (8, 1, 28, 28)).astype(np.float32)
    labels = np.arange(8)
    moved = fgsm(model, images, labels, 0.05)
    assert np.abs(moved - images).max() == pytest.approx(0.05, abs=1e-6)

    def loss(data: np.ndarray) -> float:
        with torch.no_grad():
            scores = model(torch.from_numpy(data))
        return float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels)))

    assert loss(moved) > loss(images)
