"""S048: Implementing An Artificial Quantum Perceptron: its training rule, and the spiking neuron.

The perceptron of hypergraph states (S023) learns hidden signs from compiled circuits alone; the
neuron that spikes is an evolution under weighted Heisenberg couplings.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

import qcomp
from qcomp.constructions.hypergraph import binary_perceptron
from qcomp.passes.synthesize.evolution.pauli_sums import apply_sum, pauli_sum
from qcomp.passes.synthesize.evolution.trotter import evolve
from qcomp.passes.synthesize.unitary.synthesis import synthesize_unitary
from qcomp.simulate import statevector

Signs = tuple[int, ...]
PATTERNS = list(itertools.product((1, -1), repeat=4))


@functools.cache
def fires(pattern: Signs, weights: Signs) -> bool:
    """Whether the ancilla of the compiled neuron is 1 more often than 0."""
    circuit = qcomp.optimize(binary_perceptron(pattern, weights))
    chances = np.abs(np.asarray(statevector(circuit)).reshape(-1)) ** 2
    return bool(chances[len(chances) // 2 :].sum() > 0.5)


@pytest.mark.parametrize("hidden", [(1, 1, -1, 1), (1, -1, -1, 1), (-1, -1, -1, 1)])
def test_training_classifies_all_sixteen_patterns_in_500_updates(hidden: Signs) -> None:
    labels = {pattern: abs(np.dot(pattern, hidden)) ** 2 / 16 > 0.5 for pattern in PATTERNS}
    rng = np.random.default_rng(0)
    weights = tuple(rng.choice([1, -1], 4).tolist())
    updates = 0
    while wrong := [p for p in PATTERNS if fires(p, weights) != labels[p]]:
        pattern = wrong[int(rng.integers(len(wrong)))]
        # What should fire comes nearer, what should not goes away, by half of the signs at most.
        alike = np.equal(pattern, weights)
        places = np.flatnonzero(~alike if labels[pattern] else alike)
        places = places if len(places) else np.arange(4)
        flipped = rng.choice(places, max(1, len(places) // 2), replace=False)
        weights = tuple(-w if k in flipped else w for k, w in enumerate(weights))
        updates += 1
        assert updates <= 500
    assert all(fires(p, weights) == labels[p] for p in PATTERNS)


def neuron() -> str:
    """Two inputs coupled to the neuron, qubit 2, by their weights, and its field."""
    terms = [f"{w}*{a}{q}*{a}2" for q, w in ((0, 0.9), (1, 0.4)) for a in "XYZ"]
    return " + ".join([*terms, "0.5*Z2", "0.3*X2"])


def exact(text: str, time: float) -> np.ndarray:
    h = apply_sum(pauli_sum(qcomp.Observable.parse(text)), np.eye(8, dtype=complex))
    values, vectors = np.linalg.eigh(h)
    return np.asarray((vectors * np.exp(-1j * time * values)) @ vectors.conj().T)


def parsed(circuit: qcomp.Circuit) -> np.ndarray:
    """The unitary that Qiskit reads from a circuit's OpenQASM 3."""
    pytest.importorskip("qiskit_qasm3_import", reason="Qiskit reads OpenQASM 3 with it")
    from qiskit import qasm3
    from qiskit.quantum_info import Operator

    return np.asarray(Operator(qasm3.loads(circuit.to_qasm3())).data)


def distance(one: np.ndarray, two: np.ndarray) -> float:
    return float(1 - abs(np.trace(one.conj().T @ two)) / len(one))


@pytest.mark.parametrize(("order", "steps"), [(2, 8), (4, 2)])
def test_the_spiking_unitary_is_met_by_product_formulas(order: int, steps: int) -> None:
    made = evolve(neuron(), 1.0, order=order, steps=steps)
    assert distance(parsed(made.circuit), exact(neuron(), 1.0)) < 1e-3
    once = evolve(neuron(), 1.0, order=1)
    assert distance(parsed(once.circuit), exact(neuron(), 1.0)) > 1e-3


def test_the_spiking_unitary_is_exact_by_synthesis() -> None:
    wanted = exact(neuron(), 1.0)
    made = synthesize_unitary(wanted)
    assert distance(parsed(made), wanted) < 1e-9
    assert made.stats().two_qubit <= 19
