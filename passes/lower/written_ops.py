"""The operations of encodings' maps as ONNX operators in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.graph.rewriting import Editor

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.constructions.encodings import Ops

__all__ = ["WRITTEN", "Place", "Written"]

_FLOAT, _BOOL, _DOUBLE = 1, 9, 11
"""ONNX's numbers of types."""

Number = float | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Place:
    """Where operators are written: before a node, their names beginning alike."""

    editor: Editor
    before: ir.Node
    name: str

    def constant(self, content: object, dtype: type[np.generic] = np.float64) -> ir.Value:
        """Return a constant."""
        return self.editor.initializer(f"{self.name}/constant", np.asarray(content, dtype=dtype))

    def double(self, value: ir.Value) -> Written:
        """Return a value in float64."""
        import onnx_ir as ir

        found = Written(self, value)
        return found if value.dtype == ir.DataType.DOUBLE else found.op("Cast", to=_DOUBLE)


class Written:
    """A value of a graph that arithmetic is written down for."""

    def __init__(self, place: Place, value: ir.Value) -> None:
        self.place = place
        self.value = value

    def op(self, op_type: str, *more: Written | Number | ir.Value, **attributes: int) -> Written:
        """Return an operator of this value and others."""
        import onnx_ir as ir

        operands = [self._operand(other) for other in more]
        label = f"{self.place.name}/{op_type.lower()}"
        editor, before = self.place.editor, self.place.before
        inputs = [self.value, *operands]
        made = editor.node(op_type, inputs, attributes, name=label, before=before)
        out = made.outputs[0]
        kind = {"Greater": _BOOL, "Atan": _FLOAT}.get(op_type, attributes.get("to", _DOUBLE))
        out.type = ir.TensorType(ir.DataType(kind))
        return Written(self.place, out)

    def _operand(self, other: Written | Number | ir.Value) -> ir.Value:
        if isinstance(other, Written):
            return other.value
        if isinstance(other, (int, float, np.ndarray)):
            return self.place.constant(other)
        return other

    def __add__(self, other: Written | Number) -> Written:
        """Write a sum."""
        return self.op("Add", other)

    def __sub__(self, other: Written | Number) -> Written:
        """Write a difference."""
        return self.op("Sub", other)

    def __mul__(self, other: Written | Number) -> Written:
        """Write a product."""
        return self.op("Mul", other)

    def __truediv__(self, other: Written | Number) -> Written:
        """Write a quotient."""
        return self.op("Div", other)

    def __rsub__(self, other: Number) -> Written:
        """Write a difference from a number."""
        return self.op("Mul", -1.0).op("Add", other)

    __radd__, __rmul__ = __add__, __mul__


class _Written:
    """:class:`~qcomp.constructions.encodings.base.Ops` on :class:`Written`."""

    def columns(self, x: Any, index: Sequence[int]) -> Any:  # noqa: ANN401
        return x.op("Gather", x.place.constant(list(index), np.int64), axis=-1)

    def joined(self, parts: Sequence[Any]) -> Any:  # noqa: ANN401
        first, *rest = parts
        return first.op("Concat", *rest, axis=-1) if rest else first

    def matmul(self, x: Any, matrix: NDArray[np.float64]) -> Any:  # noqa: ANN401
        return x.op("MatMul", matrix)

    def constant(self, values: NDArray[np.float64]) -> Any:  # noqa: ANN401
        return values

    def positive(self, x: Any, then: Any, other: Any) -> Any:  # noqa: ANN401
        above = x.op("Greater", 0.0)
        return above.op("Where", then, other)

    def sqrt(self, x: Any) -> Any:  # noqa: ANN401
        return x.op("Sqrt")

    def atan(self, x: Any) -> Any:  # noqa: ANN401
        """``t + e - e^3 / 3``, t in float32 and ``e = (x cos t - sin t) / (cos t + x sin t)``.

        ONNX Runtime has the arc tangent in float32 only; this is exact to float64.
        """
        short = x.op("Cast", to=_FLOAT).op("Atan").op("Cast", to=_DOUBLE)
        cos, sin = short.op("Cos"), short.op("Sin")
        rest = (x * cos - sin) / (cos + x * sin)
        return short + rest - rest * rest * rest / 3.0

    def exp(self, x: Any) -> Any:  # noqa: ANN401
        return x.op("Exp")

    def floor(self, x: Any) -> Any:  # noqa: ANN401
        return x.op("Floor")

    def largest(self, x: Any) -> Any:  # noqa: ANN401
        return x.op("ReduceMax", x.place.constant([-1], np.int64), keepdims=1)


WRITTEN: Ops = _Written()
"""The operations, written before the node of the values' place."""
