"""What a convolution slides over: its windows as rows of a matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.graph.rewriting import ints_attribute, static_shape, string_attribute

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passes.lower.layers.glue import Glue

__all__ = ["Windows", "dense_kernel", "windows_of"]


@dataclass(frozen=True)
class Windows:
    """Where the numbers of each window of a Conv stand.

    Attributes:
        channels: Channels of the image.
        size: Its spatial axes.
        pads: Zeros before and after each spatial axis, as Conv's own attribute has them.
        places: int64[windows, channels * kernel], places in the flattened padded image, in the
            order of a filter's weights.
        out: Spatial axes of the output.
    """

    channels: int
    size: tuple[int, ...]
    pads: tuple[int, ...]
    places: NDArray[np.int64]
    out: tuple[int, ...]

    @property
    def padded(self) -> int:
        """Numbers of a padded image."""
        axes = len(self.size)
        wide = [n + self.pads[i] + self.pads[axes + i] for i, n in enumerate(self.size)]
        return self.channels * int(np.prod(wide))

    def rows(self, glue: Glue, image: ir.Value) -> ir.Value:
        """Write [batch, C, ...] as [batch * windows, channels * kernel]."""
        if any(self.pads):
            axes = len(self.size)
            pads = [0, 0, *self.pads[:axes], 0, 0, *self.pads[axes:]]
            image = glue.op("Pad", [image, glue.constant(pads, np.int64)])
        flat = glue.flat(image, self.padded)
        taken = glue.op("Gather", [flat, glue.constant(self.places, np.int64)], {"axis": 1})
        return glue.flat(taken, self.places.shape[1])

    def image(self, glue: Glue, rows: ir.Value, channels: int) -> ir.Value:
        """Write [batch * windows, channels] as [batch, channels, ...]."""
        windows = len(self.places)
        apart = glue.reshape(rows, [-1, windows, channels])
        turned = glue.op("Transpose", [apart], {"perm": [0, 2, 1]})
        return glue.reshape(turned, [-1, channels, *self.out])


def windows_of(node: ir.Node, kernel: tuple[int, ...]) -> Windows | str:
    """Return the windows of a Conv, or why they are not known.

    Args:
        node: The Conv.
        kernel: Spatial axes of its filters.
    """
    shape = static_shape(node.inputs[0])
    if shape is None or len(shape) != len(kernel) + 2 or None in shape[1:]:
        return "the shape of its input is not known but for the batch"
    channels, *size = (int(n or 0) for n in shape[1:])
    axes = len(size)
    strides = ints_attribute(node, "strides") or (1,) * axes
    steps = ints_attribute(node, "dilations") or (1,) * axes
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, steps, strict=True)]
    pads = _pads(node, size, spans, strides)
    wide = [n + pads[i] + pads[axes + i] for i, n in enumerate(size)]
    out = [(n - span) // s + 1 for n, span, s in zip(wide, spans, strides, strict=True)]
    if min(out) < 1:
        return "its kernel is larger than its padded input"
    index = np.arange(channels * int(np.prod(wide)), dtype=np.int64).reshape(channels, *wide)
    for axis, (count, k, d, s) in enumerate(zip(out, kernel, steps, strides, strict=True)):
        # Each spatial axis becomes its windows; their inside goes to the end.
        take = s * np.arange(count)[:, None] + d * np.arange(k)
        index = np.moveaxis(np.take(index, take, axis=axis + 1), axis + 2, -1)
    index = np.moveaxis(index, 0, axes)  # windows, channels, kernel
    places = np.ascontiguousarray(index).reshape(int(np.prod(out)), -1)
    return Windows(channels, tuple(size), pads, places, tuple(out))


def _pads(
    node: ir.Node, size: list[int], spans: list[int], strides: tuple[int, ...]
) -> tuple[int, ...]:
    kind = string_attribute(node, "auto_pad", "NOTSET")
    if kind == "NOTSET":
        return ints_attribute(node, "pads") or (0,) * (2 * len(size))
    if kind == "VALID":
        return (0,) * (2 * len(size))
    total = [
        max(0, (-(-n // s) - 1) * s + span - n)
        for n, span, s in zip(size, spans, strides, strict=True)
    ]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (*small, *large) if kind == "SAME_UPPER" else (*large, *small)


def dense_kernel(weight: NDArray[np.float64], group: int) -> NDArray[np.float64]:
    """Return filters as columns, float64[channels * kernel, out], zeros between groups."""
    out, inner = weight.shape[0], int(np.prod(weight.shape[1:]))
    dense = np.zeros((group, inner, group, out // group))
    parts = weight.reshape(group, out // group, inner)
    for g in range(group):
        dense[g, :, g] = parts[g].T
    return dense.reshape(group * inner, out)
