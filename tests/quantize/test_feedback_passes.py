"""gptq, gptaq and gpfq on graphs: what they choose is stored, and is never worse than rounded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import qcomp
from qcomp.errors import PassError, UsageError
from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import ChosenWeights, FeedbackErrors, QuantizationRecord
from tests.models import from_text, mlp, small_cnn

METHODS = ("gptq", "gptq{order=activation}", "gptaq", "gpfq", "gpfq{threshold=hard}")
PREPARE = "canonicalise,fold-constants,fuse-batch-norm"


def run(model, pipeline, data):
    program = Program(ir.from_proto(model))
    context = Context(calibration=lambda: iter([data]))
    Pipeline.parse(f"{PREPARE},{pipeline}").run(program, context)
    return program, context


def correlated(columns: int, rows: int = 256) -> np.ndarray:
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((columns, columns)) * np.exp(-np.arange(columns) / 4)[:, None]
    return (rng.standard_normal((rows, columns)) @ mix).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_no_layer_is_worse_than_rounded_and_outputs_are_nearer(method):
    model, data = mlp((24, 32, 20, 6)), {"x": correlated(24)}
    real = HybridSession(Program(ir.from_proto(model))).run(data)["y"]
    store = "quantize-weights{bits=3,group=16,symmetric=false,accuracy_level=0}"
    options = "bits=3,group=16,rows=256"
    name = method.replace("}", f",{options}}}") if "{" in method else f"{method}{{{options}}}"
    errors = {}
    for pipeline in (store, f"{name},{store}"):
        program, context = run(model, pipeline, data)
        errors[pipeline] = np.square(HybridSession(program).run(data)["y"] - real).sum()
    plain, better = errors.values()
    assert better < plain
    found = context.need(FeedbackErrors, "gptq")
    assert [layer.channels for layer in found.layers] == [32, 20, 6]
    for layer in found.layers:
        assert layer.left <= layer.rounded
        assert 0 <= layer.kept <= layer.channels
    record = context.need(QuantizationRecord, "quantize-weights")
    assert {layer.method.partition("{")[0] for layer in record.layers} == {found.method}


def test_the_graph_stays_as_it_is_until_a_pass_stores_the_integers():
    model, data = mlp((16, 8, 4)), {"x": correlated(16)}
    before, _ = run(model, "canonicalise", data)
    after, context = run(model, "gptq", data)
    wanted, got = (HybridSession(p).run(data)["y"] for p in (before, after))
    np.testing.assert_array_equal(wanted, got)
    assert set(context.need(ChosenWeights, "gptq").weights) == {"w0", "w1"}


def test_integers_that_no_pass_stores_are_said_to_be_lost():
    data = {"x": correlated(16)}
    found = {}
    for store in ("", ",quantize-weights{symmetric=false}"):
        pipeline = f"{PREPARE},gptq{store}"
        artifact = qcomp.compile(
            mlp((16, 8, 4)), target="cpu-int4", calibration=data, pipeline=pipeline
        )
        report = dict(artifact.report)
        proved = [check for check in report["checks"] if check["result"] == "proved"]
        found[store] = (len(proved), [w for w in report["warnings"] if "no pass stored" in w])
    (lost, words), (kept, none) = found.values()
    assert (lost, kept) == (0, 1)
    assert "gptq chose integers for 2 weights" in words[0]
    assert "quantize-weights" in words[0]
    assert none == []


def test_a_group_that_does_not_divide_has_a_shorter_last_one():
    model, data = mlp((24, 40, 6)), {"x": correlated(24)}
    program, context = run(model, "gptq{group=32},quantize-weights{group=32,symmetric=false}", data)
    chosen = context.need(ChosenWeights, "gptq").weights
    assert chosen["w0"].scale.shape == (40, 1)
    assert chosen["w1"].scale.shape == (6, 2)
    assert np.isfinite(HybridSession(program).run(data)["y"]).all()


def test_inputs_that_are_always_zero_do_no_harm():
    data = correlated(16)
    data[:, [2, 9]] = 0.0
    model = mlp((16, 8, 4))
    real = HybridSession(Program(ir.from_proto(model))).run({"x": data})["y"]
    program, context = run(
        model, "gptq,quantize-weights{symmetric=false,accuracy_level=0}", {"x": data}
    )
    assert not context.warnings
    got = HybridSession(program).run({"x": data})["y"]
    assert np.square(got - real).sum() < 0.01 * np.square(real).sum()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["gptq", "gptaq", "choose-method"])
def test_inputs_too_large_to_be_squared_are_rounded_without_and_that_is_said(method):
    model, data = mlp((16, 8, 4)), {"x": correlated(16) * np.float32(1e22)}
    store = "quantize-weights{symmetric=false,accuracy_level=0}"
    program, context = run(model, f"{method},{store}", data)
    assert len(context.warnings) == 2  # both layers read such values
    assert all("too large to be squared" in line for line in context.warnings)
    plain, _ = run(model, store, data)
    real = HybridSession(Program(ir.from_proto(model))).run(data)["y"].astype(np.float64)
    found, rounded = (
        np.square(HybridSession(p).run(data)["y"] - real).sum() for p in (program, plain)
    )
    assert found <= 1.2 * rounded


def test_convolutions_and_their_groups_take_integers_a_channel():
    rng = np.random.default_rng(3)
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        net (float[n, 4, 9, 9] x) => (float[n, 6, 5, 5] y) {
            c = Conv <group: int = 2, pads: ints = [1, 1, 1, 1]> (x, w0, b0)
            r = Relu (c)
            y = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (r, w1)
        }""",
        w0=(rng.standard_normal((8, 2, 3, 3)) * 0.3).astype(np.float32),
        b0=rng.standard_normal(8).astype(np.float32),
        w1=(rng.standard_normal((6, 8, 3, 3)) * 0.3).astype(np.float32),
    )
    smooth = rng.standard_normal((64, 4, 9, 9)).cumsum(axis=3).astype(np.float32)
    real = HybridSession(Program(ir.from_proto(model))).run({"x": smooth})["y"]
    noise = {}
    static = "quantize-static{weight_bits=4}"
    for choose in ("", "gptq{scheme=static,bits=4,group=0,symmetric=true},"):
        program, context = run(model, f"calibrate,{choose}{static}", {"x": smooth})
        got = HybridSession(program).run({"x": smooth})["y"]
        noise[choose] = np.square(got - real).sum()
    assert {c.scale.shape for c in context.need(ChosenWeights, "gptq").weights.values()} == {
        (8,),
        (6,),
    }
    plain, better = noise.values()
    assert better < 0.7 * plain


def test_a_batch_normalized_network_goes_through_as_well():
    data = np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)
    choose = "gptaq{scheme=static,bits=4,group=0,symmetric=true}"
    pipeline = f"calibrate,{choose},quantize-static{{weight_bits=4}}"
    program, context = run(small_cnn(), pipeline, {"x": data})
    assert len(context.need(FeedbackErrors, "gptaq").layers) == 3
    assert np.isfinite(HybridSession(program).run({"x": data})["y"]).all()


def test_only_products_over_positions_are_rounded_where_these_are_asked_for():
    rng = np.random.default_rng(2)
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        net (float[n, 6, 8] x, float[n, 8] z) => (float[n, 6, 5] y, float[n, 5] u) {
            y = MatMul (x, w0)
            u = MatMul (z, w1)
        }""",
        w0=rng.standard_normal((8, 5)).astype(np.float32),
        w1=rng.standard_normal((8, 5)).astype(np.float32),
    )
    data = {"x": rng.standard_normal((32, 6, 8)), "z": rng.standard_normal((32, 8))}
    data = {name: array.astype(np.float32) for name, array in data.items()}
    choose = "gptq{scheme=static,bits=8,group=0,symmetric=true,layers=positions}"
    _, context = run(model, f"calibrate,{choose},quantize-static", data)
    assert set(context.need(ChosenWeights, "gptq").weights) == {"w0"}
    assert len(context.need(QuantizationRecord, "quantize-static").layers) == 2


@pytest.mark.parametrize("method", ["gptq", "gptaq", "gpfq"])
def test_without_data_the_user_is_told_what_to_give(method):
    program = Program(ir.from_proto(mlp((8, 4))))
    with pytest.raises(PassError, match="no data") as error:
        Pipeline.parse(method).run(program, Context())
    assert "--calib" in str(error.value)


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("gptq{bits=1}", "2 to 8 bits"),
        ("gptq{damping=0}", "damping lies between"),
        ("gptq{scheme=static}", "one scale an output channel"),
        ("gptq{order=random}", "order"),
        ("gpfq{threshold=firm}", "threshold"),
        ("gpfq{strength=-1,threshold=hard}", "at least 0"),
        ("gptaq{rows=0}", "rows is at least 1"),
        ("gptq{layers=none}", "layers"),
        ("gptq{sweeps=-1}", "sweeps is at least 0"),
    ],
)
def test_an_option_outside_its_range_is_refused(pipeline, words):
    with pytest.raises(UsageError, match=words):
        Pipeline.parse(pipeline)
