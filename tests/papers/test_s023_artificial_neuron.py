"""S023: an artificial neuron on a quantum processor (Tacchino et al., arXiv:1811.02266)."""

from __future__ import annotations

import itertools

import numpy as np
from onnx import helper

from qcomp.constructions.hypergraph import algebraic_normal_form, binary_perceptron
from qcomp.simulate import statevector
from tests.lower.layer_models import graph_model, lowered, outputs


def _fires(inputs: np.ndarray, weights: np.ndarray, form: str = "auto") -> float:
    """Return the probability that the neuron's ancilla is 1."""
    circuit = binary_perceptron(inputs, weights, form=form)  # type: ignore[arg-type]
    state = np.asarray(statevector(circuit)).reshape(2, -1)  # the ancilla is the highest bit
    return float((np.abs(state[1]) ** 2).sum())


def test_all_256_pairs_of_two_qubits_fire_by_the_squared_product() -> None:
    vectors = [np.array(v) for v in itertools.product([1, -1], repeat=4)]
    errors = [abs(_fires(i, w) - (i @ w / 4) ** 2) for i in vectors for w in vectors]
    assert len(errors) == 256
    assert max(errors) < 1e-10


def test_the_circuits_of_the_paper_do_the_same() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        i, w = rng.choice([-1, 1], (2, 16))
        for form in ("hypergraph", "flips"):
            assert abs(_fires(i, w, form) - (i @ w / 16) ** 2) < 1e-10


def test_a_thousand_random_pairs_of_four_qubits_are_exact() -> None:
    rng = np.random.default_rng(1)
    weight = rng.choice([-1.0, 1.0], (16, 4))
    nodes = [
        helper.make_node("Sign", ["x"], ["s"], name="sign"),
        helper.make_node("MatMul", ["s", "w"], ["z"], name="neurons"),
        helper.make_node("Mul", ["z", "z"], ["y"], name="square"),
    ]
    model = graph_model(nodes, {"w": weight}, ["n", 16])
    program, _ = lowered(model, "node=neurons,method=hypergraph")
    x = rng.choice([-1.0, 1.0], (250, 16))
    assert np.abs(outputs(program, x) - (x @ weight) ** 2).max() / 256 < 1e-10
    (circuit,) = program.circuits.values()
    assert circuit.num_qubits == 4
    for row in x[:30]:
        assert abs(_fires(row, weight[:, 0]) - (row @ weight[:, 0] / 16) ** 2) < 1e-10


def test_a_side_has_at_most_4_z_6_cz_4_ccz_and_1_cccz() -> None:
    rng = np.random.default_rng(2)
    for _ in range(1000):
        signs = rng.choice([-1, 1], 16)
        sizes = [mask.bit_count() for mask in algebraic_normal_form(signs)]
        assert all(sizes.count(k) <= most for k, most in ((1, 4), (2, 6), (3, 4), (4, 1)))


def test_it_takes_fewer_cx_than_qiskit_at_its_highest_level_on_the_same_neurons() -> None:
    from qiskit import transpile

    rng = np.random.default_rng(3)
    ours, theirs = [], []
    for _ in range(12):
        i, w = rng.choice([-1, 1], (2, 16))
        ours.append(binary_perceptron(i, w).stats().two_qubit)
        paper = binary_perceptron(i, w, form="hypergraph").to_qiskit()
        compiled = transpile(
            paper, basis_gates=["cx", "rz", "sx", "x"], optimization_level=3, seed_transpiler=0
        )
        theirs.append(compiled.count_ops().get("cx", 0))
    assert np.mean(ours) <= np.mean(theirs) / 2  # 26.4 against 78.9 over many
    assert max(ours) <= 29
