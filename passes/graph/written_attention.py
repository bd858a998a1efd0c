"""Attention written out: which product makes the scores, which mixes the values, what is cached.

    softmax(scale q k' + mask) v

What a decoder would keep for later tokens are k and v, float[..., tokens, width] for each head:
behind rotary positions, before heads are repeated for several queries, before k is turned over.

Cost: linear in the number of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcomp.passes.graph.rewriting import ints_attribute, is_constant, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Kept", "WrittenAttention", "head_shape", "kept_value", "written_attentions"]

_BETWEEN = {"Add", "Cast", "Div", "Identity", "Mul", "Reshape", "Sub", "Where"}
"""Operators between the product of queries and keys and its Softmax."""

_AFTER = {"Cast", "Dropout", "Identity", "Where"}
"""Operators between the Softmax and the product with the values."""

_SAME_SHAPE = {"Div", "Identity", "Mul", "RotaryEmbedding"}

_DEEP = 8


@dataclass(frozen=True, slots=True)
class WrittenAttention:
    """One attention.

    Attributes:
        scores: The MatMul of queries and turned keys.
        mixed: The MatMul of probabilities and values.
    """

    scores: ir.Node
    mixed: ir.Node


@dataclass(frozen=True, slots=True)
class Kept:
    """Where keys or values of an attention are read as a cache would hold them.

    Attributes:
        reader: The operator that reads them.
        index: Its input.
        axis: Their axis of channels, -1 or -2 (turned over).
    """

    reader: ir.Node
    index: int
    axis: int

    @property
    def value(self) -> ir.Value:
        """The tensor."""
        value = self.reader.inputs[self.index]
        assert value is not None
        return value


def written_attentions(graph: ir.Graph) -> Iterator[WrittenAttention]:
    """Find attentions of which both products are there."""
    for node in graph:
        if node.op_type != "MatMul" or node.domain or is_constant(node.inputs[1]):
            continue
        softmax = _softmax(node.inputs[0])
        scores = None if softmax is None else _scores(softmax.inputs[0], _DEEP)
        if scores is not None:
            yield WrittenAttention(scores, node)


def kept_value(product: ir.Node, keys: bool) -> Kept:
    """Where keys (of the product of scores) or values are read as a cache would hold them."""
    reader, index, axis = product, 1, -2 if keys else -1
    while True:
        value = reader.inputs[index]
        maker = None if value is None else value.producer()
        if maker is None or maker.domain:
            break
        order = ints_attribute(maker, "perm") if maker.op_type == "Transpose" else ()
        if order and order == (*range(len(order) - 2), len(order) - 1, len(order) - 2):
            reader, index, axis = maker, 0, -3 - axis
            continue
        apart = _repeated(maker) if axis == -1 else None
        if apart is None:
            break
        reader, index = apart, 0
    return Kept(reader, index, axis)


def head_shape(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Shape of queries, keys or values, found before a RotaryEmbedding that no inference knows."""
    for _ in range(_DEEP):
        shape = static_shape(value)
        maker = None if value is None else value.producer()
        if shape is not None or maker is None or maker.op_type not in _SAME_SHAPE:
            return shape
        value = maker.inputs[0]
    return None


def _softmax(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    for _ in range(_DEEP):
        if node is None or node.domain or node.op_type not in ("Softmax", *_AFTER):
            return None
        if node.op_type == "Softmax":
            return node
        read = [v for v in node.inputs if v is not None and not is_constant(v)]
        makers = [v.producer() for v in read]
        found = [m for m in makers if m is not None and m.op_type in ("Softmax", *_AFTER)]
        node = found[-1] if found else None
    return None


def _scores(value: ir.Value | None, steps: int) -> ir.Node | None:
    """The product of two activations from which a Softmax's input comes."""
    node = None if value is None else value.producer()
    if node is None or node.domain or not steps:
        return None
    if node.op_type == "MatMul":
        return None if any(map(is_constant, node.inputs)) else node
    if node.op_type not in _BETWEEN:
        return None
    places = node.inputs[1:] if node.op_type == "Where" else node.inputs
    if node.op_type == "Reshape":
        places = node.inputs[:1]
    return next(filter(None, (_scores(v, steps - 1) for v in places)), None)


def _repeated(joined: ir.Node) -> ir.Node | None:
    """The Unsqueeze at which heads begin to be repeated, behind its Expand and Reshape."""
    node: ir.Node | None = joined
    for kind in ("Reshape", "Expand", "Unsqueeze"):
        if node is None or node.domain or node.op_type != kind:
            return None
        if kind != "Unsqueeze":
            source = node.inputs[0]
            node = None if source is None else source.producer()
    return node
