"""A vendor for tests: its tasks live in a folder, outlive any process, and it fails as it is told.

The folder is named by ``QCOMP_TEST_CLOUD``. ``faults.json`` in it lists, for each method, what goes
wrong in its next calls: ``transient``, ``credentials``, ``leak`` (an error whose text holds a
token), ``kill`` (the process dies at once), ``accept-kill`` (the task is taken, then the process
dies), ``accept-transient`` (it is taken, the answer is lost), ``slow``, or a stage that is told.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError, suggest
from qcomp.ir.program import Readout
from qcomp.simulate import run_readout
from qcomp.submit.provider import Batch, Estimate, Machine, Piece, State, Trouble
from qcomp.submit.settings import Setting

DEVICES = ("mercury", "gemini", "apollo")


class Passing(Exception):
    """The network is away."""


class Denied(Exception):
    """The token is not accepted."""


class CloudProvider:
    """The vendor."""

    def connect(self, device: str, *, offline: bool = False) -> Machine:
        if device not in DEVICES:
            raise UsageError(f"there is no device '{device}'", hint=suggest(device, DEVICES))
        fault("connect")
        return CloudMachine(device)

    def explain(self, error: Exception) -> Trouble:
        return explain(error)


class CloudMachine:
    """One of its devices."""

    lasting = True
    interval = 0.01

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self, settings: Sequence[Setting]) -> None:
        pass

    def split(self, settings: Sequence[Setting]) -> list[tuple[Piece, ...]]:
        return [(Piece(n, 0, len(setting.rows)),) for n, setting in enumerate(settings)]

    def estimate(self, settings: Sequence[Setting], tasks: int) -> Estimate:
        return Estimate(2.5 * tasks, "EUR", 7.0, ("a price list of this test",))

    def send(self, batch: Batch) -> str:
        wrong = fault("send")
        bits = [
            np.asarray(
                run_readout(s.circuit, Readout("samples", shots=s.shots), s.rows, seed=batch.seed)
            )
            for s in batch.settings
        ]
        identifier = f"cloud-{len(list(folder().glob('*.npz')))}"
        np.savez(
            folder() / f"{identifier}.npz",
            token=batch.token,
            **{f"b{n}": array for n, array in enumerate(bits)},
        )
        act(wrong, "accept-")
        return identifier

    def find(self, token: str) -> str | None:
        fault("find")
        for path in sorted(folder().glob("*.npz")):
            with np.load(path) as data:
                if str(data["token"]) == token:
                    return path.stem
        return None

    def state(self, identifier: str) -> State:
        told = fault("state")
        if told == "failed":
            return State("failed", "the fridge was warm")
        if told == "queued":
            return State("queued", "place 3")
        return State("done" if (folder() / f"{identifier}.npz").exists() else "lost")

    def results(self, identifier: str, batch: Batch) -> list[NDArray[np.uint8]]:
        told = fault("results")
        with np.load(folder() / f"{identifier}.npz") as data:
            found = [data[f"b{n}"] for n in range(len(batch.settings))]
        return [array[:, :, :1] for array in found] if told == "narrow" else found

    def cancel(self, identifier: str) -> None:
        fault("cancel")
        (folder() / f"{identifier}.npz").unlink(missing_ok=True)

    def explain(self, error: Exception) -> Trouble:
        return explain(error)


def folder() -> Path:
    return Path(os.environ["QCOMP_TEST_CLOUD"])


def calls(method: str) -> int:
    """Return how often a method was called."""
    path = folder() / "calls.txt"
    return path.read_text().split().count(method) if path.exists() else 0


def plan_faults(**faults: list[str]) -> None:
    """Say what goes wrong from now on."""
    fresh = folder() / "fresh.json"
    fresh.write_text(json.dumps(faults))
    fresh.replace(folder() / "faults.json")


def fault(method: str) -> str:
    """Do what the next fault of a method says, count the call, and return the fault."""
    path = folder() / "faults.json"
    faults = json.loads(path.read_text()) if path.exists() else {}
    waiting = faults.get(method) or [""]
    plan_faults(**{**faults, method: waiting[1:]})
    with (folder() / "calls.txt").open("a") as file:
        file.write(method + "\n")
    act(waiting[0], "")
    return str(waiting[0])


def act(wrong: str, prefix: str) -> None:
    if wrong == prefix + "transient":
        raise Passing("503")
    if wrong == prefix + "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if wrong == "credentials":
        raise Denied("token expired")
    if wrong == "leak":
        raise RuntimeError(f"bad header: Bearer {os.environ['CLOUD_TOKEN']}")
    if wrong == "slow":
        time.sleep(60)


def explain(error: Exception) -> Trouble:
    from qcomp.submit.record import redacted

    if isinstance(error, Passing):
        return Trouble("transient", "the cloud cannot be reached")
    if isinstance(error, Denied):
        return Trouble("credentials", "the cloud does not accept you", "log in: cloudctl login")
    return Trouble("refused", f"the cloud refuses: {redacted(str(error))}")
