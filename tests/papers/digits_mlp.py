"""The digits MLP of several papers' tests: 64-128-128-10, trained here in a second, by seed."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import onnx

from tests.models import from_text

SEEDS = range(4)


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images for training and test, float32[n, 64] in [0, 1], and their labels: 60 to 40."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.data / 16.0).astype(np.float32)
    x, x_test, y, y_test = train_test_split(
        images, data.target, train_size=0.6, stratify=data.target, random_state=0
    )
    return x, x_test, y, y_test


@functools.cache
def _trained(seed: int) -> dict[str, np.ndarray]:
    import torch

    x, _, y, _ = (torch.from_numpy(array) for array in digits())
    torch.manual_seed(seed)
    widths = (64, 128, 128, 10)
    layers = [torch.nn.Linear(K, N) for K, N in itertools.pairwise(widths)]
    model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    adam = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(40):
        for rows in torch.randperm(len(x)).split(64):
            loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows].long())
            adam.zero_grad()
            loss.backward()
            adam.step()
    arrays = {f"w{i}": layer.weight.detach().numpy() for i, layer in enumerate(layers)}
    return arrays | {f"b{i}": layer.bias.detach().numpy() for i, layer in enumerate(layers)}


def mlp(seed: int) -> onnx.ModelProto:
    """``x`` float32[batch, 64] -> ``y`` float32[batch, 10], Gemm and Relu."""
    return from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        digits (float[batch, 64] x) => (float[batch, 10] y) {
            h0 = Gemm <transB: int = 1> (x, w0, b0)
            r0 = Relu (h0)
            h1 = Gemm <transB: int = 1> (r0, w1, b1)
            r1 = Relu (h1)
            y = Gemm <transB: int = 1> (r1, w2, b2)
        }""",
        **_trained(seed),
    )


def accuracy(scores: np.ndarray) -> float:
    """Top-1 on the test images in percent."""
    return 100.0 * float((scores.argmax(axis=1) == digits()[3]).mean())
