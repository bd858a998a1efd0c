"""synthesize-rotations: words of Clifford gates and T, each to an accuracy of its own."""

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from qcomp.angle_accuracies import AngleAccuracies, AngleAccuracy
from qcomp.budget import OPERATOR_NORM
from qcomp.errors import PassError, UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import gate
from qcomp.ir.program import Program
from qcomp.passes.synthesize.clifford_t import rotations, table
from qcomp.passes.synthesize.clifford_t.mixing import mixture
from qcomp.passes.synthesize.clifford_t.normal_form import (
    distance,
    normal_form,
    rz_quaternion,
)
from qcomp.passes.synthesize.clifford_t.rotations import (
    rotation_front,
    rotation_word,
    unitary_front,
)
from qcomp.passes.synthesize.clifford_t.synthesize_rotations import SynthesizeRotations
from qcomp.passmanager import CircuitPass, Context, Guarantee, Pipeline
from qcomp.simulate import unitary


def angles(count: int, seed: int = 3) -> list[float]:
    return [float(x) for x in np.random.default_rng(seed).uniform(-math.pi, math.pi, count)]


def random_unitary(rng: np.random.Generator) -> np.ndarray:
    point = rng.normal(size=4)
    return point / np.linalg.norm(point)


def layered(qubits: int, layers: int, seed: int = 0) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(qubits)
    for _ in range(layers):
        for q in range(qubits):
            circuit.ry(float(rng.normal()), q)
            circuit.rz(float(rng.normal()), q)
        for q in range(qubits - 1):
            circuit.cx(q, q + 1)
    return circuit


def test_a_normal_form_is_the_same_unitary_with_at_most_as_many_t() -> None:
    rng = np.random.default_rng(0)
    names = ["h", "x", "y", "z", "s", "sdg", "t", "tdg"]
    for length in (0, 1, 2, 7, 60):
        for _ in range(10):
            gates = [names[k] for k in rng.integers(0, 8, length)]
            word = normal_form(gates)
            before, after = np.eye(2, dtype=complex), np.eye(2, dtype=complex)
            for name in gates:
                before = gate(name).matrix() @ before
            for name in word.gates:
                after = gate(name).matrix() @ after
            assert abs(abs(np.trace(before.conj().T @ after)) - 2) < 1e-9
            a, b, c, d = word.quaternion
            made = np.array([[a - 1j * d, -1j * b - c], [-1j * b + c, a + 1j * d]])
            assert np.allclose(after, np.exp(1j * math.pi * word.eighths / 8) * made)
            assert word.t_count == sum(name in ("t", "tdg") for name in word.gates)
            assert word.t_count <= sum(name in ("t", "tdg") for name in gates)


@pytest.mark.parametrize("epsilon", [1e-2, 1e-3, 1e-6, 1e-10])
def test_a_rotation_is_within_its_accuracy_with_fewer_t_than_the_engine(epsilon: float) -> None:
    from qiskit.synthesis import gridsynth_rz

    ours = peers = 0
    for angle in angles(8):
        point = rotation_word(0, angle, epsilon)
        matrix = np.eye(2, dtype=complex)
        for name in point.word.gates:
            matrix = gate(name).matrix() @ matrix
        wanted = np.diag([np.exp(-0.5j * angle), np.exp(0.5j * angle)])
        phase = np.exp(1j * math.pi / 8 * point.word.phase(rz_quaternion(angle)))
        assert np.linalg.norm(phase * matrix - wanted, 2) <= epsilon * (1 + 1e-3) + 1e-14
        counts = gridsynth_rz(angle, epsilon).count_ops()
        ours += point.t_count
        peers += counts.get("t", 0) + counts.get("tdg", 0)
    assert ours <= peers - 8


def test_no_unitary_with_few_t_is_nearer_than_the_front_says() -> None:
    target = rz_quaternion(0.61)
    found = table.front(target)
    points, start = table._listed()
    for count, error, word in found:
        assert word.t_count == count
        best = float(distance(points[: start[count + 1]], target).min())
        assert error == pytest.approx(best, abs=1e-9)


def test_fronts_fall_in_error_and_rise_in_t() -> None:
    for front in (
        rotation_front(0, 0.3, 2.0, 1e-4),
        unitary_front(random_unitary(np.random.default_rng(1)), 0.5, 1e-2, 20),
    ):
        assert len(front) > 4
        pairs = itertools.pairwise(front)
        assert all(a.t_count < b.t_count and a.error > b.error for a, b in pairs)


def test_any_unitary_at_once_takes_less_than_six_tenths_of_three_rotations() -> None:
    rng = np.random.default_rng(5)
    direct = three = 0
    for _ in range(4):
        target = random_unitary(rng)
        word = table.shortest(target, 1e-3, 30)
        assert word is not None
        assert word.distance(target) <= 1e-3
        direct += word.t_count
        three += sum(rotation_word(0, angle, 1e-3 / 3).t_count for angle in angles(3, 7))
    assert direct <= 0.6 * three


def test_multiples_of_quarter_turns_and_symbols_stay() -> None:
    circuit = Circuit(2, params=("a",))
    circuit.rz(math.pi / 4, 0)
    circuit.p(3 * math.pi / 2, 1)
    circuit.rz(Parameter("a"), 0)
    circuit.u(math.pi / 2, 0.0, math.pi, 1)
    assert SynthesizeRotations().run(circuit, Context()) is circuit


def test_equal_angles_are_synthesised_once() -> None:
    circuit = Circuit(4)
    for q, angle in enumerate((0.2137, -0.2137, 0.2137 + math.pi / 2, math.pi - 0.2137)):
        circuit.rz(angle, q)
    rotations._basic.cache_clear()
    rotations._coarse.cache_clear()
    new = SynthesizeRotations(epsilon=1e-5).run(circuit, Context())
    # What is left of an angle after turns are taken off is rounded at the last place.
    assert rotations._coarse.cache_info().misses <= 2
    assert new.stats().t_count % 4 == 0


@pytest.mark.parametrize(("epsilon", "direct"), [(3e-2, 26), (1e-3, 26), (1e-3, 0), (1e-7, 26)])
def test_a_circuit_changes_by_less_than_is_promised_phase_included(
    epsilon: float, direct: int
) -> None:
    circuit = layered(3, 2)
    circuit.u(0.3, 0.4, 0.5, 0)
    circuit.p(0.7, 1)
    circuit.cp(0.3, 0, 2)
    circuit.t(0)
    circuit.rzz(0.2, 1, 2)
    context = Context()
    new = SynthesizeRotations(epsilon=epsilon, direct_t=direct).run(circuit, context)
    (entry,) = context.ledger.entries
    measured = np.linalg.norm(unitary(circuit) - unitary(new), 2)
    assert measured <= entry.spent <= entry.promised
    assert entry.measure == OPERATOR_NORM
    assert entry.promised == pytest.approx(epsilon * 20)


def test_chains_written_at_once_save_t() -> None:
    circuit = layered(2, 3)
    counts = [
        SynthesizeRotations(direct_t=most).run(circuit, Context()).stats().t_count
        for most in (0, 26)
    ]
    assert counts[1] < 0.6 * counts[0]


def test_the_phase_stays_in_a_conditional_body() -> None:
    circuit = Circuit.from_qasm(
        'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\nbit[1] c;\nh q[0];\n'
        "c[0] = measure q[0];\nif (c[0]) { p(0.3) q[1]; }\n"
    )
    new = SynthesizeRotations().run(circuit, Context())
    assert new is not circuit
    assert "gphase" in new.to_qasm3().split("if (")[1]


def test_accuracies_that_were_allocated_are_kept() -> None:
    circuit = layered(2, 1)
    context = Context()
    context.put(AngleAccuracies({circuit.name: (AngleAccuracy(1e-2), AngleAccuracy(1e-5))}))
    SynthesizeRotations().run(circuit, context)
    assert context.ledger.entries[0].promised == pytest.approx(1e-2 + 1e-5)


def test_accuracies_of_another_circuit_are_refused() -> None:
    circuit = layered(2, 1)
    some = AngleAccuracy(1e-2)
    for wrong in ((some,), (some,) * 3, (some, AngleAccuracy(1e-3, ("t",)))):
        context = Context()
        context.put(AngleAccuracies({circuit.name: wrong}))
        with pytest.raises(PassError, match="other rotations"):
            SynthesizeRotations().run(circuit, context)


@dataclass(frozen=True)
class _Overspends(CircuitPass):
    """Changes an angle by more than it says."""

    name: ClassVar[str] = "overspends"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    promised: float = 1e-3

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        new = circuit.copy()
        new.rz(0.1, 0)
        if self.promised:
            context.ledger.spend(self.name, self.promised, self.promised, OPERATOR_NORM)
        return new


@pytest.mark.parametrize(("promised", "words"), [(1e-3, "had promised"), (0.0, "nothing")])
def test_checked_mode_refuses_a_pass_that_overspends(promised: float, words: str) -> None:
    from qcomp.passmanager import run_pass

    program = Program.of_circuit(layered(2, 1))
    with pytest.raises(PassError, match=words):
        run_pass(_Overspends(promised), program, Context(verify_each=True))
    run_pass(_Overspends(0.2), program, Context(verify_each=True))


def test_checked_mode_says_what_was_measured() -> None:
    program = Program.of_circuit(layered(2, 1))
    records = Pipeline.parse("synthesize-rotations{epsilon=0.01}").run(
        program, Context(verify_each=True)
    )
    assert "at most 0.04 was promised" in records[0].check


@pytest.mark.parametrize("options", [{"epsilon": 0.0}, {"epsilon": 3.0}, {"direct_t": 99}])
def test_accuracies_that_cannot_be_had_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="synthesize-rotations"):
        SynthesizeRotations(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="float64"):
        rotation_word(0, 0.3, 1e-15)


def test_the_mean_of_words_drawn_by_chance_is_much_nearer_than_each() -> None:
    for angle, epsilon in ((0.61, 0.05), (-2.0, 0.01)):
        found = mixture(0, angle, epsilon)
        assert sum(found.chances) == pytest.approx(1)
        assert all(point.error <= epsilon for point in found.points)
        assert found.error <= 2 * epsilon**2
        turn = np.diag([np.exp(-0.5j * angle), np.exp(0.5j * angle)])
        plus = np.full((2, 2), 0.5)
        mean = np.zeros((2, 2), dtype=complex)
        for point, chance in zip(found.points, found.chances, strict=True):
            matrix = np.eye(2, dtype=complex)
            for name in point.word.gates:
                matrix = gate(name).matrix() @ matrix
            mean += chance * matrix @ plus @ matrix.conj().T
        apart = np.linalg.eigvalsh(mean - turn @ plus @ turn.conj().T)
        assert np.abs(apart).sum() / 2 <= found.error + 1e-12
        alone = rotation_word(0, angle, found.error).t_count
        assert sum(c * p.t_count for p, c in zip(found.points, found.chances, strict=True)) < alone


def test_mixing_draws_by_the_seed_and_says_what_the_mean_is_off_by() -> None:
    circuit = layered(2, 1)
    texts = set()
    for seed in range(4):
        context = Context(seed=seed)
        mixed = SynthesizeRotations(epsilon=0.05, mix=True)
        texts.add(mixed.run(circuit, context).to_qasm3())
        norm, mean = context.ledger.entries
        assert norm.measure == OPERATOR_NORM
        assert norm.spent <= norm.promised == pytest.approx(0.2)
        assert "mean over seeds" in mean.measure
        assert mean.spent <= 4 * 2 * 0.05**2
    assert len(texts) > 1
