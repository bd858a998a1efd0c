"""Nothing is lost: crashes, outages, failures, other artifacts, two processes at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp import QcompError, SourceError, UsageError
from qcomp.submit import Job, Patience, Store, connect, resume
from qcomp.submit.record import jobs_folder, redacted
from tests.cli.conftest import environment
from tests.submit import cloud as vendor
from tests.submit.conftest import ROWS, newest, submitted

QUIET = Patience(sleep=lambda seconds: None)


def again(**options: object) -> dict[str, np.ndarray] | None:
    """Fetch the newest job as a new process would: from the disk alone."""
    store = Store()
    return resume(store.load(store.ids()[-1]), store, QUIET).fetch(**options)  # type: ignore[arg-type]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a package whose provider is ``cloud``."""
    info = tmp_path / "site" / "cloud_vendor-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cloud-vendor\nVersion: 1.0\n")
    entry = "[qcomp.providers]\ncloud = tests.submit.cloud:CloudProvider\n"
    (info / "entry_points.txt").write_text(entry)
    return info.parent


def spawned(arguments: Sequence[object], plugin: Path, cwd: Path) -> subprocess.Popen[str]:
    """Start the command line in its own process, the plugin on its path."""
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join((str(plugin), env["PYTHONPATH"]))
    return subprocess.Popen(
        [sys.executable, "-m", "qcomp", *map(str, arguments)],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def submit(artifact: Path) -> tuple[object, ...]:
    return ("submit", artifact, "--provider", "cloud", "--device", "apollo", "--shots", 300)


# ------------------------------------------------------------------------------ crashes


def test_a_process_killed_once_its_task_was_taken_loses_nothing_and_pays_once(
    artifacts: Path, cloud: Path, plugin: Path, tmp_path: Path
) -> None:
    vendor.plan_faults(send=["accept-kill"])
    process = spawned(submit(artifacts / "ghz"), plugin, tmp_path)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    (task,) = newest().tasks
    assert (task.state, task.identifier) == ("sending", "")
    process = spawned(("jobs", "fetch", "last", "--json"), plugin, tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (name,) = json.loads(out)["outputs"]
    assert np.isclose(sum(json.loads(out)["outputs"][name]), 1)
    assert vendor.calls("send") == 1
    assert len(list(cloud.glob("*.npz"))) == 1


@pytest.mark.parametrize("method", ["send", "results"])
def test_a_process_killed_at_any_call_leaves_a_job_that_goes_on(
    method: str, artifacts: Path, cloud: Path, plugin: Path, tmp_path: Path
) -> None:
    vendor.plan_faults(**{method: ["kill"]})
    process = spawned(submit(artifacts / "ghz"), plugin, tmp_path)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert newest().state == "open"
    assert again() is not None
    assert newest().state == "done"
    assert len(list(cloud.glob("*.npz"))) == 1


DIES_HALF_WAY = """
import os, signal, sys
from pathlib import Path
from tests.submit.conftest import ROWS, submitted

job = submitted(Path(sys.argv[1]), "local", "sim", rows=ROWS)
run, seen = job.machine.results, []

def results(identifier, batch):
    if seen:
        os.kill(os.getpid(), signal.SIGKILL)
    seen.append(identifier)
    return run(identifier, batch)

job.machine.results = results
job.fetch()
"""


def test_a_local_run_killed_half_way_goes_on_where_it_was(artifacts: Path, home: Path) -> None:
    whole = submitted(artifacts / "hybrid", "local", "sim", rows=ROWS).fetch()
    done = subprocess.run(
        [sys.executable, "-c", DIES_HALF_WAY, str(artifacts / "hybrid")], env=environment()
    )
    assert done.returncode == -signal.SIGKILL
    record = newest()
    assert [task.state for task in record.tasks] == ["done", "sent"]
    kept = Store().path(record.id) / "leg0-task0.npz"
    before = kept.stat().st_mtime_ns
    outputs = again()
    assert whole is not None
    assert outputs is not None
    np.testing.assert_array_equal(outputs["y"], whole["y"])
    assert kept.stat().st_mtime_ns == before


def test_ctrl_c_while_waiting_says_how_to_go_on(
    artifacts: Path, cloud: Path, plugin: Path, tmp_path: Path
) -> None:
    vendor.plan_faults(state=["slow"])
    process = spawned(submit(artifacts / "ghz"), plugin, tmp_path)
    deadline = time.monotonic() + 60
    while not vendor.calls("state") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert f"qcomp jobs fetch {newest().id}" in err
    assert "Traceback" not in err
    assert newest().tasks[0].state == "sent"
    assert again() is not None
    assert vendor.calls("send") == 1


def test_the_job_is_on_disk_before_it_is_sent_and_the_identifier_before_it_is_waited_for(
    artifacts: Path, cloud: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(artifacts / "ghz")
    states: list[str] = []

    def spy(method: str) -> None:
        inner = getattr(job.machine, method)

        def call(*arguments: object) -> object:
            states.append(f"{method}: {newest().tasks[0].state}")
            return inner(*arguments)

        monkeypatch.setattr(job.machine, method, call)

    spy("send")
    spy("state")
    job.fetch()
    assert states == ["send: sending", "state: sent"]


# ------------------------------------------------------------------------------ outages


def test_an_outage_is_waited_out_with_longer_and_longer_waits(artifacts: Path, cloud: Path) -> None:
    waits: list[float] = []
    said: list[str] = []
    patience = Patience(sleep=waits.append, told=said.append)
    vendor.plan_faults(send=["transient"] * 4, state=["queued"])
    job = submitted(artifacts / "ghz", patience=patience)
    assert job.fetch() is not None
    assert waits[:4] == [1, 2, 4, 8]
    assert said[0] == "the cloud cannot be reached; trying again in 1 s"
    assert len(list(cloud.glob("*.npz"))) == 1


def test_a_task_whose_answer_was_lost_is_not_sent_twice(artifacts: Path, cloud: Path) -> None:
    vendor.plan_faults(send=["accept-transient"])
    assert submitted(artifacts / "ghz").fetch() is not None
    assert len(list(cloud.glob("*.npz"))) == 1


@pytest.mark.parametrize("method", ["send", "state", "results"])
def test_an_outage_that_does_not_end_keeps_the_job(
    method: str, artifacts: Path, cloud: Path
) -> None:
    vendor.plan_faults(**{method: ["transient"] * 20})
    with pytest.raises(QcompError, match="cannot be reached") as caught:
        submitted(artifacts / "ghz").fetch()
    assert "tried 7 times" in caught.value.why
    assert f"qcomp jobs fetch {newest().id}" in caught.value.hint
    vendor.plan_faults()
    assert again() is not None
    assert len(list(cloud.glob("*.npz"))) == 1


def test_expired_credentials_are_not_tried_again(artifacts: Path, cloud: Path) -> None:
    vendor.plan_faults(state=["credentials"])
    with pytest.raises(UsageError, match="does not accept you") as caught:
        submitted(artifacts / "ghz").fetch()
    assert "cloudctl login" in caught.value.hint
    assert vendor.calls("state") == 1
    assert again() is not None


# ----------------------------------------------------------------------- failed and gone


def test_a_task_that_failed_is_named_and_only_it_is_sent_again(
    artifacts: Path, cloud: Path
) -> None:
    vendor.plan_faults(state=["", "failed"])
    rows = np.zeros((2, 2))
    with pytest.raises(QcompError, match="1 of 4 tasks") as caught:
        submitted(artifacts / "paulis", rows=rows).fetch()
    assert caught.value.why == "the fridge was warm"
    assert "--resend" in caught.value.hint
    assert newest().state == "failed"
    with pytest.raises(QcompError, match="1 of 4 tasks"):
        again()
    store = Store()
    job = resume(newest(), store, QUIET)
    assert job.resend() == 1
    outputs = job.fetch()
    assert outputs is not None
    (value,) = outputs.values()
    assert value.shape == (2, 4)
    assert vendor.calls("send") == 5


def test_a_task_that_vanished_is_said_and_can_be_sent_again(artifacts: Path, cloud: Path) -> None:
    submitted(artifacts / "ghz").send()
    next(cloud.glob("*.npz")).unlink()
    with pytest.raises(QcompError, match="is not known to the vendor"):
        again()
    assert newest().state == "lost"
    job = resume(newest(), Store(), QUIET)
    job.resend()
    assert job.fetch() is not None


def test_a_cancelled_job_is_told_to_the_vendor_and_can_be_sent_again(
    artifacts: Path, cloud: Path
) -> None:
    job = submitted(artifacts / "ghz")
    job.send()
    assert job.cancel() == 1
    assert vendor.calls("cancel") == 1
    assert newest().state == "cancelled"
    with pytest.raises(QcompError, match="was cancelled"):
        again()
    job = resume(newest(), Store(), QUIET)
    assert job.cancel() == 0
    job.resend()
    assert job.fetch() is not None


def test_nothing_is_waited_for_where_nobody_wants_to_wait(artifacts: Path, cloud: Path) -> None:
    vendor.plan_faults(state=["queued", "queued"])
    job = submitted(artifacts / "ghz")
    assert job.fetch(wait=False) is None
    assert newest().tasks[0].note == "place 3"
    assert again(wait=False) is None
    assert again(wait=False) is not None


def test_bits_that_do_not_fit_the_circuit_are_not_stored(artifacts: Path, cloud: Path) -> None:
    vendor.plan_faults(results=["narrow"])
    with pytest.raises(QcompError, match="other bits"):
        submitted(artifacts / "ghz").fetch()
    assert newest().tasks[0].state == "sent"
    assert again() is not None


# ---------------------------------------------------------------------- other artifacts


def test_a_job_is_not_finished_with_another_artifact(artifacts: Path, cloud: Path) -> None:
    submitted(artifacts / "ghz").send()
    shutil.move(artifacts / "ghz", artifacts / "kept")
    with pytest.raises(SourceError, match="no artifact"):
        again()
    shutil.copytree(artifacts / "paulis", artifacts / "ghz")
    with pytest.raises(SourceError, match="is not the artifact") as caught:
        again()
    assert "--artifact" in caught.value.hint
    store = Store()
    job = resume(newest(), store, QUIET, artifact=artifacts / "kept")
    assert job.fetch() is not None


def test_results_of_another_artifact_are_refused(artifacts: Path, cloud: Path) -> None:
    first = submitted(artifacts / "ghz")
    first.fetch()
    second = submitted(artifacts / "paulis", rows=np.zeros((1, 2)))
    second.fetch()
    store = Store()
    places = [store.path(job.record.id) for job in (first, second)]
    shutil.copy(places[1] / "result.npz", places[0] / "result.npz")
    shutil.copy(places[1] / "leg0-task0.npz", places[0] / "leg0-task0.npz")
    with pytest.raises(SourceError, match="another artifact"):
        Job(store.load(first.record.id), None, store, QUIET).fetch()
    with pytest.raises(SourceError, match="another artifact"):
        resume(store.load(first.record.id), store, QUIET).counts()


def test_results_are_stored_with_the_hash_of_their_artifact(artifacts: Path, cloud: Path) -> None:
    job = submitted(artifacts / "ghz")
    job.fetch()
    wanted = qcomp.load(artifacts / "ghz").sha256
    for name in ("inputs", "leg0-task0", "result"):
        with np.load(Store().path(job.record.id) / f"{name}.npz") as data:
            assert str(data["artifact_sha256"]) == wanted


# --------------------------------------------------------------------------- the folder


def test_damaged_records_are_one_clear_error(artifacts: Path, cloud: Path) -> None:
    job = submitted(artifacts / "ghz")
    store = Store()
    path = store.path(job.record.id) / "job.json"
    text = path.read_text()
    wrong = (
        "",
        "[]",
        text[:-20],
        text.replace('"version": 1', '"version": 2'),
        text.replace('"provider"', '"vendor"'),
        text.replace('"pieces"', '"parts"'),
    )
    for content in wrong:
        path.write_text(content)
        with pytest.raises(SourceError):
            store.load(job.record.id)
    path.write_text(text)
    (store.path(job.record.id) / "inputs.npz").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="cannot be read"):
        resume(store.load(job.record.id), store, QUIET)


def test_jobs_are_found_by_their_beginning_and_by_last(artifacts: Path, cloud: Path) -> None:
    store = Store()
    with pytest.raises(UsageError, match="no job"):
        store.find("last")
    first, second = (submitted(artifacts / "ghz").record.id for _ in range(2))
    assert store.ids() == sorted((first, second))
    assert store.find("last") == store.ids()[-1]
    assert store.find(first[:-1]) == first
    with pytest.raises(UsageError, match="there are 2 jobs"):
        store.find(first[:4])
    with pytest.raises(UsageError, match="did you mean"):
        store.find("x" + first)


def test_two_processes_do_not_take_one_job_at_once(artifacts: Path, cloud: Path) -> None:
    job = submitted(artifacts / "ghz")
    with Store().held(job.record.id), pytest.raises(QcompError, match="another process"):
        with Store().held(job.record.id):
            raise AssertionError
    with Store().held(job.record.id):
        pass


def test_jobs_lie_where_qcomp_home_or_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QCOMP_HOME", "/somewhere")
    assert jobs_folder() == Path("/somewhere/jobs")
    monkeypatch.delenv("QCOMP_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    if sys.platform == "linux":
        assert jobs_folder() == Path("/state/qcomp/jobs")


def test_a_job_is_for_its_owner_s_eyes(artifacts: Path, cloud: Path) -> None:
    job = submitted(artifacts / "ghz")
    if os.name == "posix":
        assert Store().path(job.record.id).stat().st_mode & 0o077 == 0


def test_unknown_providers_and_devices_are_said_with_the_nearest(cloud: Path) -> None:
    with pytest.raises(UsageError, match="no provider named 'clout'") as caught:
        connect("clout", "apollo", QUIET)
    assert "'cloud'" in caught.value.hint
    with pytest.raises(UsageError, match="no device 'apolo'") as caught:
        connect("cloud", "apolo", QUIET)
    assert "'apollo'" in caught.value.hint


# -------------------------------------------------------------------------- credentials


def test_no_token_is_stored_or_said(
    artifacts: Path,
    cloud: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    planted = "AKIAQX7T2PLANTED0Zm9vYmFyTOKEN1234"
    for name in ("CLOUD_TOKEN", "QISKIT_IBM_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, planted)
    caplog.set_level("DEBUG")
    vendor.plan_faults(state=["leak"])
    with pytest.raises(QcompError, match="the cloud refuses") as caught:
        submitted(artifacts / "ghz").fetch()
    assert caught.value.__cause__ is None
    assert again() is not None
    texts = [str(caught.value), caplog.text, *capfd.readouterr()]
    files = [path for path in home.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not any(planted in text for text in texts)
    assert not any(planted.encode() in path.read_bytes() for path in files)
    assert "[...]" in redacted(f"header Bearer {planted} was refused")
    assert "refused" in redacted(f"header Bearer {planted} was refused")
