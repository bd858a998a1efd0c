"""The steps of a preprocess file: from raw arrays to a model's inputs.

The schema of the file, with examples, is in ``docs/preprocess.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from qcomp.errors import UsageError
from qcomp.feeds.images import ImageShape, resized
from qcomp.feeds.inputs import Array

__all__ = ["LabelRule", "Rule", "RulePreprocess", "Slice"]

Slice = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Where labels are found.

    Attributes:
        source: Name of the array.
        slice: Part of the axis after the samples, ``(start, stop)``; None for all.
    """

    source: str
    slice: Slice | None = None

    def __call__(self, array: Array) -> Array:
        """Return the labels of an array."""
        return _sliced(array, self.slice, f"the labels '{self.source}'")


@dataclass(frozen=True, slots=True)
class Rule:
    """How one input is made, in this order: slice, resize and crop, arithmetic, layout, reshape.

    The arithmetic is ``(x * scale - mean) / std`` in float64.

    Attributes:
        source: Name of the array; empty for the input's own name, or the only array.
        evaluation: Name of the array of the evaluation samples; empty for ``source``.
        slice: Part of the axis after the samples, ``(start, stop)``.
        resize: (height, width), or the length of the shorter side.
        crop: (height, width) from the middle.
        channels: Channels of images read from a folder.
        scale: Factor, one or one a channel.
        mean: What is taken away after scaling.
        std: What is divided by at last.
        layout: (axes of the source, axes of the input), as ``("NHWC", "NCHW")``.
        reshape: Shape of one sample at the end.
    """

    source: str = ""
    evaluation: str = ""
    slice: Slice | None = None
    resize: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    channels: int = 3
    scale: tuple[float, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: tuple[str, str] | None = None
    reshape: tuple[int, ...] | None = None

    @property
    def images(self) -> ImageShape:
        """How a folder's images are brought to one size."""
        return ImageShape(self.resize, self.crop, self.channels)

    def __call__(self, array: Array, name: str, *, is_sized: bool = False) -> Array:
        """Return the input made from a batch of raw rows.

        Args:
            array: The rows.
            name: Name of the input, for messages.
            is_sized: Whether resize and crop have been done already.

        Raises:
            UsageError: If a step does not fit the array.
        """
        what = f"input '{name}'"
        array = _sliced(array, self.slice, what)
        if not is_sized and (self.resize is not None or self.crop is not None):
            array = resized(array, self.images)
        array = self._scaled(array, what)
        if self.layout is not None:
            source, wanted = self.layout
            if array.ndim != len(source):
                raise UsageError(
                    f"the layout '{source}' of {what} has {len(source)} axes, "
                    f"the array has shape {list(array.shape)}"
                )
            array = array.transpose([source.index(letter) for letter in wanted])
        if self.reshape is not None:
            if array.ndim == 0 or int(np.prod(array.shape[1:])) != int(np.prod(self.reshape)):
                raise UsageError(
                    f"{what} of shape {list(array.shape)} cannot be reshaped to samples of "
                    f"{list(self.reshape)}"
                )
            array = array.reshape(array.shape[0], *self.reshape)
        return array

    def _scaled(self, array: Array, what: str) -> Array:
        if self.scale is None and self.mean is None and self.std is None:
            return array
        if array.dtype.kind not in "biuf":
            raise UsageError(f"{what} is {array.dtype.name}, only numbers can be scaled")
        values = array.astype(np.float64)
        if self.scale is not None:
            values *= self._spread("scale", self.scale, array, what)
        if self.mean is not None:
            values -= self._spread("mean", self.mean, array, what)
        if self.std is not None:
            values /= self._spread("std", self.std, array, what)
        return cast("Array", values)

    def _spread(
        self, key: str, values: tuple[float, ...], array: Array, what: str
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Return one number, or one a channel along the axis of the channels."""
        if len(values) == 1:
            return np.asarray(values[0], np.float64)
        source = self.layout[0] if self.layout else ""
        axis = source.index("C") if "C" in source and len(source) == array.ndim else array.ndim - 1
        if array.ndim < 2 or array.shape[axis] != len(values):
            raise UsageError(
                f"'{key}' of {what} has {len(values)} numbers, "
                f"the array of shape {list(array.shape)} has {array.shape[axis]} channels",
                hint='say where the channels are: {"layout": "NHWC->NCHW"}; '
                "without a layout they are last",
            )
        shape = [1] * array.ndim
        shape[axis] = len(values)
        return np.asarray(values, np.float64).reshape(shape)


@dataclass(frozen=True, slots=True)
class RulePreprocess:
    """The steps of a JSON file.

    Attributes:
        rules: Input name -> how it is made, every input of the model.
        labels: Where the labels of the evaluation samples are; None if the file does not say.
        where: The file, for messages.
    """

    rules: Mapping[str, Rule]
    labels: LabelRule | None
    where: str

    def for_evaluation(self) -> RulePreprocess:
        """Return the steps that take the evaluation samples."""
        rules = {
            name: replace(rule, source=rule.evaluation or rule.source)
            for name, rule in self.rules.items()
        }
        return replace(self, rules=rules)


def _sliced(array: Array, part: Slice | None, what: str) -> Array:
    if part is None:
        return array
    if array.ndim < 2:
        raise UsageError(f"{what} of shape {list(array.shape)} has no axis to slice")
    result = array[:, slice(*part)]
    if result.shape[1] == 0:
        raise UsageError(
            f"the slice {list(part)} of {what} is empty: the axis has {array.shape[1]} entries"
        )
    return result
