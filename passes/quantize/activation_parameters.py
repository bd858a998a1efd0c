"""Scale and zero point of an activation as a machine wants them.

| machine               | scale                                 | zero point               |
|-----------------------|---------------------------------------|--------------------------|
| asymmetric            | (high - low) / (max - min)            | round(min - low / scale) |
| symmetric, signed     | max(-low, high) / max                 | 0                        |
| symmetric, unsigned   | 2 max(-low, high) / max               | (max + 1) / 2            |
| powers of two         | the next power of two from there on   | as above                 |

with [low, high] widened to hold 0. Source: ONNX Runtime, "Quantize ONNX models"; Krishnamoorthi
2018, arXiv:1806.08342, section 2; powers of two: Jain et al. 2019, arXiv:1903.08066, section 3.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qcomp.errors import UsageError
from qcomp.integer_rules import IntegerRules
from qcomp.passes.quantize.arithmetic import Affine, Floats, affine_parameters
from qcomp.passes.quantize.integer_types import INT8_FULL, INT16, UINT8, UINT16, IntegerType
from qcomp.quantization import TensorStatistics

__all__ = ["activation_parameters", "activation_type", "next_power_of_two", "seven_bits"]

_TYPES = {"u8": UINT8, "s8": INT8_FULL, "u16": UINT16, "s16": INT16}
_SEVEN_BITS = 127
_SLACK = 1e-6
"""A scale this much above a power of two counts as that power: float32 cannot tell."""


def activation_type(machine: IntegerRules) -> IntegerType:
    """The integer type of activations.

    Raises:
        UsageError: The machine takes 8-bit floats.
    """
    if machine.activation not in _TYPES:
        raise UsageError(
            f"activations of this target are {machine.activation}, no integers",
            hint="'quantize-fp8' rounds to 8-bit floats",
        )
    return _TYPES[machine.activation]


def next_power_of_two(scale: Floats) -> Floats:
    """The powers of two from the scales on, float32; of 0.3 it is 0.5, of 0.5 it is 0.5."""
    exponents = np.ceil(np.log2(np.asarray(scale, np.float64)) - _SLACK)
    return np.asarray(np.exp2(exponents), np.float32)


def activation_parameters(low: float, high: float, machine: IntegerRules) -> Affine:
    """Return scale and zero point for values in [low, high].

    Args:
        low: Least value, finite.
        high: Largest value, finite, not below ``low``.
        machine: Type and form of activations.
    """
    kind = activation_type(machine)
    if machine.symmetric:
        peak = max(-float(low), float(high), 0.0)
        low, high = -peak, peak
    affine = affine_parameters(low, high, kind)
    if machine.symmetric:
        peak = high / kind.max if kind.signed else 2.0 * high / kind.max
        scale = np.float32(max(peak, float(np.finfo(np.float32).tiny))) if peak else np.float32(1.0)
        affine = Affine(float(scale), 0 if kind.signed else (kind.max + 1) // 2, kind)
    if not machine.power_of_two:
        return affine
    scale = np.float32(next_power_of_two(np.asarray(affine.scale, np.float32)))
    return replace(affine, scale=float(scale))


def seven_bits(statistics: TensorStatistics) -> TensorStatistics:
    """Ranges of u8 whose lower 128 levels are the ranges that were measured."""
    ranges = {}
    for name, found in statistics.ranges.items():
        low, high = min(found.low, 0.0), max(found.high, 0.0)
        ranges[name] = replace(found, low=low, high=low + (high - low) * UINT8.max / _SEVEN_BITS)
    return replace(statistics, ranges=ranges)
