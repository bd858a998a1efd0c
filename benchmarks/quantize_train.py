"""Two small models for the quantization benchmark: a recurrent net and a U-Net, trained here.

Both learn on scikit-learn's digits: the LSTM reads an image row by row and names the digit, the
U-Net takes noise off it. They are judged by distance from their own float form.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["train"]

STEPS = 400
BATCH = 64


def train(folder: Path) -> None:
    """Train both models and write ``lstm`` and ``unet`` with their data to the folder.

    Takes about 30 CPU seconds. The same machine gives the same files.
    """
    import torch
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = (images[order] / 16.0).astype(np.float32).reshape(-1, 8, 8)
    y = labels[order].astype(np.int64)
    _train_lstm(folder, x, y)
    _train_unet(folder, x)


def _train_lstm(folder: Path, x: Any, y: Any) -> None:
    import torch
    from torch import nn

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 128, num_layers=2, batch_first=True, bidirectional=True)
            self.head = nn.Linear(256, 10)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            states, _ = self.lstm(rows)
            return self.head(states[:, -1])

    torch.manual_seed(0)
    model = Reader()
    _fit(model, x[:1200], y[:1200], nn.CrossEntropyLoss())
    _write(folder, "lstm", model, x, y, {"metric": "accuracy"})


def _train_unet(folder: Path, x: Any) -> None:
    import torch
    from torch import nn
    from torch.nn import functional

    class UNet(nn.Module):
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.down1 = _block(1, width)
            self.down2 = _block(width, 2 * width)
            self.middle = _block(2 * width, 4 * width)
            self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
            self.join2 = _block(4 * width, 2 * width)
            self.join1 = _block(3 * width, width)
            self.out = nn.Conv2d(width, 1, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            a = self.down1(image)
            b = self.down2(functional.max_pool2d(a, 2))
            c = self.middle(functional.max_pool2d(b, 2))
            d = self.join2(torch.cat([self.up2(c), b], 1))
            e = functional.interpolate(d, scale_factor=2.0, mode="nearest")
            return self.out(self.join1(torch.cat([e, a], 1)))

    def _block(before: int, after: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        )

    torch.manual_seed(0)
    model = UNet()
    clean = np.kron(x, np.ones((2, 2), np.float32))[:, None]
    noise = np.random.default_rng(1).normal(0, 0.4, clean.shape).astype(np.float32)
    _fit(model, (clean + noise)[:1200], clean[:1200], nn.MSELoss())
    about = {"metric": "mse", "range": [-1.0, 2.0]}
    _write(folder, "unet", model, clean + noise, clean, about)


def _fit(model: Any, x: Any, y: Any, loss: Any) -> None:
    import torch

    rng = np.random.default_rng(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(STEPS):
        rows = rng.integers(0, len(x), BATCH)
        optimiser.zero_grad()
        loss(model(torch.from_numpy(x[rows])), torch.from_numpy(y[rows])).backward()
        optimiser.step()
    model.eval()


def _write(folder: Path, name: str, model: Any, x: Any, y: Any, about: dict[str, Any]) -> None:
    import torch

    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model,
        (torch.from_numpy(x[:2]),),
        folder / f"{name}.onnx",
        input_names=["input"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    np.savez(folder / f"{name}.npz", calib_x=x[1200:1328], eval_x=x[1328:], eval_y=y[1328:])
    (folder / f"{name}.json").write_text(json.dumps(about))
