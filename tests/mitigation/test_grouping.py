"""Measurement grouping: every value is right, and there are fewer circuits."""

from __future__ import annotations

import itertools

import networkx
import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.mitigation.grouping import combine, group_observables, ungrouped_count
from qcomp.simulate import expectations, probabilities, sample

QUBITS = 4


def random_observables(seed: int, words: int, qubits: int = QUBITS) -> list[Observable]:
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(3):
        terms = []
        for _ in range(words):
            letters = rng.choice(list("IXYZ"), size=qubits)
            factors = [f"{p}{q}" for q, p in enumerate(letters) if p != "I"]
            terms.append("*".join([f"{rng.normal():.3f}", *factors]).replace("-", ""))
        texts.append(" + ".join(terms))
    return [Observable.parse(text) for text in texts]


def random_state(seed: int, qubits: int = QUBITS) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(qubits)
    for _ in range(3):
        for q in range(qubits):
            circuit.u(*rng.uniform(-3, 3, 3).tolist(), q)
        for q in range(qubits - 1):
            circuit.cx(q, q + 1)
    return circuit


@pytest.mark.parametrize("rule", ["qubit-wise", "full"])
@pytest.mark.parametrize("seed", range(5))
def test_grouped_values_are_the_exact_expectation_values(rule: str, seed: int) -> None:
    circuit, observables = random_state(seed), random_observables(seed, 12)
    groups = group_observables(observables, rule)
    values = []
    for group in groups:
        p = probabilities(group.rotate(circuit))[0]
        values.append(group.values_of_probabilities(p, range(QUBITS)))
    expected = expectations(circuit, None, observables)[0]
    assert np.abs(combine(groups, values, 3) - expected).max() < 1e-12


@pytest.mark.parametrize("rule", ["qubit-wise", "full"])
def test_values_of_bits_are_those_of_their_distribution(rule: str) -> None:
    circuit, observables = random_state(1), random_observables(1, 6)
    for group in group_observables(observables, rule):
        bits = sample(group.rotate(circuit), None, 300, np.random.default_rng(0))[0]
        columns = list(group.qubits)
        index = bits[:, columns].astype(int) @ (1 << np.arange(len(columns)))
        p = np.bincount(index, minlength=1 << len(columns)) / len(bits)
        assert np.allclose(group.values(bits), group.values_of_probabilities(p))
        assert np.allclose(group.values(bits[:, columns], columns), group.values(bits))


def test_fully_commuting_groups_are_fewer_than_qubit_wise_and_those_than_products() -> None:
    observables = random_observables(3, 60)
    single = ungrouped_count(observables)
    qubit_wise = len(group_observables(observables, "qubit-wise"))
    full = len(group_observables(observables, "full"))
    assert full < qubit_wise < single / 2


def test_all_bell_products_are_one_fully_commuting_group() -> None:
    assert len(group_observables(["X0*X1 + Y0*Y1 + Z0*Z1"], "full")) == 1
    assert len(group_observables(["X0*X1 + Y0*Y1 + Z0*Z1"], "qubit-wise")) == 3


def test_members_of_a_group_commute_and_every_product_stands_once() -> None:
    observables = random_observables(5, 40)
    for rule in ("qubit-wise", "full"):
        groups = group_observables(observables, rule)
        words = [word for group in groups for word in group.words]
        assert len(words) == len(set(words))
        assert {w for o in observables for _, w in o.terms} == set(words)
        for group in groups:
            for a, b in itertools.combinations(group.words, 2):
                first, second = dict(a), dict(b)
                differ = sum(first[q] != second[q] for q in first.keys() & second.keys())
                assert differ % 2 == 0 if rule == "full" else differ == 0


def test_colouring_needs_no_more_groups_than_networkx() -> None:
    observables = random_observables(7, 40)
    words = list(dict.fromkeys(w for o in observables for _, w in o.terms if w))
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(words)))
    for i, j in itertools.combinations(range(len(words)), 2):
        a, b = dict(words[i]), dict(words[j])
        if sum(a[q] != b[q] for q in a.keys() & b.keys()) % 2:
            graph.add_edge(i, j)
    theirs = max(networkx.greedy_color(graph, "DSATUR").values()) + 1
    assert len(group_observables(observables, "full")) <= theirs + 1


def test_a_constant_reads_no_bit() -> None:
    groups = group_observables(["2.5 + Z0", "3.0"])
    assert combine(groups, [g.values(np.ones((7, 1))) for g in groups], 2).tolist() == [1.5, 3.0]
    only = group_observables(["3.0"])
    assert only[0].qubits == ()
    assert combine(only, [only[0].values(np.zeros((1, 1)))], 1).tolist() == [3.0]


def test_wires_move_the_change_of_basis() -> None:
    (group,) = group_observables(["X0*Z1"])
    moved = group.rotate(Circuit(9), wires=[7, 3])
    assert [(name, q) for name, q, _ in moved.run.operations()] == [("h", (7,))]


def test_an_unknown_rule_says_the_nearest() -> None:
    with pytest.raises(UsageError, match="no rule"):
        group_observables(["Z0"], "qubitwise")  # type: ignore[arg-type]


def test_forty_qubits_are_grouped() -> None:
    chain = " + ".join(f"{p}{q}*{p}{q + 1}" for q in range(39) for p in "XYZ")
    assert len(group_observables([chain], "full")) == 2
    assert len(group_observables([chain], "qubit-wise")) == 3
