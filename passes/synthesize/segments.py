"""Parts of a run that are rewritten one by one: between fences, not too long and not too wide."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.run import Run

__all__ = ["segments"]

_LEAST = 16
"""Operations below which a segment is not made shorter to be narrower."""


def segments(
    run: Run, fence: NDArray[np.bool_], window: int, wires: int
) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, stop, whether it lies between fences), all operations of the run in order.

    Args:
        run: The run; only fences may be wide operations.
        fence: bool[n], operations that part segments.
        window: Most operations of a segment.
        wires: Most wires of a segment; it is halved until it has no more, or few operations.
    """
    start = 0
    for end in [*np.flatnonzero(fence).tolist(), len(run)]:
        size = window
        while start < end:
            size = min(2 * size, window)
            while _wires(run, start, min(start + size, end)) > wires and size > _LEAST:
                size = (min(start + size, end) - start + 1) // 2
            stop = min(start + size, end)
            yield start, stop, True
            start = stop
        if end < len(run):
            yield end, end + 1, False
        start = end + 1


def _wires(run: Run, start: int, stop: int) -> int:
    """Count the wires of some operations."""
    used = np.unique(run.qubit[start:stop])
    return len(used) - int(used[0] < 0)
