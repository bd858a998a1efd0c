"""Common subexpressions: equal constants and equal nodes of one graph become one."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter

import onnx_ir as ir

from qcomp.node_rules import NodeRules

__all__ = ["merge_equal_initializers", "merge_equal_nodes"]

_READ_LIMIT = 1024
"""Bytes of an attribute's tensor up to which it is compared."""

_SAME_LIMIT = 1 << 20
"""Bytes of an initializer up to which it is compared: masks and tables, not weights."""

_RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_STANDARD = frozenset({"", "ai.onnx.ml"})

_Key = tuple[object, ...]


def merge_equal_initializers(graph: ir.Graph) -> bool:
    """Let equal initializers of at most 1 MiB be one; return whether any were.

    Args:
        graph: A graph, changed in place. Initializers that a caller can see stay.
    """
    candidates = [value for value in graph.initializers.values() if _may_be_merged(value)]
    # A larger tensor is read only where another one has its type and shape.
    alike = Counter(_looks(value) for value in candidates)
    first: dict[_Key, ir.Value] = {}
    changed = False
    for value in candidates:
        tensor = value.const_value
        assert tensor is not None
        if tensor.nbytes > _READ_LIMIT and alike[_looks(value)] == 1:
            continue
        kept = first.setdefault(_tensor_key(tensor), value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            del graph.initializers[value.name or ""]
            changed = True
    return changed


def _may_be_merged(value: ir.Value) -> bool:
    """Whether an initializer is of the graph alone, and small enough to be compared."""
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or value.is_graph_output():
        return False
    if tensor.dtype == ir.DataType.STRING:
        return False
    computed = isinstance(tensor, ir.LazyTensor)
    return bool(tensor.nbytes <= (_READ_LIMIT if computed else _SAME_LIMIT))


def _looks(value: ir.Value) -> _Key:
    tensor = value.const_value
    assert tensor is not None
    return (tensor.dtype, tuple(tensor.shape.numpy()))


def merge_equal_nodes(graph: ir.Graph, rules: NodeRules | None = None) -> bool:
    """Let nodes of one operator with equal inputs and attributes be one.

    Left alone are random operators, operators with subgraphs, and all that is not in ONNX's own
    domains, for of these nothing is known; and operators of which the user asks different things.

    Args:
        graph: A graph in topological order, changed in place.
        rules: What the user asks of single operators.

    Returns:
        Whether any node was merged.
    """
    first: dict[_Key, ir.Node] = {}
    changed = False
    for node in list(graph):
        key = _node_key(node)
        if key is None:
            continue
        if rules:
            key = (*key, rules.options(node))
        kept = first.setdefault(key, node)
        if kept is not node:
            changed = _merge(graph, node, kept) or changed
    return changed


def _merge(graph: ir.Graph, node: ir.Node, kept: ir.Node) -> bool:
    pairs = list(zip(node.outputs, kept.outputs, strict=True))
    for old, new in pairs:
        if old.is_graph_output() and (
            new.is_graph_output() or not new.name or list(graph.outputs).count(old) != 1
        ):
            return False
        if old.uses() and not new.name:
            return False
    for old, new in pairs:
        name, was_output, shape = old.name, old.is_graph_output(), old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        if was_output:
            new.name = name
            new.shape = shape if shape is not None else new.shape
    graph.remove(node, safe=True)
    return True


def _node_key(node: ir.Node) -> _Key | None:
    if node.domain not in _STANDARD or node.op_type in _RANDOM:
        return None
    attributes: list[_Key] = []
    for name in sorted(node.attributes):
        value = _attribute_key(node.attributes[name])
        if value is None:
            return None
        attributes.append((name, value))
    inputs = tuple(0 if value is None else id(value) for value in node.inputs)
    return (node.domain, node.op_type, inputs, len(node.outputs), tuple(attributes))


def _attribute_key(attribute: ir.Attr) -> _Key | None:
    """Return what tells an attribute's value from any other, None where that is not worth it."""
    kind, value = attribute.type, attribute.value
    if attribute.is_ref():
        return ("ref", attribute.ref_attr_name)
    # Floats are told apart by their bits: -0.0 is not 0.0.
    if kind == ir.AttributeType.FLOAT:
        return (kind, struct.pack("<f", value))
    if kind == ir.AttributeType.FLOATS:
        return (kind, struct.pack(f"<{len(value)}f", *value))
    if kind in (ir.AttributeType.INT, ir.AttributeType.STRING):
        return (kind, value)
    if kind in (ir.AttributeType.INTS, ir.AttributeType.STRINGS):
        return (kind, tuple(value))
    if kind == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        if tensor.dtype != ir.DataType.STRING and tensor.nbytes <= _READ_LIMIT:
            return (kind, _tensor_key(tensor))
    return None


def _tensor_key(tensor: ir.TensorProtocol) -> _Key:
    data = tensor.tobytes()
    if len(data) > _READ_LIMIT:
        data = hashlib.sha256(data).digest()
    return (tensor.dtype, tuple(tensor.shape.numpy()), data)
