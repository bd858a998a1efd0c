"""cancel-inverses: what meets through what."""

import numpy as np
import pytest

from qcomp.ir.angle import Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.passes.reduce import leaves
from qcomp.passes.reduce.cancel_inverses import CancelInverses
from qcomp.passmanager import Context
from tests.generators import CLIFFORD_T, append_random
from tests.ir.dense import dense


def cancelled(circuit: Circuit) -> Circuit:
    result = CancelInverses().run(circuit, Context())
    if not np.isin(circuit.run.code, [G.MEASURE, G.RESET]).any():
        values = dict.fromkeys(circuit.params, 0.7321)
        assert np.allclose(dense(circuit, **values), dense(result, **values), atol=1e-12)
    return result


def words(circuit: Circuit) -> list[str]:
    return [name for name, _, _ in circuit.run.operations()]


@pytest.mark.parametrize("name", ["h", "x", "y", "z", "cx", "cy", "cz", "ch", "swap", "ecr"])
def test_gate_that_is_its_own_inverse_cancels(name: str) -> None:
    size = 1 if len(name) == 1 else 2
    circuit = Circuit(2).append(name, range(size)).append(name, range(size))
    assert len(cancelled(circuit)) == 0


@pytest.mark.parametrize(
    "build",
    [
        lambda c: c.ccx(0, 1, 2).ccx(1, 0, 2),
        lambda c: c.ccz(0, 1, 2).ccz(2, 0, 1),
        lambda c: c.cswap(0, 1, 2).cswap(0, 2, 1),
        lambda c: c.mcx((0, 1, 2), 3).mcx((0, 1, 2), 3),
        lambda c: c.u(0.1, 0.2, 0.3, 0).u(-0.1, -0.3, -0.2, 0),
        lambda c: c.r(0.1, 0.2, 0).r(-0.1, 0.2, 0),
        lambda c: c.sx(0).append("sxdg", (0,)),
        lambda c: c.csx(0, 1).append("csxdg", (0, 1)),
        lambda c: c.rxx(0.5, 0, 1).rxx(-0.5, 1, 0),
        lambda c: c.append("cu", (0, 1), (0.1, 0.2, 0.3, 0.4)).append(
            "cu", (0, 1), (-0.1, -0.3, -0.2, -0.4)
        ),
    ],
)
def test_inverse_pairs_of_the_whole_table_cancel(build) -> None:
    assert len(cancelled(build(Circuit(4)))) == 0


def test_what_a_pair_hid_is_met_in_the_same_sweep() -> None:
    circuit = Circuit(2).h(0).cx(0, 1).x(0).t(1).tdg(1).x(0).cx(0, 1).h(0)
    assert len(cancelled(circuit)) == 0


def test_cx_passes_diagonals_on_its_control_and_x_on_its_target() -> None:
    circuit = Circuit(4).cx(0, 1).t(0).sx(1).cz(0, 2).cx(3, 1).cx(0, 1)
    assert words(cancelled(circuit)) == ["t", "sx", "cz", "cx"]


def test_cx_does_not_pass_what_it_does_not_commute_with() -> None:
    for blocker in ("t", "h"):
        circuit = Circuit(2).cx(0, 1).append(blocker, (1,)).cx(0, 1)
        assert cancelled(circuit) is circuit
    circuit = Circuit(2).cx(0, 1).cx(1, 0).cx(0, 1)
    assert cancelled(circuit) is circuit


def test_pair_must_be_free_on_every_wire() -> None:
    circuit = Circuit(3).cx(0, 1).h(1).cx(0, 1).h(1).cx(0, 1)
    assert cancelled(circuit) is circuit


def test_rotations_about_x_and_y_add_up_like_those_about_z() -> None:
    result = cancelled(Circuit(2).rx(0.5, 1).cx(0, 1).rx(0.25, 1))
    assert words(result) == ["rx", "cx"]
    assert result.run.rem.tolist() == [0.75]
    assert words(cancelled(Circuit(1).sx(0).sx(0))) == ["x"]
    assert words(cancelled(Circuit(1).ry(pi_fraction(1, 2), 0).y(0).ry(pi_fraction(1, 2), 0))) == []


def test_whole_turn_is_a_phase_and_under_control_it_is_not() -> None:
    whole = pi_fraction(2)
    assert len(cancelled(Circuit(1).rx(whole, 0))) == 0
    circuit = Circuit(2).crx(whole, 0, 1)
    assert cancelled(circuit) is circuit
    assert len(cancelled(Circuit(2).crx(whole, 0, 1).crx(whole, 0, 1))) == 0


def test_symbolic_inverses_cancel() -> None:
    a, b = Parameter("a"), Parameter("b")
    circuit = Circuit(2, params=("a", "b"))
    circuit.u(a, b, 0.5, 0).rxx(a - b, 0, 1).rxx(b - a, 1, 0).u(-a, -0.5, -b, 0)
    assert len(cancelled(circuit)) == 0
    circuit = Circuit(1, params=("a", "b")).ry(a, 0).ry(b, 0)
    assert len(cancelled(circuit)) == 1
    circuit = Circuit(1, params=("a", "b")).u(a, b, 0.5, 0).u(-a, -0.5, b, 0)
    assert cancelled(circuit) is circuit


def test_measurement_is_diagonal_and_reset_and_barrier_stop_everything() -> None:
    assert words(cancelled(Circuit(2, 1).cx(0, 1).measure(0, 0).cx(0, 1))) == ["measure"]
    for stop in (lambda c: c.barrier(0), lambda c: c.reset(0), lambda c: c.measure(0, 0)):
        circuit = Circuit(1, 1).x(0)
        stop(circuit)
        circuit.x(0)
        assert cancelled(circuit) is circuit


def test_identities_and_rotations_by_nothing_go() -> None:
    assert len(cancelled(Circuit(2).id(0).rz(0, 0).cp(0, 0, 1).p(pi_fraction(2), 1))) == 0


@pytest.mark.parametrize("seed", range(6))
def test_compiled_and_plain_kernels_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "LOADED_THRESHOLD", 1 << 60)
    rng = np.random.default_rng(seed)
    circuit = Circuit(6, params=("a", "b"))
    for _ in range(300):
        append_random(circuit, rng, (None, CLIFFORD_T)[seed % 2])
    plain = CancelInverses().run(circuit, Context())
    monkeypatch.setattr(leaves, "KERNEL_THRESHOLD", 0)
    assert len(plain) < len(circuit)
    assert plain.equals(CancelInverses().run(circuit, Context()))


def test_long_run_of_pairs_under_one_key_stays_linear() -> None:
    # Each pair reuses the key of the one before, beside a gate that keeps the segment alive.
    n = 40_000
    code = np.full(n, G.CX, dtype=np.uint8)
    code[0] = G.T
    qubit = np.tile(np.array([0, 1, -1], dtype=np.int32), (n, 1))
    qubit[0] = (0, -1, -1)
    circuit = Circuit(2)
    circuit.append_item(Run.of(code, qubit))
    assert words(CancelInverses().run(circuit, Context())) == ["t", "cx"]
