"""Gates under any number of controls, with a number of operations linear in the controls.

With several controls the work is left to ``mcx``, which stays one operation until a target asks
for less: ``mc-rz(a) = rz(a/2) mcx rz(-a/2) mcx`` on the target, and ``mc-p(a)`` over controls
c1 .. ck is ``cp(a/2; ck, t) mcx(c1 .. -> ck) cp(-a/2; ck, t) mcx(c1 .. -> ck)`` followed by
``mc-p(a/2)`` over c1 .. c(k-1) (Barenco et al. 1995, arXiv:quant-ph/9503016, Lemmas 5.4 and 7.5).
"""

from __future__ import annotations

from collections.abc import Sequence

from qcomp.frontends.openqasm.emit import Op
from qcomp.frontends.openqasm.limits import MAX_CONTROLLED_GATES, MAX_CONTROLS
from qcomp.frontends.openqasm.syntax import Node
from qcomp.frontends.openqasm.values import fail
from qcomp.ir.angle import Angle, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import gate
from qcomp.ir.transform import expand, operation_angles

__all__ = ["controlled"]

Ops = list[Op]
Wires = tuple[int, ...]


def controlled(ops: Ops, num_qubits: int, controls: Sequence[bool], node: Node) -> Ops:
    """Return the operations under controls, which become the qubits 0 .. len(controls)-1.

    Args:
        ops: Operations on qubits 0 .. num_qubits-1.
        num_qubits: Their number.
        controls: Whether each control fires on 1.
        node: For errors.

    Raises:
        SourceError: If the result is too large.
    """
    count = len(controls)
    if count > MAX_CONTROLS:
        fail(node, f"{count} control qubits, more than {MAX_CONTROLS}")
    if len(ops) > MAX_CONTROLLED_GATES:
        fail(
            node,
            f"a gate of {len(ops)} operations under control, more than {MAX_CONTROLLED_GATES}",
            hint="define the gate with its controls",
        )
    if count == 1:
        out = _once(ops, num_qubits)
    else:
        wires = tuple(range(count))
        out = []
        for op in ops:
            _append(out, Op(op.name, tuple(q + count for q in op.qubits), op.angles), wires)
    flips = [Op("x", (i,)) for i, fires in enumerate(controls) if not fires]
    return [*flips, *out, *flips]


def _once(ops: Ops, num_qubits: int) -> Ops:
    """Return the operations under one control, by the circuit's own rules."""
    circuit = Circuit(num_qubits)
    for op in ops:
        circuit.append(op.name, op.qubits, op.angles)
    result = circuit.control(1)
    run = result.run
    out = [
        Op(name, qubits, operation_angles(result, run, i))
        for i, (name, qubits, _) in enumerate(run.operations())
    ]
    if not result.global_phase.is_zero:
        out.append(Op("gphase", (), (result.global_phase,)))
    return out


_PHASES = {"z": 4, "s": 2, "t": 1, "sdg": -2, "tdg": -1}
_FLIPS = ("x", "cx", "ccx", "mcx")
_DIAGONAL = ("cz", "cs", "csdg", "cp", "ccz")


def _append(out: Ops, op: Op, controls: Wires) -> None:
    name, qubits, angles = op.name, op.qubits, op.angles
    if name in ("barrier", "id"):
        out.append(op)
    elif name in _FLIPS:
        _flip(out, (*controls, *qubits[:-1]), qubits[-1])
    elif name == "gphase":
        _phase(out, angles[0], controls)
    elif name == "p":
        _phase(out, angles[0], (*controls, *qubits))
    elif name in _PHASES:
        _phase(out, pi_fraction(_PHASES[name], 4), (*controls, *qubits))
    elif name in _DIAGONAL:
        angle = {"cs": pi_fraction(1, 2), "csdg": pi_fraction(-1, 2)}.get(name, pi_fraction(1))
        _phase(out, angles[0] if angles else angle, (*controls, *qubits))
    elif name in ("rz", "ry"):
        _rotation(out, name, angles[0], controls, qubits[0])
    elif name == "swap":
        a, b = qubits
        out.append(Op("cx", (b, a)))
        _flip(out, (*controls, a), b)
        out.append(Op("cx", (b, a)))
    elif name == "u":
        theta, phi, lam = angles
        _rotation(out, "rz", lam, controls, qubits[0])
        _rotation(out, "ry", theta, controls, qubits[0])
        _rotation(out, "rz", phi, controls, qubits[0])
        _phase(out, (phi + lam) / 2, controls)
    else:
        for row, inner, values in expand(gate(name), qubits, angles):
            _append(out, Op(row.name, inner, values), controls)


def _flip(out: Ops, controls: Wires, target: int) -> None:
    name = ("x", "cx", "ccx")[len(controls)] if len(controls) < 3 else "mcx"
    out.append(Op(name, (*controls, target)))


def _rotation(out: Ops, name: str, angle: Angle, controls: Wires, target: int) -> None:
    if angle.is_zero:
        return
    half = angle / 2
    out.append(Op(name, (target,), (half,)))
    _flip(out, controls, target)
    out.append(Op(name, (target,), (-half,)))
    _flip(out, controls, target)


def _phase(out: Ops, angle: Angle, wires: Wires) -> None:
    """Append the phase that acts where all wires are 1."""
    if angle.is_zero:
        return
    if len(wires) == 1:
        out.append(Op("p", wires, (angle,)))
        return
    if len(wires) == 2:
        out.append(Op("cp", wires, (angle,)))
        return
    if len(wires) == 3 and angle == pi_fraction(1):
        out.append(Op("ccz", wires))
        return
    *rest, last, target = wires
    half = angle / 2
    out.append(Op("cp", (last, target), (half,)))
    _flip(out, tuple(rest), last)
    out.append(Op("cp", (last, target), (-half,)))
    _flip(out, tuple(rest), last)
    _phase(out, half, (*rest, target))
