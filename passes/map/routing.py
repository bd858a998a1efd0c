"""Placement and swaps of one run on a device: the search, its budget, and Qiskit's VF2."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.gates import BY_NAME
from qcomp.passes.map.layout_kernels import search
from qcomp.passes.map.route_kernels import NEVER
from qcomp.passes.map.skeleton import Skeleton

if TYPE_CHECKING:
    from qcomp.device import Device

__all__ = ["Budget", "Region", "Routed", "route_skeleton", "two_qubit_error"]

Int32 = NDArray[np.int32]

_OFTEN = 5.0
_BROKEN = 0.5
"""A pair with so many times the median error rate, or this rate, is left out where possible."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is searched.

    Attributes:
        items: Items that all passes together may visit.
        trials: Placements tried at most.
        rounds: Passes forwards through the circuit for each placement; one less backwards.
        refinements: Changes of the best placement tried at most.
    """

    items: int = 40_000
    trials: int = 12
    rounds: int = 3
    refinements: int = 60

    def within(self, size: int) -> tuple[int, int]:
        """Return (trials, refinements) for a circuit of ``size`` items."""
        passes = max(self.items // max(size, 1), 1)
        each = 2 * self.rounds - 1
        trials = min(self.trials, max(passes // 2 // each, 1))
        return trials, min(self.refinements, max(passes - trials * each, 0))


@functools.lru_cache(maxsize=16)
def two_qubit_error(device: Device) -> tuple[str, NDArray[np.float64]] | None:
    """Return the two-qubit gate whose error rates are known, and those of each pair; or None."""
    for name, rates in device.errors.items():
        if name in BY_NAME and BY_NAME[name].num_qubits == 2 and np.isfinite(rates).any():
            return name, rates
    return None


@functools.lru_cache(maxsize=16)
def _without_bad_pairs(device: Device, times: float | None) -> Device:
    """Return the couplings without those above so many medians, or above a half."""
    known = two_qubit_error(device)
    if known is None:
        return device
    rates = np.where(np.isfinite(known[1]), known[1], 0.0)
    most = _BROKEN if times is None else min(times * float(np.nanmedian(known[1])), _BROKEN)
    a, b = device.pairs[rates > most].T
    bad = np.isin(
        device.pairs.astype(np.int64) @ [device.num_qubits, 1],
        np.concatenate([a.astype(np.int64) * device.num_qubits + b,
                        b.astype(np.int64) * device.num_qubits + a]),
    )  # fmt: skip
    if not bad.any():
        return device
    return type(device).from_pairs(
        device.pairs[~bad], num_qubits=device.num_qubits, name=device.name, directed=True
    )


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """The connected part of a device that circuits are mapped to.

    Attributes:
        device: The device with the couplings in use.
        qubits: int32[m], the device's qubits in it, ascending.
        distance: int32[m, m], steps between them.
        offset, neighbour: The qubits coupled with each, int32[m + 1] and int32[pairs].
    """

    device: Device
    qubits: Int32
    distance: Int32
    offset: Int32
    neighbour: Int32

    @staticmethod
    @functools.lru_cache(maxsize=16)
    def of(device: Device) -> Region:
        """Return the largest connected part of a device."""
        qubits = np.sort(device.components()[0]).astype(np.int32)
        place = np.full(device.num_qubits, -1, dtype=np.int32)
        place[qubits] = np.arange(len(qubits), dtype=np.int32)
        offset, neighbour = device.neighbours()
        sizes = np.diff(offset)[qubits]
        starts = np.repeat(offset[qubits] - (np.cumsum(sizes) - sizes), sizes)
        mine = neighbour[starts + np.arange(int(sizes.sum()))]
        return Region(
            device,
            qubits,
            np.ascontiguousarray(device.distance()[np.ix_(qubits, qubits)]),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
            place[mine],
        )

    @staticmethod
    def good(device: Device, width: int) -> Region:
        """Return the largest connected part without pairs that fail far too often.

        Pairs above five times the median rate are left out, else those that fail half the time,
        as far as enough qubits stay connected.
        """
        for times in (_OFTEN, None):
            part = Region.of(_without_bad_pairs(device, times))
            if len(part.qubits) >= width:
                return part
        return Region.of(device)

    def local(self, wires: Any) -> Int32:  # noqa: ANN401
        """Return the numbers within the region of the device's qubits."""
        return np.searchsorted(self.qubits, np.asarray(wires)).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Routed:
    """A placement and the events that carry a skeleton out, numbers within the region.

    Attributes:
        cost: CX gates.
        start: int32[n], virtual qubit -> qubit where the run starts.
        event: int32[e, 4], (item or SWAP, qubit, qubit, middle of a bridge or -1).
    """

    cost: int
    start: Int32
    event: Int32


def route_skeleton(
    skeleton: Skeleton,
    num_qubits: int,
    region: Region,
    budget: Budget,
    seed: int,
    starts: Int32 | None = None,
    *,
    fixed: bool = False,
    rival: int = NEVER,
) -> Routed:
    """Search a placement and swaps.

    Args:
        skeleton: The run.
        num_qubits: Virtual qubits.
        region: Where they go.
        budget: How much is searched.
        seed: Seed of the search.
        starts: int32[t, n], placements to try first.
        fixed: Whether the first of them is the placement.
        rival: CX gates above which the best of the first passes is not refined.
    """
    size = len(skeleton.kind)
    if starts is None:
        starts = np.zeros((0, num_qubits), dtype=np.int32)
    trials, refinements = budget.within(size)
    forward, backward = skeleton.forward, skeleton.backward
    capacity = 6 * size + 8 * len(region.qubits) + 256
    while True:
        event, best = (np.empty((capacity, 4), dtype=np.int32) for _ in range(2))
        start = np.zeros(num_qubits, dtype=np.int32)
        state = np.array([1 + seed % 2147483646], dtype=np.int64)
        cost, events = search(
            skeleton.item,
            skeleton.kind,
            skeleton.plain,
            skeleton.swapped,
            skeleton.bridgeable,
            forward.first,
            forward.successor,
            forward.waits_for,
            backward.first,
            backward.successor,
            backward.waits_for,
            region.distance,
            region.offset,
            region.neighbour,
            skeleton.interactions(num_qubits),
            starts,
            fixed,
            max(trials, len(starts)),
            budget.rounds,
            refinements,
            rival,
            state,
            event,
            best,
            start,
        )
        if events >= 0 and cost < NEVER:
            return Routed(int(cost), start, best[:events].copy())
        capacity *= 2
