"""Blocks of two and more two-qubit gates on a pair: their matrices and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.run import Run
from qcomp.passes.synthesize.blocks import (
    TWO,
    Index,
    Matrices,
    Wires,
    gate_matrices,
    ordered_products,
    oriented,
)
from qcomp.passes.synthesize.pair_circuits import pairs_of_gate
from qcomp.passes.synthesize.weyl import kron
from qcomp.passes.synthesize.words import Costs, Prices, eighths

__all__ = ["PairBlocks", "pair_blocks", "together"]


@dataclass(frozen=True, slots=True)
class PairBlocks:
    """c blocks of two and more two-qubit gates, in a run where each stands together.

    Attributes:
        start: int64[c], the block's first operation.
        first: int64[c], its first two-qubit gate.
        label: int64[c], its number in ``owner``.
        owner: int32[n], the block of each operation.
        before, after: int64[c, 2], the chains at its ends on its qubits.
        unitary: complex128[c, 4, 4], its two-qubit gates and all between them.
        cost: float64[c], what these cost.
        two: int64[c], how many two-qubit gates it has.
        exact: bool[c], whether all its angles are multiples of pi/4.
        exact_before, exact_after: bool[c, 2], whether those of a chain at its end are, too.
    """

    start: Index
    first: Index
    label: Index
    owner: NDArray[np.int32]
    before: Index
    after: Index
    unitary: Matrices
    cost: NDArray[np.float64]
    two: NDArray[np.int64]
    exact: NDArray[np.bool_]
    exact_before: NDArray[np.bool_]
    exact_after: NDArray[np.bool_]


def together(
    run: Run, kind: NDArray[np.int8], owner: NDArray[np.int32], two: Index
) -> tuple[Run, NDArray[np.int8], NDArray[np.int32]]:
    """Move the gates of each block to where its first two-qubit gate stands."""
    place = np.arange(len(run))
    head = np.full(int(owner.max(initial=-1)) + 1, len(run))
    np.minimum.at(head, owner[two], two)
    inside = owner >= 0
    place[inside] = head[owner[inside]]
    order = np.argsort(place, kind="stable")
    if not np.array_equal(order, np.arange(len(run))):
        run, kind, owner = run.select(order), kind[order], owner[order]
    return run, kind, owner


def pair_blocks(
    run: Run,
    kind: NDArray[np.int8],
    owner: NDArray[np.int32],
    sizes: NDArray[np.int64],
    chains: Wires,
    plain: Costs,
    prices: Prices,
) -> PairBlocks:
    """Multiply out the blocks that have two and more two-qubit gates."""
    two = np.flatnonzero(kind == TWO)
    two = two[sizes[owner[two]] >= 2]
    two = two[np.argsort(owner[two], kind="stable")]
    label, head, size = np.unique(
        owner[two].astype(np.int64), return_index=True, return_counts=True
    )
    first, last = two[head], two[head + size - 1]
    inner = np.ones(len(two), dtype=bool)
    inner[head] = False
    a = np.repeat(run.qubit[first, 0], size)
    turned = run.qubit[two, 0] != a
    before = np.where(turned[:, None], chains.before[two][:, ::-1], chains.before[two])
    step = oriented(gate_matrices(run, two), turned)
    ends = before[inner]
    step[inner] = step[inner] @ kron(chains.matrix[ends[:, 1]], chains.matrix[ends[:, 0]])
    code = run.code[two]
    cost = (prices.two_qubit + prices.gate) * pairs_of_gate(prices.pair)[code]
    cost[inner] += plain.cost[before[inner]].sum(axis=1)
    exact = eighths(run)
    chain_exact = np.ones(len(chains.matrix), dtype=bool)
    some = chains.chain >= 0
    np.logical_and.at(chain_exact, chains.chain[some], exact[some])
    fine = exact[two].copy()
    fine[inner] &= chain_exact[before[inner]].all(axis=1)
    flip = (run.qubit[last, 0] != run.qubit[first, 0])[:, None]
    start = np.full(int(owner.max()) + 1, len(run))
    np.minimum.at(start, owner[owner >= 0], np.flatnonzero(owner >= 0))
    after = np.where(flip, chains.after[last][:, ::-1], chains.after[last])
    fine = np.logical_and.reduceat(fine, head)
    return PairBlocks(
        start[label],
        first,
        label,
        owner,
        before[head],
        after,
        ordered_products(step, head),
        np.add.reduceat(cost, head),
        size,
        fine,
        fine[:, None] & chain_exact[before[head]],
        fine[:, None] & chain_exact[after],
    )
