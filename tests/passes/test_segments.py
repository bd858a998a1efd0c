"""Segments of a run: all operations once, between fences, within length and width."""

import numpy as np
import pytest

from qcomp.ir.circuit import Circuit
from qcomp.passes.synthesize.segments import segments


def chain(num_qubits: int, rounds: int) -> Circuit:
    circuit = Circuit(num_qubits)
    for i in range(rounds):
        for q in range(num_qubits - 1):
            circuit.cx(q, q + 1)
        if i % 2:
            circuit.h(i % num_qubits)
    return circuit


@pytest.mark.parametrize(("window", "wires"), [(1000, 1000), (50, 1000), (1000, 30), (64, 20)])
def test_segments_cover_the_run_within_their_bounds(window: int, wires: int) -> None:
    run = chain(100, 6).run
    fence = np.zeros(len(run), dtype=bool)
    fence[[0, 7, 8, 300, len(run) - 1]] = True
    parts = list(segments(run, fence, window, wires))
    assert [start for start, _, _ in parts] == [0, *(stop for _, stop, _ in parts[:-1])]
    assert parts[-1][1] == len(run)
    for start, stop, free in parts:
        assert free == (not fence[start:stop].any())
        assert stop - start <= window
        used = set(run.qubit[start:stop].ravel().tolist()) - {-1}
        assert len(used) <= wires or not free
    longest = max(stop - start for start, stop, _ in parts)
    assert longest > min(window, wires, 500) // 2, "segments need not be shorter"


def test_few_operations_are_not_divided_for_their_width() -> None:
    circuit = Circuit(40)
    for q in range(0, 40, 2):
        circuit.cx(q, q + 1)
    none = np.zeros(len(circuit), dtype=bool)
    parts = list(segments(circuit.run, none, 4096, 3))
    assert max(stop - start for start, stop, _ in parts) > 3
