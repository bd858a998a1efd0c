"""Grover's operator against its equation."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.constructions.grover import grover_operator, marked_states, power
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.simulate import statevector, unitary


def preparation(num_qubits: int) -> Circuit:
    rng = np.random.default_rng(num_qubits)
    circuit = Circuit(num_qubits)
    for q in range(num_qubits):
        circuit.append("u", [q], rng.normal(size=3).tolist())
    for q in range(num_qubits - 1):
        circuit.cx(q, q + 1)
        circuit.ry(float(rng.normal()), q + 1)
    return circuit


@pytest.mark.parametrize(
    ("num_qubits", "marked"),
    [(1, {0: 1}), (3, {0: 1, 2: 0}), (3, [1, 2, 7]), (4, lambda x: x > 9), (4, [5])],
)
def test_the_operator_is_two_reflections(num_qubits: int, marked: object) -> None:
    a = preparation(num_qubits)
    good = marked_states(marked, num_qubits)  # type: ignore[arg-type]
    made = unitary(grover_operator(a, marked))  # type: ignore[arg-type]
    first = unitary(a)[:, 0]
    wanted = 2 * np.outer(first, first.conj()) - np.eye(1 << num_qubits)
    assert np.abs(made - wanted @ np.diag(1.0 - 2 * good)).max() < 1e-12


def test_each_use_turns_by_twice_the_angle() -> None:
    a, marked = preparation(4), {1: 1, 3: 1}
    good = marked_states(marked, 4)
    angle = np.arcsin(np.linalg.norm(np.asarray(statevector(a)).reshape(-1)[good]))
    operator = grover_operator(a, marked)
    for k in (0, 1, 2, 5, 12):
        state = np.asarray(statevector(a.compose(power(operator, k)))).reshape(-1)
        assert np.linalg.norm(state[good]) ** 2 == pytest.approx(
            np.sin((2 * k + 1) * angle) ** 2, abs=1e-11
        )


def test_a_predicate_of_one_qubit_costs_one_gate() -> None:
    a = preparation(3)
    both = 2 * a.stats().two_qubit
    operator = grover_operator(a, lambda x: x >= 4)
    assert operator.stats().two_qubit == both
    assert operator.stats().multi_qubit == 1  # the reflection about |000>


def test_what_cannot_be_marked_is_said() -> None:
    with pytest.raises(UsageError, match="no basis state"):
        marked_states([], 2)
    with pytest.raises(UsageError, match="every basis state"):
        marked_states(lambda x: x >= 0, 2)
    with pytest.raises(UsageError, match="0 to 3"):
        marked_states([4], 2)
    with pytest.raises(UsageError, match="no bit 1 of qubit 2"):
        marked_states({2: 1}, 2)
    with pytest.raises(UsageError, match="array of numbers"):
        marked_states(lambda x: np.bool_(True), 2)
    with pytest.raises(UsageError, match="one qubit"):
        marked_states([0], 30)
