"""Powers and inverses of gates that are given as lists of operations.

A real power is the principal one: ``U = V diag(e^(i f)) V*`` with every f in (-pi, pi] gives
``U^r = V diag(e^(i r f)) V*``.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcomp.frontends.openqasm.controls import controlled
from qcomp.frontends.openqasm.emit import Op
from qcomp.frontends.openqasm.limits import MAX_POWER
from qcomp.frontends.openqasm.syntax import Node
from qcomp.frontends.openqasm.values import fail
from qcomp.ir.angle import Angle
from qcomp.ir.gates import gate
from qcomp.ir.transform import expand

__all__ = ["inverted", "matrix_of", "raised", "synthesised"]

Ops = list[Op]
Matrix = NDArray[np.complex128]
MAX_MATRIX_QUBITS = 3
TOLERANCE = 1e-9


def inverted(ops: Sequence[Op]) -> Ops:
    """Return the inverse: operations in reverse order, each inverted."""
    out: Ops = []
    for op in reversed(ops):
        row = gate(op.name)
        if row.inverse:
            angles = tuple(
                op.angles[source] if sign > 0 else -op.angles[source]
                for source, sign in row.inverse_angles
            )
            out.append(Op(row.inverse, op.qubits, angles))
        else:
            steps = expand(row, op.qubits, op.angles)
            out.extend(inverted([Op(g.name, qubits, angles) for g, qubits, angles in steps]))
    return out


def raised(ops: Ops, num_qubits: int, exponent: float, node: Node) -> Ops:
    """Return the operations to a power.

    Raises:
        SourceError: If the power has no exact form here.
    """
    if float(exponent).is_integer():
        return _integer_power(ops, int(exponent), node)
    if not math.isfinite(exponent):
        fail(node, f"the power {exponent} is not finite")
    if not ops:
        return []
    if len(ops) == 1:
        known = _scaled(ops[0], exponent)
        if known is not None:
            return known
    if any(not angle.is_constant for op in ops for angle in op.angles):
        fail(
            node,
            f"the power {exponent} of a gate whose angle is an input parameter",
            why="its principal root depends on the value of the input",
            hint="scale the angle instead, or bind the input before reading",
        )
    if num_qubits > MAX_MATRIX_QUBITS:
        fail(
            node,
            f"the power {exponent} of a gate on {num_qubits} qubits",
            why=f"a real power is computed from the matrix, for at most {MAX_MATRIX_QUBITS} qubits",
            hint="write the root as a gate definition",
        )
    inner = _under_control(ops)
    if inner is not None:
        return controlled(raised(inner, 1, exponent, node), 1, [True] * (num_qubits - 1), node)
    return synthesised(_matrix_power(matrix_of(ops, num_qubits), exponent, node), node)


def _integer_power(ops: Ops, exponent: int, node: Node) -> Ops:
    if len(ops) == 1:
        op = ops[0]
        row = gate(op.name)
        if row.num_angles == 1 and row.inverse_angles == ((0, -1),):
            return [Op(op.name, op.qubits, (op.angles[0] * exponent,))]
    if abs(exponent) * max(1, len(ops)) > MAX_POWER:
        fail(
            node,
            f"the power {exponent} repeats {len(ops)} operations more than {MAX_POWER} times",
            hint="define the power as its own gate",
        )
    base = inverted(ops) if exponent < 0 else list(ops)
    return base * abs(exponent)


def _scaled(op: Op, exponent: float) -> Ops | None:
    """Return the power of one operation as another one of the gate table, if it is one."""
    row = gate(op.name)
    if row.num_angles == 1 and row.inverse_angles == ((0, -1),) and op.angles[0].is_constant:
        period = math.tau if row.name in ("p", "cp", "gphase") else 2 * math.tau
        angle = op.angles[0]
        value = math.remainder(float(angle), period)
        if abs(abs(value) - period / 2) < TOLERANCE:
            if period > math.tau:
                return None
            return [Op(op.name, op.qubits, (Angle.of(math.pi) * exponent,))]
        return [Op(op.name, op.qubits, (Angle.of(value) * exponent,))]
    phase = {"z": 4, "s": 2, "t": 1, "sdg": -2, "tdg": -1}.get(op.name)
    if phase is not None:
        return [Op("p", op.qubits, (Angle.of(math.pi / 4 * phase) * exponent,))]
    if op.name == "x" and exponent in (0.5, -0.5):
        return [Op("sx" if exponent > 0 else "sxdg", op.qubits)]
    return None


_TARGET = {"cx": "x", "ccx": "x", "cy": "y", "cz": "z", "ccz": "z", "ch": "h"}


def _under_control(ops: Ops) -> Ops | None:
    """Return the one-qubit gate under the controls of a single controlled gate."""
    if len(ops) == 1 and ops[0].name in _TARGET:
        op = ops[0]
        if op.qubits == tuple(range(len(op.qubits))):
            return [Op(_TARGET[op.name], (0,))]
    return None


# ---------------------------------------------------------------- matrices


def matrix_of(ops: Sequence[Op], num_qubits: int) -> Matrix:
    """Return the matrix of operations on a few qubits, qubit 0 the least significant bit."""
    size = 1 << num_qubits
    total: Matrix = np.eye(size, dtype=complex)
    for op in ops:
        if op.name == "barrier":
            continue
        inner = gate(op.name).matrix(*map(float, op.angles), num_qubits=len(op.qubits))
        total = _embedded(inner, op.qubits, num_qubits) @ total
    return total


def _embedded(inner: Matrix, qubits: tuple[int, ...], num_qubits: int) -> Matrix:
    k = len(qubits)
    out = np.zeros((1 << num_qubits, 1 << num_qubits), dtype=complex)
    mask = sum(1 << q for q in qubits)
    for column in range(1 << num_qubits):
        local = sum((column >> q & 1) << i for i, q in enumerate(qubits))
        rest = column & ~mask
        for row in range(1 << k):
            spread = sum((row >> i & 1) << q for i, q in enumerate(qubits))
            out[rest | spread, column] = inner[row, local]
    return out


def _matrix_power(matrix: Matrix, exponent: float, node: Node) -> Matrix:
    """Return the principal power of a unitary matrix."""
    real, imaginary = (matrix + matrix.conj().T) / 2, (matrix - matrix.conj().T) / 2j
    for mix in (0.7236067977, 1.9021130326, 2.6180339887):
        # The two parts commute; a generic mix of them has the eigenvectors of both.
        _, vectors = np.linalg.eigh(math.cos(mix) * real + math.sin(mix) * imaginary)
        values = np.einsum("ij,ik,kj->j", vectors.conj(), matrix, vectors)
        if np.abs(vectors * values @ vectors.conj().T - matrix).max() < TOLERANCE:
            phases = np.angle(values)
            phases[np.abs(phases + math.pi) < TOLERANCE] = math.pi
            result: Matrix = (vectors * np.exp(1j * exponent * phases)) @ vectors.conj().T
            return result
    fail(node, f"the power {exponent} of this gate is numerically unstable")


def synthesised(matrix: Matrix, node: Node) -> Ops:
    """Return operations with this unitary matrix, global phase included.

    Raises:
        SourceError: If the matrix is not unitary or the operations miss it by more than 1e-8.
    """
    size = len(matrix)
    num_qubits = size.bit_length() - 1
    if matrix.shape != (size, size) or size != 1 << num_qubits or not num_qubits:
        fail(node, f"a matrix of shape {matrix.shape} is no gate's")
    if not np.isfinite(matrix).all() or (
        np.abs(matrix @ matrix.conj().T - np.eye(size)).max() > 1e-6
    ):
        fail(node, "the matrix is not unitary")
    ops = _one_qubit(matrix) if num_qubits == 1 else _many_qubits(matrix)
    if np.abs(matrix_of(ops, num_qubits) - matrix).max() > 1e-6:
        fail(node, "the matrix could not be written as gates accurately")
    return ops


def _one_qubit(matrix: Matrix) -> Ops:
    """Return ``e^(i g) u(t, p, l)`` of a 2 x 2 unitary."""
    theta = 2 * math.atan2(abs(matrix[1, 0]), abs(matrix[0, 0]))
    if abs(matrix[0, 0]) > 1e-12:
        gamma = cmath.phase(matrix[0, 0])
        phi = cmath.phase(matrix[1, 0]) - gamma if abs(matrix[1, 0]) > 1e-12 else 0.0
        lam = cmath.phase(matrix[1, 1]) - gamma - phi
    else:
        gamma, lam = cmath.phase(-matrix[0, 1]), 0.0
        phi = cmath.phase(matrix[1, 0]) - gamma
    angles = tuple(Angle.of(round_to_pi(value)) for value in (theta, phi, lam))
    ops = [Op("u", (0,), angles)]
    phase = Angle.of(round_to_pi(gamma))
    if not phase.is_zero:
        ops.append(Op("gphase", (), (phase,)))
    return ops


def round_to_pi(value: float) -> float:
    """Return the multiple of pi/64 that the value is up to rounding, else the value."""
    k = round(value * 64 / math.pi)
    exact = k * math.pi / 64
    return exact if abs(exact - value) < 1e-14 else value


def _many_qubits(matrix: Matrix) -> Ops:
    from qiskit.circuit.library import UnitaryGate

    definition = UnitaryGate(matrix, check_input=False).definition
    for _ in range(12):
        names = {item.operation.name for item in definition.data}
        if all(_in_table(name) for name in names):
            break
        definition = definition.decompose([n for n in names if not _in_table(n)])
    ops: Ops = []
    place = {qubit: i for i, qubit in enumerate(definition.qubits)}
    for item in definition.data:
        name = {"u3": "u", "u1": "p"}.get(item.operation.name, item.operation.name)
        angles = [float(value) for value in item.operation.params]
        if item.operation.name == "u2":
            name, angles = "u", [math.pi / 2, *angles]
        ops.append(
            Op(name, tuple(place[q] for q in item.qubits), tuple(Angle.of(a) for a in angles))
        )
    phase = Angle.of(float(definition.global_phase))
    if not phase.is_zero:
        ops.append(Op("gphase", (), (phase,)))
    return ops


def _in_table(name: str) -> bool:
    if name in ("u2", "u3"):
        return True
    try:
        return gate(name).is_unitary
    except KeyError:
        return False
