"""Train tree tensor networks on five pairs of digits, and a chain on one: ``tensor.npz``."""

from pathlib import Path

import numpy as np
import torch
from images import digits

from qcomp.nn.zoo import TensorNetworkClassifier

PAIRS = ((0, 1), (3, 5), (4, 9), (1, 7), (3, 8))
STEPS, RATE = 120, 0.08


def pixels(images: torch.Tensor) -> torch.Tensor:
    """Images [n, 8, 8] as rows of 64 pixels: squares of 2 x 2 beside one another, and so on."""
    return images.reshape(-1, 2, 2, 2, 2, 2, 2).permute(0, 1, 4, 2, 5, 3, 6).flatten(1)


def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images on the right side of one half."""
    with torch.no_grad():
        return float(((model(pixels(images)) > 0.5) == labels.bool()).float().mean())


def train(pair: tuple[int, int], shape: str) -> tuple[TensorNetworkClassifier, float]:
    """Adam on the cross entropy of all training images; the model and its test accuracy."""
    torch.manual_seed(0)
    model = TensorNetworkClassifier(64, shape)
    x, y, x_test, y_test = digits(*pair)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        chance = model(pixels(x)).clamp(1e-6, 1 - 1e-6)
        loss = torch.nn.functional.binary_cross_entropy(chance, y.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval(), accuracy(model, x_test, y_test)


def main() -> None:
    torch.set_num_threads(1)
    weights, found = {}, []
    for pair, shape in (*((pair, "tree") for pair in PAIRS), (PAIRS[0], "chain")):
        model, right = train(pair, shape)
        found.append(right)
        weights[f"{shape}/{pair[0]}{pair[1]}"] = model.weight.detach().numpy()
        print(f"{shape} {pair}: {right:.2%}")
    print(f"mean of the trees: {np.mean(found[: len(PAIRS)]):.4f}")
    np.savez_compressed(Path(__file__).parent / "tensor.npz", **weights)


if __name__ == "__main__":
    main()
