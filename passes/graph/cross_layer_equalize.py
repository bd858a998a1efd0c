"""Cross-layer equalization: channels of neighbouring layers take the same range of weights.

For layers ``y = W2 f(W1 x + b1)`` with f(s z) = s f(z) for s > 0 (Relu, LeakyRelu, PRelu, pools,
nothing at all) and S = diag(s),

    y = (W2 S) f(S^-1 W1 x + S^-1 b1)            s_c = sqrt(r1_c r2_c) / r2_c

r1_c is the largest magnitude of row c of W1, r2_c of column c of W2. Both become sqrt(r1_c r2_c):
one scale for a whole weight then serves all of its channels equally well. Chains of layers are
swept, pair by pair, until no scale differs from 1 by more than ``tolerance``.

Depthwise convolutions and groups take part. A Clip with an upper bound (ReLU6) does not: the bound
would differ by channel, which no integer kernel knows, and the paper's plain Relu in its place is
another function; that is left to the user. A channel without weights on one side keeps its scale.

A layer that the user excludes keeps its weights, and so does its neighbour on that side.

Preconditions: BatchNorm is folded; weights and biases are constants of type FLOAT; nothing else
reads what lies between two layers.
Preserved: the function, up to float32 rounding. A second run changes nothing.
Cost: one pass over the weights, then |W| / kernel size operations a sweep, at most ``sweeps``.
Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1, equations 7-11.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.graph.layer_pairs import LayerForm, LayerPair, bias_value, layer_pairs
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    constant_array,
    constant_tensor,
    node_label,
    read_weight,
)
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import ChannelMoments, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["CrossLayerEqualize"]

Float64 = npt.NDArray[np.float64]

_THROUGH = {
    *("Relu", "LeakyRelu", "PRelu", "Identity", "Dropout", "Flatten"),
    *("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
}
_ENOUGH = 10.0
"""A first sweep that moves no scale by more than this many tolerances is not worth a change."""


@dataclass(frozen=True)
class CrossLayerEqualize(GraphPass):
    """Give each channel between two layers the same range of weights on both sides.

    Attributes:
        sweeps: Sweeps over all pairs, at most.
        tolerance: Largest ``|log s|`` of a sweep that ends them.
    """

    name: ClassVar[str] = "cross-layer-equalize"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    sweeps: int = 500
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if self.sweeps < 1 or not 0.0 < self.tolerance < 0.1:
            raise UsageError(
                "cross-layer-equalize: sweeps is at least 1, tolerance lies in (0, 0.1)"
            )

    def run(self, program: Program, context: Context) -> bool:
        """Equalize all pairs of the main graph; return whether any scale moved."""
        found = layer_pairs(program.model, _THROUGH, rules_of(context))
        pairs = [pair for pair in found if _finite(pair)]
        scales = self._scales(pairs)
        if scales is None:
            return False
        editor = Editor(program.model)
        before: dict[ir.Node, Float64] = {}
        after: dict[ir.Node, Float64] = {}
        moments = context.get(ChannelMoments)
        moved = dict(moments.moments) if moments is not None else {}
        for pair, s in zip(pairs, scales, strict=True):
            before[pair.second] = LayerForm.of(pair.second).spread(s, "in", pair.repeat)
            after[pair.first] = LayerForm.of(pair.first).spread(1.0 / s, "out")
            _scale_bias(editor, pair, s)
            for name in _names(pair):
                if name in moved:
                    mean, deviation = moved[name]
                    moved[name] = (mean / s, deviation / s)
        for layer in dict.fromkeys((*before, *after)):
            _multiply(editor, layer, before.get(layer), after.get(layer))
        if moments is not None:
            context.put(ChannelMoments(moved))
        return True

    def _scales(self, pairs: list[LayerPair]) -> list[Float64] | None:
        """The scales of each pair's channels, None when all of them are 1."""
        layers = dict.fromkeys(layer for pair in pairs for layer in (pair.first, pair.second))
        peaks = {layer: _peaks(layer) for layer in layers}
        forms = {layer: LayerForm.of(layer) for layer in layers}
        total = [np.ones(pair.channels) for pair in pairs]
        for sweep in range(self.sweeps):
            furthest = 0.0
            for index, pair in enumerate(pairs):
                r1 = peaks[pair.first].max(1).reshape(-1)
                r2 = peaks[pair.second].max(2).reshape(pair.channels, pair.repeat).max(1)
                usable = (r1 > 0.0) & (r2 > 0.0)
                s = np.sqrt(np.divide(r1, r2, out=np.ones_like(r1), where=usable))
                furthest = max(furthest, float(np.abs(np.log(s)).max(initial=0.0)))
                total[index] *= s
                peaks[pair.first] /= forms[pair.first].spread(s, "out")[..., 0]
                wide = forms[pair.second].spread(s, "in", pair.repeat)
                peaks[pair.second] *= wide[..., 0]
            if sweep == 0 and furthest <= _ENOUGH * self.tolerance:
                return None
            if furthest <= self.tolerance:
                break
        return total


def _finite(pair: LayerPair) -> bool:
    return all(np.isfinite(_peaks(layer)).all() for layer in (pair.first, pair.second))


def _peaks(layer: ir.Node) -> Float64:
    """Largest magnitude of each channel pair over the kernel, float64[G, I, O]."""
    tensor = constant_tensor(layer.inputs[1])
    assert tensor is not None
    with read_weight(tensor) as stored:
        view = LayerForm.of(layer).view(stored)
        return np.maximum(view.max(3), -view.min(3)).astype(np.float64)


def _names(pair: LayerPair) -> list[str]:
    """Names of the values whose channels are divided."""
    nodes = [pair.first, *([] if pair.bias is None else [pair.bias]), *pair.between]
    return [node.outputs[0].name or "" for node in nodes]


def _scale_bias(editor: Editor, pair: LayerPair, s: Float64) -> None:
    place = bias_value(pair)
    if place is None:
        return
    node, index = place
    value = node.inputs[index]
    b = constant_array(value)
    assert value is not None
    assert b is not None
    made = (b.reshape(-1).astype(np.float64) / s).astype(b.dtype).reshape(b.shape)
    node.replace_input_with(index, editor.initializer(f"{value.name}_equalized", made))
    editor.drop_if_unused(value)


def _multiply(
    editor: Editor, layer: ir.Node, before: Float64 | None, after: Float64 | None
) -> None:
    """Multiply a layer's weight by scales of its input and output channels."""
    value = layer.inputs[1]
    tensor = constant_tensor(value)
    assert value is not None
    assert tensor is not None
    form = LayerForm.of(layer)

    def compute() -> Mapping[str, npt.NDArray[np.generic]]:
        with read_weight(tensor) as stored:
            view = np.array(form.view(stored), np.float64)
        for factors in (before, after):
            if factors is not None:
                view *= factors
        return {"weight": form.stored(view.astype(np.float32))}

    made = SharedParts(compute, {"weight": (tensor.dtype, form.shape)}).tensor("weight")
    name = f"{value.name or node_label(layer)}_equalized"
    layer.replace_input_with(1, editor.initializer(name, made))
    editor.drop_if_unused(value)
