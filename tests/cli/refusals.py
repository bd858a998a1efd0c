"""What the tests of bad input share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.conftest import Result

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
