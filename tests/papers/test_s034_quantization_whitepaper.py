"""S034: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference".

The paper's baseline on a CNN of handwritten digits (``tests/data/digits_cnn.onnx``, made by
``tests/data/make_digits_cnn.py``): BatchNorm folded, weights symmetric with a scale an output
channel, activations affine with a scale a tensor, int32 bias. Judged on 719 held-back digits in
ONNX Runtime and by qcomp's own integer simulator. This is the post-training half;
quantization-aware training comes with a later issue and gets its tests here.
"""

import time
from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.execute import Session
from qcomp.passes.quantize.integer_simulator import IntegerSimulator
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import FusionReport, QuantizationRecord
from qcomp.target import get_target
from tests.timing import timed

SOURCE = Path(__file__).parent.parent / "data" / "digits_cnn.onnx"
PREPARE = "canonicalise,fold-constants,fuse-batch-norm"


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    return train_test_split(x, y, test_size=0.4, stratify=y, random_state=0)


@pytest.fixture(scope="module")
def build(digits, tmp_path_factory):
    """Compile the CNN by a pipeline: program, file, context, CPU seconds."""

    def builder(pipeline):
        out = tmp_path_factory.mktemp("s034") / "model.onnx"
        context = Context(calibration=lambda: iter([{"image": digits[0]}]))
        start = time.process_time()
        program = qcomp.read(SOURCE)
        Pipeline.parse(pipeline).run(program, context)
        OnnxIntBackend().write(program, out, get_target("cpu-int8"), context)
        return program, out, context, time.process_time() - start

    Session(SOURCE)  # imports are not the compiler's time
    return builder


@pytest.fixture(scope="module")
def int8(build):
    return build(get_target("cpu-int8").pipeline())


def logits(path, images):
    return Session(path).run({"image": images})["logits"]


def accuracy(path, digits):
    return float((logits(path, digits[1]).argmax(1) == digits[3]).mean())


def test_int8_loses_nothing_and_takes_a_third_of_the_bytes(int8, digits):
    assert accuracy(SOURCE, digits) >= 0.993
    assert accuracy(int8[1], digits) >= 0.990
    assert int8[1].stat().st_size <= 0.36 * SOURCE.stat().st_size


@timed
def test_it_compiles_within_two_cpu_seconds(build):
    assert build(get_target("cpu-int8").pipeline())[3] <= 2.0


def test_every_layer_is_an_integer_kernel_and_batch_norm_is_gone(int8):
    report = int8[2].need(FusionReport, "onnx_int")
    assert [o.found for o in report.outcomes] == [*["QLinearConv"] * 3, "QLinearAdd", "QGemm"]
    assert report.kernels.get("BatchNormalization", 0) == 0
    assert report.output_sqnr["logits"] > 25
    assert int8[2].need(QuantizationRecord, "quantize-static").float_ops == ()


@pytest.mark.parametrize("bits", [8, 7, 4])
def test_the_integer_simulator_agrees_with_onnx_runtime_on_every_output(build, digits, bits):
    program, path, _, _ = build(f"{PREPARE},calibrate,quantize-static{{weight_bits={bits}}}")
    names = tuple(
        node.outputs[0].name for node in program.model.graph if node.op_type == "QuantizeLinear"
    )
    assert len(names) == 8
    from qcomp.execute import HybridSession

    feeds = {"image": digits[1]}
    ours = IntegerSimulator(program.model).run(feeds, watch=names)
    theirs = HybridSession(program, taps=names).run(feeds)
    for name in names:
        distance = np.abs(ours[name].astype(int) - theirs[name].astype(int))
        assert distance.max() <= 1, name
    runtime = logits(path, digits[1])
    assert (ours["logits"].argmax(1) == runtime.argmax(1)).sum() == 719
    # The logits are sums of products of integers: a step of one is s_x s_w.
    step = max(
        float(node.inputs[1].const_value.numpy().max())
        for node in program.model.graph
        if node.op_type == "DequantizeLinear" and node.inputs[0].name == "fc_b_quantized"
    )
    assert np.abs(ours["logits"] - runtime).max() <= 127 * step


@pytest.mark.parametrize("method", ["minmax", "moving-average", "percentile", "mse", "entropy"])
def test_each_calibration_method_keeps_the_accuracy(build, digits, method):
    _, path, _, _ = build(f"{PREPARE},calibrate{{method={method}}},quantize-static")
    assert accuracy(path, digits) >= 0.990


def test_four_bit_weights_lose_at_most_two_points(build, digits):
    _, path, context, _ = build(f"{PREPARE},calibrate,quantize-static{{weight_bits=4}}")
    assert accuracy(SOURCE, digits) - accuracy(path, digits) <= 0.02
    assert path.stat().st_size < 0.26 * SOURCE.stat().st_size
    report = context.need(FusionReport, "onnx_int")
    assert report.unfused == ()
