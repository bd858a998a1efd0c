"""Rotations folded into the weights of a graph, one kind after the other.

    x R in place of the residual stream x:   E R,  W_out R,  R^T diag(g) W_in,  R^T diag(g) W_head
    v H in place of the values of one head:  W_v H,  H^T W_o
    x H in place of what W_down reads:       x H online,  H^T W_down
    q H, k H in place of queries and keys:   both online,  q H (k H)^T = q k^T

Which matrices these are, whoever calls says (:data:`Draw`): ``rotate`` draws them, and
``learn-rotations`` learns them. Products are taken in float64, when a weight is saved.

Source: Ashkboos et al. 2024, arXiv:2404.00456, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.passes.calibrate.smoothing_places import ValueProjection, bias_place
from qcomp.passes.graph.hadamard import Orthogonal, near_factors, no_size
from qcomp.passes.graph.norms import Norm, find_norms
from qcomp.passes.graph.online_products import OnlineProducts, Step
from qcomp.passes.graph.residual_stream import (
    Reader,
    Refusal,
    ResidualStream,
    find_residual_stream,
    reduced_axis,
)
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    constant_array,
    constant_tensor,
    int_attribute,
    node_label,
    read_weight,
    static_shape,
)
from qcomp.passes.graph.value_heads import attention_of, attentions, value_heads
from qcomp.passes.graph.written_attention import kept_value, written_attentions
from qcomp.passes.quantize.tied import tied_weights
from qcomp.passmanager import Context
from qcomp.quantization import rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Draw", "Draws", "Turner"]

Float64 = npt.NDArray[np.float64]

_ELEMENTWISE = {
    *("Mul", "Relu", "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Elu", "HardSwish", "LeakyRelu"),
    *("Mish", "Pow", "Selu", "Sigmoid", "Silu", "Swish", "Tanh"),
}
"""What makes the input of a down-projection."""


Draw = Callable[[str, int, bool], "Orthogonal | None"]
"""What it is for, n, whether R 1 = 1 is needed -> R; None where there is none, and was reported."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Where the matrices come from.

    Attributes:
        stream: Of residual streams.
        heads: Of the values of heads.
        online: Of queries and keys, and the two factors for what a down-projection reads.
    """

    stream: Draw
    heads: Draw
    online: Draw


class Turner:
    """Turns the weights of one model, one kind after the other.

    Args:
        model: Changed in place.
        context: Its rules are honoured; warnings go there.
        done: What turned before and stays: ``stream`` with the name of a normalization, ``head``,
            ``online`` or ``keys`` of an operator.
        name: Of the pass, for messages.

    Attributes:
        done: With what turned now.
        steps: Constants that turned -> how, in order.
    """

    def __init__(
        self, model: ir.Model, context: Context, done: set[tuple[str, str]], name: str
    ) -> None:
        self.done, self.name = done, name
        self.steps: dict[ir.Value, tuple[Step, ...]] = {}
        self._model, self._context = model, context
        self._editor = Editor(model)
        self._rules = rules_of(context)
        self._products = OnlineProducts(self._editor, context, self.steps)
        self._made: dict[tuple[object, ...], ir.Value] = {}
        self._origin: dict[ir.Value, ir.Value] = {}

    def turn_stream(self, draw: Draw) -> bool:
        """Turn every residual stream: two towers have one each."""
        changed = False
        while True:
            known = {name for kind, name in self.done if kind == "stream"}
            stream = find_residual_stream(self._model.graph, self._rules, known)
            if isinstance(stream, Refusal):
                if not known:
                    at = f" because of '{stream.where}'" if stream.where else ""
                    self._warn(f"the residual stream stays{at}: {stream.why}")
                return changed
            self.done |= {("stream", norm.name) for norm in stream.norms}
            layered = any(norm.kind == "layer" for norm in stream.norms)
            R = draw("the residual stream", stream.width, layered)
            if R is not None:
                self._turn_one(stream, R)
                changed = True

    def _turn_one(self, stream: ResidualStream, R: Orthogonal) -> None:
        self._report_copies(stream)
        for table in stream.tables:
            self._turn(table, 0, Step(R, -1))
        for stem in stream.stems:
            self._turn(stem, 1, Step(R, 0))
        for node in stream.writers:
            self._turn(node, 1, Step(R, 1 - reduced_axis(node)))
        for node, index in stream.constants:
            self._turn_vectors(node, index, R)
        for reader in stream.readers:
            self._turn_reader(reader, R)
        for norm in stream.norms:
            self._drop_gain(norm)

    def _report_copies(self, stream: ResidualStream) -> None:
        """Name the matrices that are copies of a table and will be none behind their gains."""
        scaled = {
            reader.layer
            for reader in stream.readers
            if reader.norm is not None
            and reader.norm.gain is not None
            and (_vector(reader.norm.gain) != 1.0).any()
        }
        for tie in tied_weights(self._model):
            tensor = constant_tensor(tie.weight)
            if tie.weight is not tie.table and tie.layer in scaled and tensor is not None:
                self._warn(
                    f"'{tie.weight.name}' had the values of '{tie.table.name}' and could be"
                    f" stored as one with it; not any more: {tensor.nbytes} bytes"
                )

    def _turn_reader(self, reader: Reader, R: Orthogonal) -> None:
        """Turn a weight; gain and bias of the normalization before it go into weight and bias."""
        norm, layer = reader.norm, reader.layer
        inner = reduced_axis(layer)
        if norm is not None and norm.bias is not None:
            tensor = constant_tensor(layer.inputs[1])
            assert tensor is not None
            with read_weight(tensor) as stored:
                W = np.asarray(stored, np.float64)
                shift = np.tensordot(_vector(norm.bias), W, (0, inner))
            place = bias_place(layer, len(shift))
            assert place is not None
            place.add(self._editor, shift)
        gain = None if norm is None or norm.gain is None else _vector(norm.gain)
        if gain is None or (gain == 1.0).all():
            self._turn(layer, 1, Step(R, inner))
            return
        assert norm is not None
        self._turn(layer, 1, Step(R, inner), by=(norm, gain[:, None] if inner == 0 else gain))

    def _drop_gain(self, norm: Norm) -> None:
        """Take gain and bias out of a normalization, whose readers have them now."""
        for place, neutral in ((norm.gain, 1.0), (norm.bias, 0.0)):
            if place is None:
                continue
            node, index = place
            old = node.inputs[index]
            array = constant_array(old)
            assert old is not None
            assert array is not None
            if node.op_type in ("Mul", "Add"):
                data = node.inputs[1 - index]
                assert data is not None
                self._editor.replace_value(node.outputs[0], data)
                self._editor.remove(node)
            elif not (array == neutral).all():
                made = self._editor.initializer(f"{old.name}_rotated", np.full_like(array, neutral))
                node.replace_input_with(index, made)
                self._editor.drop_if_unused(old)

    def turn_heads(self, draw: Draw) -> bool:
        """Turn the values of each attention and the product behind it, head by head."""
        changed = False
        for projection, outputs in self._attentions():
            label = node_label(projection.layer)
            tensor = constant_tensor(projection.layer.inputs[1])
            assert tensor is not None
            channels, heads = int(tensor.shape.numpy()[1]), projection.heads
            if ("head", label) in self.done:
                continue
            H = draw(f"'{label}'", channels // heads, False)
            if H is None:
                continue
            self._turn(projection.layer, 1, Step(H, 1, "inner"))
            if projection.bias is not None:
                self._turn(*projection.bias, Step(H, -1, "inner"))
            for layer in outputs:
                self._turn(layer, 1, Step(H, reduced_axis(layer), "inner"))
            self.done.add(("head", label))
            changed = True
        return changed

    def _attentions(self) -> list[tuple[ValueProjection, list[ir.Node]]]:
        """The projections of values whose result nothing but products with constants read."""
        found = []
        left = {node: None for node in attentions(self._model.graph)}
        for source, layers in self._layers_by_input().items():
            projection = value_heads(source)
            if projection is None or source.is_graph_output():
                continue
            if {usage.node for usage in source.uses()} != set(layers):
                continue
            attention = attention_of(source)
            if attention is not None:
                left.pop(attention, None)
            refused = next(
                (n for n in (projection.layer, *layers) if self._rules.options(n).excluded), None
            )
            if refused is not None:
                self._warn(f"the values of '{node_label(refused)}' stay: excluded")
                continue
            found.append((projection, layers))
        if left:
            first = node_label(next(iter(left)))
            self._warn(
                f"the values of {len(left)} attentions stay, '{first}' the first:"
                " something else than one product makes them, or reads their mixture"
            )
        return found

    def turn_online(self, draw: Draw) -> bool:
        """Put H = H_a (x) H_b before each down-projection and H^T into its weight."""
        norms = {node for norm in find_norms(self._model.graph) for node in norm.nodes}
        changed = False
        for source, layers in self._layers_by_input().items():
            maker = source.producer()
            if maker is None or maker in norms or maker.op_type not in _ELEMENTWISE:
                continue
            down = [layer for layer in layers if self._is_down(layer)]
            if not down:
                continue
            tensor = constant_tensor(down[0].inputs[1])
            assert tensor is not None
            K = int(tensor.shape.numpy()[reduced_axis(down[0])])
            factors = near_factors(K)
            if factors is None:
                self._warn(no_size(f"the input of '{node_label(down[0])}'", K))
                continue
            A, B = (draw(f"the input of '{node_label(down[0])}'", n, False) for n in factors)
            if A is None or B is None:
                continue
            turned = self._products.by_factors(source, A, B, down[0])
            for layer in down:
                inner = reduced_axis(layer)
                self._turn(layer, 1, Step(B, inner, "inner"), Step(A, inner, "outer"))
                layer.replace_input_with(0, turned)
                self.done.add(("online", node_label(layer)))
            changed = True
        return changed

    def _is_down(self, layer: ir.Node) -> bool:
        tensor = constant_tensor(layer.inputs[1])
        assert tensor is not None
        inner = reduced_axis(layer)
        shape = tuple(tensor.shape.numpy())
        if ("online", node_label(layer)) in self.done or shape[inner] < shape[1 - inner]:
            return False
        return not self._rules.options(layer).excluded

    def turn_keys(self, draw: Draw) -> bool:
        """Put H behind the queries and the keys of each attention written out."""
        changed = False
        for attention in list(written_attentions(self._model.graph)):
            label = node_label(attention.scores)
            if ("keys", label) in self.done:
                continue
            kept = kept_value(attention.scores, keys=True)
            queries = attention.scores.inputs[0]
            assert queries is not None
            n = (static_shape(queries) or (None,))[-1]
            refused = self._refused_keys(kept.value, n, label)
            if refused or n is None:
                self._warn(f"queries and keys of '{label}' stay: {refused}")
                continue
            H = draw(f"the queries of '{label}'", n, False)
            if H is None:
                continue
            q = self._products.along(queries, -1, H, attention.scores)
            attention.scores.replace_input_with(0, q)
            k = self._products.along(kept.value, kept.axis, H, kept.reader)
            kept.reader.replace_input_with(kept.index, k)
            self.done.add(("keys", label))
            changed = True
        return changed

    def _refused_keys(self, keys: ir.Value, n: int | None, label: str) -> str:
        maker = keys.producer()
        parts = () if maker is None or maker.op_type != "Concat" else maker.inputs
        if n is None:
            return "their channels are not known"
        if keys.is_graph_output() or any(v is not None and v.is_graph_input() for v in parts):
            return "a cache that the graph takes in or gives out holds the keys as they are"
        return ""

    def _layers_by_input(self) -> Mapping[ir.Value, list[ir.Node]]:
        """MatMul and Gemm nodes with constant float matrices, by what they read."""
        found: dict[ir.Value, list[ir.Node]] = {}
        for node in self._model.graph:
            if node.domain or node.op_type not in ("MatMul", "Gemm") or node.inputs[0] is None:
                continue
            tensor = constant_tensor(node.inputs[1])
            if tensor is None or tensor.dtype.name != "FLOAT" or len(tensor.shape) != 2:
                continue
            if not int_attribute(node, "transA"):
                found.setdefault(node.inputs[0], []).append(node)
        return found

    def _warn(self, text: str) -> None:
        self._context.warn(f"{self.name}: {text}")

    def _turn(
        self, node: ir.Node, index: int, *steps: Step, by: tuple[Norm, Float64] | None = None
    ) -> None:
        """Replace a constant by what it is turned, in float64, when it is needed.

        Inputs that share a constant and turn alike share the result.

        Args:
            node: The operator that reads it.
            index: Its input.
            steps: One after the other.
            by: A normalization whose gain goes into the weight, and this gain as the factor.
        """
        old = node.inputs[index]
        tensor = constant_tensor(old)
        assert old is not None
        assert tensor is not None
        shape = tuple(tensor.shape.numpy())
        steps = tuple(replace(step, axis=step.axis % len(shape)) for step in steps)
        key = (old, steps, None if by is None else by[0])
        if key not in self._made:

            def compute() -> Mapping[str, npt.NDArray[np.generic]]:
                with read_weight(tensor) as stored:
                    made = np.asarray(stored, np.float64) * (1.0 if by is None else by[1])
                for step in steps:
                    made = step.turned(made)
                return {"turned": np.ascontiguousarray(made, np.float32)}

            parts = SharedParts(compute, {"turned": (tensor.dtype, shape)})
            made = self._editor.initializer(_name(old, node), parts.tensor("turned"))
            self._made[key] = made
            self.steps[made] = (*self.steps.get(old, ()), *steps)
            self._origin[made] = self._origin.get(old, old)
        node.replace_input_with(index, self._made[key])

    def _turn_vectors(self, node: ir.Node, index: int, R: Orthogonal) -> None:
        """Turn a constant that is added to the stream; one number stands for all channels."""
        old = node.inputs[index]
        array = constant_array(old)
        assert old is not None
        assert array is not None
        if array.size == 1:
            array = np.full(R.size, array.reshape(-1)[0])
        made = self._editor.initializer(_name(old, node), R.rows(array).astype(np.float32))
        node.replace_input_with(index, made)
        self.steps[made] = (*self.steps.get(old, ()), Step(R, -1))
        self._editor.drop_if_unused(old)

    def finish(self) -> None:
        """Drop what nothing reads any more; name what was one tensor and is more, with bytes."""
        for old in dict.fromkeys(self._origin.values()):
            copies = [old, *(made for made, origin in self._origin.items() if origin is old)]
            more = sum(bool(value.uses()) or value.is_graph_output() for value in copies) - 1
            tensor = constant_tensor(old)
            assert tensor is not None
            if more > 0:
                self._warn(
                    f"'{old.name}' was one tensor and is {more + 1}: what reads it turns"
                    f" in different ways; {more * tensor.nbytes} bytes more"
                )
            for value in copies:
                self._editor.drop_if_unused(value)


def _name(old: ir.Value, node: ir.Node) -> str:
    return f"{old.name or node_label(node)}_rotated"


def _vector(place: tuple[ir.Node, int]) -> Float64:
    """The constant that a node holds at an input, as float64[n]."""
    array = constant_array(place[0].inputs[place[1]])
    assert array is not None
    return np.asarray(array, np.float64).reshape(-1)
