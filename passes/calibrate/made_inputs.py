"""What each input of a graph takes, read from the graph itself, for data that nobody gave.

Integers that look up a constant table are ids below its length: the largest table's are the tokens,
those of a small one segments, others positions. Integers (and floats of the tokens' shape) that
look up nothing are masks. Floats are images where they have four axes, numbers elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from qcomp.errors import UsageError
from qcomp.feeds.inputs import Conversion, inputs_of
from qcomp.passes.graph.rewriting import constant_tensor, int_attribute

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MadeInput", "Role", "made_inputs"]

Role = Literal["tokens", "segments", "positions", "mask", "image", "numbers"]

_LENGTH = 64
"""Length of an axis that may have any."""

_SEGMENTS = 8
"""Most rows of a table of segments."""

_MOVES = {"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten"}
_EMBEDDINGS = {0: 2, 1: 4, 8: 3}
"""EmbedLayerNormalization: input of ids -> input of their table."""


@dataclass(frozen=True)
class MadeInput:
    """One input of a graph.

    Attributes:
        name: Its name.
        dtype: Its element type.
        shape: Shape of one sample, or of the whole array where it has none.
        sampled: Whether samples come first.
        role: What it takes.
        bound: Ids lie below this number; 0 where there are none.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    sampled: bool
    role: Role
    bound: int


def made_inputs(model: ir.Model) -> list[MadeInput]:
    """Return what the inputs of a graph take.

    Raises:
        UsageError: An input of text, or of unknown rank.
    """
    inputs = inputs_of(model)
    sampled = set(Conversion(inputs).sampled)
    values = {value.name: value for value in model.graph.inputs}
    bounds = {item.name: _bound(values[item.name]) for item in inputs}
    largest = max(bounds.values(), default=0)
    found: list[MadeInput] = []
    for item in inputs:
        dtype = np.dtype(item.dtype)
        if item.shape is None or dtype.kind not in "iufb":
            raise UsageError(
                f"no values can be made up for the input '{item.name}'",
                why="its rank is not known" if item.shape is None else f"it takes {dtype.name}",
                hint="give data: --calib data.npz",
            )
        dims = list(item.shape)[1 if item.name in sampled else 0 :]
        shape = tuple(dim if isinstance(dim, int) else _LENGTH for dim in dims)
        bound = bounds[item.name]
        role: Role = "numbers"
        if bound and bound == largest and bound > _SEGMENTS:
            role = "tokens"
        elif bound:
            role = "segments" if bound <= _SEGMENTS else "positions"
        elif dtype.kind in "iub" and len(shape) != 3:
            role = "mask"
        elif len(shape) == 3:
            role = "image"
        found.append(MadeInput(item.name, dtype, shape, item.name in sampled, role, bound))
    rows = [made.shape for made in found if made.role == "tokens"]
    return [
        MadeInput(made.name, made.dtype, made.shape, made.sampled, "mask", 0)
        if made.role == "numbers" and made.shape in rows
        else made
        for made in found
    ]


def _bound(value: ir.Value) -> int:
    """Return the length of the smallest constant table that a value's entries look up; else 0."""
    bounds = []
    for usage in value.uses():
        node, table = usage.node, None
        if node.op_type == "Gather" and usage.idx == 1:
            table, axis = constant_tensor(node.inputs[0]), int_attribute(node, "axis")
        elif (
            node.op_type == "GatherND" and usage.idx == 1 and not int_attribute(node, "batch_dims")
        ):
            table, axis = constant_tensor(node.inputs[0]), 0
        elif node.op_type == "EmbedLayerNormalization" and usage.idx in _EMBEDDINGS:
            table, axis = constant_tensor(node.inputs[_EMBEDDINGS[usage.idx]]), 0
        elif node.op_type in _MOVES and usage.idx == 0:
            bounds.append(_bound(node.outputs[0]))
        if table is not None:
            bounds.append(int(table.shape.numpy()[axis]))
    return min((bound for bound in bounds if bound), default=0)
