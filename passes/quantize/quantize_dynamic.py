"""Dynamic INT8: integer weights, activations quantized while the model runs.

    s_x = (max(x, 0) - min(x, 0)) / 255          z_x = round(-min(x, 0) / s_x)
    y[m, c] = s_x s_W[c] * sum_k (q_x[m, k] - z_x) q_W[k, c]  +  b[c]

The graph gets DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul (-> Add), which ONNX Runtime
runs as DynamicQuantizeMatMul. Weights are s8 symmetric in [-127, 127] with one scale an output
channel (u8 weights take the slow kernel). One scale holds for a whole activation tensor, so a
row's result depends a little on its batch. Convolutions stay in float: ConvInteger is 4 to 15
times slower.

Preconditions: opset 11 or later. Needs no calibration.
Preserved: nothing exactly; the error is reported per layer.
Cost: one pass over the nodes, one over the weights.
Source: Jacob et al. 2018, arXiv:1712.05877, equation 7; ONNX operator DynamicQuantizeLinear-11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import Editor, int_attribute, node_label, require_opset
from qcomp.passes.quantize.already import quantized_already
from qcomp.passes.quantize.integer_types import INT7, INT8, IntegerType
from qcomp.passes.quantize.record import (
    inner_float_ops,
    keep_reference,
    left_in_float,
    note,
    warn_if_nothing,
)
from qcomp.passes.quantize.static_plan import matmul_weight_reason, weight_axis
from qcomp.passes.quantize.weights import ChannelWeights
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import ChosenWeights, FloatOp, QuantizedLayer, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["QuantizeDynamic", "dynamic_product", "warn_of_batches"]

_TYPES = {8: INT8, 7: INT7}


@dataclass(frozen=True)
class QuantizeDynamic(GraphPass):
    """Quantize MatMul and Gemm weights; quantize their activations at run time.

    Attributes:
        weight_bits: 8; 7, weights in [-63, 63], for x86 processors without VNNI.
        only_asked: Take only operators that an override, the user's or that of
            ``choose-schemes``, gives the scheme ``dynamic``.
    """

    name: ClassVar[str] = "quantize-dynamic"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    weight_bits: Literal[8, 7] = 8
    only_asked: bool = False

    def __post_init__(self) -> None:
        """Check the option.

        Raises:
            UsageError: It is out of range.
        """
        if self.weight_bits not in _TYPES:
            raise UsageError(f"quantize-dynamic: weight_bits is {self.weight_bits}", hint="8 or 7")

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite every MatMul and Gemm with a constant weight.

        Raises:
            PassError: An opset below 11, or a weight with NaN or infinity.
        """
        model = program.model
        editor = Editor(model)
        editor.name_nodes()
        keep_reference(program, context)
        weights = ChannelWeights(editor, chosen=context.get(ChosenWeights))
        shared: dict[ir.Value, ir.Node] = {}
        layers: list[QuantizedLayer] = []
        floats: list[FloatOp] = []
        rules = rules_of(context)
        for node in list(model.graph):
            if self.only_asked and rules.options(node).scheme != "dynamic":
                continue
            if node.domain or node.op_type not in ("MatMul", "Gemm", "Conv"):
                left = left_in_float(node, rules)
                floats += [] if left is None else [left]
                continue
            asked = rules.options(node)
            reason = asked.refusal("dynamic") or (
                "ConvInteger is 4 to 15 times slower than the float convolution"
                if node.op_type == "Conv" and not quantized_already(node)
                else matmul_weight_reason(node)
            )
            if reason:
                floats.append(FloatOp(node_label(node), node.op_type, reason))
                continue
            bits = asked.bits or self.weight_bits
            if bits not in _TYPES:
                raise UsageError(
                    f"quantize-dynamic cannot store '{node_label(node)}' in {bits} bits",
                    hint="8 or 7; in 4: quantize-weights, or quantize-static{weight-bits=4}",
                )
            if asked.method is not None:
                raise UsageError(
                    f"quantize-dynamic has no method '{asked.method}', asked for "
                    f"'{node_label(node)}': it finds the range while the graph runs",
                    hint="leave 'method' out, or take a static target such as cpu-int8",
                )
            require_opset(model, 11, "DynamicQuantizeLinear is from opset 11", context)
            layers.append(_rewrite(node, editor, weights, shared, _TYPES[bits]))
        note(context, layers, [*floats, *inner_float_ops(model)])
        if not self.only_asked:
            warn_if_nothing(self.name, context)
        warn_of_batches(len(layers), context)
        return bool(layers)


def _rewrite(
    node: ir.Node,
    editor: Editor,
    weights: ChannelWeights,
    shared: dict[ir.Value, ir.Node],
    kind: IntegerType,
) -> QuantizedLayer:
    label, w = node_label(node), node.inputs[1]
    assert w is not None
    flip = node.op_type == "Gemm" and int_attribute(node, "transB") != 0
    found = weights.chosen.weights.get(w.name or "")
    levels, w_scale, w_zero, _ = weights.add(w, weight_axis(node), kind, transpose=flip)
    y = dynamic_product(node, editor, (levels, w_scale, w_zero), shared)
    op_type, source = node.op_type, node.outputs[0].name or ""
    editor.replace_value(node.outputs[0], y)
    editor.remove(node)
    return QuantizedLayer(
        node=label,
        op_type=op_type,
        scheme="dynamic",
        weight=w.name or "",
        quantized=levels.name or "",
        weight_type=kind.name if found is None else f"s{found.bits}",
        kernel="DynamicQuantizeMatMul",
        source=source,
        output=y.name or "",
        method="" if found is None else found.method,
    )


def warn_of_batches(layers: int, context: Context) -> None:
    """Say that the scale of an activation is that of its batch, where there are such layers."""
    if layers:
        context.warn(
            f"{layers} layers find the scale of their input while the graph runs, one a "
            "tensor: a row's result depends a little on its batch"
        )


def dynamic_product(
    node: ir.Node,
    editor: Editor,
    weight: tuple[ir.Value, ir.Value, ir.Value],
    shared: dict[ir.Value, ir.Node],
) -> ir.Value:
    """Compute a MatMul or Gemm in integers, before the node; return its result.

    Args:
        node: The float operator, which stays.
        editor: Of its graph.
        weight: s8 weight [K, N], scales and zero points of its columns.
        shared: Value -> the operator that quantizes it, for layers that read the same one.
    """
    label, x = node_label(node), node.inputs[0]
    assert x is not None
    levels, w_scale, w_zero = weight
    if x not in shared:
        shared[x] = editor.node(
            "DynamicQuantizeLinear",
            [x],
            name=f"{x.name}_DynamicQuantizeLinear",
            outputs=[f"{x.name}_quantized", f"{x.name}_scale", f"{x.name}_zero_point"],
            before=node,
        )
    q, x_scale, x_zero = shared[x].outputs
    sums = editor.node(
        "MatMulInteger", [q, levels, x_zero, w_zero], name=f"{label}_MatMulInteger", before=node
    ).outputs[0]
    real = editor.node("Cast", [sums], {"to": 1}, name=f"{label}_Cast", before=node).outputs[0]
    scale = editor.node("Mul", [x_scale, w_scale], name=f"{label}_scales", before=node).outputs[0]
    y = editor.node("Mul", [real, scale], name=f"{label}_Mul", before=node).outputs[0]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        y = editor.node("Add", [y, bias], name=f"{label}_Add", before=node).outputs[0]
    return y
