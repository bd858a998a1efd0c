"""The quanvolutional network of digits: trained, tuned, compiled and run as its script does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "quanvolution" / "quanvolution.py"


def test_the_compiled_quanvolution_is_as_good_as_the_float_one(tmp_path: Path) -> None:
    assert len(SCRIPT.read_text().splitlines()) < 100
    spec = importlib.util.spec_from_file_location("quanvolution", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    accuracy = example.main(str(tmp_path / "digits"), epochs=6)
    assert accuracy["float"] > 0.88
    assert accuracy["compiled"] >= accuracy["float"] - 0.005
    assert accuracy["compiled, 1000 shots"] >= accuracy["float"] - 0.02
    assert len(list((tmp_path / "digits").glob("*.qasm"))) == 1  # one circuit for all patches
