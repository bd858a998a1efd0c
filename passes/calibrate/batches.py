"""Calibration data: checked against the graph's inputs and cut into batches that fit it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError, suggest
from qcomp.passes.graph.rewriting import constant_tensor, int_attribute, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["checked_batches", "generated_batch"]

Array = npt.NDArray[np.generic]
Feeds = Mapping[str, Array]

_TOKENS = 2
"""Bound of generated integers where no table tells it: masks and token types."""


def checked_batches(
    model: ir.Model, batches: Iterable[Feeds], size: int = 32
) -> Iterator[dict[str, Array]]:
    """Yield the batches, checked, in pieces of at most ``size`` samples.

    A graph whose leading axis is fixed gets pieces of just that many samples; a rest that does
    not fill one is left out.

    Args:
        model: Its graph inputs say what fits.
        batches: Input name -> array, samples first.
        size: Samples at a time.

    Raises:
        UsageError: A missing or unknown name, a wrong dtype or shape, NaN or infinity, no samples.
    """
    inputs = {v.name or "": v for v in model.graph.inputs if not v.is_initializer()}
    leading = {shape[0] for v in inputs.values() if (shape := static_shape(v))}
    fixed = next(iter(leading)) if len(leading) == 1 else None
    whole = len(leading) > 1  # no common sample axis: a batch is taken as it is
    found = 0
    for feeds in batches:
        given = {name: np.asarray(array) for name, array in feeds.items()}
        _check(inputs, given)
        lengths = {array.shape[0] for array in given.values() if array.ndim}
        if whole or len(lengths) != 1:
            found += max(lengths, default=1)
            yield given
            continue
        length, step = next(iter(lengths)), fixed or size
        for start in range(0, length - (step - 1 if fixed else 0), step):
            found += min(step, length - start)
            yield {n: a[start : start + step] if a.ndim else a for n, a in given.items()}
    if not found:
        raise UsageError(
            "the calibration data holds no sample",
            why=f"the graph takes {fixed} samples at a time" if fixed else "",
            hint="give a few hundred samples, named as the model's inputs: "
            + ", ".join(f"'{name}'" for name in inputs),
        )


def _check(inputs: Mapping[str, ir.Value], given: Mapping[str, Array]) -> None:
    for name in given:
        if name not in inputs:
            raise UsageError(
                f"the calibration data has '{name}', which is no input of the model",
                hint=suggest(name, inputs),
            )
    for name, value in inputs.items():
        if name not in given:
            raise UsageError(
                f"the calibration data lacks the input '{name}'",
                why="it has " + (", ".join(f"'{n}'" for n in given) or "no arrays"),
                hint="name the arrays as the model's inputs",
            )
        _check_array(name, value, given[name])


def _check_array(name: str, value: ir.Value, array: Array) -> None:
    wanted = None if value.dtype is None else value.dtype.numpy()
    if wanted is not None and not np.can_cast(array.dtype, wanted, "same_kind"):
        raise UsageError(
            f"calibration array '{name}' is {array.dtype}, the model takes {np.dtype(wanted)}",
            hint=f"convert it: array.astype('{np.dtype(wanted)}')",
        )
    shape = static_shape(value)
    if shape is not None:
        fits = len(shape) == array.ndim and all(
            want is None or want == have
            for want, have in zip(shape[1:], array.shape[1:], strict=True)
        )
        if not fits:
            wish = ", ".join(
                "samples" if i == 0 else str(d) for i, d in enumerate(value.shape or ())
            )
            raise UsageError(
                f"calibration array '{name}' has shape {list(array.shape)}",
                why=f"the model takes [{wish}]",
                hint="samples come first",
            )
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise UsageError(f"calibration array '{name}' holds {array[tuple(at)]} at {at}")


def generated_batch(
    model: ir.Model, rng: np.random.Generator, samples: int = 16
) -> dict[str, Array]:
    """Make inputs that the graph can run on, where no data was given.

    Floats are standard normal; integers are drawn below the size of the table that they index
    (0 or 1 where they index none). The first symbolic axis of an input is the samples, others
    are 16 long.

    Args:
        model: The graph.
        rng: Source of randomness.
        samples: Samples to make where the graph leaves it open.

    Raises:
        UsageError: An input of text, or of unknown rank.
    """
    lengths: dict[str, int] = {}
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if value.shape is None or value.dtype is None or value.dtype.name == "STRING":
            raise UsageError(f"no values can be made up for the input '{value.name}'")
        shape = []
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, int):
                shape.append(dim)
            else:
                known = lengths.setdefault(str(dim), samples if axis == 0 else 16)
                shape.append(known)
        dtype = np.dtype(value.dtype.numpy())
        if np.issubdtype(dtype, np.floating):
            feeds[value.name or ""] = rng.standard_normal(shape).astype(dtype)
            continue
        bound = _TOKENS
        for usage in value.uses():
            table = constant_tensor(usage.node.inputs[0])
            if usage.node.op_type == "Gather" and usage.idx == 1 and table is not None:
                along = int_attribute(usage.node, "axis")
                bound = int(table.shape.numpy()[along])
        feeds[value.name or ""] = rng.integers(0, bound, shape).astype(dtype)
    return feeds
