"""The re-uploading classifier of S001 on digits, and the script that trains it.

``python -m tests.papers.make_s001`` writes ``tests/data/s001_weights.npz`` in a minute.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from qcomp.constructions.encodings import image_hamiltonian

WEIGHTS = Path(__file__).parent.parent / "data" / "s001_weights.npz"
QUBITS = 4
LAYERS = 6
CLASSES = 10
STEPS = 1500


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return images [n, 8, 8] in [0, 1] for training and test (1,078 and 719), and labels."""
    data = load_digits()
    found = train_test_split(
        data.images / 16.0, data.target, train_size=0.6, stratify=data.target, random_state=0
    )
    return found[0], found[1], found[2], found[3]


class Classifier(torch.nn.Module):
    """``prod_l W_l exp(i t_l H(x)) |0>``; class c has the probability of basis state c.

    W_l is any unitary: the exponential of an anti-Hermitian matrix.
    """

    def __init__(self) -> None:
        super().__init__()
        size = 1 << QUBITS
        self.generators = torch.nn.Parameter(torch.randn(LAYERS, 2, size, size).double() * 0.3)
        self.times = torch.nn.Parameter(torch.ones(LAYERS).double())
        self.scale = torch.nn.Parameter(torch.tensor(10.0).double())

    def unitaries(self) -> torch.Tensor:
        """Return W_l, complex128[layers, 16, 16]."""
        real, imag = self.generators.unbind(1)
        anti = torch.complex(real - real.mT, imag + imag.mT)
        return torch.linalg.matrix_exp(anti / 2)

    def probabilities(self, values: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Return the distribution, float64[B, 16], of Hamiltonians given by their eigensystems."""
        size = 1 << QUBITS
        state = torch.zeros(len(values), size, dtype=torch.complex128)
        state[:, 0] = 1.0
        vectors = vectors.to(torch.complex128)
        for time, unitary in zip(self.times, self.unitaries(), strict=True):
            inner = torch.einsum("bij,bi->bj", vectors, state) * torch.exp(1j * time * values)
            state = torch.einsum("bij,bj->bi", vectors, inner) @ unitary.mT
        return state.abs() ** 2

    def forward(self, values: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.scale * self.probabilities(values, vectors)[:, :CLASSES]


def eigensystems(images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues and eigenvectors of H(x)."""
    values, vectors = np.linalg.eigh(image_hamiltonian(images, QUBITS))
    return torch.from_numpy(values), torch.from_numpy(vectors)


def stored() -> Classifier:
    """Return the trained classifier."""
    model = Classifier()
    with np.load(WEIGHTS) as arrays:
        model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays})
    return model


def main() -> None:
    """Train it, write its weights, print its accuracies."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, x_test, y, y_test = digits()
    given, unseen = eigensystems(x), eigensystems(x_test)
    labels = torch.from_numpy(y)
    model = Classifier()
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
    for step in range(STEPS):
        loss = torch.nn.functional.cross_entropy(model(*given), labels, label_smoothing=0.05)
        adam.zero_grad()
        loss.backward()
        adam.step()
        rate.step()
        if step % 100 == 99:
            with torch.no_grad():
                right = (model(*unseen).argmax(dim=1).numpy() == y_test).mean()
            print(f"step {step + 1}: loss {loss.item():.3f}, test {right:.4f}", flush=True)
    np.savez_compressed(WEIGHTS, **{n: v.numpy() for n, v in model.state_dict().items()})


if __name__ == "__main__":
    main()
