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
    """Bytes over float's, and KL(float || compiled) a character: of no data, of data, of max."""
    weights, alphabet = char_model.load()
    train, held_out = char_model.split(char_model.tokens(alphabet))
    model = char_model.graph(weights)
    ids = {"ids": held_out[:64, :-1]}

    def logarithms(session):
        logits = session.run(ids)["logits"].astype(np.float64)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    p = logarithms(Session(model))
    found = {}
    given = {"ids": char_model.calibration(train, 128)}
    for name, data in (("none", None), ("data", given), ("max", given)):
        out = tmp_path_factory.mktemp("int4") / name
        effort = "max" if name == "max" else "default"
        qcomp.compile(model, target="cpu-int4", calibration=data, effort=effort, out=out)
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


def test_with_data_the_divergence_from_float_is_an_eighth_at_a_fifth_more_bytes(divergence):
    (size, without, _), (more, with_data, _) = divergence["none"], divergence["data"]
    assert with_data < 0.125 * without
    assert without < 4e-3
    assert 1.1 * size < more < 1.2 * size
    assert size < 0.17


def test_the_effort_max_chooses_layer_by_layer_and_is_nearer_to_float(divergence):
    (same, with_data, _), (size, most, _) = divergence["data"], divergence["max"]
    assert most < 0.9 * with_data
    assert size == same


def test_max_needs_no_data_either(tmp_path):
    weights, _ = char_model.load()
    artifact = qcomp.compile(
        char_model.graph(weights), target="cpu-int4", effort="max", out=tmp_path / "out"
    )
    layers = dict(artifact.report)["quantization"]["layers"]
    assert {layer["runs"] for layer in layers if layer["kernel"]} == {"MatMulNBits", "Gather"}


def test_all_products_run_as_matmulnbits(divergence):
    assert all(kernels == {"MatMulNBits", "Gather"} for _, _, kernels in divergence.values())


def test_convolutions_take_4_or_8_bits_in_8_bit_kernels_where_there_is_data(build, tmp_path):
    rng = np.random.default_rng(0)
    body = """
    g (float[n, 8, 12, 12] x) => (float[n, 5] y) {
        a = Conv<pads=[1,1,1,1]>(x, w0, b0)
        b = Relu(a)
        c = Conv(b, w1)
        p = GlobalAveragePool(c)
        f = Flatten(p)
        y = MatMul(f, w2)
    }"""
    weights = {"w0": (32, 8, 3, 3), "b0": (32,), "w1": (64, 32, 3, 3), "w2": (64, 5)}
    program = build(body, {k: rng.normal(size=v).astype(np.float32) for k, v in weights.items()})
    data = {"x": rng.normal(size=(64, 8, 12, 12)).astype(np.float32)}
    found = {}
    for name, given in (("none", None), ("data", data)):
        artifact = qcomp.compile(program, target="cpu-int4", calibration=given, out=tmp_path / name)
        section = dict(artifact.report)["quantization"]
        found[name] = {line["layer"]: (line["bits"], line["runs"]) for line in section["layers"]}
        assert not [w for w in dict(artifact.report)["warnings"] if "nothing" in w]
    assert list(found["none"].values()) == [("u4/32", "MatMulNBits")]
    assert sorted(found["data"].values())[-3:] == [
        ("s4", "QLinearConv"),  # the larger one; the others get the fifth more bytes
        ("s8", "QLinearConv"),
        ("u8/16", "MatMulNBits"),
    ]
    (proved,) = [c["how"] for c in dict(artifact.report)["checks"] if c["result"] == "proved"]
    assert "gptq: 0 of 3 layers above" in proved  # of both passes
    session = Session(next((tmp_path / "data").glob("*.onnx")))
    y, got = Session(program.model).run(data)["y"], session.run(data)["y"]
    assert 10 * np.log10((y**2).sum() / ((y - got) ** 2).sum()) > 14
