"""PennyLane's quantum layers and QNodes: captured without their device, same values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

qml = pytest.importorskip("pennylane")

from qcomp.frontends.capture_check import compare  # noqa: E402
from qcomp.frontends.pennylane_capture import CapturedQNode  # noqa: E402

torch.set_num_threads(1)


def qnode(function: Callable[..., Any], wires: Any = 3, **options: Any) -> Any:
    return qml.QNode(function, qml.device("default.qubit", wires=wires), **options)


def data(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=random, dtype=torch.float64) * 2 - 1


X = data(4, 3)
W = data(2, 3, 3, seed=1)


def entangling(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.AngleEmbedding(x, wires=range(3))
    qml.StronglyEntanglingLayers(w, wires=range(3))
    return [qml.expval(qml.Z(i)) for i in range(3)]


def basic_layers(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.AngleEmbedding(x, wires=range(3), rotation="Y")
    qml.BasicEntanglerLayers(w[:, :, 0], wires=range(3))
    return qml.expval(qml.Z(0) @ qml.X(2))


def products(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.IQPEmbedding(x, wires=range(3), n_repeats=2)
    qml.RandomLayers(w[0], wires=range(3), seed=3)
    return qml.probs(wires=[2, 0])


def expressions(x: torch.Tensor, w: torch.Tensor) -> Any:
    for i in range(3):
        qml.RX(torch.arctan(x[:, i]) * w[0, i, 0], wires=i)
        qml.RY(2 * x[:, i] - 0.5 * w[0, i, 1] + math.pi / 2, wires=i)
        qml.RZ(torch.exp(w[1, i, 0]), wires=i)
        qml.CNOT(wires=[i, (i + 1) % 3])
    return qml.expval(qml.Hamiltonian([0.5, -1.5, 2.0], [qml.Z(0), qml.X(1) @ qml.Y(2), qml.I(0)]))


def many_gates(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.Hadamard(0)
    qml.U2(x[:, 0], w[0, 0, 0], wires=0)
    qml.U3(x[:, 1], w[0, 0, 0], w[0, 0, 1], wires=1)
    qml.Rot(x[:, 2], w[0, 0, 2], w[1, 2, 2], wires=2)
    qml.CRot(x[:, 0], w[1, 0, 1], w[0, 1, 0], wires=[0, 1])
    qml.IsingXX(x[:, 1], wires=[0, 2])
    qml.IsingXY(w[0, 1, 1], wires=[1, 2])
    qml.IsingYY(w[0, 1, 2], wires=[1, 0])
    qml.PSWAP(x[:, 2], wires=[0, 1])
    qml.MultiRZ(x[:, 0], wires=[0, 1, 2])
    qml.PauliRot(w[1, 0, 0], "XYZ", wires=[2, 1, 0])
    qml.ECR(wires=[0, 1])
    qml.ISWAP(wires=[1, 2])
    qml.SISWAP(wires=[0, 2])
    qml.adjoint(qml.S)(0)
    qml.adjoint(qml.StronglyEntanglingLayers)(w, wires=range(3))
    qml.ctrl(qml.RX, control=[0, 1], control_values=[1, 0])(x[:, 1], wires=2)
    qml.MultiControlledX(wires=[0, 1, 2], control_values=[0, 1])
    qml.CSWAP(wires=[0, 1, 2])
    qml.evolve(qml.X(0) @ qml.Z(1), x[:, 2])
    qml.GlobalPhase(x[:, 0])
    qml.ctrl(qml.GlobalPhase(w[1, 1, 1]), 0)
    qml.SX(0)
    qml.CH([1, 0])
    return (
        qml.probs(op=qml.X(1)),
        qml.expval(qml.Projector([1, 0], wires=[0, 2])),
        qml.var(qml.Y(1)),
    )


def several(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.AngleEmbedding(x, wires=range(3), rotation="Y")
    qml.SimplifiedTwoDesign(w[0, :, 0], w[:, :2, :2], wires=range(3))
    return {
        "mean": qml.expval(qml.Hermitian(np.array([[1, 2 - 1j], [2 + 1j, -1]]), wires=1)),
        "all": [qml.probs(), qml.expval(qml.Z(0)), qml.var(0.5 * qml.Z(0) + qml.X(1) @ qml.Z(2))],
    }


def one_row(x: torch.Tensor, w: torch.Tensor) -> Any:
    for i in range(3):
        qml.RX(x[0, i], wires=i)
    qml.QFT(wires=range(3))
    qml.ArbitraryUnitary(w.reshape(-1)[:15], wires=[0, 1])
    return qml.expval(qml.Y(0))


def measured(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.RX(x[:, 0], wires=0)
    qml.Hadamard(1)
    first = qml.measure(0, reset=True)
    second = qml.measure(1)
    qml.cond(first, qml.RY, qml.RZ)(w[0, 0, 0], wires=2)
    qml.cond(first & ~second, qml.CNOT)(wires=[2, 0])
    qml.cond(first + second == 1, qml.RX)(x[:, 1], wires=1)
    return (
        qml.expval(qml.Z(2)),
        qml.probs(wires=[1, 2]),
        qml.probs(op=[second, first]),
        qml.expval(2 * first + second),
    )


CASES = [entangling, basic_layers, products, expressions, many_gates, several, one_row, measured]


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_a_qnode_is_captured_with_all_that_it_returns(function: Callable[..., Any]) -> None:
    node = qnode(function, wires=None if function is measured else 3)
    captured = CapturedQNode(node, (X, W), {})
    for seed in (5, 6):
        x, w = 3 * data(5, 3, seed=seed), 3 * data(2, 3, 3, seed=seed + 10)
        want, got = node(x, w), captured(x, w)
        assert type(got) is type(want)
        assert set(compare(want, got)) <= {torch.float32, torch.float64}
        assert max(compare(want, got).values()) < 1e-9


def test_affine_angles_stay_in_the_circuit_and_others_become_slots() -> None:
    plain = CapturedQNode(qnode(entangling), (X, W), {})
    assert "angle_" not in plain.structure
    assert plain.structure.count("input float") == 3 + 18

    other = CapturedQNode(qnode(expressions), (X, W), {})
    assert other.structure.count("input float[64] angle_") == 6
    assert "2.0*x_1 - 0.5*w_0_1_1 + pi/2" in other.structure.replace("w_0_1_1*-0.5", "")


def test_a_transform_that_only_optimises_is_left_to_us() -> None:
    node = qml.transforms.merge_rotations(qml.transforms.cancel_inverses(qnode(entangling)))
    assert CapturedQNode(node, (X, W), {}).structure == (
        CapturedQNode(qnode(entangling), (X, W), {}).structure
    )
