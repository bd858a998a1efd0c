"""A Conv, Gemm or MatMul as a product of rows, and a sample of these rows from streamed data.

A convolution is a matrix product for each output position: with the inputs under its kernel as a
row x (zero where the kernel reaches over the edge) and its weights as columns,

    y[p, m] = sum_k x[p, k] W[k, m] + b[m]

for each of its groups. So a search over quantizers needs no convolution, but some rows x. They are
drawn evenly from all output positions of all samples: every position draws a number, those with
the lowest stay (Vitter 1985, reservoir sampling). Memory does not grow with the number of samples,
and how the samples are batched makes no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qcomp.passes.graph.rewriting import (
    constant_array,
    int_attribute,
    ints_attribute,
    read_weight,
    string_attribute,
)
from qcomp.passes.quantize.weights import float_weight

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "Geometry",
    "RowSample",
    "layer_bias",
    "layer_geometry",
    "read_columns",
    "weight_columns",
    "weight_like",
]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the rows of a layer's input lie.

    Attributes:
        kernel: Lengths of a convolution's kernel; () for a matrix product.
        strides: One a spatial axis.
        dilations: One a spatial axis.
        pads: Begin of each axis, then end of each axis; () where ``auto_pad`` says them.
        auto_pad: ``SAME_UPPER``, ``SAME_LOWER`` or ``""``.
        group: Number of groups.
    """

    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    auto_pad: str = ""
    group: int = 1

    def padding(self, spatial: Sequence[int]) -> list[tuple[int, int]]:
        """Zeros before and behind each spatial axis."""
        rank = len(self.kernel)
        if self.pads:
            return [(self.pads[i], self.pads[i + rank]) for i in range(rank)]
        found = []
        for length, k, stride, dilation in zip(
            spatial, self.kernel, self.strides, self.dilations, strict=True
        ):
            out = -(-length // stride)
            total = max(0, (out - 1) * stride + (k - 1) * dilation + 1 - length)
            small = total // 2
            found.append(
                (small, total - small) if self.auto_pad == "SAME_UPPER" else (total - small, small)
            )
        return found

    def windows(self, x: Floats) -> npt.NDArray[np.float32]:
        """A view [N, C, positions ..., kernel ...] of a convolution's input [N, C, ...]."""
        rank = len(self.kernel)
        padding = self.padding(x.shape[2:])
        if any(pair != (0, 0) for pair in padding):
            x = np.pad(x, [(0, 0), (0, 0), *padding])
        spans = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        view = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
        steps = [slice(None, None, stride) for stride in self.strides]
        taps = [slice(None, None, dilation) for dilation in self.dilations]
        return view[(slice(None), slice(None), *steps, *taps)]


def layer_geometry(node: ir.Node, weight: Sequence[int]) -> Geometry:
    """Return the geometry of a Conv, Gemm or MatMul whose weight has that shape."""
    if node.op_type != "Conv":
        return Geometry()
    kernel = tuple(weight[2:])
    ones = (1,) * len(kernel)
    auto = string_attribute(node, "auto_pad", "NOTSET")
    pads = ints_attribute(node, "pads") or (0,) * (2 * len(kernel))
    return Geometry(
        kernel,
        ints_attribute(node, "strides") or ones,
        ints_attribute(node, "dilations") or ones,
        () if auto.startswith("SAME") else pads,
        auto if auto.startswith("SAME") else "",
        int_attribute(node, "group", 1),
    )


def weight_columns(node: ir.Node, weight: npt.NDArray[np.generic], group: int) -> Floats:
    """A layer's weight as float32[group, K, M / group]: a column for each output channel."""
    real = np.asarray(weight, np.float32)
    if node.op_type == "Conv":
        return real.reshape(group, real.shape[0] // group, -1).transpose(0, 2, 1)
    turned = node.op_type == "Gemm" and int_attribute(node, "transB")
    return (real.T if turned else real)[None]


def weight_like(
    node: ir.Node, columns: npt.NDArray[np.generic], shape: Sequence[int]
) -> npt.NDArray[np.generic]:
    """Turn columns as :func:`weight_columns` gives them back into the weight's own shape."""
    if node.op_type == "Conv":
        return np.ascontiguousarray(columns.transpose(0, 2, 1)).reshape(shape)
    turned = node.op_type == "Gemm" and int_attribute(node, "transB")
    return np.ascontiguousarray(columns[0].T if turned else columns[0])


def layer_bias(node: ir.Node, group: int) -> Floats | None:
    """A layer's constant bias as float32[group, 1, M / group]."""
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    return None if bias is None else np.asarray(bias, np.float32).reshape(group, 1, -1)


def read_columns(node: ir.Node, group: int) -> Floats:
    """The columns of a layer's float weight, a copy."""
    with read_weight(float_weight(node.inputs[1])) as weight:
        return np.array(weight_columns(node, weight, group), np.float32, order="C")


class RowSample:
    """Some rows of one layer's input, drawn evenly from all of them.

    Args:
        geometry: Where the rows lie.
        rows: Rows to keep.
        rng: Source of the numbers that the rows draw.
    """

    __slots__ = ("_drawn", "_kept", "_rng", "geometry", "rows")

    def __init__(self, geometry: Geometry, rows: int, rng: np.random.Generator) -> None:
        self.geometry = geometry
        self.rows = rows
        self._rng = rng
        self._drawn = np.zeros(0)
        self._kept: Floats | None = None

    def add(self, array: npt.NDArray[np.generic]) -> None:
        """Let the rows of one batch draw."""
        x = np.asarray(array, np.float32)
        windows = self.geometry.windows(x) if self.geometry.kernel else x.reshape(-1, x.shape[-1])
        rank = len(self.geometry.kernel)
        places = (windows.shape[0], *windows.shape[2 : 2 + rank]) if rank else windows.shape[:1]
        drawn = self._rng.random(int(np.prod(places)))
        chosen = np.sort(np.argsort(drawn, kind="stable")[: self.rows])
        if not chosen.size:
            return
        at: list[Any] = list(np.unravel_index(chosen, places))  # and a slice
        # An index before and behind a slice: NumPy puts the rows first, channels and kernel behind.
        found = windows[(at[0], slice(None), *at[1:])].reshape(chosen.size, -1)
        both = np.concatenate([self._drawn, drawn[chosen]])
        best = np.sort(np.argsort(both, kind="stable")[: self.rows])
        kept = found if self._kept is None else np.concatenate([self._kept, found])
        self._kept, self._drawn = kept[best], both[best]

    def take(self) -> Floats:
        """The rows as float32[group, rows, K]; they are not kept any longer."""
        kept = np.zeros((0, self.geometry.group), np.float32) if self._kept is None else self._kept
        self._kept = None
        grouped = kept.reshape(len(kept), self.geometry.group, -1)
        return np.ascontiguousarray(grouped.transpose(1, 0, 2))
