"""A job before it is sent: what would run, on which machine, and its first record on disk."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.errors import UsageError
from qcomp.registry import load as load_part
from qcomp.submit.patience import Patience
from qcomp.submit.provider import Machine, Provider
from qcomp.submit.record import JobRecord, Leg, Store, Task
from qcomp.submit.settings import Call, Setting, pending_calls

if TYPE_CHECKING:
    from qcomp.runtime.artifact import Artifact

__all__ = ["Plan", "connect", "native_gates", "new_leg", "plan", "settings_of", "start"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be sent first.

    Attributes:
        artifact: The artifact.
        batches: The inputs, cut to the batches that the model takes.
        shots: Shots of every circuit, or None for what the readouts say.
        calls: The circuits that can run at once.
        later: How many circuits of the artifact need the results of others.
    """

    artifact: Artifact
    batches: tuple[Mapping[str, Any], ...]
    shots: int | None
    calls: tuple[Call, ...]
    later: int

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The settings of all calls in order."""
        return tuple(setting for call in self.calls for setting in call.settings)


def connect(
    provider: str, device: str, patience: Patience, *, offline: bool = False, safe: str = ""
) -> Machine:
    """Return a device of a provider.

    Args:
        provider: A name of the registry's group ``providers``.
        device: The vendor's name of the device.
        patience: How long to try.
        offline: No network and no credentials; the machine can only check and estimate.
        safe: What to tell the user where it cannot be done.

    Raises:
        UsageError: If there is no such provider or device, or the credentials are refused.
        QcompError: If the vendor cannot be reached.
    """
    made = load_part("providers", provider)
    vendor: Provider = made() if isinstance(made, type) else made
    machine: Machine = patience.call(
        vendor,
        lambda: vendor.connect(device, offline=offline),
        safe or "nothing was sent",
    )
    return machine


def plan(
    artifact: Artifact, feeds: Mapping[str, Any], shots: int | None = None, *, some: bool = True
) -> Plan:
    """Return what a job would send first: the classical stages in front have run.

    Args:
        artifact: The artifact.
        feeds: Input name -> array, samples first, as :func:`qcomp.feeds.load_inputs` gives them.
        shots: Shots of every circuit, or None for what the readouts say.
        some: Whether an artifact without circuits is an error.

    Raises:
        UsageError: If an input is missing, or the artifact has no circuit.
    """
    if shots is not None and shots < 1:
        raise UsageError(f"a machine needs at least 1 shot, not {shots}")
    missing = [name for name in artifact.inputs if name not in feeds]
    if missing:
        raise UsageError(
            f"the input {', '.join(missing)} was not given",
            hint="inputs: " + ", ".join(artifact.inputs),
        )
    if artifact.accuracies:
        raise UsageError(
            f"the circuits of '{artifact.path}' have words of their own for each row",
            why="their rotations by parameters are synthesised once a row is known",
            hint="write each row's circuit: qcomp bind",
        )
    batches = _batches(artifact, feeds)
    calls, _ = pending_calls(artifact, batches, {}, shots, native_gates(artifact))
    if some and not calls:
        raise UsageError(
            f"'{artifact.path}' has no circuit to submit",
            hint=f"run it here: qcomp run {artifact.path}",
        )
    later = len(artifact.circuits) - len({call.key[1] for call in calls})
    return Plan(artifact, tuple(batches), shots, tuple(calls), later)


def start(
    planned: Plan, provider: str, device: str, machine: Machine, *, seed: int = 0, store: Store
) -> JobRecord:
    """Write a job to disk that has not been sent; :class:`Job` sends it and waits for it.

    Args:
        planned: What to send.
        provider: Name of the provider.
        device: Name of the device.
        machine: The device.
        seed: Seed for simulators.
        store: Where jobs are kept.

    Raises:
        TargetError: If the machine cannot run the circuits.
    """
    artifact = planned.artifact
    machine.check(planned.settings)
    now = datetime.datetime.now(datetime.UTC)
    if device.endswith(".json"):  # a file is to be found from any folder
        device = str(Path(device).resolve())
    record = JobRecord(
        id=store.new_id(),
        created=now.isoformat(timespec="seconds"),
        artifact=str(artifact.path.resolve()),
        artifact_sha256=artifact.sha256,
        provider=provider,
        device=device,
        shots=planned.shots,
        seed=seed,
    )
    arrays = {
        f"batch{number}/{name}": np.asarray(value)
        for number, feeds in enumerate(planned.batches)
        for name, value in feeds.items()
    }
    record.legs.append(new_leg(record, planned.calls, machine))
    store.save_arrays(record, "inputs", arrays)
    store.save(record)
    return record


def settings_of(calls: Sequence[Call]) -> tuple[Setting, ...]:
    """Return the settings of calls in order."""
    return tuple(setting for call in calls for setting in call.settings)


def new_leg(record: JobRecord, calls: Sequence[Call], machine: Machine) -> Leg:
    """Return the next leg of a job, nothing of it sent."""
    number = len(record.legs)
    tasks = [
        Task(pieces, f"qcomp-{record.id}-{number}-{index}")
        for index, pieces in enumerate(machine.split(settings_of(calls)))
    ]
    return Leg([call.key for call in calls], [len(call.settings) for call in calls], tasks)


def _batches(artifact: Artifact, feeds: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the inputs cut into batches of the size that the model fixes; one where it is free."""
    given = {name: np.asarray(feeds[name]) for name in artifact.inputs}
    step, sampled = artifact.fixed_batch, artifact.sampled
    rows = next((len(given[n]) for n in artifact.inputs if n in sampled and given[n].ndim), 1)
    if not step or step >= rows:
        return [given]
    return [
        {n: a[start : start + step] if n in sampled else a for n, a in given.items()}
        for start in range(0, rows, step)
    ]


def native_gates(artifact: Artifact) -> frozenset[str] | None:
    """Return the gates of the artifact's quantum target; None where it takes every gate."""
    from qcomp.ir.gates import BY_NAME

    basis = (artifact.manifest.get("machine") or {}).get("gates", ())
    return frozenset(BY_NAME[g].name for g in basis if g in BY_NAME) or None
