"""The curves of the paper, and their windows."""

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.special import jv

CURVES = ("pendulum", "sine", "bessel")
WINDOW, SHARE = 4, 0.67


def curve(name: str, points: int = 200) -> np.ndarray:
    """A damped pendulum's angular velocity, a sine, or the Bessel function J2; within [-1, 1]."""
    t = np.linspace(0.0, 20.0, points)
    if name == "pendulum":
        solved = solve_ivp(
            lambda _, s: [s[1], -0.15 * s[1] - 9.81 * np.sin(s[0])], (0, 20), [0, 3],
            t_eval=t, rtol=1e-9,
        )  # fmt: skip
        return (solved.y[1] / 3.0).astype(np.float32)
    return (np.sin(t) if name == "sine" else 2 * jv(2, t)).astype(np.float32)


def windows(values: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """All windows [n, WINDOW, 1] and what follows each of them [n, 1]."""
    x = np.lib.stride_tricks.sliding_window_view(values, WINDOW)[:-1]
    return torch.tensor(x.copy())[..., None], torch.tensor(values[WINDOW:])[:, None]


def split(name: str) -> tuple[torch.Tensor, ...]:
    """Windows and targets of the first two thirds of a curve, for training, then of the rest."""
    x, y = windows(curve(name))
    count = int(SHARE * len(x))
    return x[:count], y[:count], x[count:], y[count:]
