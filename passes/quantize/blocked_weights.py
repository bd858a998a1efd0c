"""A weight in blocks of few bits, in the layouts that operators take; computed when it is saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError
from qcomp.layer_store import give_back
from qcomp.passes.graph.rewriting import Editor, SharedParts, check_finite, read_weight
from qcomp.passes.quantize.arithmetic import (
    Floats,
    blocks,
    pack_int2,
    pack_int4,
    quantize_blocks,
)
from qcomp.passes.quantize.folded_weights import Blocks, chosen_blocks
from qcomp.passes.quantize.grids import Fit, Grid
from qcomp.passes.quantize.weights import float_weight, int4_parts
from qcomp.quantization import ChosenWeight, ChosenWeights

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "GROUPS",
    "BlockedWeight",
    "ChosenBlocks",
    "RoundedWeight",
    "Rounding",
    "blocks_text",
    "channel_blocks",
]

GROUPS = (16, 32, 64, 128, 256)
"""Block lengths."""

_SLAB = 1 << 23
"""Weights that are quantized at a time (float32: 32 MB)."""

_HALVES = (2.0**-9, 2.0**14)
"""Largest weights between which scales are stored in 16 bits, see :attr:`BlockedWeight.halved`."""

Arrays = Mapping[str, npt.NDArray[np.generic]]
Bytes = npt.NDArray[np.uint8]


class BlockedWeight(ABC):
    """The lazily computed tensors of one weight.

    Attributes:
        bits: Bits of its integers; they are stored in :meth:`stored_bits`.
        group: Block length.
        symmetric: Whether there are no zero points.
        rows: Output channels N.
        columns: Input channels K.
        count: Blocks a row, ceil(K / group).
        halved: Whether float16 holds the scales: the largest is one of its normal numbers, so that
            no scale moves by more than 2^-11 of the largest.
    """

    def __init__(
        self, value: ir.Value, by_rows: bool, bits: int, group: int, symmetric: bool
    ) -> None:
        self.name = value.name or "weight"
        self.tensor = float_weight(value)
        self.by_rows = by_rows
        self.bits, self.group, self.symmetric = bits, group, symmetric
        shape = self.tensor.shape.numpy()
        self.rows, self.columns = shape if by_rows else shape[::-1]
        self.count = -(-self.columns // group)
        with read_weight(self.tensor) as array:
            check_finite(self.name, array)
            peak = max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))
        self.halved = _HALVES[0] <= peak <= _HALVES[1]

    def stored_bits(self, form: str) -> int:
        """Bits that an integer takes in the file."""
        if self.bits == 2 and form == "matmulnbits":
            return 2
        return 4 if self.bits <= 4 else 8

    @abstractmethod
    def slabs(self) -> Iterator[tuple[slice, Bytes, Floats, Bytes]]:
        """Slabs of output channels: rows, integers uint8[n, B, group], scales, zero points.

        Integers and zero points in [0, 2^bits - 1]; the zero point is in the middle where it is
        fixed.
        """

    def _stored_slabs(self, form: str) -> Iterator[tuple[slice, Bytes, Floats, Bytes]]:
        """The slabs with integers and zero points about the middle of what they are stored in."""
        shift = np.uint8((1 << (self.stored_bits(form) - 1)) - (1 << (self.bits - 1)))
        for part, levels, scale, zero in self.slabs():
            yield part, levels + shift, scale, zero + shift

    def matmulnbits(self, editor: Editor, *, flat: bool = False) -> list[ir.Value]:
        """B uint8[N, B, group * bits / 8], scales float32[N, B] and packed zero points.

        The scales are stored as float16 where they fit, behind a Cast that is folded at load. With
        ``flat``, B has rank 2, as GatherBlockQuantized takes it.
        """
        import onnx_ir as ir

        bits = self.stored_bits("matmulnbits")
        blob = self.group * bits // 8
        zeros = -(-self.count * bits // 8)
        stored = np.float16 if self.halved else np.float32
        pack = {2: pack_int2, 4: pack_int4}.get(bits, np.ascontiguousarray)
        shape = (self.rows, self.count * blob) if flat else (self.rows, self.count, blob)

        def compute() -> Arrays:
            packed = np.empty((self.rows, self.count, blob), dtype=np.uint8)
            scales = np.empty((self.rows, self.count), dtype=stored)
            zero = np.empty((self.rows, zeros), dtype=np.uint8)
            for part, levels, scale, offset in self._stored_slabs("matmulnbits"):
                packed[part] = pack(levels)
                scales[part] = scale
                zero[part] = pack(offset)
            return {"levels": packed.reshape(shape), "scale": scales, "zero": zero}

        parts = SharedParts(
            compute,
            {
                "levels": (ir.DataType.UINT8, shape),
                "scale": (ir.DataType.from_numpy(np.dtype(stored)), (self.rows, self.count)),
                "zero": (ir.DataType.UINT8, (self.rows, zeros)),
            },
        )
        values = self._initializers(editor, parts)
        if self.halved:
            values[1] = self._widened(editor, values[1])
        return values

    def _widened(self, editor: Editor, scale: ir.Value) -> ir.Value:
        """A scale as float32 again, from the front of the graph."""
        import onnx_ir as ir

        first = next(iter(editor.graph))
        cast = editor.node("Cast", [scale], {"to": 1}, name=f"{scale.name}_Cast", before=first)
        real = cast.outputs[0]
        real.type, real.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape((self.rows, self.count))
        return real

    def dequantize(self, editor: Editor) -> list[ir.Value]:
        """Integers [K, N], scales float32[B, N] and zero points [B, N]."""
        import onnx_ir as ir

        signed, bits = self.symmetric, self.stored_bits("dequantize")
        kind = ir.DataType[f"{'INT' if signed else 'UINT'}{bits}"]

        def stored(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
            if bits == 4:
                return int4_parts(levels, signed)
            return (levels ^ np.uint8(128)).view(np.int8) if signed else levels

        def compute() -> Arrays:
            levels = np.empty((self.columns, self.rows), dtype=np.uint8)
            scales = np.empty((self.count, self.rows), dtype=np.float32)
            zero = np.empty((self.count, self.rows), dtype=np.uint8)
            for part, q, scale, offset in self._stored_slabs("dequantize"):
                levels[:, part] = q.reshape(q.shape[0], -1)[:, : self.columns].T
                scales[:, part] = scale.T
                zero[:, part] = offset.T
            return {"levels": stored(levels), "scale": scales, "zero": stored(zero)}

        parts = SharedParts(
            compute,
            {
                "levels": (kind, (self.columns, self.rows)),
                "scale": (ir.DataType.FLOAT, (self.count, self.rows)),
                "zero": (kind, (self.count, self.rows)),
            },
        )
        return self._initializers(editor, parts)

    def folded(self) -> Blocks:
        """The weight as blocks from which s8 [K, N] is made when the graph is loaded."""
        return Blocks(
            self.name,
            self.rows,
            self.count,
            self.group,
            self.columns,
            self.rows,
            self.bits,
            self.symmetric,
            (self.rows, self.columns),
            (1, 0),
            self.slabs,
        )

    def _initializers(self, editor: Editor, parts: SharedParts) -> list[ir.Value]:
        values = [
            editor.initializer(f"{self.name}_quantized", parts.tensor("levels")),
            editor.initializer(f"{self.name}_scale", parts.tensor("scale")),
        ]
        if not self.symmetric:
            values.append(editor.initializer(f"{self.name}_zero_point", parts.tensor("zero")))
        return values


@dataclass(frozen=True, slots=True, eq=False)
class Rounding:
    """How one weight is rounded to nearest: what another process has to know.

    Attributes:
        tensor: The float weight.
        by_rows: Whether its rows are output channels.
        bits: 2 to 8.
        group: Block length.
        symmetric: Whether the zero point is fixed in the middle.
        fit: ``minmax``, the grid over a block's range, or how it is fitted.
    """

    tensor: ir.TensorProtocol
    by_rows: bool
    bits: int
    group: int
    symmetric: bool
    fit: Fit

    def slabs(self) -> Iterator[tuple[slice, Bytes, Floats, Bytes]]:
        """See :class:`BlockedWeight`."""
        shape = self.tensor.shape.numpy()
        rows, columns = shape if self.by_rows else shape[::-1]
        step = max(1, _SLAB // max(1, columns))
        with read_weight(self.tensor) as array:
            for start in range(0, rows, step):
                part = slice(start, min(start + step, rows))
                w = np.ascontiguousarray(array[part] if self.by_rows else array[:, part].T)
                yield part, *self._rounded(w.astype(np.float32, copy=False))

    def _rounded(self, w: Floats) -> tuple[Bytes, Floats, Bytes]:
        if self.fit == "minmax":
            return quantize_blocks(w, self.group, self.bits, self.symmetric)
        wide = blocks(w, self.group)
        flat = wide.reshape(len(w), -1)
        grids = Grid(self.bits, self.group, self.symmetric, self.fit).fitted(flat)
        return grids.round(flat).reshape(wide.shape), grids.scale, grids.zero.astype(np.uint8)


class RoundedWeight(BlockedWeight):
    """A weight that is rounded to nearest, on the grid over a block's range or on a fitted one.

    Attributes:
        rounding: How.
        finished: What it became, where that is known already.
    """

    def __init__(
        self,
        value: ir.Value,
        by_rows: bool,
        bits: int,
        group: int,
        symmetric: bool,
        fit: Fit = "minmax",
    ) -> None:
        super().__init__(value, by_rows, bits, group, symmetric)
        self.rounding = Rounding(self.tensor, by_rows, bits, group, symmetric, fit)
        self.finished: Arrays | None = None

    def slabs(self) -> Iterator[tuple[slice, Bytes, Floats, Bytes]]:
        """See :class:`BlockedWeight`."""
        if self.finished is None:
            yield from self.rounding.slabs()
            return
        levels, scale, zero = (self.finished[name] for name in ("levels", "scale", "zero"))
        step = max(1, _SLAB // max(1, self.columns))
        for start in range(0, self.rows, step):
            part = slice(start, min(start + step, self.rows))
            yield part, np.array(levels[part]), np.array(scale[part]), np.array(zero[part])
            give_back(levels)


class ChosenBlocks(BlockedWeight):
    """A weight whose integers somebody chose."""

    def __init__(self, value: ir.Value, by_rows: bool, chosen: ChosenWeight) -> None:
        columns = chosen.levels.shape[1 if by_rows else 0]
        axis = chosen.axis if by_rows else 1 - chosen.axis
        if chosen.group is None:
            sizes = [g for g in GROUPS if g >= columns] or [GROUPS[-1]]
        else:
            sizes = [g for g in reversed(GROUPS) if chosen.group % g == 0]
        if not sizes or (chosen.group is not None and axis != 1):
            raise PassError(
                f"the integers chosen for '{value.name}' lie in blocks of {chosen.group} along "
                f"{'input' if axis == 1 else 'output'} channels",
                hint="multiples of 16 along input channels can be stored",
            )
        if chosen.group is None and chosen.scale.ndim and axis != 0:
            raise PassError(f"the scales chosen for '{value.name}' lie along input channels")
        super().__init__(value, by_rows, chosen.bits, sizes[0], chosen.zero_point is None)
        self._chosen = chosen

    def folded(self) -> Blocks:
        """See :class:`BlockedWeight`."""
        chosen = self._chosen if self.by_rows else self._chosen.transposed()
        return chosen_blocks(self.name, chosen, 0, turned=True)

    def slabs(self) -> Iterator[tuple[slice, Bytes, Floats, Bytes]]:
        """See :class:`BlockedWeight`."""
        half, chosen = 1 << (self.bits - 1), self._chosen
        middle = np.zeros(chosen.scale.shape, np.int8)
        parts = []
        for given in (chosen.scale, middle if chosen.zero_point is None else chosen.zero_point):
            if chosen.group is None:
                wide = np.broadcast_to(given.reshape(-1, 1), (self.rows, self.count))
            else:
                turned = given if self.by_rows else given.T
                wide = np.repeat(turned, chosen.group // self.group, axis=1)[:, : self.count]
            parts.append(wide)
        scale, zero = np.asarray(parts[0], np.float32), parts[1].astype(np.int16) + half
        rows = chosen.levels if self.by_rows else chosen.levels.T
        step = max(1, _SLAB // max(1, self.columns))
        for start in range(0, self.rows, step):
            part = slice(start, min(start + step, self.rows))
            levels = blocks(rows[part].astype(np.float32), self.group) + np.float32(half)
            yield part, levels.astype(np.uint8), scale[part], zero[part].astype(np.uint8)
            give_back(chosen.levels)


def _rounded_blocks(value: ir.Value, axis: int, bits: int, group: int) -> Blocks:
    """A weight of any rank, rounded to nearest in symmetric blocks along all of a channel.

    Args:
        value: The float weight.
        axis: Its axis of output channels.
        bits: 2 to 8.
        group: Block length; 0 for one block a channel.

    Raises:
        PassError: The weight holds NaN or infinity.
    """
    name, tensor = value.name or "weight", float_weight(value)
    shape = tuple(tensor.shape.numpy())
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    rows = shape[axis]
    columns = tensor.size // max(1, rows)
    size = -(-min(group or columns, columns) // 8) * 8
    with read_weight(tensor) as array:
        check_finite(name, array)

    def slabs() -> Iterator[tuple[slice, Bytes, Floats, Bytes]]:
        step = max(1, _SLAB // max(1, columns))
        with read_weight(tensor) as array:
            matrix = np.moveaxis(array, axis, 0).reshape(rows, columns)
            for start in range(0, rows, step):
                part = slice(start, min(start + step, rows))
                w = np.asarray(matrix[part], np.float32)
                yield part, *quantize_blocks(w, size, bits, symmetric=True)

    order = tuple(int(a) for a in np.argsort([axis, *(a for a in range(len(shape)) if a != axis)]))
    return Blocks(
        name,
        rows,
        -(-columns // size),
        size,
        columns,
        rows,
        bits,
        True,
        moved,
        () if axis == 0 else order,
        slabs,
    )


def channel_blocks(
    value: ir.Value, axis: int, bits: int, chosen: ChosenWeights, group: int
) -> Blocks | None:
    """A weight in blocks that become 8 bits a channel at load.

    Args:
        value: The float weight.
        axis: Its axis of output channels.
        bits: What it is rounded to, where nobody chose its integers.
        chosen: Integers that passes chose.
        group: Block length of what is rounded; 0 for one block a channel.

    Returns:
        None where the integers need no block: one scale a channel, 4 bits or more, no zero point.
    """
    found = chosen.find(value.name, tuple(float_weight(value).shape.numpy()))
    if found is None:
        if bits > 4 or (bits == 4 and not group):
            return None
        return _rounded_blocks(value, axis, bits, group)
    if (
        found.group is None
        and found.zero_point is None
        and (found.bits > 3 or not found.scale.ndim)
    ):
        return None
    return chosen_blocks(value.name or "", found, axis, turned=False)


def blocks_text(bits: int, chosen: ChosenWeight | None, group: int) -> str:
    """The type of a weight in words, as s8 or u4/32: bits and block length."""
    if chosen is not None:
        group = chosen.group or 0
    elif bits > 4:
        group = 0
    letter = "s" if chosen is None or chosen.zero_point is None else "u"
    return f"{letter}{bits}" + (f"/{group}" if group else "")
