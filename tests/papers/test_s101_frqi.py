"""S101: Improved FRQI on superconducting processors and its restrictions in the NISQ era.

Handwritten digits (sklearn) and pictures made of blocks. Qiskit's multi-controlled rotations need
24, 336 and 1,960 CX for 2x2, 4x4 and 8x8 pixels, its uniformly controlled ones 4, 16 and 62.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from qcomp.constructions.images.frqi import ImageState, frqi
from qcomp.simulate import probabilities

DIGITS = load_digits().images / 16.0


def smaller(image: np.ndarray, side: int) -> np.ndarray:
    """Means of blocks, or each pixel repeated."""
    if side > 8:
        return np.kron(image, np.ones((side // 8, side // 8)))
    return image.reshape(side, 8 // side, side, 8 // side).mean(axis=(1, 3))


def error(state: ImageState, image: np.ndarray) -> float:
    return float(np.abs(state.decode(probabilities(state.circuit)[0]) - image).max())


@pytest.mark.parametrize(("side", "most"), [(2, 4), (4, 16), (8, 64), (16, 256), (32, 1024)])
def test_digits_come_back_from_exact_probabilities_with_no_more_cx_than_pixels(
    side: int, most: int
) -> None:
    rng = np.random.default_rng(side)
    for image in DIGITS[: 8 if side < 16 else 1]:
        pixels = smaller(image, side)
        for each in (pixels, np.clip(pixels + rng.normal(size=pixels.shape) / 50, 0, 1)):
            state = frqi(each)
            assert state.circuit.stats().two_qubit <= most - 1
            assert error(state, each) <= 1e-9
    if side >= 16:  # each pixel repeated: no more than the 8x8 image
        assert frqi(smaller(DIGITS[0], side)).circuit.stats().two_qubit <= 63


def test_structured_images_cost_a_few_cx() -> None:
    board = np.indices((4, 4)).sum(axis=0) % 2.0
    corners = np.kron([[0.1, 0.4], [0.7, 1.0]], np.ones((2, 2)))
    inside = np.zeros((4, 4))
    inside[1:3, 1:3] = 1.0
    point = np.zeros((32, 32))
    point[7, 9] = 1.0
    for image, most in ((board, 2), (corners, 3), (inside, 6), (point, 128)):
        state = frqi(image)
        assert state.circuit.stats().two_qubit <= most
        assert error(state, image) <= 1e-9


def test_digits_with_small_weights_dropped_keep_27_decibels() -> None:
    counts, decibels = [], []
    for image in DIGITS[:40]:
        state = frqi(image, epsilon=0.05, high=1.0)
        back = state.decode(probabilities(state.circuit)[0])
        counts.append(state.circuit.stats().two_qubit)
        decibels.append(-10 * np.log10(np.mean((back - image) ** 2)))
    assert np.mean(counts) <= 41.5
    assert np.mean(decibels) >= 27.5
