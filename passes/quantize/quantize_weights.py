"""Weight-only quantization: weights of MatMul and Gemm in blocks of few bits, activations in float.

    W[n, k] ~ s[n, j] (q[n, k] - z[n, j]),     j = floor(k / group),     q in [0, 2^bits - 1]

Every weight is rounded to nearest, on a grid that is found without data: over the range of its
block for ``method=rtn`` (:func:`qcomp.passes.quantize.arithmetic.quantize_blocks`), fitted for
``mse``, ``lsq`` and ``hqq`` (:mod:`qcomp.passes.quantize.grids`). Three forms:

* ``matmulnbits``: the operator com.microsoft::MatMulNBits. ``accuracy_level=4`` lets ONNX Runtime
  round
  activations to 8 bits inside the kernel (fast); 0 computes in float32.
* ``dequantize``: the standard, blocked DequantizeLinear of opset 21, INT4 or UINT4 (INT8/UINT8
  above 4 bits), which ONNX Runtime turns into the same operator.
* ``int8``: the same few bits in the file, from which ONNX Runtime makes an s8 weight when it loads
  (:mod:`qcomp.passes.quantize.folded_weights`); activations are quantized while the graph runs
  (:func:`qcomp.passes.quantize.quantize_dynamic.dynamic_product`): DynamicQuantizeMatMul.

Levels of a table that a pass chose are looked up when the graph is loaded
(:mod:`qcomp.passes.quantize.lookup_weights`): ``int8`` in a table of 8 bits, for the integer
kernel, the other forms in a float one, for the float operator.

2, 4 and 8 bits are stored as such, 3 in 4 and 5 to 7 in 8; ``dequantize`` stores 2 in 4, too, and
``int8`` 3 in 3.

``tokens`` chooses between ``matmulnbits`` and ``int8`` by the rows M that a layer computes at once,
known from the graph or expected. Time over float's, K = N = 1024, one thread (benchmarks/forms.py):

    M                                   1     2     4     8    32   128
    matmulnbits, 4 bits, blocks of 32  .46   .65   .84   .81   .77   .76
    matmulnbits, blocks of 128         .34   .49   .62   .59   .55   .54
    int8, 4 bits, blocks of 32         .42   .42   .40   .33   .27   .26

Integers that a pass before chose (:class:`qcomp.quantization.ChosenWeights`) are taken as they are,
with their own bits, blocks and zero points; scales of channels or tensors are repeated for each
block. The others are computed when the model is saved, one weight at a time.

Preconditions: opset 21 for ``form=dequantize``.
Preserved: nothing exactly; the error is reported per layer.
Cost: linear in the number of weights; memory of one slab of columns (32 MB) and the integers.
Source: blocked round-to-nearest as the baseline of Frantar et al. 2022, arXiv:2210.17323, section
2; operator MatMulNBits of ONNX Runtime; ONNX DequantizeLinear-21.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import (
    Editor,
    int_attribute,
    node_label,
    require_opset,
    static_shape,
)
from qcomp.passes.quantize.already import quantized_already
from qcomp.passes.quantize.blocked_weights import (
    GROUPS,
    BlockedWeight,
    ChosenBlocks,
    RoundedWeight,
)
from qcomp.passes.quantize.finished_rounding import round_beforehand
from qcomp.passes.quantize.folded_weights import FoldedWeights
from qcomp.passes.quantize.grids import Fit, Grid
from qcomp.passes.quantize.lookup_weights import LookupWeights
from qcomp.passes.quantize.quantize_dynamic import dynamic_product, warn_of_batches
from qcomp.passes.quantize.record import (
    inner_float_ops,
    keep_reference,
    left_in_float,
    note,
    warn_if_nothing,
)
from qcomp.passes.quantize.static_plan import matmul_weight_reason
from qcomp.passes.quantize.weights import float_weight
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

__all__ = ["QuantizeWeights"]

_BITS = (2, 3, 4, 5, 6, 7, 8)
Method = Literal["rtn", "mse", "lsq", "hqq"]

_FITS: dict[str, Fit] = {"rtn": "minmax", "mse": "mse", "lsq": "lsq", "hqq": "hqq"}
_FEW = 1
"""Rows up to which MatMulNBits is faster than an s8 product."""

_FEW_OF_LARGE = 4
"""The same for weights of at least 2^20 values in blocks of at least 128."""

_MANY = 1 << 30


@dataclass(frozen=True)
class QuantizeWeights(GraphPass):
    """Store the weights of MatMul and Gemm in blocks of few bits.

    Attributes:
        bits: 2 to 8.
        method: The grid: ``rtn`` over the range, ``mse``, ``lsq`` or ``hqq`` fitted.
        group: Weights that share a scale, along the input channels: 16, 32, 64, 128 or 256.
        symmetric: Whether the zero point is fixed in the middle of the range.
        form: ``matmulnbits``, ``dequantize`` or ``int8``.
        accuracy_level: Of MatMulNBits: 4 (int8 activations) or 0 (float32).
        tokens: Rows that are computed at once: ``decode`` (one), ``prefill`` (many), ``both``. The
            form of each layer follows, unless its number of rows is known. ``any`` takes ``form``.
    """

    name: ClassVar[str] = "quantize-weights"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    bits: int = 4
    method: Method = "rtn"
    group: int = 32
    symmetric: bool = True
    form: Literal["matmulnbits", "dequantize", "int8"] = "matmulnbits"
    accuracy_level: int = 4
    tokens: Literal["any", "decode", "prefill", "both"] = "any"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        checks = {
            "bits": (self.bits, _BITS),
            "method": (self.method, tuple(_FITS)),
            "group": (self.group, GROUPS),
            "form": (self.form, ("matmulnbits", "dequantize", "int8")),
            "accuracy_level": (self.accuracy_level, (0, 4)),
            "tokens": (self.tokens, ("any", "decode", "prefill", "both")),
        }
        for option, (value, allowed) in checks.items():
            if value not in allowed:
                known = ", ".join(str(item) for item in allowed)
                raise UsageError(
                    f"quantize-weights: {option} is {value}", hint=f"{option} is one of {known}"
                )
        Grid(self.bits, self.group, self.symmetric, _FITS[self.method])

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite every MatMul and Gemm with a constant weight.

        Raises:
            PassError: A weight with NaN or infinity, or an opset below 21 for ``form=dequantize``.
        """
        model = program.model
        editor = Editor(model)
        editor.name_nodes()
        keep_reference(program, context)
        layers: list[QuantizedLayer] = []
        floats: list[FloatOp] = []
        rules = rules_of(context)
        chosen = context.get(ChosenWeights) or ChosenWeights()
        writer = _Writer(editor)
        for node in list(model.graph):
            if node.domain or node.op_type not in ("MatMul", "Gemm", "Conv"):
                left = left_in_float(node, rules)
                floats += [] if left is None else [left]
                continue
            asked = rules.options(node)
            reason = asked.refusal("weights") or (
                "ONNX Runtime has no convolution with block-quantized weights"
                if node.op_type == "Conv" and not quantized_already(node)
                else matmul_weight_reason(node)
            )
            if reason:
                floats.append(FloatOp(node_label(node), node.op_type, reason))
                continue
            value = node.inputs[1]
            assert value is not None
            found = chosen.find(value.name, tuple(float_weight(value).shape.numpy()), tables=True)
            one = self._for(node, asked)
            looked_up = found is not None and found.table is not None
            rewrite = one._look_up if looked_up else one._rewrite
            layers.append(rewrite(node, writer, found))
        round_beforehand(writer.rounded, context)
        note(context, layers, [*floats, *inner_float_ops(model)])
        warn_if_nothing(self.name, context)
        warn_of_batches(sum(layer.scheme == "dynamic" for layer in layers), context)
        return bool(layers)

    def _for(self, node: ir.Node, asked: NodeOptions) -> QuantizeWeights:
        """The pass with the options that the user asks for one operator."""
        bits = self.bits if asked.bits is None else asked.bits
        group = self.group if asked.group is None else asked.group
        method = self.method if asked.method is None else asked.method
        if bits not in _BITS or method not in _FITS:
            what = f"with method={method}" if bits in _BITS else f"in {bits} bits"
            raise UsageError(
                f"quantize-weights cannot store '{node_label(node)}' {what}",
                hint=f"bits=2 to 8; method={', '.join(_FITS)}",
            )
        if group not in GROUPS:
            raise UsageError(
                f"quantize-weights cannot store '{node_label(node)}' in blocks of {group}",
                hint="group is one of " + ", ".join(map(str, GROUPS)),
            )
        form = self.form
        if self.tokens != "any":
            rows = _rows(node) or {"decode": 1}.get(self.tokens, _MANY)
            value = node.inputs[1]
            assert value is not None
            large = group >= 128 and float_weight(value).size >= 1 << 20
            form = "matmulnbits" if rows <= (_FEW_OF_LARGE if large else _FEW) else "int8"
        return replace(self, bits=bits, group=group, form=form, method=cast("Method", method))

    def _look_up(
        self, node: ir.Node, writer: _Writer, chosen: ChosenWeight | None
    ) -> QuantizedLayer:
        """Let a layer read a weight whose levels are those of a table."""
        value, editor, label = node.inputs[1], writer.editor, node_label(node)
        assert value is not None
        assert chosen is not None
        name, source = value.name or "", node.outputs[0].name or ""
        layer = QuantizedLayer(
            node=label,
            op_type=node.op_type,
            scheme="weights",
            weight=name,
            quantized="",
            weight_type=f"t{chosen.bits}",
            kernel=node.op_type,
            source=source,
            output=source,
            method=chosen.method,
        )
        if self.form != "int8":
            weight = writer.lookups.floats(name, chosen, node)
            node.replace_input_with(1, weight)
            editor.drop_if_unused(value)
            return replace(layer, quantized=weight.name or "")
        inputs = writer.lookups.integers(name, chosen, node)
        y = dynamic_product(node, editor, inputs, writer.shared)
        editor.replace_value(node.outputs[0], y)
        editor.remove(node)
        return replace(
            layer,
            scheme="dynamic",
            quantized=inputs[0].name or "",
            kernel="DynamicQuantizeMatMul",
            output=y.name or "",
        )

    def _rewrite(
        self, node: ir.Node, writer: _Writer, chosen: ChosenWeight | None
    ) -> QuantizedLayer:
        value, editor = node.inputs[1], writer.editor
        assert value is not None
        by_rows = int_attribute(node, "transB") != 0
        weight: BlockedWeight
        if chosen is None:
            fit = _FITS[self.method]
            weight = RoundedWeight(value, by_rows, self.bits, self.group, self.symmetric, fit)
            writer.rounded.append(weight)
        else:
            weight = ChosenBlocks(value, by_rows, chosen)
        label = node_label(node)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        scheme, kernel = "weights", "MatMulNBits"
        if self.form == "int8":
            scheme, kernel = "dynamic", "DynamicQuantizeMatMul"
            inputs = list(writer.folded.add(weight.folded(), node))
            y = dynamic_product(node, editor, (inputs[0], inputs[1], inputs[2]), writer.shared)
            bias = None
        elif self.form == "matmulnbits":
            editor.use_domain("com.microsoft", 1)
            inputs = weight.matmulnbits(editor)
            product = editor.node(
                "MatMulNBits",
                [node.inputs[0], *inputs],
                {
                    "K": weight.columns,
                    "N": weight.rows,
                    "bits": weight.stored_bits(self.form),
                    "block_size": weight.group,
                    "accuracy_level": self.accuracy_level,
                },
                domain="com.microsoft",
                name=f"{label}_MatMulNBits",
                before=node,
            )
            y = product.outputs[0]
        else:
            require_opset(editor.model, 21, "blocked DequantizeLinear is from opset 21")
            inputs = weight.dequantize(editor)
            real = editor.node(
                "DequantizeLinear",
                inputs,
                {"axis": 0, "block_size": weight.group},
                name=f"{value.name}_DequantizeLinear",
                before=node,
            )
            product = editor.node(
                "MatMul", [node.inputs[0], real.outputs[0]], name=f"{label}_MatMul", before=node
            )
            y = product.outputs[0]
        if bias is not None:
            # Behind an Add, ONNX Runtime would see a Gemm again, and with a Relu a float
            # FusedGemm, before it looks at the weight.
            add = "Add" if self.form == "matmulnbits" else "Sum"
            y = editor.node(add, [y, bias], name=f"{label}_{add}", before=node).outputs[0]
        whole = self.form == "int8" and chosen is not None and chosen.group is None
        blocks = "" if whole else f"/{weight.group}"
        op_type, source = node.op_type, node.outputs[0].name or ""
        editor.replace_value(node.outputs[0], y)
        editor.remove(node)
        return QuantizedLayer(
            node=label,
            op_type=op_type,
            scheme=scheme,
            weight=value.name or "",
            quantized=inputs[0].name or "",
            weight_type=f"{'s' if weight.symmetric else 'u'}{weight.bits}{blocks}",
            kernel=kernel,
            source=source,
            output=y.name or "",
            method=chosen.method if chosen else "" if self.method == "rtn" else self.method,
        )


class _Writer:
    """What the layers of one graph share.

    Args:
        editor: Of the graph.

    Attributes:
        folded: Writes weights that become s8 when the graph is loaded.
        lookups: Writes weights that are looked up then.
        rounded: Weights that are rounded to nearest.
        shared: Value -> the operator that quantizes it.
    """

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.folded = FoldedWeights(editor)
        self.lookups = LookupWeights(self.folded.unpacker)
        self.rounded: list[RoundedWeight] = []
        self.shared: dict[ir.Value, ir.Node] = {}


def _rows(node: ir.Node) -> int | None:
    """Rows of a matrix product, where the graph says how many there are."""
    shape = static_shape(node.inputs[0])
    if shape is None:
        return None
    rows = 1
    for dim in shape[:-1]:
        if dim is None:
            return None
        rows *= dim
    return rows
