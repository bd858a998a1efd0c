"""SmoothAttention: which projections take it, the function stays, what is left has its reason."""

import numpy as np
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.node_rules import NodeRules
from qcomp.passes.calibrate.smooth_attention import SmoothAttention
from qcomp.passmanager import Context, Pipeline

BODY = """
g (float[n, 6, 32] x) => (float[n, 6, 32] y) {{
    q0 = MatMul(x, wq)
    q = Add(q0, bq)
    k0 = MatMul(x, wk)
    k = Add(bk, k0)
    v = MatMul(x, wv)
    qs = Reshape(q, apart)
    {norm}
    vs = Reshape(v, {few})
    qh = Transpose<perm=[0, 2, 1, 3]>(qs)
    kh = Transpose<perm=[0, 2, 1, 3]>(ks)
    vh = Transpose<perm=[0, 2, 1, 3]>(vs)
    {rotary}
    qx = Mul({q}, factor)
    {repeat}
    kt = Transpose<perm=[0, 1, 3, 2]>(kx)
    scores = MatMul(qx, kt)
    p = Softmax<axis=-1>(scores)
    o = MatMul(p, vx)
    oh = Transpose<perm=[0, 2, 1, 3]>(o)
    y = Reshape(oh, joined)
}}"""
REPEAT = """{0}1 = Unsqueeze({1}, two)
    {0}2 = Expand({0}1, wide)
    {0}x = Reshape({0}2, all_heads)
    """


def rotary(kind, name):
    if kind == "op":
        return f"{name}r = com.microsoft.RotaryEmbedding({name}h, where, cos, sin)\n    "
    if kind == "op_neighbours":
        turn = "com.microsoft.RotaryEmbedding<interleaved=1>"
        return f"{name}r = {turn}({name}h, where, cos, sin)\n    "
    return f"""{name}l, {name}u = Split<axis=-1, num_outputs=2>({name}h)
    {name}minus = Neg({name}u)
    {name}turned = Concat<axis=-1>({name}minus, {name}l)
    {name}straight = Mul({name}h, cosines)
    {name}across = Mul({name}turned, sines)
    {name}r = Add({name}straight, {name}across)
    """


def attention(build, rng, kind="", shared=False, norm=""):
    heads = 2 if shared else 4
    turned = "".join(rotary(kind, name) for name in "qk") if kind else ""
    q, k = ("qr", "kr") if kind else ("qh", "kh")
    copies = [REPEAT.format("k", k), REPEAT.format("v", "vh")] if shared else []
    plain = f"kx = Identity({k})\n    vx = Identity(vh)"
    body = BODY.format(
        few="few" if shared else "apart",
        norm=norm or f"ks = Reshape(k, {'few' if shared else 'apart'})",
        rotary=turned,
        q=q,
        repeat="".join(copies) or plain,
    )
    angles = np.outer(np.arange(6), 10.0 ** -np.arange(4))
    weights = {
        "wq": rng.normal(0, 0.3, (32, 32)),
        "wk": rng.normal(0, 0.3, (32, 8 * heads)) * 10.0 ** rng.normal(size=8 * heads),
        "wv": rng.normal(0, 0.3, (32, 8 * heads)),
        "bq": rng.normal(size=32),
        "bk": rng.normal(size=8 * heads),
        "cos": np.cos(angles),
        "sin": np.sin(angles),
        "cosines": np.cos(np.tile(angles, 2)),
        "sines": np.sin(np.tile(angles, 2)),
        "factor": np.array(8**-0.5),
    }
    weights["wk"][:, 3] *= 30
    shapes = {
        "apart": [0, 0, 4, 8],
        "few": [0, 0, 2, 8],
        "joined": [0, 0, 32],
        "two": [2],
        "last": [-1],
        "wide": [1, 1, 2, 1, 1],
        "all_heads": [0, 4, 6, 8],
    }
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    arrays |= {name: np.array(shape) for name, shape in shapes.items()}
    return build(body, {**arrays, "where": np.array([0])})


def smoothed(program, x, rules=None):
    context = Context(calibration=lambda: iter([x]))
    context.put(rules or NodeRules())
    Pipeline.parse("canonicalise,fold-constants").run(program, context)
    return SmoothAttention().run(program, context), context


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["", "halves", "op", "op_neighbours"])
def test_keys_are_even_the_function_stays_and_a_second_run_does_nothing(
    build, run, rng, kind, shared
):
    program = attention(build, rng, kind, shared)
    x = {"x": rng.normal(size=(16, 6, 32)).astype(np.float32)}
    before = run(program, x, ("k",))
    changed, context = smoothed(program, x)
    assert changed
    assert context.warnings == []
    after = run(program, x, ("k",))
    assert np.abs(after["y"] - before["y"]).max() <= 1e-4

    def spread(values):
        peaks = np.abs(values).max(axis=(0, 1)).reshape(-1, 8)
        return (peaks.max(axis=1) / np.median(peaks, axis=1)).max()

    assert spread(after["k"]) < 0.4 * spread(before["k"])
    assert not SmoothAttention().run(program, context)


def test_an_operator_that_is_a_whole_attention_has_its_keys_smoothed(build, run, rng):
    weights = {n: rng.normal(0, 0.3, (32, 32)).astype(np.float32) for n in ("wq", "wk", "wv")}
    weights["wk"][:, 5] *= 30
    program = build(
        """g (float[n, 6, 32] x) => (float[n, 6, 32] y) {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            y = com.microsoft.MultiHeadAttention<num_heads=4>(q, k, v)
        }""",
        weights,
    )
    x = {"x": rng.normal(size=(4, 6, 32)).astype(np.float32)}
    before = run(program, x, ("k",))
    assert smoothed(program, x)[0]
    after = run(program, x, ("k",))
    assert np.abs(after["y"] - before["y"]).max() <= 1e-4
    assert np.abs(after["k"]).max() < 0.4 * np.abs(before["k"]).max()


def test_an_attention_that_cannot_take_it_is_named_with_the_reason(build, rng):
    program = attention(build, rng)
    projection = next(n for n in program.model.graph if n.outputs[0].name == "k0")
    x = {"x": rng.normal(size=(16, 6, 32)).astype(np.float32)}
    program.model.graph.outputs.append(projection.outputs[0])
    changed, context = smoothed(program, x)
    assert not changed
    assert "'scores': its keys come from no product" in context.warnings[0]


def test_keys_that_are_normalized_stay(build, rng):
    norm = """ks0 = Reshape(k, apart)
    k2 = Mul(ks0, ks0)
    km = ReduceMean(k2, last)
    kq = Sqrt(km)
    ks = Div(ks0, kq)
    """
    program = attention(build, rng, norm=norm)
    changed, context = smoothed(program, {"x": rng.normal(size=(16, 6, 32)).astype(np.float32)})
    assert not changed
    assert "its keys come through" in context.warnings[0]
    assert "which something else reads" in context.warnings[0]


@pytest.mark.parametrize("excluded", ["k0", "scores"])
def test_an_excluded_projection_or_attention_stays(build, rng, excluded):
    program = attention(build, rng)
    for node in program.model.graph:
        node.name = node.outputs[0].name
    x = {"x": np.ones((1, 6, 32), np.float32)}
    changed, context = smoothed(program, x, rules=NodeRules.parse(exclude=[excluded]))
    assert not changed
    assert "excluded" in context.warnings[0]


def test_without_data_or_with_a_strength_out_of_range_it_says_so(build, rng):
    with pytest.raises(PassError, match="no data to measure keys on"):
        SmoothAttention().run(attention(build, rng), Context())
    with pytest.raises(UsageError, match="strength is 2"):
        SmoothAttention(strength=2)
