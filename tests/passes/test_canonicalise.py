"""Canonicalise removes what does nothing, merges what is equal, and keeps all the rest."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.backends.onnx_file import save_program
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.passes.graph.canonicalise import Canonicalise
from qcomp.passmanager import Context
from tests import models
from tests.passes.graph_helpers import X, apply, ops, program_of

STEP = Canonicalise()

REMOVED = [
    ("identity", "a = Neg (x) b = Identity (a) y = Abs (b)", ["Neg", "Abs"]),
    ("identity to an output", "a = Neg (x) y = Identity (a)", ["Neg"]),
    ("dropout", "a = Dropout (x) y = Neg (a)", ["Neg"]),
    ("cast to the same type", "a = Cast <to: int = 1> (x) y = Neg (a)", ["Neg"]),
    ("castlike", "a = CastLike (x, x) y = Neg (a)", ["Neg"]),
    (
        "reshape to the same shape",
        "s = Constant <value_ints: ints = [2, 3]> () a = Reshape (x, s) y = Neg (a)",
        ["Neg"],
    ),
    (
        "reshape of -1 to the same shape",
        "s = Constant <value_ints: ints = [0, -1]> () a = Reshape (x, s) y = Neg (a)",
        ["Neg"],
    ),
    (
        "reshape of reshape",
        """s = Constant <value_ints: ints = [6]> () t = Constant <value_ints: ints = [3, 2]> ()
        a = Reshape (x, s) y = Reshape (a, t)""",
        ["Reshape"],
    ),
    (
        "two transposes",
        "a = Transpose <perm: ints = [1, 0]> (x) b = Transpose (a) y = Neg (b)",
        ["Neg"],
    ),
    ("transpose in order", "a = Transpose <perm: ints = [0, 1]> (x) y = Neg (a)", ["Neg"]),
    ("concat of one", "a = Concat <axis: int = 0> (x) y = Neg (a)", ["Neg"]),
    ("sum of one", "a = Sum (x) y = Neg (a)", ["Neg"]),
    ("dead node", "a = Exp (x) y = Neg (x)", ["Neg"]),
    ("equal nodes", "a = Neg (x) b = Neg (x) y = Add (a, b)", ["Neg", "Add"]),
    (
        "equal chains and constants",
        """c = Constant <value_float: float = 2.0> () d = Constant <value_float: float = 2.0> ()
        a = Mul (x, c) b = Mul (x, d) y = Sub (a, b)""",
        ["Mul", "Sub"],
    ),
    ("an equal node that is an output", "a = Neg (x) y = Neg (x) z = Abs (a)", ["Neg", "Abs"]),
]

KEPT = [
    ("identity from an input to an output", "y = Identity (x)", ["Identity"]),
    ("cast to another type and back", "a = Cast <to: int = 10> (x) y = Cast <to: int = 1> (a)", 2),
    (
        "reshape to another shape",
        "s = Constant <value_ints: ints = [3, 2]> () a = Reshape (x, s) y = Neg (a)",
        2,
    ),
    (
        "reshape of reshape that copies an axis",
        """s = Constant <value_ints: ints = [3, 2]> ()
        t = Constant <value_ints: ints = [0, 1, 2]> () a = Reshape (x, s) y = Reshape (a, t)""",
        ["Reshape", "Reshape"],
    ),
    ("one transpose", "a = Transpose (x) y = Neg (a)", 2),
    ("concat of two", "y = Concat <axis: int = 0> (x, x)", 1),
    (
        "nodes with other attributes",
        "a = Elu <alpha: float = 1.0> (x) b = Elu (x) y = Add (a, b)",
        3,
    ),
    (
        "zeros of two signs",
        """a = Elu <alpha: float = 0.0> (x) b = Elu <alpha: float = -0.0> (x)
        y = Concat <axis: int = 0> (a, b)""",
        3,
    ),
    ("two equal nodes that are outputs", "y = Neg (x) z = Neg (x)", 2),
]


@pytest.mark.parametrize(("name", "body", "left"), REMOVED, ids=[case[0] for case in REMOVED])
def test_what_does_nothing_goes(name: str, body: str, left: list[str]) -> None:
    program = program_of(body, result="y z" if "z =" in body else "y")
    assert apply(STEP, program, X)
    assert ops(program) == left


@pytest.mark.parametrize(("name", "body", "left"), KEPT, ids=[case[0] for case in KEPT])
def test_what_does_something_stays(name: str, body: str, left: list[str] | int) -> None:
    program = program_of(body, result="y z" if "z =" in body else "y")
    apply(STEP, program, X)
    if isinstance(left, list):
        assert ops(program) == left
    else:
        assert len(ops(program)) == left


def test_random_nodes_are_never_merged() -> None:
    body = """a = RandomNormalLike (x) b = RandomNormalLike (x) y = Sub (a, b)"""
    program = program_of(body)
    apply(STEP, program)
    assert ops(program) == ["RandomNormalLike", "RandomNormalLike", "Sub"]


def test_a_dropout_that_trains_stays() -> None:
    body = """r = Constant <value_float: float = 0.5> () t = Constant <value: tensor = bool {1}> ()
    a = Dropout (x, r, t) y = Neg (a)"""
    program = program_of(body)
    apply(STEP, program)
    assert ops(program) == ["Dropout", "Neg"]


def test_inputs_stay_also_where_nothing_uses_them() -> None:
    program = program_of("y = Neg (x)", signature="float[2, 3] x, float[7] idle")
    apply(STEP, program)
    assert [value.name for value in program.model.graph.inputs] == ["x", "idle"]


def test_constants_become_initializers_and_unused_ones_go() -> None:
    body = """c = Constant <value_float: float = 2.0> () d = Constant <value_int: int = 1> ()
    y = Mul (x, c)"""
    program = program_of(body)
    assert apply(STEP, program, X)
    assert ops(program) == ["Mul"]
    assert list(program.model.graph.initializers) == ["c"]


def test_an_initializer_that_a_caller_may_override_is_not_merged() -> None:
    program = OnnxFrontend().read(
        models.from_text(
            """<ir_version: 10, opset_import: ["" : 21]>
            g (float[2] x, float[2] a) => (float[2] y) { h = Add (x, a) y = Add (h, b) }""",
            a=np.ones(2, np.float32),
            b=np.ones(2, np.float32),
        )
    )
    apply(STEP, program, {"x": np.zeros(2, np.float32)})
    assert set(program.model.graph.initializers) == {"a", "b"}


def test_shapes_are_inferred_and_symbols_kept() -> None:
    program = OnnxFrontend().read(models.small_cnn())
    for node in program.model.graph:
        if not node.outputs[0].is_graph_output():
            node.outputs[0].shape = None
    STEP.run(program, Context())
    shapes = {node.op_type: node.outputs[0].shape for node in program.model.graph}
    assert shapes["Flatten"] == ir.Shape(["batch", 8])
    assert shapes["GlobalAveragePool"] == ir.Shape(["batch", 8, 1, 1])


def test_the_shape_behind_a_circuit_is_known() -> None:
    program = models.hybrid(1)
    for node in program.model.graph:
        if not node.outputs[0].is_graph_output():
            node.outputs[0].shape = None
    STEP.run(program, Context())
    shapes = {node.name: node.outputs[0].shape for node in program.model.graph}
    assert shapes["quantum0"] == ir.Shape(["batch", 2])
    assert shapes["head"] == ir.Shape(["batch", 3])


@pytest.mark.parametrize(
    "build",
    [models.with_if, models.with_loop, models.with_scan, models.with_function],
    ids=lambda build: build.__name__,
)
def test_subgraphs_and_functions_compute_the_same(build: object) -> None:
    program = OnnxFrontend().read(build())  # type: ignore[operator]
    feeds = {
        value.name: np.asarray(True)
        if value.dtype == ir.DataType.BOOL
        else np.linspace(-1, 1, int(np.prod(value.shape.numpy())), dtype=np.float32).reshape(
            value.shape.numpy()
        )
        for value in program.model.graph.inputs
    }
    apply(STEP, program, feeds)


def test_no_ops_inside_of_branches_go() -> None:
    program = OnnxFrontend().read(models.with_if())
    assert apply(STEP, program, {"x": np.ones(4, np.float32), "c": np.asarray(False)})
    branch = program.model.graph.node(1).attributes["else_branch"].as_graph()
    assert [node.op_type for node in branch] == ["Sub"]


def test_a_branch_that_only_passes_on_an_outer_value_keeps_its_node() -> None:
    program = OnnxFrontend().read(
        models.from_text(
            """<ir_version: 10, opset_import: ["" : 21]>
            g (float[2] x, bool c) => (float[2] y) {
                h = Neg (x)
                y = If (c) <then_branch = a () => (float[2] t) { t = Identity (h) },
                    else_branch = b () => (float[2] e) { e = Abs (h) }>
            }"""
        )
    )
    apply(STEP, program, {"x": np.ones(2, np.float32), "c": np.asarray(True)})


def test_a_circuit_that_no_output_needs_goes_with_its_node() -> None:
    program = models.hybrid(2)
    graph = program.model.graph
    graph.outputs[0] = graph.node(2).outputs[0]
    assert apply(STEP, program, {"x": np.ones((2, 4), np.float32)})
    assert list(program.circuits) == ["layer0"]


def test_unknown_operators_stay_untouched() -> None:
    program = OnnxFrontend().read(models.with_custom_domain())
    apply(STEP, program)
    assert ops(program) == ["Relu", "Whirl", "Neg"]
    node = program.model.graph.node(1)
    assert node.inputs[1] is None
    assert node.attributes["names"].as_strings() == ("a", "b")
    assert program.model.graph.opset_imports["acme.ops"] == 7


def test_an_old_opset_is_raised_and_the_meaning_stays() -> None:
    body = """a = Squeeze <axes: ints = [0]> (x) b = Softmax <axis: int = 0> (a)
    y = ReduceSum <axes: ints = [0]> (b)"""
    program = program_of(body, signature="float[1, 3] x", opset=11)
    x = {"x": np.arange(3, dtype=np.float32).reshape(1, 3)}
    assert apply(STEP, program, x)
    assert program.model.graph.opset_imports[""] == 21


def test_an_opset_is_only_a_number_where_no_operator_changed() -> None:
    program = program_of("y = Sin (x)", opset=7)
    assert apply(STEP, program, X)
    assert program.model.graph.opset_imports[""] == 21


def test_an_opset_that_cannot_be_raised_stays_with_a_warning() -> None:
    text = """<ir_version: 6, opset_import: ["" : 6]>
    g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Add <axis = 1, broadcast = 1> (x, b) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "b"))
    context = Context()
    program = OnnxFrontend().read(proto)
    Canonicalise().run(program, context)
    assert program.model.graph.opset_imports[""] == 6
    assert any("keeps its opset" in text for text in context.warnings)


def test_large_weights_are_not_read(tmp_path: object) -> None:
    reads: list[str] = []

    def weight() -> ir.Tensor:
        reads.append("w")
        return ir.Tensor(np.ones((64, 64), np.float32))

    program = program_of(
        "h = Identity (x) y = MatMul (h, w)", signature="float[2, 64] x, float[64, 64] w"
    )
    graph = program.model.graph
    value = graph.inputs.pop(1)
    value.const_value = ir.LazyTensor(weight, ir.DataType.FLOAT, ir.Shape([64, 64]), name="w")
    graph.register_initializer(value)
    assert apply(STEP, program)
    assert ops(program) == ["MatMul"]
    assert reads == []
    save_program(program, f"{tmp_path}/m.onnx", external_threshold=1)
    assert reads == ["w"]


def test_raising_the_opset_keeps_large_weights_where_they_are() -> None:
    proto = models.mlp((64, 64, 4))
    proto.opset_import[0].version = 12
    proto.graph.node[1].op_type = "Softmax"
    program = OnnxFrontend().read(proto)
    tensor = program.model.graph.initializers["w0"].const_value
    feeds = {"x": np.ones((2, 64), np.float32)}
    assert apply(STEP, program, feeds)
    assert program.model.graph.opset_imports[""] == 21
    assert program.model.graph.initializers["w0"].const_value is tensor


def test_equal_masks_become_one() -> None:
    program = program_of(
        "a = Add (x, m1) y = Add (a, m2)",
        signature="float[64, 64] x, float[64, 64] m1, float[64, 64] m2",
    )
    graph = program.model.graph
    for name in ("m1", "m2"):
        value = next(v for v in graph.inputs if v.name == name)
        graph.inputs.remove(value)
        value.const_value = ir.Tensor(np.triu(np.full((64, 64), -1e4, np.float32)), name=name)
        graph.register_initializer(value)
    assert apply(STEP, program)
    assert len(graph.initializers) == 1
