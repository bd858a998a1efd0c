"""Optimizers of a loss over weights for circuits on devices: few evaluations, noise expected.

``cobyla`` is Powell's linear approximation (1994), from SciPy. ``aqgd`` is gradient descent with
momentum along gradients by parameter shift (Schuld et al., 2019, arXiv:1811.11184). ``spsa`` is
simultaneous perturbation (Spall, 1998, IEEE Trans. Aerosp. Electron. Syst. 34, 817) with the gains
recommended there. An epoch is one evaluation of the loss for COBYLA, one gradient for AQGD, and two
evaluations for SPSA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError, suggest

__all__ = ["OPTIMIZERS", "Course", "minimize", "train_layer"]

Vector = NDArray[np.float64]
Loss = Callable[[Vector], float]
Gradient = Callable[[Vector], Vector]


@dataclass
class Course:
    """What an optimizer did.

    Attributes:
        weights: The weights it ends with; those of the least loss seen for COBYLA.
        losses: The loss of each epoch, as far as the optimizer evaluates it.
        evaluations: How often the loss was evaluated.
        gradients: How often its gradient was.
    """

    weights: Vector
    losses: list[float] = field(default_factory=list)
    evaluations: int = 0
    gradients: int = 0


def minimize(
    optimizer: str,
    loss: Loss,
    start: ArrayLike,
    epochs: int,
    *,
    gradient: Gradient | None = None,
    rate: float = 0.1,
    momentum: float = 0.9,
    seed: int = 0,
) -> Course:
    """Minimise a loss.

    Args:
        optimizer: A name of ``OPTIMIZERS``.
        loss: Takes float64[W].
        start: First weights, float64[W].
        epochs: At least 1.
        gradient: Of the loss, float64[W]; ``aqgd`` needs it.
        rate: Step of ``aqgd``, first step of ``spsa``, first trust region of ``cobyla``.
        momentum: Of ``aqgd``, in [0, 1).
        seed: Of the directions of ``spsa``.

    Raises:
        UsageError: If an argument makes no sense.
    """
    if optimizer not in OPTIMIZERS:
        raise UsageError(
            f"there is no optimizer named '{optimizer}'", hint=suggest(optimizer, OPTIMIZERS)
        )
    if epochs < 1 or rate <= 0 or not 0 <= momentum < 1:
        raise UsageError("epochs and rate must be positive, momentum in [0, 1)")
    course = Course(np.array(start, dtype=np.float64))

    def counted(weights: Vector) -> float:
        course.evaluations += 1
        return float(loss(weights))

    if optimizer == "cobyla":
        _cobyla(counted, course, epochs, rate)
    elif optimizer == "spsa":
        _spsa(counted, course, epochs, rate, np.random.default_rng(seed))
    elif gradient is None:
        raise UsageError("'aqgd' needs the gradient of the loss")
    else:
        velocity = np.zeros_like(course.weights)
        for _ in range(epochs):
            course.gradients += 1
            velocity = momentum * velocity - rate * np.asarray(gradient(course.weights))
            course.weights = course.weights + velocity
    return course


def _cobyla(loss: Loss, course: Course, epochs: int, rate: float) -> None:
    from scipy.optimize import minimize as scipy_minimize

    seen: list[tuple[float, Vector]] = []

    def watched(weights: Vector) -> float:
        value = loss(weights)
        seen.append((value, weights.copy()))
        course.losses.append(value)
        return value

    options = {"maxiter": epochs, "rhobeg": rate}
    scipy_minimize(watched, course.weights, method="COBYLA", options=options)
    course.weights = min(seen, key=lambda pair: pair[0])[1]


def _spsa(loss: Loss, course: Course, epochs: int, rate: float, rng: np.random.Generator) -> None:
    """Spall's gains a / (k + 1 + A)^0.602 and c / (k + 1)^0.101; the first step is ``rate``."""
    calm, width = 0.1 * epochs, 0.1
    scale = None
    for k in range(epochs):
        span = width / (k + 1) ** 0.101
        side = rng.choice(np.array([-1.0, 1.0]), size=course.weights.shape)
        up, down = loss(course.weights + span * side), loss(course.weights - span * side)
        slope = (up - down) / (2 * span)
        if scale is None:
            scale = rate * (1 + calm) ** 0.602 / max(abs(slope), 1e-12)
        course.weights = course.weights - scale / (k + 1 + calm) ** 0.602 * slope * side
        course.losses.append((up + down) / 2)


OPTIMIZERS = ("cobyla", "aqgd", "spsa")
"""Names that :func:`minimize` takes."""


def train_layer(
    optimizer: str,
    layer: torch.nn.Module,
    loss: Callable[[], torch.Tensor],
    epochs: int,
    *,
    rate: float = 0.1,
    momentum: float = 0.9,
    seed: int = 0,
) -> Course:
    """Train all parameters of a module by one of the optimizers, in place.

    Args:
        optimizer: A name of ``OPTIMIZERS``.
        layer: Such as a :class:`~qcomp.nn.QuantumLayer` whose gradient is the parameter shift's.
        loss: Computes the loss with the module's present parameters.
        epochs: As of :func:`minimize`.
        rate: As of :func:`minimize`.
        momentum: As of :func:`minimize`.
        seed: As of :func:`minimize`.
    """
    parameters = list(layer.parameters())

    def put(weights: Vector) -> None:
        with torch.no_grad():
            flat = torch.from_numpy(weights)
            parts = flat.split([p.numel() for p in parameters])
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.copy_(part.view_as(parameter))

    def value(weights: Vector) -> float:
        put(weights)
        with torch.no_grad():
            return float(loss())

    def gradient(weights: Vector) -> Vector:
        put(weights)
        found = torch.autograd.grad(loss(), parameters)
        return np.concatenate([part.double().numpy().ravel() for part in found])

    start = np.concatenate([p.detach().double().numpy().ravel() for p in parameters])
    course = minimize(
        optimizer,
        value,
        start,
        epochs,
        gradient=gradient,
        rate=rate,
        momentum=momentum,
        seed=seed,
    )
    put(course.weights)
    return course
