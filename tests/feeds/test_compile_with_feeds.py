"""Whatever form calibration data comes in, the library compiles the same bytes from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import qcomp
from tests import models

X = np.random.default_rng(3).normal(size=(96, 8)).astype(np.float32)
Y = np.random.default_rng(4).integers(0, 4, 96)


def generator() -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, 96, 32):
        yield {"x": X[start : start + 32]}


def loader() -> object:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(data, batch_size=32)


def reader() -> object:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = generator()

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    return Reader()


FORMS: dict[str, Callable[[], object]] = {
    "generator": generator,
    "list": lambda: list(generator()),
    "array": lambda: X,
    "loader": loader,
    "reader": reader,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_data_does_not_change_the_artifact(form: str, tmp_path: Path) -> None:
    written = []
    for name, data in (("dict", {"x": X}), ("other", FORMS[form]())):
        qcomp.compile(
            models.mlp(),
            target="cpu-int8",
            calibration=data,
            labels=Y,
            out=tmp_path / name,
        )
        written.append((tmp_path / name / "stage0.onnx").read_bytes())
    assert written[0] == written[1]


def test_a_function_of_python_prepares_and_labels_are_scored(tmp_path: Path) -> None:
    artifact = qcomp.compile(
        models.mlp(),
        target="cpu-int8",
        calibration={"raw": X * 2},
        labels={"raw": X[:7] * 2, "y": Y[:7]},
        preprocess=lambda arrays: {"x": arrays["raw"] / 2},
        out=tmp_path / "out",
    )
    (line,) = artifact.report["accuracy"]
    assert line["samples"] == 7
