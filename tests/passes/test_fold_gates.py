"""fold-gates: the unitary stays, the noise grows, and nothing undoes it."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from qcomp.ir.gates import GATES
from qcomp.ir.program import Program
from qcomp.mitigation.folding import METHODS, fold, fold_scale, unfold
from qcomp.passmanager import Context, Pipeline
from qcomp.pipelines import EFFORT_PIPELINES
from qcomp.simulate import unitary
from tests.generators import CIRCUITS
from tests.timing import timed


def reduced(seed: int, gates: int = 30) -> Circuit:
    """A circuit that the default effort leaves as it is."""
    rng = np.random.default_rng(seed)
    circuit = Circuit(3)
    for _ in range(gates):
        a, b = rng.permutation(3)[:2].tolist()
        circuit.ry(float(rng.uniform(0.1, 3)), a).rz(float(rng.uniform(0.1, 3)), a).cx(a, b)
    return circuit


def gates(circuit: Circuit, least: int = 1) -> int:
    return sum(len(q) >= least for name, q, _ in circuit.run.operations() if name != "barrier")


@pytest.mark.parametrize("name", [r.name for r in GATES if r.is_unitary and r.name != "gphase"])
def test_every_gate_of_the_table_is_folded_exactly_and_back(name: str) -> None:
    row = next(r for r in GATES if r.name == name)
    size = max(row.num_qubits, 0) or 3
    circuit = Circuit(size)
    angles = [Parameter(f"p{i}") * 0.5 + 0.3 for i in range(row.num_angles)]
    circuit.append(name, range(size)[::-1], angles)
    values = np.linspace(0.4, 1.9, row.num_angles)
    for method in METHODS if size > 1 else ("global", "local"):
        folded = fold(circuit, 5, method)
        assert sum(n == name for n, _, _ in folded.run.operations()) >= (0 if name == "id" else 3)
        assert np.abs(unitary(folded, values) - unitary(circuit, values)).max() < 1e-12
        assert unfold(folded).equals(circuit)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1.0, 1.4, 2.0, 3.0, 4.7])
def test_the_scale_is_met_as_closely_as_gates_allow(method: str, scale: float) -> None:
    circuit = reduced(0)
    folded = fold(circuit, scale, method)
    least = 2 if method == "two-qubit" else 1
    real = gates(folded, least) / gates(circuit, least)
    assert real == pytest.approx(fold_scale(circuit, scale, method))
    assert abs(real - scale) <= 1 / gates(circuit, least)
    assert np.abs(unitary(folded) - unitary(circuit)).max() < 1e-12


@pytest.mark.parametrize("effort", ["fast", "default", "max"])
@pytest.mark.parametrize("method", METHODS)
def test_no_effort_undoes_folds(effort: str, method: str) -> None:
    program = Program.of_circuit(reduced(1, 8))
    Pipeline.parse(EFFORT_PIPELINES[effort]).run(program, Context())
    folded = fold(program.only_circuit, 3, method)
    again = Program.of_circuit(folded)
    Pipeline.parse(EFFORT_PIPELINES[effort]).run(again, Context())
    assert gates(again.only_circuit, 2) == gates(folded, 2)
    assert gates(again.only_circuit) >= 0.9 * gates(folded)


def test_a_scale_counts_from_the_circuit_without_folds() -> None:
    circuit = reduced(2)
    for first in METHODS:
        for second in METHODS:
            assert fold(fold(circuit, 5, first), 3, second).equals(fold(circuit, 3, second))


def test_folds_of_a_circuit_read_from_text_are_known() -> None:
    circuit = reduced(3)
    for method in METHODS:
        read = Circuit.from_qasm(fold(circuit, 2.5, method).to_qasm3())
        assert unfold(read).equals(Circuit.from_qasm(circuit.to_qasm3()))


@pytest.mark.parametrize("kind", CIRCUITS)
def test_unfolding_gives_the_circuit_back(kind: str) -> None:
    for seed in range(12):
        circuit = unfold(CIRCUITS[kind](seed))
        for method in METHODS:
            assert unfold(fold(circuit, 3.4, method)).equals(circuit)


def test_a_circuit_in_a_machines_basis_stays_in_it() -> None:
    circuit = Circuit(2)
    circuit.sx(0).rz(0.3, 0).cz(0, 1).sx(1).x(0)
    for method in METHODS:
        folded = fold(circuit, 7, method)
        assert {n for n, _, _ in folded.run.operations()} <= {"sx", "rz", "cz", "x", "barrier"}
        assert np.abs(unitary(folded) - unitary(circuit)).max() < 1e-12
    one = Circuit(1)
    one.sx(0)
    assert sum(n == "sx" for n, _, _ in fold(one, 3).run.operations()) == 3


def test_bodies_of_control_flow_are_folded_without_a_phase_that_depends_on_the_branch() -> None:
    circuit = Circuit(2, 1)
    circuit.sx(0).measure(0, 0)
    with circuit.if_(Bit(0)):
        circuit.sx(1).cz(0, 1)
    folded = fold(circuit, 3, "local")
    inner = folded.runs()[-1]
    assert [n for n, _, _ in inner.operations() if n != "barrier"] == [
        "sx", "sxdg", "sx", "cz", "cz", "cz",
    ]  # fmt: skip
    assert unfold(folded).equals(circuit)


@timed
def test_forty_thousand_gates_fold_in_seconds() -> None:
    import time

    rng = np.random.default_rng(0)
    circuit = Circuit(20)
    for _ in range(1000):
        a, b = rng.permutation(20)[:2].tolist()
        circuit.cx(a, b).rz(0.3, b)
    big = circuit.copy()
    for _ in range(20):
        big.append_item(circuit.run)
    start = time.process_time()
    assert len(fold(big, 3)) > 3 * len(big)
    assert len(fold(big, 3, "local")) > 3 * len(big)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(("scale", "method"), [(0.5, "global"), (float("nan"), "local"), (3, "x")])
def test_a_scale_or_method_out_of_range_is_refused(scale: float, method: str) -> None:
    with pytest.raises(UsageError):
        fold(Circuit(1), scale, method)
