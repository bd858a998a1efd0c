"""Block encodings and polynomials of them against the matrices that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev

from qcomp.constructions.block_encoding import (
    BlockEncoding,
    fable,
    hermitian_part,
    linear_combination,
    pauli_combination,
    pauli_products,
)
from qcomp.constructions.transformation import (
    powers_transformation,
    regular,
    singular_value_transformation,
)
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.passes.synthesize.polynomial.phases import power_angles, symmetric_phases
from qcomp.simulate import unitary

_PAULI = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}


def block(encoding: BlockEncoding) -> np.ndarray:
    """The matrix that a circuit encodes."""
    size = 1 << encoding.num_system
    return encoding.scale * unitary(encoding.circuit)[:size, :size]


def dense(observable: Observable, num_qubits: int) -> np.ndarray:
    """The matrix of an observable, qubit 0 least significant."""
    total = np.zeros((1 << num_qubits, 1 << num_qubits), dtype=complex)
    for coef, product in observable.terms:
        letters, matrix = dict(product), np.eye(1)
        for q in range(num_qubits):
            matrix = np.kron(_PAULI[letters.get(q, "I")], matrix)
        total += coef * matrix
    return total


def series(rng: np.random.Generator, degree: int) -> np.ndarray:
    """Chebyshev coefficients of the parity of the degree, at most 0.9 in magnitude."""
    c = rng.normal(size=degree + 1)
    c[(degree + 1) % 2 :: 2] = 0
    grid = np.cos(np.linspace(0, np.pi, 4001))
    return c * 0.9 / np.abs(chebyshev.chebval(grid, c)).max()


def word(rng: np.random.Generator) -> Circuit:
    circuit = Circuit(2)
    circuit.append("u", [0], rng.normal(size=3).tolist())
    circuit.cx(0, 1)
    circuit.ry(float(rng.normal()), 1)
    circuit.gphase(float(rng.normal()))
    return circuit


def test_a_sum_of_paulis_is_the_block() -> None:
    text = "0.5*Z0*Z1 - 0.3*X0 + 0.2*Y1*X2 + 0.7*Y0*Y2 - 0.1"
    observable = Observable.parse(text)
    encoding = pauli_combination(observable)
    assert np.abs(block(encoding) - dense(observable, 3)).max() < 1e-12
    assert encoding.scale == pytest.approx(1.8)
    assert encoding.num_ancillas == 3
    assert encoding.circuit.stats().two_qubit <= (2 * 3 + 3) * 8


def test_a_single_pauli_needs_no_ancilla() -> None:
    observable = Observable.parse("-2*X0*Y1")
    encoding = pauli_combination(observable)
    assert encoding.num_ancillas == 0
    assert np.abs(block(encoding) - dense(observable, 2)).max() < 1e-12


def test_the_pauli_products_of_a_matrix_add_up_to_it() -> None:
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4))
    encoding = pauli_combination(pauli_products(matrix))
    assert np.abs(block(encoding) - matrix).max() < 1e-11
    assert len(pauli_products(np.diag([1.0, -1, -1, 1]))) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
def test_a_linear_combination_of_circuits_is_the_block(count: int) -> None:
    rng = np.random.default_rng(count)
    words = [word(rng) for _ in range(count)]
    coefs = rng.normal(size=count) + 1j * rng.normal(size=count)
    encoding = linear_combination(coefs.tolist(), words)
    wanted = sum(c * unitary(w) for c, w in zip(coefs, words, strict=True))
    assert np.abs(block(encoding) - wanted).max() < 1e-12
    assert encoding.scale == pytest.approx(np.abs(coefs).sum())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fable_encodes_dense_matrices_at_one_cx_an_entry(n: int) -> None:
    rng = np.random.default_rng(n)
    matrix = rng.normal(size=(1 << n, 1 << n))
    real, swaps = fable(matrix), n
    assert np.abs(block(real) - matrix).max() < 1e-12
    assert real.circuit.stats().two_qubit <= 4**n + swaps
    mixed = matrix + 1j * rng.normal(size=matrix.shape)
    assert np.abs(block(fable(mixed)) - mixed).max() < 1e-12


def test_angles_that_fable_leaves_out_save_gates_within_the_stated_error() -> None:
    i = np.arange(8)
    smooth = 1 / (1 + np.abs(i[:, None] - i[None, :]))
    exact, short = fable(smooth), fable(smooth, cutoff=0.02)
    assert short.circuit.stats().two_qubit < exact.circuit.stats().two_qubit
    error = np.linalg.norm(block(short) - smooth, 2)
    assert 0 < error <= short.error


def test_the_hermitian_part_takes_one_ancilla() -> None:
    matrix = np.random.default_rng(3).normal(size=(2, 2))
    encoding = fable(matrix)
    half = hermitian_part(encoding)
    assert half.num_ancillas == encoding.num_ancillas + 1
    assert np.abs(block(half) - (matrix + matrix.T) / 2).max() < 1e-12


@pytest.mark.parametrize("degree", [0, 1, 4, 7])
def test_a_polynomial_of_a_hermitian_matrix_is_the_block(degree: int) -> None:
    observable = Observable.parse("0.5*Z0*Z1 - 0.3*X0 + 0.2*Y1")
    encoding = pauli_combination(observable)
    values, vectors = np.linalg.eigh(dense(observable, 2) / encoding.scale)
    coefs = series(np.random.default_rng(degree), degree)
    made = singular_value_transformation(encoding, symmetric_phases(coefs).tolist())
    wanted = vectors @ np.diag(chebyshev.chebval(values, coefs)) @ vectors.conj().T
    assert np.abs(block(made) - wanted).max() < 1e-11


@pytest.mark.parametrize("degree", [2, 3])
def test_the_singular_values_of_any_matrix_are_transformed(degree: int) -> None:
    matrix = np.random.default_rng(5).normal(size=(2, 2))
    encoding = fable(matrix)
    u, values, vh = np.linalg.svd(matrix / encoding.scale)
    coefs = series(np.random.default_rng(degree), degree)
    made = singular_value_transformation(encoding, symmetric_phases(coefs).tolist())
    left = u if degree % 2 else vh.conj().T
    wanted = left @ np.diag(chebyshev.chebval(values, coefs)) @ vh
    assert np.abs(block(made) - wanted).max() < 1e-11


@pytest.mark.parametrize("degree", [2, 3])
def test_two_parities_are_added_for_one_controlled_use_more(degree: int) -> None:
    rng = np.random.default_rng(6)
    observable = Observable.parse("0.5*Z0*Z1 - 0.3*X0 + 0.2*Y1")
    encoding = pauli_combination(observable)
    values, vectors = np.linalg.eigh(dense(observable, 2) / encoding.scale)
    one, two = series(rng, degree), series(rng, degree + 1)
    made = singular_value_transformation(
        encoding, symmetric_phases(one).tolist(), symmetric_phases(two).tolist(), (1j, -1)
    )
    wanted = 1j * chebyshev.chebval(values, one) - chebyshev.chebval(values, two)
    assert np.abs(block(made) - vectors @ np.diag(wanted) @ vectors.conj().T).max() < 1e-11


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_powers_of_a_matrix_that_is_not_normal_add_up(degree: int) -> None:
    rng = np.random.default_rng(degree)
    matrix = rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2))
    encoding = fable(matrix)
    part = regular(encoding, degree).circuit
    coefs = rng.normal(size=degree + 1) + 1j * rng.normal(size=degree + 1)
    coefs /= np.abs(np.fft.fft(coefs, 4096)).max() * 1.001
    q = part.num_qubits
    chosen = Circuit(q + 1)
    chosen.x(q)
    chosen = chosen.compose(part.control(), [q, *range(q)])
    chosen.x(q)
    made = powers_transformation(chosen, 1, power_angles(coefs))
    m = matrix / encoding.scale
    wanted = sum(c * np.linalg.matrix_power(m, k) for k, c in enumerate(coefs))
    assert np.abs(block(made) - wanted).max() < 1e-12


def test_what_cannot_be_encoded_is_said() -> None:
    with pytest.raises(UsageError, match="square"):
        fable(np.ones((2, 4)))
    with pytest.raises(UsageError, match="power of two") as caught:
        fable(np.ones((3, 3)))
    assert "4 x 4" in str(caught.value)
    with pytest.raises(UsageError, match="NaN"):
        fable(np.full((2, 2), np.nan))
    with pytest.raises(UsageError, match="is 0"):
        pauli_products(np.zeros((2, 2)))
    with pytest.raises(UsageError, match="same number of qubits"):
        linear_combination([1, 1], [Circuit(1), Circuit(2)])
    with pytest.raises(UsageError, match="not all 0"):
        linear_combination([0], [Circuit(1)])
    with pytest.raises(UsageError, match="acts on qubit 4"):
        pauli_combination(Observable.parse("Z4"), 2)
    with pytest.raises(UsageError, match="two parities"):
        singular_value_transformation(fable(np.eye(2)), [0.0, 0], [0.0, 0])
