"""qcomp opt: circuits get smaller, passes are printed, checked and timed."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import qcomp
from qcomp.equivalence import check
from qcomp.ir.circuit import Circuit
from qcomp.passmanager import CircuitPass, Context, Guarantee
from tests.cli.commands import CIRCUIT, done, strict
from tests.cli.conftest import Cli

HYBRID = ("compile", "h.onnx", "-t", "cpu-int8+ibm-heron", "--calib", "d.npz", "-o")


@pytest.mark.usefixtures("files")
def test_a_circuit_gets_smaller_and_the_counts_are_written(cli: Cli) -> None:
    text = done(cli("opt", "c.qasm", "-o", "o.qasm", "--stats", "s.json"))
    assert "equivalence: equal" in text
    stats = strict(Path("s.json").read_text())
    keys = {"qubits", "gates", "two_qubit", "t_count", "rotations", "depth", "two_qubit_depth"}
    assert keys <= set(stats["before"])
    assert (stats["before"]["gates"], stats["after"]["gates"]) == (7, 4)
    assert (stats["before"]["t_count"], stats["after"]["t_count"]) == (2, 0)
    assert stats["equivalence"]["result"] == "equal"
    gates = sum(entry["delta"]["gates"] for entry in stats["passes"])
    assert gates == stats["after"]["gates"] - stats["before"]["gates"]
    assert all(entry["seconds"] >= 0 for entry in stats["passes"])
    # Qiskit reads the result and finds the same circuit.
    from qiskit import qasm3
    from qiskit.quantum_info import Operator

    before, after = (
        qasm3.loads(Path(name).read_text()).remove_final_measurements(inplace=False)
        for name in ("c.qasm", "o.qasm")
    )
    assert Operator(after).equiv(Operator(before))


@pytest.mark.usefixtures("files")
def test_without_an_output_the_circuit_is_printed(cli: Cli) -> None:
    text = done(cli("opt", "c.qasm"))
    done(cli("opt", "c.qasm", "-o", "o.qasm"))
    assert text == Path("o.qasm").read_text()
    report = strict(done(cli("opt", "c.qasm", "--json")))
    assert report["qasm"] == text
    assert "qasm" not in strict(done(cli("opt", "c.qasm", "-o", "o.qasm", "--json")))


@pytest.mark.usefixtures("files")
def test_a_pipeline_of_ones_own_runs_in_order(cli: Cli) -> None:
    pipeline = "merge-rotations,repeat{times=2}(cancel-inverses),to-basis{gates=[cz,rz,sx,x]}"
    report = strict(done(cli("opt", "c.qasm", "-p", pipeline, "--json")))
    names = [entry["pass"].partition("{")[0] for entry in report["passes"]]
    assert names == ["merge-rotations", "cancel-inverses", "cancel-inverses", "to-basis"]
    operations = set(re.findall(r"^(\w+)[ (]", report["qasm"], re.MULTILINE))
    assert operations <= {"cz", "rz", "sx", "x", "qubit", "bit", "gphase", "include", "OPENQASM"}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("effort", ["fast", "default", "max"])
def test_every_effort_keeps_what_the_circuit_does(cli: Cli, effort: str) -> None:
    done(cli("opt", "c.qasm", "-o", "o.qasm", "--effort", effort))
    assert "equal" in done(cli("verify", "c.qasm", "o.qasm"))


@pytest.mark.usefixtures("files")
def test_a_cost_is_for_the_effort_max(cli: Cli) -> None:
    done(cli("opt", "c.qasm", "-o", "o.qasm", "--effort", "max", "--cost", "two_qubit"))
    for options, words in (
        (("--cost", "t"), "its steps are fixed"),
        (("--effort", "max", "--cost", "toffolis"), "has no count"),
        (("--effort", "max", "--cost", "errors"), "-t ibm-heron --device fake_torino"),
    ):
        result = cli("opt", "c.qasm", "-o", "o.qasm", *options)
        assert result.code == 2
        assert words in result.err


@pytest.mark.usefixtures("files")
def test_seconds_are_for_the_effort_max(cli: Cli) -> None:
    done(cli("opt", "c.qasm", "-o", "o.qasm", "--effort", "max", "--seconds", "0.2"))
    assert "equal" in done(cli("verify", "c.qasm", "o.qasm"))
    for arguments, what in (
        (("--seconds", "1"), "takes no time in seconds"),
        (("--effort", "max", "--seconds", "0"), "more than 0 seconds"),
    ):
        result = cli("opt", "c.qasm", "-o", "p.qasm", *arguments)
        assert result.code == 2
        assert what in result.err
        assert not Path("p.qasm").exists()


@pytest.mark.usefixtures("files")
def test_ctrl_c_in_the_time_that_was_given_writes_the_best_so_far(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal is sent from inside the search, an hour before its end."""
    from qcomp.passes.reduce.search import Search

    run = Search.run

    def stopped(self: Search, circuit: Circuit, context: Context) -> Circuit:
        signal.raise_signal(signal.SIGINT)
        return run(self, circuit, context)

    before = signal.getsignal(signal.SIGINT)
    passes = "merge-rotations,search{patient=true}"
    with monkeypatch.context() as patch:
        patch.setattr(Search, "run", stopped)
        result = cli("opt", "c.qasm", "-o", "o.qasm", "-p", passes, "--seconds", "3600")
    assert result.code == 0
    assert "the best so far is kept" in result.err
    assert signal.getsignal(signal.SIGINT) is before
    texts = (Path(name).read_text() for name in ("c.qasm", "o.qasm"))
    assert check(*map(Circuit.from_qasm, texts)).equal


@pytest.mark.usefixtures("files")
def test_programs_are_printed_after_the_passes_asked_for(cli: Cli) -> None:
    arguments = ("opt", "c.qasm", "-p", "merge-rotations,cancel-inverses")
    text = done(cli(*arguments, "--print-after", "merge-rotations", "-o", "o.qasm"))
    head, _, rest = text.partition("// after merge-rotations\n")
    assert head == ""
    assert rest.startswith("OPENQASM 3.0;")
    assert "s q[1];" in rest
    assert rest.count("h q[0];") == 2
    assert "// after cancel-inverses" not in text
    # Where standard output is for JSON, the programs go to the other one.
    result = cli(*arguments, "--print-after", "merge-rotations", "--json")
    assert result.code == 0
    strict(result.out)
    assert "// after merge-rotations" in result.err


@pytest.mark.usefixtures("files")
def test_graphs_are_printed_too(cli: Cli) -> None:
    arguments = ("compile", "m.onnx", "-t", "cpu-dynamic-int8", "-o", "out")
    text = done(cli(*arguments, "--print-after", "canonicalise"))
    assert "// after canonicalise" in text
    assert "Gemm" in text


@pytest.mark.usefixtures("files")
def test_times_of_passes_are_printed(cli: Cli) -> None:
    text = done(cli("opt", "c.qasm", "-o", "o.qasm", "--time-passes"))
    assert re.search(r"pass +CPU s +change +check", text)
    assert re.search(r"merge-rotations .*gates -1", text)
    result = cli("opt", "c.qasm", "--time-passes")
    assert result.out == Path("o.qasm").read_text()
    assert "CPU s" in result.err
    text = done(cli("compile", "m.onnx", "-t", "cpu-int4", "-o", "out", "--time-passes"))
    assert re.search(r"quantize-weights.* \d", text)
    long = "quantize-weights{bits=8,method=mse,group=64,symmetric=false,form=dequantize}"
    text = done(
        cli("compile", "m.onnx", "-t", "cpu-int4", "-o", "long", "--time-passes", "-p", long)
    )
    assert re.search(r"quantize-weights\{.{55,}\} +\d", text)


class Wrong(CircuitPass):
    """A pass that promises to keep the circuit and adds a gate."""

    name = "wrong"
    preserves = Guarantee.EXACT

    def run(self, circuit: qcomp.Circuit, context: Context) -> qcomp.Circuit:
        changed = qcomp.Circuit(circuit.num_qubits, circuit.num_clbits, name=circuit.name)
        changed.x(0)
        return changed.compose(circuit)


@pytest.fixture
def wrong_pass(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from qcomp import registry

    monkeypatch.setitem(registry.GROUPS["passes"], "wrong", f"{__name__}:Wrong")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Wrong.__module__])
    registry.table.cache_clear()
    yield
    monkeypatch.undo()
    registry.table.cache_clear()


@pytest.mark.usefixtures("files", "wrong_pass")
@pytest.mark.parametrize("verify_each", [False, True])
def test_a_pass_that_breaks_its_promise_is_found_and_nothing_written(
    cli: Cli, verify_each: bool
) -> None:
    Path("p.qasm").write_text(CIRCUIT.replace("c = measure q;\n", ""))
    before = sorted(os.listdir())
    options = ("--verify-each",) if verify_each else ()
    for arguments in (
        ("opt", "p.qasm", "-o", "o.qasm", "--stats", "s.json"),
        ("compile", "p.qasm", "-t", "portable", "-o", "out"),
    ):
        result = cli(*arguments, "-p", "merge-rotations,wrong", *options)
        assert result.code == 1
        assert result.err.startswith("error: ")
        assert "fault inside" not in result.err
        if verify_each:
            assert "'wrong' changed what the circuit" in result.err
        assert result.out == ""
        assert sorted(os.listdir()) == before


@pytest.mark.usefixtures("files")
def test_checked_mode_says_how_each_pass_was_checked(cli: Cli) -> None:
    plain = strict(done(cli("opt", "c.qasm", "--json")))
    checked = strict(done(cli("opt", "c.qasm", "--json", "--verify-each")))
    for entry in checked["passes"]:
        assert (entry["check"] == "not checked") == (not entry["changed"])
    assert any(entry["changed"] for entry in checked["passes"])
    assert all(entry["check"] == "not checked" for entry in plain["passes"])
    done(cli(*HYBRID, "out", "--verify-each"))
