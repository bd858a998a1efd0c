"""Quantization-aware fine-tuning: train under the precision that the model is compiled to.

What the compiler rounds is rounded in ``forward`` already, and the gradient goes straight through
(Bengio, Leonard, Courville, 2013, arXiv:1308.3432; Krishnamoorthi, 2018, arXiv:1806.08342):

* weights of linear and convolution layers, symmetric with a scale for each output channel, on the
  grids of ``quantize-static``: ``s = max |w| / (2^(bits-1) - 1)``, with 3 bits and 2 the value
  farthest from 0 over ``-2^(bits-1)``;
* their inputs, asymmetric with a scale for the tensor, over a running range;
* weights of quantum layers, so that every angle they make is a multiple of a step. Multiples of
  pi / 4 are Clifford+T exactly; pi / 2^k takes few gates to synthesise.
"""

from __future__ import annotations

import copy
import math
from typing import Any, TypeVar

import torch
from torch.nn.utils import parametrize

from qcomp.errors import UsageError
from qcomp.nn.layer import QuantumLayer

__all__ = ["angle_step_of_error", "finish_qat", "prepare_qat"]

Module = TypeVar("Module", bound=torch.nn.Module)

_MOMENTUM = 0.05
"""How much a batch moves the running range of activations."""

_RANGE = "qat_input_range"


def prepare_qat(
    module: Module,
    *,
    bits: int | None = 8,
    activation_bits: int | None = 8,
    angle_step: float | None = None,
) -> Module:
    """Return a copy of a trained module that computes with rounded numbers and can be trained.

    Args:
        module: Any module; its ``Linear``, ``Conv1d`` to ``Conv3d`` and :class:`QuantumLayer`.
        bits: Of classical weights, 2 to 8; None leaves them in float.
        activation_bits: Of what goes into classical layers, 2 to 8; None leaves it in float.
        angle_step: Radians of which the angles of quantum layers become multiples, as far as they
            come from weights; None leaves them. :func:`angle_step_of_error` gives the step of an
            error budget.

    Raises:
        UsageError: If an option is out of range, a weight makes angles that cannot all be
            multiples of the step, or nothing is there to be rounded.
    """
    for name, value in (("bits", bits), ("activation_bits", activation_bits)):
        if value is not None and not 2 <= value <= 8:
            raise UsageError(f"{name} is {value}", hint="2 to 8, or None for float")
    if angle_step is not None and not 0 < angle_step <= math.pi:
        raise UsageError(f"angle_step is {angle_step}", hint="such as math.pi / 16")
    result = copy.deepcopy(module)
    found = 0
    for part in list(result.modules()):
        if isinstance(part, QuantumLayer) and angle_step is not None and part.weight.numel():
            rounded = _RoundedAngles(_weight_steps(part, angle_step))
            parametrize.register_parametrization(part, "weight", rounded)
            found += 1
        elif isinstance(part, (torch.nn.Linear, torch.nn.modules.conv._ConvNd)):
            if bits is not None:
                parametrize.register_parametrization(part, "weight", _RoundedWeight(bits, part))
            if activation_bits is not None:
                part.add_module(_RANGE, _InputRange(activation_bits))
                part.register_forward_pre_hook(_round_input)
            found += bits is not None or activation_bits is not None
    if not found:
        raise UsageError(
            f"nothing in {type(module).__name__} is rounded",
            hint="QAT rounds Linear, Conv and QuantumLayer; give bits or angle_step",
        )
    return result


def finish_qat(module: Module) -> Module:
    """Return a copy with the rounded weights and angles for good, to be exported and compiled.

    Args:
        module: What :func:`prepare_qat` returned, after training.
    """
    result = copy.deepcopy(module)
    for part in list(result.modules()):
        if parametrize.is_parametrized(part, "weight"):
            # remove_parametrizations would take the weight from what was copied, too: the two
            # modules share the class that computes it.
            weight: Any = part.weight
            del part._modules["parametrizations"]
            part.__class__ = parametrize.type_before_parametrizations(part)
            part.register_parameter("weight", torch.nn.Parameter(weight.detach().clone()))
        if _RANGE in part._modules:
            del part._modules[_RANGE]
            for key, hook in list(part._forward_pre_hooks.items()):
                if hook is _round_input:
                    del part._forward_pre_hooks[key]
    return result


def angle_step_of_error(error: float) -> float:
    """Return the largest pi / 2^k whose multiples are near enough to any angle.

    Rounding a rotation's angle by d changes it by ``2 sin(|d| / 4)`` in operator norm, and d is at
    most half a step.

    Args:
        error: Operator norm that a rotation may be off by.

    Raises:
        UsageError: If it is not positive.
    """
    if not error > 0:
        raise UsageError(f"the error of a rotation must be positive, not {error}")
    widest = 8 * math.asin(min(error / 2, 1.0))
    return math.pi / 2 ** max(0, math.ceil(math.log2(math.pi / widest)))


def _weight_steps(layer: QuantumLayer, step: float) -> torch.Tensor:
    """Return a step for each weight that makes all its angles multiples of ``step``, [W]."""
    circuit = layer.circuit
    used = sorted({int(form) for run in circuit.runs() for form in run.form if form >= 0})
    first = len(layer.input_names)
    steps = []
    for column, name in enumerate(layer.weight_names, start=first):
        factors = [abs(c) for form in used for p, c in circuit.forms.row(form) if p == column]
        least = min(factors, default=1.0)
        if any(abs(c / least - round(c / least)) > 1e-9 for c in factors):
            raise UsageError(
                f"the angles of weight '{name}' cannot all be multiples of one step",
                why=f"it enters them with the factors {sorted(set(factors))}",
                hint="leave angle_step out, or use whole multiples of one factor",
            )
        steps.append(step / least)
    return torch.tensor(steps, dtype=layer.weight.dtype)


class _RoundedAngles(torch.nn.Module):
    """Multiples of a step for each weight; the gradient is that of the identity."""

    def __init__(self, steps: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("steps", steps)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        steps: Any = self.steps
        return weight + (torch.round(weight / steps) * steps - weight).detach()


class _RoundedWeight(torch.nn.Module):
    """Symmetric integers with a scale for each output channel: the grids of ``quantize-static``."""

    def __init__(self, bits: int, layer: torch.nn.Module) -> None:
        super().__init__()
        self.bits = bits
        transposed = bool(getattr(layer, "transposed", False))
        self.axis = 1 if transposed and getattr(layer, "groups", 1) == 1 else 0

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            shape = [1] * weight.ndim
            shape[self.axis] = -1
            rows = weight.movedim(self.axis, 0).flatten(1)
            half = 2 ** (self.bits - 1)
            if self.bits <= 3:  # the value farthest from 0 takes the lowest integer
                peak = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
                scale, low = -peak / half, -half
            else:
                scale, low = rows.abs().amax(dim=1, keepdim=True) / (half - 1), 1 - half
            scale = torch.where(scale == 0, 1.0, scale).reshape(shape)
            rounded = torch.clamp(torch.round(weight / scale), low, half - 1) * scale
        return weight + (rounded - weight).detach()


class _InputRange(torch.nn.Module):
    """Asymmetric integers over a range that follows the training batches and holds 0."""

    low: torch.Tensor
    high: torch.Tensor
    seen: torch.Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.top = 2**bits - 1
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        if self.training or not self.seen:
            low, high = torch.aminmax(data.detach())
            rate = _MOMENTUM if self.seen else 1.0
            self.low.lerp_(low.clamp(max=0).to(self.low.dtype), rate)
            self.high.lerp_(high.clamp(min=0).to(self.high.dtype), rate)
            self.seen.fill_(True)
        scale = float(self.high - self.low) / self.top or 1.0
        zero = round(-float(self.low) / scale)
        return torch.fake_quantize_per_tensor_affine(data, scale, zero, 0, self.top)


def _round_input(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    observer: Any = getattr(module, _RANGE)
    return (observer(inputs[0]), *inputs[1:])
