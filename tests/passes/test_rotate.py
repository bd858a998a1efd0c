"""Rotations folded into weights: what turns, what stays and says why, and that outputs stay."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.node_rules import NodeRules
from qcomp.passes.graph.hadamard import Rotation
from qcomp.passes.graph.residual_stream import Refusal, ResidualStream, find_residual_stream
from qcomp.passmanager import Context, Pipeline
from tests.passes.rotate_helpers import arrays_of, rotated

WIDTH, HIDDEN, TOKENS = 24, 32, 10

NORMS = {
    "LayerNormalization": "{y} = LayerNormalization <axis: int = -1> ({x}, {g}, {b})",
    "LayerNormalization written out": """{y}_m = ReduceMean ({x}, last)
        {y}_d = Sub ({x}, {y}_m)
        {y}_p = Pow ({y}_d, two)
        {y}_v = ReduceMean ({y}_p, last)
        {y}_e = Add ({y}_v, epsilon)
        {y}_r = Sqrt ({y}_e)
        {y}_u = Div ({y}_d, {y}_r)
        {y}_g = Mul ({y}_u, {g})
        {y} = Add ({y}_g, {b})""",
    "RMSNormalization": "{y} = RMSNormalization <axis: int = -1> ({x}, {g})",
    "SimplifiedLayerNormalization": """{y} = SimplifiedLayerNormalization
        <axis: int = -1, epsilon: float = 0.00001> ({x}, {g})""",
    "RMS written out": """{y}_p = Pow ({x}, two)
        {y}_v = ReduceMean ({y}_p, last)
        {y}_e = Add (epsilon, {y}_v)
        {y}_r = Sqrt ({y}_e)
        {y}_u = Div ({x}, {y}_r)
        {y} = Mul ({g}, {y}_u)""",
    "RMS by a quotient": """{y}_p = Pow ({x}, two)
        {y}_v = ReduceMean ({y}_p, last)
        {y}_e = Add ({y}_v, epsilon)
        {y}_r = Sqrt ({y}_e)
        {y}_i = Div (one, {y}_r)
        {y}_u = Mul ({y}_i, {x})
        {y} = Mul ({y}_u, {g})""",
    "RMS by a Reciprocal": """{y}_p = Mul ({x}, {x})
        {y}_v = ReduceMean ({y}_p, last)
        {y}_e = Add ({y}_v, epsilon)
        {y}_r = Sqrt ({y}_e)
        {y}_i = Reciprocal ({y}_r)
        {y}_u = Mul ({x}, {y}_i)
        {y} = Mul ({y}_u, {g})""",
}

PRE_NORM = """
    e = Gather (table, ids)
    p = Gather (places, positions)
    x0 = Add (e, p)
    {norm0}
    a = Gemm <transB: int = 1> (n0, w1, b1)
    r = Relu (a)
    f = MatMul (r, w2)
    fb = Add (f, b2)
    x1 = Add (x0, fb)
    {norm1}
    c = MatMul (n1, w3)
    s = Tanh (c)
    x2a = Gemm (s, w4, b4)
    x2 = Add (x2a, x1)
    last_row = Identity (x2)
    {norm2}
    y = MatMul (n2, head)
"""


def program(body, norm="LayerNormalization", **changes):
    rng = np.random.default_rng(3)
    norms = {
        f"norm{i}": NORMS[norm].format(x=x, y=f"n{i}", g=f"g{i}", b=f"c{i}")
        for i, x in enumerate(("x0", "x1", "last_row"))
    }
    shapes = {
        "table": (TOKENS, WIDTH),
        "places": (16, WIDTH),
        "w1": (HIDDEN, WIDTH),
        "b1": (HIDDEN,),
        "w2": (HIDDEN, WIDTH),
        "b2": (WIDTH,),
        "w3": (WIDTH, HIDDEN),
        "w4": (HIDDEN, WIDTH),
        "b4": (WIDTH,),
        "head": (WIDTH, TOKENS),
        **{f"{kind}{i}": (WIDTH,) for i in range(3) for kind in "gc"},
    }
    arrays = {name: rng.normal(0, 0.4, shape) for name, shape in shapes.items()}
    arrays |= {name: array + 1 for name, array in arrays.items() if name[0] == "g"}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    arrays |= {"last": np.array([-1]), "two": np.float32(2), "one": np.float32(1)}
    arrays |= {"yes": np.bool_(True)}
    arrays |= {"epsilon": np.float32(1e-5)}
    arrays |= changes
    text = f"""<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>
    g (int64[n] ids, int64[n] positions) => (float[n, {TOKENS}] y) {{ {body.format(**norms)} }}"""
    proto = onnx.parser.parse_model(text)
    graphs = [proto.graph, *(a.g for node in proto.graph.node for a in node.attribute)]
    read = {name for graph in graphs for node in graph.node for name in node.input}
    for name, array in arrays.items():
        if name in read:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return Program(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))


def outputs(model):
    ids = np.arange(TOKENS)
    return HybridSession(model).run({"ids": ids, "positions": ids[::-1].copy()})["y"]


@pytest.mark.parametrize("norm", NORMS)
def test_the_stream_turns_behind_every_form_of_normalization(norm):
    model = program(PRE_NORM, norm)
    stream = find_residual_stream(model.model.graph)
    assert isinstance(stream, ResidualStream)
    assert len(stream.norms) == 3
    assert {node.op_type for node in stream.writers} == {"MatMul", "Gemm"}
    assert [len(stream.tables), len(stream.writers), len(stream.readers)] == [2, 2, 3]
    before, old = outputs(model), arrays_of(model)
    context = rotated(model)
    assert not context.warnings
    assert np.abs(outputs(model) - before).max() <= 1e-4
    now = arrays_of(model)
    for name in ("table", "places", "w1", "w2", "b2", "w3", "w4", "b4", "head"):
        assert name not in now
        assert not np.allclose(now[f"{name}_rotated"], old[name], atol=0.1)
    for name, array in now.items():  # gains are ones, or are gone
        if name.startswith("g"):
            assert (array == 1).all()
    if norm == "LayerNormalization":
        R = Rotation.random(WIDTH, Context().rng("rotate.stream"), keeps_ones=True).matrix()
        wanted = R.T @ (old["g1"][:, None].astype(np.float64) * old["w3"])
        assert np.allclose(now["w3_rotated"], wanted, rtol=0, atol=1e-6)


def test_a_second_run_changes_nothing_and_the_seed_fixes_the_bytes():
    bytes_of = []
    for seed in (0, 0, 1):
        model, context = program(PRE_NORM), Context(seed=seed)
        rotated(model, context=context)
        bytes_of.append(ir.to_proto(model.model).SerializeToString(deterministic=True))
        records = Pipeline.parse("rotate").run(model, context)
        assert not records[0].changed
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]


REFUSED = {
    "post-norm": (
        """x0 = Gather (table, ids)
        r = MatMul (x0, w3)
        f = MatMul (r, w2)
        x1 = Add (x0, f)
        n = LayerNormalization <axis: int = -1> (x1, g0, c0)
        r2 = MatMul (n, w3)
        f2 = MatMul (r2, w4)
        x2 = Add (n, f2)
        n2 = LayerNormalization <axis: int = -1> (x2, g1, c1)
        y = MatMul (n2, head)""",
        "n",
        "post-norm",
    ),
    "sandwich norm": (
        """x0 = Gather (table, ids)
        r = MatMul (x0, w3)
        f = MatMul (r, w2)
        inner = RMSNormalization <axis: int = -1> (f, g0)
        x1 = Add (x0, inner)
        n2 = RMSNormalization <axis: int = -1> (x1, g1)
        y = MatMul (n2, head)""",
        "inner",
        "sandwich",
    ),
    "another operator reads it": (
        """x0 = Gather (table, ids)
        r = Relu (x0)
        f = MatMul (r, square)
        x1 = Add (x0, f)
        n2 = RMSNormalization <axis: int = -1> (x1, g1)
        y = MatMul (n2, head)""",
        "r",
        "Relu reads the stream",
    ),
    "another operator writes it": (
        """x0 = Gather (table, ids)
        c = Cos (x0)
        x1 = Add (x0, c)
        n2 = RMSNormalization <axis: int = -1> (x1, g1)
        y = MatMul (n2, head)""",
        "c",
        "Cos writes the stream",
    ),
    "the normalization is read otherwise": (
        """x0 = Gather (table, ids)
        f = MatMul (x0, square)
        x1 = Add (x0, f)
        n2 = RMSNormalization <axis: int = -1> (x1, g1)
        t = Tanh (n2)
        y = MatMul (t, head)""",
        "t",
        "Tanh reads 'n2'",
    ),
    "nothing is added": (
        """x0 = Gather (table, ids)
        n2 = RMSNormalization <axis: int = -1> (x0, g1)
        y = MatMul (n2, head)""",
        "n2",
        "nothing is added",
    ),
    "fused with the addition": (
        """x0 = Gather (table, ids)
        f = MatMul (x0, square)
        n2 = com.microsoft.SkipSimplifiedLayerNormalization (x0, f, g1)
        y = MatMul (n2, head)""",
        "n2",
        "adds and normalizes in one",
    ),
    "an If reads it": (
        """x0 = Gather (table, ids)
        f = MatMul (x0, square)
        x1 = Add (x0, f)
        u = If (yes) <
            then_branch = a () => (float[n, m] t) {{ t = MatMul (x1, head) }},
            else_branch = b () => (float[n, m] e) {{ e = MatMul (x0, head) }}
        >
        n2 = RMSNormalization <axis: int = -1> (x1, g1)
        v = MatMul (n2, head)
        y = Add (u, v)""",
        "e",
        "from inside of an If",
    ),
    "no normalization": ("y = Gather (table, ids)", "", "no normalization"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_network_without_a_stream_that_can_turn_stays_and_says_why(kind):
    body, where, why = REFUSED[kind]
    rng = np.random.default_rng(1)
    square = rng.normal(0, 0.2, (WIDTH, WIDTH)).astype(np.float32)
    changes = {} if kind != "no normalization" else {"table": np.eye(TOKENS, dtype=np.float32)}
    model = program(body, square=square, **changes)
    for node in model.model.graph.all_nodes():
        node.name = node.outputs[0].name
    found = find_residual_stream(model.model.graph)
    assert isinstance(found, Refusal)
    assert found.where == where
    assert why in found.why
    old = arrays_of(model)
    context = rotated(model)
    assert len(context.warnings) == 1
    assert why in context.warnings[0]
    assert where in context.warnings[0]
    assert arrays_of(model).keys() == old.keys()


def test_a_stream_that_is_an_output_or_begins_at_an_input_stays():
    text = """<ir_version: 10, opset_import: ["" : 23]>
    g (float[n, 4] x) => (float[n, 4] y) {
        f = MatMul (x, w)
        x1 = Add (x, f)
        n = RMSNormalization <axis: int = -1> (x1, g)
        y = MatMul (n, w)
    }"""
    proto = onnx.parser.parse_model(text)
    for name, array in {"w": np.eye(4), "g": np.ones(4)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    found = find_residual_stream(ir.from_proto(proto).graph)
    assert found == Refusal("x", "the stream begins at an input of the graph")
    model = program(PRE_NORM)
    stream = next(node.outputs[0] for node in model.model.graph if node.outputs[0].name == "x1")
    model.model.graph.outputs.append(stream)
    found = find_residual_stream(model.model.graph)
    assert isinstance(found, Refusal)
    assert found.where == "x1"
    assert "output of the graph" in found.why


def test_two_towers_turn_each_by_itself():
    tower = """x{i} = Gather (table, ids)
        f{i} = MatMul (x{i}, square)
        z{i} = Add (x{i}, f{i})
        n{i} = {kind} <axis: int = -1> (z{i}, g{i})
        y{i} = MatMul (n{i}, head)"""
    kinds = ("LayerNormalization", "RMSNormalization")
    body = "\n".join(tower.format(i=i, kind=kind) for i, kind in enumerate(kinds))
    square = np.random.default_rng(1).normal(0, 0.2, (WIDTH, WIDTH)).astype(np.float32)
    model = program(body + "\ny = Add (y0, y1)", square=square)
    before = outputs(model)
    context = rotated(model)
    now = arrays_of(model)
    # One table and one matrix a tower, and a warning about the bytes of each.
    assert {"table_rotated", "table_rotated_2", "head_rotated", "head_rotated_2"} <= set(now)
    assert len(context.warnings) == 3
    assert np.abs(outputs(model) - before).max() <= 1e-5


def test_an_excluded_operator_keeps_its_weight_and_is_named():
    model = program(PRE_NORM)
    found = find_residual_stream(model.model.graph, NodeRules.parse(["op:Gemm"]))
    assert isinstance(found, Refusal)
    assert "excluded by op:Gemm" in found.why


def test_tied_embeddings_are_untied_and_the_bytes_are_said():
    body = PRE_NORM.replace("y = MatMul (n2, head)", "y = Gemm <transB: int = 1> (n2, table)")
    model = program(body)
    before = outputs(model)
    context = rotated(model)
    assert np.abs(outputs(model) - before).max() <= 1e-4
    assert "'table' was one tensor and is 2" in context.warnings[0]
    assert f" {4 * TOKENS * WIDTH} bytes more" in context.warnings[0]
    model = program(body, g2=np.ones(WIDTH, np.float32))
    assert not rotated(model).warnings  # without gains between they turn alike and stay one


def test_a_width_without_a_hadamard_matrix_stays_with_the_nearest_ones():
    rng = np.random.default_rng(0)
    body = """x0 = Gather (table, ids)
        f = MatMul (x0, square)
        x1 = Add (x0, f)
        n2 = RMSNormalization <axis: int = -1> (x1, g1)
        y = MatMul (n2, head)"""
    shapes = {"table": (TOKENS, 22), "square": (22, 22), "g1": (22,), "head": (22, TOKENS)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    context = rotated(program(body, **weights))
    assert (
        "no Hadamard matrix of size 22 can be made, the nearest are 20 and 24"
        in context.warnings[0]
    )


def test_outputs_that_change_by_more_than_rounding_are_an_error():
    # Float32 cannot hold 1 beside 1e7: which bits get lost is another matter in other axes.
    offset = np.zeros(WIDTH, np.float32)
    offset[3] = 1e7
    body = PRE_NORM.replace(
        "x2 = Add (x2a, x1)", "x2b = Add (x2a, up)\nx2c = Add (x2b, x1)\nx2 = Add (x2c, down)"
    )
    model = program(body, up=offset, down=-offset)
    with pytest.raises(PassError, match="the output 'y' changed by"):
        rotated(model)


def test_outputs_that_cannot_be_compared_are_said_and_bad_calibration_data_is_an_error():
    model = program(PRE_NORM)
    model.model.graph.inputs[0].shape = None
    context = rotated(model)
    assert context.warnings == [
        "rotate: the outputs were not compared: no values can be made up for the input 'ids'"
    ]
    data = {"ids": np.arange(3), "places": np.arange(3)}
    with pytest.raises(UsageError, match="'places', which is no input"):
        rotated(program(PRE_NORM), context=Context(calibration=lambda: iter([data])))
