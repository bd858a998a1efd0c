"""``transpile(..., optimization_method="qcomp")``, in Qiskit, with the entry point of pyproject."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Gate, Parameter, ParameterVector
from qiskit.circuit.library import CXGate, ECRGate, RZGate, SXGate, XGate, efficient_su2
from qiskit.circuit.random import random_circuit
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Operator
from qiskit.transpiler import Target, TranspilerError
from qiskit.transpiler.passes import CheckGateDirection, CheckMap, GatesInBasis
from qiskit.transpiler.preset_passmanagers.plugin import list_stage_plugins
from qiskit_ibm_runtime.fake_provider import FakeTorino
from stevedore import ExtensionManager

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Metadata of an installed qcomp, made of pyproject, on the path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = tmp_path_factory.mktemp("installed")
    info = folder / f"qcomp-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: qcomp\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    sys.path.insert(0, str(folder))
    # What Qiskit found of plugins before is kept for the process.
    ExtensionManager.ENTRY_POINT_CACHE.pop("qiskit.transpiler.optimization", None)
    yield
    sys.path.remove(str(folder))
    ExtensionManager.ENTRY_POINT_CACHE.pop("qiskit.transpiler.optimization", None)


def two_qubit(circuit: QuantumCircuit) -> int:
    return sum(len(item.qubits) == 2 and item.name != "barrier" for item in circuit.data)


def run(
    circuit: QuantumCircuit, backend: Any = None, level: int = 2, **more: Any
) -> QuantumCircuit:
    return transpile(
        circuit,
        backend,
        optimization_method="qcomp",
        optimization_level=level,
        seed_transpiler=5,
        **more,
    )


def fits(circuit: QuantumCircuit, target: Target) -> bool:
    """Whether every gate is one of the target's on those qubits in that direction."""
    for check, key in (
        (GatesInBasis(target=target), "all_gates_in_basis"),
        (CheckMap(target), "is_swap_mapped"),
        (CheckGateDirection(None, target), "is_direction_mapped"),
    ):
        check(circuit)
        if not check.property_set[key]:
            return False
    return True


def test_qiskit_lists_the_stage() -> None:
    assert "qcomp" in list_stage_plugins("optimization")


@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_circuits_on_a_backend_stay_what_they_are(level: int, seed: int) -> None:
    backend = GenericBackendV2(5, ["rz", "sx", "x", "cx"], coupling_map=LINE, seed=1)
    source = random_circuit(5, 6, max_operands=3, seed=seed)
    found = run(source, backend, level)
    assert fits(found, backend.target)
    assert Operator.from_circuit(found) == Operator(source)


LINE = [[0, 1], [1, 0], [1, 2], [2, 1], [2, 3], [3, 2], [3, 4], [4, 3]]
ONE_WAY = [[0, 1], [2, 1], [2, 3], [4, 3]]


def test_gates_with_a_direction_stand_in_it() -> None:
    backend = GenericBackendV2(5, ["rz", "sx", "x", "ecr"], coupling_map=ONE_WAY, seed=1)
    source = random_circuit(5, 5, max_operands=2, seed=3)
    found = run(source, backend)
    assert fits(found, backend.target)
    assert Operator.from_circuit(found) == Operator(source)


def test_parameters_stay_those_of_the_circuit_and_products_of_them_too() -> None:
    backend = FakeTorino()
    theta, x = ParameterVector("theta", 12), Parameter("x")
    source = QuantumCircuit(4, global_phase=x / 3)
    source.compose(efficient_su2(4, reps=2), inplace=True)
    for q in range(4):
        source.rz(theta[q] * x, q)
        source.rz(theta[q + 4] - 2 * x, q)
    source.cx(0, 1)
    source.ry(theta[8], 1)
    source.cx(0, 1)
    source.cx(0, 1)
    found = run(source, backend)
    assert found.parameters == source.parameters
    assert fits(found, backend.target)
    plain = transpile(source, backend, optimization_level=0, seed_transpiler=5)
    assert two_qubit(found) < two_qubit(plain)
    small = run(source, basis_gates=["rz", "sx", "x", "cx"])
    values = np.random.default_rng(0).uniform(-3, 3, len(source.parameters)).tolist()
    bind = lambda c: Operator(c.assign_parameters(values))  # noqa: E731
    assert bind(small) == bind(source)


def test_the_result_has_no_more_gates_on_two_qubits_than_qiskits_own() -> None:
    backend = FakeTorino()
    ours = theirs = 0
    for seed in range(3):
        source = random_circuit(6, 8, max_operands=2, seed=seed)
        ours += two_qubit(run(source, backend))
        theirs += two_qubit(transpile(source, backend, optimization_level=2, seed_transpiler=5))
    assert 0 < ours <= theirs


def test_measurements_registers_and_conditions_stay() -> None:
    backend = GenericBackendV2(4, ["rz", "sx", "x", "cx"], control_flow=True, seed=1)
    source = QuantumCircuit(3, 2, name="teleport", metadata={"run": 7})
    source.h(0)
    source.cx(0, 1)
    source.cx(0, 1)
    source.measure(0, 0)
    with source.if_test((source.clbits[0], 1)):
        source.x(1)
        source.h(2)
        source.h(2)
    source.barrier()
    source.delay(160, 1)
    source.measure(1, 1)
    found = run(source, backend)
    assert found.name == "teleport"
    assert found.metadata == {"run": 7}
    assert found.cregs == source.cregs
    assert found.count_ops()["measure"] == 2
    assert found.count_ops()["delay"] == 1
    assert "cx" not in found.count_ops()
    (branch,) = [item for item in found.data if item.name == "if_else"]
    assert len(branch.qubits) <= 2
    assert "h" not in found.count_ops()
    assert fits(found, backend.target)


def test_different_gates_on_different_pairs_are_translated() -> None:
    target = Target(num_qubits=3)
    single = {(q,): None for q in range(3)}
    for gate in (RZGate(Parameter("t")), SXGate(), XGate()):
        target.add_instruction(gate, dict(single))
    target.add_instruction(CXGate(), {(0, 1): None})
    target.add_instruction(ECRGate(), {(2, 1): None})
    source = random_circuit(3, 5, max_operands=2, seed=4)
    found = transpile(
        source, target=target, optimization_method="qcomp", seed_transpiler=1, optimization_level=2
    )
    assert fits(found, target)
    assert Operator.from_circuit(found) == Operator(source)


def test_without_a_target_gates_stay_the_users_own() -> None:
    source = QuantumCircuit(2)
    for _ in range(2):
        source.cx(0, 1)
        source.t(1)
        source.cx(0, 1)
    found = run(source)
    assert Operator(found) == Operator(source)
    assert found.size() == 1


def test_a_target_without_known_gates_is_refused_in_qiskits_words() -> None:
    class Odd(Gate):
        def __init__(self) -> None:
            super().__init__("odd", 1, [])

    from qcomp.transpiler_plugin import ReduceGates

    target = Target(num_qubits=2)
    target.add_instruction(Odd(), {(0,): None, (1,): None})
    target.add_instruction(CXGate(), {(0, 1): None, (1, 0): None})
    source = QuantumCircuit(2)
    source.cx(0, 1)
    with pytest.raises(TranspilerError, match="lacks one- or two-qubit gates"):
        ReduceGates(target)(source)
    unknown = QuantumCircuit(1)
    unknown.append(Odd(), [0])
    with pytest.raises(TranspilerError, match="'odd', which has no definition"):
        ReduceGates(None)(unknown)


def test_what_would_not_be_less_stays_as_it_was() -> None:
    from qcomp.transpiler_plugin import ReduceGates

    source = QuantumCircuit(1)
    source.t(0)
    assert ReduceGates(None)(source) == source


def test_the_examples_of_the_document_run() -> None:
    text = (ROOT / "docs" / "neighbours.md").read_text()
    found = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 3
    names: dict[str, Any] = {}
    for block in found:
        exec(compile(block, "neighbours.md", "exec"), names)
    assert fits(names["mapped"], FakeTorino().target)
    assert len(names["texts"]) == 40
