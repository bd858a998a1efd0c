"""What is the same in every run is evaluated once, and never makes the file much larger."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.passes.graph import fold_constants
from qcomp.passes.graph.canonicalise import Canonicalise
from qcomp.passes.graph.fold_constants import FoldConstants
from qcomp.passmanager import Context
from tests.passes.graph_helpers import X, apply, ops, program_of

STEP = FoldConstants()

FOLDED = [
    (
        "arithmetic of constants",
        """a = Constant <value_float: float = 2.0> () b = Constant <value_float: float = 3.0> ()
        c = Mul (a, b) d = Exp (c) y = Add (x, d)""",
        ["Add"],
    ),
    (
        "a static shape",
        "s = Shape (x) c = Cast <to: int = 1> (s) y = Concat <axis: int = 0> (c, c)",
        1,
    ),
    (
        "a part of a static shape",
        "s = Shape <start: int = -1> (x) c = Cast <to: int = 1> (s) y = Mul (x, c)",
        ["Mul"],
    ),
    (
        "several outputs",
        """a = Constant <value_floats: floats = [1.0, 2.0]> ()
        b, c = Split <num_outputs: int = 2> (a) d = Add (x, b) y = Mul (d, c)""",
        ["Add", "Mul"],
    ),
    (
        "what depends on the data",
        """a = Constant <value_floats: floats = [0.0, 2.0, 3.0]> () i = NonZero (a)
        f = Cast <to: int = 1> (i) t = ReduceSum <keepdims: int = 0> (f) y = Add (x, t)""",
        ["Add"],
    ),
]
KEPT = [
    ("what depends on an input", "a = Neg (x) y = Abs (a)"),
    ("random numbers", "a = RandomNormal <shape: ints = [2, 3]> () y = Add (x, a)"),
    (
        "random numbers like a constant",
        "a = Constant <value_float: float = 2.0> () b = RandomUniformLike (a) y = Add (x, b)",
    ),
    ("an output", "a = Constant <value_float: float = 2.0> () y = Neg (a)"),
    (
        "dequantized weights",
        """q = Constant <value: tensor = int8[2] {1, 2}> ()
        s = Constant <value_float: float = 0.5> () w = DequantizeLinear (q, s)
        v = ReduceSum <keepdims: int = 0> (w) y = Add (x, v)""",
    ),
    (
        "what would blow the file up",
        """n = Constant <value_ints: ints = [1000, 1000]> () c = ConstantOfShape (n)
        t = ReduceMax <keepdims: int = 0> (c) y = Add (x, t)""",
    ),
    (
        "what would take all memory",
        """n = Constant <value_ints: ints = [1099511627776, 1048576]> () c = ConstantOfShape (n)
        t = ReduceMax <keepdims: int = 0> (c) y = Add (x, t)""",
    ),
]


@pytest.mark.parametrize(("name", "body", "left"), FOLDED, ids=[case[0] for case in FOLDED])
def test_constants_are_folded(name: str, body: str, left: list[str] | int) -> None:
    program = program_of(body)
    Canonicalise().run(program, Context())
    assert apply(STEP, program, X)
    assert len(ops(program)) == left if isinstance(left, int) else ops(program) == left


@pytest.mark.parametrize(("name", "body"), KEPT, ids=[case[0] for case in KEPT])
def test_the_rest_stays(name: str, body: str) -> None:
    program = program_of(body)
    Canonicalise().run(program, Context())
    before = ops(program)
    assert not apply(STEP, program)
    assert ops(program) == before


def weighted(weight: ir.TensorProtocol, body: str) -> object:
    shape = ", ".join(str(dim) for dim in weight.shape.numpy())
    program = program_of(body, signature=f"float[2, 64] x, float[{shape}] w")
    graph = program.model.graph
    value = graph.inputs.pop(1)
    value.const_value = weight
    graph.register_initializer(value)
    return program


TRANSPOSED = "t = Transpose (w) y = MatMul (x, t)"


def test_a_weight_is_transposed_once_and_the_old_one_goes() -> None:
    array = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
    program = weighted(ir.Tensor(array, name="w"), TRANSPOSED)
    assert apply(STEP, program, {"x": np.ones((2, 64), np.float32)})
    assert ops(program) == ["MatMul"]
    (value,) = program.model.graph.initializers.values()
    np.testing.assert_array_equal(value.const_value.numpy(), array.T)


def test_a_weight_that_something_else_needs_is_not_stored_twice() -> None:
    array = np.ones((200, 64), np.float32)
    program = weighted(ir.Tensor(array, name="w"), TRANSPOSED + " z = Neg (w)")
    program.model.graph.outputs.append(program.model.graph.node(2).outputs[0])
    assert not STEP.run(program, Context())


def test_a_large_weight_is_transposed_when_the_model_is_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fold_constants, "_LAZY_FROM", 1000)
    reads: list[int] = []
    array = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)

    def load() -> ir.Tensor:
        reads.append(1)
        return ir.Tensor(array, name="w")

    lazy = ir.LazyTensor(load, ir.DataType.FLOAT, ir.Shape([200, 64]), name="w")
    program = weighted(lazy, TRANSPOSED)
    assert STEP.run(program, Context())
    assert reads == []
    (value,) = program.model.graph.initializers.values()
    assert isinstance(value.const_value, ir.LazyTensor)
    np.testing.assert_array_equal(value.const_value.numpy(), array.T)


def test_an_operator_without_a_kernel_stays() -> None:
    body = """a = Constant <value: tensor = int4[2] {1, 2}> () b = Neg (a)
    c = Cast <to: int = 1> (b) s = ReduceSum <keepdims: int = 0> (c) y = Add (x, s)"""
    program = program_of(body)
    Canonicalise().run(program, Context())
    assert not STEP.run(program, Context())
    assert "Neg" in ops(program)
