"""Rotations folded into weights: what turns, what stays and says why, and that outputs stay."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.node_rules import NodeRules
from qcomp.passes.graph.hadamard import Rotation, hadamard, has_hadamard
from qcomp.passes.graph.residual_stream import Refusal, ResidualStream, find_residual_stream
from qcomp.passmanager import Context, Pipeline

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


def rotated(model, text="rotate", context=None):
    context = context or Context()
    Pipeline.parse(text).run(model, context)
    return context


def arrays_of(model):
    return {n: v.const_value.numpy() for n, v in model.model.graph.initializers.items()}


@pytest.mark.parametrize("n", [*(n for n in range(1, 141) if has_hadamard(n)), 344])
def test_rows_of_a_hadamard_matrix_are_exactly_orthogonal(n):
    H = hadamard(n).astype(np.int64)
    assert set(np.unique(H)) <= {-1, 1}
    assert np.array_equal(H @ H.T, n * np.eye(n, dtype=np.int64))


@pytest.mark.parametrize("n", [12, 28, 52, 100, 108, 128, 344, 768, 5120, 11008, 13824, 14336])
def test_sizes_of_transformers_have_a_hadamard_matrix(n):
    assert has_hadamard(n)


@pytest.mark.parametrize(("n", "near"), [(92, "88 and 96"), (30, "28 and 32"), (0, "1")])
def test_a_size_without_a_matrix_is_refused_with_the_nearest_ones(n, near):
    with pytest.raises(UsageError, match=f"size {n} ") as caught:
        hadamard(n)
    assert near in str(caught.value)


@pytest.mark.parametrize("keeps_ones", [False, True])
@pytest.mark.parametrize("n", [2, 12, 40, 384])
def test_a_random_rotation_is_orthogonal_and_spreads_every_coordinate(n, keeps_ones):
    R = Rotation.random(n, np.random.default_rng(0), keeps_ones=keeps_ones)
    matrix = R.matrix()
    assert np.abs(matrix @ matrix.T - np.eye(n)).max() < 1e-13
    if keeps_ones:
        assert np.abs(matrix.sum(0) - 1).max() < 1e-12
        assert np.abs(matrix.sum(1) - 1).max() < 1e-12
    else:
        assert np.allclose(matrix, R.signs[:, None] * hadamard(n) / np.sqrt(n))
    X = np.random.default_rng(1).normal(size=(n, 3))
    assert np.allclose(R.along(X, 0), matrix.T @ X)


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


@pytest.fixture
def decoder():
    from tests.papers.low_bit import char_model

    weights, _ = char_model.load()
    model = Program(ir.from_proto(char_model.graph(weights)))
    Pipeline.parse("canonicalise,fold-constants").run(model, Context())
    ids = np.random.default_rng(0).integers(0, len(weights["embedding"]), (2, 32))
    return model, lambda: HybridSession(model).run({"ids": ids})["logits"]


@pytest.mark.parametrize(
    ("options", "turned"),
    [
        ("heads=false", {"embedding", "0.q", "0.o", "1.down", "head"}),
        ("stream=false", {"0.v", "0.o", "1.v", "1.o"}),
        ("stream=false,heads=false,online=true", {"0.down", "1.down"}),
    ],
)
def test_a_decoder_turns_part_by_part_with_the_same_logits(decoder, options, turned):
    model, run = decoder
    before, names = run(), set(arrays_of(model))
    rotated(model, f"rotate{{{options}}}")
    gone = names - set(arrays_of(model))
    assert turned <= gone
    if "stream=false" in options:
        assert turned == gone
    assert np.abs(run() - before).max() <= 1e-4


def test_values_of_heads_turn_where_the_stream_is_refused(decoder):
    model, run = decoder
    # The last Add of the stream is an output too.
    final = next(node.outputs[0] for node in model.model.graph if node.outputs[0].name == "1.x")
    model.model.graph.outputs.append(final)
    before = run()
    context = rotated(model)
    assert "because of '1.x': the stream itself is an output of the graph" in context.warnings[0]
    assert {"0.v_rotated", "1.o_rotated"} <= set(arrays_of(model))
    assert "embedding" in arrays_of(model)
    assert np.abs(run() - before).max() <= 1e-4


def test_values_that_leave_the_graph_as_a_cache_do_not_turn():
    from tests.papers.low_bit import char_model

    weights, _ = char_model.load()
    model = Program(ir.from_proto(char_model.graph(weights, past=True)))
    context = Context()
    Pipeline.parse("canonicalise,fold-constants,rotate{stream=false}").run(model, context)
    assert "0.v" in arrays_of(model)
    assert "the values of 2 attentions stay, '0.mixed' the first" in context.warnings[0]


def test_hadamard_products_at_run_time_stay_in_float(decoder):
    model, _ = decoder
    context = rotated(model, "rotate{online=true}")
    Pipeline.parse("quantize-dynamic").run(model, context)
    constant = {n for n, a in arrays_of(model).items() if a.dtype == np.float32 and a.ndim == 2}
    floats = [
        node.name
        for node in model.model.graph
        if node.op_type == "MatMul" and any(v.name in constant for v in node.inputs)
    ]
    assert len(floats) == 4  # two for each down-projection
    assert all("hadamard" in name for name in floats)


ATTENTIONS = {
    "heads that share values": """
        q1 = MatMul (x, wq)
        q2 = Reshape (q1, to_queries)
        q = Transpose <perm: ints = [0, 2, 1, 3]> (q2)
        k1 = MatMul (x, wk)
        k2 = Reshape (k1, to_values)
        k3 = Transpose <perm: ints = [0, 2, 3, 1]> (k2)
        k4 = Unsqueeze (k3, two)
        k5 = Expand (k4, twice)
        k = Reshape (k5, to_keys)
        v1 = MatMul (x, wv)
        vb = Add (bv, v1)
        v2 = Reshape (vb, to_values)
        v3 = Transpose <perm: ints = [0, 2, 1, 3]> (v2)
        v4 = Unsqueeze (v3, two)
        v5 = Expand (v4, twice)
        v = Reshape (v5, to_repeated)
        s = MatMul (q, k)
        p = Softmax <axis: int = -1> (s)
        m1 = MatMul (p, v)
        m2 = Transpose <perm: ints = [0, 2, 1, 3]> (m1)
        m = Reshape (m2, joined)
        y = MatMul (m, wo)""",
    "Attention": """
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v1 = MatMul (x, wv)
        v = Add (v1, bv)
        m = Attention <q_num_heads: int = 4, kv_num_heads: int = 2> (q, k, v)
        y = MatMul (m, wo)""",
    "MultiHeadAttention": """
        q = MatMul (x, wk)
        k = MatMul (x, wk)
        v1 = MatMul (x, wv)
        v = Add (v1, bv)
        m = com.microsoft.MultiHeadAttention <num_heads: int = 2> (q, k, v)
        y = MatMul (m, wo2)""",
}


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_values_of_every_kind_of_attention_turn_head_by_head(kind):
    rng = np.random.default_rng(5)
    shapes = {"wq": (16, 32), "wk": (16, 16), "wv": (16, 16), "bv": (16,)}
    shapes |= {"wo": (32, 16), "wo2": (16, 16)}
    arrays = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {
        "to_queries": np.array([0, 0, 4, 8]),
        "to_values": np.array([0, 0, 2, 8]),
        "two": np.array([2]),
        "twice": np.array([1, 1, 2, 1, 1]),
        "to_keys": np.array([0, 4, 8, -1]),
        "to_repeated": np.array([0, 4, -1, 8]),
        "joined": np.array([0, 0, 32]),
    }
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>
        g (float[n, 5, 16] x) => (float[n, 5, 16] y) {{ {ATTENTIONS[kind]} }}"""
    )
    read = {name for node in proto.graph.node for name in node.input}
    for name in read & set(arrays):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(arrays[name], name))
    model = Program(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))
    x = rng.normal(size=(3, 5, 16)).astype(np.float32)
    before = HybridSession(model).run({"x": x})["y"]
    rotated(model, "rotate{stream=false}")
    now = arrays_of(model)
    out = "wo2" if kind == "MultiHeadAttention" else "wo"
    assert {"wv_rotated", "bv_rotated", f"{out}_rotated"} <= set(now)
    R = Rotation.random(8, Context().rng("rotate.heads")).matrix()
    wanted = (arrays["wv"].reshape(16, 2, 8) @ R).reshape(16, 16)
    assert np.allclose(now["wv_rotated"], wanted, atol=1e-6)
    assert np.abs(HybridSession(model).run({"x": x})["y"] - before).max() <= 1e-5
