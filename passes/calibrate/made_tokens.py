"""Rows of tokens: drawn at random, then spoken by the model itself where it predicts tokens.

Random rows follow a Zipf-Mandelbrot law over the ids, which vocabularies list by frequency:

    P(id) ~ 1 / (id + V / 30)

framed as the well-known vocabularies frame a sentence. Every other row repeats at most 8 tokens:
attention over many unlike tokens averages them away, over like ones it does not. A language model
then draws its own text. Drawing token by token takes as many runs as there are tokens. Here every
position draws at once from what the round before left of the text in front of it, always with the
same random number:

    x_t = min { v : sum_{w <= v} softmax(logits(x_<t))_w >= u_t }          (all t at once)

After k rounds the first k tokens are an autoregressive sample exactly, and the fixed point is one
as a whole (Jacobi iteration); ranges need no more than a few. A model whose logits see the whole
row (masked language models) draws every position from its own logits.

Source: Liu et al. 2023, LLM-QAT, arXiv:2305.17888, section 3.1 (data drawn from the model itself);
Song et al. 2020, arXiv:2002.03629, algorithm 1 (the iteration).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from qcomp.execute import HybridSession
    from qcomp.passes.calibrate.made_inputs import MadeInput

__all__ = ["FRAMES", "draw_from_model", "random_rows", "row_lengths"]

Ids = npt.NDArray[np.int64]
Feeds = dict[str, npt.NDArray[np.generic]]

FRAMES: Mapping[int, tuple[int, int, int]] = {
    **dict.fromkeys((30522, 28996, 119547, 105879, 21128), (101, 102, 0)),
    **dict.fromkeys((50265, 250002), (0, 2, 1)),
}
"""Size of a vocabulary -> first token, last token, padding: BERT's, RoBERTa's and XLM-R's."""

_LEAST = 4
_REPEATED = 8


def row_lengths(count: int, length: int, rng: np.random.Generator) -> Ids:
    """Lengths of rows that a mask cuts, int64[count], evenly spread in their logarithm."""
    low, high = np.log(min(_LEAST, length)), np.log(length + 1)
    return np.minimum(np.exp(rng.uniform(low, high, count)).astype(np.int64), length)


def random_rows(lengths: Ids, length: int, bound: int, rng: np.random.Generator) -> Ids:
    """Return tokens int64[rows, length], padded behind ``lengths``."""
    weight = 1.0 / (np.arange(bound) + bound / 30.0)
    shares = np.cumsum(weight / weight.sum())
    ids = np.searchsorted(shares, rng.uniform(size=(len(lengths), length)))
    ids = np.minimum(ids, bound - 1).astype(np.int64)
    for row in ids[1::2]:
        row[:] = rng.choice(row[: rng.integers(1, _REPEATED + 1)], length)
    first, last, padding = FRAMES.get(bound, (-1, -1, 0))
    if first >= 0:
        ids[:, 0] = first
        ids[np.arange(len(ids)), lengths - 1] = last
    ids[np.arange(length) >= lengths[:, None]] = padding
    return ids


def draw_from_model(
    session: HybridSession,
    feeds: Feeds,
    tokens: MadeInput,
    rounds: int,
    rng: np.random.Generator,
    batch: int = 8,
) -> str:
    """Let a language model draw the tokens of ``feeds`` itself, in place.

    Returns:
        What was done; "" where no output predicts tokens.
    """
    rows, length = feeds[tokens.name].shape[0], tokens.shape[-1]

    def logits_of(start: int) -> npt.NDArray[np.float32] | None:
        part = {
            n: a[start : start + batch] if len(a) == rows else a for n, a in feeds.items() if a.ndim
        }
        run = session.run({**feeds, **part}, shots=0)
        for value in run.values():
            if np.shape(value)[1:] == (length, tokens.bound):
                return np.asarray(value, np.float32)
        return None

    if len(tokens.shape) != 1 or rows < batch or length < 2:
        return ""
    plain = logits_of(0)
    if plain is None:
        return ""
    kept = feeds[tokens.name]
    feeds[tokens.name] = kept.copy()
    feeds[tokens.name][:, -1] = (kept[:, -1] + 1) % tokens.bound
    changed = logits_of(0)
    assert changed is not None
    # A causal model's earlier logits do not know the last token.
    causal = bool(np.allclose(plain[:, :-1], changed[:, :-1], rtol=1e-4, atol=1e-4))
    feeds[tokens.name] = kept
    u = rng.uniform(size=(rows, length))
    for _ in range(rounds):
        before = feeds[tokens.name].copy()
        for start in range(0, rows, batch):
            found = logits_of(start)
            assert found is not None
            part = slice(start, start + batch)
            drawn = _drawn(found, u[part]).astype(kept.dtype)
            if causal:
                feeds[tokens.name][part, 1:] = drawn[:, :-1]
            else:
                feeds[tokens.name][part, 1:-1] = drawn[:, 1:-1]
        if np.array_equal(before, feeds[tokens.name]):
            break
    how = "drawn by the model itself, position by position from the ones before"
    return how if causal else "drawn by the model itself, each from the row around it"


def _drawn(logits: npt.NDArray[np.float32], u: npt.NDArray[np.float64]) -> Ids:
    """Ids int64[n, T] whose cumulative probability first reaches u[n, T]."""
    out = np.empty(u.shape, np.int64)
    for row in range(len(u)):
        p = np.exp(logits[row] - logits[row].max(-1, keepdims=True)).astype(np.float64)
        shares = np.cumsum(p, axis=-1)
        out[row] = (shares < u[row, :, None] * shares[:, -1:]).sum(-1)
    return out
