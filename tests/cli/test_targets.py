"""Targets and devices on the command line: listed, explained, chosen, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qcomp.registry import table
from qcomp.target import get_target, target_names
from tests.cli.conftest import Cli, Result

BELL = (
    'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\nbit[2] c;\n'
    "h q[0];\ncx q[0], q[1];\nc = measure q;\n"
)
MACHINE = {
    "basis": ["cz", "rz", "sx", "x"],
    "profile": "ibm",
    "device": {"num_qubits": 4, "pairs": [[0, 1], [1, 2], [2, 3]], "errors": {"cz": 0.01}},
}


def done(result: Result) -> str:
    assert result.code == 0, result
    return result.out


def refused(result: Result, *parts: str, code: int | None = None) -> None:
    assert result.code in ((1, 2) if code is None else (code,)), result
    assert "Traceback" not in result.err
    assert "fault inside" not in result.err
    assert result.err.startswith("error: ")
    for part in parts:
        assert part in result.err, result.err


@pytest.fixture
def bell(folder: Path) -> None:
    (folder / "c.qasm").write_text(BELL)
    (folder / "machine.json").write_text(json.dumps(MACHINE))


def test_every_target_is_listed_with_its_qubits(cli: Cli) -> None:
    out = done(cli("targets"))
    for name in target_names():
        assert name in out
    found = {entry["name"]: entry for entry in json.loads(done(cli("targets", "--json")))}
    assert set(found) == set(target_names())
    assert found["iqm-garnet"]["qubits"] == 20
    assert found["nam"]["qubits"] is None
    assert "device" not in found["ibm-heron"]


@pytest.mark.parametrize("name", [n for n in target_names() if n not in table("targets")])
def test_a_target_is_explained(cli: Cli, name: str) -> None:
    out = done(cli("targets", name))
    target = get_target(name)
    assert target.title in out
    assert all(gate in out for gate in target.basis)
    (entry,) = json.loads(done(cli("targets", name, "--json")))
    assert entry["pipelines"] == dict(target.pipelines)
    if target.hardware is not None:
        assert len(entry["device"]["pairs"]) == len(target.hardware.pairs)


def test_a_target_of_ones_own_is_explained_and_compiled_for(cli: Cli, bell: None) -> None:
    assert "4, numbered 0 to 3" in done(cli("targets", "machine.json"))
    done(cli("compile", "c.qasm", "-t", "machine.json", "-o", "out"))
    manifest = json.loads(Path("out/program.json").read_text())
    assert manifest["targets"]["circuit"] == "machine"
    assert manifest["machine"]["gates"] == MACHINE["basis"]
    assert manifest["machine"]["profile"] == "ibm"
    assert "cz" in Path("out/c.qasm").read_text()


def test_the_expected_success_on_a_device_is_said(cli: Cli, bell: None) -> None:
    out = done(cli("compile", "c.qasm", "-t", "ibm-heron", "-o", "out"))
    assert "expected success of 'c' on ibm-heron: 0.9" in out


def test_opt_takes_a_target_with_its_gates_and_its_profile(cli: Cli, bell: None) -> None:
    text = done(cli("opt", "c.qasm", "-t", "quantinuum-h2"))
    assert text.startswith("OPENQASM 2.0;")
    assert "U1q" in text
    text = done(cli("opt", "c.qasm", "-t", "ibm-heron", "--no-map", "--profile", "full"))
    assert "cz" in text
    assert "$" not in text


def test_no_map_keeps_the_circuits_own_qubits(cli: Cli, bell: None) -> None:
    done(cli("compile", "c.qasm", "-t", "ibm-heron", "--no-map", "-o", "out"))
    manifest = json.loads(Path("out/program.json").read_text())
    assert manifest["machine"]["device"] is None
    assert manifest["stages"][0]["qubits"] == 2


REFUSED = {
    "an unknown target": (("-t", "ibm-herron"), ("ibm-heron",), 2),
    "an unknown device": (("-t", "ibm-heron", "--device", "fake_torinos"), ("fake_torino",), 2),
    "a device of other gates": (
        ("-t", "ibm-heron", "--device", "fake_sherbrooke"),
        ("lacks", "cz", "-t ibm-eagle"),
        1,
    ),
    "a coupling that is not there": (("-t", "nam", "--coupling", "no.txt"), ("cannot be read",), 2),
    "a coupling in parts": (("-t", "nam", "--coupling", "parts.txt"), ("not connected",), 1),
    "a coupling at fault": (("-t", "nam", "--coupling", "bad.txt"), ("line 1", "line 2"), 2),
    "two devices": (
        ("-t", "nam", "--coupling", "parts.txt", "--device", "line-3"),
        ("one of them",),
        2,
    ),
    "a circuit that is too wide": (("-t", "nam", "--device", "line-1"), ("2 qubits",), 1),
    "a layout of words": (
        ("-t", "nam", "--device", "line-3", "--initial-layout", "a,b"),
        ("3,4,5",),
        2,
    ),
    "a layout for others": (
        ("-t", "nam", "--device", "line-3", "--initial-layout", "0,1,2"),
        ("places 3 qubits",),
        2,
    ),
    "a layout without a device": (("-t", "nam", "--initial-layout", "0,1"), ("--device",), 2),
    "no target": (("--no-map",), ("-t",), 2),
    "a fractional mode that is not there": (("-t", "nam", "--fractional"), ("ibm-heron",), 2),
    "a target at fault": (("-t", "fault.json"), ("'basis'", "'x'"), 2),
}


@pytest.mark.parametrize("command", ["compile", "opt"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_choice_that_cannot_be_is_refused(
    cli: Cli, bell: None, folder: Path, case: str, command: str
) -> None:
    options, parts, code = REFUSED[case]
    if "fake_" in " ".join(options):
        pytest.importorskip("qiskit_ibm_runtime")
    (folder / "parts.txt").write_text("0 1\n2 3\n")
    (folder / "bad.txt").write_text("0 x\n1\n")
    (folder / "fault.json").write_text('{"x": 1}')
    before = {path: path.read_bytes() for path in folder.iterdir()}
    refused(cli(command, "c.qasm", *options, "-o", "out"), *parts, code=code)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_gate_that_the_target_cannot_make_is_refused(cli: Cli, folder: Path) -> None:
    (folder / "r.qasm").write_text(BELL.replace("h q[0];", "rz(0.3) q[0];"))
    refused(cli("opt", "r.qasm", "-t", "clifford+t", "-o", "o.qasm"), "rz(0.3)", code=1)
    assert not Path("o.qasm").exists()
