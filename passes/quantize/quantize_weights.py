"""Weight-only quantization: weights of MatMul and Gemm in blocks of few bits, activations in float.

    W[n, k] ~ s[n, j] (q[n, k] - z[n, j]),     j = floor(k / group),     q in [0, 2^bits - 1]

``method=rtn`` rounds every weight to nearest
(:func:`qcomp.passes.quantize.arithmetic.quantize_blocks`). Two forms:

* ``matmulnbits``: the operator com.microsoft::MatMulNBits. ``accuracy_level=4`` lets ONNX Runtime
  round
  activations to 8 bits inside the kernel (fast); 0 computes in float32.
* ``dequantize``: the standard, blocked DequantizeLinear of opset 21, INT4 or UINT4 (INT8/UINT8 for
  8 bits), which ONNX Runtime turns into the same operator.

The integers are computed when the model is saved, one weight at a time.

Preconditions: opset 21 for ``form=dequantize``.
Preserved: nothing exactly; the error is reported per layer.
Cost: linear in the number of weights; memory of one slab of columns (32 MB) and the integers.
Source: blocked round-to-nearest as the baseline of Frantar et al. 2022, arXiv:2210.17323, section
2; operator MatMulNBits of ONNX Runtime; ONNX DequantizeLinear-21.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    check_finite,
    int_attribute,
    node_label,
    read_weight,
    require_opset,
)
from qcomp.passes.quantize.already import quantized_already
from qcomp.passes.quantize.arithmetic import Floats, pack_int4, quantize_blocks
from qcomp.passes.quantize.record import keep_reference, left_in_float, note, warn_if_nothing
from qcomp.passes.quantize.static_plan import matmul_weight_reason
from qcomp.passes.quantize.weights import float_weight, int4_parts
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import FloatOp, NodeOptions, QuantizedLayer, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["QuantizeWeights"]

_SLAB = 1 << 23
"""Weights that are quantized at a time (float32: 32 MB)."""

Arrays = Mapping[str, npt.NDArray[np.generic]]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class QuantizeWeights(GraphPass):
    """Store the weights of MatMul and Gemm in blocks of 4 or 8 bits.

    Attributes:
        bits: 4 or 8.
        method: ``rtn``, round to nearest.
        group: Weights that share a scale, along the input channels: 16, 32, 64, 128 or 256.
        symmetric: Whether the zero point is fixed in the middle of the range.
        form: ``matmulnbits`` or ``dequantize``.
        accuracy_level: Of MatMulNBits: 4 (int8 activations) or 0 (float32).
    """

    name: ClassVar[str] = "quantize-weights"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    bits: int = 4
    method: Literal["rtn"] = "rtn"
    group: int = 32
    symmetric: bool = True
    form: Literal["matmulnbits", "dequantize"] = "matmulnbits"
    accuracy_level: int = 4

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        checks = {
            "bits": (self.bits, (4, 8)),
            "method": (self.method, ("rtn",)),
            "group": (self.group, (16, 32, 64, 128, 256)),
            "form": (self.form, ("matmulnbits", "dequantize")),
            "accuracy_level": (self.accuracy_level, (0, 4)),
        }
        for option, (value, allowed) in checks.items():
            if value not in allowed:
                known = ", ".join(str(item) for item in allowed)
                raise UsageError(
                    f"quantize-weights: {option} is {value}", hint=f"{option} is one of {known}"
                )

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
            layers.append(self._for(node, asked)._rewrite(node, editor))
        note(context, layers, floats)
        warn_if_nothing(self.name, context)
        return bool(layers)

    def _for(self, node: ir.Node, asked: NodeOptions) -> QuantizeWeights:
        """The pass with the options that the user asks for one operator."""
        bits = self.bits if asked.bits is None else asked.bits
        method = self.method if asked.method is None else asked.method
        if bits not in (4, 8) or method != "rtn":
            what = f"with method={method}" if bits in (4, 8) else f"in {bits} bits"
            raise UsageError(
                f"quantize-weights cannot store '{node_label(node)}' {what}",
                hint="bits=4 or 8; method=rtn",
            )
        return replace(self, bits=bits)

    def _rewrite(self, node: ir.Node, editor: Editor) -> QuantizedLayer:
        value = node.inputs[1]
        assert value is not None
        weight = _BlockedWeight(
            value, int_attribute(node, "transB") != 0, self.bits, self.group, self.symmetric
        )
        label = node_label(node)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if self.form == "matmulnbits":
            editor.use_domain("com.microsoft", 1)
            inputs = weight.matmulnbits(editor)
            product = editor.node(
                "MatMulNBits",
                [node.inputs[0], *inputs],
                {
                    "K": weight.columns,
                    "N": weight.rows,
                    "bits": self.bits,
                    "block_size": self.group,
                    "accuracy_level": self.accuracy_level,
                },
                domain="com.microsoft",
                name=f"{label}_MatMulNBits",
                before=node,
            )
        else:
            require_opset(editor.model, 21, "blocked DequantizeLinear is from opset 21")
            inputs = weight.dequantize(editor)
            real = editor.node(
                "DequantizeLinear",
                inputs,
                {"axis": 0, "block_size": self.group},
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
        op_type, source = node.op_type, node.outputs[0].name or ""
        editor.replace_value(node.outputs[0], y)
        editor.remove(node)
        return QuantizedLayer(
            node=label,
            op_type=op_type,
            scheme="weights",
            weight=value.name or "",
            quantized=inputs[0].name or "",
            weight_type=f"{'s' if self.symmetric else 'u'}{self.bits}/{self.group}",
            kernel="MatMulNBits",
            source=source,
            output=y.name or "",
        )


class _BlockedWeight:
    """The lazily computed tensors of one weight.

    Attributes:
        rows: Output channels N.
        columns: Input channels K.
        count: Blocks a row, ceil(K / group).
    """

    def __init__(
        self, value: ir.Value, by_rows: bool, bits: int, group: int, symmetric: bool
    ) -> None:
        self.name = value.name or "weight"
        self.tensor = float_weight(value)
        self.by_rows = by_rows
        self.bits, self.group, self.symmetric = bits, group, symmetric
        shape = self.tensor.shape.numpy()
        self.rows, self.columns = shape if by_rows else shape[::-1]
        self.count = -(-self.columns // group)
        with read_weight(self.tensor) as array:
            check_finite(self.name, array)

    def slabs(self) -> Iterator[tuple[slice, Bytes, Floats, Bytes]]:
        """Quantize slabs of output channels: rows, integers uint8[n, B, group], scales, zeros."""
        step = max(1, _SLAB // max(1, self.columns))
        with read_weight(self.tensor) as array:
            for start in range(0, self.rows, step):
                part = slice(start, min(start + step, self.rows))
                w = np.ascontiguousarray(array[part] if self.by_rows else array[:, part].T)
                levels, scale, zero = quantize_blocks(
                    w.astype(np.float32, copy=False), self.group, self.bits, self.symmetric
                )
                yield part, levels, scale, zero

    def matmulnbits(self, editor: Editor) -> list[ir.Value]:
        """B uint8[N, B, group * bits / 8], scales float32[N, B] and packed zero points."""
        import onnx_ir as ir

        blob = self.group * self.bits // 8
        zeros = -(-self.count * self.bits // 8)

        def compute() -> Arrays:
            packed = np.empty((self.rows, self.count, blob), dtype=np.uint8)
            scales = np.empty((self.rows, self.count), dtype=np.float32)
            zero = np.empty((self.rows, zeros), dtype=np.uint8)
            for part, levels, scale, offset in self.slabs():
                packed[part] = pack_int4(levels) if self.bits == 4 else levels
                scales[part] = scale
                zero[part] = pack_int4(offset) if self.bits == 4 else offset
            return {"levels": packed, "scale": scales, "zero": zero}

        parts = SharedParts(
            compute,
            {
                "levels": (ir.DataType.UINT8, (self.rows, self.count, blob)),
                "scale": (ir.DataType.FLOAT, (self.rows, self.count)),
                "zero": (ir.DataType.UINT8, (self.rows, zeros)),
            },
        )
        return self._initializers(editor, parts)

    def dequantize(self, editor: Editor) -> list[ir.Value]:
        """Integers [K, N], scales float32[B, N] and zero points [B, N]."""
        import onnx_ir as ir

        signed = self.symmetric
        kind = ir.DataType[f"{'INT' if signed else 'UINT'}{self.bits}"]

        def stored(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
            if self.bits == 4:
                return int4_parts(levels, signed)
            return (levels ^ np.uint8(128)).view(np.int8) if signed else levels

        def compute() -> Arrays:
            levels = np.empty((self.columns, self.rows), dtype=np.uint8)
            scales = np.empty((self.count, self.rows), dtype=np.float32)
            zero = np.empty((self.count, self.rows), dtype=np.uint8)
            for part, q, scale, offset in self.slabs():
                levels[:, part] = q.reshape(q.shape[0], -1)[:, : self.columns].T
                scales[:, part] = scale.T
                zero[:, part] = offset.T
            return {"levels": stored(levels), "scale": scales, "zero": stored(zero)}

        parts = SharedParts(
            compute,
            {
                "levels": (kind, (self.columns, self.rows)),
                "scale": (ir.DataType.FLOAT, (self.count, self.rows)),
                "zero": (kind, (self.count, self.rows)),
            },
        )
        return self._initializers(editor, parts)

    def _initializers(self, editor: Editor, parts: SharedParts) -> list[ir.Value]:
        values = [
            editor.initializer(f"{self.name}_quantized", parts.tensor("levels")),
            editor.initializer(f"{self.name}_scale", parts.tensor("scale")),
        ]
        if not self.symmetric:
            values.append(editor.initializer(f"{self.name}_zero_point", parts.tensor("zero")))
        return values
