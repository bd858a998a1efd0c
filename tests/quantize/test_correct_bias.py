"""The mean error of integer layers goes into their biases."""

import numpy as np
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.passes.quantize.correct_bias import CorrectBias, clipped_normal_mean
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import CorrectedBiases, QuantizationError, sqnr

QUANTIZE = "calibrate,quantize-static{weight_bits=4,weight_scales=tensor}"


@pytest.fixture
def data(rng):
    return {"x": np.abs(rng.normal(0.5, 0.5, (96, 64))).astype(np.float32)}


def channel_error(before, after):
    """Largest mean error of a channel, over the root mean square of the values."""
    return np.abs((after - before).mean(0)).max() / np.sqrt((before**2).mean())


def test_means_of_the_outputs_become_those_of_the_float_graph(mlp, compiled, run, float_of, data):
    context = compiled(mlp, QUANTIZE, data)
    wanted = run(float_of(context), data)["y"]
    plain = run(mlp, data)["y"]
    context.calibration = lambda: iter([data])
    assert CorrectBias(method="data").run(mlp, context)
    corrected = run(mlp, data)["y"]
    assert channel_error(wanted, corrected) < 0.1 * channel_error(wanted, plain)
    assert sqnr(wanted, corrected) > sqnr(wanted, plain) + 1.0
    assert set(context.need(CorrectedBiases, "correct-bias").layers) == {"a", "y"}


def test_layers_by_themselves_come_close_in_one_run(mlp, compiled, run, float_of, data):
    context = compiled(mlp, QUANTIZE, data)
    wanted, plain = run(float_of(context), data)["y"], run(mlp, data)["y"]
    context.calibration = lambda: iter([data])
    assert CorrectBias(method="local").run(mlp, context)
    assert channel_error(wanted, run(mlp, data)["y"]) < 0.5 * channel_error(wanted, plain)


def test_each_layer_is_corrected_once(mlp, compiled, data):
    context = compiled(mlp, f"{QUANTIZE},correct-bias", data)
    context.calibration = lambda: iter([data])
    assert not CorrectBias().run(mlp, context)


@pytest.mark.parametrize("bits", [8, 4])
def test_convolutions_with_and_without_bias_are_corrected(cnn, compiled, run, float_of, rng, bits):
    data = {"x": np.abs(rng.normal(0.5, 0.5, (32, 3, 12, 12))).astype(np.float32)}
    quantize = f"calibrate,quantize-static{{weight_bits={bits},weight_scales=tensor}}"
    context = compiled(cnn, f"{quantize},correct-bias{{method=data}},quantization-error", data)
    fact = context.need(CorrectedBiases, "correct-bias")
    assert {"c1", "c2", "c3", "c4", "y"} <= {*fact.layers, *fact.left}
    assert fact.left == {}
    wanted = run(float_of(context), data)["y"]
    assert channel_error(wanted, run(cnn, data)["y"]) < (0.02 if bits == 8 else 0.06)
    assert context.need(QuantizationError, "quantization-error").outputs["y"] > 10.0


def test_a_split_product_takes_it_in_the_addition_and_a_bare_one_is_listed(
    build, compiled, run, float_of, rng
):
    program = build(
        "g (float[n, 16] x) => (float[n, 6] y) "
        "{ a = Gemm(x, w1, b1)\n t = Tanh(a)\n m = MatMul(t, w2)\n k = Add(m, b2)\n"
        " s = Softplus(k)\n y = MatMul(s, w3) }",
        {
            "w1": rng.normal(0, 0.5, (16, 12)).astype(np.float32),
            "b1": rng.normal(0, 0.5, 12).astype(np.float32),
            "w2": rng.normal(0, 0.5, (12, 8)).astype(np.float32),
            "b2": rng.normal(0, 0.5, 8).astype(np.float32),
            "w3": rng.normal(0, 0.5, (8, 6)).astype(np.float32),
        },
    )
    data = {"x": rng.normal(0.5, 0.5, (64, 16)).astype(np.float32)}
    context = compiled(program, f"{QUANTIZE},correct-bias{{method=data}}", data)
    fact = context.need(CorrectedBiases, "correct-bias")
    assert set(fact.layers) == {"a", "m"}
    assert "no bias" in fact.left["y"]
    wanted = run(float_of(context), data, ("k",))["k"]
    summed = [node.outputs[0].name for node in program.model.graph if node.op_type == "Sum"][1]
    assert channel_error(wanted, run(program, data, (summed,))[summed]) < 0.01


def test_statistics_of_batch_normalizations_do_without_data(build, run, rng):
    program = build(
        "g (float[n, 12] x) => (float[n, 6] y) "
        "{ a = Gemm(x, w1)\n b = BatchNormalization(a, gamma, beta, mean, var)\n"
        " h = Relu(b)\n y = Gemm(h, w2, b2) }",
        {
            "w1": (rng.normal(0, 1, (12, 16)) / np.sqrt(12)).astype(np.float32),
            "gamma": np.ones(16, np.float32),
            "beta": np.full(16, 1.0, np.float32),
            "mean": np.zeros(16, np.float32),
            "var": np.ones(16, np.float32),
            "w2": rng.normal(0.1, 0.5, (16, 6)).astype(np.float32),
            "b2": np.zeros(6, np.float32),
        },
    )
    data = {"x": rng.normal(0, 1, (4000, 12)).astype(np.float32)}
    wanted = run(program, data)["y"]
    context = Context(calibration=lambda: iter([data]))
    Pipeline.parse(f"fuse-batch-norm,{QUANTIZE}").run(program, context)
    plain = run(program, data)["y"]
    context.calibration = None
    assert CorrectBias().run(program, context)
    assert channel_error(wanted, run(program, data)["y"]) < 0.5 * channel_error(wanted, plain)
    fact = context.need(CorrectedBiases, "correct-bias")
    assert list(fact.layers) == ["y"]
    assert "no BatchNormalization" in fact.left["a"]


@pytest.mark.parametrize(("low", "high"), [(0.0, np.inf), (0.0, 6.0), (-1.0, 1.0), (-np.inf, 2.0)])
def test_the_mean_of_a_clipped_normal_is_that_of_samples(rng, low, high):
    mean, deviation = np.array([-3.0, -0.5, 0.0, 1.0, 7.0]), np.array([1.0, 0.5, 2.0, 3.0, 0.1])
    samples = np.clip(rng.normal(mean, deviation, (200_000, 5)), low, high).mean(0)
    np.testing.assert_allclose(clipped_normal_mean(mean, deviation, low, high), samples, atol=0.02)


def test_products_over_positions_are_left_to_those_who_ask_for_them(attention, compiled, rng):
    data = {
        "x": rng.normal(0.3, 1, (8, 8, 32)).astype(np.float32),
        "mask": np.zeros((8, 1, 8), np.float32),
    }
    context = compiled(attention, f"{QUANTIZE},correct-bias", data)
    fact = context.need(CorrectedBiases, "correct-bias")
    assert fact.layers == {}
    assert "no bias" in fact.left["q"]
    program = _with_bias(rng)
    context = compiled(program, f"{QUANTIZE},correct-bias", data)
    assert "pad" in context.need(CorrectedBiases, "correct-bias").left["m"]
    program = _with_bias(rng)
    context = compiled(program, f"{QUANTIZE},correct-bias{{method=local}}", data)
    assert set(context.need(CorrectedBiases, "correct-bias").layers) == {"m"}


def _with_bias(rng):
    from tests.quantize.conftest import build_program

    return build_program(
        "g (float[n, 8, 32] x, float[n, 1, 8] mask) => (float[n, 8, 16] y, float[n, 1, 8] z) "
        "{ m = MatMul(x, w)\n k = Add(m, b)\n y = Softplus(k)\n z = Neg(mask) }",
        {"w": rng.normal(0, 0.3, (32, 16)).astype(np.float32), "b": np.ones(16, np.float32)},
    )


def test_without_a_quantized_graph_nothing_happens(mlp):
    assert not CorrectBias().run(mlp, Context())


@pytest.mark.parametrize("method", ["local", "data"])
def test_data_that_are_asked_for_and_missing_are_an_error(mlp, compiled, data, method):
    context = compiled(mlp, QUANTIZE, data)
    context.calibration = None
    with pytest.raises(PassError, match="no calibration data"):
        CorrectBias(method=method).run(mlp, context)


@pytest.mark.parametrize("options", [{"method": "guess"}, {"samples": 0}, {"batch": 0}])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(UsageError):
        CorrectBias(**options)
