"""Cartan decomposition of two-qubit unitaries and circuits of CX gates made from it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qcomp.ir.gates import gate
from qcomp.passes.synthesize.cx_circuits import MIDDLES, free_of_slack, mirrored, write
from qcomp.passes.synthesize.weyl import Weyl, cx_count, cx_counts_with_swap, weyl

Matrices = NDArray[np.complex128]
QUARTER = np.pi / 4


def interaction(x: float, y: float, z: float) -> Matrices:
    product = np.eye(4, dtype=complex)
    for name, angle in (("rxx", x), ("ryy", y), ("rzz", z)):
        product = gate(name).matrix(-2 * angle) @ product
    return product


CLASSES: dict[str, tuple[Matrices, int]] = {
    "identity": (np.eye(4, dtype=complex), 0),
    "cx": (gate("cx").matrix(), 1),
    "ecr": (gate("ecr").matrix(), 1),
    "cp": (gate("cp").matrix(0.3), 2),
    "cp, tiny": (gate("cp").matrix(1e-9), 2),
    "iswap": (gate("iswap").matrix(), 2),
    "dcx": (gate("dcx").matrix(), 2),
    "b": (interaction(QUARTER, 0, QUARTER / 2), 2),
    "xx + zz": (interaction(0.3, 0, 0.3), 2),
    "plane": (interaction(0.7, 0, 0.2), 2),
    "swap": (gate("swap").matrix(), 3),
    "root of swap": (interaction(0.4, 0.4, 0.4), 3),
    "its mirror": (interaction(0.4, -0.4, 0.4), 3),
    "x = z": (interaction(0.4, 0.1, 0.4), 3),
    "y = z": (interaction(0.4, 0.1, 0.1), 3),
    "y = -z": (interaction(0.4, -0.1, 0.1), 3),
    "front face": (interaction(QUARTER, 0.1, 0.2), 3),
    "near the origin": (interaction(3e-9, 1e-9, 2e-9), 3),
    "near a wall": (interaction(0.4, 0.1, 0.4 - 1e-10), 3),
    "generic": (interaction(0.6, -0.1, 0.3), 3),
}
"""Name -> (a unitary of the class, its CX gates)."""


def unitaries(n: int, size: int, rng: np.random.Generator) -> Matrices:
    """Random unitaries by Haar's measure."""
    normal = rng.normal(size=(n, size, size, 2)) @ (1, 1j)
    q, r = np.linalg.qr(normal)
    phases = np.einsum("nii->ni", r)
    result: Matrices = q * (phases / np.abs(phases))[:, None, :]
    return result


def pairs(n: int, rng: np.random.Generator) -> Matrices:
    a, b = unitaries(n, 2, rng), unitaries(n, 2, rng)
    return np.einsum("nij,nkl->nikjl", b, a).reshape(n, 4, 4)


def samples(name: str, n: int = 60) -> Matrices:
    """The class's unitary itself, and with random gates on both sides."""
    rng = np.random.default_rng(sum(map(ord, name)))
    core = CLASSES[name][0]
    return np.concatenate([core[None], pairs(n, rng) @ core @ pairs(n, rng)])


def apart(a: Matrices, b: Matrices) -> float:
    """Largest distance in operator norm, phases apart."""
    overlap = np.einsum("nij,nij->n", b.conj(), a)
    rest = a - b * (overlap / np.abs(overlap))[:, None, None]
    return float(np.linalg.norm(rest, ord=2, axis=(1, 2)).max())


def in_chamber(point: Weyl) -> bool:
    edge = point.x == QUARTER
    return bool(
        np.all(point.x <= QUARTER)
        and np.all(point.x >= point.z)
        and np.all(point.z >= np.abs(point.y))
        and np.all(point.y[edge] >= 0)
    )


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_has_its_number_of_cx_gates_whatever_stands_around_it(name: str) -> None:
    matrix = samples(name)
    point = weyl(matrix)
    assert point.error.max() < 2e-14 + 2e-13 * (name == "near a wall")
    assert in_chamber(point)
    assert set(cx_count(point)) == {CLASSES[name][1]}
    for coordinate in (point.x, point.y, point.z):
        assert np.ptp(coordinate) < 2e-14


@pytest.mark.parametrize("name", CLASSES)
def test_eigenvalues_alone_count_cx_gates_with_and_without_a_swap(name: str) -> None:
    matrix = samples(name)
    alone, swapped = cx_counts_with_swap(matrix)
    assert set(alone) == {CLASSES[name][1]}
    assert list(swapped) == list(cx_count(weyl(gate("swap").matrix() @ matrix)))


@pytest.mark.parametrize("middle", MIDDLES)
@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_written_exactly(name: str, middle: str) -> None:
    matrix = samples(name)
    rng = np.random.default_rng(3)
    for before in (np.tile(np.eye(2), (len(matrix), 1, 1)), unitaries(len(matrix), 2, rng)):
        point = weyl(matrix)
        for chosen in (point, free_of_slack(point, before, before[::-1])):
            circuits = write(chosen, middle)
            assert set(circuits.count) == {CLASSES[name][1]}
            for either in (circuits, circuits.turned(np.ones(len(circuits.count), dtype=bool))):
                assert apart(matrix, either.around(chosen).unitary()) < 5e-14


@pytest.mark.parametrize("name", CLASSES)
def test_paulis_pass_through_every_class(name: str) -> None:
    matrix = samples(name, 5)
    point = weyl(matrix)
    for a in range(4):
        for b in range(4):
            paulis = (np.full(len(matrix), k) for k in (a, b))
            other = mirrored(point, *paulis)
            circuits = write(other, "h").around(other)
            assert set(circuits.count) == {CLASSES[name][1]}
            assert apart(matrix, circuits.unitary()) < 5e-14


def test_random_unitaries_are_exact_and_generic() -> None:
    matrix = unitaries(3000, 4, np.random.default_rng(0))
    point = weyl(matrix)
    assert in_chamber(point)
    assert set(cx_count(point)) == {3}
    assert apart(matrix, write(point, "h").around(point).unitary()) < 5e-14


def test_equal_classes_have_equal_coordinates() -> None:
    matrix = unitaries(200, 4, np.random.default_rng(1))
    around = np.random.default_rng(2)
    first, second = weyl(matrix), weyl(pairs(200, around) @ matrix @ pairs(200, around))
    for name in ("x", "y", "z"):
        assert np.allclose(getattr(first, name), getattr(second, name), atol=1e-13)


def test_inverse_of_a_chain_of_many_gates_is_seen_as_the_identity() -> None:
    chain = unitaries(200, 4, np.random.default_rng(4))
    product = np.eye(4, dtype=complex)
    for step in chain:
        product = step @ product
    for step in chain[::-1]:
        product = step.conj().T @ product
    assert cx_count(weyl(product[None]))[0] == 0


def test_what_commutes_with_the_interaction_is_all_on_one_side() -> None:
    turn = gate("rx").matrix(0.8)
    core = gate("rxx").matrix(0.5) @ np.kron(gate("rx").matrix(-0.3), turn)
    eye = np.eye(2)[None]
    point = free_of_slack(weyl(core[None]), eye, eye)
    for side in (point.ra, point.rb):
        assert np.allclose(np.abs(side).round(12) % 1, 0)  # a Pauli gate


def test_cx_count_is_the_least() -> None:
    """Shende, Bullock, Markov: tr(U yy U^T yy) tells the classes apart without any coordinates."""
    yy = np.kron(gate("y").matrix(), gate("y").matrix())
    for name, (core, expected) in CLASSES.items():
        if "near" in name or "tiny" in name:
            continue
        special = core / np.linalg.det(core) ** 0.25
        gamma = special @ yy @ special.T @ yy
        trace = np.trace(gamma)
        if np.allclose(gamma, np.eye(4)) or np.allclose(gamma, -np.eye(4)):
            least = 0
        elif abs(trace) < 1e-9 and np.allclose(gamma @ gamma, -np.eye(4)):
            least = 1
        else:
            least = 2 if abs(trace.imag) < 1e-9 else 3
        assert least == expected, name
