"""Embedding tables that make the logits too: stored once, and said where they are stored twice."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.execute import Session
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.passmanager import Context, Pipeline
from qcomp.target import get_target
from tests.quantize.real_graphs import BATCH, LENGTH, D, Draws, check, compiled, model

DRAWS = Draws(14)
RNG, bias, matrix = DRAWS.rng, DRAWS.bias, DRAWS.matrix


@pytest.fixture(autouse=True)
def _the_same_draws() -> None:
    DRAWS.rewind()


V = 500
TABLE = RNG.normal(size=(V, D)).astype(np.float32)
IDS = {"ids": RNG.integers(0, V, (BATCH, LENGTH))}
MIDDLE = """e = Gather(E, ids)
 n = LayerNormalization<axis=-1>(e, g, be)
 a = MatMul(n, w1)
 t = Tanh(a)
 c = MatMul(t, w2)
 h = Add(c, e)
"""
WEIGHTS = {
    **{"E": TABLE, "g": np.ones(D, np.float32), "be": np.zeros(D, np.float32)},
    **{"w1": matrix(D, D), "w2": matrix(D, D)},
}
LOGITS = f"float[b, s, {V}] y"
FORMS = {
    "Transpose": (LOGITS, "u = Transpose<perm=[1,0]>(E)\n y = MatMul(h, u)", {}),
    "Gemm": (
        f"float[b, {V}] y",
        "l = ReduceMean<keepdims=0>(h, one)\n y = Gemm<transB=1>(l, E)",
        {"one": np.array([1])},
    ),
    "copy": (LOGITS, "y = MatMul(h, Z)", {"Z": np.ascontiguousarray(TABLE.T)}),
}
QUANTIZED = ("e", "a", "c", "y")


def source(form: str) -> onnx.ModelProto:
    outputs, body, more = FORMS[form]
    return model(20, "int64[b, s] ids", outputs, MIDDLE + body, {**WEIGHTS, **more})


def tables(path) -> list[onnx.TensorProto]:
    """The initializers that are as large as the table, in either order of its axes."""
    graph = onnx.load(path).graph
    return [t for t in graph.initializer if sorted(t.dims) == sorted((V, D))]


@pytest.mark.parametrize("form", FORMS)
def test_the_table_is_stored_once_in_8_bits_and_the_layers_run_as_integers(form):
    reports = check(
        *(source(form), IDS, QUANTIZED),
        {"LayerNormalization": "no integer kernel"},
    )
    assert all("stored twice" not in text for text in reports["cpu-int8"]["warnings"])
    for target in ("cpu-int8", "cpu-dynamic-int8"):
        artifact, _ = compiled(source(form), target, IDS)
        (table,) = tables(next(artifact.path.glob("*.onnx")))
        assert table.data_type == onnx.TensorProto.INT8


@pytest.mark.parametrize("form", FORMS)
def test_what_is_stored_once_computes_the_same_bits_as_what_is_stored_twice(form):
    text = get_target("cpu-int8").pipeline("default")
    assert text.rstrip().endswith("tie-weights")
    twice = text.rstrip().removesuffix("tie-weights").rstrip(",\n ")
    one, _ = compiled(source(form), "cpu-int8", IDS)
    two, _ = compiled(source(form), "cpu-int8", IDS, pipeline=twice)
    np.testing.assert_array_equal(one.run(IDS)["y"], two.run(IDS)["y"])
    sizes = [next(artifact.path.glob("*.onnx")).stat().st_size for artifact in (one, two)]
    assert sizes[1] - sizes[0] > 0.95 * V * D


def test_4_bit_weights_of_a_table_are_said_to_be_stored_beside_it_with_their_bytes():
    artifact, report = compiled(source("Transpose"), "cpu-int4", IDS)
    (text,) = [text for text in report["warnings"] if "stored twice" in text]
    assert "'E' is the matrix of 'y', too" in text
    (table,) = tables(next(artifact.path.glob("*.onnx")))
    assert f"{len(table.raw_data):,} bytes as a table" in text
    assert "16,000 as a matrix" in text


def test_an_excluded_layer_keeps_the_float_table_and_it_is_stored_once():
    wanted = Session(source("Transpose")).run(IDS)["y"]
    for target in ("cpu-int8", "cpu-dynamic-int8", "cpu-int4"):
        artifact, report = compiled(source("Transpose"), target, IDS, exclude=["y", "e"])
        (table,) = tables(next(artifact.path.glob("*.onnx")))
        assert table.data_type == onnx.TensorProto.FLOAT
        assert {line["layer"] for line in report["quantization"]["layers"]} == {"a", "c"}
        assert np.abs(artifact.run(IDS)["y"] - wanted).max() < 0.2 * np.abs(wanted).max()


def test_a_layer_whose_integers_differ_keeps_its_own_and_that_is_said():
    artifact, report = compiled(source("Transpose"), "cpu-int8", IDS, override=["y{bits=7}"])
    assert len(tables(next(artifact.path.glob("*.onnx")))) == 2
    (text,) = [text for text in report["warnings"] if "stored twice" in text]
    assert "32,000 bytes as a table, 32,000 as a matrix" in text


def test_smoothing_leaves_a_tied_layer_alone_so_that_the_integers_stay_the_same(build):
    gamma = np.logspace(-1, 1, D).astype(np.float32)
    program = build(
        f"""g (int64[n, 4] ids) => (float[n, 4, {V}] y) {{
            e = Gather(E, ids)
            n = LayerNormalization<axis=-1>(e, g, be)
            y = MatMul(n, Z)
        }}""",
        {"E": TABLE, "g": gamma, "be": bias(D), "Z": np.ascontiguousarray(TABLE.T)},
    )
    context = Context()
    context.calibration = lambda: iter([{"ids": IDS["ids"][:, :4]}])
    before = ir.to_proto(program.model).SerializeToString(deterministic=True)
    Pipeline.parse("smooth-activations").run(program, context)
    assert ir.to_proto(program.model).SerializeToString(deterministic=True) == before


def test_a_second_run_finds_nothing_to_share():
    program = OnnxFrontend().read(source("Gemm"))
    context = Context()
    first = "canonicalise,take-apart,quantize-embeddings,quantize-dynamic,tie-weights"
    Pipeline.parse(first).run(program, context)
    made = ir.to_proto(program.model).SerializeToString(deterministic=True)
    Pipeline.parse("tie-weights").run(program, context)
    assert ir.to_proto(program.model).SerializeToString(deterministic=True) == made
