"""Weights of few bits that are looked up in a table when the graph is loaded.

    W[c, k] = s_c t[b_c, q[c, k]],     q in [0, 2^bits - 1],  t float32[T, 2^bits] codebooks

The file holds q in its bits (:mod:`qcomp.passes.quantize.packed_levels`) and the small table; ONNX
Runtime computes what depends on constants alone once, when it loads the graph, so that the operator
reads a plain weight:

    q -> Cast INT32 (-> Add 2^bits b) -> Gather of the table (-> Mul s) -> MatMul

Where the C / T channels of each codebook lie together, GatherElements takes a row of the table for
each T-th of the levels, which costs no byte a channel; elsewhere the file has b_c for each, 4 bits
up to 16 codebooks. With ``integer`` the table is rounded to 8 bits, a
scale a channel: Gather then gives the s8 weight of an integer kernel; the rounding is an error of
1/254 of a codebook's largest value, far below that of few bits.

Bytes: bits C K / 8 + 4 T 2^bits + 4 C if there are scales (+ C / 2 or C).
Source: lookup tables as in Yvinec et al. 2023, arXiv:2309.17361; which operators fold was read from
ONNX Runtime's optimised graphs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.passes.graph.rewriting import Editor, SharedParts, require_opset
from qcomp.passes.quantize.arithmetic import pack_int4
from qcomp.passes.quantize.packed_levels import Make, Unpacker, packed, packed_kinds
from qcomp.quantization import ChosenWeight

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["LookupWeights"]

Floats = npt.NDArray[np.float32]

_FEW_BOOKS = 16
"""Codebooks whose numbers fit 4 bits."""


class LookupWeights:
    """Writes weights with tables into one graph.

    Args:
        unpacker: Of the graph.
    """

    def __init__(self, unpacker: Unpacker) -> None:
        self._unpacker = unpacker
        self._editor: Editor = unpacker.editor

    def floats(self, name: str, chosen: ChosenWeight, before: ir.Node) -> ir.Value:
        """Store a weight; return the float32 weight that is made of it at load.

        Args:
            name: Of the float weight.
            chosen: Its levels and tables.
            before: The operators come before this node.

        Raises:
            PassError: The opset is below 21.
        """
        import onnx_ir as ir

        assert chosen.table is not None
        table = chosen.table if chosen.scale.ndim else chosen.table * chosen.scale
        value = self._looked_up(name, chosen, table, before)
        if chosen.scale.ndim:
            scale = np.ascontiguousarray(chosen.spread(chosen.scale), np.float32)
            spread = self._editor.initializer(f"{name}_scale", scale)
            value = self._make(name, before, "Mul", [value, spread])
        return _typed(value, self._editor.fresh(f"{name}_looked_up"), ir.DataType.FLOAT, chosen)

    def integers(
        self, name: str, chosen: ChosenWeight, before: ir.Node
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Store a matrix; return the s8 weight [K, N] made of it at load, its scales and zeros.

        Args:
            name: Of the float weight.
            chosen: Its levels and tables.
            before: The operators come before this node.

        Raises:
            PassError: The opset is below 21.
        """
        import onnx_ir as ir

        assert chosen.table is not None
        peak = np.abs(chosen.table).max(axis=1, keepdims=True)
        step = np.where(peak > 0, peak / np.float32(127), np.float32(1)).astype(np.float32)
        table = np.rint(chosen.table / step).astype(np.int8)
        value = self._looked_up(name, chosen, table, before)
        if chosen.axis == 0:
            value = self._make(name, before, "Transpose", [value], perm=(1, 0))
            chosen = chosen.transposed()
        scale = (step[chosen.books(), 0] * chosen.scale).astype(np.float32)
        return (
            _typed(value, self._editor.fresh(f"{name}_s8"), ir.DataType.INT8, chosen),
            self._editor.initializer(f"{name}_scale", scale),
            self._editor.initializer(f"{name}_zero_point", np.zeros(len(scale), np.int8)),
        )

    def _looked_up(
        self,
        name: str,
        chosen: ChosenWeight,
        table: npt.NDArray[np.generic],
        before: ir.Node,
    ) -> ir.Value:
        """Table entries in the shape of the weight."""
        import onnx_ir as ir

        editor = self._editor
        require_opset(editor.model, 21, "UINT4 is from opset 21")
        shape, axis, count = chosen.levels.shape, chosen.axis, len(table)
        half = 1 << (chosen.bits - 1)
        bits = chosen.bits if chosen.levels.size % 8 == 0 else max(4, chosen.bits)
        together = chosen.book is None and count > 1
        moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])  # channels first
        grid = (count, chosen.levels.size // count) if together else shape

        def compute() -> dict[str, npt.NDArray[np.generic]]:
            levels = (chosen.levels.astype(np.int16) + half).astype(np.uint8)
            levels = np.moveaxis(levels, axis, 0) if together else levels
            return dict(packed(np.ascontiguousarray(levels).reshape(grid), bits))

        make = partial(self._make, name, before)
        parts = SharedParts(compute, packed_kinds(bits, grid))
        index = self._unpacker.levels(name, bits, grid, parts, make)
        index = make("Cast", [index], to=ir.DataType.INT32)
        if together:
            entries = editor.initializer(f"{name}_table", np.ascontiguousarray(table))
            value = make("GatherElements", [entries, index], axis=1)
            value = make("Reshape", [value, self._unpacker.constant("shape", moved)])
            if axis:
                back = np.argsort([axis, *(a for a in range(len(shape)) if a != axis)])
                value = make("Transpose", [value], perm=tuple(int(a) for a in back))
            return value
        if count > 1:
            index = make("Add", [index, self._starts(name, chosen, make)])
        entries = editor.initializer(f"{name}_table", np.ascontiguousarray(table.reshape(-1)))
        return make("Gather", [entries, index])

    def _starts(self, name: str, chosen: ChosenWeight, make: Make) -> ir.Value:
        """Where the codebook of each channel begins in the table, int32 along its axis."""
        import onnx_ir as ir

        books = chosen.books().astype(np.uint8)
        shape = tuple(-1 if a == chosen.axis else 1 for a in range(chosen.levels.ndim))
        books = books.reshape(shape)
        assert chosen.table is not None
        few = len(chosen.table) <= _FEW_BOOKS
        kind = ir.DataType.UINT4 if few else ir.DataType.UINT8
        stored = pack_int4(books.reshape(-1)) if few else books
        parts = SharedParts(lambda: {"book": stored}, {"book": (kind, books.shape)})
        book = self._editor.initializer(f"{name}_book", parts.tensor("book"))
        wide = make("Cast", [book], to=ir.DataType.INT32)
        each = self._unpacker.constant("levels", (1 << chosen.bits,), np.int32)
        return make("Mul", [wide, each])

    def _make(
        self,
        name: str,
        before: ir.Node,
        kind: str,
        inputs: list[ir.Value],
        **attributes: int | str | tuple[int, ...],
    ) -> ir.Value:
        node = self._editor.node(kind, inputs, attributes, name=f"{name}_{kind}", before=before)
        return node.outputs[0]


def _typed(value: ir.Value, name: str, kind: ir.DataType, chosen: ChosenWeight) -> ir.Value:
    import onnx_ir as ir

    value.name = name
    value.type, value.shape = ir.TensorType(kind), ir.Shape(chosen.levels.shape)
    return value
