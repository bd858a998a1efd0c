"""The character model: one function in three graphs, and worth quantizing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from qcomp.execute import Session

FOLDER = Path(__file__).parents[2] / "examples" / "char_model"
sys.path.insert(0, str(FOLDER))

import char_model  # noqa: E402

sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def held_out() -> np.ndarray:
    _, alphabet = char_model.load()
    return char_model.split(char_model.tokens(alphabet))[1]


def test_the_committed_weights_have_the_perplexity_that_the_readme_says(held_out):
    weights, alphabet = char_model.load()
    logits = Session(char_model.graph(weights)).run({"ids": held_out[:, :-1]})["logits"]
    found = char_model.perplexity(logits, held_out[:, 1:])
    # Help topics differ from one version of Python to the next.
    limit = 0.01 if sys.version_info[:2] == (3, 11) else 0.8
    assert found == pytest.approx(4.889, abs=limit)
    assert sum(array.size for array in weights.values()) == 354_688
    assert len(alphabet) == 103


def test_outliers_leave_the_function_as_it_is(held_out):
    weights, _ = char_model.load()
    feeds = {"ids": held_out[:20, :-1]}
    plain = Session(char_model.graph(weights)).run(feeds)["logits"]
    hard = Session(char_model.graph(char_model.with_outliers(weights))).run(feeds)["logits"]
    np.testing.assert_allclose(hard, plain, atol=2e-4)


def test_one_character_at_a_time_gives_the_same_as_the_whole_context(held_out):
    weights, _ = char_model.load()
    ids = held_out[:3, :-1]
    whole = Session(char_model.graph(weights)).run({"ids": ids})["logits"]
    step = Session(char_model.graph(weights, past=True))
    empty = np.zeros((3, char_model.HEADS, 0, char_model.HEAD), np.float32)
    past = {name: empty for name in step.inputs if name != "ids"}
    for t in range(ids.shape[1]):
        given = step.run({"ids": ids[:, t : t + 1], **past})
        np.testing.assert_allclose(given.pop("logits")[:, 0], whole[:, t], atol=1e-4)
        past = {name.replace("present", "past_key_values"): a for name, a in given.items()}
