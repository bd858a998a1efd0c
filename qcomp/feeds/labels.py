"""Labels, and the samples they belong to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcomp.errors import UsageError, suggest
from qcomp.feeds.batches import Batches, calibration_batches, open_columns
from qcomp.feeds.columns import ArrayColumns, Columns
from qcomp.feeds.inputs import Array, Conversion, Input
from qcomp.feeds.preprocess import FunctionPreprocess, load
from qcomp.feeds.rules import LabelRule, RulePreprocess
from qcomp.feeds.streams import as_array

__all__ = ["Evaluation", "labels_for"]

_NAMES = ("labels", "label", "y")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Labelled samples.

    Attributes:
        batches: The samples, as rounds of batches.
        labels: Their labels, in the same order, samples first.
        is_calibration: Whether these are the calibration samples, so that a score on them is not
            one on unseen data.
    """

    batches: Batches
    labels: Array
    is_calibration: bool


def labels_for(
    data: object,
    inputs: Sequence[Input] | Sequence[tuple[str, object, Sequence[int | str | None] | None]],
    *,
    calibration: Batches | None = None,
    preprocess: object = None,
    batch_size: int = 32,
) -> Evaluation:
    """Return labels and the samples they belong to.

    Args:
        data: The path of an ``.npz`` or ``.npy``, a dict of arrays, an array or a list. The labels
            are the array that the preprocess file names, else the one named ``labels``, ``label``
            or ``y``, else the only array that is no input. Where ``data`` also holds all the
            inputs, those are the samples; else the labels are those of the calibration samples, in
            order.
        inputs: (name, type, shape) of what the model takes.
        calibration: The calibration samples.
        preprocess: As for the calibration samples; its ``eval`` names the arrays of the
            evaluation samples, its ``labels`` those of the labels.
        batch_size: Samples of a batch.

    Raises:
        UsageError: If there are no labels, or not as many as samples.
    """
    columns = _open(data)
    conversion = Conversion(_inputs(inputs))
    names = conversion.names
    steps = load(preprocess, names)
    if isinstance(steps, RulePreprocess):
        steps = steps.for_evaluation()
    rule, others = _find(columns, names, steps)
    labels = _checked(rule(columns.whole(rule.source)), rule.source, columns)
    if _holds_samples(columns, conversion.required, steps, others):
        batches = calibration_batches(data, inputs, batch_size=batch_size, preprocess=steps)
        is_calibration = False
    elif calibration is not None:
        batches, is_calibration = calibration, True
    else:
        raise UsageError(
            f"{columns.where} holds labels and no samples, and there is no calibration data",
            hint="give --calib too, or a file that also holds the inputs: " + ", ".join(names),
        )
    if len(labels) != batches.samples:
        raise UsageError(
            f"there are {len(labels)} labels for {batches.samples} samples",
            where=f"array '{rule.source}' of {columns.where}",
            hint="labels are given in the order of the samples"
            if is_calibration
            else "the samples are those of the same file",
        )
    return Evaluation(batches, labels, is_calibration)


def _inputs(inputs: Sequence[object]) -> Sequence[Input]:
    return [item if isinstance(item, Input) else Input(*item) for item in inputs]  # type: ignore[misc]


def _open(data: object) -> Columns:
    if isinstance(data, str | os.PathLike) and os.path.isdir(data):
        raise UsageError(
            f"'{data}' is a folder", hint="labels are an .npz or .npy file, in the images' order"
        )
    columns = open_columns(data)
    if columns is None:
        columns = ArrayColumns({"labels": as_array(data, "the labels")}, "the labels")
    return columns


def _find(
    columns: Columns, names: Sequence[str], steps: RulePreprocess | FunctionPreprocess | None
) -> tuple[LabelRule, list[str]]:
    """Return where the labels are, and the arrays that inputs may be made from."""
    there = list(columns.headers)
    if isinstance(steps, RulePreprocess) and steps.labels is not None:
        rule = steps.labels
        # A file of labels alone need not name its only array as the steps do.
        if rule.source not in there and len(there) == 1:
            return LabelRule(there[0], rule.slice), []
        if rule.source not in there:
            raise UsageError(
                f"{columns.where} has no array '{rule.source}' of labels",
                where=steps.where,
                hint=suggest(rule.source, there),
            )
        # Named by the user, it may also be an input's: a language model predicts what it reads.
        return rule, there
    used = set(names)
    if isinstance(steps, RulePreprocess):
        used = {item.source or name for name, item in steps.rules.items()}
    free = [name for name in there if name not in used]
    named = [name for name in _NAMES if name in free]
    if not named and len(free) == 1:
        named = free
    if not named:
        raise UsageError(
            f"{columns.where} has no array of labels",
            why="it holds " + ", ".join(f"'{name}'" for name in there),
            hint="name it 'labels' or 'y', or say it in the preprocess file: "
            f'{{"labels": "{(free or there)[0]}", ...}}',
        )
    return LabelRule(named[0]), [name for name in there if name != named[0]]


def _holds_samples(
    columns: Columns,
    names: Sequence[str],
    steps: RulePreprocess | FunctionPreprocess | None,
    others: Sequence[str],
) -> bool:
    if isinstance(steps, FunctionPreprocess):
        return bool(others)
    if isinstance(steps, RulePreprocess):
        return all((rule.source or name) in others for name, rule in steps.rules.items())
    return all(name in others for name in names)


def _checked(labels: Array, name: str, columns: Columns) -> Array:
    where = f"array '{name}' of {columns.where}"
    if labels.ndim == 0 or not labels.shape[0]:
        raise UsageError("there is no label", where=where)
    if labels.dtype.kind not in "biuf":
        raise UsageError(
            f"labels of {labels.dtype.name} cannot be scored",
            where=where,
            hint="give class numbers, or real numbers",
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise UsageError("the labels hold values that are not finite", where=where)
    return labels
