"""What the models of the quantization benchmark are judged by: data, metric, distance from float.

A folder holds ``NAME.onnx``, ``NAME.npz`` and ``NAME.json``, which may give the ``range`` of float
inputs to tools that make up their own. The metric named there, ``accuracy``,
``mse``, ``perplexity`` or ``spearman``, says how the arrays are read:

| metric | arrays | inputs of the model |
|---|---|---|
| accuracy | calib_x, eval_x, eval_y | as they are; uint8 NHWC becomes (x/255 - mean)/std, NCHW |
| mse | calib_x, eval_x, eval_y | as they are |
| perplexity | calib_x, eval_x: rows of T + 1 token ids | ``row[:-1]``; ``row[1:]`` is predicted |
| spearman | calib_ids, calib_mask, eval_a/am, eval_b/bm, score | (ids, mask) |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Judge", "Reference", "Task", "read_tasks"]

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]

BATCH = 32
RESAMPLES = 1000
"""Bootstrap samples of the evaluation rows."""


@dataclass(frozen=True)
class Task:
    """One model with its data.

    Attributes:
        name: The model's name.
        onnx: The float model.
        metric: What it is judged by.
        calibration: Input name -> array, samples first.
        evaluation: The same, rows that the metric is taken over.
        targets: What the outputs are compared with.
        span: Least and largest value that float inputs are said to have; None for nothing said.
        loss: Whether a smaller value is a better one.
    """

    name: str
    onnx: Path
    metric: str
    calibration: Feeds
    evaluation: Feeds
    targets: Array
    span: tuple[float, float] | None = None

    @property
    def loss(self) -> bool:
        return self.metric in ("mse", "perplexity")

    @property
    def rows(self) -> int:
        """Rows of the evaluation inputs."""
        return len(next(iter(self.evaluation.values())))

    def batches(self, size: int = BATCH) -> Iterator[Feeds]:
        """Yield the evaluation inputs piece by piece."""
        for start in range(0, self.rows, size):
            yield {name: array[start : start + size] for name, array in self.evaluation.items()}


def read_tasks(folder: Path, names: tuple[str, ...] = (), rows: int | None = None) -> list[Task]:
    """Return the tasks of a folder, those named or all; with the first rows of their data only."""
    found = [p.stem for p in sorted(folder.glob("*.onnx")) if p.with_suffix(".npz").exists()]
    unknown = set(names) - set(found)
    if unknown:
        raise SystemExit(f"no model {', '.join(sorted(unknown))} in {folder}; it has {found}")
    tasks = [_read(folder, name) for name in names or found]
    return tasks if rows is None else [_first(task, rows) for task in tasks]


def _first(task: Task, rows: int) -> Task:
    """Return a task with the first rows of its evaluation data; both sides of pairs."""
    sides = 2 if task.metric == "spearman" else 1
    evaluation = {
        name: np.concatenate([part[:rows] for part in np.split(array, sides)])
        for name, array in task.evaluation.items()
    }
    return replace(task, evaluation=evaluation, targets=task.targets[:rows])


def _read(folder: Path, name: str) -> Task:
    import onnx

    path = folder / f"{name}.onnx"
    about = json.loads((folder / f"{name}.json").read_text())
    data = np.load(folder / f"{name}.npz")
    graph = onnx.load(path, load_external_data=False).graph
    made = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in made]
    metric = about["metric"]
    if metric == "perplexity":
        calib, rows = data["calib_x"].astype(np.int64), data["eval_x"].astype(np.int64)
        return Task(
            name, path, metric, {inputs[0]: calib[:, :-1]}, {inputs[0]: rows[:, :-1]}, rows[:, 1:]
        )
    if metric == "spearman":
        sides = {
            inputs[0]: np.concatenate([data["eval_a"], data["eval_b"]]).astype(np.int64),
            inputs[1]: np.concatenate([data["eval_am"], data["eval_bm"]]).astype(np.int64),
        }
        calibration = {
            inputs[0]: data["calib_ids"].astype(np.int64),
            inputs[1]: data["calib_mask"].astype(np.int64),
        }
        return Task(name, path, metric, calibration, sides, data["score"])
    if metric not in ("accuracy", "mse"):
        raise SystemExit(f"{name}: no metric '{metric}'")
    calib, rows = (_prepared(data[key], about) for key in ("calib_x", "eval_x"))
    span = tuple(about["range"]) if "range" in about else None
    return Task(name, path, metric, {inputs[0]: calib}, {inputs[0]: rows}, data["eval_y"], span)


def _prepared(x: Array, about: Mapping[str, Any]) -> Array:
    if x.dtype != np.uint8:
        return x.astype(np.float32)
    scaled = (x / 255 - np.array(about["mean"])) / np.array(about["std"])
    return scaled.transpose(0, 3, 1, 2).astype(np.float32)


class Reference:
    """Float's outputs of one batch, with what every comparison takes of them.

    Attributes:
        task: The task.
        rows: The rows of the evaluation data.
        outputs: float64, logits centred per position.
        logarithms: Of the probabilities of a language model's tokens, else None.
        values: What the metric is taken of, one a row.
    """

    def __init__(self, task: Task, real: Array, start: int) -> None:
        self.task = task
        self.rows = slice(start, start + len(real))
        self.outputs = self.centred(real)
        self.logarithms = _log_softmax(self.outputs) if task.metric == "perplexity" else None
        self.values = self.judged(self.outputs, self.logarithms)

    def centred(self, outputs: Array) -> Array:
        """Outputs as they are compared."""
        out = outputs.astype(np.float64)
        if self.task.metric in ("accuracy", "perplexity"):
            out -= out.mean(-1, keepdims=True)
        return out

    def judged(self, outputs: Array, logarithms: Array | None) -> Array:
        """What the metric is taken of, one value (or an embedding) a row."""
        targets = self.task.targets
        if logarithms is not None:
            at = targets[self.rows, :, None]
            return -np.take_along_axis(logarithms, at, -1)[..., 0].mean(-1)
        if self.task.metric == "accuracy":
            return (outputs.argmax(-1) == targets[self.rows]).astype(np.float64)
        if self.task.metric == "mse":
            wanted = targets[self.rows].reshape(len(outputs), -1)
            return ((outputs.reshape(len(outputs), -1) - wanted) ** 2).mean(-1)
        return outputs


class Judge:
    """Compares a model with its float form over the whole evaluation set, batch by batch.

    Attributes:
        task: The task.
        signal: Sum of float's squared outputs, logits centred per position.
        noise: Sum of the squared differences.
        divergence: Sum over tokens of KL(float || quantized) in nats.
        tokens: Tokens in that sum.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.signal = self.noise = self.divergence = 0.0
        self.tokens = 0
        self._float: list[Array] = []
        self._quantized: list[Array] = []

    def add(self, real: Reference, got: Array) -> None:
        """Count the quantized model's outputs of one batch."""
        a, b = real.outputs.reshape(-1), real.centred(got).reshape(-1)
        self.signal += float(a @ a)
        self.noise += float((a - b) @ (a - b))
        b = b.reshape(real.outputs.shape)
        q = None if real.logarithms is None else _log_softmax(b)
        if q is not None and real.logarithms is not None:
            p = real.logarithms
            self.divergence += float((np.exp(p) * (p - q)).sum())
            self.tokens += p.shape[0] * p.shape[1]
        self._float.append(real.values)
        self._quantized.append(real.judged(b, q))

    def result(self) -> dict[str, float]:
        """Return value, float, drop (positive is worse), its 95 % interval, sqnr_db and kl."""
        a, b = (np.concatenate(parts) for parts in (self._float, self._quantized))
        if self.task.metric == "spearman":
            a, b = _dots(a), _dots(b)
        rng = np.random.default_rng(0)
        everything = np.arange(len(a))
        drops = [self._drop(a, b, rng.integers(0, len(a), len(a))) for _ in range(RESAMPLES)]
        low, high = np.quantile(drops, [0.025, 0.975])
        out = {
            "float": self._metric(a, everything),
            "value": self._metric(b, everything),
            "drop": self._drop(a, b, everything),
            "drop_low": float(low),
            "drop_high": float(high),
            "sqnr_db": float(10 * np.log10(self.signal / max(self.noise, 1e-300))),
        }
        if self.tokens:
            out["kl"] = self.divergence / self.tokens
        return out

    def _metric(self, values: Array, rows: Array) -> float:
        if self.task.metric == "spearman":
            return _spearman(values[rows], self.task.targets[rows])
        mean = float(values[rows].mean())
        return float(np.exp(mean)) if self.task.metric == "perplexity" else mean

    def _drop(self, a: Array, b: Array, rows: Array) -> float:
        change = self._metric(b, rows) - self._metric(a, rows)
        return change if self.task.loss else -change


def _log_softmax(x: Array) -> Array:
    top = x.max(-1, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(-1, keepdims=True))


def _dots(embeddings: Array) -> Array:
    half = len(embeddings) // 2
    return (embeddings[:half] * embeddings[half:]).sum(-1)


def _ranks(x: Array) -> Array:
    """Return ranks, ties averaged."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[inverse]


def _spearman(x: Array, y: Array) -> float:
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])
