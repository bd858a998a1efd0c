"""``--lower NODE=METHOD``: a model with a layer of circuits, compiled, run and compared."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qcomp
from qcomp.errors import PassError, TargetError, UsageError
from qcomp.layer_lowering import parse_lowering
from qcomp.passes.lower.layers.method import METHODS, method_named
from tests.lower.layer_models import mlp, outputs

RNG = np.random.default_rng(2)
X = RNG.normal(size=(6, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """An MLP 8-4-3."""
    weights = [RNG.normal(size=(8, 4)) / 3, RNG.normal(size=(4, 3))]
    return mlp(weights, [RNG.normal(size=4), RNG.normal(size=3)])


def _compile(model: onnx.ModelProto, *lower: str, **more: object) -> qcomp.Artifact:
    options = {"target": "cpu-int8+portable", "calibration": {"x": X}, "effort": "fast"}
    return qcomp.compile(model, lower=lower, **{**options, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["orthogonal", "swap-test"])
def test_the_lowered_model_runs_and_is_compared_layer_and_whole(
    model: onnx.ModelProto, method: str
) -> None:
    artifact = _compile(model, f"fc1={method}", pipeline="canonicalise")
    got = artifact.run({"x": X}, shots=0)["y"]
    assert np.abs(got - outputs(model, X)).max() < 1e-6
    checks = {check["what"]: check for check in artifact.report["checks"]}
    layer = checks[f"the Gemm 'fc1' and its form by {method}"]
    assert layer["error"] < 1e-6
    whole = checks["the artifact's outputs against the float source's"]
    assert whole["error"] < 1e-6
    assert any(
        "qubits" in note and "settings a row" in note for note in artifact.report["warnings"]
    )


def test_the_layers_that_stay_classical_are_quantized(model: onnx.ModelProto) -> None:
    artifact = _compile(model, "fc1=orthogonal")
    assert len(artifact.circuits) == 2
    got = artifact.run({"x": X}, shots=0)["y"]
    assert 0 < np.abs(got - outputs(model, X)).max() < 0.2


def test_a_glob_lowers_every_layer_that_it_matches(model: onnx.ModelProto) -> None:
    artifact = _compile(model, "fc?=orthogonal", pipeline="canonicalise")
    assert len(artifact.circuits) == 4
    assert np.abs(artifact.run({"x": X}, shots=0)["y"] - outputs(model, X)).max() < 1e-6


def test_a_lowering_is_read_with_its_options() -> None:
    assert parse_lowering("/fc=1/Gemm=orthogonal{block=8}") == (
        "/fc=1/Gemm",
        "orthogonal",
        {"block": 8},
    )


@pytest.mark.parametrize("text", ["fc1", "=orthogonal", "fc1=", "fc1=orthogonal{block}"])
def test_what_is_no_lowering_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_lowering(text)
    assert "block=8" in error.value.hint


def test_nearest_names_are_said_for_nodes_methods_and_options(model: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="matches no operator") as node:
        _compile(model, "fc11=orthogonal")
    assert "'fc1'" in node.value.hint
    with pytest.raises(UsageError, match="no method 'ortogonal'") as method:
        _compile(model, "fc1=ortogonal")
    assert "'orthogonal'" in method.value.hint
    with pytest.raises(UsageError, match="takes no option 'block'") as option:
        _compile(model, "fc1=swap-test{block=4}")
    assert "form" in option.value.hint


def test_a_layer_that_a_method_cannot_take_says_why_and_what_can(model: onnx.ModelProto) -> None:
    with pytest.raises(PassError, match="cannot take the layer 'fc1'") as error:
        _compile(model, "fc1=hypergraph")
    assert "no signs" in error.value.why
    assert "orthogonal" in error.value.hint
    assert "swap-test" in error.value.hint
    with pytest.raises(PassError) as relu:
        _compile(model, "relu1=orthogonal")
    assert "no matrix product" in relu.value.why
    assert "no method can" in relu.value.hint


def test_a_layer_that_is_named_twice_is_refused_before_anything_is_lowered(
    model: onnx.ModelProto,
) -> None:
    with pytest.raises(UsageError, match="'fc1' is to be lowered twice") as error:
        _compile(model, "fc1=orthogonal", "fc*=swap-test")
    assert "orthogonal" in error.value.what
    assert "swap-test" in error.value.what


def test_a_lowered_layer_needs_a_quantum_machine(model: onnx.ModelProto) -> None:
    with pytest.raises(TargetError, match="names no quantum machine"):
        _compile(model, "fc1=orthogonal", target="cpu-int8")


def test_every_method_is_named_in_the_help_of_compile() -> None:
    from qcomp.cli.compile_command import _HELP

    for name in METHODS:
        assert name in _HELP
        assert method_named(name).name == name
