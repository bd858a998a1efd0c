"""What matters of a run for routing: which qubits have to meet, in which order, at what cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.gates import AXIS, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.map.interactions import Interactions, as_swaps
from qcomp.passes.map.route_kernels import EXCHANGE, ORDER, PAIR
from qcomp.passes.reduce.leaves import call
from qcomp.passes.synthesize.blocks import TWO, collect_blocks, kinds

__all__ = ["Links", "Skeleton", "skeleton_of"]

Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Links:
    """Which items each item frees, as rows of a sparse matrix.

    Attributes:
        first: int32[k + 1], where each item's entries begin.
        successor: int32[m], the items that it frees.
        waits_for: int32[k], how many items free it.
    """

    first: Int32
    successor: Int32
    waits_for: Int32

    @staticmethod
    def of(before: NDArray[np.int64], after: NDArray[np.int64], size: int) -> Links:
        """Return the links of pairs (before, after) among ``size`` items."""
        keys = np.unique(before * size + after)
        before, after = np.divmod(keys, max(size, 1))
        first = np.searchsorted(before, np.arange(size + 1)).astype(np.int32)
        waits = np.bincount(after, minlength=size).astype(np.int32)
        return Links(first, after.astype(np.int32), waits)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The items of a run that routing sees: k of them.

    Attributes:
        run: The run, each block's operations together.
        owner: int32[n], the item that each operation belongs to, -1 for those that ride along.
        anchor: int32[n], the group before whose first item an operation rides, or -1.
        ahead: int32[n], the item before which it rides, or -1. With both -1 it comes last.
        item: int32[k, 2], the virtual qubits of each item; zeros where it only orders.
        kind: int8[k], ORDER, PAIR or EXCHANGE.
        plain: int32[k], CX gates that the item takes.
        swapped: int32[k], CX gates that it takes together with a swap of its qubits.
        bridgeable: bool[k], whether it is one CX gate as it stands.
        slot_item, slot_group: int32[s], which item is a member of which group.
        forward, backward: What has to wait for what.
    """

    run: Run
    owner: Int32
    anchor: Int32
    ahead: Int32
    item: Int32
    kind: NDArray[np.int8]
    plain: Int32
    swapped: Int32
    bridgeable: NDArray[np.bool_]
    slot_item: Int32
    slot_group: Int32
    forward: Links
    backward: Links

    def interactions(self, num_qubits: int) -> NDArray[np.float64]:
        """Return how often two qubits meet, float64[n, n]."""
        out = np.zeros((num_qubits, num_qubits))
        pair = np.flatnonzero(self.kind == PAIR)
        a, b = self.item[pair].T
        np.add.at(out, (a, b), 1.0)
        return out + out.T


@kernel()
def _group(
    n: int,
    owner: Any,
    wire: Any,
    axis: Any,
    slot_first: Any,
    slot_wire: Any,
    slot_axis: Any,
    seen: Any,
    current: Any,
    common: Any,
    broken: Any,
    pending: Any,
    before: Any,
    previous: Any,
    slot_group: Any,
    anchor: Any,
    ahead: Any,
) -> int:
    """Put items that commute on a wire into groups; return how many there are.

    Per wire: current, its last group; common, the axis of all in it; broken, whether an operation
    that does not commute with it came since; pending, the last operation that waits for an item,
    a list by ``before``. previous: the group before each group on its wire.
    """
    groups = 0
    for i in range(n):
        k = owner[i]
        if k < 0:
            w = wire[i]
            if w < 0:
                continue
            before[i] = pending[w]
            pending[w] = i
            if axis[i] == 0 or axis[i] != common[w]:
                broken[w] = 1
            continue
        if seen[k]:
            continue
        seen[k] = 1
        for s in range(slot_first[k], slot_first[k + 1]):
            w = slot_wire[s]
            x = slot_axis[s]
            joins = current[w] >= 0 and x != 0 and x == common[w] and not broken[w]
            if not joins:
                previous[groups] = current[w]
                current[w] = groups
                common[w] = x
                groups += 1
            slot_group[s] = current[w]
            p = pending[w]
            while p >= 0:
                if joins:
                    ahead[p] = k
                else:
                    anchor[p] = current[w]
                p = before[p]
            pending[w] = -1
            broken[w] = 0
    return groups


def skeleton_of(
    run: Run, bound: Run, num_qubits: int, *, exchanging: bool = True
) -> tuple[Skeleton, float]:
    """Return the skeleton of a run over gates on one and two qubits, and a phase.

    Blocks that are a swap and one-qubit gates become these gates and a renaming of the qubits; the
    skeleton's run lacks the phase, radians.

    Args:
        run: The run.
        bound: The same run with numbers for its parameters: what they make of a block, its place
            among others and what it commutes with, holds for the parameters too.
        num_qubits: Wires of the circuit.
        exchanging: Whether swaps may become renamings.
    """
    kind = kinds(bound)
    owner, count = collect_blocks(bound, kind, num_qubits)
    order = _together(owner, count, kind)
    run, bound, kind, owner = run.select(order), bound.select(order), kind[order], owner[order]
    two = np.flatnonzero(kind == TWO)
    label, head = np.unique(owner[two], return_index=True)
    number = np.full(count + 1, -1, dtype=np.int32)
    number[label] = np.arange(len(label), dtype=np.int32)
    item_of = number[owner]
    # One-qubit gates at a block's ends ride along by themselves: they hide what it commutes with.
    last = np.zeros(len(label), dtype=np.int64)
    np.maximum.at(last, item_of[two], two)
    inside = np.flatnonzero(item_of >= 0)
    mine = item_of[inside]
    item_of[inside[(inside < two[head][mine]) | (inside > last[mine])]] = -1
    blocks = Interactions.of(run, bound, kind, item_of, two[head])
    if exchanging:
        hidden = (blocks.swapped == 0) & (run.code[two[head]] != G.SWAP) & ~blocks.symbolic
        if hidden.any():
            new, phase = as_swaps(bound, kind, item_of, two, np.flatnonzero(hidden))
            again, more = skeleton_of(new(run), new(bound), num_qubits)
            return again, phase + more
    return _linked(run, item_of, blocks, num_qubits, exchanging), 0.0


def _together(owner: Int32, count: int, kind: NDArray[np.int8]) -> NDArray[np.intp]:
    """Return the order in which each block's gates stand where its first two-qubit gate stands."""
    place = np.arange(len(owner))
    two = np.flatnonzero(kind == TWO)
    head = np.full(count, len(owner))
    np.minimum.at(head, owner[two], two)
    inside = owner >= 0
    place[inside] = head[owner[inside]]
    return np.argsort(place, kind="stable")


def _linked(
    run: Run, item_of: Int32, blocks: Interactions, num_qubits: int, exchanging: bool
) -> Skeleton:
    """Put barriers and repeated measurements beside the blocks, and say what waits for what."""
    count = len(blocks.plain)
    owner = item_of.copy()
    more = _ordering(run)
    owner[more] = np.arange(count, count + len(more), dtype=np.int32)
    sizes = np.full(count + len(more), 2)
    operands = [run.operands(int(i)) for i in more]
    sizes[count:] = [len(wires) for wires in operands]
    slot_first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    slot_wire = np.concatenate(
        [blocks.qubit.ravel(), np.array([w for o in operands for w in o], dtype=np.int32)]
    ).astype(np.int32)
    slot_axis = np.zeros(len(slot_wire), dtype=np.int8)
    slot_axis[: 2 * count] = blocks.axis.ravel()
    alone = np.bincount(item_of[item_of >= 0], minlength=count) == 1
    literal = np.zeros(count, dtype=bool)
    literal[item_of[run.code == G.SWAP]] = True
    exchanges = literal & alone & exchanging
    slot_axis[: 2 * count][np.repeat(exchanges, 2)] = 0

    n, slots = len(run), len(slot_wire)
    wire = np.where((NUM_QUBITS[run.code] == 1), run.qubit[:, 0], -1)
    axis = np.where(run.code == G.MEASURE, 0, AXIS[run.code, 0]).astype(np.int8)
    previous, slot_group = np.full(slots, -1, np.int32), np.full(slots, -1, np.int32)
    anchor, ahead = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    wires = max(num_qubits, 1)
    groups = call(
        _group,
        n,
        (n, owner, wire, axis, slot_first, slot_wire, slot_axis),
        (
            np.zeros(len(sizes), np.int8),
            np.full(wires, -1, np.int32),
            np.zeros(wires, np.int8),
            np.zeros(wires, np.int8),
            np.full(wires, -1, np.int32),
            np.full(n, -1, np.int32),
            previous,
            slot_group,
            anchor,
            ahead,
        ),
    )
    slot_item = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    before, after, size = _edges(previous[:groups], slot_group, slot_item, len(sizes))
    again = _same_bits(run, more, count)
    before, after = np.concatenate([before, again[:, 0]]), np.concatenate([after, again[:, 1]])
    item = np.zeros((size, 2), dtype=np.int32)
    item[:count] = blocks.qubit
    kinds_of = np.full(size, ORDER, dtype=np.int8)
    kinds_of[:count] = np.where(exchanges, EXCHANGE, PAIR)
    plain, swapped = np.zeros(size, np.int32), np.zeros(size, np.int32)
    plain[:count], swapped[:count] = blocks.plain, blocks.swapped
    bridgeable = np.zeros(size, dtype=bool)
    bridgeable[:count] = blocks.bridgeable
    return Skeleton(
        run,
        owner,
        anchor,
        ahead,
        item,
        kinds_of,
        plain,
        swapped,
        bridgeable,
        slot_item,
        slot_group,
        Links.of(before, after, size),
        Links.of(after, before, size),
    )


def _ordering(run: Run) -> NDArray[np.intp]:
    """Return the operations that only order: barriers, and measurements into one and the same bit.

    Their order among themselves counts even on different qubits.
    """
    measure = np.flatnonzero(run.code == G.MEASURE)
    bits, times = np.unique(run.qubit[measure, 1], return_counts=True)
    again = measure[np.isin(run.qubit[measure, 1], bits[times > 1])]
    return np.sort(np.concatenate([np.flatnonzero(run.is_wide), again]))


def _same_bits(run: Run, more: NDArray[np.intp], count: int) -> NDArray[np.int64]:
    """Return (before, after) of the items that measure into one bit one after the other."""
    which = np.flatnonzero(run.code[more] == G.MEASURE)
    bit = run.qubit[more[which], 1]
    order = np.argsort(bit, kind="stable")
    which, bit = which[order], bit[order]
    same = np.flatnonzero(bit[1:] == bit[:-1])
    return (np.stack([which[same], which[same + 1]], axis=1) + count).astype(np.int64)


def _edges(
    previous: Int32, slot_group: Int32, slot_item: Int32, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return (before, after, number of items): every item waits for the group before its own.

    Two large groups are joined by one more item between them, which keeps the edges few.
    """
    members = np.bincount(slot_group, minlength=len(previous))
    order = np.argsort(slot_group, kind="stable")
    begin = np.cumsum(members) - members
    first = slot_item[order[begin]] if len(previous) else np.zeros(0, np.int32)
    later = np.flatnonzero(previous >= 0)
    single_before = members[previous[later]] == 1
    single_after = members[later] == 1
    joint = np.full(len(previous), -1, dtype=np.int64)
    between = later[~(single_before | single_after)]
    joint[between] = size + np.arange(len(between))
    following = np.full(len(previous), -1, dtype=np.int64)
    following[previous[later]] = later

    before, after = [], []
    # Each member waits for the one before, or for the joint of all before.
    mine = slot_group.astype(np.int64)
    has = previous[mine] >= 0
    one = has & (members[previous[mine]] == 1)
    before.append(first[previous[mine[one]]])
    after.append(slot_item[one])
    many = has & ~one & (joint[mine] >= 0)
    before.append(joint[mine[many]])
    after.append(slot_item[many])
    # Each member of a larger group frees the only one behind it, or the joint.
    next_group = following[mine]
    wide = (next_group >= 0) & (members[mine] > 1)
    to_joint = wide & (joint[next_group] >= 0)
    before.append(slot_item[to_joint])
    after.append(joint[next_group[to_joint]])
    to_one = wide & (joint[next_group] < 0)
    before.append(slot_item[to_one])
    after.append(first[next_group[to_one]])
    return (
        np.concatenate(before).astype(np.int64),
        np.concatenate(after).astype(np.int64),
        size + len(between),
    )
