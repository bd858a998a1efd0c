"""Tables that are matrices of layers too: token embeddings that also make the logits.

Exporters write such a table once, with a Transpose or a Gemm behind it, or twice, the second time
turned over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qcomp.passes.graph.rewriting import constant_tensor, int_attribute, read_weight

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Tie", "is_lookup", "same_values", "tied_weights"]

_LEAST_BYTES = 4096
_LARGEST = 1 << 30
_ROWS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Tie:
    """A weight with the values of a table.

    Attributes:
        table: The table [V, K] that rows are looked up in.
        weight: The weight of a MatMul or Gemm; the table itself where they share it.
        layer: That layer.
        transposed: Whether the weight is [K, V].
    """

    table: ir.Value
    weight: ir.Value
    layer: ir.Node
    transposed: bool


def is_lookup(usage_node: ir.Node, index: int) -> bool:
    """Whether an operator looks rows up in its input of that index."""
    if usage_node.domain or index != 0 or usage_node.op_type not in ("Gather", "GatherND"):
        return False
    return usage_node.op_type == "GatherND" or int_attribute(usage_node, "axis") in (0, -2)


def tied_weights(model: ir.Model) -> list[Tie]:
    """Find the layers of the main graph whose weights are tables.

    Cost: weights are read only where a table has their dimensions.

    Args:
        model: A float graph.
    """
    tables = [
        value
        for value in model.graph.initializers.values()
        if _is_large_matrix(value) and any(is_lookup(u.node, u.idx) for u in value.uses())
    ]
    if not tables:
        return []
    found = []
    for node in model.graph:
        if node.domain or node.op_type not in ("MatMul", "Gemm") or len(node.inputs) < 2:
            continue
        weight = node.inputs[1]
        if weight is None or not _is_large_matrix(weight):
            continue
        for table in tables:
            if weight is table:
                found.append(Tie(table, weight, node, False))
                break
            turned = same_values(table, weight)
            if turned is not None:
                found.append(Tie(table, weight, node, turned))
                break
    return found


def _is_large_matrix(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    if tensor is None or len(tensor.shape) != 2 or tensor.dtype.name not in ("FLOAT", "INT8"):
        return False
    return _LEAST_BYTES <= 4 * tensor.size <= _LARGEST


def same_values(table: ir.Value, other: ir.Value) -> bool | None:
    """Whether a matrix is another one turned over; False where it is the same, None for neither."""
    a, b = constant_tensor(table), constant_tensor(other)
    assert a is not None
    assert b is not None
    shape, rest = tuple(a.shape.numpy()), tuple(b.shape.numpy())
    if a.dtype != b.dtype or rest not in (shape, shape[::-1]):
        return None
    with read_weight(a) as first, read_weight(b) as second:
        for turned in (True, False):
            view = second.T if turned else second
            if view.shape == first.shape and all(
                np.array_equal(first[start : start + _ROWS], view[start : start + _ROWS])
                for start in range(0, len(first), _ROWS)
            ):
                return turned
    return None
