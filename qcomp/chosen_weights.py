"""Weights whose levels a pass chose: on a grid of equal steps, or looked up in tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError

__all__ = ["ChosenWeight", "ChosenWeights"]

_MATRIX = 2
_BYTE = 128
_WHOLE = 1e-5
"""How far a multiple may be from a whole number: rounded to float32, as scales are."""


@dataclass(frozen=True, slots=True, eq=False)
class ChosenWeight:
    """The integers of one weight that a pass chose, as ONNX DequantizeLinear reads them.

        W ~ (levels - zero_point) scale

    | scales    | axis             | group | shape of scale and zero_point            |
    |-----------|------------------|-------|------------------------------------------|
    | a tensor  | any              | None  | []                                       |
    | a channel | output channels  | None  | [C]                                      |
    | a block   | input channels K | g     | the weight's, ceil(K / g) along the axis |

    With a table there are no zero points and no blocks, and levels are its columns:

        W ~ scale table[book, levels + 2^(bits-1)],     a row of the table for each output channel

    Attributes:
        levels: int8, shaped as the float weight, in [-2^(bits-1), 2^(bits-1) - 1].
        scale: float32, may be negative in blocks.
        zero_point: int8 in the same range; None for 0.
        axis: Axis of the weight that channels, or blocks, lie along.
        group: Weights that share a scale; None for a whole channel or tensor.
        bits: 2 to 8.
        method: How they were chosen, for reports.
        table: float32[T, 2^bits], T codebooks; None for equal steps.
        book: Codebook of each output channel, uint8[C]. None: the C / T channels of each lie
            together, in order.
        channel: float32[C] of which the scales of a matrix' blocks are whole multiples r, an output
            channel each, so that (levels - zero_point) r are 8-bit integers; None for others.

    Raises:
        PassError: Parts that do not fit together.
    """

    levels: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int8] | None
    axis: int
    group: int | None
    bits: int
    method: str
    table: npt.NDArray[np.float32] | None = None
    book: npt.NDArray[np.uint8] | None = None
    channel: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        """Check shapes, types and ranges."""
        shape, half = self.levels.shape, 1 << (self.bits - 1)
        wanted: list[tuple[int, ...]] = [(), shape[self.axis : self.axis + 1]]
        if self.group is not None:
            count = -(-shape[self.axis] // self.group)
            wanted = [(*shape[: self.axis], count, *shape[self.axis + 1 :])]
        arrays = [self.levels] + ([] if self.zero_point is None else [self.zero_point])
        if not 2 <= self.bits <= 8 or not 0 <= self.axis < len(shape):
            raise PassError(f"integers of {self.bits} bits along axis {self.axis}", hint="2 to 8")
        if self.scale.shape not in wanted or self.scale.dtype != np.float32:
            raise PassError(
                f"scales {self.scale.dtype}{list(self.scale.shape)} do not fit integers "
                f"{list(shape)}",
                hint=f"float32, one of the shapes {wanted}",
            )
        if self.zero_point is not None and self.zero_point.shape != self.scale.shape:
            raise PassError("zero points and scales have different shapes")
        for array in arrays:
            if array.dtype != np.int8 or (array < -half).any() or (array > half - 1).any():
                raise PassError(f"integers outside of [{-half}, {half - 1}], or not int8")
        if self.table is not None:
            self._check_table(self.table)
        if self.channel is not None:
            self._check_channel(self.channel)

    def _check_channel(self, channel: npt.NDArray[np.float32]) -> None:
        if self.group is None or self.levels.ndim != _MATRIX or channel.dtype != np.float32:
            raise PassError("only scales of a matrix' blocks are multiples of channels' scales")
        times = self.scale.astype(np.float64) / np.expand_dims(channel, self.axis)
        if (np.abs(times - np.rint(times)) > _WHOLE * np.abs(times)).any():
            raise PassError("scales of blocks are no whole multiples of their channel's")
        zero = 0.0 if self.zero_point is None else self.zero_point.astype(np.float64)
        starts = np.arange(0, self.levels.shape[self.axis], self.group)
        ends = [
            (extreme.reduceat(self.levels, starts, axis=self.axis) - zero) * np.rint(times)
            for extreme in (np.minimum, np.maximum)
        ]
        if any((end < -_BYTE).any() or (end >= _BYTE).any() for end in ends):
            raise PassError("integers of blocks, times their channel's multiples, leave 8 bits")

    def _check_table(self, table: npt.NDArray[np.float32]) -> None:
        channels = self.levels.shape[self.axis]
        if table.ndim != 2 or table.shape[1] != 1 << self.bits or table.dtype != np.float32:
            raise PassError(
                f"a table {table.dtype}{list(table.shape)} for levels of {self.bits} bits",
                hint=f"float32[codebooks, {1 << self.bits}]",
            )
        if self.group is not None or self.zero_point is not None:
            raise PassError("levels of a table have no blocks and no zero points")
        if self.book is None:
            fits = channels % max(1, len(table)) == 0
        else:
            fits = self.book.shape == (channels,) and self.book.dtype == np.uint8
            fits = fits and bool((self.book < len(table)).all())
        if not fits:
            raise PassError(f"{len(table)} codebooks do not fit {channels} output channels")

    def books(self) -> npt.NDArray[np.intp]:
        """The codebook of each output channel, intp[C]; for weights with a table."""
        if self.book is not None:
            return self.book.astype(np.intp)
        channels, count = self.levels.shape[self.axis], 1 if self.table is None else len(self.table)
        return np.arange(channels) // max(1, channels // count)

    def transposed(self) -> ChosenWeight:
        """The same of the transposed matrix."""
        blocked = self.group is not None
        zero = self.zero_point
        return replace(
            self,
            levels=np.ascontiguousarray(self.levels.T),
            scale=np.ascontiguousarray(self.scale.T) if blocked else self.scale,
            zero_point=np.ascontiguousarray(zero.T) if blocked and zero is not None else zero,
            axis=1 - self.axis,
        )

    def spread(self, part: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Scales or zero points so that they broadcast over the weight."""
        if part.ndim == 0:
            return part
        if self.group is None:
            return part.reshape([-1 if a == self.axis else 1 for a in range(self.levels.ndim)])
        wide = np.repeat(part, self.group, axis=self.axis)
        return wide.take(range(self.levels.shape[self.axis]), axis=self.axis)

    def real(self) -> npt.NDArray[np.float32]:
        """The float32 weight that the integers stand for."""
        if self.table is not None:
            columns = self.levels.astype(np.intp) + (1 << (self.bits - 1))
            shape = [-1 if a == self.axis else 1 for a in range(self.levels.ndim)]
            looked_up = self.table[self.books().reshape(shape), columns]
            scales = self.spread(self.scale).astype(np.float32)
            return np.asarray(looked_up * scales, np.float32)
        levels = self.levels.astype(np.float32)
        if self.zero_point is not None:
            levels -= self.spread(self.zero_point).astype(np.float32)
        return np.asarray(levels * self.spread(self.scale).astype(np.float32), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ChosenWeights:
    """Weights whose integers a pass chose: quantizing passes take them and round nothing.

    They stand for the float weights that the graph has: passes that change those come before.

    Attributes:
        weights: Name of the float weight -> its integers.
    """

    weights: Mapping[str, ChosenWeight] = field(default_factory=dict)

    def find(
        self, name: str | None, shape: tuple[int, ...], tables: bool = False
    ) -> ChosenWeight | None:
        """The integers of a weight; None if nobody chose them.

        Args:
            name: Of the float weight.
            shape: That it has now.
            tables: Whether levels may be those of a table.

        Raises:
            PassError: The weight has another shape by now, or a table where none can be stored.
        """
        chosen = self.weights.get(name or "")
        if chosen is not None and chosen.levels.shape != tuple(shape):
            raise PassError(
                f"the integers chosen for '{name}' are for another shape",
                why=f"{list(chosen.levels.shape)} were chosen, the graph has {list(shape)}",
                hint=f"put the pass that chose them ({chosen.method}) behind those that change "
                "weights",
            )
        if chosen is not None and chosen.table is not None and not tables:
            raise PassError(
                f"the levels chosen for '{name}' are looked up in a table",
                why="an integer kernel has equal steps",
                hint=f"store them by 'quantize-weights', or leave out what chose them "
                f"({chosen.method})",
            )
        return chosen

    def joined(self, more: Mapping[str, ChosenWeight]) -> ChosenWeights:
        """Return these and more, which win."""
        return ChosenWeights({**self.weights, **more})
