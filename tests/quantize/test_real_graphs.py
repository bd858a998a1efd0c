"""Graphs as people have them: halves, functions, control flow, open dimensions, any opset."""

import json

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import qcomp
from qcomp.errors import SourceError, UsageError
from qcomp.execute import Session
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.passes.graph.widen_floats import WidenFloats
from qcomp.passmanager import Context
from qcomp.quantization import sqnr
from tests.quantize.real_graphs import (
    BATCH,
    LENGTH,
    MASK,
    TARGETS,
    D,
    Draws,
    X,
    check,
    compiled,
    model,
)

DRAWS = Draws(13)
RNG, bias, matrix = DRAWS.rng, DRAWS.bias, DRAWS.matrix


@pytest.fixture(autouse=True)
def _the_same_draws() -> None:
    DRAWS.rewind()


IN, OUT = f"float[b, s, {D}] x", f"float[b, s, {D}] y"
BODY = """a = MatMul(x, w1)
 c = Add(a, b1)
 n = LayerNormalization<axis=-1>(c, g, be)
 d = Gelu(n)
 e = MatMul(d, w2)
 y = Mul(e, big)"""
WEIGHTS = {
    **{"w1": matrix(D, 2 * D), "b1": bias(2 * D), "w2": matrix(2 * D, D)},
    **{"g": np.ones(2 * D, np.float32), "be": np.zeros(2 * D, np.float32)},
    "big": RNG.uniform(0.5, 2.0, (LENGTH, D)).astype(np.float32),
}
HALVES = {"float16": (TensorProto.FLOAT16, np.float16), "bfloat16": (16, ml_dtypes.bfloat16)}


def halved(proto: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """The model with all float constants stored as halves."""
    onnx_type, dtype = HALVES[kind]
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            data = numpy_helper.to_array(tensor).astype(dtype)
            made = helper.make_tensor(tensor.name, onnx_type, data.shape, data.tobytes(), raw=True)
            tensor.CopyFrom(made)
    return proto


# --- halves ----------------------------------------------------------------------------------


def test_a_float16_model_keeps_its_types_and_is_quantized_with_float32_scales():
    source = halved(
        model(20, IN.replace("float", "float16"), OUT.replace("float", "float16"), BODY, WEIGHTS),
        "float16",
    )
    feeds = {"x": X.astype(np.float16)}
    reports = check(
        *(source, feeds, ("a", "e")),
        {"LayerNormalization": "no integer kernel", "Gelu": "no integer kernel"},
    )
    artifact, _ = compiled(source, "cpu-int8", feeds)
    written = onnx.load(next(artifact.path.glob("*.onnx"))).graph
    scales = [t for t in written.initializer if t.name.endswith("_scale")]
    assert scales
    assert {t.data_type for t in scales} == {TensorProto.FLOAT}
    for report in reports.values():
        assert any("float16" in w and "computes in float32" in w for w in report["warnings"])


def test_float16_between_casts_of_inputs_and_outputs_is_quantized():
    source = model(
        *(20, f"float[b, s, {D}] x0", f"float[b, s, {D}] y0"),
        *(f"x = Cast<to=10>(x0)\n {BODY}\n y0 = Cast<to=1>(y)", WEIGHTS),
    )
    check(halved(source, "float16"), {"x0": X}, ("a", "e"), {"Gelu": "no integer kernel"})


def test_a_bfloat16_model_that_the_cpu_cannot_run_is_quantized_all_the_same():
    source = model(
        *(21, f"float[b, s, {D}] x0", f"float[b, s, {D}] y0"),
        *(f"x = Cast<to=16>(x0)\n {BODY}\n y0 = Cast<to=1>(y)", WEIGHTS),
        ir_version=10,
    )
    wide = model(21, IN, OUT, BODY, WEIGHTS, ir_version=10)
    expected = {"y0": Session(wide).run({"x": X})["y"]}
    source = halved(source, "bfloat16")
    check(source, {"x0": X}, ("a", "e"), {"Gelu": "no integer kernel"}, expected)


def test_bfloat16_weights_behind_casts_are_quantized():
    body = (
        "w = Cast<to=1>(h)\n v = Cast<to=1>(k)\n a = MatMul(x, w)\n d = Tanh(a)\n y = MatMul(d, v)"
    )
    weights = {"h": WEIGHTS["w1"], "k": WEIGHTS["w2"]}
    source = halved(model(20, IN, OUT, body, weights), "bfloat16")
    check(source, {"x": X}, ("a", "y"), {"Tanh": "no integer kernel"})


def test_halves_that_are_only_stored_do_not_make_a_model_one_of_halves():
    """Such files come from compiling: scales of blocks are halves behind a Cast."""
    body = "w = Cast<to=1>(h)\n a = MatMul(x, w)\n y = Tanh(a)"
    source = model(21, IN, OUT, body, {"h": WEIGHTS["w1"].astype(np.float16)}, ir_version=10)
    program, context = OnnxFrontend().read(source), Context()
    assert WidenFloats().run(program, context)
    assert context.warnings == []
    assert [node.op_type for node in program.model.graph] == ["MatMul", "Tanh"]


@pytest.mark.parametrize("casts", [False, True])
def test_widening_a_second_time_changes_nothing(casts):
    """Inputs and outputs of halves stay, with Casts of the source or of the pass."""
    half_in, half_out = (text.replace("float", "float16") for text in (IN, OUT))
    body = BODY
    if casts:
        half_in, half_out = half_in.replace("] x", "] x0"), half_out.replace("] y", "] y0")
        body = f"x = Cast<to=1>(x0)\n {BODY}\n y0 = Cast<to=10>(y)"
    source = model(21, half_in, half_out, body, WEIGHTS, ir_version=10)
    program = OnnxFrontend().read(source if casts else halved(source, "float16"))
    once = Context()
    changed = WidenFloats().run(program, once)
    assert changed is not casts
    made = ir.to_proto(program.model).SerializeToString(deterministic=True)
    again = Context()
    assert not WidenFloats().run(program, again)
    assert again.warnings == []
    assert ir.to_proto(program.model).SerializeToString(deterministic=True) == made
    types = {info.type.tensor_type.elem_type for info in source.graph.output}
    assert types == {value.dtype.value for value in program.model.graph.outputs}


@pytest.mark.parametrize("kind", HALVES)
def test_halves_that_stay_constants_go_back_into_the_file_as_halves(kind):
    """The weight of an excluded layer is neither doubled in the file nor changed by a bit."""
    source = halved(
        model(
            *(21, f"float[b, s, {D}] x0", f"float[b, s, {D}] y0"),
            *("x = Cast<to=1>(x0)\n w = Cast<to=1>(h)\n y0 = MatMul(x, w)", {"h": WEIGHTS["w1"]}),
            ir_version=10,
        ),
        kind,
    )
    artifact, report = compiled(source, "cpu-int8", {"x0": X}, exclude=["y0"])
    written = onnx.load(next(artifact.path.glob("*.onnx")))
    stored = [t for t in written.graph.initializer if len(t.dims) == 2]
    assert [t.data_type for t in stored] == [HALVES[kind][0]]
    assert stored[0].raw_data == source.graph.initializer[0].raw_data
    np.testing.assert_array_equal(
        artifact.run({"x0": X})["y0"], Session(source).run({"x0": X})["y0"]
    )
    assert "excluded by y0" in report["quantization"]["left_in_float"][0]["reason"]


def test_a_float16_recurrent_layer_is_quantized():
    source = model(
        *(20, f"float16[s, b, {D}] x", "float16[s, b, 32] y"),
        "h, hn, cn = LSTM<hidden_size=32>(x, w, r)\n y = Squeeze(h, one)",
        {"w": matrix(D, 128).T[None], "r": matrix(32, 128).T[None], "one": np.array([1])},
    )
    source = halved(source, "float16")
    feeds = {"x": X.astype(np.float16)}
    reference = Session(source).run(feeds)["y"]
    for target in ("cpu-int8", "cpu-dynamic-int8"):
        artifact, report = compiled(source, target, feeds)
        got = artifact.run(feeds)["y"]
        assert got.dtype == np.float16
        assert sqnr(reference.astype(np.float32), got.astype(np.float32)) > 30.0
        assert {line["op"] for line in report["quantization"]["layers"]} == {"LSTM"}


def test_float16_in_the_body_of_a_loop_and_behind_a_mask_is_widened():
    """The mask is the least float16; as float32 it still shuts positions out."""
    weights = {"w1": matrix(D, D), "w2": matrix(D, D), "least": np.array(-65504, np.float32)}
    body = f"""a = MatMul(x, w1)
    t = Transpose<perm=[0,2,1]>(a)
    scores = MatMul(x, t)
    m = Unsqueeze(mask, one)
    masked = Where(m, scores, least)
    p = Softmax<axis=-1>(masked)
    o = MatMul(p, a)
    y = Loop(n, c, o) <body = l (int64 i, bool ci, float16[b,s,{D}] u)
        => (bool co, float16[b,s,{D}] v) {{ co = Identity(ci)
        q = MatMul(u, w2)
        v = Tanh(q) }}>"""
    weights |= {"one": np.array([1]), "n": np.array(2), "c": np.array(True)}
    half_in, half_out = (text.replace("float", "float16") for text in (IN, OUT))
    source = halved(model(18, f"{half_in}, bool[b, s] mask", half_out, body, weights), "float16")
    feeds = {"x": X.astype(np.float16), "mask": MASK.astype(bool)}
    left = {"Loop": "body of a control-flow", "Softmax": "near 0"}
    check(source, feeds, ("a",), left, slack=2.0)


# --- functions and control flow --------------------------------------------------------------

FUNCTIONS = """<domain: "my", opset_import: ["" : 18, "my" : 1]>
block (x, w, b) => (y) { m = MatMul(x, w)
 a = Add(m, b)
 y = my.swish(a) }
<domain: "my", opset_import: ["" : 17]>
swish (x) => (y) { s = Sigmoid(x)
 y = Mul(x, s) }"""


def with_functions() -> onnx.ModelProto:
    weights = {"w1": matrix(D, D), "w2": matrix(D, D), "b1": bias(D), "b2": bias(D)}
    body = "h = my.block(x, w1, b1)\n y = my.block(h, w2, b2)"
    return model(18, IN, OUT, body, weights, FUNCTIONS)


def test_weights_of_model_local_functions_are_quantized_under_the_names_of_their_calls():
    check(with_functions(), {"x": X}, ("h/m", "y/m"), {"Sigmoid": "inputs are float"})


def test_rules_for_a_call_hold_for_what_its_function_does():
    source = with_functions()
    _, report = compiled(source, "cpu-int8", {"x": X}, exclude=["h"])
    account = report["quantization"]
    assert [line["layer"] for line in account["layers"]] == ["y/m"]
    reasons = {line["layer"]: line["reason"] for line in account["left_in_float"]}
    assert reasons["h/m"] == "excluded by h"
    _, report = compiled(source, "cpu-int8", {"x": X}, override=["y{bits=4}"])
    bits = {line["layer"]: line["bits"] for line in report["quantization"]["layers"]}
    assert bits["h/m"] == "s8"
    assert bits["y/m"].startswith("s4")


def test_patterns_may_name_the_operators_inside_of_a_function_as_the_report_does():
    source = with_functions()
    _, report = compiled(source, "cpu-int8", {"x": X}, exclude=["y/m"])
    assert [line["layer"] for line in report["quantization"]["layers"]] == ["h/m"]
    with pytest.raises(UsageError, match="matches no operator") as caught:
        compiled(source, "cpu-int8", {"x": X}, exclude=["y/mm"])
    assert "y/m" in caught.value.hint


@pytest.mark.parametrize("kind", ["If", "Loop"])
def test_weights_in_the_bodies_of_control_flow_are_listed_as_left_in_float(kind):
    weights = {"w1": matrix(D, D), "w2": matrix(D, D)}
    feeds = {"x": X}
    if kind == "If":
        body = (
            f"a = MatMul(x, w1)\n y = If(k) <then_branch = t () => (float[b,s,{D}] p) "
            f"{{ p = MatMul(a, w2) }}, else_branch = e () => (float[b,s,{D}] q) {{ q = Relu(a) }}>"
        )
        weights["k"] = np.array(True)
        inputs = f"{IN}, bool k"
        feeds["k"] = weights.pop("k")
    else:
        body = (
            f"a = MatMul(x, w1)\n y = Loop(n, c, a) <body = l (int64 i, bool ci, float[b,s,{D}] u) "
            f"=> (bool co, float[b,s,{D}] v) {{ co = Identity(ci)\n p = MatMul(u, w2)\n "
            "v = Tanh(p) }>"
        )
        weights |= {"n": np.array(3), "c": np.array(True)}
        inputs = IN
    reports = check(
        model(18, inputs, OUT, body, weights), feeds, ("a",), {kind: "body of a control-flow"}
    )
    for report in reports.values():
        lines = report["quantization"]["left_in_float"]
        reasons = {line["layer"]: line["reason"] for line in lines}
        assert reasons["p"] == "it is inside a control-flow body"


# --- opsets ----------------------------------------------------------------------------------

CNN = {
    **{"w1": matrix(27, 8).T.reshape(8, 3, 3, 3), "b1": bias(8)},
    **{"s": np.ones(8, np.float32), "t": bias(8), "m": bias(8), "v": np.ones(8, np.float32)},
    **{"w2": matrix(72, 32).T.reshape(32, 8, 3, 3), "w3": matrix(32, 10), "b3": bias(10)},
    **{"scales": np.array([1, 1, 2, 2], np.float32), "roi": np.zeros(0, np.float32)},
    **{"zero": np.float32(0), "six": np.float32(6), "axes": np.array([2, 3])},
}


def cnn(opset: int) -> onnx.ModelProto:
    """One network in the forms of an opset: clipped, padded, resized, summed up, normalized."""
    old = opset < 13
    clip = "Clip<min=0.,max=6.>(r)" if opset < 11 else "Clip(r, zero, six)"
    resize = (
        'Resize<mode="nearest">(k, scales)'
        if opset < 11
        else (
            'Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">'
            + ("(k, roi, scales)" if old else "(k, , scales)")
        )
    )
    total = "ReduceSum<axes=[2,3],keepdims=0>(q)" if old else "ReduceSum<keepdims=0>(q, axes)"
    softmax = "Softmax(y0)" if old else "Softmax<axis=-1>(y0)"
    drop = "Dropout<ratio=0.5>(f)" if opset < 12 else "Dropout(f)"
    body = f"""c = Conv<pads=[1,1,1,1],kernel_shape=[3,3]>(x, w1, b1)
    r = BatchNormalization(c, s, t, m, v)
    k = {clip}
    z = {resize}
    d = Conv<pads=[1,1,1,1],kernel_shape=[3,3],strides=[2,2]>(z, w2)
    q = Relu(d)
    f = {total}
    o = {drop}
    y0 = Gemm(o, w3, b3)
    y = {softmax}"""
    used = {name: array for name, array in CNN.items() if f" {name}" in body or f"({name}" in body}
    source = model(opset, "float[n, 3, 8, 8] x", "float[n, 10] y", body, used, ir_version=7)
    del source.opset_import[1:]
    return source


@pytest.mark.parametrize("opset", [10, 11, 12, 13, 17, 18, 21, 23])
def test_a_network_of_any_opset_compiles_for_every_target(opset):
    source = cnn(opset)
    images = RNG.normal(size=(BATCH, 3, 8, 8)).astype(np.float32)
    check(
        *(source, {"x": images}),
        {"cpu-int8": ("c", "d", "y0"), "cpu-dynamic-int8": ("y0",), "cpu-int4": ("y0",)},
        {"Softmax": "near 0"},
        slack=2.0,
    )


@pytest.mark.parametrize(("ir_version", "opset"), [(3, 8), (6, 11), (8, 17)])
def test_weights_that_are_listed_as_inputs_are_quantized_all_the_same(ir_version, opset):
    weights = {"w1": matrix(D, D), "b1": bias(D), "w2": matrix(D, D)}
    body = "a = Gemm<transB=1>(x, w1, b1)\n r = Relu(a)\n y = Gemm(r, w2, b1)"
    source = model(opset, f"float[b, {D}] x", f"float[b, {D}] y", body, weights, "", ir_version)
    del source.opset_import[1:]
    for tensor in source.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims))
        source.graph.input.append(info)
    reports = check(source, {"x": X[:, 0]}, ("a", "y"), {})
    for report in reports.values():
        told = [text for text in report["warnings"] if "have a default value" in text]
        # Before IR version 4 no caller could give another value.
        assert len(told) == (ir_version >= 4)


# --- open dimensions -------------------------------------------------------------------------


def test_batch_and_sequence_stay_open_through_reshapes_as_exporters_write_them():
    """Shape, Gather, Unsqueeze, Concat, Reshape; and Expand of a mask to the batch."""
    body = """dims = Shape(x)
    n = Gather(dims, i0)
    l = Gather(dims, i1)
    nu = Unsqueeze(n, at)
    lu = Unsqueeze(l, at)
    four = Concat<axis=0>(nu, lu, heads, size)
    three = Concat<axis=0>(nu, lu, width)
    p = MatMul(x, wq)
    r = Reshape(p, four)
    q = Transpose<perm=[0,2,1,3]>(r)
    k = Transpose<perm=[0,2,3,1]>(r)
    scores = MatMul(q, k)
    square = Concat<axis=0>(nu, one, lu, lu)
    mask = Expand(none, square)
    sum = Add(scores, mask)
    soft = Softmax<axis=-1>(sum)
    o = MatMul(soft, q)
    t = Transpose<perm=[0,2,1,3]>(o)
    flat = Reshape(t, three)
    y = MatMul(flat, wo)"""
    weights = {
        **{"wq": matrix(D, D) / 2, "wo": matrix(D, D), "none": np.zeros((1, 1, 1, 1), np.float32)},
        **{"i0": np.array(0), "i1": np.array(1), "at": np.array([0]), "one": np.array([1])},
        **{"heads": np.array([4]), "size": np.array([D // 4]), "width": np.array([D])},
    }
    source = model(17, IN, OUT, body, weights)
    for target, least in TARGETS.items():
        artifact, _ = compiled(source, target, {"x": X})
        graph = onnx.load(next(artifact.path.glob("*.onnx"))).graph
        for info in (*graph.input, *graph.output):
            dims = info.type.tensor_type.shape.dim
            assert [dim.dim_param or dim.dim_value for dim in dims] == ["b", "s", D]
        for batch, length in ((1, 3), (5, 17)):
            feeds = {"x": RNG.normal(size=(batch, length, D)).astype(np.float32)}
            wanted, got = Session(source).run(feeds)["y"], artifact.run(feeds)["y"]
            assert sqnr(wanted, got) > least - 4, (target, batch, length)


# --- files -----------------------------------------------------------------------------------


def test_weights_in_a_file_beside_the_model_are_quantized(tmp_path):
    source = model(
        17,
        IN,
        OUT,
        "a = MatMul(x, w1)\n t = Tanh(a)\n y = MatMul(t, w2)",
        {"w1": matrix(D, 2 * D), "w2": matrix(2 * D, D)},
    )
    wanted = Session(source).run({"x": X})["y"]
    path = tmp_path / "model.onnx"
    onnx.save(source, path, save_as_external_data=True, location="w.bin", size_threshold=16)
    assert (tmp_path / "w.bin").stat().st_size > 60_000
    for target, least in TARGETS.items():
        artifact, report = compiled(path, target, {"x": X})
        assert sqnr(wanted, artifact.run({"x": X})["y"]) > least
        assert [line["layer"] for line in report["quantization"]["layers"]] == ["a", "y"]


@pytest.mark.parametrize(
    ("op", "why", "target"),
    [
        *(("my.Thing(a)", "my:Thing", target) for target in TARGETS),
        *(("com.microsoft.NoSuch(a)", "NoSuch", target) for target in TARGETS),
        ("Reshape(a, odd)", "cannot be reshaped", "cpu-int8"),  # it loads, and fails with data
    ],
)
def test_a_model_that_onnx_runtime_cannot_run_is_one_clear_error(op, why, target):
    weights = {"w1": matrix(D, D), **({"odd": np.array([7, 11, -1])} if "odd" in op else {})}
    source = model(17, IN, OUT, f"a = MatMul(x, w1)\n y = {op}", weights)
    with pytest.raises(SourceError, match="cannot run the model as it came") as caught:
        qcomp.compile(source, target=target, calibration={"x": X} if "int8" in target else None)
    assert why in caught.value.why


def test_a_weight_that_is_the_first_operand_is_left_in_float_with_that_reason():
    source = model(
        17, f"float[{D}, n] x", f"float[{D}, n] y", "y = MatMul(w, x)", {"w": matrix(D, D)}
    )
    _, report = compiled(source, "cpu-dynamic-int8", {})
    (line,) = report["quantization"]["left_in_float"]
    assert line["reason"].startswith("its weight is the first operand")


def test_a_model_that_is_quantized_already_is_not_quantized_again(tmp_path):
    source = model(
        17,
        IN,
        OUT,
        "a = MatMul(x, w1)\n t = Tanh(a)\n y = MatMul(t, w2)",
        {"w1": matrix(D, D), "w2": matrix(D, D)},
    )
    for first in TARGETS:
        artifact, _ = compiled(source, first, {"x": X})
        path = next(artifact.path.glob("*.onnx"))
        again, report = compiled(path, "cpu-int8", {"x": X})
        assert report["quantization"]["layers"] == []
        assert any("already quantized" in text for text in report["warnings"])
        np.testing.assert_array_equal(again.run({"x": X})["y"], artifact.run({"x": X})["y"])
    assert json.loads((again.path / "report.json").read_text())["quantization"]["left_in_float"]
