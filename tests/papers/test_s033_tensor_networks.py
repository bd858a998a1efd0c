"""S033: Rudolph et al. 2023, "Synergy between quantum circuits and tensor networks" (2208.13673).

The first 50 of sklearn's digits as six-qubit states, and a Gaussian on ten qubits.
"""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.passes.synthesize.state.fit import fit, fit_shape, ring_pairs
from qcomp.passes.synthesize.state.pair_gates import network_form
from qcomp.passes.synthesize.state.pair_network import apply_gates, improve, with_layers
from qcomp.passes.synthesize.state.preparation import prepare_state
from qcomp.simulate import statevector


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    """float64[50, 64], norm 1."""
    from sklearn.datasets import load_digits

    images = load_digits().data[:50]
    return images / np.linalg.norm(images, axis=1)[:, None]


def overlap(gates: list, vector: np.ndarray) -> float:
    zero = np.zeros(len(vector), dtype=vector.dtype)
    zero[0] = 1
    return float(abs(np.vdot(vector, apply_gates(zero, gates))) ** 2)


def test_analytic_layers_reach_what_the_calibration_says(states: np.ndarray) -> None:
    reached = np.zeros((4, len(states)))
    for i, vector in enumerate(states):
        gates: list = []
        for layer in range(4):
            gates = with_layers(vector, gates, "chain")
            reached[layer, i] = overlap(gates, vector)
    assert (reached.mean(axis=1) >= [0.845, 0.924, 0.952, 0.970]).all()
    assert reached.mean(axis=1)[0] < 0.87  # one layer of bond 2 is not the state


def test_two_optimised_layers_reach_097(states: np.ndarray) -> None:
    found = []
    for vector in states:
        goal, gates = vector.astype(complex), []
        for _ in range(2):
            gates = with_layers(goal, gates, "chain")
            gates, _ = improve(goal, gates, 100)
        found.append(overlap(gates, goal))
    assert np.mean(found) >= 0.97


def test_twenty_cx_hold_digits_at_097(states: np.ndarray) -> None:
    found = []
    for vector in states:
        got = fit_shape(vector, ring_pairs(6, 20), steps=40, tries=1)
        assert got.form.circuit().stats().two_qubit <= 20
        found.append(float(np.vdot(statevector(got.form.circuit()), vector).real ** 2))
    assert np.mean(found) >= 0.985


def test_one_layer_holds_a_gaussian_of_ten_qubits() -> None:
    vector = np.exp(-(np.linspace(-4, 4, 1024) ** 2) / 2)
    found = prepare_state(vector, method="mps", fidelity=0.998)
    assert found.fidelity >= 0.998
    assert found.circuit.stats().two_qubit <= 27


def test_a_warm_start_grows_by_gates_that_begin_as_the_identity(states: np.ndarray) -> None:
    vector = states[3]
    gates, reached = improve(vector, with_layers(vector, [], "chain"), 40)
    start = network_form(6, gates)
    pairs = [(0, 3, None), (0, 3, None), (1, 4, None), (1, 4, None), (2, 5, None), (2, 5, None)]
    grown = start.then(pairs)
    assert np.abs(grown.state() - start.state()).max() < 1e-12
    better = fit(vector, grown, 40)
    assert better.fidelity > reached + 0.01
