"""Train the QLSTM and an LSTM beside it on three curves: writes ``weights.npz``; a minute or two.

Both have four memory cells, the same data, optimiser (RMSprop, as in the paper) and epochs. Of
three starts the one with the least training error is kept, of either.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from curves import CURVES, split
from qlstm import QUBITS, Forecaster

EPOCHS, RATE, STARTS = 24, 0.03, 3


class Lstm(torch.nn.Module):
    """Sequences [B, T, 1] -> (forecasts [B, 1], hidden states of all steps)."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = torch.nn.LSTM(1, QUBITS, batch_first=True)
        self.head = torch.nn.Linear(QUBITS, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, _ = self.recurrent(x)
        return self.head(states[:, -1]), states


def error(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The mean squared error of a model."""
    return torch.nn.functional.mse_loss(model(x)[0], y)


def fit(build: type[torch.nn.Module], name: str, start: int) -> torch.nn.Module:
    """A model, trained on the first two thirds of a curve."""
    torch.manual_seed(start)
    model = build()
    x, y, _, _ = split(name)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=RATE)
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        error(model, x, y).backward()
        optimizer.step()
    return model


def main() -> None:
    torch.set_num_threads(1)
    weights: dict[str, np.ndarray] = {}
    for name in CURVES:
        x, y, x_test, y_test = split(name)
        for kind, build in (("lstm", Lstm), ("qlstm", Forecaster)):
            models = [fit(build, name, start) for start in range(STARTS)]
            with torch.no_grad():
                model = min(models, key=lambda m: float(error(m, x, y)))
                print(f"{name} {kind}: test error {float(error(model, x_test, y_test)):.3e}")
            for key, value in model.state_dict().items():
                weights[f"{name}/{kind}/{key}"] = value.numpy()
    np.savez_compressed(Path(__file__).parent / "weights.npz", **weights)


if __name__ == "__main__":
    main()
