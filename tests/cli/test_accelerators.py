"""``qcomp targets`` of the accelerators that ONNX Runtime's providers run on."""

import json
import tomllib
from pathlib import Path

import pytest

import qcomp

FILES = Path(qcomp.__file__).parent / "targets"
NPUS = ("openvino-int8", "qnn-a16w8", "qnn-int8", "tensorrt-int8", "vitisai-int8")


@pytest.mark.parametrize("name", NPUS)
def test_targets_explains_the_integers_of_an_accelerator(cli, name):
    rules = tomllib.loads((FILES / f"{name}.toml").read_text(encoding="utf-8"))["integers"]
    shown = cli("targets", name)
    assert shown.code == 0
    for part in (rules["provider"], rules["activation"], "Conv", "documented"):
        assert part in shown.out
    (found,) = json.loads(cli("targets", name, "--json").out)
    assert found["integers"]["activation"] == rules["activation"]
    assert name in cli("targets").out
