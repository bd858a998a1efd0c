"""The emission benchmark on a seeded sample, and the binding benchmark on few rows."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from qcomp.consumers import CONSUMERS
from qcomp.frontends.openqasm.reader import read_text
from qcomp.ir.circuit import Circuit

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bind
import emission

SEED, SAMPLE, MOST = 5, 2, 400


def installed(case: emission.Case) -> bool:
    return all(CONSUMERS[name].installed for name in case.consumers)


@functools.cache
def small(shared: Path) -> list[tuple[str, Circuit]]:
    """The circuits of few qubits and gates."""
    files = sorted((shared / "bench" / "circuits").glob("*.qasm"))
    read = [(p.stem, read_text(p.read_text())) for p in files if p.stat().st_size < 2500]
    return [(name, c) for name, c in read if c.num_qubits <= 10 and len(c) <= 60]


@pytest.mark.parametrize("case", emission.CASES, ids=lambda case: case.name)
def test_texts_of_public_circuits_are_accepted_and_mean_the_same(
    case: emission.Case, shared: Path
) -> None:
    if not installed(case):
        pytest.skip("a consumer's package is not installed")
    rng = np.random.default_rng([SEED, emission.CASES.index(case)])
    circuits = small(shared)
    compared = 0
    for index in rng.permutation(len(circuits))[:SAMPLE]:
        stem, circuit = circuits[index]
        found = emission.check(circuit, case, None, MOST)
        assert "refused" not in found, found
        for name, answer in found["consumers"].items():
            assert answer["accepted"], (stem, name, answer["why"])
            if answer["distance"] is not None:
                compared += 1
                assert answer["distance"] <= emission.GOAL, (stem, name)
    assert compared or not case.consumers


def test_results_of_an_earlier_run_are_used_for_the_same_text_only() -> None:
    case = emission.CASES[0]
    circuit = Circuit(2).h(0).cx(0, 1)
    first = emission.check(circuit, case, None, 0)
    marked = json.loads(json.dumps(first))
    marked["consumers"]["reference"]["seconds"] = 77.0
    again = emission.check(circuit, case, marked, 0)
    assert again["consumers"]["reference"]["seconds"] == 77.0
    other = emission.check(circuit.copy().x(0), case, marked, 0)
    assert other["consumers"]["reference"]["seconds"] != 77.0
    marked["consumers"]["reference"]["accepted"] = False
    assert emission.check(circuit, case, marked, 0)["consumers"]["reference"]["accepted"]


def test_failures_are_counted_and_named() -> None:
    case = emission.CASES[0]
    good = emission.check(Circuit(1).h(0), case, None, 0)
    bad = json.loads(json.dumps(good))
    bad["consumers"]["reference"].update(accepted=False, why="no")
    far = json.loads(json.dumps(good))
    far["consumers"]["reference"]["distance"] = 0.5
    results = {"full/a": good, "full/b": bad, "full/c": far, "full/d": {"refused": "reset"}}
    (row,) = emission.summary(results, [case])
    assert (row["texts"], row["refused"], row["checked"], row["accepted"]) == (3, 1, 3, 2)
    assert row["largest"] == 0.5
    wrong = emission.failures(results)
    assert len(wrong) == 2
    assert "rejects it: no" in wrong[0]
    assert "another distribution" in wrong[1]
    assert "67 %" in "\n".join(emission.table([row]))


def test_a_circuit_gets_parameters_that_its_distribution_depends_on() -> None:
    circuit = Circuit(1).ry(0.3, 0)
    found = emission.with_parameters(circuit)
    assert found.params == ("a0", "a1", "a2")
    assert found.bind([0.0, 0.0, 0.0]).run.same_as(circuit.run, found.forms, circuit.forms)
    assert found.run.form.tolist() == [0]


def test_bound_texts_agree_with_qiskits_and_are_much_quicker() -> None:
    if not CONSUMERS["qiskit"].installed:
        pytest.skip("Qiskit's reader is not installed")
    pytest.importorskip("qiskit_ibm_runtime")
    found = bind.measure(rows=100, sample=2, effort="fast")
    assert found["largest_total_variation"] < 1e-9
    assert found["largest_angle_difference"] < 1e-12
    assert found["ratio_transpiled_once"] > 10
    assert found["ratio_transpiling_each"] > 100
