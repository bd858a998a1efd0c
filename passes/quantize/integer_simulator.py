"""Runs a quantized graph in NumPy with the integer arithmetic of the kernels it fuses into.

The simulator walks a QDQ graph. A DequantizeLinear makes a :class:`_Quantized` (levels, scale, zero
point) and computes nothing; an operator on such values makes a :class:`_Pending`: an integer
result that waits for its scale. A QuantizeLinear then requantizes it as the fused kernel does;
any other consumer gets its float value, as MatMulIntegerToFloat gives it. Everything that is not
quantized is evaluated by ONNX's own reference evaluator. So this is a second, independent account
of what ONNX Runtime must compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import (
    float_attribute,
    int_attribute,
    ints_attribute,
    node_label,
    string_attribute,
)
from qcomp.passes.quantize import integer_reference as reference
from qcomp.passes.quantize.arithmetic import Floats, Integers, dequantize, quantize
from qcomp.passes.quantize.integer_types import INT8_FULL, UINT8

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["IntegerSimulator"]

Array = npt.NDArray[np.generic]
_SLACK = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class _Quantized:
    """A dequantized tensor that still knows its integers."""

    levels: Integers
    scale: npt.NDArray[np.float32]
    zero: npt.NDArray[np.generic]
    axis: int | None

    def real(self) -> Floats:
        return dequantize(self.levels, self.scale, self.zero, self.axis)

    @property
    def per_tensor(self) -> bool:
        return self.scale.size == 1

    @property
    def parts(self) -> tuple[Integers, float, int]:
        """Levels, scale and zero point of a per-tensor quantized tensor."""
        return self.levels, self.scale.reshape(-1)[0], int(self.zero.reshape(-1)[0])


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    """An integer result without a scale yet.

    Attributes:
        to_levels: (scale, zero point) -> u8 levels, as the fused kernel rounds.
        to_real: The float result, as the unfused operator gives it.
        low: Lower bound of the Relu or Clip behind it.
        high: Upper bound.
    """

    to_levels: Callable[[float, int], Integers]
    to_real: Callable[[], Floats]
    low: float = float("-inf")
    high: float = float("inf")

    def real(self) -> Floats:
        return np.clip(self.to_real(), np.float32(self.low), np.float32(self.high))

    def bounded(self, low: float, high: float) -> _Pending:
        return _Pending(self.to_levels, self.to_real, max(self.low, low), min(self.high, high))

    def requantize(self, scale: float, zero: int) -> Integers:
        bottom, top = (UINT8.min - zero) * scale, (UINT8.max - zero) * scale
        slack = _SLACK * max(abs(bottom), abs(top))
        if bottom >= self.low - slack and top <= self.high + slack:
            return self.to_levels(scale, zero)
        return quantize(self.real(), scale, zero, UINT8)


_Value = Array | _Quantized | _Pending


class IntegerSimulator:
    """Executes a quantized model in NumPy.

    Args:
        model: A graph without control flow and functions.
        convolution: The integer convolution, with the signature of ``reference.conv_integer``.
        highest: Where u8 activations saturate: 127 for kernels of 7 bits.

    Raises:
        UsageError: The model has control flow.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        convolution: Callable[..., npt.NDArray[np.int64]] = reference.conv_integer,
        highest: int = UINT8.max,
    ) -> None:
        self._convolution = convolution
        self._highest = highest
        if any(True for _ in model.graph.subgraphs()):
            raise UsageError("the integer simulator does not run control flow")
        self._model = model
        self._constants = {
            value: np.asarray(value.const_value.numpy())
            for value in model.graph.initializers.values()
            if value.const_value is not None
        }
        self._evaluators: dict[ir.Node, Callable[[Mapping[str, Array]], list[Array]]] = {}
        self._operators: dict[str, Callable[[ir.Node, list[_Value | None]], _Value | None]] = {
            "Conv": self._conv,
            "Gemm": self._gemm,
            "MatMul": self._matmul,
            "Add": self._add,
            "Mul": self._mul,
            "Concat": self._concat,
            "GlobalAveragePool": self._global_pool,
            "Sigmoid": self._sigmoid,
            "LeakyRelu": self._leaky_relu,
            "Relu": self._bound,
            "Clip": self._bound,
        }

    def run(
        self, feeds: Mapping[str, Array], watch: tuple[str, ...] = ()
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Run the graph.

        Args:
            feeds: Input name -> array.
            watch: Names of more values to return, e.g. every QuantizeLinear's output.

        Returns:
            Graph outputs and watched values by name.
        """
        graph = self._model.graph
        values: dict[ir.Value, _Value] = dict(self._constants)
        for value in graph.inputs:
            if value.name is not None and value.name in feeds:
                values[value] = np.asarray(feeds[value.name])
        last = {usage: node for node in graph for usage in node.inputs if usage is not None}
        keep = set(graph.outputs) | set(self._constants)
        results: dict[str, Array] = {}
        for node in graph:
            inputs = [None if value is None else values[value] for value in node.inputs]
            for value, result in zip(node.outputs, self._node(node, inputs), strict=False):
                values[value] = result
                if value.name in watch:
                    results[value.name or ""] = _real(result)
            for used in node.inputs:
                if used is not None and last[used] is node and used not in keep:
                    values.pop(used, None)
        for value in graph.outputs:
            results[value.name or ""] = _real(values[value])
        return results

    def _node(self, node: ir.Node, inputs: list[_Value | None]) -> list[_Value]:
        if node.domain == "" and node.op_type == "QuantizeLinear":
            return [self._quantize(node, inputs)]
        if node.domain == "" and node.op_type == "DequantizeLinear":
            return [self._dequantize(node, inputs)]
        if node.domain == "" and node.op_type in self._operators:
            result = self._operators[node.op_type](node, inputs)
            if result is not None:
                return [result]
        if node.op_type == "Cast" and self._narrow(inputs[0]):
            return [_array(inputs[0]).astype(np.int8)]
        if node.domain == "com.microsoft" and node.op_type == "MatMulNBits":
            return [self._matmul_nbits(node, inputs)]
        return list(self._evaluate(node, [None if v is None else _real(v) for v in inputs]))

    @staticmethod
    def _narrow(value: _Value | None) -> bool:
        """Whether an array has a 4-bit element type, which NumPy itself does not know."""
        return isinstance(value, np.ndarray) and value.dtype.name in ("int4", "uint4")

    def _quantize(self, node: ir.Node, inputs: list[_Value | None]) -> Array:
        x, scale, zero = inputs[0], _array(inputs[1]), _array(inputs[2])
        kind = UINT8 if zero.dtype == np.uint8 else INT8_FULL
        if isinstance(x, _Pending) and kind is UINT8 and scale.size == 1:
            levels = x.requantize(scale.reshape(-1)[0], int(zero.reshape(-1)[0]))
        else:
            axis = int_attribute(node, "axis", 1) if scale.size > 1 else None
            levels = quantize(np.asarray(_real(x), np.float32), scale, zero, kind, axis)
        return np.minimum(levels, levels.dtype.type(self._highest)) if kind is UINT8 else levels

    def _dequantize(self, node: ir.Node, inputs: list[_Value | None]) -> _Value:
        levels, scale = _array(inputs[0]), np.asarray(_array(inputs[1]), np.float32)
        zero = _array(inputs[2]) if len(inputs) > 2 else np.zeros(scale.shape, levels.dtype)
        axis = int_attribute(node, "axis", 1)
        group = int_attribute(node, "block_size", 0)
        if group:
            count = levels.shape[axis]
            steps = np.repeat(scale, group, axis=axis).take(range(count), axis=axis)
            zeros = np.repeat(zero.astype(np.int32), group, axis=axis).take(range(count), axis=axis)
            return np.asarray((levels.astype(np.int32) - zeros).astype(np.float32) * steps)
        return _Quantized(levels, scale, zero, axis if scale.size > 1 else None)

    def _conv(self, node: ir.Node, inputs: list[_Value | None]) -> _Value | None:
        x, w = inputs[0], inputs[1]
        bias = inputs[2] if len(inputs) > 2 else None
        if not (_u8(x) and _s8(w)) or string_attribute(node, "auto_pad", "NOTSET") != "NOTSET":
            return None
        levels, x_scale, x_zero = x.parts
        sums = self._convolution(
            levels,
            w.levels,
            x_zero,
            pads=ints_attribute(node, "pads"),
            strides=ints_attribute(node, "strides"),
            dilations=ints_attribute(node, "dilations"),
            group=int_attribute(node, "group", 1),
        )
        shape = (1, -1, *([1] * (sums.ndim - 2)))
        step = np.float32(x_scale) * w.scale
        if bias is not None:
            # ONNX Runtime rounds a float bias when it loads the graph.
            whole = (
                bias.levels
                if isinstance(bias, _Quantized)
                else np.rint(np.asarray(_array(bias), np.float32) / step)
            )
            sums = sums + whole.reshape(shape).astype(np.int64)
        return _linear(sums, step.reshape(shape))

    def _gemm(self, node: ir.Node, inputs: list[_Value | None]) -> _Value | None:
        x, w = inputs[0], inputs[1]
        bias = inputs[2] if len(inputs) > 2 else None
        if not (_u8(x) and _s8(w)) or int_attribute(node, "transA"):
            return None
        if bias is not None and not isinstance(bias, _Quantized):
            return None
        levels, x_scale, x_zero = x.parts
        right = w.levels.T if int_attribute(node, "transB") else w.levels
        sums = reference.matmul_integer(levels, right, x_zero)
        if bias is not None:
            sums = sums + bias.levels.astype(np.int64)
        return _linear(sums, np.float32(x_scale) * w.scale)

    def _matmul(self, node: ir.Node, inputs: list[_Value | None]) -> _Value | None:
        x, w = inputs
        if not (_u8(x) and _s8(w)):
            return None
        levels, x_scale, x_zero = x.parts
        return _linear(
            reference.matmul_integer(levels, w.levels, x_zero), np.float32(x_scale) * w.scale
        )

    def _add(self, node: ir.Node, inputs: list[_Value | None]) -> _Value | None:
        a, b = inputs
        if not (_u8(a) and _u8(b)):
            return None
        return _Pending(
            lambda scale, zero: reference.qlinear_add(*a.parts, *b.parts, scale, zero),
            lambda: a.real() + b.real(),
        )

    def _mul(self, node: ir.Node, inputs: list[_Value | None]) -> _Value | None:
        a, b = inputs
        if not (_u8(a) and _u8(b)):
            return None
        return _Pending(
            lambda scale, zero: reference.qlinear_mul(*a.parts, *b.parts, scale, zero),
            lambda: a.real() * b.real(),
        )

    def _concat(self, node: ir.Node, inputs: list[_Value | None]) -> _Value | None:
        parts = [value for value in inputs if _u8(value)]
        if len(parts) != len(inputs):
            return None
        axis = int_attribute(node, "axis", 0)
        return _Pending(
            lambda scale, zero: reference.qlinear_concat(
                [part.parts for part in parts], scale, zero, axis
            ),
            lambda: np.concatenate([part.real() for part in parts], axis=axis),
        )

    def _global_pool(self, node: ir.Node, inputs: list[_Value | None]) -> _Value | None:
        x = inputs[0]
        if not _u8(x):
            return None
        axes = tuple(range(2, x.levels.ndim))
        return _Pending(
            lambda scale, zero: reference.qlinear_global_average_pool(*x.parts, scale, zero),
            lambda: x.real().mean(axis=axes, keepdims=True, dtype=np.float32),
        )

    def _sigmoid(self, node: ir.Node, inputs: list[_Value | None]) -> _Value | None:
        return _table(inputs[0], lambda real: np.asarray(1 / (1 + np.exp(-real)), np.float32))

    def _leaky_relu(self, node: ir.Node, inputs: list[_Value | None]) -> _Value | None:
        alpha = np.float32(float_attribute(node, "alpha", 0.01))
        return _table(inputs[0], lambda real: np.where(real >= 0, real, real * alpha))

    def _bound(self, node: ir.Node, inputs: list[_Value | None]) -> _Value | None:
        x = inputs[0]
        if not isinstance(x, _Pending):
            return None
        if node.op_type == "Relu":
            return x.bounded(0.0, float("inf"))
        low, high = (
            float(_array(inputs[i]).reshape(-1)[0])
            if len(inputs) > i and inputs[i] is not None
            else default
            for i, default in ((1, float("-inf")), (2, float("inf")))
        )
        return x.bounded(low, high)

    def _matmul_nbits(self, node: ir.Node, inputs: list[_Value | None]) -> Array:
        names = ("K", "block_size", "bits", "accuracy_level")
        columns, group, bits, level = (int_attribute(node, name) for name in names)
        zero = inputs[3] if len(inputs) > 3 else None
        return reference.matmul_nbits(
            np.asarray(_real(inputs[0]), np.float32),
            np.asarray(_array(inputs[1]), np.uint8),
            np.asarray(_array(inputs[2]), np.float32),
            None if zero is None else np.asarray(_array(zero), np.uint8),
            columns=columns,
            group=group,
            bits=bits,
            accuracy_level=level,
        )

    def _evaluate(self, node: ir.Node, inputs: list[Array | None]) -> list[Array]:
        """Evaluate one float operator by ONNX's reference evaluator."""
        import onnx
        import onnx_ir as ir
        from onnx.reference import ReferenceEvaluator

        if node not in self._evaluators:
            proto = ir.serde.serialize_node(node)
            known = {name: array for name, array in zip(proto.input, inputs, strict=True) if name}
            graph = onnx.helper.make_graph(
                [proto],
                node_label(node),
                [
                    onnx.helper.make_tensor_value_info(
                        name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), None
                    )
                    for name, array in known.items()
                    if array is not None
                ],
                [onnx.ValueInfoProto(name=name) for name in proto.output if name],
            )
            opsets = [
                onnx.helper.make_opsetid(domain, version)
                for domain, version in self._model.graph.opset_imports.items()
            ]
            evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets))
            self._evaluators[node] = lambda feeds: list(evaluator.run(None, dict(feeds)))
        names = [value.name if value is not None else None for value in node.inputs]
        feeds = {
            name: array
            for name, array in zip(names, inputs, strict=True)
            if name is not None and array is not None
        }
        return self._evaluators[node](feeds)


def _table(x: _Value | None, function: Callable[[Floats], Floats]) -> _Value | None:
    if not _u8(x):
        return None
    return _Pending(
        lambda scale, zero: reference.lookup(*x.parts, scale, zero, function),
        lambda: np.asarray(function(x.real()), dtype=np.float32),
    )


def _linear(sums: npt.NDArray[np.int64], scale: npt.NDArray[np.float32]) -> _Pending:
    """The pending result of a layer with accumulators ``sums`` and ``s_x * s_w``."""
    step = np.asarray(scale, dtype=np.float32)
    return _Pending(
        lambda y_scale, y_zero: reference.requantize(sums, step / np.float32(y_scale), y_zero),
        lambda: np.asarray(sums.astype(np.float32) * step, dtype=np.float32),
    )


def _u8(value: _Value | None) -> TypeGuard[_Quantized]:
    """Whether the value is u8 with one scale."""
    return isinstance(value, _Quantized) and value.per_tensor and value.levels.dtype == np.uint8


def _s8(value: _Value | None) -> TypeGuard[_Quantized]:
    """Whether the value is s8 and symmetric."""
    return isinstance(value, _Quantized) and value.levels.dtype == np.int8 and not value.zero.any()


def _real(value: _Value | None) -> Array:
    if value is None:
        raise UsageError("an operator misses an input")
    return value if isinstance(value, np.ndarray) else value.real()


def _array(value: _Value | None) -> Array:
    if not isinstance(value, np.ndarray):
        raise UsageError("scale, zero point and integers must be plain tensors")
    return value
