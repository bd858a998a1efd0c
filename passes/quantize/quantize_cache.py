"""Keys and values of the past in 8 or 4 bits, in graphs that take their cache in and give it out.

    past, new -> Concat -> present       becomes

    past_q, s, lo and encode(new) -> three Concat -> present_q, s, lo -> decode -> attention

encode and decode are those of :mod:`qcomp.passes.quantize.token_caches`: a scale and an offset of
16 bits for each token and head. A cache input and its output keep their names and become u8: a
channel a byte, or with ``bits=4`` two, the first half of the channels in the low nibbles. Scales
and offsets are further inputs and outputs, behind all others, of the same names with ``_scale`` and
``_offset`` behind them: float16 with one channel.

Only new tokens are rounded; what came in goes out as it is. Attention reads new tokens rounded as
well, so what is computed does not depend on how a text is cut into steps. A token takes, in each
head, width + 4 or width / 2 + 4 bytes in place of 4 width.

A cache is an input of float32 that is the first part of a Concat along its tokens whose result is
an output. Caches inside of GroupQueryAttention and its like are left, with the reason: those take
integers with one scale for all tokens at most.

Preconditions: opset 18. Needs no calibration. Runs behind what compares outputs with float, because
the graph's inputs are others from here on.
Preserved: nothing exactly.
Cost: linear in the number of nodes; each run decodes the whole cache, four passes over it.
Source: Lin et al. 2024 (QServe), arXiv:2405.04532, section 5.1; Ashkboos et al. 2024 (QuaRot),
arXiv:2404.00456, section 4, stage 2d. The form of the interface is our choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import (
    Editor,
    int_attribute,
    node_label,
    require_opset,
    static_shape,
)
from qcomp.passes.quantize.record import keep_reference, note
from qcomp.passes.quantize.token_caches import CacheWriter, Encoded
from qcomp.passes.quantize.token_scales import ACTIVATION_BITS
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import CachedTensor, FloatOp, StoredCaches, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["QuantizeCache"]

_INNER = {"GroupQueryAttention": 3, "MultiHeadAttention": 6, "Attention": 4}
"""Operators that hold a cache, and the input that brings the keys."""


@dataclass(frozen=True)
class QuantizeCache(GraphPass):
    """Keep keys and values of the past in integers: other inputs and outputs of the graph.

    Attributes:
        bits: Of a channel: 8 or 4.
    """

    name: ClassVar[str] = "quantize-cache"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    bits: Literal[8, 4] = 8

    def __post_init__(self) -> None:
        """Check the option.

        Raises:
            UsageError: Bits that no cache has.
        """
        if self.bits not in ACTIVATION_BITS:
            raise UsageError(f"{self.name}: bits is {self.bits}", hint="bits is one of 8, 4")

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite every cache.

        Raises:
            PassError: An opset that is too old.
        """
        model = program.model
        editor = Editor(model)
        editor.name_nodes()
        keep_reference(program, context)
        rules = rules_of(context)
        writer = _Writer(editor, self.bits, context)
        floats: list[FloatOp] = []
        stored: list[CachedTensor] = []
        for cache in list(_caches(model.graph)):
            node = cache.joined
            reason = rules.refusal(node) or cache.refusal(self.bits)
            if reason:
                floats.append(FloatOp(node_label(node), node.op_type, reason))
                continue
            require_opset(model, 18, "ReduceMax of an axis is from opset 18", context)
            stored.append(cache.account(self.bits))
            writer.rewrite(cache)
        floats += _inner_caches(model.graph)
        note(context, (), floats)
        if stored:
            context.put(StoredCaches(tuple(stored)))
            context.warn(_bytes_text(stored, self.bits))
        else:
            why = floats[0].reason if floats else _none(model.graph)
            context.warn(f"{self.name}: no cache becomes integers: {why}")
        return bool(stored)


@dataclass(frozen=True, slots=True)
class _Cache:
    """Keys or values that come in and go out.

    Attributes:
        past: The input of the graph.
        joined: The Concat.
        tokens: Axis of the tokens.
        channels: Axis of the channels of a head.
    """

    past: ir.Value
    joined: ir.Node
    tokens: int
    channels: int

    def refusal(self, bits: int) -> str:
        """Why it stays in float; "" when it need not."""
        readers = {use.node for use in self.past.uses()} - {self.joined}
        others = {node.op_type for node in readers} - {"Shape"}
        if others:
            return f"its past is read by {', '.join(sorted(others))} as well: it stays in float"
        width = (static_shape(self.past) or ())[self.channels]
        if bits == 4 and (width is None or width % 2):
            known = "not known" if width is None else f"odd ({width})"
            return f"its number of channels is {known}, and a byte holds two: it stays in float"
        return ""

    def account(self, bits: int) -> CachedTensor:
        """What a token of it takes."""
        shape = static_shape(self.past) or ()
        heads = shape[2 if self.tokens == 1 else 1] if len(shape) == 4 else None
        name = self.past.name or ""
        return CachedTensor(node_label(self.joined), name, bits, heads, shape[self.channels])


def _caches(graph: ir.Graph) -> Iterator[_Cache]:
    for past in graph.inputs:
        shape = static_shape(past)
        kind = "" if past.dtype is None else past.dtype.name
        if shape is None or len(shape) < 3 or kind != "FLOAT" or past.is_initializer():
            continue
        for use in past.uses():
            node, index = use.node, use.idx
            if node.op_type != "Concat" or node.domain or index or len(node.inputs) != 2:
                continue
            if node.inputs[1] is past:
                continue
            tokens = int_attribute(node, "axis") % len(shape)
            if node.outputs[0].is_graph_output() and shape[tokens] is None:
                last = len(shape) - 1
                yield _Cache(past, node, tokens, last - 1 if tokens == last else last)


def _inner_caches(graph: ir.Graph) -> Iterator[FloatOp]:
    """Give the operators that hold a cache themselves."""
    for node in graph:
        index = _INNER.get(node.op_type)
        if index is not None and len(node.inputs) > index and node.inputs[index] is not None:
            reason = (
                f"its cache is joined inside of {node.op_type}, which reads no integers with a "
                "scale for each token: it stays in float"
            )
            yield FloatOp(node_label(node), node.op_type, reason)


def _none(graph: ir.Graph) -> str:
    for node in graph:
        came = node.inputs[0] if node.op_type == "Concat" and node.inputs else None
        if came is not None and came.is_graph_input() and came.dtype is not None:
            if came.dtype.name == "UINT8" and node.outputs[0].is_graph_output():
                return "it holds integers already"
    return (
        "no input of float32 is continued by a Concat along its tokens whose result is an output; "
        "export the model with its past (past_key_values)"
    )


def _bytes_text(stored: list[CachedTensor], bits: int) -> str:
    text = f"{len(stored)} tensors of the cache come in and go out in {bits} bits"
    sizes = [(each.bytes, each.float_bytes) for each in stored]
    if any(small is None for small, _ in sizes):
        return f"{text}; the graph does not say their shapes"
    small, large = (sum(n or 0 for n in column) for column in zip(*sizes, strict=True))
    return f"{text}: they take {small} bytes a token, {large} in float32"


class _Writer:
    """Rewrites caches of one graph."""

    def __init__(self, editor: Editor, bits: int, context: Context) -> None:
        self._editor, self._bits = editor, bits
        self._rounding = CacheWriter(editor, bits, context)
        self._fixed: dict[str, ir.Value] = {}

    def rewrite(self, cache: _Cache) -> None:
        """Make a cache integers."""
        node, axis = cache.joined, cache.channels
        new, present = node.inputs[1], node.outputs[0]
        assert new is not None
        readers = [(use.node, use.idx) for use in present.uses()]
        rank = len(static_shape(cache.past) or ())
        if self._bits == 4:
            self._keep_shapes(cache, rank)
        encoded = self._rounding.encode(new, axis - rank, node)
        levels = encoded.levels if self._bits == 8 else self._packed(encoded.levels, axis, node)
        node.replace_input_with(1, levels)
        scale = self._further(cache, "scale", encoded.scale)
        offset = self._further(cache, "offset", encoded.offset)
        for value in (cache.past, present):
            _retype(value, "UINT8", axis, self._bits)
        if not readers:
            return
        order = list(self._editor.graph)
        first = order[order.index(node) + 1]
        whole = present if self._bits == 8 else self._unpacked(present, axis, first)
        name = present.name or "present"
        real = self._rounding.decode(Encoded(whole, scale, offset), name, first)
        for reader, index in readers:
            reader.replace_input_with(index, real)

    def _further(self, cache: _Cache, part: str, fresh: ir.Value) -> ir.Value:
        """Let scales or offsets come in and go out; returns those of all tokens."""
        import onnx_ir as ir

        past, present, graph = cache.past, cache.joined.outputs[0], self._editor.graph
        came = ir.Value(
            name=self._editor.fresh(f"{past.name}_{part}"),
            type=past.type,
            shape=None if past.shape is None else past.shape.copy(),
        )
        graph.inputs.append(came)
        name = f"{present.name}_{part}"
        goes = self._editor.node(
            "Concat",
            [came, fresh],
            {"axis": cache.tokens},
            name=f"{name}_Concat",
            outputs=[name],
            before=cache.joined,
        ).outputs[0]
        goes.type, goes.shape = present.type, present.shape and present.shape.copy()
        graph.outputs.append(goes)
        for value in (came, goes):
            _retype(value, "FLOAT16", cache.channels, 0)
        return goes

    def _keep_shapes(self, cache: _Cache, rank: int) -> None:
        """Let those that ask for the past's shape see as many channels as before."""
        for node in [use.node for use in cache.past.uses() if use.node.op_type == "Shape"]:
            factors = np.ones(rank, np.int64)
            factors[cache.channels] = 2
            start, end = int_attribute(node, "start"), int_attribute(node, "end", rank)
            factor = self._editor.initializer("cache_factors", factors[start:end])
            name = node_label(node)
            stored = self._editor.node(
                "Shape", [cache.past], {"start": start, "end": end}, name=name, before=node
            )
            whole = [stored.outputs[0], factor]
            mended = self._editor.node("Mul", whole, name=f"{name}_channels", before=node)
            self._editor.replace_value(node.outputs[0], mended.outputs[0])
            self._editor.remove(node)

    def _packed(self, levels: ir.Value, axis: int, before: ir.Node) -> ir.Value:
        """Two halves of the channels in one byte."""
        name = levels.name
        halves = self._editor.node(
            "Split",
            [levels],
            {"axis": axis, "num_outputs": 2},
            name=f"{name}_Split",
            outputs=[f"{name}_low", f"{name}_high"],
            before=before,
        ).outputs
        shift = self._constant("four", 4)
        high = self._editor.node(
            "BitShift",
            [halves[1], shift],
            {"direction": "LEFT"},
            name=f"{name}_BitShift",
            before=before,
        ).outputs[0]
        return self._editor.node(
            "BitwiseOr", [halves[0], high], name=f"{name}_BitwiseOr", before=before
        ).outputs[0]

    def _unpacked(self, packed: ir.Value, axis: int, before: ir.Node) -> ir.Value:
        """The bytes' two halves side by side."""
        name, make = packed.name, self._editor.node
        mask, shift = self._constant("fifteen", 15), self._constant("four", 4)
        low = make("BitwiseAnd", [packed, mask], name=f"{name}_BitwiseAnd", before=before)
        high = make(
            "BitShift",
            [packed, shift],
            {"direction": "RIGHT"},
            name=f"{name}_BitShift",
            before=before,
        )
        both = [low.outputs[0], high.outputs[0]]
        return make("Concat", both, {"axis": axis}, name=f"{name}_levels", before=before).outputs[0]

    def _constant(self, name: str, number: int) -> ir.Value:
        if name not in self._fixed:
            self._fixed[name] = self._editor.initializer(
                f"cache_{name}", np.array(number, np.uint8)
            )
        return self._fixed[name]


def _retype(value: ir.Value, kind: str, axis: int, bits: int) -> None:
    """Give a cache's value its type, with two channels a byte at 4 bits and one channel at 0."""
    import onnx_ir as ir

    value.type = ir.TensorType(ir.DataType[kind])
    shape = value.shape
    if shape is None or bits == 8:
        return
    dims = list(shape)
    width = dims[axis]
    if bits == 0:
        dims[axis] = 1
    elif isinstance(width, int):
        dims[axis] = width // 2
    value.shape = ir.Shape(dims)
