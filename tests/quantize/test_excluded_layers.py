"""What the user excludes stays as it is, whatever the passes before the quantizing ones do."""

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import qcomp
from qcomp.ir.program import Program
from qcomp.node_rules import NodeRules
from qcomp.passmanager import Context, Pipeline


def run_with(program: Program, pipeline: str, exclude: tuple[str, ...], data=None) -> Context:
    context = Context()
    context.put(NodeRules.parse(exclude))
    if data is not None:
        context.calibration = lambda: iter([data])
    Pipeline.parse(pipeline).run(program, context)
    return context


def weight_of(program: Program, name: str) -> np.ndarray:
    node = next(n for n in program.model.graph if n.name == name or n.outputs[0].name == name)
    value = node.inputs[1]
    return value.const_value.numpy()


def test_an_excluded_operator_is_not_merged_with_an_equal_one(build, rng):
    program = build(
        """g (float[n, 32] x) => (float[n, 32] y) {
            a = MatMul(x, w)
            b = MatMul(x, w)
            y = Sub(a, b)
        }""",
        {"w": rng.normal(size=(32, 32)).astype(np.float32)},
    )
    data = {"x": rng.normal(size=(16, 32)).astype(np.float32)}
    context = run_with(program, "canonicalise,calibrate,quantize-static", ("b",), data)
    types = [node.op_type for node in program.model.graph]
    assert types.count("MatMul") == 2
    kept = next(n for n in program.model.graph if "b" in (n.name, n.outputs[0].name))
    assert kept.inputs[1].name == "w"
    assert context.warnings == []


def test_equal_operators_of_which_nothing_is_asked_still_become_one(build, rng):
    program = build(
        """g (float[n, 32] x) => (float[n, 32] y) {
            a = MatMul(x, w)
            b = MatMul(x, w)
            c = Relu(x)
            s = Sub(a, b)
            y = Add(s, c)
        }""",
        {"w": rng.normal(size=(32, 32)).astype(np.float32)},
    )
    run_with(program, "canonicalise", ("c",))
    assert [node.op_type for node in program.model.graph].count("MatMul") == 1


@pytest.mark.parametrize("name", ["a", "y"])
def test_equalization_leaves_an_excluded_layer_and_its_neighbour_alone(build, rng, name):
    weights = {
        "w1": (rng.normal(size=(16, 16)) * np.logspace(-2, 2, 16)).astype(np.float32),
        "w2": rng.normal(size=(16, 16)).astype(np.float32),
    }
    program = build(
        """g (float[n, 16] x) => (float[n, 16] y) {
            a = Gemm(x, w1)
            r = Relu(a)
            y = Gemm(r, w2)
        }""",
        weights,
    )
    run_with(program, "cross-layer-equalize", (name,))
    np.testing.assert_array_equal(weight_of(program, "a"), weights["w1"])
    np.testing.assert_array_equal(weight_of(program, "y"), weights["w2"])
    run_with(program, "cross-layer-equalize", ())
    assert not np.array_equal(weight_of(program, "a"), weights["w1"])


def test_smoothing_leaves_an_excluded_normalization_and_layer_alone(build, rng):
    gamma = np.logspace(-2, 1, 32).astype(np.float32)
    weights = {
        "gamma": gamma,
        "beta": np.zeros(32, np.float32),
        "w1": rng.normal(size=(32, 32)).astype(np.float32),
        "w2": rng.normal(size=(32, 32)).astype(np.float32),
    }
    body = """g (float[n, 4, 32] x) => (float[n, 4, 32] y) {
        norm = LayerNormalization<axis=-1>(x, gamma, beta)
        a = MatMul(norm, w1)
        t = Tanh(a)
        y = MatMul(t, w2)
    }"""
    data = {"x": rng.normal(size=(32, 4, 32)).astype(np.float32)}
    program = build(body, weights)
    run_with(program, "smooth-activations", ("norm",), data)
    np.testing.assert_array_equal(weight_of(program, "norm"), gamma)
    program = build(body, weights)
    run_with(program, "smooth-activations", ("a",), data)
    np.testing.assert_array_equal(weight_of(program, "norm"), gamma)
    np.testing.assert_array_equal(weight_of(program, "a"), weights["w1"])
    program = build(body, weights)
    run_with(program, "smooth-activations", (), data)
    assert not np.array_equal(weight_of(program, "norm"), gamma)


def test_bias_absorption_leaves_an_excluded_layer_alone(build, rng):
    weights = {
        "w1": rng.normal(0, 0.01, (8, 3, 1, 1)).astype(np.float32),
        "b1": np.full(8, 5, np.float32),
        "w2": rng.normal(size=(4, 8, 1, 1)).astype(np.float32),
        "b2": np.zeros(4, np.float32),
    }
    body = """g (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
        a = Conv(x, w1, b1)
        r = Relu(a)
        y = Conv(r, w2, b2)
    }"""
    data = {"x": rng.normal(size=(8, 3, 6, 6)).astype(np.float32)}

    def biases(exclude):
        program = build(body, weights)
        run_with(program, "absorb-bias", exclude, data)
        return [
            node.inputs[2].const_value.numpy() for node in program.model.graph if node.inputs[2:]
        ]

    for exclude in (("a",), ("y",)):
        first, second = biases(exclude)
        np.testing.assert_array_equal(first, weights["b1"])
        np.testing.assert_array_equal(second, weights["b2"])
    assert not np.array_equal(biases(())[0], weights["b1"])


@pytest.mark.parametrize("kind", ["Program", "onnx_ir.Model", "ModelProto"])
def test_compile_leaves_what_it_was_given_as_it_is(mlp, rng, kind):
    source = {
        "Program": mlp,
        "onnx_ir.Model": mlp.model,
        "ModelProto": ir.to_proto(mlp.model),
    }[kind]

    def content() -> bytes:
        proto = source if isinstance(source, onnx.ModelProto) else ir.to_proto(mlp.model)
        return proto.SerializeToString(deterministic=True)

    before = content()
    tensors = [value.const_value for value in mlp.model.graph.initializers.values()]
    data = {"x": rng.normal(size=(32, 64)).astype(np.float32)}
    first = qcomp.compile(source, target="cpu-int8", calibration=data)
    assert content() == before
    now = [value.const_value for value in mlp.model.graph.initializers.values()]
    assert all(a is b for a, b in zip(tensors, now, strict=True))  # shared, not copied
    second = qcomp.compile(source, target="cpu-dynamic-int8")
    reports = [json.loads((art.path / "report.json").read_text()) for art in (first, second)]
    schemes = [{line["scheme"] for line in r["quantization"]["layers"]} for r in reports]
    assert schemes == [{"static"}, {"dynamic"}]
    again = qcomp.compile(source, target="cpu-int8", calibration=data)
    files = [next(iter(art.path.glob("*.onnx"))) for art in (first, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
