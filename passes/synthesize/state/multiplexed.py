"""Any state qubit by qubit: multiplexed one-qubit gates up to a diagonal.

A gate on the last qubit, chosen by the others, takes ``sum_j |j> (x) (x_j |0> + y_j |1>)`` to
``sum_j r_j |j> |0>``; what is left is a state of one qubit less. A gate that k qubits choose is a
diagonal times ``2^k`` gates on the target with ``2^k - 1`` CX between, and the diagonal only turns
the phases of the state that is left. In all ``sum_k (2^k - 1) = 2^n - n - 1`` CX, whatever the
vector; qubits that the choice does not depend on are left out. Real vectors take RY and CX only.

For two choices a, b (Bergholm et al., equation 7), with ``D = diag(exp(i pi/4), exp(-i pi/4))``::

    a = r^dag u D v,  b = r u D^dag v,  r a b^dag r = u D^2 u^dag

r is diagonal and such that the trace of ``r a b^dag r`` is 0 and its determinant 1. Real choices
are rotations about Y: ``RY(s) CZ RY(d)`` with ``d, s = (alpha +- beta) / 2``, up to a CZ.

Sources: Moettoenen, Vartiainen, Bergholm, Salomaa 2004 (arXiv:quant-ph/0407010); Bergholm,
Vartiainen, Moettoenen, Salomaa 2005 (arXiv:quant-ph/0410066); Iten et al. 2016 (arXiv:1501.06911).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.synthesize.state.cx_form import Array, Matrices, Op

__all__ = ["disentangle", "rotation_choice", "undo"]

_EYE = np.eye(2)
_D: Matrices = np.exp(0.25j * np.pi * np.array([1, -1]))
_SDG_H: Matrices = np.diag([1, -1j]) @ np.array([[1, 1], [1, -1]]) / np.sqrt(2)
_H: Matrices = np.array([[1, 1], [1, -1]], dtype=complex) / np.sqrt(2)
_QUARTER: Array = np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
_SAME = 1e-12
"""Two vectors are parallel where ``|x y' - x' y|`` is below it, in units of their norms."""


def disentangle(vector: Matrices, wires: list[int]) -> tuple[list[Op], Matrices]:
    """Return operations that take the last wire to |0>, and the state of the others after them.

    Args:
        vector: complex128[2^n] or float64[2^n] of norm 1; bit i of its index is ``wires[i]``.
        wires: n qubits.
    """
    target, controls = wires[-1], list(range(len(wires) - 1))
    halves = vector.reshape(2, -1)
    left = np.sqrt((np.abs(halves) ** 2).sum(axis=0))
    tiny = left < 1e-300
    choice = np.where(tiny, np.array([[1.0], [0.0]]), halves / np.where(tiny, 1, left))
    choice, kept = _without_idle(choice, left, controls)
    gates, chosen, diagonal = (
        _complex_choice(_to_zero(choice)) if np.iscomplexobj(vector) else _real_choice(choice)
    )
    ops: list[Op] = []
    for k, gate in enumerate(gates):
        ops.append((target, -1, gate))
        if k < len(chosen):
            ops.append((wires[kept[chosen[k]]], target, None))
    index = np.arange(len(left))
    place = np.zeros_like(index)
    for i, control in enumerate(kept):
        place |= (index >> control & 1) << i
    # The gates take x_j |0> + y_j |1> to conj(diagonal) r_j |0>, and a phase where the choice was
    # made by another control's value.
    applied = diagonal.conj() * choice[0].conj(), diagonal.conj() * choice[1].conj()
    rest = applied[0][place] * halves[0] + applied[1][place] * halves[1]
    return ops, rest


def undo(ops: list[Op]) -> list[Op]:
    """Return the inverse of operations."""
    return [(a, b, None if m is None else m.conj().T) for a, b, m in reversed(ops)]


def _without_idle(
    choice: Matrices, weight: Array, controls: list[int]
) -> tuple[Matrices, list[int]]:
    """Drop the controls that the direction ``choice[:, j]`` does not depend on, zeros left out."""
    kept: list[int] = []
    scale = max(float(weight.max()), 1e-300)
    live = weight > 1e-14 * scale
    position = 0
    for control in controls:
        parts = choice.reshape(2, -1, 2, 1 << position)
        alive = live.reshape(-1, 2, 1 << position)
        low, high = parts[:, :, 0], parts[:, :, 1]
        cross = np.abs(low[0] * high[1] - low[1] * high[0])
        both = alive[:, 0] & alive[:, 1]
        if (cross[both] < _SAME).all():
            choice = np.where(alive[:, 0], low, high).reshape(2, -1)
            live = (alive[:, 0] | alive[:, 1]).reshape(-1)
        else:
            kept.append(control)
            position += 1
    return choice, kept


def _to_zero(choice: Matrices) -> Matrices:
    """Return special unitaries that take ``choice[:, j]`` to |0>, complex128[2^k, 2, 2]."""
    x, y = choice
    return np.stack([np.stack([x.conj(), y.conj()], -1), np.stack([-y, x], -1)], -2)


def _complex_choice(gates: Matrices) -> tuple[list[Matrices], list[int], Matrices]:
    """Return target gates, the controls between them, and the diagonal on the target's 0."""
    factors, chosen, diagonal = _demultiplexed(gates.astype(np.complex128))
    out, phase = [factors[0]], diagonal
    for control, factor in zip(chosen, factors[1:], strict=True):
        # exp(i pi/4 ZZ) ~ S^dag S^dag CZ, CZ = H CX H; that on the control is a phase.
        out[-1] = _H @ out[-1]
        out.append(factor @ _SDG_H)
        bit = np.arange(len(phase)) >> control & 1
        phase = phase * np.exp(0.25j * np.pi) * np.where(bit[:, None] == 1, -1j, 1)
    return out, chosen, np.ascontiguousarray(phase[:, 0])


def _demultiplexed(gates: Matrices) -> tuple[list[Matrices], list[int], Matrices]:
    """Return factors f, controls c and phases p[j, 2] with ``gates[j] = p[j] f Z f Z ... f``.

    Z between factors is ``exp(i pi/4 Z Z)`` of a control and the target.
    """
    if len(gates) == 1:
        return [gates[0]], [], np.ones((1, 2), dtype=complex)
    half = len(gates) // 2
    a, b = gates[:half], gates[half:]
    x = a @ np.swapaxes(b, 1, 2).conj()
    total = np.angle(np.linalg.det(x))
    first = np.angle(x[:, 0, 0])
    turns = np.stack([np.pi / 2 - first, first - total - np.pi / 2], axis=1)
    r = np.exp(0.5j * turns)
    balanced = r[:, :, None] * x * r[:, None, :]
    values, u = np.linalg.eig(balanced)
    swap = values[:, 0].imag < 0
    u[swap] = u[swap][:, :, ::-1]
    # Rounding aside the columns are orthogonal already; make them so.
    u[:, :, 0] /= np.linalg.norm(u[:, :, 0], axis=1)[:, None]
    inner = np.einsum("ni,ni->n", u[:, :, 0].conj(), u[:, :, 1])
    u[:, :, 1] -= inner[:, None] * u[:, :, 0]
    u[:, :, 1] /= np.linalg.norm(u[:, :, 1], axis=1)[:, None]
    v = _D.conj()[:, None] * (np.swapaxes(u, 1, 2).conj() @ (r[:, :, None] * a))
    late, before, phase_v = _demultiplexed(v)
    early, after, phase_u = _demultiplexed(u * phase_v[:, None, :])
    phase = np.concatenate([r.conj() * phase_u, r * phase_u])
    control = half.bit_length() - 1
    return late + early, [*before, control, *after], phase


def _real_choice(choice: Matrices) -> tuple[list[Matrices], list[int], Matrices]:
    out, chosen, flips = rotation_choice(-2 * np.arctan2(choice[1], choice[0]))
    # The diagonal is Z where flips is set: 1 on |0>.
    return out, chosen, np.ones(len(flips))


def rotation_choice(angles: Array) -> tuple[list[Matrices], list[int], NDArray[np.bool_]]:
    """Return target gates and the controls of the CX between for rotations about Y, up to signs.

    Args:
        angles: float64[2^k], radians; index bit i is control i.

    Returns:
        Gates g and controls c with ``g CX g CX ... g = Z^z[j] RY(angles[j])``, and z.
    """
    turns, chosen, flips = _rotations(angles)
    out = [_rotation(turns[0])]
    for turn in turns[1:]:
        # CZ = RY(-pi/2) CX RY(pi/2)
        out[-1] = _QUARTER @ out[-1]
        out.append(_rotation(turn) @ _QUARTER.T)
    return out, chosen, flips


def _rotations(angles: Array) -> tuple[list[float], list[int], NDArray[np.bool_]]:
    """Return angles t, controls c, flips z: ``RY(angles[j]) = Z^z[j] RY(t) CZ RY(t) CZ ...``."""
    if len(angles) == 1:
        return [float(angles[0])], [], np.zeros(1, dtype=bool)
    half = len(angles) // 2
    alpha, beta = angles[:half], angles[half:]
    first, before, flipped = _rotations((alpha + beta) / 2)
    second = (alpha - beta) / 2
    then, after, again = _rotations(np.where(flipped, -second, second))
    flip = flipped ^ again
    control = half.bit_length() - 1
    return first + then, [*before, control, *after], np.concatenate([flip, ~flip])


def _rotation(angle: float) -> Matrices:
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    return np.array([[c, -s], [s, c]])
