"""Rewrites that remove nodes which do nothing, each exact in every input."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from qcomp.passes.graph.rewriting import attribute, constant_array, static_shape

__all__ = ["remove_no_ops", "replace_with"]


def remove_no_ops(graph: ir.Graph, opset: int) -> bool:
    """Remove what does nothing from one graph; return whether anything was.

    The rewrites, ``x`` any tensor::

        Identity(x)                     -> x
        Dropout(x)                      -> x                 where it does not train
        Cast(x), CastLike(x, y)         -> x                 to the type that x has
        Reshape(x, s)                   -> x                 to the static shape that x has
        Reshape(Reshape(x, r), s)       -> Reshape(x, s)     where s copies no axis
        Transpose(Transpose(x))         -> Transpose(x)      with the product of both orders
        Transpose(x)                    -> x                 in the order 0, 1, 2 ...
        Concat(x), Sum(x), Max(x) ...   -> x                 of one input

    A node stays where its removal would make an input of a graph its output.

    Args:
        graph: A main graph, a subgraph or a function's graph, changed in place.
        opset: The version of its standard operators.
    """
    changed = False
    for node in list(graph):
        if node.domain != "" or node.graph is None or not _is_whole(node):
            continue
        rewrite = _REWRITES.get(node.op_type)
        if rewrite is not None:
            changed = rewrite(node, opset) or changed
    return changed


def _is_whole(node: ir.Node) -> bool:
    """Whether a node, and who makes its first input, have as many inputs as is read of them here.

    Files that no checker has seen may hold a Cast of nothing.
    """
    least = 2 if node.op_type == "CastLike" else 1
    if len(node.inputs) < least:
        return False
    maker = node.inputs[0].producer() if node.inputs[0] is not None else None
    return maker is None or maker.op_type != node.op_type or len(maker.inputs) >= 1


def replace_with(node: ir.Node, value: ir.Value) -> bool:
    """Let ``value`` take the place of a node's first output and remove the node.

    Args:
        node: A node whose other outputs nobody uses.
        value: What is always equal to its first output.

    Returns:
        Whether it was possible: the outputs of a graph must be made in it, under their names.
    """
    graph, output = node.graph, node.outputs[0]
    if graph is None or any(other.uses() or other.is_graph_output() for other in node.outputs[1:]):
        return False
    if output.is_graph_output():
        maker = value.producer()
        if maker is None or value.graph is not graph or value.is_graph_output():
            return False
        if list(graph.outputs).count(output) != 1:
            return False
    if value.type is None:
        value.type = output.type
    if value.shape is None and output.shape is not None:
        value.shape = output.shape.copy()
    name, was_output = output.name, output.is_graph_output()
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if was_output:
        # The caller knows the output by its name, and what is declared of it is declared there.
        value.name = name
        if output.shape is not None:
            value.shape = output.shape
    return True


def _first(node: ir.Node, opset: int) -> bool:
    del opset
    value = node.inputs[0] if node.inputs else None
    return value is not None and replace_with(node, value)


def _single(node: ir.Node, opset: int) -> bool:
    return len(node.inputs) == 1 and _first(node, opset)


def _dropout(node: ir.Node, opset: int) -> bool:
    if opset < 7:
        trains = not attribute(node, "is_test", 0)
    elif opset < 12 or len(node.inputs) < 3 or node.inputs[2] is None:
        trains = False
    else:
        mode = constant_array(node.inputs[2])
        trains = mode is None or bool(mode.any())
    return not trains and _first(node, opset)


def _cast(node: ir.Node, opset: int) -> bool:
    value, output = node.inputs[0], node.outputs[0]
    if value is None or value.dtype is None:
        return False
    if node.op_type == "Cast":
        return attribute(node, "to", None) == value.dtype.value and _first(node, opset)
    like = node.inputs[1]
    same = like is not None and value.dtype == like.dtype == output.dtype
    return same and _first(node, opset)


def _reshape(node: ir.Node, opset: int) -> bool:
    if opset < 5 or len(node.inputs) < 2:
        return False
    value, wanted = node.inputs[0], constant_array(node.inputs[1])
    if value is None or wanted is None:
        return False
    have = static_shape(value)
    target = [int(dim) for dim in wanted.reshape(-1)]
    if have is not None and None not in have and _resolved(have, target, node) == list(have):
        return _first(node, opset)
    inner = value.producer()
    if inner is None or (inner.domain, inner.op_type) != ("", "Reshape") or 0 in target:
        return False
    source = inner.inputs[0]
    if source is None or source is value:
        return False
    node.replace_input_with(0, source)
    return True


def _resolved(have: tuple[int | None, ...], target: list[int], node: ir.Node) -> list[int] | None:
    """Return the shape that a Reshape of a tensor of a known shape makes."""
    total = 1
    for dim in have:
        total *= dim or 0
    if total == 0:
        return None
    if not attribute(node, "allowzero", 0):
        if any(dim == 0 and i >= len(have) for i, dim in enumerate(target)):
            return None
        target = [have[i] or 0 if dim == 0 else dim for i, dim in enumerate(target)]
    known = 1
    for dim in target:
        known *= dim if dim != -1 else 1
    if known <= 0:
        return None
    return [total // known if dim == -1 else dim for dim in target]


def _transpose(node: ir.Node, opset: int) -> bool:
    value = node.inputs[0] if node.inputs else None
    order = _order(node)
    if value is None or order is None:
        return False
    if order == sorted(order):
        return _first(node, opset)
    inner = value.producer()
    if inner is None or (inner.domain, inner.op_type) != ("", "Transpose"):
        return False
    before, source = _order(inner), inner.inputs[0]
    if before is None or source is None or len(before) != len(order):
        return False
    both = [before[axis] for axis in order]
    node.attributes["perm"] = ir.AttrInt64s("perm", both)
    node.replace_input_with(0, source)
    if both == sorted(both):
        _first(node, opset)
    return True


def _order(node: ir.Node) -> list[int] | None:
    """Return the order of axes of a Transpose, None where the rank must be known and is not."""
    given = node.attributes.get("perm")
    if given is not None:
        return None if given.is_ref() else [int(axis) for axis in given.as_ints()]
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    return list(reversed(range(len(value.shape))))


_REWRITES: dict[str, Callable[[ir.Node, int], bool]] = {
    "Identity": _first,
    "Dropout": _dropout,
    "Cast": _cast,
    "CastLike": _cast,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Mean": _single,
}
