"""Bad input gets one clear error, exit code 1 or 2, no traceback, and leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from tests import models
from tests.cli.conftest import Cli, Result, start

STANDARD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'
DATA = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
UNIX = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX systems")


def write(path: str, content: str | bytes | onnx.ModelProto) -> None:
    if isinstance(content, onnx.ModelProto):
        content = content.SerializeToString()
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)


def refused(result: Result, *parts: str, code: int | None = None) -> None:
    """Check that a command gave one clear error with these parts, and no output."""
    assert result.code in ((1, 2) if code is None else (code,)), result
    assert "Traceback" not in result.err
    assert "fault inside" not in result.err
    assert result.err.startswith("error: ")
    assert result.err.count("error: ") == 1
    for part in parts:
        assert part in result.err
    assert result.out == ""


class Unchanged:
    """Checks that a block makes no file, and takes none away."""

    def __init__(self, place: Path | None = None) -> None:
        self.place = place or Path()

    def files(self) -> dict[str, bytes | None]:
        return {
            str(path): path.read_bytes() if path.is_file() else None
            for path in sorted(self.place.rglob("*"))
        }

    def __enter__(self) -> None:
        self.before = self.files()

    def __exit__(self, *problem: object) -> None:
        if problem[0] is None:
            assert self.files() == self.before


# ------------------------------------------------------------------------------- ONNX models


def external(location: str) -> onnx.ModelProto:
    model = models.mlp()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return model


def with_dims(*dims: int) -> onnx.ModelProto:
    model = models.mlp()
    model.graph.initializer[0].dims[:] = dims
    return model


def with_nan() -> onnx.ModelProto:
    model = models.mlp()
    tensor = model.graph.initializer[0]
    weights = numpy_helper.to_array(tensor).copy()
    weights[1, 2] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return model


def with_cycle() -> onnx.ModelProto:
    model = models.mlp()
    model.graph.node[0].input[0] = "y"
    return model


def with_undefined_value() -> onnx.ModelProto:
    model = models.mlp()
    model.graph.node[0].input[0] = "nowhere"
    return model


def self_calling() -> onnx.ModelProto:
    return parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        g (float[4] x) => (float[4] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 21, "local" : 1]> f (a) => (b) { b = local.f (a) }"""
    )


def doubling_functions() -> onnx.ModelProto:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        g (float[4] x) => (float[4] y) { y = local.f40(x) }"""
    head = '<domain: "local", opset_import: ["" : 21, "local" : 1]>'
    for i in range(1, 41):
        text += f" {head} f{i} (a) => (b) {{ c = local.f{i - 1}(a) b = local.f{i - 1}(c) }}"
    return parser.parse_model(text + f" {head} f0 (a) => (b) {{ b = Tanh(a) }}")


MODELS = {
    "empty": (lambda: b"", "the file is empty"),
    "noise": (lambda: bytes(range(256)) * 4, "not an ONNX model"),
    "text": (lambda: b"hello, I am no model\n", "ONNX"),
    "data outside by dots": (lambda: external("../secret.bin"), "outside of the model's folder"),
    "data outside by root": (lambda: external("/etc/passwd"), "outside of the model's folder"),
    "data outside by a link": (lambda: external("link.bin"), "outside of the model's folder"),
    "data that is missing": (lambda: external("missing.bin"), "missing.bin"),
    "absurd dimensions": (lambda: with_dims(2**62, 2**62), "absurd shape"),
    "negative dimensions": (lambda: with_dims(-5, 3), "negative"),
    "dimensions that do not fit": (lambda: with_dims(1000, 1000), "w0"),
    "a cycle": (with_cycle, "cycle"),
    "an undefined value": (with_undefined_value, "nowhere"),
    "a function that calls itself": (self_calling, "calls itself"),
    "functions that double": (doubling_functions, "f"),
    "NaN weights": (with_nan, "the weights hold NaN"),
}


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("target", ["cpu-int8", "cpu-int4"])
def test_a_malicious_model_is_refused(cli: Cli, case: str, target: str) -> None:
    make, part = MODELS[case]
    write("m.onnx", make())
    Path("../secret.bin").write_bytes(b"\0" * 512)
    Path("link.bin").symlink_to("/etc/passwd")
    np.savez("d.npz", x=DATA)
    with Unchanged(Path("..")):
        arguments = ("compile", "m.onnx", "-t", target, "-o", "made/out", "--calib", "d.npz")
        refused(cli(*arguments), part, "m.onnx", code=1)
        refused(cli("inspect", "m.onnx"), part, code=1)


def test_a_model_cut_at_any_place_is_refused_or_still_a_model(cli: Cli) -> None:
    content = models.mlp((3, 4, 2)).SerializeToString()
    codes = []
    for size in range(0, len(content), 11):
        write("m.onnx", content[:size])
        with Unchanged():
            result = cli("inspect", "m.onnx", "--json")
        codes.append(result.code)
        if result.code:
            refused(result, "m.onnx", code=1)
    # Protobuf cut between two fields is a shorter message: most cuts are within one.
    assert codes.count(1) > 0.9 * len(codes)


def test_a_model_that_asks_for_absurd_memory_when_it_runs_is_refused(spawn: Cli) -> None:
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[n, 8] x) => (float[n, 8] y) {
            s = Constant <value = int64[2] {1000000000, 1000000000}> ()
            k = ConstantOfShape (s)  z = ReduceSum <keepdims = 0> (k)  y = Add (x, z) }"""
    )
    write("m.onnx", model)
    np.savez("d.npz", x=DATA)
    with Unchanged():
        refused(spawn("compile", "m.onnx", "-t", "cpu-int8", "--calib", "d.npz", "-o", "out"))


class Bomb:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_a_pickle_in_the_place_of_a_model_is_never_opened(cli: Cli) -> None:
    write("plain.pt2", pickle.dumps(Bomb()))
    with zipfile.ZipFile("packed.pt2", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    with Unchanged():
        for name in ("plain.pt2", "packed.pt2"):
            refused(cli("compile", name, "-t", "cpu-int4", "-o", "out"), name, code=1)
            refused(cli("inspect", name), name, code=1)


# ------------------------------------------------------------------------------- OpenQASM


def doubling(head: str, register: str, levels: int = 41) -> str:
    gates = "".join(f"gate g{i} a {{ g{i - 1} a; g{i - 1} a; }}\n" for i in range(1, levels))
    return f"{head}gate g0 a {{ x a; x a; }}\n{gates}{register}\ng{levels - 1} q;\n"


OLD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
CHAIN = "".join(f"gate g{i} a {{ g{i - 1} a; }}\n" for i in range(1, 5000))
CIRCUITS = {
    "doubling definitions": (doubling(STANDARD, "qubit q;"), "expands to more than"),
    "doubling definitions of version 2": (doubling(OLD, "qreg q[1];"), "expands to more than"),
    "a deep chain of definitions": (
        f"{STANDARD}gate g0 a {{ x a; }}\n{CHAIN}qubit q;\ng4999 q;\n", "levels deep",
    ),
    "a gate that calls itself": ("OPENQASM 3.0;\ngate g a { g a; }\nqubit q;\ng q;\n", "itself"),
    "a subroutine that calls itself": (
        STANDARD + "qubit q;\ndef f(int n) { f(n); }\nf(3);\n", "levels deep",
    ),
    "deep brackets": (STANDARD + "qubit q;\nrz(" + "(" * 9999 + "1" + ")" * 9999 + ") q;", "deep"),
    "deep blocks": (
        STANDARD + "qubit q; bit c;\n" + "if (c) {" * 9999 + "x q;" + "}" * 9999, "nested",
    ),
    "an enormous power": (STANDARD + "qubit q;\npow(1000000000000) @ x q;\n", "power"),
    "many controls": (STANDARD + "qubit[2] q;\nctrl(1000000000) @ x q[0], q[1];\n", "control"),
    "an enormous register": (STANDARD + "qubit[9000000000000000000] q;\nx q;\n", "more than"),
    "an enormous register of version 2": (OLD + "qreg q[4000000000];\nx q[0];\n", "more than"),
    "an enormous array": (
        STANDARD + "qubit q;\narray[int[32], 100000, 100000] a;\nx q;\n", "more than",
    ),
    "an enormous number": (STANDARD + "qubit q;\nconst int n = 9**9**9**9;\nrz(n) q;\n", "bits"),
    "nested loops": (
        STANDARD + "qubit q;\nfor int i in [0:1000] { for int j in [0:1000] { "
        "for int k in [0:1000] { rx(i*j*k) q; } } }\n", "more than",
    ),
    "an endless loop": (STANDARD + "qubit q;\nwhile (true) { x q; }\n", "more than"),
    "an infinite angle": (STANDARD + "qubit q;\nrz(1e400) q;\n", "finite"),
    "an include outside": ('OPENQASM 3.0;\ninclude "../secret.inc";\nqubit q;\n', "leaves"),
    "an include from the root": ('OPENQASM 2.0;\ninclude "/etc/passwd";\nqreg q[1];\n', "leaves"),
    "an include through a link": ('OPENQASM 3.0;\ninclude "link.inc";\nqubit q;\n', "leaves"),
    "an include of itself": ('OPENQASM 3.0;\ninclude "self.inc";\nqubit q;\n', "includes itself"),
    "an include that is missing": ('OPENQASM 3.0;\ninclude "no.inc";\nqubit q;\n', "no.inc"),
    "an unknown gate": (STANDARD + "qubit q;\nhh q;\n", "no gate 'hh'"),
    "what is no text": ("\x00\x01\x02", "line 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", CIRCUITS)
def test_a_malicious_circuit_is_refused_with_its_place(cli: Cli, case: str) -> None:
    text, part = CIRCUITS[case]
    write("c.qasm", text)
    write("self.inc", 'include "self.inc";\n')
    write("../secret.inc", "gate secret a { }\n")
    Path("link.inc").symlink_to("/etc/passwd")
    start = time.process_time()
    with Unchanged(Path("..")):
        refused(cli("opt", "c.qasm", "-o", "out.qasm", "--stats", "s.json"), part, "line", code=1)
        refused(cli("compile", "c.qasm", "-t", "ibm-heron", "-o", "out"), part, "line", code=1)
    assert time.process_time() - start < 60


PROGRAM = """OPENQASM 3.0;
include "stdgates.inc";
input float theta;
gate pair(a) p, q { cx p, q; rz(a / 2) q; }
qubit[3] q;
bit[3] c;
h q[0];
ctrl @ x q[0], q[1];
pair(theta) q[1], q[2];
c[0] = measure q[0];
if (c[0]) { x q[1]; } else { z q[2]; }
for uint i in [0:1] { ry(pi * i / 4) q[i]; }
c = measure q;
"""


@pytest.mark.parametrize("step", range(0, len(PROGRAM), 3))
def test_an_error_at_any_byte_is_said_with_line_and_column(cli: Cli, step: int) -> None:
    # A backtick is nowhere in the language: the place of the error is its own.
    write("c.qasm", PROGRAM[:step] + "`" + PROGRAM[step:])
    line = PROGRAM.count("\n", 0, step) + 1
    column = step - (PROGRAM.rfind("\n", 0, step) + 1) + 1
    result = cli("opt", "c.qasm", "-o", "out.qasm")
    refused(result, code=1)
    place = re.search(r"line (\d+), column (\d+)", result.err)
    assert place, result.err
    assert int(place[1]) == line
    # Where it cuts a word in two, the first half may be what is wrong; in a text, the statement.
    word = re.search(r"\w*$|include .*$", PROGRAM[:step].splitlines()[-1] if column > 1 else "")
    assert word
    assert column - len(word[0]) <= int(place[2]) <= column
    assert os.listdir() == ["c.qasm"]


def test_a_program_cut_anywhere_or_with_a_byte_changed_is_read_or_refused(cli: Cli) -> None:
    content = PROGRAM.encode()
    rng = np.random.default_rng(5)
    refusals = 0
    for place in range(0, len(content), 4):
        changed = bytearray(content)
        changed[place] = int(rng.integers(256))
        for text in (content[:place], bytes(changed)):
            write("c.qasm", text)
            with Unchanged():
                result = cli("inspect", "c.qasm", "--json")
            if result.code:
                refused(result, "line", code=1)
                refusals += 1
    assert refusals > len(content) // 8


# ------------------------------------------------------------------------------- data and names


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


# ------------------------------------------------------------------------------- full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 KiB; skips where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no permission to mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def long_circuit() -> str:
    lines = (f"rx({i + 1} / 7) q[{i % 3}];\ncx q[{i % 3}], q[{(i + 1) % 3}];\n" for i in range(900))
    return STANDARD + "qubit[3] q;\n" + "".join(lines)


def writers(out: Path) -> list[tuple[object, ...]]:
    """Return commands that each write more than 16 KiB into a folder."""
    return [
        ("compile", "m.onnx", "-t", "cpu-int8", "--calib", "d.npz", "-o", out / "a" / "int8"),
        ("compile", "m.onnx", "-t", "cpu-int4", "-o", out / "int4"),
        ("compile", "c.qasm", "-t", "portable", "-o", out / "circuit"),
        ("opt", "c.qasm", "-p", "cancel-inverses", "-o", out / "o.qasm"),
        ("run", "ready", "--input", "d.npz", "--output", out / "y.npz"),
    ]


def prepare(cli: Cli) -> None:
    write("m.onnx", models.mlp((64, 256, 128)))
    write("c.qasm", long_circuit())
    np.savez("d.npz", x=np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))
    assert cli("compile", "m.onnx", "-t", "cpu-int4", "-o", "ready").code == 0


def test_a_full_disk_is_said_and_left_as_it_was(cli: Cli, small_disk: Path) -> None:
    prepare(cli)
    for command in writers(small_disk):
        result = cli(*command)
        refused(result, "the disk is full", str(command[-1]), code=1)
        assert list(small_disk.iterdir()) == []


@UNIX
def test_a_file_size_limit_while_writing_is_a_full_disk(cli: Cli, spawn: Cli) -> None:
    prepare(cli)

    def limited() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, 16 << 10))

    for command in writers(Path("place")):
        with Unchanged():
            refused(spawn(*command, preexec_fn=limited), "the disk is full", code=1)


def test_an_old_output_survives_a_failed_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(cli)
    write("good.qasm", STANDARD + "qubit q;\nx q;\n")
    assert cli("compile", "good.qasm", "-t", "portable", "-o", "out").code == 0
    assert cli("opt", "good.qasm", "-o", "o.qasm").code == 0

    def full(self: Path, data: object, **_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "write_text", full)
    with Unchanged():
        refused(cli("compile", "c.qasm", "-t", "portable", "-o", "out"), "the disk is full")
        refused(cli("opt", "c.qasm", "-p", "cancel-inverses", "-o", "o.qasm"), "the disk is full")


@UNIX
def test_a_device_is_written_to_and_never_replaced(spawn: Cli) -> None:
    write("c.qasm", STANDARD + "qubit q;\nx q;\n")
    result = spawn("opt", "c.qasm", "-o", "/dev/stdout", "--json")
    assert result.code == 0
    assert "OPENQASM 3" in result.out
    os.mkfifo("pipe")
    reader = subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE, text=True)
    assert spawn("opt", "c.qasm", "-o", "pipe").code == 0
    assert "x q[0];" in reader.communicate(timeout=60)[0]
    assert Path("pipe").is_fifo()
    Path("real.qasm").write_text("old")
    Path("link.qasm").symlink_to("real.qasm")
    assert spawn("opt", "c.qasm", "-o", "link.qasm").code == 0
    assert Path("link.qasm").is_symlink()
    assert "x q[0];" in Path("real.qasm").read_text()


# ------------------------------------------------------------------------------- Ctrl-C


@UNIX
@pytest.mark.parametrize("delay", [0.2, 0.6, 1.0, 1.6, 2.4])
def test_ctrl_c_at_any_time_leaves_nothing_half_written(
    cli: Cli, folder: Path, delay: float
) -> None:
    prepare(cli)
    for command, output in (
        (("compile", "m.onnx", "-t", "cpu-int8", "--calib", "d.npz", "-o", "out"), "out"),
        (("opt", "c.qasm", "-o", "o.qasm"), "o.qasm"),
    ):
        before = sorted(os.listdir())
        process = start(*command, cwd=folder)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        # The signal itself, where Python is not up yet or is on its way out; shells say 130 too.
        assert process.returncode in (130, -signal.SIGINT, 0)
        assert "fault inside" not in err
        if process.returncode == 130:
            assert "Traceback" not in err
            assert sorted(os.listdir()) == before
        elif Path(output).exists():
            assert sorted(os.listdir()) == sorted([*before, output])
            break


@UNIX
def test_ctrl_c_while_files_are_written_takes_them_back(folder: Path) -> None:
    """The signal is sent from inside, between the first file and the last: the worst moment."""
    write("m.onnx", models.mlp())
    np.savez("d.npz", x=DATA)
    code = (
        "import os, signal, sys\n"
        "import qcomp.compilation as c\n"
        "write = c.Compilation.write\n"
        "def stopped(self, folder):\n"
        "    write(self, folder)\n"
        "    assert list(folder.iterdir())\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "c.Compilation.write = stopped\n"
        "from qcomp.__main__ import main\n"
        "sys.argv = 'qcomp compile m.onnx -t cpu-int8 --calib d.npz -o out'.split()\n"
        "main()\n"
    )
    with Unchanged():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert re.search("stopped; nothing half-written", done.stderr)
