"""The projections that make the queries and keys of an attention, through rotary positions.

From the product of queries and keys back to ``x W + b`` stand moves of axes and, for both alike,

    rotary halves       u cos + concat(-u_high, u_low) sin      channels i and i + d/2 are a pair
    rotary neighbours   the same with every second channel      channels 2i and 2i + 1 are a pair
    RotaryEmbedding     of opset 23 or com.microsoft            by its attribute ``interleaved``

and factors that are constants. A quotient that both channels of a pair share passes through.

Cost: linear in the operators between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.passes.calibrate.quotients import Quotient
from qcomp.passes.calibrate.smoothing_places import ValueProjection, layer_of_values
from qcomp.passes.graph.rewriting import (
    Editor,
    constant_array,
    constant_tensor,
    int_attribute,
    is_constant,
    node_label,
    static_shape,
)
from qcomp.passes.graph.written_attention import head_shape, kept_value, written_attentions

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.quantization import NodeRules

__all__ = ["KeyProjections", "key_projections"]

Floats = npt.NDArray[np.float32]

_FUSED = {("com.microsoft", "MultiHeadAttention"), ("", "Attention")}
_MOVES = {"Identity", "Squeeze", "Transpose", "Unsqueeze"}
_LINEAR = {"Add", "Concat", "Div", "Mul", "Neg", "Slice", "Split", "Sub"}
_NO_PAIRS, _HALVES, _NEIGHBOURS = "", "halves", "neighbours"


@dataclass(frozen=True, slots=True)
class _Path:
    """From a projection to an attention.

    Attributes:
        projection: The layer.
        pairs: Which channels positions turn into each other: ``halves``, ``neighbours`` or "".
    """

    projection: ValueProjection
    pairs: str


@dataclass(frozen=True, slots=True)
class KeyProjections:
    """What makes the keys and the queries of one attention.

    Attributes:
        name: Of the operator that multiplies them.
        keys: The keys as a cache would hold them.
        axis: Their axis of channels; 2 where heads lie side by side.
        shape: Heads of keys and channels of each.
        repeats: Heads of queries for each of keys.
        pairs: Which channels positions turn into each other: ``halves``, ``neighbours`` or "".
        of_keys: The layer of the keys.
        of_queries: The layer of the queries.
    """

    name: str
    keys: ir.Value
    axis: int
    shape: tuple[int, int]
    repeats: int
    pairs: str
    of_keys: ValueProjection
    of_queries: ValueProjection

    def heads_of(self, keys: npt.NDArray[np.generic]) -> Floats:
        """Largest magnitude of each head's channels, float32[heads, channels], of keys seen."""
        size = np.abs(np.asarray(keys, np.float32))
        if size.ndim == 3:  # noqa: PLR2004  [batch, tokens, heads x channels]
            return np.asarray(size.max(axis=(0, 1)).reshape(self.shape), np.float32)
        return np.asarray(np.moveaxis(size, self.axis, -1).max(axis=(0, 2)), np.float32)

    def paired(self, peaks: Floats) -> Floats:
        """The larger one of each pair, for both; peaks of 0 become 1."""
        found = np.where(peaks > 0, peaks, 1).astype(np.float32)
        if not self.pairs:
            return found
        axis = 1 if self.pairs == _HALVES else 2
        count = self.shape[1] // 2
        apart = found.reshape((-1, 2, count) if axis == 1 else (-1, count, 2))
        both = np.broadcast_to(apart.max(axis=axis, keepdims=True), apart.shape)
        return both.reshape(found.shape)

    def divide(self, editor: Editor, l: Floats) -> None:  # noqa: E741  the paper's letter
        """Divide the keys' channels by l, over its geometric mean a head; queries take it."""
        factors = l.astype(np.float64)
        factors = factors / np.exp(np.log(factors).mean(axis=1, keepdims=True))
        _divide(editor, self.of_keys, factors.reshape(-1))
        wide = np.repeat(factors, self.repeats, axis=0)
        _divide(editor, self.of_queries, 1.0 / wide.reshape(-1))


def _divide(editor: Editor, made: ValueProjection, s: npt.NDArray[np.float64]) -> None:
    bias = () if made.bias is None else (made.bias,)
    Quotient(bias, made.layer).divide(editor, s.astype(np.float32))


def key_projections(
    graph: ir.Graph, rules: NodeRules
) -> tuple[list[KeyProjections], dict[str, str]]:
    """Find the projections of all attentions; say why of those that are left.

    Args:
        graph: The main graph.
        rules: Layers and attentions that are excluded stay as they are.
    """
    found: list[KeyProjections] = []
    left: dict[str, str] = {}
    for attention in written_attentions(graph):
        kept = kept_value(attention.scores, keys=True)
        one = rules.refusal(attention.scores) or _written(
            attention.scores, kept.value, kept.axis, kept.reader, rules
        )
        _note(attention.scores, one, found, left)
    for node in graph:
        if (node.domain, node.op_type) in _FUSED:
            _note(node, rules.refusal(node) or _fused(node, rules), found, left)
        elif node.op_type == "GroupQueryAttention":
            left[node_label(node)] = "its keys are rotated and cached inside of it"
    return found, left


def _note(
    node: ir.Node,
    one: KeyProjections | str,
    found: list[KeyProjections],
    left: dict[str, str],
) -> None:
    if isinstance(one, str):
        left[node_label(node)] = one
    else:
        found.append(one)


def _written(
    scores: ir.Node, keys: ir.Value, axis: int, reader: ir.Node, rules: NodeRules
) -> KeyProjections | str:
    shape, queries = head_shape(keys), scores.inputs[0]
    wide = head_shape(queries)
    if shape is None or wide is None or len(shape) != 4 or len(wide) != 4:  # noqa: PLR2004
        return "its queries and keys are not known to have four axes"
    heads, width, many = shape[1], shape[axis], wide[1]
    if heads is None or width is None or many is None or many % heads:
        return "its heads are not known"
    made = keys.producer()
    parts = () if made is None or made.op_type != "Concat" else made.inputs
    if keys.is_graph_output() or any(v is not None and v.is_graph_input() for v in parts):
        return "a cache holds its keys as they are"
    assert queries is not None
    paths = [_path(keys, reader, heads, width), _path(queries, scores, many, width)]
    return _joined(node_label(scores), keys, axis, (heads, width), many // heads, paths, rules)


def _fused(node: ir.Node, rules: NodeRules) -> KeyProjections | str:
    microsoft = node.domain == "com.microsoft"
    absent = (3, 6, 7) if microsoft else (4, 5)
    if any(i < len(node.inputs) and node.inputs[i] is not None for i in absent):
        return "its keys are biased or cached inside of it"
    queries, keys = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    many = int_attribute(node, "num_heads" if microsoft else "q_num_heads")
    heads = int_attribute(node, "num_heads" if microsoft else "kv_num_heads")
    shape = static_shape(keys)
    channels = shape[-1] if shape is not None and len(shape) == 3 else None  # noqa: PLR2004
    if keys is None or queries is None or not heads or not channels or many % heads:
        return "its heads are not known"
    width = channels // heads
    paths = [_path(keys, node, heads, width), _path(queries, node, many, width)]
    return _joined(node_label(node), keys, 2, (heads, width), many // heads, paths, rules)


def _joined(
    name: str,
    keys: ir.Value,
    axis: int,
    shape: tuple[int, int],
    repeats: int,
    paths: list[_Path | str],
    rules: NodeRules,
) -> KeyProjections | str:
    of_keys, of_queries = paths
    if isinstance(of_keys, str):
        return f"its keys come {of_keys}"
    if isinstance(of_queries, str):
        return f"its queries come {of_queries}"
    if of_keys.pairs != of_queries.pairs:
        return "its queries and keys have different positions"
    for path in (of_keys, of_queries):
        refusal = rules.refusal(path.projection.layer)
        if refusal:
            return refusal
    layers = of_keys.projection, of_queries.projection
    return KeyProjections(name, keys, axis, shape, repeats, of_keys.pairs, *layers)


def _path(value: ir.Value, reader: ir.Node, heads: int, width: int) -> _Path | str:
    """The projection behind a tensor, or where the tensor comes from in place of one."""
    seen: dict[ir.Node, str] = {}
    ends = _ends(value, width, seen)
    if len(ends) != 1:
        return "from no single projection" if ends else "through operators that a quotient cannot"
    end = ends.pop()
    allowed = {*seen, reader}
    for node in seen:
        for made in node.outputs:
            if made.is_graph_output() or any(u.node not in allowed for u in made.uses()):
                return f"through '{node_label(node)}', which something else reads"
    first = next((n for n in seen if any(v is end for v in n.inputs)), reader)
    projection = layer_of_values(end, first, heads * width, heads)
    if projection is None:
        return "from no product with a constant matrix that nothing else reads"
    pairs = set(seen.values()) - {_NO_PAIRS}
    if len(pairs) > 1:
        return "through two kinds of positions"
    return _Path(projection, pairs.pop() if pairs else _NO_PAIRS)


def _ends(value: ir.Value, width: int, seen: dict[ir.Node, str]) -> set[ir.Value]:
    """The values at which the operators that a quotient passes through begin; {} for others."""
    node = value.producer()
    if node is None or is_constant(value):
        return set()
    if node.op_type == "RotaryEmbedding":
        if int_attribute(node, "rotary_embedding_dim") not in (0, width):
            return set()
        seen[node] = _NEIGHBOURS if int_attribute(node, "interleaved") else _HALVES
        return _further(node.inputs[0], width, seen)
    if node.domain:
        return set()
    if node.op_type in ("MatMul", "Gemm") or _adds_bias(node):
        return {value}
    if node.op_type == "Reshape" or node.op_type in _MOVES:
        seen[node] = _NO_PAIRS
        return _further(node.inputs[0], width, seen)
    if node.op_type not in _LINEAR:
        return set()
    places = [v for v in node.inputs if v is not None]
    if node.op_type in ("Div", "Slice", "Split"):
        places = places[:1]
    ends = [_ends(v, width, seen) for v in places]
    found = set().union(*ends)
    product_of_both = node.op_type == "Mul" and sum(map(bool, ends)) > 1
    if not found or product_of_both:
        return found if not product_of_both else set()
    seen[node] = _pairs_of(node, width)
    return found


def _further(value: ir.Value | None, width: int, seen: dict[ir.Node, str]) -> set[ir.Value]:
    return set() if value is None else _ends(value, width, seen)


def _pairs_of(node: ir.Node, width: int) -> str:
    """Which channels an operator on the last axis moves to each other's place."""
    if node.op_type == "Split":
        return _HALVES
    if node.op_type != "Slice":
        return _NO_PAIRS
    steps = constant_array(node.inputs[4]) if len(node.inputs) > 4 else None  # noqa: PLR2004
    apart = steps is not None and int(steps.reshape(-1)[0]) != 1
    return _NEIGHBOURS if apart else _HALVES


def _adds_bias(node: ir.Node) -> bool:
    """Whether an Add adds a constant vector to a product."""
    if node.op_type != "Add":
        return False
    for i in (0, 1):
        tensor = constant_tensor(node.inputs[i])
        other = node.inputs[1 - i]
        maker = None if other is None else other.producer()
        if tensor is not None and len(tensor.shape) == 1 and maker is not None:
            return maker.op_type == "MatMul"
    return False
