"""Two-qubit unitaries as circuits of any machine's two-qubit gate, over arrays of decompositions.

With N(x, y, z) = exp(i (x XX + y YY + z ZZ)), operators applied from right to left:

* ``rzz``: N is up to three interactions with an angle of their own, ``exp(i x XX) = H H rzz(-2x)
  H H``, one for each coordinate that is not 0.
* ``iswap``: ``CZ = SWAP iSWAP (S^dag x S^dag)``, so a circuit of CZ gates is one of as many iSWAPs
  with the qubits exchanged after each; of an odd number an exchange is left, hence N(x, y, z) is
  written as ``N(x - pi/4, y - pi/4, z - pi/4) SWAP``.
* ``siswap``: two reach where ``|y| <= x - z`` (79 % of random unitaries), three the rest.

Sources: Zhang, Vala, Sastry, Whaley 2003 (arXiv:quant-ph/0209120); Schuch, Siewert 2003
(arXiv:cond-mat/0303267) on iSWAP; Huang et al. 2021 (arXiv:2105.06074) on its square root.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.gates import GATES, G, gate
from qcomp.passes.synthesize.blocks import Matrices
from qcomp.passes.synthesize.cx_circuits import PairCircuits, between, write
from qcomp.passes.synthesize.root_iswap import root_iswap_count, write_root_iswap
from qcomp.passes.synthesize.weyl import Weyl, cx_count, rotation, weyl

__all__ = ["PAIR_GATES", "pairs_of_gate", "write_pair"]

PAIR_GATES = ("cx", "rzz", "iswap", "siswap")
"""Two-qubit gates that blocks are written in. Others of their classes differ from these by gates on
one qubit, which ``to-basis`` puts in: cz, ecr and ms of pi/2 from cx; ms and rxx of any angle from
rzz; xy from iswap."""

_QUARTER = np.pi / 4
_H, _S, _SDG = (gate(name).matrix() for name in ("h", "s", "sdg"))
_EYE: Matrices = np.eye(2, dtype=complex)
_ORDER = np.array([0, 2, 1])
"""The interactions in the order XX, ZZ, YY: what is between them is one quarter turn each."""
_FRAMES: Matrices = np.stack([_H, _EYE, rotation("x", np.pi / 2)])
"""F with ``F^dag Z F`` = X, Z, Y."""


def _iswap_count(point: Weyl) -> NDArray[np.int64]:
    whole = (np.abs(point.x) == _QUARTER) & (np.abs(point.z) == _QUARTER) & (point.y == 0)
    count = cx_count(point)
    return np.where(whole, 1, np.where(count == 1, 2, count))


def _rzz_count(point: Weyl) -> NDArray[np.int64]:
    total = (point.x != 0).astype(np.int64) + (point.y != 0) + (point.z != 0)
    return total


_COUNTS = {
    "cx": cx_count,
    "rzz": _rzz_count,
    "iswap": _iswap_count,
    "siswap": root_iswap_count,
}


@functools.cache
def pairs_of_gate(pair: str) -> NDArray[np.int64]:
    """Return how many of a gate each two-qubit gate takes at generic angles, by code; 0 for others.

    Args:
        pair: One of ``PAIR_GATES``.
    """
    out = np.zeros(len(GATES), dtype=np.int64)
    for row in GATES:
        if row.num_qubits == 2:
            matrix = row.matrix(*(0.37 + 0.29 * k for k in range(row.num_angles)))
            out[row.code] = _COUNTS[pair](weyl(matrix[None]))[0]
    return out


def write_pair(point: Weyl, middle: str, pair: str) -> PairCircuits:
    """Write the middle N of each decomposition with the fewest gates of one kind.

    Args:
        point: n decompositions; coordinates may have any sign, but for pi/4.
        middle: One of ``MIDDLES``; what to write between gates, where there is a choice.
        pair: One of ``PAIR_GATES``.
    """
    if pair == "rzz":
        return _write_rzz(point)
    if pair == "iswap":
        return _write_iswap(point, middle)
    if pair == "siswap":
        return write_root_iswap(point)
    return write(point, middle)


def _blank(point: Weyl, count: NDArray[np.int64], code: int) -> PairCircuits:
    n = len(point.x)
    return PairCircuits(
        count,
        np.full(n, code, dtype=np.int64),
        np.zeros((n, 3), dtype=np.int64),
        np.zeros((n, 3)),
        np.tile(_EYE, (n, 2, 2, 1, 1)),
        np.tile(_EYE, (n, 2, 1, 1)),
        np.tile(_EYE, (n, 2, 1, 1)),
    )


def _write_rzz(point: Weyl) -> PairCircuits:
    coordinates = np.stack([point.x, point.y, point.z], axis=1)[:, _ORDER]
    live = coordinates != 0
    slot = np.argsort(~live, axis=1, kind="stable")
    count = live.sum(axis=1).astype(np.int64)
    out = _blank(point, count, G.RZZ)
    out.angle[:] = np.where(
        np.arange(3) < count[:, None], -2 * np.take_along_axis(coordinates, slot, axis=1), 0.0
    )
    some = np.flatnonzero(count)
    rows = np.arange(len(some))
    frame = _FRAMES[slot[some]]
    back = np.swapaxes(frame, 2, 3).conj()
    out.right[some] = frame[:, 0][:, None]
    out.left[some] = back[rows, count[some] - 1][:, None]
    for k in range(2):
        more = count[some] > k + 1
        out.middle[some[more], k] = (frame[more, k + 1] @ back[more, k])[:, None]
    return out


def _write_iswap(point: Weyl, middle: str) -> PairCircuits:
    count = _iswap_count(point)
    out = _blank(point, count, G.ISWAP)
    x, y, z = point.x, point.y, point.z

    one = count == 1
    turn = rotation("x", np.pi / 2)
    # N(pi/4, 0, pi/4) = V iSWAP V^dag; a negative quarter is the other's, turned by X or Z.
    out.left[one] = turn
    out.right[one] = turn.conj().T

    two = count == 2
    if two.any():
        _two(out, two, x, z, middle)
    three = count == 3
    if three.any():
        _three(out, three, x[three] - _QUARTER, y[three] - _QUARTER, z[three] - _QUARTER)
    return out


def _two(
    out: PairCircuits,
    rows: NDArray[np.bool_],
    x: NDArray[np.float64],
    z: NDArray[np.float64],
    middle: str,
) -> None:
    """``N(x, 0, z) = CX(a, b) RX_a(-2x) RZ_b(-2z) CX(a, b)``, its CX gates as iSWAPs."""
    mids, left, right = out.middle, out.left, out.right
    mids[rows, 0, 1] = rotation("z", -2 * z[rows])
    between(rows, x, middle, mids, left, right)
    inner_a, inner_b = mids[rows, 0, 0], _H @ mids[rows, 0, 1] @ _H
    mids[rows, 0, 0], mids[rows, 0, 1] = _SDG @ inner_b, _SDG @ inner_a
    left[rows, 1] = left[rows, 1] @ _H
    right[rows, 0] = _SDG @ right[rows, 0]
    right[rows, 1] = _SDG @ _H @ right[rows, 1]


def _three(
    out: PairCircuits,
    rows: NDArray[np.bool_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
) -> None:
    """The three CX gates of Vatan and Williams for N less an exchange, as iSWAPs."""
    out.left[rows, 0] = _S @ _H
    out.middle[rows, 1, 0] = _SDG @ rotation("y", np.pi / 2 - 2 * y) @ _H
    out.middle[rows, 1, 1] = _SDG @ _H
    out.middle[rows, 0, 0] = _SDG @ rotation("z", np.pi / 2 - 2 * z) @ _H
    out.middle[rows, 0, 1] = _SDG @ _H @ rotation("y", 2 * x - np.pi / 2)
    out.right[rows, 0] = _SDG @ _SDG
    out.right[rows, 1] = _SDG @ _H
