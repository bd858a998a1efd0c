"""DQA: activations in few bits; important channels keep what a shift to the right cuts off.

    important:  q = round(x 2^m / s) + z 2^m,  hi = q >> m,  e = q & (2^m - 1)
    others:     hi = round(x / s) + z,         e = 0
    decoder:    x^ = ((hi << m | e) - z 2^m) s / 2^m

hi has n bits and is stored for all values, e in Huffman codes for important channels alone
(:mod:`qcomp.passes.quantize.activation_codec`); s and z are those of the tensor's range, n bits.
The graph computes hi and e in front of each Conv, MatMul and Gemm and reads x^, all integers by
standard operators; products are in float. Taps are ``NAME_stored`` and ``NAME_shift_error``, the
tables are in the model's metadata, under the activation's name.

Channels are ranked by a greedy search: with the moments A_ij = E[d_i d_j] sum_o W_i^o W_j^o of the
errors d of n bits, the next important channel is the one that takes most out of the output error
sum_ij A_ij, as long as that falls; ``share`` of the channels at most.

Preconditions: opset 18; calibration data. Inputs of the graph stay as they came.
Preserved: nothing exactly; bits a value are reported for each activation.
Cost: two runs over the calibration data; C^2 numbers for C channels.
Source: Hu et al. 2024, "DQA", arXiv:2412.09687. Only its abstract and a summary could be read: more
bits for important channels, ranked off-line by a greedy search, a shift, Huffman codes of the
shift errors. The error that is searched for, in closed form, one scale a tensor, and all defaults
are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.graph.layer_pairs import LayerForm
from qcomp.passes.graph.rewriting import (
    Editor,
    node_label,
    read_weight,
    require_opset,
)
from qcomp.passes.quantize.activation_codec import (
    ActivationCodec,
    code_lengths,
    codecs_of,
    keep_codecs,
)
from qcomp.passes.quantize.record import keep_reference, note
from qcomp.passes.quantize.static_plan import matmul_weight_reason
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import FloatOp, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["CodedActivations", "Dqa"]

Float64 = npt.NDArray[np.float64]

_LAYERS = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True, slots=True)
class CodedActivations:
    """What ``dqa`` stores.

    Attributes:
        codecs: Name of an activation -> its tables.
    """

    codecs: Mapping[str, ActivationCodec]

    @property
    def bits_a_value(self) -> float:
        """Mean over the activations."""
        return float(np.mean([codec.bits_a_value for codec in self.codecs.values()]))


@dataclass(frozen=True)
class Dqa(GraphPass):
    """Store activations in few bits, important channels with Huffman-coded shift errors (DQA).

    Attributes:
        bits: n, of each value.
        extra: m, further bits of important channels.
        share: Of the channels that may be important; 0 rounds all to n bits.
        symmetric: Whether the range is [-max |x|, max |x|], for machines with signed levels alone.
        batch: Samples run at a time.
    """

    name: ClassVar[str] = "dqa"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    bits: int = 4
    extra: int = 2
    share: float = 0.75
    symmetric: bool = False
    batch: int = 32

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if not 2 <= self.bits <= 7 or not 1 <= self.extra <= 8 - self.bits:
            raise UsageError(
                f"dqa: bits is {self.bits} and extra {self.extra}",
                hint="bits is 2 to 7, extra at least 1, and a byte holds both",
            )
        if not 0.0 <= self.share <= 1.0 or self.batch < 1:
            raise UsageError("dqa: share is within [0, 1], batch at least 1")

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite what layers read.

        Raises:
            PassError: No calibration data, or an opset that is too old.
            UsageError: Data that does not fit the model.
        """
        activations, floats = self._activations(program, context)
        if not activations:
            why = floats[0].reason if floats else "there is no Conv, MatMul or Gemm"
            context.warn(f"dqa stores no activation: {why}")
            return False
        require_opset(program.model, 18, "BitwiseAnd is from opset 18", context)
        if context.calibration is None:
            raise PassError("dqa has no calibration data", hint="--calib data.npz")
        keep_reference(program, context)
        tables = self._tables(program, activations, context)
        editor = Editor(program.model)
        for name, activation in activations.items():
            _write(editor, activation, tables[name])
        keep_codecs(program.model, {**codecs_of(program.model), **tables})
        coded = CodedActivations(tables)
        context.put(coded)
        note(context, (), floats)
        context.warn(
            f"{len(tables)} activations take {coded.bits_a_value:.2f} bits a value: {self.bits}, "
            "and the shift errors of important channels"
        )
        return True

    def _activations(
        self, program: Program, context: Context
    ) -> tuple[dict[str, _Activation], list[FloatOp]]:
        found: dict[str, _Activation] = {}
        floats = []
        rules = rules_of(context)
        Editor(program.model).name_nodes()
        for node in program.model.graph:
            if node.domain or node.op_type not in _LAYERS:
                continue
            x = node.inputs[0]
            reason = rules.refusal(node) or matmul_weight_reason(node)
            maker = None if x is None else x.producer()
            if not reason and (x is None or maker is None):
                reason = "what it reads comes into the graph as it is"
            if not reason and maker is not None and maker.op_type == "DequantizeLinear":
                reason = "what it reads is made of integers already"
            if reason or x is None:
                floats.append(FloatOp(node_label(node), node.op_type, reason))
                continue
            axis = 1 if node.op_type == "Conv" else -1
            one = found.setdefault(x.name or "", _Activation(x, axis, []))
            if one.axis == axis:
                one.layers.append(node)
                reason = f"what it reads is stored in {self.bits} bits; the product is in float"
            else:
                reason = "another layer has its channels in another axis: it reads float"
            floats.append(FloatOp(node_label(node), node.op_type, reason))
        return found, floats

    def _tables(
        self, program: Program, activations: Mapping[str, _Activation], context: Context
    ) -> dict[str, ActivationCodec]:
        """Measure ranges, then errors and shift errors."""
        from qcomp.execute import HybridSession

        assert context.calibration is not None
        session = HybridSession(program, taps=list(activations))
        measured = {name: _Measured(self, one) for name, one in activations.items()}
        with context.progress.task("ranking channels", None) as task:
            for see in (_Measured.see_range, _Measured.see_errors):
                batches = checked_batches(program.model, context.calibration(), self.batch)
                for index, feeds in enumerate(batches):
                    values = session.run(feeds, list(activations), seed=context.seed + index)
                    for name, one in measured.items():
                        see(one, np.asarray(values[name], np.float32))
                    task.advance()
        return {name: one.codec() for name, one in measured.items()}


@dataclass(frozen=True, slots=True)
class _Activation:
    """What some layers read.

    Attributes:
        value: The tensor.
        axis: Of its channels.
        layers: Those that read it.
    """

    value: ir.Value
    axis: int
    layers: list[ir.Node]


class _Measured:
    """Statistics of one activation."""

    def __init__(self, options: Dqa, activation: _Activation) -> None:
        self._options, self._activation = options, activation
        self._low = self._high = 0.0
        self._scale, self._zero = np.float32(1), 0
        self._errors: Float64 | float = 0.0
        self._counts: npt.NDArray[np.int64] | int = 0

    def see_range(self, x: npt.NDArray[np.float32]) -> None:
        """Widen the range, which holds 0."""
        self._low = min(self._low, float(x.min(initial=0.0)))
        self._high = max(self._high, float(x.max(initial=0.0)))
        top = (1 << self._options.bits) - 1
        if self._options.symmetric:
            self._zero = (top + 1) // 2
            self._low, self._high, top = 0.0, max(-self._low, self._high), top // 2
        if self._high > self._low:
            self._scale = np.float32((self._high - self._low) / top)
        if not self._options.symmetric:
            self._zero = int(np.clip(np.rint(-self._low / self._scale), 0, top))

    def see_errors(self, x: npt.NDArray[np.float32]) -> None:
        """Add products of channels' errors, and what a shift would cut off of each channel."""
        rows = np.moveaxis(x, self._activation.axis, -1)
        rows = rows.reshape(-1, rows.shape[-1])
        bits, extra = self._options.bits, self._options.extra
        q = np.clip(np.rint(rows / self._scale) + self._zero, 0, (1 << bits) - 1)
        errors = (rows - (q - self._zero) * self._scale).astype(np.float64)
        self._errors = self._errors + errors.T @ errors
        fine = np.rint(rows / (self._scale / (1 << extra))) + (self._zero << extra)
        cut = np.clip(fine, 0, (1 << (bits + extra)) - 1).astype(np.int64) & (1 << extra) - 1
        channels = rows.shape[1]
        places = (cut + (np.arange(channels) << extra)).ravel()
        counts = np.bincount(places, minlength=channels << extra)
        self._counts = self._counts + counts.reshape(channels, -1)

    def codec(self) -> ActivationCodec:
        """Rank the channels and make the tables."""
        errors, counts = np.asarray(self._errors), np.asarray(self._counts)
        most = round(self._options.share * len(counts))
        weights = sum(_products(layer) for layer in self._activation.layers)
        important = _ranked(errors * weights, most)
        seen = counts[list(important)].sum(axis=0)
        lengths = code_lengths(seen.tolist()) if important else ()
        coded = int(seen @ np.array(lengths)) if important else 0
        return ActivationCodec(
            bits=self._options.bits,
            extra=self._options.extra,
            scale=float(self._scale),
            zero_point=self._zero,
            axis=self._activation.axis,
            channels=len(counts),
            important=important,
            lengths=lengths,
            bits_a_value=self._options.bits + coded / int(counts.sum()),
        )


def _products(layer: ir.Node) -> Float64:
    """sum_o W_i^o W_j^o for the input channels of a layer, over outputs and places of a kernel."""
    form = LayerForm.of(layer)
    with read_weight(float_weight(layer.inputs[1])) as array:
        w = form.view(np.asarray(array, np.float64))
        blocks = np.einsum("giok,gjok->gij", w, w, optimize=True)
    result = np.zeros((form.groups * form.inner,) * 2)
    for g, block in enumerate(blocks):
        part = slice(g * form.inner, (g + 1) * form.inner)
        result[part, part] = block
    return result


def _ranked(A: Float64, most: int) -> tuple[int, ...]:
    """Channels that take most out of sum_ij A_ij, one after the other."""
    rows, own = A.sum(axis=1), np.diag(A)
    left = np.ones(len(A), bool)
    found: list[int] = []
    while len(found) < most:
        gains = np.where(left, 2 * rows - own, -np.inf)
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            break
        found.append(best)
        left[best] = False
        rows = rows - A[:, best]
    return tuple(found)


def _write(editor: Editor, activation: _Activation, codec: ActivationCodec) -> None:
    """Let the layers read what a decoder makes of levels and shift errors."""
    x, first = activation.value, activation.layers[0]
    name, m = x.name or "x", codec.extra

    def make(op: str, inputs: list[ir.Value | None], wish: str, **attributes: str) -> ir.Value:
        wish = f"{name}_{wish}"
        node = editor.node(
            op, inputs, attributes, name=f"{wish}_{op}", outputs=[wish], before=first
        )
        return node.outputs[0]

    def constant(wish: str, content: npt.ArrayLike, dtype: type[np.generic] = np.uint8) -> ir.Value:
        return editor.initializer(f"{name}_{wish}", np.array(content, dtype))

    mask = np.zeros(codec.channels, bool)
    mask[list(codec.important)] = True
    spatial = 0 if activation.axis == -1 else len(LayerForm.of(first).shape) - 2
    important = constant("important", mask.reshape(-1, *(1,) * spatial), np.bool_)
    scale = constant("scale", codec.scale, np.float32)
    fine_scale = constant("fine_scale", codec.scale / (1 << m), np.float32)
    zero, fine_zero = constant("zero", codec.zero_point), constant("far", codec.zero_point << m)
    shift = constant("shift", m)

    def rounded(grid: list[ir.Value], bits: int, wish: str) -> ir.Value:
        q = make("QuantizeLinear", [x, *grid], f"{wish}_wide")
        return make("Clip", [q, None, constant(f"{wish}_top", (1 << bits) - 1)], wish)

    coarse = rounded([scale, zero], codec.bits, "coarse")
    fine = rounded([fine_scale, fine_zero], codec.bits + m, "fine")
    high = make("BitShift", [fine, shift], "high", direction="RIGHT")
    low = make("BitwiseAnd", [fine, constant("low_mask", (1 << m) - 1)], "low")
    stored = make("Where", [important, high, coarse], "stored")
    error = make("Where", [important, low, constant("none", 0)], "shift_error")
    moved = make("BitShift", [stored, shift], "moved", direction="LEFT")
    levels = make("BitwiseOr", [moved, error], "levels")
    real = make("DequantizeLinear", [levels, fine_scale, fine_zero], "decoded")
    real.type, real.shape = x.type, x.shape
    for layer in activation.layers:
        layer.replace_input_with(0, real)
