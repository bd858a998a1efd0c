"""A hybrid graph is cut at its circuits into as few stages and hand-overs as there can be."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.ir.observable import Observable
from qcomp.ir.program import DOMAIN, Program, Readout, make_circuit_node
from qcomp.ir.shapes import infer_shapes
from qcomp.ir.stages import CircuitStage, ClassicalStage, cut_into_stages, stage_of_nodes
from tests import models

READOUT = Readout("expval", (Observable.parse("Z0"), Observable.parse("Z1")))


def shape_of(program: Program) -> list[str]:
    return [
        "circuit"
        if isinstance(stage, CircuitStage)
        else " ".join(node.op_type for node in stage.model.graph)
        for stage in cut_into_stages(program)
    ]


def test_a_program_without_circuits_is_one_stage() -> None:
    program = OnnxFrontend().read(models.with_if())
    (stage,) = cut_into_stages(program)
    assert isinstance(stage, ClassicalStage)
    assert stage.inputs == ("x", "c")
    assert stage.outputs == ("y",)
    assert set(stage.model.graph.initializers) == {"w"}


def test_a_circuit_alone_is_one_stage_without_graphs() -> None:
    program = Program.of_circuit(models.small_circuit())
    (stage,) = cut_into_stages(program)
    assert isinstance(stage, CircuitStage)
    assert stage.inputs == ("params",)
    assert stage.circuit == "layer"
    assert stage.constants == {}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_classical_stages_and_circuits_alternate(depth: int) -> None:
    assert shape_of(models.hybrid(depth)) == ["Gemm", "circuit"] * depth + ["Gemm MatMul Add"] or (
        shape_of(models.hybrid(depth)) == ["Gemm", "circuit"] * depth + ["MatMul Gemm Add"]
    )


def test_what_only_the_end_needs_runs_at_the_end_and_nothing_is_handed_on_for_it() -> None:
    stages = cut_into_stages(models.hybrid(2))
    assert [stage.inputs for stage in stages] == [
        ("x",),
        ("encode0_out",),
        ("measured0",),
        ("encode1_out",),
        ("x", "measured1"),
    ]
    assert [s.outputs for s in stages if isinstance(s, ClassicalStage)] == [
        ("encode0_out",),
        ("encode1_out",),
        ("y",),
    ]


def chain(*ops: tuple[str, list[str], str], outputs: list[str]) -> Program:
    """A graph of one-output nodes on ``x`` float32[2]; ``Circuit`` makes a quantum node."""
    values = {"x": ir.val("x", ir.DataType.FLOAT, [2])}
    nodes = []
    for op, reads, write in ops:
        inputs = [values[name] for name in reads]
        if op == "Circuit":
            node = make_circuit_node("layer", READOUT, inputs, f"q_{write}")
        else:
            node = ir.node(op, inputs, name=f"n_{write}")
        values[write] = node.outputs[0]
        values[write].name = write
        values[write].type, values[write].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2])
        nodes.append(node)
    graph = ir.Graph(
        [values["x"]],
        [values[name] for name in outputs],
        nodes=nodes,
        opset_imports={"": 21, DOMAIN: 1},
        name="chain",
    )
    return Program(ir.Model(graph, ir_version=10), {"layer": models.small_circuit()})


def test_independent_circuits_share_one_classical_stage_before_and_after() -> None:
    program = chain(
        ("Neg", ["x"], "a"),
        ("Circuit", ["a"], "p"),
        ("Abs", ["x"], "b"),
        ("Circuit", ["b"], "q"),
        ("Add", ["p", "q"], "y"),
        outputs=["y"],
    )
    assert shape_of(program) == ["Neg Abs", "circuit", "circuit", "Add"]


def test_circuits_that_feed_circuits_need_no_stage_between() -> None:
    program = chain(
        ("Circuit", ["x"], "p"), ("Circuit", ["p"], "q"), ("Neg", ["q"], "y"), outputs=["y"]
    )
    assert shape_of(program) == ["circuit", "circuit", "Neg"]


def test_a_node_stays_early_where_moving_it_would_hand_on_more() -> None:
    program = chain(
        ("Neg", ["x"], "a"),
        ("Abs", ["x"], "b"),
        ("Exp", ["x"], "e"),
        ("Circuit", ["a"], "p"),
        ("Circuit", ["b"], "q"),
        ("Sum", ["a", "b"], "s"),
        ("Sum", ["p", "q", "s"], "y"),
        ("Neg", ["e"], "z"),
        outputs=["y", "z"],
    )
    stages = cut_into_stages(program)
    first = stages[0]
    assert isinstance(first, ClassicalStage)
    assert set(first.outputs) == {"a", "b", "s", "z"}
    last = stages[-1]
    assert last.inputs == ("p", "q", "s")


def test_weights_that_enter_a_circuit_are_its_constants() -> None:
    x = ir.val("x", ir.DataType.FLOAT, ["batch", 1])
    theta = ir.val("theta", const_value=ir.Tensor(np.array([0.25], np.float32), name="theta"))
    node = make_circuit_node("layer", READOUT, [x, theta], "q")
    graph = ir.Graph(
        [x],
        node.outputs,
        nodes=[node],
        initializers=[theta],
        opset_imports={"": 21, DOMAIN: 1},
        name="g",
    )
    program = Program(ir.Model(graph, ir_version=10), {"layer": models.small_circuit()})
    (stage,) = cut_into_stages(program)
    assert isinstance(stage, CircuitStage)
    assert stage.inputs == ("x", "theta")
    assert {name: array.tolist() for name, array in stage.constants.items()} == {"theta": [0.25]}


def test_values_can_be_kept_as_outputs_and_unknown_ones_are_refused() -> None:
    program = models.hybrid(1)
    stages = cut_into_stages(program, keep=["around_out", "head_out"])
    made = [s.outputs for s in stages if isinstance(s, ClassicalStage)]
    assert "head_out" in made[-1]
    assert "around_out" in made[0] + made[-1]
    with pytest.raises(UsageError, match="no value 'head_ot'") as caught:
        cut_into_stages(program, keep=["head_ot"])
    assert "head_out" in caught.value.hint


def test_cutting_does_not_change_the_program() -> None:
    program = models.hybrid(2)
    infer_shapes(program)
    before = ir.to_proto(program.model).SerializeToString()
    cut_into_stages(program)
    assert ir.to_proto(program.model).SerializeToString() == before


def test_what_enters_and_leaves_a_stage_has_a_type() -> None:
    program = models.hybrid(2)
    for node in program.model.graph:
        if node.op_type == "Gemm":
            node.outputs[0].type = node.outputs[0].shape = None
    for stage in cut_into_stages(program):
        if isinstance(stage, ClassicalStage):
            onnx.checker.check_model(ir.to_proto(stage.model), full_check=True)


def test_stages_share_the_weights_of_the_program() -> None:
    program = models.hybrid(1)
    stage = cut_into_stages(program)[0]
    assert isinstance(stage, ClassicalStage)
    weight = program.model.graph.initializers["encode0_w"].const_value
    assert stage.model.graph.initializers["encode0_w"].const_value is weight


def test_a_circuit_inside_a_branch_is_refused() -> None:
    program = OnnxFrontend().read(models.with_if())
    branch = program.model.graph.node(1).attributes["then_branch"].as_graph()
    value = branch.node(0).inputs[0]
    assert value is not None
    branch.insert_before(branch.node(0), make_circuit_node("layer", READOUT, [value], "inner"))
    with pytest.raises(PassError, match="inside a branch") as caught:
        cut_into_stages(program)
    assert "inner" in str(caught.value)


def test_each_node_has_the_stage_it_is_cut_into() -> None:
    program = models.hybrid(1)
    names = {node.name: stage for node, stage in stage_of_nodes(program).items()}
    assert names == {
        "encode0": "classical-0",
        "quantum0": "circuit-0",
        "around": "classical-1",
        "head": "classical-1",
        "sum": "classical-1",
    }
