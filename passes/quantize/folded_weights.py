"""Weights of few bits in the file that are 8-bit weights in memory.

ONNX Runtime computes once, when it loads a graph, what depends on constants alone. So a weight can
be stored as q in [0, 2^bits - 1] with a scale s and a zero point z a block, and a chain of standard
operators makes of it the s8 weight with one scale S a channel that the integer kernels take:

    w8 = round((q - z) r),     r = s / S (float16),     S = max |(q - z) s| / 127 of the channel

    UINT4 -> Cast -> Sub -> Mul -> Round -> Cast INT8 -> Reshape (-> Slice -> Transpose)

Two and three bits are packed (:mod:`qcomp.passes.quantize.packed_levels`). With one
block a channel, r is a whole number and w8 S is (q - z) s exactly; else w8 adds an error of at most
S / 2, some 20 decibels below that of 4 bits. The file has bits + 16 / group bits a weight, and
zero points. Scales that were chosen as whole multiples r of S are stored so, in 8 bits, and exact.

Cost: one pass over the weight when the model is saved, one when it is loaded.
Source: two levels of scales as in Lin et al. 2024 (QServe), arXiv:2405.04532, section 4.1; which
operators fold was read from ONNX Runtime's optimised graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    constant_array,
    int_attribute,
    ints_attribute,
    require_opset,
    string_attribute,
)
from qcomp.passes.quantize.arithmetic import Floats, pack_int4
from qcomp.passes.quantize.integer_types import INT8, IntegerType
from qcomp.passes.quantize.packed_levels import Unpacker, packed, packed_kinds
from qcomp.quantization import ChosenWeight

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Blocks", "FoldedWeights", "chosen_blocks", "folded_array"]

Bytes = npt.NDArray[np.uint8]
Slab = tuple[slice, Bytes, Floats, Bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A weight in blocks: P rows of B blocks of g values, where P is a multiple of the channels.

    Attributes:
        name: Of the float weight.
        rows: P.
        count: B.
        size: g, a multiple of 8.
        columns: Values of a row; the rest of its last block is left out.
        channels: Output channels C.
        bits: 2 to 8.
        symmetric: Whether all zero points are 2^(bits - 1).
        shape: Of the rows put together.
        order: How they are transposed then, () for not.
        slabs: Rows, levels uint8[p, B, g], scales [p, B], zero points uint8[p, B].
        channel: S float32[C], of which the scales are whole multiples r; None where they are not.
    """

    name: str
    rows: int
    count: int
    size: int
    columns: int
    channels: int
    bits: int
    symmetric: bool
    shape: tuple[int, ...]
    order: tuple[int, ...]
    slabs: Callable[[], Iterator[Slab]]
    channel: Floats | None = None


class FoldedWeights:
    """Writes weights into one graph, with the operators that make 8 bits of them.

    Args:
        editor: Of the graph.
        kind: What the weights become: s8, or s7 where kernels want that.
    """

    def __init__(self, editor: Editor, kind: IntegerType = INT8) -> None:
        self._editor = editor
        self._top = kind.max
        self.unpacker = Unpacker(editor)
        self._constant = self.unpacker.constant

    def add(
        self, blocks: Blocks, before: ir.Node, floor: Floats | None = None
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Store a weight.

        Args:
            blocks: The weight.
            before: The chain comes before this node.
            floor: Smallest scale of each channel.

        Returns:
            The s8 weight, its scales float32[C] and zero points int8[C].

        Raises:
            PassError: The opset is below 21.
        """
        import onnx_ir as ir

        require_opset(self._editor.model, 21, "UINT4 is from opset 21")
        least = 0.0 if floor is None or blocks.channel is None else floor / blocks.channel
        if blocks.channel is not None and (self._top < INT8.max or np.max(least) > 1):
            raise PassError(
                f"the integers chosen for '{blocks.name}' are of 8 bits with scales of their own",
                why="weights of 7 bits are wanted" if self._top < INT8.max else "its bias is large",
                hint="leave out the pass that chose them, or exclude the layer from it",
            )
        editor, name, b = self._editor, blocks.name, blocks
        grid = (b.rows, b.count, b.size)
        each = (b.rows, b.count, 1)
        small = ir.DataType.UINT4 if b.bits <= 4 else ir.DataType.UINT8
        kinds: dict[str, tuple[ir.DataType, Sequence[int]]] = {
            "ratio": (ir.DataType.FLOAT16 if b.channel is None else ir.DataType.UINT8, each),
            "scale": (ir.DataType.FLOAT, (b.channels,)),
            "zero": (small, each),
            **packed_kinds(b.bits, grid),
        }
        parts = SharedParts(lambda: _computed(blocks, floor, self._top), kinds)

        def make(kind: str, inputs: list[ir.Value], **attributes: int | str) -> ir.Value:
            node = editor.node(kind, inputs, attributes, name=f"{name}_{kind}", before=before)
            return node.outputs[0]

        levels = self.unpacker.levels(name, b.bits, grid, parts, make)
        real = make("Cast", [levels], to=ir.DataType.FLOAT)
        if b.symmetric:
            half = self._constant("half", (1 << (b.bits - 1),), np.float32)
            real = make("Sub", [real, half])
        else:
            zero = editor.initializer(f"{name}_zero_point", parts.tensor("zero"))
            real = make("Sub", [real, make("Cast", [zero], to=ir.DataType.FLOAT)])
        ratio = editor.initializer(f"{name}_block_scale", parts.tensor("ratio"))
        real = make("Mul", [real, make("Cast", [ratio], to=ir.DataType.FLOAT)])
        value = make("Cast", [make("Round", [real])], to=ir.DataType.INT8)
        if b.count * b.size != b.columns:
            value = make("Reshape", [value, self._constant("shape", (b.rows, -1))])
            ends = [self._constant("index", (end,)) for end in (0, b.columns, 1)]
            value = make("Slice", [value, *ends])
        value = make("Reshape", [value, self._constant("shape", b.shape)])
        shape = b.shape
        if b.order:
            turned = editor.node(
                "Transpose", [value], {"perm": b.order}, name=f"{name}_Transpose", before=before
            )
            value, shape = turned.outputs[0], tuple(shape[axis] for axis in b.order)
        value.name = editor.fresh(f"{name}_s8")
        value.type, value.shape = ir.TensorType(ir.DataType.INT8), ir.Shape(shape)
        return (
            value,
            editor.initializer(f"{name}_scale", parts.tensor("scale")),
            editor.initializer(f"{name}_zero_point", np.zeros(b.channels, np.int8)),
        )

    def at_once(
        self, blocks: Blocks, before: ir.Node, floor: Floats | None = None
    ) -> tuple[ir.Value, ir.Value, ir.Value, Floats]:
        """Store a weight as :meth:`add` does, and return its scales as an array, too."""
        import onnx_ir as ir

        weight, scale, zero = self.add(blocks, before, floor)
        scales = np.asarray(constant_array(scale), np.float32)
        scale.const_value = ir.tensor(scales, name=scale.name)
        return weight, scale, zero, scales


def _computed(blocks: Blocks, floor: Floats | None, top: int) -> Mapping[str, npt.NDArray[Any]]:
    """All tensors that are stored of a weight."""
    grid = (blocks.rows, blocks.count, blocks.size)
    levels = np.empty(grid, np.uint8)
    scale = np.empty(grid[:2], np.float32)
    zero = np.empty(grid[:2], np.uint8)
    reach = np.empty(grid[:2], np.float32)
    for part, q, s, z in blocks.slabs():
        levels[part], scale[part], zero[part] = q, s, z
        steps = q.astype(np.int16) - z[:, :, None]
        reach[part] = np.abs(steps).max(axis=2)
    scale[reach == 0] = 0.0
    each = blocks.rows // blocks.channels
    if blocks.channel is not None:
        channel = blocks.channel
    elif blocks.count * each == 1:  # whole numbers: exact
        times = np.floor(top / np.maximum(reach, 1.0))
        channel = np.abs(scale / times)[:, 0]
    else:
        channel = (reach * np.abs(scale)).reshape(blocks.channels, -1).max(axis=1) / top
    if floor is not None:
        channel = np.maximum(channel, floor)
    channel = np.where(channel < np.finfo(np.float32).tiny, 1.0, channel).astype(np.float32)
    ratio = (scale / np.repeat(channel, each)[:, None])[:, :, None]
    return {
        "ratio": ratio.astype(np.float16) if blocks.channel is None else _whole(ratio),
        "scale": channel,
        "zero": pack_int4(zero.reshape(-1)) if blocks.bits <= 4 else zero[:, :, None],
        **packed(levels, blocks.bits),
    }


def _whole(ratio: npt.NDArray[np.floating[Any]]) -> Bytes:
    return np.rint(ratio).astype(np.uint8)


def chosen_blocks(name: str, chosen: ChosenWeight, channel_axis: int, turned: bool) -> Blocks:
    """The blocks of integers that a pass chose.

    Args:
        name: Of the float weight.
        chosen: Its integers.
        channel_axis: Axis of output channels.
        turned: Whether a matrix is wanted transposed.

    Raises:
        PassError: Scales that lie along the wrong axis.
    """
    rank = chosen.levels.ndim
    if chosen.group is not None and chosen.axis == channel_axis:
        raise PassError(f"the blocks chosen for '{name}' lie along output channels")
    if chosen.group is None and chosen.scale.ndim and chosen.axis != channel_axis:
        raise PassError(f"the scales chosen for '{name}' lie along input channels")
    inner = chosen.axis if chosen.group is not None else (channel_axis + 1) % rank
    middle = [axis for axis in range(rank) if axis not in (channel_axis, inner)]
    order = [channel_axis, *middle, inner]
    shape = tuple(chosen.levels.shape[axis] for axis in order)
    half = 1 << (chosen.bits - 1)
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    if chosen.group is None and middle:  # one scale for all of a channel: one block
        rows, columns = shape[0], int(np.prod(shape[1:]))
    group = columns if chosen.group is None else min(chosen.group, columns)
    size, count = -(-group // 8) * 8, -(-columns // group)
    if count > 1 and size != group:
        raise PassError(f"the blocks of {group} chosen for '{name}' are no multiple of 8")

    def slabs() -> Iterator[Slab]:
        flat = chosen.levels.transpose(order).reshape(rows, columns).astype(np.int16) + half
        parts = []
        for part in (chosen.scale, chosen.zero_point):
            if part is None:
                parts.append(np.full((rows, count), 0, np.int16))
            elif chosen.group is None:
                wide = np.broadcast_to(part.reshape(-1, 1), (rows, count))
                parts.append(wide)
            else:
                parts.append(part.transpose(order).reshape(rows, count))
        zero = (parts[1].astype(np.int16) + half).astype(np.uint8)
        levels = np.repeat(zero, size, axis=1)  # what pads a block is 0.0
        levels[:, :columns] = flat
        yield (
            slice(0, rows),
            levels.reshape(rows, count, size),
            np.asarray(parts[0], np.float32),
            zero,
        )

    back = [order.index(axis) for axis in range(rank)]
    if turned:
        back = back[::-1]
    return Blocks(
        name,
        rows,
        count,
        size,
        columns,
        shape[0],
        chosen.bits,
        chosen.zero_point is None,
        shape,
        () if back == sorted(back) else tuple(back),
        slabs,
        chosen.channel,
    )


def folded_array(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """What a chain of operators makes of constants; None where something else is in it."""
    array = constant_array(value)
    if array is not None or value is None:
        return array
    node = value.producer()
    if node is None or node.domain or node.op_type not in _CHAIN:
        return None
    inputs = [folded_array(v) for v in node.inputs]
    if any(array is None for array in inputs):
        return None
    return np.asarray(_CHAIN[node.op_type](node, *inputs))


def _cast(node: ir.Node, x: Any) -> Any:
    import onnx_ir as ir

    kind = ir.DataType(int_attribute(node, "to"))
    return x.astype(kind.numpy())


def _slice(node: ir.Node, x: Any, starts: Any, ends: Any, axes: Any) -> Any:
    return x.take(range(int(starts[0]), int(ends[0])), axis=int(axes[0]))


def _shift(node: ir.Node, x: Any, by: Any) -> Any:
    return x >> by if string_attribute(node, "direction", "") == "RIGHT" else x << by


_CHAIN: Mapping[str, Callable[..., Any]] = {
    "Add": lambda node, a, b: a + b,
    "BitShift": _shift,
    "BitwiseAnd": lambda node, a, b: a & b,
    "BitwiseOr": lambda node, a, b: a | b,
    "Cast": _cast,
    "Gather": lambda node, x, index: x.take(index, axis=int_attribute(node, "axis")),
    "GatherElements": lambda node, x, index: np.take_along_axis(
        x, index, axis=int_attribute(node, "axis")
    ),
    "Mul": lambda node, a, b: a * b,
    "Reshape": lambda node, x, shape: x.reshape(shape),
    "Round": lambda node, x: np.rint(x),
    "Slice": _slice,
    "Sub": lambda node, a, b: a - b,
    "Transpose": lambda node, x: x.transpose(ints_attribute(node, "perm")),
}
"""Operator -> what it computes of constants."""
