"""best(way(...),way(...)): the cheapest way is kept, and nothing of the others."""

import time

import numpy as np
import pytest

import qcomp
from qcomp.cost import CostModel
from qcomp.deadline import Deadline
from qcomp.device import get_device
from qcomp.driver import effort_pipeline
from qcomp.equivalence import check
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline
from qcomp.pipelines import EFFORT_PIPELINES
from qcomp.target import get_target
from tests.generators import append_random


def circuit_of(seed: int, size: int = 40) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(4, name="ways")
    for _ in range(size):
        append_random(circuit, rng, ("h", "cx", "cx", "rz", "t", "x"))
    return circuit


def through(circuit: Circuit, pipeline: str, context: Context | None = None) -> Circuit:
    program = Program.of_circuit(circuit)
    Pipeline.parse(pipeline).run(program, context or Context())
    return program.only_circuit


def test_the_cheapest_way_is_kept_whatever_its_place() -> None:
    long = "merge-rotations,cancel-inverses,resynthesize-cliffords,fuse-one-qubit"
    for seed in range(3):
        want = through(circuit_of(seed), long)
        for ways in (f"way(),way({long})", f"way({long}),way()", f"way(),way({long}),way()"):
            got = through(circuit_of(seed), f"best{{cost=gates}}({ways})")
            assert got.equals(want)


def test_each_way_starts_from_the_circuit_as_it_was() -> None:
    before = circuit_of(1)
    one = through(before, "fuse-one-qubit{basis=u}")
    assert one.stats().gates < before.stats().gates
    first = through(
        before, "best{cost=depth}(way(fuse-one-qubit{basis=u}),way(to-basis{gates=[cz,u]}))"
    )
    assert first.equals(one)


def test_rounding_and_records_are_those_of_the_way_that_is_kept() -> None:
    circuit = Circuit(2).rx(0.3, 0).cx(0, 1).rz(0.1, 1).cx(0, 1).ry(0.7, 1).cx(1, 0).cx(1, 0)
    way = "consolidate-two-qubit{basis=rz-sx-x}"
    lone, twice = Context(), Context()
    through(circuit, way, lone)
    text = f"best{{cost=two_qubit}}(way({way}),way({way}))"
    program = Program.of_circuit(circuit)
    records = Pipeline.parse(text).run(program, twice)
    assert twice.ledger.numeric_spent == lone.ledger.numeric_spent > 0
    assert [record.changed for record in records] == [False, True]
    assert records[0].before == records[0].after == records[1].before


def test_time_that_is_up_leaves_the_first_way() -> None:
    over = Context(deadline=Deadline(1.0))
    assert over.deadline is not None
    over.deadline.stop()
    before = circuit_of(2)
    ways = "best{cost=gates}(way(),way(merge-rotations,cancel-inverses,fuse-one-qubit))"
    assert through(before, ways, over).equals(before)
    assert not through(before, ways).equals(before)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_is_above_nothing_and_ends(seconds: float) -> None:
    with pytest.raises(UsageError, match="more than 0 seconds"):
        Deadline(seconds)


def test_max_costs_no_more_than_default_and_less_where_a_search_finds_something() -> None:
    before = circuit_of(0, 25)
    model = CostModel.parse("gates+3*two_qubit+rotations")
    usual, most = (through(before, EFFORT_PIPELINES[effort]) for effort in ("default", "max"))
    assert model.of(most) < model.of(usual) < model.of(before)
    assert check(before, most).equal


def test_seconds_are_for_max_and_use_a_clock() -> None:
    before = circuit_of(3, 12)
    start = time.monotonic()
    after = qcomp.optimize(before, effort="max", seconds=0.5)
    assert time.monotonic() - start > 0.5
    assert check(before, after).equal
    with pytest.raises(UsageError, match="takes no time in seconds"):
        qcomp.optimize(before, seconds=1.0)
    with pytest.raises(UsageError, match="more than 0 seconds"):
        qcomp.optimize(before, effort="max", seconds=-1.0)


def toffolis() -> Circuit:
    """x y z + x y w: fourteen T gates, of which twelve meet no other and seven are needed."""
    return Circuit(4).h(2).ccx(0, 1, 2).h(2).h(3).ccx(0, 1, 3).h(3)


def test_max_makes_the_cost_less_that_it_is_given() -> None:
    before = toffolis()
    usual = qcomp.optimize(before).stats()
    fewer = qcomp.optimize(before, effort="max", cost="t")
    shallow = qcomp.optimize(before, effort="max", cost="depth")
    assert check(before, fewer).equal
    assert check(before, shallow).equal
    assert fewer.stats().t_count == 7 < usual.t_count
    assert shallow.stats().depth < min(usual.depth, fewer.stats().depth)


def test_a_cost_is_a_value_or_its_text() -> None:
    model = CostModel(gates=1.0, two_qubit=2.5)
    texts = {str(effort_pipeline("max", None, cost)) for cost in (model, str(model))}
    assert len(texts) == 1
    assert "search{" in (text := texts.pop())
    assert text.count("gates+2.5*two_qubit") > 3
    assert "gates+3*two_qubit" not in text


def test_a_cost_is_for_max_and_for_no_pipeline_of_ones_own() -> None:
    with pytest.raises(UsageError, match="its steps are fixed"):
        qcomp.optimize(toffolis(), cost="t")
    with pytest.raises(UsageError, match="takes no cost besides"):
        qcomp.optimize(toffolis(), effort="max", pipeline="merge-rotations", cost="t")
    with pytest.raises(UsageError, match="did you mean 'gates'"):
        qcomp.optimize(toffolis(), effort="max", cost="gate")


def test_a_mapped_circuit_is_chosen_by_the_machines_error_rates() -> None:
    target = get_target("ibm-heron").on(get_device("fake_torino"))
    before = Circuit(4).h(0).cx(0, 1).cx(1, 2).cx(2, 3).cx(0, 3)
    pipeline = effort_pipeline("max", None, "errors", target)
    program = Program.of_circuit(before)
    pipeline.run(program, Context(target=target, deadline=Deadline(2.0)))
    model = CostModel.for_target("errors", target)
    usual = Program.of_circuit(before)
    effort_pipeline("default", None, None, target).run(usual, Context(target=target))
    assert model.of(program.only_circuit) <= model.of(usual.only_circuit)
    assert check(before, program.only_circuit).equal
