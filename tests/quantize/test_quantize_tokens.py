"""Integer products with an activation scale a token: exact integers, independent rows, caches."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.execute import optimized
from qcomp.node_rules import NodeRules
from qcomp.passes.quantize.folded_weights import folded_array
from qcomp.passes.quantize.integer_reference import matmul_integer, token_levels, token_matmul
from qcomp.passes.quantize.quantize_tokens import QuantizeTokens
from qcomp.passes.quantize.token_scales import largest_sum
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import ChosenWeights, QuantizationRecord, TokenCaches, sqnr
from qcomp.report.tensors import tensor_lines

MATRIX = "g (float[n, {K}] x) => (float[n, 24] y) {{ y = MatMul(x, w) }}"
HEADS = """
g (float[n, 8, 32] x) => (float[n, 8, 32] y) {
    q = MatMul(x, wq)
    k = MatMul(x, wk)
    v = MatMul(x, wv)
    qs = Reshape(q, apart)
    ks = Reshape(k, apart)
    vs = Reshape(v, apart)
    qh = Transpose<perm=[0, 2, 1, 3]>(qs)
    kh = Transpose<perm=[0, 2, 3, 1]>(ks)
    vh = Transpose<perm=[0, 2, 1, 3]>(vs)
    scores = MatMul(qh, kh)
    p = Softmax<axis=-1>(scores)
    o = MatMul(p, vh)
    oh = Transpose<perm=[0, 2, 1, 3]>(o)
    y = Reshape(oh, joined)
}"""


def matrix(build, rng, inputs=64):
    w = rng.normal(size=(inputs, 24)).astype(np.float32)
    return build(MATRIX.format(K=inputs), {"w": w})


def heads(build, rng, body=HEADS):
    weights = {n: rng.normal(0, 0.3, (32, 32)).astype(np.float32) for n in ("wq", "wk", "wv")}
    return build(body, {**weights, "apart": np.array([0, 0, 4, 8]), "joined": np.array([0, 0, 32])})


def weight_of(program, context):
    """Levels and scales of the only layer."""
    layer = context.get(QuantizationRecord).layers[0]
    made = {v.name: v for node in program.model.graph for v in node.outputs}
    levels = program.model.graph.initializers.get(layer.quantized) or made[layer.quantized]
    scale = next(iter(levels.uses())).node.inputs[1]
    return folded_array(levels).astype(np.int8), folded_array(scale)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("options", ["", ",weights=4", ",weights=3,group=16,symmetric=false"])
def test_results_are_those_of_exact_integer_sums_and_their_two_scales(
    build, compiled, run, rng, bits, options
):
    program = matrix(build, rng)
    context = compiled(program, f"canonicalise,quantize-tokens{{bits={bits}{options}}}")
    x = (rng.normal(size=(5, 64)) * np.array([[1], [30], [1e-3], [0], [1e6]])).astype(np.float32)
    levels, scale = weight_of(program, context)
    assert np.array_equal(run(program, {"x": x})["y"], token_matmul(x, levels, scale, bits))
    assert np.abs(token_levels(x, bits)[0]).max() == (1 << (bits - 1)) - 1
    kinds = [node.op_type for node in optimized(program.model).graph]
    assert kinds.count("MatMulIntegerToFloat") == 1
    assert "MatMul" not in kinds


@pytest.mark.parametrize("bits", [8, 4])
def test_the_longest_sums_of_largest_levels_are_exact(build, compiled, run, bits):
    inputs = ((1 << 31) - 1) // largest_sum(1, bits) if bits == 8 else 70_000
    program = build(
        f"g (float[n, {inputs}] x) => (float[n, 2] y) {{ y = MatMul(x, w) }}",
        {"w": np.tile(np.array([1.0, -1.0], np.float32), (inputs, 1))},
    )
    compiled(program, f"canonicalise,quantize-tokens{{bits={bits}}}")
    x = np.ones((1, inputs), np.float32)
    levels = np.full((inputs, 2), [127, -127], np.int8)
    sums = matmul_integer(token_levels(x, bits)[0], levels)
    assert np.abs(sums).max() < 1 << 31
    expected = token_matmul(x, levels, np.float32([1 / 127] * 2), bits)
    assert np.array_equal(run(program, {"x": x})["y"], expected)


def test_a_layer_whose_sums_could_leave_32_bits_stays_in_float(build, compiled):
    inputs = ((1 << 31) - 1) // largest_sum(1, 8) + 1
    program = build(
        f"g (float[n, {inputs}] x) => (float[n, 1] y) {{ y = MatMul(x, w) }}",
        {"w": np.ones((inputs, 1), np.float32)},
    )
    context = compiled(program, "canonicalise,quantize-tokens")
    assert "could leave 32 bits" in context.get(QuantizationRecord).float_ops[0].reason
    assert "could leave 32 bits" in context.warnings[0]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_row_does_not_depend_on_its_batch(mlp, compiled, run, rng, bits):
    compiled(mlp, f"canonicalise,quantize-tokens{{bits={bits},weights=4}}")
    x = rng.normal(size=(9, 64)).astype(np.float32)
    x[4] *= 1e4
    together = run(mlp, {"x": x})["y"]
    for i, row in enumerate(x):
        assert np.array_equal(run(mlp, {"x": row[None]})["y"][0], together[i])


def test_biases_are_added_behind_the_scale_of_the_token(mlp, compiled, run, rng):
    x = {"x": (rng.normal(size=(16, 64)) * 10.0 ** rng.normal(size=(16, 1))).astype(np.float32)}
    before = run(mlp, x)["y"]
    context = compiled(mlp, "canonicalise,quantize-tokens")
    assert sqnr(before, run(mlp, x)["y"]) > 38
    assert context.warnings == []  # nothing depends on a batch


@pytest.mark.parametrize(
    ("bits", "group", "kind"), [(4, 0, "s4"), (3, 0, "s3"), (8, 0, "s8"), (4, 16, "s4/16")]
)
def test_integers_that_a_pass_chose_are_stored_as_they_are(build, compiled, rng, bits, group, kind):
    program = matrix(build, rng)
    x = {"x": rng.normal(size=(64, 64)).astype(np.float32)}
    choose = f"gptq{{bits={bits},group={group},symmetric=true}}"
    context = compiled(program, f"canonicalise,{choose},quantize-tokens", x)
    layer = context.get(QuantizationRecord).layers[0]
    assert layer.weight_type == kind
    assert layer.method.startswith("gptq")
    levels, scale = weight_of(program, context)
    chosen = context.get(ChosenWeights).weights["w"].real()
    steps = 0.6 * scale if group else 1e-6 * np.abs(chosen).max()
    assert (np.abs(levels * scale - chosen) <= steps).all()


def test_an_activation_that_several_layers_read_is_quantized_once(attention):
    assert QuantizeTokens().run(attention, Context())
    kinds = [node.op_type for node in attention.model.graph]
    assert kinds.count("QuantizeLinear") == 2
    weights = [n for n in attention.model.graph.initializers if n.endswith("_quantized")]
    assert sorted(weights) == ["wk_quantized", "wq_quantized", "wv_quantized"]
    assert not QuantizeTokens().run(attention, Context())


@pytest.mark.parametrize(("bits", "bytes_a_token"), [(8, 96), (4, 64)])
def test_keys_and_values_are_rounded_for_each_token_and_head(
    build, compiled, run, rng, bits, bytes_a_token
):
    program = heads(build, rng)
    text = f"canonicalise,quantize-tokens{{kv={bits}}}"
    x = {"x": rng.normal(size=(3, 8, 32)).astype(np.float32)}
    before = run(program, x)["y"]
    context = compiled(program, text)
    onnx.checker.check_model(ir.to_proto(program.model), full_check=True)
    assert sqnr(before, run(program, x)["y"]) > (32 if bits == 8 else 14)
    tensors = context.get(TokenCaches).tensors
    assert [t.part for t in tensors] == ["keys", "values"]
    assert sum(t.bytes for t in tensors) == bytes_a_token
    assert f"{bytes_a_token} bytes a token, one of float32 256" in context.warnings[0]
    reasons = {op.node: op.reason for op in context.get(QuantizationRecord).float_ops}
    assert f"its keys are rounded to {bits} bits a token and head" in reasons["scores"]
    assert not Pipeline.parse(text).steps[1].instance.run(program, context)


def rounded_cache(x, bits, axis):
    """The rounding of keys and values in NumPy."""
    lo, hi = x.min(axis=axis, keepdims=True), x.max(axis=axis, keepdims=True)
    top = np.float32((1 << bits) - 1)
    step = np.maximum((hi - lo) / top, np.float32(2**-24)).astype(np.float16).astype(np.float32)
    lo = lo.astype(np.float16).astype(np.float32)
    q = np.clip(np.rint((x - lo) / step), 0, top).astype(np.uint8)
    return q, q.astype(np.float32) * step + lo


@pytest.mark.parametrize("bits", [8, 4])
def test_cached_integers_are_those_of_the_reference_whatever_the_scale(build, run, rng, bits):
    q, v = (rng.normal(size=(1, 2, 8, 6)).astype(np.float32) for _ in "qv")
    k = rng.normal(size=(1, 2, 6, 8)).astype(np.float32)
    k[..., 0], k[..., 1], k[..., 2] = 0, 5, 1e-9
    k[..., 3] *= 1e4
    v[0, 0, 0] += 1e3
    program = build(
        """g (float[1, 2, 8, 6] q, float[1, 2, 6, 8] k0, float[1, 2, 8, 6] v0)
        => (float[1, 2, 8, 6] y) {
            k = Identity(k0)
            v = Identity(v0)
            scores = MatMul(q, k)
            p = Softmax<axis=-1>(scores)
            y = MatMul(p, v)
        }""",
        {},
    )
    assert QuantizeTokens(kv=bits).run(program, Context())
    taps = ("k_cache_levels", "v_cache_levels", "k_cache", "v_cache")
    found = run(program, {"q": q, "k0": k, "v0": v}, taps)
    for name, x, axis in (("k", k, -2), ("v", v, -1)):
        levels, real = rounded_cache(x, bits, axis)
        assert np.array_equal(found[f"{name}_cache_levels"], levels)
        assert np.array_equal(found[f"{name}_cache"], real)
        assert levels.max() == (1 << bits) - 1


def test_a_cache_that_the_graph_takes_in_is_left_alone_with_the_reason(build, compiled, rng):
    body = HEADS.replace("float[n, 8, 32] x)", "float[n, 8, 32] x, float[n, 4, p, 8] past)")
    body = body.replace("vh = Transpose", "vn = Transpose").replace(
        "scores =", "vh = Concat<axis=2>(past, vn)\n    scores ="
    )
    body = body.replace("qh = T", "ql = T").replace("scores = MatMul(qh", "scores = MatMul(ql")
    program = heads(build, rng, body)
    context = compiled(program, "quantize-tokens{kv=8}")
    reasons = {op.node: op.reason for op in context.get(QuantizationRecord).float_ops}
    assert "come from a cache that the graph takes in" in reasons["o"]
    assert "rounded to 8 bits" in reasons["scores"]


def test_a_graph_without_attention_says_so(mlp, compiled):
    assert "no attention was found" in compiled(mlp, "quantize-tokens{kv=8}").warnings[0]


@pytest.mark.parametrize(
    ("operator", "opset"),
    [
        ("com.microsoft.MultiHeadAttention<num_heads=4>", 21),
        ("Attention<q_num_heads=4, kv_num_heads=4>", 23),
    ],
)
def test_an_operator_that_is_a_whole_attention_reads_rounded_keys_and_values(
    build, compiled, run, rng, operator, opset
):
    weights = {n: rng.normal(0, 0.3, (32, 32)).astype(np.float32) for n in ("wq", "wk", "wv")}
    program = build(
        f"""g (float[n, 8, 32] x) => (float[n, 8, 32] y) {{
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            y = {operator}(q, k, v)
        }}""",
        weights,
        opset,
    )
    x = {"x": rng.normal(size=(3, 8, 32)).astype(np.float32)}
    before = run(program, x)["y"]
    context = compiled(program, "canonicalise,quantize-tokens{kv=4}")
    assert 17 < sqnr(before, run(program, x)["y"]) < 35
    assert sum(t.bytes for t in context.get(TokenCaches).tensors) == 64
    assert not QuantizeTokens(kv=4).run(program, context)
    assert "already rounded" in context.warnings[-1]


def test_what_is_excluded_stays_and_an_override_sets_the_bits_of_a_weight(attention):
    context = Context()
    context.put(NodeRules.parse(exclude=["q", "scores"], override=["k{bits=4}"]))
    QuantizeTokens(kv=8).run(attention, context)
    record = context.get(QuantizationRecord)
    types = {layer.node: layer.weight_type for layer in record.layers}
    assert types == {"k": "s4", "v": "s8", "y": "s8"}
    reasons = {op.node: op.reason for op in record.float_ops}
    assert "excluded" in reasons["q"]
    assert "excluded" in reasons["scores"]


@pytest.mark.parametrize("options", [{}, {"kv": 8}])
def test_an_old_opset_is_refused_with_the_pass_that_raises_it(build, rng, options):
    weights = {n: rng.normal(0, 0.3, (32, 32)).astype(np.float32) for n in ("wq", "wk", "wv")}
    shapes = {"apart": np.array([0, 0, 4, 8]), "joined": np.array([0, 0, 32])}
    program = build(HEADS, {**weights, **shapes}, 13)
    with pytest.raises(PassError, match="opset 13, at least 18"):
        QuantizeTokens(**options).run(program, Context())


def test_every_tensor_is_explained(attention):
    context = Context()
    QuantizeTokens(bits=4, weights=4).run(attention, context)
    lines = {
        line.name: line
        for line in tensor_lines([attention.model], context.get(QuantizationRecord), None)
    }
    assert lines["x"].type == "s4"
    assert "does not depend on its batch" in lines["x"].why
    assert lines["wq"].type == "s4"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"bits": 6}, "bits is 6"),
        ({"weights": 5}, "weights is 5"),
        ({"weights": 4, "group": 24}, "group is 24"),
        ({"group": 32}, "weights of 8 bits"),
        ({"kv": 2}, "kv is 2"),
    ],
)
def test_options_outside_of_their_range_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        QuantizeTokens(**options)


def test_an_override_that_it_cannot_follow_is_refused(attention):
    for override in ("k{bits=5}", "k{method=mse}"):
        context = Context()
        context.put(NodeRules.parse(override=[override]))
        with pytest.raises(UsageError, match="cannot store 'k'"):
            QuantizeTokens().run(attention, context)
