"""Artifacts to submit, a place for jobs, and a vendor that fails as it is told."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp import Circuit, Observable, registry
from qcomp.ir.program import Program, Readout
from qcomp.submit import JobRecord, Patience, Store, connect, plan, start
from qcomp.submit.jobs import Job
from tests import models

ROWS = np.random.default_rng(5).normal(size=(70, 4)).astype(np.float32)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of artifacts: ``ghz``, ``paulis`` (a circuit and its observables), ``hybrid``."""
    place = tmp_path_factory.mktemp("artifacts")
    ghz = Circuit(3, 3, name="ghz")
    ghz.h(0)
    ghz.cx(0, 1)
    ghz.cx(1, 2)
    for q in range(3):
        ghz.measure(q, q)
    qcomp.compile(ghz, target="ibm-heron", out=place / "ghz", effort="fast")
    program = Program.of_circuit(models.small_circuit(), readout())
    qcomp.compile(program, target="portable", out=place / "paulis", effort="fast")
    qcomp.compile(
        models.hybrid(2),
        target="cpu-dynamic-int8+portable",
        out=place / "hybrid",
        effort="fast",
    )
    return place


def readout() -> Readout:
    """Observables that need four measurement settings."""
    texts = ("Z0", "0.5*Z0*Z1 + 0.25*X1 - 1.5", "Y0*X1", "X0*X1 + Y1")
    return Readout("expval", tuple(Observable.parse(text) for text in texts))


@pytest.fixture
def artifacts(made: Path, tmp_path: Path) -> Path:
    """The artifacts, copied: tests may move and change them."""
    return Path(shutil.copytree(made, tmp_path / "artifacts"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for jobs; no vendor's account is to be found from here."""
    place = tmp_path / "home"
    monkeypatch.setenv("QCOMP_HOME", str(place))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "QISKIT_IBM_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    accounts = sys.modules.get("qiskit_ibm_runtime.accounts.management")
    if accounts is not None:  # it looked for its home when it was imported
        file = str(tmp_path / "nobody" / "qiskit-ibm.json")
        monkeypatch.setattr(accounts, "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE", file)
    return place


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Path]:
    """The test vendor's folder; it is the provider ``cloud`` in this process."""
    place = tmp_path / "cloud"
    place.mkdir()
    monkeypatch.setenv("QCOMP_TEST_CLOUD", str(place))
    where = "tests.submit.cloud:CloudProvider"
    monkeypatch.setitem(registry.GROUPS["providers"], "cloud", where)
    registry.table.cache_clear()
    yield place
    registry.table.cache_clear()


def submitted(
    artifact: Path,
    provider: str = "cloud",
    device: str = "apollo",
    *,
    rows: np.ndarray | None = None,
    shots: int | None = 400,
    seed: int = 1,
    patience: Patience | None = None,
) -> Job:
    """Return a job that is on disk and not sent."""
    loaded = qcomp.load(artifact)
    feeds = {} if rows is None else {loaded.inputs[0]: rows}
    patience = patience or Patience(sleep=lambda seconds: None)
    store = Store()
    planned = plan(loaded, feeds, shots)
    machine = connect(provider, device, patience)
    record = start(planned, provider, device, machine, seed=seed, store=store)
    return Job(record, loaded, store, patience, machine)


def newest() -> JobRecord:
    """Return the job that was submitted last."""
    store = Store()
    return store.load(store.ids()[-1])
