"""4-bit weights that are 8-bit floats: the grid, the pairs, the target's rules, what is refused."""

import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import qcomp
from qcomp.errors import PassError, UsageError
from qcomp.execute import Session
from qcomp.passes.quantize.dpq import Dpq
from qcomp.passes.quantize.float8 import Float8Grid, channel_scales, round_e4m3
from qcomp.passes.quantize.grids import Grid
from qcomp.passes.quantize.quantize_fp8 import QuantizeFp8
from qcomp.passmanager import Context
from qcomp.quantization import QuantizationRecord, sqnr
from tests.models import from_text

MLP = """
g (float[n, 40] x) => (float[n, 12] y) {
    a = Gemm<transB=1>(x, w1, b1)
    h = Relu(a)
    c = MatMul(h, w2)
    d = MatMul(h, w3)
    y = Add(c, d)
}"""


@pytest.fixture
def weights(rng):
    return {
        "w1": rng.normal(0, 0.3, (48, 40)).astype(np.float32),
        "b1": rng.normal(0, 0.1, 48).astype(np.float32),
        "w2": rng.normal(0, 0.3, (48, 12)).astype(np.float32),
        "w3": rng.normal(0, 0.3, (48, 12)).astype(np.float32),
    }


@pytest.fixture
def data(rng):
    return {"x": rng.normal(0, 1, (256, 40)).astype(np.float32)}


@pytest.mark.parametrize(
    ("real", "float8"),
    [
        *[(-1000, -448), (-449, -448), (0.0009, 0), (0.3, 0.3125), (1.0625, 1)],
        *[(1.1875, 1.25), (17, 16), (19, 20), (448, 448)],
    ],
)
def test_numbers_become_the_nearest_8_bit_floats_with_ties_to_even(real, float8):
    assert float(round_e4m3(real)) == float8


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    bits=st.sampled_from([2, 3, 4]),
    group=st.sampled_from([0, 5, 16]),
    symmetric=st.booleans(),
    spread=st.floats(0, 4),
)
def test_every_level_of_every_grid_is_an_8_bit_float(seed, bits, group, symmetric, spread):
    rng = np.random.default_rng(seed)
    W = rng.normal(0, 1, (6, 32)) * np.exp(rng.normal(0, spread, (6, 32)))
    W[0, :8] = 0.0
    grid = Float8Grid(bits, group, symmetric, "minmax", positive=True)
    grids = grid.fitted(W.astype(np.float32))
    found = channel_scales(grids.scale)
    assert found is not None
    S, power = found
    assert np.array_equal(S[:, None] * power, grids.scale)
    for level in range(grid.top + 1):
        real = grids.real(np.full(W.shape, level, np.uint8)) / S[:, None]
        assert np.array_equal(round_e4m3(real), real)


def test_powers_of_two_cost_less_than_two_decibels(rng):
    W = rng.normal(0, 1, (64, 256)).astype(np.float32)
    options = (4, 32, False, "mse")
    free, tied = (kind(*options).fitted(W) for kind in (Grid, Float8Grid))
    assert sqnr(W, tied.real(tied.round(W))) > sqnr(W, free.real(free.round(W))) - 2.0
    assert channel_scales(np.abs(free.scale)) is None


def test_the_pairs_are_those_of_the_target_and_all_zero_points_of_8_bit_floats_are_zero(
    tmp_path, weights, data
):
    rules = tomllib.loads(
        (Path(qcomp.__file__).parent / "targets" / "fp8.toml").read_text(encoding="utf-8")
    )["integers"]
    assert rules["activation"] == rules["weight"] == "e4m3"
    model = from_text(f'<ir_version: 10, opset_import: ["" : 21]>{MLP}', **weights)
    artifact = qcomp.compile(model, target="fp8", calibration=data, out=tmp_path / "out")
    written = onnx.load(artifact.path / "stage0.onnx")
    onnx.checker.check_model(written, full_check=True)
    values = {item.name: item for item in written.graph.initializer}
    into = [n for n in written.graph.node if n.op_type == "QuantizeLinear"]
    assert len(into) == 2 + 3  # the inputs of two layers and of one, three weights
    for node in into:
        zero = values[node.input[2]]
        assert zero.data_type == onnx.TensorProto.FLOAT8E4M3FN
        assert float(numpy_helper.to_array(zero)) == 0.0
        (back,) = [n for n in written.graph.node if node.output[0] in n.input]
        assert back.op_type == "DequantizeLinear"
        assert {n.op_type for n in written.graph.node if back.output[0] in n.input} == {"MatMul"}
    stored = [item for item in values.values() if item.data_type == onnx.TensorProto.INT4]
    assert sorted(item.name for item in stored if "quantized" in item.name) == [
        f"w{i}_quantized" for i in (1, 2, 3)
    ]
    assert {n.op_type for n in written.graph.node} - {"QuantizeLinear", "DequantizeLinear"} == {
        *rules["weighted"],
        "Add",
        "Max",
    } - {"Gemm"}
    wanted = Session(model).run(data)["y"]
    assert sqnr(wanted, Session(written).run(data)["y"]) > 17.0


def test_the_report_names_8_bit_floats_with_the_ranges_that_they_cover(tmp_path, weights, data):
    model = from_text(f'<ir_version: 10, opset_import: ["" : 21]>{MLP}', **weights)
    artifact = qcomp.compile(model, target="fp8", calibration=data, out=tmp_path / "out")
    lines = {line["name"]: line for line in artifact.report["quantization"]["tensors"]}
    largest = float(np.abs(data["x"]).max())
    assert lines["x"]["type"] == "e4m3"
    assert [lines["x"]["low"], lines["x"]["high"]] == pytest.approx([-largest, largest])
    assert lines["w1"]["type"] == "u4/32"
    assert lines["w1"]["method"] == "dpq"
    steps = [lines["w1"]["scale_low"], lines["w1"]["scale_high"]]
    assert 0 < steps[0] < steps[1] < 0.3
    assert not any("DequantizeLinear" in name for name in lines)


@pytest.mark.parametrize("clamp", ["Relu(a)", "Clip(a, low)", "Clip(a, low, high)", "Clip(a)"])
def test_onnx_runtime_keeps_what_clamps_a_value_before_it_becomes_an_8_bit_float(
    clamp, build, compiled, run, rng
):
    program = build(
        f"g (float[n, 8] x) => (float[n, 8] y) {{ a = Neg(x)\n h = {clamp}\n y = MatMul(h, w) }}",
        {
            "w": np.eye(8, dtype=np.float32),
            "low": np.float32(0),
            "high": np.float32(1),
        },
    )
    data = {"x": rng.normal(0, 2, (64, 8)).astype(np.float32)}
    before = run(program, data)["y"]
    compiled(program, "calibrate{method=minmax},quantize-fp8", data)
    assert sqnr(before, run(program, data)["y"]) > 25.0


def test_error_feedback_gains_over_rounding_on_the_same_grids(build, compiled, run, weights, rng):
    x = (rng.normal(0, 1, (256, 8)) @ rng.normal(0, 1, (8, 40))).astype(np.float32)
    found = []
    for choose in ("", "dpq,"):
        program = build(MLP, weights)
        wanted = run(program, {"x": x})["y"]
        compiled(program, f"calibrate{{method=minmax}},{choose}quantize-fp8", {"x": x})
        found.append(sqnr(wanted, run(program, {"x": x})["y"]))
    assert found[1] > found[0] + 3.0


def test_integers_that_are_no_8_bit_floats_are_refused(build, compiled, weights, data):
    program = build(MLP, weights)
    with pytest.raises(PassError, match="no 8-bit floats") as error:
        compiled(program, "calibrate,gptq,quantize-fp8", data)
    assert "dpq" in str(error.value)


def test_layers_whose_input_was_not_measured_stay_in_float_with_the_reason(build, weights, data):
    context = Context(calibration=lambda: iter([data]))
    assert not QuantizeFp8().run(build(MLP, weights), context)
    reasons = {op.reason for op in context.get(QuantizationRecord).float_ops if op.node != "h"}
    assert any("calibrate" in reason for reason in reasons)


def test_the_target_has_no_integers_for_quantize_static(weights, data, tmp_path):
    model = from_text(f'<ir_version: 10, opset_import: ["" : 21]>{MLP}', **weights)
    with pytest.raises(UsageError, match="no integers"):
        qcomp.compile(
            model,
            target="fp8",
            calibration=data,
            out=tmp_path / "out",
            pipeline="canonicalise,calibrate,quantize-static",
        )


@pytest.mark.parametrize(
    "options", [{"bits": 5}, {"order": "natural"}, {"refits": 1}, {"scheme": "static"}]
)
def test_options_that_8_bit_floats_do_not_allow_are_refused(options):
    with pytest.raises(UsageError):
        Dpq(**options)
