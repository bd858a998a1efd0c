"""Keeping account of what quantization did, what it left in float, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from qcomp.passes.graph.rewriting import constant_tensor, is_constant, node_label
from qcomp.passes.quantize.already import ALREADY, made_of_integers, quantized_already
from qcomp.quantization import (
    FloatOp,
    FloatReference,
    NodeRules,
    QuantizationRecord,
    QuantizedLayer,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program
    from qcomp.passmanager import Context

__all__ = ["inner_float_ops", "keep_reference", "left_in_float", "note", "warn_if_nothing"]


def keep_reference(program: Program, context: Context) -> None:
    """Remember the float graph before the first quantizing pass changes it."""
    if context.get(FloatReference) is None:
        from qcomp.ir.program import Program

        model = program.model.clone()
        context.put(FloatReference(Program(model, program.circuits, program.source)))


def note(
    context: Context, layers: Iterable[QuantizedLayer], float_ops: Iterable[FloatOp]
) -> QuantizationRecord:
    """Merge a pass's account into the record in the context.

    An operator that a later pass quantizes is no longer listed as float; those that passes put in
    are not listed.
    """
    reference = context.get(FloatReference)
    source: set[str] | None = None
    if reference is not None:
        model = reference.program.model
        owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
        source = {node_label(node) for owner in owners for node in owner.all_nodes()}
    before = context.get(QuantizationRecord) or QuantizationRecord()
    all_layers = (*before.layers, *layers)
    done = {layer.node for layer in all_layers}
    last: dict[str, FloatOp] = {}
    for op in (*before.float_ops, *float_ops):
        ours = source is not None and op.node not in source
        if ours or op.node in done or (op.reason == ALREADY and op.node in last):
            continue
        last[op.node] = op
    record = QuantizationRecord(all_layers, tuple(last.values()))
    context.put(record)
    return record


def warn_if_nothing(name: str, context: Context) -> None:
    """Tell the user when a pass found layers with weights but could quantize none of them."""
    record = context.get(QuantizationRecord)
    if record is None or record.layers:
        return
    kept = [op for op in record.float_ops if op.reason == ALREADY]
    if kept:
        names = ", ".join(f"'{op.node}'" for op in kept[:3]) + (", ..." if len(kept) > 3 else "")
        context.warn(
            f"{len(kept)} operators are {ALREADY} and are kept as they are: {names}; '{name}' "
            "found nothing else to quantize"
        )
        return
    weighted = [op for op in record.float_ops if op.op_type in ("Conv", "Gemm", "MatMul")]
    if weighted:
        reasons = ", ".join(dict.fromkeys(op.reason for op in weighted))
        context.warn(f"'{name}' quantized nothing: {reasons}")


_NO_KERNEL = "ONNX Runtime's CPU provider has no integer kernel for it"
_SCORES = "attention is computed in float: its scores meet the mask, and no integer kernel has both"
_REASONS = {
    "Attention": _SCORES,
    "BatchNormalization": "not folded into a convolution; fold it first (fuse-batch-norm)",
    "ConvTranspose": _NO_KERNEL,
    "BiasGelu": _NO_KERNEL,
    "Einsum": _NO_KERNEL,
    "Elu": _NO_KERNEL,
    "Erf": _NO_KERNEL,
    "FastGelu": _NO_KERNEL,
    "GRU": _NO_KERNEL,
    "Gelu": _NO_KERNEL,
    "GroupNormalization": _NO_KERNEL,
    "GroupQueryAttention": _SCORES,
    "HardSigmoid": _NO_KERNEL,
    "HardSwish": _NO_KERNEL,
    "InstanceNormalization": _NO_KERNEL,
    "LSTM": "its recurrent state is kept in float",
    "LayerNormalization": _NO_KERNEL,
    "MultiHeadAttention": _SCORES,
    "Pow": _NO_KERNEL,
    "QuickGelu": _NO_KERNEL,
    "RMSNormalization": _NO_KERNEL,
    "RNN": "its recurrent state is kept in float",
    "ReduceMean": _NO_KERNEL,
    "ReduceSum": _NO_KERNEL,
    "Resize": "interpolation is done on float values: u8 is slower and cuts fractions off",
    "RotaryEmbedding": _NO_KERNEL,
    "SimplifiedLayerNormalization": _NO_KERNEL,
    "SkipLayerNormalization": _NO_KERNEL,
    "SkipSimplifiedLayerNormalization": _NO_KERNEL,
    "Softmax": "its output lies in [0, 1] with most of it near 0: eight bits lose it",
    "Sqrt": _NO_KERNEL,
    "Swish": _NO_KERNEL,
    "Tanh": _NO_KERNEL,
}
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Relu", "Clip", "Sigmoid", "LeakyRelu", "Concat"}
_POOLS = {"AveragePool", "GlobalAveragePool", "MaxPool"}
_QUIET = {
    *("Cast", "CastLike", "Constant", "ConstantOfShape", "DepthToSpace", "DequantizeLinear"),
    *("Dropout", "DynamicQuantizeLinear", "Expand", "EyeLike", "Flatten", "Gather"),
    *("GatherElements", "GatherND", "Identity", "Pad", "QuantizeLinear", "Range", "Reshape"),
    *("ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "Shape", "Size", "Slice"),
    *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where"),
}
"""Operators that only move, convert or choose values."""

_CACHED = {"GroupQueryAttention", "RotaryEmbedding"}
"""Operators whose constants are tables of sines and cosines."""

_PRODUCTS = {"FusedMatMul", "TransposeMatMul"}
_WEIGHTED = {"Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN"}


def left_in_float(node: ir.Node, rules: NodeRules | None = None) -> FloatOp | None:
    """Why an operator without weights stays in float; None for one that only moves data.

    Operators on integers, shapes and booleans are not mentioned either.

    Args:
        node: The operator.
        rules: What the user asks of single operators: what is excluded by name is always listed.
    """
    import onnx_ir as ir

    if quantized_already(node):
        return FloatOp(node_label(node), node.op_type, ALREADY)
    if node.outputs and made_of_integers(node.outputs[0]):
        return None
    refusal = "" if rules is None else rules.refusal(node)
    if refusal:
        return FloatOp(node_label(node), node.op_type, refusal)

    floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
    result = node.outputs[0].dtype if node.outputs else None
    if result is not None and result not in floats:
        return None
    if node.domain not in ("", "com.microsoft"):
        reason = f"operators of domain '{node.domain}' are not quantized"
    elif node.op_type == "Gather" and is_constant(node.inputs[0]):
        if _few_values(node.inputs[0]):
            return None
        reason = "its table is looked up in float; quantize-embeddings stores it in 8 bits"
    elif node.domain and node.op_type not in _CACHED and any(map(_is_weight, node.inputs)):
        reason = "its weights are inside of a fused operator that has no other form"
    elif node.domain and node.op_type in _PRODUCTS:
        reason = "both operands are activations; attention scores meet the mask's -1e4 in float"
    elif node.op_type in _REASONS:
        reason = _REASONS[node.op_type]
    elif node.op_type in _ELEMENTWISE or node.op_type in _POOLS:
        reason = "its inputs are float here: quantizing it alone costs more than it saves"
    elif node.attributes and any(
        attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for attr in node.attributes.values()
    ):
        reason = "the body of a control-flow operator is left as it is"
    elif node.op_type in _QUIET:
        return None
    else:
        reason = _NO_KERNEL
    return FloatOp(node_label(node), node.op_type, reason)


def inner_float_ops(model: ir.Model) -> Iterator[FloatOp]:
    """Give the operators with weights inside of control-flow bodies and model functions.

    Args:
        model: Whose main graph a pass quantizes.
    """
    for graph in model.graphs():
        for node in graph if graph is not model.graph else ():
            if not node.domain and node.op_type in _WEIGHTED and not quantized_already(node):
                yield FloatOp(node_label(node), node.op_type, "it is inside a control-flow body")
    for function in model.functions.values():
        for node in function:
            if not node.domain and node.op_type in _WEIGHTED:
                reason = f"it is inside the function '{function.name}', which was not inlined"
                yield FloatOp(node_label(node), node.op_type, reason)


def _is_weight(value: ir.Value | None) -> bool:
    """Whether a value is a constant of two axes and more: a matrix, a table, a kernel."""
    tensor = constant_tensor(value)
    return tensor is not None and len(tensor.shape) >= 2 and min(tensor.shape.numpy()) > 1


def _few_values(table: ir.Value | None) -> bool:
    """Whether a table is a column, as the scales of a quantized one are."""
    tensor = constant_tensor(table)
    return tensor is not None and len(tensor.shape) == 2 and tensor.shape[-1] == 1
