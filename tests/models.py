"""Small models that the tests share, made anew for each call. Weights depend on the seed alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper, parser

from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.program import DOMAIN, Program, Readout, make_circuit_node

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def from_text(text: str, **weights: object) -> onnx.ModelProto:
    """Parse ONNX's text form and add initializers, given as arrays by name."""
    model = parser.parse_model(text)
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(model)
    return model


def mlp(widths: Sequence[int] = (8, 16, 4), seed: int = 0) -> onnx.ModelProto:
    """Gemm, Relu, ... Gemm on ``x`` float32[batch, widths[0]] -> ``y``."""
    rng = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    lines, value = [], "x"
    last = len(widths) - 2
    for index, (K, N) in enumerate(itertools.pairwise(widths)):
        weights[f"w{index}"] = (rng.standard_normal((N, K)) / np.sqrt(K)).astype(np.float32)
        weights[f"b{index}"] = rng.standard_normal(N).astype(np.float32)
        out = "y" if index == last else f"h{index}"
        lines.append(f"{out} = Gemm <transB: int = 1> ({value}, w{index}, b{index})")
        value = out
        if index != last:
            lines.append(f"r{index} = Relu ({out})")
            value = f"r{index}"
    return from_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        mlp (float[batch, {widths[0]}] x) => (float[batch, {widths[-1]}] y) {{
        {chr(10).join(lines)}
        }}""",
        **weights,
    )


def small_cnn(seed: int = 0) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, strided Conv, Relu, pool, Gemm on float32[batch, 3, 8, 8]."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    return from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        cnn (float[batch, 3, 8, 8] x) => (float[batch, 5] y) {
            c0 = Conv <pads: ints = [1, 1, 1, 1]> (x, w0, b0)
            n0 = BatchNormalization (c0, gamma, beta, mean, var)
            r0 = Relu (n0)
            c1 = Conv <strides: ints = [2, 2]> (r0, w1)
            r1 = Relu (c1)
            p = GlobalAveragePool (r1)
            f = Flatten (p)
            y = Gemm <transB: int = 1> (f, w2, b2)
        }""",
        w0=normal(6, 3, 3, 3),
        b0=normal(6),
        gamma=1 + normal(6),
        beta=normal(6),
        mean=normal(6),
        var=np.abs(normal(6)) + np.float32(0.5),
        w1=normal(8, 6, 3, 3),
        w2=normal(5, 8),
        b2=normal(5),
    )


def with_if(seed: int = 0) -> onnx.ModelProto:
    """An If whose branches read a value and a weight from around them."""
    rng = np.random.default_rng(seed)
    return from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        branch (float[4] x, bool c) => (float[4] y) {
            h = Mul (x, w)
            y = If (c) <
                then_branch = yes () => (float[4] t) { t = Add (h, w) },
                else_branch = no () => (float[4] e) { i = Identity (h)  e = Sub (i, w) }
            >
        }""",
        w=rng.standard_normal(4).astype(np.float32),
    )


def with_loop(steps: int = 3) -> onnx.ModelProto:
    """A Loop that adds ``x`` to itself ``steps`` times and scans out what it had."""
    return from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        counting (float[4] x) => (float[4] y, float[n, 4] seen) {
            y, seen = Loop (count, go, x) <
                body = once (int64 i, bool g, float[4] s)
                    => (bool more, float[4] next, float[4] old) {
                    more = Identity (g)
                    next = Add (s, x)
                    old = Identity (s)
                }
            >
        }""",
        count=np.asarray(steps, np.int64),
        go=np.asarray(True),
    )


def with_scan() -> onnx.ModelProto:
    """A Scan: running sums of the rows of ``x``."""
    return from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        running (float[5, 3] x) => (float[3] total, float[5, 3] sums) {
            total, sums = Scan <num_scan_inputs: int = 1, body = add
                (float[3] s, float[3] row) => (float[3] next, float[3] out) {
                    next = Add (s, row)
                    out = Identity (next)
                }
            > (zero, x)
        }""",
        zero=np.zeros(3, np.float32),
    )


def with_function() -> onnx.ModelProto:
    """A model-local function, called twice, that calls another."""
    return from_text(
        """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        calls (float[4] x) => (float[4] y) {
            h = local.outer <k: float = 2.0> (x)
            y = local.outer <k: float = 0.5> (h)
        }
        <domain: "local", opset_import: ["" : 21, "local" : 1]>
        outer <k> (a) => (b) {
            c = Constant <value_float: float = @k> ()
            d = Mul (a, c)
            b = local.inner (d)
        }
        <domain: "local", opset_import: ["" : 21]>
        inner (a) => (b) { b = Tanh (a) }
        """
    )


def with_custom_domain() -> onnx.ModelProto:
    """An operator that nobody knows, with attributes of many kinds."""
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21, "acme.ops" : 7]>
        custom (float[4] x) => (float[4] y) {
            h = Relu (x)
            g, unused = acme.ops.Whirl <speed: float = 1.5, names: strings = ["a", "b"],
                size: int = 3, table: tensor = float[2] {1.0, 2.0}> (h, , x)
            y = Neg (g)
        }"""
    )
    return model


def small_circuit(name: str = "layer", qubits: int = 2) -> Circuit:
    """Rotations, one parameter a qubit, and a chain of CX."""
    circuit = Circuit(qubits, params=tuple(f"t{q}" for q in range(qubits)), name=name)
    from qcomp.ir.angle import Parameter

    for qubit in range(qubits):
        circuit.h(qubit)
        circuit.ry(Parameter(f"t{qubit}"), qubit)
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
    return circuit


def hybrid(depth: int = 1, seed: int = 0) -> Program:
    """Gemm, circuit, Gemm ... with ``depth`` circuits one after the other, and a way around.

    Input ``x`` float32[batch, 4]; output ``y`` float32[batch, 3] is the last layer plus a product
    of ``x`` with a weight, which only the end needs.
    """
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> ir.Value:
        array = (rng.standard_normal(shape) * 0.5).astype(np.float32)
        return ir.val(name, const_value=ir.Tensor(array, name=name))

    def gemm(value: ir.Value, name: str, K: int, N: int) -> ir.Value:
        w, b = weight(f"{name}_w", K, N), weight(f"{name}_b", N)
        stored.extend((w, b))
        node = ir.node("Gemm", [value, w, b], name=name)
        node.outputs[0].name = f"{name}_out"
        nodes.append(node)
        return node.outputs[0]

    x = ir.val("x", ir.DataType.FLOAT, ["batch", 4])
    nodes: list[ir.Node] = []
    stored: list[ir.Value] = []
    circuits: dict[str, Circuit] = {}
    around = weight("around_w", 4, 3)
    stored.append(around)
    side = ir.node("MatMul", [x, around], name="around")
    side.outputs[0].name = "around_out"
    nodes.append(side)
    value, width = x, 4
    readout = Readout("expval", (Observable.parse("Z0"), Observable.parse("Z0*Z1")))
    for index in range(depth):
        angles = gemm(value, f"encode{index}", width, 2)
        name = f"layer{index}"
        circuits[name] = small_circuit(name)
        output = ir.val(f"measured{index}", ir.DataType.FLOAT, ["batch", 2])
        nodes.append(make_circuit_node(name, readout, [angles], f"quantum{index}", output))
        value, width = output, 2
    head = gemm(value, "head", width, 3)
    add = ir.node("Add", [head, side.outputs[0]], name="sum")
    y = add.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", 3])
    nodes.append(add)
    graph = ir.Graph(
        [x],
        [y],
        nodes=nodes,
        initializers=stored,
        opset_imports={"": 21, DOMAIN: 1},
        name="hybrid",
    )
    return Program(ir.Model(graph, ir_version=10), circuits)
