"""LSTM layers with 8-bit weights: the products are integer, gates and state stay in float.

Each step of an LSTM multiplies an input and a hidden state by weights of four gates,

    z_t = W x_t + R h_(t-1) + b        q_ij = round(W_ij / s_i)        s_i = max_j |W_ij| / 127

ONNX Runtime's DynamicQuantizeLSTM finds the range of x_t and h_t while it runs and multiplies
integers; sigmoids, the cell's state and its sum over time are float, so rounding does not pile up
there. One scale a gate's row and direction. Needs no data.

Preconditions: W and R are float constants; layout 0.
Preserved: nothing exactly; the error is reported per layer by ``quantization-error``.
Cost: one pass over the weights.
Source: per-channel symmetric weights and dynamic activations, Krishnamoorthi 2018,
arXiv:1806.08342, section 2; integer products with float state, Wu et al. 2016, arXiv:1609.08144,
section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    check_finite,
    constant_tensor,
    int_attribute,
    node_label,
    read_weight,
)
from qcomp.passes.quantize.already import ALREADY, quantized_already
from qcomp.passes.quantize.arithmetic import quantize, symmetric_scale
from qcomp.passes.quantize.integer_types import INT7, INT8, IntegerType
from qcomp.passes.quantize.record import keep_reference, note
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import FloatOp, QuantizedLayer, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["QuantizeLstm"]

_TYPES = {8: INT8, 7: INT7}


@dataclass(frozen=True)
class QuantizeLstm(GraphPass):
    """Store the weights of LSTM layers in 8 bits; multiply integers while the graph runs.

    Attributes:
        weight_bits: 8; 7, weights in [-63, 63], for x86 processors without VNNI.
    """

    name: ClassVar[str] = "quantize-lstm"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    weight_bits: Literal[8, 7] = 8

    def __post_init__(self) -> None:
        """Check the option.

        Raises:
            UsageError: It is out of range.
        """
        if self.weight_bits not in _TYPES:
            raise UsageError(f"quantize-lstm: weight_bits is {self.weight_bits}", hint="8 or 7")

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite every LSTM with constant weights.

        Raises:
            PassError: A weight with NaN or infinity.
        """
        layers: list[QuantizedLayer] = []
        floats: list[FloatOp] = []
        editor: Editor | None = None
        for node in list(program.model.graph):
            if (node.domain, node.op_type) != ("", "LSTM"):
                continue
            asked = rules_of(context).options(node)
            reason = _reason(node) or asked.refusal("dynamic")
            if reason:
                floats.append(FloatOp(node_label(node), "LSTM", reason))
                continue
            bits = asked.bits or self.weight_bits
            if bits not in _TYPES:
                raise UsageError(
                    f"quantize-lstm cannot store '{node_label(node)}' in {bits} bits",
                    hint="8 or 7",
                )
            if editor is None:
                editor = Editor(program.model)
                editor.name_nodes()
                keep_reference(program, context)
            layers += _rewrite(node, editor, _TYPES[bits])
        note(context, layers, floats)
        return bool(layers)


def _reason(node: ir.Node) -> str:
    """Why an LSTM stays in float; "" when it need not."""
    import onnx_ir as ir

    if quantized_already(node):
        return ALREADY
    for value in node.inputs[1:3]:
        tensor = constant_tensor(value)
        if tensor is None:
            return "its weights are not constants"
        if tensor.dtype != ir.DataType.FLOAT:
            return f"its weight is {tensor.dtype.name}, not FLOAT"
    if int_attribute(node, "layout"):
        return "layout 1 has no integer kernel"
    return ""


def _rewrite(node: ir.Node, editor: Editor, kind: IntegerType) -> list[QuantizedLayer]:
    editor.use_domain("com.microsoft", 1)
    label = node_label(node)
    source = node.outputs[0].name or ""
    stored = [_stored(editor, value, kind) for value in node.inputs[1:3]]
    inputs = [node.inputs[0], stored[0][0], stored[1][0]]
    inputs += list(node.inputs[3:8]) + [None] * (8 - max(len(node.inputs), 3))
    inputs += [stored[0][1], stored[0][2], stored[1][1], stored[1][2]]
    made = editor.node(
        "DynamicQuantizeLSTM",
        inputs,
        name=f"{label}_quantized",
        domain="com.microsoft",
        outputs=[f"{value.name or label}_q" for value in node.outputs],
        before=node,
    )
    for attribute in node.attributes.values():
        if attribute.name != "layout":
            made.attributes[attribute.name] = attribute
    weights = [value.name if value is not None else "" for value in node.inputs[1:3]]
    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.type, new.shape = old.type, old.shape
        if old.name:
            editor.replace_value(old, new)
    editor.remove(node)
    return [
        QuantizedLayer(
            node=label + part,
            op_type="LSTM",
            scheme="dynamic",
            weight=weight or "",
            quantized=levels.name or "",
            weight_type=kind.name,
            kernel="DynamicQuantizeLSTM",
            source=source,
            output=made.outputs[0].name or "",
        )
        for part, weight, (levels, _, _) in zip(("", ":R"), weights, stored, strict=True)
    ]


def _stored(
    editor: Editor, value: ir.Value | None, kind: IntegerType
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return int8[D, K, 4H], scales float32[D, 4H] and zero points of a weight [D, 4H, K]."""
    tensor = constant_tensor(value)
    assert tensor is not None
    assert value is not None
    name = value.name or "weight"
    directions, rows, columns = tensor.shape.numpy()
    with read_weight(tensor) as array:
        check_finite(name, array)
        flat = np.asarray(array, np.float32).reshape(-1, columns)
        scale = symmetric_scale(flat, kind, 0)

    def compute() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
        with read_weight(tensor) as array:
            flat = np.asarray(array, np.float32).reshape(-1, columns)
            levels = quantize(flat, scale, 0, kind, 0)
        return {"levels": levels.reshape(directions, rows, columns).transpose(0, 2, 1)}

    parts = SharedParts(compute, {"levels": (kind.onnx, [directions, columns, rows])})
    return (
        editor.initializer(f"{name}_quantized", parts.tensor("levels")),
        editor.initializer(f"{name}_scale", scale.reshape(directions, rows)),
        editor.initializer(f"{name}_zero_point", np.zeros((directions, rows), np.int8)),
    )
