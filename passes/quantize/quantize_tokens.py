"""Integer products with one activation scale a token: W8A8, W4A8 and W4A4, weights known before.

    y[m, c] = s_x[m] (s_W[c] sum_k q_x[m, k] q_W[k, c])  +  b[c],    s_x[m] = max_k |x[m, k]| / top

top = 127 or 7 for activations of 8 or 4 bits (:mod:`qcomp.passes.quantize.token_scales`):

    x -> Div s_x -> QuantizeLinear -> DequantizeLinear ─┐
                 q_W (s8) -> DequantizeLinear (s_W) ────┴─ MatMul -> Mul s_x (-> Add b)

ONNX Runtime runs the product as MatMulIntegerToFloat; where nothing fuses it, float32 holds the
same integers. MatMulInteger -> Cast -> Mul (s_x s_W) would become that kernel, too, but with a bias
behind it ONNX Runtime 1.32 adds the bias before it multiplies by s_x.

A row's result does not depend on its batch, unlike that of ``quantize-dynamic``, and a token with
outliers takes no resolution from the others; that costs a tenth of the time.

Weights are those that a pass before chose (:class:`qcomp.quantization.ChosenWeights`), or rounded
to nearest: 8 and 7 bits with a scale an output channel; 4, 3 and 2 stored as such, with a scale an
output channel or a block, and made s8 when the graph is loaded
(:mod:`qcomp.passes.quantize.folded_weights`). With one block a channel the integers are a whole
multiple of those stored.

No sum leaves 32 bits: K (2^bits - 1) 128 < 2^31, else the layer stays in float.

``kv`` rounds keys and values of attention, too (:mod:`qcomp.passes.quantize.token_caches`).

Preconditions: opset 21 for weights of 4 bits and fewer, 18 otherwise. Needs no calibration.
Preserved: nothing exactly; the error is reported per layer.
Cost: one pass over the nodes, one over the weights.
Source: Dettmers et al. 2022, arXiv:2208.07339, section 2.1 (a scale a row and a column); Ashkboos
et al. 2024, arXiv:2404.00456, section 4, stage 2 (4 bits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import Editor, int_attribute, node_label, require_opset
from qcomp.passes.quantize.already import quantized_already
from qcomp.passes.quantize.blocked_weights import (
    GROUPS,
    BlockedWeight,
    ChosenBlocks,
    RoundedWeight,
    blocks_text,
)
from qcomp.passes.quantize.folded_weights import FoldedWeights
from qcomp.passes.quantize.integer_types import INT7, INT8
from qcomp.passes.quantize.record import (
    inner_float_ops,
    keep_reference,
    left_in_float,
    note,
    warn_if_nothing,
)
from qcomp.passes.quantize.static_plan import matmul_weight_reason, weight_axis
from qcomp.passes.quantize.token_caches import RoundedCaches, round_caches
from qcomp.passes.quantize.token_scales import ACTIVATION_BITS, TokenScales, largest_sum
from qcomp.passes.quantize.weights import ChannelWeights, float_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import (
    ChosenWeight,
    ChosenWeights,
    FloatOp,
    NodeOptions,
    QuantizedLayer,
    rules_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["QuantizeTokens"]

_WHOLE = {8: INT8, 7: INT7}
_FEW = (4, 3, 2)


@dataclass(frozen=True)
class QuantizeTokens(GraphPass):
    """Make MatMul and Gemm integer products with an activation scale a token.

    Attributes:
        bits: Of the activations: 8 or 4.
        weights: Bits of weights that no pass chose: 8, 7 (in [-63, 63], for x86 processors without
            VNNI), 4, 3 or 2.
        group: With 4 bits and fewer, weights that share a scale: 16, 32, 64, 128 or 256 along the
            input channels; 0 for all of an output channel.
        symmetric: With 4 bits and fewer, whether the zero point is fixed in the middle.
        kv: Bits of keys and values of attention: 8, 4; 0 leaves them in float.
    """

    name: ClassVar[str] = "quantize-tokens"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    bits: Literal[8, 4] = 8
    weights: Literal[8, 7, 4, 3, 2] = 8
    group: int = 0
    symmetric: bool = True
    kv: Literal[0, 8, 4] = 0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        checks = {
            "bits": (self.bits, ACTIVATION_BITS),
            "weights": (self.weights, (*_WHOLE, *_FEW)),
            "group": (self.group, (0, *GROUPS)),
            "kv": (self.kv, (0, *ACTIVATION_BITS)),
        }
        for option, (value, allowed) in checks.items():
            if value not in allowed:
                known = ", ".join(str(item) for item in allowed)
                raise UsageError(
                    f"{self.name}: {option} is {value}", hint=f"{option} is one of {known}"
                )
        if self.group and self.weights not in _FEW:
            raise UsageError(
                f"{self.name}: group is {self.group} with weights of {self.weights} bits",
                hint="blocks have 4, 3 or 2 bits; leave 'group' out for a scale an output channel",
            )

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite every MatMul and Gemm with a constant weight.

        Raises:
            PassError: An opset that is too old, or a weight with NaN or infinity.
        """
        model = program.model
        editor = Editor(model)
        editor.name_nodes()
        keep_reference(program, context)
        rules = rules_of(context)
        chosen = context.get(ChosenWeights) or ChosenWeights()
        writer = _Writer(editor, self.bits, chosen)
        caches = round_caches(editor, self.kv, rules, context) if self.kv else RoundedCaches()
        layers: list[QuantizedLayer] = []
        floats: list[FloatOp] = []
        for node in list(model.graph):
            asked, label = rules.options(node), node_label(node)
            if node.domain or node.op_type not in ("MatMul", "Gemm", "Conv"):
                left = left_in_float(node, rules)
                reason = "" if left is None else left.reason
            else:
                reason = asked.refusal("dynamic") or self._refusal(node)
            reason = caches.reasons.get(label, reason)
            if reason:
                floats.append(FloatOp(label, node.op_type, reason))
            elif not node.domain and node.op_type in ("MatMul", "Gemm"):
                require_opset(model, 18, "ReduceMax of an axis is from opset 18", context)
                layers.append(self._rewrite(node, writer, self._weight_bits(node, asked)))
        note(context, layers, [*floats, *inner_float_ops(model)])
        if not caches.tensors:
            warn_if_nothing(self.name, context)
        return bool(layers) or bool(caches.tensors)

    def _refusal(self, node: ir.Node) -> str:
        """Why an operator with a weight stays in float; "" when it need not."""
        if node.op_type == "Conv" and not quantized_already(node):
            return "ConvInteger is 4 to 15 times slower than the float convolution"
        reason = matmul_weight_reason(node)
        if reason:
            return reason
        weight = float_weight(node.inputs[1])
        inputs = int(weight.shape.numpy()[1 - weight_axis(node)])
        if largest_sum(inputs, self.bits) >= 1 << 31:
            return f"a sum of {inputs} products could leave 32 bits"
        return ""

    def _weight_bits(self, node: ir.Node, asked: NodeOptions) -> int:
        """Bits of a weight that nobody chose."""
        bits = asked.bits or self.weights
        if bits not in (*_WHOLE, *_FEW) or asked.method is not None:
            what = f"in {bits} bits" if asked.method is None else f"with method={asked.method}"
            raise UsageError(
                f"{self.name} cannot store '{node_label(node)}' {what}",
                hint="bits is 8, 7, 4, 3 or 2; there is no method: weights are rounded to nearest, "
                "or chosen by a pass before, such as 'gptq'",
            )
        return bits

    def _rewrite(self, node: ir.Node, writer: _Writer, bits: int) -> QuantizedLayer:
        x, value = node.inputs[0], node.inputs[1]
        assert x is not None
        assert value is not None
        found = writer.chosen.find(value.name, tuple(float_weight(value).shape.numpy()))
        group = self.group if bits in _FEW else 0
        weight = writer.weight(node, value, found, _RoundAs(bits, group, self.symmetric))
        y = writer.product(node, x, weight)
        unsigned = found is None and bits in _FEW and not self.symmetric
        shown = blocks_text(bits if found is None else found.bits, found, group)
        label, op_type, source = node_label(node), node.op_type, node.outputs[0].name or ""
        writer.editor.replace_value(node.outputs[0], y)
        writer.editor.remove(node)
        return QuantizedLayer(
            node=label,
            op_type=op_type,
            scheme="dynamic",
            weight=value.name or "",
            quantized=weight[0].name or "",
            weight_type=shown.replace("s", "u") if unsigned else shown,
            kernel="MatMulIntegerToFloat",
            source=source,
            output=y.name or "",
            method="" if found is None else found.method,
        )


@dataclass(frozen=True, slots=True)
class _RoundAs:
    """How a weight is rounded: bits, block length (0 for a channel), zero point in the middle."""

    bits: int
    group: int
    symmetric: bool


class _Writer:
    """Writes activations and weights of one graph, each once."""

    def __init__(self, editor: Editor, bits: int, chosen: ChosenWeights) -> None:
        self.editor, self.chosen = editor, chosen
        self.tokens = TokenScales(editor, bits)
        self._channels = ChannelWeights(editor, chosen=chosen)
        self._folded = FoldedWeights(editor)
        self._done: dict[tuple[ir.Value, bool, _RoundAs], tuple[ir.Value, ir.Value]] = {}
        self._real: dict[tuple[ir.Value, ir.Value], ir.Value] = {}

    def weight(
        self, node: ir.Node, value: ir.Value, chosen: ChosenWeight | None, wish: _RoundAs
    ) -> tuple[ir.Value, ir.Value]:
        """The s8 weight [K, N] of a layer and its scales; the zero points are 0."""
        by_rows = node.op_type == "Gemm" and int_attribute(node, "transB") != 0
        key = (value, by_rows, wish)
        if key in self._done:
            return self._done[key]
        if chosen is None:
            few = wish.bits in _FEW
        else:
            few = chosen.bits <= max(_FEW) or chosen.group is not None or not _centred(chosen)
        if few:
            blocked: BlockedWeight
            if chosen is None:
                channel = float_weight(value).shape.numpy()[1 if by_rows else 0]
                group = wish.group or -(-int(channel) // 8) * 8
                blocked = RoundedWeight(value, by_rows, wish.bits, group, wish.symmetric)
            else:
                blocked = ChosenBlocks(value, by_rows, chosen)
            levels, scale, zero = self._folded.add(blocked.folded(), node)
        else:
            kind = _WHOLE[wish.bits if chosen is None else 8]
            levels, scale, zero, _ = self._channels.add(
                value, weight_axis(node), kind, transpose=by_rows
            )
        self.editor.drop_if_unused(zero)
        self._done[key] = levels, scale
        return self._done[key]

    def product(self, node: ir.Node, x: ir.Value, weight: tuple[ir.Value, ir.Value]) -> ir.Value:
        """The layer in integers, before its node; returns its real result."""
        editor, label = self.editor, node_label(node)
        if weight not in self._real:
            self._real[weight] = editor.node(
                "DequantizeLinear",
                weight,
                {"axis": 1},
                name=f"{weight[0].name}_DequantizeLinear",
                before=node,
            ).outputs[0]
        steps, x_scale = self.tokens.add(x, node)
        inputs = [steps, self._real[weight]]
        y = editor.node("MatMul", inputs, name=f"{label}_tokens_MatMul", before=node).outputs[0]
        y = editor.node("Mul", [y, x_scale], name=f"{label}_tokens_Mul", before=node).outputs[0]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None:
            y = editor.node("Add", [y, bias], name=f"{label}_Add", before=node).outputs[0]
        return y


def _centred(chosen: ChosenWeight) -> bool:
    return chosen.zero_point is None or not chosen.zero_point.any()
