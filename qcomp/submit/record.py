"""Jobs on disk: one folder a job, written whole or not at all.

A job's folder holds ``job.json``, the inputs (``inputs.npz``), the bits of each finished task
(``leg0-task0.npz`` and so on) and, once there is one, the result (``result.npz``). It lies under
``QCOMP_HOME``, or where the system keeps what programs remember of a user.

``job.json`` never holds anything of a vendor's but task identifiers, states and, with whatever
looks like a secret taken out, the reason why a task failed.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.atomic import atomic_file, writing
from qcomp.errors import QcompError, SourceError, UsageError, suggest
from qcomp.submit.provider import Piece

__all__ = ["JOB_FORMAT", "JobRecord", "Leg", "Store", "Task", "jobs_folder", "redacted"]

JOB_FORMAT = "qcomp-job"
"""Name of the format of ``job.json``."""

JOB_VERSION = 1

Bits = NDArray[np.uint8]
_SECRET = re.compile(r"[A-Za-z0-9+/_=.-]{20,}")


def jobs_folder() -> Path:
    """Return the folder of this user's jobs: ``QCOMP_HOME/jobs``, or one in the usual place."""
    home = os.environ.get("QCOMP_HOME")
    if home:
        return Path(home) / "jobs"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "qcomp" / "jobs"


def redacted(text: str) -> str:
    """Return a vendor's message without anything that could be a token or a key.

    Every run of 20 and more characters that keys are made of is replaced, and the text is cut to
    300 characters: it is to be read by a person, not to be searched.
    """
    return _SECRET.sub("[...]", " ".join(text.split()))[:300]


@dataclass(slots=True)
class Task:
    """One task of the vendor.

    Attributes:
        pieces: What it runs.
        token: Our name of it.
        state: ``new``; ``sending``, written before it is handed over; ``sent``; ``done``, its bits
            are on disk; ``failed``, ``cancelled`` or ``lost``.
        identifier: The vendor's name of it; empty before it is known.
        note: Why it failed, or its place in the queue.
    """

    pieces: tuple[Piece, ...]
    token: str
    state: str = "new"
    identifier: str = ""
    note: str = ""


@dataclass(slots=True)
class Leg:
    """The circuits that could run at once; a later leg needs what an earlier one gave.

    Attributes:
        keys: (batch, place among the stages) of each call.
        settings: How many settings each call has.
        tasks: The tasks.
    """

    keys: list[tuple[int, int]]
    settings: list[int]
    tasks: list[Task] = field(default_factory=list)


@dataclass(slots=True)
class JobRecord:
    """All that is known of a job.

    Attributes:
        id: Our identifier.
        created: When, in UTC, ISO 8601.
        artifact: Path of the artifact's folder when it was submitted.
        artifact_sha256: Hash of its ``program.json``.
        provider: Name of the provider.
        device: Name of the device.
        shots: Shots of every circuit, or None for what the artifact says.
        seed: Seed for simulators.
        legs: What was sent.
        finished: Whether the result is there.
        outputs: Names of the result's arrays.
    """

    id: str
    created: str
    artifact: str
    artifact_sha256: str
    provider: str
    device: str
    shots: int | None
    seed: int
    legs: list[Leg] = field(default_factory=list)
    finished: bool = False
    outputs: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> list[Task]:
        """The tasks of all legs."""
        return [task for leg in self.legs for task in leg.tasks]

    @property
    def state(self) -> str:
        """The state of the whole: ``done``, ``failed``, ``cancelled``, ``lost``, else ``open``."""
        if self.finished:
            return "done"
        states = {task.state for task in self.tasks}
        return next((s for s in ("failed", "lost", "cancelled") if s in states), "open")


class Store:
    """The jobs of a user.

    Args:
        folder: Where they are; :func:`jobs_folder` by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or jobs_folder()

    def new_id(self) -> str:
        """Return an identifier that no job has, and make its folder, for its owner alone.

        It is the time to the microsecond, so that jobs sort by age, and two random bytes.

        Raises:
            QcompError: If the folder cannot be made.
        """
        now = datetime.datetime.now(datetime.UTC)
        job = f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
        with writing(self.path(job)):
            self.path(job).mkdir(mode=0o700, parents=True)
        return job

    def ids(self) -> list[str]:
        """Return the identifiers of all jobs, oldest first."""
        if not self.folder.is_dir():
            return []
        found = (p for p in self.folder.iterdir() if (p / "job.json").is_file())
        return sorted(p.name for p in found)

    def find(self, text: str) -> str:
        """Return the identifier that starts with ``text``, or the newest job's for ``last``.

        Raises:
            UsageError: If none or several do.
        """
        ids = self.ids()
        if text in ids:
            return text
        if text == "last" and ids:
            return ids[-1]
        found = [name for name in ids if text and name.startswith(text)]
        if len(found) == 1:
            return found[0]
        if not ids:
            raise UsageError(f"there is no job '{text}'", why=f"'{self.folder}' has no jobs")
        what = f"there are {len(found)} jobs" if found else "there is no job"
        raise UsageError(f"{what} '{text}'", hint=suggest(text, found or ids))

    def path(self, job: str) -> Path:
        """Return a job's folder."""
        return self.folder / job

    def save(self, record: JobRecord) -> None:
        """Write ``job.json``; it is on the disk when this returns, a loss of power included."""
        data = {"format": JOB_FORMAT, "version": JOB_VERSION, **asdict(record)}
        text = json.dumps(data, indent=1) + "\n"
        with atomic_file(self.path(record.id) / "job.json") as path:
            with path.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())

    def load(self, job: str) -> JobRecord:
        """Read ``job.json``.

        Raises:
            SourceError: If it is damaged or of another version.
        """
        path = self.path(job) / "job.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if (data.pop("format"), data.pop("version")) != (JOB_FORMAT, JOB_VERSION):
                raise SourceError(
                    f"'{path}' is no job of this version",
                    hint="fetch it with the version of qcomp that submitted it",
                )
            if set(data) != {item.name for item in fields(JobRecord)}:
                raise ValueError("it has other entries than a job has")
            legs = [_leg(leg) for leg in data.pop("legs")]
            return JobRecord(**data, legs=legs)
        except FileNotFoundError as error:
            raise UsageError(f"there is no job '{job}'", hint="qcomp jobs") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise SourceError(f"'{path}' is damaged", why=str(error)) from error

    def save_arrays(self, record: JobRecord, name: str, arrays: Mapping[str, Any]) -> None:
        """Write arrays of a job, with the hash of its artifact beside them."""
        with (
            atomic_file(self.path(record.id) / f"{name}.npz") as path,
            path.open("wb") as file,
        ):
            np.savez_compressed(file, artifact_sha256=record.artifact_sha256, **arrays)
            file.flush()
            os.fsync(file.fileno())

    def load_arrays(self, record: JobRecord, name: str) -> dict[str, Any]:
        """Read arrays of a job.

        Raises:
            SourceError: If they are missing, damaged, or belong to another artifact.
        """
        path = self.path(record.id) / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = {key: data[key] for key in data.files}
            belongs = str(arrays.pop("artifact_sha256"))
        except Exception as error:  # damaged archives end in errors of several libraries
            raise SourceError(
                f"'{path}' cannot be read", why=str(error), hint="qcomp jobs fetch --resend"
            ) from error
        if belongs != record.artifact_sha256:
            raise SourceError(
                f"'{path}' holds a result of another artifact",
                why=f"it was made for {belongs[:12]}, the job is of {record.artifact_sha256[:12]}",
            )
        return arrays

    def save_bits(self, record: JobRecord, name: str, bits: list[Bits]) -> None:
        """Write a task's bits, eight to a byte."""
        arrays: dict[str, Any] = {}
        for number, array in enumerate(bits):
            arrays[f"bits{number}"] = np.packbits(array, axis=-1)
            arrays[f"width{number}"] = np.array(array.shape[-1])
        self.save_arrays(record, name, arrays)

    def load_bits(self, record: JobRecord, name: str) -> list[Bits]:
        """Read a task's bits."""
        arrays = self.load_arrays(record, name)
        count = sum(key.startswith("bits") for key in arrays)
        return [
            np.unpackbits(arrays[f"bits{k}"], axis=-1, count=int(arrays[f"width{k}"]))
            for k in range(count)
        ]

    @contextlib.contextmanager
    def held(self, job: str) -> Iterator[None]:
        """Hold a job against other processes; the hold ends with the process, however it ends.

        Raises:
            QcompError: If another process is at it.
        """
        path = self.path(job) / ".lock"
        with path.open("a+b") as file:
            try:
                _lock(file.fileno())
            except OSError as error:
                raise QcompError(
                    f"another process is at the job {job}",
                    hint="wait for it, or stop it; nothing is lost",
                ) from error
            yield


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _leg(data: Mapping[str, Any]) -> Leg:
    tasks = [
        Task(tuple(Piece(**piece) for piece in task.pop("pieces")), **task)
        for task in data["tasks"]
    ]
    keys = [(int(batch), int(place)) for batch, place in data["keys"]]
    return Leg(keys, [int(n) for n in data["settings"]], tasks)
