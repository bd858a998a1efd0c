"""Bad data, names and artifacts get one clear error, code 1 or 2, and leave nothing behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import models
from tests.cli.conftest import Cli
from tests.cli.refusals import DATA, STANDARD, Unchanged, refused, write


@pytest.fixture
def model(folder: Path) -> None:
    write("m.onnx", models.mlp())
    np.savez("d.npz", x=DATA)


def nan_data() -> np.ndarray:
    data = DATA.copy()
    data[40, 3] = np.nan
    return data


CALIBRATION = {
    "a wrong name": ({"X": DATA}, ("input 'x'", "did you mean 'X'?")),
    "a wrong shape": ({"x": DATA[:, :5]}, ("[n, 5]", "[n, 8]")),
    "no sample axis": ({"x": DATA[0]}, ("[n]", "one sample was given")),
    "no sample": ({"x": DATA[:0]}, ("no sample",)),
    "NaN": ({"x": nan_data()}, ("NaN", "sample 40")),
    "text": ({"x": np.array([["a"] * 8])}, ("takes float32",)),
    "objects": ({"x": np.array([[None] * 8])}, ("Python objects",)),
}


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("case", CALIBRATION)
def test_calibration_data_that_does_not_fit_is_refused(cli: Cli, case: str) -> None:
    arrays, parts = CALIBRATION[case]
    np.savez("bad.npz", **arrays)
    with Unchanged():
        arguments = ("compile", "m.onnx", "-t", "cpu-int8", "--calib", "bad.npz", "-o", "out")
        refused(cli(*arguments), *parts, code=2)


USAGE = {
    "a target": (("compile", "m.onnx", "-t", "cpu-int9", "-o", "o"), "did you mean 'cpu-int"),
    "a joined target": (("compile", "m.onnx", "-t", "cpu-int8+ibm-herron", "-o", "o"), "ibm-heron"),
    "a target to explain": (("targets", "portabel"), "did you mean 'portable'"),
    "a pass": (("opt", "c.qasm", "-p", "merge-rotation"), "did you mean 'merge-rotations'"),
    "a pass of a graph": (
        ("compile", "m.onnx", "-t", "cpu-dynamic-int8", "-o", "o", "-p", "canonicalize"),
        "did you mean 'canonicalise'",
    ),
    "a pass to explain": (("passes", "to-bases"), "did you mean 'to-basis'"),
    "a pass to print after": (
        ("opt", "c.qasm", "--print-after", "cancel-inverse"), "did you mean 'cancel-inverses'",
    ),
    "an option": (("opt", "c.qasm", "-p", "to-basis{gate=[cz]}"), "gates"),
    "an effort": (("opt", "c.qasm", "--effort", "maxi"), "did you mean 'max'"),
    "an effort to compile": (
        ("compile", "m.onnx", "-t", "cpu-int8", "-o", "o", "--effort", "fats", "--calib", "d.npz"),
        "did you mean 'fast'",
    ),
    "no calibration data": (("compile", "m.onnx", "-t", "cpu-int8", "-o", "o"), "--calib"),
    "missing calibration data": (
        ("compile", "m.onnx", "-t", "cpu-int8", "-o", "o", "--calib", "no.npz"), "no file 'no.npz'",
    ),
    "missing labels": (
        ("compile", "m.onnx", "-t", "cpu-int8", "-o", "o", "--calib", "d.npz", "--labels", "y.npz"),
        "no file 'y.npz'",
    ),
    "missing preprocess": (
        ("compile", "m.onnx", "-t", "cpu-int8", "-o", "o", "--calib", "d.npz",
         "--preprocess", "p.json"),
        "no file 'p.json'",
    ),
    "an output that is a file": (
        ("compile", "m.onnx", "-t", "cpu-int4", "-o", "m.onnx"), "not a folder",
    ),
    "an output that is somebody's folder": (
        ("compile", "m.onnx", "-t", "cpu-int4", "-o", "."), "not written by this tool",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("case", USAGE)
def test_a_wrong_name_is_refused_and_the_nearest_said(cli: Cli, case: str) -> None:
    arguments, part = USAGE[case]
    write("c.qasm", STANDARD + "qubit q;\nx q;\n")
    with Unchanged():
        refused(cli(*arguments), part, code=2)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    "arguments",
    [("compile",), ("compile", "m.onnx", "--nope"), ("compil", "m.onnx"), ("opt",), ("run",)],
)
def test_a_command_line_that_cannot_be_understood_is_a_usage_error(
    cli: Cli, arguments: tuple[str, ...]
) -> None:
    result = cli(*arguments)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert "Usage:" in result.err
    assert result.out == ""


@pytest.mark.usefixtures("model")
def test_a_file_that_is_missing_or_of_no_kind_is_refused(cli: Cli) -> None:
    write("notes.txt", "shopping list")
    Path("plain").mkdir()
    for name in ("no.onnx", "notes.txt", "plain"):
        with Unchanged():
            refused(cli("compile", name, "-t", "cpu-int4", "-o", "out"), name)
            refused(cli("inspect", name), name)
            refused(cli("opt", name, "-o", "out.qasm"), name)
            refused(cli("run", name, "--input", "d.npz"), name)
            refused(cli("verify", name, name), name)


@pytest.mark.usefixtures("model")
def test_a_target_for_another_kind_of_program_is_refused(cli: Cli) -> None:
    write("c.qasm", STANDARD + "qubit q;\nx q;\n")
    with Unchanged():
        refused(cli("compile", "m.onnx", "-t", "ibm-heron", "-o", "o"), "classical", "-t cpu-int8")
        refused(cli("compile", "c.qasm", "-t", "cpu-int4", "-o", "o"), "-t ")
        refused(cli("opt", "m.onnx"), "circuit", code=2)
        refused(cli("verify", "m.onnx", "c.qasm"), "circuit", code=2)


@pytest.mark.usefixtures("model")
def test_a_changed_or_broken_artifact_is_refused(cli: Cli) -> None:
    arguments = ("compile", "m.onnx", "-t", "cpu-int8", "--calib", "d.npz", "-o")
    assert cli(*arguments, "out").code == 0
    for name in ("program.json", "report.json", "stage0.onnx"):
        shutil.copytree("out", "bad")
        content = Path("bad", name).read_bytes()
        for changed in (b"", content[: len(content) // 2], b"[]", b"\xff" * 64, b"[" * 99_999):
            Path("bad", name).write_bytes(changed)
            refused(cli("run", "bad", "--input", "d.npz"), name, code=1)
        shutil.rmtree("bad")
    shutil.copytree("out", "bad")
    Path("bad", "stage0.onnx").unlink()
    refused(cli("run", "bad", "--input", "d.npz"), "lacks the file 'stage0.onnx'", code=1)
    np.savez("other.npz", y=DATA)
    refused(cli("run", "out", "--input", "other.npz"), "'x'", code=2)
    refused(cli("run", "out", "--input", "d.npz", "--device", "simm"), "did you mean", code=2)
    refused(cli("run", "out"), "--input", code=2)


def places(data: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Give the path of every entry of JSON data."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield (*path, key)
            yield from places(value, (*path, key))


def test_a_table_of_contents_with_a_wrong_entry_is_refused_or_harmless(cli: Cli) -> None:
    program = models.hybrid()
    import qcomp

    data = {"x": np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)}
    np.savez("d.npz", **data)
    qcomp.compile(program, target="cpu-int8+portable", calibration=data, out="out")
    manifest = Path("out", "program.json")
    good = manifest.read_text()
    refusals = 0
    for path in places(json.loads(good)):
        for wrong in (None, 7, "other"):
            table = json.loads(good)
            entry = table
            for key in path[:-1]:
                entry = entry[key]
            entry[path[-1]] = wrong
            manifest.write_text(json.dumps(table))
            result = cli("run", "out", "--input", "d.npz", "--json")
            if result.code:
                assert "fault inside" not in result.err, (path, wrong)
                refused(result)
                refusals += 1
    assert refusals > 60
