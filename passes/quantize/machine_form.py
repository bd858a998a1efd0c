"""The form that a machine wants integers in: types, scales, zero points, biases, operator domain.

Everything here follows :class:`qcomp.integer_rules.IntegerRules`; no machine is known by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError
from qcomp.integer_rules import IntegerRules
from qcomp.passes.graph.rewriting import Editor, check_finite, constant_array, int_attribute
from qcomp.passes.quantize.activation_parameters import (
    activation_parameters,
    activation_type,
    next_power_of_two,
)
from qcomp.passes.quantize.arithmetic import Affine, Floats, quantize, symmetric_scale, within
from qcomp.passes.quantize.integer_types import INT8, INT32, IntegerType
from qcomp.passes.quantize.static_plan import activation_bounds
from qcomp.passes.quantize.weights import ChannelWeights
from qcomp.quantization import ChosenWeights, TensorRange

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MachineForm", "best_power_of_two", "bias_levels"]

_STANDARD_16_BITS = 21
"""Opset from which QuantizeLinear takes 16 bits; below, ``com.microsoft`` has one that does."""


def best_power_of_two(array: Floats, scale: Floats, kind: IntegerType) -> Floats:
    """The power of two of least squared error for a weight, from the one that covers it down.

    Args:
        array: float32 weight.
        scale: The scale that covers it, a scalar.
        kind: Signed type.

    Returns:
        A float32 scalar.
    """
    found = next_power_of_two(scale)

    def error(step: Floats) -> float:
        noise = np.clip(np.rint(array / step), kind.min, kind.max) * step - array
        return float(np.vdot(noise, noise))

    trials = [np.asarray(found / np.float32(part), np.float32) for part in (1, 2, 4)]
    return min(trials, key=error)


def bias_levels(
    bias: Floats, form: str, step: Floats, machine: IntegerRules
) -> tuple[npt.NDArray[np.generic], Floats]:
    """Return the integers of a bias and their scale.

    Args:
        bias: float[C].
        form: ``s32``, in units of ``step``, or ``s8``, with a scale of its own.
        step: The scale of the input times that of the weight, a scalar or float32[C].
        machine: Whether scales are powers of two.
    """
    if form == "s8":
        real = np.asarray(bias, np.float32)
        scale = symmetric_scale(real, INT8, None)
        if machine.power_of_two:
            scale = best_power_of_two(real, scale, INT8)
        return quantize(real, scale, 0, INT8), scale
    levels = np.clip(np.rint(bias.astype(np.float64) / step), INT32.min, INT32.max)
    return levels.astype(np.int32), np.asarray(step, np.float32)


class MachineForm:
    """Makes the constants of one rewrite as a machine wants them.

    Args:
        editor: Of the graph.
        machine: The rules.
        per_tensor: One scale a weight, whatever the machine takes.
        chosen: Integers that other passes chose for weights.
    """

    def __init__(
        self, editor: Editor, machine: IntegerRules, per_tensor: bool, chosen: ChosenWeights
    ) -> None:
        self.editor = editor
        self.machine = machine
        self.kind = activation_type(machine)
        self.channels = ChannelWeights(editor, per_tensor, chosen)
        adjust = best_power_of_two if machine.power_of_two else None
        unsigned = machine.weight == "u8"
        self.tensors = ChannelWeights(editor, True, chosen, adjust=adjust, unsigned=unsigned)
        opset = editor.graph.opset_imports.get("", _STANDARD_16_BITS)
        self.domain = ""
        if self.kind.bits > 8 and opset < _STANDARD_16_BITS:
            self.domain = "com.microsoft"
            editor.use_domain(self.domain, 1)

    def weights(self, node: ir.Node) -> ChannelWeights:
        """Where the weight of an operator becomes integers."""
        shared = node.op_type == "ConvTranspose" and int_attribute(node, "group", 1) > 1
        single = shared or node.op_type not in self.machine.per_channel
        return self.tensors if single else self.channels

    def affine(self, found: TensorRange, producer: ir.Node | None) -> Affine:
        """Scale and zero point of an activation.

        Args:
            found: Its range.
            producer: The operator that makes it; None for an input of the graph.
        """
        if producer is not None and producer.op_type in self.machine.fixed:
            scale, zero = self.machine.fixed[producer.op_type]
            return Affine(float(np.float32(scale)), zero, self.kind)
        affine = activation_parameters(found.low, found.high, self.machine)
        bounds = None if producer is None else activation_bounds(producer)
        return affine if bounds is None or self.machine.symmetric else within(affine, *bounds)

    def constant(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """A constant operand as integers of the activations' type, dequantized."""
        name = value.name or "constant"
        array = constant_array(value)
        if array is None:
            raise PassError("an operand is no longer a constant", where=name)
        check_finite(name, array)
        real = np.asarray(array, np.float32)
        low, high = float(real.min(initial=0.0)), float(real.max(initial=0.0))
        affine = activation_parameters(low, high, self.machine)
        flat: Floats = real.reshape(-1)
        levels = quantize(flat, affine.scale, affine.zero_point, self.kind).reshape(real.shape)
        return self.dequantize(
            name, levels, np.array(affine.scale, np.float32), affine.zero_point, before
        )

    def bias(self, node: ir.Node, bias: Floats, name: str, form: str, step: Floats) -> ir.Value:
        """The dequantized bias of a layer.

        Args:
            node: The layer.
            bias: float32[C].
            name: Name of the bias.
            form: ``s32`` or ``s8``.
            step: The scale of the input times that of the weight, which s32 has.
        """
        levels, scale = bias_levels(bias, form, step, self.machine)
        zero = 0 if form == "s8" else None
        return self.dequantize(name, levels, scale, zero, node)

    def dequantize(
        self,
        name: str,
        levels: npt.NDArray[np.generic],
        scale: Floats,
        zero: int | None,
        before: ir.Node,
    ) -> ir.Value:
        """Store integers and dequantize them in front of a node.

        Args:
            name: Of the float constant.
            levels: The integers.
            scale: A scalar, or one for each of the first axis.
            zero: The zero point, written out; None leaves it out, for 0.
            before: The node.
        """
        inputs = [
            self.editor.initializer(f"{name}_quantized", levels),
            self.editor.initializer(f"{name}_scale", scale),
        ]
        if zero is not None:
            point = np.full(scale.shape, zero, levels.dtype)
            inputs.append(self.editor.initializer(f"{name}_zero_point", point))
        return self.editor.node(
            "DequantizeLinear",
            inputs,
            {"axis": 0},
            name=f"{name}_DequantizeLinear",
            domain=self.domain,
            outputs=[f"{name}_dequantized"],
            before=before,
        ).outputs[0]
