"""The two graphs of learned rounding, and the blocks that they are cut into.

The *twin* is the program as it will be quantized: activations lie on the integers' grid, each
weight that is to be learned is a float initializer of its own. It runs beside the float program:
a block is learned on what the twin hands it, against what float makes of it (the asymmetric
reconstruction of Nagel et al. 2020, arXiv:2004.10568, section 3.3).

A block ends where one value is all that later layers read of the layers before: behind the
addition of a residual block, behind each half of a transformer block. Values that hold no layer's
result, such as attention masks, do not count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from qcomp.ir.program import Program
from qcomp.ir.shapes import infer_shapes
from qcomp.ir.stages import captured_values
from qcomp.layer_store import give_back
from qcomp.passes.graph.rewriting import (
    Editor,
    KeptOpset,
    constant_array,
    int_attribute,
    node_label,
    only_use,
)
from qcomp.passes.quantize.static_plan import activation_bounds, matmul_weight_reason, plan_static
from qcomp.passes.quantize.streams import Part, Stream
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context, GraphPass
from qcomp.quantization import (
    ChosenWeight,
    ChosenWeights,
    NodeRules,
    QuantizationRecord,
    TensorStatistics,
    rules_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "Layer",
    "Part",
    "Stream",
    "Twin",
    "Unit",
    "blocks_of",
    "closed",
    "joined_unit",
    "layers_of",
    "make_twin",
]

Array = npt.NDArray[np.generic]


@dataclass(slots=True)
class Layer:
    """One weight to learn.

    Attributes:
        weight: Name of the float weight.
        node: The operator in the float graph that reads it first.
        places: Initializers of the twin that hold it, and whether they hold its transpose.
        readers: Operators of the twin that read them.
        bits: Bits of its integers.
        group: Weights that share a scale, where the user or a pass asks for it.
    """

    weight: str
    node: ir.Node
    bits: int
    places: list[tuple[ir.Value, bool]] = field(default_factory=list)
    readers: list[ir.Node] = field(default_factory=list)
    group: int | None = None

    def put(self, real: npt.NDArray[np.float32]) -> None:
        """Let the twin compute with another weight."""
        import onnx_ir as ir

        for value, flip in self.places:
            array = np.ascontiguousarray(real.T if flip else real)
            value.const_value = ir.tensor(array, name=value.name)

    def put_lazily(self, chosen: ChosenWeight) -> None:
        """Let the twin compute with integers, made real where a part of it is run."""
        import onnx_ir as ir

        for value, flip in self.places:
            value.const_value = ir.LazyTensor(
                partial(_real, chosen, flip, value.name),
                dtype=ir.DataType.FLOAT,
                shape=ir.Shape(chosen.levels.shape[::-1] if flip else chosen.levels.shape),
                name=value.name,
            )


def _real(chosen: ChosenWeight, flip: bool, name: str | None) -> ir.TensorProtocol:
    import onnx_ir as ir

    real = chosen.real()
    give_back(chosen.levels)
    return ir.tensor(np.ascontiguousarray(real.T if flip else real), name=name)


@dataclass(slots=True)
class Twin:
    """The program as it will be quantized.

    Attributes:
        program: Its graph.
        layers: Weights to learn, in graph order.
        outputs: Name of a value of the float graph -> the twin's.
        static: Whether activations are quantized.
    """

    program: Program
    layers: list[Layer]
    outputs: Mapping[str, str]
    static: bool


@dataclass(slots=True)
class Unit:
    """What is learned together.

    Attributes:
        label: For messages.
        layers: Its weights.
        target: Value of the float graph that is its result.
    """

    label: str
    layers: list[Layer]
    target: ir.Value


def make_twin(
    program: Program, context: Context, scheme: str, bits: int, activations: Literal[8, 4] = 8
) -> Twin:
    """Build the twin; the program is not changed.

    Args:
        program: In float, as the quantizing pass will find it.
        context: Its rules, statistics and integers that others chose are honoured.
        scheme: ``static``, ``weights`` or ``tokens``: which pass will quantize.
        bits: Of weights that no rule says otherwise of.
        activations: Bits of the activations of ``tokens``.
    """
    from qcomp.passes.quantize.quantize_static import QuantizeStatic
    from qcomp.passes.quantize.quantize_tokens import QuantizeTokens

    rules, chosen = rules_of(context), context.get(ChosenWeights) or ChosenWeights()
    layers: dict[str, Layer] = {}
    plan = plan_static(program.model, rules) if scheme == "static" else None
    planned = None if plan is None else {part.node for part in plan.layers if part.weighted}
    for node in program.model.graph:
        if node.domain or node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        if planned is not None:
            taken = node in planned
        else:
            kind = "dynamic" if scheme == "tokens" else "weights"
            refusal = rules.options(node).refusal(kind) or matmul_weight_reason(node)
            taken = node.op_type != "Conv" and not refusal
        if taken:
            name = (node.inputs[1].name if node.inputs[1] is not None else "") or ""
            asked = rules.options(node)
            if name not in chosen.weights:
                count = bits if asked.bits is None else asked.bits
                group = asked.group if scheme == "weights" else None
                layers.setdefault(name, Layer(name, node, count, group=group))
    model = program.model.clone()
    twin = Program(model, program.circuits, program.source)
    if scheme == "weights":
        outputs = {}
        _own_weights(twin, chosen, layers)
    else:
        quantizer = QuantizeTokens(bits=activations) if scheme == "tokens" else QuantizeStatic()
        outputs = _insert_grids(twin, context, (rules, chosen), quantizer, layers)
    infer_shapes(twin)
    return Twin(
        twin, [layer for layer in layers.values() if layer.places], outputs, plan is not None
    )


def _insert_grids(
    twin: Program,
    context: Context,
    facts: tuple[NodeRules, ChosenWeights],
    quantizer: GraphPass,
    layers: Mapping[str, Layer],
) -> dict[str, str]:
    """Quantize the activations of the twin as a pass will; its weights stay float."""
    inner = Context(seed=context.seed, target=context.target, calibration=context.calibration)
    rules, chosen = facts
    # Weights stay float: whatever bits they will have, no packed form of them is wanted.
    plain = replace(rules, override=tuple(replace(o, bits=None) for o in rules.override))
    for fact in (context.get(TensorStatistics), context.get(KeptOpset), plain, chosen):
        if fact is not None:
            inner.put(fact)
    flips = {
        node_label(node): node.op_type == "Gemm" and int_attribute(node, "transB") == 1
        for node in twin.model.graph
    }
    weights = {
        node_label(node): node.inputs[1].const_value
        for node in twin.model.graph
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.inputs[1] is not None
    }
    quantizer.run(twin, inner)
    record = inner.get(QuantizationRecord) or QuantizationRecord()
    editor = Editor(twin.model)
    for part in record.layers:
        layer = layers.get(part.weight)
        if layer is None or not part.quantized:
            continue
        for pair in _pairs(twin.model.graph.initializers[part.quantized]):
            for usage in list(pair.outputs[0].uses()):
                flip = flips[part.node] and usage.node.op_type == "MatMul"
                tensor = weights[part.node]
                assert tensor is not None
                array = np.asarray(tensor.numpy(), np.float32)
                value = editor.initializer(
                    f"{part.weight}_learned", np.ascontiguousarray(array.T if flip else array)
                )
                usage.node.replace_input_with(usage.idx, value)
                layer.places.append((value, flip))
                layer.readers.append(usage.node)
    return {part.source: part.output for part in record.layers}


def _pairs(levels: ir.Value) -> list[ir.Node]:
    """The operators that make a stored weight real again."""
    readers = [usage.node for usage in levels.uses()]
    behind = [u.node for r in readers if r.op_type == "Cast" for u in r.outputs[0].uses()]
    return [node for node in (*readers, *behind) if node.op_type == "DequantizeLinear"]


def _own_weights(twin: Program, chosen: ChosenWeights, layers: Mapping[str, Layer]) -> None:
    """Give the weights of the twin initializers of their own: a lookup may share them."""
    editor = Editor(twin.model)
    for node in list(twin.model.graph):
        value = node.inputs[1] if len(node.inputs) > 1 else None
        if node.op_type not in ("Gemm", "MatMul") or value is None or value.name is None:
            continue
        layer, found = layers.get(value.name), chosen.weights.get(value.name)
        if layer is None and found is None:
            continue
        own = editor.initializer(f"{value.name}_learned", _copy(float_weight(value), found))
        node.replace_input_with(1, own)
        if layer is not None:
            layer.places.append((own, False))
            layer.readers.append(node)


def _copy(tensor: ir.TensorProtocol, chosen: ChosenWeight | None) -> ir.TensorProtocol:
    """A weight under another name, read where it lies when it is needed."""
    import onnx_ir as ir

    read = (lambda: tensor) if chosen is None else partial(_real, chosen, False, None)
    return ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=ir.Shape(tensor.shape.numpy()))


def layers_of(layers: Sequence[Layer]) -> list[Unit]:
    """Units of one layer each, up to the activation behind it: it takes part in the loss."""
    return [Unit(node_label(layer.node), [layer], _behind(layer.node)) for layer in layers]


def _behind(node: ir.Node) -> ir.Value:
    """The result of a layer behind its bias and its Relu or Clip."""
    value = node.outputs[0]
    for _ in range(2):
        user = only_use(value)
        if user is None or user.domain:
            break
        others = [v for v in user.inputs if v is not None and v is not value]
        bias = user.op_type == "Add" and all(constant_array(v) is not None for v in others)
        if not bias and activation_bounds(user) is None:
            break
        value = user.outputs[0]
    return value


def blocks_of(graph: ir.Graph, layers: Sequence[Layer], span: int = 1) -> list[Unit]:
    """Cut a graph where one value is all that is left of the layers before.

    Of several towers each is cut by itself: what another one has made, and this one does not read,
    may be there as well.

    Args:
        graph: The float graph.
        layers: To be put into blocks.
        span: Cuts that a block reaches over.

    Returns:
        Blocks in graph order; those without a layer are part of the next one.
    """
    of_node = {layer.node: layer for layer in layers}
    uses: dict[ir.Value, int] = {}
    for node in graph:
        for value in captured_values(node):
            uses[value] = uses.get(value, 0) + 1
    for value in graph.outputs:
        uses[value] = uses.get(value, 0) + 1
    roots = _roots(layers)
    live = {value: uses[value] for value in graph.inputs if value in roots}
    tainted: set[ir.Value] = set()
    fresh: set[ir.Value] = set()  # made since the last cut
    units: list[Unit] = []
    inside: list[Layer] = []
    for node in graph:
        reads = captured_values(node)
        for value in reads:
            if value in live:
                live[value] -= 1
                if not live[value]:
                    del live[value]
        if node in of_node:
            inside.append(of_node[node])
        follows = node in of_node or any(value in tainted for value in reads)
        for value in node.outputs:
            if follows:
                tainted.add(value)
            if (follows or value in roots) and uses.get(value):
                live[value] = uses[value]
                fresh.add(value)
        result = _only_result(live, fresh) if inside else None
        if result is not None and _settled(result, node):
            fresh.clear()
            units.append(Unit(_label(inside), inside, result))
            inside = []
    if inside and len(live) == 1:
        units.append(Unit(_label(inside), inside, next(iter(live))))
        inside = []
    rest = layers_of(inside)  # several results: no single one to learn from
    blocks: list[Unit] = []
    while units:
        count = min(span, len(units))
        while count > 1 and not closed(units[:count]):
            count -= 1
        blocks.append(joined_unit(units[:count]))
        units = units[count:]
    return blocks + rest


def closed(units: Sequence[Unit]) -> bool:
    """Whether the last result holds those of all units, and nothing else reads them."""
    last = units[-1].target
    behind: set[ir.Value] = set()
    stack = [last]
    while stack:
        value = stack.pop()
        maker = value.producer()
        if value not in behind:
            behind.add(value)
            stack += [] if maker is None else captured_values(maker)
    for unit in units[:-1]:
        read = [v for u in unit.target.uses() for v in u.node.outputs]
        if unit.target not in behind or not all(v in behind for v in read):
            return False
    return True


def joined_unit(units: Sequence[Unit]) -> Unit:
    """Consecutive units as one."""
    if len(units) == 1:
        return units[0]
    first, last = units[0].label.partition(" ... ")[0], units[-1].label.rpartition(" ... ")[2]
    layers = [layer for unit in units for layer in unit.layers]
    return Unit(f"{first} ... {last}", layers, units[-1].target)


def _only_result(live: Mapping[ir.Value, int], fresh: Collection[ir.Value]) -> ir.Value | None:
    """The one value that is left of what was made since the last cut, and of what it was made of.

    Values of another tower do not count: made before, and not read on the way to this one.
    """
    if len(live) == 1:
        return next(iter(live))
    left = [value for value in live if value in fresh]
    if len(left) != 1:
        return None
    seen: set[ir.Value] = set()
    stack = [left[0]]
    while stack:
        value = stack.pop()
        maker = value.producer()
        if maker is None or value in seen:
            continue
        seen.add(value)
        stack += captured_values(maker)
        if any(v in live and v is not left[0] for v in captured_values(maker)):
            return None
    return left[0]


def _roots(layers: Sequence[Layer]) -> set[ir.Value]:
    """What layers read, also in front of a normalization: the first block needs it to its end."""
    found: set[ir.Value] = set()
    for layer in layers:
        value = layer.node.inputs[0]
        while value is not None and value not in found:
            found.add(value)
            maker = value.producer()
            normalized = maker is not None and maker.op_type.endswith("Normalization")
            value = maker.inputs[0] if maker is not None and normalized else None
    return found


def _settled(value: ir.Value, node: ir.Node) -> bool:
    """Whether a cut here leaves no bias or activation of the layer before to the next block."""
    user = only_use(value)
    if value.producer() is not node:
        return False
    if user is None or user.domain:
        return True
    others = [v for v in user.inputs if v is not None and v is not value]
    bias = user.op_type == "Add" and all(constant_array(v) is not None for v in others)
    follows = activation_bounds(user) is not None or user.op_type in _TAILS
    return not bias and not follows


_TAILS = {
    "Gelu",
    "LayerNormalization",
    "LeakyRelu",
    "RMSNormalization",
    "Sigmoid",
    "Softmax",
    "Tanh",
}


def _label(layers: Sequence[Layer]) -> str:
    first, last = node_label(layers[0].node), node_label(layers[-1].node)
    return first if len(layers) == 1 else f"{first} ... {last}"
