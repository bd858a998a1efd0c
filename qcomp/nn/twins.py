"""What a hybrid model and its classical twin cost and withstand, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Costs", "costs_of", "fgsm"]

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Costs:
    """One compiled model.

    Attributes:
        parameters: Trained numbers of the module.
        macs: Multiplications with additions of its linear and convolution layers for one row.
        bytes: Size of the artifact's graphs and circuits.
        circuits: Name -> qubits, gates, gates on two qubits and depth, as compiled.
        seconds_per_batch: Processor seconds for all images given, median of three.
        accuracy: Percent, compiled.
        robust_accuracy: Percent on adversarial images, compiled.
        float_accuracy: Percent, the module itself.
        float_robust_accuracy: Percent on adversarial images, the module itself.
    """

    parameters: int
    macs: int
    bytes: int
    circuits: dict[str, dict[str, int]]
    seconds_per_batch: float
    accuracy: float
    robust_accuracy: float
    float_accuracy: float
    float_robust_accuracy: float


def fgsm(model: torch.nn.Module, images: Images, labels: Labels, epsilon: float) -> Images:
    """Return images moved by ``epsilon`` along the sign of the loss's gradient, within [0, 1].

    The fast gradient sign method of Goodfellow, Shlens, Szegedy, 2015, arXiv:1412.6572; through
    quantum layers by the adjoint method.

    Args:
        model: A classifier in evaluation mode.
        images: float32[B, ...] in [0, 1].
        labels: int64[B].
        epsilon: Largest change of a pixel.
    """
    pixels = torch.from_numpy(images).clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(pixels), torch.from_numpy(labels))
    (slope,) = torch.autograd.grad(loss, pixels)
    moved = (pixels.detach() + epsilon * slope.sign()).clamp(0, 1)
    return np.asarray(moved.numpy(), dtype=np.float32)


def costs_of(
    model: torch.nn.Module, artifact: Any, images: Images, labels: Labels, epsilon: float = 0.1
) -> Costs:
    """Return what a compiled classifier costs and how well it withstands an attack.

    The attack knows the float model: adversarial images are made with its gradients and then
    given to both it and the artifact.

    Args:
        model: The classifier that was compiled, in evaluation mode.
        artifact: What :func:`qcomp.compile` made of it.
        images: float32[B, ...] in [0, 1].
        labels: int64[B].
        epsilon: Largest change of a pixel.
    """
    attacked = fgsm(model, images, labels, epsilon)

    def percent(scores: NDArray[np.generic]) -> float:
        return 100 * float((np.asarray(scores).argmax(axis=1) == labels).mean())

    def of_module(data: Images) -> NDArray[np.generic]:
        with torch.no_grad():
            return np.asarray(model(torch.from_numpy(data)).numpy())

    clean = artifact(images)
    spent = []
    for _ in range(3):
        start = time.process_time()
        artifact(images)
        spent.append(time.process_time() - start)
    files = [f for f in Path(artifact.path).iterdir() if f.suffix in (".onnx", ".data", ".qasm")]
    circuits = {}
    for name, circuit in artifact.circuits.items():
        stats = circuit.stats()
        used = {q for _, qubits, _ in circuit.run.operations() for q in qubits}
        circuits[name] = {
            "qubits": len(used),
            "gates": stats.gates,
            "two_qubit": stats.two_qubit,
            "depth": stats.depth,
        }
    return Costs(
        sum(p.numel() for p in model.parameters()),
        _macs(model, images[:1]),
        sum(f.stat().st_size for f in files),
        circuits,
        float(np.median(spent)),
        percent(clean),
        percent(artifact(attacked)),
        percent(of_module(images)),
        percent(of_module(attacked)),
    )


def _macs(model: torch.nn.Module, row: Images) -> int:
    """Count the products of linear and convolution layers by watching one row go through."""
    total = 0

    def watch(layer: torch.nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal total
        weight: Any = layer.weight
        # Each output of a channel takes the products of one of the weight's channels.
        outputs = out.numel() // out.shape[1 if out.ndim > 2 else -1]
        total += outputs * weight.numel()

    hook: Callable[..., None] = watch
    handles = [
        layer.register_forward_hook(hook)
        for layer in model.modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d))
    ]
    with torch.no_grad():
        model(torch.from_numpy(row))
    for handle in handles:
        handle.remove()
    return total
