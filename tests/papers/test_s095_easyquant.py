"""S095: Wu et al. 2020, "EasyQuant: Post-training Quantization via Scale Optimization".

arXiv:2006.16669, on the CNN of handwritten digits of ``test_s034_quantization_whitepaper.py``:
scales of weights and activations searched in turn for the cosine of each layer's output, weights
and activations of 7 bits, eight products in a 16-bit sum, and Winograd's F(2, 3) in integers.
"""

from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.execute import HybridSession, Session
from qcomp.passes.calibrate.entropy import entropy_range
from qcomp.passes.calibrate.layer_rows import (
    RowSample,
    layer_bias,
    layer_geometry,
    read_columns,
    weight_columns,
)
from qcomp.passes.calibrate.statistics import Histogram
from qcomp.passes.quantize.arithmetic import (
    affine_parameters,
    dequantize,
    quantize,
    symmetric_scale,
)
from qcomp.passes.quantize.integer_reference import conv_integer
from qcomp.passes.quantize.integer_simulator import IntegerSimulator
from qcomp.passes.quantize.integer_types import IntegerType
from qcomp.passes.quantize.static_plan import plan_static, weight_axis
from qcomp.passes.quantize.winograd_reference import dot_int16, int16_terms, winograd_conv
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import ChosenWeights, FusionReport, QuantizationRecord, TensorStatistics
from qcomp.target import get_target

SOURCE = Path(__file__).parent.parent / "data" / "digits_cnn.onnx"
PREPARE = "canonicalise,fold-constants,fuse-batch-norm"
BITS = "weight_bits={0},activation_bits={0}"
SEARCH = "calibrate,optimize-scales{{measure=cosine," + BITS + "}}"


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    return train_test_split(x, y, test_size=0.4, stratify=y, random_state=0)


@pytest.fixture(scope="module")
def build(digits):
    def builder(pipeline):
        context = Context(calibration=lambda: iter([{"image": digits[0]}]))
        program = qcomp.read(SOURCE)
        Pipeline.parse(f"{PREPARE},{pipeline}").run(program, context)
        return program, context

    return builder


@pytest.fixture(scope="module")
def searched(build):
    """The float program and what the search found, by bits."""
    return {bits: build(SEARCH.format(bits)) for bits in (8, 7)}


def quantized(found, bits):
    """The integer program behind a search, and its context."""
    program, context = found
    program = type(program)(program.model.clone(), program.circuits, program.source)
    Pipeline.parse(f"quantize-static{{{BITS.format(bits)}}}").run(program, context)
    return program, context


@pytest.fixture(scope="module")
def int7(searched):
    return quantized(searched[7], 7)


def accuracy(logits, digits):
    return float((logits.argmax(1) == digits[3]).mean())


def rows_of(program, images):
    """Layer -> all rows of its input, float32[group, rows, K]."""
    layers = [layer for layer in plan_static(program.model).layers if layer.weighted]
    names = [layer.node.inputs[0].name for layer in layers]
    taps = [name for name in names if name != "image"]
    values = {"image": images, **HybridSession(program, taps=taps).run({"image": images})}
    found = {}
    for layer, name in zip(layers, names, strict=True):
        shape = layer.node.inputs[1].const_value.shape.numpy()
        sample = RowSample(layer_geometry(layer.node, shape), 1 << 30, np.random.default_rng(0))
        sample.add(values[name])
        found[layer.node] = sample.take()
    return found


def cosine(node, x, columns, quantizer):
    """cos(O, O') of a layer with its input and its weight in integers."""
    bias = layer_bias(node, 1)
    rounded = quantize(x, quantizer.scale, quantizer.zero_point, quantizer.type)
    rounded = dequantize(rounded, quantizer.scale, quantizer.zero_point)
    wanted = (np.matmul(x, read_columns(node, 1)) + bias).astype(np.float64).reshape(-1)
    found = (np.matmul(rounded, columns) + bias).astype(np.float64).reshape(-1)
    return wanted @ found / np.sqrt((wanted @ wanted) * (found @ found))


@pytest.mark.parametrize("bits", [8, 7])
@pytest.mark.parametrize("part", ["calibration", "held back"])
def test_the_cosine_of_every_layer_is_at_least_that_of_kl_calibration(searched, digits, bits, part):
    """KL as TensorRT has it: thresholds of activations by divergence, weights by their maximum."""
    program, context = searched[bits]
    ranges = context.need(TensorStatistics, "x").ranges
    chosen = context.need(ChosenWeights, "x").weights
    seen = rows_of(program, digits[0])
    judged = seen if part == "calibration" else rows_of(program, digits[1])
    kind, activation = IntegerType(bits, True, narrow=True), IntegerType(bits, signed=False)
    assert len(judged) == 4
    for node, x in judged.items():
        source, weight = node.inputs[0].name, node.inputs[1]
        found = ranges.get(source) or ranges[{"p2": "r2", "f": "s3"}.get(source, source)]
        ours = cosine(
            node,
            x,
            weight_columns(node, chosen[weight.name].real(), 1),
            affine_parameters(found.low, found.high, activation),
        )
        histogram = Histogram()
        histogram.add(seen[node])
        real, axis = np.asarray(weight.const_value.numpy()), weight_axis(node)
        scale = symmetric_scale(real, kind, axis)
        nearest = dequantize(quantize(real, scale, 0, kind, axis), scale, 0, axis)
        threshold = affine_parameters(*entropy_range(histogram, bits), activation)
        kl = cosine(node, x, weight_columns(node, nearest, 1), threshold)
        assert ours >= kl, (node.name, 1 - ours, 1 - kl)


def test_the_cosine_of_every_layer_behind_integer_layers_is_that_of_kl_or_better(
    build, searched, digits
):
    found = {}
    kl = build("calibrate{method=entropy}")
    for name, measured in (("ours", searched[8]), ("kl", kl)):
        program, context = quantized(measured, 8)
        record = context.need(QuantizationRecord, "x")
        layers = {layer.node: layer for layer in record.layers if layer.weight}
        outputs = HybridSession(program, taps=[v.output for v in layers.values()])
        values = outputs.run({"image": digits[1]})
        found[name] = {node: values[layer.output] for node, layer in layers.items()}
    names = [layer.source for layer in layers.values()]
    real = HybridSession(kl[0], taps=names).run({"image": digits[1]})

    def angle(node, array):
        a, b = (np.float64(each).reshape(-1) for each in (real[layers[node].source], array))
        return a @ b / np.sqrt((a @ a) * (b @ b))

    assert len(layers) == 4
    for node in layers:
        assert angle(node, found["ours"][node]) >= angle(node, found["kl"][node]), node


def test_seven_bits_lose_at_most_a_third_of_a_point(int7, digits, tmp_path):
    program, context = int7
    OnnxIntBackend().write(program, tmp_path / "m.onnx", get_target("cpu-int8"), context)
    report = context.need(FusionReport, "onnx_int")
    assert report.unfused == ()
    floating = accuracy(Session(SOURCE).run({"image": digits[1]})["logits"], digits)
    runtime = Session(tmp_path / "m.onnx").run({"image": digits[1]})["logits"]
    kernels = IntegerSimulator(program.model, convolution=winograd_conv, highest=127)
    strict = kernels.run({"image": digits[1]})["logits"]
    assert floating >= 0.993
    assert accuracy(runtime, digits) >= floating - 0.003
    assert accuracy(strict, digits) >= floating - 0.003  # activations stop at 127


def test_eight_products_of_seven_bits_fit_a_sum_of_sixteen_bits(int7, digits):
    assert 8 * 63 * 63 == 31_752 <= np.iinfo(np.int16).max < 9 * 63 * 63
    assert int16_terms(63, 63) == 8
    for sign in (-1, 1):  # the largest sums there are
        a, b = np.full((1, 64), 63, np.int8), np.full((64, 1), sign * 63, np.int8)
        assert dot_int16(a, b)[0, 0] == sign * 64 * 63 * 63
    program, _ = int7
    [name] = [name for name in program.model.graph.initializers if _second_weight(name)]
    weights = program.model.graph.initializers[name].const_value.numpy()
    assert np.abs(weights).max() <= 63
    rng = np.random.default_rng(0)
    rows = rng.integers(-63, 64, (100, 216)).astype(np.int8)
    columns = np.ascontiguousarray(weights.reshape(32, -1).T)
    np.testing.assert_array_equal(dot_int16(rows, columns), rows.astype(int) @ columns)


def _second_weight(name):
    return name.startswith("conv2_w") and name.endswith("_quantized")


def test_the_convolutions_of_the_network_are_the_same_integers_by_winograd(int7, digits):
    program, _ = int7
    names = [node.outputs[0].name for node in program.model.graph if node.op_type == "Conv"]
    assert len(names) == 3
    feeds = {"image": digits[1][:100]}
    direct = IntegerSimulator(program.model, convolution=conv_integer).run(feeds, tuple(names))
    tiled = IntegerSimulator(program.model, convolution=winograd_conv).run(feeds, tuple(names))
    for name in (*names, "logits"):
        np.testing.assert_array_equal(direct[name], tiled[name])
