"""Operators of ONNX that move values, or make shapes, as functions of PyTorch tensors.

Attributes that ONNX allows and no function here takes are refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from qcomp.passes.graph.rewriting import (
    float_attribute,
    int_attribute,
    ints_attribute,
    string_attribute,
)
from qcomp.passes.torch_graph.table import Tensor, axes_of, ints_of, operator, padded, refuse

if TYPE_CHECKING:
    import onnx_ir as ir

__all__: list[str] = []


@operator("Constant")
def _constant(node: ir.Node) -> Tensor:
    from qcomp.passes.torch_graph.run import as_torch

    return as_torch(node.outputs[0])


@operator("Shape")
def _shape(node: ir.Node, x: Tensor) -> Tensor:
    start = int_attribute(node, "start")
    end = int_attribute(node, "end") if "end" in node.attributes else None
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


@operator("Reshape")
def _reshape(node: ir.Node, x: Tensor, shape: Tensor) -> Tensor:
    wanted = ints_of(shape)
    if not int_attribute(node, "allowzero"):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return x.reshape(wanted)


@operator("Flatten")
def _flatten(node: ir.Node, x: Tensor) -> Tensor:
    axis = int_attribute(node, "axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(int(torch.Size(x.shape[:axis]).numel()), -1)


@operator("Transpose")
def _transpose(node: ir.Node, x: Tensor) -> Tensor:
    return x.permute(ints_attribute(node, "perm") or tuple(reversed(range(x.dim()))))


@operator("Squeeze")
def _squeeze(node: ir.Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    dims = axes_of(node, axes)
    return x.squeeze(tuple(dims)) if dims else x.squeeze()


@operator("Unsqueeze")
def _unsqueeze(node: ir.Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    dims = axes_of(node, axes)
    for dim in sorted(d % (x.dim() + len(dims)) for d in dims):
        x = x.unsqueeze(dim)
    return x


@operator("Expand")
def _expand(node: ir.Node, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(tuple(x.shape), tuple(ints_of(shape))))


@operator("Tile")
def _tile(node: ir.Node, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(ints_of(repeats))


@operator("Concat")
def _concat(node: ir.Node, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, int_attribute(node, "axis"))


@operator("Split")
def _split(node: ir.Node, x: Tensor, split: Tensor | None = None) -> Sequence[Tensor]:
    axis = int_attribute(node, "axis")
    sizes = ints_of(split) or list(ints_attribute(node, "split"))
    if not sizes:
        return torch.split(x, -(-x.shape[axis] // len(node.outputs)), axis)
    return torch.split(x, sizes, axis)


@operator("Slice")
def _slice(
    node: ir.Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first = ints_of(starts) or list(ints_attribute(node, "starts"))
    last = ints_of(ends) or list(ints_attribute(node, "ends"))
    dims = axes_of(node, axes) or list(range(len(first)))
    strides = ints_of(steps) or [1] * len(first)
    for dim, start, end, step in zip(dims, first, last, strides, strict=True):
        taken = range(x.shape[dim])[start:end:step]
        if step == 1:
            x = x.narrow(dim, taken.start, len(taken))
        else:
            x = x.index_select(dim, torch.tensor(list(taken), dtype=torch.int64))
    return x


@operator("Gather")
def _gather(node: ir.Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = int_attribute(node, "axis") % x.dim()
    index = indices.long()
    index = torch.where(index < 0, index + x.shape[axis], index)
    rows = x.index_select(axis, index.reshape(-1))
    return rows.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


@operator("GatherElements")
def _gather_elements(node: ir.Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = int_attribute(node, "axis")
    index = indices.long()
    return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index))


@operator("GatherND")
def _gather_nd(node: ir.Node, x: Tensor, indices: Tensor) -> Tensor:
    if int_attribute(node, "batch_dims"):
        raise refuse(node, "batch_dims")
    return x[tuple(indices.long().movedim(-1, 0))]


@operator("Pad")
def _pad(
    node: ir.Node,
    x: Tensor,
    pads: Tensor | None = None,
    constant: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    mode = string_attribute(node, "mode", "constant")
    ends = ints_of(pads) or list(ints_attribute(node, "pads"))
    dims = [d % x.dim() for d in ints_of(axes)] or list(range(x.dim()))
    pairs = [(0, 0)] * x.dim()
    for index, dim in enumerate(dims):
        pairs[dim] = (ends[index], ends[len(dims) + index])
    if mode == "constant":
        value = float_attribute(node, "value", 0.0) if constant is None else float(constant)
        return padded(x, pairs, value)
    if mode not in ("reflect", "edge") or any(end for pair in pairs[:2] for end in pair):
        raise refuse(node, f"mode {mode}")
    flat = [end for pair in reversed(pairs[2:]) for end in pair]
    return F.pad(x, flat, mode="replicate" if mode == "edge" else mode)


@operator("Resize", "Upsample")
def _resize(
    node: ir.Node,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    factors = roi if node.op_type == "Upsample" else scales
    if sizes is not None and sizes.numel():
        size = ints_of(sizes)
    elif factors is not None and factors.numel():
        size = [int(n * f) for n, f in zip(x.shape, factors.tolist(), strict=True)]
    else:
        raise refuse(node, "scales in an attribute")
    coordinates = string_attribute(node, "coordinate_transformation_mode", "half_pixel")
    mode = string_attribute(node, "mode", "nearest")
    whole = all(new % old == 0 for old, new in zip(x.shape, size, strict=True))
    if size[:2] != list(x.shape[:2]):
        raise refuse(node, "other axes than the spatial ones")
    if mode == "nearest" and whole and (coordinates != "align_corners"):
        return F.interpolate(x, size[2:], mode="nearest")
    if mode == "linear" and x.dim() == 4 and coordinates in ("half_pixel", "pytorch_half_pixel"):
        return F.interpolate(x, size[2:], mode="bilinear", align_corners=False)
    raise refuse(node, f"mode {mode}, {coordinates}")


@operator("Trilu")
def _trilu(node: ir.Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k)
    return torch.triu(x, diagonal) if int_attribute(node, "upper", 1) else torch.tril(x, diagonal)


@operator("ConstantOfShape")
def _constant_of_shape(node: ir.Node, shape: Tensor) -> Tensor:
    found = node.attributes.get("value")
    if found is None:
        return torch.zeros(ints_of(shape))
    return torch.from_numpy(found.as_tensor().numpy().copy()).expand(ints_of(shape)).clone()


@operator("Range")
def _range(node: ir.Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@operator("CumSum")
def _cum_sum(node: ir.Node, x: Tensor, axis: Tensor) -> Tensor:
    if int_attribute(node, "exclusive") or int_attribute(node, "reverse"):
        raise refuse(node, "exclusive or reverse")
    return x.cumsum(int(axis), dtype=x.dtype)
