"""Circuits that apply a polynomial to a block-encoded matrix, from phases that are given.

``qcomp.passes.synthesize.polynomial`` computes the phases. Conventions: the signal operator is
``W(x) = exp(i arccos(x) X)``, and phases ``phi_0 .. phi_d`` stand for

    U(x) = exp(i phi_0 Z) W(x) exp(i phi_1 Z) W(x) ... W(x) exp(i phi_d Z),  <0|U(x)|0> = P(x).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.constructions.block_encoding import BlockEncoding
from qcomp.constructions.multiplexers import multiplexed_rotation, walsh_angles
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit

__all__ = ["powers_transformation", "regular", "singular_value_transformation"]

_WIDE = 6
"""Ancillas from which on a projector's phase is cheaper by Toffolis than multiplexed."""


def _reflection_phases(phases: ArrayLike) -> NDArray[np.float64]:
    """Return phases for ``R(x) = [[x, s], [s, -x]]``: W = i exp(-i pi/4 Z) R exp(-i pi/4 Z)."""
    out = np.array(phases, dtype=np.float64) - np.pi / 2
    out[0] += np.pi / 4
    out[-1] += np.pi / 4
    return out


def _projector_phase(
    circuit: Circuit,
    phases: Sequence[float],
    ancillas: Sequence[int],
    choice: Sequence[int],
    q: int,
) -> None:
    """Append ``exp(i phase (2 |0><0|_ancillas - 1) Z_q)``, the phase chosen by other qubits."""
    a = len(ancillas)
    if a > _WIDE:
        for wire in ancillas:
            circuit.x(wire)
        circuit.append("mcx", [*ancillas, q])
        multiplexed_rotation(circuit, "z", walsh_angles(2 * np.asarray(phases)), choice, q)
        circuit.append("mcx", [*ancillas, q])
        for wire in ancillas:
            circuit.x(wire)
        return
    angles = np.tile(2 * np.asarray(phases, dtype=np.float64)[:, None], (1, 1 << a))
    angles[:, 0] *= -1
    multiplexed_rotation(circuit, "z", walsh_angles(angles.ravel()), [*ancillas, *choice], q)


def singular_value_transformation(
    encoding: BlockEncoding,
    phases: Sequence[float],
    second: Sequence[float] | None = None,
    factors: tuple[complex, complex] = (1, 1),
) -> BlockEncoding:
    """Return the block encoding of ``Re P (A / scale)``, P the polynomial of the phases.

    The singular values of the block are transformed: ``sum_s p(s) |w_s><v_s|`` for odd degrees,
    ``sum_s p(s) |v_s><v_s|`` for even ones, which for a Hermitian A is the polynomial of the
    matrix. U and its inverse alternate, d in all, with phases ``exp(i phi (2|0><0| - 1) Z_q)``
    between them, q an ancilla in (|0> + |1>)/sqrt(2): q = 1 turns every phase back, and the sum of
    both is the real part (Gilyen, Su, Low, Wiebe 2018, arXiv:1806.01838, theorem 17 and corollary
    18). With phases of both parities one more ancilla chooses between them, which costs one
    controlled U more; the block is then half of ``factors[0] Re P + factors[1] Re P_2``.

    Cost: d uses of U, d + 1 multiplexed RZ of ``2^a`` CX (``2^(a+1)`` with both parities).

    Args:
        encoding: The matrix.
        phases: d + 1 phases, radians.
        second: d + 2 phases, of the other parity.
        factors: Complex numbers of magnitude 1 for the two.

    Raises:
        UsageError: If the second phases are not one more than the first.
    """
    both = second is not None
    if second is not None and len(second) != len(phases) + 1:
        raise UsageError(
            f"the phases of the two parities are d + 1 and d + 2, not {len(phases)} and "
            f"{len(second)}",
            hint="pad the polynomial of lower degree with zeros before its phases are solved",
        )
    whole = encoding.circuit.num_qubits
    circuit = Circuit(whole + 1 + both, name="singular_value_transformation")
    q, choice = whole, [whole + 1] if both else []
    ancillas, wires = encoding.ancillas, list(range(whole))
    turned = [_reflection_phases(phases)]
    if second is not None:
        turned.append(_reflection_phases(second))
    forward, backward = encoding.circuit, encoding.circuit.inverse()
    circuit.h(q)
    for c in choice:
        circuit.h(c)
    d = len(phases) - 1
    for k in range(d + 1):
        # Phases act from the last to the first; the longer sequence begins with its own last one.
        now = [part[len(part) - 1 - k] for part in turned]
        if k:
            circuit = circuit.compose(forward if k % 2 else backward, wires)
        _projector_phase(circuit, now, ancillas, choice, q)
    if both:
        last = forward if (d + 1) % 2 else backward
        circuit = circuit.compose(last.control(), [choice[0], *wires])
        _projector_phase(circuit, [0.0, float(turned[1][0])], ancillas, choice, q)
    # i^d for q = 0, (-i)^d for q = 1, d being one more where the second phases are chosen.
    degrees = [d, d + 1] if both else [d]
    multiplexed_rotation(circuit, "z", walsh_angles([-np.pi * e for e in degrees]), choice, q)
    angles = np.angle(np.asarray(factors[: len(turned)], dtype=np.complex128))
    for c in choice:
        circuit.p(float(angles[1] - angles[0]), c)
        circuit.h(c)
    circuit.gphase(float(angles[0]))
    circuit.h(q)
    return BlockEncoding(circuit, encoding.num_system, 2.0 if both else 1.0, "qsvt")


def regular(encoding: BlockEncoding, degree: int) -> BlockEncoding:
    """Return a block encoding W with ``(W^k)``'s block ``= (A / scale)^k`` for all k <= degree.

    A counter of ``log2(degree + 1)`` qubits goes up where the ancillas are not 0 after a use, so
    that what failed once never comes back to 0 (Low and Wiebe 2018, arXiv:1805.00675, lemma 8;
    with a polynomial in one variable arXiv:2604.19688). The matrix may be any, normal or not.

    Raises:
        UsageError: If the degree is below 1.
    """
    if degree < 1:
        raise UsageError(f"a degree is at least 1, not {degree}")
    bits = degree.bit_length()
    whole = encoding.circuit.num_qubits
    circuit = Circuit(whole + bits, name="regular").compose(encoding.circuit, range(whole))
    count_failures(circuit, encoding.ancillas, range(whole, whole + bits))
    return BlockEncoding(circuit, encoding.num_system, encoding.scale, "regular")


def count_failures(
    circuit: Circuit, ancillas: Sequence[int], counter: Sequence[int], control: int | None = None
) -> None:
    """Append: where the ancillas are not all 0 (and the control is), the counter goes up by one.

    Up by one always, and down by one where the ancillas are 0.
    """
    controls = [] if control is None else [control]
    for i in range(len(counter) - 1, -1, -1):
        circuit.append("mcx", [*controls, *counter[:i], counter[i]])
    for q in ancillas:
        circuit.x(q)
    for i in range(len(counter)):
        circuit.append("mcx", [*controls, *ancillas, *counter[:i], counter[i]])
    for q in ancillas:
        circuit.x(q)


def powers_transformation(
    controlled: Circuit, num_system: int, angles: NDArray[np.float64]
) -> BlockEncoding:
    """Return the block encoding of ``sum_k c_k M^k``: generalised quantum signal processing.

    Rotations ``R(theta_j, phi_j)`` of the highest qubit between d uses of
    ``|0><0| (x) W + |1><1| (x) I``, W the block encoding of M that :func:`regular` makes (Motlagh
    and Wiebe 2023, arXiv:2308.01501, theorem 3). The polynomial has any parity, the matrix need
    not be Hermitian.

    Args:
        controlled: W where the highest qubit is 0, the identity where it is 1.
        num_system: System qubits n.
        angles: float64[d + 1, 3]: theta, phi, lambda of each rotation.
    """
    q = controlled.num_qubits - 1
    circuit = Circuit(q + 1, name="powers_transformation")
    for j, (theta, phi, lam) in enumerate(angles.tolist()):
        if j:
            circuit = circuit.compose(controlled)
        # R = [[e^(i(lam+phi)) cos, e^(i phi) sin], [e^(i lam) sin, -cos]] of theta
        circuit.append("u", [q], [2 * theta, -phi, np.pi - lam])
        circuit.gphase(lam + phi)
    return BlockEncoding(circuit, num_system, 1.0, "gqsp")
