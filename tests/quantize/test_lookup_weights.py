"""Weights of few bits behind a table: bytes in the file, plain weights in memory."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.errors import PassError
from qcomp.execute import Session, optimized
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import (
    ChosenWeight,
    ChosenWeights,
    FusionReport,
    QuantizationError,
    QuantizationRecord,
)
from qcomp.report.tensors import tensor_lines
from qcomp.target import get_target
from tests.models import from_text

K, N = 24, 12


def model(transposed: bool) -> tuple[onnx.ModelProto, np.ndarray]:
    w = np.random.default_rng(1).standard_normal((K, N)).astype(np.float32)
    stored = np.ascontiguousarray(w.T) if transposed else w
    body = "Gemm <transB: int = 1> (x, w, b)" if transposed else "MatMul (x, w)"
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
        layer (float[rows, {K}] x) => (float[rows, {N}] y) {{ y = {body} }}"""
    arrays = {"w": stored, **({"b": stored[:, 0].copy()} if transposed else {})}
    return from_text(text, **arrays), stored


def chosen(
    shape: tuple[int, int], bits: int, books: int, spread: bool, scales: bool
) -> ChosenWeight:
    rng = np.random.default_rng(2)
    axis = 1 if shape == (K, N) else 0
    levels = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape).astype(np.int8)
    table = np.sort(rng.standard_normal((books, 1 << bits)), axis=1).astype(np.float32)
    scale = rng.uniform(-1, 1, N if scales else ()).astype(np.float32)
    book = rng.integers(0, books, N).astype(np.uint8) if spread else None
    return ChosenWeight(levels, np.asarray(scale), None, axis, None, bits, "drawn", table, book)


def written(graph, weight, folder, form="matmulnbits"):
    program = Program(ir.from_proto(graph))
    x = np.random.default_rng(3).standard_normal((5, K)).astype(np.float32)
    context = Context(calibration=lambda: iter([{"x": x}]))
    context.put(ChosenWeights({"w": weight}))
    Pipeline.parse(f"canonicalise,quantize-weights{{form={form}}}").run(program, context)
    path = folder / "model.onnx"
    OnnxIntBackend().write(program, path, get_target("cpu-int4"), context)
    return path, context, x


def floats(weight, stored, x):
    """What the layer makes of the table's entries."""
    if weight.axis == 1:
        return x @ weight.real()
    return x @ weight.real().T + stored[:, 0]


CASES = [
    (False, 4, 1, False, True),
    (True, 4, 4, False, False),
    (False, 3, 3, True, False),
    (True, 3, 1, False, True),
    (False, 2, 6, False, True),
    (True, 2, 20, True, True),
    (True, 5, 2, True, False),
]


@pytest.mark.parametrize(("transposed", "bits", "books", "spread", "scales"), CASES)
def test_what_runs_is_the_table_at_the_levels(tmp_path, transposed, bits, books, spread, scales):
    graph, stored = model(transposed)
    weight = chosen(stored.shape, bits, books, spread, scales)
    path, context, x = written(graph, weight, tmp_path)
    real = weight.real().T if transposed else weight.real()
    wanted = x @ real + (
        onnx.numpy_helper.to_array(graph.graph.initializer[1]) if transposed else 0
    )
    np.testing.assert_allclose(Session(path).run({"x": x})["y"], wanted, atol=1e-5)
    error = context.need(QuantizationError, "the backend").layers[0]
    assert error.weight_sqnr is not None


@pytest.mark.parametrize(("transposed", "bits", "books", "spread", "scales"), CASES)
def test_a_table_of_eight_bits_makes_the_weight_of_an_integer_kernel(
    tmp_path, transposed, bits, books, spread, scales
):
    graph, stored = model(transposed)
    weight = chosen(stored.shape, bits, books, spread, scales)
    path, context, x = written(graph, weight, tmp_path, "int8")
    real = weight.real().T if transposed else weight.real()
    wanted = x @ real + (
        onnx.numpy_helper.to_array(graph.graph.initializer[1]) if transposed else 0
    )
    got = Session(path).run({"x": x})["y"]
    assert np.square(got - wanted).sum() <= 1e-3 * np.square(wanted).sum()
    outcomes = context.need(FusionReport, "the backend").outcomes
    assert [outcome.found for outcome in outcomes] == ["DynamicQuantizeMatMul"]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_file_has_the_bits_and_nothing_is_unpacked_while_it_runs(tmp_path, bits):
    graph, stored = model(False)
    path, context, _ = written(graph, chosen(stored.shape, bits, 1, False, False), tmp_path)
    sizes = {t.name: len(t.raw_data) for t in onnx.load(path).graph.initializer}
    codes = sum(size for name, size in sizes.items() if name.startswith("w_quantized"))
    assert codes == K * N * bits // 8
    assert sizes["w_table"] == 4 * 2**bits
    assert "w" not in sizes
    runs = optimized(ir.load(path))
    assert [node.op_type for node in runs.graph] == ["MatMul"]
    assert "w_looked_up" in runs.graph.initializers
    report = context.need(FusionReport, "the backend")
    assert not report.unfused


def test_codebooks_whose_channels_lie_together_cost_no_byte_a_channel(tmp_path):
    graph, stored = model(False)
    sizes = {}
    for spread in (False, True):
        path, _, _ = written(graph, chosen(stored.shape, 2, 4, spread, False), tmp_path)
        made = {t.name: len(t.raw_data) for t in onnx.load(path).graph.initializer}
        sizes[spread] = sum(made[name] for name in made if name.startswith("w_"))
    assert sizes[False] == K * N // 4 + 4 * 4 * 4
    assert sizes[True] == sizes[False] + N // 2


def test_integer_kernels_refuse_a_table(tmp_path):
    graph, stored = model(False)
    program = Program(ir.from_proto(graph))
    context = Context()
    context.put(ChosenWeights({"w": chosen(stored.shape, 4, 1, False, True)}))
    with pytest.raises(PassError, match="looked up in a table"):
        Pipeline.parse("canonicalise,quantize-dynamic").run(program, context)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"table": np.zeros((1, 8), np.float32)}, "for levels of 2 bits"),
        ({"table": np.zeros((5, 4), np.float32)}, "do not fit 12 output channels"),
        ({"book": np.full(N, 9, np.uint8)}, "do not fit"),
        ({"zero_point": np.int8(0).reshape(())}, "no zero points"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(change, said):
    from dataclasses import replace

    with pytest.raises(PassError, match=said):
        replace(chosen((K, N), 2, 4, False, False), **change)


@pytest.mark.parametrize(
    ("form", "said"), [("dequantize", "float from then on"), ("int8", "eight")]
)
def test_explain_has_one_line_for_a_weight_behind_a_table(tmp_path, form, said):
    graph, stored = model(True)
    program = Program(ir.from_proto(graph))
    context = Context()
    context.put(ChosenWeights({"w": chosen(stored.shape, 3, 4, True, True)}))
    Pipeline.parse(f"canonicalise,quantize-weights{{form={form}}}").run(program, context)
    record = context.need(QuantizationRecord, "quantize-weights")
    lines = [line for line in tensor_lines([program.model], record, None) if line.role == "weight"]
    assert [(line.name, line.type, line.method) for line in lines] == [("w", "t3", "drawn")]
    assert said in lines[0].why
