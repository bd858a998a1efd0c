"""Scales that are searched for: what the search sees, and what it leaves to the quantizers."""

import numpy as np
import pytest

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.layer_rows import (
    RowSample,
    layer_bias,
    layer_geometry,
    weight_columns,
    weight_like,
)
from qcomp.passes.calibrate.optimize_scales import OptimizeScales
from qcomp.passes.calibrate.scale_search import best_factors
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import (
    ChosenWeights,
    FusionReport,
    QuantizationRecord,
    TensorStatistics,
    sqnr,
)
from qcomp.target import get_target

LAYERS = {
    "strides and pads": ("Conv<strides=[2,1], pads=[1,0,2,1]>(x, w, b)", (6, 4, 3, 2)),
    "dilated": ("Conv<dilations=[2,1]>(x, w, b)", (6, 4, 3, 3)),
    "grouped": ("Conv<group=2, pads=[1,1,1,1]>(x, w, b)", (6, 2, 3, 3)),
    "depthwise": ("Conv<group=4>(x, w)", (4, 1, 3, 3)),
    "same, upper": ('Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w, b)', (6, 4, 3, 3)),
    "same, lower": ('Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w, b)', (6, 4, 2, 2)),
}


@pytest.mark.parametrize("case", LAYERS)
def test_the_rows_of_a_convolution_times_its_columns_are_its_outputs(build, run, rng, case):
    body, shape = LAYERS[case]
    weights = {"w": rng.normal(size=shape).astype(np.float32)}
    if ", b)" in body:
        weights["b"] = rng.normal(size=shape[0]).astype(np.float32)
    program = build(f"g (float[n, 4, 9, 8] x) => (float[n, m, h, v] y) {{ y = {body} }}", weights)
    x = rng.normal(size=(3, 4, 9, 8)).astype(np.float32)
    [node] = program.model.graph
    geometry = layer_geometry(node, shape)
    sample = RowSample(geometry, 10_000, np.random.default_rng(0))
    sample.add(x)
    rows, columns = sample.take(), weight_columns(node, weights["w"], geometry.group)
    product = np.matmul(rows, columns)
    if "b" in weights:
        product = product + layer_bias(node, geometry.group)
    wanted = np.moveaxis(run(program, {"x": x})["y"], 1, -1).reshape(-1, shape[0])
    found = np.moveaxis(product, 0, 1).reshape(-1, shape[0])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(weight_like(node, columns, shape), weights["w"])


def test_the_rows_that_are_kept_do_not_depend_on_the_batches(cnn, rng):
    node = next(iter(cnn.model.graph))
    x = rng.normal(size=(12, 3, 12, 12)).astype(np.float32)
    found = []
    for step in (1, 5, 12):
        sample = RowSample(layer_geometry(node, (8, 3, 3, 3)), 50, np.random.default_rng(3))
        for start in range(0, 12, step):
            sample.add(x[start : start + step])
        found.append(sample.take())
    assert found[0].shape == (1, 50, 27)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_of_factors_never_lowers_the_cosine(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0.5, 1.0, (5, 7)), rng.uniform(0.5, 1.5, (5, 7))
    best = best_factors(a, b, "cosine")

    def cosine(choice):
        channels = np.arange(7)
        return a[choice, channels].sum() / np.sqrt(b[choice, channels].sum())

    assert best.any()
    assert cosine(best) >= cosine(np.zeros(7, int))
    for factor in range(5):  # and no common factor is better
        assert cosine(best) >= cosine(np.full(7, factor)) - 1e-12


def data_of(rng, rows=32):
    x = rng.normal(size=(rows, 3, 12, 12)) * rng.exponential(1.0, size=(rows, 1, 1, 1))
    return {"x": x.astype(np.float32)}


@pytest.mark.parametrize("scales", ["channel", "tensor"])
def test_the_integers_and_ranges_of_the_search_are_what_the_kernels_get(
    cnn, compiled, rng, tmp_path, scales
):
    data = data_of(rng)
    options = f"weight_scales={scales}"
    context = compiled(cnn, f"calibrate,optimize-scales{{{options}}}", data)
    chosen, ranges = context.need(ChosenWeights, "x"), context.need(TensorStatistics, "x")
    assert {*chosen.weights} == {"w1", "w2", "w3", "w4", "w5"}
    assert ranges.methods["x"] == "optimize-scales"
    assert ranges.ranges["x"].high < ranges.ranges["x"].maximum
    Pipeline.parse(f"quantize-static{{{options}}}").run(cnn, context)
    OnnxIntBackend().write(cnn, tmp_path / "m.onnx", get_target("cpu-int8"), context)
    assert context.need(FusionReport, "onnx_int").unfused == ()
    stored = cnn.model.graph.initializers["w4_quantized"].const_value.numpy()
    np.testing.assert_array_equal(stored, chosen.weights["w4"].levels)
    methods = {layer.method for layer in context.need(QuantizationRecord, "x").layers}
    assert methods >= {"optimize-scales"}


@pytest.mark.parametrize("measure", ["error", "cosine"])
def test_the_output_gains_where_one_value_in_many_takes_the_range(mlp, compiled, rng, measure):
    from qcomp.quantization import QuantizationError

    x = rng.normal(size=(256, 64)).astype(np.float32)
    x[5, 7] = 12.0
    found = {}
    for search in ("", f"optimize-scales{{measure={measure},points=36}},"):
        program = type(mlp)(mlp.model.clone(), mlp.circuits, mlp.source)
        text = f"calibrate,{search}quantize-static,quantization-error"
        found[search] = compiled(program, text, {"x": x}).need(QuantizationError, "x")
    plain, searched = (error.outputs["y"] for error in found.values())
    assert searched > plain + 0.1


def test_products_over_the_positions_of_sequences_stay_as_calibrate_left_them(
    attention, compiled, rng
):
    data = {
        "x": rng.normal(size=(4, 8, 32)).astype(np.float32),
        "mask": np.zeros((4, 1, 8), np.float32),
    }
    context = compiled(attention, "calibrate,optimize-scales", data)
    assert context.get(ChosenWeights) is None
    context = compiled(attention, "calibrate,optimize-scales{layers=all,rows=16}", data)
    assert {*context.need(ChosenWeights, "x").weights} == {"wq", "wk", "wv"}


def test_a_second_search_changes_nothing(mlp, compiled, rng):
    data = {"x": rng.normal(size=(64, 64)).astype(np.float32)}
    context = compiled(mlp, "calibrate,optimize-scales", data)
    before = context.need(TensorStatistics, "x"), context.need(ChosenWeights, "x")
    Pipeline.parse("optimize-scales").run(mlp, context)
    assert (context.need(TensorStatistics, "x"), context.need(ChosenWeights, "x")) == before


def test_bits_of_single_operators_hold_in_the_search(mlp, rng):
    from qcomp.quantization import NodeRules

    data = {"x": rng.normal(size=(64, 64)).astype(np.float32)}
    context = Context(calibration=lambda: iter([data]))
    context.put(NodeRules.parse(override=["y{bits=4}"]))
    Pipeline.parse("calibrate,optimize-scales{weight_bits=7}").run(mlp, context)
    weights = context.need(ChosenWeights, "x").weights
    assert (weights["w1"].bits, weights["w2"].bits) == (7, 4)
    assert np.abs(weights["w1"].levels).max() <= 63
    assert np.abs(weights["w2"].levels).max() <= 7


def test_without_ranges_to_start_from_the_error_says_what_to_do(mlp, compiled):
    with pytest.raises(PassError, match="no ranges to start from") as caught:
        compiled(mlp, "optimize-scales", {"x": np.zeros((4, 64), np.float32)})
    assert "put 'calibrate' before" in str(caught.value.hint)


@pytest.mark.parametrize(
    "options",
    [
        {"least": 1.5},
        {"points": 0},
        {"weight_bits": 5},
        {"activation_bits": 4},
        {"weight_scales": "row"},
        {"layers": "none"},
        {"measure": "angle"},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match="optimize-scales"):
        OptimizeScales(**options)


@pytest.mark.parametrize("name", ["openvino-int8", "qnn-int8", "tensorrt-int8", "vitisai-int8"])
def test_the_scales_of_other_machines_keep_their_form(cnn, run, rng, name):
    data = data_of(rng)
    before = run(cnn, data)["y"]
    context = Context(calibration=lambda: iter([data]), target=get_target(name))
    Pipeline.parse("calibrate,optimize-scales,quantize-static").run(cnn, context)
    searched = context.get(ChosenWeights)
    assert (searched is None) == (name == "vitisai-int8")  # powers of two leave no choice
    assert sqnr(before, run(cnn, data)["y"]) > 15
    for node in cnn.model.graph:
        if node.op_type == "DequantizeLinear" and node.inputs[1].const_value.size == 1:
            kind = context.target.integers
            zero = int(node.inputs[2].const_value.numpy()) if len(node.inputs) > 2 else 0
            assert zero in (0, 128) or not kind.symmetric


def test_a_range_never_passes_the_bounds_of_a_clip_so_that_it_fuses(build, compiled, rng, tmp_path):
    program = build(
        """g (float[n, 3, 8, 8] x) => (float[n, 4, a, e] y) {
            c = Conv(x, w)
            k = Clip(c, zero, six)
            y = Conv(k, v)
        }""",
        {
            "w": rng.normal(0, 1, (8, 3, 3, 3)).astype(np.float32),
            "v": rng.normal(0, 1, (4, 8, 3, 3)).astype(np.float32),
            "zero": np.float32(0),
            "six": np.float32(6),
        },
    )
    data = {"x": rng.normal(0, 2, (16, 3, 8, 8)).astype(np.float32)}
    context = compiled(program, "calibrate,optimize-scales{least=1.1,most=1.2}", data)
    assert context.need(TensorStatistics, "x").ranges["k"].high == pytest.approx(6.0)
    Pipeline.parse("quantize-static").run(program, context)
    OnnxIntBackend().write(program, tmp_path / "m.onnx", get_target("cpu-int8"), context)
    assert context.need(FusionReport, "onnx_int").kernels["QLinearConv"] == 2
    assert context.need(FusionReport, "onnx_int").unfused == ()


def test_what_is_found_does_not_depend_on_how_many_layers_are_held_at_a_time(
    cnn, compiled, rng, monkeypatch
):
    data = data_of(rng, rows=8)
    found = []
    for budget in (1 << 25, 1):
        monkeypatch.setattr("qcomp.passes.calibrate.optimize_scales._BUDGET", budget)
        context = compiled(cnn, "calibrate,optimize-scales{rows=64}", data)
        found.append((context.need(TensorStatistics, "x"), context.need(ChosenWeights, "x")))
    (statistics, chosen), (others, other) = found
    assert statistics == others
    for name, weight in chosen.weights.items():
        np.testing.assert_array_equal(weight.levels, other.weights[name].levels)
