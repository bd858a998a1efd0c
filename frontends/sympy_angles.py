"""Angles that are sympy expressions, as pytket and Cirq have them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qcomp.errors import SourceError
from qcomp.ir.angle import Angle

__all__ = ["angle_of", "is_symbolic", "turns"]


def is_symbolic(value: object) -> bool:
    """Whether a value is a sympy expression with free symbols."""
    return bool(getattr(value, "free_symbols", None))


def turns(value: Any, names: Mapping[str, str], where: str) -> Angle:  # noqa: ANN401
    """Return the angle of a number of half turns, see :func:`angle_of`."""
    if not is_symbolic(value):
        return Angle.of(float(value) * math.pi)
    import sympy

    return angle_of(sympy.expand(value * sympy.pi), names, where)


def angle_of(value: Any, names: Mapping[str, str], where: str) -> Angle:  # noqa: ANN401
    """Return the angle of a number or a sympy expression in radians.

    Args:
        value: The angle.
        names: Symbol -> the circuit's parameter.
        where: The circuit, for messages.

    Raises:
        SourceError: If the expression is not affine in its symbols, or not real.
    """
    if not is_symbolic(value):
        return Angle.of(float(value))
    angle = _number(value.subs(dict.fromkeys(value.free_symbols, 0)), value, where)
    for symbol in sorted(value.free_symbols, key=lambda symbol: str(symbol.name)):
        slope = value.diff(symbol)
        if slope.free_symbols:
            raise SourceError(
                f"the angle {value} is not affine in the parameter '{symbol.name}'",
                where=where,
                hint="make the expression a parameter of its own and compute it outside",
            )
        coefficient = float(_number(slope, value, where))
        angle += Angle(0, 0.0, ((names[symbol.name], coefficient),))
    return angle


def _number(value: Any, whole: object, where: str) -> Angle:  # noqa: ANN401
    number = complex(value)
    if number.imag or not math.isfinite(number.real):
        raise SourceError(f"the angle {whole} is not a real number", where=where)
    return Angle.of(number.real)
