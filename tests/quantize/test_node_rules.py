"""Control per operator: --exclude, --include, --override, in Python and in the pipeline's text."""

import numpy as np
import pytest

import qcomp
from qcomp.errors import UsageError
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import NodeRules, QuantizationRecord, TensorStatistics
from tests import models
from tests.quantize.conftest import build_program


@pytest.fixture
def rows(rng):
    return {"x": rng.normal(size=(64, 64)).astype(np.float32)}


@pytest.fixture
def images(rng):
    return {"x": rng.normal(size=(16, 3, 12, 12)).astype(np.float32)}


@pytest.fixture
def tower(rng):
    """Three layers with the names that exporters give."""
    program = build_program(
        "g (float[n, 64] x) => (float[n, 8] y) "
        "{ a = MatMul(x, w1)\n r = Relu(a)\n b = MatMul(r, w2)\n y = MatMul(b, w3) }",
        {
            "w1": rng.normal(0, 0.1, (64, 48)).astype(np.float32),
            "w2": rng.normal(0, 0.1, (48, 32)).astype(np.float32),
            "w3": rng.normal(0, 0.1, (32, 8)).astype(np.float32),
        },
    )
    names = ("/layer.1/fc/MatMul", "/layer.1/act/Relu", "/layer.10/fc/MatMul", "/head/MatMul")
    for node, name in zip(program.model.graph, names, strict=True):
        node.name = name
    return program


def asked(program, pipeline, rules, data):
    """Run a pipeline with rules; return the quantized operators and the others' reasons."""
    context = Context()
    context.calibration = lambda: iter([data])
    rules.check(program.model.graph)
    context.put(rules)
    Pipeline.parse(pipeline).run(program, context)
    record = context.get(QuantizationRecord)
    return (
        {layer.node: layer.weight_type for layer in record.layers},
        {op.node: op.reason for op in record.float_ops},
        context,
    )


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("/head/MatMul", {"/head/MatMul"}),
        ("/layer*/fc/*", {"/layer.1/fc/MatMul", "/layer.10/fc/MatMul"}),
        ("sub:/layer.1", {"/layer.1/fc/MatMul", "/layer.1/act/Relu"}),
        ("op:MatMul", {"/layer.1/fc/MatMul", "/layer.10/fc/MatMul", "/head/MatMul"}),
        ("op:R*", {"/layer.1/act/Relu"}),
    ],
)
@pytest.mark.parametrize(
    "passes", ["calibrate,quantize-static", "quantize-dynamic", "quantize-weights"]
)
def test_a_pattern_leaves_what_it_matches_and_the_report_names_it(
    tower, rows, passes, pattern, left
):
    layers, floats, _ = asked(tower, passes, NodeRules((pattern,)), rows)
    matmuls = {"/layer.1/fc/MatMul", "/layer.10/fc/MatMul", "/head/MatMul"}
    assert set(layers) == matmuls - left
    for name in left:
        assert floats[name] == f"excluded by {pattern}"


def test_a_convolution_that_is_excluded_takes_its_stream_with_it(cnn, images, run):
    wanted = run(cnn, images)["y"]
    layers, floats, _ = asked(cnn, "calibrate,quantize-static", NodeRules(("c3",)), images)
    assert floats["c3"] == "excluded by c3"
    assert "c3" not in layers
    assert {"c1", "c2", "c4", "y"} <= set(layers)
    assert qcomp.quantization.sqnr(wanted, run(cnn, images)["y"]) > 20
    assert "w3" in cnn.model.graph.initializers


@pytest.mark.parametrize("name", ["c1", "r1", "k2", "s", "gate", "cat", "p", "gap", "f", "y"])
def test_each_operator_can_be_left_out_and_the_rest_still_runs(cnn, images, run, name):
    wanted = run(cnn, images)["y"]
    layers, floats, _ = asked(cnn, "calibrate,quantize-static", NodeRules((name,)), images)
    assert floats[name] == f"excluded by {name}"
    assert layers
    assert name not in layers
    assert qcomp.quantization.sqnr(wanted, run(cnn, images)["y"]) > 20


def test_include_quantizes_nothing_else(cnn, images, run):
    rules = NodeRules((), ("c1", "op:Gemm"))
    layers, floats, _ = asked(cnn, "calibrate,quantize-static", rules, images)
    assert set(layers) == {"c1", "y"}
    assert floats["c4"] == "not among the included c1, op:Gemm"
    assert run(cnn, images)["y"].shape == (16, 10)


def test_exclude_wins_over_include(tower, rows):
    rules = NodeRules(("/head/*",), ("op:MatMul",))
    layers, floats, _ = asked(tower, "quantize-dynamic", rules, rows)
    assert set(layers) == {"/layer.1/fc/MatMul", "/layer.10/fc/MatMul"}
    assert floats["/head/MatMul"] == "excluded by /head/*"


def test_bits_are_set_per_operator_and_the_later_override_wins(tower, rows, run):
    rules = NodeRules.parse(override=["op:MatMul{bits=4}", "/head/*{bits=7}"])
    wanted = run(tower, rows)["y"]
    layers, _, _ = asked(tower, "calibrate,quantize-static", rules, rows)
    assert layers == {
        "/layer.1/fc/MatMul": "s4",
        "/layer.10/fc/MatMul": "s4",
        "/head/MatMul": "s7",
    }
    graph = tower.model.graph.initializers
    assert graph["w1_quantized"].dtype.name == "INT4"
    assert np.abs(graph["w3_quantized"].const_value.numpy()).max() <= 63
    assert qcomp.quantization.sqnr(wanted, run(tower, rows)["y"]) > 10


def test_blocks_have_four_bits_but_for_one_layer(tower, rows, run):
    rules = NodeRules.parse(override=["/head/*{bits=8}"])
    layers, _, _ = asked(tower, "quantize-weights{bits=4}", rules, rows)
    assert layers["/head/MatMul"] == "s8/32"
    assert layers["/layer.1/fc/MatMul"] == "s4/32"
    bits = {n.name: n.attributes["bits"].as_int() for n in tower.model.graph if n.domain}
    assert sorted(bits.values()) == [4, 4, 8]
    assert run(tower, rows)["y"].shape == (64, 8)


def test_the_method_of_one_layer_chooses_the_range_that_it_reads(tower, rows):
    rules = NodeRules.parse(override=["/head/*{method=percentile}"])
    _, _, context = asked(
        tower, "calibrate{method=minmax,percentile=90},quantize-static", rules, rows
    )
    found = context.get(TensorStatistics)
    assert found.methods == {"x": "minmax", "r": "minmax", "b": "percentile"}
    assert found.ranges["b"].high < found.ranges["b"].maximum
    assert found.ranges["r"].high == found.ranges["r"].maximum


def test_a_layer_can_be_left_to_another_scheme(tower, rows):
    rules = NodeRules.parse(override=["/head/*{scheme=dynamic}", "sub:/layer.1{scheme=float}"])
    passes = "calibrate,quantize-static,quantize-dynamic"
    _, floats, context = asked(tower, passes, rules, rows)
    schemes = {x.node: x.scheme for x in context.get(QuantizationRecord).layers}
    assert schemes == {"/layer.10/fc/MatMul": "static", "/head/MatMul": "dynamic"}
    assert floats["/layer.1/fc/MatMul"] == "scheme=float by sub:/layer.1"


def test_an_embedding_and_halved_constants_can_be_left_out(rng, build):
    def program():
        return build(
            "g (int64[n] ids) => (float[n, 8] y) { e = Gather(t, ids)\n y = Add(e, c) }",
            {
                "t": rng.normal(size=(128, 8)).astype(np.float32),
                "c": rng.normal(size=8).astype(np.float32),
            },
        )

    passes = "quantize-embeddings,halve-constants{least_bytes=1}"
    left = program()
    context = Context()
    context.put(NodeRules(("op:Gather", "op:Add")))
    Pipeline.parse(passes).run(left, context)
    assert [node.op_type for node in left.model.graph] == ["Gather", "Add"]
    taken = program()
    Pipeline.parse(passes).run(taken, Context())
    assert {"c_half", "t_quantized"} <= set(taken.model.graph.initializers)


def test_excluded_layers_are_not_smoothed(attention, compiled, rng):
    data = {
        "x": (rng.normal(size=(16, 8, 32)) * np.geomspace(1, 200, 32)).astype(np.float32),
        "mask": np.zeros((16, 1, 8), np.float32),
    }
    rules = 'select-nodes{exclude=["op:MatMul"]}'
    compiled(attention, f"{rules},smooth-activations", data)
    assert not any("smooth" in name for name in attention.model.graph.initializers)
    compiled(attention, "smooth-activations", data)
    assert any("smooth" in name for name in attention.model.graph.initializers)


def test_a_pipeline_s_text_has_rules_for_the_passes_behind(tower, compiled, rows):
    text = 'select-nodes{exclude=["/head/*"],override=["sub:/layer.1{bits=4}"]}'
    assert str(Pipeline.parse(text)) == text
    context = compiled(tower, f"{text},calibrate,quantize-static", rows)
    record = context.get(QuantizationRecord)
    assert {x.node: x.weight_type for x in record.layers} == {
        "/layer.1/fc/MatMul": "s4",
        "/layer.10/fc/MatMul": "s8",
    }


@pytest.mark.parametrize(
    ("rules", "hint"),
    [
        ({"exclude": "/haed/MatMul"}, "'/head/MatMul'"),
        ({"include": ["op:Matmul"]}, "'op:MatMul'"),
        ({"override": "sub:/layer.2{bits=4}"}, "/layer.1"),
        ({"exclude": "zzz*"}, "qcomp inspect MODEL --nodes"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_with_near_names(tower, rules, hint):
    with pytest.raises(UsageError, match="matches no operator") as error:
        NodeRules.parse(**rules).check(tower.model.graph)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    "text", ["a", "a{}", "a{bits}", "a{bits=x}", "a{bit=4}", "a{scheme=statc}", "{bits=4}"]
)
def test_an_override_that_cannot_be_read_is_an_error(text):
    with pytest.raises(UsageError) as error:
        NodeRules.parse(override=[text])
    assert error.value.hint


@pytest.mark.parametrize(
    ("passes", "override"),
    [
        ("calibrate,quantize-static", "op:MatMul{bits=5}"),
        ("calibrate,quantize-static", "op:MatMul{method=best}"),
        ("quantize-dynamic", "op:MatMul{bits=4}"),
        ("quantize-dynamic", "op:MatMul{method=mse}"),
        ("quantize-weights", "op:MatMul{bits=9}"),
        ("gptq,quantize-weights", "op:MatMul{bits=1}"),
        ("quantize-weights", "op:MatMul{method=best}"),
    ],
)
def test_options_that_a_pass_cannot_do_are_refused(tower, rows, passes, override):
    with pytest.raises(UsageError):
        asked(tower, passes, NodeRules.parse(override=[override]), rows)


def test_an_override_without_effect_is_said(tmp_path, rng):
    path = tmp_path / "m.onnx"
    path.write_bytes(models.mlp((4, 16, 3)).SerializeToString())
    asked = ["r0{bits=4}", "y{scheme=weights}", "h0{bits=8}"]
    artifact = qcomp.compile(path, target="cpu-dynamic-int8", override=asked)
    said = [text for text in artifact.report["warnings"] if "changed nothing" in text]
    assert len(said) == 2
    assert "'r0'" in said[0]
    assert "'y'" in said[1]
    floats = {x["layer"]: x["reason"] for x in artifact.report["quantization"]["left_in_float"]}
    assert floats["y"] == "scheme=weights by y: it is not for the scheme 'dynamic'"


def test_compile_takes_patterns_and_names_stay_the_source_s(tmp_path, rng):
    path = tmp_path / "m.onnx"
    path.write_bytes(models.mlp((4, 16, 3)).SerializeToString())
    program = qcomp.read(str(path))
    first = next(n for n in program.model.graph if n.op_type in ("Gemm", "MatMul"))
    name = first.name or first.outputs[0].name
    data = {"x": rng.normal(size=(48, 4)).astype(np.float32)}
    artifact = qcomp.compile(path, target="cpu-int8", calibration=data, exclude=[name])
    floats = {x["layer"]: x["reason"] for x in artifact.report["quantization"]["left_in_float"]}
    assert floats[name] == f"excluded by {name}"
    with pytest.raises(UsageError, match="matches no operator"):
        qcomp.compile(path, target="cpu-int8", calibration=data, exclude=[f"{name}zz"])
    with pytest.raises(UsageError, match="no 'quantize-dynamic'"):
        qcomp.compile(
            path,
            target="cpu-int8",
            calibration=data,
            effort="fast",
            override=["op:*{scheme=dynamic}"],
        )
    with pytest.raises(UsageError, match="no classical graph"):
        qcomp.compile("OPENQASM 3.0; qubit q; U(0,0,0) q;", target="portable", include=["a"])
