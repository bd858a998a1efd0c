"""Two-qubit blocks with free angles: all of SU(4) with three CX, all of SO(4) with two.

``su4`` is the canonical form ``(A x B) exp(i (a XX + b YY + c ZZ)) (C x D)`` with the circuit of
Vatan and Williams, 2004, quant-ph/0308006 (figure 6); ``so4`` its real case: ``M+ (A x B) M`` with
the magic basis M (figure 3 there). Angles may be parameters, so a block that is used many times
keeps one parameter for each weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

from qcomp.errors import UsageError
from qcomp.ir.angle import Angle, AngleLike
from qcomp.ir.circuit import Circuit

__all__ = ["SO4_ANGLES", "SU4_ANGLES", "canonical", "so4", "su4"]

SU4_ANGLES = 15
"""Angles of :func:`su4`."""

SO4_ANGLES = 6
"""Angles of :func:`so4`."""


def canonical(builder: Circuit, angles: Sequence[AngleLike], first: int, second: int) -> None:
    """Append ``exp(i (a XX + b YY + c ZZ))``, global phase included; three CX.

    Args:
        builder: Circuit that is appended to.
        angles: a, b, c.
        first: One qubit.
        second: The other.

    Raises:
        UsageError: If there are not three angles.
    """
    a, b, c = (Angle.of(angle) for angle in _counted("canonical", angles, 3))
    builder.rz(-pi / 2, second).cx(second, first)
    builder.rz(c * -2.0 - pi / 2, first).ry(a * 2.0 + pi / 2, second)
    builder.cx(first, second).ry(b * -2.0 - pi / 2, second).cx(second, first)
    builder.rz(pi / 2, first).gphase(-pi / 4)


def su4(builder: Circuit, angles: Sequence[AngleLike], first: int, second: int) -> None:
    """Append any unitary of two qubits up to its phase; 15 angles, three CX.

    Args:
        builder: Circuit that is appended to.
        angles: Three Euler angles RZ RY RZ of ``first`` and of ``second``, then a, b, c of
            :func:`canonical`, then three and three again.
        first: One qubit.
        second: The other.

    Raises:
        UsageError: If there are not 15 angles.
    """
    w = _counted("su4", angles, SU4_ANGLES)
    _euler(builder, w[0:3], first)
    _euler(builder, w[3:6], second)
    canonical(builder, w[6:9], first, second)
    _euler(builder, w[9:12], first)
    _euler(builder, w[12:15], second)


def so4(builder: Circuit, angles: Sequence[AngleLike], first: int, second: int) -> None:
    """Append any real orthogonal matrix of determinant 1; 6 angles, two CX.

    Args:
        builder: Circuit that is appended to.
        angles: Three Euler angles RZ RY RZ of ``first`` and of ``second`` in the magic basis.
        first: The less significant qubit.
        second: The other.

    Raises:
        UsageError: If there are not six angles.
    """
    w = _counted("so4", angles, SO4_ANGLES)
    builder.s(first).s(second).h(second).cx(second, first)
    _euler(builder, w[0:3], first)
    _euler(builder, w[3:6], second)
    builder.cx(second, first).h(second).sdg(first).sdg(second)


def _euler(builder: Circuit, angles: Sequence[AngleLike], qubit: int) -> None:
    builder.rz(angles[0], qubit).ry(angles[1], qubit).rz(angles[2], qubit)


def _counted(name: str, angles: Sequence[AngleLike], count: int) -> list[AngleLike]:
    if len(angles) != count:
        raise UsageError(f"a block '{name}' takes {count} angles, not {len(angles)}")
    return list(angles)
