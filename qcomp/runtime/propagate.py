"""Standard errors of an artifact's outputs from those of its circuits.

An output that a circuit gives has the circuit's own errors. An output behind classical stages gets
them by resampling: the stages run ``RESAMPLES`` times with circuits' values drawn anew around those
found, normal with their errors, and the spread of the outputs is their error (Efron, Tibshirani
1993, chapter 6, the parametric bootstrap). Values of one circuit are drawn one by one, as if they
erred independently: those that share their shots may be correlated. Circuits that depend on other
circuits keep their values: what an error does to their angles is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.runtime.estimates import Estimate

__all__ = ["RESAMPLES", "Errors", "output_errors"]

RESAMPLES = 64
"""Draws: the error of an error is 1 / sqrt(2 * 64), nine per cent."""

Array = NDArray[np.generic]
Errors = NDArray[np.float64] | None
Walk = Callable[[Callable[[int], Array]], Mapping[str, Any]]


def output_errors(
    walk: Walk, known: Mapping[int, Estimate], outputs: Mapping[str, bool], seed: int
) -> dict[str, Errors]:
    """Return the standard error of each output, None where there is none.

    Args:
        walk: Runs all stages with what is given for each circuit's place.
        known: Place -> what its circuit gave.
        outputs: Name -> whether a circuit gives it itself.
        seed: Seed of the draws.
    """
    if any(found.errors is None for found in known.values()):
        return dict.fromkeys(outputs)
    spread = {place: found.errors for place, found in known.items() if found.errors is not None}
    own = walk(lambda place: spread[place]) if any(outputs.values()) else {}
    out: dict[str, Errors] = {
        name: np.asarray(own[name], dtype=np.float64) for name, direct in outputs.items() if direct
    }
    behind = [name for name, direct in outputs.items() if not direct]
    if not behind:
        return out
    rng = np.random.default_rng(seed)

    def draw(place: int) -> Array:
        values = np.asarray(known[place].values, dtype=np.float64)
        noise = rng.standard_normal(values.shape) * spread[place]
        drawn: Array = values + noise
        return drawn

    exact = not any(errors.any() for errors in spread.values())
    runs = [walk(draw) for _ in range(1 if exact else RESAMPLES)]
    for name in behind:
        found = np.array([np.asarray(run[name]) for run in runs])
        # Labels and other whole numbers have no standard error.
        fits = np.issubdtype(found.dtype, np.floating)
        out[name] = found.std(axis=0, dtype=np.float64) if fits else None
    return out
