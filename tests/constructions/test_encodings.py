"""Each encoding's state against its defining equation, written out with plain matrices."""

from __future__ import annotations

from functools import reduce
from math import pi

import numpy as np
import pytest
import scipy.linalg

from qcomp.constructions.encodings import (
    ENCODINGS,
    Encoding,
    encoding,
    image_hamiltonian,
    image_unitary,
)
from qcomp.errors import UsageError
from qcomp.simulate import statevector, unitary

X = np.array([[0, 1], [1, 0]], dtype=complex)
Y = np.array([[0, -1j], [1j, 0]])
Z = np.diag([1.0 + 0j, -1])
H = (X + Z) / np.sqrt(2)
ZERO = np.array([1.0 + 0j, 0])


def turn(pauli: np.ndarray, angle: float) -> np.ndarray:
    return np.cos(angle / 2) * np.eye(2) - 1j * np.sin(angle / 2) * pauli


def phase(angle: float) -> np.ndarray:
    return np.diag([1, np.exp(1j * angle)])


def product(factors: list[np.ndarray]) -> np.ndarray:
    """The tensor product, factor i on qubit i (bit i of an index)."""
    return reduce(lambda rest, factor: np.kron(factor, rest), factors)


def signs(n: int, *qubits: int) -> np.ndarray:
    """The diagonal of the product of Z over qubits."""
    index = np.arange(1 << n)
    return np.prod([1 - 2 * (index >> q & 1) for q in qubits], axis=0)


def states(found: Encoding, x: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    return statevector(found.circuit, found.parameters(x, weights))


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether each row is the same state, up to a phase."""
    overlap = np.abs(np.einsum("bi,bi->b", found.conj(), wanted))
    return bool(np.abs(overlap - 1).max() < 1e-9)


ROWS = np.random.default_rng(3).uniform(-2, 2, size=(4, 16))


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_angle_encoding_turns_each_qubit_by_its_feature(axis: str) -> None:
    found = encoding("angle", 3, axis=axis, scale=0.7)
    pauli = {"x": X, "y": Y, "z": Z}[axis]
    start = H @ ZERO if axis == "z" else ZERO
    wanted = [product([turn(pauli, 0.7 * v) @ start for v in row[:3]]) for row in ROWS]
    assert np.abs(states(found, ROWS[:, :3]) - np.array(wanted)).max() < 1e-12
    assert found.circuit.stats().two_qubit == 0


def test_dense_angle_encoding_has_two_features_in_each_qubit() -> None:
    wanted = [
        product(
            [
                np.array([np.cos(pi * a), np.exp(2j * pi * b) * np.sin(pi * a)])
                for a, b in ((row[0], row[1]), (row[2], row[3]))
            ]
        )
        for row in ROWS
    ]
    found = encoding("dense-angle", 2)
    assert np.abs(states(found, ROWS[:, :4]) - np.array(wanted)).max() < 1e-12


@pytest.mark.parametrize("bits", [1, 2])
def test_basis_encoding_is_the_basis_state_of_the_digits(bits: int) -> None:
    found = encoding("basis", 4, bits=bits)
    rows = np.random.default_rng(1).uniform(-0.1, 1.1, size=(20, 4 // bits))
    index = np.zeros(20, dtype=int)
    for i in range(4 // bits):
        value = np.clip(np.floor(2**bits * rows[:, i]), 0, 2**bits - 1).astype(int)
        index |= value << (bits * i)
    wanted = np.eye(16)[index]
    assert np.abs(states(found, rows) - wanted).max() < 1e-12


def test_reuploading_is_the_product_of_its_layers() -> None:
    n, layers, features = 2, 3, 4
    found = encoding("reupload", n, features, layers=layers)
    weights = np.random.default_rng(5).normal(size=len(found.weights))
    count = layers * n * features
    shift, factor, free = weights[:count], weights[count : 2 * count], weights[2 * count :]
    cz = np.diag([1, 1, 1, -1])
    wanted = []
    for row in ROWS[:, :features]:
        state = np.eye(4, dtype=complex)[0]
        for layer in range(layers):
            gates = []
            for q in range(n):
                at = (layer * n + q) * features
                own = (layer * n + q) * 2
                a = [*(shift[at : at + 4] + factor[at : at + 4] * row), *free[own : own + 2]]
                gates.append(
                    turn(Z, a[5]) @ turn(Y, a[4]) @ turn(Z, a[3])
                    @ turn(Z, a[2]) @ turn(Y, a[1]) @ turn(Z, a[0])
                )  # fmt: skip
            state = product(gates) @ state
            if layer + 1 < layers:
                state = cz @ state
        wanted.append(state)
    assert np.abs(states(found, ROWS[:, :features], weights) - np.array(wanted)).max() < 1e-12


def test_daruan_trains_what_data_becomes_before_it_is_an_angle() -> None:
    n, layers = 2, 3
    found = encoding("daruan", n, layers=layers)
    weights = np.random.default_rng(6).normal(size=len(found.weights))
    a, b = weights[:6].reshape(layers, n), weights[6:12].reshape(layers, n)
    theta = weights[12:].reshape(layers + 1, n, 2)
    wanted = []
    for row in ROWS[:, :n]:
        qubits = []
        for q in range(n):
            state = H @ ZERO
            for k in range(layers + 1):
                state = turn(Y, theta[k, q, 1]) @ turn(Z, theta[k, q, 0]) @ state
                if k < layers:
                    state = turn(Z, a[k, q] * row[q] + b[k, q]) @ state
            qubits.append(state)
        wanted.append(product(qubits))
    assert np.abs(states(found, ROWS[:, :n], weights) - np.array(wanted)).max() < 1e-12


@pytest.mark.parametrize("entanglement", ["full", "linear", "circular"])
def test_the_zz_map_is_its_formula_and_qiskits(entanglement: str) -> None:
    from qiskit.circuit.library import zz_feature_map
    from qiskit.quantum_info import Statevector

    n = 3
    found = encoding("zz", n, layers=2, entanglement=entanglement)
    theirs = zz_feature_map(n, reps=2, entanglement=entanglement)
    wanted = [Statevector(theirs.assign_parameters(list(row[:n]))).data for row in ROWS]
    assert np.abs(states(found, ROWS[:, :n]) - np.array(wanted)).max() < 1e-9
    pairs = {"full": [(0, 1), (0, 2), (1, 2)], "linear": [(0, 1), (1, 2)]}
    for row, state in zip(ROWS[:, :n], states(found, ROWS[:, :n]), strict=True):
        if entanglement == "circular":
            break
        angle = -sum(row[q] * signs(n, q) for q in range(n))
        angle = angle - sum(
            (pi - row[i]) * (pi - row[j]) * signs(n, i, j) for i, j in pairs[entanglement]
        )
        layer = np.diag(np.exp(1j * angle)) @ product([H] * n)
        assert same(state[None], (layer @ layer)[:, :1].T)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_iqp_map_is_its_formula_and_pennylanes(layers: int) -> None:
    import pennylane as qml

    n = 3
    found = encoding("iqp", n, layers=layers)

    @qml.qnode(qml.device("default.qubit", wires=n))
    def theirs(x: np.ndarray) -> object:
        qml.IQPEmbedding(x, wires=range(n), n_repeats=layers)
        return qml.state()

    for row, state in zip(ROWS[:, :n], states(found, ROWS[:, :n]), strict=True):
        angle = sum(row[q] * signs(n, q) for q in range(n))
        angle = angle + sum(row[i] * row[j] * signs(n, i, j) for i, j in ((0, 1), (0, 2), (1, 2)))
        layer = np.diag(np.exp(-0.5j * angle)) @ product([H] * n)
        wanted = np.linalg.matrix_power(layer, layers)[:, 0]
        assert np.abs(state - wanted).max() < 1e-12
        # PennyLane's wire 0 is the most significant bit.
        big = np.asarray(theirs(row)).reshape([2] * n).transpose(range(n - 1, -1, -1)).ravel()
        assert np.abs(state - big).max() < 1e-9


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_amplitude_encoding_has_the_features_as_amplitudes(n: int) -> None:
    rows = np.random.default_rng(n).normal(size=(6, 1 << n))
    rows[1, : 1 << (n - 1)] = 0.0
    rows[2] = -np.abs(rows[2])
    rows[3] = np.eye(1 << n)[-1] * -3
    rows[4] = np.eye(1 << n)[0] * -2
    found = encoding("amplitude", n)
    wanted = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.abs(states(found, rows) - wanted).max() < 1e-9
    assert found.circuit.stats().two_qubit == (1 << n) - n - 1


def test_amplitude_encoding_fills_up_with_zeros_and_takes_a_row_of_zeros() -> None:
    rows = ROWS[:, :5].copy()
    rows[0] = 0.0
    found = states(encoding("amplitude", 3, 5), rows)
    wanted = np.pad(rows, ((0, 0), (0, 3)))
    wanted[0, 0] = 1.0
    assert np.abs(found - wanted / np.linalg.norm(wanted, axis=1, keepdims=True)).max() < 1e-9


def test_energies_become_the_root_of_their_softmax_and_stay_real() -> None:
    found = encoding("neural-amplitude", 3, 6)
    energies = ROWS[:, :6] * 300
    state = states(found, energies)
    chance = scipy.special.softmax(-energies, axis=1)
    assert np.abs(state[:, :6] - np.sqrt(chance)).max() < 1e-9
    assert np.abs(state[:, 6:]).max() < 1e-12
    assert np.abs(state.imag).max() < 1e-12


def test_the_covariant_map_is_a_group_element_on_a_graph_state() -> None:
    n = 3
    found = encoding("covariant", n, shared=False)
    angles = np.array([0.3, -0.8, 1.1])
    for row in ROWS[:, : 2 * n]:
        fiducial = np.diag(
            np.where(signs(n, 0) + signs(n, 1) == -2, -1.0, 1.0)
            * np.where(signs(n, 1) + signs(n, 2) == -2, -1.0, 1.0)
        ) @ product([turn(Y, a) @ ZERO for a in angles])
        group = product([turn(X, -2 * row[2 * q]) @ turn(Z, -2 * row[2 * q + 1]) for q in range(n)])
        assert np.abs(states(found, row, angles)[0] - group @ fiducial).max() < 1e-12
    assert encoding("covariant", n).weights == ("v0",)


def test_the_steps_of_a_hamiltonian_of_an_image_come_to_its_exponential() -> None:
    n, side = 2, 3
    image = np.random.default_rng(8).uniform(size=(side, side))
    wide = np.zeros((4, 4))
    wide[:side, :side] = image
    wanted = scipy.linalg.expm(0.5j * (wide + wide.T) / 2)
    assert np.abs(image_unitary(image, n, 0.5) - wanted).max() < 1e-12
    start = wanted @ np.full(4, 0.5)
    errors = []
    for steps in (4, 8):
        found = encoding("hamiltonian", n, side * side, time=0.5, steps=steps)
        errors.append(np.abs(states(found, image.ravel())[0] - start).max())
    assert errors[0] < 1e-3
    assert errors[1] < errors[0] / 3  # order 2: four times less for twice the steps


def test_one_step_of_commuting_terms_is_exact() -> None:
    """An image whose terms all flip the same bits, or none, needs no Trotter product."""
    n = 3
    rng = np.random.default_rng(9)
    for mask in range(8):
        image = np.zeros((8, 8))
        for y in range(8):
            image[y, y ^ mask] = image[y ^ mask, y] = rng.normal()
        found = encoding("hamiltonian", n, steps=1, order=1, time=0.9)
        body = unitary(found.circuit, found.parameters(image.ravel()))
        wanted = scipy.linalg.expm(0.9j * image_hamiltonian(image, n)) @ product([H] * n)
        assert np.abs(body - wanted).max() < 1e-9


def test_a_step_of_a_hamiltonian_costs_no_more_cx_than_it_says() -> None:
    for n in (2, 3):
        found = encoding("hamiltonian", n, order=1).circuit.stats().two_qubit
        masks = sum(m.bit_count() - 1 for m in range(1, 1 << n))
        assert found == (1 << n) - 2 + ((1 << n) - 1) * (1 << (n - 1)) + 2 * masks


@pytest.mark.parametrize("method", ENCODINGS)
def test_every_encoding_says_what_it_costs_before_it_runs(method: str) -> None:
    found = encoding(method, 2)
    stats = found.circuit.stats()
    assert f"{stats.two_qubit} two-qubit gates, depth {stats.depth}" in found.cost
    assert found.equation
    assert found.circuit.num_qubits == 2


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: encoding("amplitud", 2), "did you mean 'amplitude'"),
        (lambda: encoding("angle", 2, 3), "takes 1 .. 2 features on 2 qubits, not 3"),
        (lambda: encoding("amplitude", 2, 5), "add a qubit"),
        (lambda: encoding("angle", 2, layers=2), "it takes axis, scale"),
        (lambda: encoding("angle", 2, axis="w"), "no axis 'w'"),
        (lambda: encoding("iqp", 2, entanglement="star"), "full, linear, circular"),
        (lambda: encoding("reupload", 1, layers=0), "at least one layer"),
        (lambda: encoding("hamiltonian", 1, 3), "square image"),
        (lambda: encoding("hamiltonian", 1, steps=0), "steps >= 1"),
        (lambda: encoding("angle", 2).parameters([[1.0]]), "takes 2 features"),
        (lambda: encoding("angle", 1).parameters([[np.nan]]), "not a finite number"),
        (lambda: encoding("daruan", 1).parameters([[1.0]]), "has 14 weights, 0 were given"),
        (lambda: encoding("basis", 2, bits=0), "at least one bit"),
        (lambda: image_unitary(np.zeros((3, 3)), 1), "do not fit"),
    ],
)
def test_what_does_not_fit_is_said_with_the_next_step(call: object, text: str) -> None:
    with pytest.raises(UsageError) as error:
        call()  # type: ignore[operator]
    assert text in str(error.value)
