"""Weights of 2 to 8 bits in the file run as 8-bit weights: ONNX Runtime folds what makes them."""

import numpy as np
import pytest

import qcomp
from qcomp.backends.onnx_int import OnnxIntBackend, fusion_outcomes
from qcomp.errors import UsageError
from qcomp.execute import optimized
from qcomp.passes.quantize.dequantized_weights import dequantized_weight, stored_weight
from qcomp.passes.quantize.folded_weights import folded_array
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import (
    ChosenWeight,
    ChosenWeights,
    FusionReport,
    QuantizationError,
    QuantizationRecord,
)
from qcomp.report.data import Report
from qcomp.report.explain import explain
from qcomp.target import get_target

GRAPH = """
    g (float[n, 5, 72] x) => (float[n, 5, 40] y) {
        h = MatMul(x, w)
        b = Add(h, bias)
        t = Tanh(b)
        y = MatMul(t, v)
    }"""


@pytest.fixture
def program(build, rng):
    weights = {
        "w": rng.normal(0, 0.2, (72, 48)),
        "bias": rng.normal(0, 0.1, 48),
        "v": rng.normal(0, 0.2, (48, 40)),
    }
    return build(GRAPH, {name: array.astype(np.float32) for name, array in weights.items()})


@pytest.fixture
def data(rng):
    return {"x": rng.normal(0, 1, (4, 5, 72)).astype(np.float32)}


def ran(program, pipeline, data, chosen=None):
    context = Context(calibration=None if data is None else lambda: iter([data]))
    Pipeline.parse("canonicalise,fold-constants").run(program, context)
    context.put(ChosenWeights(chosen or {}))
    Pipeline.parse(pipeline).run(program, context)
    return context


def report(program, context, tmp_path):
    files = OnnxIntBackend().write(program, tmp_path / "m.onnx", get_target("cpu-int4"), context)
    return context.need(FusionReport, "write"), sum(file.stat().st_size for file in files)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_of_few_bits_become_8_bit_weights_when_the_graph_is_loaded(
    program, data, run, tmp_path, bits, symmetric
):
    options = f"bits={bits},group=16,symmetric={str(symmetric).lower()}"
    blocks = program.copy()
    ran(blocks, f"quantize-weights{{{options},accuracy_level=0}}", data)
    expected = run(blocks, data)["y"]
    context = ran(program, f"quantize-weights{{{options},form=int8}},quantization-error", data)
    fusions, _ = report(program, context, tmp_path)
    assert [o.found for o in fusions.outcomes] == ["DynamicQuantizeMatMul"] * 2
    assert not fusions.unfused
    assert set(fusions.kernels) <= {"DynamicQuantizeMatMul", "Tanh", "Reshape", "Gemm"}
    # The same integers as MatMulNBits has, but for eight bits a channel and of the activations.
    got = run(program, data)["y"]
    assert np.abs(got - expected).max() < 0.02 * np.abs(expected).max()
    record = context.need(QuantizationRecord, "here")
    letter = "s" if symmetric else "u"
    assert [layer.weight_type for layer in record.layers] == [f"{letter}{bits}/16"] * 2
    error = context.need(QuantizationError, "here")
    assert min(layer.weight_sqnr for layer in error.layers) > {2: 5, 3: 11, 4: 17, 8: 35}[bits]


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
@pytest.mark.parametrize("group", [None, 48])
@pytest.mark.parametrize("zero", [False, True])
def test_chosen_integers_of_any_block_are_taken(program, data, rng, bits, group, zero):
    half = 1 << (bits - 1)
    shape = (72, 48)
    dims = (48,) if group is None else (2, 48)
    chosen = ChosenWeight(
        rng.integers(-half, half, shape).astype(np.int8),
        (rng.uniform(0.2, 0.3, dims) / half).astype(np.float32),
        rng.integers(-half, half, dims).astype(np.int8) if zero else None,
        1 if group is None else 0,
        group,
        bits,
        "drawn",
    )
    context = ran(program, "quantize-weights{form=int8}", data, {"w": chosen})
    layer = context.need(QuantizationRecord, "here").layers[0]
    assert layer.method == "drawn"
    back, rows_out = dequantized_weight(stored_weight(program.model, layer.quantized))
    assert not rows_out
    real = chosen.real()
    step = np.abs(real).max(axis=0) / 127
    exact = 1e-6 if group is None else 0.6 * step  # scales of channels are kept exactly
    assert (np.abs(back - real) <= exact).all()


def test_three_bits_are_packed_into_three_bits(build, rng, data, tmp_path):
    graph = "g (float[n, 512] x) => (float[n, 512] y) { y = MatMul(x, w) }"
    weights = {"w": rng.normal(0, 0.2, (512, 512)).astype(np.float32)}
    sizes = {}
    for bits in (2, 3, 4):
        program = build(graph, weights)
        options = f"bits={bits},group=32,symmetric=false,form=int8"
        context = ran(program, f"quantize-weights{{{options}}}", None)
        _, sizes[bits] = report(program, context, tmp_path)
        per_weight = 8 * sizes[bits] / 512**2
        assert bits + 0.5 < per_weight < bits + 0.85
    assert sizes[3] <= 0.85 * sizes[4]
    assert sizes[2] <= 0.62 * sizes[4]


def test_a_weight_that_is_not_folded_is_reported(program, data):
    context = ran(program, "quantize-weights{form=int8}", data)
    record = context.need(QuantizationRecord, "here")
    unfolded = fusion_outcomes(program.model, program.model, list(record.layers))
    assert [(o.found, o.integer) for o in unfolded] == [("Transpose", False)] * 2
    folded = fusion_outcomes(program.model, optimized(program.model), list(record.layers))
    assert [o.integer for o in folded] == [True] * 2


@pytest.mark.parametrize(
    ("tokens", "rows", "kernel"),
    [
        ("any", "n", "MatMulNBits"),
        ("decode", "n", "MatMulNBits"),
        ("decode", "64", "DynamicQuantizeMatMul"),
        ("prefill", "n", "DynamicQuantizeMatMul"),
        ("prefill", "1", "MatMulNBits"),
        ("both", "n", "DynamicQuantizeMatMul"),
    ],
)
def test_expected_and_known_rows_choose_the_form(build, rng, tokens, rows, kernel):
    graph = f"g (float[{rows}, 64] x) => (float[{rows}, 64] y) {{ y = MatMul(x, w) }}"
    program = build(graph, {"w": rng.normal(0, 0.2, (64, 64)).astype(np.float32)})
    context = ran(program, f"quantize-weights{{tokens={tokens}}}", None)
    record = context.need(QuantizationRecord, "here")
    assert [layer.kernel for layer in record.layers] == [kernel]


@pytest.mark.parametrize(
    ("size", "rows", "group", "kernel"),
    [
        (1024, 4, 128, "MatMulNBits"),
        (1024, 5, 128, "DynamicQuantizeMatMul"),
        (1024, 4, 32, "DynamicQuantizeMatMul"),
        (512, 4, 128, "DynamicQuantizeMatMul"),
    ],
)
def test_a_few_rows_of_a_large_weight_in_large_blocks_are_few(
    build, rng, size, rows, group, kernel
):
    graph = f"g (float[{rows}, {size}] x) => (float[{rows}, {size}] y) {{ y = MatMul(x, w) }}"
    program = build(graph, {"w": rng.normal(0, 0.2, (size, size)).astype(np.float32)})
    context = ran(program, f"quantize-weights{{tokens=both,group={group}}}", None)
    (layer,) = context.need(QuantizationRecord, "here").layers
    assert layer.kernel == kernel


CNN = """
    g (float[n, 3, 8, 8] x) => (float[n, 10] y) {
        c = Conv<pads=[1,1,1,1]>(x, w1, b1)
        r = Relu(c)
        d = Conv<pads=[1,1,1,1]>(r, w2, b2)
        s = Relu(d)
        p = GlobalAveragePool(s)
        f = Flatten(p)
        y = Gemm<transB=1>(f, w3, b3)
    }"""


@pytest.fixture
def cnn(build, rng):
    shapes = {"w1": (16, 3, 3, 3), "w2": (32, 16, 3, 3), "w3": (10, 32)}
    weights = {name: rng.normal(0, 0.2, shape) for name, shape in shapes.items()}
    weights |= {f"b{i}": rng.normal(0, 0.1, n) for i, n in ((1, 16), (2, 32), (3, 10))}
    return build(CNN, {name: array.astype(np.float32) for name, array in weights.items()})


@pytest.mark.parametrize(("bits", "group"), [(4, 16), (4, 32), (3, 0), (3, 32), (2, 16)])
def test_convolutions_of_few_bits_run_as_qlinearconv(cnn, rng, tmp_path, bits, group):
    data = {"x": rng.normal(size=(64, 3, 8, 8)).astype(np.float32)}
    static = f"calibrate,quantize-static{{weight_bits={bits},group={group}}},quantization-error"
    context = ran(cnn, static, data)
    fusions, _ = report(cnn, context, tmp_path)
    assert [o.found for o in fusions.outcomes if o.found] == ["QLinearConv"] * 2 + [
        "QLinearGlobalAveragePool",
        "QGemm",
    ]
    assert not fusions.unfused
    record = context.need(QuantizationRecord, "here")
    kind = f"s{bits}/{group}" if group else f"s{bits}"
    assert {layer.weight_type for layer in record.layers if layer.weight} == {kind}
    error = context.need(QuantizationError, "here")
    found = [layer.weight_sqnr for layer in error.layers if layer.weight_sqnr is not None]
    assert len(found) == 3
    assert min(found) > {2: 5, 3: 9, 4: 17}[bits]


def test_explain_shows_the_bits_in_the_file_and_the_scales_in_memory(cnn, rng):
    data = {"x": rng.normal(size=(16, 3, 8, 8)).astype(np.float32)}
    artifact = qcomp.compile(
        cnn,
        target="cpu-int8",
        calibration=data,
        pipeline="calibrate,quantize-static{weight_bits=3,group=16}",
    )
    found = explain(Report.from_json((artifact.path / "report.json").read_text()))
    lines = {line.name: line for line in found.tensors if line.role == "weight"}
    assert {name: (line.type, line.scales) for name, line in lines.items()} == {
        "w1": ("s3/16", 16),
        "w2": ("s3/16", 32),
        "w3": ("s3/16", 10),
    }
    largest = np.abs(cnn.model.graph.initializers["w2"].const_value.numpy()).max()
    assert lines["w2"].high == pytest.approx(largest, rel=0.01)
    assert lines["w2"].why.startswith("one scale for 16 values in the file; eight bits")
    operators = {line.name: line.runs for line in found.operators if line.type}
    assert list(operators.values()) == ["QLinearConv", "QLinearConv", "QGemm"]


@pytest.mark.parametrize("zero", [False, True])
def test_blocks_chosen_for_convolutions_are_taken(cnn, rng, tmp_path, zero):
    shape = (32, 2, 3, 3)  # blocks of 8 input channels at each place of the kernel
    chosen = ChosenWeight(
        rng.integers(-4, 4, (32, 16, 3, 3)).astype(np.int8),
        rng.uniform(0.02, 0.09, shape).astype(np.float32),
        rng.integers(-4, 4, shape).astype(np.int8) if zero else None,
        1,
        8,
        3,
        "drawn",
    )
    data = {"x": rng.normal(size=(64, 3, 8, 8)).astype(np.float32)}
    context = ran(cnn, "calibrate,quantize-static", data, {"w2": chosen})
    fusions, _ = report(cnn, context, tmp_path)
    assert not fusions.unfused
    record = context.need(QuantizationRecord, "here")
    layer = next(layer for layer in record.layers if layer.weight == "w2")
    assert (layer.weight_type, layer.method) == (f"{'u' if zero else 's'}3/8", "drawn")
    back, _ = dequantized_weight(stored_weight(cnn.model, layer.quantized))
    real = chosen.real()
    step = np.abs(real).max(axis=(1, 2, 3), keepdims=True) / 127
    assert (np.abs(back - real) <= 0.6 * step).all()


@pytest.mark.parametrize(("bits", "top"), [(8, 127), (7, 63)])
def test_blocks_on_processors_without_vnni_stay_in_seven_bits(cnn, rng, bits, top):
    data = {"x": rng.normal(size=(16, 3, 8, 8)).astype(np.float32)}
    select = 'select-nodes{override=["op:*{bits=3}"]}'
    context = ran(cnn, f"{select},calibrate,quantize-static{{weight_bits={bits},group=16}}", data)
    layers = [layer for layer in context.need(QuantizationRecord, "here").layers if layer.weight]
    assert len(layers) == 3
    for layer in layers:
        levels = folded_array(stored_weight(cnn.model, layer.quantized))
        assert 0.95 * top <= np.abs(levels.astype(np.int16)).max() <= top


@pytest.mark.parametrize("options", ["group=24", "weight_scales=tensor,group=32"])
def test_blocks_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError, match="group is"):
        Pipeline.parse(f"quantize-static{{{options}}}")
