"""Each command does what its help says: text for people, JSON for programs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qcomp
from tests import models
from tests.cli.commands import CIRCUIT, done, strict
from tests.cli.conftest import Cli, environment

COMMANDS = ("compile", "opt", "run", "inspect", "explain", "verify", "passes", "targets")
HYBRID = ("compile", "h.onnx", "-t", "cpu-int8+ibm-heron", "--calib", "d.npz", "-o")


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
