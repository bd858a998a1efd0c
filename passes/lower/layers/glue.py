"""The classical half of a lowered layer: ONNX operators in float64 around Circuit nodes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.circuit import Circuit
from qcomp.ir.program import CIRCUIT_OP, DOMAIN, Program, Readout, make_circuit_node
from qcomp.passes.graph.rewriting import AttributeValue, Editor

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passmanager import Context

_DATA_ROWS = 256
"""Rows of data that a method may fit to."""

__all__ = ["Glue"]


class Glue:
    """Writes operators before a node; what it makes are values.

    Args:
        program: The program that the node is in; it gets the circuits.
        node: The node whose place is taken.
        name: What names of operators begin with.
        context: Knows data and the seed.
    """

    def __init__(self, program: Program, node: ir.Node, name: str, context: Context) -> None:
        assert node.graph is not None
        self.program = program
        self.node = node
        self.name = name
        self.context = context
        self.editor = Editor(program.model, node.graph)
        self.circuits: list[str] = []

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, AttributeValue] | None = None,
    ) -> ir.Value:
        """Write an operator with one output and return that."""
        label = f"{self.name}/{op_type.lower()}"
        made = self.editor.node(op_type, inputs, attributes, name=label, before=self.node)
        out = made.outputs[0]
        first = next((value for value in inputs if value is not None), None)
        if op_type == "Cast":
            out.type = _tensor_type(int((attributes or {})["to"]))  # type: ignore[arg-type]
        elif op_type in ("Less", "Greater"):
            out.type = _tensor_type(9)
        elif op_type == "Where":
            out.type = None if inputs[1] is None else inputs[1].type
        elif op_type == "Shape":
            out.type = _tensor_type(7)
        elif first is not None:
            out.type = first.type
        return out

    def constant(self, content: object, dtype: type[np.generic] = np.float64) -> ir.Value:
        """Return a constant."""
        return self.editor.initializer(f"{self.name}/constant", np.asarray(content, dtype=dtype))

    def double(self, value: ir.Value) -> ir.Value:
        """Return a value in float64."""
        import onnx_ir as ir

        if value.dtype == ir.DataType.DOUBLE:
            return value
        return self.op("Cast", [value], {"to": int(ir.DataType.DOUBLE)})

    def like(self, value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
        """Return a value in a type; float32 where that is not known."""
        import onnx_ir as ir

        wanted = ir.DataType.FLOAT if dtype is None else dtype
        return value if value.dtype == wanted else self.op("Cast", [value], {"to": int(wanted)})

    def add(self, a: ir.Value, b: ir.Value | float) -> ir.Value:
        """Return ``a + b``."""
        return self.op("Add", [a, b if not isinstance(b, (int, float)) else self.constant(b)])

    def sub(self, a: ir.Value, b: ir.Value | float) -> ir.Value:
        """Return ``a - b``."""
        return self.op("Sub", [a, b if not isinstance(b, (int, float)) else self.constant(b)])

    def mul(self, a: ir.Value, b: ir.Value | float) -> ir.Value:
        """Return ``a * b``."""
        return self.op("Mul", [a, b if not isinstance(b, (int, float)) else self.constant(b)])

    def matmul(self, a: ir.Value, matrix: NDArray[np.float64]) -> ir.Value:
        """Return ``a @ matrix``."""
        return self.op("MatMul", [a, self.constant(matrix)])

    def root(self, value: ir.Value) -> ir.Value:
        """Return the square root; of a negative number, which only rounding makes, 0."""
        return self.op("Sqrt", [self.op("Max", [value, self.constant(0.0)])])

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Return a value in another shape; -1 is what is left, 0 an axis as it is."""
        return self.op("Reshape", [value, self.constant(shape, np.int64)])

    def angle(self, sine: ir.Value, cosine: ir.Value) -> ir.Value:
        """Return ``atan2(sine, cosine)`` in float64; 0 where both are 0.

        ONNX Runtime has the arcus tangent in float32 only: its angle t0 is refined by
        ``t = t0 + d + d^3 / 6``, ``d = sin(t - t0)``, which is exact to float64.
        """
        import onnx_ir as ir

        square = self.add(self.mul(sine, sine), self.mul(cosine, cosine))
        radius = self.op("Sqrt", [square])
        safe = self.op("Where", [self.op("Greater", [radius, self.constant(0.0)]), radius,
                                 self.constant(1.0)])  # fmt: skip
        s, c = self.op("Div", [sine, safe]), self.op("Div", [cosine, safe])
        ratio = self.op("Div", [self.op("Abs", [s]), self.add(self.op("Abs", [c]), 1.0)])
        # No NaN: a radius of 0 gives 0 / (0 + 1).
        short = self.op("Cast", [ratio], {"to": int(ir.DataType.FLOAT)})
        half = self.op("Cast", [self.op("Atan", [short])], {"to": int(ir.DataType.DOUBLE)})
        t = self.mul(half, 2.0)
        zero = self.constant(0.0)
        back = self.op("Sub", [self.constant(np.pi), t])
        t = self.op("Where", [self.op("Less", [c, zero]), back, t])
        t = self.op("Where", [self.op("Less", [s, zero]), self.op("Neg", [t]), t])
        d = self.sub(self.mul(s, self.op("Cos", [t])), self.mul(c, self.op("Sin", [t])))
        cube = self.mul(self.mul(d, self.mul(d, d)), 1.0 / 6.0)
        return self.add(t, self.add(d, cube))

    def norm(self, value: ir.Value) -> ir.Value:
        """Return the norm of the last axis, which stays with size 1."""
        axes = self.constant([-1], np.int64)
        total = self.op("ReduceSum", [self.mul(value, value), axes], {"keepdims": 1})
        return self.op("Sqrt", [total])

    def data(self, value: ir.Value) -> NDArray[np.float64] | None:
        """Return what a value is on the first rows of the calibration data; None without such."""
        if self.context.calibration is None:
            return None
        from qcomp.execute import HybridSession
        from qcomp.passes.calibrate.batches import checked_batches

        name, found, rows = value.name or "", [], 0
        session = HybridSession(self.program.copy(), taps=[name], only_taps=True)
        for feeds in checked_batches(self.program.model, self.context.calibration()):
            part = np.asarray(session.run(feeds, shots=0)[name], np.float64)
            found.append(part)
            rows += len(part)
            if rows >= _DATA_ROWS:
                break
        return np.concatenate(found)[:_DATA_ROWS]

    def label(self, what: str) -> str:
        """Return a name for a circuit of the layer."""
        words = re.sub(r"\W+", "_", self.name).strip("_")
        return f"{words or 'layer'}_{what}"

    def circuit(self, circuit: Circuit, readout: Readout, inputs: Sequence[ir.Value]) -> ir.Value:
        """Write a Circuit node and return what is read out, float64."""
        base = circuit.name
        count = 1
        while circuit.name in self.program.circuits:
            count += 1
            circuit.name = f"{base}_{count}"
        self.program.circuits[circuit.name] = circuit
        self.circuits.append(circuit.name)
        node = make_circuit_node(circuit.name, readout, list(inputs))
        node.name = self.editor.fresh(f"{self.name}/{CIRCUIT_OP.lower()}")
        node.outputs[0].name = self.editor.fresh(f"{node.name}_output")
        self.editor.use_domain(DOMAIN, 1)
        self.editor.graph.insert_before(self.node, node)
        out: ir.Value = node.outputs[0]
        return out

    def flat(self, value: ir.Value, width: int) -> ir.Value:
        """Return [..., width] as [rows, width]."""
        return self.reshape(value, [-1, width])

    def unflat(self, value: ir.Value, original: ir.Value, width: int) -> ir.Value:
        """Return [rows, width] with the leading axes of another value."""
        rank = None if original.shape is None else len(original.shape)
        if rank == 2:
            return value
        shape = self.op("Shape", [original], {"start": 0, "end": -1})
        last = self.constant([width], np.int64)
        return self.op("Reshape", [value, self.op("Concat", [shape, last], {"axis": 0})])


def _tensor_type(number: int) -> ir.TensorType:
    import onnx_ir as ir

    return ir.TensorType(ir.DataType(number))
