"""S129: Wang et al. 2024, "Q-VLM: Post-training Quantization for Large Vision-Language Models",
arXiv:2410.08119.

A toy model of two towers answers questions about digits; weights and activations have four bits,
activations with a scale a token, through the emitted file in ONNX Runtime. Its twin with outliers
in two channels of every activation, as large models have them, is where joint learning matters; on
the model as it was trained the searches lie within a point of each other.
"""

from __future__ import annotations

import time

import numpy as np
import onnx_ir as ir
import pytest
from scipy.stats import spearmanr

from qcomp.execute import Session
from qcomp.ir.program import Program
from qcomp.passes.quantize.entropy_blocks import entropies
from qcomp.passes.quantize.learn_rounding_graph import Stream, blocks_of, make_twin
from qcomp.passmanager import Context, Pipeline
from tests.papers.low_bit import compiled

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from tests.papers.digits_vlm import calibration, data, top1, vlm  # noqa: E402

FACTOR = 8.0
FOUR = "bits=4,scheme=tokens,activations=4,steps=60"
STORE = "quantize-tokens{bits=4,weights=4}"
SEARCHES = {
    "rounded": "",
    "layer-wise": f"learn-rounding{{{FOUR},granularity=layer}},",
    "blocks by entropy": f"learn-rounding{{{FOUR},granularity=entropy,span=4}},",
    "and the image's tower": f"learn-rounding{{{FOUR},granularity=entropy,span=4,tower=image}},",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Answers that are right and CPU seconds, by search."""
    folder, model = tmp_path_factory.mktemp("vlm"), vlm(FACTOR)
    inputs = data()[2]
    table = {"float": (top1(Session(model).run(inputs)["answer"]), 0.0)}
    print(f"\n{'float':22s} {table['float'][0]:5.2f}")
    for name, search in SEARCHES.items():
        began = time.process_time()
        session, _ = compiled(model, search + STORE, calibration(), folder)
        spent = time.process_time() - began
        table[name] = (top1(session.run(inputs)["answer"]), spent)
        print(f"{name:22s} {table[name][0]:5.2f} {spent:5.1f} CPU s")
    return table


def test_the_trained_model_answers(found):
    assert found["float"][0] >= 94.0


def test_blocks_by_entropy_are_better_than_layers_by_half_a_point_and_more(found):
    assert found["layer-wise"][0] > found["rounded"][0]
    assert found["blocks by entropy"][0] >= found["layer-wise"][0] + 1.5  # asked .5, measured 4.7


def test_the_rounding_of_the_image_towers_results_can_be_learned_too(found):
    assert found["and the image's tower"][0] >= found["layer-wise"][0] + 0.5


def test_a_search_takes_at_most_a_minute(found):
    assert max(spent for _, spent in found.values()) <= 60.0


def test_entropies_tell_the_errors_that_four_bits_make():
    """Of each block's result, over both models."""
    ranked, errors = [], []
    for factor in (1.0, FACTOR):
        program = Program(ir.from_proto(vlm(factor)))
        context = Context()
        Pipeline.parse("canonicalise,fold-constants").run(program, context)
        twin = make_twin(program, context, "weights", 4)
        units = blocks_of(program.model.graph, twin.layers)
        rows = {name: array[:256] for name, array in calibration().items()}
        stream = Stream(program, [rows], ())
        ranked += entropies(units, stream)
        for unit in units:
            x = np.asarray(stream.chunks[0][unit.target.name or ""], np.float64)
            step = np.abs(x).max(axis=-1, keepdims=True) / 7
            errors.append(np.square(np.rint(x / step) * step - x).mean())
    correlation = spearmanr(ranked, errors)[0]
    print(f"\nrank correlation of entropy and error: {correlation:.2f}")
    assert correlation >= 0.5
