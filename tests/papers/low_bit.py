"""The character model and the digits MLP behind a pipeline, judged through the emitted ONNX."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.execute import Session
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline
from qcomp.target import get_target
from tests.papers.digits_mlp import SEEDS, accuracy, digits, mlp

FOLDER = Path(__file__).parents[2] / "examples" / "char_model"
sys.path.insert(0, str(FOLDER))

import char_model  # noqa: E402

sys.path.remove(str(FOLDER))

WINDOWS = 128
"""Calibration windows of 64 characters."""


@functools.cache
def _text() -> tuple[np.ndarray, np.ndarray]:
    _, alphabet = char_model.load()
    return char_model.split(char_model.tokens(alphabet))


@functools.cache
def _graph(outliers: bool) -> onnx.ModelProto:
    weights, _ = char_model.load()
    return char_model.graph(char_model.with_outliers(weights) if outliers else weights)


def compiled(model: onnx.ModelProto, pipeline: str, calibration: dict[str, np.ndarray], folder):
    """Compile, write, and return the session of the file with the context."""
    context = Context(calibration=lambda: iter([calibration]))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    program = Program(ir.from_proto(copy))
    Pipeline.parse(f"canonicalise,fold-constants,{pipeline}").run(program, context)
    path = folder / "model.onnx"
    OnnxIntBackend().write(program, path, get_target("cpu-int4"), context)
    return Session(path), context


def char_graph(outliers: bool = False) -> onnx.ModelProto:
    """The character model, or its twin with outliers."""
    return _graph(outliers)


def char_windows(seed: int = 0) -> np.ndarray:
    """Its calibration data."""
    return char_model.calibration(_text()[0], WINDOWS, seed)


@functools.cache
def _logits(pipeline: str, folder: Path, seed: int, outliers: bool) -> np.ndarray:
    """Logits of the held-out windows; "" is the float model."""
    if pipeline:
        session, _ = compiled(_graph(outliers), pipeline, {"ids": char_windows(seed)}, folder)
    else:
        session = Session(_graph(outliers))
    return session.run({"ids": _text()[1][:, :-1]})["logits"]


def character_perplexity(
    pipeline: str, folder: Path, *, seed: int = 0, outliers: bool = False
) -> float:
    """Perplexity per character on the held-out windows; "" is the float model."""
    return char_model.perplexity(_logits(pipeline, folder, seed, outliers), _text()[1][:, 1:])


def perplexity_of(session: Session) -> float:
    """The same of a file."""
    windows = _text()[1]
    return char_model.perplexity(session.run({"ids": windows[:, :-1]})["logits"], windows[:, 1:])


def character_divergence(pipeline: str, folder: Path, *, seed: int = 0) -> float:
    """KL(float || quantized) a character on the held-out windows."""
    found = []
    for text in ("", pipeline):
        y = _logits(text, folder, seed if text else 0, False).astype(np.float64)
        y -= y.max(axis=-1, keepdims=True)
        found.append(y - np.log(np.exp(y).sum(axis=-1, keepdims=True)))
    real, quantized = found
    return float((np.exp(real) * (real - quantized)).sum(axis=-1).mean())


def digits_accuracy(pipeline: str, folder, count: int = len(SEEDS)) -> float:
    """Mean top-1 in percent of some of four trained MLPs on the digits' test images."""
    x, x_test, _, _ = digits()
    found = []
    for seed in SEEDS[:count]:
        session = (
            compiled(mlp(seed), pipeline, {"x": x}, folder)[0] if pipeline else Session(mlp(seed))
        )
        found.append(accuracy(session.run({"x": x_test})["y"]))
    return float(np.mean(found))
