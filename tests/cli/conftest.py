"""The command line for tests: in this process, which is fast, or in its own, which is real."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests import models
from tests.cli.commands import CIRCUIT

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Result:
    """What a command did.

    Attributes:
        code: The exit code; negative for a signal.
        out: Standard output.
        err: Standard error.
    """

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def cli(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in this process, in an empty current folder."""

    def run(*arguments: object) -> Result:
        from qcomp.__main__ import main

        monkeypatch.setattr(sys, "argv", ["qcomp", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capfd.readouterr()
        code = stop.value.code
        assert isinstance(code, int)
        return Result(code, captured.out, captured.err)

    return run


def environment() -> dict[str, str]:
    """Return the environment of a command in its own process."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path}


def start(*arguments: object, cwd: Path, **options: object) -> subprocess.Popen[str]:
    """Start a command in its own process."""
    return subprocess.Popen(
        [sys.executable, "-m", "qcomp", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


@pytest.fixture
def spawn(folder: Path) -> Cli:
    """Run a command in its own process, with 8 GiB of address space and two minutes."""

    def limits() -> None:
        import resource

        # Not every system knows this limit.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))

    def run(*arguments: object, **options: object) -> Result:
        options.setdefault("preexec_fn", limits)
        process = start(*arguments, cwd=folder, **options)
        out, err = process.communicate(timeout=300)
        return Result(process.returncode, out, err)

    return run


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
