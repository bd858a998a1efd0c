"""High biases move through a Relu into the next layer, where int32 takes them.

For a channel whose value before a Relu, h = W1 x + b1, is hardly ever below c,

    relu(h) = relu(h - c) + c  where h >= c          c = max(0, mean(h) - 3 deviation(h))

    b1' = b1 - c          b2' = b2 + W2 c

A channel that never comes near 0 takes the range of the whole tensor for an offset; without it the
range is narrower and its scale finer. Equalization, which divides by small scales, makes such
channels. Mean and deviation are those of the BatchNormalization that was folded into the first
layer (beta and abs(gamma)), measured on the calibration data where there was none.

Only where the sum is right everywhere: a Relu alone (with pools and Flatten) stands between the
layers, the second is no ConvTranspose and no convolution that reads padding (zeros that have no c),
and both have a place for a bias. Values below c, 0.13 % of a normal distribution, change.

Preconditions: BatchNorm is folded; after ``cross-layer-equalize``; before ``calibrate``.
Preserved: the function where h >= c; what moved is in :class:`qcomp.quantization.AbsorbedBiases`.
Cost: at most one run of the model over the data; one pass over the second layers' weights.
Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1.3, equations 12-15.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.graph.layer_pairs import (
    LayerForm,
    LayerPair,
    bias_value,
    constant_addend,
    has_padding,
    layer_pairs,
    read_view,
)
from qcomp.passes.graph.rewriting import (
    Editor,
    constant_array,
    float_attribute,
    node_label,
    only_use,
)
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import AbsorbedBiases, ChannelMoments, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["AbsorbBias"]

Float64 = npt.NDArray[np.float64]
Moments = tuple[Float64, Float64]

_THROUGH = {"Relu", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
_LEAST = 1e-3
"""Deviations below which a shift is rounding."""


@dataclass(frozen=True)
class AbsorbBias(GraphPass):
    """Move offsets that a Relu never cuts into the bias of the next layer.

    Attributes:
        deviations: Standard deviations below the mean that stay above 0.
        batch: Samples run at a time.
    """

    name: ClassVar[str] = "absorb-bias"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    deviations: float = 3.0
    batch: int = 32

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if not self.deviations >= 0.0 or self.batch < 1:
            raise UsageError("absorb-bias: deviations is at least 0, batch at least 1")

    def run(self, program: Program, context: Context) -> bool:
        """Move what is high; return whether anything was.

        Raises:
            UsageError: Data that does not fit the model.
        """
        found = layer_pairs(program.model, _THROUGH, rules_of(context))
        pairs = [pair for pair in found if _absorbs(pair)]
        if not pairs:
            return False
        fact = context.get(ChannelMoments)
        moments = dict(fact.moments) if fact is not None else {}
        missing = [pair for pair in pairs if _name(pair) not in moments]
        if missing and context.calibration is not None:
            moments.update(self._measure(program, missing, context))
        editor = Editor(program.model)
        moved: dict[str, tuple[int, float]] = {}
        for pair in pairs:
            known = moments.get(_name(pair))
            if known is None:
                continue
            mean, deviation = known
            c = np.maximum(mean - self.deviations * deviation, 0.0)
            c[~((c > _LEAST * deviation) & np.isfinite(c))] = 0.0
            if not c.any():
                continue
            _shift(editor, pair, c)
            moments[_name(pair)] = (mean - c, deviation)
            moved[node_label(pair.first)] = (int(np.count_nonzero(c)), float(c.max()))
        context.put(ChannelMoments(moments))
        if not moved:
            return False
        context.put(AbsorbedBiases(moved))
        channels = sum(count for count, _ in moved.values())
        context.warn(
            f"absorb-bias moved the offsets of {channels} channels of {len(moved)} layers into the "
            f"layers behind them: values more than {self.deviations:g} deviations low change"
        )
        return True

    def _measure(
        self, program: Program, pairs: list[LayerPair], context: Context
    ) -> Mapping[str, Moments]:
        """Mean and deviation of each channel before the Relu, over the calibration data."""
        from qcomp.execute import HybridSession

        assert context.calibration is not None
        axes = {_name(pair): 1 if pair.first.op_type.startswith("Conv") else -1 for pair in pairs}
        sums: dict[str, tuple[int, Float64 | float, Float64 | float]] = {}
        session = HybridSession(program, taps=list(axes))
        batches = checked_batches(program.model, context.calibration(), self.batch)
        with context.progress.task("measuring channels", None) as task:
            for index, feeds in enumerate(batches):
                values = session.run(feeds, list(axes), seed=context.seed + index)
                for name, axis in axes.items():
                    h = np.moveaxis(np.asarray(values[name], np.float64), axis, -1)
                    h = h.reshape(-1, h.shape[-1])
                    count, first, second = sums.get(name, (0, 0.0, 0.0))
                    squares = np.einsum("nc,nc->c", h, h)
                    sums[name] = (count + len(h), first + h.sum(0), second + squares)
                task.advance()
        found = {}
        for name, (count, first, second) in sums.items():
            if count:
                mean = np.asarray(first / count)
                found[name] = (mean, np.sqrt(np.maximum(second / count - mean**2, 0.0)))
        return found


def _name(pair: LayerPair) -> str:
    """Name of the value before the Relu."""
    return (pair.bias or pair.first).outputs[0].name or ""


def _absorbs(pair: LayerPair) -> bool:
    ops = [node.op_type for node in pair.between]
    if ops[:1] != ["Relu"] or ops.count("Relu") > 1 or pair.second.op_type == "ConvTranspose":
        return False
    if pair.second.op_type == "Conv" and has_padding(pair.second):
        return False
    if any(
        float_attribute(layer, name, 1.0) != 1.0
        for layer in (pair.first, pair.second)
        for name in ("alpha", "beta")
    ):
        return False
    if pair.first.op_type == "MatMul" and pair.bias is None:
        return False
    return _place(pair.second) is not None


def _place(layer: ir.Node) -> tuple[ir.Node, int] | None:
    """The node and index of a layer's bias, which may be absent there; None without a place."""
    if layer.op_type != "MatMul":
        value = layer.inputs[2] if len(layer.inputs) > 2 else None
        if value is None:
            return layer, 2
        b = constant_array(value)
        form = LayerForm.of(layer)
        outer = form.groups * form.outer
        return (layer, 2) if b is not None and b.shape in ((outer,), (1, outer)) else None
    user = only_use(layer.outputs[0])
    if user is None or user.graph is not layer.graph or user.domain:
        return None
    return constant_addend(user, LayerForm.of(layer).outer)


def _shift(editor: Editor, pair: LayerPair, c: Float64) -> None:
    """Take c from the first layer's bias and add ``W2 c`` to the second's."""
    own = (pair.first, 2) if pair.bias is None else bias_value(pair)
    other = _place(pair.second)
    assert own is not None
    assert other is not None
    _add(editor, *own, -c)
    product = read_view(pair.second) * LayerForm.of(pair.second).spread(c, "in", pair.repeat)
    _add(editor, *other, product.sum((1, 3)).reshape(-1))


def _add(editor: Editor, node: ir.Node, index: int, change: Float64) -> None:
    """Add a vector to the bias of a node; it gets one if it has none."""
    value = node.inputs[index] if len(node.inputs) > index else None
    old = constant_array(value)
    b = change if old is None else old.reshape(-1).astype(np.float64) + change
    shape = b.shape if old is None else old.shape
    name = node_label(node) if value is None or not value.name else value.name
    if index == 2 and len(node.inputs) < 3:
        node.resize_inputs(3)
    made = editor.initializer(f"{name}_absorbed", b.astype(np.float32).reshape(shape))
    node.replace_input_with(index, made)
    if value is not None:
        editor.drop_if_unused(value)
