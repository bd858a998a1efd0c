"""What cannot be quantized as it came gets one clear error, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest
from onnx import parser

from tests.cli.conftest import Cli
from tests.cli.refusals import DATA, Unchanged, refused, write

W = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)


def model(body: str, opset: int = 21, **weights: np.ndarray) -> onnx.ModelProto:
    """``y`` made of ``x`` float[n, 8] by the layer w and what is written behind it."""
    proto = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}, "my.ops" : 1]>'
        f"g (float[n, 8] x) => (float[n, m] y) {{ a = MatMul(x, w) {body} }}"
    )
    for name, array in {"w": W, **weights}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


ONES = np.ones(4, np.float32)
MODELS: Mapping[str, tuple[Callable[[], onnx.ModelProto], tuple[str, ...]]] = {
    "an operator that ONNX Runtime lacks": (
        lambda: model("y = my.ops.Fold(a)"),
        ("ONNX Runtime cannot run the model", "my.ops:Fold", "make it run there first"),
    ),
    "a model that fails when it runs": (
        lambda: model("y = Reshape(a, s)", s=np.array([7, -1])),
        ("ONNX Runtime cannot run the model", "requested shape:{7,-1}"),
    ),
    "types that do not go together": (
        lambda: model("y = Add(a, k)", k=np.arange(4)),
        ("ONNX Runtime cannot run the model", "tensor(int64)"),
    ),
    "an opset that cannot be converted": (
        lambda: model("y, m, v, p, q = BatchNormalization(a, s, s, s, s)", 9, s=ONES),
        ("the model has opset 9, at least 13 is needed", "the conversion from opset 9"),
    ),
    "an opset from the future": (lambda: model("y = Relu(a)", 99), ("opset 99", "can be read")),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_cannot_be_quantized_is_refused(cli: Cli, case: str) -> None:
    make, parts = MODELS[case]
    write("m.onnx", make())
    np.savez("d.npz", x=DATA)
    with Unchanged():
        arguments = ("compile", "m.onnx", "-t", "cpu-int8", "--calib", "d.npz", "-o", "out")
        refused(cli(*arguments), *parts, code=1)


ARGUMENTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "labels of another length": (
        ("--labels", "short.npz"),
        ("60 labels for 64 samples", "array 'y' of short.npz"),
    ),
    "a drop without labels": (("--max-drop", "1%"), ("a largest drop needs labels",)),
    "a name that is left out but not there": (("--exclude", "fc9"), ("'fc9' matches no operator",)),
    "a type that is taken but not there": (("--include", "op:Conv"), ("'op:Conv' matches no",)),
    "a subgraph that is not there": (("--exclude", "sub:/head"), ("'sub:/head' matches no",)),
    "an override of nothing": (("--override", "/x/*{bits=8}"), ("'/x/*' matches no operator",)),
    "an override of too many bits": (("--override", "op:MatMul{bits=9}"), ("in 9 bits",)),
    "an override without options": (("--override", "op:MatMul"), ("is no override",)),
}


def test_too_few_bits_for_a_method_name_the_operator(cli: Cli) -> None:
    write("m.onnx", model("y = Relu(a)"))
    np.savez("d.npz", x=DATA)
    with Unchanged():
        command = ("compile", "m.onnx", "-t", "cpu-int4", "--calib", "d.npz", "-o", "out")
        parts = ("no pass can store 'a' in 1 bits", "bits is 2 to 8")
        refused(cli(*command, "--override", "op:MatMul{bits=1}"), *parts)


@pytest.mark.parametrize("case", ARGUMENTS)
def test_what_does_not_fit_the_model_is_refused(cli: Cli, case: str) -> None:
    arguments, parts = ARGUMENTS[case]
    write("m.onnx", model("y = Relu(a)"))
    np.savez("d.npz", x=DATA)
    np.savez("short.npz", x=DATA, y=np.zeros(60, np.int64))
    with Unchanged():
        command = ("compile", "m.onnx", "-t", "cpu-int8", "--calib", "d.npz", "-o", "out")
        refused(cli(*command, *arguments), *parts)
