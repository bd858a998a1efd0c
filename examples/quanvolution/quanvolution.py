"""A quanvolutional network of handwritten digits: trained, tuned for its precision, compiled, run.

    python examples/quanvolution/quanvolution.py out/quanvolution

A circuit of four qubits is swept over the 2 x 2 patches of an image and trained with the rest. All
patches of a batch are rows of that one circuit, and equal patches run once.
"""

import math
import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import qcomp
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import Quanvolution, finish_qat, prepare_qat

QUBITS, LAYERS = 4, 2


def circuit() -> Circuit:
    """Return the circuit of a patch: four pixels in, four expectation values out."""
    result = Circuit(QUBITS, name="patch")
    for q in range(QUBITS):
        result.ry(Parameter(f"x{q}"), q)
    for layer in range(LAYERS):
        for q in range(QUBITS):
            result.ry(Parameter(f"a{layer}_{q}"), q).rz(Parameter(f"b{layer}_{q}"), q)
        for q in range(QUBITS):
            result.cx(q, (q + 1) % QUBITS)
    return result


def network() -> torch.nn.Sequential:
    """Images [B, 1, 8, 8] -> scores of ten digits [B, 10]."""
    pairs = [f"Z{a}*Z{b}" for a in range(QUBITS) for b in range(a)]
    observables = [*(f"Z{q}" for q in range(QUBITS)), *pairs]
    return torch.nn.Sequential(
        Quanvolution(circuit(), [f"x{q}" for q in range(QUBITS)], 2, observables=observables),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * len(observables), 10),
    )


def train(model: torch.nn.Module, x: np.ndarray, y: np.ndarray, epochs: int, rate: float) -> None:
    """Train all weights, those of the circuit and those of the head."""
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1)
    steps = epochs * math.ceil(len(x) / 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main(out: str, epochs: int = 20) -> dict[str, float]:
    """Train, compile and judge; return accuracies on the digits held back."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = load_digits()
    x, x_test, y, y_test = train_test_split(
        (data.images / 16).astype(np.float32)[:, None],
        data.target.astype(np.int64),
        train_size=0.6,
        stratify=data.target,
        random_state=0,
    )
    model = network()
    train(model, x, y, epochs, 0.04)
    tuned = prepare_qat(model, bits=8, angle_step=math.pi / 16)  # few gates to synthesise
    train(tuned, x, y, max(1, epochs // 4), 0.01)
    tuned = finish_qat(tuned).eval()
    artifact = qcomp.compile(
        tuned,
        target="cpu-int8+ibm-heron",
        calibration={"input": x[:128]},
        example_inputs=torch.zeros(2, 1, 8, 8),
        out=out,
    )
    with torch.no_grad():
        scores = {"float": model(torch.from_numpy(x_test)).numpy()}
    scores["compiled"] = artifact(x_test)
    scores["compiled, 1000 shots"] = artifact(x_test, shots=1000)
    return {name: float((s.argmax(axis=1) == y_test).mean()) for name, s in scores.items()}


if __name__ == "__main__":
    print(main(sys.argv[1] if len(sys.argv) > 1 else "out/quanvolution"))
