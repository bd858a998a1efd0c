"""Calls of model-local functions are replaced by the functions' operators.

Exporters write blocks of a model as functions. ONNX Runtime inlines them when it loads a graph;
passes that look at operators have to see them before.

An operator of the body is named ``call/operator``, and patterns that match the call match it. A
function stays where one of its calls is excluded by the user.

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

_CALL = "qcomp.call"
"""Metadata of an operator: the number of the call that it comes from."""


@dataclass(frozen=True)
class InlineFunctions(GraphPass):
    """Replace calls of model-local functions by the operators of the functions."""

    name: ClassVar[str] = "inline-functions"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    def run(self, program: Program, context: Context) -> bool:
        """Inline what can be inlined; return whether anything was."""
        from onnx_ir.passes.common import InlinePass, RemoveUnusedFunctionsPass

        if not program.model.functions:
            return False
        rules = rules_of(context)
        made = program.copy()
        model = made.model
        calls = _mark_calls(model)
        kept = {node.op_identifier() for node in calls if rules.options(node).excluded}
        try:
            inlined = InlinePass(lambda function: function.identifier() not in kept)(model)
        except ValueError as error:
            context.warn(f"the functions of the model were not inlined: {error}")
            return False
        if not inlined.modified:
            return False
        RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        context.put(_name(model, calls, rules))
        program.model = model
        return True


def _mark_calls(model: ir.Model) -> list[ir.Node]:
    """Number the calls of the graph; the operators that take their place inherit the number."""
    name_nodes(model.graph)
    calls = [node for node in model.graph.all_nodes() if node.op_identifier() in model.functions]
    for index, node in enumerate(calls):
        node.metadata_props[_CALL] = str(index)
    return calls


def _name(model: ir.Model, calls: list[ir.Node], rules: NodeRules) -> NodeRules:
    """Name the operators that came in; return the rules that know them by their calls."""
    for node in model.graph.all_nodes():
        index = node.metadata_props.pop(_CALL, None)
        if index is None or node in calls:
            continue
        call = calls[int(index)]
        node.name = f"{node_name(call)}/{node_name(node)}"
        rules = rules.made_of((node_name(call), call.op_type), [node])
    return rules
