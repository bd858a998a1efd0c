"""push-virtual-z moves turns about Z to where they are needed, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.ir.angle import Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES
from qcomp.kernels import KERNEL_THRESHOLD
from qcomp.passes.map.push_virtual_z import PushVirtualZ
from qcomp.passes.reduce.drop_dead_gates import DropDeadGates
from qcomp.passmanager import Context
from tests.generators import append_random
from tests.ir.dense import dense

A = Parameter("a")
POOL = ("rz", "p", "t", "gpi", "gpi2", "r", "ms", "cz", "iswap", "xy", "x", "swap", "rzz", "siswap")


def pushed(circuit: Circuit) -> Circuit:
    return PushVirtualZ().run(circuit, Context())


def names(circuit: Circuit) -> list[str]:
    return [name for run in circuit.runs() for name, _, _ in run.operations()]


@pytest.mark.parametrize("seed", range(20))
def test_the_unitary_is_kept_with_its_phase_and_symbols(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = Circuit(3, params=("a", "b"))
    for _ in range(40):
        append_random(circuit, rng, POOL if seed % 2 else (*POOL, "h", "cx", "sx", "rx", "id"))
    after = pushed(circuit)
    values = {"a": 0.7, "b": -1.9}
    assert np.abs(dense(circuit, **values) - dense(after, **values)).max() < 1e-12
    assert pushed(after) is after


def test_turns_are_taken_off_the_directions_of_pulses() -> None:
    circuit = Circuit(2, params=("a",)).rz(A, 0).rz(0.5, 1)
    circuit.append("gpi2", (0,), (0.25,)).append("ms", (0, 1), (0, 0, pi_fraction(1, 2)))
    circuit.append("gpi", (1,), (1,))
    after = pushed(circuit)
    assert names(after) == ["gpi2", "ms", "gpi", "rz", "rz"]
    assert "gpi2(-a + 0.25) q[0]" in after.to_qasm3()
    assert "ms(-a, -0.5, pi/2) q[0], q[1]" in after.to_qasm3()


def test_directions_stay_within_half_a_turn() -> None:
    circuit = Circuit(1)
    for _ in range(9):
        circuit.rz(2.5, 0).gpi2(3.0, 0).rz(pi_fraction(-7, 4), 0).gpi(-3.0, 0)
    after = pushed(circuit)
    run = after.run
    entry = run.angle[run.code != GATES[run.code[-1]].code]
    values = run.frac[entry] * (np.pi / (1 << 60)) + run.rem[entry]
    assert len(values) == 18
    assert np.abs(values).max() <= np.pi + 1e-12
    assert np.abs(dense(circuit) - dense(after)).max() < 1e-13


def test_iswap_hands_turns_over_and_x_negates_them() -> None:
    circuit = Circuit(2).rz(0.5, 0).iswap(0, 1).x(1).h(1)
    after = pushed(circuit)
    assert names(after) == ["iswap", "x", "rz", "h"]
    assert "rz(-0.5) q[1]" in after.to_qasm3()


def test_turns_before_measurements_and_resets_vanish() -> None:
    circuit = Circuit(2, 2).rz(0.5, 0).rz(0.1, 1).cz(0, 1).reset(1)
    circuit.append("r", (0,), (0.3, 0.4)).measure(0, 0).measure(1, 1)
    assert names(pushed(circuit)) == ["cz", "reset", "r", "rz", "measure", "measure"]
    left = DropDeadGates().run(pushed(circuit), Context())
    assert "rz" not in names(left)


def test_what_two_qubits_have_passes_their_exchange() -> None:
    circuit = Circuit(2).rz(0.5, 0).rz(0.75, 1).append("xy", (0, 1), (0.3,))
    after = pushed(circuit)
    assert names(after) == ["rz", "xy", "rz", "rz"]
    assert np.abs(dense(circuit) - dense(after)).max() < 1e-15


def test_opposite_turns_leave_nothing() -> None:
    circuit = Circuit(2, params=("a",)).rz(A, 0).t(1).cz(0, 1).rz(-A, 0).tdg(1).h(0).h(1)
    assert names(pushed(circuit)) == ["cz", "h", "h"]


def test_compiled_and_plain_kernels_agree() -> None:
    rng = np.random.default_rng(5)
    circuit = Circuit(4, params=("a", "b"))
    while len(circuit) < KERNEL_THRESHOLD + 8:
        append_random(circuit, rng, (*POOL, "h"))
    large = pushed(circuit)
    small = circuit.copy(body=(circuit.run.select(np.arange(200)),))
    both = pushed(small)
    # The first operations do not know what comes after them.
    head = names(both)[:100]
    assert names(large)[:100] == head
    assert {GATES[code].name for code in large.run.code} <= {*POOL, "h"}
