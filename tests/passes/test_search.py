"""The search: never dearer, always the same, and at its end there is nothing to find."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from qcomp.cost import CostModel
from qcomp.deadline import Deadline
from qcomp.equivalence import check
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import BY_NAME, GATES
from qcomp.ir.program import Program
from qcomp.ir.run import Run
from qcomp.passes.reduce.moves import draw_move
from qcomp.passes.reduce.regions import FormTable, grow, shuffled, wires_near
from qcomp.passes.reduce.search import Search
from qcomp.passmanager import Context, Pipeline, Task
from qcomp.registry import names
from tests.generators import append_random, branching_circuit, measured_circuit
from tests.ir.dense import dense


def circuit_of(seed: int, qubits: int = 4, size: int = 30) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(qubits, params=("a", "b"), name=f"search{seed}")
    for _ in range(size):
        append_random(circuit, rng, ("h", "cx", "cx", "rz", "t", "x", "cz"))
    return circuit


def through(circuit: Circuit, pipeline: str) -> Circuit:
    program = Program.of_circuit(circuit)
    Pipeline.parse(pipeline).run(program, Context())
    return program.only_circuit


def toffolis() -> Circuit:
    """Toffoli gates up a ladder and down again, in Clifford+T."""
    circuit = Circuit(5).ccx(0, 1, 2).ccx(2, 3, 4).ccx(0, 1, 2).ccx(2, 3, 4)
    return through(circuit, "to-basis{max_qubits=2},merge-rotations,cancel-inverses")


@pytest.mark.parametrize("cost", ["gates", "two_qubit", "gates+depth", "t+0.1*gates"])
def test_the_cost_never_rises_and_the_unitary_stays(cost: str) -> None:
    model = CostModel.parse(cost)
    fell = 0
    for seed in range(4):
        before = circuit_of(seed)
        after = Search(steps=4, cost=cost).run(before, Context(seed=seed))
        assert model.of(after) <= model.of(before)
        fell += model.of(after) < model.of(before)
        values = {"a": 0.4, "b": 2.2}
        assert np.abs(dense(before, **values) - dense(after, **values)).max() < 1e-9
    assert fell


def test_it_finds_what_the_linear_passes_do_not() -> None:
    passes = "merge-rotations,merge-pauli-rotations,cancel-inverses,fuse-one-qubit"
    before = through(toffolis(), f"repeat{{times=4}}({passes})")
    after = Search(steps=40, cost="two_qubit").run(before, Context())
    assert after.stats().two_qubit <= 0.9 * before.stats().two_qubit
    assert check(before, after).equal


def test_the_same_seed_gives_the_same_circuit_and_its_end_is_an_end() -> None:
    for seed in range(3):
        before = circuit_of(seed)
        first = Search(steps=6).run(before, Context(seed=seed))
        again = Search(steps=6).run(circuit_of(seed), Context(seed=seed))
        assert first.equals(again)
        assert Search(steps=6).run(first, Context(seed=seed)) is first


def test_another_seed_takes_other_steps() -> None:
    made = [Search(steps=3).run(circuit_of(1, size=60), Context(seed=s)) for s in range(4)]
    assert any(not made[0].equals(other) for other in made[1:])


def test_more_steps_cost_less() -> None:
    model = CostModel.parse("gates+2*two_qubit")
    costs = [
        model.of(Search(steps=steps, cost=str(model)).run(toffolis(), Context()))
        for steps in (1, 24)
    ]
    assert costs[-1] < costs[0]


@pytest.mark.parametrize("make", [measured_circuit, branching_circuit])
def test_measurements_and_control_flow_stay_where_they_are(make: object) -> None:
    for seed in range(3):
        before = make(seed)  # type: ignore[operator]
        after = Search(steps=2).run(before, Context(seed=seed))
        assert check(before, after, seed=seed).equal


def test_hot_steps_are_let_pass_and_the_best_is_kept() -> None:
    before = circuit_of(5, size=40)
    after = Search(steps=6, temperature=5.0).run(before, Context())
    model = CostModel.parse(Search().cost)
    assert model.of(after) <= model.of(before)
    assert check(before, after).equal


def test_rounding_is_entered_in_the_ledger_and_bounded() -> None:
    context = Context()
    before = circuit_of(2)
    after = Search(steps=6).run(before, context)
    assert after is not before
    assert {entry.spender for entry in context.ledger.entries} == {"search"}
    assert 0 < context.ledger.numeric_spent <= 1e-9
    nothing = Context()
    nothing.ledger.numeric_limit = 0.0
    assert check(before, Search(steps=6).run(before, nothing)).equal
    assert nothing.ledger.numeric_spent == 0


def test_seconds_end_a_search_that_has_steps_left() -> None:
    start = time.monotonic()
    Search(steps=10**9, seconds=0.3).run(circuit_of(0), Context())
    assert time.monotonic() - start < 20


def test_work_ends_a_search_that_has_steps_left_and_is_reproducible() -> None:
    before = circuit_of(0)
    first, second = (Search(steps=10**9, work=150).run(before, Context()) for _ in range(2))
    assert first.equals(second)
    assert check(before, first).equal


def test_a_patient_search_uses_the_time_that_the_pipeline_was_given() -> None:
    clock = iter(range(10**6))
    before = circuit_of(0)
    spent = []
    for patient in (False, True):
        context = Context(deadline=Deadline(300, lambda: float(next(clock))))
        start = next(clock)
        after = Search(steps=2, work=150, patient=patient).run(before, context)
        spent.append(next(clock) - start)
        assert check(before, after).equal
    assert spent[0] < 300 <= spent[1]


def test_time_that_is_up_ends_every_search() -> None:
    context = Context(deadline=Deadline(1.0))
    assert context.deadline is not None
    context.deadline.stop()
    before = circuit_of(0)
    for patient in (False, True):
        assert Search(patient=patient).run(before, context) is before


@pytest.mark.parametrize(
    ("basis", "wide", "allowed"),
    [("rz-sx-x", "cx", "rz sx x cx"), ("rz-sx-x", "cz", "rz sx x cz"), ("h-s-sdg-t-tdg", "cx", "")],
)
def test_a_basis_is_kept_and_what_stands_for_it_is_counted(
    basis: str, wide: str, allowed: str
) -> None:
    """An sxdg counts one and takes three gates of the basis: what is outside gains nothing."""
    gates = ",".join((*basis.split("-"), wide))
    before = through(toffolis(), f"to-basis{{gates=[{gates}]}}")
    after = Search(steps=30, basis=basis).run(before, Context())
    written = through(after, f"to-basis{{gates=[{gates}]}}")
    model = CostModel.parse(Search().cost)
    assert check(before, written).equal
    assert model.of(after) <= model.of(before)
    if allowed:
        names = {GATES[code].name for code in after.run.code.tolist()}
        assert names <= set(allowed.split())


def test_steps_are_shown() -> None:
    class Shown:
        steps = 0.0

        def advance(self, steps: float = 1) -> None:
            self.steps += steps

        @contextmanager
        def task(self, description: str, total: float | None) -> Iterator[Task]:
            assert description == "search"
            yield self

    shown = Shown()
    Search(steps=5).run(circuit_of(0), Context(progress=shown))
    assert shown.steps >= 5


@pytest.mark.parametrize(
    "options",
    ["steps=0", "work=0", "seconds=-1", "temperature=-1", "cost=beauty", 'cost="0*gates"'],
)
def test_options_that_make_no_search_are_refused(options: str) -> None:
    with pytest.raises(UsageError):
        Pipeline.parse(f"search{{{options}}}")


def test_options_are_written_as_text_and_read_back() -> None:
    text = 'search{steps=7,cost="gates+3*two_qubit",basis="h-x-rz"}'
    (step,) = Pipeline.parse(text).steps
    assert step.instance == Search(steps=7, cost="gates+3*two_qubit", basis="h-x-rz")
    assert Pipeline.parse(str(step)).steps == (step,)


def test_every_move_is_made_of_registered_passes() -> None:
    rng = np.random.default_rng(0)
    seen = {made.name for _ in range(200) for made in draw_move(rng, "own")}
    assert seen <= set(names("passes"))
    assert len(seen) == 6, seen


def test_a_shuffled_run_is_another_order_of_the_same_gates_and_means_the_same() -> None:
    rng = np.random.default_rng(7)
    moved = 0
    for seed in range(12):
        circuit = Circuit(3, params=("a", "b"))
        for _ in range(20):
            append_random(circuit, np.random.default_rng(int(rng.integers(1 << 30))), None)
        narrow = [BY_NAME[name].num_qubits > 0 for name, _, _ in circuit.run.operations()]
        circuit = circuit.copy(body=(circuit.run.select(np.array(narrow)),))
        run = shuffled(circuit.run, np.random.default_rng(seed))
        other = circuit.copy(body=(run,))
        assert sorted(circuit.run.code) == sorted(run.code)
        assert np.abs(dense(circuit, a=0.3, b=1.1) - dense(other, a=0.3, b=1.1)).max() < 1e-9
        moved += not circuit.equals(other)
    assert moved > 6


@pytest.mark.parametrize("whole", [True, False])
def test_a_region_can_stand_before_all_that_is_left_of_its_span(whole: bool) -> None:
    for seed in range(20):
        circuit = measured_circuit(seed + 50)
        run = circuit.run
        for start in range(0, len(run), 3):
            wires = None if whole else wires_near(run, start, 2)
            region = grow(run, start, wires, 6, 20)
            positions = np.concatenate([region.inside, region.outside])
            assert sorted(positions.tolist()) == list(range(region.start, region.stop))
            parts = [np.arange(region.start), positions, np.arange(region.stop, len(run))]
            other = circuit.copy(body=(Run.concat([run.select(p) for p in parts]),))
            if seed < 8 and start < 10:
                assert check(circuit, other).equal, (seed, start)


def test_forms_of_a_region_come_back_as_rows_that_are_there() -> None:
    circuit = circuit_of(3)
    table = FormTable(circuit.forms)
    run, forms = table.rows_of(circuit.run)
    assert circuit.run.same_as(table.adopted(run, forms), circuit.forms, table.forms)
    assert table.forms is circuit.forms
