"""The public benchmark circuits: how much the linear passes save, and that every output is right.

Counts after translation to one basis: h, x, rz, cx for Clifford+T and algorithms, rz, sx, x, cx for
variational circuits; ratios of output over input, geometric means over a family.
"""

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from qcomp.equivalence import check
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline

NAM = "to-basis{gates=[h,x,rz,cx]}"
IBM = "to-basis{gates=[rz,sx,x,cx]}"
ROUNDS = "repeat{{times=6}}(merge-rotations,cancel-inverses,fuse-one-qubit{{basis={}}})"
PIPELINES = {
    "clifford_t": (NAM, ROUNDS.format("h-x-rz")),
    "algorithm": (NAM, ROUNDS.format("h-x-rz")),
    "qml_variational": (IBM, ROUNDS.format("rz-sx-x") + "," + IBM),
}

# gates, two-qubit gates, rotations: at most these.
LIMITS = {
    "clifford_t": (0.645, 0.905, 0.590),
    "algorithm": (0.720, 0.946, 0.572),
    "qml_variational": (0.690, 0.994, 0.906),
}

QUBITS = 10
"""Circuits up to here are compared as whole matrices."""


def optimised(circuit: Circuit, pipeline: str) -> Circuit:
    program = Program.of_circuit(circuit)
    Pipeline.parse(pipeline).run(program, Context())
    return program.only_circuit


@functools.cache
def results(shared: Path, family: str) -> list[tuple[str, Circuit, Circuit]]:
    """(name, circuit in the basis, the same optimised) of every circuit of a family."""
    folder = shared / "bench" / "circuits"
    to_basis, rounds = PIPELINES[family]
    out = []
    for entry in json.loads((folder / "manifest.json").read_text())["circuits"]:
        if entry["family"] == family:
            circuit = Circuit.from_qasm((folder / entry["file"]).read_text())
            circuit = circuit.map_runs(
                lambda run: run.select(~np.isin(run.code, [G.MEASURE, G.BARRIER, G.RESET]))
            )
            before = optimised(circuit, to_basis)
            out.append((entry["name"], before, optimised(before, rounds)))
    return out


def mean_ratio(pairs: list[tuple[int, int]]) -> float:
    return math.exp(np.mean([math.log(max(a, 0.5) / b) for b, a in pairs if b]))


@pytest.mark.parametrize("family", PIPELINES)
def test_public_circuits_shrink_as_much_as_they_did(shared: Path, family: str) -> None:
    stats = [(before.stats(), after.stats()) for _, before, after in results(shared, family)]
    assert len(stats) > 20
    found = tuple(
        mean_ratio([(getattr(b, key), getattr(a, key)) for b, a in stats])
        for key in ("gates", "two_qubit", "rotations")
    )
    print(f"{family}: gates {found[0]:.3f}, two-qubit {found[1]:.3f}, rotations {found[2]:.3f}")
    assert all(value <= limit for value, limit in zip(found, LIMITS[family], strict=True)), found


@pytest.mark.slow
@pytest.mark.parametrize("family", PIPELINES)
def test_public_circuits_stay_what_they_are(shared: Path, family: str) -> None:
    undecided = []
    for name, before, after in results(shared, family):
        verdict = check(before, after)
        assert verdict.equal is not False, f"{name}: {verdict}"
        if verdict.equal is None:
            assert before.num_qubits > QUBITS, f"{name}: {verdict}"
            undecided.append(name)
    assert len(undecided) <= 4, undecided
