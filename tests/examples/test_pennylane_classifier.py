"""The PennyLane classifier of irises: trained, compiled and run as its script does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("pennylane")
pytest.importorskip("sklearn")

SCRIPT = Path(__file__).parents[2] / "examples" / "pennylane_classifier" / "classifier.py"


def test_the_compiled_classifier_is_as_good_as_pennylanes(tmp_path: Path) -> None:
    assert len(SCRIPT.read_text().splitlines()) < 100
    spec = importlib.util.spec_from_file_location("pennylane_classifier", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    accuracy = example.main(str(tmp_path / "iris"))
    assert accuracy["PennyLane"] > 0.9
    assert accuracy["compiled"] >= accuracy["PennyLane"] - 0.005
    assert accuracy["compiled, 1000 shots"] >= accuracy["PennyLane"] - 0.02
    assert (tmp_path / "iris" / "program.json").is_file()
