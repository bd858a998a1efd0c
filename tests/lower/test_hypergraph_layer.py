"""Binary perceptrons by hypergraph states, and layers of them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from qcomp.constructions.hypergraph import (
    algebraic_normal_form,
    binary_perceptron,
    hypergraph,
    sign_diagonal,
    sign_flips,
)
from qcomp.errors import PassError, UsageError
from qcomp.ir.circuit import Circuit
from qcomp.simulate import unitary
from tests.lower.layer_models import change, graph_model, linear, lowered

RNG = np.random.default_rng(5)


def test_the_normal_form_gives_the_signs_back() -> None:
    signs = RNG.choice([-1.0, 1.0], 32)
    index = np.arange(32)
    total = np.zeros(32, dtype=int)
    for mask in algebraic_normal_form(signs):
        total ^= (index & mask) == mask
    assert np.array_equal(1.0 - 2.0 * total, signs)


@pytest.mark.parametrize("size", [2, 4, 8, 16])
def test_each_form_is_the_diagonal_of_the_signs(size: int) -> None:
    signs = np.random.default_rng(size).choice([-1.0, 1.0], size)
    wires = range(size.bit_length() - 1)
    for form in ("hypergraph", "flips", "diagonal", "auto"):
        circuit = Circuit(len(wires))
        sign_diagonal(circuit, signs, wires, form)
        assert np.abs(unitary(circuit) - np.diag(signs)).max() < 1e-9


def test_the_fewer_signs_are_flipped() -> None:
    circuit = Circuit(3)
    sign_flips(circuit, [-1, -1, -1, -1, -1, 1, -1, -1], range(3))
    assert circuit.stats().multi_qubit == 1


def test_a_hypergraph_of_sixteen_signs_has_at_most_the_gates_of_all_subsets() -> None:
    circuit = Circuit(4)
    hypergraph(circuit, RNG.choice([-1.0, 1.0], 16), range(4))
    sizes = [mask.bit_count() for mask in algebraic_normal_form(RNG.choice([-1.0, 1.0], 16))]
    assert all(sizes.count(k) <= most for k, most in ((1, 4), (2, 6), (3, 4), (4, 1)))
    assert circuit.stats().two_qubit <= 6


@pytest.mark.parametrize("bad", [[1, 1, 1], [1, 0.5], [1, np.nan, 1, 1], []])
def test_what_is_no_vector_of_signs_is_refused(bad: list[float]) -> None:
    with pytest.raises(UsageError):
        binary_perceptron(bad, bad)


def _binary(weight: np.ndarray, *, squared: bool = False) -> object:
    nodes = [
        helper.make_node("Sign", ["x"], ["s"], name="sign"),
        helper.make_node("MatMul", ["s", "w"], ["z" if squared else "y"], name="fc"),
    ]
    if squared:
        nodes.append(helper.make_node("Abs", ["z"], ["y"], name="abs"))
    return graph_model(nodes, {"w": weight}, ["n", weight.shape[0]])


@pytest.mark.parametrize("shape", [(4, 3), (6, 2), (1, 1)])
@pytest.mark.parametrize("squared", [False, True])
def test_a_layer_of_signs_is_the_same_to_1e_6(shape: tuple[int, int], squared: bool) -> None:
    weight = np.sign(RNG.normal(size=shape)) * 0.25
    model = _binary(weight, squared=squared)
    assert change(model, "node=fc,method=hypergraph", RNG.normal(size=(5, shape[0]))) < 1e-6


def test_a_layer_of_real_weights_is_refused_with_what_can_take_it() -> None:
    with pytest.raises(PassError, match="cannot take the layer 'fc'") as error:
        lowered(linear(RNG.normal(size=(4, 2))), "node=fc,method=hypergraph")
    assert "its weights are no signs" in error.value.why
    assert "orthogonal" in error.value.hint


def test_a_layer_without_a_sign_before_it_is_refused() -> None:
    with pytest.raises(PassError) as error:
        lowered(linear(np.ones((4, 2))), "node=fc,method=hypergraph")
    assert "its inputs are no signs" in error.value.why
