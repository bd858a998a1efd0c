"""Labels find their samples, and outputs get the score that they deserve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcomp.errors import UsageError
from qcomp.feeds import Input, Score, Scorer, calibration_batches, labels_for, score

X = [Input("x", np.float32, [None, 2])]
DATA = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    "labels",
    [
        {"y": Y},
        {"labels": Y, "other": np.zeros(3)},
        {"label": Y},
        {"anything": Y},
        Y,
        Y.tolist(),
    ],
    ids=["y", "labels", "label", "the only one", "array", "list"],
)
def test_labels_of_the_calibration_samples_are_found(labels: object) -> None:
    calibration = calibration_batches({"x": DATA}, X)
    found = labels_for(labels, X, calibration=calibration)
    assert found.is_calibration
    assert found.batches is calibration
    np.testing.assert_array_equal(found.labels, Y)


def test_labels_in_a_file_are_found(tmp_path: Path) -> None:
    calibration = calibration_batches(({"x": row[None]} for row in DATA), X)
    np.savez(tmp_path / "y.npz", target=Y)
    np.save(tmp_path / "y.npy", Y)
    for name in ("y.npz", "y.npy"):
        found = labels_for(tmp_path / name, X, calibration=calibration)
        np.testing.assert_array_equal(found.labels, Y)


def test_a_file_with_inputs_brings_its_own_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", x=DATA[:4] + 1, y=Y[:4])
    calibration = calibration_batches({"x": DATA}, X)
    found = labels_for(tmp_path / "e.npz", X, calibration=calibration)
    assert not found.is_calibration
    np.testing.assert_array_equal(next(iter(found.batches()))["x"], DATA[:4] + 1)


def test_steps_name_labels_and_evaluation_samples() -> None:
    data = {"train": DATA, "test": DATA[:3] * 2, "classes": Y[:3], "y": np.zeros(6, int)}
    steps = {"from": "train", "eval": "test", "labels": "classes", "scale": 10}
    calibration = calibration_batches(data, X, preprocess=steps)
    found = labels_for(data, X, calibration=calibration, preprocess=steps)
    np.testing.assert_array_equal(next(iter(found.batches()))["x"], DATA[:3] * 20)
    np.testing.assert_array_equal(found.labels, Y[:3])
    # A file of labels alone belongs to the calibration samples, whatever its array is called.
    alone = labels_for({"other": Y}, X, calibration=calibration, preprocess=steps)
    assert alone.is_calibration


def test_a_function_makes_the_evaluation_samples_too() -> None:
    def make(arrays):
        return {"x": arrays["raw"] + 1}

    calibration = calibration_batches({"raw": DATA}, X, preprocess=make)
    found = labels_for({"raw": DATA[:2], "y": Y[:2]}, X, calibration=calibration, preprocess=make)
    np.testing.assert_array_equal(next(iter(found.batches()))["x"], DATA[:2] + 1)
    assert labels_for({"y": Y}, X, calibration=calibration, preprocess=make).is_calibration


def test_accuracy_is_that_of_the_largest_output() -> None:
    outputs = np.array([[1, 0, 0], [0, 2, 1], [0, 0, 9], [3, 4, 0]])
    assert score(outputs, np.array([0, 1, 2, 0])) == Score("accuracy", 0.75, 4, True)
    assert score({"logits": outputs}, np.array([[0], [1], [2], [1]], np.uint8)).value == 1


def test_accuracy_runs_over_every_position_of_a_sequence() -> None:
    outputs = np.zeros((2, 3, 5))
    outputs[..., 4] = 1
    labels = np.array([[4, 4, 0], [4, 0, 0]])
    assert score(outputs, labels) == Score("accuracy", 0.5, 2, True)


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        ([[-3.0], [0.2], [5.0]], [0, 1, 1]),
        ([-3.0, 0.2, 5.0], [0, 1, 1]),
        ([[-3.0], [0.2], [5.0]], [[0], [1], [1]]),
        ([[0.1], [0.4], [0.9]], [0, 0, 1]),
        ([[-0.3], [0.2], [0.9]], [-1, 1, 1]),
        ([[0.3], [0.2], [0.9]], [1, 1, 1]),
    ],
)
def test_a_single_column_tells_two_classes(outputs: list, labels: list) -> None:
    value = score(np.array(outputs), np.array(labels)).value
    assert value == (1 if labels != [1, 1, 1] else 1 / 3)
    flipped = np.array(labels).copy()
    flipped.flat[0] = 1 if flipped.flat[0] <= 0 else 0
    assert score(np.array(outputs), flipped).value != value


def test_whether_a_column_holds_probabilities_is_known_when_all_were_seen() -> None:
    scorer = Scorer()
    scorer.add(np.array([[0.2]]), np.array([1]))
    scorer.add(np.array([[-1.0]]), np.array([0]))
    assert scorer.result().value == 1


def test_real_labels_give_the_mean_squared_error() -> None:
    result = score(np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 2.0, 1.0]))
    assert result == Score("mean squared error", 3.0, 3, False)
    assert score(np.ones((2, 2)), np.zeros((2, 2))).value == 1


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_batches_give_the_score_of_the_whole(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    total = sum(sizes)
    outputs, classes = rng.normal(size=(total, 4)), rng.integers(0, 4, total)
    targets = rng.normal(size=(total, 4))
    for labels in (classes, targets):
        scorer, start = Scorer(), 0
        for size in sizes:
            scorer.add(outputs[start : start + size], labels[start : start + size])
            start += size
        assert scorer.result().value == pytest.approx(score(outputs, labels).value, rel=1e-12)


def test_a_metric_of_the_user_is_called_once_with_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_metric_module.py").write_text(
        "def worst(outputs, labels):\n    return abs(outputs - labels).max()\n"
    )
    monkeypatch.chdir(tmp_path)
    scorer = Scorer("my_metric_module:worst")
    scorer.add(np.array([1.0, 2.0]), np.array([1.0, 5.0]))
    scorer.add(np.array([7.0]), np.array([8.0]))
    assert scorer.result() == Score("my_metric_module:worst", 3.0, 3, None)


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        (np.zeros((4, 3)), np.zeros(3, int), "do not go with labels"),
        (np.zeros((4, 3)), np.zeros((4, 2), int), "without the last axis"),
        (np.zeros((4, 3)), np.array([0, 1, 2, 3]), "a label 3, the model has 3 classes"),
        (np.zeros((4, 3)), np.array([0, 1, 2, -1]), "a label -1"),
        (np.zeros((4, 3)), np.zeros(4), "class numbers have to be of an integer type"),
        (np.zeros((4, 1)), np.array([0, 1, 2, 1]), "one output a sample"),
        (np.zeros(()), np.zeros(4), "do not go with labels"),
        (np.zeros((0, 3)), np.zeros(0, int), "no sample"),
    ],
)
def test_outputs_that_do_not_fit_are_said(
    outputs: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        score(outputs, labels)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("module-function", "module:function"),
        ("perplexiti", "did you mean 'perplexity'"),
        ("accuracy", "float64 have no accuracy"),
        ("nowhere.py:f", "no file 'nowhere.py'"),
        (lambda outputs, labels: float("nan"), "returned nan"),
        (lambda outputs, labels: 1 / 0, "ZeroDivisionError"),
        (lambda outputs, labels: None, "returned NoneType, no number"),
        (lambda outputs, labels: "0.5", "returned str, no number"),
        (lambda outputs, labels: outputs, "returned ndarray, no number"),
    ],
)
def test_a_metric_that_does_not_work_is_said(metric: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        score(np.zeros(3), np.zeros(3), metric)


def test_perplexity_is_that_of_the_mean_likelihood_whatever_the_batches_are() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, (6, 5, 7)).astype(np.float32)
    labels = rng.integers(0, 7, (6, 5))
    p = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(-1, keepdims=True)
    likely = np.take_along_axis(p, labels[..., None], -1)
    scorer = Scorer("perplexity")
    for rows in (slice(0, 4), slice(4, 6)):
        scorer.add(logits[rows], labels[rows])
    found = scorer.result()
    assert found.value == pytest.approx(np.exp(-np.log(likely).mean()))
    assert (found.metric, found.n, found.higher_is_better) == ("perplexity", 6, False)
    labels[0] = -100
    assert score(logits, labels, "perplexity").value == pytest.approx(
        np.exp(-np.log(likely[1:]).mean())
    )


def test_cosine_is_the_mean_over_vectors_and_zero_vectors_count_as_zero() -> None:
    outputs = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    labels = np.array([[2.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    found = score(outputs, labels, "cosine")
    assert found.value == pytest.approx((1 + np.sqrt(0.5) + 0) / 3)
    assert found.higher_is_better


@pytest.mark.parametrize(
    ("outputs", "labels", "wanted"),
    [
        ([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0], 1.0),
        ([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], -1.0),
        ([1.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], 0.9486832980505138),
    ],
)
def test_rank_correlation_is_spearmans_with_mean_ranks_of_ties(
    outputs: list[float], labels: list[float], wanted: float
) -> None:
    values = np.array(outputs)[:, None]
    assert score(values, np.array(labels), "rank-correlation").value == pytest.approx(wanted)


def test_a_metric_may_be_a_function_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def worst(outputs, labels):\n    return abs(outputs - labels).max()\n")
    found = score(np.array([1.0, 2.0]), np.array([1.0, 5.0]), f"{path}:worst")
    assert found.value == 3.0
    with pytest.raises(UsageError, match="did you mean 'worst'"):
        score(np.zeros(2), np.zeros(2), f"{path}:wurst")
    path.write_text("raise RuntimeError('no')\n")
    with pytest.raises(UsageError, match="cannot be run"):
        score(np.zeros(2), np.zeros(2), f"{path}:worst")


def test_the_user_says_whether_more_is_better_of_their_metric() -> None:
    scorer = Scorer(lambda outputs, labels: 2.0, higher_is_better=False)
    scorer.add(np.zeros(2), np.zeros(2))
    assert scorer.result().higher_is_better is False


@pytest.mark.parametrize("name", ["accuracy", "top-1", "mse", "mean-squared-error"])
def test_class_numbers_have_an_accuracy_and_a_squared_error(name: str) -> None:
    is_error = name.startswith("m")
    labels = np.array([[0, 1], [1, 0]]) if is_error else np.array([1, 0])
    found = score(np.array([[0.0, 1.0], [1.0, 0.0]]), labels, name)
    assert found.value == (0.0 if is_error else 1.0)


@pytest.mark.parametrize(
    ("metric", "labels", "message"),
    [
        ("perplexity", np.zeros(4), "logits and class numbers"),
        ("perplexity", np.full(4, 3), "labels from 3 to 3"),
        ("perplexity", np.full(4, -100), "all are -100"),
        ("cosine", np.zeros(4), "vectors of one length"),
        ("rank-correlation", np.zeros(4), "one number a sample"),
    ],
)
def test_labels_that_a_metric_cannot_take_are_said(
    metric: str, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        score(np.zeros((4, 3)), labels, metric)


def test_equal_outputs_have_no_rank_correlation() -> None:
    with pytest.raises(UsageError, match="are the same"):
        score(np.zeros((4, 1)), np.arange(4.0), "rank-correlation")


def test_outputs_with_nan_have_no_score() -> None:
    with pytest.raises(UsageError, match="holds NaN"):
        score(np.array([[np.nan, 1.0]]), np.array([1]))
