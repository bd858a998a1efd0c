"""docs/mitigation.md: its example runs and says what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("qiskit_aer")

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "mitigation.md"


def test_the_example_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)
    exec(compile(source, "mitigation.md", "exec"), {})
    success, errors, groups = capsys.readouterr().out.splitlines()
    noisy, found = (float(word) for word in errors.split())
    assert found < 0.2 * noisy
    said = re.findall(r"print\(.*\)  # (.*)", source)
    assert said == [success, groups]
