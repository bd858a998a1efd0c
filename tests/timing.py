"""Tests that hold a figure of processor time."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")

TRIES = 4


def timed(test: Callable[P, None]) -> Callable[P, None]:
    """Let a test of processor time try again, since other work on the machine can turn it."""

    @functools.wraps(test)
    def tried(*args: P.args, **kwargs: P.kwargs) -> None:
        for _ in range(TRIES - 1):
            try:
                return test(*args, **kwargs)
            except AssertionError:
                time.sleep(2)
        return test(*args, **kwargs)

    return tried
