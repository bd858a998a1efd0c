"""Static INT8: activations and weights as integers, in the QDQ form that ONNX Runtime fuses.

For a layer ``y = x W + b`` with scales s and zero points z (z_W = 0), the integer kernel computes

    q_y = clip(round(s_x s_W[c] / s_y * (sum_k (q_x - z_x) q_W[k, c] + q_b[c])) + z_y, 0, 255)

    q_b[c] = round(b[c] / (s_x s_W[c]))        (int32)

Activations are u8 with one scale and zero point a tensor, weights s8 symmetric with one scale an
output channel (or a tensor). The bias of a convolution is left in float: ONNX Runtime itself rounds
it to q_b when it loads the graph, and the file needs no scales for it. The graph gets
QuantizeLinear/DequantizeLinear pairs; which operators become integer kernels is planned in
:mod:`qcomp.passes.quantize.static_plan`.

Preconditions: opset 13 or later; ``calibrate`` ran in this pipeline on the same graph; BatchNorm
is folded.
Preserved: nothing exactly; the error is reported per layer by ``quantization-error``.
Cost: one pass over the nodes, one over the weights.
Source: Jacob et al. 2018, arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342, sections 2 and
3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from qcomp.errors import PassError, UsageError
from qcomp.integer_rules import IntegerRules, integer_rules_of
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    check_finite,
    constant_array,
    int_attribute,
    is_constant,
    node_label,
    only_use,
    require_opset,
    static_shape,
)
from qcomp.passes.quantize.activation_parameters import seven_bits
from qcomp.passes.quantize.already import dequantized_affine
from qcomp.passes.quantize.arithmetic import Affine, Floats
from qcomp.passes.quantize.blocked_weights import GROUPS, blocks_text, channel_blocks
from qcomp.passes.quantize.folded_weights import FoldedWeights
from qcomp.passes.quantize.integer_types import INT7, INT8, IntegerType
from qcomp.passes.quantize.machine_form import MachineForm
from qcomp.passes.quantize.record import keep_reference, note, warn_if_nothing
from qcomp.passes.quantize.shared_scales import share_scales
from qcomp.passes.quantize.static_plan import (
    PlannedLayer,
    StaticPlan,
    activation_bounds,
    plan_static,
    weight_axis,
)
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import (
    ChosenWeight,
    ChosenWeights,
    NodeRules,
    QuantizedLayer,
    TensorStatistics,
    rules_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["QuantizeStatic"]

_BIAS_LIMIT = np.float32(2**30)
_WEIGHT_BITS = (8, 7, 4, 3, 2)


@dataclass(frozen=True)
class QuantizeStatic(GraphPass):
    """Quantize weights and activations to 8 bits with calibrated ranges.

    Attributes:
        weight_bits: 8, weights in [-127, 127]; 7, in [-63, 63]: on x86 processors without VNNI the
            16-bit sums of the 8-bit kernel would saturate; 4, in [-7, 7]: stored as INT4 behind a
            Cast to INT8 that ONNX Runtime folds when it loads, so the kernels are the 8-bit ones;
            3 or 2, packed, see :mod:`qcomp.passes.quantize.folded_weights`.
        activation_bits: 8; 7: activations take 128 levels of u8, [0, 127]. A value beyond its range
            takes one above: u8 goes on to 255.
        weight_scales: ``channel``, a scale of weights for each output channel; ``tensor``, one for
            a whole weight, as some accelerators want it (``cross-layer-equalize`` helps there).
        group: With 4 bits and fewer, values of a channel that share a scale in the file: 16, 32,
            64, 128 or 256; 0 for all. In memory a channel has one scale of 8 bits.
        needs_data: Whether to refuse where nothing was measured; else the graph then stays.
    """

    name: ClassVar[str] = "quantize-static"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    weight_bits: Literal[8, 7, 4, 3, 2] = 8
    activation_bits: Literal[8, 7] = 8
    weight_scales: Literal["channel", "tensor"] = "channel"
    group: int = 0
    needs_data: bool = True

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if self.weight_bits not in _WEIGHT_BITS:
            raise UsageError(
                f"quantize-static: weight_bits is {self.weight_bits}", hint="8, 7, 4, 3 or 2"
            )
        if self.activation_bits not in (8, 7):
            raise UsageError(
                f"quantize-static: activation_bits is {self.activation_bits}", hint="8 or 7"
            )
        if self.weight_scales not in ("channel", "tensor"):
            raise UsageError(
                f"quantize-static: weight_scales is '{self.weight_scales}'",
                hint="channel or tensor",
            )
        if self.group not in (0, *GROUPS) or (self.group and self.weight_scales == "tensor"):
            raise UsageError(
                f"quantize-static: group is {self.group} with weight_scales={self.weight_scales}",
                hint="16, 32, 64, 128 or 256 with weight_scales=channel; 0 for none",
            )

    def run(self, program: Program, context: Context) -> bool:
        """Insert the QDQ pairs.

        Raises:
            PassError: No calibration, an opset below 13, or a weight with NaN or infinity.
        """
        if not self.needs_data and context.get(TensorStatistics) is None:
            return False
        rules = rules_of(context)
        machine = integer_rules_of(context)
        plan = plan_static(program.model, rules, machine)
        note(context, (), plan.float_ops)
        if not plan.layers:
            warn_if_nothing(self.name, context)
            return False
        chosen = context.get(ChosenWeights) or ChosenWeights()
        bits = {layer.node: self._bits(layer.node, rules) for layer in plan.layers}
        for layer in plan.layers:
            found = _chosen(layer, chosen)
            bits[layer.node] = bits[layer.node] if found is None else found.bits
        if min(bits.values()) <= 4:
            require_opset(program.model, 21, "4-bit integers are from opset 21", context)
        require_opset(program.model, 13, "per-channel DequantizeLinear is from opset 13", context)
        statistics = context.get(TensorStatistics)
        if statistics is None and not plan.measured:  # the graph has all scales already
            statistics = TensorStatistics("", 0, {})
        if statistics is None:
            raise PassError(
                "quantize-static needs the ranges of the activations",
                why="no calibration ran in this pipeline",
                hint="give calibration data (--calib data.npz), put 'calibrate' before this pass",
            )
        Editor(program.model).name_nodes()
        keep_reference(program, context)
        if not machine.is_cpu and {*bits.values(), self.activation_bits} != {8}:
            raise UsageError(
                f"the weights of '{machine.provider}' have 8 bits, activations their own type",
                hint="leave 'bits', weight-bits and activation-bits out, or take cpu-int8",
            )
        statistics = share_scales(plan, statistics)
        if self.activation_bits == 7:
            statistics = seven_bits(statistics)
        rewriter = _Rewriter(program.model, plan, statistics, bits, machine, chosen, self)
        layers = rewriter.run()
        note(context, layers, ())
        return True

    def _bits(self, node: ir.Node, rules: NodeRules) -> int:
        """Bits of one operator's weight, as the user asks or as the option says."""
        bits = rules.options(node).bits
        if bits is None:
            return self.weight_bits
        if bits not in _WEIGHT_BITS:
            raise UsageError(
                f"quantize-static cannot store '{node_label(node)}' in {bits} bits",
                hint="8, 7, 4, 3 or 2",
            )
        return bits


class _Rewriter:
    """One rewrite of one graph by its plan."""

    def __init__(
        self,
        model: ir.Model,
        plan: StaticPlan,
        statistics: TensorStatistics,
        bits: Mapping[ir.Node, int],
        machine: IntegerRules,
        chosen: ChosenWeights,
        options: QuantizeStatic,
    ) -> None:
        self.plan = plan
        self.statistics = statistics
        self.kinds = {
            layer.node: IntegerType(bits[layer.node], signed=True, narrow=True)
            for layer in plan.layers
        }
        self.editor = Editor(model)
        self.chosen = chosen
        self.group = options.group
        self.folded = FoldedWeights(self.editor, INT7 if options.weight_bits == 7 else INT8)
        per_tensor = options.weight_scales == "tensor"
        self.form = MachineForm(self.editor, machine, per_tensor, chosen)
        self.source = {node.outputs[0]: node.inputs[0] for node in plan.moves}
        self.inside = {layer.output for layer in plan.layers} | set(self.source)
        self.parameters: dict[ir.Value, tuple[Affine, ir.Value, ir.Value]] = {}
        self.dequantized: dict[ir.Value, ir.Value] = {}
        self.real: set[ir.Value] = set()
        self.renamed: dict[str, ir.Value] = {}

    def run(self) -> list[QuantizedLayer]:
        records = [self._record(layer) for layer in self.plan.layers]
        layers = [self._guarded(layer) for layer in self.plan.layers]
        done = [
            (layer, *self._weight(layer)) if layer.weighted else (layer, None, None)
            for layer in layers
        ]
        for layer, weight, bias in done:
            node = layer.node
            if weight is not None:
                old = [value for value in node.inputs[1:] if value is not None]
                node.replace_input_with(1, weight)
                if bias is not None:
                    node.replace_input_with(2, bias)
                for unused in old:
                    self.editor.drop_if_unused(unused)
            for index in layer.activations:
                value = node.inputs[index]
                assert value is not None
                node.replace_input_with(index, self._pair(value))
            if layer.output is not None:
                self._pair(layer.output)
        for node in self.plan.moves:
            source = node.inputs[0]
            if source is not None and source not in self.inside and source not in self.real:
                node.replace_input_with(0, self._pair(source))
            self._pair(node.outputs[0])
        if self.form.machine.clamps == "folded":
            for layer in layers:
                self._fold_clamp(layer)
        return [
            self._finish(record, layer, weight)
            for record, (layer, weight, _) in zip(records, done, strict=True)
        ]

    def _guarded(self, layer: PlannedLayer) -> PlannedLayer:
        """Keep ONNX Runtime from making a float Gemm of a layer before it sees the QDQ pairs.

        It joins a matrix product of rank 2 with the Add behind it, and a Gemm with the activation
        behind it. A Sum in place of the Add it leaves alone.
        """
        node = layer.node
        if layer.output is not None or layer.kernel != "MatMulIntegerToFloat":
            return layer
        if node.op_type == "Gemm":
            matmul = self._split_gemm(node)
            self.kinds[matmul] = self.kinds[node]
            return replace(layer, node=matmul)
        user = only_use(node.outputs[0])
        shape = static_shape(node.inputs[0])
        if user is not None and user.op_type == "Add" and (shape is None or len(shape) == 2):
            user.op_type = "Sum"
        return layer

    def _split_gemm(self, node: ir.Node) -> ir.Node:
        """Replace a Gemm by MatMul and Sum; the weight becomes float32[K, N]."""
        weight = node.inputs[1]
        assert weight is not None
        if int_attribute(node, "transB"):
            tensor = float_weight(weight)
            shape = tensor.shape.numpy()[::-1]
            parts = SharedParts(
                lambda: {"weight": tensor.numpy().T}, {"weight": (tensor.dtype, shape)}
            )
            found = self.chosen.find(weight.name, tuple(tensor.shape.numpy()))
            weight = self.editor.initializer(f"{weight.name}_T", parts.tensor("weight"))
            if found is not None:
                self.chosen = self.chosen.joined({weight.name or "": found.transposed()})
                self.form.channels.chosen = self.chosen
        label = node_label(node)
        matmul = self.editor.node(
            "MatMul", [node.inputs[0], weight], name=f"{label}_MatMul", before=node
        )
        y = matmul.outputs[0]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None:
            y = self.editor.node("Sum", [y, bias], name=f"{label}_Sum", before=node).outputs[0]
        self.editor.replace_value(node.outputs[0], y)
        self.renamed[label] = y
        self.editor.remove(node)
        return matmul

    def _record(self, layer: PlannedLayer) -> QuantizedLayer:
        output = layer.output if layer.output is not None else layer.node.outputs[0]
        found, bits = _chosen(layer, self.chosen), self.kinds[layer.node].bits
        return QuantizedLayer(
            node=node_label(layer.node),
            op_type=layer.node.op_type,
            scheme="static",
            weight=_name(layer.node.inputs[1]) if layer.weighted else "",
            quantized="",
            weight_type=blocks_text(bits, found, self.group) if layer.weighted else "",
            kernel=layer.kernel,
            source=output.name or "",
            output=output.name or "",
            method="" if found is None else found.method,
        )

    def _finish(
        self, record: QuantizedLayer, layer: PlannedLayer, weight: ir.Value | None
    ) -> QuantizedLayer:
        """The record with the names that the rewrite has given."""
        real = None if layer.output is None else self.dequantized[layer.output]
        real = self.renamed.get(record.node, real)
        output = record.output if real is None else real.name or ""
        return replace(record, quantized=_name(weight), output=output)

    def _affine(self, value: ir.Value) -> tuple[Affine, ir.Value, ir.Value]:
        """Scale and zero point of a value, with their initializers (shared along moves)."""
        origin = value
        while origin in self.source and self.source[origin] is not None:
            origin = self.source[origin]  # type: ignore[assignment]
        held = dequantized_affine(origin)
        if held is not None:
            pair = origin.producer()
            assert pair is not None
            scale, zero = pair.inputs[1], pair.inputs[2]
            assert scale is not None
            assert zero is not None
            return held, scale, zero
        if origin not in self.parameters:
            name = origin.name or ""
            found = self.statistics.ranges.get(name)
            if found is None:
                raise PassError(
                    f"the range of '{name}' was not measured",
                    why="the graph changed after 'calibrate'",
                    hint="put 'calibrate' directly before 'quantize-static'",
                )
            affine = self.form.affine(found, origin.producer())
            self.parameters[origin] = (
                affine,
                self.editor.initializer(f"{name}_scale", np.array(affine.scale, dtype=np.float32)),
                self.editor.initializer(
                    f"{name}_zero_point", np.array(affine.zero_point, affine.type.storage)
                ),
            )
        return self.parameters[origin]

    def _pair(self, value: ir.Value) -> ir.Value:
        """Quantize and dequantize a value, once; the result is what integer operators read."""
        if value in self.real or dequantized_affine(value) is not None:
            return value
        if value in self.dequantized:
            return self.dequantized[value]
        if is_constant(value):
            real = self.form.constant(value, next(iter(self.editor.graph)))
            self.dequantized[value] = real
            self.real.add(real)
            return real
        _, scale, zero = self._affine(value)
        producer, name = value.producer(), value.name or ""
        uses = list(value.uses())
        domain = self.form.domain
        q = self.editor.node(
            "QuantizeLinear",
            [value, scale, zero],
            name=f"{name}_QuantizeLinear",
            domain=domain,
            outputs=[f"{name}_quantized"],
            before=next(iter(self.editor.graph)) if producer is None else None,
            after=producer,
        )
        dq = self.editor.node(
            "DequantizeLinear",
            [q.outputs[0], scale, zero],
            name=f"{name}_DequantizeLinear",
            domain=domain,
            outputs=[f"{name}_dequantized"],
            after=q,
        )
        real = dq.outputs[0]
        real.type, real.shape = value.type, value.shape
        self.dequantized[value] = real
        self.real.add(real)
        if value in self.inside:
            # The integer kernel's only result is u8, so float consumers read it dequantized too.
            for usage in uses:
                usage.node.replace_input_with(usage.idx, real)
            if value.is_graph_output():
                graph = self.editor.graph
                graph.outputs[list(graph.outputs).index(value)] = real
                value.name = self.editor.fresh(f"{name}_float")
                real.name = name
        return real

    def _fold_clamp(self, layer: PlannedLayer) -> None:
        """Leave out a Relu or Clip that the integers behind it make needless."""
        value = layer.output
        clamp = None if value is None else value.producer()
        if value is None or clamp is None or clamp is layer.node:
            return
        bounds, affine = activation_bounds(clamp), self._affine(value)[0]
        pair = self.dequantized[value].producer()
        quantized = None if pair is None or pair.inputs[0] is None else pair.inputs[0].producer()
        if bounds is None or quantized is None or quantized.inputs[0] is not value:
            return
        if bounds[0] <= affine.low and affine.high <= bounds[1]:
            quantized.replace_input_with(0, clamp.inputs[0])
            self.editor.remove(clamp)

    def _weight(self, layer: PlannedLayer) -> tuple[ir.Value, ir.Value | None]:
        """Dequantized weight and bias of a layer."""
        node, kind = layer.node, self.kinds[layer.node]
        value = node.inputs[1]
        source = node.inputs[0]
        assert value is not None
        assert source is not None
        machine = self.form.machine
        axis = weight_axis(node)
        bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
        x_scale = np.float32(self._affine(source)[0].scale)
        floor: Floats | None = None
        if bias is not None:
            check_finite(_name(node.inputs[2]), bias)
            bias = bias.astype(np.float32).reshape(-1)
            if machine.bias == "s32" and node.op_type != "LayerNormalization":
                floor = np.asarray(np.abs(bias) / (x_scale * _BIAS_LIMIT), dtype=np.float32)
        weights = self.form.weights(node)
        name = value.name or ""
        blocks = None
        if weights is self.form.channels and not weights.per_tensor and machine.is_cpu:
            blocks = channel_blocks(value, axis, kind.bits, self.chosen, self.group)
        if blocks is not None:
            levels, scale, zero, scales = self.folded.at_once(blocks, node, floor)
        else:
            levels, scale, zero, scales = weights.add(value, axis, kind, bias_floor=floor)
        if kind.bits <= 4 and blocks is None:
            levels = self.editor.node(
                "Cast",
                [levels],
                {"to": 3},
                name=f"{name}_Cast",
                outputs=[f"{name}_s8"],
                before=node,
            ).outputs[0]
        eight = kind.bits > 4 or blocks is not None
        bare = node.op_type in ("Conv", "MatMul") and eight and machine.is_cpu
        weight = self.editor.node(
            "DequantizeLinear",
            [levels, scale] if bare else [levels, scale, zero],
            {"axis": axis},
            name=f"{name}_DequantizeLinear",
            domain=self.form.domain,
            outputs=[f"{name}_dequantized"],
            before=node,
        ).outputs[0]
        self.editor.drop_if_unused(zero)
        form = machine.bias_of(node.op_type) if kind.bits > 4 else machine.bias
        if bias is None or form == "float":
            return weight, None
        name = _name(node.inputs[2])
        return weight, self.form.bias(node, bias, name, form, np.asarray(x_scale * scales))


def _chosen(layer: PlannedLayer, chosen: ChosenWeights) -> ChosenWeight | None:
    """The integers that a pass chose for a layer's weight."""
    value = layer.node.inputs[1] if layer.weighted else None
    if value is None or value.name not in chosen.weights:
        return None
    return chosen.find(value.name, tuple(float_weight(value).shape.numpy()))


def _name(value: ir.Value | None) -> str:
    """Name of a value; of the integer tensor when the value is a dequantized weight."""
    if value is None:
        return ""
    producer = value.producer()
    while producer is not None and producer.op_type in ("DequantizeLinear", "Cast"):
        source = producer.inputs[0]
        assert source is not None
        value, producer = source, source.producer()
    return value.name or ""
