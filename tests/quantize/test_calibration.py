"""Histograms, range methods, and the calibrate pass with good and bad data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.batches import checked_batches, generated_batch
from qcomp.passes.calibrate.entropy import entropy_range
from qcomp.passes.calibrate.minmax import minmax_range
from qcomp.passes.calibrate.moving_average import MovingAverage
from qcomp.passes.calibrate.mse import mse_range
from qcomp.passes.calibrate.percentile import percentile_range
from qcomp.passes.calibrate.statistics import BINS, Histogram
from qcomp.passes.quantize.arithmetic import affine_parameters, dequantize, quantize
from qcomp.passes.quantize.integer_types import UINT8
from qcomp.passmanager import Context
from qcomp.quantization import TensorStatistics


def filled(*parts):
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


@settings(deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60), st.integers(0, 60))
def test_a_histogram_does_not_depend_on_how_the_values_were_batched(values, cut):
    whole, parts = filled(values), filled(values[:cut], values[cut:], [])
    assert whole.exponent == parts.exponent
    assert (whole.counts == parts.counts).all()
    assert (whole.minimum, whole.maximum, whole.count) == (min(values), max(values), len(values))


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=40))
def test_every_value_lies_in_its_bin(values):
    histogram = filled(*[[v] for v in values])
    edges = histogram.edges()
    assert histogram.counts.sum() == len(values)
    expected = np.histogram(np.asarray(values, np.float64), edges)[0]
    assert (histogram.counts == expected).all()


def test_memory_does_not_grow_with_the_samples():
    histogram = filled(np.linspace(-1, 1, 10))
    before = histogram.counts.nbytes
    for scale in (1.0, 10.0, 1e6):
        histogram.add(np.linspace(-scale, scale, 100_000).astype(np.float32))
    assert histogram.counts.nbytes == before == 2 * BINS * 8


def test_half_to_all_bins_of_the_longer_side_are_used():
    counts, _ = filled(np.linspace(0, 1.01, 100_000)).filled()
    assert BINS // 2 <= len(counts) <= BINS


def test_minmax_is_the_range_of_the_values():
    assert minmax_range(filled([-3.0, 1.0], [7.5])) == (-3.0, 7.5)


def test_a_moving_average_is_the_recursion_over_the_batches():
    average = MovingAverage(momentum=0.75)
    for batch in ([-1.0, 2.0], [-3.0, 0.0], [1.0, 10.0], []):
        average.add(np.array(batch, np.float32))
    assert average.low == 0.75 * (0.75 * -1.0 + 0.25 * -3.0) + 0.25 * 1.0
    assert average.high == 0.75 * (0.75 * 2.0 + 0.25 * 0.0) + 0.25 * 10.0
    assert average.batches == 3


def test_an_outlier_of_one_batch_fades_from_a_moving_average(mlp, compiled, rng):
    x = rng.normal(size=(40, 64)).astype(np.float32)
    x[20] *= 100.0
    text = "calibrate{method=%s,batch=1}"
    peak = {
        method: compiled(mlp, text % method, {"x": x}).get(TensorStatistics).ranges["x"]
        for method in ("minmax", "moving-average", "moving-average,momentum=0")
    }
    widest = float(x.max())
    assert peak["minmax"].high == peak["moving-average"].maximum == pytest.approx(widest)
    assert 1.0 < peak["moving-average"].high < 0.2 * widest
    assert peak["moving-average,momentum=0"].high == pytest.approx(float(x[-1].max()))


def test_percentile_cuts_an_outlier_and_100_percent_cuts_nothing():
    rng = np.random.default_rng(0)
    values = rng.normal(size=200_000)
    histogram = filled(values, [100.0])
    low, high = percentile_range(histogram, 99.9)
    assert low == pytest.approx(np.quantile(values, 0.0005), abs=0.06)
    assert high == pytest.approx(np.quantile(values, 0.9995), abs=0.06)
    assert percentile_range(histogram, 100.0) == minmax_range(histogram)


def squared_error(values, low, high):
    p = affine_parameters(low, high, UINT8)
    return np.mean(
        (dequantize(quantize(values, p.scale, p.zero_point, UINT8), p.scale, p.zero_point) - values)
        ** 2
    )


def test_mse_beats_minmax_and_a_fine_grid_of_common_factors():
    values = np.random.default_rng(1).laplace(size=100_000).astype(np.float32)
    histogram = filled(values)
    low, high = mse_range(histogram)
    best = min(
        squared_error(values, a * values.min(), a * values.max()) for a in np.linspace(0.1, 1, 91)
    )
    assert squared_error(values, low, high) <= 1.02 * best
    assert squared_error(values, low, high) < 0.85 * squared_error(values, *minmax_range(histogram))


def test_entropy_clips_a_long_tail_and_keeps_a_uniform_distribution():
    rng = np.random.default_rng(2)
    tail = filled(np.abs(rng.standard_t(2.5, size=200_000)))
    low, high = entropy_range(tail)
    assert low == pytest.approx(0.0, abs=0.01)
    assert high < 0.5 * tail.maximum
    flat = filled(rng.uniform(-1, 1, size=200_000))
    low, high = entropy_range(flat)
    assert high > 0.9
    assert low < -0.9


def test_a_constant_tensor_has_a_range_by_every_method():
    for values in ([0.0] * 5, [2.0] * 5, [-1e-30] * 3):
        for method in (minmax_range, percentile_range, mse_range, entropy_range):
            low, high = method(filled(values))
            assert low <= high
            assert affine_parameters(low, high, UINT8).scale > 0


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_ranges_do_not_depend_on_the_batch_size(cnn, compiled, rng, method):
    data = {"x": rng.normal(size=(24, 3, 12, 12)).astype(np.float32)}
    found = [
        compiled(cnn, f"calibrate{{method={method},batch={size}}}", data).get(TensorStatistics)
        for size in (24, 5)
    ]
    assert found[0].samples == found[1].samples == 24
    assert list(found[0].ranges) == list(found[1].ranges)
    for name, a in found[0].ranges.items():
        b = found[1].ranges[name]
        # The runtime's sums may differ in the last bit with the batch.
        assert (a.low, a.high) == pytest.approx((b.low, b.high), rel=2e-3, abs=1e-6), name


def test_calibration_measures_just_what_the_plan_needs(cnn, compiled, rng):
    data = {"x": rng.normal(size=(4, 3, 12, 12)).astype(np.float32)}
    statistics = compiled(cnn, "calibrate", data).get(TensorStatistics)
    assert set(statistics.ranges) == {
        "x",
        "r1",
        "k2",
        "c3",
        "r3",
        "gate",
        "m",
        "cat",
        "c4",
        "l4",
        "gap",
    }
    assert statistics.ranges["r1"].low == 0.0
    assert 0.0 <= statistics.ranges["k2"].high <= 6.0


def bad(**arrays):
    return {name: np.asarray(array) for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bad(y=np.zeros((2, 64), np.float32)), ("'y'", "no input")),
        (bad(), ("lacks", "'x'")),
        (bad(x=np.zeros((2, 63), np.float32)), ("[2, 63]", "[samples, 64]")),
        (bad(x=np.zeros((64,), np.float32)), ("[64]", "[samples, 64]")),
        (bad(x=np.zeros((2, 64), complex)), ("complex128", "float32")),
        (bad(x=np.full((2, 64), np.nan, np.float32)), ("nan", "[0, 0]")),
        (bad(x=np.full((2, 64), np.inf, np.float32)), ("inf", "'x'")),
        (bad(x=np.zeros((0, 64), np.float32)), ("no sample",)),
    ],
)
def test_data_that_does_not_fit_is_refused_with_its_name(mlp, compiled, data, words):
    with pytest.raises(UsageError) as caught:
        compiled(mlp, "calibrate", data)
    for word in words:
        assert word in str(caught.value)


def test_missing_data_says_how_to_give_some(mlp, compiled):
    with pytest.raises(PassError, match="--calib"):
        compiled(mlp, "calibrate")


def test_an_activation_that_overflows_is_named(build, compiled):
    program = build(
        "g (float[n, 4] x) => (float[n, 4] y) { e = Exp(x)\n y = MatMul(e, w) }",
        {"w": np.eye(4, dtype=np.float32)},
    )
    with pytest.raises(PassError, match="'e'"):
        compiled(program, "calibrate", {"x": np.full((1, 4), 200.0, np.float32)})


@pytest.mark.parametrize(
    "text", ["method=median", "percentile=0", "percentile=101", "batch=0", "momentum=1"]
)
def test_options_out_of_range_are_refused(text, mlp, compiled):
    with pytest.raises(UsageError):
        compiled(mlp, f"calibrate{{{text}}}")


def test_a_fixed_batch_axis_gets_pieces_of_just_that_size(build):
    program = build("g (float[3, 4] x) => (float[3, 4] y) { y = Relu(x) }", {})
    pieces = list(checked_batches(program.model, [{"x": np.zeros((10, 4), np.float32)}]))
    assert [p["x"].shape for p in pieces] == [(3, 4)] * 3
    with pytest.raises(UsageError, match="3 samples at a time"):
        list(checked_batches(program.model, [{"x": np.zeros((2, 4), np.float32)}]))


def test_generated_inputs_run_and_ids_stay_inside_their_table(build, run):
    program = build(
        "g (int64[n, t] ids, float[n, t, 5] x) => (float[n, t, 5] y) "
        "{ e = Gather(table, ids)\n y = Add(e, x) }",
        {"table": np.zeros((7, 5), np.float32)},
    )
    feeds = generated_batch(program.model, Context().rng("test"), 4)
    assert feeds["ids"].shape == feeds["x"].shape[:2] == (4, 16)
    assert feeds["ids"].max() < 7
    assert run(program, feeds)["y"].shape == (4, 16, 5)


def test_ids_beyond_the_vocabulary_are_one_clear_error(build, compiled):
    program = build(
        "g (int64[n, 4] ids) => (float[n, 4, 3] y) { w = Gather(table, ids)\n y = MatMul(w, v) }",
        {"table": np.ones((10, 5), np.float32), "v": np.ones((5, 3), np.float32)},
    )
    with pytest.raises(UsageError, match=r"(?s)an input does not fit the graph.*idx=10"):
        compiled(program, "calibrate", {"ids": np.full((2, 4), 10)})
