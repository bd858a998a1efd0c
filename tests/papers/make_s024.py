"""The hybrid regressor of S024 on five folds, and the script that trains it and writes its weights.

``python -m tests.papers.make_s024`` writes ``tests/data/s024_weights.npz`` in ten seconds.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

WEIGHTS = Path(__file__).parent.parent / "data" / "s024_weights.npz"
EXAMPLE = Path(__file__).parents[2] / "examples" / "qiskit_regressor" / "regressor.py"


def example() -> ModuleType:
    """Return the example's module."""
    spec = importlib.util.spec_from_file_location("regressor", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained(fold: int) -> Any:
    """Return the regressor of a fold with the committed weights."""
    model = example().Regressor()
    with np.load(WEIGHTS) as data:
        state = {name: torch.from_numpy(data[f"{fold}/{name}"]) for name in model.state_dict()}
    model.load_state_dict(state)
    return model.eval()


def main() -> None:
    """Train the five and write their weights."""
    torch.set_num_threads(1)
    module = example()
    arrays = {}
    for fold, (x, y, _, _) in enumerate(module.folds()):
        for name, tensor in module.train(x, y).state_dict().items():
            arrays[f"{fold}/{name}"] = tensor.numpy()
    np.savez_compressed(WEIGHTS, **arrays)


if __name__ == "__main__":
    main()
