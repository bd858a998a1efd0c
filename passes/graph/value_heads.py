"""The values of attention heads, whichever operators the attention is made of.

    softmax(q k') v  ->  y = concat of heads,    v = x W_v + b

Any matrix that multiplies the values of one head from the right comes out behind that head. Found
are attentions written out, with heads that several queries share too, and these operators, as long
as nothing but the product with W_v makes the values and no cache takes them in or out:

    MultiHeadAttention (com.microsoft), Attention (opset 23) on 3 axes

Cost: constant a tensor.
Source: Ashkboos et al. 2024, arXiv:2404.00456, section 4, stage 1b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcomp.passes.calibrate.smoothing_places import (
    ValueProjection,
    layer_of_values,
    value_projection,
)
from qcomp.passes.graph.rewriting import constant_tensor, int_attribute

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["attention_of", "attentions", "value_heads"]


@dataclass(frozen=True, slots=True)
class _Fused:
    """An operator that is a whole attention.

    Attributes:
        heads: Its attribute with the number of heads of values.
        absent: Inputs that must not be there: biases of the values, caches.
    """

    heads: str
    absent: tuple[int, ...]


_FUSED = {
    ("com.microsoft", "MultiHeadAttention"): _Fused("num_heads", (3, 6, 7)),
    ("", "Attention"): _Fused("kv_num_heads", (4, 5)),
}


def attentions(graph: ir.Graph) -> list[ir.Node]:
    """The operators that mix values: whole attentions, and products with a Softmax on the left."""
    found = []
    for node in graph:
        made = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        softmax = made is not None and made.op_type == "Softmax" and node.op_type == "MatMul"
        if softmax or node.op_type in ("Attention", "GroupQueryAttention", "MultiHeadAttention"):
            found.append(node)
    return found


def attention_of(source: ir.Value) -> ir.Node | None:
    """The operator of an attention whose result a tensor is, heads moved or not."""
    node = source.producer()
    while node is not None and node.op_type in ("Reshape", "Transpose"):
        before = node.inputs[0]
        node = None if before is None else before.producer()
    return node


def value_heads(source: ir.Value) -> ValueProjection | None:
    """The projection whose heads a tensor, an attention's result, consists of, or None."""
    node = source.producer()
    known = None if node is None else _FUSED.get((node.domain, node.op_type))
    if node is None or known is None:
        return value_projection(source, repeated=True)
    if source is not node.outputs[0] or len(node.inputs) < 3:
        return None
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return None
    if any(index < len(node.inputs) and node.inputs[index] is not None for index in known.absent):
        return None
    values, heads = node.inputs[2], int_attribute(node, known.heads)
    channels = _channels(values)
    if heads < 1 or not channels or channels % heads:
        return None
    return layer_of_values(values, node, channels, heads)


def _channels(values: ir.Value | None) -> int:
    """Columns of the constant matrix whose product, with or without a bias, the values are."""
    node = None if values is None else values.producer()
    if node is not None and node.op_type == "Add":
        made = (value.producer() for value in node.inputs if value is not None)
        node = next((maker for maker in made if maker is not None), None)
    if node is None or node.op_type != "MatMul":
        return 0
    tensor = constant_tensor(node.inputs[1])
    return 0 if tensor is None or len(tensor.shape) != 2 else int(tensor.shape.numpy()[1])
