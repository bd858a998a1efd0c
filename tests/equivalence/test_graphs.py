"""Graphs are compared by running both."""

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.equivalence import check
from qcomp.equivalence.graphs import compare, random_inputs
from qcomp.ir.program import Program
from tests.generators import GRAPHS
from tests.models import from_text, hybrid, mlp


@pytest.mark.parametrize("kind", GRAPHS)
def test_graph_equals_itself(kind: str) -> None:
    verdict = check(GRAPHS[kind](3), GRAPHS[kind](3))
    assert verdict.equal is True
    assert verdict.error == 0.0
    assert "random inputs" in verdict.how


def test_other_weights_are_seen_with_their_error() -> None:
    verdict = check(Program(ir.from_proto(mlp(seed=0))), Program(ir.from_proto(mlp(seed=1))))
    assert verdict.equal is False
    assert verdict.error > 0.01
    assert verdict.detail["y"]["sqnr_db"] < 20


def test_changed_circuit_of_a_hybrid_program_is_seen() -> None:
    first, second = hybrid(), hybrid()
    second.circuits["layer0"] = second.circuits["layer0"].copy().rx(0.1, 0)
    assert check(first, hybrid()).equal is True
    assert check(first, second).equal is False


def test_inputs_that_are_given_are_used() -> None:
    # Equal on positive numbers alone.
    relu = from_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[3] x) => (float[3] y) { y = Relu (x) }'
    )
    same = from_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[3] x) => (float[3] y) { y = Abs (x) }'
    )
    a, b = Program(ir.from_proto(relu)), Program(ir.from_proto(same))
    given = check(a, b, inputs={"x": np.array([1, 2, 3], np.float32)})
    assert given.equal is True
    assert "given inputs" in given.how
    assert check(a, b).equal is False


def test_graphs_of_other_outputs_differ() -> None:
    first = from_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[3] x) => (float[3] y) { y = Relu (x) }'
    )
    second = from_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[3] x) => (float[3] z) { z = Relu (x) }'
    )
    verdict = check(Program(ir.from_proto(first)), Program(ir.from_proto(second)))
    assert verdict.equal is False
    assert "inputs and outputs" in verdict.how


def test_comparison_of_arrays_table() -> None:
    x = np.array([1.0, -2.0, 0.5], np.float32)
    assert compare(x, x) == (0.0, True, float("inf"))
    difference, same, sqnr = compare(x, x + np.float32(1e-5))
    assert same
    assert difference == pytest.approx(1e-5, rel=0.05)
    assert sqnr > 90
    assert not compare(x, x * np.float32(1.01))[1]
    assert not compare(x, x.astype(np.float64))[1]
    assert not compare(x, x[:2])[1]
    assert compare(np.array([np.nan, 1]), np.array([np.nan, 1]))[1]
    assert not compare(np.array([np.nan, 1]), np.array([1, np.nan]))[1]
    assert not compare(np.array([1, 2]), np.array([1, 3]))[1]
    assert compare([x, x], [x, x])[1]
    assert not compare([x, x], [x])[1]


def test_random_inputs_have_the_types_and_shapes_of_the_graph() -> None:
    feeds = random_inputs(GRAPHS["if"](0))
    assert feeds["x"].dtype == np.float32
    assert feeds["x"].shape == (4,)
    assert feeds["c"].dtype == np.bool_
