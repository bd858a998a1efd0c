"""IBM's own client: a fake backend with its real calibration data, and a service that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcomp
from qcomp import Circuit, Observable, QcompError, TargetError, UsageError
from qcomp.ir.layout import Layout
from qcomp.ir.program import Program, Readout
from qcomp.submit import Patience, Store, connect, resume
from qcomp.submit.ibm import MOST_EXECUTIONS, MOST_TWO_QUBIT, circuit_seconds, isa_faults
from qcomp.submit.settings import Setting
from tests import models
from tests.submit.conftest import newest, readout, submitted

QUIET = Patience(sleep=lambda seconds: None)
PLANTED = "ibmtokenPLANTED0123456789abcdefABCDEF"


@pytest.fixture(scope="module")
def torino() -> Any:
    from qiskit_ibm_runtime.fake_provider import FakeTorino

    return FakeTorino()


def test_rows_of_a_parametrised_circuit_run_on_a_fake_backend(home: Path, tmp_path: Path) -> None:
    program = Program.of_circuit(models.small_circuit(), readout())
    artifact = qcomp.compile(program, device="fake_manila", out=tmp_path / "out", effort="fast")
    rows = np.array([[0.3, -0.8], [1.2, 0.5]])
    job = submitted(tmp_path / "out", "ibm", "fake_manila", rows=rows, shots=4000, seed=3)
    outputs = job.fetch()
    assert outputs is not None
    (value,) = outputs.values()
    exact = artifact(rows)
    # Its errors are those of the real machine: near the exact values, not equal to them.
    np.testing.assert_allclose(value, exact, atol=0.2)
    assert np.abs(value - exact).max() > 0.01
    (task,) = newest().tasks
    assert len(task.pieces) == 4
    counts = job.counts()
    assert len(counts) == 8
    assert all(sum(entry["counts"].values()) == 4000 for entry in counts)
    repeated = submitted(tmp_path / "out", "ibm", "fake_manila", rows=rows, shots=4000, seed=3)
    found = repeated.fetch()
    assert found is not None
    np.testing.assert_array_equal(next(iter(found.values())), value)


@pytest.mark.slow
def test_a_mapped_circuit_runs_on_its_qubits_of_fake_torino(
    torino: Any, home: Path, tmp_path: Path
) -> None:
    target = torino.target

    def error(pair: tuple[int, int]) -> float:
        reads = sum(target["measure"][(q,)].error for q in pair)
        return float(target["cz"][pair].error + reads)

    wires = min(target["cz"], key=error)
    circuit = Circuit(133, params=("a",), name="native")
    circuit.sx(wires[0])
    circuit.cz(*wires)
    circuit.sx(wires[1])
    circuit.cz(*wires)
    circuit.rz(qcomp.Parameter("a"), wires[1])
    circuit.sx(wires[1])
    circuit.layout = Layout(wires, wires, 133)
    values = Readout("expval", (Observable.parse("Z1"), Observable.parse("Z0*Z1")))
    program = Program.of_circuit(circuit, values)
    artifact = qcomp.compile(
        program, target="ibm-heron", pipeline="", mapping=False, out=tmp_path / "out"
    )
    rows = np.array([[0.4]])
    outputs = submitted(tmp_path / "out", "ibm", "fake_torino", rows=rows, shots=4000).fetch()
    assert outputs is not None
    (value,) = outputs.values()
    exact = artifact(rows)
    np.testing.assert_allclose(value, exact, atol=0.1)
    assert np.abs(exact).max() > 0.3


# ---------------------------------------------------------------------- before it is sent


def test_what_a_target_has_not_is_listed_once_each(torino: Any) -> None:
    circuit = Circuit(16, 1)
    for _ in range(3):
        circuit.h(0)
    circuit.cz(0, 1)
    circuit.cz(0, 15)
    circuit.cz(2, 15)
    circuit.measure(0, 0)
    assert isa_faults(circuit.to_qiskit(), torino.target) == [
        "it has no gate 'h' (3 times)",
        "'cz' is not coupled on qubits 2, 15",
    ]


def test_gates_in_branches_are_held_to_the_target_too(torino: Any) -> None:
    from qcomp.ir.classical import Bit

    circuit = Circuit(3, 1)
    circuit.measure(1, 0)
    with circuit.if_(Bit(0)):
        circuit.cz(0, 2)
    assert isa_faults(circuit.to_qiskit(), torino.target) == ["'cz' is not coupled on qubits 0, 2"]


def test_the_length_of_a_circuit_is_its_longest_chain(torino: Any) -> None:
    circuit = Circuit(3, 3)
    circuit.sx(0)
    circuit.cz(0, 1)
    circuit.x(2)
    circuit.measure(1, 1)
    target = torino.target
    chain = (("sx", (0,)), ("cz", (0, 1)), ("measure", (1,)))
    wanted = sum(target[name][qubits].duration for name, qubits in chain)
    assert circuit_seconds(circuit.to_qiskit(), target) == pytest.approx(wanted)


def test_a_circuit_wider_than_the_machine_is_refused(home: Path, tmp_path: Path) -> None:
    circuit = Circuit(6, 6, name="wide")
    for q in range(6):
        circuit.measure(q, q)
    qcomp.compile(circuit, target="ibm-heron", out=tmp_path / "out", mapping=False)
    with pytest.raises(
        TargetError, match=r"has 6 qubits, fake_manila has 5(.|\n)*--device fake_manila"
    ):
        submitted(tmp_path / "out", "ibm", "fake_manila")


def test_jobs_keep_to_ibm_s_limits() -> None:
    machine = connect("ibm", "fake_manila", QUIET)
    small = Circuit(2, 2)
    small.measure(0, 0)
    big = Circuit(2, 2)
    for _ in range(MOST_TWO_QUBIT // 2 + 1):
        big.cx(0, 1)
    rows = np.zeros((1300, 0))
    settings = [
        Setting(small, rows, 4000, "many"),
        Setting(big, rows[:1], 100, "a"),
        Setting(big, rows[:1], 100, "b"),
        Setting(small, rows[:1], 100, "c"),
    ]
    tasks = machine.split(settings)
    for task in tasks:
        assert len({settings[p.setting].shots for p in task}) == 1
        runs = sum((p.stop - p.start) * settings[p.setting].shots for p in task)
        gates = sum(settings[p.setting].circuit.stats().two_qubit for p in task)
        assert runs <= MOST_EXECUTIONS
        assert gates <= MOST_TWO_QUBIT
    assert [len(task) for task in tasks] == [1, 1, 1, 2]
    covered = sorted((p.setting, p.start, p.stop) for task in tasks for p in task)
    assert covered == [(0, 0, 1250), (0, 1250, 1300), (1, 0, 1), (2, 0, 1), (3, 0, 1)]


# ------------------------------------------------------------------------------ a service


class Job:
    """A job of the service, as the client has them; its results come from qiskit's own sampler."""

    def __init__(self, service: Service, number: int, pubs: Any, tags: list[str]) -> None:
        self.service, self.number, self.pubs, self.tags = service, number, pubs, tags
        self.stopped = False

    def job_id(self) -> str:
        return f"job{self.number}"

    def status(self) -> str:
        return "CANCELLED" if self.stopped else self.service.fault("status") or "DONE"

    def error_message(self) -> str:
        return f"calibration lost, token {PLANTED}"

    def result(self) -> Any:
        from qiskit.primitives import StatevectorSampler

        self.service.fault("result")
        return StatevectorSampler(seed=1).run(self.pubs).result()

    def cancel(self) -> None:
        self.stopped = True


class Service:
    """What the account sees: a backend, jobs by tag, and what goes wrong."""

    def __init__(self, backend: Any) -> None:
        self.machine, self.made, self.faults = backend, [], {}  # type: ignore[var-annotated]

    def fault(self, method: str) -> Any:
        waiting = self.faults.get(method) or [None]
        self.faults[method] = waiting[1:]
        if isinstance(waiting[0], Exception):
            raise waiting[0]
        return waiting[0]

    def backend(self, name: str) -> Any:
        from qiskit.providers.exceptions import QiskitBackendNotFoundError

        self.fault("backend")
        if name != "ibm_manila":
            raise QiskitBackendNotFoundError("none")
        return self.machine

    def backends(self) -> list[Any]:
        twin = type("Backend", (), {"name": "ibm_manila"})()
        return [twin]

    def job(self, identifier: str) -> Job:
        from qiskit_ibm_runtime.exceptions import RuntimeJobNotFound

        self.fault("job")
        for job in self.made:
            if job.job_id() == identifier:
                return job
        raise RuntimeJobNotFound(f"Job not found: {identifier}")

    def jobs(self, job_tags: list[str], limit: int) -> list[Job]:
        self.fault("jobs")
        return [job for job in self.made if job_tags[0] in job.tags][:limit]

    def run(self, pubs: Any, options: dict[str, Any]) -> Job:
        from qiskit.primitives.containers.sampler_pub import SamplerPub

        job = Job(self, len(self.made), pubs, options["environment"]["job_tags"])
        assert all(isinstance(pub, SamplerPub) for pub in pubs)
        wrong = self.faults.get("run", [None])[:1]
        if wrong and wrong[0] == "lost":
            self.faults["run"] = self.faults["run"][1:]
            self.made.append(job)
            raise away()
        self.fault("run")
        self.made.append(job)
        return job


def away() -> Exception:
    """The client's error when the network is gone, as it raises it."""
    from qiskit_ibm_runtime.api.exceptions import RequestsApiError
    from qiskit_ibm_runtime.exceptions import IBMRuntimeError

    try:
        try:
            raise RequestsApiError("HTTPSConnectionPool: Max retries exceeded", -1)
        except RequestsApiError as error:
            raise IBMRuntimeError(f"Failed to run program: {error}") from None
    except IBMRuntimeError as error:
        return error


@pytest.fixture
def service(home: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service in the place of IBM's; what is run goes through the checks of the real sampler."""
    import qiskit_ibm_runtime
    from qiskit.primitives.containers.sampler_pub import SamplerPub
    from qiskit_ibm_runtime.fake_provider import FakeManilaV2

    made = Service(FakeManilaV2())

    class Sampler:
        def __init__(self, mode: Any, options: dict[str, Any]) -> None:
            # The real one checks the options.
            qiskit_ibm_runtime.options.SamplerOptions(**options)
            self.options = options

        def run(self, pubs: Any, shots: int) -> Job:
            return made.run([SamplerPub.coerce(pub, shots) for pub in pubs], self.options)

    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", lambda: made)
    monkeypatch.setattr(qiskit_ibm_runtime, "SamplerV2", Sampler)
    return made


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A circuit for the five qubits in a row of Manila, whose gates are cx, rz, sx and x."""
    circuit = Circuit(2, 2, name="pair")
    circuit.sx(0)
    circuit.cx(0, 1)
    circuit.measure(0, 1)
    circuit.measure(1, 0)
    qcomp.compile(circuit, target="nam", pipeline="", out=tmp_path / "pair", mapping=False)
    return tmp_path / "pair"


def test_a_job_of_the_service_is_found_by_its_tag_when_its_answer_was_lost(
    pair: Path, service: Service
) -> None:
    service.faults = {"run": ["lost"], "status": ["QUEUED", "RUNNING"]}
    outputs = submitted(pair, "ibm", "ibm_manila", shots=4000).fetch()
    assert outputs is not None
    np.testing.assert_allclose(next(iter(outputs.values())), [0.5, 0, 0, 0.5], atol=0.05)
    assert len(service.made) == 1
    (task,) = newest().tasks
    assert (task.identifier, service.made[0].tags) == ("job0", [task.token])


@pytest.mark.parametrize(
    ("method", "fault", "parts"),
    [
        ("run", "refused", ("IBM's client refuses: IBMInputValueError",)),
        ("run", "denied", ("does not accept the account", "save_account")),
        ("status", "ERROR", ("1 of 1 tasks", "calibration lost", "--resend")),
        ("status", "CANCELLED", ("was cancelled",)),
    ],
)
def test_what_ibm_refuses_is_said_and_the_job_goes_on_afterwards(
    method: str, fault: str, parts: tuple[str, ...], pair: Path, service: Service, home: Path
) -> None:
    from qiskit_ibm_runtime.exceptions import IBMInputValueError, IBMNotAuthorizedError

    errors = {
        "refused": IBMInputValueError(f"bad option, token {PLANTED}"),
        "denied": IBMNotAuthorizedError(f"401, token {PLANTED}"),
    }
    service.faults[method] = [errors.get(fault, fault)]
    with pytest.raises(QcompError) as caught:
        submitted(pair, "ibm", "ibm_manila").fetch()
    for part in parts:
        assert part in str(caught.value)
    assert PLANTED not in str(caught.value)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert not any(PLANTED.encode() in path.read_bytes() for path in files)
    job = resume(newest(), Store(), QUIET)
    job.resend()
    assert job.fetch() is not None


def test_a_network_that_is_away_keeps_the_job_and_a_job_that_vanished_is_said(
    pair: Path, service: Service
) -> None:
    service.faults = {"status": [away() for _ in range(20)]}
    with pytest.raises(QcompError, match="IBM's service cannot be reached") as caught:
        submitted(pair, "ibm", "ibm_manila").fetch()
    assert "tried 7 times" in caught.value.why
    service.faults.clear()
    service.made.clear()
    with pytest.raises(QcompError, match="is not known to the vendor"):
        resume(newest(), Store(), QUIET).fetch()


def test_an_unknown_machine_of_an_account_is_said_with_the_nearest(service: Service) -> None:
    with pytest.raises(UsageError, match="no device 'ibm_manilla' in this account") as caught:
        connect("ibm", "ibm_manilla", QUIET)
    assert "'ibm_manila'" in caught.value.hint


def test_a_job_is_cancelled_at_ibm(pair: Path, service: Service) -> None:
    job = submitted(pair, "ibm", "ibm_manila")
    job.send()
    assert job.cancel() == 1
    assert service.made[0].stopped
