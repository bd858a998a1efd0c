"""The ladder: what each rung decides, and that none says yes to a wrong circuit."""

import math

import numpy as np
import pytest

from qcomp.equivalence import Verdict, check, circuits
from qcomp.equivalence.circuits import check_circuits
from qcomp.equivalence.pauli_form import pauli_form, same_pauli_form
from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from qcomp.ir.gates import gate
from qcomp.ir.program import Program
from qcomp.ir.run import Run
from tests.generators import append_random, branching_circuit, straight_circuit
from tests.ir.dense import dense
from tests.models import hybrid


def chain(n: int, *, symbolic: bool = False) -> Circuit:
    circuit = Circuit(n, params=("a",) if symbolic else ())
    for q in range(n):
        circuit.h(q).rz(Parameter("a") * (q + 1) if symbolic else 0.1 * (q + 1), q)
    for q in range(n - 1):
        circuit.cx(q, q + 1).t(q + 1).rx(0.2, q)
    return circuit


def without(circuit: Circuit, index: int) -> Circuit:
    keep = np.ones(len(circuit.run), dtype=bool)
    keep[index] = False
    return circuit.copy(body=(circuit.run.select(keep),))


def test_same_circuit_is_known_without_computing() -> None:
    verdict = check(chain(60), chain(60))
    assert verdict == Verdict(True, "the same circuit, gate by gate", 0.0)


def test_small_circuits_are_compared_as_matrices_and_the_phase_is_said() -> None:
    verdict = check(Circuit(1).rz(0.5, 0), Circuit(1).p(0.5, 0))
    assert verdict.equal is True
    assert "2 x 2 matrix" in verdict.how
    assert verdict.phase == pytest.approx(0.25)
    assert verdict.error < 1e-12


def test_symbols_are_bound_at_random_and_it_is_said() -> None:
    a = Parameter("a")
    first = Circuit(1, params=("a",)).rz(a, 0).rz(0.5, 0)
    verdict = check(first, Circuit(1, params=("a",)).rz(a + 0.5, 0))
    assert verdict.equal is True
    assert "3 random bindings" in verdict.how
    wrong = check(first, Circuit(1, params=("a",)).rz(a - 0.5, 0))
    assert wrong.equal is False
    assert set(wrong.detail["parameters"]) == {"a"}


def test_phase_that_depends_on_parameters_is_said() -> None:
    a = Parameter("a")
    verdict = check(Circuit(1, params=("a",)).rz(a, 0), Circuit(1, params=("a",)).p(a, 0))
    assert verdict.equal is True
    assert verdict.how.endswith("up to a phase that depends on the parameters")


@pytest.mark.parametrize("n", [13, 18])
def test_larger_circuits_are_compared_on_random_states(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuits, "distance_by_pauli_windows", lambda a, b, inputs=None: None)
    first = chain(n)
    # Euler angles, which the Pauli normal form does not see, and gates that trade places, which
    # two-qubit windows do not see.
    second = chain(n).rx(0.3, 0).rz(0.4, 0).rx(0.5, 0).cx(4, 5).cx(4, 6)
    third = chain(n).u(*_euler(0.3, 0.4, 0.5), 0).cx(4, 6).cx(4, 5)
    assert check(second, third).equal is True
    assert "random product states" in check(second, third).how
    assert check(first, second).equal is False


def _euler(x: float, z: float, last: float = 0.0) -> tuple[float, float, float]:
    # The angles of u for rx(last) rz(z) rx(x), up to phase.
    matrix = gate("rx").matrix(last) @ gate("rz").matrix(z) @ gate("rx").matrix(x)
    theta = 2 * math.atan2(abs(matrix[1, 0]), abs(matrix[0, 0]))
    phi = np.angle(matrix[1, 0] / matrix[0, 0])
    return theta, float(phi), float(np.angle(-matrix[0, 1] / matrix[0, 0]))


def test_any_size_is_decided_by_the_pauli_normal_form() -> None:
    first, second = chain(80), chain(80).cx(3, 4).t(4).tdg(4).cx(3, 4)
    verdict = check(first, second)
    assert verdict == Verdict(True, "Pauli normal form, exact", 0.0)


def test_what_no_rung_decides_is_said_not_to_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuits, "distance_by_pauli_windows", lambda a, b, inputs=None: None)
    verdict = check_circuits(chain(80), chain(80).t(5), qcec_seconds=0)
    assert verdict.equal is None
    assert verdict.rung == ""
    assert verdict.how.startswith("not checked: 80 qubits")
    assert math.isnan(verdict.error)


def test_windows_bound_circuits_of_any_size_that_differ_in_blocks_of_two() -> None:
    first = chain(60).rx(0.3, 0).rz(0.4, 0).rx(0.5, 0).rxx(0.2, 7, 8).rzz(0.1, 7, 8)
    second = chain(60).u(*_euler(0.3, 0.4, 0.5), 0).rzz(0.1, 7, 8).rxx(0.2, 7, 8)
    second = second.ccx(3, 4, 5).ccx(3, 4, 5)
    first = first.ccx(3, 4, 5).ccx(3, 4, 5)
    verdict = check(first, second)
    assert verdict.equal is True
    assert verdict.rung == "windows"
    assert 0 < verdict.error < 1e-12


def test_symbols_are_bound_for_windows_too() -> None:
    a = Parameter("a")
    first = Circuit(30, params=("a",)).rx(a, 3).rz(0.4, 3).cx(3, 4).rx(a * 2, 4)
    second = Circuit(30, params=("a",)).rz(math.pi / 2, 3).ry(a, 3).rz(-math.pi / 2, 3)
    second = second.rz(0.4, 3).cx(3, 4).rx(a, 4).rx(a, 4)
    verdict = check(first, second)
    assert (verdict.equal, verdict.rung) in ((True, "windows"), (True, "pauli-form"))
    assert check_circuits(first, second.rx(0.1, 9), qcec_seconds=0).equal is not True


def test_sizes_and_parameters_have_to_agree() -> None:
    assert check(Circuit(1).h(0), Circuit(2).h(0)).equal is False
    a = Parameter("a")
    verdict = check(Circuit(1, params=("a",)).rz(a, 0), Circuit(1).rz(0.3, 0))
    assert verdict.equal is False
    assert "a" in verdict.how


def test_equal_final_measurements_are_taken_off() -> None:
    first = Circuit(2, 2).h(0).t(0).t(0).cx(0, 1).measure(0, 0).measure(1, 1)
    second = Circuit(2, 2).h(0).s(0).cx(0, 1).measure(1, 1).measure(0, 0)
    verdict = check(first, second)
    assert verdict.equal is True
    assert "matrix" in verdict.how
    swapped = Circuit(2, 2).h(0).s(0).cx(0, 1).measure(1, 0).measure(0, 1)
    assert check(first, swapped).equal is False


def test_feed_forward_is_compared_outcome_by_outcome() -> None:
    def teleport(*, right: bool) -> Circuit:
        circuit = Circuit(3, 2).h(1).cx(1, 2).cx(0, 1).h(0).measure(0, 0).measure(1, 1)
        with circuit.if_(Bit(1)):
            circuit.x(2)
        with circuit.if_(Bit(0)):
            circuit.append("z" if right else "s", (2,))
        return circuit

    deferred = Circuit(3, 2).h(1).cx(1, 2).cx(0, 1).h(0).cx(1, 2).cz(0, 2)
    deferred.measure(0, 0).measure(1, 1)
    verdict = check(deferred, teleport(right=True))
    assert verdict.equal is True
    assert "states after each outcome" in verdict.how
    assert check(deferred, teleport(right=False)).equal is False


def test_joint_distributions_stand_in_for_states_of_more_qubits() -> None:
    def make(extra: float) -> Circuit:
        circuit = chain(9)
        circuit = Circuit(9, 1).compose(circuit).measure(4, 0)
        with circuit.if_(Bit(0)):
            circuit.rx(0.25, 5).rx(extra, 5)
        return circuit

    merged = Circuit(9, 1).compose(chain(9)).measure(4, 0)
    with merged.if_(Bit(0)):
        merged.rx(0.5, 5)
    assert check(make(0.25), merged).equal is True
    assert "joint distributions" in check(make(0.25), merged).how
    assert check(make(0.26), merged).equal is False


def test_too_many_qubits_with_control_flow_are_not_checked() -> None:
    circuit = Circuit(20, 1).h(0).measure(0, 0)
    with circuit.if_(Bit(0)):
        circuit.x(1)
    other = circuit.copy().x(1)
    assert check(circuit, other).equal is None


def test_matrix_and_states_each_catch_200_mutants() -> None:
    rng = np.random.default_rng(0)
    caught = tried = 0
    while tried < 200:
        circuit = Circuit(3)
        for _ in range(25):
            append_random(circuit, rng, ("h", "cx", "t", "s", "rz", "rx", "cz", "ccx", "u"))
        circuit = circuit.bind({name: 0.3 for name in circuit.params})
        mutant = without(circuit, int(rng.integers(25)))
        overlap = abs(np.vdot(dense(circuit), dense(mutant))) / 8
        if overlap > 1 - 1e-6:
            continue
        tried += 1
        caught += check(circuit, mutant).equal is False
        assert not same_pauli_form(circuit, mutant)
    assert caught == 200


@pytest.mark.parametrize("seed", range(12))
def test_pauli_form_is_the_circuit(seed: int) -> None:
    """Rotations of the form, multiplied out, then its Clifford: the circuit up to phase."""
    circuit = straight_circuit(seed, 25).bind({"a": 0.37, "b": -1.3})
    form = pauli_form(circuit)
    assert form is not None
    n = circuit.num_qubits
    before = dense(circuit)
    total = np.eye(2**n, dtype=complex)
    for layer in form.layers():
        for (x, z), angle in layer.items():
            pauli = np.zeros((2**n, 2**n), dtype=complex)
            for column in range(2**n):
                pauli[column ^ x, column] = (-1) ** (column & z).bit_count()
            pauli *= 1j ** (x & z).bit_count()
            half = float(angle) / 2
            total = (np.cos(half) * np.eye(2**n) - 1j * np.sin(half) * pauli) @ total
    clifford = before @ total.conj().T
    for q in range(n):
        for row, (x, z) in ((form.xs[q], (1 << q, 0)), (form.zs[q], (0, 1 << q))):
            image = clifford.conj().T @ _pauli(x, z, n) @ clifford
            expected = 1j ** row[2] * _pauli(row[0], row[1], n)
            assert np.allclose(image, expected, atol=1e-9)


def _pauli(x: int, z: int, n: int) -> np.ndarray:
    out = np.zeros((2**n, 2**n), dtype=complex)
    for column in range(2**n):
        out[column ^ x, column] = (-1) ** (column & z).bit_count()
    return out


def test_mutants_of_branching_circuits_are_caught() -> None:
    caught = tried = 0
    for seed in range(30):
        circuit = branching_circuit(seed)
        runs = [run for run in circuit.runs() if len(run)]
        victim = runs[seed % len(runs)]
        mutant = circuit.map_runs(lambda run, victim=victim: _turned(run) if run is victim else run)
        tried += 1
        caught += check_circuits(circuit, mutant, seed).equal is False
    # A turn before a reset, or in a branch that is never taken, changes nothing.
    assert caught >= 0.7 * tried


def _turned(run: Run) -> Run:
    code = run.code.copy()
    extra = Circuit(3).u(1.0, 0.5, 0.25, 1).run
    return Run.concat(
        [extra, Run(code, run.qubit, run.angle, run.frac, run.rem, run.form, run.extra)]
    )


def test_circuit_and_graph_cannot_be_compared() -> None:
    with pytest.raises(UsageError):
        check(Circuit(1).h(0), hybrid())


def test_programs_of_one_circuit_are_compared_as_circuits() -> None:
    first = Program.of_circuit(Circuit(1).rz(pi_fraction(1, 2), 0).h(0))
    second = Program.of_circuit(Circuit(1).s(0).h(0))
    assert "matrix" in check(first, second).how
