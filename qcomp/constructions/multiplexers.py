"""Multiplexed rotations and diagonal unitaries by Gray codes (Moettoenen et al., quant-ph/0407010).

A rotation of a target by an angle ``a[x]`` that ``k`` controls choose is a product of commuting
factors, one for each parity of the controls::

    sum_x |x><x| (x) exp(-i a[x] P / 2) = prod_m exp(-i w[m] Z^m (x) P / 2)
    w[m] = 2^-k sum_x (-1)^{m.x} a[x]

with ``Z^m`` the product of Z over the bits of m. A CX from a control to the target flips the sign
of the factors that follow, so the target walks through the parities in the order of a Gray code:
``2^k`` rotations and ``2^k`` CX. Factors of angle 0 are left out, with the CX between them.

Wires are little-endian: bit i of an index is ``controls[i]``, as in the simulator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError
from qcomp.ir.angle import Angle, AngleLike
from qcomp.ir.circuit import Circuit

__all__ = [
    "diagonal",
    "gray_code",
    "multiplexed_rotation",
    "parity_rotations",
    "walsh",
    "walsh_angles",
]

_ENTANGLERS = {"x": ("cz", "cy"), "y": ("cx", "cz"), "z": ("cx", "cy")}
"""Controlled Paulis that turn the sign of a rotation about each axis; the default first."""


def gray_code(bits: int) -> NDArray[np.int64]:
    """Return the reflected Gray code of so many bits, int64[2^bits]: j ^ (j >> 1)."""
    j = np.arange(1 << bits, dtype=np.int64)
    return j ^ (j >> 1)


def walsh(values: ArrayLike) -> NDArray[np.float64]:
    """Return ``w[m] = 2^-k sum_x (-1)^{m.x} values[x]`` along the last axis, float64[..., 2^k].

    ``2^k walsh`` is its own inverse. Cost: k 2^k additions.

    Raises:
        UsageError: If the last axis has no size 2^k.
    """
    out = np.array(values, dtype=np.float64)
    size = out.shape[-1] if out.ndim else 0
    if size < 1 or size & (size - 1):
        raise UsageError(f"a multiplexer has 2^k angles, not {size}")
    half = 1
    while half < size:
        pairs = out.reshape(*out.shape[:-1], size // (2 * half), 2, half)
        first, second = pairs[..., 0, :].copy(), pairs[..., 1, :].copy()
        pairs[..., 0, :] = (first + second) / 2
        pairs[..., 1, :] = (first - second) / 2
        half *= 2
    return out


def walsh_angles(angles: ArrayLike) -> NDArray[np.float64]:
    """Return the rotations between the CX of the Gray code for a multiplexed rotation.

    ``out[..., j] = walsh(angles)[..., gray_code[j]]`` (quant-ph/0407010, equation 3).

    Args:
        angles: float64[..., 2^k], radians; index bit i is control i.

    Returns:
        float64[..., 2^k], what :func:`multiplexed_rotation` takes.

    Raises:
        UsageError: If the last axis has no size 2^k.
    """
    out = walsh(angles)
    return out[..., gray_code(out.shape[-1].bit_length() - 1)]


def multiplexed_rotation(
    builder: Circuit,
    axis: str,
    walsh_angles: Sequence[AngleLike] | NDArray[np.float64],
    controls: Sequence[int],
    target: int,
    *,
    last_cx: bool = True,
    entangler: str | None = None,
) -> int:
    """Append ``sum_x |x><x| (x) R_axis(a[x])``, the angles given by :func:`walsh_angles`.

    Cost: ``2^k`` rotations and CX at most, one CX fewer without the last; none of either for
    angles that are exactly 0.

    Args:
        builder: Circuit that is appended to.
        axis: "x", "y" or "z".
        walsh_angles: 2^k numbers or angles with parameters, in the order of the Gray code.
        controls: k qubits; index bit i is ``controls[i]``.
        target: The qubit that is turned.
        last_cx: Append the last gates, which bring the parity back to none; without them what was
            appended is the multiplexer and then the controlled Paulis of the parity returned.
        entangler: "cx", "cy" or "cz"; CX for y and z and CZ for x by default.

    Returns:
        The parity of the controls that still acts on the target, a bit mask; 0 with ``last_cx``.

    Raises:
        UsageError: If the number of angles is no 2^k, or the axis or the entangler do not fit.
    """
    masks = gray_code(len(controls))
    if len(walsh_angles) != len(masks):
        raise UsageError(
            f"a rotation multiplexed by {len(controls)} qubits takes {len(masks)} angles, "
            f"not {len(walsh_angles)}"
        )
    return parity_rotations(
        builder,
        axis,
        list(zip(masks.tolist(), walsh_angles, strict=True)),
        controls,
        target,
        last_cx=last_cx,
        entangler=entangler,
    )


def parity_rotations(
    builder: Circuit,
    axis: str,
    factors: Sequence[tuple[int, AngleLike]],
    controls: Sequence[int],
    target: int,
    *,
    last_cx: bool = True,
    entangler: str | None = None,
) -> int:
    """Append ``prod exp(-i w Z^m (x) P / 2)`` for pairs (m, w), in the order given.

    Cost: one rotation a factor that is not exactly 0, and as many controlled Paulis as bits change
    from one such m to the next, from 0 and back to 0.

    Args:
        builder: Circuit that is appended to.
        axis: "x", "y" or "z", P.
        factors: (parity of the controls as a bit mask, angle) pairs.
        controls: Qubits; bit i of a mask is ``controls[i]``.
        target: The qubit that is turned.
        last_cx: As in :func:`multiplexed_rotation`.
        entangler: As in :func:`multiplexed_rotation`.

    Returns:
        The parity that still acts on the target, a bit mask.

    Raises:
        UsageError: If the axis or the entangler do not fit, or a mask has more bits than controls.
    """
    if axis not in _ENTANGLERS:
        raise UsageError(f"there is no axis '{axis}'", hint="one of x, y, z")
    entangler = entangler or _ENTANGLERS[axis][0]
    if entangler not in _ENTANGLERS[axis]:
        raise UsageError(
            f"'{entangler}' does not turn the sign of a rotation about {axis}",
            hint="one of " + ", ".join(_ENTANGLERS[axis]),
        )
    parity = 0
    for mask, value in factors:
        angle = Angle.of(value)
        if angle.is_zero:
            continue
        if mask >> len(controls):
            raise UsageError(f"the parity {mask:#b} has more bits than {len(controls)} controls")
        _flip(builder, entangler, parity ^ mask, controls, target)
        builder.append(f"r{axis}", [target], [angle])
        parity = mask
    if last_cx:
        _flip(builder, entangler, parity, controls, target)
        parity = 0
    return parity


def diagonal(builder: Circuit, phases: ArrayLike, wires: Sequence[int]) -> None:
    """Append ``sum_x exp(i phases[x]) |x><x|``, the global phase kept.

    Multiplexed RZ from the last wire down (Bullock and Markov, 2004, quant-ph/0303039).
    Cost: ``2^n - 1`` RZ and ``2^n - 2`` CX at most; none for parities of weight 0.

    Args:
        builder: Circuit that is appended to.
        phases: float64[2^n], radians; index bit i is ``wires[i]``.
        wires: n qubits.

    Raises:
        UsageError: If there are not 2^n phases.
    """
    weights = walsh(phases)
    if weights.shape != (1 << len(wires),):
        raise UsageError(
            f"a diagonal on {len(wires)} qubits takes {1 << len(wires)} phases, "
            f"not an array of shape {list(np.shape(phases))}"
        )
    for k in range(len(wires) - 1, -1, -1):
        # exp(i w Z^m) is an RZ of -2 w on the parity m, whose highest bit is the target's.
        part = -2.0 * weights[(1 << k) : (2 << k)][gray_code(k)]
        multiplexed_rotation(builder, "z", part, wires[:k], wires[k])
    if weights[0]:
        builder.append("gphase", [], [float(weights[0])])


def _flip(
    builder: Circuit, entangler: str, mask: int, controls: Sequence[int], target: int
) -> None:
    for i, control in enumerate(controls):
        if mask >> i & 1:
            builder.append(entangler, [control, target])
