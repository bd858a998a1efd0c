"""Hypergraph states and the binary perceptron that is made of them.

A vector of m = 2^N signs is the state ``m^-1/2 sum_x s[x] |x>``. With ``s[x] = (-1)^f(x)``, f a
Boolean function, its algebraic normal form ``f = xor_S c_S prod_{i in S} x_i`` says the gates: a Z
on every single bit of the form, a CZ on every pair, a controlled CZ on every triple (Rossi, Huber,
Bruss, Macchiavello, 2013, arXiv:1211.5554). The artificial neuron of Tacchino, Macchiavello,
Gerace, Bajoni, 2019, arXiv:1811.02266, is two of them:

    U_i |0> = m^-1/2 sum_x i[x] |x>,   U_w m^-1/2 sum_x w[x] |x> = |1...1>
    probability of |1...1> after both = |i.w / m|^2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.constructions.multiplexers import diagonal, multiplexed_rotation, walsh_angles
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit

__all__ = [
    "algebraic_normal_form",
    "binary_perceptron",
    "hypergraph",
    "sign_diagonal",
    "sign_flips",
    "signs_of",
]

Form = Literal["hypergraph", "flips", "diagonal", "auto"]
FORMS: tuple[Form, ...] = ("hypergraph", "flips", "diagonal", "auto")

_CONTROLLED_Z = (0, 0, 1, 6, 14)
"""CX that a Z under N - 1 controls takes, by N; from 5 on it is counted as a diagonal, 2^N - 2."""


def signs_of(values: ArrayLike) -> NDArray[np.float64]:
    """Return a vector of 2^N entries 1 and -1, N at least 1.

    Raises:
        UsageError: If an entry is another number, or their number no power of two.
    """
    signs = np.asarray(values, dtype=np.float64)
    size = signs.size
    if signs.ndim != 1 or size < 2 or size & (size - 1):
        raise UsageError(
            f"a hypergraph state has 2^N signs, not an array of shape {list(signs.shape)}",
            hint="pad inputs and weights by 1, and subtract the padding from the sum",
        )
    bad = np.flatnonzero(np.abs(signs) != 1.0)
    if bad.size:
        raise UsageError(
            f"entry {int(bad[0])} is {signs[bad[0]]:g}, neither 1 nor -1",
            hint="take the signs, or amplitude encoding for real numbers",
        )
    return signs


def algebraic_normal_form(signs: ArrayLike) -> tuple[int, ...]:
    """Return the products of bits whose sum modulo 2 is the exponent of the signs.

    A product is a bit mask; 0 is the constant 1. Cost: N 2^N additions (the Moebius transform).

    >>> algebraic_normal_form([1, 1, 1, -1])   # (-1)^(x0 x1)
    (3,)

    Raises:
        UsageError: If they are no 2^N signs.
    """
    form = (signs_of(signs) < 0).astype(np.int64)
    half = 1
    while half < form.size:
        pairs = form.reshape(-1, 2, half)
        pairs[:, 1] ^= pairs[:, 0]
        half *= 2
    return tuple(int(mask) for mask in np.flatnonzero(form))


def hypergraph(circuit: Circuit, signs: ArrayLike, wires: Sequence[int]) -> None:
    """Append ``sum_x s[x] |x><x|`` as one multi-controlled Z for each product of the normal form.

    Index bit i is ``wires[i]``; a constant is a global phase of pi.

    Raises:
        UsageError: If there are not 2^N signs.
    """
    for mask in algebraic_normal_form(_fitting(signs, wires)):
        _controlled_z(circuit, [wire for i, wire in enumerate(wires) if mask >> i & 1])


def sign_flips(circuit: Circuit, signs: ArrayLike, wires: Sequence[int]) -> None:
    """Append the same as one block ``X . C...CZ . X`` for each entry of -1.

    The fewer of the two signs are flipped; flipping the others is a global phase.
    """
    given = _fitting(signs, wires)
    negative = np.flatnonzero(given < 0)
    if 2 * negative.size > given.size:
        _controlled_z(circuit, [])
        negative = np.flatnonzero(given > 0)
    for place in negative.tolist():
        zeros = [wire for i, wire in enumerate(wires) if not place >> i & 1]
        for wire in zeros:
            circuit.x(wire)
        _controlled_z(circuit, list(wires))
        for wire in zeros:
            circuit.x(wire)


def sign_diagonal(circuit: Circuit, signs: ArrayLike, wires: Sequence[int], form: Form) -> str:
    """Append ``sum_x s[x] |x><x|`` in a form, ``auto`` for the one with the fewest CX.

    Returns:
        The form taken.

    Raises:
        UsageError: If there is no such form, or there are not 2^N signs.
    """
    given = _fitting(signs, wires)
    if form not in FORMS:
        raise UsageError(f"there is no form '{form}'", hint="one of " + ", ".join(FORMS))
    if form == "auto":
        form = min(FORMS[:3], key=lambda name: _cost(given, name))
    if form == "hypergraph":
        hypergraph(circuit, given, wires)
    elif form == "flips":
        sign_flips(circuit, given, wires)
    else:
        diagonal(circuit, np.where(given < 0, np.pi, 0.0), wires)
    return form


def binary_perceptron(
    inputs: ArrayLike, weights: ArrayLike, *, form: Form = "auto", ancilla: bool = True
) -> Circuit:
    """Return the neuron: with the ancilla its qubit N is 1 with probability ``|i.w / m|^2``.

    ``H^N, D_i, D_w, H^N, X^N`` and the multi-controlled X, D the diagonals of the signs. In the
    form ``auto`` the two diagonals are one, of the product of the signs, and the ancilla, which
    begins in |0> and is only measured, is turned by a multiplexed RY: 2^N - 1 CX, and signs that
    no measurement sees.

    Args:
        inputs: i, 2^N signs.
        weights: w, 2^N signs.
        form: How a diagonal is written: ``hypergraph`` (the normal form), ``flips`` (a block for
            each -1), ``diagonal`` (RZ and CX by a Gray code), ``auto``.
        ancilla: Whether the ancilla is there; without it read the probability of |1...1>.

    Raises:
        UsageError: If they are not 2^N signs each.
    """
    i, w = signs_of(inputs), signs_of(weights)
    if i.size != w.size:
        raise UsageError(f"{i.size} inputs and {w.size} weights")
    n = i.size.bit_length() - 1
    circuit = Circuit(n + ancilla, name="binary_perceptron")
    wires = range(n)
    for wire in wires:
        circuit.h(wire)
    for signs in [i * w] if form == "auto" else [i, w]:
        sign_diagonal(circuit, signs, wires, form)
    for wire in wires:
        circuit.h(wire)
    for wire in wires:
        circuit.x(wire)
    if ancilla and form == "auto":
        turns = np.zeros(1 << n)
        turns[-1] = np.pi
        angles = walsh_angles(turns)
        multiplexed_rotation(circuit, "y", angles, wires, n, last_cx=False, entangler="cz")
    elif ancilla:
        circuit.append("mcx", [*wires, n])
    return circuit


def _fitting(signs: ArrayLike, wires: Sequence[int]) -> NDArray[np.float64]:
    given = signs_of(signs)
    if given.size != 1 << len(wires):
        raise UsageError(f"{given.size} signs do not fit {len(wires)} qubits")
    return given


def _controlled_z(circuit: Circuit, wires: Sequence[int]) -> None:
    if not wires:
        circuit.append("gphase", [], [np.pi])
    elif len(wires) == 1:
        circuit.z(wires[0])
    elif len(wires) == 2:
        circuit.cz(wires[0], wires[1])
    elif len(wires) == 3:
        circuit.append("ccz", list(wires))
    else:
        circuit.h(wires[-1])
        circuit.append("mcx", list(wires))
        circuit.h(wires[-1])


def _controlled_z_cost(qubits: int) -> int:
    return _CONTROLLED_Z[qubits] if qubits < len(_CONTROLLED_Z) else (1 << qubits) - 2


def _cost(signs: NDArray[np.float64], form: str) -> int:
    n = signs.size.bit_length() - 1
    if form == "hypergraph":
        masks = algebraic_normal_form(signs)
        return sum(_controlled_z_cost(mask.bit_count()) for mask in masks)
    if form == "flips":
        negative = int((signs < 0).sum())
        return min(negative, signs.size - negative) * _controlled_z_cost(n)
    circuit = Circuit(n)
    diagonal(circuit, np.where(signs < 0, np.pi, 0.0), range(n))
    return circuit.stats().two_qubit
