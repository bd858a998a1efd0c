"""Rotations folded into weights: outliers of single channels spread over all, the function stays.

    x R in place of the residual stream x:  E R,  W_out R,  R^T diag(g) W_in,  R^T diag(g) W_head

for the tables E, the products W_out that are added to the stream, the products W_in behind its
normalizations (gains g and biases go into them) and the head; R = D H / sqrt(n) with random signs D
(:mod:`qcomp.passes.graph.hadamard`), since rms(x R) = rms(x). A LayerNormalization stays one: R is
chosen with R 1 = 1, so the mean of x R is that of x and nothing has to be centred. Between an
attention's values and its output projection each head turns by a matrix of its own size,

    softmax(q k') (v H) (H^T W_o) = softmax(q k') v W_o

``online=true`` multiplies what a down-projection reads by H while the graph runs, H^T goes into its
weight. H = H_a (x) H_b with a b = K is two products of K (a + b) multiplications a row, not K^2.
Share of a float down-projection's time with N = K / 4, one thread of ONNX Runtime (``whole``: one
product with H; ``butterflies``: log2 K steps of Split, Add, Sub, Concat):

    K, rows          256, 1   256, 64   1024, 1   1024, 64   4096, 1   4096, 64
    H_a (x) H_b        1.3      1.2        .4        .35       .05       .12
    whole              1.3      3.2       2.8       4.0       6.9       3.8
    butterflies        3.8      6.5       1.8       1.6        .14       .42

What cannot turn is named in a warning and stays as it is; a table that was a matrix too and no
longer is one is named with its bytes. The outputs are compared on calibration data, made up where
there is none: a difference above 1e-4, or 1e-5 of the largest value if that is more, is an error.

Preconditions: ``fold-constants`` and ``take-apart`` ran; before ``calibrate``.
Preserved: the function, up to float32 rounding of the weights; products are taken in float64.
Cost: about 2 n sqrt(n) multiplications a row of each weight; two runs of the model on 4 samples.
Source: Ashkboos et al. 2024, arXiv:2404.00456, section 4 (R 1 = 1 is ours, in place of the centring
of arXiv:2401.15024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from glob import escape
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, QcompError
from qcomp.node_rules import NodeRules
from qcomp.passes.calibrate.batches import checked_batches, generated_batch
from qcomp.passes.calibrate.smoothing_places import ValueProjection, bias_place
from qcomp.passes.graph.hadamard import (
    Rotation,
    hadamard,
    has_hadamard,
    near_factors,
    nearest_sizes,
    turned_by,
)
from qcomp.passes.graph.norms import Norm, find_norms
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
)
from qcomp.passes.graph.value_heads import attention_of, attentions, value_heads
from qcomp.passes.quantize.tied import tied_weights
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["Rotate", "Rotated"]

Float64 = npt.NDArray[np.float64]
Turn = Callable[[Float64, int], Float64]

_ABSOLUTE, _RELATIVE = 1e-4, 1e-5
_SAMPLES = 4
_ELEMENTWISE = {
    *("Mul", "Relu", "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Elu", "HardSwish", "LeakyRelu"),
    *("Mish", "Pow", "Selu", "Sigmoid", "Silu", "Swish", "Tanh"),
}
"""What makes the input of a down-projection."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """What turned: a second run leaves it alone.

    Attributes:
        done: ``stream`` with the name of a normalization, ``head`` or ``online`` of a product.
    """

    done: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Rotate(GraphPass):
    """Turn the residual stream and the heads' values by Hadamard matrices, folded into weights.

    Attributes:
        stream: Whether the residual stream turns.
        heads: Whether values and output projections turn, head by head.
        online: Whether what down-projections read turns while the graph runs.
    """

    name: ClassVar[str] = "rotate"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    stream: bool = True
    heads: bool = True
    online: bool = False

    def run(self, program: Program, context: Context) -> bool:
        """Turn what can turn; return whether anything did.

        Raises:
            PassError: The outputs changed by more than rounding.
            UsageError: Calibration data that does not fit the model.
        """
        before = program.copy()
        known = context.get(Rotated)
        work = _Work(program.model, context, set() if known is None else set(known.done))
        changed = False
        # Each turns by numbers of its own, whatever else turns.
        if self.stream:
            changed |= work.turn_stream(context.rng("rotate.stream"))
        if self.heads:
            changed |= work.turn_heads(context.rng("rotate.heads"))
        if self.online:
            changed |= work.turn_online()
        if not changed:
            return False
        work.finish()
        _check(before, program, context)
        context.put(Rotated(frozenset(work.done)))
        return True


class _Work:
    """The weights of one model, turned one after the other."""

    def __init__(self, model: ir.Model, context: Context, done: set[tuple[str, str]]) -> None:
        self.done = done
        self._model, self._context = model, context
        self._editor = Editor(model)
        self._rules = rules_of(context)
        self._made: dict[tuple[object, ...], ir.Value] = {}
        self._origin: dict[ir.Value, ir.Value] = {}

    def turn_stream(self, rng: np.random.Generator) -> bool:
        """Turn every residual stream: two towers have one each."""
        changed = False
        while True:
            known = {name for kind, name in self.done if kind == "stream"}
            stream = find_residual_stream(self._model.graph, self._rules, known)
            if isinstance(stream, Refusal):
                if not known:
                    at = f" because of '{stream.where}'" if stream.where else ""
                    self._context.warn(f"rotate: the residual stream stays{at}: {stream.why}")
                return changed
            self.done |= {("stream", norm.name) for norm in stream.norms}
            if self._has_size(stream.width, "the residual stream"):
                self._turn_one(stream, rng)
                changed = True

    def _turn_one(self, stream: ResidualStream, rng: np.random.Generator) -> None:
        self._report_copies(stream)
        layered = any(norm.kind == "layer" for norm in stream.norms)
        R = Rotation.random(stream.width, rng, keeps_ones=layered)
        for table in stream.tables:
            self._turn(table, 0, -1, R, R.along)
        for stem in stream.stems:
            self._turn(stem, 1, 0, R, R.along)
        for node in stream.writers:
            self._turn(node, 1, 1 - reduced_axis(node), R, R.along)
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
                self._context.warn(
                    f"rotate: '{tie.weight.name}' had the values of '{tie.table.name}' and could be"
                    f" stored as one with it; not any more: {tensor.nbytes} bytes"
                )

    def _turn_reader(self, reader: Reader, R: Rotation) -> None:
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
            self._turn(layer, 1, inner, R, R.along)
            return
        factors = gain[:, None] if inner == 0 else gain
        self._turn(layer, 1, inner, norm, lambda W, axis: R.along(W * factors, axis))

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

    def turn_heads(self, rng: np.random.Generator) -> bool:
        """Turn the values of each attention and the product behind it, head by head."""
        changed = False
        for projection, outputs in self._attentions():
            label = node_label(projection.layer)
            tensor = constant_tensor(projection.layer.inputs[1])
            assert tensor is not None
            channels, heads = int(tensor.shape.numpy()[1]), projection.heads
            if ("head", label) in self.done or not self._has_size(channels // heads, f"'{label}'"):
                continue
            turn = _by_head(Rotation.random(channels // heads, rng))
            self._turn(projection.layer, 1, 1, label, turn)
            if projection.bias is not None:
                self._turn(*projection.bias, -1, label, turn)
            for layer in outputs:
                self._turn(layer, 1, reduced_axis(layer), label, turn)
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
                self._context.warn(f"rotate: the values of '{node_label(refused)}' stay: excluded")
                continue
            found.append((projection, layers))
        if left:
            first = node_label(next(iter(left)))
            self._context.warn(
                f"rotate: the values of {len(left)} attentions stay, '{first}' the first:"
                " something else than one product makes them, or reads their mixture"
            )
        return found

    def turn_online(self) -> bool:
        """Put H before each down-projection and H^T into its weight."""
        inner = {node for norm in find_norms(self._model.graph) for node in norm.nodes}
        changed = False
        for source, layers in self._layers_by_input().items():
            maker = source.producer()
            if maker is None or maker in inner or maker.op_type not in _ELEMENTWISE:
                continue
            down = [layer for layer in layers if self._is_down(layer)]
            if not down:
                continue
            tensor = constant_tensor(down[0].inputs[1])
            assert tensor is not None
            K = int(tensor.shape.numpy()[reduced_axis(down[0])])
            factors = near_factors(K)
            if factors is None:
                self._has_size(K, f"the input of '{node_label(down[0])}'")
                continue
            turned = self._transform(source, down[0], factors)
            for layer in down:
                self._turn(layer, 1, reduced_axis(layer), "online", turned_by(*factors))
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

    def _transform(self, source: ir.Value, before: ir.Node, factors: tuple[int, int]) -> ir.Value:
        """The value x (H_a (x) H_b) / sqrt(a b); its products stay in float."""
        a, b = factors
        editor, name = self._editor, f"{source.name}_hadamard"
        made: list[ir.Node] = []

        def add(op: str, inputs: list[ir.Value]) -> ir.Value:
            node = editor.node(op, inputs, name=f"{name}_{op}", before=before)
            made.append(node)
            return node.outputs[0]

        def constant(array: npt.NDArray[np.generic], end: str) -> ir.Value:
            return editor.initializer(f"{name}_{end}", array)

        H_a, H_b = (np.asarray(hadamard(n) / np.sqrt(n), np.float32) for n in factors)
        shape = add("Shape", [source])
        parts = add("Reshape", [source, constant(np.array([-1, a, b]), "parts")])
        right = add("MatMul", [parts, constant(H_b, "right")])
        # x viewed as X[a, b]: x (H_a (x) H_b) = H_a^T X H_b.
        both = add("MatMul", [constant(np.ascontiguousarray(H_a.T), "left"), right])
        result = add("Reshape", [both, shape])
        result.type, result.shape = source.type, source.shape
        patterns = tuple(escape(node_label(node)) for node in made)
        rules = rules_of(self._context).joined(NodeRules.parse(patterns))
        self._context.put(rules)
        return result

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

    def _has_size(self, n: int, what: str) -> bool:
        if has_hadamard(n):
            return True
        near = " and ".join(str(size) for size in nearest_sizes(n))
        self._context.warn(
            f"rotate: {what} stays: no Hadamard matrix of size {n} can be made,"
            f" the nearest are {near}"
        )
        return False

    def _turn(self, node: ir.Node, index: int, axis: int, by: object, turn: Turn) -> None:
        """Replace a constant by what ``turn`` makes of it in float64, when it is needed.

        Inputs that share a constant and turn along the same axis by the same share the result.
        """
        old = node.inputs[index]
        tensor = constant_tensor(old)
        assert old is not None
        assert tensor is not None
        shape = tuple(tensor.shape.numpy())
        along = axis % len(shape)
        key = (old, along, by)
        if key not in self._made:

            def compute() -> Mapping[str, npt.NDArray[np.generic]]:
                with read_weight(tensor) as stored:
                    made = turn(np.asarray(stored, np.float64), along)
                return {"turned": np.ascontiguousarray(made, np.float32)}

            parts = SharedParts(compute, {"turned": (tensor.dtype, shape)})
            made = self._editor.initializer(_name(old, node), parts.tensor("turned"))
            self._made[key] = made
            self._origin[made] = self._origin.get(old, old)
        node.replace_input_with(index, self._made[key])

    def _turn_vectors(self, node: ir.Node, index: int, R: Rotation) -> None:
        """Turn a constant that is added to the stream; one number stands for all channels."""
        old = node.inputs[index]
        array = constant_array(old)
        assert old is not None
        assert array is not None
        if array.size == 1:
            array = np.full(R.size, array.reshape(-1)[0])
        made = self._editor.initializer(_name(old, node), R.rows(array).astype(np.float32))
        node.replace_input_with(index, made)
        self._editor.drop_if_unused(old)

    def finish(self) -> None:
        """Drop what nothing reads any more; name what was one tensor and is more, with bytes."""
        for old in dict.fromkeys(self._origin.values()):
            copies = [old, *(made for made, origin in self._origin.items() if origin is old)]
            more = sum(bool(value.uses()) or value.is_graph_output() for value in copies) - 1
            tensor = constant_tensor(old)
            assert tensor is not None
            if more > 0:
                self._context.warn(
                    f"rotate: '{old.name}' was one tensor and is {more + 1}: what reads it turns"
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


def _by_head(R: Rotation) -> Turn:
    """Turn the channels of each head, which stand side by side along an axis."""

    def turn(W: Float64, axis: int) -> Float64:
        moved = np.moveaxis(W, axis, -1)
        turned = R.rows(moved.reshape(*moved.shape[:-1], -1, R.size)).reshape(moved.shape)
        return np.moveaxis(turned, -1, axis)

    return turn


def _check(before: Program, after: Program, context: Context) -> None:
    """Compare the outputs of both on a few samples.

    Raises:
        PassError: They differ by more than rounding.
    """
    from qcomp.execute import HybridSession

    try:
        if context.calibration is not None:
            feeds = next(checked_batches(before.model, context.calibration(), _SAMPLES))
        else:
            rng = context.rng("rotate.check")
            feeds = generated_batch(before.model, rng, _SAMPLES)
        wanted = HybridSession(before).run(feeds, seed=context.seed)
    except QcompError as reason:
        if context.calibration is not None:
            raise
        context.warn(f"rotate: the outputs were not compared: {reason.what}")
        return
    got = HybridSession(after).run(feeds, seed=context.seed)
    for name, value in wanted.items():
        reference = np.asarray(value)
        if not np.issubdtype(reference.dtype, np.floating) or not np.isfinite(reference).all():
            continue
        difference = float(np.abs(np.asarray(got[name], np.float64) - reference).max(initial=0.0))
        largest = float(np.abs(reference).max(initial=0.0))
        if not difference <= max(_ABSOLUTE, _RELATIVE * largest):
            raise PassError(
                f"rotate: the output '{name}' changed by {difference:.2g}, its largest value is"
                f" {largest:.3g}",
                why=f"rounding may do {_ABSOLUTE:g}, or {_RELATIVE:g} of the largest value",
                hint="leave rotate out of the pipeline, or some of it: 'rotate{stream=false}'",
            )
