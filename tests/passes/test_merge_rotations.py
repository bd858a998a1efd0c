"""merge-rotations: what merges, what does not, and in which words the result is written."""

import numpy as np
import pytest

from qcomp.ir.angle import PI, Angle, Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.passes.reduce import leaves
from qcomp.passes.reduce.merge_rotations import MergeRotations
from qcomp.passmanager import Context
from tests.generators import CLIFFORD_T, DIAGONAL, append_random, straight_circuit
from tests.ir.dense import dense


def merged(circuit: Circuit) -> Circuit:
    result = MergeRotations().run(circuit, Context())
    if circuit.is_straight_line and not np.isin(circuit.run.code, [G.MEASURE, G.RESET]).any():
        values = dict.fromkeys(circuit.params, 0.7321)
        assert np.allclose(dense(circuit, **values), dense(result, **values), atol=1e-12)
    return result


def words(circuit: Circuit) -> list[str]:
    return [name for name, _, _ in circuit.run.operations()]


def test_two_t_gates_are_one_s_exactly() -> None:
    result = merged(Circuit(1).t(0).t(0))
    assert words(result) == ["s"]
    assert result.global_phase == Angle()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["t", "s"], ["rz"]),
        (["s", "s"], ["z"]),
        (["z", "s"], ["sdg"]),
        (["z", "t", "s"], ["tdg"]),
        (["t", "tdg"], []),
        (["s", "z", "s"], []),
    ],
)
def test_sums_of_named_gates_have_names_where_there_are_some(names, expected) -> None:
    circuit = Circuit(1)
    for name in names:
        circuit.append(name, (0,))
    assert words(merged(circuit)) == expected


def test_plain_rotations_stay_plain_so_that_a_basis_is_kept() -> None:
    circuit = Circuit(1).rz(pi_fraction(1, 4), 0).rz(pi_fraction(1, 4), 0)
    result = merged(circuit)
    assert words(result) == ["rz"]
    assert result.run.frac.tolist() == [PI >> 1]
    assert words(merged(Circuit(1).p(0.25, 0).p(0.5, 0))) == ["p"]


def test_whole_turn_of_rotations_is_a_phase_of_pi() -> None:
    result = merged(Circuit(1).rz(pi_fraction(1), 0).rz(pi_fraction(1), 0))
    assert len(result) == 0
    assert abs(result.global_phase.frac) == PI


def test_rotation_meets_its_twin_on_another_wire_of_equal_parity() -> None:
    circuit = Circuit(3).cx(0, 1).t(1).swap(1, 2).h(0).t(2)
    assert words(merged(circuit)) == ["cx", "s", "swap", "h"]
    circuit = Circuit(3).cx(0, 1).t(1).cx(0, 1).h(0).h(1).h(2)
    assert merged(circuit) is circuit


def test_complement_flips_the_sign() -> None:
    assert len(merged(Circuit(1).t(0).x(0).t(0))) == 1
    assert words(merged(Circuit(1).rz(0.3, 0).y(0).rz(0.3, 0))) == ["y"]


def test_gate_that_is_not_diagonal_ends_a_parity() -> None:
    circuit = Circuit(2).t(0).h(0).t(0)
    assert merged(circuit) is circuit
    circuit = Circuit(3).t(2).ccx(0, 1, 2).t(2)
    assert merged(circuit) is circuit
    circuit = Circuit(3).t(0).ccx(0, 1, 2).t(0)
    assert len(merged(circuit)) == 2


def test_symbols_add_as_rows_and_cancel() -> None:
    a, b = Parameter("a"), Parameter("b")
    circuit = Circuit(2, params=("a", "b")).rz(a, 0).cx(0, 1).rz(2 * b - 1, 1).cx(0, 1).rz(b + 1, 0)
    result = merged(circuit)
    assert len(result) == 4
    assert result.forms.row(int(result.run.form[0])) == ((0, 1.0), (1, 1.0))
    assert words(merged(Circuit(1, params=("a",)).rz(a, 0).x(0).rz(a, 0))) == ["x"]
    assert len(merged(Circuit(1, params=("a",)).p(a, 0).rz(-a, 0))) == 0


def test_phase_of_symbolic_phase_gates_is_kept_as_a_form() -> None:
    a = Parameter("a")
    result = merged(Circuit(1, params=("a",)).p(a, 0).rz(-a, 0))
    assert result.global_phase.terms == (("a", 0.5),)


def test_controlled_phases_meet_where_both_parities_agree() -> None:
    assert words(merged(Circuit(2).cz(0, 1).t(0).cz(1, 0))) == ["t"]
    assert words(merged(Circuit(2).cs(0, 1).cs(1, 0))) == ["cz"]
    assert len(merged(Circuit(2).cp(0.5, 0, 1).cp(-0.5, 1, 0))) == 0
    assert len(merged(Circuit(3).ccz(0, 1, 2).cx(0, 1).cx(0, 1).ccz(2, 0, 1))) == 2
    changed = Circuit(2).cz(0, 1).cx(0, 1).cz(0, 1)
    assert merged(changed) is changed


def test_rzz_is_a_rotation_about_a_parity() -> None:
    circuit = Circuit(2).rzz(0.5, 0, 1).cx(0, 1).rz(-0.5, 1).cx(0, 1)
    assert words(merged(circuit)) == ["cx", "cx"]
    assert words(merged(Circuit(2).rzz(0.5, 0, 1).cx(0, 1).rz(0.25, 1))) == ["cx", "rz"]


def test_measurement_lets_rotations_pass_and_barrier_does_not() -> None:
    circuit = Circuit(1, 1).t(0).measure(0, 0).t(0)
    assert words(merged(circuit)) == ["s", "measure"]
    circuit = Circuit(1).t(0).barrier(0).t(0)
    assert merged(circuit) is circuit
    circuit = Circuit(1).t(0).reset(0).t(0)
    assert merged(circuit) is circuit


def test_bodies_of_control_flow_stand_alone_and_keep_their_phase() -> None:
    circuit = Circuit(1, 1).t(0)
    with circuit.if_(Bit(0)):
        circuit.s(0).rz(0.5, 0)
    circuit.t(0)
    result = merged(circuit)
    outer, inner, last = result.runs()
    assert [name for name, _, _ in inner.operations()] == ["rz", "gphase"]
    assert (len(outer), len(last)) == (1, 1)
    # s rz(x) = exp(i pi/4) rz(x + pi/2)
    assert inner.frac.tolist() == [PI >> 1, PI >> 2]
    assert result.global_phase == Angle()


@pytest.mark.parametrize("seed", range(6))
def test_compiled_and_plain_kernels_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "LOADED_THRESHOLD", 1 << 60)
    rng = np.random.default_rng(seed)
    circuit = Circuit(6, params=("a", "b"))
    for _ in range(300):
        append_random(circuit, rng, (None, CLIFFORD_T, DIAGONAL)[seed % 3])
    plain = MergeRotations().run(circuit, Context())
    monkeypatch.setattr(leaves, "KERNEL_THRESHOLD", 0)
    compiled = MergeRotations().run(circuit, Context())
    assert len(plain) < len(circuit)
    assert plain.equals(compiled)


def test_result_does_not_depend_on_the_seed_of_the_labels() -> None:
    circuit = straight_circuit(5, 60)
    first = MergeRotations().run(circuit, Context(seed=1))
    assert first.equals(MergeRotations().run(circuit, Context(seed=2)))


def test_t_gates_of_a_random_diagonal_circuit_come_down_to_its_parities() -> None:
    # Only cx and t: at most one rotation for each of the 15 parities of four wires.
    rng = np.random.default_rng(3)
    code = rng.choice([G.CX, G.T], size=5000).astype(np.uint8)
    qubit = np.full((5000, 3), -1, dtype=np.int32)
    qubit[:, 0] = rng.integers(0, 4, 5000)
    qubit[:, 1] = np.where(code == G.CX, (qubit[:, 0] + rng.integers(1, 4, 5000)) % 4, -1)
    circuit = Circuit(4)
    circuit.append_item(Run.of(code, qubit))
    assert (code == G.T).sum() > 2000
    assert merged(circuit).stats().rotations <= 15
