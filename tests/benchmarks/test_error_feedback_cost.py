"""The benchmark of GPTQ's cost: what it counts."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models import mlp

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import error_feedback  # noqa: E402  the benchmarks' folder comes first


def test_the_bound_is_the_operations_of_moments_factor_and_updates_at_the_measured_rate():
    rows = error_feedback.measure(96, tokens=200, turns=1, product=256)
    *steps, whole = rows
    assert [row.flops for row in steps] == [200 * 96**2, pytest.approx(2 / 3 * 96**3), 96**3, 0.0]
    assert whole.flops == pytest.approx(sum(row.flops for row in steps))
    assert whole.seconds == pytest.approx(sum(row.seconds for row in steps[:3]))
    rate = whole.flops / whole.bound
    assert all(row.bound == pytest.approx(row.flops / rate) for row in steps)
    assert min(row.seconds for row in rows) > 0


def test_the_cost_of_a_model_is_that_of_rounding_all_its_layers(tmp_path):
    path = tmp_path / "mlp.onnx"
    path.write_bytes(mlp((24, 32, 8)).SerializeToString())
    x = np.random.default_rng(0).normal(size=(64, 24)).astype(np.float32)
    cost = error_feedback.whole_model(path, {"x": x})
    assert cost.layers == 2
    assert 0 < cost.seconds < 10
    assert cost.bytes < 1 << 29
