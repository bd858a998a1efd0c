"""rsq: which attention a layer belongs to, and what its tokens count by it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.errors import UsageError
from qcomp.ir.program import Program
from qcomp.passes.graph.attention_tokens import attentions_of_layers
from qcomp.passes.quantize.rsq import Rsq
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import ChosenWeights
from tests.models import mlp
from tests.papers.low_bit import char_model

RNG = np.random.default_rng(3)
SHAPES = {name: (16, 16) for name in ("wq", "wk", "wv", "wo", "wi", "wp")}
ATTENTIONS = {
    "written out": """
        s = MatMul (q, kt)
        p = Softmax <axis: int = -1> (s)
        m = MatMul (p, v)""",
    "Attention": "m = Attention <q_num_heads: int = 1, kv_num_heads: int = 1, scale: float = 1.0>"
    " (q, k, v)",
    "MultiHeadAttention": "m = com.microsoft.MultiHeadAttention <num_heads: int = 1,"
    " scale: float = 1.0> (q, k, v)",
}


def block(attention: str = "written out", keys: str = "h") -> Program:
    """A projection, one attention, a projection; ``keys``: what keys and values are made of."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>
        g (float[n, 5, 16] x, float[n, 5, 16] z) => (float[n, 5, 16] y, float[n, 16] c) {{
        h = MatMul (x, wi)
        q = MatMul (h, wq)
        k = MatMul ({keys}, wk)
        kt = Transpose <perm: ints = [0, 2, 1]> (k)
        v = MatMul ({keys}, wv)
        {ATTENTIONS[attention]}
        y = MatMul (m, wo)
        first = Gather <axis: int = 1> (y, zero)
        c = MatMul (first, wp) }}"""
    )
    arrays = {name: RNG.normal(0, 0.4, shape).astype(np.float32) for name, shape in SHAPES.items()}
    arrays["zero"] = np.int64(0)
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return Program(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))


def data(count: int = 6) -> dict[str, np.ndarray]:
    return {name: RNG.normal(size=(count, 5, 16)).astype(np.float32) for name in "xz"}


def chosen(program: Program, text: str, feeds: dict[str, np.ndarray]):
    context = Context(calibration=lambda: iter([feeds]))
    Pipeline.parse(f"canonicalise,fold-constants,{text}").run(program, context)
    return context.need(ChosenWeights, "rsq").weights, context.warnings


def layers(program: Program) -> dict[str, ir.Node]:
    return {
        node.inputs[1].name: node
        for node in program.model.graph
        if node.op_type == "MatMul" and node.inputs[1].is_initializer()
    }


def test_layers_belong_to_the_attention_they_feed_or_the_last_one_before():
    weights, _ = char_model.load()
    program = Program(ir.from_proto(char_model.graph(weights)))
    nodes = layers(program)
    found = attentions_of_layers(program.model.graph, nodes.values())
    for name, node in nodes.items():
        attention = found[node]
        assert attention is not None
        number = "1" if name == "head" else name.partition(".")[0]
        assert attention.name == f"{number}.mixed"


def test_an_attention_over_another_tensors_tokens_does_not_count():
    program = block(keys="z")
    found = attentions_of_layers(program.model.graph, layers(program).values())
    assert set(found.values()) == {None}


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_tokens_count_by_what_every_kind_of_attention_gives_them(attention, monkeypatch):
    program, feeds = block(attention), data()
    if attention != "written out":
        node = next(n for n in program.model.graph if n.outputs[0].name == "kt")
        program.model.graph.remove(node, safe=True)
    weights = program.model.graph.initializers
    arrays = {name: value.const_value.numpy() for name, value in weights.items()}
    h = feeds["x"] @ arrays["wi"]
    s = (h @ arrays["wq"]) @ np.swapaxes(h @ arrays["wk"], 1, 2)
    p = np.exp(s - s.max(axis=-1, keepdims=True))
    a = (p / p.sum(axis=-1, keepdims=True)).sum(axis=1)
    low, high = a.min(axis=1, keepdims=True), a.max(axis=1, keepdims=True)
    wanted = (0.2 + 0.8 * (a - low) / (high - low)).reshape(-1)
    seen: list[np.ndarray] = []
    mapped = Rsq._mapped
    monkeypatch.setattr(Rsq, "_mapped", lambda self, a: seen.append(mapped(self, a)) or seen[-1])
    rounded, warnings = chosen(program, "rsq{least=0.2}", feeds)
    assert set(rounded) == set(SHAPES)
    assert len(seen) == 2  # of what q, k and v read, and of what the projection reads
    for r in seen:
        assert np.allclose(r, wanted, atol=1e-4)
    assert warnings == [
        "rsq: 1 layers have no attention before them, 'h' the first: their tokens count the same",
        "rsq: the rows of 'c' are not the tokens of 'm': they count the same",
    ]


def test_keys_of_the_past_are_no_rows_of_the_layer():
    weights, _ = char_model.load()
    program = Program(ir.from_proto(char_model.graph(weights, past=True)))
    feeds = {"ids": RNG.integers(0, 90, (4, 3))}
    for value in program.model.graph.inputs[1:]:
        feeds[value.name] = RNG.normal(size=(4, 4, 7, 32)).astype(np.float32)
    _, warnings = chosen(program, "rsq{bits=3}", feeds)
    assert not warnings


def test_equal_importance_is_gptq_bit_for_bit():
    program, feeds = block(), data()
    found = {}
    for text in ("gptq", "rsq{importance=uniform}", "rsq{least=1.0}"):
        copy = Program(program.model.clone(), {}, program.source)
        found[text], _ = chosen(copy, text, feeds)
    plain = found.pop("gptq")
    for weights in found.values():
        for name, weight in weights.items():
            assert np.array_equal(weight.levels, plain[name].levels)
            assert np.array_equal(weight.scale, plain[name].scale)


@pytest.mark.parametrize(
    ("importance", "wanted"),
    [("norm", [0.0, 0.5, 1.0]), ("first", [1.0, 1.0, 0.0])],
)
def test_tokens_count_by_the_length_of_their_input_or_their_place(importance, wanted):
    method = Rsq(importance=importance, least=0.0)
    weigh = method.token_weights(block(), [], [], Context())
    assert weigh is not None
    x = np.zeros((2, 3, 4), np.float32)
    x[:, :, 1] = [1.0, 2.0, 3.0]
    assert np.allclose(weigh(None, 0, x), wanted * 2)


def test_a_graph_without_attention_is_reported_and_rounded_as_by_gptq():
    model, feeds = mlp((16, 8, 4)), {"x": RNG.normal(size=(64, 16)).astype(np.float32)}
    weights, warnings = chosen(Program(ir.from_proto(model)), "rsq", feeds)
    assert len(warnings) == 1
    assert "no attention of a tensor with itself was found" in warnings[0]
    plain, _ = chosen(Program(ir.from_proto(model)), "gptq", feeds)
    for name, weight in weights.items():
        assert np.array_equal(weight.levels, plain[name].levels)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"importance": "luck"}, "importance is 'luck'"),
        ({"least": 2.0}, "weights go from 2.0 to 1.0"),
        ({"least": 0.0, "most": 0.0}, "weights go from 0.0 to 0.0"),
    ],
)
def test_options_outside_their_range_are_refused(options, what):
    with pytest.raises(UsageError, match=what):
        Rsq(**options)
