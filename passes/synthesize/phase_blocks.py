"""Phase polynomials block by block: Gray-synth for the rotations, Patel-Markov-Hayes for the rest.

Between two layers of walls the operations make one affine map ``|x> -> |A x + k>`` with rotations
about parities of its inputs. A network brings each parity to a wire, a linear circuit turns what
the network leaves into A, and X gates add k. The walls then stand where they stood.

Sources: Amy, Azimzadeh, Mosca 2018 (arXiv:1712.01859), section 4; Amy, Maslov, Mosca 2013
(arXiv:1303.2042), section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.synthesize import gray_synth as network
from qcomp.passes.synthesize.linear_reversible import linear_reversible
from qcomp.passes.synthesize.parity_frame import CX, FLIP, ROTATE, SWAP, WALL

__all__ = ["write_blocks"]

Rows = list[tuple[int, int, int]]


def write_blocks(
    kind: Sequence[int],
    wire: Sequence[Sequence[int]],
    arity: Sequence[int],
    num_wires: int,
    most: int,
) -> NDArray[np.int32] | None:
    """Write a segment anew, each block by itself.

    Args:
        kind: What each operation is to the kernel.
        wire: Its wires, three numbers each.
        arity: How many of them count.
        num_wires: Wires of the segment.
        most: CX up to which it is written.

    Returns:
        int32[k, 3] as :func:`~qcomp.passes.synthesize.parity_network.resynthesize` writes it, None
        where it takes more than ``most`` CX.
    """
    out: Rows = []
    left = most
    for block, walls in _blocks(kind, wire, arity, num_wires):
        written = _write(block, kind, wire)
        left -= sum(row[0] == CX for row in written)
        if left < 0:
            return None
        out += written
        out += [(WALL, -1, i) for i in walls]
    return np.array(out, dtype=np.int32).reshape(-1, 3)


def _blocks(
    kind: Sequence[int], wire: Sequence[Sequence[int]], arity: Sequence[int], num_wires: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (operations between walls, the walls behind them): as early as their wires allow."""
    height = [0] * num_wires
    blocks: list[tuple[list[int], list[int]]] = []
    for i, what in enumerate(kind):
        wires = wire[i][: arity[i]]
        level = max(height[w] for w in wires)
        while len(blocks) <= level:
            blocks.append(([], []))
        blocks[level][what == WALL].append(i)
        for w in wires:
            height[w] = level + (what == WALL)
    yield from blocks


def _write(block: list[int], kind: Sequence[int], wire: Sequence[Sequence[int]]) -> Rows:
    """Write one block over its own wires."""
    used = sorted({w for i in block for w in wire[i][: 1 + (kind[i] in (CX, SWAP))]})
    if not any(kind[i] in (CX, SWAP) for i in block):
        return _plain(block, kind, wire)
    local = {w: j for j, w in enumerate(used)}
    held, flip = [1 << j for j in range(len(used))], [0] * len(used)
    waiting: dict[int, list[int]] = {}
    for i in block:
        a, b = local[wire[i][0]], local.get(wire[i][1], 0)
        if kind[i] == CX:
            held[b] ^= held[a]
            flip[b] ^= flip[a]
        elif kind[i] == SWAP:
            held[a], held[b] = held[b], held[a]
            flip[a], flip[b] = flip[b], flip[a]
        elif kind[i] == FLIP:
            flip[a] ^= 1
        else:
            waiting.setdefault(held[a], []).append(2 * i + flip[a])
    parities = [_bits(parity, len(used)) for parity in waiting]
    turns = list(waiting.values())
    out: Rows = []
    now = np.eye(len(used), dtype=np.int64)
    found = network.gray_synth(np.array(parities)) if parities else np.zeros((0, 3), np.int64)
    assert found is not None, "the limit of rows is that of the algorithm"
    for what, a, b in found.tolist():
        if what == network.CX:
            now[b] ^= now[a]
            out.append((CX, used[a], used[b]))
        else:
            out += [(ROTATE, used[b], turn) for turn in turns[a]]
    # held = rest * now over GF(2), and the rows of the inverse are what the network undone holds.
    rest = np.array([_bits(parity, len(used)) for parity in held]) @ _inverse(now) % 2
    out += [(CX, used[c], used[t]) for c, t in linear_reversible(rest).tolist()]
    out += [(FLIP, used[j], -1) for j, one in enumerate(flip) if one]
    return out


def _plain(block: list[int], kind: Sequence[int], wire: Sequence[Sequence[int]]) -> Rows:
    """Return a block without CX as it is, X gates at its end."""
    flip: dict[int, int] = {}
    out: Rows = []
    for i in block:
        w = wire[i][0]
        if kind[i] == FLIP:
            flip[w] = flip.get(w, 0) ^ 1
        else:
            out.append((ROTATE, w, 2 * i + flip.get(w, 0)))
    return out + [(FLIP, w, -1) for w, one in flip.items() if one]


def _bits(parity: int, n: int) -> list[int]:
    return [parity >> j & 1 for j in range(n)]


def _inverse(a: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the inverse of an invertible matrix over GF(2)."""
    n = len(a)
    both = np.concatenate([a, np.eye(n, dtype=np.int64)], axis=1)
    for j in range(n):
        pivot = j + int(both[j:, j].argmax())
        both[[j, pivot]] = both[[pivot, j]]
        others = both[:, j].astype(bool)
        others[j] = False
        both[others] ^= both[j]
    return both[:, n:]
