"""Vectors as circuits: each method against the vector itself, and what it costs."""

from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp.errors import SourceError, UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES
from qcomp.passes.synthesize.state.fit import least_cx
from qcomp.passes.synthesize.state.preparation import METHODS, prepare_state
from qcomp.simulate import statevector


def random_state(n: int, seed: int, *, real: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=1 << n) + (0 if real else 1j * rng.normal(size=1 << n))
    return vector / np.linalg.norm(vector)


def away(circuit: Circuit, vector: np.ndarray) -> float:
    """Distance of the simulated state from the vector, global phase included."""
    return float(np.linalg.norm(statevector(circuit) - vector / np.linalg.norm(vector)))


def gate_names(circuit: Circuit) -> set[str]:
    return {GATES[code].name for code in np.unique(circuit.run.code)}


def w_state(n: int) -> np.ndarray:
    vector = np.zeros(1 << n)
    vector[1 << np.arange(n)] = n**-0.5
    return vector


def gaussian(n: int) -> np.ndarray:
    return np.exp(-(np.linspace(-4, 4, 1 << n) ** 2) / 2)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("n", range(1, 9))
def test_any_state_takes_at_most_the_closed_count(n: int, real: bool) -> None:
    vector = random_state(n, n, real=real)
    found = prepare_state(vector, method="multiplexed")
    assert away(found.circuit, vector) < 1e-9
    assert found.circuit.stats().two_qubit <= 2**n - n - 1


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("n", [3, 4, 5])
def test_auto_takes_about_as_many_gates_as_states_have_numbers_for(n: int, real: bool) -> None:
    vector = random_state(n, n, real=real)
    found = prepare_state(vector)
    assert away(found.circuit, vector) < 1e-9
    assert least_cx(n, real) <= found.circuit.stats().two_qubit <= least_cx(n, real) + 2
    assert found.method in {attempt.method for attempt in found.tried}


@pytest.mark.parametrize("method", ["schmidt", "fitted", "multiplexed"])
def test_methods_for_any_state_meet_it_with_its_phase(method: str) -> None:
    vector = random_state(4, 7)
    assert away(prepare_state(vector, method=method).circuit, vector) < 1e-9


@pytest.mark.parametrize("method", [m for m in METHODS if m != "auto"])
def test_methods_for_structure_meet_a_w_state(method: str) -> None:
    vector = w_state(4)
    found = prepare_state(-1j * vector, method=method)
    assert found.method == method
    assert away(found.circuit, -1j * vector) < 1e-9


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("auto", "sparse")])
def test_less_fidelity_is_reached_and_said(method: str) -> None:
    vector = gaussian(6)
    found = prepare_state(vector, method=method, fidelity=0.99)
    overlap = abs(np.vdot(statevector(found.circuit), vector / np.linalg.norm(vector))) ** 2
    assert found.fidelity == pytest.approx(overlap, abs=1e-12)
    assert found.fidelity >= 0.99


def test_schmidt_splitting_stays_below_plesch_and_brukner() -> None:
    for n in (4, 6):
        vector = random_state(n, n)
        count = prepare_state(vector, method="schmidt").circuit.stats().two_qubit
        assert count < 23 / 24 * 2**n


def test_a_product_of_halves_has_no_gate_between_them() -> None:
    vector = np.kron(random_state(2, 1), random_state(2, 2))
    found = prepare_state(vector, method="schmidt")
    assert found.circuit.stats().two_qubit == 2
    assert away(found.circuit, vector) < 1e-9


@pytest.mark.parametrize("real", [False, True])
def test_sparse_states_cost_in_their_non_zeros(real: bool) -> None:
    n, rng = 10, np.random.default_rng(5)
    for count in (1, 4, 16, 64):
        vector = np.zeros(1 << n, dtype=complex)
        vector[rng.choice(1 << n, count, replace=False)] = random_state(6, 3, real=real)[:count]
        found = prepare_state(vector, method="sparse")
        assert away(found.circuit, vector) < 1e-9
        assert found.circuit.stats().two_qubit <= 2 * n * (count - 1)


def test_small_amplitudes_go_where_fidelity_allows() -> None:
    vector = np.array([1.0, 0, 0, 1, 0.01, 0, 0, 0])
    exact = prepare_state(vector, method="sparse").circuit.stats().two_qubit
    found = prepare_state(vector, method="sparse", fidelity=0.999)
    assert found.circuit.stats().two_qubit == 1 < exact
    assert 0.999 <= found.fidelity < 1


@pytest.mark.parametrize("n", [4, 6, 10])
def test_a_w_state_is_one_staircase(n: int) -> None:
    found = prepare_state(w_state(n), method="mps")
    assert found.circuit.stats().two_qubit <= 2 * n - 3
    assert away(found.circuit, w_state(n)) < 1e-9


@pytest.mark.parametrize("method", ["multiplexed", "sparse", "mps", "tree", "fitted"])
def test_real_vectors_take_real_gates(method: str) -> None:
    vector = w_state(4) * np.array([(-1.0) ** i for i in range(16)])
    circuit = prepare_state(vector * np.exp(0.3j), method=method).circuit
    assert gate_names(circuit) <= {"ry", "cx", "gphase"}


def test_equal_vectors_give_equal_circuits() -> None:
    vector = random_state(4, 2)
    one, two = (prepare_state(v).circuit for v in (vector, vector.copy()))
    assert one.to_qasm3() == two.to_qasm3()


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.zeros(4), "vector is zero"),
        (np.array([1.0, np.nan]), "amplitude 1 of the vector is"),
        (np.array([np.inf, 0.0]), "amplitude 0 of the vector is"),
        (np.ones(3), "2\\^n amplitudes, this vector has 3"),
        (np.ones(1), "2\\^n amplitudes, this vector has 1"),
        (np.ones((2, 2)), "vector of numbers"),
        (np.array(["a", "b"]), "vector of numbers"),
    ],
)
def test_what_is_no_state_is_refused(vector: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare_state(vector)


@pytest.mark.parametrize("vector", [np.zeros(4), np.array([1.0, np.nan])])
def test_reading_no_state_is_refused(vector: np.ndarray) -> None:
    with pytest.raises(SourceError):
        qcomp.read(vector)


def test_wrong_options_are_named() -> None:
    with pytest.raises(UsageError, match="no method 'sparce'") as caught:
        prepare_state(np.ones(4), method="sparce")
    assert "sparse" in caught.value.hint
    with pytest.raises(UsageError, match="fidelity lies in"):
        prepare_state(np.ones(4), fidelity=97)
    with pytest.raises(UsageError, match="'sparse' does not reach fidelity 1"):
        prepare_state(random_state(4, 1), method="sparse")


def test_a_vector_in_a_file_is_compiled_for_a_machine(tmp_path: Path) -> None:
    vector = random_state(3, 3)
    np.save(tmp_path / "psi.npy", vector)
    artifact = qcomp.compile(tmp_path / "psi.npy", target="ibm-heron", mapping=False)
    (circuit,) = artifact.circuits.values()
    assert away(circuit, vector) < 1e-9
    assert circuit.stats().two_qubit == 3
    assert artifact.report["passes"][0]["name"].startswith("prepare-state")
    assert any("3 CX gates" in w and "multiplexed 4 CX" in w for w in artifact.report["warnings"])


def test_the_pipeline_may_say_how_a_state_is_prepared() -> None:
    vector = gaussian(5)
    program = qcomp.read(vector, fidelity=0.99)
    artifact = qcomp.compile(program, target="portable")
    (circuit,) = artifact.circuits.values()
    goal = vector / np.linalg.norm(vector)
    assert abs(np.vdot(statevector(circuit), goal)) ** 2 >= 0.99
    artifact = qcomp.compile(
        vector, target="portable", pipeline="prepare-state{method=mps,fidelity=0.9}"
    )
    (circuit,) = artifact.circuits.values()
    assert circuit.stats().two_qubit <= 7
