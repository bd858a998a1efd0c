"""Orthogonal layers: pyramids of RBS gates on unary states."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from qcomp.constructions.unary import (
    givens_of,
    rbs,
    unary_angles,
    unary_loader,
    unary_matrix,
)
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.lowered import LoweredLayers
from qcomp.simulate import statevector, unitary
from tests.lower.layer_models import change, graph_model, linear, lowered, outputs

RNG = np.random.default_rng(7)


def test_an_rbs_gate_is_its_defining_matrix_and_costs_two_two_qubit_gates() -> None:
    circuit = Circuit(2)
    rbs(circuit, 0.7, 0, 1)
    c, s = np.cos(0.7), np.sin(0.7)
    expected = np.eye(4)
    expected[1, 1], expected[2, 1], expected[1, 2], expected[2, 2] = c, s, -s, c
    assert np.abs(unitary(circuit) - expected).max() < 1e-12
    assert circuit.stats().two_qubit == 2


@pytest.mark.parametrize("size", [2, 3, 6])
def test_a_pyramid_is_the_orthogonal_matrix_it_was_made_of(size: int) -> None:
    matrix = np.linalg.qr(np.random.default_rng(size).normal(size=(size, size)))[0]
    pyramid = givens_of(matrix)
    forth, back = Circuit(size), Circuit(size)
    pyramid.append(forth, range(size))
    pyramid.append_inverse(back, range(size))
    turned = unary_matrix(unitary(forth), range(size))
    assert np.abs(turned - pyramid.signs[:, None] * matrix.T).max() < 1e-9
    assert np.abs(unary_matrix(unitary(back), range(size)) - matrix * pyramid.signs).max() < 1e-9
    assert len(pyramid.rows) == size * (size - 1) // 2


def test_a_pyramid_has_2_n_minus_3_layers_of_rotations() -> None:
    matrix = np.linalg.qr(np.random.default_rng(3).normal(size=(7, 7)))[0]
    circuit = Circuit(7)
    givens_of(matrix).append(circuit, range(7))
    assert circuit.stats().two_qubit_depth == 2 * (2 * 7 - 3)


def test_a_loader_makes_the_vector_with_its_signs() -> None:
    vector = np.array([0.5, -1.0, 0.0, 2.0, -0.3])
    circuit = Circuit(5)
    circuit.x(0)
    unary_loader(circuit, unary_angles(vector).tolist(), range(5))
    state = np.asarray(statevector(circuit)).reshape(-1)[[1 << i for i in range(5)]]
    assert np.abs(state - vector / np.linalg.norm(vector)).max() < 1e-9


def test_columns_that_are_not_orthonormal_are_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match="not orthonormal") as error:
        givens_of(np.array([[1.0, 1.0], [0.0, 1.0]]))
    assert "singular value" in error.value.hint


@pytest.mark.parametrize("shape", [(4, 4), (5, 2), (1, 3), (6, 1)])
def test_a_matrix_product_is_the_same_to_1e_6(shape: tuple[int, int]) -> None:
    x = RNG.normal(size=(4, shape[0]))
    x[1] = 0
    model = linear(RNG.normal(size=shape), RNG.normal(size=shape[1]))
    assert change(model, "node=fc,method=orthogonal", x) < 1e-6


def test_blocks_of_a_wide_matrix_are_rows_of_the_same_two_circuits() -> None:
    x = RNG.normal(size=(3, 21))
    model = linear(RNG.normal(size=(21, 5)))
    assert change(model, "node=fc,method=orthogonal,block=4", x) < 1e-6
    program, context = lowered(model, "node=fc,method=orthogonal,block=4")
    layer = context.need(LoweredLayers, "lower-layer").layers[0]
    assert len(program.circuits) == 2
    assert layer.runs == 2 * 6 * 2
    assert layer.qubits == 5


def test_leading_axes_of_the_input_stay() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")
    model = graph_model([node], {"w": RNG.normal(size=(4, 3))}, ["n", 2, 4])
    x = RNG.normal(size=(3, 2, 4))
    program, _ = lowered(model, "node=fc,method=orthogonal")
    assert np.abs(outputs(program, x) - outputs(model, x)).max() < 1e-6


def test_the_cost_is_said_before_a_run() -> None:
    n, m = 4, 3
    _, context = lowered(linear(RNG.normal(size=(n, m))), "node=fc,method=orthogonal")
    layer = context.need(LoweredLayers, "lower-layer").layers[0]
    rank = min(n, m)
    first = 1 + (n - 1) + rank * (2 * n - rank - 1) // 2
    second = 1 + (rank - 1) + rank * (2 * m - rank - 1) // 2
    assert layer.two_qubit == 2 * (first + second)
    assert layer.qubits == n + 1
    assert layer.settings == 4
    assert "sign by a reference mode" in context.warnings[0]
