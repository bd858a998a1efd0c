"""S131: Lin et al. 2024, "QServe", arXiv:2405.04532.

Progressive groups cannot leave 8 bits, whatever is chosen; products are exact integers; the
character model at W4A8KV4 rises by no more than the bound that was set (4.97 over float's 4.869);
a cache takes an eighth of float's bytes and 4 bytes a token and head; SmoothAttention takes
outliers out of keys. All from the emitted file in ONNX Runtime.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.errors import PassError
from qcomp.passes.quantize.folded_weights import folded_array
from qcomp.passes.quantize.integer_reference import token_matmul
from qcomp.passes.quantize.progressive_grid import PROTECTED, ProgressiveGrid, zero_range
from qcomp.quantization import ChosenWeight, QuantizationRecord, TokenCaches
from tests.models import from_text
from tests.papers.low_bit import char_model, character_perplexity, compiled

STORE = "quantize-tokens{kv=4}"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("qserve")


def every_group():
    """A group [low, high] for every range of 8-bit integers around 0, in a channel of scale 1."""
    low, high = np.meshgrid(np.arange(-PROTECTED, 1), np.arange(PROTECTED + 1))
    rest = np.full(low.size, PROTECTED)
    return np.stack([low.ravel(), high.ravel(), rest, -rest], axis=1).astype(np.float32)


@pytest.mark.parametrize("fit", ["minmax", "mse"])
def test_every_code_of_every_group_stays_in_eight_bits(fit):
    weight = every_group()
    grids = ProgressiveGrid(4, 2, False, fit).fitted(weight)
    multiple, zero = grids.scale.astype(np.int64), grids.zero.astype(np.int64)
    assert np.array_equal(multiple, grids.scale)  # whole: the channels' scale is 1
    assert multiple.min() >= 1
    assert zero.min() >= 0
    assert zero.max() <= 15
    for code in range(16):
        inner = (code - zero) * multiple
        assert inner.min() >= -128
        assert inner.max() <= 127
    if fit == "minmax":  # one step at most is lost at an end of the range
        error = np.abs(grids.real(grids.round(weight)) - weight)
        assert (error <= np.repeat(multiple, 2, axis=1)).all()


def test_a_wider_range_would_have_no_safe_zero_point():
    for multiple in range(1, 17):
        least, most = zero_range(np.float32(multiple))
        assert max(least, 0) <= most
    least, most = zero_range(np.float32(17))
    assert least > most
    assert np.ceil(2 * PROTECTED / 15) == 16
    assert np.ceil(2 * 127 / 15) == 17


def test_integers_that_leave_eight_bits_are_refused():
    parts = {
        "levels": np.full((2, 16), 7, np.int8),
        "scale": np.full((2, 1), 16, np.float32),
        "zero_point": np.full((2, 1), -1, np.int8),
    }
    rest = {"axis": 1, "group": 16, "bits": 4, "method": "test"}
    with pytest.raises(PassError, match="leave 8 bits"):
        ChosenWeight(**parts, **rest, channel=np.ones(2, np.float32))
    with pytest.raises(PassError, match="no whole multiples"):
        ChosenWeight(**parts, **rest, channel=np.full(2, 1.5, np.float32))


@pytest.mark.parametrize("group", [32, 128])
def test_products_are_those_of_exact_integers_made_of_four_bits(tmp_path, group):
    rng = np.random.default_rng(0)
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        product (float[n, 256] x) => (float[n, 48] y) { y = MatMul (x, w) }""",
        w=rng.standard_t(4, (256, 48)).astype(np.float32),
    )
    x = rng.standard_normal((64, 256)).astype(np.float32)
    session, context = compiled(model, f"qoq{{group={group}}},quantize-tokens", {"x": x}, tmp_path)
    graph = ir.load(tmp_path / "model.onnx").graph
    layer = context.get(QuantizationRecord).layers[0]
    assert layer.weight_type == f"u4/{group}"
    stored = {name: v.const_value.numpy() for name, v in graph.initializers.items()}
    kinds = {name: array.dtype.name for name, array in stored.items()}
    assert kinds["w_quantized"] == kinds["w_zero_point"] == "uint4"
    assert kinds["w_block_scale"] == "uint8"
    q, z, r = (
        stored[f"w_{part}"].astype(np.int64) for part in ("quantized", "zero_point", "block_scale")
    )
    inner = ((q - z) * r).reshape(48, 256).T
    levels = next(v for n in graph for v in n.outputs if v.name == layer.quantized)
    assert np.array_equal(folded_array(levels), inner)
    expected = token_matmul(x, inner.astype(np.int8), stored["w_scale"], 8)
    assert np.array_equal(session.run({"x": x})["y"], expected)


def test_four_bit_weights_and_caches_keep_the_perplexity(scratch):
    floating = character_perplexity("", scratch)
    for first in ("smooth-attention,", "rotate{online=true},"):
        found = character_perplexity(f"{first}qoq,{STORE}", scratch)
        assert found - floating <= 4.97 - 4.869


def with_key_outliers(weights):
    """The same function; a pair of channels of each head's keys is ten times as large."""
    w = {name: array.copy() for name, array in weights.items()}
    for block in range(char_model.BLOCKS):
        for head in range(char_model.HEADS):
            first = head * char_model.HEAD + 3 * head + block
            pair = [first, first + char_model.HEAD // 2]
            w[f"{block}.k"][:, pair] *= 10
            w[f"{block}.q"][:, pair] /= 10
    return w


def test_keys_with_outliers_need_smooth_attention_and_caches_take_an_eighth(scratch):
    weights, alphabet = char_model.load()
    train, held_out = char_model.split(char_model.tokens(alphabet))
    data = {"ids": char_model.calibration(train, 32)}
    model = char_model.graph(with_key_outliers(weights))
    floating = character_perplexity("", scratch)
    rises = []
    for first in ("", "smooth-attention,"):
        session, context = compiled(model, f"{first}{STORE}", data, scratch)
        logits = session.run({"ids": held_out[:, :-1]})["logits"]
        rises.append(char_model.perplexity(logits, held_out[:, 1:]) - floating)
    assert rises[0] >= 0.2
    assert rises[1] <= 0.06
    for tensor in context.get(TokenCaches).tensors:
        assert (tensor.heads, tensor.width) == (char_model.HEADS, char_model.HEAD)
        assert (tensor.bytes - 4 * tensor.heads) * 8 == tensor.float_bytes
