"""best(way(...),way(...)): the cheapest way is kept, and nothing of the others."""

import time

import numpy as np
import pytest

import qcomp
from qcomp.cost import CostModel
from qcomp.deadline import Deadline
from qcomp.equivalence import check
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline
from qcomp.pipelines import EFFORT_PIPELINES
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
