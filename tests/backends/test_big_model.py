"""A model larger than memory should be is read, simplified and saved in little memory."""

from __future__ import annotations

from pathlib import Path

import onnx

from benchmarks.big_model import measure, write_big_model


def test_reading_simplifying_and_saving_needs_no_memory_for_the_weights(tmp_path: Path) -> None:
    source = tmp_path / "big.onnx"
    write_big_model(source, 300_000_000, width=1024, hidden=4096)
    ground = measure("imports", source, tmp_path)["peak"]
    peak = measure("simplify", source, tmp_path)["peak"]
    # The weights are 300 MB, each of 17 MB.
    assert peak - ground < 60_000_000
    saved = tmp_path / "simplified.onnx"
    stored = onnx.load(saved, load_external_data=False).graph.initializer
    assert len(stored) == 18
    assert all(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in stored)
    data = (tmp_path / "simplified.onnx.data").read_bytes()
    assert data[:1000] == (tmp_path / "big.onnx.data").read_bytes()[:1000]
    assert len(data) == (tmp_path / "big.onnx.data").stat().st_size
