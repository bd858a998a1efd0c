"""``qcomp submit`` and ``qcomp jobs`` as a user meets them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcomp
from qcomp import registry
from qcomp.submit import Store
from tests.cli.conftest import Cli, Result, cli, environment, folder  # noqa: F401  fixtures
from tests.submit import cloud as vendor
from tests.submit.conftest import ROWS, newest

LOCAL = ("--provider", "local", "--device", "sim")
CLOUD = ("--provider", "cloud", "--device", "apollo")


def done(result: Result) -> str:
    assert result.code == 0, result.err
    assert "\x1b" not in result.out
    return result.out


def refused(result: Result, *parts: str, code: int) -> None:
    assert result.code == code, (result.out, result.err)
    for part in parts:
        assert part in result.err
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("home")
def test_help_shows_examples_that_are_commands(cli: Cli) -> None:  # noqa: F811
    for arguments in (("submit",), ("jobs",), ("jobs", "fetch"), ("jobs", "cancel")):
        text = done(cli(*arguments, "--help"))
        examples = re.findall(r"^ +qcomp (\w+)", text, re.MULTILINE)
        assert examples
        assert set(examples) == {arguments[0]}


@pytest.mark.usefixtures("home")
def test_a_hybrid_model_is_submitted_and_listed_and_fetched_again(
    cli: Cli,  # noqa: F811
    artifacts: Path,
) -> None:
    np.savez("x.npz", x=ROWS)
    hybrid = artifacts / "hybrid"
    asked = ("--input", "x.npz", "--shots", 2000)
    files = ("--output", "y.npz", "--counts", "c.json")
    text = done(cli("submit", hybrid, *LOCAL, *asked, *files))
    assert re.match(r"job \d{8}-\d{6}-\d{6}-\w{4}: 2 tasks for sim\n", text)
    assert "wrote y.npz" in text
    assert "wrote c.json" in text
    y = np.load("y.npz")["y"]
    np.testing.assert_allclose(y, qcomp.load(hybrid)(ROWS), atol=0.2)
    counts = json.loads(Path("c.json").read_text())
    assert len(counts) == 140
    assert all(sum(entry["counts"].values()) == 2000 for entry in counts)
    assert {entry["circuit"] for entry in counts} == {"layer0", "layer1"}
    listed = done(cli("jobs"))
    assert newest().id in listed
    assert "4/4" in listed
    (entry,) = json.loads(done(cli("jobs", "--json")))
    assert (entry["state"], entry["provider"], entry["shots"]) == ("done", "local", 2000)
    assert entry["artifact_sha256"] == qcomp.load(hybrid).sha256
    shutil.move(hybrid, artifacts / "moved")  # a result that is there needs nothing else
    again = json.loads(done(cli("jobs", "fetch", "last", "--json")))
    np.testing.assert_allclose(again["outputs"]["y"], y)
    assert done(cli("jobs", "fetch", "--all")) == "every job is done\n"
    refused(cli("jobs", "fetch", "last", "--counts", "c.json"), "is no artifact", code=1)


def test_the_state_is_kept_between_commands_that_do_not_wait(
    cli: Cli,  # noqa: F811
    artifacts: Path,
    cloud: Path,
) -> None:
    assert done(cli("jobs")).startswith("no jobs in ")
    text = done(cli("submit", artifacts / "ghz", *CLOUD, "--no-wait"))
    assert "1 tasks for apollo, about 2.50 EUR\n" in text
    assert f"fetch it: qcomp jobs fetch {newest().id}" in text
    vendor.plan_faults(state=["queued"])
    assert "still running" in done(cli("jobs", "fetch", "last", "--no-wait"))
    (entry,) = json.loads(done(cli("jobs", "--json")))
    assert entry["tasks"] == [{"id": "cloud-0", "state": "sent", "note": "place 3"}]
    assert "done" in done(cli("jobs", "fetch", "--all"))


def test_a_terminal_sees_the_place_in_the_queue(
    artifacts: Path, cloud: Path, tmp_path: Path
) -> None:
    import pty

    vendor.plan_faults(state=["queued", "queued"])
    master, slave = pty.openpty()
    code = (
        "import sys; from tests.submit.test_commands import register_cloud; register_cloud(); "
        "from qcomp.__main__ import main; sys.argv[0] = 'qcomp'; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "submit", str(artifacts / "ghz"), *CLOUD],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    process.communicate(timeout=120)
    os.close(slave)
    seen = os.read(master, 100_000).decode()
    os.close(master)
    assert process.returncode == 0, seen
    assert seen.count("place 3") == 1
    assert f"job {newest().id}" in seen


def register_cloud() -> None:
    registry.GROUPS["providers"]["cloud"] = "tests.submit.cloud:CloudProvider"


def test_one_bad_job_does_not_keep_the_others_from_being_fetched(
    cli: Cli,  # noqa: F811
    artifacts: Path,
    cloud: Path,
) -> None:
    for name in ("ghz", "damaged", "copy"):
        if name != "ghz":
            shutil.copytree(artifacts / "ghz", artifacts / name)
        done(cli("submit", artifacts / name, *CLOUD, "--no-wait"))
        if name == "damaged":
            (Store().path(newest().id) / "job.json").write_text("{")
    shutil.rmtree(artifacts / "ghz")
    refused(cli("jobs", "fetch", "--all"), "is no artifact", "is damaged", code=1)
    assert newest().state == "done"
    result = cli("jobs")
    assert result.code == 0
    assert "is damaged" in result.err
    assert newest().id in result.out
    refused(cli("jobs", "fetch", "--all", "last"), "name one job, or give --all", code=2)
    refused(cli("jobs", "fetch", "--all", "--output", "y.npz"), "are for one job", code=2)
    refused(cli("jobs", "fetch"), "name one job", code=2)
    refused(cli("jobs", "fetch", "nothing"), "there is no job 'nothing'", code=2)


def test_a_distribution_too_wide_for_an_array_is_given_as_counts(
    cli: Cli,  # noqa: F811
    artifacts: Path,
    cloud: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qcomp.submit.settings.MOST_BITS", 2)
    refused(cli("submit", artifacts / "ghz", *CLOUD), "3 bits", "--counts", code=1)
    result = cli("jobs", "fetch", "last", "--counts", "c.json")
    assert result.code == 0, result.err
    assert "there are only counts" in result.err
    (entry,) = json.loads(Path("c.json").read_text())
    assert set(entry["counts"]) == {"000", "111"}


def test_a_job_can_be_cancelled_and_sent_again(
    cli: Cli,  # noqa: F811
    artifacts: Path,
    cloud: Path,
) -> None:
    done(cli("submit", artifacts / "ghz", *CLOUD, "--no-wait"))
    shutil.move(artifacts / "ghz", artifacts / "moved")
    assert "1 tasks cancelled" in done(cli("jobs", "cancel", "last"))
    shutil.move(artifacts / "moved", artifacts / "ghz")
    refused(cli("jobs", "fetch", "last"), "was cancelled", "--resend", code=1)
    done(cli("jobs", "fetch", "last", "--resend"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a dry run opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("home", "no_network")
def test_a_dry_run_says_what_and_how_much_without_network_and_credentials(
    cli: Cli,  # noqa: F811
    artifacts: Path,
    home: Path,
) -> None:
    np.savez("x.npz", params=np.zeros((3, 2)))
    asked = ("--input", "x.npz", "--shots", 500, "--dry-run")

    def dry(provider: str, device: str) -> dict[str, Any]:
        where = ("--provider", provider, "--device", device)
        data = json.loads(done(cli("submit", artifacts / "paulis", *where, *asked, "--json")))
        assert len(data["circuits"]) == data["groups"] == 4
        assert data["shots"] == 4 * 3 * 500
        first = data["circuits"][0]
        assert (first["qubits"], first["rows"], first["shots"]) == (2, 3, 500)
        assert first["two_qubit"] == 1
        assert first["depth"] > 1
        return dict(data)

    priced = dry("braket", "Garnet")
    assert priced["tasks"] == 12
    assert priced["estimate"]["price"] == pytest.approx(12 * 0.30 + 6000 * 0.00145)
    assert any("read on 2026" in note for note in priced["notes"])
    assert any("nothing was checked" in note for note in priced["notes"])
    assert dry("braket", "Emerald")["estimate"]["price"] is None
    assert dry("braket", "local")["estimate"]["price"] == 0
    timed = dry("ibm", "ibm_torino")
    assert timed["tasks"] == 1
    # 2 s for the job; each shot waits 250 us and takes a few us.
    assert 2 + 6000 * 250e-6 < timed["estimate"]["seconds"] < 2 + 6000 * 260e-6
    assert any("depends on your plan" in note for note in timed["notes"])
    assert dry("ibm", "ibm_no_such_twin")["estimate"]["seconds"] == pytest.approx(2 + 6000 * 350e-6)
    assert dry("local", "sim")["tasks"] == 4
    text = done(
        cli("submit", artifacts / "paulis", "--provider", "braket", "--device", "Garnet", *asked)
    )
    assert "estimated price: 12.30 USD" in text
    assert "4 measurement groups; nothing was sent" in text
    assert not home.exists()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--provider", "imb", "--device", "x"), ("no provider named 'imb'", "'ibm'")),
        (("--provider", "ibm", "--device", "fake_torno"), ("'fake_torno'", "'fake_torino'")),
        (("--provider", "braket", "--device", "Granet"), ("'Granet'", "'Garnet'")),
        (("--provider", "braket", "--device", "no.json"), ("no file 'no.json'", "properties")),
        (("--provider", "local", "--device", "air"), ("no device 'air'", "'aer'")),
        (("--provider", "ibm", "--device", "ibm_torino"), ("account", "save_account")),
        (("--provider", "braket", "--device", "Garnet"), ("credentials", "aws configure")),
    ],
)
def test_wrong_names_and_missing_accounts_are_said_with_the_next_step(
    arguments: tuple[str, ...],
    parts: tuple[str, ...],
    cli: Cli,  # noqa: F811
    artifacts: Path,
    home: Path,
) -> None:
    result = cli("submit", artifacts / "ghz", *arguments)
    refused(result, *parts, code=2)
    assert not home.exists()


@pytest.mark.usefixtures("home")
def test_a_circuit_that_is_not_for_the_machine_is_refused_with_all_that_is_wrong(
    cli: Cli,  # noqa: F811
    artifacts: Path,
) -> None:
    where = ("--provider", "ibm", "--device", "fake_torino")
    np.savez("x.npz", params=np.zeros((1, 2)))
    result = cli("submit", artifacts / "paulis", *where, "--input", "x.npz")
    refused(result, "fake_torino cannot run", "it has no gate 'r", "-t ibm-heron", code=1)
    result = cli("submit", artifacts / "paulis", *where)
    refused(result, "takes inputs", "params", code=2)
