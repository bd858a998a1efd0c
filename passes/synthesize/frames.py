"""Clifford circuits on three qubits up to one-qubit gates, and shortest Pauli networks over them.

A Clifford C pulls the Paulis of qubit q back to a plane ``S_q = {C^dag P C : P = X, Y, Z on q}`` of
Paulis at the circuit's input. The three planes say what C is up to one-qubit gates after it: there
are 1,451,520 / 6^3 = 6,720 of these frames. A rotation about the Pauli P of the input is a
one-qubit rotation in a frame that has P in a plane. A CX gate between one-qubit gates takes an
element p of one plane and q of another, and turns ``{p, r, s}``, ``{q, t, u}`` into ``{p, r q,
s q}``, ``{q, t p, u p}``: 27 neighbours each.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.kernels import kernel

__all__ = ["PAIRS", "FrameTable", "Network", "frame_table", "shortest_network"]

QUBITS = 3
PAIRS = ((0, 1), (0, 2), (1, 2))
FRAMES = 6720
MOVES = 27
"""Move ``9 pair + 3 i + j``: element i of the first plane of the pair, j of the second."""

_STRIDES = (1, 2, 4, 5, 7, 8, 10, 11, 13)
"""Steps through the moves that meet each of them."""

Plane = tuple[int, int, int]
"""Three Paulis in ascending order; bits 0 to 2 of a Pauli are its X part, 3 to 5 its Z part."""


@dataclass(frozen=True, slots=True)
class FrameTable:
    """All frames.

    Attributes:
        planes: int64[f, 3, 3], the planes of each frame, elements ascending; frame 0 is empty
            circuit's.
        index: Frame number by its key.
        following: int64[f * 27], the frame after each move.
        weight: int8[f * 64], on how many qubits a Pauli acts in the frame.
    """

    planes: NDArray[np.int64]
    index: dict[int, int]
    following: NDArray[np.int64]
    weight: NDArray[np.int8]

    def of(self, planes: tuple[Plane, ...]) -> int:
        """Return the number of the frame with these planes."""
        return self.index[int(_keys(np.array([planes], dtype=np.int64))[0])]


def plane(p: int, q: int) -> Plane:
    """Return the plane of two Paulis."""
    first, second, third = sorted((p, q, p ^ q))
    return first, second, third


def _keys(planes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for the planes of each frame, int64[..., 3, 3] to int64[...]."""
    pairs = planes[..., 0] << 6 | planes[..., 1]
    result: NDArray[np.int64] = (pairs << np.array([24, 12, 0])).sum(axis=-1)
    return result


def _moved(planes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the planes after each move, int64[f, 3, 3] to int64[f, 27, 3, 3]."""
    out = np.repeat(planes[:, None], MOVES, axis=1)
    for move in range(MOVES):
        (a, b), i, j = PAIRS[move // 9], move // 3 % 3, move % 3
        p, q = planes[:, a, i], planes[:, b, j]
        r, t = planes[:, a, (i + 1) % 3] ^ q, planes[:, b, (j + 1) % 3] ^ p
        for qubit, first, second in ((a, p, r), (b, q, t)):
            third = first ^ second
            least = np.minimum(np.minimum(first, second), third)
            most = np.maximum(np.maximum(first, second), third)
            out[:, move, qubit] = np.stack([least, least ^ most, most], axis=1)
    return out


@functools.cache
def frame_table() -> FrameTable:
    """Return the table of all frames, made once in a process."""
    start = [plane(1 << q, 8 << q) for q in range(QUBITS)]
    planes = np.array([start], dtype=np.int64)
    keys = _keys(planes)
    front = planes
    while len(front):
        reached = _moved(front).reshape(-1, QUBITS, 3)
        unique, first = np.unique(_keys(reached), return_index=True)
        front = reached[first[~np.isin(unique, keys)]]
        planes = np.concatenate([planes, front])
        keys = np.concatenate([keys, _keys(front)])
    order = np.argsort(keys)
    following = order[np.searchsorted(keys, _keys(_moved(planes)).ravel(), sorter=order)]
    index = {key: number for number, key in enumerate(keys.tolist())}
    bits = np.arange(64)
    product = (bits[:, None] & 7) & (bits >> 3) ^ (bits[:, None] >> 3) & (bits & 7)
    apart = (product ^ product >> 1 ^ product >> 2) & 1  # 1 where two Paulis anticommute
    # A Pauli acts on a qubit where it anticommutes with something of its plane.
    acts = apart[planes[:, :, 0]] | apart[planes[:, :, 1]]
    weight = acts.sum(axis=1).astype(np.int8).ravel()
    return FrameTable(planes, index, following.astype(np.int64), weight)


@kernel()
def _distances(target: int, following: Any, distance: Any, queue: Any) -> None:
    """Fill in the moves from every frame to the target; every move is its own inverse."""
    distance[target] = 0
    queue[0] = target
    head, tail = 0, 1
    while head < tail:
        f = queue[head]
        head += 1
        for m in range(MOVES):
            g = following[f * MOVES + m]
            if distance[g] == 127:
                distance[g] = distance[f] + 1
                queue[tail] = g
                tail += 1


@functools.lru_cache(maxsize=FRAMES)
def _distances_to(target: int) -> NDArray[np.int8]:
    """Return the moves from every frame to a target."""
    distance = np.full(FRAMES, 127, dtype=np.int8)
    following = frame_table().following
    _distances(target, following, distance, np.empty(FRAMES, dtype=np.int64))
    return distance


def _carried_out(f: Any, done: Any, pauli: Any, waits: Any, weight: Any) -> Any:
    """Return ``done`` with all rotations that the frame can do and that wait for no other."""
    for j in range(len(pauli)):
        bit = np.int64(1) << j
        if done & bit == 0 and waits[j] & ~done == 0 and weight[f * 64 + pauli[j]] == 1:
            done |= bit
    return done


def _moves_left(f: Any, done: Any, pauli: Any, weight: Any) -> Any:
    """Return moves that it takes at least to do all rotations: one brings down a weight by one."""
    most = 0
    for j in range(len(pauli)):
        if done & (np.int64(1) << j) == 0:
            most = max(most, weight[f * 64 + pauli[j]] - 1)
    return most


@kernel(calls=(_carried_out, _moves_left))
def _search(
    target: Any,
    limit: Any,
    pauli: Any,
    waits: Any,
    order: Any,
    following: Any,
    weight: Any,
    distance: Any,
    slots: Any,
    node_frame: Any,
    node_done: Any,
    node_from: Any,
    node_move: Any,
) -> int:
    """Breadth-first search over (frame, rotations done); return the node at the end, -1 for none.

    order: int64[27], the moves in the order in which they are tried. slots: int64[2^k], a hash
    table of nodes, -1 empty. node_*: int64[room].
    """
    mask = len(slots) - 1
    everything = (np.int64(1) << len(pauli)) - 1
    node_frame[0] = 0
    node_done[0] = _carried_out(0, np.int64(0), pauli, waits, weight)
    node_from[0] = -1
    node_move[0] = -1
    if target == 0 and node_done[0] == everything:
        return 0
    count = 1
    first = 0
    for depth in range(1, limit + 1):
        last = count
        for node in range(first, last):
            f = node_frame[node]
            for k in range(MOVES):
                m = order[k]
                g = following[f * MOVES + m]
                if depth + distance[g] > limit:
                    continue
                done = _carried_out(g, node_done[node], pauli, waits, weight)
                if depth + _moves_left(g, done, pauli, weight) > limit:
                    continue
                h = (g * 40503 + (done ^ (done >> 13)) * 2654435) & mask
                known = False
                while slots[h] >= 0:
                    other = slots[h]
                    if node_frame[other] == g and node_done[other] == done:
                        known = True
                        break
                    h = (h + 1) & mask
                if known:
                    continue
                if count == len(node_frame):
                    return -1
                slots[h] = count
                node_frame[count] = g
                node_done[count] = done
                node_from[count] = node
                node_move[count] = m
                count += 1
                if g == target and done == everything:
                    return count - 1
        if last == count:
            return -1
        first = last
    return -1


@dataclass(frozen=True, slots=True)
class Network:
    """A Pauli network: after its moves 0 .. k-1, the rotations of step k are one-qubit gates.

    Attributes:
        moves: The moves.
        steps: Rotations of each step in order, one step more than moves.
    """

    moves: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]


def shortest_network(
    pauli: NDArray[np.int64],
    waits: NDArray[np.int64],
    target: int,
    limit: int,
    room: int = 1 << 14,
    variant: int = 0,
) -> Network | None:
    """Return a network of the fewest moves that does all rotations and ends in the target frame.

    Args:
        pauli: int64[m], the Paulis of the rotations at the input, m at most 62.
        waits: int64[m], bit j of ``waits[k]`` says that rotation k does not commute with the
            earlier rotation j.
        target: The frame at the end.
        limit: Moves at most.
        room: Nodes that the search may visit.
        variant: Which of the shortest networks to find: another order of trying the moves.

    Returns:
        The network, None where there is none of ``limit`` moves or the search ran out of room.
    """
    table = frame_table()
    nodes = [np.empty(room, dtype=np.int64) for _ in range(4)]
    end = _search(
        target,
        limit,
        pauli,
        waits,
        (np.arange(MOVES) * _STRIDES[variant % len(_STRIDES)] + variant) % MOVES,
        table.following,
        table.weight,
        _distances_to(target),
        np.full(4 * room, -1, dtype=np.int64),
        *nodes,
    )
    if end < 0:
        return None
    _, done, came_from, move = nodes
    moves: list[int] = []
    sets: list[int] = []
    while end >= 0:
        sets.append(int(done[end]))
        if move[end] >= 0:
            moves.append(int(move[end]))
        end = int(came_from[end])
    sets.append(0)
    sets.reverse()
    steps = [
        tuple(j for j in range(len(pauli)) if (new & ~old) >> j & 1)
        for old, new in itertools.pairwise(sets)
    ]
    return Network(tuple(reversed(moves)), tuple(steps))
