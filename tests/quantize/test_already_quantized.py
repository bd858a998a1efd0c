"""A graph that holds integers already: kept as it is, said so, and never quantized twice."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime import quantization as other_tool

import qcomp
from qcomp.passes.quantize.already import ALREADY
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import QuantizationRecord, sqnr
from tests import models

STATIC = "canonicalise,fold-constants,calibrate,quantize-static"
DYNAMIC = "canonicalise,fold-constants,quantize-embeddings,quantize-dynamic"
WEIGHTS = "canonicalise,fold-constants,quantize-weights"
BLOCKS = "canonicalise,fold-constants,quantize-weights{form=dequantize,group=16}"
FOUR = "canonicalise,fold-constants,calibrate,quantize-static{weight_bits=4}"

PAIRS = """
g (float[n, 8] x) => (float[n, 4] y) {
    xq = QuantizeLinear(x, sx, zx)
    xd = DequantizeLinear(xq, sx, zx)
    wd = DequantizeLinear<axis=0>(w, sw)
    h = Gemm<transB=1>(xd, wd, b)
    r = Relu(h)
    rq = QuantizeLinear(r, sr, zr)
    rd = DequantizeLinear(rq, sr, zr)
    y = MatMul(rd, v)
}"""


def reasons(context):
    return {op.node: op.reason for op in context.get(QuantizationRecord).float_ops}


def structure(program):
    return sorted(
        (node.op_type, tuple("" if v is None else v.name for v in node.inputs))
        for node in program.model.graph
    )


@pytest.fixture
def data(rng):
    return {"x": rng.normal(size=(64, 64)).astype(np.float32)}


@pytest.mark.parametrize("again", [STATIC, DYNAMIC, WEIGHTS])
@pytest.mark.parametrize("first", [STATIC, DYNAMIC, WEIGHTS, BLOCKS, FOUR])
def test_what_qcomp_quantized_is_kept_whatever_comes_after(mlp, data, compiled, first, again):
    compiled(mlp, first, data)
    Pipeline.parse("canonicalise,fold-constants").run(mlp, Context())
    before = structure(mlp)
    context = compiled(mlp, again, data)
    assert structure(mlp) == before
    record = context.get(QuantizationRecord)
    assert not record.layers
    assert sum(reason == ALREADY for reason in reasons(context).values()) >= 2
    assert any("already quantized and are kept as they are" in text for text in context.warnings)


def pairs(build, rng, dtype=np.uint8):
    def tensor(*shape):
        return rng.normal(0, 0.3, shape).astype(np.float32)

    return build(
        PAIRS,
        {
            "sx": np.float32(4 / 127),
            "zx": dtype(100),
            "w": rng.integers(-127, 128, (16, 8)).astype(np.int8),
            "sw": np.full(16, 0.01, np.float32),
            "b": tensor(16),
            "sr": np.float32(8 / 255),
            "zr": dtype(0),
            "v": tensor(16, 4),
        },
    )


@pytest.mark.parametrize("passes", ["calibrate,quantize-static", "quantize-dynamic"])
def test_a_half_quantized_graph_gets_its_other_half(build, rng, compiled, run, passes):
    program = pairs(build, rng)
    data = {"x": rng.normal(size=(32, 8)).astype(np.float32)}
    wanted = run(program, data)["y"]
    context = compiled(program, passes, data)
    record = context.get(QuantizationRecord)
    assert [layer.node for layer in record.layers] == ["y"]
    assert reasons(context)["h"] == reasons(context)["r"] == ALREADY
    assert "w" in program.model.graph.initializers
    assert sqnr(wanted, run(program, data)["y"]) > 30


def test_integers_that_a_layer_reads_are_not_quantized_again(build, rng, compiled):
    program = pairs(build, rng)
    compiled(program, "calibrate,quantize-static", {"x": np.ones((4, 8), np.float32)})
    kinds = [node.op_type for node in program.model.graph]
    assert kinds.count("QuantizeLinear") == 2
    layer = next(node for node in program.model.graph if node.op_type == "MatMul")
    assert layer.inputs[0].name == "rd"


def test_a_layer_that_reads_other_integers_than_u8_stays_and_says_so(build, rng, compiled):
    program = pairs(build, rng, np.int8)
    context = compiled(program, "calibrate,quantize-static", {"x": np.ones((4, 8), np.float32)})
    assert "INT8, where u8 is needed" in reasons(context)["y"]


def test_a_result_that_the_graph_quantizes_itself_gets_no_second_pair(build, rng, compiled, run):
    program = build(
        """
        g (float[n, 8] x) => (float[n, 4] y) {
            h = Gemm<transB=1>(x, w, b)
            hq = QuantizeLinear(h, s, z)
            hd = DequantizeLinear(hq, s, z)
            y = Gemm<transB=1>(hd, v)
        }""",
        {
            "w": rng.normal(0, 0.3, (16, 8)).astype(np.float32),
            "b": np.zeros(16, np.float32),
            "s": np.float32(8 / 255),
            "z": np.uint8(128),
            "v": rng.normal(0, 0.3, (4, 16)).astype(np.float32),
        },
    )
    data = {"x": rng.normal(size=(32, 8)).astype(np.float32)}
    wanted = run(program, data)["y"]
    context = compiled(program, "calibrate,quantize-static", data)
    assert len(context.get(QuantizationRecord).layers) == 2
    scales = [n.inputs[1].name for n in program.model.graph if n.op_type == "QuantizeLinear"]
    assert scales == ["x_scale", "s"]
    assert sqnr(wanted, run(program, data)["y"]) > 30


@pytest.mark.parametrize(
    ("op", "body", "weights"),
    [
        (
            "MatMulInteger",
            "c = Cast<to=3>(x)\n i = MatMulInteger(c, w)\n y = Cast<to=1>(i)",
            {"w": np.ones((8, 4), np.int8)},
        ),
        (
            "DynamicQuantizeMatMul",
            "y = com.microsoft.DynamicQuantizeMatMul(x, w, s)",
            {"w": np.ones((8, 4), np.int8), "s": np.float32(0.1)},
        ),
        (
            "QLinearMatMul",
            "q = QuantizeLinear(x, s, z)\n i = QLinearMatMul(q, s, z, w, s, u, s, z)\n"
            "y = DequantizeLinear(i, s, z)",
            {
                "w": np.ones((8, 4), np.int8),
                "s": np.float32(0.1),
                "z": np.uint8(128),
                "u": np.int8(0),
            },
        ),
    ],
)
def test_integer_operators_of_other_tools_are_kept(build, compiled, op, body, weights):
    program = build(f"g (float[n, 8] x) => (float[n, 4] y) {{ {body} }}", weights)
    data = {"x": np.ones((4, 8), np.float32)}
    before = structure(program)
    for passes in ("calibrate,quantize-static", "quantize-dynamic", "quantize-weights"):
        context = compiled(program, passes, data)
        assert structure(program) == before
        listed = {o.op_type: o.reason for o in context.get(QuantizationRecord).float_ops}
        assert listed[op] == ALREADY
        assert any("kept as they are" in text for text in context.warnings)


LSTM = """
g (float[7, n, 8] x) => (float[7, 1, n, 8] y) { y = LSTM<hidden_size=8>(x, w, r, b) }"""
UP = """
g (float[n, 8, 6, 6] x) => (float[n, 8, 12, 12] y) {
    y = ConvTranspose<strides=[2,2], kernel_shape=[2,2]>(x, w, b)
}"""


@pytest.mark.parametrize(
    ("body", "shapes", "passes"),
    [
        (LSTM, {"w": (1, 32, 8), "r": (1, 32, 8), "b": (1, 64)}, "quantize-lstm"),
        (UP, {"w": (8, 8, 2, 2), "b": (8,)}, "store-weights{least_bytes=16}"),
    ],
)
def test_lstms_and_stored_weights_are_left_alone_the_second_time(
    build, rng, compiled, body, shapes, passes
):
    weights = {k: rng.normal(0, 0.1, v).astype(np.float32) for k, v in shapes.items()}
    left = build(body, weights)
    context = compiled(left, f'select-nodes{{exclude=["y"]}},{passes}')
    assert reasons(context) == {"y": "excluded by y"}
    assert "w" in left.model.graph.initializers
    program = build(body, weights)
    first = compiled(program, f"canonicalise,fold-constants,{passes},quantize-dynamic")
    assert ALREADY not in reasons(first).values()
    Pipeline.parse("canonicalise,fold-constants").run(program, Context())
    before = structure(program)
    context = compiled(program, f"canonicalise,fold-constants,{passes},quantize-dynamic")
    assert structure(program) == before
    assert ALREADY in reasons(context).values()
    assert not context.get(QuantizationRecord).layers


class Reader(other_tool.CalibrationDataReader):
    def __init__(self, x):
        self.feeds = iter([{"x": x}])

    def get_next(self):
        return next(self.feeds, None)


@pytest.mark.parametrize("target", ["cpu-int8", "cpu-dynamic-int8", "cpu-int4"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
def test_the_graphs_of_onnx_runtime_s_quantizer_are_kept_bit_for_bit(tmp_path, rng, form, target):
    source, path = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(models.mlp((4, 16, 3)), source)
    x = rng.normal(size=(32, 4)).astype(np.float32)
    if form == "dynamic":
        other_tool.quantize_dynamic(source, path)
    else:
        format_ = other_tool.QuantFormat.from_string(form)
        other_tool.quantize_static(source, path, Reader(x), quant_format=format_, per_channel=True)
    wanted = onnxruntime.InferenceSession(path).run(None, {"x": x})[0]
    artifact = qcomp.compile(path, target=target, calibration={"x": x})
    assert (artifact(x) == wanted).all()
    found = artifact.report["quantization"]
    assert not found["layers"]
    assert [line["reason"] for line in found["left_in_float"]].count(ALREADY) >= 2
    assert any("kept as they are" in text for text in artifact.report["warnings"])
