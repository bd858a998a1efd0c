"""Controlled operations of PennyLane by any number of controls, for any kind of angle.

PennyLane's own decompositions of these look at matrices, which tensors with a batch do not have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pennylane.operation import Operator

__all__ = ["controlled_parts"]

_PHASES = {"S": math.pi / 2, "T": math.pi / 4, "PauliZ": math.pi}
_QUARTER = math.pi / 4


def controlled_parts(op: Operator) -> list[Operator] | None:
    """Return the operations of a controlled one; None if its base is not known.

    Rotations are taken apart by ``C^n RZ(t) = RZ(t/2) C^n X RZ(-t/2) C^n X`` on the target, with
    the like for RY and, between Hadamards, RX; phases by
    ``C^n P(t) = C^n RZ(t) on the target, C^(n-1) P(t/2) on the last control``. Cost: two
    multi-controlled X for each rotation (Barenco et al. 1995, arXiv:quant-ph/9503016, section 5).

    Args:
        op: An operation with ``base``, ``control_wires`` and ``control_values``.
    """
    import pennylane as qml

    controls = list(op.control_wires)
    parts = _by(controls, op.base)
    if parts is None:
        return None
    turned: list[Operator] = [
        qml.X(wire) for wire, value in zip(controls, op.control_values, strict=True) if not value
    ]
    return [*turned, *parts, *turned]


def _by(controls: Sequence[Any], base: Operator) -> list[Operator] | None:
    """Return ``base`` under controls that are all 1."""
    import pennylane as qml

    name = base.name
    if name == "GlobalPhase":
        *others, last = controls
        return _phase(others, -base.parameters[0], last)
    if not base.wires:
        return None
    target = base.wires[-1]

    def flip() -> Operator:
        return qml.MultiControlledX(wires=[*controls, target])

    def between(before: Operator, inner: Sequence[Operator], after: Operator) -> list[Operator]:
        return [before, *inner, after]

    if name == "PauliX":
        return [flip()]
    if name == "PauliY":
        return between(qml.adjoint(qml.S(target)), [flip()], qml.S(target))
    if name == "Hadamard":
        inner = between(qml.Hadamard(target), [flip()], qml.Hadamard(target))
        return between(qml.RY(-_QUARTER, target), inner, qml.RY(_QUARTER, target))
    if name in _PHASES:
        return _phase(controls, _PHASES[name], target)
    if name in ("PhaseShift", "U1"):
        return _phase(controls, base.parameters[0], target)
    if name in ("RX", "RY", "RZ"):
        angle = base.parameters[0]
        turn = qml.RY if name == "RY" else qml.RZ
        parts = [turn(angle / 2, target), flip(), turn(-angle / 2, target), flip()]
        if name == "RX":
            return between(qml.Hadamard(target), parts, qml.Hadamard(target))
        return parts
    if not base.has_decomposition:
        return None
    out: list[Operator] = []
    for part in base.decomposition():
        inner_parts = _by(controls, part)
        if inner_parts is None:
            return None
        out += inner_parts
    return out


def _phase(controls: Sequence[Any], angle: Any, target: Any) -> list[Operator]:  # noqa: ANN401
    """Return ``P(angle)`` on the target under controls."""
    import pennylane as qml

    if not controls:
        return [qml.PhaseShift(angle, target)]
    turned = _by(controls, qml.RZ(angle, target))
    assert turned is not None
    return [*turned, *_phase(controls[:-1], angle / 2, controls[-1])]
