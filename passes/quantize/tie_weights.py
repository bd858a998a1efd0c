"""A table that is the matrix of a layer too is stored once.

Token embeddings often make the logits as well. The table has a scale a row, the layer one an output
channel: that is the same row, so the integers are the same ones,

    q_table[v, k] = round(W[v, k] / s_v) = q_layer[k, v]

and the layer can read the table's, through a Transpose that ONNX Runtime folds when it loads the
graph (a Gemm with its matrix turned over reads them as they are). Where they differ (other bits,
learned rounding, a bias that needs larger scales), both stay, and a warning says how many bytes
that takes.

Preconditions: behind the quantizing passes, and behind ``quantization-error``.
Preserved: the outputs, bit for bit: integers are compared before one of them goes.
Cost: the integers of tied weights are computed once more.
Source: Press and Wolf 2016, arXiv:1608.05859, for tied embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from qcomp.passes.graph.rewriting import Editor, constant_tensor, node_label, peel_lazy
from qcomp.passes.quantize.tied import Tie, same_values, tied_weights
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import FloatReference, QuantizationRecord

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["TieWeights"]


@dataclass(frozen=True)
class TieWeights(GraphPass):
    """Let layers whose matrix is an embedding table read the table's integers."""

    name: ClassVar[str] = "tie-weights"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    def run(self, program: Program, context: Context) -> bool:
        """Share what is equal; return whether there was any."""
        reference = context.get(FloatReference)
        record = context.get(QuantizationRecord) or QuantizationRecord()
        source = program if reference is None else reference.program
        stored = {layer.node: layer.quantized for layer in record.layers if layer.quantized}
        lookups = {
            layer.weight: layer.quantized
            for layer in record.layers
            if layer.op_type in ("Gather", "GatherND")
        }
        editor = Editor(program.model)
        changed = False
        for tie in tied_weights(source.model):
            names = (
                lookups.get(tie.table.name or "", tie.table.name or ""),
                stored.get(node_label(tie.layer), tie.weight.name or ""),
            )
            values = [program.model.graph.initializers.get(name) for name in names]
            table, weight = values
            if table is None or weight is None or table is weight:
                continue
            name = _share(editor, table, weight)
            if not name:
                _tell(context, tie, table, weight)
                continue
            changed = True
            label = node_label(tie.layer)
            layers = [
                replace(layer, quantized=name) if layer.node == label else layer
                for layer in record.layers
            ]
            record = replace(record, layers=tuple(layers))
            context.put(record)
        return changed


def _share(editor: Editor, table: ir.Value, weight: ir.Value) -> str:
    """Let the users of the weight read the table, where they are the same.

    Returns:
        Name of the integers that they read now; "" where they are other ones.
    """
    for value in (table, weight):
        tensor = constant_tensor(value)
        if tensor is None:
            return ""
        value.const_value = peel_lazy(tensor)
    turned = same_values(table, weight)
    if turned is None or weight.is_graph_output():
        return ""
    name, source = weight.name or "", table
    if turned:
        first = next(iter(editor.graph))
        label = f"{name}_Transpose"
        node = editor.node("Transpose", [table], {"perm": [1, 0]}, name=label, before=first)
        source = node.outputs[0]
        source.type, source.shape = weight.type, weight.shape
    for usage in list(weight.uses()):
        usage.node.replace_input_with(usage.idx, source)
    editor.drop_if_unused(weight)
    if turned:
        source.name = name  # the runtime calls the folded integers so
    return source.name or ""


def _tell(context: Context, tie: Tie, table: ir.Value, weight: ir.Value) -> None:
    """Say that the values are in the file twice, and what that takes."""
    sizes = [tensor.nbytes for v in (table, weight) if (tensor := constant_tensor(v)) is not None]
    context.warn(
        f"the table '{tie.table.name}' is the matrix of '{node_label(tie.layer)}', too, and is "
        f"stored twice: {sizes[0]:,} bytes as a table, {sizes[-1]:,} as a matrix"
    )
