"""Each command does what its help says: text for people, JSON for programs, the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcomp
from qcomp.equivalence import check
from qcomp.ir.circuit import Circuit
from qcomp.passmanager import CircuitPass, Context, Guarantee
from tests import models
from tests.cli.conftest import Cli, Result, environment

CIRCUIT = """OPENQASM 3.0;
include "stdgates.inc";
qubit[3] q;
bit[3] c;
h q[0];
h q[0];
t q[1];
t q[1];
rz(0.3) q[2];
cx q[0], q[1];
cx q[1], q[2];
c = measure q;
"""
COMMANDS = ("compile", "opt", "run", "inspect", "explain", "verify", "passes", "targets")
HYBRID = ("compile", "h.onnx", "-t", "cpu-int8+ibm-heron", "--calib", "d.npz", "-o")


@pytest.fixture
def files(folder: Path) -> None:
    """A circuit, a classical model, a hybrid one, and their data."""
    Path("c.qasm").write_text(CIRCUIT)
    Path("m.onnx").write_bytes(models.mlp((4, 16, 3)).SerializeToString())
    models.hybrid().save("h.onnx")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(48, 4)).astype(np.float32), rng.integers(0, 3, 48)
    np.savez("d.npz", x=x)
    np.savez("y.npz", y=y)
    np.savez("e.npz", x=x[:10] + 1, y=y[:10])


def done(result: Result) -> str:
    """Return the output of a command that has to succeed, without a word on standard error."""
    assert result.code == 0, result.err
    assert result.err == ""
    assert "\x1b" not in result.out
    assert "\r" not in result.out
    return result.out


def strict(text: str) -> Any:
    """Parse JSON and nothing beside it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


# ------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_that_are_commands(cli: Cli, command: str) -> None:
    text = done(cli(command, "--help"))
    assert re.search("Examples?:", text)
    examples = re.findall(r"^ +qcomp (\w+)", text, re.MULTILINE)
    assert examples
    assert set(examples) == {command}
    assert "--json" in text
    assert done(cli(command, "-h")) == text


def test_the_help_of_all_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from qcomp.__main__ import main\n"
        "sys.argv = ['qcomp', '--help']\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = 'numpy torch qiskit onnx onnx_ir onnxruntime numba lark'.split()\n"
        "    print('HEAVY', [m for m in heavy if m in sys.modules])\n"
    )
    run = [sys.executable, "-c", code]
    result = subprocess.run(run, capture_output=True, text=True, env=environment())
    assert result.returncode == 0
    assert "HEAVY []" in result.stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", result.stdout, re.MULTILINE)


def test_a_bare_command_shows_the_help(cli: Cli) -> None:
    result = cli()
    assert "Usage:" in result.out + result.err
    assert result.code in (0, 2)


# ------------------------------------------------------------------------------- compile


@pytest.mark.usefixtures("files")
def test_a_hybrid_model_becomes_a_folder_that_runs(cli: Cli) -> None:
    text = done(cli(*HYBRID, "out", "--labels", "y.npz"))
    assert "wrote out/" in text
    assert "layer0: two_qubit" in text
    assert "accuracy on 48 samples" in text
    names = {path.name for path in Path("out").iterdir()}
    assert {"program.json", "report.html", "report.json", "layer0.qasm", "stage0.onnx"} <= names
    expected = qcomp.load("out")(np.load("d.npz")["x"])
    assert "wrote y2.npz" in done(cli("run", "out", "--input", "d.npz", "--output", "y2.npz"))
    np.testing.assert_array_equal(np.load("y2.npz")["y"], expected)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    "arguments",
    [
        ("m.onnx", "-t", "cpu-int8", "--calib", "d.npz"),
        ("m.onnx", "-t", "cpu-int4"),
        ("m.onnx", "-t", "cpu-dynamic-int8"),
        ("c.qasm", "-t", "ibm-heron"),
        ("c.qasm", "-t", "portable", "--effort", "fast"),
        ("h.onnx", "-t", "cpu-int4+portable", "--effort", "max"),
        ("c.qasm", "-t", "portable", "-p", "merge-rotations,cancel-inverses"),
    ],
)
def test_every_target_compiles_and_says_so_in_json(cli: Cli, arguments: tuple[str, ...]) -> None:
    report = strict(done(cli("compile", *arguments, "-o", "out", "--json")))
    assert report == strict(Path("out", "report.json").read_text())
    assert strict(Path("out", "program.json").read_text())["format"] == "qcomp-program"
    assert "+".join(target["name"] for target in report["targets"]) == arguments[2]
    assert all(check["result"] != "failed" for check in report["checks"])
    done(cli("inspect", "out"))
    data = () if arguments[0] == "c.qasm" else ("--input", "d.npz")
    (values,) = strict(done(cli("run", "out", *data, "--json"))).values()
    assert np.isfinite(values).all()


@pytest.mark.usefixtures("files")
def test_labels_with_samples_of_their_own_are_scored_on_those(cli: Cli) -> None:
    arguments = ("compile", "m.onnx", "-t", "cpu-int8", "--calib", "d.npz", "-o", "out", "--json")
    report = strict(done(cli(*arguments, "--labels", "e.npz")))
    (line,) = report["accuracy"]
    assert (line["metric"], line["samples"]) == ("accuracy", 10)
    assert not any("calibration samples" in text for text in report["warnings"])
    report = strict(done(cli(*arguments, "--labels", "y.npz")))
    assert report["accuracy"][0]["samples"] == 48
    assert any("calibration samples" in text for text in report["warnings"])


@pytest.mark.usefixtures("files")
def test_raw_data_goes_through_a_preprocess_file_or_function(cli: Cli) -> None:
    raw = np.load("d.npz")["x"]
    np.savez("raw.npz", pixels=(raw * 10).astype(np.int16))
    Path("steps.json").write_text('{"from": "pixels", "scale": 0.1}')
    Path("cli_feed_steps.py").write_text("def f(a):\n    return {'x': a['pixels'] * 0.1}\n")
    outputs = []
    for how in ("steps.json", "cli_feed_steps:f"):
        arguments = ("-t", "cpu-int8", "--calib", "raw.npz", "--preprocess", how, "-o", "out")
        done(cli("compile", "m.onnx", *arguments))
        outputs.append(Path("out", "stage0.onnx").read_bytes())
        text = done(cli("run", "out", "--input", "raw.npz", "--preprocess", how, "--json"))
        assert np.shape(strict(text)["y"]) == (48, 3)
    assert outputs[0] == outputs[1]


def test_a_folder_of_images_calibrates_a_model_and_labels_follow_its_order(cli: Cli) -> None:
    from PIL import Image

    Path("m.onnx").write_bytes(models.small_cnn().SerializeToString())
    rng = np.random.default_rng(0)
    Path("images").mkdir()
    for index in range(12):
        picture = rng.integers(0, 256, (10, 12, 3), np.uint8)
        Image.fromarray(picture).save(f"images/{index:02}.png")
    Path("steps.json").write_text('{"resize": [8, 8], "scale": 0.004, "layout": "NCHW"}')
    np.savez("y.npz", y=rng.integers(0, 5, 12))
    arguments = ("-t", "cpu-int8", "--calib", "images", "--preprocess", "steps.json", "-o", "out")
    report = strict(done(cli("compile", "m.onnx", *arguments, "--labels", "y.npz", "--json")))
    assert report["accuracy"][0]["samples"] == 12
    run = ("run", "out", "--input", "images", "--preprocess", "steps.json", "--json")
    assert np.shape(strict(done(cli(*run)))["y"]) == (12, 5)


def hashes(folder: str) -> dict[str, str]:
    """Return name -> hash of what a compile made, but for the report, which holds times."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).iterdir())
        if not path.name.startswith("report.")
    }


@pytest.mark.usefixtures("files")
def test_the_same_seed_gives_the_same_bytes_in_every_process(cli: Cli, folder: Path) -> None:
    arguments = (*HYBRID[:-1], "--seed", "7", "-o")
    done(cli(*arguments, "one"))
    for number, hash_seed in enumerate(("0", "12345")):
        subprocess.run(
            [sys.executable, "-m", "qcomp", *arguments, f"other{number}"],
            cwd=folder,
            env={**environment(), "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        )
        assert hashes(f"other{number}") == hashes("one")
    assert len(hashes("one")) >= 4


@pytest.mark.usefixtures("files")
def test_the_same_seed_gives_the_same_samples_and_another_seed_others(cli: Cli) -> None:
    done(cli(*HYBRID, "out"))
    run = ("run", "out", "--input", "d.npz", "--shots", "50", "--json")
    first = strict(done(cli(*run, "--seed", "3")))
    assert strict(done(cli(*run, "--seed", "3"))) == first
    assert strict(done(cli(*run, "--seed", "4"))) != first


# ------------------------------------------------------------------------------- opt


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


# ------------------------------------------------------------------------------- the others


@pytest.mark.usefixtures("files")
def test_an_artifact_runs_exactly_with_shots_and_on_another_device(cli: Cli) -> None:
    done(cli(*HYBRID, "out"))
    run = ("run", "out", "--input", "d.npz", "--json")
    exact = np.array(strict(done(cli(*run)))["y"])
    assert exact.shape == (48, 3)
    np.testing.assert_allclose(strict(done(cli(*run, "--batch", "7")))["y"], exact, atol=1e-6)
    many = np.array(strict(done(cli(*run, "--shots", "20000")))["y"])
    assert 0 < np.abs(many - exact).max() < 0.1
    aer = np.array(strict(done(cli(*run, "--shots", "2000", "--device", "aer")))["y"])
    assert 0 < np.abs(aer - exact).max() < 0.3
    assert re.search(r"y +float32 +\[48, 3\]", done(cli("run", "out", "--input", "d.npz")))


def test_a_model_of_a_fixed_batch_runs_on_any_multiple_of_it(cli: Cli) -> None:
    model, free = models.mlp((4, 16, 3)), models.mlp((4, 16, 3))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    rng = np.random.default_rng(0)
    np.savez("d.npz", x=rng.normal(size=(16, 4)).astype(np.float32))
    np.savez("y.npz", y=rng.integers(0, 3, 16))
    values = []
    for name, proto in (("fixed", model), ("free", free)):
        Path("m.onnx").write_bytes(proto.SerializeToString())
        arguments = ("-t", "cpu-int8", "--calib", "d.npz", "--labels", "y.npz", "-o", name)
        done(cli("compile", "m.onnx", *arguments))
        values.append(strict(done(cli("run", name, "--input", "d.npz", "--json")))["y"])
    np.testing.assert_allclose(values[0], values[1], atol=1e-6)
    np.testing.assert_allclose(qcomp.load("fixed")(np.load("d.npz")["x"]), values[0], atol=1e-6)
    np.savez("d.npz", x=np.ones((7, 4), np.float32))
    result = cli("run", "fixed", "--input", "d.npz")
    assert result.code == 2
    assert "exactly 4 samples, 7 do not divide" in result.err


@pytest.mark.usefixtures("files")
def test_a_circuit_without_parameters_runs_without_data(cli: Cli) -> None:
    done(cli("compile", "c.qasm", "-t", "portable", "-o", "out"))
    (values,) = strict(done(cli("run", "out", "--json"))).values()
    np.testing.assert_allclose(np.ravel(values), [1, 0, 0, 0, 0, 0, 0, 0], atol=1e-12)


@pytest.mark.usefixtures("files")
def test_numbers_that_json_has_not_become_null(cli: Cli) -> None:
    done(cli("compile", "m.onnx", "-t", "cpu-int4", "-o", "out"))
    np.savez("n.npz", x=np.full((1, 4), np.nan, np.float32))
    values = strict(done(cli("run", "out", "--input", "n.npz", "--json")))["y"]
    assert None in values[0]


@pytest.mark.usefixtures("files")
def test_what_a_source_holds_is_shown(cli: Cli) -> None:
    text = done(cli("inspect", "h.onnx"))
    assert "ai.qcomp::Circuit" in text
    assert re.search(r"x +FLOAT +\['batch', 4\]", text)
    data = strict(done(cli("inspect", "h.onnx", "--json")))
    assert data["circuits"]["layer0"]["two_qubit"] == 1
    assert data["operators"]["Gemm"] == 2
    assert data["inputs"] == [{"name": "x", "dtype": "FLOAT", "shape": ["batch", 4]}]
    drawn = done(cli("inspect", "c.qasm", "--draw"))
    assert "┤ H ├" in drawn
    done(cli(*HYBRID, "out"))
    assert strict(done(cli("inspect", "out", "--json")))["targets"]["circuit"] == "ibm-heron"
    assert "stage circuit: layer0.qasm" in done(cli("inspect", "out"))


@pytest.mark.usefixtures("files")
def test_two_sources_are_compared(cli: Cli) -> None:
    Path("other.qasm").write_text(CIRCUIT.replace("0.3", "0.31"))
    Path("n.onnx").write_bytes(models.mlp((4, 16, 3), seed=1).SerializeToString())
    assert done(cli("verify", "c.qasm", "c.qasm")).startswith("equal: ")
    assert strict(done(cli("verify", "m.onnx", "m.onnx", "--json")))["result"] == "equal"
    for pair in (("c.qasm", "other.qasm"), ("m.onnx", "n.onnx")):
        result = cli("verify", *pair)
        assert result.code == 1
        assert result.out.startswith("NOT equal: ")
        result = cli("verify", *pair, "--json")
        assert result.code == 1
        data = strict(result.out)
        assert data["result"] == "NOT equal"
        assert data["error"] is None or data["error"] > 1e-3


def test_passes_and_targets_are_listed_and_explained(cli: Cli) -> None:
    from qcomp.registry import names
    from qcomp.target import target_names

    listed = strict(done(cli("passes", "--json")))
    assert [entry["name"] for entry in listed] == list(names("passes"))
    text = done(cli("passes"))
    assert all(name in text for name in names("passes"))
    for name in names("passes"):
        assert done(cli("passes", name)).startswith(f"{name} (")
        assert strict(done(cli("passes", name, "--json")))
    listed = strict(done(cli("targets", "--json")))
    assert [entry["name"] for entry in listed] == list(target_names())
    assert all(name in done(cli("targets")) for name in target_names())
    for name in target_names():
        assert done(cli("targets", name)).startswith(f"{name}: ")


# ------------------------------------------------------------------------------- terminals


@pytest.mark.usefixtures("files")
def test_bars_are_drawn_on_a_terminal_and_nowhere_else(folder: Path) -> None:
    command = [sys.executable, "-m", "qcomp", *HYBRID, "out"]
    piped = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, check=True)
    assert piped.stderr == b""
    assert b"\x1b" not in piped.stdout
    pty = pytest.importorskip("pty")
    master, terminal = pty.openpty()
    settings = {**environment(), "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        command, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=terminal
    ) as process:
        os.close(terminal)
        drawn = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # Linux says so when the other side is closed
                break
            if not part:
                break
            drawn += part
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(master)
    assert process.returncode == 0
    assert b"passes" in drawn
    assert b"\x1b" in drawn
    # What is for the next program in a pipe is the same as ever.
    assert out.splitlines()[-1] == piped.stdout.splitlines()[-1]
    assert b"\x1b" not in out


def test_a_reader_that_stops_reading_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m qcomp passes --json | head -c 1"
    result = subprocess.run(command, shell=True, capture_output=True, cwd=folder, env=environment())
    assert result.returncode == 0
    assert b"Traceback" not in result.stderr
    assert b"error" not in result.stderr
