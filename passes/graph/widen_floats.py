"""Models in float16 or bfloat16 compute in float32: what the CPU has kernels for.

ONNX Runtime's CPU provider runs most float16 operators by casting to float32 and back around each
of them, and has next to no bfloat16 kernels; quantizing passes want float32 weights with float32
scales. So:

* weights and other constants become float32, computed from the stored halves when they are needed;
* a Cast to float16 or bfloat16 inside of the graph is one to float32;
* inputs and outputs keep their types, with a Cast behind or before them.

Values are no longer rounded to 11 (8) bits between operators, so results are nearer to those of
the model before it was halved, and do not overflow at 65504. What stays a constant in the end goes
back into the file as halves (``restore-halves``).

Preconditions: functions are inlined.
Preserved: nothing exactly; results differ by the rounding to halves that is left out.
Cost: one pass over nodes and values; no weight is read.
Source: IEEE 754-2019, binary16; ONNX data type BFLOAT16.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.passes.graph.no_ops import replace_with
from qcomp.passes.graph.rewriting import Editor, SharedParts, read_weight
from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["HalvedTensors", "WidenFloats"]

_FLOAT = 1
_HALVES = {10: "float16", 16: "bfloat16"}
"""ONNX type -> its name."""

_TYPED = {
    *("dtype", "output_dtype", "precision", "softmax_precision", "stash_type", "to"),
    "qk_matmul_softmax_precision",
}
"""Attributes that hold an ONNX type."""


@dataclass(frozen=True, slots=True, eq=False)
class HalvedTensors:
    """Constants that became float32.

    Attributes:
        tensors: Name of the initializer -> (its float32 tensor, the tensor of halves).
    """

    tensors: Mapping[str, tuple[ir.TensorProtocol, ir.TensorProtocol]]


@dataclass(frozen=True)
class WidenFloats(GraphPass):
    """Let a graph of float16 or bfloat16 compute in float32."""

    name: ClassVar[str] = "widen-floats"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN
    error_share: ClassVar[float] = 1e-2

    def run(self, program: Program, context: Context) -> bool:
        """Widen everything; return whether there was anything."""
        from qcomp.ir.shapes import infer_shapes

        model = program.model
        kept = set(filter(None, map(_narrowing, model.graph.outputs)))
        if not _types(model, kept):
            return False
        computed = _types(model, kept, stored=False)
        names = " and ".join(_HALVES[kind] for kind in sorted(computed))
        if model.functions:
            if computed:
                context.warn(f"the model computes in {names}, and has functions: it stays so")
            return False
        declared = {
            value: value.type
            for value in model.graph.outputs
            if value.type is not None and _is_half(value) and value.producer() not in kept
            if not value.is_graph_input()
        }
        _widen_inputs(model)
        halves = _widen_constants(model.graph)
        for graph in model.graphs():
            if graph is not model.graph:
                _widen_constants(graph)
                for value in graph.inputs:
                    value.type = _widened(value.type)
            for node in list(graph):
                if node in kept:
                    continue
                _widen_node(node)
                if node.op_type == "Cast" and not node.domain:
                    _drop_if_idle(node)
        _narrow_outputs(model, declared)
        context.put(HalvedTensors(halves))
        count = sum(tensor.nbytes for _, tensor in halves.values())
        if computed:
            context.warn(
                f"the model is in {names}, for which the CPU has no fast kernels: it computes in "
                f"float32 ({len(halves)} constants, {count:,} bytes); inputs and outputs keep "
                "their types"
            )
        infer_shapes(program)
        return True


def _narrowing(output: ir.Value) -> ir.Node | None:
    """The Cast that makes an output of halves for the caller alone."""
    node = output.producer()
    if node is None or node.domain or node.op_type != "Cast" or not _is_half(output):
        return None
    return None if output.uses() else node


def _types(model: ir.Model, kept: Collection[ir.Node], *, stored: bool = True) -> set[int]:
    """The half types that the graph stores, reads and makes, but for Casts at its ends.

    Args:
        model: The model.
        kept: Casts that make its outputs.
        stored: Whether constants count that nothing but Casts to float32 reads.
    """
    found: set[int] = set()
    for graph in model.graphs():
        for value in _values(graph, kept):
            if not stored and _is_storage(value):
                continue
            found |= {value.dtype.value} if value.dtype is not None else set()
            if value.const_value is not None:
                found.add(value.const_value.dtype.value)
        for node in graph:
            if node.op_type == "Cast" and node not in kept:
                found.add(_target(node))
    return found & set(_HALVES)


def _values(graph: ir.Graph, kept: Collection[ir.Node]) -> Iterator[ir.Value]:
    yield from (value for value in graph.inputs if _readers(value))
    yield from (value for value in graph.initializers.values() if not value.is_graph_input())
    for node in graph:
        if node not in kept:
            yield from node.outputs


def _is_storage(value: ir.Value) -> bool:
    """Whether a value is a constant that nothing but Casts to float32 reads."""
    users = [use.node for use in value.uses()]
    return value.is_initializer() and all(
        node.op_type == "Cast" and not node.domain and _target(node) == _FLOAT for node in users
    )


def _target(node: ir.Node) -> int:
    """The type that a Cast makes; 0 where a function's caller says it."""
    to = node.attributes.get("to")
    return 0 if to is None or to.is_ref() else to.as_int()


def _readers(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """The operators that read an input, with the place, but for Cast: it takes halves as well."""
    uses = [(usage.node, usage.idx) for usage in value.uses()]
    return [(node, index) for node, index in uses if node.domain or node.op_type != "Cast"]


def _is_half(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.value in _HALVES


def _widened(kind: ir.TypeProtocol | None) -> ir.TypeProtocol | None:
    """A type with float32 in place of halves; of sequences and optionals, too."""
    import onnx_ir as ir

    if isinstance(kind, ir.TensorType):
        return ir.TensorType(ir.DataType.FLOAT) if kind.dtype.value in _HALVES else kind
    if isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        inner = _widened(kind.elem_type)
        return kind if inner is kind.elem_type or inner is None else type(kind)(inner)
    return kind


def _float(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The float32 tensor of the same values, computed when it is needed."""

    def compute() -> Mapping[str, npt.NDArray[np.generic]]:
        with read_weight(tensor) as array:
            return {"float": array.astype(np.float32)}

    import onnx_ir as ir

    shape = [int(dim) for dim in tensor.shape.numpy()]
    made = SharedParts(compute, {"float": (ir.DataType.FLOAT, shape)}).tensor("float")
    made.name = tensor.name
    return made


def _widen_inputs(model: ir.Model) -> None:
    """Cast the inputs that are halves, for all that reads them."""
    import onnx_ir as ir

    editor = Editor(model)
    first = next(iter(model.graph), None)
    for value in model.graph.inputs:
        uses = _readers(value)
        if not _is_half(value) or not uses or first is None:
            continue
        name = f"{value.name}_float"
        cast = editor.node("Cast", [value], {"to": _FLOAT}, name=name, before=first)
        real = cast.outputs[0]
        real.type, real.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        for node, index in uses:
            node.replace_input_with(index, real)


def _widen_constants(
    graph: ir.Graph,
) -> dict[str, tuple[ir.TensorProtocol, ir.TensorProtocol]]:
    found: dict[str, tuple[ir.TensorProtocol, ir.TensorProtocol]] = {}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype.value not in _HALVES or value.is_graph_input():
            continue
        value.const_value = _float(tensor)
        value.type = _widened(value.type)
        found[name] = (value.const_value, tensor)
    return found


def _widen_node(node: ir.Node) -> None:
    import onnx_ir as ir

    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref():
            continue
        kind = attribute.type
        if kind == ir.AttributeType.TENSOR and attribute.as_tensor().dtype.value in _HALVES:
            node.attributes[name] = ir.AttrTensor(name, _float(attribute.as_tensor()))
        elif name in _TYPED and kind == ir.AttributeType.INT and attribute.as_int() in _HALVES:
            node.attributes[name] = ir.AttrInt64(name, _FLOAT)
    for value in node.outputs:
        value.type = _widened(value.type)


def _drop_if_idle(node: ir.Node) -> None:
    """Remove a Cast from float32 to float32, so that what it reads stays a constant."""
    value = node.inputs[0]
    if value is not None and value.dtype is not None:
        if value.dtype.value == _target(node) == _FLOAT:
            replace_with(node, value)


def _narrow_outputs(model: ir.Model, declared: Mapping[ir.Value, ir.TypeProtocol]) -> None:
    """Give the graph's outputs the types that they are declared with."""
    editor = Editor(model)
    graph = model.graph
    for value, kind in declared.items():
        name, shape = value.name or "", value.shape
        value.name = editor.fresh(f"{name}_float")
        cast = editor.node("Cast", [value], {"to": kind.dtype.value}, name=f"{name}_Cast")
        half = cast.outputs[0]
        half.name, half.type, half.shape = name, kind, shape
        for index, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[index] = half
