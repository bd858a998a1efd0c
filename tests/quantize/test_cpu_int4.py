"""The target of 4-bit weights: what its own pipeline makes of data, and of none."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp.execute import Session

EXAMPLE = Path(__file__).parents[2] / "examples" / "char_model"
sys.path.insert(0, str(EXAMPLE))

import char_model  # noqa: E402

sys.path.remove(str(EXAMPLE))


@pytest.fixture(scope="module")
def divergence(tmp_path_factory):
    """Bytes over float's, and KL(float || compiled) a character: of no data and of data."""
    weights, alphabet = char_model.load()
    train, held_out = char_model.split(char_model.tokens(alphabet))
    model = char_model.graph(weights)
    ids = {"ids": held_out[:64, :-1]}

    def logarithms(session):
        logits = session.run(ids)["logits"].astype(np.float64)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    p = logarithms(Session(model))
    found = {}
    for name, data in (("none", None), ("data", {"ids": char_model.calibration(train, 128)})):
        out = tmp_path_factory.mktemp("int4") / name
        qcomp.compile(model, target="cpu-int4", calibration=data, out=out)
        (path,) = out.glob("*.onnx")
        q = logarithms(Session(path))
        report = json.loads((out / "report.json").read_text())
        kernels = {layer["runs"] for layer in report["quantization"]["layers"] if layer["kernel"]}
        found[name] = (
            path.stat().st_size / model.ByteSize(),
            float((np.exp(p) * (p - q)).sum(-1).mean()),
            kernels,
        )
    return found


def test_with_data_the_divergence_from_float_is_a_quarter_at_the_same_size(divergence):
    (size, without, _), (same, with_data, _) = divergence["none"], divergence["data"]
    assert with_data < 0.25 * without
    assert without < 4e-3
    assert same == pytest.approx(size, rel=0.01)
    assert size < 0.17


def test_all_products_run_as_matmulnbits(divergence):
    assert all(kernels == {"MatMulNBits", "Gather"} for _, _, kernels in divergence.values())
