"""fuse-one-qubit: bases, fewest gates, what ends a chain."""

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, G, gate
from qcomp.passes.reduce import leaves
from qcomp.passes.reduce.euler import Basis, euler_angles
from qcomp.passes.reduce.fuse_one_qubit import FuseOneQubit
from qcomp.passmanager import Context
from tests.ir.dense import dense

COMPLETE = ("u", "rz-sx-x", "rz-sx", "rz-h", "h-x-rz", "rz-ry", "rz-rx", "p-h", "p-sx", "p-ry")


def fused(circuit: Circuit, basis: str) -> Circuit:
    result = FuseOneQubit(basis).run(circuit, Context())
    if not np.isin(circuit.run.code, [G.MEASURE, G.RESET]).any():
        values = dict.fromkeys(circuit.params, 0.7321)
        assert np.allclose(dense(circuit, **values), dense(result, **values), atol=1e-12)
    return result


def words(circuit: Circuit) -> list[str]:
    return [name for name, _, _ in circuit.run.operations()]


@pytest.mark.parametrize("basis", COMPLETE)
def test_every_unitary_is_written_in_five_gates_at_most(basis: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        circuit = Circuit(1)
        for _ in range(6):
            circuit.u(*rng.uniform(-4, 4, 3), 0)
        result = fused(circuit, basis)
        assert len(result) <= {"u": 1, "rz-ry": 3, "rz-rx": 3, "p-ry": 3}.get(basis, 5)
        assert set(words(result)) <= set(basis.split("-"))


@pytest.mark.parametrize("basis", COMPLETE)
def test_all_cliffords_are_exact_and_short(basis: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        circuit = Circuit(1)
        for name in rng.choice(["h", "s", "x", "sx", "sdg"], size=8):
            circuit.append(str(name), (0,))
        result = fused(circuit, basis)
        assert len(result) <= (5 if basis in ("rz-h", "p-h") else 3)
        assert not result.run.rem.any()
        assert result.global_phase.rem == 0.0


@pytest.mark.parametrize(
    ("gates", "basis", "expected"),
    [
        ("h s h", "rz-sx-x", ["sx"]),
        ("x z", "rz-sx-x", ["rz", "x"]),
        ("h h", "u", []),
        ("s t", "rz-h", ["rz"]),
        ("h t h", "rz-rx", ["rx"]),
        ("h z h", "own", ["x"]),
        ("sdg h sdg", "rz-sx-x", ["sx"]),
    ],
)
def test_fewest_gates_are_taken(gates: str, basis: str, expected: list[str]) -> None:
    circuit = Circuit(1)
    for name in gates.split():
        circuit.append(name, (0,))
    assert words(fused(circuit, basis)) == expected


def test_gates_outside_the_basis_are_rewritten_only_if_that_costs_nothing() -> None:
    assert words(fused(Circuit(1).z(0), "rz-sx-x")) == ["rz"]
    circuit = Circuit(1).h(0)
    assert fused(circuit, "rz-sx-x") is circuit


def test_own_words_are_kept_to() -> None:
    circuit = Circuit(1).h(0).t(0).h(0)
    assert fused(circuit, "own") is circuit
    assert words(fused(Circuit(1).rx(0.5, 0).rz(0.25, 0).rx(0.125, 0), "own")) == ["u"]
    assert words(fused(Circuit(1).h(0).s(0).s(0).h(0), "own")) == ["x"]


def test_symbol_ends_a_chain_and_adds_up_along_its_axis() -> None:
    a = Parameter("a")
    circuit = Circuit(1, params=("a",)).h(0).s(0).h(0).rx(a, 0).h(0).s(0).h(0).rx(-a, 0).x(0)
    assert words(fused(circuit, "own")) == []
    circuit = Circuit(1, params=("a",)).rz(a, 0).rz(0.5, 0).rz(2 * a, 0)
    assert words(fused(circuit, "u")) == ["rz"]


def test_other_wires_and_boundaries_end_a_chain() -> None:
    for stop in (
        lambda c: c.cx(0, 1),
        lambda c: c.barrier(0),
        lambda c: c.measure(0, 0),
        lambda c: c.mcx((1,), 0),
    ):
        circuit = Circuit(2, 1).h(0)
        stop(circuit)
        circuit.h(0)
        assert words(fused(circuit, "u")) == ["u", words(circuit)[1], "u"]


def test_order_on_other_wires_stays() -> None:
    circuit = Circuit(2).h(0).t(1).h(0).cx(0, 1).s(1).h(1).s(1).t(0)
    assert words(fused(circuit, "u")) == ["u", "cx", "u", "u"]


def test_unknown_gate_of_a_basis_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError) as error:
        FuseOneQubit("rz-sxx").run(Circuit(1), Context())
    assert "'sx'" in error.value.hint
    with pytest.raises(UsageError):
        FuseOneQubit("rz-cx").run(Circuit(1), Context())


def test_basis_that_cannot_write_a_chain_leaves_it() -> None:
    circuit = Circuit(1).h(0).t(0).rx(0.3, 0)
    assert fused(circuit, "s-t") is circuit


def test_long_words_that_no_shorter_ones_equal_stay_as_they_are() -> None:
    circuit = Circuit(1)
    for turn in np.random.default_rng(0).integers(0, 2, 70):
        circuit.h(0)
        circuit.t(0)
        if turn:
            circuit.s(0)
    assert len(fused(circuit, "h-s-t")) > 99


def test_euler_angles_of_the_corners_are_exact() -> None:
    theta, phi, lam = euler_angles(np.array([np.eye(2), [[0, 1], [1, 0]]], dtype=complex))
    assert theta.tolist() == [0.0, np.pi]
    assert abs(lam[0]) < 1e-15
    assert abs(abs(phi[1]) - np.pi) < 1e-15


def test_phase_of_a_spelling_is_what_it_lacks() -> None:
    matrix = np.exp(0.4j) * np.array([[1, 0], [0, 1j]])
    spelling = Basis.parse("rz").spell(matrix[None])
    value = float(spelling.phase_frac[0]) * np.pi / (1 << 60) + float(spelling.phase_rem[0])
    assert value == pytest.approx(0.4 + np.pi / 4)


def test_compiled_and_plain_kernels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "LOADED_THRESHOLD", 1 << 60)
    rng = np.random.default_rng(4)
    circuit = Circuit(3)
    for _ in range(200):
        name = str(rng.choice(["h", "t", "sx", "y", "cx", "rx", "ry", "p", "u", "r"]))
        row = gate(name)
        angles = [pi_fraction(int(k), 8) for k in rng.integers(0, 16, row.num_angles)]
        circuit.append(name, rng.permutation(3)[: row.num_qubits], angles)
    plain = FuseOneQubit("rz-sx-x").run(circuit, Context())
    monkeypatch.setattr(leaves, "KERNEL_THRESHOLD", 0)
    compiled = FuseOneQubit("rz-sx-x").run(circuit, Context())
    assert words(plain) == words(compiled)
    assert np.allclose(dense(plain), dense(compiled), atol=1e-12)


@pytest.mark.parametrize("corner", [0.0, np.pi])
def test_rounding_of_a_product_does_not_turn_what_is_nearly_diagonal(corner: float) -> None:
    rng = np.random.default_rng(6)
    noise = rng.normal(size=(400, 2, 2, 2)) @ (1, 1j) * 1.5e-14
    matrix = gate("ry").matrix(corner) @ gate("rz").matrix(0.8) + noise
    spelled = Basis.parse("rz-sx-x").spell(matrix)
    for row in range(len(matrix)):
        product = np.eye(2)
        for code, frac, rem in zip(
            spelled.code[row], spelled.frac[row], spelled.rem[row], strict=True
        ):
            if code >= 0:
                angles = (frac * np.pi / 2**60 + rem)[: GATES[code].num_angles]
                product = GATES[code].matrix(*angles) @ product
        overlap = np.trace(product.conj().T @ matrix[row])
        assert np.abs(product * overlap / abs(overlap) - matrix[row]).max() < 3e-13
