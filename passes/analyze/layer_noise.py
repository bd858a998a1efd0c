"""How far each quantized layer, alone, moves the outputs of a model: one layer at a time.

    n_l = sum |f_l(x) - f(x)|^2 / sum |f(x)|^2

f is the float model, f_l the float model in which layer l alone is the quantized one. All f_l are
one graph: behind each layer of the float graph stand both results and a Where that a switch turns,
so a layer costs a run and no graph of its own. The error of a layer's neighbours does not count,
which the output errors of the fully quantized model hold, each with those of all layers before.

A layer whose quantized form cannot be cut out between the values that the float layer reads and
makes (a pass joined it with another) takes the error of its output among all the others.

Preconditions: quantizing passes ran; both programs are graphs without circuits.
Cost: a run of twice the model for each layer and batch.
Source: as the layer sensitivity of Dong et al. 2019, arXiv:1905.03696, measured instead of bounded;
one layer at a time as in Nagel et al. 2021, arXiv:2106.08295, section 3.6 (debugging).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.passes.graph.rewriting import Editor, is_constant, node_label
from qcomp.quantization import QuantizationError, QuantizedLayer

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program
    from qcomp.passmanager import Context

__all__ = ["layer_noise"]

Feeds = Mapping[str, npt.NDArray[np.generic]]

_SWITCH = "qcomp_layer_switch"
_PAIR = "_dequantized"
"""What ``quantize-static`` appends to the name of a value behind its pair."""

_MOST_NODES = 64
"""Nodes that the quantized form of one layer has at most."""


def layer_noise(
    before: Program,
    after: Program,
    layers: Iterable[QuantizedLayer],
    batches: Iterable[Feeds],
    context: Context,
) -> dict[str, float]:
    """Return layer -> noise over signal that it adds to the outputs by itself.

    Args:
        before: The float program.
        after: The quantized program.
        layers: The layers to look at.
        batches: Samples.
        context: Progress; the error of layers that cannot be cut out.
    """
    wanted = list(layers)
    model = before.model.clone()
    placed = _switches(model, after.model, wanted)
    error = context.get(QuantizationError)
    known = {line.node: line.output_sqnr for line in error.layers} if error else {}
    noise = {
        layer.node: 10.0 ** (-decibels / 10.0)
        for layer in wanted
        if layer.node not in placed and (decibels := known.get(layer.node)) is not None
    }
    if placed:
        noise |= _measure(model, list(placed), batches, context)
    return {layer.node: noise.get(layer.node, 0.0) for layer in wanted}


def _measure(
    model: ir.Model, names: list[str], batches: Iterable[Feeds], context: Context
) -> dict[str, float]:
    from qcomp.execute import Session

    session = Session(model)
    total = dict.fromkeys(names, 0.0)
    signal = 0.0
    with context.progress.task("one layer at a time", None) as task:
        for feeds in batches:
            off = np.zeros(len(names), np.bool_)
            plain = _floats(session.run({**feeds, _SWITCH: off}))
            signal += sum(float(np.vdot(y, y)) for y in plain)
            for index, name in enumerate(names):
                one = off.copy()
                one[index] = True
                for y, z in zip(plain, _floats(session.run({**feeds, _SWITCH: one})), strict=True):
                    moved = z - y
                    total[name] += float(np.vdot(moved, moved))
                task.advance()
    return {name: value / signal if signal else 0.0 for name, value in total.items()}


def _floats(values: Mapping[str, npt.NDArray[np.generic]]) -> list[npt.NDArray[np.float64]]:
    """Outputs of real numbers; positions that are not finite (masks) count as 0."""
    real = [value for value in values.values() if np.issubdtype(value.dtype, np.floating)]
    return [np.nan_to_num(v.astype(np.float64), posinf=0.0, neginf=0.0) for v in real]


def _switches(model: ir.Model, quantized: ir.Model, layers: list[QuantizedLayer]) -> list[str]:
    """Put the quantized form of each layer beside the float one; return those where it went."""
    import onnx_ir as ir

    graph = model.graph
    editor = Editor(model)
    for domain, version in quantized.graph.opset_imports.items():
        graph.opset_imports[domain] = max(version, graph.opset_imports.get(domain, version))
    nodes = {node_label(node): node for node in graph}
    values = {v.name: v for node in graph for v in node.outputs}
    made = {v.name: v for node in quantized.graph for v in node.outputs}
    cuts = []
    for layer in layers:
        node, real, result = nodes.get(layer.node), values.get(layer.source), made.get(layer.output)
        if node is None or real is None or result is None:
            continue
        reads = {
            v.name or "": i
            for i, v in enumerate(node.inputs)
            if v is not None and not is_constant(v)
        }
        inside = _between(result, reads, made)
        if inside is not None:
            cuts.append((layer.node, node, real, result, inside, reads))
    if not cuts:
        return []
    switch = ir.Value(
        name=_SWITCH, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([len(cuts)])
    )
    graph.inputs.append(switch)
    constants: dict[str, ir.Value] = {}
    for index, (name, node, real, result, inside, reads) in enumerate(cuts):
        # What it reads may by now be the chosen one of two results.
        known: dict[str, ir.Value | None] = {}
        for read, at in reads.items():
            known[read] = known[f"{read}{_PAIR}"] = node.inputs[at]
        twin = _copy(editor, inside, result, known, constants)
        place = editor.initializer(f"{name}_index", np.array(index, np.int64))
        one = editor.node("Gather", [switch, place], name=f"{name}_switch").outputs[0]
        chosen = editor.node("Where", [one, twin, real], name=f"{name}_chosen")
        out = chosen.outputs[0]
        out.type, out.shape = real.type, real.shape
        for usage in list(real.uses()):
            if usage.node is not chosen:
                usage.node.replace_input_with(usage.idx, out)
        if real.is_graph_output():
            wanted = real.name
            graph.outputs[list(graph.outputs).index(real)] = out
            real.name = editor.fresh(f"{wanted}_float")
            out.name = wanted
    graph.sort()
    return [name for name, *_ in cuts]


def _between(
    result: ir.Value, reads: Mapping[str, int], made: Mapping[str | None, ir.Value]
) -> list[ir.Node] | None:
    """Return the nodes from what a layer reads to its result, in order; None if others are needed.

    Where a pass left out a Relu, only the pair behind it has the name of the value.
    """
    ends = {*reads, *(f"{name}{_PAIR}" for name in reads if name not in made)}
    order: list[ir.Node] = []
    seen: set[ir.Node] = set()

    def visit(value: ir.Value | None) -> bool:
        if value is None or value.name in ends or value.is_initializer():
            return True
        node = value.producer()
        if node is None or len(seen) > _MOST_NODES:
            return False
        if node in seen:
            return True
        seen.add(node)
        if any(attribute.type.name.startswith("GRAPH") for attribute in node.attributes.values()):
            return False
        if not all([visit(v) for v in node.inputs]):
            return False
        order.append(node)
        return True

    return order if result.name not in ends and visit(result) else None


def _copy(
    editor: Editor,
    nodes: list[ir.Node],
    result: ir.Value,
    known: Mapping[str, ir.Value | None],
    constants: dict[str, ir.Value],
) -> ir.Value:
    """Copy nodes into the float graph, reading the values that are known there by name."""
    import onnx_ir as ir

    made: dict[ir.Value, ir.Value] = {}

    def constant(name: str, tensor: ir.TensorProtocol) -> ir.Value:
        # The tensor belongs to the quantized program and keeps its name there.
        shape = ir.Shape(tensor.shape.numpy())
        lazy = ir.LazyTensor(lambda: tensor, dtype=tensor.dtype, shape=shape, name=name)
        return editor.initializer(name, lazy)

    def value_of(value: ir.Value | None) -> ir.Value | None:
        if value is None or value in made:
            return None if value is None else made[value]
        name = value.name or ""
        if value.is_initializer() and value.const_value is not None:
            if name not in constants:
                constants[name] = constant(f"{name}_twin", value.const_value)
            return constants[name]
        return known[name]

    for node in nodes:
        copy = editor.node(
            node.op_type,
            [value_of(value) for value in node.inputs],
            {name: attribute.value for name, attribute in node.attributes.items()},
            name=f"{node_label(node)}_twin",
            domain=node.domain,
            outputs=[f"{value.name}_twin" for value in node.outputs],
        )
        made.update(zip(node.outputs, copy.outputs, strict=True))
    return made[result]
