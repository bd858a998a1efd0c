"""The plan of an artifact: which circuits run together, with how many measurements and rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from typer.testing import CliRunner

import qcomp
from qcomp.cli.main import app
from qcomp.execute import HybridSession
from qcomp.ir.observable import Observable
from qcomp.ir.program import DOMAIN, Program, Readout, make_circuit_node
from qcomp.run_plan import MOST_PRODUCTS, plan_lines
from tests.models import small_circuit

Z = Readout("expval", (Observable.parse("Z0"), Observable.parse("Z0*Z1")))
MIXED = Readout("expval", tuple(map(Observable.parse, ("X0*X1 + Z0", "Z1", "0.5*Y0 + X1"))))
X = np.random.default_rng(2).normal(size=(7, 4)).astype(np.float32)


def twins() -> Program:
    """One circuit on both halves of the input and another one beside it; a third after them."""
    kind = ir.DataType.FLOAT
    x = ir.val("x", kind, ["n", 4])
    sizes = ir.val("sizes", const_value=ir.tensor(np.array([2, 2]), name="sizes"))
    split = ir.node("Split", [x, sizes], {"axis": 1}, name="split", num_outputs=2)
    halves = split.outputs
    for number, half in enumerate(halves):
        half.name, half.type, half.shape = f"half{number}", ir.TensorType(kind), ir.Shape(["n", 2])
    nodes = [split]

    def circuit(node: str, name: str, readout: Readout, value: ir.Value, width: int) -> ir.Value:
        output = ir.val(f"{node}_out", kind, ["n", width])
        nodes.append(make_circuit_node(name, readout, [value], node, output))
        return output

    left = circuit("left", "twin", Z, halves[0], 2)
    other = circuit("other", "third", MIXED, halves[0], 3)
    right = circuit("right", "twin", Z, halves[1], 2)
    total = ir.node("Add", [left, right], name="add")
    total.outputs[0].name = "total"
    nodes.append(total)
    last = circuit("last", "twin", Z, total.outputs[0], 2)
    joined = ir.node("Concat", [last, other], {"axis": 1}, name="join")
    y = joined.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(kind), ir.Shape(["n", 5])
    nodes.append(joined)
    graph = ir.Graph([x], [y], nodes=nodes, initializers=[sizes],
                     opset_imports={"": 21, DOMAIN: 1}, name="twins")  # fmt: skip
    circuits = {name: small_circuit(name) for name in ("twin", "third")}
    return Program(ir.Model(graph, ir_version=10), circuits)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("plan") / "out"
    return qcomp.compile(twins(), target="cpu-dynamic-int8+ibm-heron", out=out)


def test_the_plan_says_levels_batches_settings_and_rows(artifact: Any) -> None:
    plan = artifact.manifest["plan"]
    runs = {run["node"]: run for run in plan["runs"]}
    assert [runs[n]["level"] for n in ("left", "other", "right", "last")] == [0, 0, 0, 1]
    assert runs["left"]["batch"] == runs["right"]["batch"]
    assert len({runs[n]["batch"] for n in ("left", "other", "last")}) == 3
    assert (runs["left"]["products"], runs["left"]["settings"]) == (2, 1)
    # X0*X1 with X1, Z0 with Z1, Y0: three bases.
    assert (runs["other"]["products"], runs["other"]["settings"]) == (5, 3)
    assert runs["last"]["row_bytes"] == 16 * 4  # of the two qubits in use, not of the machine
    assert runs["last"]["rows"] >= 1000
    # Slots go into each of the four stages, and what is measured comes out of each.
    assert plan["crossings"] == 8
    assert [run["node"] for run in artifact.report["runs"]] == list(runs)


def test_stages_of_one_circuit_at_one_level_are_one_call_with_their_rows_joined(
    artifact: Any,
) -> None:
    from qcomp.simulate import run_readout

    calls: list[tuple[str, int]] = []

    def answer(place: int, circuit: Any, readout: Readout, rows: np.ndarray) -> Any:
        calls.append((circuit.name, len(rows)))
        return np.asarray(run_readout(circuit, readout, rows))

    got = artifact.walk({"x": X}, answer)
    assert calls == [("twin", 14), ("third", 7), ("twin", 7)]
    assert np.abs(got["y"] - HybridSession(twins()).run({"x": X})["y"]).max() < 1e-6


def test_joined_rows_wait_until_all_of_them_are_known(artifact: Any) -> None:
    asked: list[int] = []
    values = artifact.walk({"x": X}, lambda place, *call: asked.append(place))
    assert len(asked) == 2
    assert not {"left_out", "right_out", "y"} & values.keys()


def test_inspect_and_explain_show_the_plan(artifact: Any) -> None:
    for command in ("inspect", "explain"):
        done = CliRunner().invoke(app, [command, str(artifact.path)])
        assert done.exit_code == 0, done.output
        lines = [line.split() for line in done.stdout.splitlines()]
        (row,) = (line[1:] for line in lines if line[:2] == ["other", "third"])
        assert row == ["third", "0", "1", "5", "3", "0", "64", "65536"]
        data = json.loads(CliRunner().invoke(app, [command, str(artifact.path), "--json"]).stdout)
        assert len((data["plan"] if command == "inspect" else data)["runs"]) == 4


def test_the_page_of_the_report_shows_the_plan(artifact: Any) -> None:
    page = (artifact.path / "report.html").read_text(encoding="utf-8")
    assert "Running the circuits" in page
    assert qcomp.load(artifact.path).report["runs"][1]["settings"] == 3


def test_products_beyond_what_is_worth_grouping_are_counted_and_not_grouped() -> None:
    texts = [f"Z{i}*X{j}" for i in range(70) for j in range(70) if i != j]
    assert len(texts) > MOST_PRODUCTS
    readout = {"kind": "expval", "observables": texts, "shots": 0, "order": []}
    stage = {"kind": "circuit", "node": "n", "circuit": "c", "file": "c.qasm", "qubits": 30,
             "layout": None, "readout": readout}  # fmt: skip
    (line,) = plan_lines([stage])
    assert line.settings is None
    assert line.products == len(texts)
    assert line.rows == 1


def test_trained_rotations_meet_once_their_weights_are_numbers(tmp_path: Path) -> None:
    """What is constant in the preparation is folded: the weights' rotations become one gate."""
    x, w = qcomp.Parameter("x"), [qcomp.Parameter(f"w{i}") for i in range(4)]
    circuit = qcomp.Circuit(1, params=("x", "w0", "w1", "w2", "w3"), name="layer")
    circuit.rz(w[0], 0).rz(w[1], 0).rx(w[2], 0).rz(x, 0).rz(w[3], 0).h(0)
    value = ir.val("x", ir.DataType.FLOAT, ["n", 1])
    weights = ir.val("w", const_value=ir.tensor(np.array([0.3, 0.4, 0.5, 0.6]), name="w"))
    node = make_circuit_node("layer", Readout("expval", (Observable.z(0),)), [value, weights])
    head = ir.node("Neg", [node.outputs[0]])
    y = head.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.DOUBLE), ir.Shape(["n", 1])
    graph = ir.Graph([value], [y], nodes=[node, head], initializers=[weights],
                     opset_imports={"": 21, DOMAIN: 1}, name="g")  # fmt: skip
    program = Program(ir.Model(graph, ir_version=10), {"layer": circuit})
    artifact = qcomp.compile(program, target="cpu-dynamic-int8+portable", out=tmp_path / "out")
    compiled = artifact.circuits["layer"]
    assert compiled.params == ("a0",)
    # RZ(.7) RX(.5) RZ(x + .6) H: the two RZ met, and the sum of data and weight is one slot.
    assert len(compiled) <= 4
    assert (
        np.abs(artifact(X[:, :1]) - HybridSession(program).run({"x": X[:, :1]})["y"]).max() < 1e-12
    )
