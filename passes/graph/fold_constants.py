"""Evaluate once, now, what is the same in every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcomp.errors import PassError, QcompError
from qcomp.ir.program import Program
from qcomp.passes.graph.rewriting import attribute, constant_tensor
from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["FoldConstants"]

_RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
# A dequantized weight is stored as the integers it comes from: that is the point of it.
_QUANTIZATION = frozenset({"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"})
_KEPT = _RANDOM | _QUANTIZATION | {"Constant", "Dropout", "BatchNormalization"}
# Of these the output has at most as many elements as all inputs (times its rank for indices).
_BOUNDED = frozenset({"Compress", "NonZero", "Unique", "Slice", "Squeeze", "Reshape", "Concat"})
# These only move or convert numbers, so they can wait until the model is saved.
_LAZY = frozenset({"Cast", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_CUTS = frozenset({"Concat", "Slice", "Split"})
_CUT_LIMIT = 1 << 24
_LAZY_FROM = 1 << 24
_EAGER_LIMIT = 1 << 28
_MAX_ROUNDS = 20


@dataclass(frozen=True)
class FoldConstants(GraphPass):
    """Replace nodes whose inputs are constants by what ONNX Runtime computes of them.

    ::

        f(c1, c2 ...) -> c          Shape(x) -> the shape of x, where it is static

    Preconditions: a standard operator with tensors as outputs that no caller sees, without
    randomness, subgraphs or quantization. The result may be at most ``max_growth`` bytes larger
    than the constants it makes superfluous, so a file cannot blow up (``Expand``,
    ``ConstantOfShape``); what cuts or joins constants may have their size, up to 16 MiB. Results of
    16 MiB and more of operators that only move or convert numbers are lazy tensors: computed when
    the model is saved, one at a time.

    Preserves: the outputs bit for bit, since the same kernels run as would at run time.

    Cost: one run of each folded node, and one short-lived session.

    Source: Wegman and Zadeck, "Constant propagation with conditional branches", TOPLAS 13(2)
    (1991), without the branches.

    Attributes:
        max_growth: Bytes that the file may grow by for one node.
    """

    name: ClassVar[str] = "fold-constants"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    max_growth: int = 1 << 14

    def run(self, program: Program, context: Context) -> bool:
        """Fold what can be folded; return whether anything was."""
        from onnx_ir.passes.common import RemoveUnusedNodesPass

        from qcomp.ir.shapes import infer_shapes

        model = program.model
        changed = False
        for _ in range(_MAX_ROUNDS):
            # What was folded tells the shapes of what comes after it.
            infer_shapes(program)
            folded = [
                self._fold(model, graph, node)
                for graph in (model.graph, *list(model.graph.subgraphs()))
                for node in list(graph)
            ]
            if not any(folded):
                break
            RemoveUnusedNodesPass()(model)
            changed = True
        return changed

    def _fold(self, model: ir.Model, graph: ir.Graph, node: ir.Node) -> bool:
        if node.domain != "" or node.op_type in _KEPT or not node.outputs:
            return False
        if any(value.is_graph_output() for value in node.outputs):
            return False
        if node.op_type == "Shape":
            tensor = _static_shape(node)
            if tensor is not None:
                _replace(graph, node, [tensor])
                return True
        if not node.inputs or any(a.is_ref() or _is_graph(a) for a in node.attributes.values()):
            return False
        inputs = [constant_tensor(value) for value in node.inputs]
        if node.op_type == "Cast" and _is_small_integers(inputs[0]):
            return False  # a quantized weight
        if any(t is None and v is not None for t, v in zip(inputs, node.inputs, strict=True)):
            return False
        read = sum(_bytes(tensor) for tensor in inputs if tensor is not None)
        size = self._size(node, read)
        limit = self._limit(node, read)
        if size is None or size > limit:
            return False
        if node.op_type in _LAZY and size >= _LAZY_FROM:
            _replace(graph, node, [_lazy(model, node, inputs)])
            return True
        if read + size > _EAGER_LIMIT:
            return False
        try:
            results = _evaluate(model, node, inputs)
        except QcompError:
            # The runtime has no kernel for it or finds a fault in it: whoever runs it will say so.
            return False
        if sum(_bytes(tensor) for tensor in results) > limit:
            return False
        _replace(graph, node, results)
        return True

    def _limit(self, node: ir.Node, read: int) -> int:
        """Return the bytes that the outputs may have."""
        limit = self.max_growth + _freed(node)
        # Gates of recurrent layers are cut and put in another order: in the end, not a byte more.
        return max(limit, min(read, _CUT_LIMIT)) if node.op_type in _CUTS else limit

    def _size(self, node: ir.Node, read: int) -> int | None:
        """Return a bound of the bytes of a node's outputs, None when there is none."""
        import onnx_ir as ir

        total = 0
        for value in node.outputs:
            if not value.name or not value.uses():
                continue
            if isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
                return None
            shape, dtype = value.shape, value.dtype
            if dtype is None:
                return None
            if shape is not None and shape.is_static():
                width = 64 if dtype == ir.DataType.STRING else dtype.bitwidth
                total += (int(np.prod(shape.numpy(), dtype=object)) * width + 7) // 8
            elif node.op_type in _BOUNDED:
                total += 64 * max(read, 1)
            else:
                return None
        return total


def _is_graph(attr: ir.Attr) -> bool:
    import onnx_ir as ir

    return attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _bytes(tensor: ir.TensorProtocol) -> int:
    import onnx_ir as ir

    if tensor.dtype == ir.DataType.STRING:
        return sum(len(text) for text in np.asarray(tensor.numpy()).reshape(-1).tolist())
    return tensor.nbytes


def _freed(node: ir.Node) -> int:
    """Return the bytes of the constants that nothing needs any more without this node."""
    total = 0
    for value in dict.fromkeys(node.inputs):
        tensor = constant_tensor(value)
        if value is None or tensor is None or value.is_graph_output():
            continue
        if all(use.node is node for use in value.uses()):
            total += _bytes(tensor)
    return total


def _is_small_integers(tensor: ir.TensorProtocol | None) -> bool:
    """Whether a constant is a matrix, or more, of integers of at most 8 bits."""
    if tensor is None or len(tensor.shape) < 2:
        return False
    return tensor.dtype.name in ("INT2", "INT4", "INT8", "UINT2", "UINT4", "UINT8")


def _static_shape(node: ir.Node) -> ir.TensorProtocol | None:
    import onnx_ir as ir

    value = node.inputs[0]
    if value is None or value.shape is None or any(a.is_ref() for a in node.attributes.values()):
        return None
    dims = list(value.shape)
    start, end = attribute(node, "start", 0), attribute(node, "end", len(dims))
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    wanted = dims[start:end]
    if not all(isinstance(dim, int) for dim in wanted):
        return None
    return ir.Tensor(np.asarray(wanted, dtype=np.int64))


def _lazy(
    model: ir.Model, node: ir.Node, inputs: list[ir.TensorProtocol | None]
) -> ir.TensorProtocol:
    import onnx_ir as ir

    output = node.outputs[0]
    assert output.dtype is not None
    assert output.shape is not None
    return ir.LazyTensor(
        lambda: _evaluate(model, node, inputs)[0],
        dtype=output.dtype,
        shape=ir.Shape(output.shape.numpy()),
        name=output.name,
    )


def _evaluate(
    model: ir.Model, node: ir.Node, inputs: list[ir.TensorProtocol | None]
) -> list[ir.TensorProtocol]:
    """Run one node on constants in ONNX Runtime, unoptimised."""
    import onnx_ir as ir

    from qcomp.execute import Session

    values: list[ir.Value | None] = []
    for index, tensor in enumerate(inputs):
        if tensor is None:
            values.append(None)
            continue
        shape = ir.Shape(tensor.shape.numpy())
        kind = ir.TensorType(tensor.dtype)
        values.append(ir.Value(name=f"i{index}", type=kind, shape=shape, const_value=tensor))
    wanted = [bool(value.name) for value in node.outputs]
    copy = ir.Node(
        "", node.op_type, values, list(node.attributes.values()), num_outputs=len(node.outputs)
    )
    for index, (value, old) in enumerate(zip(copy.outputs, node.outputs, strict=True)):
        value.name = f"o{index}" if wanted[index] else ""
        value.type = old.type
    graph = ir.Graph(
        [],
        [value for value, want in zip(copy.outputs, wanted, strict=True) if want],
        nodes=[copy],
        initializers=[value for value in values if value is not None],
        opset_imports=dict(model.graph.opset_imports),
        name="constant",
    )
    names = [tensor.name if tensor is not None else None for tensor in inputs]
    try:
        session = Session(ir.Model(graph, ir_version=model.ir_version), optimize=False)
        arrays = session.run({})
    finally:
        for tensor, name in zip(inputs, names, strict=True):
            if tensor is not None:
                tensor.name = name
    results: list[ir.TensorProtocol] = []
    for index, want in enumerate(wanted):
        if not want:
            results.append(ir.Tensor(np.zeros(0, np.float32)))
            continue
        array, dtype = np.asarray(arrays[f"o{index}"]), node.outputs[index].dtype
        if dtype == ir.DataType.STRING:
            flat = [str(text).encode() for text in array.reshape(-1)]
            results.append(ir.StringTensor(flat, shape=ir.Shape(array.shape)))
            continue
        if dtype is None or array.dtype.itemsize * 8 != dtype.bitwidth:
            raise PassError(f"{node.op_type} gave {array.dtype} where {dtype} was due")
        # The runtime hands out the 8-bit floats, which NumPy has not, as their bits.
        results.append(ir.Tensor(array.view(dtype.numpy()), dtype=dtype))
    return results


def _replace(graph: ir.Graph, node: ir.Node, tensors: list[ir.TensorProtocol]) -> None:
    import onnx_ir as ir

    outputs = list(node.outputs)
    fresh: list[ir.Value] = []
    for old, tensor in zip(outputs, tensors, strict=False):
        if not old.name or not old.uses():
            continue
        tensor.name = old.name
        shape = ir.Shape(tensor.shape.numpy())
        value = ir.Value(
            name=old.name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor
        )
        old.replace_all_uses_with(value)
        fresh.append(value)
    graph.remove(node, safe=True)
    for value in fresh:
        graph.register_initializer(value)
