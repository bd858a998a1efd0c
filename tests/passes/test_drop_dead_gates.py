"""What no measurement sees goes, and what one sees stays."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.equivalence import check
from qcomp.errors import PassError
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit, ClassicalVar
from qcomp.ir.gates import GATES
from qcomp.ir.observable import Observable
from qcomp.ir.program import Program, Readout
from qcomp.ir.run import Run
from qcomp.passes.reduce.drop_dead_gates import DropDeadGates
from qcomp.passmanager import Context, Pipeline
from tests.generators import CIRCUITS, append_random, measured_circuit


def dropped(circuit: Circuit) -> Circuit:
    return DropDeadGates().run(circuit, Context())


def names(circuit: Circuit) -> list[str]:
    return [name for run in circuit.runs() for name, _, _ in run.operations()]


def test_diagonal_gates_before_a_measurement_go_and_others_stay() -> None:
    circuit = Circuit(2, 2).h(0).rz(0.3, 0).rx(0.2, 0).t(0).cz(0, 1)
    circuit.measure(0, 0).measure(1, 1)
    assert names(dropped(circuit)) == ["h", "rz", "rx", "measure", "measure"]


def test_a_diagonal_gate_onto_a_wire_that_goes_on_stays() -> None:
    circuit = Circuit(2, 2).h(0).h(1).cz(0, 1).measure(0, 0).h(1).measure(1, 1)
    assert dropped(circuit) is circuit


def test_a_gate_that_only_asks_a_read_wire_for_its_value_goes() -> None:
    circuit = Circuit(3, 1).h(0).h(1).cx(0, 1).ch(0, 2).ccx(0, 1, 2).measure(0, 0)
    assert names(dropped(circuit)) == ["h", "measure"]


def test_values_in_z_are_followed_back_through_permutations() -> None:
    circuit = Circuit(3, 3).h(0).h(1).t(0).t(1).ccx(0, 1, 2).swap(1, 2).x(0)
    for q in range(3):
        circuit.measure(q, q)
    assert "t" not in names(dropped(circuit))


def test_a_permutation_with_a_wire_that_goes_on_keeps_what_is_before() -> None:
    circuit = Circuit(2, 2).h(0).h(1).t(1).cx(0, 1).h(1).measure(0, 0).measure(1, 1)
    assert dropped(circuit) is circuit


def test_nothing_before_a_reset_is_seen() -> None:
    circuit = Circuit(1, 1).h(0).t(0).reset(0).x(0).measure(0, 0).reset(0)
    assert names(dropped(circuit)) == ["reset", "x", "measure"]


def test_a_swap_moves_what_is_seen() -> None:
    circuit = Circuit(2, 1).h(0).h(1).swap(0, 1).measure(0, 0)
    run = dropped(circuit).run
    assert [(name, qubits) for name, qubits, _ in run.operations()] == [
        ("h", (1,)),
        ("swap", (0, 1)),
        ("measure", (0,)),
    ]


def test_a_loop_keeps_what_its_next_round_sees() -> None:
    circuit = Circuit(3, 1).h(1)
    with circuit.for_(ClassicalVar("i", "int", 32), (0, 1)):
        circuit.measure(0, 0).h(0).cx(1, 0).h(1).h(2)
    after = dropped(circuit)
    assert names(after) == ["h", "measure", "h", "cx", "h"]
    assert check(circuit, after, only_bits=True).equal


def test_a_loop_that_is_left_early_is_seen_where_it_is_left() -> None:
    circuit = Circuit(2, 2)
    with circuit.while_(Bit(0)):
        circuit.h(1)
        with circuit.if_(Bit(1)):
            circuit.break_()
        circuit.reset(1)
        circuit.measure(0, 0)
    circuit.measure(1, 1)
    assert dropped(circuit) is circuit


def test_a_circuit_without_measurements_is_left_alone() -> None:
    circuit = Circuit(2).h(0).t(1)
    assert dropped(circuit) is circuit


@pytest.mark.parametrize("kind", ["measured", "branching"])
def test_the_bits_keep_their_distribution_and_something_goes(kind: str) -> None:
    gone = 0
    for seed in range(100, 140):
        before = CIRCUITS[kind](seed)
        after = dropped(before)
        verdict = check(before, after, only_bits=True)
        assert verdict.equal is True, f"{before.name}: {verdict}"
        gone += len(before) - len(after)
    assert gone > 100


@pytest.mark.parametrize("row", [g for g in GATES if g.is_unitary and g.num_qubits > 0])
def test_every_gate_of_the_table_is_seen_through_right(row: object) -> None:
    name = row.name  # type: ignore[attr-defined]
    rng = np.random.default_rng(3)
    for _ in range(6):
        circuit = Circuit(3, 3, params=("a", "b"))
        for _ in range(5):
            append_random(circuit, rng, ("t", "h", "cz", "s"))
        append_random(circuit, rng, (name,))
        for q in rng.permutation(3)[: int(rng.integers(1, 4))].tolist():
            circuit.measure(q, q)
        verdict = check(circuit, dropped(circuit), only_bits=True)
        assert verdict.equal is True, f"{name}: {verdict}"


def test_comparing_bits_alone_still_finds_a_gate_that_matters() -> None:
    found = 0
    for seed in range(40):
        before = dropped(measured_circuit(seed))
        if not before.is_straight_line:
            continue
        run = before.run
        for i, (name, _, _) in enumerate(run.operations()):
            if name in ("barrier", "measure", "gphase"):
                continue
            keep = np.delete(np.arange(len(run)), i)
            other = before.copy(body=(run.select(keep),))
            found += check(before, other, only_bits=True).equal is False
    assert found > 60


def test_the_manager_checks_the_bits_and_leaves_states_and_expectations_alone() -> None:
    circuit = Circuit(2, 2).h(0).cx(0, 1).t(1).h(1).measure(0, 0)
    pipeline = Pipeline.parse("drop-dead-gates")
    program = Program.of_circuit(circuit, Readout("probs"))
    (record,) = pipeline.run(program, Context(verify_each=True))
    assert "distributions of the bits" in record.check
    assert names(program.only_circuit) == ["h", "measure"]
    for readout in (Readout("state"), Readout("expval", (Observable.parse("Z1"),))):
        program = Program.of_circuit(circuit, readout)
        (record,) = pipeline.run(program, Context(verify_each=True))
        assert not record.changed


def test_a_wrong_drop_is_found_in_checked_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(self: DropDeadGates, circuit: Circuit, context: Context) -> Circuit:
        measures = [run.select(run.code == measure) for run in circuit.runs()]
        return circuit.copy(body=(Run.concat(measures),))

    measure = next(g.code for g in GATES if g.name == "measure")
    monkeypatch.setattr(DropDeadGates, "run", everything)
    program = Program.of_circuit(Circuit(1, 1).h(0).measure(0, 0))
    with pytest.raises(PassError, match="changed what the circuit"):
        Pipeline.parse("drop-dead-gates").run(program, Context(verify_each=True))


def test_a_long_run_is_swept_by_the_compiled_kernel_alike() -> None:
    rng = np.random.default_rng(0)
    circuit = Circuit(6, 3, params=("a", "b"))
    for _ in range(5000):
        append_random(circuit, rng, None)
    for q in range(3):
        circuit.measure(q, q)
    short = circuit.copy(body=(circuit.run.select(np.arange(2000, len(circuit.run))),))
    assert len(dropped(short)) == len(dropped(circuit)) - 2000
