"""When work that gets better with time has to end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from qcomp.errors import UsageError

__all__ = ["Deadline"]


class Deadline:
    """A time that is given to a pipeline; it can also be ended by hand, from a signal handler.

    Args:
        seconds: How long from now on, above 0.
        clock: What measures it; wall time by default.

    Raises:
        UsageError: If the time is not a finite number above 0.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0 < seconds < math.inf:
            raise UsageError(f"the time must be more than 0 seconds, not {seconds}")
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds left, 0 when time is up."""
        return max(0.0, self._end - self._clock())

    @property
    def is_over(self) -> bool:
        """Whether time is up."""
        return self._clock() >= self._end

    def stop(self) -> None:
        """End it now."""
        self._end = -math.inf
