"""Expected success probability: the product of what is known, and nothing made up."""

from __future__ import annotations

import json

import numpy as np
import pytest

import qcomp
from qcomp.device import Device, get_device
from qcomp.ir.blocks import Delay, Duration
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from qcomp.ir.layout import Layout
from qcomp.mitigation.schedule import durations_of, schedule
from qcomp.mitigation.success import success_probability
from qcomp.passmanager import Context, Pipeline
from qcomp.report.data import Report
from tests.timing import timed


def small() -> Device:
    return Device(
        "small",
        3,
        np.array([[0, 1], [1, 2]]),
        errors={
            "sx": np.array([0.01, 0.02, 0.03]),
            "cz": np.array([0.1, 0.2]),
            "measure": np.array([0.05, 0.06, 0.07]),
        },
        durations={
            "sx": np.full(3, 30e-9),
            "cz": np.array([100e-9, 200e-9]),
            "measure": np.full(3, 1e-6),
        },
        t1=np.array([50e-6, 60e-6, 70e-6]),
        t2=np.array([40e-6, 50e-6, 60e-6]),
    )


def bell_on_three() -> Circuit:
    circuit = Circuit(3, 3)
    circuit.sx(0).sx(1).cz(0, 1).cz(2, 1).sx(0)
    circuit.measure(0, 0).measure(1, 1).measure(2, 2)
    return circuit


def test_the_probability_is_the_product_over_gates_and_measurements() -> None:
    found = success_probability(bell_on_three(), small())
    gates = 0.99 * 0.98 * 0.9 * 0.8 * 0.99
    readout = 0.95 * 0.94 * 0.93
    assert found.gates == pytest.approx(gates)
    assert found.readout == pytest.approx(readout)
    assert found.probability == pytest.approx(gates * readout)


def test_idle_times_are_those_of_the_schedule() -> None:
    from qiskit.quantum_info import average_gate_fidelity
    from qiskit_aer.noise import thermal_relaxation_error

    # Qubit 0: 30 sx, 30..130 cz, 130..160 sx, then measured; no qubit waits but 2, which starts.
    circuit = Circuit(3)
    circuit.cz(0, 1).sx(2).cz(1, 2)
    found = success_probability(circuit, small())
    channel = thermal_relaxation_error(70e-6, 60e-6, 70e-9)
    assert found.idle == pytest.approx(average_gate_fidelity(channel.to_quantumchannel()))
    assert found.length == pytest.approx(300e-9)


def test_an_explicit_delay_counts_as_idle_time() -> None:
    circuit = Circuit(3)
    circuit.sx(0).delay(Duration(2.0, "us"), 0).sx(0)
    found = success_probability(circuit, small())
    t = 2e-6
    expected = 0.5 + np.exp(-t / 50e-6) / 6 + np.exp(-t / 40e-6) / 3
    assert found.idle == pytest.approx(expected)


def test_what_is_unknown_makes_the_whole_unknown_and_says_a_bound() -> None:
    circuit = bell_on_three().copy()
    circuit.reset(0).h(1).h(2)
    found = success_probability(circuit, small())
    assert found.probability is None
    assert found.unknown == ("h (2)", "reset (1)")
    assert 0 < found.bound <= success_probability(bell_on_three(), small()).bound * 1.01
    assert "unknown, at most" in str(found)
    uncoupled = Circuit(3)
    uncoupled.cz(0, 2)
    assert success_probability(uncoupled, small()).unknown == ("cz (1)",)
    assert success_probability(uncoupled, Device.line(3)).unknown == ("cz (1)",)


def test_virtual_gates_are_free_and_unmapped_circuits_get_medians() -> None:
    circuit = Circuit(5)
    circuit.rz(0.3, 4).cz(0, 4).sx(3)
    found = success_probability(circuit, small(), virtual=("rz",), typical=True)
    assert found.probability == pytest.approx(0.85 * 0.98)
    assert found.typical
    assert "medians" in str(found)


def test_control_flow_has_no_idle_factor() -> None:
    circuit = Circuit(3, 1)
    circuit.sx(0).measure(0, 0)
    with circuit.if_(Bit(0)):
        circuit.sx(1)
    found = success_probability(circuit, small())
    assert found.idle is None
    assert found.probability == pytest.approx(0.99 * 0.98 * 0.95)


def test_the_schedule_is_that_of_a_plain_loop() -> None:
    device = small()
    rng = np.random.default_rng(0)
    circuit = Circuit(3)
    for _ in range(40):
        kind = rng.integers(4)
        if kind == 0:
            circuit.sx(int(rng.integers(3)))
        elif kind == 1:
            circuit.cz(1, int(rng.choice([0, 2])))
        elif kind == 2:
            circuit.barrier(*rng.permutation(3)[: int(rng.integers(1, 4))].tolist())
        else:
            circuit.delay(Duration(float(rng.integers(1, 99)), "ns"), int(rng.integers(3)))
    items = list(circuit.body)
    durations = durations_of(items, device)
    operands = []
    for item in items:
        operands += (
            [item.qubits]
            if isinstance(item, Delay)
            else [item.operands(i) for i in range(len(item))]
        )
    for late in (False, True):
        line = schedule(items, durations, 3, late)
        order = range(len(operands))[:: -1 if late else 1]
        free, start = np.zeros(3), np.zeros(len(operands))
        for i in order:
            start[i] = max(free[q] for q in operands[i])
            free[list(operands[i])] = start[i] + durations[i]
        if late:
            start = free.max() - start - durations
        assert line.length == pytest.approx(free.max())
        assert np.allclose(line.start, start)


@timed
def test_a_hundred_thousand_gates_are_judged_in_a_second() -> None:
    import time

    device = get_device("fake_torino")
    circuit = Circuit(133)
    a, b = device.pairs[np.linspace(0, len(device.pairs) - 1, 50).astype(int)].T.tolist()
    for q, r in zip(a, b, strict=True):
        circuit.sx(q).rz(0.3, q).cz(q, r)
    big = circuit.copy()
    for _ in range(10):
        big = big.compose(big)
    success_probability(circuit, device)
    start = time.process_time()
    found = success_probability(big, device)
    assert len(big) > 100_000
    assert found.probability is not None
    assert time.process_time() - start < 1


def test_the_pass_says_it_and_keeps_it_as_a_fact() -> None:
    from qcomp.passes.analyze.success_probability import SuccessProbabilities

    circuit = Circuit(2)
    circuit.sx(0).cz(0, 1)
    program = qcomp.read(circuit)
    context = Context()
    Pipeline.parse("success-probability{device=fake_torino}").run(program, context)
    fact = context.need(SuccessProbabilities, "success-probability")
    (found,) = fact.circuits.values()
    assert found.probability is not None
    assert 0.99 < found.probability < 1
    assert any("expected success" in text for text in context.warnings)
    bare = Context()
    Pipeline.parse("success-probability").run(program, bare)
    assert any("no device" in text for text in bare.warnings)


def test_a_mapped_circuit_is_judged_on_its_own_qubits() -> None:
    device = get_device("fake_torino")
    circuit = Circuit(133)
    circuit.sx(3).cz(3, 4)
    circuit.layout = Layout((3, 4), (3, 4), 133)
    found = success_probability(circuit, device)
    row = int(device.pair_index(3, 4))
    expected = (1 - device.errors["sx"][3]) * (1 - device.errors["cz"][row])
    assert found.probability == pytest.approx(expected)


def test_every_report_of_a_compile_for_a_device_says_the_expected_success(tmp_path) -> None:  # type: ignore[no-untyped-def]
    circuit = Circuit(2, 2)
    circuit.h(0).cx(0, 1).measure(0, 0).measure(1, 1)
    qcomp.compile(circuit, target="ibm-heron", out=tmp_path / "out")
    text = (tmp_path / "out" / "report.json").read_text()
    line = json.loads(text)["circuits"][0]["success"]
    assert 0.5 < line["probability"] < 1
    assert Report.from_json(text).circuits[0].success is not None
    assert "expected success on" in (tmp_path / "out" / "report.html").read_text()
