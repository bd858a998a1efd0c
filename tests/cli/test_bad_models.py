"""Models that are damaged or meant to harm get one clear error and are never run."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from tests import models
from tests.cli.conftest import Cli
from tests.cli.refusals import DATA, Unchanged, refused, write


def external(location: str) -> onnx.ModelProto:
    model = models.mlp()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return model


def with_dims(*dims: int) -> onnx.ModelProto:
    model = models.mlp()
    model.graph.initializer[0].dims[:] = dims
    return model


def with_nan() -> onnx.ModelProto:
    model = models.mlp()
    tensor = model.graph.initializer[0]
    weights = numpy_helper.to_array(tensor).copy()
    weights[1, 2] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return model


def with_cycle() -> onnx.ModelProto:
    model = models.mlp()
    model.graph.node[0].input[0] = "y"
    return model


def with_undefined_value() -> onnx.ModelProto:
    model = models.mlp()
    model.graph.node[0].input[0] = "nowhere"
    return model


def self_calling() -> onnx.ModelProto:
    return parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        g (float[4] x) => (float[4] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 21, "local" : 1]> f (a) => (b) { b = local.f (a) }"""
    )


def doubling_functions() -> onnx.ModelProto:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        g (float[4] x) => (float[4] y) { y = local.f40(x) }"""
    head = '<domain: "local", opset_import: ["" : 21, "local" : 1]>'
    for i in range(1, 41):
        text += f" {head} f{i} (a) => (b) {{ c = local.f{i - 1}(a) b = local.f{i - 1}(c) }}"
    return parser.parse_model(text + f" {head} f0 (a) => (b) {{ b = Tanh(a) }}")


MODELS = {
    "empty": (lambda: b"", "the file is empty"),
    "noise": (lambda: bytes(range(256)) * 4, "not an ONNX model"),
    "text": (lambda: b"hello, I am no model\n", "ONNX"),
    "data outside by dots": (lambda: external("../secret.bin"), "outside of the model's folder"),
    "data outside by root": (lambda: external("/etc/passwd"), "outside of the model's folder"),
    "data outside by a link": (lambda: external("link.bin"), "outside of the model's folder"),
    "data that is missing": (lambda: external("missing.bin"), "missing.bin"),
    "absurd dimensions": (lambda: with_dims(2**62, 2**62), "absurd shape"),
    "negative dimensions": (lambda: with_dims(-5, 3), "negative"),
    "dimensions that do not fit": (lambda: with_dims(1000, 1000), "w0"),
    "a cycle": (with_cycle, "cycle"),
    "an undefined value": (with_undefined_value, "nowhere"),
    "a function that calls itself": (self_calling, "calls itself"),
    "functions that double": (doubling_functions, "f"),
    "NaN weights": (with_nan, "the weights hold NaN"),
}


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("target", ["cpu-int8", "cpu-int4"])
def test_a_malicious_model_is_refused(cli: Cli, case: str, target: str) -> None:
    make, part = MODELS[case]
    write("m.onnx", make())
    Path("../secret.bin").write_bytes(b"\0" * 512)
    Path("link.bin").symlink_to("/etc/passwd")
    np.savez("d.npz", x=DATA)
    with Unchanged(Path("..")):
        arguments = ("compile", "m.onnx", "-t", target, "-o", "made/out", "--calib", "d.npz")
        refused(cli(*arguments), part, "m.onnx", code=1)
        refused(cli("inspect", "m.onnx"), part, code=1)


def test_a_model_cut_at_any_place_is_refused_or_still_a_model(cli: Cli) -> None:
    content = models.mlp((3, 4, 2)).SerializeToString()
    codes = []
    for size in range(0, len(content), 11):
        write("m.onnx", content[:size])
        with Unchanged():
            result = cli("inspect", "m.onnx", "--json")
        codes.append(result.code)
        if result.code:
            refused(result, "m.onnx", code=1)
    # Protobuf cut between two fields is a shorter message: most cuts are within one.
    assert codes.count(1) > 0.9 * len(codes)


def test_a_model_that_asks_for_absurd_memory_when_it_runs_is_refused(spawn: Cli) -> None:
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[n, 8] x) => (float[n, 8] y) {
            s = Constant <value = int64[2] {1000000000, 1000000000}> ()
            k = ConstantOfShape (s)  z = ReduceSum <keepdims = 0> (k)  y = Add (x, z) }"""
    )
    write("m.onnx", model)
    np.savez("d.npz", x=DATA)
    with Unchanged():
        refused(spawn("compile", "m.onnx", "-t", "cpu-int8", "--calib", "d.npz", "-o", "out"))


class Bomb:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_a_pickle_in_the_place_of_a_model_is_never_opened(cli: Cli) -> None:
    write("plain.pt2", pickle.dumps(Bomb()))
    with zipfile.ZipFile("packed.pt2", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    with Unchanged():
        for name in ("plain.pt2", "packed.pt2"):
            refused(cli("compile", name, "-t", "cpu-int4", "-o", "out"), name, code=1)
            refused(cli("inspect", name), name, code=1)
