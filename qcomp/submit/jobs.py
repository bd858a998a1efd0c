"""What happens to a job: planned, written to disk, sent, waited for, fetched, cancelled.

A job has legs. The first leg holds every circuit that can run at once; when its results are back,
the classical stages behind it run, and the circuits that they feed make the next leg. Everything
but the vendor's work can be made again from the artifact, the inputs and the bits on disk, so a
job goes on from wherever the process died:

========  ==============================================================================
state     what a later process does
========  ==============================================================================
new       sends it
sending   asks the vendor for a task of this token, and sends it where there is none
sent      asks for its state; a simulator in the dead process is started again
done      reads the bits from disk
failed    says so; ``resend`` makes it new again (so do ``lost`` and ``cancelled``)
========  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError, SourceError, UsageError
from qcomp.submit.patience import Patience
from qcomp.submit.plan import connect, native_gates, new_leg, settings_of
from qcomp.submit.provider import Batch, Machine, State
from qcomp.submit.record import JobRecord, Leg, Store, Task
from qcomp.submit.settings import Call, Key, Setting, pending_calls

if TYPE_CHECKING:
    from qcomp.runtime.artifact import Artifact

__all__ = ["Job", "resume"]

Array = NDArray[np.generic]
Bits = NDArray[np.uint8]
_BAD = {
    "failed": "failed",
    "lost": "is not known to the vendor",
    "cancelled": "was cancelled",
}
LONGEST_WAIT = 30.0
"""Seconds between two looks at a task, at most."""

LOOKS = 10
"""Tasks that are still running after which a round of looks ends: tasks run in the order sent."""


def resume(
    record: JobRecord,
    store: Store,
    patience: Patience,
    *,
    artifact: str | Path | None = None,
) -> Job:
    """Return a job that is on disk, ready to go on.

    Args:
        record: The job.
        store: Where jobs are kept.
        patience: How long to try.
        artifact: The artifact's folder, where it is not in its old place any more.

    Raises:
        SourceError: If the artifact is not the one that was submitted.
    """
    from qcomp.runtime.artifact import load

    place = Path(artifact) if artifact is not None else Path(record.artifact)
    kept = f"the job is kept; with the artifact: qcomp jobs fetch {record.id} --artifact FOLDER"
    try:
        loaded = load(place)
    except SourceError as error:
        raise SourceError(error.what, where=error.where, why=error.why, hint=kept) from error
    if loaded.sha256 != record.artifact_sha256:
        raise SourceError(
            f"'{place}' is not the artifact that the job {record.id} was submitted with",
            why=f"its hash is {loaded.sha256[:12]}, that of the job {record.artifact_sha256[:12]}",
            hint=kept,
        )
    return Job(record, loaded, store, patience)


class Job:
    """A job that is on disk.

    Args:
        record: What is on disk of it.
        artifact: The artifact; None is enough to cancel, and to give a result that is there.
        store: Where it is kept.
        patience: How long to try.
        machine: The device; connected when it is first needed where it is not given.
        told: Called with a few words whenever something happened.
    """

    def __init__(
        self,
        record: JobRecord,
        artifact: Artifact | None,
        store: Store,
        patience: Patience,
        machine: Machine | None = None,
        told: Callable[[JobRecord], None] | None = None,
    ) -> None:
        self.record, self.store = record, store
        self.patience, self.told = patience, told
        self._artifact, self._machine = artifact, machine
        self._batches = () if artifact is None else _stored_batches(store, record)
        self._known: dict[Key, Array] = {}

    @property
    def artifact(self) -> Artifact:
        """The artifact.

        Raises:
            UsageError: If the job was opened without it.
        """
        if self._artifact is None:
            raise UsageError(f"the job {self.record.id} was opened without its artifact")
        return self._artifact

    @property
    def machine(self) -> Machine:
        """The device."""
        if self._machine is None:
            record = self.record
            self._machine = connect(
                record.provider, record.device, self.patience, safe=self._safe()
            )
        return self._machine

    def send(self) -> None:
        """Send every task that was not sent."""
        leg, calls = self._current_leg()
        if leg is not None:
            self._send(leg, settings_of(calls))

    def fetch(self, *, wait: bool = True) -> dict[str, Array] | None:
        """Collect what is done, send what it makes possible, and return the outputs.

        Args:
            wait: Whether to wait for what is not done.

        Returns:
            Output name -> array, or None where something is still running.

        Raises:
            QcompError: If a task failed, was cancelled or vanished, or the vendor cannot be
                reached; everything that was done is kept.
        """
        record = self.record
        if record.finished:
            arrays = self.store.load_arrays(record, "result")
            return {name: arrays[name] for name in record.outputs}
        while True:
            leg, calls = self._current_leg()
            if leg is None and not calls:
                return self._finish()
            if leg is None:
                leg = new_leg(record, calls, self.machine)
                self.machine.check(settings_of(calls))
                record.legs.append(leg)
                self.store.save(record)
            self._send(leg, settings_of(calls))
            self._watch(leg, settings_of(calls), wait)
            if any(task.state != "done" for task in leg.tasks):
                self._refuse_failed(leg)
                return None

    def resend(self) -> int:
        """Make tasks that failed, vanished or were cancelled new again; return how many."""
        again = [t for t in self.record.tasks if t.state in _BAD]
        for task in again:
            base, _, tries = task.token.partition("~")
            task.token = f"{base}~{int(tries or 1) + 1}"
            task.state, task.identifier, task.note = "new", "", ""
        self.store.save(self.record)
        return len(again)

    def cancel(self) -> int:
        """Cancel every task that is not done; return how many."""
        stopped = 0
        for task in self.record.tasks:
            if task.state not in ("new", "sending", "sent"):
                continue
            identifier = task.identifier
            if task.state == "sending":
                identifier = self._find(task.token) or ""
            if identifier:
                self._call(lambda name=identifier: self.machine.cancel(name))  # type: ignore[misc]
            task.state, stopped = "cancelled", stopped + 1
            self.store.save(self.record)
        return stopped

    def counts(self) -> list[dict[str, Any]]:
        """Return the counts of every circuit and row whose bits are on disk.

        Each is ``circuit``, ``row``, ``shots`` and ``counts``: bits as text, bit 0 at the right.
        """
        out: list[dict[str, Any]] = []
        self._known = {}
        for number, leg in enumerate(self.record.legs):
            calls = self._calls(leg)
            last = leg is self.record.legs[-1]
            for setting, rows in zip(settings_of(calls), self._bits(number, calls), strict=True):
                for row, bits in enumerate(rows):
                    if bits is not None:
                        entry = {"circuit": setting.name, "row": row, "shots": len(bits)}
                        out.append({**entry, "counts": _counted(bits)})
            if not last:
                self._learn(number, calls)
        return out

    # --- legs ----------------------------------------------------------------------------

    def _current_leg(self) -> tuple[Leg | None, list[Call]]:
        """Return the leg that is not done and its calls; (None, calls) where it is yet to be made.

        (None, []) means that everything is known.
        """
        self._known = {}
        for number, leg in enumerate(self.record.legs):
            calls = self._calls(leg)
            if any(task.state != "done" for task in leg.tasks):
                return leg, calls
            self._learn(number, calls)
        calls, _ = self._pending()
        return None, calls

    def _pending(self) -> tuple[list[Call], list[dict[str, Any]]]:
        gates = native_gates(self.artifact)
        return pending_calls(self.artifact, self._batches, self._known, self.record.shots, gates)

    def _calls(self, leg: Leg) -> list[Call]:
        calls, _ = self._pending()
        if [c.key for c in calls] != leg.keys or [len(c.settings) for c in calls] != leg.settings:
            raise SourceError(
                f"the job {self.record.id} does not fit its artifact",
                why="the circuits that follow from its inputs are not those that were sent",
                hint="use the version of qcomp that submitted it",
            )
        return calls

    def _bits(self, number: int, calls: Sequence[Call]) -> list[list[Bits | None]]:
        """Return the bits of each setting and row that are on disk."""
        out: list[list[Bits | None]] = [[None] * len(s.rows) for s in settings_of(calls)]
        for index, task in enumerate(self.record.legs[number].tasks):
            if task.state != "done":
                continue
            found = self.store.load_bits(self.record, f"leg{number}-task{index}")
            for piece, bits in zip(task.pieces, found, strict=True):
                out[piece.setting][piece.start : piece.stop] = list(bits)
        return out

    def _learn(self, number: int, calls: Sequence[Call]) -> None:
        """Turn the bits of a leg that is done into what its circuits give."""
        found = iter(self._bits(number, calls))
        for call in calls:
            taken = [_stacked(next(found), setting) for setting in call.settings]
            self._known[call.key] = call.decode(taken)

    def _finish(self) -> dict[str, Array]:
        _, values = self._pending()
        sampled = self.artifact.sampled
        names = self.artifact.outputs
        if len(values) == 1:
            outputs = {name: np.asarray(values[0][name]) for name in names}
        else:
            assert sampled
            outputs = {name: np.concatenate([v[name] for v in values]) for name in names}
        self.store.save_arrays(self.record, "result", outputs)
        self.record.outputs = list(outputs)
        self.record.finished = True
        self.store.save(self.record)
        return outputs

    # --- tasks ---------------------------------------------------------------------------

    def _call(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401  what the vendor gives
        return self.patience.call(self.machine, work, self._safe())

    def _safe(self) -> str:
        return f"the job is kept, go on with: qcomp jobs fetch {self.record.id}"

    def _find(self, token: str) -> str | None:
        found: str | None = self._call(lambda: self.machine.find(token))
        return found

    def _batch(self, task: Task, settings: Sequence[Setting]) -> Batch:
        number = self.record.tasks.index(task)
        seed = np.random.SeedSequence([self.record.seed, number]).generate_state(1)[0] >> 1
        cut = tuple(
            replace(settings[p.setting], rows=settings[p.setting].rows[p.start : p.stop])
            for p in task.pieces
        )
        return Batch(cut, task.token, int(seed))

    def _send(self, leg: Leg, settings: Sequence[Setting]) -> None:
        machine = self.machine
        for task in leg.tasks:
            if task.state in ("sending", "sent") and not machine.lasting:
                # What ran in a process that is gone is not running any more.
                if machine.state(task.identifier).stage != "lost":
                    continue
                task.state = "new"
            again = task.state == "sending"
            if task.state not in ("new", "sending"):
                continue
            task.state = "sending"
            self.store.save(self.record)
            batch = self._batch(task, settings)

            tries = iter((again,))

            def hand_over(batch: Batch = batch, tries: Iterator[bool] = tries) -> str:
                # From the second try on the first may have arrived without an answer.
                seen = machine.find(batch.token) if next(tries, True) else None
                return seen or machine.send(batch)

            task.identifier = self._call(hand_over)
            task.state = "sent"
            self.store.save(self.record)
            self._tell()

    def _watch(self, leg: Leg, settings: Sequence[Setting], wait: bool) -> None:
        machine = self.machine
        interval = machine.interval
        while True:
            running = 0
            for task in leg.tasks:
                if task.state == "sent" and running < LOOKS:
                    self._look(leg, task, settings)
                    running += task.state == "sent"
            if not wait or all(task.state != "sent" for task in leg.tasks):
                return
            self.patience.sleep(interval)
            interval = min(1.5 * interval, LONGEST_WAIT)

    def _look(self, leg: Leg, task: Task, settings: Sequence[Setting]) -> None:
        machine = self.machine
        state: State = self._call(lambda: machine.state(task.identifier))
        if not state.is_final:
            if task.note != state.note:
                task.note = state.note
                self.store.save(self.record)
            self._tell()
            return
        task.note = state.note
        if state.stage == "done":
            batch = self._batch(task, settings)
            bits = self._call(lambda: machine.results(task.identifier, batch))
            _check_bits(bits, batch)
            name = f"leg{self.record.legs.index(leg)}-task{leg.tasks.index(task)}"
            self.store.save_bits(self.record, name, bits)
        task.state = state.stage
        self.store.save(self.record)
        self._tell()

    def _refuse_failed(self, leg: Leg) -> None:
        bad = [task for task in leg.tasks if task.state in _BAD]
        if not bad or any(task.state == "sent" for task in leg.tasks):
            return
        first = bad[0]
        done = sum(task.state == "done" for task in leg.tasks)
        raise QcompError(
            f"{len(bad)} of {len(leg.tasks)} tasks did not give a result: "
            f"'{first.identifier}' {_BAD[first.state]}",
            why=first.note,
            hint=f"send what is missing again: qcomp jobs fetch {self.record.id} --resend; "
            f"the {done} that are done are kept",
        )

    def _tell(self) -> None:
        if self.told is not None:
            self.told(self.record)


def _stored_batches(store: Store, record: JobRecord) -> tuple[Mapping[str, Any], ...]:
    batches: dict[int, dict[str, Any]] = {0: {}}
    for key, array in store.load_arrays(record, "inputs").items():
        number, _, name = key.removeprefix("batch").partition("/")
        batches.setdefault(int(number), {})[name] = array
    return tuple(batches[number] for number in sorted(batches))


def _stacked(rows: Sequence[Bits | None], setting: Setting) -> Bits:
    found = [row for row in rows if row is not None]
    if not found:
        return np.zeros((0, setting.shots, setting.circuit.num_clbits), dtype=np.uint8)
    return np.stack(found)


def _check_bits(bits: Sequence[Bits], batch: Batch) -> None:
    wanted = [(len(s.rows), s.circuit.num_clbits) for s in batch.settings]
    got = [(array.shape[0], array.shape[2]) for array in bits if array.ndim == 3]
    if got != wanted or any(not array.shape[1] for array in bits):
        raise QcompError(
            "a task gave other bits than its circuits measure",
            why=f"rows and bits are {got}, not {wanted}",
            hint="the vendor's result may belong to another task; nothing was stored",
        )


def _counted(bits: Bits) -> dict[str, int]:
    words, counts = np.unique(bits[:, ::-1], axis=0, return_counts=True)
    texts = ["".join(map(str, word)) for word in words.tolist()]
    return dict(zip(texts, counts.tolist(), strict=True))
