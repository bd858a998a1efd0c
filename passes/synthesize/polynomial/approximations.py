"""Chebyshev series of functions that algorithms apply to matrices, with their errors stated.

Each function returns Chebyshev coefficients from degree 0 up and the largest error, on the part of
[-1, 1] that its docstring names. The even and the odd part of a series go into
:func:`~qcomp.passes.synthesize.polynomial.phases.symmetric_phases`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.passes.synthesize.polynomial.phases import greatest

__all__ = [
    "Series",
    "approximate",
    "exponential_parts",
    "inverse_series",
    "parts",
    "sign_series",
]

_MOST = 4000
_MARGIN = 1e-6
"""How far a series stays below 1, so that its phases are found."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A Chebyshev series ``f(x) = scale * sum_k coefs[k] T_k(x)``.

    Attributes:
        coefs: float64[d + 1], at most 1 in magnitude on [-1, 1].
        scale: What the series is to be multiplied by.
        error: Largest ``|scale * series - f|`` where f is approximated.
    """

    coefs: NDArray[np.float64]
    scale: float
    error: float

    @property
    def degree(self) -> int:
        """Degree of the series."""
        return len(self.coefs) - 1


def parts(coefs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the even and the odd part of a series, of degrees d and d + 1 with d even.

    Zeros are appended, so that both can be applied by one sequence.
    """
    d = 2 * ((len(coefs) - 1) // 2)
    wide = np.zeros(d + 2)
    wide[: len(coefs)] = coefs
    even, odd = wide[: d + 1].copy(), wide.copy()
    even[1::2], odd[::2] = 0, 0
    return even, odd


def approximate(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]], degree: int
) -> Series:
    """Return the Chebyshev interpolant of a function that is smooth on [-1, 1].

    Args:
        function: float64[m] -> float64[m], on [-1, 1].
        degree: Degree of the polynomial.

    Raises:
        UsageError: If the degree is negative, or values are not finite.
    """
    from scipy.fft import dct

    if not 0 <= degree <= _MOST:
        raise UsageError(f"a degree is 0 to {_MOST}, not {degree}")
    count = degree + 1
    nodes = np.cos((2 * np.arange(count) + 1) * np.pi / (2 * count))
    values = np.asarray(function(nodes), dtype=np.float64)
    if values.shape != nodes.shape or not np.isfinite(values).all():
        raise UsageError(
            "the function has no finite value somewhere on [-1, 1]",
            hint="take a function that is smooth there, such as inverse_series for 1 / x",
        )
    coefs = np.asarray(dct(values)) / count
    coefs[0] /= 2
    coefs[np.abs(coefs) < 1e-15 * np.abs(coefs).max(initial=0.0)] = 0
    return _scaled(coefs, np.asarray(function(_grid(-1.0, 1.0, count)), float), -1.0, 1.0)


def _grid(low: float, high: float, count: int) -> NDArray[np.float64]:
    points: NDArray[np.float64] = np.linspace(low, high, 16 * count + 257)
    return points


def _scaled(
    coefs: NDArray[np.float64], values: NDArray[np.float64], low: float, high: float
) -> Series:
    """Return the series at most 1 in magnitude, and its error against values on a grid."""
    largest, _ = greatest(coefs)
    scale = largest * (1 + _MARGIN) if largest > 1 - _MARGIN else 1.0
    error = np.abs(chebyshev.chebval(_grid(low, high, len(coefs)), coefs) - values).max()
    return Series(coefs / scale, scale, float(error))


def exponential_parts(time: float, accuracy: float = 1e-10) -> tuple[Series, Series]:
    """Return cos(t x) and sin(t x) on [-1, 1], of degrees d and d + 1, by Jacobi and Anger.

    ``exp(-i t x) = J_0(t) + 2 sum_k (-i)^k J_k(t) T_k(x)``; the degree grows as
    ``|t| + log(1 / accuracy)`` (Gilyen et al. 2018, arXiv:1806.01838, section 5.1).

    Args:
        time: t.
        accuracy: Largest error of each of the two.

    Raises:
        UsageError: If the numbers make no sense, or the degree would exceed 4000.
    """
    from scipy.special import jv

    if not np.isfinite(time) or not 0 < accuracy < 1:
        raise UsageError("a time is finite and an accuracy between 0 and 1")
    d = 0
    while 4 * float(np.abs(jv(np.arange(d + 1, d + 40), time)).sum()) > accuracy or d < abs(time):
        d += 2
        if d > _MOST:
            raise UsageError(
                f"exp(-i H t) for |H| t = {time:.4g} takes a polynomial of degree above {_MOST}",
                hint="evolve in several steps, each by a shorter time",
            )
    k = np.arange(d + 2)
    all_terms = 2 * jv(k, time)
    all_terms[0] /= 2
    even, odd = all_terms[: d + 1].copy(), all_terms.copy()
    even *= np.array([1, 0, -1, 0])[k[: d + 1] % 4]
    odd *= np.array([0, 1, 0, -1])[k % 4]
    grid = _grid(-1.0, 1.0, d + 1)
    cosine = _scaled(even, np.cos(time * grid), -1.0, 1.0)
    grid = _grid(-1.0, 1.0, d + 2)
    return cosine, _scaled(odd, np.sin(time * grid), -1.0, 1.0)


def inverse_series(condition: float, accuracy: float = 1e-6) -> Series:
    """Return an odd series for ``1 / x`` where ``1 / condition <= |x| <= 1``.

    ``(1 - (1 - x^2)^b) / x`` with ``b = condition^2 log(condition / accuracy)``, its Chebyshev
    series cut where the terms left out add up to half of the accuracy (Childs, Kothari, Somma 2015,
    arXiv:1511.02306, lemmas 17 to 19).

    Args:
        condition: Condition number kappa >= 1 of the matrix over its subnormalisation.
        accuracy: Largest ``|p(x) - 1 / x|``.

    Raises:
        UsageError: If the numbers make no sense, or the degree would exceed 4000.
    """
    from scipy.special import gammaln

    if not (np.isfinite(condition) and condition >= 1 and 0 < accuracy < 1):
        raise UsageError("a condition number is at least 1 and an accuracy between 0 and 1")
    b = max(2, int(np.ceil(condition**2 * np.log(2 * condition / accuracy))))
    top = min(b, 4 * _MOST)
    i = np.arange(1, top + 1)
    # Tail of a binomial distribution of 2 b throws: 2^{-2b} sum_{i > j} C(2 b, b + i).
    log_terms = gammaln(2 * b + 1) - gammaln(b + i + 1) - gammaln(b - i + 1) - 2 * b * np.log(2)
    tails = np.cumsum(np.exp(log_terms)[::-1])[::-1]
    terms = 4 * tails * (-1.0) ** np.arange(top)
    left = np.cumsum(np.abs(terms)[::-1])[::-1]
    count = int(np.searchsorted(-left, -accuracy / 2))
    if 2 * count + 1 > _MOST:
        raise UsageError(
            f"1 / x to {accuracy:.2g} at condition number {condition:.4g} takes a degree "
            f"above {_MOST}",
            hint="ask for less accuracy, or precondition the matrix",
        )
    coefs = np.zeros(2 * max(count, 1))
    coefs[1::2] = terms[: max(count, 1)]
    grid = _grid(1 / condition, 1.0, len(coefs))
    return _scaled(coefs, 1 / grid, 1 / condition, 1.0)


def sign_series(gap: float, accuracy: float = 1e-6) -> Series:
    """Return an odd series for the sign of x where ``|x| >= gap``.

    Interpolates ``erf(k x)`` with k such that ``erf`` is 1 up to a quarter of the accuracy at the
    gap (Low and Chuang 2017, arXiv:1707.05391, appendix A).

    Args:
        gap: Half the width of the part around 0 where nothing is promised, 0 < gap < 1.
        accuracy: Largest ``|p(x) - sign(x)|``.

    Raises:
        UsageError: If the numbers make no sense, or the degree would exceed 4000.
    """
    from scipy.special import erf, erfcinv

    if not (0 < gap < 1 and 0 < accuracy < 1):
        raise UsageError("a gap and an accuracy are between 0 and 1")
    steep = float(erfcinv(accuracy / 4)) / gap
    degree = 2 * int(np.ceil(steep)) + 1
    while degree <= _MOST:
        wide = approximate(lambda x: erf(steep * x), degree)
        if wide.error <= accuracy / 4:
            break
        degree = 2 * (degree * 5 // 8) + 1
    else:
        raise UsageError(
            f"the sign of x to {accuracy:.2g} beyond {gap:.2g} takes degree above {_MOST}",
            hint="ask for less accuracy or a wider gap",
        )
    coefs = wide.coefs * wide.scale
    coefs[::2] = 0
    grid = _grid(gap, 1.0, len(coefs))
    return _scaled(coefs, np.ones(len(grid)), gap, 1.0)
