"""A small regression network: one hidden layer, trained by Adam. Seeded, numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Network"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Network:
    """``y = W2 tanh(W1 x + b1) + b2 + S x``, the last term a linear way around the hidden layer.

    Attributes:
        W1: float64[inputs, hidden].
        b1: float64[hidden].
        W2: float64[hidden, 1].
        b2: float64[1].
        S: float64[inputs, 1].
    """

    W1: Floats
    b1: Floats
    W2: Floats
    b2: Floats
    S: Floats

    def __call__(self, x: Floats) -> Floats:
        """Return the prediction for each row of x, float64[N]."""
        return np.asarray((np.tanh(x @ self.W1 + self.b1) @ self.W2 + x @ self.S + self.b2)[:, 0])

    @staticmethod
    def train(
        x: Floats,
        y: Floats,
        rng: np.random.Generator,
        *,
        hidden: int = 16,
        steps: int = 1500,
        batch: int = 256,
        rate: float = 1e-2,
    ) -> Network:
        """Return the network after stochastic gradient steps on the mean squared error.

        The linear term starts at the least-squares solution, the hidden layer's output at zero, so
        training starts where linear regression ends. The rate falls to zero along a cosine.

        Args:
            x: float64[N, inputs].
            y: float64[N].
            rng: Where starting weights and batches come from.
            hidden: Width of the hidden layer.
            steps: Steps.
            batch: Rows a step.
            rate: First rate of Adam (Kingma and Ba 2014, arXiv:1412.6980).
        """
        n, inputs = x.shape
        start = np.linalg.lstsq(np.column_stack([x, np.ones(n)]), y, rcond=None)[0]
        weights = [
            rng.normal(size=(inputs, hidden)) / np.sqrt(inputs),
            np.zeros(hidden),
            np.zeros((hidden, 1)),
            start[-1:].copy(),
            start[:-1, None].copy(),
        ]
        first = [np.zeros_like(w) for w in weights]
        second = [np.zeros_like(w) for w in weights]
        for step in range(1, steps + 1):
            rows = rng.integers(n, size=min(batch, n))
            gradients = _gradients(weights, x[rows], y[rows])
            scale = 0.5 * rate * (1 + np.cos(np.pi * step / steps))
            for w, g, m, v in zip(weights, gradients, first, second, strict=True):
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                corrected = v / (1 - 0.999**step)
                w -= scale * (m / (1 - 0.9**step)) / (np.sqrt(corrected) + 1e-8)
        return Network(*weights)


def _gradients(weights: list[Floats], x: Floats, y: Floats) -> list[Floats]:
    w1, b1, w2, b2, s = weights
    h = np.tanh(x @ w1 + b1)
    error = (h @ w2 + x @ s + b2 - y[:, None]) * (2 / len(x))
    back = (error @ w2.T) * (1 - h * h)
    return [x.T @ back, back.sum(axis=0), h.T @ error, error.sum(axis=0), x.T @ error]
