"""Amazon Braket's own client: its simulator, its emulator of a device, and its wire."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp import Circuit, Observable, QcompError, TargetError, UsageError
from qcomp.ir.layout import Layout
from qcomp.ir.program import Program, Readout
from qcomp.submit import Patience, Store, connect, resume
from tests import models
from tests.submit import aws
from tests.submit.conftest import newest, readout, submitted

QUIET = Patience(sleep=lambda seconds: None)
SECRET = "wJalrXUtnFEMIPLANTEDbPxRfiCYEXAMPLEKEY"


def test_expectations_of_its_simulator_are_those_of_ours(artifacts: Path, home: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 2))
    job = submitted(artifacts / "paulis", "braket", "local", rows=rows, shots=5000)
    outputs = job.fetch()
    assert outputs is not None
    (value,) = outputs.values()
    np.testing.assert_allclose(value, qcomp.load(artifacts / "paulis")(rows), atol=0.1)


def test_counts_of_its_simulator_keep_the_order_of_bits(home: Path, tmp_path: Path) -> None:
    circuit = Circuit(3, 3, name="basis")
    circuit.x(0)
    circuit.x(1)
    for qubit, clbit in ((0, 2), (1, 1), (2, 0)):
        circuit.measure(qubit, clbit)
    qcomp.compile(circuit, target="portable", out=tmp_path / "out")
    job = submitted(tmp_path / "out", "braket", "local", shots=100)
    outputs = job.fetch()
    assert outputs is not None
    assert next(iter(outputs.values()))[0b110] == 1
    assert job.counts() == [{"circuit": "basis", "row": 0, "shots": 100, "counts": {"110": 100}}]


def mapped(place: Path, wires: tuple[int, int] = (1, 2)) -> Path:
    """An artifact in IQM's gates on two qubits of a device of three."""
    circuit = Circuit(3, name="native")
    for qubit in wires:
        circuit.append("r", [qubit], [0.7, 0.2])
    circuit.cz(*wires)
    circuit.append("r", [wires[1]], [1.1, -0.4])
    circuit.layout = Layout(wires, wires, 3)
    values = Readout("expval", (Observable.parse("Z0"), Observable.parse("X0*Y1")))
    program = Program.of_circuit(circuit, values)
    qcomp.compile(program, target="iqm-garnet", pipeline="", out=place, mapping=False)
    return place


@pytest.fixture
def properties(tmp_path: Path) -> str:
    data = aws.capabilities((0, 1, 2), ((0, 1), (1, 2)))
    (tmp_path / "garnet.json").write_text(json.dumps(data))
    return str(tmp_path / "garnet.json")


def test_a_mapped_circuit_runs_on_an_emulated_device_in_its_own_gates(
    properties: str, home: Path, tmp_path: Path
) -> None:
    artifact = mapped(tmp_path / "out")
    job = submitted(artifact, "braket", properties, shots=4000)
    outputs = job.fetch()
    assert outputs is not None
    (value,) = outputs.values()
    exact = qcomp.load(artifact)()
    assert value.shape == exact.shape
    # The device's errors are a few per cent: near the exact values, and smaller.
    np.testing.assert_allclose(value, exact, atol=0.15)
    assert np.abs(value - exact).max() > 0.005


@pytest.mark.parametrize("target", ["iqm-garnet", "rigetti-ankaa", "ionq-forte"])
def test_what_is_compiled_and_mapped_for_a_family_runs_in_a_verbatim_box(
    target: str, home: Path, tmp_path: Path
) -> None:
    program = Program.of_circuit(models.small_circuit(), readout())
    place = tmp_path / "out"
    artifact = qcomp.compile(
        program, target=target, coupling=[[0, 1], [1, 2]], out=place, effort="fast"
    )
    rows = np.array([[0.3, -0.8]])
    job = submitted(place, "braket", "local", rows=rows, shots=4000)
    outputs = job.fetch()
    assert outputs is not None
    np.testing.assert_allclose(next(iter(outputs.values())), artifact(rows), atol=0.1)
    assert (artifact.manifest["machine"] or {})["profile"].startswith("braket-")


def test_an_emulated_device_refuses_what_it_has_not_before_anything_is_kept(
    properties: str, home: Path, artifacts: Path, tmp_path: Path
) -> None:
    artifact = mapped(tmp_path / "out", (0, 2))
    with pytest.raises(TargetError, match="cannot run the circuit 'native"):
        submitted(artifact, "braket", properties)
    assert not home.exists()
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UsageError, match="holds no properties"):
        connect("braket", str(tmp_path / "bad.json"), QUIET)


def test_a_circuit_that_measures_in_between_is_refused(home: Path, tmp_path: Path) -> None:
    circuit = Circuit(2, 2, name="early")
    circuit.h(0)
    circuit.measure(0, 0)
    circuit.h(0)
    circuit.measure(0, 1)
    qcomp.compile(circuit, target="ibm-heron", out=tmp_path / "out")
    with pytest.raises(TargetError, match="measures before its end"):
        submitted(tmp_path / "out", "braket", "local")


# ------------------------------------------------------------------------------ the wire


@pytest.fixture
def service(home: Path, monkeypatch: pytest.MonkeyPatch) -> aws.Aws:
    """Amazon's side; the account is in the environment, as Amazon's client wants it."""
    import botocore.handlers

    made = aws.Aws()
    monkeypatch.setattr(
        botocore.handlers,
        "BUILTIN_HANDLERS",
        [*botocore.handlers.BUILTIN_HANDLERS, ("before-send", made)],
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AMZN_BRAKET_OUT_S3_BUCKET", "bucket")
    monkeypatch.setattr("qcomp.submit.braket.ATTEMPTS", 1)
    return made


def again() -> dict[str, np.ndarray] | None:
    store = Store()
    return resume(store.load(store.ids()[-1]), store, QUIET).fetch()


def test_a_job_goes_over_amazon_s_wire_row_by_row(
    artifacts: Path, service: aws.Aws, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="qcomp")
    rows = np.random.default_rng(1).normal(size=(2, 2))
    service.faults["GetQuantumTask"] = ["QUEUED", "RUNNING"]
    job = submitted(artifacts / "paulis", "braket", "Garnet", rows=rows, shots=2000)
    outputs = job.fetch()
    assert outputs is not None
    (value,) = outputs.values()
    np.testing.assert_allclose(value, qcomp.load(artifacts / "paulis")(rows), atol=0.15)
    assert len(service.tasks) == 8
    for task in newest().tasks:
        assert service.tasks[task.token]["tags"] == {"qcomp": task.token}
        assert task.identifier.startswith(f"arn:aws:braket:{aws.REGION}:")
    files = [path for path in home.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in path.read_bytes() for path in files)
    assert SECRET not in caplog.text


def test_a_task_whose_answer_was_lost_is_the_same_task_when_it_is_sent_again(
    artifacts: Path, service: aws.Aws
) -> None:
    service.faults["CreateQuantumTask"] = ["lost", (503, "InternalServiceException")]
    assert submitted(artifacts / "ghz", "braket", "Garnet").fetch() is not None
    sent = [body["clientToken"] for name, body in service.requests if name == "CreateQuantumTask"]
    assert len(sent) == 3
    assert len(set(sent)) == len(service.tasks) == 1


@pytest.mark.parametrize(
    ("operation", "fault", "parts"),
    [
        ("GetDevice", (403, "ExpiredTokenException"), ("credentials", "aws sso login")),
        ("GetDevice", (403, "UnrecognizedClientException"), ("credentials", "aws configure")),
        ("GetDevice", (404, "ResourceNotFoundException"), ("there is no device", "Garnet")),
        ("CreateQuantumTask", (403, "AccessDeniedException"), ("credentials",)),
        ("CreateQuantumTask", (424, "DeviceOfflineException"), ("does not take tasks",)),
        ("CreateQuantumTask", (402, "ServiceQuotaExceededException"), ("too many tasks",)),
        ("CreateQuantumTask", (400, "ValidationException"), ("Braket refuses",)),
        ("GetQuantumTask", "FAILED", ("1 of 1 tasks", "the fridge was warm", "--resend")),
        ("GetQuantumTask", "CANCELLED", ("was cancelled", "--resend")),
        ("GetQuantumTask", (404, "ResourceNotFoundException"), ("not known", "--resend")),
    ],
)
def test_what_amazon_refuses_is_said_and_the_job_goes_on_afterwards(
    operation: str,
    fault: object,
    parts: tuple[str, ...],
    artifacts: Path,
    service: aws.Aws,
    home: Path,
) -> None:
    # Amazon's client asks some times itself for a task that is not known yet.
    service.faults[operation] = [fault] * (5 if fault == (404, "ResourceNotFoundException") else 1)
    with pytest.raises(QcompError) as caught:
        submitted(artifacts / "ghz", "braket", "Garnet").fetch()
    for part in parts:
        assert part in str(caught.value)
    assert SECRET not in str(caught.value)
    if operation == "GetDevice":
        assert not home.exists()
        return
    service.faults.clear()
    job = resume(newest(), Store(), QUIET)
    job.resend()
    assert job.fetch() is not None


def test_a_network_that_is_away_keeps_the_job(artifacts: Path, service: aws.Aws) -> None:
    from botocore.exceptions import EndpointConnectionError

    away = EndpointConnectionError(endpoint_url="https://braket")
    service.faults["GetQuantumTask"] = [away] * 10
    with pytest.raises(QcompError, match="cannot be reached") as caught:
        submitted(artifacts / "ghz", "braket", "Garnet").fetch()
    assert "tried 7 times" in caught.value.why
    service.faults.clear()
    assert again() is not None
    assert len(service.tasks) == 1


def test_a_cancelled_job_is_cancelled_at_amazon(artifacts: Path, service: aws.Aws) -> None:
    job = submitted(artifacts / "ghz", "braket", "Garnet")
    job.send()
    assert job.cancel() == 1
    assert "CancelQuantumTask" in [name for name, _ in service.requests]


def test_a_mapped_circuit_is_sent_in_a_verbatim_box(service: aws.Aws, tmp_path: Path) -> None:
    job = submitted(mapped(tmp_path / "out"), "braket", "Garnet", shots=10)
    job.send()
    (first, *_) = service.tasks.values()
    source = json.loads(first["action"])["source"]
    assert "#pragma braket verbatim" in source
    assert "prx(" in source
    assert "$2" in source


def test_hybrid_models_go_through_all_their_circuits(home: Path, artifacts: Path) -> None:
    rows = np.random.default_rng(2).normal(size=(2, 4)).astype(np.float32)
    outputs = submitted(artifacts / "hybrid", "braket", "local", rows=rows, shots=20_000).fetch()
    assert outputs is not None
    np.testing.assert_allclose(outputs["y"], qcomp.load(artifacts / "hybrid")(rows), atol=0.06)
