"""The benchmark of methods for few bits: what is done, what is kept, and what is said to lose."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import low_bit  # noqa: E402  the benchmarks' folder comes first
import low_bit_methods  # noqa: E402

from qcomp.passmanager import Pipeline  # noqa: E402


def row(kind, name, model="char", tool="qcomp", **figures):
    plain = {"float": 5.0, "value": 5.1, "drop": 0.1, "sqnr_db": 30.0, "size": 0.2}
    plain |= {"latency": 1.0, "cpu_s": 1.0, "peak": 1, "pipeline": "", "rows": 3}
    return {"model": model, "kind": kind, "name": name, "tool": tool, **plain, **figures}


@pytest.mark.parametrize("method", low_bit_methods.METHODS, ids=lambda method: method.key)
def test_every_method_names_passes_that_exist(method):
    assert method.texts or method.images
    for text in filter(None, (method.texts, method.images)):
        Pipeline.parse(f"{low_bit_methods.FRONT}{text}{low_bit_methods.BACK}")


def test_methods_have_names_of_their_own():
    keys = [method.key for method in low_bit_methods.METHODS]
    assert len(keys) == len(set(keys))


def test_a_method_that_is_never_the_best_of_its_class_is_named_so():
    rows = [
        row("W4", "a", kl=2e-3),
        row("W4", "b", kl=1e-3),
        row("W3", "a", kl=9e-3),  # alone in its class
        row("W4", "a", "resnet20_cifar", sqnr_db=20.0),
        row("W4", "b", "resnet20_cifar", sqnr_db=19.0),
        row("W4", "c", "resnet20_cifar", sqnr_db=18.0),
        row("W4", "rtn", tool="ort", kl=1e-5),  # other tools are shown, not ranked
        {**row("W4", "d"), "error": "gptq has no data"},
    ]
    text = low_bit.table(rows)
    assert text.splitlines()[-1].endswith("models: c (W4), d (W4).")
    assert "| resnet20_cifar | W4 | **a** |" in text
    assert "| char | W4 | **b** |" in text
    assert "| char | W4 | d | gptq has no data |" in text


def test_what_is_in_the_file_is_not_done_again(tmp_path, monkeypatch):
    done = []

    def measured(floating, make):
        done.append(floating.task.name)
        return {key: value for key, value in row("", "").items() if key not in HEAD} | {"kl": 1.0}

    HEAD = ("model", "kind", "name", "tool", "pipeline", "rows")
    monkeypatch.setattr(low_bit, "measured", measured)
    asked = {"only": ["W4 AdaRound", "W4 gpfq"], "whole": False, "peers": [], "pythons": {}}
    store = tmp_path / "rows.json"
    first = low_bit.run(tmp_path, store, ["char"], fresh=[], **asked)
    assert done == ["char"] * 2
    assert low_bit.run(tmp_path, store, ["char"], fresh=[], **asked) == first
    assert done == ["char"] * 2
    low_bit.run(tmp_path, store, ["char"], fresh=["W4 gpfq"], **asked)
    assert done == ["char"] * 3
    kept = json.loads(store.read_text())
    kept["char: qcomp W4 AdaRound"]["pipeline"] = "another"
    store.write_text(json.dumps(kept))
    del kept["char: qcomp W4 gpfq"]["peak"]  # written before peaks were measured
    store.write_text(json.dumps(kept))
    low_bit.run(tmp_path, store, ["char"], fresh=[], **asked)
    assert done == ["char"] * 5
    assert list(json.loads(store.read_text())) == list(kept)


def test_a_row_is_what_onnx_runtime_makes_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(low_bit, "TURNS", 1)
    (found,) = low_bit.run(
        tmp_path,
        tmp_path / "rows.json",
        ["char"],
        only=["W4 rounded, lsq"],
        fresh=[],
        whole=False,
        peers=[],
        pythons={},
    )
    assert 4.88 < found["float"] < 4.90
    assert 0.0 < found["drop"] < 0.03
    assert 25 < found["sqnr_db"] < 33
    assert 0.15 < found["size"] < 0.20
    assert 0 < found["peak"] < 1e9


def test_the_peak_of_a_row_is_its_own():
    before = low_bit.held_memory()
    big = np.ones(8 << 20)
    assert low_bit.quantize_peers.memory("VmHWM") - before >= big.nbytes
    del big
    again = low_bit.held_memory()
    assert low_bit.quantize_peers.memory("VmHWM") - again < 32 << 20


@pytest.mark.parametrize(
    ("config", "kind"), [("rtn-4-32", "W4"), ("a+b-4-128", "W4 128"), ("rtn-2-16", "W2")]
)
def test_rows_of_other_tools_stand_in_the_class_of_their_bits_and_blocks(config, kind):
    assert low_bit.kind(config) == kind


def test_the_table_is_put_between_its_marks(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- low-bit:begin -->\nold\n<!-- low-bit:end -->\nbehind\n")
    low_bit.write_readme("new", path)
    assert path.read_text() == (
        "before\n<!-- low-bit:begin -->\nnew\n<!-- low-bit:end -->\nbehind\n"
    )
    readme = (Path(low_bit.__file__).with_name("README.md")).read_text()
    assert readme.count("<!-- low-bit:begin -->") == readme.count("<!-- low-bit:end -->") == 1
