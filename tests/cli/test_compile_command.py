"""qcomp compile: an artifact that runs, labels and raw data, the same bytes by seed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qcomp
from tests import models
from tests.cli.commands import done, strict
from tests.cli.conftest import Cli, environment

HYBRID = ("compile", "h.onnx", "-t", "cpu-int8+ibm-heron", "--calib", "d.npz", "-o")


@pytest.mark.usefixtures("files")
def test_a_hybrid_model_becomes_a_folder_that_runs(cli: Cli) -> None:
    text = done(cli(*HYBRID, "out", "--labels", "y.npz"))
    assert "wrote out/" in text
    assert "layer0: two_qubit" in text
    assert "accuracy on 48 samples" in text
    names = {path.name for path in Path("out").iterdir()}
    assert {"program.json", "report.html", "report.json", "layer0.qasm", "stage0.onnx"} <= names
    expected = qcomp.load("out")(np.load("d.npz")["x"])
    assert "wrote y2.npz" in done(cli("run", "out", "--input", "d.npz", "--output", "y2.npz"))
    np.testing.assert_array_equal(np.load("y2.npz")["y"], expected)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    "arguments",
    [
        ("m.onnx", "-t", "cpu-int8", "--calib", "d.npz"),
        ("m.onnx", "-t", "cpu-int4"),
        ("m.onnx", "-t", "cpu-dynamic-int8"),
        ("c.qasm", "-t", "ibm-heron"),
        ("c.qasm", "-t", "portable", "--effort", "fast"),
        ("h.onnx", "-t", "cpu-int4+portable", "--effort", "max"),
        ("c.qasm", "-t", "portable", "-p", "merge-rotations,cancel-inverses"),
    ],
)
def test_every_target_compiles_and_says_so_in_json(cli: Cli, arguments: tuple[str, ...]) -> None:
    report = strict(done(cli("compile", *arguments, "-o", "out", "--json")))
    assert report == strict(Path("out", "report.json").read_text())
    assert strict(Path("out", "program.json").read_text())["format"] == "qcomp-program"
    assert "+".join(target["name"] for target in report["targets"]) == arguments[2]
    assert all(check["result"] != "failed" for check in report["checks"])
    done(cli("inspect", "out"))
    data = () if arguments[0] == "c.qasm" else ("--input", "d.npz")
    (values,) = strict(done(cli("run", "out", *data, "--json"))).values()
    assert np.isfinite(values).all()


@pytest.mark.usefixtures("files")
def test_labels_with_samples_of_their_own_are_scored_on_those(cli: Cli) -> None:
    arguments = ("compile", "m.onnx", "-t", "cpu-int8", "--calib", "d.npz", "-o", "out", "--json")
    report = strict(done(cli(*arguments, "--labels", "e.npz")))
    (line,) = report["accuracy"]
    assert (line["metric"], line["samples"]) == ("accuracy", 10)
    assert not any("calibration samples" in text for text in report["warnings"])
    report = strict(done(cli(*arguments, "--labels", "y.npz")))
    assert report["accuracy"][0]["samples"] == 48
    assert any("calibration samples" in text for text in report["warnings"])


@pytest.mark.usefixtures("files")
def test_raw_data_goes_through_a_preprocess_file_or_function(cli: Cli) -> None:
    raw = np.load("d.npz")["x"]
    np.savez("raw.npz", pixels=(raw * 10).astype(np.int16))
    Path("steps.json").write_text('{"from": "pixels", "scale": 0.1}')
    Path("cli_feed_steps.py").write_text("def f(a):\n    return {'x': a['pixels'] * 0.1}\n")
    outputs = []
    for how in ("steps.json", "cli_feed_steps:f"):
        arguments = ("-t", "cpu-int8", "--calib", "raw.npz", "--preprocess", how, "-o", "out")
        done(cli("compile", "m.onnx", *arguments))
        outputs.append(Path("out", "stage0.onnx").read_bytes())
        text = done(cli("run", "out", "--input", "raw.npz", "--preprocess", how, "--json"))
        assert np.shape(strict(text)["y"]) == (48, 3)
    assert outputs[0] == outputs[1]


def test_a_folder_of_images_calibrates_a_model_and_labels_follow_its_order(cli: Cli) -> None:
    from PIL import Image

    Path("m.onnx").write_bytes(models.small_cnn().SerializeToString())
    rng = np.random.default_rng(0)
    Path("images").mkdir()
    for index in range(12):
        picture = rng.integers(0, 256, (10, 12, 3), np.uint8)
        Image.fromarray(picture).save(f"images/{index:02}.png")
    Path("steps.json").write_text('{"resize": [8, 8], "scale": 0.004, "layout": "NCHW"}')
    np.savez("y.npz", y=rng.integers(0, 5, 12))
    arguments = ("-t", "cpu-int8", "--calib", "images", "--preprocess", "steps.json", "-o", "out")
    report = strict(done(cli("compile", "m.onnx", *arguments, "--labels", "y.npz", "--json")))
    assert report["accuracy"][0]["samples"] == 12
    run = ("run", "out", "--input", "images", "--preprocess", "steps.json", "--json")
    assert np.shape(strict(done(cli(*run)))["y"]) == (12, 5)


def hashes(folder: str) -> dict[str, str]:
    """Return name -> hash of what a compile made, but for the report, which holds times."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).iterdir())
        if not path.name.startswith("report.")
    }


@pytest.mark.usefixtures("files")
def test_the_same_seed_gives_the_same_bytes_in_every_process(cli: Cli, folder: Path) -> None:
    arguments = (*HYBRID[:-1], "--seed", "7", "-o")
    done(cli(*arguments, "one"))
    for number, hash_seed in enumerate(("0", "12345")):
        subprocess.run(
            [sys.executable, "-m", "qcomp", *arguments, f"other{number}"],
            cwd=folder,
            env={**environment(), "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        )
        assert hashes(f"other{number}") == hashes("one")
    assert len(hashes("one")) >= 4


@pytest.mark.usefixtures("files")
def test_the_same_seed_gives_the_same_samples_and_another_seed_others(cli: Cli) -> None:
    done(cli(*HYBRID, "out"))
    run = ("run", "out", "--input", "d.npz", "--shots", "50", "--json")
    first = strict(done(cli(*run, "--seed", "3")))
    assert strict(done(cli(*run, "--seed", "3"))) == first
    assert strict(done(cli(*run, "--seed", "4"))) != first
