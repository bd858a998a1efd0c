"""Graphs for accelerators, judged pair by pair against the rules in the targets' files."""

import json
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import qcomp
from qcomp.errors import UsageError
from qcomp.integer_rules import IntegerRules, read_integers
from qcomp.passes.quantize.activation_parameters import activation_parameters, next_power_of_two
from qcomp.passes.quantize.integer_types import INT8
from qcomp.passes.quantize.machine_form import best_power_of_two
from qcomp.quantization import sqnr
from qcomp.target import get_target
from tests.models import from_text, small_cnn

FILES = Path(qcomp.__file__).parent / "targets"
NPUS = ("openvino-int8", "qnn-a16w8", "qnn-int8", "tensorrt-int8", "vitisai-int8")
TYPES = {"u8": np.uint8, "s8": np.int8, "u16": np.uint16, "s16": np.int16, "s32": np.int32}
LEAST = {  # SQNR of the outputs in dB that the integers of each machine must reach here
    "openvino-int8": 30,
    "qnn-a16w8": 33,
    "qnn-int8": 28,
    "tensorrt-int8": 28,
    "vitisai-int8": 18,
}


def table(name):
    """The file as it is, not as qcomp reads it."""
    return tomllib.loads((FILES / f"{name}.toml").read_text(encoding="utf-8"))["integers"]


def network(opset=21):
    """Convolutions with all that stands between them in practice, and two dense layers."""
    rng = np.random.default_rng(5)

    def normal(*shape):
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    return from_text(
        f"""<ir_version: 10, opset_import: ["" : {opset}]>
        net (float[batch, 3, 16, 16] x) => (float[batch, 5] y, float[batch, 8, 8, 8] z) {{
            c0 = Conv <pads: ints = [1, 1, 1, 1]> (x, w0, b0)
            r0 = Relu (c0)
            c1 = Conv <pads: ints = [1, 1, 1, 1]> (r0, w1)
            a = Add (c1, r0)
            r1 = Relu (a)
            t = ConvTranspose <strides: ints = [2, 2]> (r1, wt, bt)
            m = MaxPool <kernel_shape: ints = [4, 4], strides: ints = [4, 4]> (t)
            z = Transpose <perm: ints = [0, 1, 3, 2]> (m)
            s = Sigmoid (m)
            p = GlobalAveragePool (s)
            f = Flatten (p)
            g = Gemm <transB: int = 1> (f, w2, b2)
            h = Tanh (g)
            n = MatMul (h, w3)
            y = Add (n, b3)
        }}""",
        w0=normal(8, 3, 3, 3),
        b0=normal(8),
        w1=normal(8, 8, 3, 3),
        wt=normal(8, 8, 2, 2),
        bt=normal(8),
        w2=normal(12, 8),
        b2=normal(12),
        w3=normal(12, 5),
        b3=normal(5),
    )


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(6)
    return {"x": rng.standard_normal((48, 3, 16, 16)).astype(np.float32)}


@pytest.fixture(scope="module", params=NPUS)
def compiled(request, data, tmp_path_factory):
    """(rules of the file, graph that was written, the artifact)."""
    out = tmp_path_factory.mktemp(request.param) / "out"
    artifact = qcomp.compile(network(), target=request.param, calibration=data, out=out)
    return request.param, table(request.param), onnx.load(out / "stage0.onnx"), artifact


def constants(model):
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def readers(model, name):
    return [(node, i) for node in model.graph.node for i, v in enumerate(node.input) if v == name]


def is_power_of_two(scale):
    return bool((np.frexp(np.abs(scale))[0] == 0.5).all())


def test_the_file_is_valid_onnx_and_runs_close_to_float(compiled, data):
    name, _, model, artifact = compiled
    onnx.checker.check_model(model, full_check=True)
    path = artifact.path / "stage0.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    float_session = onnxruntime.InferenceSession(
        network().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for output in ("y", "z"):
        (wanted,), (got,) = float_session.run([output], data), session.run([output], data)
        assert sqnr(wanted, got) > LEAST[name]


def test_every_activation_has_the_type_and_zero_point_of_the_machine(compiled):
    _, rules, model, _ = compiled
    values = constants(model)
    made = {o: node.op_type for node in model.graph.node for o in node.output}
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) >= 6
    kind = TYPES[rules["activation"]]
    for node in pairs:
        assert node.domain == ""
        scale, zero = values[node.input[1]], values[node.input[2]]
        assert zero.dtype == kind
        assert scale.ndim == 0
        assert scale > 0
        if rules["symmetric"]:
            middle = 0 if np.iinfo(kind).min < 0 else (np.iinfo(kind).max + 1) // 2
            assert zero == middle
        if rules.get("power_of_two"):
            assert is_power_of_two(scale)
        fixed = rules.get("fixed", {}).get(made.get(node.input[0], ""))
        if fixed is not None:
            assert [float(scale), int(zero)] == fixed
        (back,) = [user for user, _ in readers(model, node.output[0])]
        assert back.op_type == "DequantizeLinear"
        assert list(back.input[1:]) == list(node.input[1:])


def test_every_weight_and_bias_is_stored_as_the_machine_takes_it(compiled):
    _, rules, model, _ = compiled
    values = constants(model)
    producer = {o: node for node in model.graph.node for o in node.output}
    layers = [node for node in model.graph.node if node.op_type in rules["weighted"]]
    assert layers
    for node in layers:
        pair = producer[node.input[1]]
        assert pair.op_type == "DequantizeLinear"
        levels, scale = values[pair.input[0]], values[pair.input[1]]
        by_channel = node.op_type in rules["per_channel"]
        kind = "s8" if by_channel else rules["weight"]
        zero = values[pair.input[2]]
        assert levels.dtype == zero.dtype == TYPES[kind]
        assert (zero == (128 if kind == "u8" else 0)).all()
        if by_channel:
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            axis = {"ConvTranspose": 1, "Gemm": int(not transposed), "MatMul": 1}
            along = next((a.i for a in pair.attribute if a.name == "axis"), 1)
            assert along == axis.get(node.op_type, 0)
            assert scale.shape == (levels.shape[along],)
        else:
            assert scale.ndim == 0
        if rules.get("power_of_two"):
            assert is_power_of_two(scale)
        if len(node.input) < 3:
            continue
        if rules["bias"] == "float":
            assert values[node.input[2]].dtype == np.float32
            continue
        bias = producer[node.input[2]]
        assert values[bias.input[0]].dtype == TYPES[rules["bias"]]
        steps = values[bias.input[1]]
        if rules["bias"] == "s32":
            x_scale = values[producer[node.input[0]].input[1]]
            np.testing.assert_allclose(steps, x_scale * scale, rtol=1e-6)
        else:
            assert is_power_of_two(steps)
            assert values[bias.input[2]] == 0


def test_results_are_integers_just_where_the_machine_stores_them(compiled):
    _, rules, model, _ = compiled
    outputs = {value.name for value in model.graph.output}
    producer = {o: node for node in model.graph.node for o in node.output}
    read = {"QuantizeLinear", "Relu", "Clip"}
    for node in model.graph.node:
        users = [user.op_type for user, _ in readers(model, node.output[0])]
        if node.op_type in rules["stored"]:
            fed = [v for v in node.input if v in producer]
            if all(producer[v].op_type == "DequantizeLinear" for v in fed):
                assert set(users) <= read
                assert node.output[0] not in outputs
        if node.op_type in ("Softmax", "LayerNormalization") and node.op_type not in (
            *rules["between"],
            *rules["weighted"],
        ):
            assert "QuantizeLinear" not in users
    relus = [node for node in model.graph.node if node.op_type == "Relu"]
    assert bool(relus) == (rules["clamps"] == "kept")


def test_only_operators_of_the_machine_read_integers(compiled):
    _, rules, model, _ = compiled
    taken = {*rules["weighted"], *rules["between"], *rules["moves"]}
    producer = {o: node for node in model.graph.node for o in node.output}
    stored = bool(rules["stored"])
    for node in model.graph.node:
        integers = [producer[v].op_type == "DequantizeLinear" for v in node.input if v in producer]
        if node.op_type not in taken and any(integers):
            assert stored  # a float operator behind one whose result is always integers


def test_16_bits_below_opset_21_are_those_of_com_microsoft(data, tmp_path):
    artifact = qcomp.compile(
        network(opset=17),
        target="qnn-a16w8",
        calibration=data,
        out=tmp_path / "out",
        pipeline="calibrate,quantize-static,quantization-error",
    )
    model = onnx.load(artifact.path / "stage0.onnx")
    assert {item.domain: item.version for item in model.opset_import}[""] == 17
    pairs = [node for node in model.graph.node if "quantizeLinear" in node.op_type.lower()
             or node.op_type in ("QuantizeLinear", "DequantizeLinear")]  # fmt: skip
    assert {node.domain for node in pairs} == {"com.microsoft"}
    float_session = onnxruntime.InferenceSession(
        network(17).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert sqnr(float_session.run(["y"], data)[0], artifact(data["x"])["y"]) > 33


def test_attention_is_taken_where_the_machine_takes_products_and_its_mask_never_is():
    body = """<ir_version: 10, opset_import: ["" : 21]>
        net (float[batch, 6, 8] x) => (float[batch, 6, 8] y) {
            q = MatMul (x, wq)
            k = MatMul (x, wk)
            v = MatMul (x, wv)
            kt = Transpose <perm: ints = [0, 2, 1]> (k)
            s = MatMul (q, kt)
            masked = Add (s, mask)
            p = Softmax (masked)
            o = MatMul (p, v)
            y = MatMul (o, wo)
        }"""
    rng = np.random.default_rng(8)
    weights = {
        n: rng.standard_normal((8, 8)).astype(np.float32) / 3 for n in ("wq", "wk", "wv", "wo")
    }
    mask = np.triu(np.full((6, 6), -1e4, np.float32), 1)
    model = from_text(body, mask=mask, **weights)
    x = {"x": rng.standard_normal((32, 6, 8)).astype(np.float32)}
    for name, products in (("qnn-a16w8", True), ("openvino-int8", True), ("qnn-int8", False)):
        artifact = qcomp.compile(model, target=name, calibration=x)
        graph = onnx.load(artifact.path / "stage0.onnx").graph
        producer = {o: node for node in graph.node for o in node.output}
        (add,) = [node for node in graph.node if node.op_type == "Add"]
        assert "QuantizeLinear" not in [
            user.op_type for node in [add] for user, _ in readers_of(graph, node.output[0])
        ]
        (soft,) = [node for node in graph.node if node.op_type == "Softmax"]
        users = {user.op_type for user, _ in readers_of(graph, soft.output[0])}
        assert ("QuantizeLinear" in users) == products
        assert producer[add.input[0]].op_type in ("MatMul", "DequantizeLinear")
        assert sqnr(reference(model, x), artifact(x["x"])) > 20


def readers_of(graph, name):
    return [(node, i) for node in graph.node for i, v in enumerate(node.input) if v == name]


def reference(model, feeds):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


def test_the_cpus_rules_are_those_of_its_file():
    assert get_target("cpu-int8").integers in (None, IntegerRules())
    known = {name for name in IntegerRules.__dataclass_fields__}
    for name in NPUS:
        assert set(table(name)) <= known


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ([], "object"),
        ({"activatoin": "u8"}, "did you mean 'activation'"),
        ({"activation": "u9"}, "one of: u8, s8, u16, s16"),
        ({"symmetric": "yes"}, "true or false"),
        ({"weighted": "Conv"}, "list of texts"),
        ({"power_of_two": True}, "needs 'symmetric'"),
        ({"fixed": {"Sigmoid": [0.5]}}, "scale, zero point"),
    ],
)
def test_a_file_with_wrong_integers_is_refused_with_the_fault(data, fault):
    rules, faults = read_integers(data)
    assert rules == IntegerRules()
    assert any(fault in text for text in faults)


def test_a_target_in_json_brings_its_own_integers(tmp_path, data):
    path = tmp_path / "mine.json"
    rules = {**table("tensorrt-int8"), "provider": "MineExecutionProvider", "per_channel": []}
    pipelines = {"default": "canonicalise,calibrate,quantize-static"}
    text = {"kind": "graph", "backend": "onnx_int", "integers": rules, "pipelines": pipelines}
    path.write_text(json.dumps(text))
    artifact = qcomp.compile(network(), target=str(path), calibration=data)
    types = {line["type"] for line in artifact.report["quantization"]["tensors"]}
    assert "s8" in types
    assert "MineExecutionProvider" in artifact.report["quantization"]["note"]


@pytest.mark.parametrize(
    ("rules", "scale", "zero"),
    [
        ({"activation": "u8"}, 2.0 / 255, 64),
        ({"activation": "s8"}, 2.0 / 255, -64),
        ({"activation": "s8", "symmetric": True}, 1.5 / 127, 0),
        ({"activation": "u8", "symmetric": True}, 3.0 / 255, 128),
        ({"activation": "s16", "symmetric": True}, 1.5 / 32767, 0),
        ({"activation": "s8", "symmetric": True, "power_of_two": True}, 2.0**-6, 0),
    ],
)
def test_scale_and_zero_point_of_an_activation(rules, scale, zero):
    affine = activation_parameters(-0.5, 1.5, IntegerRules(**rules))
    assert affine.scale == pytest.approx(scale, rel=1e-6)
    assert affine.zero_point == zero


def test_powers_of_two_are_the_ones_of_least_error():
    np.testing.assert_array_equal(
        next_power_of_two(np.float32([0.3, 0.5, 1.0, 1.01])), [0.5, 0.5, 1.0, 2.0]
    )
    rng = np.random.default_rng(3)
    w = np.append(rng.normal(0, 0.1, 10000), 1.01).astype(np.float32)
    found = best_power_of_two(w, np.asarray(1.01 / 127, np.float32), INT8)
    assert found == 2.0**-7  # covers 0.99: one value is cut, all others have half the step


def test_bits_of_other_machines_weights_are_not_chosen(data):
    with pytest.raises(UsageError, match="8 bits"):
        qcomp.compile(network(), target="qnn-int8", calibration=data, override=["op:Conv{bits=4}"])


def test_the_table_of_the_documentation_is_accepted():
    text = (FILES.parent.parent / "docs" / "targets.md").read_text(encoding="utf-8")
    block = text.partition("```toml\n")[2].partition("```")[0]
    rules, faults = read_integers(tomllib.loads(block)["integers"])
    assert faults == []
    assert rules.fixed == {"Sigmoid": (0.00390625, 0)}
    assert rules.provider == "MineExecutionProvider"


def test_u8_values_of_a_graph_that_came_quantized_are_not_fed_to_a_machine_of_s8(tmp_path):
    x = {"x": np.random.default_rng(1).normal(size=(16, 3, 8, 8)).astype(np.float32)}
    half = qcomp.compile(
        small_cnn(), target="cpu-int8", calibration=x, exclude=["c1"], out=tmp_path / "half"
    )
    again = {"target": "tensorrt-int8", "calibration": x}
    artifact = qcomp.compile(half.path / "stage0.onnx", **again)
    floats = {
        item["layer"]: item["reason"] for item in artifact.report["quantization"]["left_in_float"]
    }
    assert "as UINT8, where s8 is needed" in floats["c1"]


@pytest.mark.parametrize("name", ["tensorrt-int8", "openvino-int8"])
def test_both_inputs_of_a_residual_add_are_integers_where_a_layer_reads_one_of_them(name):
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        net (float[batch, 4, 8, 8] x) => (float[batch, 4, 8, 8] y) {
            r = Exp (x)
            c = Conv <pads: ints = [1, 1, 1, 1]> (r, w)
            y = Add (c, r)
        }""",
        w=(np.random.default_rng(0).normal(size=(4, 4, 3, 3)) / 6).astype(np.float32),
    )
    x = {"x": np.random.default_rng(1).normal(size=(16, 4, 8, 8)).astype(np.float32)}
    artifact = qcomp.compile(model, target=name, calibration=x)
    graph = onnx.load(artifact.path / "stage0.onnx").graph
    producer = {o: node.op_type for node in graph.node for o in node.output}
    (add,) = [node for node in graph.node if node.op_type == "Add"]
    assert [producer[v] for v in add.input] == ["DequantizeLinear"] * 2
    assert sqnr(reference(model, x), artifact(x["x"])) > 28
