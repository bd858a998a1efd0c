"""Where the quotient 1 / s of an activation goes: into what makes it, channel by channel.

    x W = (x / s) (s * W)

Layers that read a tensor take s; the quotient goes up, as long as nothing else reads what stands
between, to constants that every channel has of its own:

    norm(u) * g / s     = norm(u) * (g / s)             gains and biases of normalizations, fused or
                                                        written out
    (a * b) / s         = a * (b / s)                   one of two factors, as SwiGLU has them
    (u V + c) / s       = u (V / s) + c / s             columns of a product before
    relu(u) / s         = relu(u / s)                   s > 0; LeakyRelu as well
    (softmax(q k') v) / s = softmax(q k') (v / s)       the projection of values

Source: Xiao et al. 2022, arXiv:2211.10438, section 4; Lin et al. 2023, arXiv:2306.00978, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.calibrate.smoothing_places import scale_weight, value_projection
from qcomp.passes.graph.rewriting import (
    Editor,
    constant_array,
    constant_tensor,
    int_attribute,
    only_use,
    read_weight,
    static_shape,
)
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context
from qcomp.quantization import NodeRules

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["NORMALIZATIONS", "Quotient", "Readers", "SeenRows", "inner_axis", "see_rows"]

Floats = npt.NDArray[np.float32]

NORMALIZATIONS: Mapping[str, tuple[int, ...]] = {
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3),
    "SkipSimplifiedLayerNormalization": (2,),
}
"""Operator -> its inputs that scale and shift each channel of its first output."""

_HOMOGENEOUS = ("Identity", "LeakyRelu", "Relu")
"""Operators f with f(x / s) = f(x) / s for s > 0."""


@dataclass(frozen=True, slots=True)
class Quotient:
    """What takes a quotient.

    Attributes:
        constants: Operators with the inputs that hold a constant for each channel.
        product: MatMul or Gemm whose output channels take it, if one does.
    """

    constants: tuple[tuple[ir.Node, int], ...] = ()
    product: ir.Node | None = None

    def divide(self, editor: Editor, s: Floats) -> None:
        """Divide each channel by s, float32[C] above 0."""
        for node, index in self.constants:
            value = node.inputs[index]
            array = constant_array(value)
            assert value is not None
            assert array is not None
            made = (np.asarray(array, np.float32) / s).astype(array.dtype)
            new = editor.initializer(f"{value.name}_smooth", made)
            node.replace_input_with(index, new)
            editor.drop_if_unused(value)
        if self.product is not None:
            turned = (1.0 / s).astype(np.float32)
            outputs_first = inner_axis(self.product) == 1
            scale_weight(editor, self.product, turned[:, None] if outputs_first else turned)


def inner_axis(layer: ir.Node) -> int:
    """The axis of input channels of a layer's weight."""
    return 1 if layer.op_type == "Gemm" and int_attribute(layer, "transB") else 0


@dataclass(slots=True)
class Readers:
    """The layers that read one tensor.

    Attributes:
        source: The tensor.
        rules: What the user asks of operators: one that is excluded takes no quotient.
        products: Whether products before the tensor may take it, other than those of values.
        layers: MatMul and Gemm nodes whose input 0 it is, in graph order.
    """

    source: ir.Value
    rules: NodeRules
    products: bool = False
    layers: list[ir.Node] = field(default_factory=list)

    @property
    def channels(self) -> int:
        """Channels of the tensor."""
        layer = self.layers[0]
        return int(float_weight(layer.inputs[1]).shape.numpy()[inner_axis(layer)])

    def weights(self) -> Floats:
        """The weights of all layers side by side, float32[K, N]."""
        parts = []
        for layer in self.layers:
            with read_weight(float_weight(layer.inputs[1])) as W:
                parts.append(np.array(W if inner_axis(layer) == 0 else W.T, np.float32))
        return np.concatenate(parts, axis=1)

    def only_readers(self) -> bool:
        """Whether nothing but these layers reads the tensor."""
        readers = {usage.node for usage in self.source.uses()}
        return not self.source.is_graph_output() and readers == set(self.layers)

    def normalization(self) -> ir.Node | None:
        """The fused normalization that makes the tensor for these layers alone, or None."""
        node = self.source.producer()
        if node is None or node.op_type not in NORMALIZATIONS:
            return None
        return node if self.quotient() is not None else None

    def quotient(self) -> Quotient | None:
        """What can take a quotient of the tensor; None where nothing can."""
        if not self.only_readers():
            return None
        return self._above(self.source)

    def _above(self, value: ir.Value) -> Quotient | None:
        """What takes a quotient of a value whose readers are known to want it."""
        node = value.producer()
        if node is None or value is not node.outputs[0] or self.rules.refusal(node):
            return None
        if node.op_type in NORMALIZATIONS:
            places = [i for i in NORMALIZATIONS[node.op_type] if i < len(node.inputs)]
            held = [(node, i) for i in places if node.inputs[i] is not None]
            return Quotient(tuple(held)) if held and all(map(self._is_vector, held)) else None
        if node.domain:
            return None
        if node.op_type in ("MatMul", "Gemm"):
            return self._product(node) if self.products else None
        if node.op_type in _HOMOGENEOUS:
            return self._next(node, 0) if self.products else None
        if node.op_type == "Mul":
            return self._factor(node)
        if node.op_type == "Add":
            return self._sum(node)
        projection = value_projection(value)
        if projection is None or self.rules.refusal(projection.layer):
            return None
        bias = () if projection.bias is None else (projection.bias,)
        return Quotient(bias, projection.layer)

    def _next(self, node: ir.Node, index: int) -> Quotient | None:
        """What takes the quotient of an input that this operator alone reads."""
        value = node.inputs[index]
        return None if value is None or only_use(value) is not node else self._above(value)

    def _factor(self, node: ir.Node) -> Quotient | None:
        """A constant factor; else what makes one of the factors."""
        for index in (0, 1):
            if self._is_vector((node, index)) and self._is_wide(node.inputs[1 - index]):
                return Quotient(((node, index),))
        for index in (1, 0):
            found = self._next(node, index) if self.products else None
            if found is not None:
                return found
        return None

    def _sum(self, node: ir.Node) -> Quotient | None:
        """What makes one term, together with the constant that is added to it."""
        for index in (0, 1):
            if self._is_vector((node, index)):
                found = self._next(node, 1 - index)
                if found is not None:
                    return Quotient((*found.constants, (node, index)), found.product)
        return None

    def _product(self, node: ir.Node) -> Quotient | None:
        weight = constant_tensor(node.inputs[1])
        if weight is None or weight.dtype.name != "FLOAT" or len(weight.shape) != 2:
            return None
        if int(weight.shape.numpy()[1 - inner_axis(node)]) != self.channels:
            return None
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None:
            return Quotient((), node)
        return Quotient(((node, 2),), node) if self._is_vector((node, 2)) else None

    def _is_vector(self, place: tuple[ir.Node, int]) -> bool:
        """Whether an input is a constant with a value for each channel, the last axis."""
        array = constant_array(place[0].inputs[place[1]])
        if array is None or array.size != self.channels:
            return False
        return array.ndim > 0 and array.shape[-1] == array.size

    def _is_wide(self, value: ir.Value | None) -> bool:
        """Whether a value has these channels by itself, not by repetition."""
        shape = static_shape(value)
        return shape is None or not shape or shape[-1] != 1 or self.channels == 1

    def divide(self, editor: Editor, s: Floats) -> None:
        """Divide the tensor by s, by a Mul where nothing takes the quotient; scale the weights."""
        place, smooth = self.quotient(), self.source
        if place is not None:
            place.divide(editor, s)
        else:
            factor = editor.initializer(f"{self.source.name}_smooth", (1.0 / s).astype(np.float32))
            smooth = editor.node(
                "Mul",
                [self.source, factor],
                name=f"{self.source.name}_Mul",
                before=self.layers[0],
            ).outputs[0]
            smooth.type, smooth.shape = self.source.type, self.source.shape
        for layer in self.layers:
            if smooth is not self.source:
                layer.replace_input_with(0, smooth)
            scale_weight(editor, layer, s[:, None] if inner_axis(layer) == 0 else s)


@dataclass(slots=True)
class SeenRows:
    """What the data showed of one tensor: ranges float32[K] of its channels, and rows of it.

    Attributes:
        low: Least value of each channel.
        high: Largest value of each channel.
        kept: Rows that stay.
        drawn: The number that each of them drew.
        total: Rows seen.
    """

    low: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    high: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    kept: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    drawn: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    total: int = 0

    def add(self, array: Floats, rows: int, rng: np.random.Generator) -> None:
        """Count one batch; the rows that are kept are drawn evenly from all batches.

        Every row draws a number; those with the lowest stay (Vitter 1985, reservoir sampling).
        """
        flat = array.reshape(-1, array.shape[-1])
        if not len(flat):
            return
        self.total += len(flat)
        low, high = flat.min(0), flat.max(0)
        if not len(self.drawn):
            self.low, self.high, self.kept = low, high, flat[:0]
        else:
            self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        drawn = rng.random(len(flat))
        chosen = np.argsort(drawn)[:rows]
        drawn = np.concatenate([self.drawn, drawn[chosen]])
        best = np.sort(np.argsort(drawn)[:rows])
        self.kept = np.concatenate([self.kept, flat[chosen]])[best]
        self.drawn = drawn[best]

    def usable(self) -> bool:
        """Whether anything but zeros was seen, and nothing that is not finite."""
        if not len(self.kept) or not (self.low.any() or self.high.any()):
            return False
        return bool(np.isfinite(self.kept).all())


def see_rows(
    program: Program,
    names: Iterable[str],
    context: Context,
    *,
    samples: int,
    rows: int,
    batch: int,
    enough: int = 0,
    worth: Callable[[str, SeenRows], bool] | None = None,
) -> dict[str, SeenRows]:
    """Run the data; keep the range of each channel and some rows of each tensor.

    Args:
        program: What runs.
        names: Tensors.
        context: With calibration data.
        samples: Samples to look at.
        rows: Rows of each tensor that are kept.
        batch: Samples run at a time.
        enough: Rows that every tensor shall show: more samples are looked at till then.
        worth: Whether a tensor is worth more samples, asked once; every one is by default.

    Raises:
        UsageError: Data that does not fit the model.
    """
    from qcomp.execute import HybridSession

    assert context.calibration is not None
    names = list(names)
    given = {value.name for value in program.model.graph.inputs}
    taps = [name for name in names if name not in given]
    session = HybridSession(program, taps=taps, only_taps=True)
    seen = {name: SeenRows() for name in names}
    left, short = samples, None
    with context.progress.task("looking for outliers", None) as task:
        for index, feeds in enumerate(checked_batches(program.model, context.calibration(), batch)):
            if left <= 0:
                if short is None:
                    few = [name for name in names if seen[name].total < enough]
                    short = [name for name in few if worth is None or worth(name, seen[name])]
                if all(seen[name].total >= enough for name in short):
                    break
            left -= max((array.shape[0] for array in feeds.values() if array.ndim), default=1)
            values = {**feeds, **session.run(feeds, taps, seed=context.seed + index)}
            for name in names:
                rng = np.random.default_rng([context.seed, index])
                seen[name].add(np.asarray(values[name], np.float32), rows, rng)
            task.advance()
    return seen
