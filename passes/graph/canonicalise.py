"""Bring a graph to one plain form: new opset, shapes known, nothing in it that does nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from qcomp.errors import PassError, QcompError
from qcomp.ir.program import Program, is_circuit_node
from qcomp.node_rules import NodeRules, rules_of
from qcomp.passes.graph.rewriting import KeptOpset
from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Canonicalise"]

_MAX_ROUNDS = 20

_COMPARED = 1 << 30
"""Bytes of weights up to which outputs are compared after operators were converted."""

_SAMPLES = 4
"""Samples of the calibration data for that."""


@dataclass(frozen=True)
class Canonicalise(GraphPass):
    """Simplify a graph without changing one bit of what it computes.

    1. Standard operators are raised to opset ``min_opset`` (left as they are, with a warning,
       where that cannot be done). Where operators had to change, the outputs are compared with
       those before, on calibration data or random inputs.
    2. Constant nodes of tensors become initializers.
    3. Types and shapes are inferred.
    4. Nodes that do nothing are removed (Identity, Dropout, Cast to the same type, Reshape to
       the same shape, pairs of Transpose and Reshape, Concat of one ...).
    5. Equal small constants, and equal nodes of which the user asks the same, become one.
    6. Nodes, initializers, functions and circuits that no output needs are removed.

    3 to 6 repeat until nothing changes. Inputs and outputs of the graph keep name, order and
    type, also where an input is not used. Custom operators stay untouched.

    Preserves: the outputs, bit for bit, for every input.

    Cost: linear in nodes and values a round; tensors over 1 KiB are not read.

    Source: the rewrites are identities of the operators' definitions, ONNX operator schemas.

    Attributes:
        min_opset: Opset wanted at least; 0 leaves it. 21 is the first with 4-bit integers.
    """

    name: ClassVar[str] = "canonicalise"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    min_opset: int = 21

    def run(self, program: Program, context: Context) -> bool:
        """Simplify the program's graph; return whether it changed."""
        from qcomp.ir.shapes import infer_shapes

        changed = self._raise(program, context)
        model = program.model
        changed = _lift_constants(model) or changed
        rules = rules_of(context)
        for _ in range(_MAX_ROUNDS):
            infer_shapes(program)
            if not _one_round(model, rules):
                break
            changed = True
        return _drop_circuits(program) or changed

    def _raise(self, program: Program, context: Context) -> bool:
        """Raise the opset, or say why it stays; return whether the model changed."""
        from qcomp.passes.graph.opset import raise_opset, unchanged_since

        if unchanged_since(program.model, self.min_opset):
            return raise_opset(program.model, self.min_opset)
        from qcomp.equivalence.graphs import check_programs
        from qcomp.ir.shapes import infer_shapes

        made = program.copy()
        infer_shapes(made)
        try:
            raise_opset(made.model, self.min_opset)
        except PassError as error:
            where = f" ({error.where})" if error.where else ""
            why = f": {error.why}" if error.why else ""
            return _kept(context, f"{error.what}{where}{why}")
        before = program.model.graph.opset_imports.get("", 0)
        what = f"the conversion from opset {before} to {self.min_opset}"
        if _weight_bytes(made) > _COMPARED:
            context.warn(f"{what} was not checked: the model is large")
        else:
            verdict = check_programs(program, made, context.seed, _some_data(program, context))
            if verdict.equal is False:
                runs = "candidate" not in verdict.how
                found = f"changes what it computes, by {verdict.error:.3g}"
                refused = "gives operators that ONNX Runtime has no kernels for"
                return _kept(context, f"{what} {found if runs else refused}")
            if verdict.equal is None:
                context.warn(f"{what} was {verdict.how}")
        program.model = made.model
        return True


def _some_data(program: Program, context: Context) -> Mapping[str, Any] | None:
    """Return a few samples of the calibration data; None where there is none that fits."""
    from qcomp.passes.calibrate.batches import checked_batches

    if context.calibration is None:
        return None
    try:
        return next(checked_batches(program.model, context.calibration(), _SAMPLES), None)
    except QcompError:  # whoever calibrates with it will say so
        return None


def _kept(context: Context, why: str) -> bool:
    """Say that the opset stays as it is."""
    context.put(KeptOpset(why))
    context.warn(f"the model keeps its opset: {why}")
    return False


def _weight_bytes(program: Program) -> int:
    values = program.model.graph.initializers.values()
    return sum(v.const_value.nbytes for v in values if v.const_value is not None)


def _drop_circuits(program: Program) -> bool:
    """Drop the circuits that no node names any more."""
    model = program.model
    nodes = [*model.graph.all_nodes()]
    nodes += [node for function in model.functions.values() for node in function.all_nodes()]
    named = {node.attributes["circuit"].as_string() for node in nodes if is_circuit_node(node)}
    unused = [name for name in program.circuits if name not in named]
    for name in unused:
        del program.circuits[name]
    return bool(unused)


def _lift_constants(model: ir.Model) -> bool:
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    result = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return bool(result.modified)


def _one_round(model: ir.Model, rules: NodeRules) -> bool:
    from qcomp.passes.graph.merge_equal import merge_equal_initializers, merge_equal_nodes
    from qcomp.passes.graph.no_ops import remove_no_ops

    changed = False
    for graph, opset in _graphs(model):
        changed = remove_no_ops(graph, opset) or changed
        changed = merge_equal_initializers(graph) or changed
        changed = merge_equal_nodes(graph, rules) or changed
    return _remove_unused(model) or changed


def _graphs(model: ir.Model) -> Iterator[tuple[ir.Graph, int]]:
    """Give each graph with its opset: the main one, the functions' and all subgraphs."""
    owners = [(model.graph, model.graph.opset_imports)]
    owners += [(function.graph, function.opset_imports) for function in model.functions.values()]
    for graph, imports in owners:
        opset = imports.get("", model.graph.opset_imports.get("", 0))
        yield graph, opset
        for subgraph in list(graph.subgraphs()):
            yield subgraph, opset


def _remove_unused(model: ir.Model) -> bool:
    from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass

    changed = bool(RemoveUnusedNodesPass()(model).modified)
    for graph in model.graph.subgraphs():
        for name, value in list(graph.initializers.items()):
            if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                del graph.initializers[name]
                changed = True
    unused_functions = RemoveUnusedFunctionsPass()  # type: ignore[no-untyped-call]
    return bool(unused_functions(model).modified) or changed
