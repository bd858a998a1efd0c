"""Small ONNX models for the lowering of layers, and what their lowered forms give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import qcomp
from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline

Array = NDArray[np.float64]


def graph_model(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, NDArray[np.generic]],
    input_shape: Sequence[int | str],
) -> onnx.ModelProto:
    """Return a model of nodes from ``x`` to ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(input_shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(w, np.float32), n) for n, w in weights.items()],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def linear(weight: Array, bias: Array | None = None) -> onnx.ModelProto:
    """Return a model of one Gemm ``fc``, a MatMul without bias."""
    shape = ["n", weight.shape[0]]
    if bias is None:
        product = helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")
        return graph_model([product], {"w": weight}, shape)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="fc")
    return graph_model([node], {"w": weight, "b": bias}, shape)


def conv(weight: Array, size: int, **attributes: object) -> onnx.ModelProto:
    """Return a model of one Conv ``conv`` on images of size x size."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)
    return graph_model([node], {"w": weight}, ["n", weight.shape[1], size, size])


def mlp(weights: Sequence[Array], biases: Sequence[Array]) -> onnx.ModelProto:
    """Return Gemm layers ``fc1``, ``fc2`` ... with Relu between them."""
    nodes, arrays, value = [], {}, "x"
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True), 1):
        arrays |= {f"w{i}": weight, f"b{i}": bias}
        out = "y" if i == len(weights) else f"h{i}"
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [out], name=f"fc{i}"))
        value = out
        if out != "y":
            nodes.append(helper.make_node("Relu", [out], [f"r{i}"], name=f"relu{i}"))
            value = f"r{i}"
    return graph_model(nodes, arrays, ["n", weights[0].shape[0]])


def lowered(
    model: onnx.ModelProto, step: str, data: Array | None = None
) -> tuple[Program, Context]:
    """Return the program after ``lower-layer{step}``, and the context of that."""
    program = qcomp.read(model).copy()
    context = Context()
    if data is not None:
        rows = np.asarray(data, np.float32)
        context.calibration = lambda: iter([{"x": rows}])
    Pipeline.parse(f"lower-layer{{{step}}}").run(program, context)
    return program, context


def outputs(program: Program | onnx.ModelProto, x: Array) -> Array:
    """Run a program, circuits exactly simulated."""
    read = program if isinstance(program, Program) else qcomp.read(program)
    found = HybridSession(read).run({"x": np.asarray(x, np.float32)}, shots=0)
    return np.asarray(found["y"], np.float64)


def change(model: onnx.ModelProto, step: str, x: Array) -> float:
    """Return the largest change of the output, relative to max(1, |output|)."""
    expected = outputs(model, x)
    program, _ = lowered(model, step, x)
    got = outputs(program, x)
    assert got.shape == expected.shape
    return float((np.abs(got - expected) / np.maximum(1.0, np.abs(expected))).max())
