"""The two-layer networks of S036 on iris, and the script that trains them.

``python -m tests.papers.make_s036`` writes ``tests/data/s036_weights.npz`` in some seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedKFold

WEIGHTS = Path(__file__).parent.parent / "data" / "s036_weights.npz"
HIDDEN = 6
EPOCHS = 400
Fold = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def folds() -> Iterator[Fold]:
    """Yield (x, y, x_test, y_test) of five folds: four features, so registers of two qubits."""
    x, y = load_iris(return_X_y=True)
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
        wide = x - 0.7 * x[train].min(axis=0)  # nearer to the origin: directions differ more
        yield wide[train], y[train], wide[test], y[test]


class TwoLayers(torch.nn.Module):
    """``sum_j v_j |<x|w_j>|^2 + b``: hidden units are squared overlaps of directions."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Parameter(torch.randn(4, HIDDEN, dtype=torch.float64))
        self.out = torch.nn.Linear(HIDDEN, 3, dtype=torch.float64)

    def directions(self) -> torch.Tensor:
        """Return the unit vectors w_j, [4, hidden]."""
        return self.hidden / self.hidden.norm(dim=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        overlap = (x / x.norm(dim=1, keepdim=True)) @ self.directions()
        return self.out(overlap**2)


def trained(x: np.ndarray, y: np.ndarray) -> TwoLayers:
    """Return a network trained on one fold."""
    torch.manual_seed(0)
    model = TwoLayers()
    adam = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(EPOCHS):
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model


def main() -> None:
    """Train five folds and write their weights."""
    torch.set_num_threads(1)
    arrays = {}
    for number, (x, y, x_test, y_test) in enumerate(folds()):
        model = trained(x, y)
        with torch.no_grad():
            right = (model(torch.from_numpy(x_test)).argmax(dim=1).numpy() == y_test).mean()
        print(f"fold {number}: {right:.3f}")
        for name, value in model.state_dict().items():
            arrays[f"{name}_{number}"] = value.numpy()
    np.savez_compressed(WEIGHTS, **arrays)


if __name__ == "__main__":
    main()
