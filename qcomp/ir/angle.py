"""Angles: an exact dyadic fraction of pi, plus a float remainder, plus an affine form.

The exact part is an integer in units of ``pi / 2**60``, taken modulo ``4 pi`` (the period of every
rotation, global phase included), so ``T + T = S`` holds exactly and sums never round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError

__all__ = [
    "FULL_TURN",
    "PI",
    "UNIT",
    "Angle",
    "AngleLike",
    "Parameter",
    "pi_fraction",
    "radians",
    "snap",
    "snap_array",
    "wrap",
    "wrap_int",
]

PI = 1 << 60
"""The integer that stands for pi."""

FULL_TURN = 1 << 62
"""The integer that stands for 4 pi, the modulus."""

UNIT = math.pi / PI
"""Radians of one unit."""

SNAP_BITS = 20
"""A float that is the nearest double to ``k pi / 2**20`` is taken for that fraction."""

_SNAP_STEP = PI >> SNAP_BITS


def wrap(frac: NDArray[np.int64]) -> NDArray[np.int64]:
    """Reduce units of pi / 2**60 into [-2**61, 2**61), that is [-2 pi, 2 pi).

    Args:
        frac: int64 array; sums that overflowed 64 bits stay right, 2**64 being a multiple.
    """
    result: NDArray[np.int64] = ((frac + (FULL_TURN >> 1)) & (FULL_TURN - 1)) - (FULL_TURN >> 1)
    return result


def wrap_int(frac: int) -> int:
    """Reduce one number of units like :func:`wrap`."""
    return ((frac + (FULL_TURN >> 1)) & (FULL_TURN - 1)) - (FULL_TURN >> 1)


def snap(value: float) -> tuple[int, float]:
    """Split a float into (exact units, remainder in radians).

    The float is taken for the fraction ``k pi / 2**20`` when it is the double nearest to it.
    """
    frac, rem = _split(value)
    return wrap_int(frac), rem


def _split(value: float) -> tuple[int, float]:
    """Split like :func:`snap`, the exact part not reduced."""
    if abs(value) <= 64.0:
        k = round(value * (1 << SNAP_BITS) / math.pi)
        if k * math.pi / (1 << SNAP_BITS) == value:
            return k * _SNAP_STEP, 0.0
    return 0, value


def snap_array(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Split floats like :func:`snap`: (int64 units, float64 remainders), shapes as ``values``."""
    small = np.abs(values) <= 64.0
    k = np.rint(np.where(small, values, 0.0) * (1 << SNAP_BITS) / math.pi)
    exact = small & (k * math.pi / (1 << SNAP_BITS) == values)
    frac = np.where(exact, wrap(k.astype(np.int64) * _SNAP_STEP), 0)
    return frac, np.where(exact, 0.0, values)


def radians(frac: int) -> float:
    """Return units of pi / 2**60 as radians, rounded once where the fraction is dyadic."""
    if frac % _SNAP_STEP == 0:
        return (frac // _SNAP_STEP) * math.pi / (1 << SNAP_BITS)
    return frac * UNIT


@dataclass(frozen=True, slots=True, eq=False)
class Angle:
    """An angle, a value: ``frac pi/2**60 + rem + sum coef * parameter``.

    Attributes:
        frac: Exact part in units of pi / 2**60. Not reduced modulo 4 pi, so that ``3 pi / 2`` is
            what it says; circuits store it reduced, and angles that differ by 4 pi are equal.
        rem: Float part, radians.
        terms: (parameter name, coefficient) pairs, sorted by name, no zero coefficients.
    """

    frac: int = 0
    rem: float = 0.0
    terms: tuple[tuple[str, float], ...] = ()

    @staticmethod
    def of(value: AngleLike) -> Angle:
        """Return the angle of a number or an angle.

        Raises:
            UsageError: If the value is not finite or not a number.
        """
        if isinstance(value, Angle):
            return value
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise UsageError(
                f"{value!r} is not an angle", hint="give a number in radians or a Parameter"
            ) from None
        if not math.isfinite(number):
            raise UsageError(f"an angle must be finite, not {number}")
        return Angle(*_split(number))

    @property
    def is_zero(self) -> bool:
        """Whether the angle is exactly 0 (modulo 4 pi)."""
        return wrap_int(self.frac) == 0 and self.rem == 0.0 and not self.terms

    def __eq__(self, other: object) -> bool:
        """Compare modulo 4 pi; a number is never equal to an angle."""
        if not isinstance(other, Angle):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        """Hash what is compared."""
        return hash(self._key())

    def _key(self) -> tuple[int, float, tuple[tuple[str, float], ...]]:
        return wrap_int(self.frac), self.rem, self.terms

    @property
    def is_constant(self) -> bool:
        """Whether the angle has no parameters."""
        return not self.terms

    def bind(self, values: Mapping[str, float]) -> Angle:
        """Return the angle with the named parameters replaced by numbers."""
        left = tuple((name, coef) for name, coef in self.terms if name not in values)
        moved = sum(coef * float(values[name]) for name, coef in self.terms if name in values)
        result = Angle(self.frac, self.rem, left)
        return result + moved if len(left) < len(self.terms) else result

    def __float__(self) -> float:
        """Return radians.

        Raises:
            UsageError: If the angle has free parameters.
        """
        if self.terms:
            raise UsageError(f"the angle {self} has free parameters", hint="bind them first")
        return radians(self.frac) + self.rem

    def __add__(self, other: AngleLike) -> Angle:
        """Add exactly, parameter by parameter."""
        that = Angle.of(other)
        coefs = dict(self.terms)
        for name, coef in that.terms:
            coefs[name] = coefs.get(name, 0.0) + coef
        terms = tuple(sorted((name, coef) for name, coef in coefs.items() if coef))
        return Angle(self.frac + that.frac, self.rem + that.rem, terms)

    __radd__ = __add__

    def __neg__(self) -> Angle:
        """Return the opposite angle."""
        return Angle(-self.frac, -self.rem, tuple((n, -c) for n, c in self.terms))

    def __sub__(self, other: AngleLike) -> Angle:
        """Subtract exactly."""
        return self + (-Angle.of(other))

    def __rsub__(self, other: AngleLike) -> Angle:
        """Subtract exactly."""
        return Angle.of(other) + (-self)

    def __mul__(self, factor: AngleLike) -> Angle:
        """Multiply by a number; exact when the result is a whole number of units.

        Raises:
            UsageError: If both factors have parameters: the product is not affine.
        """
        if isinstance(factor, Angle):
            if factor.terms and self.terms:
                raise UsageError(
                    f"({self}) * ({factor}) is not affine in the parameters",
                    hint="compute the product outside and pass it as one parameter",
                )
            if factor.terms:
                return factor * float(self)
            factor = float(factor)
        factor = float(factor)
        terms = tuple((n, c * factor) for n, c in self.terms if c * factor)
        if not factor:
            return Angle()
        numerator, denominator = factor.as_integer_ratio()
        if (self.frac * numerator) % denominator == 0:
            return Angle(self.frac * numerator // denominator, self.rem * factor, terms)
        return Angle(0, radians(self.frac) * factor + self.rem * factor, terms)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Angle:
        """Divide by a number."""
        if not divisor:
            raise UsageError("an angle cannot be divided by zero")
        divisor = float(divisor)
        terms = tuple((n, c / divisor) for n, c in self.terms)
        if divisor.is_integer() and self.frac % int(divisor) == 0:
            return Angle(self.frac // int(divisor), self.rem / divisor, terms)
        return Angle(0, (radians(self.frac) + self.rem) / divisor, terms)

    def __str__(self) -> str:
        """Return the angle as an OpenQASM 3 expression, exact where the angle is."""
        parts = [name if c == 1 else f"-{name}" if c == -1 else f"{c!r}*{name}"
                 for name, c in self.terms]  # fmt: skip
        if self.frac:
            parts.append(pi_text(self.frac))
        if self.rem or not parts:
            parts.append(repr(self.rem))
        return " + ".join(parts).replace("+ -", "- ")


AngleLike = Angle | float | int


def pi_text(frac: int) -> str:
    """Return units of pi / 2**60 as text such as ``-3*pi/8``; ``0`` for none."""
    if not frac:
        return "0"
    shift = min((frac & -frac).bit_length() - 1, 60)
    numerator, denominator = frac >> shift, 1 << (60 - shift)
    head = {1: "pi", -1: "-pi"}.get(numerator, f"{numerator}*pi")
    return head if denominator == 1 else f"{head}/{denominator}"


def pi_fraction(numerator: int, denominator: int = 1) -> Angle:
    """Return ``numerator * pi / denominator``, exact for a power-of-two denominator.

    Raises:
        UsageError: If the denominator is zero.
    """
    if not denominator:
        raise UsageError("the denominator of a fraction of pi is zero")
    if (PI * numerator) % denominator == 0:
        return Angle(PI * numerator // denominator)
    return Angle.of(numerator * math.pi / denominator)


def Parameter(name: str) -> Angle:  # noqa: N802  reads as the type it stands for
    """Return a free parameter as an angle, so that ``2 * x + 0.5`` is affine in it.

    Raises:
        UsageError: If the name is no identifier.
    """
    if not name.isidentifier():
        raise UsageError(f"{name!r} is no parameter name", hint="use letters, digits and _")
    return Angle(0, 0.0, ((name, 1.0),))
