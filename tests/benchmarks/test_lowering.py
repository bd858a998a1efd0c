"""The frame of the benchmark of lowerings: parts by name, tables with misses first."""

from __future__ import annotations

import pytest

from benchmarks.lowering import find, geometric_mean, grouped, ratio, table
from benchmarks.lowering_rows import GOAL, OURS, Row, TooLong, limited, our_row, refused
from qcomp.ir.circuit import Circuit


def row(construction: str, tool: str, count: int) -> Row:
    return Row(construction, 3, tool, count, count, count, 0.0)


def test_a_part_that_is_unknown_is_refused_by_name() -> None:
    with pytest.raises(SystemExit, match="no part 'stats'"):
        find(["unitaries", "stats"])


def test_ours_is_held_against_the_best_peer_and_goal_but_not_against_ours() -> None:
    rows = [row("a", tool, count) for tool, count in [(OURS, 6), ("one", 9), ("two", 8)]]
    assert ratio(grouped(rows)[("a", 3)]) == 6 / 8
    rows += [row("a", f"{OURS} other", 2), row("a", GOAL, 4)]
    assert ratio(grouped(rows)[("a", 3)]) == 6 / 4
    rows = [row("a", OURS, 6), refused("a", 3, "one", "why")]
    assert ratio(grouped(rows)[("a", 3)]) is None


def test_misses_stand_first_and_the_mean_at_the_end() -> None:
    rows = [row("a", OURS, 1), row("a", "one", 2), row("b", OURS, 4), row("b", "one", 2)]
    lines = table(rows).splitlines()
    assert lines[2].startswith("| b ")
    assert "**2.00**" in lines[2]
    assert "1.000 in the geometric mean of 2 cases, above it in 1" in lines[-1]
    assert geometric_mean([]) is None


def test_gates_on_three_qubits_are_counted_in_cx() -> None:
    found = our_row("a", 3, lambda: Circuit(3).ccx(0, 1, 2))
    assert found.two_qubit == 6


def test_a_peer_that_takes_too_long_is_stopped() -> None:
    def endless() -> None:
        with limited(0.05):
            while True:
                pass

    with pytest.raises(TooLong):
        endless()
