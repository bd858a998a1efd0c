"""Swap tests: the squared overlap of two registers.

The eigenvalue of SWAP of two qubits is -1 on the singlet and 1 on the other Bell states, so
``|<a|b>|^2 = <SWAP>`` is read either from an ancilla that controls the swap (Buhrman, Cleve,
Watrous, de Wolf, 2001, quant-ph/0102001), or from a measurement of each pair of qubits in the Bell
basis (Garcia-Escartin and Chamorro-Posada, 2013, arXiv:1303.6814), which destroys the registers:

    ancilla:     <Z> = |<a|b>|^2                          8 n CX, one bit read
    Bell basis:  sum_ab p(a, b) (-1)^{a.b} = |<a|b>|^2    n CX, 2 n bits read
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit

__all__ = ["append_swap_test", "bell_signs"]


def append_swap_test(
    circuit: Circuit, first: Sequence[int], second: Sequence[int], ancilla: int | None = None
) -> None:
    """Append a swap test of two registers.

    Args:
        circuit: Circuit that is appended to.
        first: n qubits.
        second: n others.
        ancilla: A qubit in |0> whose Z is the squared overlap then; None for the Bell form, whose
            bits are read by :func:`bell_signs`.

    Raises:
        UsageError: If the registers are not of one size.
    """
    if len(first) != len(second):
        raise UsageError(
            f"a swap test is of registers of one size, not of {len(first)} and {len(second)} qubits"
        )
    if ancilla is None:
        for a, b in zip(first, second, strict=True):
            circuit.cx(a, b).h(a)
        return
    circuit.h(ancilla)
    for a, b in zip(first, second, strict=True):
        circuit.append("cswap", [ancilla, a, b])
    circuit.h(ancilla)


def bell_signs(qubits: int) -> NDArray[np.float64]:
    """Return ``(-1)^{a.b}`` for outcomes a of the first and b of the second register, [4^n].

    The first register holds the low n bits of an outcome's index.
    """
    index = np.arange(1 << (2 * qubits))
    both = index & (index >> qubits) & ((1 << qubits) - 1)
    return 1.0 - 2.0 * (np.bitwise_count(both) & 1)
