"""Levels of few bits as a file holds them, and the operators that unpack them.

ONNX Runtime computes once, when it loads a graph, what depends on constants alone, so that
unpacking costs nothing while the graph runs:

    4 bits   UINT4
    3 bits   two planes, 2 bits and 1 bit: BitShift -> BitwiseAnd each, BitwiseOr
    2 bits   one plane: BitShift -> BitwiseAnd
    5 to 8   UINT8

A plane holds its first quarter (eighth) of the values in the lowest bits of its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qcomp.passes.graph.rewriting import Editor, SharedParts
from qcomp.passes.quantize.arithmetic import pack_int4

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Make", "Unpacker", "packed", "packed_kinds"]

_PLANES = {2: (2,), 3: (2, 1)}
"""Bits -> widths of the planes, lowest bits first."""

Make = Callable[..., "ir.Value"]
"""Operator type, inputs, attributes -> its result."""


def packed_kinds(bits: int, shape: tuple[int, ...]) -> dict[str, tuple[ir.DataType, Any]]:
    """Type and shape of each tensor that :func:`packed` gives.

    Args:
        bits: 2 to 8.
        shape: Of the levels; a multiple of 8 in all for 2 and 3 bits.
    """
    import onnx_ir as ir

    if bits not in _PLANES:
        return {"levels": (ir.DataType.UINT4 if bits == 4 else ir.DataType.UINT8, shape)}
    total = int(np.prod(shape))
    return {
        f"plane{width}": (ir.DataType.UINT8, (1, total * width // 8)) for width in _PLANES[bits]
    }


def packed(levels: npt.NDArray[np.uint8], bits: int) -> dict[str, npt.NDArray[Any]]:
    """Levels in [0, 2^bits - 1] as they are stored, see the module."""
    flat = levels.reshape(-1)
    if bits not in _PLANES:
        return {"levels": pack_int4(flat) if bits == 4 else levels}
    found = {}
    below = 0
    for width in _PLANES[bits]:
        planes = (flat >> below) & ((1 << width) - 1)
        planes = planes.reshape(8 // width, -1) << np.arange(0, 8, width, dtype=np.uint8)[:, None]
        found[f"plane{width}"] = np.bitwise_or.reduce(planes, axis=0)[None]
        below += width
    return found


class Unpacker:
    """Writes packed levels into one graph; small constants that are equal are stored once.

    Args:
        editor: Of the graph.
    """

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self._constants: dict[tuple[str, tuple[int, ...]], ir.Value] = {}

    def levels(
        self, name: str, bits: int, shape: tuple[int, ...], parts: SharedParts, make: Make
    ) -> ir.Value:
        """The levels in their shape, UINT4 or UINT8.

        Args:
            name: Of the float weight.
            bits: 2 to 8.
            shape: Of the levels.
            parts: Holds what :func:`packed` gives.
            make: Adds an operator.
        """
        if bits not in _PLANES:
            return self.editor.initializer(f"{name}_quantized", parts.tensor("levels"))
        result: ir.Value | None = None
        below = 0
        for width in _PLANES[bits]:
            wish = f"{name}_quantized" if not below else f"{name}_quantized_high"
            plane = self.editor.initializer(wish, parts.tensor(f"plane{width}"))
            shifts = self.constant("shifts", tuple(range(0, 8, width)), np.uint8)
            mask = self.constant("mask", ((1 << width) - 1,), np.uint8)
            value = make("BitShift", [plane, shifts], direction="RIGHT")
            value = make("BitwiseAnd", [value, mask])
            value = make("Reshape", [value, self.constant("shape", shape)])
            if result is not None:
                up = self.constant("shift", (below,), np.uint8)
                raised = make("BitShift", [value, up], direction="LEFT")
                value = make("BitwiseOr", [result, raised])
            result = value
            below += width
        assert result is not None
        return result

    def constant(
        self, what: str, numbers: tuple[int, ...], dtype: npt.DTypeLike = np.int64
    ) -> ir.Value:
        """A small constant; equal ones are stored once."""
        key = (what, numbers)
        if key not in self._constants:
            array = np.array(numbers, dtype)
            array = array[:, None] if what == "shifts" else array
            self._constants[key] = self.editor.initializer(f"folded_{what}", array)
        return self._constants[key]
