"""Keys and values of attention in 8 or 4 bits, a scale and an offset for each token and head.

    lo = f16(min x),  s = f16((max x - min x) / (2^bits - 1)),  q = clip(round((x - lo) / s)),
    x^ = q s + lo,    minimum and maximum over the channels of one head of one token

Keys are taken behind rotary positions, and both where a cache would hold them: before heads are
repeated for several queries. The graph computes x^ in front of the attention's products, by
standard operators; q is in [0, 2^bits - 1], so what a cache would hold are bits / 8 bytes a channel
and 4 bytes a token and head. Graphs that carry their cache as inputs hold it as it came: there
nothing is rounded, and the reason is listed; ``quantize-cache`` makes these inputs integers.

Source: Lin et al. 2024 (QServe), arXiv:2405.04532, section 5.1 (dynamic, a scale and zero point of
16 bits a token and head); Ashkboos et al. 2024 (QuaRot), arXiv:2404.00456, section 4, stage 2d. A
zero point that is a real number, the minimum, is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from qcomp.passes.graph.rewriting import (
    Editor,
    int_attribute,
    node_label,
    require_opset,
    static_shape,
)
from qcomp.passes.graph.written_attention import head_shape, kept_value, written_attentions
from qcomp.quantization import CachedTensor, TokenCaches

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passmanager import Context
    from qcomp.quantization import NodeRules

__all__ = ["CacheWriter", "Encoded", "RoundedCaches", "round_caches"]

_LARGEST = np.float32(np.finfo(np.float16).max)
_LEAST = np.float32(2.0**-24)
"""The smallest number of 16 bits above 0."""

_INNER = "its keys and values are rotated, cached or biased inside of it: they stay in float"
_HEADS = {
    ("com.microsoft", "MultiHeadAttention"): "num_heads",
    ("", "Attention"): "kv_num_heads",
}


class _Make(Protocol):
    """Insert an operator; returns its result."""

    def __call__(
        self, kind: str, inputs: list[ir.Value], wish: str, **attributes: int
    ) -> ir.Value: ...


@dataclass(slots=True)
class RoundedCaches:
    """What was rounded.

    Attributes:
        reasons: Operator of an attention -> what became of what it reads.
        tensors: Keys and values that are rounded.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    tensors: list[CachedTensor] = field(default_factory=list)


def round_caches(editor: Editor, bits: int, rules: NodeRules, context: Context) -> RoundedCaches:
    """Round keys and values of the attentions of a graph.

    Args:
        editor: Of the graph.
        bits: 8 or 4.
        rules: Attentions that are excluded stay as they are.
        context: Takes the fact :class:`qcomp.quantization.TokenCaches`, and a warning with bytes.
    """
    result = RoundedCaches()
    writer = CacheWriter(editor, bits, context)
    for found in list(written_attentions(editor.graph)):
        for keys, node in ((True, found.scores), (False, found.mixed)):
            kept = kept_value(node, keys)
            what = "keys" if keys else "values"
            done = _rounded_already(kept.value)
            refusal = rules.refusal(node) or done or _from_cache(kept.value, what)
            if refusal:
                result.reasons[node_label(node)] = refusal
                continue
            shape = head_shape(kept.value) or ()
            heads, width = (shape[1], shape[kept.axis]) if len(shape) == 4 else (None, None)
            kept.reader.replace_input_with(
                kept.index, writer.add(kept.value, kept.axis, kept.reader)
            )
            result.tensors.append(CachedTensor(node_label(node), what, bits, heads, width))
            result.reasons[node_label(node)] = (
                f"its {what} are rounded to {bits} bits a token and head; the product is in float"
            )
    for node in list(editor.graph):
        attribute = _HEADS.get((node.domain, node.op_type))
        if attribute is not None:
            _fused(node, attribute, writer, rules, result)
        elif node.op_type == "GroupQueryAttention":
            result.reasons[node_label(node)] = rules.refusal(node) or _INNER
    if result.tensors:
        context.put(TokenCaches(tuple(result.tensors)))
        context.warn(_bytes_text(result.tensors, bits))
    else:
        why = next(iter(result.reasons.values()), "no attention was found")
        context.warn(f"kv={bits}: no keys and values are rounded: {why}")
    return result


def _fused(
    node: ir.Node, attribute: str, writer: CacheWriter, rules: NodeRules, result: RoundedCaches
) -> None:
    """Round the keys and values that an operator reads which is a whole attention."""
    label, heads = node_label(node), int_attribute(node, attribute)
    inner = {"MultiHeadAttention": (3, 6, 7), "Attention": (4, 5)}[node.op_type]
    inside = any(i < len(node.inputs) and node.inputs[i] is not None for i in inner)
    read = [node.inputs[i] if i < len(node.inputs) else None for i in (1, 2)]
    ranks = {len(v.shape) if v is not None and v.shape is not None else 0 for v in read}
    refusal = rules.refusal(node) or (_INNER if inside else "")
    if not refusal and (ranks not in ({3}, {4}) or (ranks == {3} and heads < 1)):
        refusal = "the axes of its keys and values are not known: they stay in float"
    values = [v for v in read if v is not None]
    refusal = refusal or next(filter(None, map(_rounded_already, values)), "")
    if refusal:
        result.reasons[label] = refusal
        return
    for index, what, value in zip((1, 2), ("keys", "values"), values, strict=True):
        width = (static_shape(value) or (None,))[-1]
        if ranks == {4}:
            rounded = writer.add(value, -1, node)
            each = (static_shape(value) or (None,) * 4)[1]
        else:
            rounded, each = writer.add_joined(value, heads, node), heads
            width = None if width is None else width // heads
        node.replace_input_with(index, rounded)
        result.tensors.append(CachedTensor(label, what, writer.bits, each, width))
    result.reasons[label] = (
        f"its keys and values are rounded to {writer.bits} bits a token and head; attention is "
        "computed in float"
    )


def _bytes_text(tensors: list[CachedTensor], bits: int) -> str:
    known = [t for t in tensors if t.bytes is not None]
    text = f"{len(tensors)} tensors of keys and values are rounded to {bits} bits a token and head"
    if len(known) < len(tensors):
        return f"{text}; the graph does not say their shapes"
    small, large = (sum(n or 0 for n in sizes) for sizes in zip(*_sizes(known), strict=True))
    return f"{text}: a cache of them would take {small} bytes a token, one of float32 {large}"


def _sizes(tensors: list[CachedTensor]) -> list[tuple[int | None, int | None]]:
    return [(tensor.bytes, tensor.float_bytes) for tensor in tensors]


def _from_cache(value: ir.Value, what: str) -> str:
    """Say that keys or values come from a cache that is an input of the graph."""
    if _stored(value):
        return f"its {what} come from a cache of integers"
    node = value.producer()
    parts = () if node is None or node.op_type != "Concat" else node.inputs
    if value.is_graph_input() or any(v is not None and v.is_graph_input() for v in parts):
        return f"its {what} come from a cache that the graph takes in as it is"
    return ""


def _stored(value: ir.Value) -> bool:
    """Whether a value is a cache that ``quantize-cache`` made integers."""
    for kind in ("Add", "Mul", "Cast"):
        node = value.producer()
        if node is None or node.op_type != kind or node.inputs[0] is None:
            return False
        value = node.inputs[0]
    node = value.producer()
    return (
        value.dtype is not None
        and value.dtype.name == "UINT8"
        and node is not None
        and node.op_type == "Concat"
    )


def _rounded_already(value: ir.Value) -> str:
    """Say that a value has been rounded by this pass before."""
    for kind in ("Reshape", "Add", "Mul", "Cast", "Cast"):
        node = value.producer()
        if kind == "Reshape" and (node is None or node.op_type != "Reshape"):
            continue
        if node is None or node.op_type != kind or node.inputs[0] is None:
            return ""
        value = node.inputs[0]
    dtype = None if value.dtype is None else value.dtype.name
    clip = value.producer()
    rounded = clip is not None and clip.op_type == "Clip" and dtype in (None, "FLOAT")
    return "already rounded a token and head" if rounded else ""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Keys or values in integers.

    Attributes:
        levels: q, u8, of the shape of what was rounded.
        scale: s, f16, with one channel.
        offset: lo, f16, with one channel.
    """

    levels: ir.Value
    scale: ir.Value
    offset: ir.Value


class CacheWriter:
    """Writes the operators that round; what two attentions read is rounded once.

    Args:
        editor: Of the graph.
        bits: 8 or 4.
        context: Knows why an opset was not raised.
    """

    def __init__(self, editor: Editor, bits: int, context: Context) -> None:
        self._editor, self.bits, self._context = editor, bits, context
        self._fixed: dict[tuple[str, int], ir.Value] = {}
        self._done: dict[tuple[ir.Value, int], ir.Value] = {}

    def encode(self, x: ir.Value, axis: int, before: ir.Node) -> Encoded:
        """Compute the integers of a tensor whose channels lie along an axis."""
        require_opset(
            self._editor.model, 18, "ReduceMax of an axis is from opset 18", self._context
        )
        make = self._maker(x.name or "x", before)
        axes = self._constant("axis", np.array([axis]))
        far = [self._constant("low", -_LARGEST), self._constant("high", _LARGEST)]
        inside = make("Clip", [x, *far], "_inside")
        lowest = make("ReduceMin", [inside, axes], "_least", keepdims=1)
        span = make(
            "Sub", [make("ReduceMax", [inside, axes], "_most", keepdims=1), lowest], "_span"
        )
        top = self._constant("top", np.float32((1 << self.bits) - 1))
        step = make("Div", [span, top], "_step")
        above = make("Max", [step, self._constant("least", _LEAST)], "_step_above")
        scale = make("Cast", [above], "_scale_half", to=10)
        offset = make("Cast", [lowest], "_offset_half", to=10)
        step, lowest = (
            make("Cast", [scale], "_scale", to=1),
            make("Cast", [offset], "_offset", to=1),
        )
        steps = make("Div", [make("Sub", [inside, lowest], "_above"), step], "_steps")
        ends = [self._constant("nothing", np.float32(0)), top]
        q = make("Clip", [make("Round", [steps], "_round"), *ends], "_clip")
        return Encoded(make("Cast", [q], "_levels", to=2), scale, offset)

    def decode(self, stored: Encoded, name: str, before: ir.Node) -> ir.Value:
        """Compute q s + lo, float32, under a name made from ``name``."""
        make = self._maker(name, before)
        step = make("Cast", [stored.scale], "_real_scale", to=1)
        lowest = make("Cast", [stored.offset], "_real_offset", to=1)
        real = make("Cast", [stored.levels], "_level", to=1)
        return make("Add", [make("Mul", [real, step], "_scaled"), lowest], "")

    def add(self, x: ir.Value, axis: int, before: ir.Node) -> ir.Value:
        """Round a tensor whose channels lie along an axis."""
        if (x, axis) not in self._done:
            result = self.decode(self.encode(x, axis, before), x.name or "x", before)
            result.type, result.shape = x.type, x.shape
            self._done[x, axis] = result
        return self._done[x, axis]

    def add_joined(self, x: ir.Value, heads: int, before: ir.Node) -> ir.Value:
        """Round a tensor [batch, tokens, heads x channels]."""
        name = x.name or "x"
        apart, joined = (np.array(n) for n in ((0, 0, heads, -1), (0, 0, -1)))
        split = self._editor.node(
            "Reshape",
            [x, self._constant("apart", apart)],
            name=f"{name}_cache_heads",
            before=before,
        )
        rounded = self.add(split.outputs[0], -1, before)
        made = self._editor.node(
            "Reshape",
            [rounded, self._constant("joined", joined)],
            name=f"{name}_cache_joined",
            before=before,
        ).outputs[0]
        made.type, made.shape = x.type, x.shape
        return made

    def _constant(self, what: str, number: np.generic | np.ndarray) -> ir.Value:
        key = (what, int(np.asarray(number).reshape(-1)[-2 if what == "apart" else -1]))
        if key not in self._fixed:
            self._fixed[key] = self._editor.initializer(f"cache_{what}", np.asarray(number))
        return self._fixed[key]

    def _maker(self, name: str, before: ir.Node) -> _Make:
        """What inserts operators that are named after a tensor."""

        def make(kind: str, inputs: list[ir.Value], wish: str, **attributes: int) -> ir.Value:
            node = self._editor.node(
                kind,
                inputs,
                attributes,
                name=f"{name}_cache{wish}_{kind}",
                outputs=[f"{name}_cache{wish}"],
                before=before,
            )
            return node.outputs[0]

        return make
