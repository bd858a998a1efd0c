"""Scale, zero point, rounding, packing: the tables of the docstrings and their properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qcomp.passes.quantize import arithmetic
from qcomp.passes.quantize.arithmetic import (
    affine_parameters,
    blocks,
    dequantize,
    dequantize_blocks,
    pack_int4,
    quantize,
    quantize_blocks,
    symmetric_scale,
    unpack_int4,
    within,
)
from qcomp.passes.quantize.integer_types import INT4, INT7, INT8, INT8_FULL, UINT4, UINT8

FLOATS = st.floats(-1e6, 1e6, width=32)


@pytest.mark.parametrize(
    ("kind", "low", "high", "name"),
    [
        (UINT8, 0, 255, "UINT8"),
        (INT8, -127, 127, "INT8"),
        (INT8_FULL, -128, 127, "INT8"),
        (INT7, -63, 63, "INT8"),
        (INT4, -8, 7, "INT4"),
        (UINT4, 0, 15, "UINT4"),
    ],
)
def test_a_type_knows_its_closed_range(kind, low, high, name):
    assert (kind.min, kind.max, kind.levels) == (low, high, high - low)
    assert kind.onnx.name == name
    assert np.iinfo(kind.storage).min <= low
    assert np.iinfo(kind.storage).max >= high


def test_rounding_is_to_the_nearest_with_ties_to_even_and_saturates():
    real = np.array([-64.0, -0.75, -0.25, 0.25, 0.75, 1.25, 100.0], np.float32)
    assert quantize(real, 0.5, 0, INT8).tolist() == [-127, -2, 0, 0, 2, 2, 127]
    ties = np.array([-2.5, -1.5, -0.6, -0.5, 0.5, 0.6, 1.5, 2.5, 3.49999], np.float32)
    assert quantize(ties, 1.0, 0, INT8).tolist() == [-2, -2, -1, 0, 0, 1, 2, 2, 3]
    assert quantize(ties, 1.0, 10, UINT8).tolist() == [8, 8, 9, 10, 10, 11, 12, 12, 13]


@given(FLOATS, FLOATS)
def test_affine_parameters_represent_zero_exactly_and_cover_the_range(a, b):
    low, high = min(a, b), max(a, b)
    parameters = affine_parameters(low, high, UINT8)
    assert 0 <= parameters.zero_point <= 255
    zero = quantize(np.zeros(1, np.float32), parameters.scale, parameters.zero_point, UINT8)
    assert dequantize(zero, parameters.scale, parameters.zero_point)[0] == 0.0
    slack = 0.5001 * parameters.scale
    assert parameters.low <= min(low, 0.0) + slack
    assert parameters.high >= max(high, 0.0) - slack


@given(hnp.arrays(np.float32, st.integers(1, 40), elements=FLOATS))
def test_quantization_error_is_at_most_half_a_step_inside_the_range(x):
    parameters = affine_parameters(float(x.min()), float(x.max()), UINT8)
    levels = quantize(x, parameters.scale, parameters.zero_point, UINT8)
    error = np.abs(dequantize(levels, parameters.scale, parameters.zero_point) - x)
    # The zero point is rounded too, so the last value of a side may lose another half step.
    assert (error <= 1.0001 * parameters.scale + 1e-30).all()


@given(st.floats(-50, -0.125, width=32), st.floats(0.125, 50, width=32), FLOATS, FLOATS)
def test_a_shrunk_scale_keeps_every_level_inside_the_bounds(low, high, a, b):
    a, b = min(max(min(a, b), low), 0.0), max(min(max(a, b), high), 0.0)
    free = affine_parameters(a, b, UINT8)
    found = within(free, low, high)
    ends = dequantize(np.array([0, 255], np.uint8), found.scale, found.zero_point)
    assert 0.979 * free.scale <= found.scale <= free.scale
    assert found.zero_point == free.zero_point
    if found != free or 26 <= free.zero_point <= 229:
        assert low <= ends[0] <= 0.0 <= ends[1] <= high


def test_a_channel_of_zeros_takes_a_sane_scale_and_a_bias_floor_is_kept():
    w = np.array([[0, 0], [1.27, -0.5]], np.float32)
    assert symmetric_scale(w, INT8, 0).tolist() == pytest.approx([0.01, 0.01])
    assert symmetric_scale(np.zeros((2, 2), np.float32), INT8, 0).tolist() == [1.0, 1.0]
    floor = np.array([0.5, 0.001], np.float32)
    assert symmetric_scale(w, INT8, 0, floor).tolist() == pytest.approx([0.5, 0.01])
    assert symmetric_scale(w, INT8, None) == pytest.approx(0.01)


def test_packing_puts_the_first_value_in_the_low_half():
    assert pack_int4(np.array([1, 2, 3], np.uint8)).tolist() == [0x21, 0x03]
    assert pack_int4(np.array([-8, 7], np.int8)).tolist() == [0x78]
    assert pack_int4(np.array([-1, -2], np.int8)).tolist() == [0xEF]


@given(
    hnp.arrays(
        np.int8, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(-8, 7)
    )
)
def test_unpacking_inverts_packing(levels):
    assert (unpack_int4(pack_int4(levels), levels.shape[1], signed=True) == levels).all()
    unsigned = (levels + 8).astype(np.uint8)
    assert (unpack_int4(pack_int4(unsigned), levels.shape[1]) == unsigned).all()


def test_packing_agrees_with_onnx():
    import onnx

    values = np.arange(-8, 8, dtype=np.int8)
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.INT4, [16], values.tolist())
    packed = np.array(tensor.int32_data, np.uint8)
    assert packed.tolist() == pack_int4(values).tolist()


@pytest.mark.parametrize(
    ("block", "symmetric", "scale", "zero", "levels"),
    [
        ([-0.8, 0.4, 0.05, 0.7], True, 0.1, 8, [0, 12, 8, 15]),
        ([-0.8, 0.4, 0.05, 0.7], False, 0.1, 8, [0, 12, 8, 15]),
        ([0.8, -0.4, 0.0, 0.15], True, -0.1, 8, [0, 12, 8, 6]),
        ([0.8, -0.4, 0.0, 0.15], False, 0.08, 5, [15, 0, 5, 7]),
        ([0.0, 0.0, 0.0, 0.0], True, 1.0, 8, [8, 8, 8, 8]),
    ],
)
def test_a_block_is_rounded_as_the_docstring_says(block, symmetric, scale, zero, levels):
    found = quantize_blocks(np.array([block], np.float32), 4, 4, symmetric)
    assert found[1][0, 0] == pytest.approx(scale)
    assert found[2][0, 0] == zero
    assert found[0][0, 0].tolist() == levels


@settings(deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 70)),
        elements=st.floats(-100, 100, width=32),
    ),
    st.sampled_from([16, 32]),
    st.sampled_from([4, 8]),
    st.booleans(),
)
def test_blocked_error_is_bounded_by_the_scale_of_the_block(w, group, bits, symmetric):
    levels, scale, zero = quantize_blocks(w, group, bits, symmetric)
    assert levels.max(initial=0) < 1 << bits
    back = dequantize_blocks(levels, scale, zero, w.shape[1])
    error = blocks(np.abs(back - w), group).max(axis=2)
    # A symmetric block lacks one level at the side opposite of its extreme.
    assert (error <= 1.001 * np.abs(scale) + 1e-6).all()


def test_an_asymmetric_block_is_never_worse_than_a_symmetric_one(rng):
    w = rng.standard_t(3, (200, 64)).astype(np.float32)
    errors = []
    for symmetric in (True, False):
        found = quantize_blocks(w, 32, 4, symmetric)
        errors.append(blocks((dequantize_blocks(*found, 64) - w) ** 2, 32).sum(axis=2))
    assert (errors[1] <= errors[0] * 1.0001).all()
    assert errors[1].sum() < 0.85 * errors[0].sum()


def test_the_examples_in_the_docstrings_are_what_the_code_does():
    import doctest

    results = doctest.testmod(arithmetic)
    assert results.attempted >= 4
    assert results.failed == 0


def test_the_module_docstring_table_is_what_the_code_does():
    rows = [line.split("|")[2:-1] for line in arithmetic.__doc__.splitlines() if "|" in line]
    reals, rounded = ([float(cell) for cell in rows[i]] for i in (0, 2))
    assert np.rint(reals).tolist() == rounded


@pytest.mark.parametrize(("axis", "channels"), [(0, 300), (1, 70), (None, 1)])
def test_large_tensors_are_quantized_in_slabs_with_the_same_result(
    monkeypatch, rng, axis, channels
):
    real = rng.standard_normal((300, 70)).astype(np.float32)
    scale = rng.uniform(0.01, 0.02, channels).astype(np.float32)
    whole = quantize(real, scale, 0, INT8, axis)
    monkeypatch.setattr(arithmetic, "_SLAB", 999)
    np.testing.assert_array_equal(quantize(real, scale, 0, INT8, axis), whole)
