"""What a provider of machines is: the protocol of ``ibm``, ``braket``, ``local`` and plugins.

A plugin registers an object with :class:`Provider`'s methods by an entry point of the group
``qcomp.providers``. Nothing here, and no provider of qcomp's own, reads, logs or stores
credentials: the vendor's client finds them where the vendor says that they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from qcomp.submit.settings import Setting

__all__ = [
    "Batch",
    "Estimate",
    "Machine",
    "Piece",
    "Provider",
    "State",
    "Trouble",
    "TroubleKind",
]

Bits = NDArray[np.uint8]
Stage = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
TroubleKind = Literal["transient", "credentials", "refused"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of one setting: what is never cut further.

    Attributes:
        setting: Its number among the settings of the job's leg.
        start: First row.
        stop: Row after the last.
    """

    setting: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What is sent as one task of the vendor.

    Attributes:
        settings: One setting for each piece, its rows cut to the piece's.
        token: Our own name of the task: the same task is never sent twice under it.
        seed: Seed for machines that are simulators.
    """

    settings: tuple[Setting, ...]
    token: str
    seed: int


@dataclass(frozen=True, slots=True)
class State:
    """How far a task is.

    Attributes:
        stage: ``queued``, ``running``, ``done``, ``failed``, ``cancelled``, or ``lost`` where the
            vendor does not know the task.
        note: A few words: the place in the queue, or why it failed.
    """

    stage: Stage
    note: str = ""

    @property
    def is_final(self) -> bool:
        """Whether it will not change any more."""
        return self.stage not in ("queued", "running")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an exception of a vendor's client means.

    Attributes:
        kind: ``transient`` errors are tried again; ``credentials`` and ``refused`` are not.
        what: One sentence without secrets.
        hint: What to do.
    """

    kind: TroubleKind
    what: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would cost.

    Attributes:
        price: In ``currency``; None where the provider publishes no price for it.
        currency: ``USD`` or empty.
        seconds: Seconds of machine time; None where nothing tells.
        notes: Where the figures come from and what they leave out, one sentence each.
    """

    price: float | None = None
    currency: str = ""
    seconds: float | None = None
    notes: tuple[str, ...] = field(default=())


class Machine(Protocol):
    """One device of a provider.

    Attributes:
        name: Its name.
        lasting: Whether its tasks go on when this process ends.
        interval: Seconds to wait between the first two looks at a task.
    """

    name: str
    lasting: bool
    interval: float

    def check(self, settings: Sequence[Setting]) -> None:
        """Raise a TargetError that lists what the machine cannot run."""

    def split(self, settings: Sequence[Setting]) -> list[tuple[Piece, ...]]:
        """Return the pieces that go into each task."""

    def estimate(self, settings: Sequence[Setting], tasks: int) -> Estimate:
        """Return what the settings would cost, from published figures alone."""

    def send(self, batch: Batch) -> str:
        """Hand one task over and return the vendor's identifier, without waiting for results."""

    def find(self, token: str) -> str | None:
        """Return the identifier of a task that was sent under this token, if the vendor knows."""

    def state(self, identifier: str) -> State:
        """Return how far a task is."""

    def results(self, identifier: str, batch: Batch) -> list[Bits]:
        """Return uint8[B, shots, bits] for each setting of a task that is done.

        Bit j of the last axis is classical bit j of the setting's circuit.
        """

    def cancel(self, identifier: str) -> None:
        """Ask the vendor to cancel a task."""

    def explain(self, error: Exception) -> Trouble:
        """Say what an exception of the vendor's client means."""


class Provider(Protocol):
    """A vendor."""

    def connect(self, device: str, *, offline: bool = False) -> Machine:
        """Return a device by its name.

        Args:
            device: The vendor's name of it.
            offline: Take no network and no credentials; such a machine can only check and estimate.

        Raises:
            UsageError: If there is no such device; the message says the nearest names.
            QcompError: If the vendor cannot be reached or refuses the credentials.
        """

    def explain(self, error: Exception) -> Trouble:
        """Say what an exception of the vendor's client means."""
