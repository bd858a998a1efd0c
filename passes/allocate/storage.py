"""The cost table: which tensors may have how many bits, and the bytes of each in the file.

| stored as                | bytes of a matrix of N output and K input channels, B = ceil(K / g)   |
|--------------------------|-----------------------------------------------------------------------|
| ``matmulnbits``          | N B g b / 8 + 2 N B (scales) + N ceil(B b / 8) (zero points)          |
| ``int8``, folded at load | N B g b / 8 + 2 N B (ratios) + N B / 2 (zero points) + 5 N (channels) |
| a channel, static        | N K b / 8 + 4 N                                                       |
| rows of a table, 8 bits  | V K + 4 V                                                             |
| blocks of a table        | as ``matmulnbits``, 4 bits                                            |

b is what an integer takes in the file: MatMulNBits has 2, 4 and 8 bits; folded weights are packed
into 2, 3, 4 or 8. Scales are float16 but for weights outside its range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import constant_tensor, int_attribute, node_label
from qcomp.passes.quantize.quantize_embeddings import looked_up_table
from qcomp.passes.quantize.static_plan import matmul_weight_reason
from qcomp.quantization import NodeRules

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Form", "Place", "Way", "find_places", "stored_bytes"]

Form = Literal["matmulnbits", "int8", "static"]

_TABLE_BITS = (4, 8)
_PACKED = {"matmulnbits": (2, 4, 8), "int8": (2, 3, 4, 8), "static": (2, 3, 4, 8)}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to store a tensor: bits, and values that share a scale (0: a row or channel)."""

    bits: int
    group: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A tensor that may have fewer bits.

    Attributes:
        weight: The float tensor.
        nodes: Operators that read it, the first one first.
        table: Whether rows of it are looked up.
        shape: (output channels or rows, values of each).
        form: How it is stored; of tables nothing.
        ways: Ways to store it, fewest bytes first.
    """

    weight: ir.Value
    nodes: tuple[ir.Node, ...]
    table: bool
    shape: tuple[int, int]
    form: Form
    ways: tuple[Way, ...]

    @property
    def label(self) -> str:
        """For messages: the operator that reads it."""
        return node_label(self.nodes[0])


def stored_bytes(
    rows: int, columns: int, bits: int, group: int, form: Form, symmetric: bool
) -> int:
    """Bytes of a matrix in the file, see the module.

    Args:
        rows: Output channels N.
        columns: Input channels K, or all values of a channel.
        bits: 2 to 8.
        group: Values that share a scale; 0: all of a channel.
        form: How it is stored.
        symmetric: Whether there are no zero points.
    """
    packed = next(width for width in _PACKED[form] if width >= bits)
    if form == "static" or not group:
        return -(-rows * columns * packed // 8) + 4 * rows
    count = -(-columns // group)
    levels = rows * count * group * packed // 8
    if form == "matmulnbits":
        return levels + 2 * rows * count + rows * -(-count * packed // 8)
    zeros = 0 if symmetric else -(-rows * count // 2) if bits <= 4 else rows * count
    return levels + 2 * rows * count + zeros + 5 * rows


def find_places(
    model: ir.Model,
    rules: NodeRules,
    bits: Sequence[int],
    groups: Sequence[int],
    form: Form,
    *,
    symmetric: bool = False,
    tables: bool = True,
    convolutions: bool = False,
    least_rows: int = 64,
) -> list[Place]:
    """Return the tensors that may have any of some numbers of bits, in graph order.

    An operator that the user gives bits keeps to them; an excluded one is left out.

    Args:
        model: A float graph.
        rules: What the user asks of single operators.
        bits: To choose from.
        groups: To choose from, for blocks.
        form: How weights of layers are stored.
        symmetric: Whether blocks have no zero points.
        tables: Whether tables that are looked up may have other bits than 8.
        convolutions: Whether convolutions are among them, with a scale an output channel.
        least_rows: Tables with fewer rows are left out.

    Raises:
        UsageError: If an operator is to have bits that no grid has.
    """
    found: dict[tuple[ir.Value, bool], Place] = {}
    readers: dict[tuple[ir.Value, bool], list[ir.Node]] = {}
    for node in model.graph:
        table = looked_up_table(node, least_rows)
        own: Form = "static" if convolutions and node.op_type == "Conv" else form
        value = table if table is not None else _weight(node, own)
        if value is None:
            continue
        scheme = "static" if own == "static" and table is None else "weights"
        asked = rules.options(node)
        if asked.refusal(scheme):
            continue
        key = value, table is not None
        if key not in found:
            readers[key] = []
            rows, columns = _shape(node, value, table is not None)
            wanted = bits if asked.bits is None else (asked.bits,)
            if not all(2 <= b <= 8 for b in wanted):
                raise UsageError(
                    f"no pass can store '{node_label(node)}' in {asked.bits} bits",
                    hint="bits is 2 to 8",
                )
            if table is not None:
                ways = _table_ways(rows, columns, wanted if tables else (8,), groups)
            else:
                sizes = groups if own != "static" else (0,)
                ways = [
                    Way(b, g, stored_bytes(rows, columns, b, g, own, symmetric))
                    for b in wanted
                    for g in (sizes if asked.group is None or own == "static" else (asked.group,))
                ]
            ways.sort(key=lambda way: (way.bytes, -way.bits))
            found[key] = Place(value, (), table is not None, (rows, columns), own, tuple(ways))
        readers[key].append(node)
    return [
        Place(p.weight, tuple(readers[key]), p.table, p.shape, p.form, p.ways)
        for key, p in found.items()
        if p.ways
    ]


def _weight(node: ir.Node, form: Form) -> ir.Value | None:
    kinds = ("Conv", "Gemm", "MatMul") if form == "static" else ("Gemm", "MatMul")
    if node.domain or node.op_type not in kinds or matmul_weight_reason(node):
        return None
    return node.inputs[1]


def _shape(node: ir.Node, value: ir.Value, table: bool) -> tuple[int, int]:
    tensor = constant_tensor(value)
    assert tensor is not None
    shape = tuple(tensor.shape.numpy())
    turned = node.op_type == "Gemm" and int_attribute(node, "transB")
    rows = shape[0] if table or node.op_type == "Conv" or turned else shape[1]
    return rows, tensor.size // max(1, rows)


def _table_ways(rows: int, columns: int, bits: Sequence[int], groups: Sequence[int]) -> list[Way]:
    """8 bits with a scale a row, 4 in whole blocks of a row."""
    ways = [Way(8, 0, rows * columns + 4 * rows)] if 8 in bits else []
    if 4 in bits:
        ways += [
            Way(4, g, stored_bytes(rows, columns, 4, g, "matmulnbits", False))
            for g in groups
            if columns % g == 0
        ]
    return ways
