"""Blocks on two qubits as routing sees them: what they cost and what they commute with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import snap_array
from qcomp.ir.gates import AXIS, GATES, NUM_ANGLES, G
from qcomp.ir.run import Run
from qcomp.passes.synthesize.blocks import (
    TWO,
    Matrices,
    gate_matrices,
    ordered_products,
    oriented,
    wires_of,
)
from qcomp.passes.synthesize.weyl import cx_counts_with_swap, kron
from qcomp.passes.synthesize.words import cx_of_gate

__all__ = ["Interactions", "as_swaps"]

Int32 = NDArray[np.int32]

_TOLERANCE = 1e-9
"""Largest entry of a commutator that counts as zero."""

_SWAP: Matrices = np.eye(4, dtype=complex)[[0, 2, 1, 3]]


@dataclass(frozen=True, slots=True)
class Interactions:
    """c blocks: their qubits, axes (int8[c, 2]), costs, and whether they have parameters."""

    qubit: Int32
    axis: NDArray[np.int8]
    plain: Int32
    swapped: Int32
    bridgeable: NDArray[np.bool_]
    symbolic: NDArray[np.bool_]

    @staticmethod
    def of(
        run: Run, bound: Run, kind: NDArray[np.int8], item_of: Int32, first: NDArray[np.intp]
    ) -> Interactions:
        """Look at the blocks; ``first`` is the first two-qubit gate of each."""
        total = len(first)
        two = np.flatnonzero(kind == TWO)
        size = np.bincount(item_of[two], minlength=total)
        inside = np.bincount(item_of[item_of >= 0], minlength=total)
        code = run.code[first]
        qubit = bound.qubit[first, :2]
        alone = (inside == 1) & (NUM_ANGLES[code] == 0)
        axis = AXIS[code][:, :2].copy()
        plain, swapped = (_costs()[row][code] for row in range(2))
        rest = np.flatnonzero(~alone)
        if len(rest):
            matrix = _unitaries(bound, kind, item_of, two, rest, total)
            axis[rest] = _axes(matrix)
            plain[rest], swapped[rest] = cx_counts_with_swap(matrix)
        symbolic = _as_written(run, item_of, two, plain, swapped)
        bridgeable = (size == 1) & (code == G.CX)
        return Interactions(
            qubit, axis, plain.astype(np.int32), swapped.astype(np.int32), bridgeable, symbolic
        )


def _as_written(
    run: Run,
    item_of: Int32,
    two: NDArray[np.intp],
    plain: NDArray[np.int64],
    swapped: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Put in the costs of blocks with parameters, which stay as they are written; say which.

    A swap then takes one CX gate more where the block ends in one that cancels with it.
    """
    free = np.zeros(len(run), dtype=bool)
    counts = NUM_ANGLES[run.code]
    for k in range(int(counts.max(initial=0))):
        has = counts > k
        free[has] |= run.form[run.angle[has] + k] >= 0
    some = np.unique(item_of[free & (item_of >= 0)])
    symbolic = np.zeros(len(plain), dtype=bool)
    symbolic[some] = True
    if not len(some):
        return symbolic
    written = np.bincount(item_of[two], cx_of_gate()[run.code[two]], minlength=len(plain))
    last = np.zeros(len(plain), dtype=np.int64)
    inside = np.flatnonzero(item_of >= 0)
    np.maximum.at(last, item_of[inside], inside)
    plain[some] = written[some]
    ends = run.code[last[some]] == G.CX
    swapped[some] = plain[some] + np.where(ends, 1, 3)
    return symbolic


def as_swaps(
    bound: Run,
    kind: NDArray[np.int8],
    item_of: Int32,
    two: NDArray[np.intp],
    blocks: NDArray[np.intp],
) -> tuple[Callable[[Run], Run], float]:
    """Return what writes blocks ``U = exp(i phase) SWAP (L_b x L_a)`` so, and the phase of all."""
    total = int(item_of.max()) + 1
    matrix = _SWAP @ _unitaries(bound, kind, item_of, two, blocks, total)
    tensor = matrix.reshape(-1, 2, 2, 2, 2)
    rows = np.arange(len(blocks))
    largest = np.abs(matrix).reshape(len(blocks), -1).argmax(axis=1)
    i, j, k, m = np.unravel_index(largest, (2, 2, 2, 2))
    on_b = tensor[rows, :, j, :, m]
    on_a = tensor[rows, i, :, k, :]
    phase = 0.0
    angles = np.zeros((len(blocks), 2, 3))
    for side, local in enumerate((on_a, on_b)):
        local /= np.sqrt(np.linalg.det(local) + 0j)[:, None, None]
        angles[:, side] = _euler(local)
    u = GATES[G.U]
    for n in range(len(blocks)):
        made = np.kron(u.matrix(*angles[n, 1]), u.matrix(*angles[n, 0]))
        phase += float(np.angle(np.vdot(made, matrix[n])))
    first = np.full(total, len(item_of))
    np.minimum.at(first, item_of[item_of >= 0], np.flatnonzero(item_of >= 0))
    operands = bound.qubit[[int(two[item_of[two] == b][0]) for b in blocks], :2]
    gone = np.isin(item_of, blocks)
    at = first[blocks]
    code = np.tile(np.array([G.U, G.U, G.SWAP], dtype=np.uint8), len(blocks))
    qubit = np.full((len(blocks), 3, 3), -1, dtype=np.int32)
    qubit[:, 0, 0], qubit[:, 1, 0], qubit[:, 2, :2] = operands[:, 0], operands[:, 1], operands
    frac, rem = snap_array(angles.ravel())
    more = Run.of(code, qubit.reshape(-1, 3), frac, rem)
    place = np.concatenate([np.flatnonzero(~gone), np.repeat(at, 3)])
    source = np.concatenate([np.flatnonzero(~gone), len(item_of) + np.arange(3 * len(blocks))])
    order = source[np.argsort(place, kind="stable")]
    return lambda run: Run.concat([run, more]).select(order), phase


def _euler(matrix: Matrices) -> NDArray[np.float64]:
    """Return (theta, phi, lambda) of the gate ``u`` for matrices in SU(2), float64[n, 3]."""
    theta = 2 * np.arctan2(np.abs(matrix[:, 1, 0]), np.abs(matrix[:, 0, 0]))
    total = 2 * np.angle(matrix[:, 1, 1])
    difference = 2 * np.angle(matrix[:, 1, 0])
    flat, steep = np.abs(matrix[:, 1, 0]) < 1e-12, np.abs(matrix[:, 0, 0]) < 1e-12
    difference = np.where(flat, total, difference)
    total = np.where(steep, difference, total)
    return np.stack([theta, (total + difference) / 2, (total - difference) / 2], axis=1)


@functools.cache
def _costs() -> NDArray[np.int64]:
    """Return the CX gates of each gate without angles, alone and with a swap, int64[2, codes]."""
    out = np.zeros((2, len(GATES)), dtype=np.int64)
    for row in GATES:
        if row.num_qubits == 2 and not row.num_angles:
            out[:, row.code] = [counts[0] for counts in cx_counts_with_swap(row.matrix()[None])]
    return out


def _unitaries(
    run: Run,
    kind: NDArray[np.int8],
    item_of: Int32,
    two: NDArray[np.intp],
    blocks: NDArray[np.intp],
    total: int,
) -> Matrices:
    """Return the products of the two-qubit gates of blocks and all between them."""
    chosen = np.zeros(total, dtype=bool)
    chosen[blocks] = True
    two = two[chosen[item_of[two]]]
    two = two[np.argsort(item_of[two], kind="stable")]
    _, head, size = np.unique(item_of[two], return_index=True, return_counts=True)
    chains = wires_of(run, kind)
    turned = run.qubit[two, 0] != np.repeat(run.qubit[two[head], 0], size)
    step = np.empty((len(two), 4, 4), dtype=complex)
    step[:] = oriented(gate_matrices(run, two), turned)
    inner = np.ones(len(two), dtype=bool)
    inner[head] = False
    ends = np.where(turned[:, None], chains.before[two][:, ::-1], chains.before[two])[inner]
    step[inner] = step[inner] @ kron(chains.matrix[ends[:, 1]], chains.matrix[ends[:, 0]])
    return ordered_products(step, head)


def _axes(matrix: Matrices) -> NDArray[np.int8]:
    """Return the Pauli axis that each unitary commutes with on either qubit, 0 for none."""
    paulis = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    out = np.zeros((len(matrix), 2), dtype=np.int8)
    for name, pauli in enumerate(paulis, start=1):
        for side, wide in enumerate((np.kron(np.eye(2), pauli), np.kron(pauli, np.eye(2)))):
            rest = np.abs(matrix @ wide - wide @ matrix).max(axis=(1, 2))
            out[rest < _TOLERANCE, side] = name
    return out
