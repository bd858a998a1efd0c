"""Train the QCNN on 0 against 1, digits and MNIST, with and without shifts: ``qcnn.npz``."""

import sys
from pathlib import Path

import numpy as np
import torch
from images import digits, mnist, resized, shifted

from qcomp.nn.zoo import QCNN

QUBITS, SIDE, STEPS, BATCH, STARTS = 8, 16, 160, 64, 3


def amplitudes(images: torch.Tensor) -> torch.Tensor:
    """Images as rows of 256 amplitudes, not yet normalised."""
    return resized(images, SIDE).flatten(1)


def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images on the right side of one half."""
    with torch.no_grad():
        return float(((model(amplitudes(images)) > 0.5) == labels.bool()).float().mean())


def loss_of(model: QCNN, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The cross entropy."""
    chance = model(amplitudes(images)).clamp(1e-6, 1 - 1e-6)
    return torch.nn.functional.binary_cross_entropy(chance, labels.float())


def train(x: torch.Tensor, y: torch.Tensor, augment: bool, seed: int) -> QCNN:
    """Adam on the cross entropy; with ``augment`` every batch is shifted anew."""
    torch.manual_seed(seed)
    model = QCNN(QUBITS)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS)
    draws = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=draws)
        images = shifted(x[rows], draws) if augment else x[rows]
        loss = loss_of(model, images, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def main(mnist_folder: str) -> None:
    torch.set_num_threads(1)
    weights = {}
    for name, data in (("digits", digits()), ("mnist", mnist(Path(mnist_folder)))):
        x, y, x_test, y_test = data
        for augment in (False, True):
            starts = [train(x, y, augment, seed) for seed in range(STARTS)]
            with torch.no_grad():
                model = min(starts, key=lambda m: float(loss_of(m, x, y)))
            key = f"{name}/{'shifted' if augment else 'plain'}"
            weights[key] = model.weight.detach().numpy()
            print(f"{key}: {accuracy(model, x_test, y_test):.2%} of {len(y_test)} test images")
    np.savez_compressed(Path(__file__).parent / "qcnn.npz", **weights)


if __name__ == "__main__":
    main(sys.argv[1])
