"""Loops over quantum layers: captured as loops, cut, compiled and run for any number of steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import qcomp
from qcomp.errors import PassError, QcompError, SourceError, UsageError
from qcomp.execute import HybridSession
from qcomp.ir.loops import Carried, Collected, LoopForm, Scanned, run_loop
from qcomp.ir.observable import Observable
from qcomp.ir.program import DOMAIN, Program, Readout, make_circuit_node
from qcomp.ir.stages import ClassicalStage, LoopStage, cut_into_stages, stage_of_nodes
from qcomp.passes.graph.bind_to_slots import BindToSlots
from qcomp.passes.graph.bind_weights import BindWeights
from qcomp.passmanager import Context
from tests.models import small_circuit

torch = pytest.importorskip("torch")

TEXT = """OPENQASM 3.0;
include "stdgates.inc";
input float x0; input float x1; input float w0; input float w1;
qubit[2] q;
ry(x0) q[0]; ry(x1) q[1]; cx q[0], q[1]; rx(w0) q[0]; rx(w1) q[1];
rz(2 * x0 - x1 + w1) q[1]; h q[1];
"""
READOUT = Readout("expval", (Observable.parse("Z0"), Observable.parse("Z0*Z1")))
DATA = np.random.default_rng(0).normal(size=(48, 6, 1)).astype(np.float32)


class Cell(torch.nn.Module):
    """A linear layer of input and state, a circuit, tanh."""

    def __init__(self) -> None:
        super().__init__()
        from qcomp.nn import QuantumLayer

        self.mix = torch.nn.Linear(3, 2)
        self.circuit = QuantumLayer(TEXT, inputs=["x0", "x1"], name="cell")

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.circuit(self.mix(torch.cat([h, x], dim=-1))))


class Model(torch.nn.Module):
    """The cell over a sequence; a head on the last state; all states too."""

    def __init__(self) -> None:
        super().__init__()
        from qcomp.nn import Recurrent

        self.recurrent = Recurrent(Cell(), 2)
        self.head = torch.nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, last = self.recurrent(x)
        return self.head(last), states


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(1)
    return Model().eval()


@pytest.fixture(scope="module")
def program(model: Model) -> Program:
    axes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("time", min=2)},)
    return qcomp.read(
        model, example_inputs=torch.zeros(3, 5, 1), dynamic_shapes=axes, output_names=["y", "h"]
    )


@pytest.fixture(scope="module")
def artifact(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("loops") / "out"
    return qcomp.compile(program, target="cpu-int8+ibm-heron", calibration={"x": DATA}, out=out)


def expected(model: Model, x: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        return [part.numpy() for part in model(torch.from_numpy(x))]


def steps(count: int, rows: int = 4) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(rows, count, 1)).astype(np.float32)


def test_a_recurrent_module_is_one_scan_with_the_circuit_in_it_once(program: Program) -> None:
    nodes = list(program.model.graph)
    assert [node.op_type for node in nodes].count("Scan") == 1
    assert not program.circuit_nodes()
    (node,) = program.all_circuit_nodes()
    assert program.circuit_of(node).name == "cell"
    assert str(program.model.graph.inputs[0].shape[0]) == "batch"


@pytest.mark.parametrize("count", [1, 2, 17])
def test_any_number_of_steps_gives_what_pytorch_gives(
    model: Model, program: Program, count: int
) -> None:
    x = steps(count)
    got = HybridSession(program).run({"x": x})
    for value, array in zip(expected(model, x), got.values(), strict=True):
        assert array.shape == value.shape
        assert np.abs(array - value).max() < 1e-6


def test_a_saved_program_keeps_its_loop_and_what_it_computes(
    program: Program, tmp_path: Path
) -> None:
    program.save(tmp_path / "model.onnx")
    again = qcomp.read(tmp_path / "model.onnx")
    assert len(again.all_circuit_nodes()) == 1
    verdict = qcomp.verify(program, again)
    assert verdict.equal is True
    assert verdict.error == 0.0


def test_the_loop_is_a_stage_with_classical_stages_and_a_circuit_in_it(program: Program) -> None:
    stages = cut_into_stages(program)
    assert [type(stage).__name__ for stage in stages] == [
        "ClassicalStage",
        "LoopStage",
        "ClassicalStage",
    ]
    loop = stages[1]
    assert isinstance(loop, LoopStage)
    kinds = [type(stage).__name__ for stage in loop.stages]
    assert kinds == ["ClassicalStage", "CircuitStage", "ClassicalStage"]
    assert sorted({*stage_of_nodes(program).values()}) == ["classical-0", "classical-1", "loop-0"]


def test_weights_inside_a_loop_become_numbers_and_angles_slots(program: Program) -> None:
    made = program.copy()
    assert BindWeights().run(made, Context())
    assert made.circuits["cell"].params == ("x0", "x1")
    before = made.copy()
    assert BindToSlots().run(made, Context())
    x = steps(9)
    a, b = HybridSession(before).run({"x": x}), HybridSession(made).run({"x": x})
    for name in a:
        assert np.abs(a[name] - b[name]).max() < 1e-6
    assert made.circuits["cell"].params == ("a0", "a1", "a2")


def test_the_compiled_loop_runs_quantized_for_sequences_of_any_length(
    model: Model, artifact: Any
) -> None:
    (loop,) = (s for s in artifact.manifest["stages"] if s["kind"] == "loop")
    assert [s["kind"] for s in loop["stages"]] == ["graph", "circuit", "graph"]
    assert loop["stages"][1]["parameter_form"] == "slots"
    for count in (3, 20):
        x = steps(count)
        got = artifact(x)
        for value, array in zip(expected(model, x), got.values(), strict=True):
            signal = float((value**2).sum() / ((array - value) ** 2).sum())
            assert 10 * np.log10(signal) > 30
    again = qcomp.load(artifact.path)(x)
    assert all(np.array_equal(again[name], got[name]) for name in got)
    assert artifact(x, shots=400, seed=2)["y"].shape == (4, 3)


def test_layers_inside_a_loop_are_quantized_and_reported(artifact: Any) -> None:
    import onnx

    first = onnx.load(artifact.path / "loop0_stage0.onnx")
    assert "QuantizeLinear" in [node.op_type for node in first.graph.node]
    layers = [layer["op"] for layer in artifact.report["quantization"]["layers"]]
    assert layers.count("Gemm") == 2
    left = artifact.report["quantization"]["left_in_float"]
    assert not any(line["op"] in ("QuantizeLinear", "DequantizeLinear") for line in left)
    assert artifact.report["circuits"][0]["name"] == "cell"


def test_without_a_quantizing_pass_the_artifact_equals_the_model(
    model: Model, program: Program
) -> None:
    artifact = qcomp.compile(program, target="cpu-int8+portable", pipeline="canonicalise",
                             calibration={"x": DATA})  # fmt: skip
    x = steps(8)
    for value, array in zip(expected(model, x), artifact(x).values(), strict=True):
        assert np.abs(array - value).max() < 1e-6


def test_each_step_of_a_loop_has_a_place_of_its_own_for_results(artifact: Any) -> None:
    """What a submitted job relies on: results are known by place, one step after the other."""
    from qcomp.simulate import run_readout

    x = steps(4)
    known: dict[int, np.ndarray] = {}

    def answer(place: int, circuit: Any, readout: Readout, rows: np.ndarray) -> Any:
        if place in known:
            return known[place]
        asked.append((place, circuit, readout, rows))
        return None

    for leg in range(5):
        asked: list[Any] = []
        values = artifact.walk({"x": x}, answer)
        assert len(asked) == (leg < 4)
        assert ("y" in values) == (leg == 4)
        for place, circuit, readout, rows in asked:
            known[place] = np.asarray(run_readout(circuit, readout, rows))
    assert len(known) == 4
    assert np.array_equal(values["y"], artifact(x)["y"])


def test_a_loop_in_a_manifest_that_does_not_hold_together_is_refused(
    artifact: Any, tmp_path: Path
) -> None:
    for number, (key, value) in enumerate(
        [("inputs", []), ("form", {"carried": 3}), ("stages", []), ("outputs", ["z"])]
    ):
        copy = artifact.save(tmp_path / f"copy{number}")
        path = copy.path / "program.json"
        manifest = json.loads(path.read_text())
        next(s for s in manifest["stages"] if s["kind"] == "loop")[key] = value
        path.write_text(json.dumps(manifest))
        with pytest.raises(SourceError, match="damaged"):
            qcomp.load(copy.path)


def counting(steps_max: int | None) -> Program:
    """An ONNX Loop: angles grow by a measured value until it is small, or steps_max is reached."""
    kind = ir.DataType.FLOAT
    x = ir.val("x", kind, ["n", 2])
    count = ir.val("count", const_value=ir.tensor(np.array(steps_max or 0), name="count"))
    go = ir.val("go", const_value=ir.tensor(np.array(True), name="go"))
    limit = ir.val("limit", const_value=ir.tensor(np.array(0.3, np.float32), name="limit"))
    number = ir.val("number", ir.DataType.INT64, [])
    going, angles = ir.val("going", ir.DataType.BOOL, []), ir.val("angles", kind, ["n", 2])
    measured = ir.val("measured", kind, ["n", 2])
    circuit = make_circuit_node("layer", READOUT, [angles], "inner", measured)
    grown = ir.node("Add", [angles, measured], outputs=[ir.val("grown", kind, ["n", 2])])
    largest = ir.node("ReduceMax", [measured], {"keepdims": 0}, outputs=[ir.val("m", kind, [])])
    on = ir.node("Greater", [largest.outputs[0], limit],
                 outputs=[ir.val("on", ir.DataType.BOOL, [])])  # fmt: skip
    body = ir.Graph([number, going, angles],
                    [on.outputs[0], grown.outputs[0], measured],
                    nodes=[circuit, grown, largest, on], name="body")  # fmt: skip
    loop = ir.node("Loop", [count if steps_max else None, go, x], name="loop",
                   attributes={"body": body}, num_outputs=2)  # fmt: skip
    last, seen = loop.outputs
    last.name, last.type, last.shape = "last", ir.TensorType(kind), ir.Shape(["n", 2])
    seen.name, seen.type, seen.shape = "seen", ir.TensorType(kind), ir.Shape(["t", "n", 2])
    graph = ir.Graph([x], [last, seen], nodes=[loop], name="counting",
                     initializers=[*([count] if steps_max else []), go, limit],
                     opset_imports={"": 21, DOMAIN: 1})  # fmt: skip
    return Program(ir.Model(graph, ir_version=10), {"layer": small_circuit("layer")})


@pytest.mark.parametrize("most", [None, 2])
def test_an_onnx_loop_stops_by_its_condition_or_its_count(most: int | None) -> None:
    from qcomp.simulate import run_readout

    program = counting(most)
    x = np.array([[0.2, -0.9]], np.float32)
    angles, seen = x, []
    while most is None or len(seen) < most:
        seen.append(run_readout(program.circuits["layer"], READOUT, angles).astype(np.float32))
        angles = angles + seen[-1]
        if seen[-1].max() <= 0.3:
            break
    assert len(seen) > 1
    result = HybridSession(program).run({"x": x})
    assert result["seen"].shape == (len(seen), 1, 2)
    assert np.abs(result["last"] - angles).max() < 1e-6
    artifact = qcomp.compile(program, target="cpu-dynamic-int8+portable")
    assert np.abs(artifact(x)["last"] - angles).max() < 1e-6


def test_axes_and_directions_of_a_scan_are_followed() -> None:
    form = LoopForm(
        (Carried("s", "s_in", "s_out", "total"),),
        (Scanned("x", "x_in", axis=1, reverse=True),),
        (Collected("y", "ys", axis=1, reverse=True), Collected("y", "plain")),
    )

    def step(number: int, feeds: dict[str, Any]) -> dict[str, Any]:
        total = feeds["s_in"] * 2 + feeds["x_in"]
        return {"s_out": total, "y": total}

    result = run_loop(form, {"s": np.zeros(2), "x": np.arange(6.0).reshape(2, 3)}, step)
    assert result is not None
    assert result["total"].tolist() == [10, 31]
    assert result["ys"].tolist() == [[10, 5, 2], [31, 14, 5]]
    assert result["plain"].tolist() == [[2, 5], [5, 14], [10, 31]]


def test_sequences_of_different_lengths_or_of_no_step_are_refused() -> None:
    form = LoopForm((), (Scanned("x", "a"), Scanned("y", "b")), (Collected("a", "c"),))
    with pytest.raises(UsageError, match="different lengths: 'x' 2, 'y' 3"):
        run_loop(form, {"x": np.zeros(2), "y": np.zeros(3)}, lambda n, f: f)
    with pytest.raises(UsageError, match="no steps"):
        run_loop(form, {"x": np.zeros(0), "y": np.zeros(0)}, lambda n, f: f)


def test_a_loop_over_circuits_inside_a_loop_is_refused_with_the_node_named() -> None:
    inner = counting(2)
    body = inner.model.graph.node(0).attributes["body"].as_graph()
    deep = counting(2).model.graph.node(0)
    value = body.node(0).outputs[0]
    again = ir.node("Loop", [None, None, value], {"body": deep.attributes["body"].as_graph()},
                    num_outputs=2, name="deep")  # fmt: skip
    body.append(again)
    with pytest.raises(PassError, match="a loop or a branch in a loop"):
        cut_into_stages(inner)


def test_loops_without_circuits_stay_in_onnx_runtime() -> None:
    from tests import models

    program = qcomp.read(models.with_scan())
    (stage,) = cut_into_stages(program)
    assert isinstance(stage, ClassicalStage)


@pytest.mark.parametrize(
    ("state", "x", "message"),
    [
        (torch.zeros(2, 2), torch.zeros(2), "axes of batch and time"),
        (torch.zeros(2, 2), torch.zeros(2, 0, 1), r"sequences of \[0\] steps"),
        (torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 3, 1), "state of a loop was"),
    ],
)
def test_a_recurrent_module_says_what_is_wrong_with_its_inputs(
    state: torch.Tensor, x: torch.Tensor, message: str
) -> None:
    from qcomp.nn import Recurrent

    class Plain(torch.nn.Module):
        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return h.float() + x

    with pytest.raises(QcompError, match=message):
        Recurrent(Plain(), 2)(x, state)


def test_a_recurrent_module_is_pytorchs_own_lstm() -> None:
    from qcomp.nn import Recurrent

    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 4, batch_first=True)
    cell = torch.nn.LSTMCell(3, 4)
    for name, parameter in cell.named_parameters():
        parameter.data = getattr(lstm, f"{name}_l0").data
    x = torch.randn(2, 7, 3)
    outputs, (h, c) = Recurrent(cell, (4, 4))(x)
    wanted, (last_h, last_c) = lstm(x)
    assert torch.allclose(outputs, wanted, atol=1e-6)
    assert torch.allclose(h, last_h[0], atol=1e-6)
    assert torch.allclose(c, last_c[0], atol=1e-6)


def test_a_python_loop_is_unrolled_and_the_program_says_what_to_do_about_it(model: Model) -> None:
    class Unrolled(torch.nn.Module):
        def __init__(self, cell: torch.nn.Module) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = x.new_zeros(x.shape[0], 2)
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h)
            return h

    unrolled = qcomp.read(Unrolled(model.recurrent.cell), example_inputs=torch.zeros(2, 8, 1))
    assert len(unrolled.circuit_nodes()) == 8
    (note,) = (note for note in unrolled.notes if "qcomp.nn.Recurrent" in note)
    assert "'cell' stands in the graph 8 times" in note


@pytest.mark.parametrize("encode", [torch.neg, torch.atan], ids=["affine", "computed"])
def test_a_layer_of_pennylane_inside_a_recurrent_cell_is_captured_in_the_loop(
    encode: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    qml = pytest.importorskip("pennylane")
    from qcomp.nn import Recurrent

    @qml.qnode(qml.device("default.qubit", wires=2))
    def node(inputs: torch.Tensor, weights: torch.Tensor) -> Any:
        qml.AngleEmbedding(encode(inputs), wires=[0, 1])
        qml.BasicEntanglerLayers(weights, wires=[0, 1])
        return [qml.expval(qml.PauliZ(wire)) for wire in (0, 1)]

    class PennyLaneCell(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = qml.qnn.TorchLayer(node, {"weights": (1, 2)})

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return self.layer(h + x)

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = Recurrent(PennyLaneCell(), 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.recurrent(x)[0]

    torch.manual_seed(3)
    outer = Outer().eval()
    x = torch.randn(3, 4, 1)
    program = qcomp.read(outer, example_inputs=x)
    assert [node.op_type for node in program.model.graph].count("Scan") == 1
    (got,) = HybridSession(program).run({"x": x.numpy()}).values()
    with torch.no_grad():
        assert np.abs(got - outer(x).numpy()).max() < 5e-6
