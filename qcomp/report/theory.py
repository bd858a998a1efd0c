"""What no quantizer, and what the best scalar ones, reach on Gaussian weights, in decibels.

For weights with variance sigma^2 and R bits a weight:

* the rate-distortion bound, D = sigma^2 2^(-2 R): no code of any length is better (Shannon 1959);
* Lloyd-Max: the best 2^R levels for one weight at a time, each the mean of what it stands for
  (Max 1960, 'Quantizing for minimum distortion', table I; Lloyd 1982);
* uniform: the best 2^R levels at equal steps (Max 1960, table II).

Blocks with scales of their own adapt to the weights and spend bits on it, so that they can be
better than either scalar quantizer at the bits of the levels, but not than the bound at all of
their bits.
"""

from __future__ import annotations

import functools
import re

import numpy as np

__all__ = ["against_theory", "lloyd_max", "rate_distortion", "uniform"]

_SIGMAS = 6.5
_POINTS = 20001
_ROUNDS = 4000
_SCALE_BITS = 16
_TYPE = re.compile(r"(?P<letter>[su])(?P<bits>\d+)(/(?P<group>\d+))?$")


def rate_distortion(bits: float) -> float:
    """The bound for so many bits a weight, in dB."""
    return float(20 * np.log10(2) * bits)


@functools.cache
def lloyd_max(bits: int) -> float:
    """The best 2^bits levels for a Gaussian weight, in dB."""
    x, p = _density()
    mass, moment = (np.concatenate([[0.0], np.cumsum(a)]) for a in (p, p * x))
    thin = np.cumsum(p ** (1 / 3))  # how fine the best levels lie, of many (Panter and Dite 1951)
    centres = np.interp((np.arange(2**bits) + 0.5) / 2**bits, thin / thin[-1], x)
    error = 0.0
    for _ in range(_ROUNDS):
        borders = np.searchsorted(x, (centres[1:] + centres[:-1]) / 2)
        edges = np.concatenate([[0], borders, [len(x)]])
        weight = np.diff(mass[edges])
        centres = np.where(weight > 0, np.diff(moment[edges]) / np.maximum(weight, 1e-300), centres)
        before, error = error, 1 - float((weight * centres**2).sum())
        if abs(before - error) < 1e-12:
            break
    return float(-10 * np.log10(error))


@functools.cache
def uniform(bits: int) -> float:
    """The best 2^bits levels at equal steps, in dB."""
    x, p = _density()
    half = 2 ** (bits - 1)

    def error(step: float) -> float:
        levels = np.clip(np.floor(x / step), -half, half - 1) + 0.5
        return float((p * (x - levels * step) ** 2).sum())

    steps = np.geomspace(0.2, 1.6, 400) * 6 / 2**bits
    return float(-10 * np.log10(min(map(error, steps))))


def against_theory(weight_type: str, decibels: float | None) -> dict[str, float]:
    """What theory says of a weight's type, and how far its error is from that, in dB.

    Args:
        weight_type: As reports have it: ``u4/32``.
        decibels: SQNR of the weight.

    Returns:
        ``bits`` a weight with its scales, ``bound`` at these bits, ``lloyd_max`` and ``uniform`` at
        the bits of the levels, ``over_lloyd_max`` and ``below_bound``. Empty for other types.
    """
    found = _TYPE.match(weight_type)
    if found is None or decibels is None or not np.isfinite(decibels):
        return {}
    bits, group = int(found["bits"]), int(found["group"] or 0)
    if not 1 <= bits <= 8:
        return {}
    stored = float(bits)
    if group:
        stored += (_SCALE_BITS + (bits if found["letter"] == "u" else 0)) / group
    bound, scalar = rate_distortion(stored), lloyd_max(bits)
    return {
        "bits": stored,
        "bound": bound,
        "lloyd_max": scalar,
        "uniform": uniform(bits),
        "over_lloyd_max": decibels - scalar,
        "below_bound": bound - decibels,
    }


@functools.cache
def _density() -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], ...]:
    """Points and their probabilities, a normal distribution."""
    x = np.linspace(-_SIGMAS, _SIGMAS, _POINTS)
    p = np.exp(-(x**2) / 2)
    return x, p / p.sum()
