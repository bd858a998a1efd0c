"""The residual stream of a pre-norm network: what every block adds to and every block reads.

    x_0 = E[ids],     x_i+1 = x_i + f_i(norm_i(x_i)) W_i,     y = norm(x_n) W_head

Found are all values that have to turn together when x becomes x R: from one normalization the
search goes up through Add to the writers (lookups in constant tables, products with constant
weights, a convolution as the stem, constants) and down to the readers (products with constant
weights, of the stream or of a normalization of it). Operators that leave the last axis alone are
passed through. Anything else that makes or reads the stream ends the search: the graph is refused
with that operator's name.

A normalization whose result is part of the stream again (post-norm, as in BERT) or is added to it
(sandwich norm, as in Gemma 2) scales each channel by itself, which no rotation commutes with:

    norm(x R) = norm(x) R,     but     (norm(x) * gain) R != norm(x R) * gain

Cost: linear in the operators on the stream, for each normalization that the search begins at.
Source: Ashkboos et al. 2024, arXiv:2401.15024 (SliceGPT), section 3; arXiv:2404.00456.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from qcomp.node_rules import NodeRules
from qcomp.passes.calibrate.smoothing_places import bias_place
from qcomp.passes.graph.norms import Norm, find_norms
from qcomp.passes.graph.rewriting import (
    constant_array,
    constant_tensor,
    int_attribute,
    ints_attribute,
    is_constant,
    node_label,
    only_use,
    static_shape,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Reader", "Refusal", "ResidualStream", "find_residual_stream", "reduced_axis"]

_FUSED = {"SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no stream to turn.

    Attributes:
        where: The operator at which the search ended.
        why: The reason.
    """

    where: str
    why: str


@dataclass(frozen=True, slots=True)
class Reader:
    """A product that reads the stream.

    Attributes:
        layer: MatMul or Gemm with a constant weight.
        norm: The normalization between; None where it reads the stream itself.
    """

    layer: ir.Node
    norm: Norm | None


@dataclass(slots=True)
class ResidualStream:
    """What turns together, in the order in which it was found.

    Attributes:
        width: Channels.
        tables: Gather nodes whose table's rows enter the stream.
        stems: Conv nodes whose channels a Transpose makes its last axis.
        writers: MatMul and Gemm nodes whose results enter it.
        constants: Nodes with the inputs that hold constants added to it.
        norms: The normalizations that read it.
        readers: The products that read these, or the stream itself.
        sums: Additions of two computed values.
    """

    width: int
    tables: list[ir.Node] = field(default_factory=list)
    stems: list[ir.Node] = field(default_factory=list)
    writers: list[ir.Node] = field(default_factory=list)
    constants: list[tuple[ir.Node, int]] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    sums: list[ir.Node] = field(default_factory=list)


def find_residual_stream(
    graph: ir.Graph, rules: NodeRules | None = None, beside: Collection[str] = ()
) -> ResidualStream | Refusal:
    """Return the stream of the last normalization that has one, or why the last has none.

    Args:
        graph: The main graph; weights are constants.
        rules: What the user asks of operators: one that is excluded keeps its weight.
        beside: Names of normalizations on streams that are known already.
    """
    norms = find_norms(graph)
    first: Refusal | None = None
    for norm in reversed(norms):
        if norm.name in beside:
            continue
        search = _Search(norm, norms, rules or NodeRules())
        try:
            return search.run()
        except _Refused as reason:
            first = first or reason.refusal
    if first is not None:
        return first
    for node in graph:
        if node.op_type in _FUSED:
            return Refusal(node_label(node), f"{node.op_type} adds and normalizes in one operator")
    return Refusal("", "there is no normalization over the last axis with constant gains")


def reduced_axis(layer: ir.Node) -> int:
    """The axis of a MatMul's or Gemm's weight that the product sums over."""
    return 1 if layer.op_type == "Gemm" and int_attribute(layer, "transB") else 0


class _Refused(Exception):  # noqa: N818 - a way out of the search, no error
    def __init__(self, node: ir.Node | str, why: str) -> None:
        where = node if isinstance(node, str) else node_label(node)
        self.refusal = Refusal(where, why)
        super().__init__(why)


class _Search:
    """One search, begun at what one normalization reads."""

    def __init__(self, start: Norm, norms: list[Norm], rules: NodeRules) -> None:
        self._rules = rules
        self._start = start
        self._graph = next(iter(start.nodes)).graph
        self._by_source: dict[ir.Value, list[Norm]] = {}
        self._by_result = {norm.result: norm for norm in norms}
        for norm in norms:
            self._by_source.setdefault(norm.source, []).append(norm)
        self._seen: set[ir.Value] = set()
        self._read: set[ir.Value] = set()
        self._waiting: list[ir.Value] = []
        self._stream = ResidualStream(_width(start))

    def run(self) -> ResidualStream:
        """Follow the stream to its ends, up first: what makes it tells more about it.

        Raises:
            _Refused: Something on it cannot turn.
        """
        self._meet(self._start.source)
        made: list[ir.Value] = []
        while self._waiting or made:
            if self._waiting:
                value = self._waiting.pop()
                self._go_up(value)
                made.append(value)
                continue
            value = made.pop()
            if value.is_graph_output():
                raise _Refused(value.name or "", "the stream itself is an output of the graph")
            self._go_down(value)
        found = self._stream
        if not found.sums:
            raise _Refused(self._start.name, "nothing is added to what it normalizes")
        return found

    def _meet(self, value: ir.Value | None) -> None:
        if value is not None and value not in self._seen:
            self._seen.add(value)
            self._waiting.append(value)

    def _go_up(self, value: ir.Value) -> None:
        node = value.producer()
        norm = self._by_result.get(value)
        if norm is not None:
            why = (
                "its result is part of the stream (post-norm or sandwich norm), and its gains scale"
            )
            raise _Refused(norm.name, f"{why} single channels")
        if node is None:
            raise _Refused(value.name or "", "the stream begins at an input of the graph")
        if node.op_type in ("Add", "Sum") and not node.domain:
            self._add(node)
        elif _is_layer(node):
            self._writer(node)
        elif node.op_type == "Gather" and constant_tensor(node.inputs[0]) is not None:
            tensor = constant_tensor(node.inputs[0])
            assert tensor is not None
            if int_attribute(node, "axis") != 0 or len(tensor.shape) != 2:
                raise _Refused(node, "it looks up no rows of a matrix")
            self._check(node, tuple(tensor.shape.numpy())[1], tensor)
            if node not in self._stream.tables:
                self._stream.tables.append(node)
        elif (stem := _stem(node)) is not None:
            self._stem(stem)
        elif node.op_type == "Expand" or _passes(node):
            self._through(node)
        else:
            raise _Refused(node, f"{node.op_type} writes the stream; it is no product or lookup")

    def _go_down(self, value: ir.Value) -> None:
        norms = self._by_source.get(value, [])
        inside = frozenset[object]().union(*(norm.nodes for norm in norms))
        for norm in norms:
            self._norm(norm, inside)
        for usage in value.uses():
            node = usage.node
            if node in inside or node.op_type == "Shape":
                continue
            self._check_graph(node)
            if node.op_type in ("Add", "Sum") and not node.domain:
                self._meet(node.outputs[0])
            elif _is_layer(node) and usage.idx == 0:
                self._reader(node, None)
            elif _passes(node) and usage.idx in _data_inputs(node):
                self._meet(node.outputs[0])
            else:
                raise _Refused(node, f"{node.op_type} reads the stream without a normalization")

    def _norm(self, norm: Norm, inside: frozenset[object]) -> None:
        if norm in self._stream.norms:
            return
        for node in norm.nodes:
            for value in node.outputs:
                if value is norm.result:
                    continue
                if value.is_graph_output() or any(use.node not in inside for use in value.uses()):
                    raise _Refused(norm.name, "its inner values are read by other operators")
        for place in (norm.gain, norm.bias):
            array = None if place is None else constant_array(place[0].inputs[place[1]])
            if array is not None and array.size != self._stream.width:
                raise _Refused(norm.name, f"it has {array.size} gains for {self._stream.width}")
        self._stream.norms.append(norm)
        waiting = [norm.result]
        while waiting:
            value = waiting.pop()
            if value.is_graph_output():
                raise _Refused(norm.name, "its result is an output of the graph")
            self._read.add(value)
            for usage in value.uses():
                node = usage.node
                if node.op_type == "Shape":
                    continue
                self._check_graph(node)
                if _is_layer(node) and usage.idx == 0:
                    self._reader(node, norm)
                elif _moves(node) and usage.idx == 0:
                    if node.outputs[0] not in self._read:
                        waiting.append(node.outputs[0])
                else:
                    raise _Refused(node, f"{node.op_type} reads '{norm.name}', no product does")

    def _add(self, node: ir.Node) -> None:
        computed = 0
        for index, value in enumerate(node.inputs):
            array = constant_array(value)
            if array is None:
                self._meet(value)
                computed += 1
            elif (node, index) not in self._stream.constants:
                if array.size != 1 and array.shape[-1] != self._stream.width:
                    raise _Refused(node, f"it adds a constant of shape {list(array.shape)}")
                self._stream.constants.append((node, index))
        if computed > 1 and node not in self._stream.sums:
            self._stream.sums.append(node)

    def _writer(self, node: ir.Node) -> None:
        tensor = constant_tensor(node.inputs[1])
        assert tensor is not None
        self._check(node, tuple(tensor.shape.numpy())[1 - reduced_axis(node)], tensor)
        if node in self._stream.writers:
            return
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None:
            array = constant_array(bias)
            if array is None:
                raise _Refused(node, "its bias is computed")
            if array.size != 1 and array.shape[-1] != self._stream.width:
                raise _Refused(node, f"its bias has the shape {list(array.shape)}")
            self._stream.constants.append((node, 2))
        self._stream.writers.append(node)

    def _stem(self, conv: ir.Node) -> None:
        tensor = constant_tensor(conv.inputs[1])
        assert tensor is not None
        channels, *_ = tensor.shape.numpy()
        self._check(conv, channels, tensor)
        if conv not in self._stream.stems:
            self._stream.stems.append(conv)
            if len(conv.inputs) > 2 and conv.inputs[2] is not None:
                self._stream.constants.append((conv, 2))

    def _reader(self, node: ir.Node, norm: Norm | None) -> None:
        tensor = constant_tensor(node.inputs[1])
        assert tensor is not None
        inner = reduced_axis(node)
        shape = tuple(tensor.shape.numpy())
        self._check(node, shape[inner], tensor)
        if (
            norm is not None
            and norm.bias is not None
            and bias_place(node, shape[1 - inner]) is None
        ):
            raise _Refused(node, "it has no place for the bias of the normalization before it")
        self._stream.readers.append(Reader(node, norm))

    def _through(self, node: ir.Node) -> None:
        """Go up through an operator that leaves the last axis alone."""
        for index in _data_inputs(node):
            value = node.inputs[index]
            array = constant_array(value)
            if array is None:
                self._meet(value)
            elif array.shape[-1:] != (self._stream.width,):
                raise _Refused(node, f"it holds a constant of shape {list(array.shape)}")
            elif (node, index) not in self._stream.constants:
                self._stream.constants.append((node, index))

    def _check_graph(self, node: ir.Node) -> None:
        if node.graph is not self._graph:
            raise _Refused(node, "it reads the stream from inside of an If, Loop or Scan")

    def _check(self, node: ir.Node, width: int, tensor: ir.TensorProtocol) -> None:
        options = self._rules.options(node)
        if options.excluded:
            raise _Refused(node, f"its weight has to turn, and it is {options.reason}")
        if tensor.dtype.name != "FLOAT":
            raise _Refused(node, f"its weight is {tensor.dtype.name.lower()}, not float32")
        if width != self._stream.width:
            raise _Refused(
                node, f"its weight has {width} channels, the stream {self._stream.width}"
            )


def _width(norm: Norm) -> int:
    """Channels that a normalization reads; 0 where they are not known."""
    if norm.gain is not None:
        array = constant_array(norm.gain[0].inputs[norm.gain[1]])
        if array is not None:
            return int(array.size)
    shape = static_shape(norm.source)
    return (shape[-1] or 0) if shape else 0


def _is_layer(node: ir.Node) -> bool:
    if node.domain or node.op_type not in ("MatMul", "Gemm") or len(node.inputs) < 2:
        return False
    tensor = constant_tensor(node.inputs[1])
    return tensor is not None and len(tensor.shape) == 2 and not int_attribute(node, "transA")


def _stem(node: ir.Node) -> ir.Node | None:
    """The Conv whose channels a Transpose, with a Reshape before it or not, makes the last axis."""
    order = ints_attribute(node, "perm")
    value = node.inputs[0] if node.op_type == "Transpose" and order[-1:] == (1,) else None
    if value is None or only_use(value) is not node:
        return None
    maker = value.producer()
    if maker is not None and maker.op_type == "Reshape" and maker.inputs[0] is not None:
        before, after, into = maker.inputs[0].shape, value.shape, constant_array(maker.inputs[1])
        if before is None or after is None or into is None or len(after) != 3:
            return None
        kept = into.reshape(-1)[0] == 0 or (isinstance(before[0], int) and before[0] == after[0])
        if not kept or before[1] != after[1] or only_use(maker.inputs[0]) is not maker:
            return None
        maker = maker.inputs[0].producer()
    if maker is None or maker.domain or maker.op_type != "Conv":
        return None
    constant = all(is_constant(value) for value in maker.inputs[1:] if value is not None)
    return maker if constant and int_attribute(maker, "group", 1) == 1 else None


def _data_inputs(node: ir.Node) -> range:
    """Which inputs of an operator that passes the last axis on hold it."""
    if node.op_type == "Concat":
        return range(len(node.inputs))
    if node.op_type == "Mul":
        return range(1) if _is_scale(node.inputs[1]) else range(1, 2)
    return range(1)


def _passes(node: ir.Node) -> bool:
    """Whether an operator maps x R to y R when it maps x to y."""
    if _moves(node):
        return True
    if node.domain:
        return False
    if node.op_type == "Mul":
        return any(_is_scale(value) for value in node.inputs)
    return node.op_type == "Concat" and not _is_last(node, int_attribute(node, "axis"))


def _is_scale(value: ir.Value | None) -> bool:
    """Whether a value is the same for all channels."""
    array = constant_array(value)
    if array is not None:
        return array.size == 1
    shape = static_shape(value)
    return shape is not None and bool(shape) and shape[-1] == 1


def _moves(node: ir.Node) -> bool:
    """Whether an operator chooses or moves rows and leaves each as it is."""
    if node.domain:
        return False
    op = node.op_type
    if op in ("Identity", "Dropout"):
        return True
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if op == "Reshape":
        return bool(before and after and before[-1] is not None and before[-1] == after[-1])
    if op == "Transpose":
        order = ints_attribute(node, "perm")
        return bool(order) and order[-1] == len(order) - 1
    if op in ("Gather", "GatherND"):
        return op == "Gather" and not _is_last(node, int_attribute(node, "axis"))
    if op in ("Slice", "Unsqueeze", "Squeeze"):
        axes = (
            constant_array(node.inputs[3 if op == "Slice" else 1]) if len(node.inputs) > 1 else None
        )
        if axes is None or before is None or after is None or len(before) < 2:
            return False
        rank = max(len(before), len(after))
        return all(int(a) % rank != rank - 1 for a in axes.astype(np.int64).reshape(-1))
    return False


def _is_last(node: ir.Node, axis: int) -> bool:
    """Whether an axis is the last of what a node reads, or may be."""
    shape = static_shape(node.inputs[0])
    if shape is None:
        return axis == -1 or axis >= 0
    return axis % len(shape) == len(shape) - 1
