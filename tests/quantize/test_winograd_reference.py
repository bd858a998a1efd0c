"""Seven-bit kernels: sums that cannot overflow, and Winograd's convolution in integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcomp.errors import UsageError
from qcomp.passes.quantize.integer_reference import conv_integer
from qcomp.passes.quantize.winograd_reference import (
    dot_int16,
    int16_terms,
    winograd_channels,
    winograd_conv,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 8]))
def test_winograd_equals_the_direct_integer_convolution(seed, bits):
    rng = np.random.default_rng(seed)
    group = int(rng.choice([1, 1, 2, 3]))
    images, inside, outside = rng.integers(1, 4, 3)
    height, width = rng.integers(1, 12, 2)
    pads = [int(pad) for pad in rng.integers(0, 3, 4)]
    top = (1 << bits) - 1
    peak = (1 << (bits - 1)) - 1
    x = rng.integers(0, top + 1, (images, group * inside, height, width)).astype(np.uint8)
    w = rng.integers(-peak, peak + 1, (group * outside, inside, 3, 3)).astype(np.int8)
    if height + pads[0] + pads[2] < 3 or width + pads[1] + pads[3] < 3:
        return
    zero = int(rng.integers(0, top + 1))
    found = winograd_conv(x, w, zero, pads=pads, group=group)
    np.testing.assert_array_equal(found, conv_integer(x, w, zero, pads=pads, group=group))


@pytest.mark.parametrize(("x_zero", "level"), [(0, 255), (255, 0)])
def test_winograd_is_exact_at_the_largest_values_of_u8_and_s8(x_zero, level):
    rng = np.random.default_rng(0)
    x = np.full((1, 64, 8, 8), level, np.uint8)
    w = np.where(rng.random((5, 64, 3, 3)) < 0.5, -127, 127).astype(np.int8)
    found = winograd_conv(x, w, x_zero, pads=[1] * 4)
    np.testing.assert_array_equal(found, conv_integer(x, w, x_zero, pads=[1] * 4))


def test_other_kernels_and_too_many_channels_are_refused():
    x = np.zeros((1, 1, 5, 5), np.uint8)
    with pytest.raises(UsageError, match="5 x 5"):
        winograd_conv(x, np.zeros((1, 1, 5, 5), np.int8))
    with pytest.raises(UsageError, match="strides"):
        winograd_conv(x, np.zeros((1, 1, 3, 3), np.int8), strides=[2, 2])
    count = winograd_channels(255, 127) + 1
    with pytest.raises(UsageError, match="overflow"):
        winograd_conv(
            np.full((1, count, 3, 3), 255, np.uint8), np.full((1, count, 3, 3), 127, np.int8)
        )


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_bound_of_terms_in_sixteen_bits_is_sharp(sign):
    for left, right in ((63, 63), (64, 63), (127, 63), (127, 127), (90, 11)):
        terms = int16_terms(left, right)
        assert terms * left * right <= 32_767 < (terms + 1) * left * right
        a = np.full((1, 3 * terms), left, np.int8)
        b = np.full((3 * terms, 1), sign * right, np.int8)
        assert dot_int16(a, b, terms)[0, 0] == 3 * terms * sign * left * right
        a, b = a[:, :1].repeat(terms + 1, 1), b[:1].repeat(terms + 1, 0)
        if sign > 0:  # -32,768 itself still fits
            assert dot_int16(a, b, terms + 1)[0, 0] != (terms + 1) * sign * left * right


def test_random_seven_bit_products_are_exact_eight_at_a_time():
    rng = np.random.default_rng(1)
    a = rng.integers(-63, 64, (20, 77)).astype(np.int8)
    b = rng.integers(-63, 64, (77, 9)).astype(np.int8)
    np.testing.assert_array_equal(dot_int16(a, b), a.astype(int) @ b.astype(int))
