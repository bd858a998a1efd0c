"""How single fused operators are taken apart; see :mod:`qcomp.passes.graph.take_apart`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from qcomp.errors import PassError
from qcomp.passes.graph.opset import raise_opset
from qcomp.passes.graph.opset_adapters import ADAPTED_FROM
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    constant_tensor,
    float_attribute,
    int_attribute,
    ints_attribute,
    node_label,
    read_weight,
    static_shape,
    string_attribute,
)

__all__ = ["FORMS"]

MICROSOFT = "com.microsoft"
_FLOAT, _INT32 = ir.DataType.FLOAT, ir.DataType.INT32

Form = Callable[[Editor, ir.Node], list[ir.Node]]
"""Puts other operators in a node's place. Returns them, the one with the weight first; [] and no
change where the node has no such form."""

Attributes = Mapping[str, int | float | str | Sequence[int] | Sequence[float]]


class _Builder:
    """Inserts nodes before one node and keeps account of them."""

    def __init__(self, editor: Editor, node: ir.Node) -> None:
        self.editor = editor
        self.node = node
        self.label = node_label(node)
        self.made: list[ir.Node] = []

    def __call__(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None = None,
        *,
        domain: str = "",
        outputs: int = 1,
        name: str = "",
    ) -> list[ir.Value]:
        """Insert a node; return its outputs."""
        name = f"{self.label}_{name or op_type}"
        wishes = [f"{name}_output{index or ''}" for index in range(outputs)]
        node = self.editor.node(
            op_type,
            inputs,
            attributes,
            domain=domain,
            name=name,
            outputs=wishes,
            before=self.node,
        )
        self.made.append(node)
        return list(node.outputs)

    def ints(self, what: str, values: list[int]) -> ir.Value:
        """Add a constant of whole numbers."""
        return self.editor.initializer(f"{self.label}_{what}", np.array(values, np.int64))

    def done(self, replacements: Sequence[tuple[ir.Value, ir.Value]]) -> list[ir.Node]:
        """Let the new values take the place of the node's outputs, and remove the node."""
        for old, new in replacements:
            self.editor.replace_value(old, new)
        self.node.graph.remove(self.node, safe=True)  # type: ignore[union-attr]
        for value in self.node.inputs:
            if value is not None:
                self.editor.drop_if_unused(value)
        return self.made


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _output(node: ir.Node, index: int) -> ir.Value | None:
    """An output that is named and read, else None."""
    value = node.outputs[index] if index < len(node.outputs) else None
    read = value is not None and (value.uses() or value.is_graph_output())
    return value if read else None


def _matrix(value: ir.Value | None) -> tuple[int, ...] | None:
    """Shape of a constant matrix of type FLOAT, else None."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.dtype != _FLOAT or len(tensor.shape) != 2:
        return None
    return tuple(int(dim) for dim in tensor.shape.numpy())


def _moved(
    editor: Editor,
    value: ir.Value,
    suffix: str,
    shape: Sequence[int],
    change: Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]],
) -> ir.Value:
    """A constant with its values in another order or shape, computed when it is needed."""
    tensor = constant_tensor(value)
    assert tensor is not None

    def compute() -> Mapping[str, npt.NDArray[np.generic]]:
        with read_weight(tensor) as array:
            return {"weight": change(array)}

    parts = SharedParts(compute, {"weight": (tensor.dtype, list(shape))})
    return editor.initializer(f"{value.name}_{suffix}", parts.tensor("weight"))


def _attention(editor: Editor, node: ir.Node) -> list[ir.Node]:
    x, packed, bias, mask = (_input(node, index) for index in range(4))
    shape = _matrix(packed)
    past = _input(node, 4)
    heads = int_attribute(node, "num_heads")
    odd = ("do_rotary", "past_present_share_buffer", "rotary_embedding_dim")
    if shape is None or x is None or not heads or any(int_attribute(node, n) for n in odd):
        return []
    if _input(node, 6) is not None:
        return []
    sizes = list(ints_attribute(node, "qkv_hidden_sizes")) or [shape[1] // 3] * 3
    masked = None if mask is None else static_shape(mask)
    if mask is not None and (masked is None or len(masked) not in (1, 2, 3)):
        return []
    if masked is not None and len(masked) == 1 and (past is not None or not _is_batch(mask, x)):
        return []
    new = _Builder(editor, node)
    (y,) = new("MatMul", [x, packed])
    if bias is not None:
        (y,) = new("Add", [y, bias])
    q, k, v = new("Split", [y, new.ints("sizes", sizes)], {"axis": 2}, outputs=3)
    if mask is not None and masked is not None and len(masked) == 1:
        mask = _mask_of_lengths(new, x, mask)
    before: list[ir.Value | None] = [None, None]
    if past is not None:
        before = [
            new("Gather", [past, editor.initializer(f"{new.label}_{n}", np.array(i))])[0]
            for i, n in enumerate(("key", "value"))
        ]
    attributes: dict[str, int | float] = {"num_heads": heads}
    attributes["unidirectional"] = int_attribute(node, "unidirectional")
    for name in ("scale", "mask_filter_value"):
        if name in node.attributes:
            attributes[name] = float_attribute(node, name, 0.0)
    present = _output(node, 1)
    inputs = [q, k, v, None, mask, _input(node, 5), *before]
    while inputs[-1] is None:
        inputs.pop()
    outputs = new(
        "MultiHeadAttention",
        inputs,
        attributes,
        domain=MICROSOFT,
        outputs=1 if present is None else 3,
    )
    pairs = [(node.outputs[0], outputs[0])]
    if present is not None:
        zero = new.ints("axis", [0])
        parts = [new("Unsqueeze", [value, zero])[0] for value in outputs[1:]]
        pairs.append((present, new("Concat", parts, {"axis": 0})[0]))
    return new.done(pairs)


def _is_batch(mask: ir.Value | None, x: ir.Value) -> bool:
    """Whether a mask of one axis has one length a row (and no starts behind them)."""
    maker = None if mask is None else mask.producer()
    if maker is not None and maker.op_type == "Cast" and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    if maker is not None and maker.op_type in ("EmbedLayerNormalization", "ReduceSum"):
        return True
    if mask is None or mask.shape is None or x.shape is None:
        return False
    # Dimensions without names are not known to be the same.
    length, batch = mask.shape[0], x.shape[0]
    known = isinstance(length, int) or getattr(length, "value", None) is not None
    return bool(known and length == batch)


def _mask_of_lengths(new: _Builder, x: ir.Value, lengths: ir.Value) -> ir.Value:
    """int32[batch, positions], 1 before the end of each row."""
    zero = new.editor.initializer(f"{new.label}_zero", np.array(0, np.int64))
    one = new.editor.initializer(f"{new.label}_one", np.array(1, np.int64))
    (shape,) = new("Shape", [x])
    (count,) = new("Gather", [shape, one])
    (positions,) = new("Range", [zero, count, one])
    (column,) = new("Unsqueeze", [lengths, new.ints("last", [1])])
    (ends,) = new("Cast", [column], {"to": ir.DataType.INT64.value})
    (inside,) = new("Less", [positions, ends])
    return new("Cast", [inside], {"to": _INT32.value})[0]


def _embeddings(editor: Editor, node: ir.Node) -> list[ir.Node]:
    tokens, kinds, words, places, types, gamma, beta, mask, positions = (
        _input(node, index) for index in range(9)
    )
    if any(_matrix(table) is None for table in (words, places)) or tokens is None:
        return []
    if (kinds is None) != (types is None):
        return []
    new = _Builder(editor, node)
    (total,) = new("Gather", [words, tokens], {"axis": 0})
    if positions is None:
        zero = editor.initializer(f"{new.label}_zero", np.array(0, np.int64))
        one = editor.initializer(f"{new.label}_one", np.array(1, np.int64))
        (shape,) = new("Shape", [tokens])
        (count,) = new("Gather", [shape, one])
        (positions,) = new("Range", [zero, count, one])
    (found,) = new("Gather", [places, positions], {"axis": 0}, name="positions")
    (total,) = new("Add", [total, found])
    if kinds is not None:
        (found,) = new("Gather", [types, kinds], {"axis": 0}, name="types")
        (total,) = new("Add", [total, found])
    attributes = {"axis": -1, "epsilon": float_attribute(node, "epsilon", 1e-12)}
    inputs = [total, gamma, *([] if beta is None else [beta])]
    pairs = [(node.outputs[0], new("LayerNormalization", inputs, attributes)[0])]
    lengths, sums = _output(node, 1), _output(node, 2)
    if sums is not None:
        pairs.append((sums, total))
    if lengths is not None:
        if mask is None:
            (shape,) = new("Shape", [tokens], {"start": 0, "end": 1})
            (column,) = new("ConstantOfShape", [shape])
        else:
            last = new.ints("axis", [1])
            (column,) = new("ReduceSum", [mask, last], {"keepdims": 0})
        (count,) = new("Cast", [column], {"to": _INT32.value})
        batch = tokens.shape[0] if tokens.shape is not None else None
        count.type, count.shape = ir.TensorType(_INT32), ir.Shape([batch])
        pairs.append((lengths, count))
    return new.done(pairs)


def _matmul(editor: Editor, node: ir.Node) -> list[ir.Node]:
    shape, weight = _matrix(node.inputs[1]), node.inputs[1]
    if shape is None or weight is None:
        return []
    if any(int_attribute(node, n) for n in ("transA", "transBatchA", "transBatchB")):
        return []
    new = _Builder(editor, node)
    if int_attribute(node, "transB"):
        weight = _moved(editor, weight, "T", shape[::-1], lambda array: array.T)
    (y,) = new("MatMul", [node.inputs[0], weight])
    alpha = float_attribute(node, "alpha", 1.0)
    if alpha != 1.0:
        factor = editor.initializer(f"{new.label}_alpha", np.array(alpha, np.float32))
        (y,) = new("Mul", [y, factor])
    return new.done([(node.outputs[0], y)])


def _transposed(editor: Editor, node: ir.Node) -> list[ir.Node]:
    """MatMul(x, Transpose(W)), as exporters write a layer, or a table that is a matrix too."""
    turned = node.inputs[1]
    maker = None if turned is None else turned.producer()
    if maker is None or maker.domain or maker.op_type != "Transpose" or turned is None:
        return []
    weight = maker.inputs[0]
    shape = _matrix(weight)
    if shape is None or weight is None or ints_attribute(maker, "perm") == (0, 1):
        return []
    made = _moved(editor, weight, "T", shape[::-1], lambda array: array.T)
    node.replace_input_with(1, made)
    if not turned.uses() and not turned.is_graph_output():
        editor.remove(maker)
    return [node]


_ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}


def _fused_layer(op_type: str, own: Sequence[str]) -> Form:
    def rewrite(editor: Editor, node: ir.Node) -> list[ir.Node]:
        activation = string_attribute(node, "activation", "")
        known = _ACTIVATIONS.get(activation)
        if activation == "Clip":
            known = ("min", "max")
        elif known is None and activation:
            return []
        new = _Builder(editor, node)
        kept = {name: a.value for name, a in node.attributes.items() if name in own}
        inputs = [_input(node, index) for index in range(3)]
        while inputs[-1] is None:
            inputs.pop()
        (y,) = new(op_type, inputs, kept)
        if op_type == "Conv" and _input(node, 3) is not None:
            (y,) = new("Add", [y, _input(node, 3)])
        given = node.attributes.get("activation_params")
        params = [float_attribute(node, f"activation_{n}", 0.0) for n in ("alpha", "beta")]
        if given is not None:
            params = list(given.as_floats())
        if activation == "Clip":
            limits = [
                editor.initializer(f"{new.label}_{name}", np.array(value, np.float32))
                for name, value in zip(("min", "max"), params, strict=False)
            ]
            (y,) = new("Clip", [y, *limits])
        elif activation:
            (y,) = new(activation, [y], dict(zip(known or (), params, strict=False)))
        return new.done([(node.outputs[0], y)])

    return rewrite


_EQUATION = re.compile(r"(\.\.\.)?([a-zA-Z]+),([a-zA-Z]+)->(\.\.\.)?([a-zA-Z]*)\Z")


def _einsum(editor: Editor, node: ir.Node) -> list[ir.Node]:
    """x[lead, inner] W[inner, outer] -> y[lead, outer], each of them any number of axes."""
    if len(node.inputs) != 2:
        return []
    match = _EQUATION.match(string_attribute(node, "equation", "").replace(" ", ""))
    x, weight = node.inputs
    tensor = constant_tensor(weight)
    if match is None or match[1] or match[4] or tensor is None or tensor.dtype != _FLOAT:
        return []
    left, right, result = match[2], match[3], match[5]
    if any(len(set(word)) != len(word) for word in (left, right, result)):
        return []
    inner = "".join(letter for letter in left if letter in right)
    lead, outer = left.removesuffix(inner), "".join(c for c in right if c not in inner)
    if not inner or not outer or lead + inner != left or lead + outer != result:
        return []
    assert weight is not None
    dims = dict(zip(right, (int(dim) for dim in tensor.shape.numpy()), strict=True))
    K, N = (int(np.prod([dims[c] for c in word])) for word in (inner, outer))
    new = _Builder(editor, node)
    order = [right.index(letter) for letter in inner + outer]
    matrix = weight
    if len(right) != 2 or order != [0, 1]:
        matrix = _moved(
            editor, weight, "matrix", (K, N), lambda array: array.transpose(order).reshape(K, N)
        )
    copied = [0] * len(lead)  # a Reshape takes these axes as they are
    if len(inner) > 1:
        (x,) = new("Reshape", [x, new.ints("rows", [*copied, K])])
    (y,) = new("MatMul", [x, matrix])
    if len(outer) > 1:
        (y,) = new("Reshape", [y, new.ints("shape", [*copied, *(dims[c] for c in outer)])])
    made = new.done([(node.outputs[0], y)])
    return sorted(made, key=lambda each: each.op_type != "MatMul")


def _rms_norm(editor: Editor, node: ir.Node) -> list[ir.Node]:
    """The one operator of ONNX Runtime that stands in ONNX's own domain."""
    if _output(node, 1) is not None or len(node.inputs) != 2:
        return []
    if editor.model.graph.opset_imports.get("", 0) < ADAPTED_FROM:
        return []
    try:
        raise_opset(editor.model, 23)
    except PassError:
        return []
    new = _Builder(editor, node)
    attributes = {
        "axis": int_attribute(node, "axis", -1),
        "epsilon": float_attribute(node, "epsilon", 1e-5),
    }
    (y,) = new("RMSNormalization", node.inputs, attributes)
    return new.done([(node.outputs[0], y)])


_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_GEMM = ("transA", "transB", "alpha", "beta")

FORMS: Mapping[tuple[str, str], Form] = {
    ("", "Einsum"): _einsum,
    ("", "MatMul"): _transposed,
    ("", "SimplifiedLayerNormalization"): _rms_norm,
    (MICROSOFT, "Attention"): _attention,
    (MICROSOFT, "EmbedLayerNormalization"): _embeddings,
    (MICROSOFT, "FusedConv"): _fused_layer("Conv", _CONV),
    (MICROSOFT, "FusedGemm"): _fused_layer("Gemm", _GEMM),
    (MICROSOFT, "FusedMatMul"): _matmul,
    (MICROSOFT, "TransposeMatMul"): _matmul,
}
"""Domain and operator -> how it is taken apart."""
