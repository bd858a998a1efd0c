"""Unitaries as circuits: each equal to its matrix, phase included, and as cheap as promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qcomp
from qcomp.errors import UsageError
from qcomp.passes.synthesize.unitary.block_zxz import demultiplex, eigen
from qcomp.passes.synthesize.unitary.numeric import bound, template_of
from qcomp.passes.synthesize.unitary.synthesis import (
    by_leaves,
    closed_count,
    sketch_of,
    synthesize_unitary,
)
from qcomp.passes.synthesize.unitary.templates import fit
from qcomp.simulate import unitary
from tests.unitary import matrices as m


def error_of(matrix: np.ndarray, method: str = "auto", seed: int = 0) -> float:
    circuit = synthesize_unitary(matrix, method=method, seed=seed)
    return float(np.linalg.norm(unitary(circuit) - matrix, 2))


def test_block_zxz_takes_the_counts_of_its_paper() -> None:
    assert [closed_count(n) for n in range(1, 6)] == [0, 3, 19, 95, 423]
    for n in range(1, 7):
        matrix = m.haar(n, n)
        circuit = synthesize_unitary(matrix, method="block-zxz")
        assert circuit.stats().two_qubit == closed_count(n)
        assert np.linalg.norm(unitary(circuit) - matrix, 2) < 1e-12


@pytest.mark.parametrize("method", ["auto", "block-zxz"])
@pytest.mark.parametrize("qubits", [1, 2, 3])
def test_every_kind_of_matrix_is_met(qubits: int, method: str) -> None:
    kinds = [
        np.eye(1 << qubits),
        -1j * np.eye(1 << qubits),
        m.orthogonal(qubits, 1),
        m.permutation(qubits, 2),
        m.fourier(qubits),
        m.increment(qubits),
        m.diagonal(qubits, 3),
        m.degenerate(qubits, 4),
        np.kron(m.haar(1, 5), m.haar(max(qubits - 1, 1), 6)),
        m.controlled(m.haar(1, 7), max(qubits - 1, 1)),
    ]
    for number, matrix in enumerate(kinds):
        assert error_of(np.asarray(matrix, dtype=complex), method) < 1e-9, number


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), qubits=st.integers(3, 5), near=st.sampled_from([0, 1e-12, 1e-7]))
def test_nearly_degenerate_matrices_are_met_by_the_closed_form(
    seed: int, qubits: int, near: float
) -> None:
    """Eigenvalues that are equal, or nearly, are where decompositions lose digits."""
    rng = np.random.default_rng(seed)
    matrix = m.degenerate(qubits, seed) if seed % 2 else m.permutation(qubits, seed)
    turn = np.exp(1j * near * rng.normal(size=len(matrix)))
    assert error_of(matrix * turn, "block-zxz") < 1e-9


def test_three_qubits_take_as_few_cx_gates_as_parameters_allow() -> None:
    assert [bound(n) for n in (2, 3, 4, 5)] == [3, 14, 61, 252]
    for seed in range(4):
        matrix = m.haar(3, seed)
        circuit = synthesize_unitary(matrix)
        assert circuit.stats().two_qubit == 14
        assert np.linalg.norm(unitary(circuit) - matrix, 2) < 1e-12


def test_four_qubits_take_at_most_two_thirds_of_the_closed_form() -> None:
    matrix = m.haar(4, 0)
    circuit = synthesize_unitary(matrix)
    assert circuit.stats().two_qubit <= 63
    assert np.linalg.norm(unitary(circuit) - matrix, 2) < 1e-12


def test_leaves_of_three_qubits_take_a_quarter_less_than_leaves_of_two() -> None:
    matrix = m.haar(5, 1)
    sketch = by_leaves(matrix, 3)
    assert sketch.cx_count <= 0.85 * closed_count(5)
    assert np.linalg.norm(unitary(sketch.circuit()) - matrix, 2) < 1e-11


@pytest.mark.parametrize(
    ("matrix", "most"),
    [
        (m.controlled(np.array([[0, 1], [1, 0]], dtype=complex), 2), 6),
        (m.increment(3), 5),
        (m.fourier(3), 6),
        (np.kron(m.fourier(1), np.eye(4)), 0),
    ],
)
def test_structure_on_three_qubits_is_found(matrix: np.ndarray, most: int) -> None:
    circuit = synthesize_unitary(matrix)
    assert circuit.stats().two_qubit <= most
    assert np.linalg.norm(unitary(circuit) - matrix, 2) < 1e-9


def test_the_same_seed_gives_the_same_circuit() -> None:
    matrix = m.haar(3, 9)
    first, second = (synthesize_unitary(matrix, seed=4) for _ in range(2))
    assert first.equals(second)


def test_a_circuit_is_read_as_a_template_that_needs_no_step() -> None:
    matrix = m.haar(3, 2)
    template, angles = template_of(by_leaves(matrix, 2))
    found = fit(template, matrix, angles, steps=0)
    assert len(template.pairs) == 19
    assert found.error < 1e-24


def test_eigenvectors_of_equal_eigenvalues_are_orthonormal() -> None:
    for matrix in (m.degenerate(3, 1), m.permutation(3, 1), np.eye(8, dtype=complex)):
        phases, v = eigen(matrix[None])
        assert np.abs(v[0].conj().T @ v[0] - np.eye(8)).max() < 1e-13
        assert np.abs((v[0] * np.exp(1j * phases[0])) @ v[0].conj().T - matrix).max() < 1e-13


def test_a_multiplexer_is_three_factors() -> None:
    one, two = m.haar(2, 1), m.haar(2, 2)
    v, angles, w = (part[0] for part in demultiplex(one[None], two[None]))
    for sign, part in ((1, one), (-1, two)):
        assert np.abs((v * np.exp(-0.5j * sign * angles)) @ w - part).max() < 1e-13


def test_a_matrix_that_is_not_unitary_is_told_of_the_dilation_and_its_cost() -> None:
    with pytest.raises(UsageError, match=r"a singular value is 0\.5 away") as caught:
        synthesize_unitary(np.diag([1.0, 0.5, 1.0, 1.0]))
    assert "its dilation" in caught.value.hint
    assert "3 qubits, at most 9 CX gates" in caught.value.hint
    assert "accuracy" not in caught.value.hint


def test_a_matrix_that_is_nearly_unitary_is_told_how_near() -> None:
    near = m.haar(2, 0) * (1 + 1e-4)
    with pytest.raises(UsageError, match=r"0\.0001 away from 1, at most 1e-06") as caught:
        synthesize_unitary(near)
    assert "raise accuracy above 0.0001 to take the nearest" in caught.value.hint
    circuit = synthesize_unitary(near, accuracy=1e-3)
    assert np.linalg.norm(unitary(circuit) - m.haar(2, 0), 2) < 1e-12


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), "square matrix"),
        (np.eye(3), "2\\^n rows, this matrix has 3"),
        (np.array([["a"]]), "square matrix of numbers"),
        (np.array([[np.nan, 0], [0, 1]]), "no finite numbers"),
    ],
)
def test_what_is_no_matrix_of_qubits_is_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        synthesize_unitary(matrix)


def test_methods_that_there_are_not_are_named() -> None:
    with pytest.raises(UsageError, match="no method 'block-zyz'") as caught:
        sketch_of(np.eye(4), "block-zyz")
    assert "block-zxz" in caught.value.hint


def test_a_matrix_in_a_file_is_compiled_for_a_machine(tmp_path: Path) -> None:
    matrix = m.haar(2, 3)
    np.save(tmp_path / "gate.npy", matrix)
    artifact = qcomp.compile(tmp_path / "gate.npy", target="ibm-heron", mapping=False)
    (circuit,) = artifact.circuits.values()
    assert circuit.stats().two_qubit == 3
    assert np.linalg.norm(unitary(circuit) - matrix, 2) < 1e-9
    assert any("3 CX gates" in line for line in artifact.report["warnings"])
    assert artifact.report["passes"][0]["name"].startswith("synthesize-unitary")


def test_the_pipeline_may_say_how_a_matrix_is_lowered() -> None:
    matrix = m.haar(3, 4)
    artifact = qcomp.compile(
        matrix, target="portable", pipeline="synthesize-unitary{method=block-zxz}"
    )
    (circuit,) = artifact.circuits.values()
    assert 14 < circuit.stats().two_qubit <= 19
    program = qcomp.read(matrix)
    assert qcomp.verify(program, circuit).equal is True
    assert not program.circuits


def test_single_precision_is_taken_and_said() -> None:
    artifact = qcomp.compile(m.haar(2, 5).astype(np.complex64), target="portable")
    assert any("from unitary: the nearest one is taken" in w for w in artifact.report["warnings"])


def test_diagonals_products_and_multiplexers_are_seen() -> None:
    product = np.kron(m.haar(1, 1), np.kron(m.haar(3, 2), m.haar(1, 3)))
    for matrix, most in (
        (m.diagonal(6, 1), 62),
        (product, 14),
        (m.multiplexer(5, 1, 2), 2 * 61 + 16),
    ):
        circuit = synthesize_unitary(matrix)
        assert circuit.stats().two_qubit <= most
        assert np.linalg.norm(unitary(circuit) - matrix, 2) < 1e-9
