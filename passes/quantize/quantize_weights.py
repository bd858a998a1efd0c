"""Weight-only quantization: weights of MatMul and Gemm in blocks of few bits, activations in float.

    W[n, k] ~ s[n, j] (q[n, k] - z[n, j]),     j = floor(k / group),     q in [0, 2^bits - 1]

``method=rtn`` rounds every weight to nearest
(:func:`qcomp.passes.quantize.arithmetic.quantize_blocks`). Two forms:

* ``matmulnbits``: the operator com.microsoft::MatMulNBits. ``accuracy_level=4`` lets ONNX Runtime
  round
  activations to 8 bits inside the kernel (fast); 0 computes in float32.
* ``dequantize``: the standard, blocked DequantizeLinear of opset 21, INT4 or UINT4 (INT8/UINT8
  above 4 bits), which ONNX Runtime turns into the same operator.

2, 4 and 8 bits are stored as such, 3 in 4 and 5 to 7 in 8; ``dequantize`` stores 2 in 4, too.
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

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
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
from qcomp.passes.quantize.arithmetic import (
    Floats,
    blocks,
    pack_int2,
    pack_int4,
    quantize_blocks,
)
from qcomp.passes.quantize.record import (
    inner_float_ops,
    keep_reference,
    left_in_float,
    note,
    warn_if_nothing,
)
from qcomp.passes.quantize.static_plan import matmul_weight_reason
from qcomp.passes.quantize.weights import float_weight, int4_parts
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

_SLAB = 1 << 23
"""Weights that are quantized at a time (float32: 32 MB)."""

_BITS = (2, 3, 4, 5, 6, 7, 8)
_GROUPS = (16, 32, 64, 128, 256)

Arrays = Mapping[str, npt.NDArray[np.generic]]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class QuantizeWeights(GraphPass):
    """Store the weights of MatMul and Gemm in blocks of few bits.

    Attributes:
        bits: 2 to 8.
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
            "bits": (self.bits, _BITS),
            "method": (self.method, ("rtn",)),
            "group": (self.group, _GROUPS),
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
        chosen = context.get(ChosenWeights) or ChosenWeights()
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
            found = chosen.find(value.name, tuple(float_weight(value).shape.numpy()))
            layers.append(self._for(node, asked)._rewrite(node, editor, found))
        note(context, layers, [*floats, *inner_float_ops(model)])
        warn_if_nothing(self.name, context)
        return bool(layers)

    def _for(self, node: ir.Node, asked: NodeOptions) -> QuantizeWeights:
        """The pass with the options that the user asks for one operator."""
        bits = self.bits if asked.bits is None else asked.bits
        method = self.method if asked.method is None else asked.method
        if bits not in _BITS or method != "rtn":
            what = f"with method={method}" if bits in _BITS else f"in {bits} bits"
            raise UsageError(
                f"quantize-weights cannot store '{node_label(node)}' {what}",
                hint="bits=2 to 8; method=rtn",
            )
        return replace(self, bits=bits)

    def _rewrite(
        self, node: ir.Node, editor: Editor, chosen: ChosenWeight | None
    ) -> QuantizedLayer:
        value = node.inputs[1]
        assert value is not None
        by_rows = int_attribute(node, "transB") != 0
        weight: _BlockedWeight
        if chosen is None:
            weight = _RoundedWeight(value, by_rows, self.bits, self.group, self.symmetric)
        else:
            weight = _ChosenWeight(value, by_rows, chosen)
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
                    "bits": weight.stored_bits(self.form),
                    "block_size": weight.group,
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
        op_type, source = node.op_type, node.outputs[0].name or ""
        editor.replace_value(node.outputs[0], y)
        editor.remove(node)
        return QuantizedLayer(
            node=label,
            op_type=op_type,
            scheme="weights",
            weight=value.name or "",
            quantized=inputs[0].name or "",
            weight_type=f"{'s' if weight.symmetric else 'u'}{weight.bits}/{weight.group}",
            kernel="MatMulNBits",
            source=source,
            output=y.name or "",
            method="" if chosen is None else chosen.method,
        )


class _BlockedWeight(ABC):
    """The lazily computed tensors of one weight.

    Attributes:
        bits: Bits of its integers; they are stored in :meth:`stored_bits`.
        group: Block length.
        symmetric: Whether there are no zero points.
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

    def stored_bits(self, form: str) -> int:
        """Bits that an integer takes in the file."""
        if self.bits == 2 and form == "matmulnbits":
            return 2
        return 4 if self.bits <= 4 else 8

    @abstractmethod
    def slabs(self) -> Iterator[tuple[slice, Bytes, Floats, Bytes]]:
        """Slabs of output channels: rows, integers uint8[n, B, group], scales, zero points.

        Integers and zero points in [0, 2^bits - 1]; the zero point is in the middle where it is
        fixed.
        """

    def _stored_slabs(self, form: str) -> Iterator[tuple[slice, Bytes, Floats, Bytes]]:
        """The slabs with integers and zero points about the middle of what they are stored in."""
        shift = np.uint8((1 << (self.stored_bits(form) - 1)) - (1 << (self.bits - 1)))
        for part, levels, scale, zero in self.slabs():
            yield part, levels + shift, scale, zero + shift

    def matmulnbits(self, editor: Editor) -> list[ir.Value]:
        """B uint8[N, B, group * bits / 8], scales float32[N, B] and packed zero points."""
        import onnx_ir as ir

        bits = self.stored_bits("matmulnbits")
        blob = self.group * bits // 8
        zeros = -(-self.count * bits // 8)
        pack = {2: pack_int2, 4: pack_int4}.get(bits, np.ascontiguousarray)

        def compute() -> Arrays:
            packed = np.empty((self.rows, self.count, blob), dtype=np.uint8)
            scales = np.empty((self.rows, self.count), dtype=np.float32)
            zero = np.empty((self.rows, zeros), dtype=np.uint8)
            for part, levels, scale, offset in self._stored_slabs("matmulnbits"):
                packed[part] = pack(levels)
                scales[part] = scale
                zero[part] = pack(offset)
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

        signed, bits = self.symmetric, self.stored_bits("dequantize")
        kind = ir.DataType[f"{'INT' if signed else 'UINT'}{bits}"]

        def stored(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
            if bits == 4:
                return int4_parts(levels, signed)
            return (levels ^ np.uint8(128)).view(np.int8) if signed else levels

        def compute() -> Arrays:
            levels = np.empty((self.columns, self.rows), dtype=np.uint8)
            scales = np.empty((self.count, self.rows), dtype=np.float32)
            zero = np.empty((self.count, self.rows), dtype=np.uint8)
            for part, q, scale, offset in self._stored_slabs("dequantize"):
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


class _RoundedWeight(_BlockedWeight):
    """A weight that is rounded to nearest."""

    def slabs(self) -> Iterator[tuple[slice, Bytes, Floats, Bytes]]:
        """See :class:`_BlockedWeight`."""
        step = max(1, _SLAB // max(1, self.columns))
        with read_weight(self.tensor) as array:
            for start in range(0, self.rows, step):
                part = slice(start, min(start + step, self.rows))
                w = np.ascontiguousarray(array[part] if self.by_rows else array[:, part].T)
                levels, scale, zero = quantize_blocks(
                    w.astype(np.float32, copy=False), self.group, self.bits, self.symmetric
                )
                yield part, levels, scale, zero


class _ChosenWeight(_BlockedWeight):
    """A weight whose integers somebody chose."""

    def __init__(self, value: ir.Value, by_rows: bool, chosen: ChosenWeight) -> None:
        chosen = chosen if by_rows else chosen.transposed()
        columns = chosen.levels.shape[1]
        if chosen.group is None:
            sizes = [g for g in _GROUPS if g >= columns] or [_GROUPS[-1]]
        else:
            sizes = [g for g in reversed(_GROUPS) if chosen.group % g == 0]
        if not sizes or (chosen.group is not None and chosen.axis != 1):
            raise PassError(
                f"the integers chosen for '{value.name}' lie in blocks of {chosen.group} along "
                f"{'input' if chosen.axis == 1 else 'output'} channels",
                hint="multiples of 16 along input channels can be stored",
            )
        if chosen.group is None and chosen.scale.ndim and chosen.axis != 0:
            raise PassError(f"the scales chosen for '{value.name}' lie along input channels")
        super().__init__(value, by_rows, chosen.bits, sizes[0], chosen.zero_point is None)
        self.chosen = chosen

    def slabs(self) -> Iterator[tuple[slice, Bytes, Floats, Bytes]]:
        """See :class:`_BlockedWeight`."""
        half, chosen = 1 << (self.bits - 1), self.chosen
        middle = np.zeros(chosen.scale.shape, np.int8)
        zero = middle if chosen.zero_point is None else chosen.zero_point
        parts = []
        for part in (chosen.scale, zero):
            if chosen.group is None:
                wide = np.broadcast_to(part.reshape(-1, 1), (self.rows, self.count))
            else:
                wide = np.repeat(part, chosen.group // self.group, axis=1)[:, : self.count]
            parts.append(wide)
        levels = blocks(chosen.levels.astype(np.float32), self.group) + np.float32(half)
        yield (
            slice(0, self.rows),
            levels.astype(np.uint8),
            np.asarray(parts[0], np.float32),
            (parts[1].astype(np.int16) + half).astype(np.uint8),
        )
