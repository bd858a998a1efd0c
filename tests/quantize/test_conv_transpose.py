"""Transposed convolutions: the same function as a convolution, and integer kernels for it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.passes.graph.conv_transpose_to_conv import ConvTransposeToConv
from qcomp.passmanager import Context
from qcomp.quantization import FusionReport, NodeRules, QuantizationRecord, sqnr
from qcomp.target import get_target
from tests.quantize.conftest import build_program


def transposed(rng, shape, group=1, attributes="", bias=True, behind="y = Identity(u)"):
    weights = {"w": rng.normal(size=shape).astype(np.float32)}
    if "low" in behind:
        weights |= {"low": np.float32(-0.5), "high": np.float32(1.0)}
    if bias:
        weights["b"] = rng.normal(size=shape[1] * group).astype(np.float32)
    names = "x, w, b" if bias else "x, w"
    body = f"u = ConvTranspose<group={group}{attributes}>({names})\n {behind}"
    return build_program(
        f"g (float[n, {shape[0]}, h, v] x) => (float[n, m, a, e] y) {{ {body} }}", weights
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_it_is_the_same_function_for_every_kernel_stride_and_padding(seed):
    from qcomp.execute import Session

    rng = np.random.default_rng(seed)
    s, group = int(rng.integers(1, 5)), int(rng.choice([1, 1, 2]))
    k = [int(rng.integers(1, 7)) for _ in (0, 1)]
    more = [int(rng.integers(0, s)) for _ in (0, 1)]
    height, width = (int(n) for n in rng.integers(2, 6, 2))
    pads = [int(rng.integers(0, k[i % 2])) for i in range(4)]
    sizes = [
        s * (length - 1) + more[i] + k[i] - pads[i] - pads[i + 2]
        for i, length in enumerate((height, width))
    ]
    if min(sizes) < 1:
        return
    text = f", strides=[{s},{s}], pads={pads}, output_padding={more}"
    shape = (2 * group, int(rng.integers(1, 4)), *k)
    program = transposed(rng, shape, group, text, bool(seed % 2))
    x = {"x": rng.normal(size=(2, 2 * group, height, width)).astype(np.float32)}
    wanted = Session(program.model).run(x)["y"]
    assert wanted.shape[2:] == tuple(sizes)
    assert ConvTransposeToConv().run(program, Context())
    assert "ConvTranspose" not in [node.op_type for node in program.model.graph]
    found = Session(program.model).run(x)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


UPSAMPLING = {
    "a kernel as long as the stride": (", strides=[2,2]", (8, 6, 2, 2), []),
    "a kernel twice the stride": (", strides=[2,2], pads=[1,1,1,1]", (8, 6, 4, 4), ["Slice"]),
    "an odd kernel": (
        ", strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]",
        (8, 6, 3, 3),
        ["Slice"],
    ),
}


@pytest.mark.parametrize("case", UPSAMPLING)
def test_between_convolutions_it_runs_on_integers_with_its_relu(rng, compiled, tmp_path, case):
    attributes, shape, cut = UPSAMPLING[case]
    weights = {
        "w1": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "w": rng.normal(0, 0.2, shape).astype(np.float32),
        "b": rng.normal(0, 0.2, 6).astype(np.float32),
        "w2": rng.normal(0, 0.2, (4, 6, 3, 3)).astype(np.float32),
    }
    program = build_program(
        f"""g (float[n, 3, 10, 10] x) => (float[n, 4, a, e] y) {{
            c = Conv<pads=[1,1,1,1]>(x, w1)
            r = Relu(c)
            u = ConvTranspose<kernel_shape=[{shape[2]},{shape[3]}]{attributes}>(r, w, b)
            v = Relu(u)
            y = Conv(v, w2)
        }}""",
        weights,
    )
    data = {"x": rng.normal(size=(32, 3, 10, 10)).astype(np.float32)}
    context = compiled(program, "conv-transpose-to-conv,calibrate,quantize-static", data)
    OnnxIntBackend().write(program, tmp_path / "m.onnx", get_target("cpu-int8"), context)
    report = context.need(FusionReport, "onnx_int")
    assert report.unfused == ()
    assert report.kernels["QLinearConv"] == 3
    assert report.kernels["DepthToSpace"] == 1
    assert report.kernels.get("QuantizeLinear") == report.kernels.get("DequantizeLinear") == 1
    assert [kind for kind in report.kernels if kind == "Slice"] == cut
    assert report.output_sqnr["y"] > 30
    assert context.need(QuantizationRecord, "x").float_ops == ()


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("ConvTranspose", ", strides=[2,1]"), ("ConvTranspose", ", dilations=[2,2]")],
)
def test_what_it_cannot_write_stays(rng, op, attributes):
    program = transposed(rng, (4, 3, 3, 3), attributes=attributes)
    assert not ConvTransposeToConv().run(program, Context())
    assert op in [node.op_type for node in program.model.graph]


def test_an_excluded_one_stays_and_patterns_by_name_go_on_to_match(rng):
    for pattern, changed in (("u", False), ("other", True)):
        program = transposed(rng, (4, 3, 2, 2), attributes=", strides=[2,2]")
        context = Context()
        context.put(NodeRules.parse(exclude=[pattern]))
        program.model.graph[0].name = "u"
        assert ConvTransposeToConv().run(program, context) == changed
        assert "u" in [node.name for node in program.model.graph]


@pytest.mark.parametrize("act", ["Relu(u)", "Clip(u, low, high)", "LeakyRelu<alpha=0.2>(u)"])
def test_the_activation_behind_it_moves_next_to_the_convolution(rng, run, act):
    program = transposed(rng, (4, 3, 2, 2), attributes=", strides=[2,2]", behind=f"y = {act}")
    x = {"x": rng.normal(size=(1, 4, 5, 5)).astype(np.float32)}
    wanted = run(program, x)["y"]
    assert ConvTransposeToConv().run(program, Context())
    kinds = [node.op_type for node in program.model.graph]
    assert kinds == ["Conv", act.partition("(")[0].partition("<")[0], "DepthToSpace"]
    assert sqnr(wanted, run(program, x)["y"]) > 100
