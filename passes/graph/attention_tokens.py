"""Which attention tells how much each token of a layer's input counts.

    softmax(q k') v W_o,    then MLP:    q, k, v, W_o and the MLP belong to one attention

A layer that makes queries, keys or values belongs to the attention that they go to; any other to
the last attention before it. Only attentions of a tensor with itself count (queries, keys and
values made from one tensor): of others, what keys receive says nothing of the queries' tokens.

Cost: linear in the operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from qcomp.passes.graph.online_products import HADAMARD
from qcomp.passes.graph.rewriting import (
    Editor,
    constant_array,
    constant_tensor,
    int_attribute,
)
from qcomp.passes.graph.value_heads import attentions

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["attentions_of_layers", "probabilities"]

_PROBABILITIES: Mapping[tuple[str, str], tuple[int, str, int]] = {
    ("", "Attention"): (3, "qk_matmul_output_mode", 3),
    ("com.microsoft", "MultiHeadAttention"): (3, "", 0),
    ("com.microsoft", "GroupQueryAttention"): (3, "qk_output", 2),
}
"""Operator -> the output for its softmax, with the attribute and value that ask for it."""


def attentions_of_layers(
    graph: ir.Graph, layers: Iterable[ir.Node]
) -> dict[ir.Node, ir.Node | None]:
    """The attention that each layer belongs to; None for those that no attention comes before.

    Args:
        graph: The main graph.
        layers: MatMul, Gemm or Conv nodes with constant weights.

    Returns:
        Layer -> the operator that mixes values: a whole attention, or the product behind a Softmax.
    """
    found = [node for node in attentions(graph) if _has_probabilities(node)]
    fed: dict[ir.Node, set[ir.Node]] = {node: _fed(node, set(found)) for node in _layers(graph)}
    sources: dict[ir.Node, set[ir.Value | None]] = {node: set() for node in found}
    for layer, targets in fed.items():
        for target in targets:
            sources[target].add(layer.inputs[0])
    own = [node for node in found if len(sources[node]) == 1]
    place = {node: index for index, node in enumerate(own)}
    last: dict[ir.Value, int] = {}
    before: dict[ir.Node, int] = {}
    for node in graph:
        latest = max(
            (last.get(value, -1) for value in node.inputs if value is not None), default=-1
        )
        before[node] = latest
        latest = place.get(node, latest)
        last.update(dict.fromkeys(node.outputs, latest))
    result: dict[ir.Node, ir.Node | None] = {}
    for layer in layers:
        feeds = [target for target in own if target in fed.get(layer, ())]
        index = place[feeds[0]] if feeds else before.get(layer, -1)
        result[layer] = own[index] if index >= 0 else None
    return result


def probabilities(editor: Editor, node: ir.Node) -> ir.Value:
    """The softmax [..., queries, keys] of an attention; a whole one gets an output for it."""
    import onnx_ir as ir

    if node.op_type == "MatMul":
        value = node.inputs[0]
        assert value is not None
        return value
    index, attribute, asked = _PROBABILITIES[node.domain, node.op_type]
    if attribute:
        node.attributes.add(ir.AttrInt64(attribute, asked))
    if len(node.outputs) <= index:
        node.resize_outputs(index + 1)
    value = node.outputs[index]
    value.name = value.name or f"{node.name or node.outputs[0].name}_probabilities"
    # ONNX Runtime's own operators do not infer them.
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape([None] * 4)
    if attribute:
        return value
    # MultiHeadAttention gives what it takes the softmax of, masked.
    name = f"{value.name}_Softmax"
    return editor.node("Softmax", [value], {"axis": -1}, name=name, after=node).outputs[0]


def _has_probabilities(node: ir.Node) -> bool:
    if node.op_type == "MatMul":
        return constant_array(node.inputs[1]) is None
    known = _PROBABILITIES.get((node.domain, node.op_type))
    if known is None:
        return False
    index = known[0]
    return len(node.outputs) <= index or not node.outputs[index].uses()


def _layers(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph if _is_layer(node)]


def _is_layer(node: ir.Node) -> bool:
    if node.domain or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return False
    if HADAMARD in (node.name or ""):
        return False  # queries and keys turn, and stay what they are
    return constant_tensor(node.inputs[1]) is not None and not int_attribute(node, "transA")


def _fed(layer: ir.Node, found: set[ir.Node]) -> set[ir.Node]:
    """The attentions that a layer's result goes into, through no other layer."""
    reached: set[ir.Node] = set()
    seen: set[ir.Node] = {layer}
    waiting = [usage.node for value in layer.outputs for usage in value.uses()]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in found:
            reached.add(node)
        elif not _is_layer(node):
            waiting += [usage.node for value in node.outputs for usage in value.uses()]
    return reached
