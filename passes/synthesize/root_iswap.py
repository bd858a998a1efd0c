"""Two-qubit unitaries as circuits of at most three square roots of iSWAP.

Source: Huang et al. 2021 (arXiv:2105.06074): which unitaries two of them reach, and the gates
between; the gates outside have no closed form and come from the Cartan decomposition.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.gates import G, gate
from qcomp.passes.synthesize.blocks import Matrices
from qcomp.passes.synthesize.cx_circuits import PairCircuits
from qcomp.passes.synthesize.weyl import TOLERANCE, Weyl, kron, rotation, weyl

__all__ = ["root_iswap_count", "write_root_iswap"]

_EIGHTH = np.pi / 8
_ROOT: Matrices = gate("siswap").matrix()
_EYE: Matrices = np.eye(2, dtype=complex)
_PAULI = {name: gate(name).matrix() for name in "xyz"}
_NEWTON = 6
"""Steps of refinement at most; two are enough off the walls of the chamber."""
_STEP = 1e-5
"""Radians between the points that derivatives are taken from."""
_CLOSE = 2e-14
"""Coordinates this near to what was asked for are left as they are."""

Array = NDArray[np.float64]


def _within(x: Array, y: Array, z: Array) -> NDArray[np.bool_]:
    """Whether two gates reach a point of the chamber, z its middle coordinate."""
    result: NDArray[np.bool_] = np.abs(y) <= x - z + TOLERANCE
    return result


def root_iswap_count(point: Weyl) -> NDArray[np.int64]:
    """Return the fewest square roots of iSWAP of each, int64[n]."""
    x, z, y = _folded(point)
    count = np.where(_within(x, y, z), 2, 3)
    one = (np.abs(x - _EIGHTH) < TOLERANCE) & (np.abs(z - _EIGHTH) < TOLERANCE) & (y == 0)
    return np.where(x == 0, 0, np.where(one, 1, count))


def _folded(point: Weyl) -> tuple[Array, Array, Array]:
    """Return coordinates in the chamber, of ones whose signs Paulis may have changed."""
    negative = (point.x < 0).astype(int) + (point.y < 0) + (point.z < 0)
    sign = np.where(negative % 2 == 1, -1.0, 1.0)
    x, y, z = np.abs(point.x), np.abs(point.y), np.abs(point.z)
    return x, z, np.where(x == np.pi / 4, y, sign * y)


def _angles(x: Array, y: Array, z: Array, snap: float) -> Array:
    """Return alpha, beta, gamma of the gates between two square roots, for x >= y >= |z|.

    Cosines within ``snap`` of 1 and -1 are taken for these.
    """
    product = np.sin(x + y - z) * np.sin(x - y + z) * np.sin(-x - y - z) * np.sin(-x + y + z)
    root = 2 * np.sqrt(np.clip(product, 0, 1))
    total = np.cos(2 * x) - np.cos(2 * y) + np.cos(2 * z)
    alpha, beta = (_arc(total + s * root, snap) for s in (1, -1))
    four = 4 * (np.cos(x) * np.cos(z) * np.sin(y)) ** 2
    rest = np.clip(np.cos(2 * x) * np.cos(2 * y) * np.cos(2 * z), 0, 1)
    whole = four + rest
    ratio = np.sqrt(np.divide(four, whole, out=np.zeros_like(four), where=whole > 0))
    gamma = _arc(np.where(z < 0, -1, 1) * ratio, snap)
    return np.stack([alpha, beta, gamma], axis=1)


def _arc(cosine: Array, snap: float) -> Array:
    near = np.abs(cosine) > 1 - snap
    result: Array = np.arccos(np.where(near, np.sign(cosine), cosine))
    return result


def _between(angles: Array) -> Matrices:
    """Return ``RX_b(-beta) RZ_a(-gamma) RX_a(-alpha) RZ_a(-gamma)`` as [n, 2, 2, 2]."""
    alpha, beta, gamma = angles.T
    turn = rotation("z", -gamma)
    return np.stack([rotation("x", -beta), turn @ rotation("x", -alpha) @ turn], axis=1)


def _matrix(point: Array) -> Matrices:
    """Return N(x, y, z) of rows (x, y, z)."""
    out: Matrices = np.tile(np.eye(4, dtype=complex), (len(point), 1, 1))
    for k, name in enumerate("xyz"):
        both = np.kron(_PAULI[name], _PAULI[name])
        angle = point[:, k][:, None, None]
        out = out @ (np.cos(angle) * np.eye(4) + 1j * np.sin(angle) * both)
    return out


@functools.cache
def _pieces() -> tuple[Array, Matrices, Matrices]:
    """Return points that one square root reaches, and the gates on its left and right there."""
    points = []
    for zero in range(3):
        for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            row = [signs[0] * _EIGHTH, signs[1] * _EIGHTH]
            row.insert(zero, 0.0)
            points.append(row)
    table = np.array(points)
    own = weyl(np.broadcast_to(_ROOT, (1, 4, 4)))
    target = weyl(_matrix(table))
    left = np.stack([target.la @ _dagger(own.la), target.lb @ _dagger(own.lb)], axis=1)
    right = np.stack([_dagger(own.ra) @ target.ra, _dagger(own.rb) @ target.rb], axis=1)
    return table, left, right


def _dagger(matrix: Matrices) -> Matrices:
    return np.swapaxes(matrix, -1, -2).conj()


def _product(angles: Array) -> Weyl:
    mid = _between(angles)
    return weyl(_ROOT @ kron(mid[:, 1], mid[:, 0]) @ _ROOT)


def _distance(made: Weyl, target: Array) -> Array:
    apart = np.stack([made.x, made.y, made.z], axis=1) - target
    result: Array = np.abs(apart).max(axis=1)
    return result


def _refined(angles: Array, target: Array) -> Array:
    """Take Newton steps to a point of the chamber, kept where they come nearer to it.

    The arc cosines of the closed form lose digits near the walls.
    """
    for _ in range(_NEWTON):
        made = _product(angles)
        value = np.stack([made.x, made.y, made.z], axis=1)
        columns = []
        for k in range(3):
            step = np.zeros(3)
            step[k] = _STEP
            ahead, behind = _product(angles + step), _product(angles - step)
            columns.append(
                np.stack([ahead.x - behind.x, ahead.y - behind.y, ahead.z - behind.z], axis=1)
                / (2 * _STEP)
            )
        jacobian = np.stack(columns, axis=2)
        move = np.linalg.pinv(jacobian, rcond=1e-3) @ (target - value)[:, :, None]
        moved = angles + move[:, :, 0]
        better = _distance(_product(moved), target) < _distance(made, target)
        if not better.any():
            break
        angles = np.where(better[:, None], moved, angles)
    return angles


def _two(point: Weyl) -> tuple[Matrices, Matrices, Matrices]:
    """Return (left, between, right) of two square roots whose product is N, each [n, 2, 2, 2]."""
    # In our chamber z is the middle coordinate, in the paper's y.
    angles = _angles(point.x, point.z, point.y, 0.0)
    target = np.stack([point.x, point.y, point.z], axis=1)
    made = _product(angles)
    far = np.flatnonzero(_distance(made, target) > _CLOSE)
    if len(far):
        other = _angles(point.x[far], point.z[far], point.y[far], 1e-14)
        nearer = _distance(_product(other), target[far]) < _distance(made, target)[far]
        angles[far[nearer]] = other[nearer]
        made = _product(angles)
    far = np.flatnonzero(_distance(made, target) > _CLOSE)
    if len(far):
        angles[far] = _refined(angles[far], target[far])
        made = _product(angles)
    mid = _between(angles)
    left = np.stack([_dagger(made.la), _dagger(made.lb)], axis=1)
    right = np.stack([_dagger(made.ra), _dagger(made.rb)], axis=1)
    return left, mid, right


def write_root_iswap(point: Weyl) -> PairCircuits:
    """Write the middle N of each decomposition with the fewest square roots of iSWAP.

    Args:
        point: n decompositions; coordinates may have any sign, but for pi/4.
    """
    n = len(point.x)
    here = weyl(_matrix(np.stack([point.x, point.y, point.z], axis=1)))
    count = root_iswap_count(here)
    left: Matrices = np.tile(_EYE, (n, 2, 1, 1))
    right: Matrices = np.tile(_EYE, (n, 2, 1, 1))
    mids: Matrices = np.tile(_EYE, (n, 2, 2, 1, 1))
    rows = np.flatnonzero(count == 1)
    if len(rows):
        own = weyl(np.broadcast_to(_ROOT, (1, 4, 4)))
        left[rows] = np.stack([_dagger(own.la), _dagger(own.lb)], axis=1)
        right[rows] = np.stack([_dagger(own.ra), _dagger(own.rb)], axis=1)
    rows = np.flatnonzero(count == 2)
    if len(rows):
        left[rows], mids[rows, 0], right[rows] = _two(here.select(rows))
    rows = np.flatnonzero(count == 3)
    if len(rows):
        _three(here.select(rows), rows, left, mids, right)
    outer_left = np.stack([here.la, here.lb], axis=1)
    outer_right = np.stack([here.ra, here.rb], axis=1)
    return PairCircuits(
        count,
        np.full(n, G.SISWAP, dtype=np.int64),
        np.zeros((n, 3), dtype=np.int64),
        np.zeros((n, 3)),
        mids,
        outer_left @ left,
        right @ outer_right,
    )


def _three(
    point: Weyl, rows: NDArray[np.intp], left: Matrices, mids: Matrices, right: Matrices
) -> None:
    """Take one square root off so that two make the rest."""
    table, own_left, own_right = _pieces()
    k = len(rows)
    target = np.stack([point.x, point.y, point.z], axis=1)
    rest = weyl(_matrix((target[:, None, :] - table[None]).reshape(-1, 3)))
    slack = (rest.x - rest.z - np.abs(rest.y)).reshape(k, len(table))
    best = slack.argmax(axis=1)
    rest = rest.select(np.arange(k) * len(table) + best)
    inner_left, inner, inner_right = _two(rest)
    before = inner_right @ np.stack([rest.ra, rest.rb], axis=1)
    after = np.stack([rest.la, rest.lb], axis=1) @ inner_left
    right[rows], mids[rows, 0] = before, inner
    mids[rows, 1] = own_right[best] @ after
    left[rows] = own_left[best]
