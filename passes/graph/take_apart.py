"""Operators that hold weights inside of them are taken apart, so that the weights can be quantized.

ONNX Runtime's optimizer and several exporters write operators of ``com.microsoft`` in which a
matrix product is fused with what surrounds it. No pass sees the weights in there. What is left
behind is standard ONNX, or the fused operator without its weights:

| operator                           | becomes                                                   |
|------------------------------------|-----------------------------------------------------------|
| Attention                          | MatMul, Add, Split, MultiHeadAttention                    |
| EmbedLayerNormalization            | Gather for each table, Add, LayerNormalization            |
| FusedMatMul, TransposeMatMul       | MatMul with the weight transposed, Mul                    |
| FusedConv, FusedGemm               | Conv or Gemm, Add, the activation                         |
| Einsum with a weight               | MatMul, Reshape                                           |
| MatMul of a Transpose of a weight  | MatMul of the transposed weight                           |
| SimplifiedLayerNormalization       | RMSNormalization (opset 23), which ``onnx.checker`` knows |

ONNX Runtime fuses most of it again when it loads the graph. An operator that is excluded by the
user stays whole, as does one with options that have no such form (rotary positions inside of
Attention, masks of four axes, a shared buffer of past keys): it is listed as left in float.

Preconditions: weights are constants (``canonicalise`` ran).
Preserved: the function, up to float32 rounding.
Cost: linear in the nodes; weights are transposed when the model is saved.
Source: definitions in ONNX Runtime's docs/ContribOperators.md; Vaswani et al. 2017,
arXiv:1706.03762, for attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from qcomp.node_rules import node_name, rules_of
from qcomp.passes.graph.rewriting import Editor
from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["TakeApart"]


@dataclass(frozen=True)
class TakeApart(GraphPass):
    """Take operators apart that hold weights of matrix products and tables."""

    name: ClassVar[str] = "take-apart"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite what has another form; return whether there was any."""
        from qcomp.ir.shapes import infer_shapes
        from qcomp.passes.graph.fused_forms import FORMS

        model = program.model
        rules = rules_of(context)
        changed = False
        editor = Editor(model)
        for node in list(model.graph):
            form = FORMS.get((node.domain, node.op_type))
            if form is None or rules.options(node).excluded:
                continue
            name, op_type = node_name(node), node.op_type
            made = form(editor, node)
            if not made:
                continue
            made[0].name = name  # the operator with the weight is the one that patterns mean
            rules = rules.made_of((name, op_type), made)
            changed = True
        if changed:
            context.put(rules)
            infer_shapes(program)
        return changed
