"""The digits CNN of several papers' tests: three convolutions, trained here in some seconds."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest

from tests.models import from_text
from tests.papers.digits_mlp import digits

__all__ = ["cnn", "images"]


def images(flat: np.ndarray) -> np.ndarray:
    """Digits as float32[n, 1, 8, 8]."""
    return flat.reshape(-1, 1, 8, 8)


@functools.cache
def _trained(seed: int) -> dict[str, np.ndarray]:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
    x, _, y, _ = digits()
    inputs, labels = torch.from_numpy(images(x)), torch.from_numpy(y)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, weight_decay=1e-4)
    rng = np.random.default_rng(seed)
    for _ in range(14):
        order = torch.from_numpy(rng.permutation(len(inputs)))
        for start in range(0, len(inputs), 32):
            rows = order[start : start + 32]
            loss = nn.functional.cross_entropy(net(inputs[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    weighted = [layer for layer in net if hasattr(layer, "weight")]
    return {
        f"{part}{i}": getattr(layer, name).detach().numpy()
        for i, layer in enumerate(weighted)
        for part, name in (("w", "weight"), ("b", "bias"))
    }


def cnn(seed: int) -> onnx.ModelProto:
    """``x`` float32[batch, 1, 8, 8] -> ``y`` float32[batch, 10]."""
    return from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        digits (float[batch, 1, 8, 8] x) => (float[batch, 10] y) {
            c0 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
            r0 = Relu (c0)
            c1 = Conv <pads = [1, 1, 1, 1]> (r0, w1, b1)
            r1 = Relu (c1)
            p1 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r1)
            c2 = Conv <pads = [1, 1, 1, 1]> (p1, w2, b2)
            r2 = Relu (c2)
            p2 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r2)
            f = Flatten (p2)
            y = Gemm <transB: int = 1> (f, w3, b3)
        }""",
        **_trained(seed),
    )
