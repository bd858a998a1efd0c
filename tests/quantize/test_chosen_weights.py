"""Integers that a pass chose come into the graph as they are, in every layout."""

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.errors import PassError
from qcomp.passes.quantize.arithmetic import pack_int2, unpack_int2
from qcomp.passes.quantize.dequantized_weights import dequantized_weight, stored_weight
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import ChosenWeight, ChosenWeights, QuantizationRecord

GRAPH = """
    g (float[n, 8, 6, 6] x) => (float[n, 20] y) {
        c = Conv<pads=[1,1,1,1]>(x, wc, bc)
        r = Relu(c)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        h = Gemm<transB=1>(f, wg, bg)
        t = Tanh(h)
        y = MatMul(t, wm)
    }"""


@pytest.fixture
def program(build, rng):
    weights = {
        "wc": rng.normal(0, 0.2, (32, 8, 3, 3)),
        "bc": rng.normal(0, 0.1, 32),
        "wg": rng.normal(0, 0.2, (48, 32)),
        "bg": rng.normal(0, 0.1, 48),
        "wm": rng.normal(0, 0.2, (48, 20)),
    }
    return build(GRAPH, {name: array.astype(np.float32) for name, array in weights.items()})


@pytest.fixture
def data(rng):
    return {"x": rng.normal(0, 1, (40, 8, 6, 6)).astype(np.float32)}


AXES = {"wc": (0, 1), "wg": (0, 1), "wm": (1, 0)}
"""Axes of output and input channels."""


def choose(program, rng, layout, bits, zero=False, names=("wc", "wg", "wm")):
    """Integers drawn at random, which rounding would never give."""
    half, chosen = 1 << (bits - 1), {}
    for name in names:
        shape = tuple(program.model.graph.initializers[name].const_value.shape.numpy())
        out, inner = AXES[name]
        dims = {"tensor": (), "channel": (shape[out],)}.get(layout)
        group = None if dims is not None else 16
        if group:
            dims = tuple(-(-d // group) if a == inner else d for a, d in enumerate(shape))
        levels = rng.integers(-half + 1, half, shape).astype(np.int8)
        # Blocks' scales are stored in 16 bits: these are numbers of 16 bits.
        scale = (rng.uniform(0.2, 0.3, dims) / half).astype(np.float16).astype(np.float32)
        points = rng.integers(-half, half, dims).astype(np.int8) if zero else None
        axis = inner if group else out
        chosen[name] = ChosenWeight(levels, scale, points, axis, group, bits, "drawn")
    return chosen


def ran(program, chosen, pipeline, data):
    context = Context(calibration=lambda: iter([data]))
    Pipeline.parse("canonicalise,fold-constants").run(program, context)
    context.put(ChosenWeights(chosen))
    Pipeline.parse(pipeline).run(program, context)
    return context.need(QuantizationRecord, pipeline)


def with_weights(program, chosen):
    """The float program with the weights that the integers stand for."""
    model = program.model.clone()
    for name, weight in chosen.items():
        model.graph.initializers[name].const_value = ir.tensor(weight.real(), name=name)
    return type(program)(model, program.circuits, program.source)


@pytest.mark.parametrize(
    ("bits", "layout", "zero"),
    [
        *((bits, "block", bool(bits % 2)) for bits in range(2, 9)),
        *((bits, "channel", not bits % 2) for bits in range(2, 9)),
        *((bits, "tensor", bits < 5) for bits in (2, 3, 4, 8)),
    ],
)
@pytest.mark.parametrize("form", ["matmulnbits", "dequantize"])
def test_chosen_integers_come_back_from_weights_in_blocks(
    program, rng, data, run, bits, layout, zero, form
):
    chosen = choose(program, rng, layout, bits, zero, ("wg", "wm"))
    expected = run(with_weights(program, chosen), data)["y"]
    record = ran(program, chosen, f"quantize-weights{{form={form},accuracy_level=0}}", data)
    assert [layer.method for layer in record.layers] == ["drawn", "drawn"]
    for layer in record.layers:
        levels = program.model.graph.initializers[layer.quantized]
        rows, rows_out = dequantized_weight(levels)
        stored = chosen[layer.weight].real()
        assert np.array_equal(rows, stored if rows_out == (layer.weight == "wg") else stored.T)
        assert layer.weight_type.startswith(f"{'u' if zero else 's'}{bits}/")
    error = run(program, data)["y"] - expected
    # ONNX Runtime rounds the activations of the standard form to 8 bits.
    assert np.abs(error).max() < (1e-4 if form == "matmulnbits" else 0.02) * np.abs(expected).max()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("layout", ["tensor", "channel"])
def test_chosen_integers_come_back_from_integer_layers(program, rng, data, run, bits, layout):
    chosen = choose(program, rng, layout, bits)
    expected = run(with_weights(program, chosen), data)["y"]
    record = ran(program, chosen, "calibrate,quantize-static", data)
    layers = {layer.weight: layer for layer in record.layers if layer.weight}
    assert set(layers) == set(chosen)
    for name, layer in layers.items():
        value = stored_weight(program.model, layer.quantized)
        packed = bits <= 3 and layout == "channel"  # what becomes INT8 at load
        assert value.dtype.name == ("INT4" if bits <= 4 and not packed else "INT8")
        assert (layer.weight_type, layer.method) == (f"s{bits}", "drawn")
        back = dequantized_weight(value)[0]
        real = chosen[name].real()
        assert np.allclose(back, real if back.shape == real.shape else real.T, rtol=1e-6, atol=0)
    got = run(program, data)["y"]
    # Activations were measured with the float weights, so their ranges may cut a little.
    assert 10 * np.log10((expected**2).sum() / ((got - expected) ** 2).sum()) > 12


def test_dynamic_layers_take_chosen_integers(program, rng, data):
    chosen = choose(program, rng, "channel", 6, names=("wg", "wm"))
    record = ran(program, chosen, "quantize-dynamic", data)
    for layer in record.layers:
        back = dequantized_weight(program.model.graph.initializers[layer.quantized])[0]
        real = chosen[layer.weight].real()
        assert np.array_equal(back, real.T if layer.weight == "wg" else real)
        assert (layer.weight_type, layer.method) == ("s6", "drawn")


def test_a_scale_too_small_for_the_bias_is_widened(build, data, rng):
    weight = rng.normal(0, 0.2, (32, 8, 1, 1)).astype(np.float32)
    program = build(
        "g (float[n, 8, 6, 6] x) => (float[n, 32, 6, 6] y) { y = Conv(x, w, b) }",
        {"w": weight, "b": np.full(32, 1e6, np.float32)},
    )
    chosen = {
        "w": ChosenWeight(
            np.full((32, 8, 1, 1), 5, np.int8),
            np.full(32, 1e-6, np.float32),
            *(None, 0, None, 8, "drawn"),
        )
    }
    record = ran(program, chosen, "calibrate,quantize-static", data)
    levels = program.model.graph.initializers[record.layers[0].quantized].const_value.numpy()
    assert np.abs(levels).max() == 0  # 5e-6 beside a bias of 1e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 9}, "9 bits"),
        ({"axis": 2}, "axis 2"),
        ({"scale": np.ones(3, np.float32)}, "do not fit"),
        ({"scale": np.ones(4)}, "float64"),
        ({"levels": np.full((4, 6), 9, np.int8)}, "outside"),
        ({"zero_point": np.zeros((), np.int8)}, "different shapes"),
        ({"zero_point": np.full(4, 8, np.int8)}, "outside"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    good = ChosenWeight(np.zeros((4, 6), np.int8), np.ones(4, np.float32), None, 0, None, 4, "m")
    with pytest.raises(PassError, match=message):
        dataclasses.replace(good, **change)


def test_integers_for_a_weight_of_another_shape_are_refused(program, rng, data):
    chosen = choose(program, rng, "channel", 4, names=("wg",))
    wrong = {"wm": chosen["wg"]}
    for pipeline in ("quantize-weights", "calibrate,quantize-static"):
        with pytest.raises(PassError, match="another shape") as info:
            ran(type(program)(program.model.clone()), wrong, pipeline, data)
        assert "behind those that change weights" in str(info.value.hint)


@pytest.mark.parametrize(
    "scheme", ["quantize-dynamic", "calibrate,quantize-static{weight_scales=tensor}"]
)
@pytest.mark.parametrize(("layout", "zero"), [("block", False), ("channel", True)])
def test_an_integer_kernel_refuses_blocks_and_zero_points(program, rng, data, layout, zero, scheme):
    names = ("wg", "wm")
    with pytest.raises(PassError, match=r"blocks or zero points|do not suit"):
        ran(program, choose(program, rng, layout, 4, zero, names), scheme, data)


def test_two_bits_are_packed_four_a_byte():
    assert pack_int2(np.array([1, 2, 3, 0], np.uint8)).tolist() == [0x39]
    assert pack_int2(np.array([3, 0, 0, 1, 2], np.uint8)).tolist() == [0x43, 0x02]
    levels = np.arange(14, dtype=np.uint8).reshape(2, 7) % 4
    assert np.array_equal(unpack_int2(pack_int2(levels), 7), levels)


@pytest.mark.parametrize(("bits", "decibels"), [(2, 1), (3, 7), (5, 19), (7, 29)])
def test_rounding_to_nearest_takes_every_number_of_bits(program, data, run, bits, decibels):
    exact = run(program, data)["y"]
    ran(program, {}, f"quantize-weights{{bits={bits},group=16,symmetric=false}}", data)
    error = run(program, data)["y"] - exact
    assert 10 * np.log10((exact**2).sum() / (error**2).sum()) > decibels
