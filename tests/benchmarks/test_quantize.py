"""The quantization benchmark: what it measures, and which goals it says are missed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import quantize  # noqa: E402  the benchmarks' folder comes first


def task_of(metric, targets, rows=4):
    data = {"x": np.zeros((rows, 2), np.float32)}
    return quantize.Task("t", Path("t.onnx"), metric, data, data, targets)


def test_logits_are_compared_after_centring_and_tokens_by_their_divergence():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4, 3, 5))
    targets = rng.integers(0, 5, (4, 3))
    task = task_of("perplexity", targets)
    moved = logits + rng.normal(size=(4, 3, 1))  # a constant a position changes no probability
    judge = quantize.Judge(task)
    judge.add(quantize.Reference(task, logits[:2], 0), moved[:2])
    judge.add(quantize.Reference(task, logits[2:], 2), moved[2:])
    found = judge.result()
    assert found["kl"] == pytest.approx(0.0, abs=1e-12)
    assert found["sqnr_db"] > 250
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.take_along_axis(p, targets[..., None], -1)
    assert found["float"] == pytest.approx(np.exp(-np.log(chosen).mean()))


def test_the_divergence_is_that_of_float_to_quantized():
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25])
    task = task_of("perplexity", np.zeros((1, 1), int))
    judge = quantize.Judge(task)
    judge.add(quantize.Reference(task, np.log(p)[None, None], 0), np.log(q)[None, None])
    assert judge.result()["kl"] == pytest.approx(float((p * np.log(p / q)).sum()))


def row(tool, config, **figures):
    plain = {"drop": 0.0, "sqnr_db": 45.0, "size": 0.25, "latency": 0.4, "kl": 1e-4}
    plain |= {"cpu_s": 5.0, "peak": 1e8, "peak_goal": 2e8, "ok": True}
    return {"model": "gpt_imdb", "tool": tool, "config": config, **plain, **figures}


@pytest.mark.parametrize(
    ("figures", "bad"),
    [
        ({}, []),
        ({"sqnr_db": 39.0}, ["sqnr_db"]),
        ({"kl": 2.1e-4}, ["kl"]),
        ({"latency": 0.7}, ["latency"]),
        ({"cpu_s": 6.5}, ["cpu_s"]),
        ({"peak": 3e8}, ["peak"]),
    ],
)
def test_a_missed_goal_is_told(figures, bad):
    ours = row("qcomp", "static", **figures)
    peers = [row("ort", "static", cpu_s=4.0, sqnr_db=8.0, latency=0.1)]  # fast and useless
    peers += [row("ort", "dynamic", kl=4e-4, cpu_s=0.1), row("quark", "u8", cpu_s=0.5, size=1.0)]
    assert quantize.missed(ours, [ours, *peers]) == bad


def test_a_latency_is_met_near_the_best_comparable_peer():
    ours = row("qcomp", "static", latency=0.82)
    peer = row("ort", "dynamic", latency=0.80, kl=1e-3, sqnr_db=37.0)
    assert quantize.missed(ours, [ours, peer]) == []
    assert quantize.missed(ours, [ours, {**peer, "latency": 0.79}]) == ["latency"]


def test_a_folder_of_models_is_read_by_its_metric(tmp_path):
    import onnx

    graph = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n, 3] x) => (float[n, 3] y)'
        " { y = Relu(x) }"
    )
    onnx.save(graph, tmp_path / "small.onnx")
    (tmp_path / "small.json").write_text(json.dumps({"metric": "accuracy", "range": [-1, 2]}))
    x = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    np.savez(tmp_path / "small.npz", calib_x=x[:8], eval_x=x[8:], eval_y=np.zeros(32, int))
    (task,) = quantize.read_tasks(tmp_path)
    assert task.rows == 32
    assert task.span == (-1, 2)
    assert quantize.activation_bytes(task) == 32 * 3 * 4
    (first,) = quantize.read_tasks(tmp_path, ("small",), 5)
    assert first.rows == 5


def test_a_data_free_row_is_judged_beside_the_calibrated_one():
    shared = {"tool": "qcomp", "model": "m", "metric": "accuracy", "ok": True}
    static = {**shared, "config": "static", "drop": 0.002, "sqnr_db": 30.0}
    good = {**shared, "config": "data-free", "drop": 0.011, "sqnr_db": 27.1}
    bad = {**shared, "config": "data-free", "drop": 0.013, "sqnr_db": 26.9}
    assert quantize.missed(good, [static, good]) == []
    assert quantize.missed(bad, [static, bad]) == ["drop", "sqnr_db"]
