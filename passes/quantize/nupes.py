"""NUPES: levels of equal steps in a warped domain, with an exponent learned for each weight.

    f_a(x) = sign(x) |x|^a,      f_a(x y) = f_a(x) f_a(y)
    W[n, k] = s[n] f_{1/a}(i / 2^(bits-1)),      i in [-2^(bits-1), 2^(bits-1) - 1]

The power functions are the continuous automorphisms of multiplication, so integers i of f_a(W) have
products as those of W have. Below a = 1 the steps are finer about 0, where most weights are. a, the
scales s and the integers are learned on the layer's output, with H the second moments of its input:

1. For each a on a line, scales are searched and weights rounded to nearest, errors weighed by
   diag(H).
2. For the best three and for a = 1, integers by error feedback, from searched scales and from such
   that reach each row's largest weight, then coordinate descent over the
   whole range of integers (no weight is bound to its two neighbours) and scales of least error, in
   turns.
3. The best one of these and its integers: a by golden section with integers fixed, then integers
   and scales again.

Where a = 1 is not worse by ``gain``, it is what is handed on, as integers of equal steps without a
table: ``quantize-weights`` has operators for those. Else the integers are levels of a table of
2^bits entries (:mod:`qcomp.passes.quantize.lookup_weights`).

Preconditions: calibration data; ``quantize-weights`` behind it.
Preserved: everything; the graph does not change.
Cost: a layer's K^3 / 1.5 + 30 N K^2 multiplications.
Source: Yvinec, Dapogny and Bailly 2023, arXiv:2308.05600, of which we read the abstract: power
functions as automorphisms, a learned exponent, weights learned over the entire quantized space.
They learn by gradient descent; the steps above are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.quantize.lookup.codes import Codes, descend, feed_back, fit_scales, nearest
from qcomp.passes.quantize.lookup.layers import LookupPass, Problem, even_table, peak_scales

__all__ = ["Nupes", "power_table", "warp"]

Floats = npt.NDArray[np.float32]

_EXPONENTS = np.round(np.arange(0.5, 1.55, 0.05), 2)
_SHRINKING = np.linspace(1.0, 0.5, 11).astype(np.float32)
_FINALISTS = 3
_ROUNDS = 2
_GOLDEN = 0.5 * (5.0**0.5 - 1.0)


def warp(x: npt.NDArray[np.floating], exponent: float) -> npt.NDArray[np.floating]:
    """f_a(x) = sign(x) |x|^a, an automorphism of multiplication.

    | x    | a = .5 | a = 2 |
    |------|--------|-------|
    | -4.0 | -2.0   | -16.0 |
    | 0.0  | 0.0    | 0.0   |
    | 0.25 | 0.5    | 0.0625 |

    Args:
        x: Any shape.
        exponent: a > 0.
    """
    return np.sign(x) * np.abs(x) ** exponent


def power_table(bits: int, exponent: float) -> Floats:
    """The levels f_{1/a}(i / 2^(bits-1)) in ascending order, float32[1, 2^bits]."""
    return warp(even_table(bits).astype(np.float64), 1.0 / exponent).astype(np.float32)


@dataclass(frozen=True)
class Nupes(LookupPass):
    """Choose integers in a domain warped by a power, with a learned exponent (NUPES).

    Attributes:
        exponent: The exponent of all weights; 0: learned for each.
        gain: Share of the output error that a learned exponent has to take away, beside a = 1.
    """

    name: ClassVar[str] = "nupes"

    exponent: float = 0.0
    gain: float = 0.01

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        super().__post_init__()
        if self.exponent and not 0.1 <= self.exponent <= 10.0:
            raise UsageError(
                f"nupes: exponent is {self.exponent}", hint="0.1 to 10; 0 for a learned one"
            )
        if not 0.0 <= self.gain < 1.0:
            raise UsageError(f"nupes: gain is {self.gain}", hint="a share, 0 to 1")

    def choose(self, problem: Problem) -> tuple[Codes, bool, str]:
        """Learn exponent, scales and integers of one matrix."""
        if self.exponent:
            codes = self._learned(problem, self.exponent)
            return codes, self.exponent == 1.0, f"nupes, a = {self.exponent:g}"
        plain = self._learned(problem, 1.0)
        first = {float(a): _rounded(problem, float(a))[1] for a in _EXPONENTS}
        tried = sorted(first, key=first.__getitem__)[:_FINALISTS]
        found = [(a, self._learned(problem, a)) for a in tried if a != 1.0]
        least = float(plain.errors(problem.weight, problem.hessian).sum())
        best, codes, error = 1.0, plain, least
        for a, one in found:
            a, one, left = self._refined(problem, a, one)
            if left < error:
                best, codes, error = a, one, left
        if best == 1.0 or error > (1.0 - self.gain) * least:
            return plain, True, "nupes, a = 1"
        return codes, False, f"nupes, a = {best:.3f}"

    def _learned(self, problem: Problem, exponent: float) -> Codes:
        """Integers and scales for an exponent: each row's best from two starts."""
        w, h = problem.weight, problem.hessian
        searched, _ = _rounded(problem, exponent)
        found = []
        for scale in (searched.scale, peak_scales(w)):
            codes = nearest(w, scale, searched.table, searched.book)
            if problem.factor is not None:
                codes = feed_back(w, codes, problem.factor, problem.order)
            found.append(self._relearned(problem, codes))
        first, second = found
        better = second.errors(w, h) < first.errors(w, h)
        return replace(
            first,
            levels=np.where(better[:, None], second.levels, first.levels),
            scale=np.where(better, second.scale, first.scale),
        )

    def _relearned(self, problem: Problem, codes: Codes) -> Codes:
        w, h = problem.weight, problem.hessian
        for _ in range(_ROUNDS):
            codes = descend(w, codes, h, self.sweeps)
            codes = fit_scales(w, codes, h)
        return descend(w, codes, h, self.sweeps)

    def _refined(
        self, problem: Problem, exponent: float, codes: Codes
    ) -> tuple[float, Codes, float]:
        """The exponent of least error for fixed integers, integers for it, and their error."""
        w, h, bits = problem.weight, problem.hessian, problem.bits

        def tried(a: float) -> tuple[float, Codes]:
            one = fit_scales(w, replace(codes, table=power_table(bits, a)), h)
            return float(one.errors(w, h).sum()), one

        low, high = exponent - 0.1, exponent + 0.1
        for _ in range(8):
            inner = [high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)]
            if tried(inner[0])[0] < tried(inner[1])[0]:
                high = inner[1]
            else:
                low = inner[0]
        a = (low + high) / 2
        one = self._relearned(problem, tried(a)[1])
        before, after = (float(c.errors(w, h).sum()) for c in (codes, one))
        return (a, one, after) if after < before else (exponent, codes, before)


def _rounded(problem: Problem, exponent: float) -> tuple[Codes, float]:
    """Nearest integers with the best of some scales a row, and the error weighed by diag(H)."""
    w, table = problem.weight, power_table(problem.bits, exponent)
    book, importance = np.zeros(len(w), np.intp), np.einsum("kk->k", problem.hessian)
    peak = peak_scales(w)
    best, scale = np.full(len(w), np.inf), peak
    for factor in _SHRINKING:
        codes = nearest(w, peak * factor, table, book)
        error = np.square(codes.real() - w) @ importance
        better = error < best
        best, scale = np.where(better, error, best), np.where(better, codes.scale, scale)
    return nearest(w, scale, table, book), float(best.sum())
