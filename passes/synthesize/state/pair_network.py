"""Circuits of gates on two qubits that approach a state: tensor networks as layers of gates.

A matrix product state of bond 2 is one staircase of gates on neighbours, exactly (Ran), a binary
tree tensor network of bond 2 one tree of gates (Huggins et al.). A state of higher bonds takes
layers: the best bond-2 network of the state is undone, what is left is nearer to |0...0>, and the
next layer is made for it. Afterwards each gate is set to the best one for all the others, again
and again: with A the state before the gate and B the target taken back to right after it,
``<B| G |A> = sum_ab G_ab conj(F_ab)`` where ``F = B A^dag`` over the other qubits, and the unitary
polar factor of F maximises it; the polar factor of determinant 1 where gates are to be real.

Sources: Ran 2020 (arXiv:1908.07958); Rudolph, Miller, Motlagh, Chen, Acharya, Perdomo-Ortiz 2023
(arXiv:2208.13673); Huggins, Patil, Mitchell, Whaley, Stoudenmire 2019 (arXiv:1803.11537).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.synthesize.state.cx_form import Matrices

__all__ = ["PairGate", "apply_gates", "chain_layer", "improve", "tree_layer", "with_layers"]

PairGate = tuple[int, int, Matrices]
"""``(a, b, matrix)``: a on the low bit of the matrix's index."""

_LEVEL = 1e-12


@functools.lru_cache(maxsize=256)
def _places(wires: int, a: int, b: int) -> NDArray[np.int64]:
    """Return the indices of a state's entries by the bits of a and b, int64[4, 2^(n-2)]."""
    index = np.arange(1 << wires)
    key = (index >> a & 1) | (index >> b & 1) << 1
    return np.argsort(key, kind="stable").reshape(4, -1)


def _applied(state: Matrices, gate: PairGate, inverse: bool = False) -> Matrices:
    a, b, matrix = gate
    at = _places(len(state).bit_length() - 1, a, b)
    out = np.empty_like(state)
    out[at] = (matrix.conj().T if inverse else matrix) @ state[at]
    return out


def apply_gates(state: Matrices, gates: Sequence[PairGate]) -> Matrices:
    """Return the state after the gates."""
    for gate in gates:
        state = _applied(state, gate)
    return state


def _completed(columns: Matrices, at: Sequence[int]) -> Matrices:
    """Return a matrix of U(4) or SO(4) with these columns at these places."""
    count = columns.shape[1]
    left, _, _ = np.linalg.svd(columns, full_matrices=True)
    matrix = np.empty((4, 4), dtype=columns.dtype)
    free = [k for k in range(4) if k not in at]
    matrix[:, list(at)] = columns
    matrix[:, free] = left[:, count:]
    if not np.iscomplexobj(matrix) and np.linalg.det(matrix) < 0:
        matrix[:, free[-1]] *= -1
    return matrix


def chain_layer(state: Matrices) -> list[PairGate]:
    """Return a staircase of gates that makes the bond-2 matrix product state nearest to a state.

    Nearest cut by cut: singular values beyond the second are dropped from wire 0 upwards. Gates
    come in the order in which they act on |0>: from the last two wires down.
    """
    wires = len(state).bit_length() - 1
    if wires == 1:
        return []
    rest = state.reshape(-1, 4).T if wires > 1 else state
    gates: list[PairGate] = []
    # rest[(bond, wire k + 1), wires above]; wire 0 is the first bond.
    for k in range(wires - 2):
        left, values, right = np.linalg.svd(rest, full_matrices=False)
        keep = min(2, len(values))
        isometry = left[:, :2] if left.shape[1] > 1 else _completed(left, [0])[:, :2]
        # |b> waits on wire k + 1, wire k is |0>: columns (0, b).
        gates.append((k, k + 1, _completed(isometry, [0, 2])))
        bond = np.zeros((2, right.shape[1]), dtype=state.dtype)
        bond[:keep] = values[:keep, None] * right[:keep]
        # The next wire is the low bit of what is right: (bond, wire k + 2).
        rest = bond.reshape(2, -1, 2).transpose(2, 0, 1).reshape(4, -1)
    last = rest.reshape(4, -1)[:, :1]
    gates.append((wires - 2, wires - 1, _completed(last / np.linalg.norm(last), [0])))
    return gates[::-1]


def tree_layer(state: Matrices) -> list[PairGate]:
    """Return a binary tree of gates that makes a bond-2 tree tensor network near a state.

    Neighbours are joined in pairs, each pair keeps the two best states of its density matrix on the
    lower wire, and these wires are joined again; the root makes the last two wires' state.
    """
    wires = len(state).bit_length() - 1
    level = list(range(wires))
    gates: list[PairGate] = []
    while len(level) > 2:
        above = []
        for a, b in zip(level[::2], level[1::2], strict=False):
            block = state[_places(wires, a, b)]
            left, _, _ = np.linalg.svd(block, full_matrices=False)
            gate = (a, b, _completed(left[:, :2], [0, 1]))
            # Undone, the pair's two states are those of wire a, wire b is |0>.
            state = _applied(state, gate, inverse=True)
            state = np.where(np.arange(len(state)) >> b & 1, 0, state)
            gates.append(gate)
            above.append(a)
        level = above + (level[-1:] if len(level) % 2 else [])
    if len(level) == 2:
        block = state[_places(wires, level[0], level[1])]
        left, _, _ = np.linalg.svd(block, full_matrices=False)
        gates.append((level[0], level[1], _completed(left[:, :1], [0])))
    return gates[::-1]


_LAYERS = {"chain": chain_layer, "tree": tree_layer}


def with_layers(state: Matrices, gates: Sequence[PairGate], kind: str) -> list[PairGate]:
    """Return the gates with one more layer before them.

    Args:
        state: The target.
        gates: Gates that make something near it of |0>; none to begin with.
        kind: "chain" or "tree".
    """
    for gate in reversed(gates):
        state = _applied(state, gate, inverse=True)
    return [*_LAYERS[kind](state), *gates]


def improve(
    target: Matrices, gates: Sequence[PairGate], sweeps: int, enough: float = 1.0
) -> tuple[list[PairGate], float]:
    """Set each gate to the best one for the others, forwards and backwards through all.

    Args:
        target: The state, norm 1; float64 for gates of SO(4).
        gates: Where to start.
        sweeps: Passes through all gates at most; it stops where one gains nothing.
        enough: Fidelity to stop at.

    Returns:
        The gates, and ``|<target|gates|0>|^2``.
    """
    gates = list(gates)
    size = len(target)
    wires = size.bit_length() - 1
    start = np.zeros_like(target)
    start[0] = 1
    before = [start]
    for gate in gates:
        before.append(_applied(before[-1], gate))
    fidelity = float(abs(np.vdot(target, before[-1])) ** 2)
    for _ in range(sweeps):
        after, behind = target, [target]
        for k in range(len(gates) - 1, -1, -1):
            gates[k] = _best(before[k], after, gates[k], wires)
            after = _applied(after, gates[k], inverse=True)
            behind.append(after)
        behind.reverse()
        # behind[k] is the target taken back through gate k; gate k sees behind[k + 1].
        state, before = start, [start]
        for k in range(len(gates)):
            gates[k] = _best(state, behind[k + 1], gates[k], wires)
            state = _applied(state, gates[k])
            before.append(state)
        found = float(abs(np.vdot(target, state)) ** 2)
        gain, fidelity = found - fidelity, found
        if gain < 1e-4 * (1 - fidelity) or 1 - fidelity < _LEVEL or fidelity >= enough:
            break
    return gates, fidelity


def _best(state: Matrices, after: Matrices, gate: PairGate, wires: int) -> PairGate:
    """Return the gate that takes one state nearest to another."""
    a, b, _ = gate
    at = _places(wires, a, b)
    left, _, right = np.linalg.svd(after[at] @ state[at].conj().T)
    matrix = left @ right
    if not np.iscomplexobj(matrix) and np.linalg.det(matrix) < 0:
        # The least singular value costs least.
        left[:, 3] *= -1
        matrix = left @ right
    return a, b, matrix
