"""Passes over the classical parts inside of loops: each body is compiled like a program.

A body's calibration data is what its steps read while the program runs on the calibration data.
The bodies come first, so that what follows them is calibrated on what they give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.execute import HybridSession
from qcomp.ir.loops import body_of, body_program, is_loop_node
from qcomp.ir.stages import captured_values
from qcomp.node_rules import name_nodes, node_name
from qcomp.passmanager import Context, PassRecord, Pipeline
from qcomp.quantization import NodeRules, QuantizationError, QuantizationRecord

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program
    from qcomp.passmanager import Observer

__all__ = ["replace_body", "run_passes"]

STEPS = 32
"""Most steps of one batch that a body is calibrated on, evenly spread."""

Feeds = dict[str, NDArray[np.generic]]


def run_passes(
    program: Program, text: str, context: Context, observer: Observer | None = None
) -> list[PassRecord]:
    """Run a pipeline on a program, on a classical target first on the bodies of its loops.

    Args:
        program: The program, changed in place.
        text: The pipeline.
        context: What the passes may use; it also gets what was quantized in the bodies.
        observer: Called after each pass.

    Raises:
        PassError: If a pass fails.
    """
    classical = context.target is not None and context.target.kind != "circuit"
    loops = [n for n in program.model.graph if is_loop_node(n)] if classical else []
    data = _recorded(program, loops, context) if loops else {}
    records: list[PassRecord] = []
    inner: list[Context] = []
    for node in loops:
        body = body_program(program, node)
        name_nodes(body.model.graph)
        inner.append(_inside(context, data.get(node_name(node))))
        records += Pipeline.parse(text).run(body, inner[-1], observer)
        replace_body(program, node, body)
    records += Pipeline.parse(text).run(program, context, observer)
    for body_context in inner:
        _absorb(program, context, body_context)
    return records


def replace_body(program: Program, node: ir.Node, body: Program) -> None:
    """Put a changed body back into its loop.

    Args:
        program: The program.
        node: A loop of its main graph.
        body: What :func:`~qcomp.ir.loops.body_program` gave for it, changed by passes that keep
            inputs and outputs; the loop has its graph from then on.
    """
    import onnx_ir as ir

    graph = body.model.graph
    around = {value.name: value for value in captured_values(node)}
    own = len(body_of(node).inputs)
    for value in graph.inputs[own:]:
        value.replace_all_uses_with(around[value.name], replace_graph_outputs=True)
    del graph.inputs[own:]
    node.attributes["body"] = ir.AttrGraph("body", graph)
    for name, function in body.model.functions.items():
        program.model.functions.setdefault(name, function)
    for domain, version in graph.opset_imports.items():
        program.model.graph.opset_imports.setdefault(domain, version)


def _recorded(program: Program, loops: list[ir.Node], context: Context) -> dict[str, list[Feeds]]:
    """Run the program on its calibration data; return what the steps of each loop read."""
    if context.calibration is None:
        return {}
    names = {node_name(node): [v.name for v in body_program(program, node).model.graph.inputs]
             for node in loops}  # fmt: skip
    found: dict[str, list[Feeds]] = {name: [] for name in names}
    session = HybridSession(program)
    seen: dict[str, list[Feeds]] = {}

    def record(loop: str, number: int, values: Mapping[str, Any]) -> None:
        if loop in names:
            feeds = {name: np.asarray(values[name]) for name in names[loop] if name}
            seen.setdefault(loop, []).append(feeds)

    session.on_step = record
    for feeds in context.calibration():
        seen.clear()
        session.run(feeds, shots=0)
        for name, steps in seen.items():
            chosen = np.unique(np.linspace(0, len(steps) - 1, min(STEPS, len(steps))).astype(int))
            found[name] += [steps[i] for i in chosen.tolist()]
    return found


def _inside(context: Context, data: list[Feeds] | None) -> Context:
    """Return the context of a body: facts of its own, everything else shared."""

    def batches() -> Iterator[Feeds]:
        return iter(data or ())

    made = replace(context, calibration=batches if data else None, _facts={})
    rules = context.get(NodeRules)
    if rules is not None:
        made.put(rules)
    return made


def _absorb(program: Program, context: Context, inner: Context) -> None:
    """Add what was quantized in a body to what was quantized around it."""
    inside = {
        node_name(n) for loop in program.model.graph if is_loop_node(loop)
        for n in body_of(loop).all_nodes()
    }  # fmt: skip
    own = inner.get(QuantizationRecord)
    if own is not None:
        outer = context.get(QuantizationRecord) or QuantizationRecord()
        known = {layer.node for layer in own.layers} | {op.node for op in own.float_ops} | inside
        around = tuple(op for op in outer.float_ops if op.node not in known)
        layers = (*outer.layers, *own.layers)
        context.put(QuantizationRecord(layers, (*around, *own.float_ops)))
    errors = inner.get(QuantizationError)
    if errors is not None:
        outside = context.get(QuantizationError)
        if outside is None:
            context.put(errors)
        else:
            context.put(replace(outside, layers=(*outside.layers, *errors.layers)))
