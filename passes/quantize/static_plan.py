"""Which operators become integer kernels, and which values are stored as 8 bits: the static plan.

The plan follows what ONNX Runtime's CPU provider fuses (DequantizeLinear -> op -> QuantizeLinear):

| operator                     | weight       | output     | becomes              |
|------------------------------|--------------|------------|----------------------|
| Conv (+ Relu, Clip)          | s8 a channel | u8         | QLinearConv          |
| Gemm (+ Relu, Clip)          | s8 a channel | u8 / float | QGemm                |
| MatMul (+ Relu, Clip)        | s8 a channel | u8         | QLinearMatMul        |
| MatMul, float consumers      | s8 a channel | float      | MatMulIntegerToFloat |
| Gemm + Tanh, Sigmoid, ...    | s8 a channel | float      | MatMulIntegerToFloat |
| Add, Mul (+ Relu, Clip)      | -            | u8         | QLinearAdd, -Mul     |
| Concat, pools, Sigmoid, ...  | -            | u8         | QLinearConcat, ...   |
| MaxPool, Reshape, ...        | -            | u8, same   | the same op on u8    |

An elementwise operator or pool is planned only between values that are u8 already ("the stream").
MatMuls of two activations (attention scores) stay in float: their product meets the attention
mask, whose -1e4 would take the whole 8-bit range. For the same reason a MatMul whose
consumers are float gives a float result: it costs no time and loses nothing.

Other machines differ by their :class:`qcomp.integer_rules.IntegerRules` alone: which operators they
take, which results are integers for all readers, whether products of two activations are taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from qcomp.integer_rules import IntegerRules
from qcomp.passes.graph.rewriting import (
    constant_array,
    constant_tensor,
    float_attribute,
    int_attribute,
    is_constant,
    node_label,
    only_use,
    string_attribute,
)
from qcomp.passes.quantize.already import (
    ALREADY,
    dequantized_affine,
    other_dequantized,
    quantized_already,
    quantized_behind,
)
from qcomp.passes.quantize.record import inner_float_ops, left_in_float
from qcomp.quantization import FloatOp, NodeRules

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "PlannedLayer",
    "StaticPlan",
    "activation_bounds",
    "matmul_weight_reason",
    "plan_static",
    "weight_axis",
]

_STREAM_KERNELS = {
    "Add": "QLinearAdd",
    "Mul": "QLinearMul",
    "Concat": "QLinearConcat",
    "AveragePool": "QLinearAveragePool",
    "GlobalAveragePool": "QLinearGlobalAveragePool",
    "Sigmoid": "QLinearSigmoid",
    "LeakyRelu": "QLinearLeakyRelu",
}
_FUSED_GEMM = {
    "Elu",
    "HardSigmoid",
    "LeakyRelu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
}
"""Operators that ONNX Runtime fuses into a float Gemm in front of them, before it looks for QDQ."""

_WITH_TAIL = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul"}
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "LayerNormalization", "MatMul")
_MASK = -1e3
"""Added constants from here down keep positions out of a Softmax."""


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """One operator of the plan.

    Attributes:
        node: The operator.
        kernel: The integer kernel that ONNX Runtime makes of it.
        activations: Indices of the inputs that are read as u8.
        output: The value stored as u8 after it (behind Relu or Clip), None for a float result.
        weighted: Whether input 1 is a weight (and input 2, if any, a bias).
    """

    node: ir.Node
    kernel: str
    activations: tuple[int, ...]
    output: ir.Value | None
    weighted: bool


@dataclass(slots=True)
class StaticPlan:
    """The static plan of a graph.

    Attributes:
        layers: Planned operators, in graph order.
        moves: Operators that only move u8 data: output parameters are those of the input.
        float_ops: Operators left in float, with the reason.
        measured: Names of the values whose range must be known, in graph order.
    """

    layers: list[PlannedLayer] = field(default_factory=list)
    moves: list[ir.Node] = field(default_factory=list)
    float_ops: list[FloatOp] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)


def weight_axis(node: ir.Node) -> int:
    """The output-channel axis of a layer's weight (input 1)."""
    if node.op_type in ("MatMul", "ConvTranspose"):
        return 1
    if node.op_type == "Gemm":
        return 0 if int_attribute(node, "transB") else 1
    return 0


def matmul_weight_reason(node: ir.Node) -> str:
    """Why a layer cannot have an integer weight; "" when it can."""
    import onnx_ir as ir

    if quantized_already(node):
        return ALREADY
    weight = constant_tensor(node.inputs[1])
    if weight is None:
        if node.op_type == "MatMul" and is_constant(node.inputs[0]):
            return "its weight is the first operand: integer kernels take it as the second"
        if node.op_type == "MatMul":
            return "both operands are activations; attention scores meet the mask's -1e4 in float"
        return "its weight is not a constant"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype.name}, not FLOAT"
    if is_constant(node.inputs[0]):
        return "both operands are constants: fold it"
    rank = len(weight.shape)
    if node.op_type == "Conv":
        return "" if rank >= 3 else "its weight has no spatial axis"
    if node.op_type in ("ConvTranspose", "LayerNormalization"):
        fixed = all(value is None or is_constant(value) for value in node.inputs[2:])
        return "" if fixed else "its bias is not a constant"
    if rank != 2:
        return f"its weight has rank {rank}, not 2"
    if node.op_type == "Gemm":
        if int_attribute(node, "transA"):
            return "transA=1 has no integer kernel"
        if float_attribute(node, "alpha", 1.0) != 1.0 or float_attribute(node, "beta", 1.0) != 1.0:
            return "alpha or beta differs from 1"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        tensor = constant_tensor(bias)
        channels = weight.shape[weight_axis(node)]
        if tensor is None:
            return "its bias is not a constant"
        if tensor.size != channels:
            return f"its bias has {tensor.size} values for {channels} channels"
    return ""


def activation_bounds(node: ir.Node) -> tuple[float, float] | None:
    """Constant bounds of a Relu or Clip that hold 0 (so that u8 can carry them); None otherwise."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    if node.op_type != "Clip":
        return None
    limits = [float("-inf"), float("inf")]
    for index in (1, 2):
        if len(node.inputs) > index and node.inputs[index] is not None:
            array = constant_array(node.inputs[index])
            if array is None or array.size != 1:
                return None
            limits[index - 1] = float(array.reshape(-1)[0])
    for index, name in enumerate(("min", "max")):  # attributes, below opset 11
        if name in node.attributes:
            limits[index] = float(node.attributes[name].as_float())
    return (limits[0], limits[1]) if limits[0] <= 0.0 <= limits[1] else None


def _tail(node: ir.Node, rules: NodeRules) -> ir.Value:
    """The value behind a Relu or Clip that fuses into the operator, else its own output."""
    output = node.outputs[0]
    if node.op_type in _WITH_TAIL:
        user = only_use(output)
        if user is not None and user.domain == "" and activation_bounds(user) is not None:
            apart = user.graph is not node.graph or rules.refusal(user)
            if user.inputs[0] is output and not apart:
                return user.outputs[0]
    return output


def _zero_padding(node: ir.Node) -> bool:
    """Whether a Pad only inserts zeros or copies."""
    if string_attribute(node, "mode", "constant") != "constant":
        return True
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return float_attribute(node, "value", 0.0) == 0.0
    fill = constant_array(node.inputs[2])
    return fill is not None and bool(np.all(fill == 0))


def _is_move(node: ir.Node, moves: tuple[str, ...]) -> bool:
    if node.domain or node.op_type not in moves:
        return False
    if node.op_type == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].uses():
        return False
    if node.op_type == "Resize":  # other modes make new values
        return string_attribute(node, "mode", "nearest") == "nearest"
    return node.op_type != "Pad" or _zero_padding(node)


def _is_weighted(node: ir.Node) -> bool:
    return node.domain == "" and node.op_type in ("Conv", "Gemm", "MatMul")


def _takes_integer(
    value: ir.Value, integer: set[ir.Node], rules: NodeRules, moves: tuple[str, ...]
) -> bool:
    """Whether an integer layer reads the value, possibly behind operators that move data."""
    return any(
        (usage.node in integer and usage.idx == 0)
        or (
            usage.idx == 0
            and _is_move(usage.node, moves)
            and not rules.refusal(usage.node)
            and _takes_integer(usage.node.outputs[0], integer, rules, moves)
        )
        for usage in value.uses()
    )


def plan_static(
    model: ir.Model, rules: NodeRules | None = None, machine: IntegerRules | None = None
) -> StaticPlan:
    """Plan the static quantization of a model's main graph. The model is not changed.

    Cost: linear in the number of nodes.

    Args:
        model: With FLOAT weights and activations; its nodes in topological order.
        rules: What the user asks of single operators.
        machine: Which operators the machine takes as integers; those of CPUs by default.
    """
    plan = StaticPlan()
    rules = rules or NodeRules()
    machine = machine or IntegerRules()
    integer = {
        node
        for node in model.graph
        if _may_have_weight(node, machine) and not _weighted_reason(node, rules, machine)
    }
    stream: set[ir.Value] = set()
    moves: list[ir.Node] = []
    tails: set[ir.Node] = set()
    for node in model.graph:
        tail: ir.Value = node.outputs[0]
        if node in integer:
            tail = _tail(node, rules)
            output = _result(node, tail, machine)
            if node.op_type in machine.stored_if_read and not (
                _takes_integer(tail, integer, rules, machine.moves)
                or _becomes_fused_gemm(node)
                or quantized_behind(node)
            ):
                output = None
            kernel = _kernel(node, output) if machine.is_cpu else node.op_type
            if quantized_behind(node):  # the graph has the integers of its result already
                output = None
            activations = (0, 1) if constant_tensor(node.inputs[1]) is None else (0,)
            plan.layers.append(PlannedLayer(node, kernel, activations, output, activations == (0,)))
        elif _is_weighted(node):
            reason = _weighted_reason(node, rules, machine)
            plan.float_ops.append(FloatOp(node_label(node), node.op_type, reason))
            continue
        elif node in tails:
            continue
        elif _is_move(node, machine.moves) and node.inputs[0] in stream and not rules.refusal(node):
            moves.append(node)
            stream.add(node.outputs[0])
            continue
        elif (
            node.domain == ""
            and node.op_type in machine.between
            and _between(node, stream | _with_pairs(node, integer, rules, machine), machine)
            and not rules.options(node).refusal("static")
            and not quantized_already(node)
        ):
            tail = _tail(node, rules)
            output = _result(node, tail, machine)
            kernel = _STREAM_KERNELS[node.op_type] if machine.is_cpu else node.op_type
            inputs = tuple(i for i, value in enumerate(node.inputs) if _is_float(value))
            plan.layers.append(PlannedLayer(node, kernel, inputs, output, False))
        else:
            left = left_in_float(node, rules)
            if left is not None:
                plan.float_ops.append(_reason_of(left, machine))
            continue
        if output is not None or node.op_type not in (*machine.stored, *machine.stored_if_read):
            stream.add(tail)
            producer = tail.producer()
            if producer is not None and producer is not node:
                tails.add(producer)
    plan.float_ops.extend(inner_float_ops(model))
    if machine.is_cpu or not machine.stored:
        _keep_needed_moves(plan, moves)
    else:  # integers stay integers; ONNX Runtime 1.32 refuses an s8 pair in front of a bare move
        plan.moves = moves
    plan.measured = _measured(plan)
    return plan


def _may_have_weight(node: ir.Node, machine: IntegerRules) -> bool:
    """Whether an operator is one of those that a plan looks at for weights."""
    if node.domain or len(node.inputs) < 2 or node.op_type not in _WEIGHTED:
        return False
    return _is_weighted(node) or node.op_type in machine.weighted


def _result(node: ir.Node, tail: ir.Value, machine: IntegerRules) -> ir.Value | None:
    """The result of an operator where it is integers for all readers."""
    return tail if node.op_type in (*machine.stored, *machine.stored_if_read) else None


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and (value.dtype is None or value.dtype.name == "FLOAT")


def _with_pairs(
    node: ir.Node, integer: set[ir.Node], rules: NodeRules, machine: IntegerRules
) -> set[ir.Value]:
    """What an operator reads that has a pair anyway, since an integer layer reads it too.

    It counts where results are not stored as integers: both inputs of a residual Add then do.
    """
    if machine.stored or machine.stored_if_read:
        return set()
    values = [v for v in node.inputs if v is not None]
    return {v for v in values if _takes_integer(v, integer, rules, machine.moves)}


def _between(node: ir.Node, stream: set[ir.Value], machine: IntegerRules) -> bool:
    """Whether an operator without weights reads integers only.

    Machines other than CPUs take a constant operand as integers too, unless it is a mask.
    """
    values = [value for value in node.inputs if _is_float(value)]
    if machine.is_cpu:
        return len(node.inputs) > 0 and all(value in stream for value in node.inputs)
    known = [value in stream or (is_constant(value) and not _is_mask(value)) for value in values]
    return any(value in stream for value in values) and all(known)


def _is_mask(value: ir.Value | None) -> bool:
    array = constant_array(value)
    return array is not None and bool(array.size) and float(array.min()) <= _MASK


def _reason_of(left: FloatOp, machine: IntegerRules) -> FloatOp:
    """What is said of CPUs is not said of other machines."""
    if machine.is_cpu or left.op_type in machine.takes or "CPU provider" not in left.reason:
        return left
    return replace(left, reason=f"the rules of '{machine.provider}' do not take it as integers")


def _weighted_reason(node: ir.Node, rules: NodeRules, machine: IntegerRules) -> str:
    """Why a layer is not planned; "" when it is."""
    if node.op_type not in machine.weighted:
        return f"the rules of '{machine.provider}' do not take {node.op_type} as integers"
    reason = matmul_weight_reason(node)
    if node.op_type == "MatMul" and machine.products and not quantized_already(node):
        if not any(is_constant(value) for value in node.inputs):
            reason = ""
    reason = reason or rules.options(node).refusal("static")
    held = "" if reason else other_dequantized(node.inputs[0])
    wanted = machine.activation
    if not reason and wanted != "u8" and dequantized_affine(node.inputs[0]) is not None:
        held = "UINT8"
    return f"its input is {ALREADY}, as {held}, where {wanted} is needed" if held else reason


def _becomes_fused_gemm(node: ir.Node) -> bool:
    """Whether a Gemm with float output would be fused with the Relu behind it, in float."""
    user = only_use(node.outputs[0])
    return node.op_type == "Gemm" and user is not None and user.op_type == "Relu"


def _kernel(node: ir.Node, output: ir.Value | None) -> str:
    user = only_use(node.outputs[0])
    if output is None and user is not None and user.op_type in _FUSED_GEMM:
        return "MatMulIntegerToFloat"
    if node.op_type == "MatMul":
        return "MatMulIntegerToFloat" if output is None else "QLinearMatMul"
    return "QLinearConv" if node.op_type == "Conv" else "QGemm"


def _keep_needed_moves(plan: StaticPlan, moves: list[ir.Node]) -> None:
    """Keep the moves whose result an integer operator reads, looking from the end."""
    needed: set[ir.Value] = set()
    for layer in plan.layers:
        needed.update(v for i in layer.activations if (v := layer.node.inputs[i]) is not None)
    for node in reversed(moves):
        if node.outputs[0] in needed:
            plan.moves.insert(0, node)
            source = node.inputs[0]
            assert source is not None
            needed.add(source)


def _measured(plan: StaticPlan) -> list[str]:
    """Names of the values that get parameters of their own, each once."""
    moved = {node.outputs[0]: node.inputs[0] for node in plan.moves}
    names: dict[str, None] = {}
    for layer in plan.layers:
        for value in (*(layer.node.inputs[i] for i in layer.activations), layer.output):
            while value in moved:
                value = moved[value]
            if value is None or is_constant(value) or dequantized_affine(value) is not None:
                continue
            names[value.name or ""] = None
    return list(names)
