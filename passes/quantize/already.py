"""What a graph holds as integers already: it is kept as it is, never quantized a second time.

Graphs come quantized from training (QuantizeLinear and DequantizeLinear around float operators),
from other tools (QLinearConv, MatMulInteger, MatMulNBits ...), or from an earlier compile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcomp.passes.graph.rewriting import constant_array, constant_tensor, is_constant, only_use
from qcomp.passes.quantize.arithmetic import Affine
from qcomp.passes.quantize.integer_types import UINT8

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "ALREADY",
    "dequantized_affine",
    "made_of_integers",
    "other_dequantized",
    "quantized_already",
    "quantized_behind",
]

ALREADY = "already quantized"
"""The reason that such an operator is listed with."""

_INTEGER_OPS = frozenset(
    {
        "ConvInteger",
        "ConvTransposeInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulBnb4",
        "MatMulFpQ4",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearConvTranspose",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearReduceMean",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QMoE",
        "QOrderedMatMul",
    }
)
_PAIRS = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
_MOVES = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_WEIGHTED = {
    "Conv": 1,
    "ConvTranspose": 1,
    "GRU": 1,
    "Gather": 0,
    "GatherND": 0,
    "Gemm": 1,
    "LSTM": 1,
    "MatMul": 1,
    "RNN": 1,
}
"""Operator -> the input that is its weight or table."""

_ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})
_INTEGERS = frozenset({"INT2", "INT4", "INT8", "UINT2", "UINT4", "UINT8"})
_CLAMPS = frozenset({"Clip", "Relu"})


def quantized_already(node: ir.Node) -> bool:
    """Whether the operator computes with integers, or ONNX Runtime makes it do so."""
    if node.op_type in _INTEGER_OPS and node.domain in ("", "com.microsoft"):
        return True
    if node.domain or node.op_type in _PAIRS or node.op_type in _MOVES or not node.inputs:
        return False
    if node.op_type in _CLAMPS:
        source = node.inputs[0]
        maker = None if source is None else source.producer()
        if maker is not None and maker.op_type not in _CLAMPS and quantized_behind(maker):
            return quantized_already(maker)
    if node.op_type == "Mul" and any(_is_scale_or_sum(value) for value in node.inputs):
        return True
    index = _WEIGHTED.get(node.op_type)
    if index is not None and index < len(node.inputs):
        weight = node.inputs[index]
        if not is_constant(weight):
            if made_of_integers(weight):
                return True
        elif node.op_type not in ("Gather", "GatherND"):
            return False
    read = [value for value in node.inputs if value is not None and not is_constant(value)]
    return bool(read) and all(_is_dequantized(v) for v in read) and quantized_behind(node)


def _is_scale_or_sum(value: ir.Value | None) -> bool:
    """Whether a value is a scale found at run time, or an integer sum that becomes real."""
    node = None if value is None else value.producer()
    if node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
        return node is not None and node.op_type in ("ConvInteger", "MatMulInteger")
    return node is not None and node.op_type == "DynamicQuantizeLinear"


def quantized_behind(node: ir.Node) -> bool:
    """Whether the graph itself quantizes the operator's result, maybe behind a Relu or Clip."""
    value = node.outputs[0]
    user = only_use(value)
    if user is not None and user.domain == "" and user.op_type in _CLAMPS:
        value = user.outputs[0]
    users = [usage.node.op_type for usage in value.uses()]
    quantizes = bool(users) and all(name == "QuantizeLinear" for name in users)
    return quantizes and not value.is_graph_output()


def dequantized_affine(value: ir.Value | None) -> Affine | None:
    """Scale and zero point of a value that the graph holds as u8 with one scale; else None."""
    if not _is_dequantized(value):
        return None
    assert value is not None
    node = value.producer()
    assert node is not None
    scale = constant_array(node.inputs[1])
    zero = constant_tensor(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or scale.size != 1 or zero is None or zero.dtype.name != "UINT8":
        return None
    return Affine(float(scale.reshape(-1)[0]), int(zero.numpy().reshape(-1)[0]), UINT8)


def other_dequantized(value: ir.Value | None) -> str:
    """The integer type of a dequantized value that is not u8 with one scale; "" for any other."""
    if not _is_dequantized(value) or dequantized_affine(value) is not None:
        return ""
    assert value is not None
    node = value.producer()
    assert node is not None
    source = node.inputs[0]
    dtype = None if source is None else source.dtype
    if dtype is None and len(node.inputs) > 2 and node.inputs[2] is not None:
        dtype = node.inputs[2].dtype
    return "another type" if dtype is None else str(dtype.name)


def _is_dequantized(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    return node is not None and node.op_type == "DequantizeLinear"


def made_of_integers(value: ir.Value | None) -> bool:
    """Whether the graph makes a constant value, such as a weight, out of integers."""
    node = None if value is None else value.producer()
    if node is None or node.domain or not node.inputs:
        return False
    if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
        return is_constant(node.inputs[0]) or made_of_integers(node.inputs[0])
    if node.op_type == "Cast" and is_constant(node.inputs[0]):
        tensor = constant_tensor(node.inputs[0])
        return tensor is not None and tensor.dtype.name in _INTEGERS
    if node.op_type in _MOVES:
        return made_of_integers(node.inputs[0])
    if node.op_type in _ARITHMETIC:
        parts = [made_of_integers(part) for part in node.inputs]
        fixed = [is_constant(part) for part in node.inputs]
        return any(parts) and all(a or b for a, b in zip(parts, fixed, strict=True))
    return False
