"""A full disk and Ctrl-C leave files as they were."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import models
from tests.cli.conftest import Cli, start
from tests.cli.refusals import DATA, STANDARD, UNIX, Unchanged, refused, write

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
    assert "x q[0];" in reader.communicate(timeout=300)[0]
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
    for command, output, reads in (
        (
            ("compile", "m.onnx", "-t", "cpu-int8", "--calib", "d.npz", "-o", "out"),
            "out",
            ("run", "out", "--input", "d.npz", "--output", "y.npz"),
        ),
        (("opt", "c.qasm", "-o", "o.qasm"), "o.qasm", ("opt", "o.qasm", "-o", "again.qasm")),
    ):
        before = sorted(os.listdir())
        process = start(*command, cwd=folder)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
        # The signal itself, where Python is not up yet or is on its way out; shells say 130 too.
        assert process.returncode in (130, -signal.SIGINT, 0)
        assert "fault inside" not in err
        assert process.returncode != 130 or "Traceback" not in err
        assert process.returncode != 0 or Path(output).exists()
        if Path(output).exists():  # it came after the one rename: the output is whole
            assert sorted(os.listdir()) == sorted([*before, output])
            assert cli(*reads).code == 0
            break
        assert sorted(os.listdir()) == before


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
