"""The circuit benchmark: the denominator, the one translation, the tables, and a whole run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from qcomp.equivalence import check
from qcomp.ir.angle import pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.pipelines import for_basis
from tests.ir.dense import dense

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import circuit_cold
import circuit_counts
import circuit_peers
import circuit_speed
import circuit_tables
import circuits
from circuit_counts import FAMILIES, Counts, counts_of_output, flattened, geometric_mean

SMALL = {
    "toffoli": (
        "clifford_t",
        3,
        "ccx q[0],q[1],q[2]; h q[0]; h q[0]; ccx q[0],q[1],q[2]; measure q->c;",
    ),
    "ansatz": (
        "qml_variational",
        2,
        "u2(0.1,0.2) q[0]; u3(0.3,0.4,0.5) q[1]; barrier q; cx q[0],q[1]; rzz(0.7) q[0],q[1];",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two circuits with a manifest."""
    entries = []
    for name, (family, qubits, body) in SMALL.items():
        text = (
            f'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[{qubits}];\ncreg c[{qubits}];\n{body}\n'
        )
        (tmp_path / f"{name}.qasm").write_text(text)
        entries.append({"name": name, "family": family, "file": f"{name}.qasm", "qubits": qubits})
    (tmp_path / "manifest.json").write_text(json.dumps({"circuits": entries}))
    return tmp_path


def test_denominators_of_the_public_circuits_are_the_published_ones(shared: Path) -> None:
    published = json.loads((shared / "bench" / "peers_quantum.json").read_text())["circuits"]
    rows = {row["name"]: row for row in published if row["tool"] == "input"}
    entries = circuit_counts.read_entries(shared / "bench" / "circuits")
    assert len(entries) == 88
    for entry in entries:
        row = rows[entry.name]
        assert Counts.of(entry.denominator()) == Counts(
            row["gates"], row["two_q"], row["nonclifford"], row["t"], row["depth"]
        ), entry.name


@pytest.mark.parametrize("name", circuit_counts.TEXTBOOK)
def test_textbook_definitions_are_the_gates(name: str) -> None:
    from qcomp.ir.gates import gate

    row = gate(name)
    circuit = Circuit(row.num_qubits)
    circuit.append(name, range(row.num_qubits), [0.3 + 0.4 * k for k in range(row.num_angles)])
    flat = flattened(circuit)
    assert {step for step, _, _ in flat.run.operations()} <= set(circuit_counts.FLAT)
    before, after = dense(circuit), dense(flat)
    overlap = np.trace(before.conj().T @ after) / len(before)
    assert abs(overlap) == pytest.approx(1.0)


def test_measurements_come_off_and_u2_is_three_gates(folder: Path) -> None:
    first, second = circuit_counts.read_entries(folder)
    assert Counts.of(first.denominator()) == Counts(32, 12, 14, 14, 21)
    assert second.read().num_qubits == 2
    assert Counts.of(second.denominator()).gates == 3 + 5 + 1 + 3


def test_a_folder_without_manifest_or_with_an_unknown_family_is_refused(tmp_path: Path) -> None:
    from qcomp.errors import UsageError

    with pytest.raises(UsageError, match="manifest"):
        circuit_counts.read_entries(tmp_path)
    entry = {"name": "a", "family": "strange", "file": "a.qasm", "qubits": 1}
    (tmp_path / "manifest.json").write_text(json.dumps({"circuits": [entry]}))
    (tmp_path / "a.qasm").write_text("OPENQASM 3; qubit q;")
    with pytest.raises(UsageError, match="strange"):
        circuit_counts.read_entries(tmp_path)


def test_one_translation_counts_cz_as_three_and_named_rotations_as_one() -> None:
    family = FAMILIES["clifford_t"]
    circuit = Circuit(2).h(0).t(0).cz(0, 1).s(1)
    fused, plain = counts_of_output(circuit, family)
    assert plain.gates == 1 + 1 + 3 + 1
    assert fused == plain
    assert (fused.two_qubit, fused.rotations, fused.t) == (1, 1, 1)
    # Chains that meet are written shortest for every tool.
    fused, plain = counts_of_output(Circuit(2).h(1).cz(0, 1).h(1), family)
    assert (fused.gates, plain.gates) == (1, 5)
    fused, _ = counts_of_output(Circuit(1).h(0).rx(0.3, 0), FAMILIES["device100"])
    assert fused.gates <= 5


def test_rotations_within_1e_8_of_a_clifford_are_none() -> None:
    circuit = Circuit(1).rz(1e-9, 0).rz(np.pi / 2 + 1e-9, 0).rz(1e-7, 0).rz(np.pi / 4, 0).t(0)
    counts = Counts.of(circuit)
    assert (counts.rotations, counts.t) == (3, 2)


def test_mean_takes_nothing_for_a_half_and_leaves_out_empty_inputs() -> None:
    assert geometric_mean([(0, 4), (2, 4), (7, 0)]) == pytest.approx(0.25)
    assert geometric_mean([(3, 0)]) is None


def test_angles_for_peers_have_no_exponent() -> None:
    text = circuit_peers.to_qasm2(Circuit(1).rz(1e-7, 0).rz(pi_fraction(1, 4), 0).gphase(0.3))
    assert "rz(0.0000001) q[0];" in text
    assert "e-" not in text
    assert check(Circuit.from_qasm(text), Circuit(1).rz(1e-7, 0).rz(pi_fraction(1, 4), 0))


def test_a_run_writes_figures_and_tables_and_finds_every_output_right(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(circuits, "warm_up", lambda _: 0.0)
    out = tmp_path / "out.json"
    cache = tmp_path / "cache"
    arguments = [
        str(folder),
        "--efforts",
        "fast,default",
        "--json",
        str(out),
        "--cache",
        str(cache),
    ]
    assert circuits.main(arguments) == 0
    results = json.loads(out.read_text())
    rows = {row["name"]: row for row in results["circuits"]}
    assert rows["toffoli"]["input"]["gates"] == 32
    ours = rows["toffoli"]["tools"]["qcomp_default"]
    assert ours["verdict"]["equal"] is True
    assert ours["verdict"]["rung"] == "matrix"
    # The two Toffolis cancel.
    assert ours["gates"] == 0
    assert results["families"]["clifford_t"]["qcomp_default"]["gates"] == pytest.approx(0.5 / 32)
    assert "| Clifford+T | qcomp_default | 1 of 1 |" in capsys.readouterr().out
    assert list(cache.glob("*.json"))


def test_a_wrong_output_fails_the_run_and_is_named(folder: Path) -> None:
    case = circuits.Case.of(circuit_counts.read_entries(folder)[0])
    cache = circuits.Cache(None)
    verdict = circuits.checked(case.circuit, Circuit(3).x(0), cache, 0)
    case.add("qcomp_default", Circuit(3).x(0), 0.1, verdict)
    lines = circuit_tables.wrong([case.to_dict()])
    assert len(lines) == 1
    assert lines[0].startswith("toffoli by qcomp_default")
    report = circuit_tables.report(
        {
            "versions": {},
            "families": circuit_tables.family_results([case.to_dict()]),
            "circuits": [case.to_dict()],
        },
        [{"name": "toffoli", "tool": "other", "gates": 0, "two_q": 0, "nonclifford": 0}],
    )
    assert "| qcomp_default | 1 |  | toffoli | none |" in report
    assert "| toffoli | gates | 32 | 1 | - | 0 other |" in report
    assert "| Clifford+T | best peer over input | 0.016 |" in report
    assert "| Clifford+T | qcomp_default over best peer | 2.000 |" in report


def test_peers_run_in_a_process_of_their_own() -> None:
    peer = next(peer for peer in circuit_peers.PEERS if peer.group == "qiskit")
    circuit = flattened(Circuit(3).ccx(0, 1, 2).swap(0, 1).cx(1, 2))
    with circuit_peers.Worker(peer, 60.0) as worker:
        answer = worker.run(circuit_peers.to_qasm2(circuit), ("h", "x", "rz", "cx"))
        assert answer.error == ""
        assert check(circuit, Circuit.from_qasm(answer.text)).equal is True
        broken = worker.run("no circuit", ("h", "x", "rz", "cx"))
        assert broken.text == ""
        assert "QASM" in broken.error


def test_max_takes_the_cpu_seconds_that_it_is_given() -> None:
    circuit = flattened(Circuit(3).ccx(0, 1, 2).cx(0, 1).ccx(1, 2, 0))
    output, seconds = circuits.optimised(circuit, "search{steps=2,patient=true}", 1, 0.3)
    assert seconds >= 0.3
    assert check(circuit, output).equal


def test_tables_go_between_their_markers(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- circuits:begin -->\nold\n<!-- circuits:end -->\nb\n")
    circuit_tables.write_between(path, "circuits", "new\n")
    assert path.read_text() == "a\n<!-- circuits:begin -->\nnew\n<!-- circuits:end -->\nb\n"
    with pytest.raises(ValueError, match="has no <!--"):
        circuit_tables.write_between(path, "speed", "new")


def test_speed_circuits_are_what_they_say() -> None:
    circuit = circuit_speed.clifford_t(2000)
    counts = circuit.stats()
    assert counts.gates == 2000
    assert 0.36 < counts.two_qubit / 2000 < 0.44
    free = circuit_speed.ansatz(5, 4)
    assert (len(free), free.num_params) == (4 * 14, 40)
    gates, seconds = circuit_speed.text_to_text(
        free.to_qasm3(), for_basis(("rz", "sx", "x", "cx"), "rz-sx-x", "fast")
    )
    assert gates > 0
    assert set(seconds) == {"read", "reduce", "write"}


def test_cold_figures_are_of_fresh_processes_with_and_without_compiled_kernels() -> None:
    rows = circuit_cold.measure([], gates=(40,))
    assert [(row["tool"], row["kernels"]) for row in rows] == [
        ("qcomp_fast", "none"),
        ("qcomp_fast", "in the cache"),
        ("qcomp_default", "none"),
        ("qcomp_default", "in the cache"),
    ]
    assert all(0 < float(str(row["first"])) for row in rows)
    assert all(float(str(row["import"])) > 0.01 for row in rows)
    table = circuit_cold.cold_table(rows)
    assert table.count("| 40 | qcomp_") == 4


LIMITS = {
    "clifford_t": (0.64, 0.83, 0.57),
    "qml_variational": (0.88, 0.68, 0.82),
    "algorithm": (0.69, 0.76, 0.54),
    "device100": (0.52, 0.595, 0.63),
}
"""Gates, two-qubit gates and rotations of the default effort over the input: at most these."""


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_default_effort_reduces_the_public_circuits_as_far_as_it_did(
    shared: Path, family: str
) -> None:
    rows = []
    for entry in circuit_counts.read_entries(shared / "bench" / "circuits"):
        if entry.family.name != family:
            continue
        circuit = flattened(entry.read())
        pipeline = for_basis(entry.family.gates, entry.family.one_qubit, "default")
        output, _ = circuits.optimised(circuit, pipeline, 1)
        counts, plain = counts_of_output(output, entry.family)
        assert counts == plain, f"{entry.name} is not written shortest"
        rows.append((counts, Counts.of(entry.denominator())))
    ratios = circuit_counts.family_ratios(rows)
    found = tuple(ratios[key] for key in ("gates", "two_qubit", "rotations"))
    assert all(value <= limit for value, limit in zip(found, LIMITS[family], strict=True)), found
