"""S069: Gafni et al. 2025, "Dual Precision Quantization", arXiv:2505.14638 (its abstract).

The character model with weights of 4 bits that are 8-bit floats exactly, activations 8-bit floats:
at most half a percent above GPTQ's perplexity with float activations, and the emitted file computes
what ONNX's reference computes. All from the emitted file.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from qcomp.execute import Session
from qcomp.passes.quantize.float8 import round_e4m3
from tests.papers.low_bit import char_model, character_perplexity, compiled

DPQ = "calibrate{method=minmax},dpq,quantize-fp8"
GPTQ = "gptq,quantize-weights{symmetric=false,accuracy_level=0}"
LAYERS = 15


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("dpq")


@pytest.fixture(scope="module", params=[False, True])
def written(request, scratch):
    """The emitted file, of the model or its twin with outliers, and characters to run it on."""
    weights, alphabet = char_model.load()
    train, held_out = char_model.split(char_model.tokens(alphabet))
    model = char_model.graph(char_model.with_outliers(weights) if request.param else weights)
    compiled(model, DPQ, {"ids": char_model.calibration(train, 16)}, scratch)
    return onnx.load(scratch / "model.onnx"), {"ids": held_out[:4, :-1]}


def with_outputs(model, names):
    """The model with more outputs: float values of any shape."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return shown


@pytest.mark.parametrize("outliers", [False, True])
def test_perplexity_is_half_a_percent_above_that_of_gptq_with_float_activations_at_most(
    scratch, outliers
):
    gptq, dpq = (
        np.mean([character_perplexity(p, scratch, seed=s, outliers=outliers) for s in range(2)])
        for p in (GPTQ, DPQ)
    )
    assert dpq <= 1.005 * gptq


def test_every_weight_is_an_8_bit_float_before_it_is_rounded_to_one(written):
    model, feeds = written
    made = {node.output[0]: node for node in model.graph.node}
    kinds = {item.name: item.data_type for item in model.graph.initializer}
    exact = [
        node.input[0]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in made
        if made[node.input[0]].op_type == "DequantizeLinear"
    ]
    assert len(exact) == LAYERS
    assert all(kinds[made[name].input[0]] == onnx.TensorProto.INT4 for name in exact)
    values = Session(with_outputs(model, exact)).run(feeds)
    for name in exact:
        assert np.array_equal(round_e4m3(values[name]), values[name].astype(np.float32))
        assert len(np.unique(values[name])) > 16


def test_onnx_runtime_computes_each_layer_as_the_reference_does(written):
    """Layer by layer: where sums differ by a bit, the next rounding may turn the other way."""
    model, feeds = written
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    made = {node.output[0]: node for node in model.graph.node}
    layers = [n for n in products if n.input[1] in made and "real" in made[n.input[1]].name]
    assert len(layers) == LAYERS
    sources = [made[made[node.input[0]].input[0]].input[0] for node in layers]
    values = Session(
        with_outputs(model, dict.fromkeys([*sources, *(n.output[0] for n in layers)]))
    ).run(feeds)
    for node, source in zip(layers, sources, strict=True):
        alone = onnx.utils.Extractor(with_outputs(model, [node.output[0]]))
        part = alone.extract_model([source], [node.output[0]])
        (wanted,) = ReferenceEvaluator(part).run(None, {source: values[source]})
        assert np.abs(values[node.output[0]] - wanted).max() <= 1e-3


def test_almost_all_logits_are_those_of_the_reference(written):
    model, feeds = written
    (wanted,) = ReferenceEvaluator(model).run(None, feeds)
    off = np.abs(Session(model).run(feeds)["logits"] - wanted)
    assert np.sqrt(np.mean(off**2)) <= 1e-3
