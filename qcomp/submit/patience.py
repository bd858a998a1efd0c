"""Calls to vendors that may fail for a moment: again, each time after a longer wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from qcomp.errors import QcompError, UsageError
from qcomp.submit.provider import Trouble

__all__ = ["Patience", "causes"]

T = TypeVar("T")


class Explains(Protocol):
    """What knows a vendor's errors."""

    def explain(self, error: Exception) -> Trouble:
        """Say what an exception means."""


class Patience:
    """Tries a call again after a transient error: after 1, 2, 4 ... seconds, at most a minute.

    The vendors' clients already repeat single requests that fail; this bridges an outage.

    Args:
        attempts: Calls in all.
        first: Seconds of the first wait.
        sleep: How to wait.
        told: Called with one sentence before each wait.
    """

    def __init__(
        self,
        attempts: int = 7,
        first: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.attempts, self.first, self.sleep = attempts, first, sleep
        self.told = told

    def call(self, vendor: Explains, work: Callable[[], T], safe: str) -> T:
        """Return what ``work`` returns.

        Args:
            vendor: Who explains its errors.
            work: The call; it must be safe to repeat.
            safe: What to tell the user where it cannot be done: how nothing is lost.

        Raises:
            QcompError: If the error is not transient, or does not pass.
        """
        wait = self.first
        for attempt in range(1, self.attempts + 1):
            try:
                return work()
            except QcompError:
                raise
            except Exception as error:  # vendors' clients share no base class
                trouble = vendor.explain(error)
                # The client's own message may hold a token: it is neither shown nor chained.
                if trouble.kind != "transient" or attempt == self.attempts:
                    raise _final(trouble, attempt, safe) from None
                if self.told is not None:
                    self.told(f"{trouble.what}; trying again in {wait:.0f} s")
            self.sleep(wait)
            wait = min(2 * wait, 60.0)
        raise AssertionError("unreachable")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an exception and what is behind it, once each.

    Some clients raise an error from itself.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _final(trouble: Trouble, attempts: int, safe: str) -> QcompError:
    kind = UsageError if trouble.kind == "credentials" else QcompError
    hint = "; ".join(part for part in (trouble.hint, safe) if part)
    why = f"it was tried {attempts} times" if attempts > 1 else ""
    return kind(trouble.what, why=why, hint=hint)
