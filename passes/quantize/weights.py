"""Integer weights as initializers: scales are found now, integers when the model is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    check_finite,
    constant_tensor,
    read_weight,
)
from qcomp.passes.quantize.arithmetic import Floats, pack_int4, quantize, symmetric_scale
from qcomp.passes.quantize.integer_types import IntegerType

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ChannelWeights", "float_weight", "int4_parts"]


def float_weight(value: ir.Value | None) -> ir.TensorProtocol:
    """The constant FLOAT tensor of a value that a plan has found to be one.

    Raises:
        PassError: The graph changed since it was planned.
    """
    tensor = constant_tensor(value)
    if tensor is None:
        raise PassError("a weight is no longer a constant", where=str(value and value.name))
    return tensor


class ChannelWeights:
    """Per-channel symmetric integer weights of one graph; a shared weight is stored once.

    Args:
        editor: Where the initializers go.
        per_tensor: One scale a weight, a scalar, in place of one an output channel.
    """

    def __init__(self, editor: Editor, per_tensor: bool = False) -> None:
        self._editor = editor
        self._per_tensor = per_tensor
        self._done: dict[
            tuple[int, int, bool, int], tuple[ir.Value, ir.Value, ir.Value, Floats]
        ] = {}

    def add(
        self,
        value: ir.Value,
        axis: int,
        kind: IntegerType,
        *,
        bias_floor: Floats | None = None,
        transpose: bool = False,
    ) -> tuple[ir.Value, ir.Value, ir.Value, Floats]:
        """Add integers, scales and zero points of a weight.

        Args:
            value: The float weight.
            axis: Channel axis of the float weight.
            kind: Signed type of at most 8 bits.
            bias_floor: Smallest scale of each channel, see :func:`symmetric_scale`.
            transpose: Store the transpose of a matrix.

        Returns:
            Values of the integers, the scales float32[C] and the zero points int8[C] (all 0), and
            the scales as an array; scalars where one scale serves the tensor.

        Raises:
            PassError: The weight holds NaN or infinity.
        """
        key = (id(value), axis, transpose, kind.max)
        if key in self._done and _above(self._done[key][3], bias_floor):
            return self._done[key]
        name = value.name or "weight"
        tensor = float_weight(value)
        with read_weight(tensor) as array:
            check_finite(name, array)
            shared = None if self._per_tensor else axis
            if self._per_tensor and bias_floor is not None:
                bias_floor = bias_floor.max(initial=0.0)
            scale = symmetric_scale(np.asarray(array, np.float32), kind, shared, bias_floor)
        shape = list(tensor.shape.numpy())
        if transpose:
            shape.reverse()

        def compute() -> Mapping[str, npt.NDArray[np.generic]]:
            with read_weight(tensor) as array:
                levels = quantize(array.astype(np.float32, copy=False), scale, 0, kind, axis)
            levels = levels.T if transpose else levels
            return {
                "levels": pack_int4(levels.reshape(-1).view(np.uint8)) if kind.bits == 4 else levels
            }

        parts = SharedParts(compute, {"levels": (kind.onnx, shape)})
        entry = (
            self._editor.initializer(f"{name}_quantized", parts.tensor("levels")),
            self._editor.initializer(f"{name}_scale", scale),
            self._editor.initializer(f"{name}_zero_point", np.zeros(scale.shape, kind.storage)),
            scale,
        )
        self._done.setdefault(key, entry)
        return entry


def _above(scale: Floats, floor: Floats | None) -> bool:
    return floor is None or bool((scale >= floor).all())


def int4_parts(levels: npt.NDArray[np.uint8], signed: bool) -> npt.NDArray[np.uint8]:
    """Pack uint4 levels of any shape for an ONNX INT4 (signed: minus 8) or UINT4 tensor."""
    flat = levels.reshape(-1)
    return pack_int4(flat - np.uint8(8) if signed else flat)
