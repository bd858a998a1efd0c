"""What the tests of graphs as people have them share: build one, compile it, compare it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import qcomp
from qcomp.execute import Session
from qcomp.quantization import sqnr
from qcomp.runtime.artifact import Artifact

TARGETS = {"cpu-int8": 30.0, "cpu-dynamic-int8": 30.0, "cpu-int4": 14.0}
"""Target -> least signal over noise of every output, dB."""

D, BATCH, LENGTH = 64, 24, 10


class Draws:
    """Random weights and data of one test module: the same in every test, whichever ran before."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = np.random.default_rng(seed)

    def rewind(self) -> None:
        """Begin again, before each test."""
        self.rng.bit_generator.state = np.random.default_rng(self.seed).bit_generator.state

    def matrix(self, *shape: int) -> np.ndarray:
        """A weight whose products keep the size of what it multiplies."""
        return (self.rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    def bias(self, n: int) -> np.ndarray:
        return self.rng.normal(0, 0.1, n).astype(np.float32)


RNG = np.random.default_rng(11)
X = RNG.normal(size=(BATCH, LENGTH, D)).astype(np.float32)
LENGTHS = RNG.integers(4, LENGTH + 1, BATCH).astype(np.int32)
MASK = (np.arange(LENGTH) < LENGTHS[:, None]).astype(np.int32)


def model(
    opset: int,
    inputs: str,
    outputs: str,
    body: str,
    weights: Mapping[str, object],
    functions: str = "",
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A model of ONNX text and initializers; not checked, as people's files are not."""
    imports = f'"" : {opset}, "com.microsoft" : 1, "my" : 1'
    proto = onnx.parser.parse_model(
        f"<ir_version: {ir_version}, opset_import: [{imports}]>\n"
        f"g ({inputs}) => ({outputs}) {{ {body} }}\n{functions}"
    )
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return proto


def compiled(
    source: object, target: str, feeds: Mapping[str, Any], **options: Any
) -> tuple[Artifact, dict[str, Any]]:
    """Compile for a target, with calibration data where it needs some; (artifact, report)."""
    data = feeds if target == "cpu-int8" else None
    artifact = qcomp.compile(source, target=target, calibration=data, **options)
    return artifact, json.loads((artifact.path / "report.json").read_text())


def check(
    source: onnx.ModelProto,
    feeds: Mapping[str, Any],
    quantized: Mapping[str, Iterable[str]] | Iterable[str],
    left: Mapping[str, str],
    expected: Mapping[str, Any] | None = None,
    slack: float = 0.0,
) -> dict[str, dict[str, Any]]:
    """Compile for each target of :data:`TARGETS` and check outputs, kernels and the account.

    Args:
        source: The float model.
        feeds: Its inputs, samples first; also the calibration data.
        quantized: Names of the layers that have to be quantized, for all targets or by target.
        left: Operator type -> words that the reason has to have with which it is left in float.
        expected: Outputs; ONNX Runtime's of the source where None.
        slack: Decibels that outputs may be below the least of the target.

    Returns:
        Target -> report.
    """
    reference = Session(source).run(feeds) if expected is None else expected
    reports = {}
    for target, least in TARGETS.items():
        artifact, report = compiled(source, target, feeds)
        result = artifact.run(feeds)
        for name, value in reference.items():
            got = np.asarray(result[name])
            assert got.shape == value.shape, (target, name)
            assert got.dtype == value.dtype, (target, name)
            decibels = sqnr(np.asarray(value, np.float32), np.asarray(got, np.float32))
            assert decibels > least - slack, (target, name, decibels)
        account = report["quantization"]
        wanted = quantized.get(target, ()) if isinstance(quantized, Mapping) else quantized
        assert {line["layer"] for line in account["layers"]} == set(wanted), target
        assert [line for line in account["fusions"] if line["missed"]] == [], target
        reasons = {line["op"]: line["reason"] for line in account["left_in_float"]}
        for op, words in left.items():
            assert words in reasons[op], (target, op)
        reports[target] = report
    return reports
