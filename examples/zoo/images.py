"""Images for the zoo: digits of scikit-learn (8 x 8), and MNIST where its files are."""

import gzip
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Split = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def digits(first: int = 0, second: int = 1) -> Split:
    """Images [n, 8, 8] in [0, 1] and labels 0 or 1 of two digits: training, test."""
    data = load_digits()
    x, x_test, y, y_test = train_test_split(
        (data.images / 16).astype(np.float32), data.target,
        train_size=0.6, stratify=data.target, random_state=0,
    )  # fmt: skip
    return _pair(x, y, x_test, y_test, first, second)


def mnist(folder: Path, first: int = 0, second: int = 1) -> Split:
    """The same of 10,000 MNIST images [n, 28, 28]: the first 2,000 train, the next 2,000 test."""
    with gzip.open(folder / "mnist-images-idx3.gz") as file:
        images = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 28, 28)
    with gzip.open(folder / "mnist-labels-idx1.gz") as file:
        labels = np.frombuffer(file.read()[8:], np.uint8)
    images = images[:4000].astype(np.float32) / 255
    return _pair(images[:2000], labels[:2000], images[2000:], labels[2000:4000], first, second)


def _pair(x, y, x_test, y_test, first: int, second: int) -> Split:
    out = []
    for images, labels in ((x, y), (x_test, y_test)):
        keep = (labels == first) | (labels == second)
        out += [torch.from_numpy(images[keep]), torch.from_numpy((labels[keep] == second) * 1)]
    return tuple(out)


def resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """Images [n, side, side], bilinear, antialiased where they shrink."""
    return torch.nn.functional.interpolate(
        images[:, None], (side, side), mode="bilinear", antialias=True
    )[:, 0]


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by -1, 0 or 1 pixel either way, zeros coming in."""
    height, width = images.shape[1:]
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(images), 2), generator=generator).tolist()
    cut = [p[a : a + height, b : b + width] for p, (a, b) in zip(padded, moves, strict=True)]
    return torch.stack(cut)
