"""Convolutions as circuits: over windows, by filters, and between Walsh-Hadamard transforms."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import qcomp
from qcomp.constructions.multiplexers import walsh
from qcomp.errors import PassError
from qcomp.lowered import LoweredLayer, LoweredLayers
from tests.lower.layer_models import change, conv, graph_model, linear, lowered, outputs

RNG = np.random.default_rng(13)
HADAMARD = 8.0 * walsh(np.eye(8))


def _layer(model: object, step: str, data: np.ndarray | None = None) -> LoweredLayer:
    _, context = lowered(model, step, data)  # type: ignore[arg-type]
    return context.need(LoweredLayers, "lower-layer").layers[0]


@pytest.mark.parametrize("method", ["orthogonal", "swap-test", "quanvolution"])
@pytest.mark.parametrize(
    ("weight", "attributes"),
    [
        ((2, 2, 2, 2), {}),
        ((2, 1, 2, 2), {"group": 2, "strides": [2, 1], "pads": [1, 0, 0, 1]}),
        ((1, 2, 2, 2), {"dilations": [2, 1], "pads": [0, 1, 1, 1]}),
        ((1, 2, 2, 2), {"strides": [2, 1], "auto_pad": "SAME_UPPER"}),
        ((1, 2, 2, 2), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ],
)
def test_a_convolution_is_the_same_to_1e_6(
    method: str, weight: tuple[int, ...], attributes: dict[str, object]
) -> None:
    x = RNG.normal(size=(2, 2, 5, 5))
    x[1, :, :3, :3] = 0  # a patch of zeros
    if "group" in attributes:
        weight = (weight[0], 1, *weight[2:])
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", **attributes)
    arrays = {"w": RNG.normal(size=weight), "b": RNG.normal(size=weight[0])}
    model = graph_model([node], arrays, ["n", 2, 5, 5])
    assert change(model, f"node=conv,method={method}", x) < 1e-6


def test_a_filter_takes_half_the_qubits_of_a_swap_test_and_says_its_runs() -> None:
    model = conv(RNG.normal(size=(3, 1, 3, 3)), 4)
    layer = _layer(model, "node=conv,method=quanvolution")
    assert layer.qubits == 4
    assert layer.two_qubit == 2 * (2**4 - 4 - 1)
    assert layer.runs == layer.settings == 4 * 3
    assert _layer(model, "node=conv,method=swap-test").qubits == 2 * layer.qubits


@pytest.mark.parametrize("method", ["quanvolution", "swap-test"])
def test_filters_whose_output_is_only_squared_say_so(method: str) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["z"], name="conv"),
        helper.make_node("Abs", ["z"], ["y"], name="abs"),
    ]
    model = graph_model(nodes, {"w": RNG.normal(size=(2, 1, 2, 2))}, ["n", 1, 3, 3])
    x = RNG.normal(size=(2, 1, 3, 3))
    step = f"node=conv,method={method}"
    assert "squared amplitudes only" in _layer(model, step).restores
    assert change(model, step, x) < 1e-6


def test_a_convolution_in_the_middle_of_a_graph_has_its_shape_inferred() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["h"], name="first"),
        helper.make_node("Conv", ["h", "w"], ["y"], name="second"),
    ]
    arrays = {"v": RNG.normal(size=(2, 1, 2, 2)), "w": RNG.normal(size=(1, 2, 2, 2))}
    model = graph_model(nodes, arrays, ["n", 1, 4, 4])
    assert change(model, "node=second,method=quanvolution", RNG.normal(size=(2, 1, 4, 4))) < 1e-6


def test_a_matrix_product_has_no_patches_and_an_open_image_no_windows() -> None:
    with pytest.raises(PassError) as error:
        lowered(linear(np.ones((4, 2))), "node=fc,method=quanvolution")
    assert error.value.why == "a MatMul has no patches"
    assert "orthogonal" in error.value.hint
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    model = graph_model([node], {"w": np.ones((1, 1, 2, 2))}, ["n", 1, "h", 5])
    with pytest.raises(PassError) as error:
        lowered(model, "node=conv,method=quanvolution")
    assert "shape of its input is not known" in error.value.why
    assert "no method can" in error.value.hint


@pytest.mark.parametrize("form", ["circuit", "adds"])
def test_a_product_with_a_hadamard_matrix_is_the_same_with_sign_and_norm(form: str) -> None:
    x = 3 * RNG.normal(size=(4, 8))
    x[1] = 0
    model = linear(HADAMARD / 4, RNG.normal(size=8))
    step = f"node=fc,method=hadamard,form={form}"
    assert change(model, step, x) < 1e-6
    layer = _layer(model, step)
    assert layer.exact
    assert layer.qubits == (4 if form == "circuit" else 0)


def test_a_transform_that_is_only_squared_takes_a_qubit_less() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"], name="fc"),
        helper.make_node("Abs", ["z"], ["y"], name="abs"),
    ]
    model = graph_model(nodes, {"w": HADAMARD}, ["n", 8])
    step = "node=fc,method=hadamard"
    layer = _layer(model, step)
    assert layer.qubits == 3
    assert "squared amplitudes only" in layer.restores
    assert change(model, step, RNG.normal(size=(3, 8))) < 1e-6


def test_frequencies_make_convolutions_over_the_xor_of_places() -> None:
    a, x = RNG.normal(size=(2, 64))
    index = np.arange(64)
    dyadic = np.array([sum(a[j] * x[i ^ j] for j in index) for i in index])
    products = 64 * 64 * walsh(a) * walsh(x)
    assert np.abs(walsh(products) - dyadic).max() <= 1e-12


@pytest.mark.parametrize("form", ["circuit", "adds"])
@pytest.mark.parametrize("data", [True, False])
def test_a_convolution_of_single_pixels_is_exact_between_the_transforms(
    form: str, data: bool
) -> None:
    x = RNG.normal(size=(8, 2, 3, 4))  # padded to 4 x 4
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv")
    arrays = {"w": RNG.normal(size=(3, 2, 1, 1)), "b": RNG.normal(size=3)}
    model = graph_model([node], arrays, ["n", 2, 3, 4])
    step = f"node=conv,method=hadamard,form={form}"
    program, context = lowered(model, step, x if data else None)
    layer = context.need(LoweredLayers, "lower-layer").layers[0]
    assert np.abs(outputs(program, x) - outputs(model, x)).max() < 1e-6
    assert layer.exact
    if form == "circuit":
        assert (layer.qubits, layer.runs) == (5, 2 + 3)
    else:
        assert not program.circuits


def _largest(rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows))


def test_a_convolution_that_is_no_product_of_frequencies_says_how_far_it_is() -> None:
    x = RNG.normal(size=(200, 1, 4, 4))
    model = conv(RNG.normal(size=(2, 1, 3, 3)), 4, pads=[1, 1, 1, 1])
    step = "node=conv,method=hadamard"
    program, context = lowered(model, step, x)
    layer = context.need(LoweredLayers, "lower-layer").layers[0]
    assert not layer.exact
    expected = outputs(model, x)
    error = _largest(outputs(program, x) - expected) / _largest(expected)
    assert f"relative error of its output is {error:.2g}" in context.warnings[0]
    assert 0.01 < error < 1
    blind, _ = lowered(model, step)
    assert error <= _largest(outputs(blind, x) - expected) / _largest(expected)


def test_what_hadamard_cannot_take_says_why_and_what_can() -> None:
    with pytest.raises(PassError) as error:
        lowered(linear(RNG.normal(size=(4, 4))), "node=fc,method=hadamard")
    assert "no Walsh-Hadamard matrix" in error.value.why
    assert "orthogonal, swap-test" in error.value.hint
    with pytest.raises(PassError) as error:
        lowered(conv(np.ones((1, 1, 3, 3)), 5), "node=conv,method=hadamard")
    assert "not of its input's size" in error.value.why
    assert "quanvolution" in error.value.hint
    with pytest.raises(PassError) as error:
        lowered(linear(HADAMARD), "node=fc,method=hadamard,form=fast")
    assert "circuit or adds" in error.value.why


def test_transforms_by_adds_compile_for_a_classical_machine_alone() -> None:
    model = conv(RNG.normal(size=(2, 1, 1, 1)), 4)
    x = RNG.normal(size=(8, 1, 4, 4)).astype(np.float32)
    artifact = qcomp.compile(
        model,
        target="cpu-int8",
        calibration={"x": x},
        lower=["conv=hadamard{form=adds}"],
        pipeline="canonicalise",
        effort="fast",
    )
    assert np.abs(artifact.run({"x": x})["y"] - outputs(model, x)).max() < 1e-5


def test_padding_makes_no_signs() -> None:
    nodes = [
        helper.make_node("Sign", ["x"], ["s"], name="sign"),
        helper.make_node("Conv", ["s", "w"], ["y"], name="conv", pads=[1, 1, 1, 1]),
    ]
    model = graph_model(nodes, {"w": np.ones((1, 1, 3, 3))}, ["n", 1, 4, 4])
    with pytest.raises(PassError) as error:
        lowered(model, "node=conv,method=hypergraph")
    assert "padding is zeros" in error.value.why
