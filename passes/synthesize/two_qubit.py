"""consolidate-two-qubit: blocks on two qubits with the fewest gates of one kind, at most three."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError, suggest
from qcomp.ir.angle import PI
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import BY_NAME, GATES, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.passes.reduce.euler import Basis, snapped
from qcomp.passes.reduce.leaves import Leaf, Phase, rewrite_leaves
from qcomp.passes.synthesize.blocks import (
    TWO,
    Index,
    Matrices,
    Wires,
    collect_blocks,
    kinds,
    wires_of,
)
from qcomp.passes.synthesize.cx_circuits import (
    PAULIS,
    PairCircuits,
    free_of_slack,
    mirrored,
    restored,
)
from qcomp.passes.synthesize.pair_blocks import PairBlocks, pair_blocks, together
from qcomp.passes.synthesize.pair_circuits import PAIR_GATES, write_pair
from qcomp.passes.synthesize.weyl import Weyl, weyl
from qcomp.passes.synthesize.words import HUGE, Costs, Prices, Writer
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["ConsolidateTwoQubit"]

_NAMED = ("x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "sxdg", "rz")
_TURNING = ("rx", "ry", "u")
_HAS_TURNING = np.isin(np.arange(len(GATES)), [G.P, G.RX, G.RY, G.U, G.R])
_BLOCK_ERROR = 5e-13
"""Rounding of a block's decomposition at most; angles that snap to fractions add half as much."""
_ROUNDS = 64
"""Rounds at most; each makes the circuit cheaper, so few are needed."""


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
    run, kind, owner = together(run, kind, owner, two)
    chains = wires_of(run, kind)
    plain = prices.costs(chains.matrix)
    blocks = pair_blocks(run, kind, owner, sizes, chains, plain, prices)
    plan = _plan(blocks, chains, plain, prices)
    chosen = plan.accept(blocks, plain, allowance)
    if not len(chosen):
        return nothing
    new, phase, error = _rebuild(run, chains, blocks, plan, chosen, prices)
    return (new, forms, phase), error


@dataclass(frozen=True, slots=True)
class _Plan:
    """The best circuit of each block, and what its neighbours' choice makes of the chains.

    Attributes:
        circuits: One of each block.
        cost: float64[c], of the two-qubit gates and the words between them.
        error: float64[c], Frobenius norm of what rounding changes.
        phase: float64[c], global phase that the circuit lacks.
        owner_before, owner_after: int64[s], the block that a chain comes before or after, -1 none.
        chain_left: float64[s], cost of a chain with the new gates of the block that it comes after.
        chain_right: float64[s], with those of the block that it comes before.
        chain_both: float64[s], with both.
    """

    circuits: PairCircuits
    cost: NDArray[np.float64]
    error: NDArray[np.float64]
    phase: NDArray[np.float64]
    owner_before: Index
    owner_after: Index
    chain_left: NDArray[np.float64]
    chain_right: NDArray[np.float64]
    chain_both: NDArray[np.float64]

    def accept(self, blocks: PairBlocks, plain: Costs, allowance: float) -> Index:
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


def _plan(blocks: PairBlocks, chains: Wires, plain: Costs, prices: Prices) -> _Plan:
    """Write every block with the fewest gates and find the cheapest gates at its ends.

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
    circuits = write_pair(point, prices.middle, prices.pair).turned(role == 1).around(point)

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
    words = prices.costs(np.concatenate(parts))
    middle, words = words.take(np.arange(4 * n)), words.take(np.arange(4 * n, len(words.cost)))
    cost: NDArray[np.float64] = middle.cost.reshape(n, 4).sum(axis=1)
    cost = cost + (prices.two_qubit + prices.gate) * circuits.count.astype(np.float64)
    chain_both = plain.cost.copy()
    exact = blocks.exact[owner_before[both]] & blocks.exact[owner_after[both]]
    inexact = ~words.exact[: len(both)]
    chain_both[both] = np.where(exact & inexact, HUGE, words.cost[: len(both)])
    if blocks.exact.any():
        fine = middle.exact.reshape(n, 4).all(axis=1)
        fine &= (snapped(circuits.angle)[0] % (PI // 4) == 0).all(axis=1)
        fine &= (snapped(circuits.angle)[1] == 0).all(axis=1)
        fine &= words.exact[len(both) :].reshape(2, n, 2).all(axis=(0, 2))
        cost = np.where(blocks.exact & ~fine, HUGE, cost)
    product = circuits.unitary()
    overlap = np.einsum("nij,nij->n", product.conj(), blocks.unitary)
    product *= (overlap / np.abs(overlap))[:, None, None]
    error = np.sqrt((np.abs(blocks.unitary - product) ** 2).sum(axis=(1, 2)))
    return _Plan(
        circuits,
        cost,
        error,
        np.angle(overlap),
        owner_before,
        owner_after,
        chain_left,
        chain_right,
        chain_both,
    )


_PAIRS = np.stack(np.divmod(np.arange(16), 4))
"""Paulis on two qubits."""


def _cheapest_ends(
    point: Weyl, blocks: PairBlocks, chains: Wires, prices: Prices
) -> tuple[Index, Index, Index, NDArray[np.float64], NDArray[np.float64]]:
    """Choose roles and Paulis so that the chains at the ends of each block cost least.

    Returns:
        (1 where the qubits change roles, the Pauli on a, that on b, costs of the chains before
        and after as float64[c, 2]).
    """
    n = len(point.x)
    circuits = write_pair(point, prices.middle, prices.pair)
    left, right = (
        np.stack([gates, gates[:, ::-1]])[:, :, :, None]
        for gates in (circuits.left, circuits.right)
    )
    own = np.stack([point.la, point.lb], axis=1)[:, :, None] @ PAULIS
    after = chains.matrix[blocks.after][:, :, None] @ own @ left
    own = PAULIS @ np.stack([point.ra, point.rb], axis=1)[:, :, None]
    before = right @ own @ chains.matrix[blocks.before][:, :, None]
    words = prices.costs(np.concatenate([after, before]).reshape(-1, 2, 2))
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
    blocks: PairBlocks,
    circuits: PairCircuits,
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
    run: Run, chains: Wires, blocks: PairBlocks, plan: _Plan, chosen: Index, prices: Prices
) -> tuple[Run, Phase, float]:
    """Put the new circuits of the chosen blocks, and the chains at their ends, into the run."""
    n = len(run)
    taken = np.zeros(len(blocks.start), dtype=bool)
    taken[chosen] = True
    index = np.unique(np.concatenate([blocks.before[chosen].ravel(), blocks.after[chosen].ravel()]))
    owners = plan.owner_before, plan.owner_after
    matrix = _chain_matrices(chains, blocks, plan.circuits, owners, index, taken)
    inside = (4 * chosen[:, None] + np.arange(4)).ravel()
    middle = plan.circuits.middle.reshape(-1, 2, 2)[inside]
    spelled, off = prices.spell(np.concatenate([matrix, middle]))
    error = float(plan.error[chosen].sum() + off[: len(index)].sum())
    error += float(off[len(index) :].sum())

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
    writer.chains(
        spelled.take(np.arange(len(index))), blocks.start[block], np.where(leads >= 0, 0, 9), wire
    )
    code = BY_NAME[prices.pair].code
    for k in range(3):
        rows = chosen[plan.circuits.count[chosen] > k]
        control = plan.circuits.control[rows, k]
        pair = run.qubit[blocks.first[rows]]
        here = np.arange(len(rows))
        angle = snapped(plan.circuits.angle[rows, k])
        ends_of = pair[here, control], pair[here, 1 - control]
        writer.pairs(code, blocks.start[rows], 1 + 3 * k, *ends_of, angle)
        for j in range(2 if k < 2 else 0):
            more = np.flatnonzero(plan.circuits.count[chosen] > k + 1)
            rows = chosen[more]
            words = spelled.take(len(index) + 4 * more + 2 * k + j)
            wire = run.qubit[blocks.first[rows], j]
            writer.chains(words, blocks.start[rows], np.full(len(rows), 2 + 3 * k + j), wire)
    new = writer.run(run, ~drop)
    frac, rem = writer.phase
    exact, rest = snapped(plan.phase[chosen])
    frac += int(exact.sum(dtype=np.int64))
    return new, Phase(frac, rem + float(rest.sum())), error


@dataclass(frozen=True)
class ConsolidateTwoQubit(CircuitPass):
    """``G_m ... G_1 = exp(i phi) (L_b x L_a) C (R_b x R_a)``, C of at most 3 gates on two qubits.

    All gates on a pair of qubits that can be brought together, by the axes along which gates
    commute, are one block. Its Cartan decomposition ``exp(i (x XX + y YY + z ZZ))`` says how few CX
    gates it takes: none at the origin, one at (pi/4, 0, 0), two where y = 0, else three; generic
    blocks take 4, 5 rotations between and at most 12 at the ends, where they meet those of the
    next block. Of ``rzz`` it takes one for each coordinate that is not 0, of iSWAP as many as of CX
    but one at (pi/4, pi/4, 0) and two for a CX, of its square root two where ``|z| <= x - y`` and
    three else. Blocks are replaced where that makes the run cheaper.

    Options: ``basis``, the one-qubit gates, as of fuse-one-qubit; ``own`` is Clifford+T with rz,
    and rx, ry, u where a run has one. ``two_qubit``, ``rotation``, ``gate``: prices of a CX gate
    (other two-qubit gates cost the CX gates that they take), of a rotation that is not Clifford,
    and of any gate. ``pair``: ``cx``, ``rzz``, ``iswap`` or ``siswap``, the gate to write.

    Preconditions: none. Gates with symbols, measurements, resets and barriers stay where they are;
    a block goes on past a symbol that its later gates commute with.

    Preserves: the unitary to float64 rounding, at most 1e-12 a block, global phase included. A
    block of Clifford and T gates is replaced by such gates or not at all. Neither the gates of the
    kind to write that the circuit takes nor its two-qubit gates get more.

    Cost: linear but for two sorts; some microseconds a block.

    Source: Zhang, Vala, Sastry, Whaley 2003 (arXiv:quant-ph/0209120); Shende, Bullock, Markov 2003
    (arXiv:quant-ph/0308045); Vatan, Williams 2003 (arXiv:quant-ph/0308006), figure 6; Huang et
    al. 2021 (arXiv:2105.06074).
    """

    name: ClassVar[str] = "consolidate-two-qubit"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    basis: str = "own"
    two_qubit: float = 8.0
    rotation: float = 1.0
    gate: float = 1.0
    pair: str = "cx"

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with blocks replaced; the same object when none got cheaper.

        Raises:
            UsageError: If the basis names something that is no one-qubit gate, or blocks are not
                written in the gate that ``pair`` names.
        """
        if self.pair not in PAIR_GATES:
            raise UsageError(
                f"blocks are not written in '{self.pair}'", hint=suggest(self.pair, PAIR_GATES)
            )
        fixed = None if self.basis == "own" else Basis.parse(self.basis)
        spent = 0.0

        def rewrite(run: Run, forms: Forms) -> Leaf:
            nonlocal spent
            turning = bool(_HAS_TURNING[run.code].any())
            own = "-".join((*_NAMED, *_TURNING) if turning else _NAMED)
            basis = fixed or Basis.parse(own)
            prices = Prices(basis, self.two_qubit, self.rotation, self.gate, self.pair)
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
