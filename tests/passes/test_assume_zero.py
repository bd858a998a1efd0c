"""Qubits that start in |0>: what that makes needless goes, and the bits and the state stay."""

from __future__ import annotations

import numpy as np
import pytest

import qcomp
from qcomp.equivalence import check
from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, Gate
from qcomp.passes.reduce.assume_zero import AssumeZero
from qcomp.passmanager import Context
from tests.generators import append_random
from tests.ir.dense import dense

PREPARED = ("id", "h", "x", "sx", "sxdg")
"""With |0> itself: gates that make |0>, |+>, |1>, |-Y> and |+Y> of |0>."""


def assumed(circuit: Circuit) -> Circuit:
    return AssumeZero().run(circuit, Context())


def names(circuit: Circuit) -> list[str]:
    return [name for run in circuit.runs() for name, _, _ in run.operations()]


def test_a_ghz_circuit_keeps_its_gates_and_a_swap_test_without_input_loses_its_own() -> None:
    ghz = Circuit(3).h(0).cx(0, 1).cx(1, 2)
    assert assumed(ghz) is ghz
    assert names(assumed(Circuit(3).h(0).cswap(0, 1, 2).h(0))) == ["h", "cswap", "h"]
    assert names(assumed(Circuit(3).x(1).cswap(0, 1, 2))) == ["x"]


@pytest.mark.parametrize(
    "gate", [row for row in GATES if 1 < row.num_qubits <= 3], ids=lambda row: row.name
)
def test_every_gate_of_the_table_on_every_known_state_is_what_it_was(gate: Gate) -> None:
    rng = np.random.default_rng(gate.code)
    for _ in range(12):
        circuit = Circuit(gate.num_qubits)
        for q in range(gate.num_qubits):
            if rng.random() < 0.3:
                circuit.ry(0.4, q)
            else:
                circuit.append(str(rng.choice(PREPARED)), (q,), ())
                if rng.random() < 0.5:
                    circuit.append(str(rng.choice(["h", "z", "x"])), (q,), ())
        angles = rng.uniform(0.2, 2.0, gate.num_angles).tolist()
        circuit.append(gate.name, rng.permutation(gate.num_qubits).tolist(), angles)
        first, second = dense(circuit)[:, 0], dense(assumed(circuit))[:, 0]
        assert abs(abs(np.vdot(first, second)) - 1) < 1e-12


def test_a_free_parameter_goes_along_and_keeps_its_sign() -> None:
    angle = Parameter("a")
    circuit = Circuit(2, params=("a",)).x(0).ry(0.3, 1).crz(angle, 0, 1)
    assert names(assumed(circuit)) == ["x", "ry", "rz"]
    turned = Circuit(2, params=("a",)).x(0).ry(0.3, 1).rzz(angle, 0, 1)
    assert assumed(turned) is turned
    number = Circuit(2).x(0).ry(0.3, 1).rzz(0.7, 0, 1)
    assert names(assumed(number)) == ["x", "ry", "rz"]
    for before in (circuit, number):
        assert check(before, assumed(before), from_zero=True).equal


def test_what_a_loop_touches_is_not_known_in_it_and_after_it() -> None:
    from qcomp.ir.classical import ClassicalVar

    circuit = Circuit(3)
    with circuit.for_(ClassicalVar("i", "int", 32), (0, 1)):
        circuit.cx(0, 1).h(0).cx(2, 1)
    circuit.cx(0, 1)
    # Wire 2 is named there too, so nothing is known of it.
    assert assumed(circuit) is circuit


def test_the_checker_sees_a_gate_too_many_dropped() -> None:
    before = Circuit(3).h(0).cx(0, 1).cx(2, 1)
    assert check(before, Circuit(3).h(0).cx(0, 1), from_zero=True).equal is True
    assert check(before, Circuit(3).h(0), from_zero=True).equal is False
    assert check(before, Circuit(3).h(0).cx(0, 1)).equal is False
    wide = Circuit(30).h(0).cx(0, 29)
    assert check(wide, wide.copy(), from_zero=True).equal is True
    assert check(wide, Circuit(30).h(0), from_zero=True).equal is not True


def test_rules_are_off_unless_they_are_allowed() -> None:
    before = Circuit(3, 2).cx(0, 1).h(0).cx(0, 1).swap(1, 2).t(0).t(2)
    before.measure(0, 0).measure(2, 1)
    sweep = "merge-rotations"
    plain = qcomp.optimize(before, pipeline=sweep)
    assert plain.stats().two_qubit == 3
    counts = {}
    for rule, promise in (
        ("zero-start", {"from_zero": True}),
        ("permutation", {}),
        ("only-bits", {"only_bits": True}),
    ):
        after = qcomp.optimize(before, pipeline=sweep, allow=[rule])
        assert check(before, after, **promise).equal, rule
        counts[rule] = after.stats()
    assert counts["zero-start"].two_qubit == 2
    assert counts["permutation"].two_qubit == 2
    assert counts["only-bits"].t_count == 0 < plain.stats().t_count
    with pytest.raises(UsageError, match="did you mean 'zero-start'"):
        qcomp.optimize(before, allow=["zero-starts"])


@pytest.mark.parametrize("seed", range(12))
def test_all_rules_together_keep_the_bits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = Circuit(4, 4)
    for _ in range(40):
        append_random(before, rng, ("h", "x", "t", "cx", "cx", "swap", "cz", "ccx", "rz"))
    for q in range(4):
        before.measure(q, q)
    after = qcomp.optimize(before, allow=("zero-start", "permutation", "only-bits"))
    assert check(before, after, only_bits=True, from_zero=True).equal is True
    assert after.stats().gates < qcomp.optimize(before).stats().gates


def test_swaps_that_are_there_for_couplings_stay() -> None:
    mapped = qcomp.optimize(
        Circuit(3).cx(0, 1).cx(1, 2).cx(0, 2), pipeline="map-to-device{device=line-3}"
    )
    assert mapped.layout is not None
    assert qcomp.optimize(mapped, pipeline="absorb-swaps").equals(mapped)
