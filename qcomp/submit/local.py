"""The provider ``local``: the simulators of ``qcomp run`` as if they were a machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.program import Readout
from qcomp.submit.provider import Batch, Estimate, Machine, Piece, State, Trouble
from qcomp.submit.settings import Setting

__all__ = ["LocalProvider", "in_this_process"]

Bits = NDArray[np.uint8]
ROWS_A_TASK = 64
"""Rows that go into one task: what is lost at most when the process dies."""


class LocalProvider:
    """``--device sim`` (built in), ``aer``, ``lightning``: what ``qcomp run`` has."""

    def connect(self, device: str, *, offline: bool = False) -> Machine:
        """Return a simulator; nothing of it needs a network."""
        from qcomp.runtime.devices import check_device

        check_device(device)
        return _Simulator(device)

    def explain(self, error: Exception) -> Trouble:
        """Say what went wrong."""
        return _explain(error)


class _Simulator:
    lasting = False
    interval = 0.0

    def __init__(self, name: str) -> None:
        self.name = name
        self._batches: dict[str, Batch] = {}

    def check(self, settings: Sequence[Setting]) -> None:
        """Take everything: a circuit too large is refused when it runs."""

    def split(self, settings: Sequence[Setting]) -> list[tuple[Piece, ...]]:
        """Return tasks of one setting and at most 64 rows."""
        return in_this_process(settings)

    def estimate(self, settings: Sequence[Setting], tasks: int) -> Estimate:
        """Return nothing: it costs no money."""
        return Estimate(0.0, "USD", None, ("it runs on this computer",))

    def send(self, batch: Batch) -> str:
        """Keep the task; it runs when its results are asked for."""
        self._batches[batch.token] = batch
        return batch.token

    def find(self, token: str) -> str | None:
        """Return the token if this process holds the task."""
        return token if token in self._batches else None

    def state(self, identifier: str) -> State:
        """Return ``done``: the results can be asked for; ``lost`` in another process."""
        return State("done" if identifier in self._batches else "lost")

    def results(self, identifier: str, batch: Batch) -> list[Bits]:
        """Run the task."""
        from qcomp.runtime.devices import run_on

        out = []
        for setting in batch.settings:
            readout = Readout("samples", shots=setting.shots)
            found = run_on(
                self.name, setting.circuit, readout, setting.rows, setting.shots, batch.seed
            )
            out.append(np.asarray(found, dtype=np.uint8))
        return out

    def cancel(self, identifier: str) -> None:
        """Forget the task."""
        self._batches.pop(identifier, None)

    def explain(self, error: Exception) -> Trouble:
        """Say what went wrong."""
        return _explain(error)


def _explain(error: Exception) -> Trouble:
    return Trouble("refused", f"the simulator failed: {type(error).__name__}: {error}")


def in_this_process(settings: Sequence[Setting]) -> list[tuple[Piece, ...]]:
    """Return tasks of one setting and at most 64 rows each."""
    return [
        (Piece(number, start, min(start + ROWS_A_TASK, len(setting.rows))),)
        for number, setting in enumerate(settings)
        for start in range(0, len(setting.rows), ROWS_A_TASK)
    ]
