"""nupes and jlcm on graphs: what they choose is stored, on difficult inputs too."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.passes.quantize.jlcm import lloyd
from qcomp.passes.quantize.lookup.codes import Codes, descend, fit_tables
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import ChosenWeights, FeedbackErrors, QuantizationRecord
from tests.models import mlp

PASSES = ("nupes", "jlcm{bits=3}")
STORE = "quantize-weights{group=256,accuracy_level=0}"


def run(model, pipeline, data):
    program = Program(ir.from_proto(model))
    context = Context(calibration=lambda: iter([data]))
    Pipeline.parse(f"canonicalise,fold-constants,{pipeline}").run(program, context)
    return program, context


def correlated(columns: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((columns, columns)) * np.exp(-np.arange(columns) / 4)[:, None]
    return (rng.standard_normal((256, columns)) @ mix).astype(np.float32)


@pytest.mark.parametrize("choose", PASSES)
@pytest.mark.parametrize("form", ["matmulnbits", "int8"])
def test_outputs_are_nearer_than_rounded_ones_in_both_forms(choose, form):
    model, data = mlp((24, 32, 20, 6)), {"x": correlated(24)}
    real = HybridSession(Program(ir.from_proto(model))).run(data)["y"]
    store = f"quantize-weights{{bits=3,group=256,accuracy_level=0,form={form}}}"
    errors = []
    for pipeline in (store, f"{choose},{store}"):
        program, context = run(model, pipeline, data)
        errors.append(np.square(HybridSession(program).run(data)["y"] - real).sum())
    assert errors[1] < 0.5 * errors[0]
    record = context.need(QuantizationRecord, "quantize-weights")
    assert all(layer.method.startswith(choose[:4]) for layer in record.layers)
    for layer in context.need(FeedbackErrors, choose).layers:
        assert layer.left < layer.rounded


@pytest.mark.parametrize("choose", PASSES)
def test_inputs_that_are_always_zero_and_weights_that_are_all_alike_do_no_harm(choose):
    model, x = mlp((16, 8, 4)), correlated(16)
    for tensor in model.graph.initializer:
        if tensor.name == "w1":
            tensor.raw_data = np.full(tensor.dims, 0.25, np.float32).tobytes()
    x[:, [2, 9]] = 0.0
    for data in ({"x": x}, {"x": np.zeros_like(x)}):
        program, context = run(model, f"{choose},{STORE}", data)
        assert np.isfinite(HybridSession(program).run(data)["y"]).all()
        real = context.need(ChosenWeights, choose).weights["w1"].real()
        np.testing.assert_allclose(real, 0.25, rtol=0.15)


@pytest.mark.parametrize("choose", PASSES)
def test_the_same_data_give_the_same_levels(choose):
    model, data = mlp((24, 16, 6)), {"x": correlated(24)}
    found = [run(model, choose, data)[1].need(ChosenWeights, choose).weights for _ in range(2)]
    for name, weight in found[0].items():
        np.testing.assert_array_equal(weight.real(), found[1][name].real())


def test_lloyd_finds_the_clusters():
    rng = np.random.default_rng(0)
    means = np.array([-2.0, -0.5, 0.3, 1.5])
    drawn = (means[rng.integers(0, 4, (8, 64))] + 0.02 * rng.standard_normal((8, 64))).astype("f4")
    np.testing.assert_allclose(lloyd(drawn, np.ones(64, np.float32), 4), means, atol=0.01)


def test_neither_levels_nor_codebooks_ever_raise_the_error():
    rng = np.random.default_rng(0)
    w = rng.standard_normal((6, 24)).astype(np.float32)
    x = correlated(24)
    h = (x.T @ x / len(x)).astype(np.float32)
    table = np.sort(rng.standard_normal((2, 4)), axis=1).astype(np.float32)
    codes = Codes(
        rng.integers(0, 4, w.shape).astype(np.uint8),
        np.ones(6, np.float32),
        table,
        np.arange(6) % 2,
    )
    before = codes.errors(w, h).sum()
    for turn in range(6):
        codes = descend(w, codes, h, 1) if turn % 2 else fit_tables(w, codes, h)
        after = codes.errors(w, h).sum()
        assert after <= before * (1 + 1e-5)
        assert (np.diff(codes.table, axis=1) >= 0).all()
        before = after


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nupes{bits=1}", "bits is 1"),
        ("nupes{exponent=20}", "exponent is 20"),
        ("nupes{gain=1}", "gain is 1"),
        ("nupes{damping=0}", "damping"),
        ("jlcm{rows=0}", "at least 1"),
        ("jlcm{neurons=-1}", "at least 0"),
    ],
)
def test_options_outside_of_their_range_are_refused(text, said):
    with pytest.raises(UsageError, match=said):
        Pipeline.parse(text)


@pytest.mark.parametrize("choose", PASSES)
def test_without_data_or_with_a_weight_that_is_no_number_there_is_one_error(choose):
    model = mlp((8, 6, 4))
    with pytest.raises(PassError, match="no data"):
        Pipeline.parse(choose).run(Program(ir.from_proto(model)), Context())
    weight = next(t for t in model.graph.initializer if t.name == "w0")
    array = np.frombuffer(weight.raw_data, np.float32).copy()
    array[3] = np.nan
    weight.raw_data = array.tobytes()
    with pytest.raises(PassError, match="holds nan"):
        run(model, choose, {"x": correlated(8)})
