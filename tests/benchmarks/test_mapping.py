"""The mapping benchmark: what it measures, and what it calls wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
mapping = pytest.importorskip("mapping")

from qcomp.device import Device  # noqa: E402  the benchmarks' folder comes first
from qcomp.ir.circuit import Circuit  # noqa: E402
from qcomp.ir.layout import Layout  # noqa: E402


def bell() -> Circuit:
    return Circuit(2).h(0).cx(0, 1)


def on_wires(a: int, b: int) -> Circuit:
    circuit = Circuit(4).h(a).cz(a, b)
    circuit.layout = Layout((a, b), (a, b), 4)
    return circuit


def test_an_output_that_is_not_its_input_is_wrong() -> None:
    device = Device.line(4)
    right = Circuit(4).h(1).cx(1, 2)
    right.layout = Layout((1, 2), (1, 2), 4)
    for output, problems in ((right, 0), (on_wires(1, 2), 1), (on_wires(0, 2), 2)):
        figures = mapping.measured(output, device, 0.1, bell())
        row = {"name": "bell", "device": "line", "tools": {"qcomp": figures}}
        assert len(mapping.wrong({"circuits": [row]})) == problems


def test_the_tables_say_how_far_below_the_peer() -> None:
    def row(mine: int, theirs: int) -> dict[str, object]:
        figures = {"two_qubit_depth": 1, "cpu_s": 0.5, "off_the_couplings": 0}
        tools = {
            "qcomp": {**figures, "two_qubit": mine},
            "qiskit": {**figures, "two_qubit": theirs},
        }
        return {"device": "line", "name": "c", "qubits": 2, "input": 10, "tools": tools}

    data = {
        "tools": ["qcomp", "qiskit"],
        "circuits": [row(10, 20), row(20, 40)],
        "noise": [{"fidelity": {"qcomp": 0.9, "qiskit": 0.8}}],
        "skipped": "",
    }
    text = mapping.report(data)
    assert "| line | 1.414, 1.00 | 2.828, 1.00 | 50.0 % |" in text
    assert "qcomp 0.9000, qiskit 0.8000" in text


def test_equal_distributions_have_fidelity_one() -> None:
    values = np.array([0.25, 0.75])
    assert mapping.hellinger(values, values) == pytest.approx(1.0)
    assert mapping.hellinger(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 0.0
