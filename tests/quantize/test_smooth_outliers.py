"""Adaptive smoothing: channels with outliers move, others and the function stay."""

import numpy as np
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.smooth_outliers import SmoothedOutliers, SmoothOutliers
from qcomp.passmanager import Context
from qcomp.quantization import sqnr

BODY = """g (float[n, 32] x) => (float[n, 24] y) {
    h = LayerNormalization<axis=-1>(x, gain, shift)
    y = MatMul(h, w)
}"""


def normed(build, rng, loud=()):
    gain = np.ones(32, np.float32)
    gain[list(loud)] *= 40
    weights = {
        "gain": gain,
        "shift": rng.normal(0, 0.1, 32).astype(np.float32),
        "w": rng.normal(0, 1, (32, 24)).astype(np.float32) / gain[:, None],
    }
    return build(BODY, weights)


@pytest.fixture
def rows(rng):
    return {"x": rng.normal(0, 1, (256, 32)).astype(np.float32)}


def test_loud_channels_get_smaller_and_the_function_stays(build, run, rng, rows):
    program = normed(build, rng, (3, 11))
    before = run(program, rows, ("h",))
    context = Context(calibration=lambda: iter([rows]))
    assert SmoothOutliers().run(program, context)
    after = run(program, rows, ("h",))
    assert sqnr(before["y"], after["y"]) > 110
    share = np.abs(after["h"]).max(axis=0) / np.abs(before["h"]).max(axis=0)
    assert max(share[[3, 11]]) < 0.2
    assert context.get(SmoothedOutliers).channels["h"] == int((share < 0.999).sum()) <= 16
    assert context.get(SmoothedOutliers).gains["h"] > 3
    assert not SmoothOutliers().run(program, context)


def test_it_helps_on_rows_that_were_not_looked_at(build, compiled, run, rng, rows):
    fresh = {"x": rng.normal(0, 1, (256, 32)).astype(np.float32)}
    found = []
    for steps in ("", "smooth-outliers,"):
        program = normed(build, np.random.default_rng(5), (3, 11))
        wanted = run(program, fresh)["y"]
        compiled(program, f"canonicalise,{steps}quantize-tokens{{weights=4}}", rows)
        found.append(sqnr(wanted, run(program, fresh)["y"]))
    assert found[1] > found[0] + 4


def test_without_outliers_nothing_moves(build, rng, rows):
    program = normed(build, rng)
    context = Context(calibration=lambda: iter([rows]))
    assert not SmoothOutliers().run(program, context)
    assert context.get(SmoothedOutliers).channels == {"h": 0}


def test_layers_stay_where_nothing_takes_the_quotient(build, rng):
    weights = {"w": rng.normal(0, 1, (32, 8)).astype(np.float32)}
    program = build(
        "g (float[n, 32] x) => (float[n, 8] y) { h = Gelu(x)\n y = MatMul(h, w) }", weights
    )
    x = rng.normal(0, 1, (64, 32)).astype(np.float32)
    x[:, 3] *= 40
    assert not SmoothOutliers().run(program, Context(calibration=lambda: iter([{"x": x}])))


def test_bad_input_is_one_error(build, rng):
    with pytest.raises(PassError, match="no data to see the activations of"):
        SmoothOutliers().run(normed(build, rng), Context())
    for options, text in (({"steps": 0}, "at least 1"), ({"gain": -1}, "gain is -1")):
        with pytest.raises(UsageError, match=text):
            SmoothOutliers(**options)
