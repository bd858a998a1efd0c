"""A qubit in |0> turned by a table of angles, the cheapest way that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.typing import NDArray

from qcomp.constructions.images.cubes import Cube, added_cubes
from qcomp.constructions.images.tours import short_walk, walk_length
from qcomp.constructions.multiplexers import multiplexed_rotation, walsh, walsh_angles
from qcomp.ir.circuit import Circuit

__all__ = ["Table", "append_table", "plan_table"]

_ZERO = 1e-12
"""Weights below are rounding errors: 0."""

_LEVELS = 32
"""Most different angles of a table whose equal entries are merged."""


@dataclass(frozen=True, slots=True)
class Table:
    """How a table of angles is written.

    Attributes:
        method: "walsh" or "cubes".
        bits: Controls.
        factors: (parity, weight) pairs in their order, the last steps going to parity 0.
        cubes: What is turned besides, by two halves.
        two_qubit: Two-qubit gates of all of it.
    """

    method: str
    bits: int
    factors: tuple[tuple[int, float], ...]
    cubes: tuple[Cube, ...]
    two_qubit: int

    def angles(self) -> NDArray[np.float64]:
        """Return the angles that it turns by, float64[2^bits]."""
        weights = np.zeros(1 << self.bits)
        for mask, weight in self.factors:
            weights[mask] += weight
        out = len(weights) * walsh(weights)
        for cube in self.cubes:
            out[cube.holds(self.bits)] += cube.added
        return out


def plan_table(angles: NDArray[np.float64], *, epsilon: float = 0.0, method: str = "auto") -> Table:
    """Return the way to turn a qubit from |0> by ``angles[x]`` that has least two-qubit gates.

    "walsh": the factors of :mod:`~qcomp.constructions.multiplexers` whose weights are not 0, nor
    within epsilon, along a short walk whose first steps are free; a weight that was dropped and
    that the walk passes anyway is kept. At most ``2^k - 1`` CZ. "cubes": equal entries merged, see
    :func:`~qcomp.constructions.images.cubes.added_cubes`; few literals join the factors, more are
    two halves (:func:`append_table`).

    Args:
        angles: float64[2^k], radians.
        epsilon: Weights of at most so many radians are dropped.
        method: "walsh", "cubes" or "auto", the cheaper.
    """
    bits = len(angles).bit_length() - 1
    ways = []
    if method in ("auto", "walsh"):
        ways.append(_walked("walsh", walsh(angles), bits, (), epsilon))
    if method in ("auto", "cubes"):
        ways += _merged(angles, bits, epsilon)
    if not ways:
        ways.append(_walked("walsh", walsh(angles), bits, (), epsilon))
    return min(ways, key=lambda way: way.two_qubit)


def append_table(circuit: Circuit, table: Table, controls: Sequence[int], target: int) -> None:
    """Append a table; the target has to be in |0>.

    A cube of the halves g and h turns by ``added g h``, and ``g h = (1 - s_g - s_h + s_g s_h) / 4``
    with ``s = (-1)^g``: four RY between RZ multiplexed by g and by h, which are Z up to phases of
    the controls (relative-phase gates), and come in pairs that cancel these.
    """
    if table.factors:
        # The CZ to the first parity would act on |0>: nothing.
        parity, first = table.factors[0]
        circuit.ry(first, target)
        _walk(circuit, parity, table.factors[1:], controls, target)
    for cube in table.cubes:
        wires = [i for i in range(table.bits) if cube.mask >> i & 1]
        middle = (len(wires) + 1) // 2
        quarter = cube.added / 4
        circuit.ry(quarter, target)
        for part, sign, angle in (
            (wires[:middle], 1, -quarter),
            (wires[middle:], 1, quarter),
            (wires[:middle], -1, -quarter),
            (wires[middle:], -1, 0.0),
        ):
            place = sum((cube.values >> q & 1) << i for i, q in enumerate(part))
            chosen = np.zeros(1 << len(part))
            chosen[place] = sign * pi
            own = [controls[q] for q in part]
            multiplexed_rotation(circuit, "z", walsh_angles(chosen), own, target)
            if angle:
                circuit.ry(angle, target)


def _walk(
    circuit: Circuit,
    parity: int,
    factors: Sequence[tuple[int, float]],
    controls: Sequence[int],
    target: int,
) -> None:
    for mask, weight in (*factors, (0, 0.0)):
        for i, control in enumerate(controls):
            if (parity ^ mask) >> i & 1:
                circuit.cz(control, target)
        parity = mask
        if weight:
            circuit.ry(weight, target)


def _walked(
    method: str,
    weights: NDArray[np.float64],
    bits: int,
    cubes: tuple[Cube, ...],
    epsilon: float,
) -> Table:
    kept = np.flatnonzero(np.abs(weights) > max(epsilon, _ZERO))
    walk = short_walk(kept, bits).tolist()
    left = {
        int(m): float(weights[m])
        for m in np.flatnonzero(np.abs(weights) > _ZERO)
        if m not in set(walk)
    }
    factors: list[tuple[int, float]] = []
    here = walk[0] if walk else 0
    for mask in [*walk, 0]:
        while (here ^ mask).bit_count() > 1:  # through what was dropped, the largest first
            steps = [here ^ (1 << i) for i in range(bits) if (here ^ mask) >> i & 1]
            here = max(steps, key=lambda step: (abs(left.get(step, 0.0)), -step))
            if here in left:
                factors.append((here, left.pop(here)))
        here = mask
        if mask in walk and (not factors or factors[-1][0] != mask):
            factors.append((mask, float(weights[mask])))
    if not factors and 0 in left:
        factors.append((0, left[0]))
    if walk and walk[-1] != 0 and 0 in left:
        factors.append((0, left[0]))
    count = walk_length(np.array([m for m, _ in factors], dtype=np.int64)) if factors else 0
    return Table(method, bits, tuple(factors), cubes, count + sum(_split_cost(c) for c in cubes))


def _merged(angles: NDArray[np.float64], bits: int, epsilon: float) -> list[Table]:
    levels, table = np.unique(np.round(angles, 12), return_inverse=True)
    if not 1 < len(levels) <= _LEVELS:
        return []
    found = added_cubes(table, levels.tolist())
    if found is None:
        return []
    constant, cubes = found
    ways = []
    for most in dict.fromkeys((4, 5, 6)):
        total = np.full(1 << bits, constant)
        large = []
        for cube in cubes:
            if cube.mask.bit_count() <= most:
                total[cube.holds(bits)] += cube.added
            else:
                large.append(cube)
        ways.append(_walked("cubes", walsh(total), bits, tuple(large), epsilon))
    return ways


def _split_cost(cube: Cube) -> int:
    literals = cube.mask.bit_count()
    return 2 * ((1 << (literals // 2)) + (1 << (literals - literals // 2)))
