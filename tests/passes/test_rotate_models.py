"""Rotations of whole networks: a decoder part by part, kinds of attention, a vision transformer."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.passes.graph.hadamard import Rotation
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import QuantizationRecord, rules_of
from tests.papers.low_bit import char_model
from tests.passes.rotate_helpers import arrays_of, rotated


@pytest.fixture
def decoder():
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
        ("stream=false,heads=false,keys=true", set()),
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
    weights, _ = char_model.load()
    model = Program(ir.from_proto(char_model.graph(weights, past=True)))
    context = Context()
    Pipeline.parse("canonicalise,fold-constants,rotate{stream=false}").run(model, context)
    assert "0.v" in arrays_of(model)
    assert "the values of 2 attentions stay, '0.mixed' the first" in context.warnings[0]


def test_a_head_that_is_a_copy_of_the_embedding_is_named_with_its_bytes():
    weights, _ = char_model.load()
    weights["head"] = weights["embedding"].T.copy()
    model = Program(ir.from_proto(char_model.graph(weights)))
    context = rotated(model, "canonicalise,fold-constants,rotate")
    assert "'head' had the values of 'embedding'" in context.warnings[0]
    assert f"not any more: {weights['head'].nbytes} bytes" in context.warnings[0]


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
    record = context.need(QuantizationRecord, "quantize-dynamic")
    whys = {op.reason for op in record.float_ops if op.node in floats}
    assert whys == {
        "it turns an activation while the graph runs: products with small matrices stay in float"
    }


def test_queries_and_keys_turn_alike_behind_rotary_positions_and_stay_in_float(decoder):
    model, run = decoder
    before = run()
    context = Context()
    Pipeline.parse("rotate{stream=false,heads=false,keys=true}").run(model, context)
    for block in "01":
        node = next(n for n in model.model.graph if n.outputs[0].name == f"{block}.scores")
        turned = [node.inputs[0].producer(), node.inputs[1].producer().inputs[0].producer()]
        for product, name in zip(turned, ("q", "k"), strict=True):
            assert product.inputs[0].name == f"{block}.{name}.rotated"
            H = product.inputs[1].const_value.numpy()
            assert np.allclose(H @ H.T, np.eye(32), atol=1e-6)
            assert rules_of(context).options(product).excluded
    assert np.abs(run() - before).max() <= 1e-4
    assert not rotated(model, "rotate{stream=false,heads=false,keys=true}", context).warnings


def test_keys_of_a_cache_that_the_graph_takes_in_do_not_turn():
    weights, _ = char_model.load()
    model = Program(ir.from_proto(char_model.graph(weights, past=True)))
    context = rotated(model, "canonicalise,rotate{stream=false,heads=false,keys=true}")
    wanted = "stay: a cache that the graph takes in or gives out holds the keys as they are"
    assert sum(wanted in warning for warning in context.warnings) == 2
    assert not any("hadamard" in node.name for node in model.model.graph)


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


def test_the_stream_of_a_vision_transformer_begins_at_its_convolution():
    rng = np.random.default_rng(6)
    shapes = {"wc": (16, 3, 4, 4), "bc": (16,), "cls": (1, 1, 16), "places": (1, 5, 16)}
    shapes |= {"g": (16,), "b": (16,), "w1": (16, 32), "w2": (32, 16), "b2": (16,), "head": (16, 7)}
    arrays = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    old = dict(arrays)
    arrays |= {"flat": np.array([0, 16, -1]), "many": np.array([2, 1, 1]), "zero": np.array(0)}
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
        g (float[2, 3, 8, 8] x) => (float[2, 7] y) {
        c = Conv <strides: ints = [4, 4]> (x, wc, bc)
        f = Reshape (c, flat)
        t = Transpose <perm: ints = [0, 2, 1]> (f)
        first = Expand (cls, many)
        all = Concat <axis: int = 1> (first, t)
        x0 = Add (all, places)
        n0 = LayerNormalization <axis: int = -1> (x0, g, b)
        h = MatMul (n0, w1)
        r = Relu (h)
        o = MatMul (r, w2)
        ob = Add (o, b2)
        x1 = Add (ob, x0)
        n1 = LayerNormalization <axis: int = 2> (x1, g, b)
        row = Gather <axis: int = 1> (n1, zero)
        y = MatMul (row, head)
    }""")
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = Program(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))
    images = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    before = HybridSession(model).run({"x": images})["y"]
    context = rotated(model)
    assert not context.warnings
    now = arrays_of(model)
    R = Rotation.random(16, Context().rng("rotate.stream"), keeps_ones=True).matrix()
    for name in ("bc", "cls", "places", "b2", "w2"):
        assert np.allclose(now[f"{name}_rotated"], old[name] @ R, atol=1e-6)
    assert np.allclose(now["wc_rotated"], np.tensordot(R.T, old["wc"], 1), atol=1e-6)
    assert np.abs(HybridSession(model).run({"x": images})["y"] - before).max() <= 1e-5
