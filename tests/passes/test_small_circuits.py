"""What the default effort costs on circuits of some hundred gates, counted in calls.

There nearly all time is that of single calls, of Python and of numpy on short arrays, half a
microsecond to two each; their number is the same on every machine, however busy it is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline
from qcomp.pipelines import for_basis

PIPELINE = for_basis(("rz", "sx", "x", "cx"), "rz-sx-x", "default")
MOST = 38_000
"""Calls; 50 ms of CPU time are about 45,000."""


def reduce(circuit: Circuit) -> None:
    Pipeline.parse(PIPELINE).run(Program.of_circuit(circuit), Context())


@pytest.fixture(scope="module")
def compiled() -> None:
    """Have the kernels compiled in this process, as they are for all circuits but the first."""
    rng = np.random.default_rng(1)
    circuit = Circuit(8)
    for _ in range(6000):
        a, b = rng.permutation(8)[:2].tolist()
        name = str(rng.choice(["h", "t", "cx", "cx", "x"]))
        circuit.append(name, (a, b) if name == "cx" else (a,), ())
    reduce(circuit)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", ["vqe_uccsd_n4", "basis_change_n3", "variational_n4", "qaoa_n6"])
def test_default_makes_less_than_forty_thousand_calls_for_a_small_circuit(
    shared: Path, name: str
) -> None:
    folder = shared / "bench" / "circuits"
    entries = json.loads((folder / "manifest.json").read_text())["circuits"]
    file = next(entry["file"] for entry in entries if entry["name"] == name)
    circuit = Circuit.from_qasm((folder / file).read_text())
    circuit = circuit.map_runs(lambda run: run.select(run.code != G.MEASURE))
    reduce(circuit)
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        reduce(circuit)
    finally:
        sys.setprofile(before)
    assert 5_000 < calls < MOST
