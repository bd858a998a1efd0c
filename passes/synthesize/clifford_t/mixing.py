"""Words drawn by chance, whose mean is much nearer to a rotation than any one of them.

    rho -> sum_k p_k V_k rho V_k^-1,      V_k = R exp(-i d_k n_k.sigma)

First-order errors are linear in d_k n_k, so chances that make their mean 0 leave second order: a
mean error of about eps^2 where each word is within eps, at about half the T gates for the same
mean error. A turn that is too wide and one that is too narrow cancel along Z; each word and its
image under Z, which commutes with R, cancel along X and Y.

What it changes: one circuit is no nearer than eps. The mean is that of circuits with words drawn
anew, each run a few times; expectation values and probabilities, nothing that needs one state.

Source: Campbell 2017 (arXiv:1612.02689), Hastings 2017 (arXiv:1612.01011).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.angle import radians
from qcomp.passes.synthesize.clifford_t.normal_form import (
    Word,
    multiply,
    normal_form,
    rz_quaternion,
)
from qcomp.passes.synthesize.clifford_t.rotations import Point, rotation_word

__all__ = ["Mixture", "mixture"]


@dataclass(frozen=True)
class Mixture:
    """Words and their chances.

    Attributes:
        points: The words, each with its own operator norm.
        chances: float64 of the same number, with sum 1.
        error: Largest trace distance between what the mean and the rotation make of a state,
            entangled ones included, at most.
    """

    points: tuple[Point, ...]
    chances: tuple[float, ...]
    error: float


def mixture(frac: int, rem: float, epsilon: float) -> Mixture:
    """Return words within epsilon of ``RZ(frac pi / 2**60 + rem)`` whose mean is nearer.

    Args:
        frac: Units of pi / 2**60.
        rem: Radians.
        epsilon: Operator norm of each word.

    Raises:
        UsageError: If the accuracy is none that can be had.
    """
    target = rz_quaternion(radians(frac) + rem)
    inverse = target * np.array([1.0, -1.0, -1.0, -1.0])
    words: list[Word] = []
    for shift in (epsilon, -epsilon):
        # A turn by epsilon more is epsilon / 2 off, which leaves as much to its word.
        word = rotation_word(frac, rem + shift, epsilon / 2).word
        words += [word, normal_form(["z", *word.gates, "z"])]
    apart = np.stack([multiply(inverse, np.array(word.quaternion)) for word in words])
    slope = apart[:, 0] * apart[:, 3]
    over, under = float(slope[0]), float(slope[2])
    chance = 0.5 if over == under else float(np.clip(under / (under - over), 0.0, 1.0))
    chances = np.array([chance, chance, 1 - chance, 1 - chance]) / 2
    process = np.einsum("k,ki,kj->ij", chances, apart, apart)
    process[0, 0] -= 1
    points = tuple(Point(w.t_count, w.distance(target), w) for w in words)
    error = float(np.abs(np.linalg.eigvalsh(process)).sum())
    return Mixture(points, tuple(float(c) for c in chances), error)
