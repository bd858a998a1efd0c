"""Grover's operator of a preparation and of marked basis states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from qcomp.constructions.hypergraph import sign_diagonal
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit

__all__ = ["Marked", "grover_operator", "marked_states", "power"]

Marked = Mapping[int, int] | Sequence[int] | Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Bits that qubits have to have, basis states of all qubits, or a predicate of their numbers."""

MAX_QUBITS = 20
"""Qubits up to which basis states are marked one by one."""


def marked_states(marked: Marked, num_qubits: int) -> NDArray[np.bool_]:
    """Return which basis states are marked, bool[2^n]; bit i of a state's number is qubit i.

    Raises:
        UsageError: If a qubit, a bit or a state does not exist, or no state or every one is marked.
    """
    if num_qubits > MAX_QUBITS:
        raise UsageError(
            f"states of {num_qubits} qubits are not marked one by one",
            hint=f"compute the predicate into one qubit, and mark it: {{{num_qubits - 1}: 1}}",
        )
    states = np.arange(1 << num_qubits, dtype=np.int64)
    if callable(marked):
        out = np.asarray(marked(states), dtype=bool)
        if out.shape != states.shape:
            raise UsageError(
                f"the predicate gave values of shape {list(out.shape)} for {len(states)} states",
                hint="write it for an array of numbers, such as lambda x: x > 3",
            )
    elif isinstance(marked, Mapping):
        out = np.ones(len(states), dtype=bool)
        for qubit, bit in marked.items():
            if not 0 <= qubit < num_qubits or bit not in (0, 1):
                raise UsageError(f"there is no bit {bit} of qubit {qubit} among {num_qubits}")
            out &= (states >> qubit & 1) == bit
    else:
        wanted = np.asarray(list(marked), dtype=np.int64)
        if wanted.size and not (0 <= wanted.min() and wanted.max() < len(states)):
            raise UsageError(f"a marked state is no number from 0 to {len(states) - 1}")
        out = np.isin(states, wanted)
    if not out.any() or out.all():
        which = "every" if out.any() else "no"
        raise UsageError(
            f"{which} basis state is marked, so there is nothing to amplify or to estimate",
            hint="mark some states and leave others",
        )
    return out


def grover_operator(preparation: Circuit, marked: Marked) -> Circuit:
    """Return ``Q = A (2 |0><0| - 1) A^dag S`` with ``S = 1 - 2 P``, P the marked states.

    With ``A |0> = cos t |bad> + sin t |good>``, Q turns by 2 t: ``Q^k A |0>`` is good with
    probability ``sin((2 k + 1) t)^2`` (Brassard, Hoyer, Mosca, Tapp 2000, quant-ph/0005055).

    Cost: A and its inverse, one Z under n - 1 controls, and S by the algebraic normal form of the
    predicate on the qubits that it depends on.

    Args:
        preparation: A, a unitary circuit.
        marked: What is good.

    Raises:
        UsageError: If the circuit is not unitary, or nothing or everything is marked.
    """
    n = preparation.num_qubits
    good = marked_states(marked, n)
    circuit = Circuit(n, params=preparation.params, name="grover_operator")
    sign_diagonal_of(circuit, good)
    circuit = circuit.compose(preparation.inverse())
    zero = np.zeros(1 << n, dtype=bool)
    zero[0] = True
    sign_diagonal_of(circuit, zero)
    circuit.gphase(np.pi)
    return circuit.compose(preparation)


def sign_diagonal_of(circuit: Circuit, states: NDArray[np.bool_]) -> None:
    """Append ``1 - 2 P`` for basis states, on the qubits that P depends on."""
    n = circuit.num_qubits
    cube = states.reshape((2,) * n)
    wires = [q for q in range(n) if (np.diff(cube, axis=n - 1 - q)).any()]
    for q in range(n):
        if q not in wires:
            cube = np.take(cube, [0], axis=n - 1 - q)
    flat = cube.reshape(-1)
    if int(flat.sum()) != 1:
        sign_diagonal(circuit, np.where(flat, -1.0, 1.0), wires, "auto")
        return
    only = int(np.argmax(flat))
    zeros = [q for i, q in enumerate(wires) if not only >> i & 1]
    for q in zeros:
        circuit.x(q)
    if len(wires) == 1:
        circuit.z(wires[0])
    else:
        circuit.h(wires[-1])
        circuit.append("mcx", wires)
        circuit.h(wires[-1])
    for q in zeros:
        circuit.x(q)


def power(circuit: Circuit, times: int) -> Circuit:
    """Return the circuit so many times in a row, by doubling."""
    out = Circuit(circuit.num_qubits, params=circuit.params)
    part = circuit
    while times:
        if times & 1:
            out = out.compose(part)
        times >>= 1
        if times:
            part = part.compose(part)
    return out
