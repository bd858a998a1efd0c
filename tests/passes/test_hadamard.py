"""Hadamard matrices: which sizes there are, and that they and rotations by them are orthogonal."""

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.passes.graph.hadamard import (
    Rotation,
    hadamard,
    has_hadamard,
    near_factors,
)
from qcomp.passes.graph.online_products import Step


@pytest.mark.parametrize("n", [*(n for n in range(1, 141) if has_hadamard(n)), 344])
def test_rows_of_a_hadamard_matrix_are_exactly_orthogonal(n):
    H = hadamard(n).astype(np.int64)
    assert set(np.unique(H)) <= {-1, 1}
    assert np.array_equal(H @ H.T, n * np.eye(n, dtype=np.int64))


@pytest.mark.parametrize("n", [12, 28, 52, 100, 108, 128, 344, 768, 5120, 11008, 13824, 14336])
def test_sizes_of_transformers_have_a_hadamard_matrix(n):
    assert has_hadamard(n)


@pytest.mark.parametrize(("n", "near"), [(92, "88 and 96"), (30, "28 and 32"), (0, "1")])
def test_a_size_without_a_matrix_is_refused_with_the_nearest_ones(n, near):
    with pytest.raises(UsageError, match=f"size {n} ") as caught:
        hadamard(n)
    assert near in str(caught.value)


@pytest.mark.parametrize("keeps_ones", [False, True])
@pytest.mark.parametrize("n", [2, 12, 40, 384])
def test_a_random_rotation_is_orthogonal_and_spreads_every_coordinate(n, keeps_ones):
    R = Rotation.random(n, np.random.default_rng(0), keeps_ones=keeps_ones)
    matrix = R.matrix()
    assert np.abs(matrix @ matrix.T - np.eye(n)).max() < 1e-13
    if keeps_ones:
        assert np.abs(matrix.sum(0) - 1).max() < 1e-12
        assert np.abs(matrix.sum(1) - 1).max() < 1e-12
    else:
        assert np.allclose(matrix, R.signs[:, None] * hadamard(n) / np.sqrt(n))
    X = np.random.default_rng(1).normal(size=(n, 3))
    assert np.allclose(R.along(X, 0), matrix.T @ X)


@pytest.mark.parametrize(("n", "factors"), [(256, (16, 16)), (14336, (112, 128)), (22, None)])
def test_a_size_is_taken_apart_into_near_factors_that_have_matrices(n, factors):
    assert near_factors(n) == factors
    if n == 256:
        X = np.random.default_rng(1).normal(size=(n, 3))
        H = np.kron(hadamard(16), hadamard(16)) / 16.0
        half = Rotation(np.ones(16))
        for axis, x, wanted in ((0, X, H.T @ X), (1, X.T, X.T @ H)):
            inner, outer = (Step(half, axis, part) for part in ("inner", "outer"))
            assert np.allclose(outer.turned(inner.turned(x)), wanted)
