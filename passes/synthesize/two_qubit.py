"""consolidate-two-qubit: blocks on two qubits with the fewest CX gates, at most three."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.passes.reduce.euler import Basis
from qcomp.passes.reduce.leaves import Leaf, Phase, rewrite_leaves
from qcomp.passes.synthesize.blocks import (
    TWO,
    Index,
    Matrices,
    Wires,
    collect_blocks,
    gate_matrices,
    kinds,
    ordered_products,
    oriented,
    wires_of,
)
from qcomp.passes.synthesize.cx_circuits import (
    PAULIS,
    CxCircuits,
    free_of_slack,
    mirrored,
    restored,
    write,
)
from qcomp.passes.synthesize.weyl import Weyl, kron, weyl
from qcomp.passes.synthesize.words import HUGE, Prices, Words, Writer, cx_of_gate, eighths
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["ConsolidateTwoQubit"]

_NAMED = ("x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "sxdg", "rz")
_TURNING = ("rx", "ry", "u")
_HAS_TURNING = np.isin(np.arange(len(GATES)), [G.P, G.RX, G.RY, G.U, G.R])
_BLOCK_ERROR = 5e-13
"""Rounding of a block's decomposition at most; angles that snap to fractions add half as much."""
_SNAP = 5e-14
_GRID = 4096
"""A phase this near to a multiple of pi / 4096 becomes exact, as angles do."""
_ROUNDS = 64
"""Rounds at most; each makes the circuit cheaper, so few are needed."""


@dataclass(frozen=True, slots=True)
class _Blocks:
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


def consolidate_run(
    run: Run, forms: Forms, num_qubits: int, prices: Prices, allowance: float = 1e-9
) -> tuple[Leaf, float]:
    """Replace the blocks of a run that become cheaper; the same run comes back when none does.

    Args:
        run: The run.
        forms: The circuit's forms.
        num_qubits: Wires of the circuit.
        prices: What gates cost.
        allowance: Rounding that the decompositions may add, operator norm.

    Returns:
        (the run, the forms, the phase), and a bound on the rounding in operator norm.
    """
    nothing: tuple[Leaf, float] = (run, forms, Phase()), 0.0
    kind = kinds(run)
    if np.count_nonzero(kind == TWO) < 2:
        return nothing
    owner, count = collect_blocks(run, kind, num_qubits)
    two = np.flatnonzero(kind == TWO)
    sizes = np.bincount(owner[two], minlength=count)
    if sizes.max(initial=0) < 2:
        return nothing
    run, kind, owner = _together(run, kind, owner, two)
    chains = wires_of(run, kind)
    plain = prices.words(chains.matrix)
    blocks = _blocks(run, kind, owner, sizes, chains, plain, prices)
    plan = _plan(blocks, chains, plain, prices)
    chosen = plan.accept(blocks, plain, allowance)
    if not len(chosen):
        return nothing
    new, phase, error = _rebuild(run, chains, blocks, plan, chosen, prices)
    return (new, forms, phase), error


def _together(
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


def _blocks(
    run: Run,
    kind: NDArray[np.int8],
    owner: NDArray[np.int32],
    sizes: NDArray[np.int64],
    chains: Wires,
    plain: Words,
    prices: Prices,
) -> _Blocks:
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
    cost = (prices.two_qubit + prices.gate) * cx_of_gate()[code]
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
    return _Blocks(
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


@dataclass(frozen=True, slots=True)
class _Plan:
    """The best circuit of each block, and what its neighbours' choice makes of the chains.

    Attributes:
        circuits: One of each block.
        middle: Words of ``circuits.middle``, row 4 * block + 2 * layer + qubit.
        cost: float64[c], of the CX gates and the words between them.
        error: float64[c], Frobenius norm of what rounding changes.
        phase: float64[c], global phase that the circuit lacks.
        owner_before, owner_after: int64[s], the block that a chain comes before or after, -1 none.
        chain_left: float64[s], cost of a chain with the new gates of the block that it comes after.
        chain_right: float64[s], with those of the block that it comes before.
        chain_both: float64[s], with both.
    """

    circuits: CxCircuits
    middle: Words
    cost: NDArray[np.float64]
    error: NDArray[np.float64]
    phase: NDArray[np.float64]
    owner_before: Index
    owner_after: Index
    chain_left: NDArray[np.float64]
    chain_right: NDArray[np.float64]
    chain_both: NDArray[np.float64]

    def accept(self, blocks: _Blocks, plain: Words, allowance: float) -> Index:
        """Return the blocks to replace: those that gain, given what their neighbours do.

        All are taken at first; those that lose are given up until none does. What two of them gain
        on the chain between them is shared equally, so the gains add up to what the run gains.
        """
        taken = (self.circuits.count <= blocks.two) & (self.error <= _BLOCK_ERROR)
        taken &= np.cumsum(self.error) <= allowance
        taken &= self.cost < HUGE
        while taken.any():
            gain = np.where(taken, blocks.cost - self.cost, 0.0)
            for chain, other, alone in (
                (blocks.before, self.owner_after, self.chain_right),
                (blocks.after, self.owner_before, self.chain_left),
            ):
                neighbour = other[chain]
                shared = (neighbour >= 0) & taken[neighbour]
                with_it = (plain.cost[chain] - self.chain_both[chain]) / 2
                without = plain.cost[chain] - alone[chain]
                gain += np.where(shared, with_it, without).sum(axis=1)
            losing = taken & (gain <= 1e-6)
            if not losing.any():
                break
            taken &= ~losing
        return np.flatnonzero(taken)


def _plan(blocks: _Blocks, chains: Wires, plain: Words, prices: Prices) -> _Plan:
    """Write every block with the fewest CX gates and find the cheapest gates at its ends.

    The qubits may change roles, and Paulis on each may pass through the block.
    """
    n = len(blocks.start)
    rows = np.arange(n)
    # What would move from another chain into a block of Clifford and T gates is not for it.
    usable = blocks.exact_before.all(axis=1) | ~blocks.exact
    ends = [
        np.where(usable[:, None, None], chains.matrix[blocks.before[:, j]], np.eye(2))
        for j in range(2)
    ]
    point = free_of_slack(weyl(blocks.unitary), *ends)
    role, a, b, right, left = _cheapest_ends(point, blocks, chains, prices)
    point = mirrored(point, a, b)
    circuits = write(point, prices.middle)
    both_roles = [np.concatenate(pair) for pair in _fields(circuits, circuits.turned())]
    circuits = CxCircuits(*both_roles).take(role * n + rows).around(point)

    owner_before, owner_after = (np.full(len(chains.matrix), -1, dtype=np.int64) for _ in range(2))
    owner_before[blocks.before] = owner_after[blocks.after] = rows[:, None]
    chain_left, chain_right = plain.cost.copy(), plain.cost.copy()
    chain_left[blocks.after], chain_right[blocks.before] = left, right
    both = np.flatnonzero((owner_before >= 0) & (owner_after >= 0))
    owners = owner_before, owner_after
    joined = _chain_matrices(chains, blocks, circuits, owners, both, np.ones(n, dtype=bool))
    parts = [circuits.middle.reshape(-1, 2, 2), joined]
    if blocks.exact.any():
        parts += [circuits.left.reshape(-1, 2, 2), circuits.right.reshape(-1, 2, 2)]
    words = prices.words(np.concatenate(parts))
    middle, words = words.take(np.arange(4 * n)), words.take(np.arange(4 * n, len(words.cost)))
    cost: NDArray[np.float64] = middle.cost.reshape(n, 4).sum(axis=1)
    cost = cost + (prices.two_qubit + prices.gate) * circuits.count.astype(np.float64)
    chain_both = plain.cost.copy()
    exact = blocks.exact[owner_before[both]] & blocks.exact[owner_after[both]]
    inexact = ~words.exact[: len(both)]
    chain_both[both] = np.where(exact & inexact, HUGE, words.cost[: len(both)])
    if blocks.exact.any():
        fine = middle.exact.reshape(n, 4).all(axis=1)
        fine &= words.exact[len(both) :].reshape(2, n, 2).all(axis=(0, 2))
        cost = np.where(blocks.exact & ~fine, HUGE, cost)
    product = circuits.unitary()
    overlap = np.einsum("nij,nij->n", product.conj(), blocks.unitary)
    product *= (overlap / np.abs(overlap))[:, None, None]
    error = np.sqrt((np.abs(blocks.unitary - product) ** 2).sum(axis=(1, 2)))
    return _Plan(
        circuits,
        middle,
        cost,
        error,
        np.angle(overlap),
        owner_before,
        owner_after,
        chain_left,
        chain_right,
        chain_both,
    )


def _fields(one: CxCircuits, other: CxCircuits) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    return [(getattr(one, f.name), getattr(other, f.name)) for f in fields(CxCircuits)]


_PAIRS = np.stack(np.divmod(np.arange(16), 4))
"""Paulis on two qubits."""


def _cheapest_ends(
    point: Weyl, blocks: _Blocks, chains: Wires, prices: Prices
) -> tuple[Index, Index, Index, NDArray[np.float64], NDArray[np.float64]]:
    """Choose roles and Paulis so that the chains at the ends of each block cost least.

    Returns:
        (1 where the qubits change roles, the Pauli on a, that on b, costs of the chains before
        and after as float64[c, 2]).
    """
    n = len(point.x)
    circuits = write(point, prices.middle)
    roles = (circuits, circuits.turned())
    left = np.stack([c.left for c in roles])[:, :, :, None]
    right = np.stack([c.right for c in roles])[:, :, :, None]
    own = np.stack([point.la, point.lb], axis=1)[:, :, None] @ PAULIS
    after = chains.matrix[blocks.after][:, :, None] @ own @ left
    own = PAULIS @ np.stack([point.ra, point.rb], axis=1)[:, :, None]
    before = right @ own @ chains.matrix[blocks.before][:, :, None]
    words = prices.words(np.concatenate([after, before]).reshape(-1, 2, 2))
    # cost[side, role, block, qubit, pauli]
    cost = words.cost.reshape(2, 2, n, 2, 4)
    exact = np.stack([blocks.exact_after, blocks.exact_before])[:, None, :, :, None]
    cost = np.where(exact & ~words.exact.reshape(cost.shape), HUGE, cost)
    a, b = _PAIRS
    again = restored(point, np.broadcast_to(a ^ b, (n, 16)))
    rows = np.arange(n)[:, None]
    total = cost[0, :, :, 0][:, :, a] + cost[0, :, :, 1][:, :, b]
    total = total + cost[1, :, rows, 0, a ^ again].transpose(2, 0, 1)
    total = total + cost[1, :, rows, 1, b ^ again].transpose(2, 0, 1)
    best = total.transpose(1, 0, 2).reshape(n, 32).argmin(axis=1)
    role, pair = np.divmod(best, 16)
    rows = np.arange(n)
    a, b, back = a[pair], b[pair], again[rows, pair]
    cost_after = np.stack([cost[0, role, rows, 0, a], cost[0, role, rows, 1, b]], axis=1)
    cost_before = np.stack(
        [cost[1, role, rows, 0, a ^ back], cost[1, role, rows, 1, b ^ back]], axis=1
    )
    return role, a, b, cost_before, cost_after


def _chain_matrices(
    chains: Wires,
    blocks: _Blocks,
    circuits: CxCircuits,
    owners: tuple[Index, Index],
    index: Index,
    taken: NDArray[np.bool_],
) -> Matrices:
    """Return the chains at ``index`` with what the blocks that are taken add to them."""
    matrix = chains.matrix[index]
    before, after = owners
    for owner, ends, gates, later in (
        (after, blocks.after, circuits.left, False),
        (before, blocks.before, circuits.right, True),
    ):
        mine = owner[index]
        rows = np.flatnonzero((mine >= 0) & taken[mine])
        block = mine[rows]
        qubit = (ends[block, 1] == index[rows]).astype(np.int64)
        own = gates[block, qubit]
        matrix[rows] = own @ matrix[rows] if later else matrix[rows] @ own
    return matrix


def _rebuild(
    run: Run, chains: Wires, blocks: _Blocks, plan: _Plan, chosen: Index, prices: Prices
) -> tuple[Run, Phase, float]:
    """Put the new circuits of the chosen blocks, and the chains at their ends, into the run."""
    n = len(run)
    taken = np.zeros(len(blocks.start), dtype=bool)
    taken[chosen] = True
    index = np.unique(np.concatenate([blocks.before[chosen].ravel(), blocks.after[chosen].ravel()]))
    owners = plan.owner_before, plan.owner_after
    matrix = _chain_matrices(chains, blocks, plan.circuits, owners, index, taken)
    ends = prices.words(matrix)
    error = float(plan.error[chosen].sum() + ends.error(matrix).sum())
    inside = (4 * chosen[:, None] + np.arange(4)).ravel()
    middle = plan.circuits.middle.reshape(-1, 2, 2)
    error += float(plan.middle.error(middle)[inside].sum())

    gone = np.zeros(len(taken) and int(blocks.owner.max()) + 1, dtype=bool)
    gone[blocks.label[chosen]] = True
    drop = (blocks.owner >= 0) & gone[blocks.owner] & (NUM_QUBITS[run.code] == 2)
    rewritten = np.zeros(len(chains.matrix), dtype=bool)
    rewritten[index] = True
    inner = (blocks.owner >= 0) & gone[blocks.owner] & (chains.chain >= 0)
    drop |= inner | ((chains.chain >= 0) & rewritten[chains.chain])

    writer = Writer(n)
    # A chain is written before the block that it leads to, else after the one that it follows.
    leads = plan.owner_before[index]
    leads = np.where((leads >= 0) & taken[leads], leads, -1)
    block = np.where(leads >= 0, leads, plan.owner_after[index])
    at = np.where((leads >= 0)[:, None], blocks.before[block], blocks.after[block])
    qubit = (at[:, 1] == index).astype(np.int64)
    wire = run.qubit[blocks.first[block], qubit]
    writer.chains(ends.spelling, blocks.start[block], np.where(leads >= 0, 0, 9), wire)
    for k in range(3):
        rows = chosen[plan.circuits.count[chosen] > k]
        control = plan.circuits.control[rows, k]
        pair = run.qubit[blocks.first[rows]]
        here = np.arange(len(rows))
        writer.cx(blocks.start[rows], 1 + 3 * k, pair[here, control], pair[here, 1 - control])
        for j in range(2 if k < 2 else 0):
            rows = chosen[plan.circuits.count[chosen] > k + 1]
            words = plan.middle.spelling.take(4 * rows + 2 * k + j)
            wire = run.qubit[blocks.first[rows], j]
            writer.chains(words, blocks.start[rows], np.full(len(rows), 2 + 3 * k + j), wire)
    new = writer.run(run, ~drop)
    frac, rem = writer.phase
    turns = np.rint(plan.phase[chosen] * (_GRID / np.pi))
    near = np.abs(plan.phase[chosen] - turns * (np.pi / _GRID)) < _SNAP
    frac += int(turns[near].sum()) * (PI // _GRID)
    rem += float(plan.phase[chosen][~near].sum())
    return new, Phase(frac, rem), error


@dataclass(frozen=True)
class ConsolidateTwoQubit(CircuitPass):
    """``G_m ... G_1 = exp(i phi) (L_b x L_a) C (R_b x R_a)`` on two qubits, C of at most 3 CX.

    All gates on a pair of qubits that can be brought together, by the axes along which gates
    commute, are one block. Its Cartan decomposition ``exp(i (x XX + y YY + z ZZ))`` says how few CX
    gates it takes: none at the origin, one at (pi/4, 0, 0), two where y = 0, else three; generic
    blocks take 4, 5 rotations between and at most 12 at the ends, where they meet those of the
    next block. Blocks are replaced where that makes the run cheaper.

    Options: ``basis``, the one-qubit gates, as of fuse-one-qubit; ``own`` is Clifford+T with rz,
    and rx, ry, u where a run has one. ``two_qubit``, ``rotation``, ``gate``: prices of a CX gate
    (other two-qubit gates cost the CX gates that they take), of a rotation that is not Clifford,
    and of any gate.

    Preconditions: none. Gates with symbols, measurements, resets and barriers stay where they are;
    a block goes on past a symbol that its later gates commute with.

    Preserves: the unitary to float64 rounding, at most 1e-12 a block, global phase included. A
    block of Clifford and T gates is replaced by such gates or not at all. Neither the CX gates
    that the circuit takes nor its two-qubit gates get more.

    Cost: linear but for two sorts; some microseconds a block.

    Source: Zhang, Vala, Sastry, Whaley 2003 (arXiv:quant-ph/0209120); Shende, Bullock, Markov 2003
    (arXiv:quant-ph/0308045); Vatan, Williams 2003 (arXiv:quant-ph/0308006), figure 6.
    """

    name: ClassVar[str] = "consolidate-two-qubit"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    basis: str = "own"
    two_qubit: float = 8.0
    rotation: float = 1.0
    gate: float = 1.0

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with blocks replaced; the same object when none got cheaper.

        Raises:
            UsageError: If the basis names something that is no one-qubit gate.
        """
        fixed = None if self.basis == "own" else Basis.parse(self.basis)
        spent = 0.0

        def rewrite(run: Run, forms: Forms) -> Leaf:
            nonlocal spent
            turning = bool(_HAS_TURNING[run.code].any())
            own = "-".join((*_NAMED, *_TURNING) if turning else _NAMED)
            prices = Prices(fixed or Basis.parse(own), self.two_qubit, self.rotation, self.gate)
            allowance = (context.ledger.numeric_limit - context.ledger.numeric_spent - spent) / 2
            leaf, error = consolidate_run(run, forms, circuit.num_qubits, prices, allowance)
            spent += error
            return leaf

        for _ in range(_ROUNDS):
            before = circuit
            circuit = rewrite_leaves(circuit, rewrite)
            if circuit is before:
                break
        if spent:
            context.ledger.spend_numeric(self.name, spent)
        return circuit
