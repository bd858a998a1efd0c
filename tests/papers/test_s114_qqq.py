"""S114: Zhang et al. 2024, "QQQ", arXiv:2406.09904.

The character model's twin with outliers at W4A8: adaptive smoothing with error feedback stays below
the rise in perplexity that was set (4.95 over float's 4.869), with a scale a channel and with
groups; the model without outliers is left alone. Products of both layouts are those of integers in
NumPy, made of the file's packed bytes, and cannot leave 32 bits. All from the emitted file in ONNX
Runtime.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.ir.program import Program
from qcomp.passes.calibrate.smooth_outliers import SmoothedOutliers
from qcomp.passes.quantize.integer_reference import token_levels
from qcomp.passes.quantize.token_scales import largest_sum
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import QuantizationRecord
from tests.models import from_text
from tests.papers.low_bit import WINDOWS, char_model, character_perplexity, compiled

FEEDBACK = {
    "channel": "gptq{group=0,symmetric=true,fit=mse}",
    "group": "gptq{group=128,symmetric=true}",
}
SMOOTH = {"channel": "smooth-outliers", "group": "smooth-outliers{group=128}"}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("qqq")


@pytest.mark.parametrize("layout", ["channel", "group"])
def test_four_bit_weights_and_eight_bit_tokens_survive_outliers(scratch, layout):
    floating = character_perplexity("", scratch, outliers=True)
    steps = [SMOOTH[layout], FEEDBACK[layout], "quantize-tokens"]
    found = character_perplexity(",".join(steps), scratch, outliers=True)
    assert found - floating <= 4.95 - 4.869
    alone = character_perplexity(",".join(steps[1:]), scratch, outliers=True)
    assert found - floating <= 0.3 * (alone - floating)


def test_only_tensors_with_outliers_are_smoothed():
    weights, alphabet = char_model.load()
    train, _ = char_model.split(char_model.tokens(alphabet))
    data = {"ids": char_model.calibration(train, WINDOWS)}
    found = []
    for model in (weights, char_model.with_outliers(weights)):
        program = Program(ir.from_proto(char_model.graph(model)))
        context = Context(calibration=lambda: iter([data]))
        Pipeline.parse("canonicalise,fold-constants,smooth-outliers").run(program, context)
        found.append({name: n for name, n in context.get(SmoothedOutliers).channels.items() if n})
    assert found[0] == {}
    assert sorted(found[1]) == sorted(
        ["normed", *(f"{b}.{part}" for b in (0, 1) for part in ("normed", "mlp.normed", "product"))]
    )
    assert max(found[1].values()) < char_model.WIDTH / 4


def unpacked(stored: bytes, count: int) -> np.ndarray:
    """4-bit levels, the first of a byte in its low half."""
    packed = np.frombuffer(stored, np.uint8)
    return np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:count].astype(np.int32)


@pytest.mark.parametrize("layout", ["channel", "group"])
def test_products_are_those_of_32_bit_integers_made_of_packed_bytes(tmp_path, layout):
    rng = np.random.default_rng(0)
    K, N = 256, 48
    model = from_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        product (float[n, {K}] x) => (float[n, {N}] y) {{ y = MatMul (x, w) }}""",
        w=rng.standard_t(4, (K, N)).astype(np.float32),
    )
    x = (rng.standard_normal((64, K)) * 10.0 ** rng.normal(size=(64, 1))).astype(np.float32)
    session, context = compiled(model, f"{FEEDBACK[layout]},quantize-tokens", {"x": x}, tmp_path)
    kind = context.get(QuantizationRecord).layers[0].weight_type
    assert kind == {"channel": "s4", "group": "s4/128"}[layout]
    stored = ir.load(tmp_path / "model.onnx").graph.initializers
    q = unpacked(stored["w_quantized"].const_value.tobytes(), K * N)
    ratio = stored["w_block_scale"].const_value.numpy().astype(np.float32).reshape(N, -1, 1)
    b = np.rint((q.reshape(N, ratio.shape[1], -1) - 8) * ratio).reshape(N, K).T.astype(np.int32)
    assert np.abs(b).max() <= 128
    levels, s = token_levels(x, 8)
    sums = levels.astype(np.int32) @ b
    assert np.abs(sums.astype(np.int64)).max() <= largest_sum(K, 8) < 1 << 31
    expected = sums.astype(np.float32) * stored["w_scale"].const_value.numpy() * s
    assert np.array_equal(session.run({"x": x})["y"], expected)
