"""Products of 8-bit floats with weights stored in 4 bits, as pairs that accelerators fuse.

    x -> QuantizeLinear (E4M3, s_x) -> DequantizeLinear ────────────────────────────────┐
    q (INT4) -> DequantizeLinear 2^k -> QuantizeLinear (E4M3, 1) -> DequantizeLinear S ─ MatMul -> y

    y = (s_x E4M3(x / s_x)) (S (q - z) 2^k),     s_x = max|x| / 448

Weights are those of ``dpq``, or rounded here to nearest on the same grids; the rounding of a weight
to E4M3 is exact (:mod:`qcomp.passes.quantize.float8`). Activations have one scale a tensor, from
``calibrate``; since E4M3 is a float, values of an outlier's size cost the others nothing until they
are 2^15 apart. Biases and results are float.

Integers of other passes, whose scales are no powers of two apart, are refused.

Preconditions: opset 21; ``calibrate`` before it.
Preserved: nothing exactly; the error is reported per layer.
Cost: linear in the number of weights. ONNX Runtime on CPUs computes the pairs one by one, weights
anew in every run: it is the reference, not fast.
Source: Gafni et al. 2025, arXiv:2505.14638 (DPQ); ONNX QuantizeLinear-21, DequantizeLinear-21.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

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
from qcomp.passes.quantize.arithmetic import pack_int4
from qcomp.passes.quantize.float8 import LARGEST, Float8Grid, channel_scales
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
    QuantizedLayer,
    TensorStatistics,
    rules_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["QuantizeFp8"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class QuantizeFp8(GraphPass):
    """Store weights in 4 bits that are 8-bit floats exactly, and round activations to 8-bit floats.

    Attributes:
        bits: 2, 3 or 4, of weights that no pass chose.
        group: Weights along the inputs that share a scale; 0: all of an output channel.
        symmetric: Whether zero points are fixed in the middle.
    """

    name: ClassVar[str] = "quantize-fp8"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    bits: int = 4
    group: int = 32
    symmetric: bool = False

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        self._grid(self.bits)

    def _grid(self, bits: int) -> Float8Grid:
        return Float8Grid(bits, self.group, self.symmetric, "mse", positive=True)

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite every MatMul and Gemm with a constant weight whose input was measured.

        Raises:
            PassError: An opset below 21, a weight with NaN or infinity, or integers of another
                grid.
        """
        model = program.model
        editor = Editor(model)
        editor.name_nodes()
        keep_reference(program, context)
        rules = rules_of(context)
        statistics = context.get(TensorStatistics)
        writer = _Writer(editor, {})
        layers: list[QuantizedLayer] = []
        floats: list[FloatOp] = []
        for node in list(model.graph):
            if node.domain or node.op_type not in ("MatMul", "Gemm", "Conv"):
                left = left_in_float(node, rules)
                floats += [] if left is None else [left]
                continue
            asked = rules.options(node)
            reason = asked.refusal("static") or (
                "convolutions stay in float: the pairs are those of matrix products"
                if node.op_type == "Conv" and not quantized_already(node)
                else matmul_weight_reason(node)
            )
            x = node.inputs[0]
            range_ = None if statistics is None else statistics.ranges.get((x and x.name) or "")
            if not reason and range_ is None:
                reason = "its input was not measured: 'calibrate' has to come before"
            if reason or range_ is None:
                floats.append(FloatOp(node_label(node), node.op_type, reason))
                continue
            require_opset(model, 21, "4-bit and 8-bit floats in blocks are from opset 21", context)
            largest = max(abs(range_.low), abs(range_.high))
            scale = np.float32(largest / LARGEST) or np.float32(1)
            weight = self._weight(node, asked.bits or self.bits, context)
            layers.append(writer.rewrite(node, weight, np.float32(scale)))
        note(context, layers, [*floats, *inner_float_ops(model)])
        warn_if_nothing(self.name, context)
        return bool(layers)

    def _weight(self, node: ir.Node, bits: int, context: Context) -> ChosenWeight:
        """The integers of a layer [K, N], those that were chosen or the nearest ones."""
        value = node.inputs[1]
        assert value is not None
        flip = int_attribute(node, "transB") != 0
        shape = tuple(float_weight(value).shape.numpy())
        chosen = (context.get(ChosenWeights) or ChosenWeights()).find(value.name, shape)
        if chosen is not None:
            return chosen.transposed() if flip else chosen
        if bits > 4:
            raise UsageError(
                f"quantize-fp8 cannot store '{node_label(node)}' in {bits} bits",
                hint="bits=2, 3 or 4",
            )
        with read_weight(float_weight(value)) as W:
            check_finite(value.name or "", W)
            rows = np.ascontiguousarray(W if flip else W.T, dtype=np.float32)
        grids = self._grid(bits).fitted(rows)
        half = 1 << (bits - 1)
        levels = (grids.round(rows).astype(np.int16) - half).astype(np.int8)
        return ChosenWeight(
            np.ascontiguousarray(levels.T),
            np.ascontiguousarray(grids.scale.T),
            np.ascontiguousarray((grids.zero - half).astype(np.int8).T),
            0,
            grids.size,
            bits,
            "",
        )


@dataclass(frozen=True, slots=True)
class _Writer:
    """What the layers of one graph share.

    Attributes:
        editor: Of the graph.
        rounded: Value -> its rounded form.
    """

    editor: Editor
    rounded: dict[ir.Value, ir.Value]

    def rewrite(self, node: ir.Node, weight: ChosenWeight, scale: np.float32) -> QuantizedLayer:
        """Put the pairs in place of a MatMul or Gemm."""
        editor, label, value = self.editor, node_label(node), node.inputs[1]
        assert value is not None
        x = self._activation(node, scale)
        integers, w = self._weight(node, value.name or label, weight)
        y = editor.node("MatMul", [x, w], name=f"{label}_MatMul", before=node).outputs[0]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None:
            y = editor.node("Add", [y, bias], name=f"{label}_Add", before=node).outputs[0]
        op_type, source = node.op_type, node.outputs[0].name or ""
        editor.replace_value(node.outputs[0], y)
        editor.remove(node)
        sign = "s" if weight.zero_point is None or not weight.zero_point.any() else "u"
        blocks = "" if weight.group is None else f"/{weight.group}"
        return QuantizedLayer(
            node=label,
            op_type=op_type,
            scheme="float8",
            weight=value.name or "",
            quantized=integers.name or "",
            weight_type=f"{sign}{weight.bits}{blocks}",
            kernel="MatMul of 8-bit floats",
            source=source,
            output=y.name or "",
            method=weight.method,
        )

    def _activation(self, node: ir.Node, scale: np.float32) -> ir.Value:
        x = node.inputs[0]
        assert x is not None
        x = self._without_clamp(x)
        if x not in self.rounded:
            s = self.editor.initializer(f"{x.name}_scale", np.asarray(scale, np.float32))
            self.rounded[x] = self._pair(x, s, s, f"{x.name}", node)
        return self.rounded[x]

    def _without_clamp(self, x: ir.Value) -> ir.Value:
        """The value, made by Max and Min where a Relu or Clip makes it.

        ONNX Runtime 1.32 drops a Relu in front of a QuantizeLinear whose zero point is 0, as u8
        allows, and refuses to load a Clip there; it has no rules for 8-bit floats.
        """
        clamp, editor = x.producer(), self.editor
        if clamp is None or clamp.domain or clamp.op_type not in ("Clip", "Relu"):
            return x
        bounds = {
            "Max": clamp.inputs[1] if len(clamp.inputs) > 1 else None,
            "Min": clamp.inputs[2] if len(clamp.inputs) > 2 else None,
        }
        if clamp.op_type == "Relu":
            bounds["Max"] = editor.initializer(f"{x.name}_low", np.zeros((), np.float32))
        made, label = clamp.inputs[0], node_label(clamp)
        for kind, bound in bounds.items():
            if bound is not None:
                node = editor.node(kind, [made, bound], name=f"{label}_{kind}", before=clamp)
                made = node.outputs[0]
        if made is None:
            return x
        if made is clamp.inputs[0]:  # a Clip without bounds
            return self._without_clamp(made)
        name, was_output = x.name, x.is_graph_output()
        editor.replace_value(x, made)
        editor.remove(clamp)
        if not was_output and name is not None:
            made.name = name
        return made

    def _pair(
        self, x: ir.Value, into: ir.Value, back: ir.Value, name: str, node: ir.Node, axis: int = -1
    ) -> ir.Value:
        """E4M3(x / into) * back."""
        import ml_dtypes

        zero = self.editor.initializer(f"{name}_zero_point", np.zeros((), ml_dtypes.float8_e4m3fn))
        rounded = self.editor.node(
            "QuantizeLinear",
            [x, into, zero],
            name=f"{name}_QuantizeLinear",
            outputs=[f"{name}_e4m3"],
            before=node,
        ).outputs[0]
        attributes = {} if axis < 0 else {"axis": axis}
        return self.editor.node(
            "DequantizeLinear", [rounded, back], attributes, name=f"{name}_real", before=node
        ).outputs[0]

    def _weight(self, node: ir.Node, name: str, weight: ChosenWeight) -> tuple[ir.Value, ir.Value]:
        """The integers, and the float weight [K, N] behind all that is done to them."""
        import onnx_ir as ir

        rows = weight.scale.T if weight.group is not None else weight.scale.reshape(-1, 1)
        scales = channel_scales(np.ascontiguousarray(rows))
        if scales is None or weight.bits > 4 or (weight.group is None and weight.scale.ndim == 0):
            raise PassError(
                f"the integers chosen for '{name}' are no 8-bit floats",
                why=f"{weight.method} did not choose scales that are powers of two apart",
                hint="let 'dpq' choose them",
            )
        S, power = scales
        K = weight.levels.shape[0]
        shape = list(weight.levels.shape)
        parts = SharedParts(
            lambda: {"levels": pack_int4(weight.levels.reshape(-1).view(np.uint8))},
            {"levels": (ir.DataType.INT4, shape)},
        )
        q = self.editor.initializer(f"{name}_quantized", parts.tensor("levels"))
        steps = self.editor.initializer(
            f"{name}_powers", np.ascontiguousarray(power.T).astype(np.float16)
        )
        inputs = [q, steps]
        if weight.zero_point is not None:
            zero = weight.zero_point.reshape(power.T.shape)
            packed = ir.PackedTensor(
                pack_int4(np.ascontiguousarray(zero).reshape(-1).view(np.uint8)),
                ir.DataType.INT4,
                shape=zero.shape,
            )
            inputs.append(self.editor.initializer(f"{name}_zero_points", packed))
        exact = self.editor.node(
            "DequantizeLinear",
            inputs,
            {"axis": 0, "block_size": weight.group or K},
            name=f"{name}_DequantizeLinear",
            before=node,
        ).outputs[0]
        one = self.editor.initializer(f"{name}_one", np.ones((), np.float16))
        channel = self.editor.initializer(f"{name}_channel_scale", S)
        return q, self._pair(exact, one, channel, name, node, axis=1)
