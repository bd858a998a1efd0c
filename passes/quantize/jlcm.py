"""JLCM: several codebooks a weight, each of some neurons of like distribution, learned with levels.

    W[n, k] = t[b(n), q[n, k]],     t float32[T, 2^bits],     one b for ``neurons`` rows

1. Neurons (rows, output channels) are sorted by their spread, so that those of like distribution
   stand together, and every ``neurons`` of them share a codebook.
2. Each codebook starts as Lloyd's for its weights, errors weighed by diag(H) of the layer's input.
3. Levels by error feedback; then in turns, ``rounds`` times, levels by proximal coordinate descent
   and codebooks of least output error for them (:mod:`qcomp.passes.quantize.lookup.codes`).

With ``neurons=4`` and 2 bits, codebooks take as many bytes as a float scale for each neuron. The
mapping costs nothing where the sorted order can stay: ``sort-neurons`` in front puts neurons in
order that layers alone read, and those layers' weights follow. Elsewhere the file has the number of
each neuron's codebook, 4 bits up to 16 codebooks, else 8: no more than an index that puts sorted
neurons back.

Preconditions: calibration data; ``quantize-weights`` behind it
(:mod:`qcomp.passes.quantize.lookup_weights`).
Preserved: everything; the graph does not change.
Cost: a layer's K^3 / 1.5 + rounds (2^bits + 2) N K^2 multiplications.
Source: Yvinec, Dapogny and Bailly 2023, arXiv:2309.17361, of which we read the abstract and a
summary: grouped neurons, codebooks and mappings learned jointly, a gradient that keeps the search
proximal. They weigh gradients by the distance of two codewords; projected coordinate steps and
closed forms for the codebooks are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.quantize.lookup.codes import Codes, descend, feed_back, fit_tables, nearest
from qcomp.passes.quantize.lookup.layers import LookupPass, Problem

__all__ = ["Jlcm", "lloyd"]

Floats = npt.NDArray[np.float32]

_LLOYD_ROUNDS = 30
_STRETCHES = (1.0, 1.2, 1.4, 1.7)
"""Of Lloyd's codebooks: error feedback gains by larger steps, which reach the largest weights."""

_MOST_BOOKS = 256
"""A codebook's number is one byte."""


@dataclass(frozen=True)
class Jlcm(LookupPass):
    """Learn codebooks that neurons of like distribution share, and the levels (JLCM).

    Attributes:
        neurons: Output channels that share a codebook; more where there would be more than 256
            codebooks. 0: all, one codebook a weight.
        rounds: Turns of levels and codebooks; 0: codebooks by Lloyd's algorithm, nearest levels.
    """

    name: ClassVar[str] = "jlcm"

    bits: int = 2
    neurons: int = 4
    rounds: int = 6

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        super().__post_init__()
        if self.neurons < 0 or self.rounds < 0:
            raise UsageError("jlcm: neurons and rounds are at least 0")

    def choose(self, problem: Problem) -> tuple[Codes, bool, str]:
        """Learn codebooks and levels of one matrix."""
        w, h = problem.weight, problem.hessian
        count = len(w)
        each = max(self.neurons or count, -(-count // _MOST_BOOKS))
        book = np.empty(count, np.intp)
        importance = np.einsum("kk->k", h)
        spread = np.einsum("nk,nk,k->n", w, w, importance)
        order = np.argsort(spread, kind="stable")
        if problem.sorted:
            order = np.arange(count)
            each = next(n for n in range(each, count + 1) if count % n == 0)
        book[order] = np.arange(count) // each
        importance = np.maximum(importance, 1e-12 * importance.max(initial=1e-30))
        table = np.stack(
            [lloyd(w[book == b], importance, 1 << problem.bits) for b in range(book.max() + 1)]
        )
        codes = nearest(w, np.ones(count, np.float32), table, book)
        text = f"jlcm, {len(table)} codebooks"
        if not self.rounds:
            return codes, False, text
        best, least = codes, np.full(len(table), np.inf)
        for stretch in _STRETCHES:
            found = self._learned(problem, replace(codes, table=table * np.float32(stretch)))
            errors = np.bincount(book, found.errors(w, h), len(table))
            better = errors < least
            least = np.where(better, errors, least)
            best = Codes(
                np.where(better[book][:, None], found.levels, best.levels),
                found.scale,
                np.where(better[:, None], found.table, best.table),
                book,
            )
        return best, False, text

    def _learned(self, problem: Problem, codes: Codes) -> Codes:
        """Codebooks and levels from where they start."""
        w, h = problem.weight, problem.hessian
        if problem.factor is not None:
            codes = feed_back(w, codes, problem.factor, problem.order)
        for _ in range(self.rounds):
            codes = descend(w, codes, h, self.sweeps)
            codes = fit_tables(w, codes, h)
        return descend(w, codes, h, self.sweeps)


def lloyd(weight: Floats, importance: Floats, size: int) -> Floats:
    """Entries of least squared error for some rows, ascending, float32[size].

    Args:
        weight: float32[N, K].
        importance: float32[K] > 0, what an error in a column counts.
        size: Entries.

    Source: Lloyd 1982, 'Least squares quantization in PCM', method I.
    """
    order = np.argsort(weight, axis=None, kind="stable")
    values = weight.reshape(-1)[order].astype(np.float64)
    counts = np.broadcast_to(importance, weight.shape).reshape(-1)[order].astype(np.float64)
    below = np.concatenate([[0.0], np.cumsum(counts)])
    sums = np.concatenate([[0.0], np.cumsum(counts * values)])
    # Thirds of the mass at each step: denser where weights are, as the best entries are.
    mass = np.cumsum(np.cbrt(np.diff(values, append=values[-1] + 1e-30) ** 2))
    starts = np.searchsorted(mass, mass[-1] * (np.arange(size) + 0.5) / size)
    entries = values[np.minimum(starts, len(values) - 1)]
    for _ in range(_LLOYD_ROUNDS):
        borders = np.searchsorted(values, (entries[1:] + entries[:-1]) / 2)
        borders = np.concatenate([[0], borders, [len(values)]])
        inside = below[borders[1:]] - below[borders[:-1]]
        means = (sums[borders[1:]] - sums[borders[:-1]]) / np.where(inside > 0, inside, 1.0)
        found = np.sort(np.where(inside > 0, means, entries))
        if np.array_equal(found, entries):
            break
        entries = found
    return entries.astype(np.float32)
