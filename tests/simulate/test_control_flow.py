"""Measurement, reset and classical control: exact by branches, and by shots."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.blocks import Duration, Range
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.classical import Binary, Bit, ClassicalVar, Lit, Register, Unary, VarRef
from qcomp.ir.program import Readout
from qcomp.simulate import (
    bit_distribution,
    control_flow,
    expectations,
    probabilities,
    run_readout,
    sample,
)


def teleport() -> Circuit:
    circuit = Circuit(3, 2, params=("t", "p"))
    circuit.ry(Parameter("t"), 0)
    circuit.rz(Parameter("p"), 0)
    circuit.h(1)
    circuit.cx(1, 2)
    circuit.cx(0, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    circuit.measure(1, 1)
    with circuit.if_(Bit(1)):
        circuit.x(2)
    with circuit.if_(Bit(0)):
        circuit.z(2)
    return circuit


ROWS = np.array([[0.3, 0.1], [1.2, -0.7], [2.9, 2.0]])


def bloch(rows: np.ndarray) -> np.ndarray:
    t, p = rows.T
    return np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], axis=1)


def test_teleportation_moves_the_state_exactly() -> None:
    values = expectations(teleport(), ROWS, ["X2", "Y2", "Z2"])
    assert np.abs(values - bloch(ROWS)).max() < 1e-12
    assert np.allclose(bit_distribution(teleport(), ROWS), 0.25)


def test_teleportation_by_shots_is_within_shot_noise() -> None:
    readout = Readout("expval", parsed("X2", "Y2", "Z2"), 20000)
    values = run_readout(teleport(), readout, ROWS, seed=3)
    assert 0 < np.abs(values - bloch(ROWS)).max() < 5 / math.sqrt(20000)
    assert np.array_equal(values, run_readout(teleport(), readout, ROWS, seed=3))
    assert not np.array_equal(values, run_readout(teleport(), readout, ROWS, seed=4))


def parsed(*texts: str) -> tuple:
    from qcomp.ir.observable import Observable

    return tuple(Observable.parse(text) for text in texts)


def test_reset_leaves_the_ground_state_and_the_rest_mixed() -> None:
    circuit = Circuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.reset(0)
    assert np.allclose(probabilities(circuit), [[0.5, 0, 0.5, 0]])
    assert np.allclose(expectations(circuit, None, ["Z0", "Z1", "X1", "Z0*Z1"]), [[1, 0, 0, 0]])


def test_repeat_until_success_ends_in_success() -> None:
    circuit = Circuit(1, 1, variables=[ClassicalVar("n", "int", 32)])
    circuit.h(0)
    circuit.measure(0, 0)
    with circuit.while_(Binary("==", Bit(0), Lit(0))):
        circuit.assign(VarRef("n"), Binary("+", VarRef("n"), Lit(1)))
        circuit.h(0)
        circuit.measure(0, 0)
    assert np.abs(probabilities(circuit) - [[0, 1]]).max() < 1e-12
    assert sample(circuit, None, 500, np.random.default_rng(0)).all()


def test_loops_break_continue_and_ranges_count_as_openqasm_says() -> None:
    circuit = Circuit(1, 1, variables=[ClassicalVar("i", "int", 32), ClassicalVar("k", "int", 32)])
    i = ClassicalVar("i", "int", 32)
    with circuit.for_(i, Range(Lit(0), Lit(9), Lit(1))):
        with circuit.if_(Binary("==", VarRef("i"), Lit(2))):
            circuit.continue_()
        with circuit.if_(Binary("==", VarRef("i"), Lit(6))):
            circuit.break_()
        circuit.rx(math.pi / 10, 0)
    with circuit.for_(ClassicalVar("k", "int", 32), (3, 1)):
        circuit.rx(math.pi / 10, 0)
    angle = 7 * math.pi / 10
    expected = [[math.cos(angle / 2) ** 2, math.sin(angle / 2) ** 2]]
    assert np.allclose(probabilities(circuit), expected)


def test_switch_takes_the_case_of_the_register() -> None:
    def build(value: int) -> np.ndarray:
        circuit = Circuit(2, 2, cregs=[RegisterDecl("c", 2, 0)])
        for bit in range(2):
            if value >> bit & 1:
                circuit.x(bit)
            circuit.measure(bit, bit)
            circuit.reset(bit)
        cases: list = []
        for labels in ((1,), (2, 3)):
            bodies: list = []
            with circuit.capture(bodies):
                circuit.x(0 if labels == (1,) else 1)
            cases.append((labels, bodies[0]))
        circuit.switch(Register("c"), tuple(cases))
        return probabilities(circuit)[0]

    assert [int(np.argmax(build(value))) for value in range(4)] == [0, 1, 2, 2]


def test_assigned_bits_and_registers_reach_the_output() -> None:
    circuit = Circuit(1, 3, cregs=[RegisterDecl("c", 2, 0), RegisterDecl("d", 1, 2)])
    circuit.x(0)
    circuit.measure(0, 2)
    circuit.assign(Register("c"), Lit(2))
    with circuit.if_(Unary("!", Bit(0))):
        circuit.assign(Bit(0), Bit(2))
    assert np.argmax(bit_distribution(circuit)[0]) == 0b111
    circuit.end()
    circuit.assign(Register("c"), Lit(0))
    assert np.argmax(bit_distribution(circuit)[0]) == 0b111


def test_a_circuit_that_stops_early_stops() -> None:
    circuit = Circuit(1, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    with circuit.if_(Bit(0)):
        circuit.end()
    circuit.x(0)
    assert np.allclose(probabilities(circuit), [[0.0, 1.0]])


def test_a_loop_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_flow, "MAX_STEPS", 1000)
    circuit = Circuit(1, 1)
    with circuit.while_(Binary("==", Bit(0), Lit(0))):
        circuit.x(0)
    with pytest.raises(UsageError, match="ran over 1000 steps"):
        probabilities(circuit)


def test_too_many_branches_are_refused_and_shots_still_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control_flow, "MAX_BRANCHES", 64)
    circuit = Circuit(1, 1)
    for _ in range(10):
        circuit.h(0)
        circuit.measure(0, 0)
    circuit.h(0)
    with pytest.raises(UsageError, match="over 64 branches"):
        probabilities(circuit)
    assert sample(circuit, None, 50, np.random.default_rng(0)).shape == (1, 50, 1)


def test_a_bit_measured_twice_keeps_the_later_outcome() -> None:
    circuit = Circuit(2, 1)
    circuit.x(0)
    circuit.measure(0, 0)
    circuit.measure(1, 0)
    assert np.allclose(bit_distribution(circuit), [[1.0, 0.0]])
    assert control_flow.final_measurements(circuit)[1] == ((1, 0),)


def test_qubits_measured_only_at_the_end_make_no_branches() -> None:
    circuit = Circuit(10)
    for q in range(10):
        circuit.h(q)
    circuit.measure_all()
    found = list(control_flow.leaves(circuit, np.zeros((1, 0))))
    assert len(found) == 1
    assert np.allclose(bit_distribution(circuit), 1 / 1024)


def test_random_dynamic_circuits_agree_with_qiskit_aer() -> None:
    from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
    from qiskit_aer import AerSimulator

    rng = np.random.default_rng(11)
    register = ClassicalRegister(3, "c")
    other = QuantumCircuit(QuantumRegister(3, "q"), register)
    circuit = Circuit(3, 3)
    for round_ in range(3):
        for q in range(3):
            angle = float(rng.normal())
            circuit.ry(angle, q)
            other.ry(angle, q)
        circuit.cx(0, 1)
        other.cx(0, 1)
        circuit.measure(1, round_)
        other.measure(1, round_)
        with circuit.if_(Bit(round_)):
            circuit.h(2)
            circuit.reset(0)
        with other.if_test((register[round_], 1)):
            other.h(2)
            other.reset(0)
    circuit.measure(2, 0)
    other.measure(2, 0)
    shots = 40000
    counts = AerSimulator(seed_simulator=5).run(other, shots=shots).result().get_counts()
    exact = bit_distribution(circuit)[0]
    theirs = np.array([counts.get(f"{value:03b}", 0) for value in range(8)]) / shots
    ours = run_readout(circuit, Readout("probs", (), shots), None, seed=5)[0]
    assert exact.sum() == pytest.approx(1.0, abs=1e-12)
    for frequencies in (theirs, ours):
        assert np.abs(frequencies - exact).max() < 5 * math.sqrt(0.25 / shots)


def test_measurements_are_final_across_the_runs_at_the_end() -> None:
    circuit = Circuit(4, 4)
    with circuit.if_(Bit(0)):
        circuit.x(0)
    circuit.measure(0, 0)
    circuit.measure(1, 1)
    circuit.delay(Duration(10.0, "ns"), 0)
    circuit.append("mcx", (1, 2, 3, 0))
    circuit.barrier()
    circuit.measure(3, 3)
    body, final = control_flow.final_measurements(circuit)
    assert final == ((3, 3),)
    kept = [
        name for item in body if hasattr(item, "operations") for name, _, _ in item.operations()
    ]
    assert kept.count("measure") == 2
