"""docs/submitting.md: what it shows runs as it stands."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "submitting.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_walk_through_runs_here(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from qcomp.__main__ import main

    monkeypatch.chdir(tmp_path)
    (source,) = blocks("qasm")
    Path("bell.qasm").write_text(source)
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 7
    for line in commands:
        monkeypatch.setattr(sys, "argv", line.split())
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0, (line, capsys.readouterr().err)
    ((name, value),) = np.load("y.npz").items()
    assert value[0] + value[3] == 1
    (entry,) = json.loads(Path("counts.json").read_text())
    assert set(entry["counts"]) == {"00", "11"}
    assert name in capsys.readouterr().out
    (example,) = blocks("python")
    exec(compile(example, "submitting.md", "exec"), {})
    assert name in capsys.readouterr().out
