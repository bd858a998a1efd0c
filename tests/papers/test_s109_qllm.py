"""S109: Liu et al. 2023, "QLLM", arXiv:2310.08041.

The character model's twin with outliers, weights of 4 bits with a scale a row, activations of 4 or
8 bits with a scale a token: perplexity beside 99.6 at 4 bits and 5.11 at 8 as it is (float 4.889).
Channels taken apart leave the logits alone; with merged ones the graph has as many operators as
before. All from the emitted file in ONNX Runtime.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from qcomp.passes.calibrate.qllm import ReassembledChannels
from tests.papers.low_bit import char_model, character_perplexity, compiled

ROW = "bits=4,group=0,symmetric=true"
PRODUCT = "norms=product"


def pipeline(tokens: int, options: str = "") -> str:
    store = f"quantize-tokens{{bits={tokens},weights=4,group=0,symmetric=true}}"
    return f"qllm{{{ROW},tokens={tokens}{options}}},gptq{{{ROW}}},{store}"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("qllm")


@pytest.fixture(scope="module")
def twin():
    """The model with outliers, calibration data and windows that were held out."""
    weights, alphabet = char_model.load()
    train, held_out = char_model.split(char_model.tokens(alphabet))
    model = char_model.graph(char_model.with_outliers(weights))
    return model, {"ids": char_model.calibration(train, 32)}, {"ids": held_out[:16, :-1]}


@pytest.mark.parametrize(("tokens", "most"), [(4, 5.6), (8, 5.02)])
def test_outliers_cost_little_where_their_channels_are_taken_apart(scratch, tokens, most):
    text = pipeline(tokens, f",{PRODUCT}")
    found = [character_perplexity(text, scratch, seed=s, outliers=True) for s in range(2)]
    assert np.mean(found) <= most


def test_the_correction_of_low_rank_gains(scratch):
    without, corrected = (
        character_perplexity(pipeline(4, options), scratch, outliers=True)
        for options in (",rank=0", "")
    )
    assert corrected < without - 0.2


@pytest.mark.parametrize("norms", ["gather", "product"])
def test_taking_apart_alone_leaves_the_logits_alone(tmp_path, twin, norms):
    model, data, feeds = twin
    wide = f"qllm{{{ROW},assemble=false,rank=0,norms={norms}}}"
    before, after = (compiled(model, p, data, tmp_path) for p in ("canonicalise", wide))
    added = after[1].get(ReassembledChannels).added
    assert len(added) == 7  # all but the inputs of the attentions' output projections
    assert min(added.values()) > 3
    logits = [session.run(feeds)["logits"] for session, _ in (before, after)]
    assert np.abs(logits[0] - logits[1]).max() <= 1e-4


@pytest.mark.parametrize(("norms", "more"), [("product", {}), ("gather", {"Gather": 5})])
def test_merging_keeps_the_widths_and_the_number_of_operators(tmp_path, twin, norms, more):
    model, data, _ = twin
    graphs = []
    for text in (pipeline(4).partition(",gptq")[2], pipeline(4, f",norms={norms}")):
        compiled(model, text.removeprefix(f"{{{ROW}}},"), data, tmp_path)
        graphs.append(onnx.load(tmp_path / "model.onnx").graph)
    counts = [Counter(node.op_type for node in graph.node) for graph in graphs]
    assert counts[1].total() == counts[0].total() + sum(more.values())
    assert counts[1]["Gather"] == counts[0]["Gather"] + more.get("Gather", 0)
    sizes = [
        sorted(tuple(i.dims) for i in graph.initializer if "quantized" in i.name)
        for graph in graphs
    ]
    assert sizes[0] == sizes[1]
