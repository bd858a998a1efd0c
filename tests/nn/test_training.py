"""Training by the adjoint method: right to 1e-6, and several times as fast as PennyLane."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pennylane", reason="pip install 'qcomp[pennylane]'")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import hybrid_training as bench

from qcomp.nn import QuantumLayer
from qcomp.simulate import expectation_gradients, expectations

torch.set_num_threads(1)

NAMES = [f"x{q}" for q in range(bench.QUBITS)]


def test_adjoint_gradients_are_those_of_pennylane() -> None:
    weights = bench.first_weights().double()
    ours = QuantumLayer(
        bench.strongly_entangling(), NAMES, weights=weights.reshape(-1), dtype=torch.float64
    )
    theirs = bench.pennylane_layer("default.qubit", "backprop", weights).double()
    rng = torch.Generator().manual_seed(2)
    data = torch.randn(5, bench.QUBITS, generator=rng, dtype=torch.float64)
    cotangent = torch.randn(5, bench.QUBITS, generator=rng, dtype=torch.float64)
    found = []
    for layer in (ours, theirs):
        rows = data.clone().requires_grad_()
        values = layer(rows)
        (values * cotangent).sum().backward()
        (weight,) = layer.parameters()
        found.append((values.detach(), rows.grad, weight.grad.reshape(-1)))
    for mine, exact in zip(*found, strict=True):
        assert exact.abs().max() > 0.1
        assert (mine - exact).abs().max() < 1e-6


def test_adjoint_gradients_are_finite_differences() -> None:
    circuit = bench.strongly_entangling()
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, len(circuit.params)))
    cotangent = rng.normal(size=(2, bench.QUBITS))
    observables = [f"Z{q}" for q in range(bench.QUBITS)]
    exact = expectation_gradients(circuit, rows, observables, cotangent)
    step = 1e-4
    for column in rng.choice(len(circuit.params), size=12, replace=False):
        moved = np.repeat(rows[None], 2, axis=0)
        moved[:, :, column] += np.array([step, -step])[:, None]
        values = expectations(circuit, moved.reshape(4, -1), observables).reshape(2, 2, -1)
        difference = ((values[0] - values[1]) * cotangent).sum(axis=1) / (2 * step)
        assert np.abs(difference - exact[:, column]).max() < 1e-6


def test_a_training_step_is_several_times_as_fast_as_pennylanes_fastest() -> None:
    """Measured at eight times; lightning.qubit, left out here, is slower than backprop."""
    found = bench.measure(steps=5, peers=bench.PEERS[:1])
    assert found["losses_apart"] < 1e-5
    assert found["times_faster_than_the_fastest_peer"] > 3.0
