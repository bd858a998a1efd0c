"""Dilations against the matrices that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.passes.synthesize.polynomial.dilation import dilation
from qcomp.simulate import unitary


@pytest.mark.parametrize(("n", "most"), [(1, 1), (2, 9), (3, 35)])
def test_the_corner_is_the_matrix_over_its_norm(n: int, most: int) -> None:
    rng = np.random.default_rng(n)
    size = 1 << n
    matrix = 3 * (rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size)))
    made = dilation(matrix)
    corner = made.scale * unitary(made.circuit)[:size, :size]
    assert np.abs(corner - matrix).max() < 1e-9
    assert made.scale == pytest.approx(np.linalg.norm(matrix, 2))
    assert made.num_ancillas == 1
    assert made.circuit.stats().two_qubit <= most


def test_a_singular_matrix_has_one_too() -> None:
    matrix = np.outer([1.0, 2, 3, 4], [1, 0, 0, 1j])
    made = dilation(matrix)
    assert np.abs(made.scale * unitary(made.circuit)[:4, :4] - matrix).max() < 1e-9


def test_what_has_no_dilation_is_said() -> None:
    with pytest.raises(UsageError, match="is 0"):
        dilation(np.zeros((2, 2)))
    with pytest.raises(UsageError, match="square"):
        dilation(np.ones((2, 4)))
