"""Rows of parameters that are the same: exact results of them are computed once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["on_distinct_rows"]

Rows = NDArray[np.float64]
Array = NDArray[np.generic]


def on_distinct_rows(rows: Rows, function: Callable[[Rows], Array]) -> Array:
    """Return ``function(rows)`` for a function of each row alone, each row given to it once.

    Patches of images are alike in most of a batch. Where the first column that varies has no value
    twice no rows are alike, and looking costs one sort of it.

    Args:
        rows: float64[B, P].
        function: Takes float64[b, P] and returns an array [b, ...].
    """
    if len(rows) < 2 or not rows.shape[1]:
        return function(rows)
    varying = np.flatnonzero((rows != rows[0]).any(axis=0))
    if not len(varying):
        found = function(rows[:1])
        return np.repeat(found, len(rows), axis=0)
    if len(np.unique(rows[:, varying[0]])) == len(rows):
        return function(rows)
    keys = np.ascontiguousarray(rows[:, varying])
    whole = keys.view(np.dtype((np.void, keys.itemsize * keys.shape[1]))).ravel()
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return function(rows)
    return function(rows[first])[inverse]
