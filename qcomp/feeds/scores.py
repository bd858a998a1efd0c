"""How good outputs are, given labels: accuracy, squared error, other figures, the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from qcomp.errors import QcompError, UsageError, suggest
from qcomp.feeds.inputs import Array
from qcomp.feeds.metrics import METRICS, Accumulator, metric_function

__all__ = ["Score", "Scorer", "score"]

Metric = Callable[[Array, Array], object]

_OWN = {
    "accuracy": "accuracy",
    "top-1": "accuracy",
    "mean-squared-error": "mean squared error",
    "mse": "mean squared error",
}
"""Name that a user gives -> the figure that the scorer itself sums."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a model reached.

    Attributes:
        metric: What was measured: ``accuracy``, ``mean squared error``, or the metric's name.
        value: The figure; an accuracy is in [0, 1].
        n: Samples.
        higher_is_better: As the user says of a metric of theirs, None where they do not.
    """

    metric: str
    value: float
    n: int
    higher_is_better: bool | None


class Scorer:
    """Takes outputs and labels batch by batch.

    Whole numbers as labels give the top-1 accuracy: the largest entry of the last axis is the
    class, and a single column (or outputs of the labels' own shape) is class 1 where it is above
    zero, or above one half where all outputs lie in [0, 1] as probabilities do; labels -1 and 1
    are read by the sign. Real numbers as labels give the mean squared error.

    Args:
        metric: None for that; ``accuracy`` (``top-1``) or ``mean-squared-error`` (``mse``) for one
            of them whatever the labels are; a name of :data:`qcomp.feeds.metrics.METRICS`; else
            ``module:function``, ``file.py:function`` or a function: (outputs, labels) -> number.
            That is called once, with everything; outputs are then kept in memory.
        higher_is_better: What is true of a function of the user.
    """

    def __init__(
        self, metric: str | Metric | None = None, higher_is_better: bool | None = None
    ) -> None:
        self._kind = _OWN.get(metric) if isinstance(metric, str) else None
        self._sums: Accumulator | None = None
        self._metric: Metric | None = None
        self._name = ""
        self._higher = higher_is_better
        if isinstance(metric, str) and metric in METRICS:
            self._name, self._sums = metric.replace("-", " "), METRICS[metric]()
        elif self._kind is None:
            self._name, self._metric = _metric(metric)
        self._outputs: list[Array] = []
        self._labels: list[Array] = []
        self._n = 0
        self._sum = 0.0
        self._count = 0
        self._is_error: bool | None = None

    def add(self, outputs: Array | Mapping[str, Array], labels: Array) -> None:
        """Take a batch.

        Args:
            outputs: The model's output, or name -> output, of which the first counts.
            labels: The labels of the same samples.

        Raises:
            UsageError: If the two do not go together.
        """
        if isinstance(outputs, Mapping):
            outputs = next(iter(outputs.values()))
        outputs, labels = np.asarray(outputs), np.asarray(labels)
        if outputs.dtype.kind == "f" and np.isnan(outputs).any():
            raise UsageError(
                "the model's output holds NaN, which has no score",
                hint="look for an overflow in the model, or for samples out of its domain",
            )
        if not outputs.ndim or not labels.ndim or outputs.shape[0] != labels.shape[0]:
            raise UsageError(
                f"outputs of shape {list(outputs.shape)} do not go with labels of shape "
                f"{list(labels.shape)}",
                hint="both have samples first",
            )
        self._n += labels.shape[0]
        if self._sums is not None:
            self._sums.add(outputs, labels)
        elif self._metric is not None:
            self._outputs.append(outputs)
            self._labels.append(labels)
        elif self._kind == "accuracy" and labels.dtype.kind not in "iub":
            raise UsageError(
                f"labels of {labels.dtype.name} have no accuracy",
                hint="give class numbers, or --metric mean-squared-error",
            )
        elif labels.dtype.kind in "iub" and self._kind != "mean squared error":
            self._is_error = False
            self._add_classes(outputs, labels)
        else:
            self._is_error = True
            difference = _same_shape(outputs, labels) - labels.astype(np.float64)
            self._sum += float(np.sum(difference**2))
            self._count += labels.size

    def result(self) -> Score:
        """Return the score of all batches.

        Raises:
            UsageError: If there was none, or the metric fails.
        """
        if not self._n:
            raise UsageError("there is no sample to score")
        if self._sums is not None:
            return Score(self._name, self._sums.result(), self._n, self._sums.higher_is_better)
        if self._metric is not None:
            value = self._call()
            return Score(self._name, value, self._n, self._higher)
        if self._is_error:
            return Score("mean squared error", self._sum / self._count, self._n, False)
        if self._outputs:
            # One column: whether these are probabilities is known when all have been seen.
            self._add_single(np.concatenate(self._outputs), np.concatenate(self._labels))
            self._outputs, self._labels = [], []
        return Score("accuracy", self._sum / self._count, self._n, True)

    def _add_classes(self, outputs: Array, labels: Array) -> None:
        if labels.ndim > 1 and labels.shape[-1] == 1 and labels.ndim == outputs.ndim:
            labels = labels[..., 0]
        if outputs.shape == labels.shape or outputs.shape == (*labels.shape, 1):
            self._outputs.append(outputs.reshape(labels.shape))
            self._labels.append(labels)
            return
        if outputs.shape[:-1] != labels.shape:
            raise UsageError(
                f"outputs of shape {list(outputs.shape)} do not go with labels of shape "
                f"{list(labels.shape)}",
                why="labels have the outputs' shape without the last axis, that of the classes",
            )
        classes = outputs.shape[-1]
        if labels.size and (int(labels.max()) >= classes or int(labels.min()) < 0):
            wrong = labels.max() if int(labels.max()) >= classes else labels.min()
            raise UsageError(
                f"there is a label {int(wrong)}, the model has {classes} classes",
                hint=f"labels are whole numbers in [0, {classes - 1}]",
            )
        self._sum += float(np.sum(np.argmax(outputs, axis=-1) == labels))
        self._count += labels.size

    def _add_single(self, outputs: Array, labels: Array) -> None:
        known = set(np.unique(labels).tolist())
        values = outputs.astype(np.float64)
        if not (known <= {0, 1} or known <= {-1, 1}):
            raise UsageError(
                f"the model has one output a sample, the labels hold {sorted(known)[:5]}",
                why="one column can tell two classes: 0 and 1, or -1 and 1",
                hint="give real numbers as labels to measure the squared error",
            )
        is_probability = -1 not in known and bool(((values >= 0) & (values <= 1)).all())
        predicted = values > (0.5 if is_probability else 0.0)
        self._sum += float(np.sum(predicted == np.greater(labels, 0)))
        self._count += labels.size

    def _call(self) -> float:
        assert self._metric is not None
        try:
            found = self._metric(np.concatenate(self._outputs), np.concatenate(self._labels))
        except QcompError:
            raise
        except Exception as error:
            raise UsageError(
                "the metric failed", where=self._name, why=f"{type(error).__name__}: {error}"
            ) from error
        if np.ndim(cast("float", found)) or not isinstance(
            found, int | float | np.number | np.ndarray
        ):
            raise UsageError(
                f"the metric returned {type(found).__name__}, no number",
                where=self._name,
                hint="it takes (outputs, labels) as arrays and returns one number",
            )
        value = float(found)
        if not math.isfinite(value):
            raise UsageError(f"the metric returned {value}", where=self._name)
        return value


def score(
    outputs: Array | Mapping[str, Array], labels: Array, metric: str | Metric | None = None
) -> Score:
    """Return how good outputs are.

    Args:
        outputs: The model's output on all samples, or name -> output, of which the first counts.
        labels: The labels, samples first.
        metric: As for :class:`Scorer`.

    Raises:
        UsageError: If outputs, labels and metric do not go together.
    """
    scorer = Scorer(metric)
    scorer.add(outputs, labels)
    return scorer.result()


def _metric(metric: str | Metric | None) -> tuple[str, Metric | None]:
    if metric is None:
        return "", None
    if isinstance(metric, str):
        if ":" not in metric:
            known = [*_OWN, *METRICS]
            near = suggest(metric, known)
            raise UsageError(
                f"there is no metric '{metric}'",
                hint=near
                if near.startswith("did you")
                else f"{', '.join(known)}, module:function or file.py:function",
            )
        return metric, metric_function(metric)
    return getattr(metric, "__qualname__", type(metric).__name__), metric


def _same_shape(outputs: Array, labels: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the outputs in the labels' shape, where they differ by an axis of one entry."""
    for shape in (outputs.shape, outputs.shape[:-1] if outputs.shape[-1:] == (1,) else None):
        if shape == labels.shape:
            return outputs.reshape(shape).astype(np.float64)
    if labels.shape == (*outputs.shape, 1):
        return outputs.reshape(labels.shape).astype(np.float64)
    raise UsageError(
        f"outputs of shape {list(outputs.shape)} do not go with real labels of shape "
        f"{list(labels.shape)}",
        hint="class numbers have to be of an integer type to measure the accuracy",
    )
