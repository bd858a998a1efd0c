"""insert-dynamical-decoupling: the schedule is right, the unitary stays, drifts cancel."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.device import Device, get_device
from qcomp.errors import PassError, UsageError
from qcomp.ir.blocks import Delay
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from qcomp.ir.program import Program
from qcomp.ir.run import Run
from qcomp.mitigation.schedule import durations_of, schedule
from qcomp.passmanager import Context, Pipeline
from qcomp.pipeline_text import make_pass
from qcomp.simulate import unitary
from qcomp.target import get_target

PASS = "insert-dynamical-decoupling"
SEQUENCES = {"XX": ("x", 2), "CPMG": ("y", 2), "XY4": ("x", 4)}


def decoupled(circuit: Circuit, context: Context | None = None, **options: object) -> Circuit:
    return make_pass(PASS, options).run(circuit, context or Context())  # type: ignore[attr-defined,no-any-return]


def ladder(qubits: int = 9, rounds: int = 2) -> Circuit:
    """Qubits that wait in superposition while others are coupled."""
    circuit = Circuit(qubits)
    for q in range(qubits):
        circuit.rz(np.pi / 2, q).sx(q).rz(np.pi / 2, q)
    for _ in range(rounds):
        for q in range(qubits - 1):
            circuit.cz(q, q + 1)
    for q in range(qubits):
        circuit.rz(np.pi / 2, q).sx(q).rz(np.pi / 2, q)
    return circuit


def gates_of(circuit: Circuit) -> Circuit:
    return circuit.copy(body=(Run.concat(circuit.runs()),))


@pytest.mark.parametrize(
    ("sequence", "repeats"), [("XX", 1), ("XX", 2), ("CPMG", 1), ("CPMG", 2), ("XY4", 1)]
)
@pytest.mark.parametrize("when", ["alap", "asap"])
def test_the_unitary_is_the_same_and_no_time_is_lost(
    sequence: str, when: str, repeats: int
) -> None:
    device = get_device("fake_torino")
    before = ladder()
    after = decoupled(
        before, sequence=sequence, schedule=when, repeats=repeats, device="fake_torino"
    )
    assert np.abs(unitary(gates_of(after)) - unitary(before)).max() < 1e-12
    lengths = [
        schedule(list(c.body), durations_of(c.body, device), 9).length for c in (before, after)
    ]
    assert lengths[0] == pytest.approx(lengths[1])
    delays = [item for item in after.body if isinstance(item, Delay)]
    assert delays
    assert all(
        d.duration.unit == "dt" and d.duration.value == int(d.duration.value) for d in delays
    )
    # Every idle time that was filled has nothing idle left in it.
    explicit = schedule(list(after.body), durations_of(after.body, device), 9, when == "alap")
    left, had = (
        explicit.gaps(),
        schedule(list(before.body), durations_of(before.body, device), 9, when == "alap").gaps(),
    )
    filled = sum(d.duration.value for d in delays) * device.dt  # type: ignore[operator]
    assert (left.end - left.begin).sum() < (had.end - had.begin).sum() - filled + 1e-12


def test_pulses_stand_at_a_quarter_and_three_quarters_on_the_timing_grid() -> None:
    device = Device(
        "gridded",
        3,
        np.array([[0, 1], [1, 2]]),
        gates=("cz", "rz", "sx", "x"),
        durations={
            "x": np.full(3, 160e-9),
            "sx": np.full(3, 160e-9),
            "rz": np.zeros(3),
            "cz": np.full(2, 3203e-9),
        },
        dt=1e-9,
        timing={"pulse_alignment": 16},
    )
    context = Context(target=get_target("ibm-heron").on(device))
    circuit = Circuit(3)
    circuit.cz(0, 1).cz(1, 2).cz(0, 1)
    after = decoupled(circuit, context)
    own = [i.duration.value for i in after.body if isinstance(i, Delay) and i.qubits == (0,)]
    assert len(own) == 3
    assert sum(own) + 2 * 160 == 3203
    begin = 3203
    first = begin + own[0]
    second = first + 160 + own[1]
    assert first % 16 == second % 16 == 0
    free = 3203 - 2 * 160
    assert abs(own[0] - free / 4) <= 16
    assert abs(own[1] - free / 2) <= 16


def drifted(circuit: Circuit, rates: np.ndarray) -> np.ndarray:
    """The final state on Qiskit Aer when every delay turns its qubit about Z."""
    from qiskit import QuantumCircuit
    from qiskit_aer import AerSimulator

    theirs = QuantumCircuit(circuit.num_qubits)
    for instruction in circuit.to_qiskit().data:
        qubits = [q._index for q in instruction.qubits]
        if instruction.operation.name == "delay":
            theirs.rz(rates[qubits[0]] * instruction.operation.duration, qubits[0])
        else:
            theirs.append(instruction.operation, qubits)
    theirs.save_statevector()
    result = AerSimulator(method="statevector", max_parallel_threads=1).run(theirs).result()
    return np.asarray(result.get_statevector())


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_fidelity_under_slow_dephasing_improves_on_aer(sequence: str) -> None:
    circuit = ladder(7, 2)
    bare = decoupled(circuit, sequence="none", device="fake_torino")
    made = decoupled(circuit, sequence=sequence, device="fake_torino")
    ideal = drifted(circuit, np.zeros(7))
    rng = np.random.default_rng(0)
    fidelity = np.zeros(2)
    for _ in range(10):
        rates = rng.normal(scale=0.02, size=7)
        for k, one in enumerate((bare, made)):
            fidelity[k] += abs(np.vdot(ideal, drifted(one, rates))) ** 2 / 10
    assert fidelity[0] < 0.5
    assert fidelity[1] > 0.9


def test_measured_and_unstarted_qubits_get_no_pulses() -> None:
    circuit = Circuit(3, 3)
    circuit.sx(2).measure(2, 2)
    for _ in range(40):
        circuit.cz(0, 1)
    after = decoupled(circuit, schedule="asap", device="fake_torino")
    assert after is circuit


def test_a_second_run_changes_nothing_and_control_flow_parts_schedules() -> None:
    circuit = ladder()
    measured = Circuit(6, 1)
    for q in range(6):
        measured.sx(q)
    measured.cz(0, 1).cz(1, 2).measure(0, 0)
    with measured.if_(Bit(0)):
        measured.cz(0, 1)
    for _ in range(2):
        for q in range(5):
            measured.cz(q, q + 1)
    for one in (circuit, measured):
        after = decoupled(one, device="fake_torino")
        assert after is not one
        assert decoupled(after, device="fake_torino") is after


def test_the_text_has_delays_and_reads_back() -> None:
    after = decoupled(ladder(), device="fake_torino")
    text = after.to_qasm3()
    assert "delay[" in text
    assert "dt]" in text
    assert Circuit.from_qasm(text).equals(after)


def test_machines_without_x_get_their_own_pulses() -> None:
    for gates, word in ((("cz", "r"), "r"), (("iswap", "rx", "rz"), "rx")):
        name = next(g for g in gates if g in ("cz", "iswap"))
        device = Device(
            "own", 3, np.array([[0, 1], [1, 2]]), gates=gates,
            durations={name: np.full(2, 2e-6), word: np.full(3, 40e-9), "rz": np.zeros(3)},
        )  # fmt: skip
        context = Context()
        context.target = get_target("all-to-all").on(Device.line(3))
        circuit = Circuit(3)
        circuit.append(name, (0, 1)).append(name, (1, 2)).append(name, (0, 1))
        for sequence, (_, count) in SEQUENCES.items():
            instance = make_pass(PASS, {"sequence": sequence})
            after = instance.run(circuit, _with(device))  # type: ignore[attr-defined]
            names = [n for n, _, _ in gates_of(after).run.operations()]
            assert names.count(word) == 2 * count
            assert np.abs(unitary(gates_of(after)) - unitary(circuit)).max() < 1e-12
    nothing = Device("odd", 3, np.array([[0, 1], [1, 2]]), gates=("cz",),
                     durations={"cz": np.full(2, 1e-6)})  # fmt: skip
    circuit = Circuit(3)
    circuit.cz(0, 1).cz(1, 2).cz(0, 1)
    with pytest.raises(PassError, match="no pulse"):
        make_pass(PASS, {}).run(circuit, _with(nothing))  # type: ignore[attr-defined]


def _with(device: Device) -> Context:
    from dataclasses import replace

    return Context(target=replace(get_target("ibm-heron"), machine=device))


def test_unknown_durations_are_a_clear_error() -> None:
    circuit = Circuit(2)
    circuit.h(0).cx(0, 1)
    with pytest.raises(PassError, match="the duration of h, cx is unknown") as caught:
        decoupled(circuit)
    assert "no device" in str(caught.value)
    with pytest.raises(PassError, match="the duration of h, cx is unknown"):
        Pipeline.parse(f"{PASS}{{device=fake_torino}}").run(Program.of_circuit(circuit), Context())
    with pytest.raises(UsageError):
        make_pass(PASS, {"repeats": 0})
    with pytest.raises(UsageError, match="no device"):
        decoupled(circuit, device="fake_turino")
