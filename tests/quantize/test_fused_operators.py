"""Fused operators of ONNX Runtime and of opset 23: weights quantized, the rest listed as float.

Each graph is compiled for static INT8, dynamic INT8 and 4-bit weights, run, compared with float.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.equivalence.graphs import check_programs
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.passmanager import Context, Pipeline
from tests.quantize.real_graphs import (
    BATCH,
    LENGTH,
    LENGTHS,
    MASK,
    D,
    Draws,
    X,
    check,
    compiled,
    model,
)

DRAWS = Draws(12)
RNG, bias, matrix = DRAWS.rng, DRAWS.bias, DRAWS.matrix


@pytest.fixture(autouse=True)
def _the_same_draws() -> None:
    DRAWS.rewind()


IN, OUT = f"float[b, s, {D}] x", f"float[b, s, {D}] y"
ONES, ZEROS = np.ones(D, np.float32), np.zeros(D, np.float32)
ANGLES = np.arange(32)[:, None] / 10000 ** (np.arange(8) / 8)
CACHE = {"cos": np.cos(ANGLES).astype(np.float32), "sin": np.sin(ANGLES).astype(np.float32)}
PLACES = np.tile(np.arange(LENGTH), (BATCH, 1))
PACKED = {"wqkv": matrix(D, 3 * D), "bqkv": bias(3 * D), "wo": matrix(D, D)}
HEADS = {"wq": matrix(D, D), "wk": matrix(D, 32), "wv": matrix(D, 32), "wo": matrix(D, D)}
PROJECT = "q = MatMul(x, wq)\n k = MatMul(x, wk)\n v = MatMul(x, wv)\n"
ATTENTION = "a = com.microsoft.Attention<num_heads=4>(x, wqkv, bqkv, mask)\n y = MatMul(a, wo)"
SCORES = {"MultiHeadAttention": "attention is computed in float"}
NO_KERNEL = "no integer kernel"

CASES: Mapping[str, tuple] = {
    "Attention": (
        *(17, IN, OUT, ATTENTION.replace(", mask", ""), PACKED, {"x": X}),
        *(("a", "y"), SCORES),
    ),
    "causal Attention without bias, with a scale": (
        *(17, IN, OUT),
        "a = com.microsoft.Attention<num_heads=4,unidirectional=1,scale=0.3>(x, wqkv)\n"
        "y = MatMul(a, wo)",
        *({"wqkv": PACKED["wqkv"], "wo": PACKED["wo"]}, {"x": X}, ("a", "y"), SCORES),
    ),
    "Attention with a mask of keys": (
        *(17, f"{IN}, int32[b, s] mask", OUT, ATTENTION, PACKED, {"x": X, "mask": MASK}),
        *(("a", "y"), SCORES),
    ),
    "Attention with lengths": (
        *(17, f"{IN}, int32[b] mask", OUT, ATTENTION, PACKED, {"x": X, "mask": LENGTHS}),
        *(("a", "y"), SCORES),
    ),
    "Attention with a mask of pairs": (
        *(17, f"{IN}, int32[b, s, s] mask", OUT, ATTENTION, PACKED),
        *({"x": X, "mask": np.repeat(MASK[:, None], LENGTH, 1)}, ("a", "y"), SCORES),
    ),
    "Attention with other sizes and added scores": (
        *(17, f"{IN}, float[1, 4, s, s] add", OUT),
        "a = com.microsoft.Attention<num_heads=4,qkv_hidden_sizes=[64,64,32]>"
        "(x, wqkv, bqkv, , , add)\n y = MatMul(a, wo)",
        {"wqkv": matrix(D, 160), "bqkv": bias(160), "wo": matrix(32, D)},
        {"x": X, "add": RNG.normal(size=(1, 4, LENGTH, LENGTH)).astype(np.float32)},
        *(("a", "y"), SCORES),
    ),
    "Attention with past keys and values": (
        *(17, f"{IN}, float[2, b, 4, p, 16] past", f"{OUT}, float[2, b, 4, t, 16] present"),
        "a, present = com.microsoft.Attention<num_heads=4,unidirectional=1>"
        "(x, wqkv, bqkv, , past)\n y = MatMul(a, wo)",
        {**PACKED},
        {"x": X, "past": RNG.normal(size=(2, BATCH, 4, 5, 16)).astype(np.float32)},
        *(("a", "y"), SCORES),
    ),
    "MultiHeadAttention": (
        *(17, f"{IN}, int32[b, s] mask", OUT),
        PROJECT + "a = com.microsoft.MultiHeadAttention<num_heads=4>(q, k, v, bqkv, mask)\n"
        "y = MatMul(a, wo)",
        {**HEADS, "wk": matrix(D, D), "wv": matrix(D, D), "bqkv": bias(3 * D)},
        *({"x": X, "mask": MASK}, ("q", "k", "v", "y"), SCORES),
    ),
    "GroupQueryAttention": (
        17,
        f"{IN}, int32[b] ends, int32 total",
        f"{OUT}, float[b, 2, t, 16] pk, float[b, 2, t, 16] pv",
        PROJECT + "a, pk, pv = com.microsoft.GroupQueryAttention<num_heads=4,kv_num_heads=2,"
        "do_rotary=1>(q, k, v, , , ends, total, cos, sin)\n y = MatMul(a, wo)",
        {**HEADS, **CACHE},
        {"x": X, "ends": np.full(BATCH, LENGTH - 1, np.int32), "total": np.array(LENGTH, np.int32)},
        ("q", "k", "v", "y"),
        {"GroupQueryAttention": "attention is computed in float"},
    ),
    "RotaryEmbedding of ONNX Runtime": (
        *(17, f"{IN}, int64[b, s] p", OUT),
        "q = MatMul(x, wq)\n r = com.microsoft.RotaryEmbedding<num_heads=4>(q, p, cos, sin)\n"
        "y = MatMul(r, wo)",
        {"wq": HEADS["wq"], "wo": HEADS["wo"], **CACHE},
        *({"x": X, "p": PLACES}, ("q", "y"), {"RotaryEmbedding": NO_KERNEL}),
    ),
    "SkipLayerNormalization and BiasGelu": (
        *(17, IN, OUT),
        "a = MatMul(x, wo)\n"
        "h, m, i, sum = com.microsoft.SkipLayerNormalization<epsilon=0.00001>(a, x, g, be, bo)\n"
        "f = MatMul(h, w1)\n u = com.microsoft.BiasGelu(f, bf)\n d = MatMul(u, w2)\n"
        "y = com.microsoft.SkipLayerNormalization(d, sum, g, be)",
        {
            **{"wo": matrix(D, D), "g": ONES, "be": ZEROS, "bo": bias(D)},
            **{"w1": matrix(D, 2 * D), "bf": bias(2 * D), "w2": matrix(2 * D, D)},
        },
        *({"x": X}, ("a", "f", "d")),
        {"SkipLayerNormalization": NO_KERNEL, "BiasGelu": NO_KERNEL},
    ),
    "FastGelu, Gelu and QuickGelu": (
        *(17, IN, OUT),
        "a = MatMul(x, w1)\n b1 = com.microsoft.FastGelu(a, bf)\n c = MatMul(b1, w2)\n"
        "d = com.microsoft.Gelu(c)\n e = MatMul(d, w3)\n f = com.microsoft.QuickGelu(e)\n"
        "y = MatMul(f, w4)",
        {**{f"w{i}": matrix(D, D) for i in range(1, 5)}, "bf": bias(D)},
        *({"x": X}, ("a", "c", "e", "y")),
        {"FastGelu": NO_KERNEL, "Gelu": NO_KERNEL, "QuickGelu": NO_KERNEL},
    ),
    "FusedMatMul of a weight, and of activations": (
        *(17, IN, OUT),
        "a = com.microsoft.FusedMatMul<transB=1,alpha=0.5>(x, w1)\n"
        "t = com.microsoft.FusedMatMul<transB=1,alpha=0.125>(a, x)\n"
        "p = Softmax<axis=-1>(t)\n z = MatMul(p, x)\n y = MatMul(z, w2)",
        *({"w1": matrix(D, D), "w2": matrix(D, D)}, {"x": X}, ("a", "y")),
        {"FusedMatMul": "both operands are activations", "Softmax": "near 0"},
    ),
    "FusedGemm": (
        *(17, f"float[b, {D}] x", f"float[b, {D}] y"),
        'a = com.microsoft.FusedGemm<transB=1,activation="LeakyRelu",activation_alpha=0.2>'
        '(x, w1, b1)\n y = com.microsoft.FusedGemm<activation="Relu">(a, w2, b1)',
        *({"w1": matrix(D, D), "w2": matrix(D, D), "b1": bias(D)}, {"x": X[:, 0]}, ("a", "y")),
        {"LeakyRelu": "inputs are float"},
    ),
    "FusedConv with a sum": (
        *(17, "float[b, 8, 8, 8] x", "float[b, 8, 8, 8] y"),
        'a = com.microsoft.FusedConv<activation="Relu",pads=[1,1,1,1],kernel_shape=[3,3]>'
        '(x, w1, b1)\n y = com.microsoft.FusedConv<activation="Clip",activation_params=[0.,6.],'
        "pads=[1,1,1,1],kernel_shape=[3,3]>(a, w2, b1, x)",
        {"w1": matrix(8, 8, 3, 3) / 3, "w2": matrix(8, 8, 3, 3) / 3, "b1": bias(8)},
        {"x": RNG.normal(size=(BATCH, 8, 8, 8)).astype(np.float32)},
        *({"cpu-int8": ("a", "y")}, {"Add": "inputs are float"}),
    ),
    "EmbedLayerNormalization, whose mask Attention reads": (
        *(17, "int32[b, s] ids, int32[b, s] kind, int32[b, s] mask", OUT),
        "e, ends = com.microsoft.EmbedLayerNormalization(ids, kind, we, pe, te, g, be, mask)\n"
        "a = com.microsoft.Attention<num_heads=4>(e, wqkv, bqkv, ends)\n y = MatMul(a, wo)",
        {
            **{"we": RNG.normal(size=(300, D)).astype(np.float32), "g": ONES, "be": ZEROS},
            **{"pe": matrix(64, D), "te": matrix(2, D), **PACKED},
        },
        {
            "ids": RNG.integers(0, 300, (BATCH, LENGTH)).astype(np.int32),
            "kind": RNG.integers(0, 2, (BATCH, LENGTH)).astype(np.int32),
            "mask": MASK,
        },
        ("e", "e_positions", "a", "y"),
        {**SCORES, "LayerNormalization": NO_KERNEL, "Gather": "looked up in float"},
    ),
    "SimplifiedLayerNormalization in ONNX's own domain": (
        *(17, IN, OUT),
        "n = SimplifiedLayerNormalization<axis=-1,epsilon=0.00001,stash_type=1>(x, g)\n"
        "a = MatMul(n, w1)\n"
        "h, m, i, sum = com.microsoft.SkipSimplifiedLayerNormalization(a, x, g)\n"
        "y = MatMul(h, w2)",
        *({"g": ONES, "w1": matrix(D, D), "w2": matrix(D, D)}, {"x": X}, ("a", "y")),
        {"RMSNormalization": NO_KERNEL, "SkipSimplifiedLayerNormalization": NO_KERNEL},
    ),
    "Attention and RMSNormalization of opset 23": (
        *(23, IN, OUT),
        "n = RMSNormalization<axis=-1>(x, g)\n" + PROJECT.replace("(x", "(n") + ""
        "a = Attention<q_num_heads=4,kv_num_heads=2,is_causal=1>(q, k, v)\n y = MatMul(a, wo)",
        *({"g": ONES, **HEADS}, {"x": X}, ("q", "k", "v", "y")),
        {"Attention": "attention is computed in float", "RMSNormalization": NO_KERNEL},
    ),
    "RotaryEmbedding of opset 23": (
        *(23, f"{IN}, int64[b, s] p", OUT),
        "q = MatMul(x, wq)\n r = RotaryEmbedding<num_heads=4>(q, cos, sin, p)\n y = MatMul(r, wo)",
        {"wq": HEADS["wq"], "wo": HEADS["wo"], **CACHE},
        *({"x": X, "p": PLACES}, ("q", "y"), {"RotaryEmbedding": NO_KERNEL}),
    ),
    "Einsum with weights": (
        *(17, IN, OUT),
        'q = Einsum<equation="bsd,dhk->bshk">(x, wq)\n y = Einsum<equation="bshk,hkd->bsd">(q, wo)',
        {"wq": matrix(D, D).reshape(D, 4, 16), "wo": matrix(D, D).reshape(4, 16, D)},
        *({"x": X}, ("q", "y"), {}),
    ),
    "MatMul of a transposed weight": (
        *(17, IN, OUT, "t = Transpose(w1)\n y = MatMul(x, t)", {"w1": matrix(D, D)}),
        *({"x": X}, ("y",), {}),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_weights_are_quantized_and_what_stays_float_is_listed(case: str) -> None:
    *parts, feeds, quantized, left = CASES[case]
    check(model(*parts), feeds, quantized, left)


@pytest.mark.parametrize("case", CASES)
def test_taking_apart_keeps_the_function_to_rounding_and_finds_nothing_more(case: str) -> None:
    *parts, feeds, _, _ = CASES[case]
    program = OnnxFrontend().read(model(*parts))
    Pipeline.parse("canonicalise").run(program, Context())
    before = program.copy()
    context = Context()
    Pipeline.parse("take-apart").run(program, context)
    verdict = check_programs(before, program, inputs=feeds)
    assert verdict.equal, verdict
    made = ir.to_proto(program.model).SerializeToString(deterministic=True)
    Pipeline.parse("take-apart").run(program, context)
    assert ir.to_proto(program.model).SerializeToString(deterministic=True) == made


def test_an_excluded_fused_operator_stays_whole_and_an_override_reaches_its_weight() -> None:
    source = model(*CASES["Attention with a mask of keys"][:5])
    feeds = CASES["Attention with a mask of keys"][5]
    _, report = compiled(source, "cpu-int8", feeds, exclude=["op:Attention"])
    account = report["quantization"]
    assert [line["layer"] for line in account["layers"]] == ["y"]
    assert {"layer": "a", "op": "Attention", "reason": "excluded by op:Attention"} in account[
        "left_in_float"
    ]
    _, report = compiled(source, "cpu-int8", feeds, override=["op:Attention{bits=4}"])
    bits = {line["layer"]: line["bits"] for line in report["quantization"]["layers"]}
    assert bits["a"].startswith("s4")
    assert bits["y"] == "s8"
    assert report["warnings"] == []
    _, report = compiled(source, "cpu-dynamic-int8", feeds, include=["op:Attention"])
    assert [line["layer"] for line in report["quantization"]["layers"]] == ["a"]


def test_a_graph_that_does_not_import_the_domain_of_its_fused_operators_compiles() -> None:
    """So ONNX Runtime's optimizer for transformers writes them."""
    parts = CASES["FastGelu, Gelu and QuickGelu"]
    source = model(*parts[:5])
    del source.opset_import[1:]
    _, report = compiled(source, "cpu-dynamic-int8", {})
    assert {line["layer"] for line in report["quantization"]["layers"]} == {"a", "c", "e", "y"}


def test_attention_with_a_mask_of_unknown_rank_stays_whole_with_the_reason() -> None:
    parts = list(CASES["Attention with a mask of keys"][:5])
    source = model(*parts)
    source.graph.input[1].type.tensor_type.ClearField("shape")
    _, report = compiled(source, "cpu-dynamic-int8", {})
    reasons = {line["layer"]: line["reason"] for line in report["quantization"]["left_in_float"]}
    assert reasons["a"] == "its weights are inside of a fused operator that has no other form"


def test_attention_whose_heads_the_cpu_cannot_turn_is_one_clear_error() -> None:
    from qcomp.errors import QcompError

    source = model(
        *(17, IN, OUT),
        "a = com.microsoft.Attention<num_heads=4,do_rotary=1,unidirectional=1>(x, wqkv, bqkv)\n"
        "y = MatMul(a, wo)",
        PACKED,
    )
    with pytest.raises(QcompError, match="Rotary embedding is not supported"):
        compiled(source, "cpu-int8", {"x": X})
