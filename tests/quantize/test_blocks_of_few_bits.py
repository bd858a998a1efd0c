"""Weights and tables in blocks of 4 bits: fitted grids, scales in 16 bits, rows looked up."""

import numpy as np
import onnx
import pytest

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.errors import UsageError
from qcomp.passes.quantize.quantize_embeddings import QuantizeEmbeddings
from qcomp.quantization import FusionReport, QuantizationRecord, sqnr
from qcomp.target import get_target

PRODUCT = "g (float[n, 80] x) => (float[n, 48] y) { y = MatMul(x, w) }"
LOOKUP = "g (int64[n, 6] ids) => (float[n, 6, 64] y) { y = Gather<axis=0>(table, ids) }"


def written(program, context, tmp_path):
    path = tmp_path / "m.onnx"
    OnnxIntBackend().write(program, path, get_target("cpu-int4"), context)
    return path


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("method", ["mse", "lsq"])
def test_a_fitted_grid_has_a_smaller_weight_error_than_the_range_and_needs_no_data(
    build, compiled, run, rng, method, symmetric
):
    weight = rng.standard_t(4, (80, 48)).astype(np.float32)
    x = {"x": np.eye(80, dtype=np.float32)}

    def noise(name):
        program = build(PRODUCT, {"w": weight})
        text = f"quantize-weights{{method={name},symmetric={symmetric},accuracy_level=0}}".lower()
        compiled(program, text)
        return -sqnr(weight, run(program, x)["y"])

    assert noise(method) < noise("rtn")


def test_the_report_names_the_fit(build, compiled):
    program = build(PRODUCT, {"w": np.ones((80, 48), np.float32)})
    context = compiled(program, "quantize-weights{method=lsq}")
    assert [layer.method for layer in context.get(QuantizationRecord).layers] == ["lsq"]


def test_a_fit_that_moves_zero_points_is_refused_where_they_are_fixed(build, compiled):
    program = build(PRODUCT, {"w": np.ones((80, 48), np.float32)})
    with pytest.raises(UsageError, match="symmetric"):
        compiled(program, "quantize-weights{method=hqq}")


@pytest.mark.parametrize(
    ("size", "stored"), [(1.0, np.float16), (1e-6, np.float32), (1e6, np.float32)]
)
def test_scales_take_16_bits_in_the_file_where_those_hold_them(
    build, compiled, run, rng, tmp_path, size, stored
):
    weight = (size * rng.normal(size=(80, 48))).astype(np.float32)
    program = build(PRODUCT, {"w": weight})
    context = compiled(program, "quantize-weights{symmetric=false}")
    got = run(program, {"x": np.eye(80, dtype=np.float32)})["y"]
    assert sqnr(weight, got) > 19
    graph = onnx.load(written(program, context, tmp_path)).graph
    (scale,) = [i for i in graph.initializer if i.name.endswith("_scale")]
    assert onnx.numpy_helper.to_array(scale).dtype == stored
    (found,) = context.get(FusionReport).outcomes
    assert (found.found, found.integer) == ("MatMulNBits", True)
    assert "Cast" not in context.get(FusionReport).kernels


def test_a_table_in_4_bits_is_half_as_large_and_looked_up_as_integers(
    build, compiled, run, rng, tmp_path
):
    table = (rng.normal(size=(300, 64)) * rng.uniform(0.1, 3, (300, 1))).astype(np.float32)
    ids = rng.integers(0, 300, (5, 6))
    sizes = {}
    for bits, least in ((8, 40), (4, 20)):
        program = build(LOOKUP, {"table": table})
        context = compiled(program, f"quantize-embeddings{{bits={bits}}},quantization-error")
        got = run(program, {"ids": ids})["y"]
        assert sqnr(table[ids], got) > least
        sizes[bits] = written(program, context, tmp_path).stat().st_size
    assert [(o.found, o.integer) for o in context.get(FusionReport).outcomes] == [
        ("GatherBlockQuantized", True)
    ]
    assert sizes[4] < 0.66 * sizes[8]


def test_rows_looked_up_by_gathernd_are_in_4_bits_too(build, compiled, run, rng, tmp_path):
    table = rng.normal(size=(300, 64)).astype(np.float32)
    program = build(
        "g (int64[n, 6, 1] ids) => (float[n, 6, 64] y) { y = GatherND(table, ids) }",
        {"table": table},
    )
    context = compiled(program, "quantize-embeddings{bits=4},quantization-error")
    ids = rng.integers(-300, 300, (5, 6))
    assert sqnr(table[ids], run(program, {"ids": ids[:, :, None]})["y"]) > 20
    size = written(program, context, tmp_path).stat().st_size
    assert size < 0.7 * table.size
    kernels = context.get(FusionReport).kernels
    assert "GatherBlockQuantized" in kernels
    assert "GatherND" not in kernels


def test_rows_that_are_no_whole_blocks_stay_in_8_bits(build, compiled):
    program = build(LOOKUP.replace(" 64]", " 72]"), {"table": np.ones((100, 72), np.float32)})
    context = compiled(program, "quantize-embeddings{bits=4}")
    assert [layer.weight_type for layer in context.get(QuantizationRecord).layers] == ["s8/row"]


@pytest.mark.parametrize("options", [{"bits": 3}, {"group": 48}])
def test_tables_have_8_or_4_bits_in_blocks_that_operators_take(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        QuantizeEmbeddings(**options)
