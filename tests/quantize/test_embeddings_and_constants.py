"""Tables in 8 bits with a scale a row, and float constants in half the bytes."""

import numpy as np
import pytest

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.errors import UsageError
from qcomp.passes.quantize.halve_constants import HalveConstants
from qcomp.passes.quantize.quantize_embeddings import QuantizeEmbeddings
from qcomp.quantization import FusionReport, QuantizationRecord, sqnr
from qcomp.target import get_target

EMBED = """
g (int64[n, 6] ids) => (float[n, 6, 16] y) {
    e = Gather<axis=0>(table, ids)
    y = Add(e, places)
}"""
PAIRS = """
g (int64[n, 1] ids) => (float[n, 16] y) {
    y = GatherND(table, ids)
}"""


@pytest.fixture
def table(rng):
    return (rng.normal(0, 1, (300, 16)) * rng.uniform(0.01, 10, (300, 1))).astype(np.float32)


@pytest.mark.parametrize(("body", "shape"), [(EMBED, (5, 6)), (PAIRS, (5, 1))])
def test_a_row_is_within_half_a_step_of_its_own_scale(
    build, compiled, run, rng, table, body, shape
):
    weights = {"table": table, "places": np.zeros((6, 16), np.float32)}
    program = build(body, {k: v for k, v in weights.items() if k in body})
    ids = rng.integers(0, 300, shape)
    compiled(program, "quantize-embeddings")
    got = run(program, {"ids": ids})["y"].reshape(-1, 16)
    real = table[ids.reshape(-1)]
    step = np.abs(real).max(1, keepdims=True) / 127
    assert (np.abs(got - real) <= 0.5001 * step).all()
    assert "table" not in program.model.graph.initializers


def test_the_table_is_found_as_integers_in_what_onnx_runtime_runs(build, compiled, tmp_path, table):
    program = build(EMBED, {"table": table, "places": np.ones((6, 16), np.float32)})
    context = compiled(program, "quantize-embeddings,quantization-error")
    OnnxIntBackend().write(program, tmp_path / "m.onnx", get_target("cpu-int8"), context)
    report = context.get(FusionReport)
    assert [(o.found, o.integer) for o in report.outcomes] == [("Gather", True)]
    assert (tmp_path / "m.onnx").stat().st_size < 0.45 * table.nbytes


def test_a_table_that_is_a_layer_s_matrix_too_stays_and_is_listed(build, compiled, table):
    body = EMBED.replace(
        "y = Add(e, places)", "t = Transpose<perm=[1,0]>(table)\n y = MatMul(e, t)"
    )
    program = build(body.replace("16] y", "300] y"), {"table": table})
    context = compiled(program, "quantize-embeddings")
    assert "table" in program.model.graph.initializers
    [left] = context.get(QuantizationRecord).float_ops
    assert "matrix of another layer" in left.reason


def test_small_tables_stay_in_float(build, compiled):
    program = build(PAIRS, {"table": np.ones((20, 16), np.float32)})
    compiled(program, "quantize-embeddings")
    assert "table" in program.model.graph.initializers


def test_masks_and_position_tables_take_half_the_bytes_and_run_as_before(build, compiled, run, rng):
    body = """
    g (float[n, 64, 80] x) => (float[n, 64, 80] y) {
        a = Add(x, places)
        y = Add(a, mask)
    }"""
    mask = np.triu(np.full((64, 80), -np.inf, np.float32), 1)
    program = build(body, {"places": rng.normal(0, 1, (64, 80)).astype(np.float32), "mask": mask})
    x = {"x": rng.normal(0, 1, (2, 64, 80)).astype(np.float32)}
    before = run(program, x)["y"]
    compiled(program, "halve-constants")
    sizes = [value.const_value.nbytes for value in program.model.graph.initializers.values()]
    assert sizes == [64 * 80 * 2] * 2
    after = run(program, x)["y"]
    assert (np.isinf(before) == np.isinf(after)).all()
    seen = np.isfinite(before)
    assert sqnr(before[seen], after[seen]) > 66.0


def test_constants_too_large_for_half_precision_and_weights_stay(build, compiled, rng):
    body = """
    g (float[n, 80] x) => (float[n, 80] y) {
        a = MatMul(x, w)
        y = Mul(a, far)
    }"""
    weights = {
        "w": rng.normal(0, 1, (80, 80)).astype(np.float32),
        "far": np.linspace(1, 1e6, 80).astype(np.float32),
    }
    program = build(body, weights)
    compiled(program, "halve-constants{least_bytes=64}")
    assert set(program.model.graph.initializers) == {"w", "far"}


def test_options_below_one_are_refused():
    with pytest.raises(UsageError):
        QuantizeEmbeddings(least_rows=0)
    with pytest.raises(UsageError):
        HalveConstants(least_bytes=0)
