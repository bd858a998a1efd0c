"""LSTM layers in integers, and small files where there is no integer kernel."""

import numpy as np
import pytest

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.errors import UsageError
from qcomp.execute import optimized
from qcomp.passes.quantize.store_weights import StoreWeights
from qcomp.quantization import FusionReport, QuantizationError, QuantizationRecord, sqnr
from qcomp.target import get_target

LSTM = """
g (float[7, n, 24] x) => (float[7, 2, n, 32] y) {
    y = LSTM<hidden_size=32, direction="bidirectional">(x, w, r, b)
}"""
UP = """
g (float[n, 16, 6, 6] x) => (float[n, 8, 12, 12] y) {
    y = ConvTranspose<strides=[2,2], kernel_shape=[2,2]>(x, w, b)
}"""


@pytest.fixture
def lstm(build, rng):
    return build(
        LSTM,
        {
            "w": rng.normal(0, 0.3, (2, 128, 24)).astype(np.float32),
            "r": rng.normal(0, 0.2, (2, 128, 32)).astype(np.float32),
            "b": rng.normal(0, 0.1, (2, 256)).astype(np.float32),
        },
    )


@pytest.fixture
def up(build, rng):
    return build(
        UP,
        {
            "w": rng.normal(0, 0.1, (16, 8, 2, 2)).astype(np.float32),
            "b": rng.normal(0, 0.1, 8).astype(np.float32),
        },
    )


def test_an_lstm_in_both_directions_keeps_30_decibels_and_runs_as_integers(
    lstm, compiled, run, rng, tmp_path
):
    x = {"x": rng.normal(0, 1, (7, 5, 24)).astype(np.float32)}
    before = run(lstm, x)["y"]
    context = compiled(lstm, "quantize-lstm,quantization-error")
    assert sqnr(before, run(lstm, x)["y"]) > 30.0
    OnnxIntBackend().write(lstm, tmp_path / "m.onnx", get_target("cpu-dynamic-int8"), context)
    outcomes = context.get(FusionReport).outcomes
    assert [o.found for o in outcomes] == ["DynamicQuantizeLSTM"] * 2
    assert all(o.integer for o in outcomes)


def test_both_weights_of_an_lstm_are_reported_with_their_error(lstm, compiled):
    context = compiled(lstm, "quantize-lstm,quantization-error")
    errors = context.get(QuantizationError).layers
    assert len(errors) == 2
    assert all(layer.weight_sqnr > 38.0 for layer in errors)


def test_an_lstm_with_computed_weights_stays_and_says_why(build, compiled, rng):
    body = LSTM.replace("float[7, n, 24] x", "float[7, n, 24] x, float[2, 128, 24] w")
    program = build(
        body,
        {
            "r": rng.normal(0, 0.2, (2, 128, 32)).astype(np.float32),
            "b": rng.normal(0, 0.1, (2, 256)).astype(np.float32),
        },
    )
    context = compiled(program, "quantize-lstm")
    [left] = context.get(QuantizationRecord).float_ops
    assert left.reason == "its weights are not constants"


def test_a_transposed_convolution_is_stored_in_a_quarter_and_runs_as_one_operator(
    up, compiled, run, rng
):
    x = {"x": rng.normal(0, 1, (3, 16, 6, 6)).astype(np.float32)}
    before = run(up, x)["y"]
    context = compiled(up, "store-weights{least_bytes=64}")
    sizes = {v.name: v.const_value.nbytes for v in up.model.graph.initializers.values()}
    assert sizes["w_quantized"] == 16 * 8 * 4
    assert "w" not in sizes
    assert sqnr(before, run(up, x)["y"]) > 35.0
    assert [node.op_type for node in optimized(up.model).graph] == ["ConvTranspose"]
    assert "stored in 8 bits" in context.get(QuantizationRecord).float_ops[0].reason


@pytest.mark.parametrize(("op", "gates"), [("GRU", 3), ("RNN", 1)])
def test_other_recurrent_layers_run_in_float_from_a_file_of_a_quarter_and_say_why(
    build, compiled, run, rng, tmp_path, op, gates
):
    """ONNX Runtime has DynamicQuantizeLSTM, and nothing of the kind for these."""
    size = gates * 64
    program = build(
        f"""g (float[9, n, 48] x) => (float[n, 5] y) {{
            s, last = {op}<hidden_size=64, direction="bidirectional">(x, w, r, b)
            t = Transpose<perm=[1, 0, 2]>(last)
            f = Flatten(t)
            y = Gemm(f, head, bias)
        }}""",
        {
            "w": rng.normal(0, 0.15, (2, size, 48)).astype(np.float32),
            "r": rng.normal(0, 0.1, (2, size, 64)).astype(np.float32),
            "b": rng.normal(0, 0.1, (2, 2 * size)).astype(np.float32),
            "head": rng.normal(0, 0.1, (128, 5)).astype(np.float32),
            "bias": rng.normal(0, 0.1, 5).astype(np.float32),
        },
    )
    x = {"x": rng.normal(0, 1, (9, 16, 48)).astype(np.float32)}
    before = run(program, x)["y"]
    target = get_target("cpu-int8")
    context = compiled(program, target.pipeline("default"), x)
    OnnxIntBackend().write(program, tmp_path / "m.onnx", target, context)
    loaded = {node.op_type: node for node in optimized(program.model).graph}
    assert "Cast" not in loaded
    assert all(value.producer() is None for value in loaded[op].inputs[1:3])  # folded
    assert sqnr(before, run(program, x)["y"]) > 30.0
    stored = {name: v.const_value for name, v in program.model.graph.initializers.items()}
    assert stored["w_quantized"].nbytes == 2 * size * 48
    assert stored["r_quantized"].nbytes == 2 * size * 64
    record = context.need(QuantizationRecord, "x")
    assert [layer.kernel for layer in record.layers] == ["QGemm"]
    [left] = [entry for entry in record.float_ops if entry.op_type == op]
    assert "no integer kernel" in left.reason


def test_small_weights_stay(up, compiled):
    compiled(up, "store-weights")
    assert "w" in up.model.graph.initializers


def test_least_bytes_below_one_is_refused():
    with pytest.raises(UsageError):
        StoreWeights(least_bytes=0)
