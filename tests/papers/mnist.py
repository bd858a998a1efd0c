"""MNIST from the shared folder, which stands in for Fashion-MNIST: 2,000 training, 1,000 test."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

TRAIN, TEST = 2000, 1000


def mnist(shared: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training and test images float32[n, 1, 28, 28] in [0, 1], and their labels.

    Args:
        shared: The shared folder.
    """
    with gzip.open(shared / "data" / "mnist-images-idx3.gz") as file:
        raw = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 1, 28, 28)
    with gzip.open(shared / "data" / "mnist-labels-idx1.gz") as file:
        labels = np.frombuffer(file.read()[8:], np.uint8).astype(np.int64)
    images = raw[: TRAIN + TEST].astype(np.float32) / 255
    return images[:TRAIN], images[TRAIN:], labels[:TRAIN], labels[TRAIN : TRAIN + TEST]
