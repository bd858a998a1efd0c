"""Seven-bit integers: no 16-bit sum of two products saturates, whatever the input is."""

import numpy as np
import pytest

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.errors import UsageError
from qcomp.passes.quantize.quantize_dynamic import QuantizeDynamic
from qcomp.passes.quantize.quantize_lstm import QuantizeLstm
from qcomp.passes.quantize.quantize_static import QuantizeStatic
from qcomp.pipeline_text import make_pass
from qcomp.quantization import FusionReport, QuantizationRecord, TensorStatistics
from qcomp.target import get_target

INT16 = np.iinfo(np.int16)


def pair_sums(levels, axis):
    """The least and the largest sum of two neighbouring products with any u8 values.

    Processors without VNNI add the products of inputs 2 i and 2 i + 1 in 16 bits.
    """
    rows = np.moveaxis(levels.astype(int), axis, 0).reshape(levels.shape[axis], -1)
    rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2)
    least = 255 * np.minimum(rows, 0).sum(2).min()
    return least, 255 * np.maximum(rows, 0).sum(2).max()


def stored(program, context):
    """Integer weights by layer, as they are in the file, output channels first."""
    found = {}
    for layer in context.need(QuantizationRecord, "x").layers:
        if layer.quantized:
            array = program.model.graph.initializers[layer.quantized].const_value.numpy()
            axis = 2 if layer.op_type == "LSTM" else 0 if layer.op_type == "Conv" else None
            if axis is None:
                axis = 0 if layer.node in ("a", "h") and array.shape[0] == 48 else 1
            found[layer.node] = np.asarray(array), axis
    return found


@pytest.mark.parametrize("bits", [8, 7])
def test_pair_sums_of_the_emitted_weights_fit_sixteen_bits_with_seven_bits_only(
    cnn, compiled, rng, tmp_path, bits
):
    data = {"x": rng.normal(size=(16, 3, 12, 12)).astype(np.float32)}
    context = compiled(cnn, f"calibrate,quantize-static{{weight_bits={bits}}}", data)
    weights = stored(cnn, context)
    assert len(weights) == 5
    sums = [pair_sums(*entry) for entry in weights.values()]
    fit = all(INT16.min <= least and most <= INT16.max for least, most in sums)
    assert fit == (bits == 7)
    if bits == 7:
        assert max(np.abs(array).max() for array, _ in weights.values()) == 63
        assert 2 * 255 * 63 <= INT16.max < 2 * 255 * 127
        OnnxIntBackend().write(cnn, tmp_path / "m.onnx", get_target("cpu-int7"), context)
        report = context.need(FusionReport, "onnx_int")
        assert report.unfused == ()
        assert report.output_sqnr["y"] > 25


@pytest.mark.parametrize("effort", ["fast", "default", "max"])
def test_the_target_keeps_every_integer_weight_of_every_effort_in_seven_bits(
    cnn, compiled, rng, effort
):
    data = {"x": rng.normal(size=(16, 3, 12, 12)).astype(np.float32)}
    target = get_target("cpu-int7")
    context = compiled(cnn, target.pipeline(effort), data)
    weights = stored(cnn, context)
    assert len(weights) == 5
    assert all(np.abs(array).max() <= 63 for array, _ in weights.values())
    types = {layer.weight_type for layer in context.need(QuantizationRecord, "x").layers}
    assert types == {"s7", ""}


def test_lstm_and_dynamic_layers_take_seven_bits_too(build, compiled, run, rng, mlp):
    from qcomp.quantization import sqnr

    lstm = build(
        """g (float[5, n, 12] x) => (float[5, 1, n, 16] y) {
            y = LSTM<hidden_size=16>(x, w, r)
        }""",
        {
            "w": rng.normal(0, 0.3, (1, 64, 12)).astype(np.float32),
            "r": rng.normal(0, 0.3, (1, 64, 16)).astype(np.float32),
        },
    )
    cases = [
        (lstm, "quantize-lstm{weight_bits=7}", {"x": (5, 3, 12)}, 2),
        (mlp, "quantize-dynamic{weight_bits=7}", {"x": (9, 64)}, 2),
    ]
    for program, text, shapes, count in cases:
        feeds = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
        before = run(program, feeds)["y"]
        context = compiled(program, text)
        weights = stored(program, context)
        assert len(weights) == count
        assert all(np.abs(array).max() == 63 for array, _ in weights.values())
        assert sqnr(before, run(program, feeds)["y"]) > 25


def test_activations_of_seven_bits_take_the_lower_half_of_u8(cnn, compiled, rng):
    data = {"x": rng.normal(size=(16, 3, 12, 12)).astype(np.float32)}
    text = "calibrate,quantize-static{weight_bits=7,activation_bits=7}"
    context = compiled(cnn, text, data)
    ranges = context.need(TensorStatistics, "x").ranges
    seen = 0
    for node in cnn.model.graph:
        name = node.inputs[0].name
        if node.op_type == "QuantizeLinear" and name in ranges:
            scale, zero = (float(value.const_value.numpy()) for value in node.inputs[1:])
            low, high = min(ranges[name].low, 0.0), ranges[name].high
            assert 0 <= zero <= 127
            assert np.rint(high / scale) + zero <= 128
            # Exactly (high - low) / 127, but for Concats with a common range.
            assert (high - low) / 127 <= scale * 1.00001 < 1.1 * (high - low) / 127
            seen += 1
    assert seen > 5


def test_bits_out_of_range_are_refused():
    for kind in (QuantizeLstm, QuantizeDynamic, QuantizeStatic):
        with pytest.raises(UsageError, match="weight_bits is 6"):
            kind(weight_bits=6)
        with pytest.raises(UsageError, match="cannot be 6"):
            make_pass(kind.name, {"weight_bits": 6})
    with pytest.raises(UsageError, match="activation_bits is 6"):
        QuantizeStatic(activation_bits=6)
