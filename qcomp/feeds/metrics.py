"""Figures of merit by name, summed batch by batch.

| name               | outputs y, labels t                                          | better |
|--------------------|--------------------------------------------------------------|--------|
| `perplexity`       | logits [..., V], class numbers: exp of the mean of -log p(t) | lower  |
| `cosine`           | rows of the last axis: mean of y t / (norm y norm t)         | higher |
| `rank-correlation` | one number a sample: Spearman's, ties share their mean rank  | higher |

A label of -100 is left out of the perplexity, as PyTorch's losses do.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.feeds.inputs import Array
from qcomp.feeds.preprocess import load_function

__all__ = ["METRICS", "Accumulator", "metric_function"]

_IGNORED = -100
_ROWS = 4096
"""Positions whose likelihoods are computed at a time."""


class Accumulator(Protocol):
    """Takes batches, gives one number."""

    higher_is_better: bool

    def add(self, outputs: Array, labels: Array) -> None:
        """Take a batch."""

    def result(self) -> float:
        """Return the figure of all batches."""


def _mismatch(outputs: Array, labels: Array, why: str) -> UsageError:
    return UsageError(
        f"outputs of shape {list(outputs.shape)} do not go with labels of shape "
        f"{list(labels.shape)}",
        why=why,
    )


class _Perplexity:
    higher_is_better = False

    def __init__(self) -> None:
        self.loss = 0.0
        self.count = 0

    def add(self, outputs: Array, labels: Array) -> None:
        if labels.dtype.kind not in "iu" or outputs.shape[:-1] != labels.shape:
            raise _mismatch(outputs, labels, "perplexity takes logits and class numbers")
        logits, wanted = outputs.reshape(-1, outputs.shape[-1]), labels.reshape(-1)
        kept = wanted != _IGNORED
        logits, wanted = logits[kept], wanted[kept]
        if wanted.size and not 0 <= int(wanted.min()) <= int(wanted.max()) < logits.shape[-1]:
            raise UsageError(
                f"there are labels from {int(wanted.min())} to {int(wanted.max())}",
                why=f"the model has {logits.shape[-1]} classes",
            )
        for start in range(0, len(wanted), _ROWS):
            part = logits[start : start + _ROWS].astype(np.float64)
            top = part.max(axis=1)
            total = top + np.log(np.exp(part - top[:, None]).sum(axis=1))
            chosen = part[np.arange(len(part)), wanted[start : start + _ROWS]]
            self.loss += float((total - chosen).sum())
        self.count += len(wanted)

    def result(self) -> float:
        if not self.count:
            raise UsageError("no label counts: all are -100")
        return float(np.exp(self.loss / self.count))


class _Cosine:
    higher_is_better = True

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0

    def add(self, outputs: Array, labels: Array) -> None:
        if outputs.shape != labels.shape or outputs.ndim < 2:
            raise _mismatch(outputs, labels, "cosine takes vectors of one length")
        y = outputs.reshape(-1, outputs.shape[-1]).astype(np.float64)
        t = labels.reshape(y.shape).astype(np.float64)
        length = np.linalg.norm(y, axis=1) * np.linalg.norm(t, axis=1)
        product = (y * t).sum(axis=1)
        self.total += float(
            np.where(length > 0, product / np.where(length > 0, length, 1), 0).sum()
        )
        self.count += len(y)

    def result(self) -> float:
        return self.total / self.count


class _RankCorrelation:
    higher_is_better = True

    def __init__(self) -> None:
        self.outputs: list[Array] = []
        self.labels: list[Array] = []

    def add(self, outputs: Array, labels: Array) -> None:
        if outputs.size != labels.size or outputs.size != len(labels):
            raise _mismatch(outputs, labels, "a rank correlation takes one number a sample")
        self.outputs.append(outputs.reshape(-1))
        self.labels.append(labels.reshape(-1))

    def result(self) -> float:
        y, t = _ranks(np.concatenate(self.outputs)), _ranks(np.concatenate(self.labels))
        y, t = y - y.mean(), t - t.mean()
        size = float(np.sqrt((y * y).sum() * (t * t).sum()))
        if not size:
            raise UsageError(
                "there is no rank correlation", why="all outputs, or all labels, are the same"
            )
        return float((y * t).sum() / size)


def _ranks(values: Array) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse], np.float64)


METRICS: dict[str, Callable[[], Accumulator]] = {
    "perplexity": _Perplexity,
    "cosine": _Cosine,
    "rank-correlation": _RankCorrelation,
}
"""Names of the figures here; accuracy and squared error are the scorer's own."""


def metric_function(text: str) -> Callable[[Array, Array], object]:
    """Return the function that ``module:function`` or ``file.py:function`` names.

    Raises:
        UsageError: If there is none, or the file fails.
    """
    module, _, attribute = text.rpartition(":")
    if not module.endswith(".py"):
        return cast("Callable[[Array, Array], object]", load_function(text, "metric"))
    path = Path(module)
    if not path.is_file():
        raise UsageError(f"there is no file '{module}' for the metric '{text}'")
    spec = importlib.util.spec_from_file_location(f"_qcomp_metric_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"'{module}' is no Python file")
    found = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(found)
    except Exception as error:
        raise UsageError(
            f"the file '{module}' of the metric cannot be run",
            why=f"{type(error).__name__}: {error}",
        ) from error
    function = getattr(found, attribute, None)
    if not callable(function):
        from qcomp.errors import suggest

        known = [n for n, value in vars(found).items() if callable(value) and n[0] != "_"]
        raise UsageError(
            f"'{module}' has no function '{attribute}'",
            hint=suggest(attribute, known) if known else "",
        )
    return cast("Callable[[Array, Array], object]", function)
