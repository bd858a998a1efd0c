"""Where the channels of an activation can be chosen anew: repeated, left out, divided.

An index goes up through operators that treat every channel alike,

    f(a * b + c)[idx] = f(a[idx] * b[idx] + c[idx]),      (u V)[idx] = u V[:, idx]

to the columns of the products before, so nothing is added to the graph. A normalization has no such
columns: its result is gathered, one operator that copies K values a token; or, where its gain is
a Mul of its own, that Mul becomes a product with diag(gain)[:, idx], as many operators and K K'
multiplications a token.

Source: Liu et al. 2023, arXiv:2310.08041 (QLLM), section 4.3: absorbed by a linear layer before,
a layer of its own behind a normalization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from glob import escape
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from qcomp.node_rules import NodeRules, Override
from qcomp.passes.calibrate.quotients import Quotient, Readers, inner_axis
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    constant_array,
    constant_tensor,
    node_label,
    read_weight,
)
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context
from qcomp.quantization import rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ChannelPlace", "channel_place", "change_weight"]

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_CHANNEL_BY_CHANNEL = frozenset(
    {
        *("Abs", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Neg"),
        *("Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh"),
        *("Add", "Div", "Mul", "Sub"),
    }
)

_REASON = "it divides and chooses the channels of a normalization: a product in float"


@dataclass(slots=True)
class ChannelPlace:
    """What changes when the channels of a tensor are chosen anew.

    Attributes:
        readers: The layers that read it.
        quotient: What divides its channels.
        products: Products whose columns are chosen; none behind a normalization.
        vectors: Operators with the inputs that hold constants of the channels between.
        values: Values whose channels change.
    """

    readers: Readers
    quotient: Quotient
    products: list[ir.Node] = field(default_factory=list)
    vectors: list[tuple[ir.Node, int]] = field(default_factory=list)
    values: list[ir.Value] = field(default_factory=list)

    def choose(
        self,
        editor: Editor,
        index: Indices,
        divisor: Floats,
        norms: Literal["gather", "product"],
        context: Context,
    ) -> None:
        """Divide the channels, then choose them; the readers' weights stay as they are.

        Args:
            editor: Of the graph.
            index: Channel that each new one is, int64[K'].
            divisor: What every old channel is divided by, float32[K].
            norms: What is done behind a normalization.
            context: Takes the rule that keeps its product in float.
        """
        self.quotient.divide(editor, divisor)
        for product in self.products:
            inputs = int(float_weight(product.inputs[1]).shape.numpy()[inner_axis(product)])
            change_weight(editor, product, (inputs, len(index)), lambda W: W[:, index])
        for node, place in self.vectors:
            value = node.inputs[place]
            array = constant_array(value)
            assert value is not None
            assert array is not None
            node.replace_input_with(
                place, editor.initializer(f"{value.name}_chosen", array[..., index])
            )
            editor.drop_if_unused(value)
        if not self.products:
            self._behind_norm(editor, index, norms, context)
        if len(index) != len(divisor):
            for value in self.values:
                value.shape = None

    def _behind_norm(
        self, editor: Editor, index: Indices, norms: Literal["gather", "product"], context: Context
    ) -> None:
        source = self.readers.source
        gain = source.producer()
        assert gain is not None
        (_, slot), *more = self.quotient.constants
        if norms == "product" and gain.op_type == "Mul" and not more:
            held = gain.inputs[slot]
            array = constant_array(held)
            assert array is not None
            matrix = np.zeros((array.size, len(index)), np.float32)
            matrix[index, np.arange(len(index))] = array.reshape(-1)[index]
            made = editor.node(
                "MatMul",
                [
                    gain.inputs[1 - slot],
                    editor.initializer(f"{source.name}_channels", matrix),
                ],
                name=f"{node_label(gain)}_MatMul",
                before=gain,
            )
            rule = Override(escape(node_label(made)), scheme="float", reason=_REASON)
            context.put(rules_of(context).joined(NodeRules(override=(rule,))))
            editor.replace_value(source, made.outputs[0])
            editor.remove(gain)
        else:
            made = editor.node(
                "Gather",
                [source, editor.initializer(f"{source.name}_channels", index)],
                {"axis": -1},
                name=f"{source.name}_Gather",
                before=self.readers.layers[0],
            )
            for layer in self.readers.layers:
                layer.replace_input_with(0, made.outputs[0])
        made.outputs[0].type = source.type
        self.readers.source = made.outputs[0]


def channel_place(readers: Readers) -> ChannelPlace | None:
    """Where the channels of a tensor can be chosen anew; None where they cannot."""
    quotient = readers.quotient()
    if quotient is None:
        return None
    place = ChannelPlace(readers, quotient)
    if quotient.product is None:
        return place
    return place if _search(place) else None


def _search(place: ChannelPlace) -> bool:
    """Find all that the channels go through, up to products; False where that is something else."""
    readers, inside = place.readers, set(place.readers.layers)
    stack = [readers.source]
    while stack:
        value = stack.pop()
        if value in place.values:
            continue
        place.values.append(value)
        node = value.producer()
        if node is None or node.domain or value is not node.outputs[0]:
            return False
        if readers.rules.refusal(node) or value.is_graph_output():
            return False
        if node in inside:
            continue
        inside.add(node)
        if node.op_type in ("MatMul", "Gemm"):
            if not _is_product(place, node):
                return False
        elif node.op_type in _CHANNEL_BY_CHANNEL:
            for index, source in enumerate(node.inputs):
                array = constant_array(source)
                if array is None:
                    if source is None:
                        return False
                    stack.append(source)
                elif array.ndim and array.size == array.shape[-1] == readers.channels:
                    place.vectors.append((node, index))
                elif array.size != 1:
                    return False
        else:
            return False
    return all(usage.node in inside for value in place.values for usage in value.uses())


def _is_product(place: ChannelPlace, node: ir.Node) -> bool:
    weight = constant_tensor(node.inputs[1])
    if weight is None or weight.dtype.name != "FLOAT" or len(weight.shape) != 2:
        return False
    if int(weight.shape.numpy()[1 - inner_axis(node)]) != place.readers.channels:
        return False
    place.products.append(node)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        array = constant_array(node.inputs[2])
        if array is None or array.size != place.readers.channels:
            return False
        place.vectors.append((node, 2))
    return True


def change_weight(
    editor: Editor, layer: ir.Node, shape: tuple[int, int], change: Callable[[Floats], Floats]
) -> None:
    """Let a layer have another weight, computed when it is needed.

    Args:
        editor: Of the graph.
        layer: MatMul or Gemm.
        shape: Input and output channels of the new weight.
        change: The weight float32[inputs, outputs] -> the new one.
    """
    value = layer.inputs[1]
    tensor = constant_tensor(value)
    assert value is not None
    assert tensor is not None
    flip = inner_axis(layer) == 1

    def compute() -> Mapping[str, npt.NDArray[np.generic]]:
        with read_weight(tensor) as W:
            stored = np.asarray(W, np.float32)
            made = change(stored.T if flip else stored)
        return {"weight": np.ascontiguousarray(made.T if flip else made, np.float32)}

    parts = SharedParts(compute, {"weight": (tensor.dtype, shape[::-1] if flip else shape)})
    name = f"{value.name or node_label(layer)}_chosen"
    layer.replace_input_with(1, editor.initializer(name, parts.tensor("weight")))
    editor.drop_if_unused(value)
