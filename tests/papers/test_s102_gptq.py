"""S102: Frantar et al. 2022, "GPTQ", arXiv:2210.17323.

The character model with a scale a row, symmetric: how far perplexity rises, beside rounding to
nearest on the same grids; the bounds are the ratios of the rises that were measured when the test
was set (4.884 to 4.915 at 4 bits, 5.031 to 5.376 at 3, 6.893 to 15.95 at 2, float 4.869). All from
the emitted file in ONNX Runtime.
"""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest

from qcomp.execute import Session
from tests.models import from_text
from tests.papers.low_bit import character_perplexity, compiled, digits_accuracy
from tests.timing import timed

ROW = "group=256,symmetric=true"  # one scale a row: no row is longer
STORE = "accuracy_level=0"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("low_bit")


@pytest.mark.parametrize(("bits", "share"), [(4, 0.67), (3, 0.38), (2, 0.20)])
def test_gptq_takes_back_most_of_what_rounding_costs(scratch, bits, share):
    floating = character_perplexity("", scratch)
    store = f"quantize-weights{{bits={bits},{ROW},{STORE}}}"
    rounded = character_perplexity(store, scratch)
    choose = f"gptq{{bits={bits},{ROW},fit=minmax}}"
    found = [character_perplexity(f"{choose},{store}", scratch, seed=seed) for seed in range(3)]
    assert np.mean(found) - floating <= share * (rounded - floating)


def test_gptq_keeps_two_bit_digits(tmp_path):
    store = f"quantize-weights{{bits=2,group=256,symmetric=false,{STORE}}}"
    rounded = digits_accuracy(store, tmp_path)
    choose = "gptq{bits=2,group=256,fit=minmax,sweeps=0,rows=2048}"
    assert rounded < 95.6
    assert digits_accuracy(f"{choose},{store}", tmp_path) >= 97.3


def test_a_product_with_a_vector_is_six_times_as_small_and_exact_to_what_its_kernel_adds(tmp_path):
    rng = np.random.default_rng(0)
    K = 2048
    model = from_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        product (float[n, {K}] x) => (float[n, {K}] y) {{ y = MatMul (x, w) }}""",
        w=(rng.standard_normal((K, K)) / 45).astype(np.float32),
    )
    x = rng.standard_normal((64, K)).astype(np.float32)
    small, _ = compiled(
        model, "gptq{group=32},quantize-weights{group=32,symmetric=false}", {"x": x}, tmp_path
    )
    size = (tmp_path / "model.onnx").stat().st_size
    assert size * 6 <= len(model.SerializeToString())
    exact = onnx.load(tmp_path / "model.onnx")
    for node in exact.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    y, real = (s.run({"x": x})["y"] for s in (small, Session(exact)))
    # What 8-bit activations inside the kernel add.
    assert np.abs(y - real).max() <= 0.006 * np.abs(real).max()


@timed
def test_products_with_a_vector_are_four_times_as_fast(tmp_path):
    """Four of 2048 x 2048, whose 64 MB in float do not stay in the cache; CPU time in turns.

    Ends at 4.5 times. Busy neighbours share the cache, so 3.5 is held.
    """
    rng = np.random.default_rng(0)
    K = 2048
    model = from_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        products (float[n, {K}] x) => (float[n, {K}] y) {{
            a = MatMul (x, w0)
            b = MatMul (a, w1)
            c = MatMul (b, w2)
            y = MatMul (c, w3)
        }}""",
        **{f"w{i}": (rng.standard_normal((K, K)) / 45).astype(np.float32) for i in range(4)},
    )
    row = {"x": rng.standard_normal((1, K)).astype(np.float32)}
    store = "quantize-weights{group=32,symmetric=false}"
    sessions = Session(model), compiled(model, store, row, tmp_path)[0]
    best = [np.inf, np.inf]
    for turn in range(300):
        for which, session in enumerate(sessions):
            began = time.thread_time()
            session.run(row)
            best[which] = min(best[which], time.thread_time() - began)
        if turn > 30 and best[0] >= 4.5 * best[1]:
            break
    assert best[0] >= 3.5 * best[1]
