"""Whether a consumer takes a text, and whether it sees what qcomp sees in it."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from qcomp.consumers.outcomes import distance, our_outcome, with_bits
from qcomp.consumers.table import ConsumerEntry, get_consumer
from qcomp.ir.circuit import Circuit

__all__ = ["TOLERANCE", "Acceptance", "accept", "bound_values"]

TOLERANCE = 1e-6
"""Total variation up to which two distributions are the same."""

_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a consumer said.

    Attributes:
        consumer: Its name.
        version: Its package's version.
        accepted: Whether it took the text.
        why: Why it did not; or why distributions were not compared.
        distance: Total variation between its distribution and ours; None when not compared.
        values: The numbers that stood for the text's inputs.
    """

    consumer: str
    version: str
    accepted: bool
    why: str
    distance: float | None
    values: Mapping[str, float]

    @property
    def ok(self) -> bool:
        """Whether it took the text and, where both could be simulated, saw the same."""
        return self.accepted and (self.distance is None or self.distance <= TOLERANCE)

    def __str__(self) -> str:
        """Return one line."""
        head = f"{self.consumer} {self.version}: "
        if not self.accepted:
            return f"{head}REJECTED: {self.why}"
        if self.distance is None:
            return f"{head}accepted, not compared: {self.why}"
        word = "the same distribution" if self.ok else "ANOTHER DISTRIBUTION"
        return f"{head}accepted, {word} (total variation {self.distance:.2g})"


def bound_values(circuit: Circuit, seed: int) -> dict[str, float]:
    """Return a random number in [-pi, pi) for each free parameter."""
    rng = np.random.default_rng(seed)
    return {name: float(rng.uniform(-np.pi, np.pi)) for name in circuit.params}


def accept(
    text: str,
    consumer: str | ConsumerEntry,
    circuit: Circuit | None = None,
    *,
    wanted: Circuit | None = None,
    seed: int = 0,
) -> Acceptance:
    """Give a text to a consumer and compare what it makes of it with what qcomp does.

    Args:
        text: OpenQASM 2 or 3.
        consumer: A consumer, or its name.
        circuit: The text as qcomp reads it; read here when not given.
        wanted: The circuit whose distribution is expected, with the text's inputs as parameters;
            by default what qcomp reads in the text.
        seed: Seed of the numbers that stand for inputs.

    Raises:
        UsageError: If there is no such consumer, or it is not installed.
        SourceError: If qcomp itself cannot read the text.
    """
    entry = get_consumer(consumer) if isinstance(consumer, str) else consumer
    reader = entry.load()
    ours = Circuit.from_qasm(text) if circuit is None else circuit
    values = bound_values(ours, seed)
    with _quiet() as printed:
        try:
            loaded = reader.load(text, values, ours)
        except Exception as error:  # a consumer may fail in any way: that is what is asked
            return Acceptance(entry.name, entry.version, False, _told(error, printed), None, values)
        meant = ours if wanted is None else wanted
        mine = our_outcome(meant.bind(values) if values else meant)
        if isinstance(mine, str):
            return Acceptance(entry.name, entry.version, True, mine, None, values)
        try:
            theirs = reader.outcome(loaded)
        except Exception as error:  # as above: it took the text and cannot run it
            why = f"it cannot run it: {_told(error, printed)}"
            return Acceptance(entry.name, entry.version, False, why, None, values)
    if not isinstance(theirs, str):
        theirs = with_bits(theirs, ours)
    if isinstance(theirs, str):
        return Acceptance(entry.name, entry.version, True, theirs, None, values)
    return Acceptance(entry.name, entry.version, True, "", distance(mine, theirs), values)


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Keep what a consumer prints off the terminal."""
    printed = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(printed),
        contextlib.redirect_stdout(printed),
    ):
        warnings.simplefilter("ignore")
        yield printed


def _told(error: Exception, printed: io.StringIO) -> str:
    text = " ".join(str(error).split()) or " ".join(printed.getvalue().split())
    return f"{type(error).__name__}: {text}"[:_LONGEST]
