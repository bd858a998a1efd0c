"""Progressive groups as a pass: options, what stores them, what does not."""

import numpy as np
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.passes.quantize.qoq import Qoq
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import ChosenWeights, FeedbackErrors, QuantizationRecord, sqnr

BODY = "g (float[n, 64] x) => (float[n, 24] y) { y = MatMul(x, w) }"


@pytest.fixture
def matrix(build, rng):
    return build(BODY, {"w": rng.normal(size=(64, 24)).astype(np.float32)})


@pytest.fixture
def rows(rng):
    mixed = rng.normal(size=(256, 64)) @ rng.normal(size=(64, 64))
    return {"x": mixed.astype(np.float32)}


@pytest.mark.parametrize(
    "store",
    ["quantize-tokens", "quantize-weights{form=int8}", "quantize-weights{accuracy_level=0}"],
)
def test_passes_that_store_blocks_take_its_integers(matrix, compiled, run, rows, store):
    before = run(matrix, rows)["y"]
    context = compiled(matrix, f"canonicalise,qoq{{group=32}},{store}", rows)
    layer = context.get(QuantizationRecord).layers[0]
    assert layer.weight_type == "u4/32"
    assert layer.method.startswith("qoq")
    assert sqnr(before, run(matrix, rows)["y"]) > 20


def test_feedback_is_better_than_rounding_on_the_same_grids(matrix, compiled, rows):
    feedback = compiled(matrix, "qoq{group=32}", rows).get(FeedbackErrors).layers[0]
    assert feedback.left < 0.7 * feedback.rounded
    rounded = compiled(matrix, "qoq{group=32,feedback=false,sweeps=0}", rows)
    assert rounded.get(FeedbackErrors).layers[0].left == feedback.rounded


def test_scales_of_groups_are_whole_multiples_of_their_channel(matrix, compiled, rows):
    context = compiled(matrix, "qoq{group=16,fit=minmax}", rows)
    weight = context.get(ChosenWeights).weights["w"]
    times = weight.scale / weight.channel
    assert np.allclose(times, np.rint(times), rtol=1e-6)
    assert times.min() >= 1
    assert times.max() <= 16
    original = matrix.model.graph.initializers["w"].const_value.numpy()
    assert np.allclose(weight.channel, np.abs(original).max(axis=0) / 119)


def test_static_kernels_refuse_its_groups_with_zero_points_in_seven_bits(build, rng, rows):
    program = build(BODY, {"w": rng.normal(size=(64, 24)).astype(np.float32)})
    context = Context(calibration=lambda: iter([rows]))
    text = "canonicalise,calibrate,qoq{group=32},quantize-static{weight-bits=7}"
    with pytest.raises(PassError, match="7 bits are wanted"):
        Pipeline.parse(text).run(program, context)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"bits": 3}, "bits is 3"),
        ({"symmetric": True}, "symmetric is True"),
        ({"refits": 1}, "refits is 1"),
        ({"group": 0}, "group is 0"),
        ({"fit": "lsq"}, "fit is 'lsq'"),
    ],
)
def test_options_that_its_groups_do_not_have_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        Qoq(**options)
