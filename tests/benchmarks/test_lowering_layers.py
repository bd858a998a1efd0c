"""The digits model with its first Linear swapped by each method."""

from __future__ import annotations

import pytest

from benchmarks.lowering_layers import METHODS, measure


@pytest.mark.parametrize("method", METHODS)
def test_the_digits_model_is_the_same_with_its_first_linear_as_circuits(method: str) -> None:
    row = measure(method, 3)
    assert row.rows == 3
    assert row.difference < 1e-6
    assert row.accuracy == row.float_accuracy
    assert row.layer.exact
