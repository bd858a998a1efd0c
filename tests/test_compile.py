"""Compiling end to end by the library: models, circuits, hybrids; artifacts that load and run."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import qcomp
from qcomp.errors import SourceError, TargetError, UsageError
from qcomp.ir.observable import Observable
from qcomp.ir.program import DOMAIN, Program, Readout, make_circuit_node
from qcomp.passmanager import Context, Pipeline

ROWS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


def linear(name: str, value: ir.Value, n: int, m: int, nodes: list, weights: list) -> ir.Value:
    """Append a Gemm with fixed random weights."""
    rng = np.random.default_rng(len(weights))
    w = ir.Value(name=f"{name}.w", const_value=ir.tensor(
        (rng.normal(size=(n, m)) / np.sqrt(n)).astype(np.float32), name=f"{name}.w"))  # fmt: skip
    b = ir.Value(name=f"{name}.b", const_value=ir.tensor(
        rng.normal(size=m).astype(np.float32), name=f"{name}.b"))  # fmt: skip
    weights += [w, b]
    nodes.append(ir.Node("", "Gemm", [value, w, b], name=name))
    nodes[-1].outputs[0].name = f"{name}.y"
    nodes[-1].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    nodes[-1].outputs[0].shape = ir.Shape(["n", m])
    return nodes[-1].outputs[0]


def hybrid() -> Program:
    """A Gemm, a circuit of three qubits with four data and two trained angles, a Gemm."""
    circuit = qcomp.Circuit(3, name="layer")
    x = [qcomp.Parameter(f"x{i}") for i in range(4)]
    w = [qcomp.Parameter(f"w{i}") for i in range(2)]
    circuit.ry(x[0], 0).ry(x[1], 1).rx(x[2] + w[0], 2).cx(0, 1).cx(1, 2).rz(2 * x[3], 1)
    circuit.rz(-0.5 * x[3], 1).ry(w[1], 1).cx(1, 2).h(0)
    circuit = circuit.with_params(("x0", "x1", "x2", "x3", "w0", "w1"))
    nodes: list = []
    weights: list = []
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 6]))
    hidden = linear("encode", value, 6, 4, nodes, weights)
    trained = ir.Value(name="w", const_value=ir.tensor(np.array([0.3, -1.1], np.float32), name="w"))
    weights.append(trained)
    readout = Readout("expval", (Observable.parse("Z0"), Observable.parse("0.5*X1*Z2 + Y0")))
    node = make_circuit_node("layer", readout, [hidden, trained])
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    node.outputs[0].shape = ir.Shape(["n", 2])
    nodes.append(node)
    out = linear("head", node.outputs[0], 2, 3, nodes, weights)
    graph = ir.Graph([value], [out], nodes=nodes, initializers=weights,
                     opset_imports={"": 21, DOMAIN: 1}, name="hybrid")  # fmt: skip
    return Program(ir.Model(graph, ir_version=10), {"layer": circuit})


def test_a_hybrid_model_becomes_graphs_a_circuit_and_a_table_of_contents(tmp_path: Path) -> None:
    from qcomp.execute import HybridSession

    program = hybrid()
    expected = HybridSession(program).run({"x": ROWS})["head.y"]
    artifact = qcomp.compile(
        program, target="cpu-int8+ibm-heron", calibration={"x": ROWS}, out=tmp_path / "out"
    )
    kinds = [stage["kind"] for stage in artifact.manifest["stages"]]
    assert kinds == ["graph", "circuit", "graph"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "layer.qasm",
        "program.json",
        "report.html",
        "report.json",
        "stage0.onnx",
        "stage1.onnx",
    ]
    text = (tmp_path / "out" / "layer.qasm").read_text()
    assert not any(f"\n{gate} " in text for gate in ("h", "ry", "rx", "cx"))
    got = artifact(ROWS)
    signal, noise = (expected**2).sum(), ((expected - got) ** 2).sum()
    assert 10 * np.log10(signal / noise) > 25


def test_without_quantization_error_the_compiled_hybrid_equals_the_source() -> None:
    from qcomp.execute import HybridSession

    program = hybrid()
    expected = HybridSession(program).run({"x": ROWS})["head.y"]
    artifact = qcomp.compile(program, target="cpu-int8+ibm-heron", pipeline="canonicalise",
                             calibration={"x": ROWS})  # fmt: skip
    assert np.abs(artifact(ROWS) - expected).max() < 1e-6
    loaded = qcomp.load(artifact.path)
    assert np.array_equal(loaded(x=ROWS), artifact(ROWS))


def test_shots_scatter_around_the_exact_values_and_repeat_with_the_seed() -> None:
    artifact = qcomp.compile(hybrid(), target="cpu-dynamic-int8+portable")
    exact = artifact(ROWS, shots=0)
    sampled = artifact(ROWS, shots=2000, seed=5)
    assert 0 < np.abs(sampled - exact).max() < 0.5
    assert np.array_equal(sampled, artifact(ROWS, shots=2000, seed=5))


def test_aer_gives_what_the_built_in_simulator_gives() -> None:
    artifact = qcomp.compile(hybrid(), target="cpu-dynamic-int8+ibm-heron")
    rows = ROWS[:3]
    assert np.abs(artifact(rows, device="aer", shots=0) - artifact(rows, shots=0)).max() < 1e-6
    assert np.abs(artifact(rows, device="aer", shots=4000) - artifact(rows, shots=0)).max() < 0.3


def test_batches_give_the_rows_of_the_whole() -> None:
    artifact = qcomp.compile(hybrid(), target="cpu-int4+portable")
    assert np.allclose(artifact(ROWS, batch_size=7), artifact(ROWS), atol=1e-6)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        qcomp.compile(hybrid(), target="cpu-int8+ibm-heron", calibration={"x": ROWS},
                      out=tmp_path / name, seed=3)  # fmt: skip
    for file in ("layer.qasm", "stage0.onnx", "stage1.onnx", "program.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_every_pass_keeps_its_promise_on_the_hybrid_model() -> None:
    artifact = qcomp.compile(hybrid(), target="cpu-int8+ibm-heron", calibration={"x": ROWS},
                             verify_each=True)  # fmt: skip
    changed = [p for p in artifact.report["passes"] if p["changed"]]
    assert any(p["check"] for p in changed)


def test_the_report_says_accuracy_when_labels_are_given() -> None:
    labels = np.arange(40) % 3
    artifact = qcomp.compile(hybrid(), target="cpu-int8+portable", calibration={"x": ROWS},
                             labels={"x": ROWS, "y": labels})  # fmt: skip
    (line,) = artifact.report["accuracy"]
    assert line["metric"] == "accuracy"
    assert line["samples"] == 40


def test_a_changed_file_is_refused_on_loading(tmp_path: Path) -> None:
    qcomp.compile(hybrid(), target="cpu-int4+portable", out=tmp_path / "out")
    path = tmp_path / "out" / "layer.qasm"
    path.write_text(path.read_text().replace("rz", "rx", 1))
    with pytest.raises(SourceError, match="not the one that was compiled"):
        qcomp.load(tmp_path / "out")


def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    qcomp.compile(hybrid(), target="cpu-int4+portable", out=tmp_path / "out")
    path = tmp_path / "out" / "program.json"
    data = json.loads(path.read_text())
    data["files"]["../secret"] = {"bytes": 0, "sha256": ""}
    path.write_text(json.dumps(data))
    with pytest.raises(SourceError, match="outside"):
        qcomp.load(tmp_path / "out")


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("cpu-int8", UsageError, "needs calibration"),
        ("cpu-int4", TargetError, "names no quantum machine"),
        ("ibm-heron", TargetError, "names no classical machine"),
        ("ibm-herons", UsageError, "did you mean 'ibm-heron'"),
        ("cpu-int4+cpu-int8", UsageError, "two graph targets"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(target: str, kind: type, message: str) -> None:
    source = hybrid()
    if target == "cpu-int8":
        target = "cpu-int8+portable"
    with pytest.raises(kind) as caught:
        qcomp.compile(source, target=target)
    assert message in str(caught.value)


def test_wrong_calls_of_an_artifact_say_what_is_wrong() -> None:
    artifact = qcomp.compile(hybrid(), target="cpu-int4+portable")
    with pytest.raises(UsageError, match="no input 'y'"):
        artifact(y=ROWS)
    with pytest.raises(UsageError, match="was not given"):
        artifact()
    with pytest.raises(UsageError, match="no device"):
        artifact(ROWS, device="cloud")


def test_optimizing_a_circuit_gives_a_smaller_equal_circuit_and_keeps_the_source() -> None:
    circuit = qcomp.Circuit(2).t(0).cx(0, 1).cx(0, 1).t(0).h(1).h(1)
    smaller = qcomp.optimize(circuit)
    assert isinstance(smaller, qcomp.Circuit)
    assert smaller.stats().gates == 1
    assert circuit.stats().gates == 6
    assert qcomp.verify(smaller, circuit).equal is True
    assert qcomp.verify(smaller, qcomp.Circuit(2).t(0)).equal is False


def test_a_circuit_alone_compiles_to_one_qasm_file_and_runs() -> None:
    circuit = qcomp.Circuit(2, 2).h(0).cx(0, 1)
    circuit.measure(0, 0).measure(1, 1)
    artifact = qcomp.compile(circuit, target="ibm-heron")
    assert np.allclose(artifact(), [0.5, 0, 0, 0.5])


def test_the_pipeline_runs_in_checked_mode_over_repeats() -> None:
    program = Program.of_circuit(qcomp.Circuit(2).t(0).t(0).h(1).h(1).cx(0, 1))
    text = "repeat{times=3}(merge-rotations,cancel-inverses)"
    records = Pipeline.parse(text).run(program, Context(verify_each=True))
    assert [r.changed for r in records][-2:] == [False, False]
    assert all(r.check for r in records if r.changed)
