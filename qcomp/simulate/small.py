"""A run of gates on few amplitudes in plain NumPy: nothing is compiled, little is done per gate."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from qcomp.simulate.tape import DIAG, FLIP, PAIR, Tape

__all__ = ["evolve_small"]

Indices = NDArray[np.intp]
States = NDArray[np.complex128]


def evolve_small(tape: Tape, params: NDArray[np.float64], states: States) -> States:
    """Return the states after a run.

    Args:
        tape: The run's steps.
        params: float64[B, P].
        states: complex128[B, 2^n].
    """
    own = tape.coefficients(params)
    rows, size = states.shape
    for kind, first, second, at, varies in tape.steps:
        source = own[:, at:] if varies else tape.constants[None, at:]
        if kind == FLIP:
            states = states[:, _flipped(size, first, second)]
        elif kind == PAIR and first == 0:
            one = source[:, :4].reshape(-1, 1, 2, 2)
            states = (one @ states.reshape(rows, -1, 2, 1 << second)).reshape(rows, size)
        elif kind == DIAG:
            operands = tuple(tape.wide[first : first + second].tolist())
            states = states * source[:, _picked(size, operands)]
        else:
            if kind == PAIR:
                index, side = _controlled(size, first, second), 2
            else:
                operands = tuple(tape.wide[first : first + second].tolist())
                index, side = _spread(size, operands), 1 << second
            matrix = source[:, : side * side].reshape(-1, side, side)
            states = states.copy()
            states[:, index] = matrix @ states[:, index]
    return states


@functools.lru_cache(maxsize=4096)
def _flipped(size: int, mask: int, target: int) -> Indices:
    """Return the amplitude that each one takes the place of."""
    index = np.arange(size)
    return np.where(index & mask == mask, index ^ (1 << target), index)


@functools.lru_cache(maxsize=4096)
def _picked(size: int, operands: tuple[int, ...]) -> Indices:
    """Return the bits of each index at the operands, operand 0 lowest."""
    index = np.arange(size)
    out = np.zeros(size, dtype=np.intp)
    for k, qubit in enumerate(operands):
        out |= ((index >> qubit) & 1) << k
    return out


@functools.lru_cache(maxsize=4096)
def _spread(size: int, operands: tuple[int, ...]) -> Indices:
    """Return the indices with each value of the operands' bits, intp[2^k, 2^(n - k)]."""
    order = np.argsort(_picked(size, operands), kind="stable")
    return order.reshape(1 << len(operands), -1)


@functools.lru_cache(maxsize=4096)
def _controlled(size: int, mask: int, target: int) -> Indices:
    """Return the pairs of the target where the controls are 1, intp[2, p]."""
    index = np.arange(size)
    low = index[(index & mask == mask) & (index >> target & 1 == 0)]
    return np.stack([low, low | (1 << target)])
