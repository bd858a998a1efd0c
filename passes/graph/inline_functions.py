"""Calls of model-local functions are replaced by the functions' operators.

Exporters write blocks of a model as functions. ONNX Runtime inlines them when it loads a graph;
passes that look at operators have to see them before.

An operator of the body is named ``call/operator``, and patterns that match the call match it: with
the call, all that it did is excluded.

Preconditions: functions and graph have the same opset (``canonicalise`` sees to it).
Preserved: the outputs, bit for bit.
Cost: linear in the nodes after inlining.
Source: ONNX IR specification, "Functions".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from qcomp.node_rules import NodeRules, name_nodes, node_name, rules_of
from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["InlineFunctions"]

_CALL, _NODE = "qcomp.call", "qcomp.node"
"""Metadata of an operator: the number of the call that it comes from, its name in the function."""


@dataclass(frozen=True)
class InlineFunctions(GraphPass):
    """Replace calls of model-local functions by the operators of the functions."""

    name: ClassVar[str] = "inline-functions"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    def run(self, program: Program, context: Context) -> bool:
        """Inline all calls; return whether there were any."""
        from onnx_ir.passes.common import InlinePass, RemoveUnusedFunctionsPass

        if not program.model.functions:
            return False
        model = program.model.clone()
        calls = _mark(model)
        try:
            inlined = InlinePass()(model)
        except ValueError as error:
            context.warn(f"the functions of the model were not inlined: {error}")
            return False
        if not inlined.modified:
            return False
        RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        context.put(_name(model, calls, rules_of(context)))
        program.model = model
        return True


def _mark(model: ir.Model) -> list[tuple[str, str]]:
    """Mark calls and bodies; the operators that take a call's place inherit the marks.

    Returns:
        Name and type of each call of the graph.
    """
    name_nodes(model.graph)
    for function in model.functions.values():
        for node in function.all_nodes():
            node.metadata_props[_NODE] = node_name(node)
    calls = [node for node in model.graph.all_nodes() if node.op_identifier() in model.functions]
    for index, node in enumerate(calls):
        node.metadata_props[_CALL] = str(index)
    return [(node_name(node), node.op_type) for node in calls]


def _name(model: ir.Model, calls: list[tuple[str, str]], rules: NodeRules) -> NodeRules:
    """Name the operators that came in; return the rules that know them by their calls."""
    nodes = list(model.graph.all_nodes())
    taken = {node_name(node) for node in nodes if _CALL not in node.metadata_props}
    for node in nodes:
        index, inner = (node.metadata_props.pop(key, None) for key in (_CALL, _NODE))
        if index is None:
            continue
        call = calls[int(index)]
        base = name = f"{call[0]}/{inner}"
        count = 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        node.name = name
        rules = rules.made_of(call, [node])
    return rules
