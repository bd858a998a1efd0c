"""Neurons of like spread side by side, where the layers that read them can follow.

    W2 f(W1 x + b)  =  (W2 P^T) f(P W1 x + P b),      P a permutation, f value by value

The neurons of a layer are put in order of the spread |w_n| of their weights; of layers that meet
value by value (gate and up of a gated unit) in the order of the product of their spreads. Between
the layer and its readers there may be additions and products with constants or with each other, and
functions of single values. Where anything else reads the neurons (heads of attention, a residual
stream, an output of the graph), they stay as they are.

What it is good for: codebooks that neighbouring neurons share need no number a neuron (``jlcm``,
which finds in the context which weights were sorted).

Preconditions: the weights are float constants of MatMul or Gemm that nothing else reads.
Preserved: the function; sums over neurons take another order.
Cost: linear in the weights.
Source: Yvinec, Dapogny and Bailly 2023, arXiv:2309.17361, abstract: 'group similarly distributed
neurons and leverage the re-ordered structure ... without any mapping overhead'.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.node_rules import rules_of
from qcomp.passes.graph.rewriting import constant_array, int_attribute
from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["SortNeurons", "SortedNeurons"]

_LAYERS = ("Gemm", "MatMul")
_SINGLE = frozenset(
    "Abs Cast Clip Elu Erf Exp Gelu HardSigmoid HardSwish Identity LeakyRelu Mish Neg QuickGelu "
    "Relu Selu Sigmoid Softplus Softsign Sqrt Tanh".split()
)
"""Functions of single values; what further inputs they have are scalars."""

_PAIRED = frozenset(["Add", "Div", "Max", "Min", "Mul", "Pow", "Sub", "Sum"])


@dataclass(frozen=True, slots=True)
class SortedNeurons:
    """Weights whose output channels ``sort-neurons`` has put in order, by name."""

    weights: frozenset[str]


@dataclass(slots=True)
class _Region:
    """Values that are permuted together.

    Attributes:
        makers: Layers whose output channels move.
        readers: Layers whose input channels follow.
        constants: Vectors that follow, along their last axis.
    """

    makers: dict[ir.Node, None] = field(default_factory=dict)
    readers: dict[ir.Node, None] = field(default_factory=dict)
    constants: dict[ir.Value, None] = field(default_factory=dict)


@dataclass(frozen=True)
class SortNeurons(GraphPass):
    """Put the neurons of a layer in order of their spread where only layers read them."""

    name: ClassVar[str] = "sort-neurons"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    def run(self, program: Program, context: Context) -> bool:
        """Permute what can be; return whether anything moved."""
        graph, rules = program.model.graph, rules_of(context)
        kept = {node for node in graph if rules.options(node).excluded}
        done: set[ir.Node] = set()
        names: set[str] = set()
        changed = False
        for node in graph:
            if node in done or node.domain or node.op_type not in _LAYERS:
                continue
            region = _region(node, kept)
            if region is None:
                continue
            done.update(region.makers)
            changed = _sort(region) or changed
            names.update(_weight(maker).name or "" for maker in region.makers)
        before = context.get(SortedNeurons)
        context.put(SortedNeurons(frozenset(names | (before.weights if before else set()))))
        return changed


def _region(layer: ir.Node, kept: set[ir.Node]) -> _Region | None:
    """All that a permutation of a layer's neurons moves; None where it cannot be done."""
    weight = _own_matrix(layer)
    if weight is None:
        return None
    count = _matrix(layer).shape[0]
    region = _Region()
    seen: set[ir.Value] = set()
    stack = [layer.outputs[0]]
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        maker = value.producer()
        if maker is None or maker in kept or value.is_graph_output():
            return None
        if maker.op_type in _LAYERS and not maker.domain:
            if _own_matrix(maker) is None or _matrix(maker).shape[0] != count:
                return None
            region.makers[maker] = None
            bias = maker.inputs[2] if len(maker.inputs) > 2 else None
            if bias is not None and not _follows(bias, count, region):
                return None
        elif not _passes_on(maker, seen, stack, count, region):
            return None
        for usage in value.uses():
            user = usage.node
            if user in kept or user.graph is not layer.graph:
                return None
            if user.op_type in _LAYERS and not user.domain:
                if usage.idx != 0 or _own_matrix(user) is None or int_attribute(user, "transA"):
                    return None
                region.readers[user] = None
            else:
                stack.append(user.outputs[0])
    return region if region.readers else None


def _passes_on(
    node: ir.Node, seen: set[ir.Value], stack: list[ir.Value], count: int, region: _Region
) -> bool:
    """Whether an operator works value by value; what it reads has to move, too."""
    if node.domain not in ("", "com.microsoft") or len(node.outputs) != 1:
        return False
    inputs = [value for value in node.inputs if value is not None]
    if node.op_type in _SINGLE:
        stack.append(inputs[0])
        return all(_is_scalar(value) for value in inputs[1:])
    if node.domain or node.op_type not in _PAIRED:
        return False
    for value in inputs:
        if constant_array(value) is None:
            stack.append(value)
        elif not _follows(value, count, region):
            return False
    return True


def _is_scalar(value: ir.Value) -> bool:
    array = constant_array(value)
    return array is not None and array.size == 1


def _follows(value: ir.Value, count: int, region: _Region) -> bool:
    """Whether a constant is the same for all neurons, or can move with them."""
    array = constant_array(value)
    if array is None:
        return False
    if array.ndim == 0 or array.shape[-1] == 1:
        return True
    own = value.is_initializer() and not value.is_graph_input() and len(value.uses()) == 1
    if array.shape[-1] == count and own:
        region.constants[value] = None
        return True
    return False


def _weight(layer: ir.Node) -> ir.Value:
    value = layer.inputs[1]
    assert value is not None
    return value


def _own_matrix(layer: ir.Node) -> ir.Value | None:
    """A layer's weight, if it is a float matrix that nothing else reads."""
    value = layer.inputs[1]
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    array = constant_array(value)
    if array is None or array.ndim != 2 or array.dtype != np.float32:
        return None
    return value if len(value.uses()) == 1 and not value.is_graph_output() else None


def _matrix(layer: ir.Node) -> npt.NDArray[np.float32]:
    """A layer's weight, rows are output channels."""
    array = np.asarray(constant_array(_weight(layer)), np.float32)
    return array if layer.op_type == "Gemm" and int_attribute(layer, "transB") else array.T


def _sort(region: _Region) -> bool:
    spread = np.zeros(len(_matrix(next(iter(region.makers)))))
    for maker in region.makers:
        squares = np.square(_matrix(maker).astype(np.float64)).sum(axis=1)
        spread += np.log(squares + np.finfo(np.float64).tiny)
    # In float32: another order of the inputs does not swap neurons that are alike.
    order = np.argsort(spread.astype(np.float32), kind="stable")
    if np.array_equal(order, np.arange(len(order))):
        return False
    for axis, layers in ((0, region.makers), (1, region.readers)):
        for layer in layers:
            along = axis if layer.op_type == "Gemm" and int_attribute(layer, "transB") else 1 - axis
            _move(_weight(layer), order, along)
    for value in region.constants:
        _move(value, order, -1)
    return True


def _move(value: ir.Value, order: npt.NDArray[np.intp], axis: int) -> None:
    import onnx_ir as ir

    array = constant_array(value)
    assert array is not None
    moved = np.ascontiguousarray(array.take(order, axis=axis))
    value.const_value = ir.tensor(moved, name=value.name)
