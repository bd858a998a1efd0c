"""lower-layer: a classical layer becomes circuits with classical glue around them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from qcomp.errors import PassError, UsageError
from qcomp.ir.program import Program
from qcomp.ir.shapes import infer_shapes
from qcomp.lowered import LoweredLayer, LoweredLayers
from qcomp.node_rules import NodeRules, name_nodes
from qcomp.passes.graph.rewriting import node_label
from qcomp.passes.lower.layers.glue import Glue
from qcomp.passes.lower.layers.method import METHODS, Built, Method, Options, method_named
from qcomp.passmanager import Context, GraphPass, Guarantee, Pipeline

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["LowerLayer"]


@dataclass(frozen=True)
class LowerLayer(GraphPass):
    """layer(x) = glue(readout(circuit(angles(x)))), in the place of a node.

    What is made has the inputs, the output and the shapes of the node, the batch free. Angles that
    depend on data are computed in float64 by ONNX operators.

    Preconditions: the node stands in the main graph and its weight is a constant. Each method says
    which nodes it takes; ``qcomp passes lower-layer`` prints the pass, ``qcomp compile --help`` the
    methods.

    Preserves: the layer up to float64 rounding, of which square roots make 1e-8, where the method
    is exact; its note says how far it is where not. The report compares it with the layer.
    ``hypergraph`` is exact for inputs of 1 and -1.

    Cost: in the context as ``LoweredLayers`` and as a note: qubits, two-qubit gates, depth,
    circuits a row, measurement settings. Closed forms: ``docs/lowering.md``, "Classical layers".

    Source: each method's file; the idea of swapping layer by layer: 'Let the Quantum Creep In',
    arXiv:2409.17583.

    Attributes:
        node: Which operators: a name, a glob, ``op:TYPE`` or ``sub:PREFIX``; "" for none.
        method: How.
        block: Rows and columns of a block of the matrix; 0 for the method's own choice.
        form: Which of the method's forms; "" for the cheaper one.
    """

    name: ClassVar[str] = "lower-layer"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    node: str = ""
    method: str = ""
    block: int = 0
    form: str = ""

    def run(self, program: Program, context: Context) -> bool:
        """Lower every node that is meant; return whether there was any.

        Raises:
            UsageError: If no node or no method has that name.
            PassError: If the method cannot take a node.
        """
        if not self.node:
            return False
        method = method_named(self.method)
        options = Options(*(getattr(self, field.name) for field in fields(Options)))
        for field in fields(Options):
            if getattr(options, field.name) != field.default and field.name not in method.options:
                raise UsageError(
                    f"the method '{method.name}' takes no option '{field.name}'",
                    hint="its options: " + (", ".join(method.options) or "none"),
                )
        name_nodes(program.model.graph)
        rules = NodeRules(include=(self.node,))
        rules.check(program.model.graph)
        found = [
            node
            for node in program.model.graph
            if rules.matches(self.node, node_label(node), node.op_type)
        ]
        if any(node.op_type == "Conv" for node in found):
            infer_shapes(program)
        for node in found:
            if reason := method.refuse(node, options):
                raise _refused(node, method, options, reason)
        for node in found:
            self._lower(program, node, method, options, context)
        return bool(found)

    def _lower(
        self, program: Program, node: ir.Node, method: Method, options: Options, context: Context
    ) -> None:
        label = node_label(node)
        glue = Glue(program, node, label, context)
        built = method.lower(glue, node, options)
        old = node.outputs[0]
        types = [v.dtype for v in (old, *node.inputs) if v is not None and v.dtype is not None]
        output = glue.like(built.output, types[0] if types else None)
        output.shape = old.shape
        glue.editor.replace_value(old, output)
        glue.editor.remove(node)
        layer = _layer(program, method, built, label, node.op_type, output.name or "")
        known = context.get(LoweredLayers) or LoweredLayers()
        context.put(LoweredLayers((*known.layers, layer)))
        context.warn(layer.sentence)


def _layer(
    program: Program, method: Method, built: Built, name: str, op_type: str, output: str
) -> LoweredLayer:
    """Count what the circuits cost, gates on three and more qubits taken apart."""
    apart = Program(
        program.model, {run.circuit: program.circuits[run.circuit] for run in built.runs}
    )
    if apart.circuits:
        Pipeline.parse("to-basis{max_qubits=2}").run(apart, Context())
    stats = [circuit.stats() for circuit in apart.circuits.values()]
    return LoweredLayer(
        node=name,
        op_type=op_type,
        method=method.name,
        output=output,
        circuits=tuple(apart.circuits),
        qubits=max((s.qubits for s in stats), default=0),
        two_qubit=sum(s.two_qubit for s in stats),
        depth=max((s.depth for s in stats), default=0),
        runs=sum(run.rows for run in built.runs),
        settings=sum(run.rows * run.settings for run in built.runs),
        restores=built.restores or method.restores,
        exact=method.exact if built.exact is None else built.exact,
        remark=built.remark,
    )


def _refused(node: ir.Node, method: Method, options: Options, reason: str) -> PassError:
    others = [method_named(name) for name in METHODS if name != method.name]
    able = [other.name for other in others if not other.refuse(node, Options())]
    return PassError(
        f"the method '{method.name}' cannot take the layer '{node_label(node)}' ({node.op_type})",
        why=reason,
        hint=f"methods that can: {', '.join(able)}"
        if able
        else "no method can: leave it classical",
    )
