"""Integer weights as initializers: scales are found now, integers when the model is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from qcomp.passes.quantize.integer_types import UINT8, IntegerType
from qcomp.quantization import ChosenWeight, ChosenWeights

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
        chosen: Integers that other passes chose, taken as they are.
        adjust: (weight, scale that covers it, type) -> the scale that is taken.
        unsigned: Store 8 bits as u8 around the zero point 128.
    """

    def __init__(
        self,
        editor: Editor,
        per_tensor: bool = False,
        chosen: ChosenWeights | None = None,
        *,
        adjust: Callable[[Floats, Floats, IntegerType], Floats] | None = None,
        unsigned: bool = False,
    ) -> None:
        self._editor = editor
        self.per_tensor = per_tensor
        self.chosen = chosen or ChosenWeights()
        self._adjust = adjust
        self._unsigned = unsigned
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
        chosen = self.chosen.find(name, tuple(tensor.shape.numpy()))
        if chosen is not None:
            if self.per_tensor and (chosen.scale.ndim or self._adjust or self._unsigned):
                raise PassError(
                    f"the integers chosen for '{name}' do not suit the machine",
                    why="it wants one scale for this weight, of its own form",
                    hint=f"leave out the pass that chose them ({chosen.method}), or exclude it",
                )
            entry = self._add_chosen(name, chosen, axis, kind, bias_floor, transpose)
            self._done.setdefault(key, entry)
            return entry
        with read_weight(tensor) as array:
            check_finite(name, array)
            shared = None if self.per_tensor else axis
            if self.per_tensor and bias_floor is not None:
                bias_floor = bias_floor.max(initial=0.0)
            scale = symmetric_scale(np.asarray(array, np.float32), kind, shared, bias_floor)
            if self._adjust is not None:
                scale = self._adjust(np.asarray(array, np.float32), scale, kind)
        shift = 128 if self._unsigned and kind.bits > 4 else 0
        storage = UINT8 if shift else kind
        shape = list(tensor.shape.numpy())
        if transpose:
            shape.reverse()

        def compute() -> Mapping[str, npt.NDArray[np.generic]]:
            with read_weight(tensor) as array:
                levels = quantize(array.astype(np.float32, copy=False), scale, 0, kind, axis)
            levels = levels.T if transpose else levels
            if shift:
                levels = levels.view(np.uint8) ^ np.uint8(shift)
            return {"levels": _stored(levels, kind)}

        parts = SharedParts(compute, {"levels": (storage.onnx, shape)})
        zero = np.full(scale.shape, shift, storage.storage)
        entry = (
            self._editor.initializer(f"{name}_quantized", parts.tensor("levels")),
            self._editor.initializer(f"{name}_scale", scale),
            self._editor.initializer(f"{name}_zero_point", zero),
            scale,
        )
        self._done.setdefault(key, entry)
        return entry

    def _add_chosen(
        self,
        name: str,
        chosen: ChosenWeight,
        axis: int,
        kind: IntegerType,
        bias_floor: Floats | None,
        transpose: bool,
    ) -> tuple[ir.Value, ir.Value, ir.Value, Floats]:
        """Add integers as they were chosen."""
        zero = chosen.zero_point
        if chosen.group is not None or (zero is not None and zero.any()):
            raise PassError(
                f"the integers chosen for '{name}' have blocks or zero points",
                why="an integer kernel has one scale an output channel, and no zero point",
                hint="choose symmetric ones a channel, or store them by 'quantize-weights'",
            )
        if chosen.scale.ndim and chosen.axis != axis:
            raise PassError(f"the scales chosen for '{name}' do not lie along output channels")
        levels, scale = chosen.levels, np.asarray(chosen.scale)
        if not _above(scale, bias_floor):  # a channel whose bias would not fit 32 bits
            assert bias_floor is not None
            floor = bias_floor if scale.ndim else bias_floor.max(initial=0.0)
            real, scale = chosen.real(), np.maximum(scale, floor).astype(np.float32)
            levels = quantize(real, scale, 0, kind, axis).astype(np.int8)
        levels = np.ascontiguousarray(levels.T) if transpose else levels
        parts = SharedParts(
            lambda: {"levels": _stored(levels, kind)}, {"levels": (kind.onnx, levels.shape)}
        )
        return (
            self._editor.initializer(f"{name}_quantized", parts.tensor("levels")),
            self._editor.initializer(f"{name}_scale", scale),
            self._editor.initializer(f"{name}_zero_point", np.zeros(scale.shape, kind.storage)),
            scale,
        )


def _stored(levels: npt.NDArray[np.generic], kind: IntegerType) -> npt.NDArray[np.generic]:
    """Integers as the type's ONNX tensor holds them: up to 4 bits packed."""
    return pack_int4(levels.reshape(-1).view(np.uint8)) if kind.bits <= 4 else levels


def _above(scale: Floats, floor: Floats | None) -> bool:
    return floor is None or bool((scale >= floor).all())


def int4_parts(levels: npt.NDArray[np.uint8], signed: bool) -> npt.NDArray[np.uint8]:
    """Pack uint4 levels of any shape for an ONNX INT4 (signed: minus 8) or UINT4 tensor."""
    flat = levels.reshape(-1)
    return pack_int4(flat - np.uint8(8) if signed else flat)
