"""Tables that are looked up, such as token embeddings, as one byte a value, or half of one.

Each row of a table W float32[V, K] gets a scale of its own, and only the rows that are asked for
become float again:

    s_i = max_j |W_ij| / 127        q_ij = round(W_ij / s_i)        y = q[ids] * s[ids]

The graph gets Gather (int8), Gather (scales), Cast and Mul in place of one Gather, or the same of
GatherND. (A DequantizeLinear before the Gather would turn the whole table into floats at each run,
which ONNX Runtime takes 44 times the float Gather's time for.)

With ``bits=4`` either becomes com.microsoft::GatherBlockQuantized: blocks of ``group`` values of a
row share a scale and a zero point, fitted by least squares (:mod:`qcomp.passes.quantize.grids`).
Rows that are no whole number of blocks stay at 8 bits.

Preconditions: the table is a constant of rank 2 that only lookups of rows read, and layers that
have it as their weight: those get integers of their own (``tie-weights`` joins them again).
Preserved: nothing exactly; |y - W[ids]| <= s_i / 2.
Cost: one pass over the tables.
Source: per-row symmetric rounding, Krishnamoorthi 2018, arXiv:1806.08342, section 2.2; rows of
embedding tables with scales of their own, Guan et al. 2019, arXiv:1911.02079.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import Editor, constant_tensor, int_attribute, node_label
from qcomp.passes.quantize.blocked_weights import GROUPS, RoundedWeight
from qcomp.passes.quantize.integer_types import INT8
from qcomp.passes.quantize.record import keep_reference, note
from qcomp.passes.quantize.static_plan import matmul_weight_reason
from qcomp.passes.quantize.weights import ChannelWeights
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import FloatOp, NodeRules, QuantizedLayer, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["QuantizeEmbeddings", "looked_up_table"]

_LOOKUPS = ("Gather", "GatherND")
_BITS = (4, 8)


@dataclass(frozen=True)
class QuantizeEmbeddings(GraphPass):
    """Store embedding tables as 8-bit integers with a scale a row, or in blocks of 4 bits.

    Attributes:
        least_rows: Tables with fewer rows stay in float: they are small.
        bits: 8 or 4.
        group: With 4 bits, values of a row that share a scale: 16, 32, 64, 128 or 256.
    """

    name: ClassVar[str] = "quantize-embeddings"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    least_rows: int = 64
    bits: int = 8
    group: int = 32

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if self.least_rows < 1:
            raise UsageError(f"quantize-embeddings: least_rows is {self.least_rows}", hint="64")
        if self.bits not in _BITS:
            raise UsageError(f"quantize-embeddings: bits is {self.bits}", hint="8 or 4")
        if self.group not in GROUPS:
            known = ", ".join(map(str, GROUPS))
            raise UsageError(f"quantize-embeddings: group is {self.group}", hint=f"one of {known}")

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite every lookup in a large table; return whether there was any.

        Raises:
            PassError: A table with NaN or infinity.
        """
        model = program.model
        editor = Editor(model)
        weights = ChannelWeights(editor)
        scales: dict[ir.Value, ir.Value] = {}
        packed: dict[ir.Value, list[ir.Value]] = {}
        layers: list[QuantizedLayer] = []
        floats: list[FloatOp] = []
        rules = rules_of(context)
        for node in list(model.graph):
            table = looked_up_table(node, self.least_rows)
            if table is None:
                continue
            if not all(_reads(usage.node, usage.idx, table, rules) for usage in table.uses()):
                reason = "its table is a matrix of another layer too"
                floats.append(FloatOp(node_label(node), node.op_type, reason))
                continue
            lookups = [u.node for u in table.uses() if looked_up_table(u.node, 1) is table]
            readers = [rules.options(lookup) for lookup in lookups]
            asked = rules.options(node)
            reason = asked.refusal("weights")
            if not reason and any(reader.refusal("weights") for reader in readers):
                reason = "its table is read by an operator that is excluded"
            if reason:
                floats.append(FloatOp(node_label(node), node.op_type, reason))
                continue
            if asked.bits not in (None, *_BITS):
                raise UsageError(
                    f"quantize-embeddings cannot store '{node_label(node)}' in {asked.bits} bits",
                    hint="8 or 4",
                )
            bits = self.bits if asked.bits is None else asked.bits
            group = self.group if asked.group is None else asked.group
            if not layers:
                editor.name_nodes()
                keep_reference(program, context)
            if bits == 4 and _whole(table, group):
                options = replace(self, group=group)
                layers.append(options._in_blocks(node, table, editor, packed))
            else:
                layers.append(_rewrite(node, table, editor, weights, scales))
        for table in (*scales, *packed):
            editor.drop_if_unused(table)
        note(context, layers, floats)
        return bool(layers)

    def _in_blocks(
        self, node: ir.Node, table: ir.Value, editor: Editor, packed: dict[ir.Value, list[ir.Value]]
    ) -> QuantizedLayer:
        """Look rows up in blocks of 4 bits."""
        import onnx_ir as ir

        label, source = node_label(node), node.outputs[0].name or ""
        if table not in packed:
            rounded = RoundedWeight(table, True, 4, self.group, False, "lsq")
            packed[table] = rounded.matmulnbits(editor, flat=True)
        levels, *rest = packed[table]
        indices = node.inputs[1]
        if node.op_type == "GatherND":  # its last axis holds one number: the row
            first = editor.initializer(f"{label}_first", np.array(0, np.int64))
            indices = editor.node(
                "Gather", [indices, first], {"axis": -1}, name=f"{label}_row", before=node
            ).outputs[0]
        editor.use_domain("com.microsoft", 1)
        y = editor.node(
            "GatherBlockQuantized",
            [levels, indices, *rest],
            {"gather_axis": 0, "quantize_axis": 1, "block_size": self.group, "bits": 4},
            domain="com.microsoft",
            name=f"{label}_GatherBlockQuantized",
            before=node,
        ).outputs[0]
        y.type = ir.TensorType(ir.DataType.FLOAT)
        op_type = node.op_type
        editor.replace_value(node.outputs[0], y)
        editor.remove(node)
        return QuantizedLayer(
            node=label,
            op_type=op_type,
            scheme="weights",
            weight=table.name or "",
            quantized=levels.name or "",
            weight_type=f"u4/{self.group}",
            kernel="GatherBlockQuantized",
            source=source,
            output=y.name or "",
            method="lsq",
        )


def _whole(table: ir.Value, group: int) -> bool:
    """Whether rows are whole blocks."""
    tensor = constant_tensor(table)
    return tensor is not None and int(tensor.shape.numpy()[1]) % group == 0


def _reads(node: ir.Node, index: int, table: ir.Value, rules: NodeRules) -> bool:
    """Whether an operator looks rows up in a table, or will have integers of its own for it."""
    if looked_up_table(node, 1) is table:
        return True
    layer = not node.domain and node.op_type in ("MatMul", "Gemm") and index == 1
    return layer and not matmul_weight_reason(node) and not rules.options(node).excluded


def looked_up_table(node: ir.Node, least_rows: int) -> ir.Value | None:
    """The table float32[V, K] that a node looks rows up in, or None."""
    import onnx_ir as ir

    if node.domain or node.op_type not in _LOOKUPS or int_attribute(node, "batch_dims"):
        return None
    table, indices = node.inputs[0], node.inputs[1]
    tensor = constant_tensor(table)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or constant_tensor(indices) is not None:
        return None
    dims = tensor.shape.numpy()
    if len(dims) != 2 or dims[0] < least_rows or dims[1] < 2:
        return None
    if node.op_type == "Gather":
        return table if int_attribute(node, "axis") in (0, -2) else None
    last = indices.shape[-1] if indices is not None and indices.shape else None
    return table if last == 1 else None


def _rewrite(
    node: ir.Node,
    table: ir.Value,
    editor: Editor,
    weights: ChannelWeights,
    scales: dict[ir.Value, ir.Value],
) -> QuantizedLayer:
    import onnx_ir as ir

    label, op_type, source = node_label(node), node.op_type, node.outputs[0].name or ""
    levels, flat, zero, steps = weights.add(table, 0, INT8)
    if table not in scales:
        column = np.ascontiguousarray(steps.reshape(-1, 1))
        scales[table] = editor.initializer(f"{table.name}_row_scale", column)
        editor.drop_if_unused(flat)
        editor.drop_if_unused(zero)
    attributes = {} if op_type == "GatherND" else {"axis": 0}
    indices = node.inputs[1]

    def lookup(values: ir.Value, name: str, dtype: ir.DataType) -> ir.Value:
        found = editor.node(
            op_type, [values, indices], attributes, name=f"{label}_{name}", before=node
        ).outputs[0]
        found.type = ir.TensorType(dtype)
        return found

    rows = lookup(levels, "rows", ir.DataType.INT8)
    real = editor.node("Cast", [rows], {"to": 1}, name=f"{label}_Cast", before=node).outputs[0]
    step = lookup(scales[table], "scales", ir.DataType.FLOAT)
    y = editor.node("Mul", [real, step], name=f"{label}_Mul", before=node).outputs[0]
    for value in (real, y):
        value.type = ir.TensorType(ir.DataType.FLOAT)
    editor.replace_value(node.outputs[0], y)
    editor.remove(node)
    return QuantizedLayer(
        node=label,
        op_type=op_type,
        scheme="weights",
        weight=table.name or "",
        quantized=levels.name or "",
        weight_type=f"{INT8.name}/row",
        kernel=op_type,
        source=source,
        output=y.name or "",
    )
