"""Additions in front of normalizations: the same function, without ONNX Runtime's slow fusion."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from qcomp.execute import Session
from qcomp.ir.program import Program
from qcomp.passes.graph.sum_residuals import SumResiduals
from qcomp.passmanager import Context, Pipeline
from tests.quantize.conftest import build_program

D = 48
RNG = np.random.default_rng(3)
WEIGHTS = {
    "gain": RNG.uniform(0.5, 2, D).astype(np.float32),
    "shift": RNG.normal(size=D).astype(np.float32),
    "bias": RNG.normal(size=D).astype(np.float32),
    "two": np.float32(2.0),
    "e": np.float32(1e-5),
    "last": np.array([-1]),
}
FEEDS = {name: RNG.normal(size=(3, 5, D)).astype(np.float32) for name in ("x", "r")}
IN = f"float[b, s, {D}] x, float[b, s, {D}] r"
OUT = f"float[b, s, {D}] y"
WRITTEN = """m = ReduceMean<keepdims=1>(t, last)\n c = Sub(t, m)\n q = Pow(c, two)
    v = ReduceMean<keepdims=1>(q, last)\n w = Add(v, e)\n d = Sqrt(w)\n z = Div(c, d)
    k = Mul(z, gain)\n y = Add(k, shift)"""
CASES = {
    "a normalization": (OUT, "t = Add(x, r)\n y = LayerNormalization(t, gain, shift)", 1),
    "a normalization written out": (OUT, f"t = Add(x, r)\n {WRITTEN}", 1),
    "a fused one with every input and the sum": (
        f"{OUT}, float[b, s, {D}] t",
        "y, m, i, t = com.microsoft.SkipLayerNormalization<epsilon=0.001>(x, r, gain, shift, bias)",
        1,
    ),
    "two fused ones in a row": (
        OUT,
        "a, m, i, t = com.microsoft.SkipLayerNormalization(x, r, gain)\n"
        "y = com.microsoft.SkipLayerNormalization(a, t, gain, shift)",
        2,
    ),
}


def program_of(outputs: str, body: str) -> Program:
    used = {name: w for name, w in WEIGHTS.items() if f"{name})" in body or f"{name}," in body}
    program = build_program(f"g ({IN}) => ({outputs}) {{ {body} }}", used)
    Pipeline.parse("canonicalise").run(program, Context())
    return program


def kernels(program: Program, folder: Path) -> list[str]:
    """Operators of the graph that ONNX Runtime really runs."""
    import onnx_ir as ir

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    proto = ir.to_proto(program.model).SerializeToString()
    ort.InferenceSession(proto, options, ["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


@pytest.mark.parametrize("case", CASES)
def test_onnx_runtime_runs_the_two_fast_kernels_to_the_same_results(
    case: str, tmp_path: Path
) -> None:
    outputs, body, count = CASES[case]
    program = program_of(outputs, body)
    assert "SkipLayerNormalization" in kernels(program, tmp_path)
    names = [value.name for value in program.model.graph.outputs]
    wanted = Session(program.model).run(FEEDS)
    assert SumResiduals().run(program, Context())
    found = kernels(program, tmp_path)
    assert found.count("Sum") == found.count("LayerNormalization") == count
    assert "SkipLayerNormalization" not in found
    assert [value.name for value in program.model.graph.outputs] == names
    for name, value in Session(program.model).run(FEEDS).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-5)
    assert not SumResiduals().run(program, Context())


@pytest.mark.parametrize(
    "body",
    [
        "t = Add(x, bias)\n y = LayerNormalization(t, gain)",
        "t = Mul(x, r)\n y = LayerNormalization(t, gain)",
        "t = Add(x, r)\n z = Relu(t)\n y = LayerNormalization(z, gain)",
        "y = LayerNormalization(x, gain)",
    ],
)
def test_what_is_not_fused_stays(body: str) -> None:
    assert not SumResiduals().run(program_of(OUT, body), Context())


def test_statistics_that_are_read_keep_the_fused_operator() -> None:
    body = "y, m, i = com.microsoft.SkipLayerNormalization(x, r, gain)"
    program = program_of(f"{OUT}, float[b, s, 1] m", body)
    assert not SumResiduals().run(program, Context())


@pytest.mark.parametrize("case", ["a normalization", "a fused one with every input and the sum"])
def test_an_excluded_normalization_stays_as_it_is(case: str) -> None:
    program = program_of(*CASES[case][:2])
    step = Pipeline.parse('select-nodes{exclude=["op:*Normalization"]},sum-residuals')
    before = [node.op_type for node in program.model.graph]
    step.run(program, Context())
    assert [node.op_type for node in program.model.graph] == before


def test_it_takes_at_most_half_of_the_time() -> None:
    """Measured: an eighth to a quarter, from 64 to 4,096 channels."""
    shape = "float[b, s, 256] "
    gain = {"gain": np.ones(256, np.float32)}
    body = (
        f"g ({shape}x, {shape}r) => ({shape}y) {{ t = Add(x, r) y = LayerNormalization(t, gain) }}"
    )
    fused, apart = (build_program(body, gain) for _ in range(2))
    assert SumResiduals().run(apart, Context())
    feeds = {name: np.ones((4, 256, 256), np.float32) for name in ("x", "r")}
    sessions = [Session(program.model) for program in (fused, apart)]
    spent: list[list[int]] = [[], []]
    for _ in range(30):
        for times, session in zip(spent, sessions, strict=True):
            start = time.thread_time_ns()
            session.run(feeds)
            times.append(time.thread_time_ns() - start)
    assert min(spent[1]) <= 0.5 * min(spent[0])
