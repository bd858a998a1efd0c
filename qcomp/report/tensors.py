"""Every tensor of a compiled graph: its type, its scale and range, by which method, and why.

The lines are read from the graph that was written, so they say what is in the file, whatever pass
or tool put it there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qcomp.integer_rules import IntegerRules
from qcomp.report.data import TensorLine
from qcomp.report.graph_reading import (
    array_of,
    divided_by_token,
    input_of,
    label_of,
    name_of,
    readers_of,
    type_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from qcomp.quantization import QuantizationRecord, QuantizedLayer, TensorStatistics

__all__ = ["tensor_lines"]

_WIDTH = {"s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32}
_FLOATS = frozenset({"f16", "f32", "f64", "bf16"})
_WEIGHT_WHY = {
    "static": "one scale an output channel, as the integer kernels take",
    "dynamic": "one scale an output channel; its activation is quantized while the graph runs",
    "weights": "stored in few bits; what it is multiplied by comes in float",
    "float8": "stored in few bits, each of them an 8-bit float; multiplied as such",
}
_RESULT_SCALE = {
    "QGemm": 7,
    "QLinearAdd": 6,
    "QLinearAveragePool": 3,
    "QLinearConv": 6,
    "QLinearGlobalAveragePool": 3,
    "QLinearLeakyRelu": 3,
    "QLinearMatMul": 6,
    "QLinearMul": 6,
    "QLinearSigmoid": 3,
}
"""Operator on integers -> the input that is its result's scale; the zero point comes behind it."""

_BLOCKED = ("GatherBlockQuantized", "MatMulNBits")
"""Operators whose third input is the scales of blocks."""

_CAME = "the graph had this scale when it came"
_LARGEST_E4M3 = 448
_MIDDLE = 8
"""Zero point of 4 bits."""

_LEAST_VALUES = 2
"""Smaller float constants are not listed: epsilons, clip limits."""


def tensor_lines(
    models: Iterable[ir.Model],
    record: QuantizationRecord | None,
    statistics: TensorStatistics | None,
    source: Iterable[str] = (),
    machine: IntegerRules | None = None,
) -> tuple[TensorLine, ...]:
    """Return a line for each tensor of the graphs that were written, in graph order.

    Args:
        models: The graphs.
        record: What the quantizing passes did and left.
        statistics: What was measured of activations.
        source: Names of the constants of the source, which the lines use.
        machine: What integers the machine takes; CPUs by default.
    """
    machine = machine or IntegerRules()
    lines: dict[str, TensorLine] = {}
    known = frozenset(source)
    for model in models:
        for line in _Reader(model, record, statistics, known, machine).lines():
            lines.setdefault(line.name, line)
    return tuple(lines.values())


class _Reader:
    def __init__(
        self,
        model: ir.Model,
        record: QuantizationRecord | None,
        statistics: TensorStatistics | None,
        source: frozenset[str],
        machine: IntegerRules,
    ) -> None:
        self.machine = machine
        self.graph = model.graph
        self.statistics = statistics
        self.source = source
        layers = record.layers if record else ()
        self.by_weight = {layer.quantized: layer for layer in layers if layer.quantized}
        self.made: dict[str, ir.Value] = {}
        self.parts: set[str] = set()
        for node in self.graph:
            if node.outputs and node.outputs[0].name in self.by_weight:
                self._take_apart(node.outputs[0])
        floats = record.float_ops if record else ()
        self.reasons = {op.node: op.reason for op in floats}
        self.listed: set[str] = set()

    def lines(self) -> Iterator[TensorLine]:
        for node in self.graph:
            if divided_by_token(node) is not None:
                yield self._token(node)
            elif node.op_type == "QuantizeLinear" and not self._rounds_a_weight(node):
                yield self._activation(node)
            elif node.op_type == "DynamicQuantizeLinear":
                yield self._dynamic(node)
            elif node.op_type in _RESULT_SCALE:
                yield self._result(node, _RESULT_SCALE[node.op_type])
            for value in node.inputs:
                line = self._constant(value, node)
                if line is not None:
                    yield replace(line, name=self._source_name(line.name))

    def _take_apart(self, weight: ir.Value) -> None:
        """Note the constants of which a weight is made, by rounding, when the graph is loaded."""
        stack, first = [weight], weight
        parts, makers = set(), set()
        while stack:
            value = stack.pop()
            maker = value.producer()
            if maker is None:
                parts.add(value.name or "")
            else:
                makers.add(maker.op_type)
                stack += [v for v in maker.inputs if v is not None]
        if not makers & {"Round", "Gather", "GatherElements"}:  # a table that is turned over
            return
        while (maker := first.producer()) is not None and maker.inputs[0] is not None:
            first = maker.inputs[0]
        self.parts |= parts
        self.made[first.name or ""] = weight

    def _made(self, weight: ir.Value) -> TensorLine:
        """The line of a weight of few bits that is one of 8 bits in memory."""
        layer = self.by_weight[weight.name or ""]
        found = (_reader_and_scale(weight, usage.node)[1] for usage in weight.uses())
        scale = next((array for array in found if array is not None), None)
        group = layer.weight_type.partition("/")[2]
        eight = "eight bits with one scale an output channel from loading on"
        if layer.weight_type.startswith("t"):
            why = "levels of a table, looked up when the graph is loaded: "
            why += eight if layer.scheme == "dynamic" else "float from then on"
        else:
            why = f"one scale for {group} values in the file; {eight}" if group else eight
        low, high = (None, None) if scale is None else _covered("s8", scale, None)
        return TensorLine(
            layer.weight,
            "weight",
            layer.weight_type,
            (layer.node,),
            *_scales(scale),
            low=low,
            high=high,
            method=layer.method or "round to nearest",
            why=why,
        )

    def _rounds_a_weight(self, node: ir.Node) -> bool:
        """Whether a QuantizeLinear reads a constant, or what few bits stand for."""
        value = node.inputs[0]
        maker = None if value is None else value.producer()
        few = maker is not None and name_of(input_of(maker, 0)) in self.by_weight
        return few or array_of(value) is not None

    def _source_name(self, name: str) -> str:
        """The name in the source of a constant that passes changed: they append to it."""
        short = name
        while short not in self.source and "_" in short:
            short = short.rpartition("_")[0]
        return short if short in self.source else name

    def _activation(self, node: ir.Node) -> TensorLine:
        name = name_of(node.inputs[0])
        for usage in node.outputs[0].uses():  # an output keeps its name behind the pair
            if usage.node.outputs and usage.node.outputs[0].is_graph_output():
                name = name_of(usage.node.outputs[0])
        scale, zero = array_of(node.inputs[1]), array_of(input_of(node, 2))
        kind = type_of(input_of(node, 2)) or "u8"
        origin = name_of(node.inputs[1]).removesuffix("_scale")
        measured = None if self.statistics is None else self.statistics.ranges.get(origin)
        method, why = "", _CAME
        if measured is not None and self.statistics is not None:
            method = self.statistics.methods.get(origin, self.statistics.method)
            why = f"range of {self.statistics.samples} calibration samples, widened to hold 0"
            if origin not in (name, name_of(node.inputs[0])):
                why = f"its values are those of '{origin}', whose scale it has"
        low, high = _covered(kind, scale, zero)
        return TensorLine(
            name,
            "activation",
            kind,
            tuple(dict.fromkeys(readers_of(node.outputs[0]))),
            *_scales(scale),
            zero_point=None if zero is None or zero.size != 1 else int(zero.reshape(-1)[0]),
            low=low,
            high=high,
            minimum=None if measured is None else measured.minimum,
            maximum=None if measured is None else measured.maximum,
            method=method,
            why=why,
        )

    def _result(self, node: ir.Node, index: int) -> TensorLine:
        """The line of what an operator on integers makes."""
        value, zero = node.outputs[0], input_of(node, index + 1)
        scale, offset = array_of(input_of(node, index)), array_of(zero)
        kind = type_of(zero) or "u8"
        low, high = _covered(kind, scale, offset)
        return TensorLine(
            name_of(value),
            "activation",
            kind if scale is not None else "f32",
            tuple(dict.fromkeys(readers_of(value))),
            *_scales(scale),
            zero_point=None if offset is None or offset.size != 1 else int(offset.reshape(-1)[0]),
            low=low,
            high=high,
            why=_CAME if scale is not None else f"'{label_of(node)}' gives a float result",
        )

    def _dynamic(self, node: ir.Node) -> TensorLine:
        return TensorLine(
            name_of(node.inputs[0]),
            "activation",
            "u8",
            tuple(dict.fromkeys(readers_of(node.outputs[0]))),
            method="at run time",
            why="one scale a tensor from the least and the largest value of each run: a row's "
            "result depends on its batch",
        )

    def _token(self, node: ir.Node) -> TensorLine:
        zero = array_of(input_of(node, 2))
        return TensorLine(
            name_of(divided_by_token(node)),
            "activation",
            "s8" if zero is None or int(zero) > _MIDDLE else "s4",
            tuple(dict.fromkeys(readers_of(node.outputs[0]))),
            method="at run time",
            why="one scale a token from its largest magnitude: a row's result does not depend on "
            "its batch",
        )

    def _constant(self, value: ir.Value | None, node: ir.Node) -> TensorLine | None:
        """The line of a constant that a node reads; None for scales, zero points and indices."""
        name = name_of(value)
        if value is None or value.const_value is None or name in self.listed:
            return None
        if value.producer() is not None:
            return None
        kind = type_of(value)
        if name in self.made:
            line = self._made(self.made[name])
        elif name in self.parts:
            return None
        elif kind in _WIDTH and not _is_parameter(value, node):
            line = self._integers(value, node, kind)
        elif kind in _FLOATS and value.const_value.size >= _LEAST_VALUES:
            if _is_scale(value, node):
                return None
            line = self._float(value, node, kind)
        else:
            return None
        self.listed.add(name)
        return line

    def _integers(self, value: ir.Value, node: ir.Node, kind: str) -> TensorLine:
        name = name_of(value)
        layer = self.by_weight.get(name)
        reader, scale = _reader_and_scale(value, node)
        if layer is None and name in self.source:
            role = "bias" if kind == "s32" else "weight"
            shown, method, source = kind, "", name
            why = "the graph had these integers when it came"
        elif layer is None and kind == "s8" and _is_bias(value):
            why = "eight bits with a scale of its own, as the machine takes it"
            role, shown, method = "bias", kind, "round to nearest"
            source = name.removesuffix("_quantized")
        elif layer is None and kind == "s32":
            why = "steps of the input's scale times the weight's, as the integer sums are"
            role, shown, method = "bias", kind, "round to nearest"
            source = name.removesuffix("_quantized")
        elif layer is None and self._source_name(name) in self.source:
            role, shown, method, source = "weight", kind, "round to nearest", name
            why = "stored in few bits; what reads it computes in float"
        elif layer is None:
            role, shown, method, source = "weight", kind, "", name
            why = "the graph had these integers when it came"
        else:
            role = "table" if layer.op_type in ("Gather", "GatherND") else "weight"
            shown, source = layer.weight_type or kind, layer.weight
            method = layer.method or "round to nearest"
            row = role == "table" and "/row" in layer.weight_type
            why = "one scale a row" if row else _weight_why(layer)
            if layer.scheme == "static" and scale is not None and scale.size == 1:
                why = "one scale for the whole tensor, as the machine takes it"
        low, high = (None, None) if scale is None else _covered(_base(shown, kind), scale, None)
        names = tuple(dict.fromkeys(readers_of(value)))
        return TensorLine(
            source,
            role,
            shown,
            (layer.node,) if layer else names or (reader,),
            *_scales(scale),
            low=low,
            high=high,
            method=method,
            why=why,
        )

    def _float(self, value: ir.Value, node: ir.Node, kind: str) -> TensorLine:
        name = name_of(value)
        readers = tuple(dict.fromkeys(readers_of(value))) or (label_of(node),)
        if kind == "f16" and node.op_type == "Cast" and name.endswith("_half"):
            why = "half the bytes; the rounding is far below that of the quantized layers"
            name = name.removesuffix("_half")
        elif node.op_type == "Conv" and len(node.inputs) > 2 and node.inputs[2] is value:
            integer = any(
                v is not None and (p := v.producer()) is not None and "Dequantize" in p.op_type
                for v in node.inputs[:2]
            )
            why = "ONNX Runtime rounds it to s32 when it loads the graph" if integer else ""
            if integer and not self.machine.is_cpu:
                why = "the machine adds biases in float"
            why = why or self._reason(readers)
        else:
            why = self._reason(readers)
        weighted = node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Gather")
        role = "weight" if weighted and value not in node.inputs[2:] else "constant"
        return TensorLine(name, role, kind, readers, why=why)

    def _reason(self, readers: tuple[str, ...]) -> str:
        for reader in readers:
            if self.reasons.get(reader):
                return f"'{reader}' is in float: {self.reasons[reader]}"
        return "no operator with an integer kernel reads it"


def _weight_why(layer: QuantizedLayer) -> str:
    if "/" in layer.weight_type:
        return (
            f"one scale for {layer.weight_type.partition('/')[2]} values; "
            + _WEIGHT_WHY["float8" if layer.scheme == "float8" else "weights"]
        )
    return _WEIGHT_WHY.get(layer.scheme, "")


def _base(shown: str, kind: str) -> str:
    """The type whose range counts: s7 and s4 in blocks are stored in wider types."""
    return shown.partition("/")[0] or kind


def _covered(
    kind: str, scale: NDArray[np.generic] | None, zero: NDArray[np.generic] | None
) -> tuple[float | None, float | None]:
    """The real values that a type covers with its scale (the largest one) and zero point."""
    if kind == "e4m3" and scale is not None:
        largest = _LARGEST_E4M3 * float(scale.max())
        return -largest, largest
    bits = int(kind[1:]) if kind[1:].isdecimal() else 0
    if scale is None or not scale.size or not 0 < bits <= 32:
        return None, None
    step = float(np.abs(scale.astype(np.float64)).max())
    if zero is None and kind[0] == "s":
        largest = 2 ** (bits - 1) - 1
        return -largest * step, largest * step
    least = -(2 ** (bits - 1)) if kind[0] == "s" else 0
    offset = 0.0 if zero is None or zero.size != 1 else float(zero.astype(np.float64).sum())
    return (least - offset) * step, (least + 2**bits - 1 - offset) * step


def _scales(scale: NDArray[np.generic] | None) -> tuple[float | None, float | None, int]:
    """Smallest and largest scale by magnitude, and how many there are."""
    if scale is None or not scale.size:
        return None, None, 0
    steps = np.abs(scale.astype(np.float64))
    return float(steps.min()), float(steps.max()), int(steps.size)


def _reader_and_scale(value: ir.Value, node: ir.Node) -> tuple[str, NDArray[np.generic] | None]:
    """The operator that works with constant integers, and the scales that belong to them."""
    kind = node.op_type
    if kind == "DequantizeLinear":
        steps, channels = array_of(node.inputs[1]), _channel_scales(node)
        if steps is not None and channels is not None:
            steps = np.multiply(steps, channels, dtype=np.float32)
        return label_of(node), steps
    if kind in _BLOCKED:
        return label_of(node), _scale_of(node.inputs[2])
    if kind in ("QGemm", "QLinearConv", "QLinearMatMul") and node.inputs[3] is value:
        return label_of(node), array_of(node.inputs[4])
    if kind in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat"):
        index = 2 if kind == "DynamicQuantizeMatMul" else 3
        return label_of(node), array_of(node.inputs[index])
    if kind == "DynamicQuantizeLSTM":
        index = 8 if node.inputs[1] is value else 10
        return label_of(node), array_of(input_of(node, index))
    if kind not in ("Cast", "ConvInteger", "Gather", "GatherND", "MatMulInteger"):
        return label_of(node), None
    for usage in node.outputs[0].uses():  # Cast -> DequantizeLinear, Gather -> Cast -> Mul
        user = usage.node
        if user.op_type == "DequantizeLinear":
            return label_of(user), array_of(user.inputs[1])
        if user.op_type == "Mul":
            found = [_scale_of(v) for v in user.inputs if v is not node.outputs[0]]
            return label_of(user), next((s for s in found if s is not None), None)
        if user.op_type == "Cast":
            return _reader_and_scale(value, user)
    return label_of(node), None


def _channel_scales(node: ir.Node) -> NDArray[np.generic] | None:
    """The scales of the 8-bit floats that the few bits of a weight stand for."""
    for usage in node.outputs[0].uses():
        if usage.node.op_type == "QuantizeLinear":
            for back in usage.node.outputs[0].uses():
                return array_of(input_of(back.node, 1))
    return None


def _scale_of(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Constant scales, or those behind a lookup of them, a Cast or a product with one."""
    array = array_of(value)
    maker = None if value is None else value.producer()
    if array is not None or maker is None:
        return array
    if maker.op_type in ("Cast", "Gather", "GatherND"):
        return array_of(maker.inputs[0])
    if maker.op_type == "Mul":
        return next((a for v in maker.inputs if (a := array_of(v)) is not None), None)
    return None


def _is_parameter(value: ir.Value, node: ir.Node) -> bool:
    """Whether an integer constant is a zero point, an index or a shape."""
    kind = node.op_type
    if kind in ("DequantizeLinear", "Cast"):
        return node.inputs[0] is not value
    if kind in ("Gather", "GatherBlockQuantized", "GatherND"):
        return node.inputs[0] is not value
    if kind in ("MatMulInteger", "ConvInteger", "MatMulNBits", "DynamicQuantizeMatMul"):
        return node.inputs[1] is not value
    if kind == "MatMulIntegerToFloat":
        return node.inputs[1] is not value
    if kind in ("QGemm", "QLinearConv", "QLinearMatMul"):
        bias = {"QGemm": 6, "QLinearConv": 8}.get(kind)
        return value not in (node.inputs[3], None if bias is None else input_of(node, bias))
    return kind != "DynamicQuantizeLSTM" or value not in node.inputs[1:3]


def _is_scale(value: ir.Value, node: ir.Node) -> bool:
    """Whether a float constant is the scale of integers."""
    kind = node.op_type
    if kind == "Cast":
        return any(usage.node.op_type in _BLOCKED for usage in node.outputs[0].uses())
    if kind in ("DequantizeLinear", "QuantizeLinear"):
        return node.inputs[0] is not value
    if kind in ("Gather", "GatherND"):
        return name_of(value).endswith("_row_scale")
    if kind == "Mul":
        others = [v.producer() for v in node.inputs if v is not None and v is not value]
        makers = {maker.op_type for maker in others if maker is not None}
        return "DynamicQuantizeLinear" in makers
    return kind.startswith("QLinear") or kind in (
        *_BLOCKED,
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "MatMulIntegerToFloat",
        "QGemm",
    )


def _is_bias(value: ir.Value) -> bool:
    """Whether integers are dequantized to the third input of a layer."""
    users = [u.node for u in value.uses() if u.node.op_type == "DequantizeLinear"]
    return any(usage.idx == 2 for node in users for usage in node.outputs[0].uses())
