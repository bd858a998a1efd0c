"""Placements by Qiskit's VF2: without any swap, and on the qubits with the fewest errors."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.map.route_kernels import PAIR, SWAP
from qcomp.passes.map.routing import Region, Routed, two_qubit_error
from qcomp.passes.map.skeleton import Skeleton

if TYPE_CHECKING:
    from qcomp.device import Device

__all__ = ["perfect_start", "quieter", "success"]

Int32 = NDArray[np.int32]

_PERFECT_STEPS = 20_000
"""Search steps of VF2 for a placement without swaps."""

_QUIET_STEPS = 20_000
"""Search steps of VF2 for better qubits."""

_SHARES = 6
"""Gates that stand for the coupling in use most; the others in proportion."""


@functools.lru_cache(maxsize=16)
def _target(device: Device) -> Any:  # noqa: ANN401  Qiskit is optional at type-check time
    return device.to_qiskit_target()


@functools.lru_cache(maxsize=16)
def _coupling(device: Device) -> Any:  # noqa: ANN401
    coupling = device.coupling_map()
    coupling.make_symmetric()
    return coupling


def perfect_start(
    skeleton: Skeleton, routed: Routed, num_qubits: int, region: Region
) -> Int32 | None:
    """Return a placement in which all items are on coupled pairs, None if VF2 finds none.

    It is asked only where the search needed swaps and the graph of interactions might fit: no
    qubit may have more partners than the device's best connected one has neighbours.
    """
    if not (routed.event[:, 0] == SWAP).any():
        return None
    if (skeleton.kind != PAIR).any() and (skeleton.kind > PAIR).any():
        return None
    pairs = np.unique(np.sort(skeleton.item[skeleton.kind == PAIR], axis=1), axis=0)
    partners = np.bincount(pairs.ravel(), minlength=num_qubits)
    most = int(np.diff(region.offset).max(initial=0))
    if partners.max(initial=0) > most or len(pairs) > len(region.neighbour) // 2:
        return None
    from qiskit import QuantumCircuit
    from qiskit.converters import circuit_to_dag
    from qiskit.transpiler.passes import VF2Layout

    circuit = QuantumCircuit(num_qubits)
    for a, b in pairs.tolist():
        circuit.cz(a, b)
    dag = circuit_to_dag(circuit)
    vf2 = VF2Layout(_coupling(region.device), seed=-1, call_limit=_PERFECT_STEPS, max_trials=1)
    vf2.run(dag)
    layout = vf2.property_set["layout"]
    if layout is None:
        return None
    found = [layout[dag.qubits[v]] for v in range(num_qubits)]
    if not np.isin(found, region.qubits).all():
        return None
    return region.local(found)


def quieter(skeleton: Skeleton, routed: Routed, device: Device, region: Region) -> Routed:
    """Return the same circuit on qubits with fewer errors, where error rates are known.

    VF2 looks for another place of the graph of couplings in use, by the error rates of the gates on
    them and of the readout of where the qubits end.
    """
    known = two_qubit_error(device)
    if known is None or known[0] not in _target(device).operation_names:
        return routed
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.converters import circuit_to_dag
    from qiskit.transpiler.passes import VF2PostLayout

    gate = get_standard_gate_name_mapping().get(known[0])
    if gate is None:
        return routed
    size = device.num_qubits
    circuit = QuantumCircuit(size, 1)
    used = np.zeros(size, dtype=bool)
    couplings = _couplings(skeleton, routed)
    most = max((count for _, _, count in couplings), default=1)
    for a, b, count in couplings:
        p, q = int(region.qubits[a]), int(region.qubits[b])
        used[[p, q]] = True
        for _ in range(-(-count * _SHARES // most)):
            circuit.append(gate, (p, q), copy=False)
    measured = "measure" in _target(device).operation_names
    for v in region.qubits[_end(skeleton, routed)].tolist():
        used[v] = True
        if measured:
            circuit.measure(v, 0)
    for v in region.qubits[routed.start].tolist():
        used[v] = True
    dag = circuit_to_dag(circuit)
    vf2 = VF2PostLayout(
        target=_target(device), seed=-1, call_limit=_QUIET_STEPS, strict_direction=False
    )
    vf2.run(dag)
    layout = vf2.property_set["post_layout"]
    if layout is None:
        return routed
    move = np.full(size, -1, dtype=np.int64)
    for q in np.flatnonzero(used).tolist():
        move[q] = layout[dag.qubits[q]]
    moved = move[used]
    if len(np.unique(moved)) < len(moved) or not np.isin(moved, region.qubits).all():
        return routed
    local = np.full(len(region.qubits) + 1, -1, dtype=np.int32)
    inside = used[region.qubits]
    local[:-1][inside] = region.local(move[region.qubits[inside]])
    event = routed.event.copy()
    placed = event[:, 1] >= 0
    event[placed, 1], event[placed, 2] = local[event[placed, 1]], local[event[placed, 2]]
    event[:, 3] = local[event[:, 3]]
    better = Routed(routed.cost, local[routed.start], event)
    before = success(skeleton, routed, device, region)
    return better if success(skeleton, better, device, region) > before else routed


def _couplings(skeleton: Skeleton, routed: Routed) -> list[tuple[int, int, int]]:
    """Return (qubit, qubit, CX gates) of each coupling that the events use."""
    totals: dict[tuple[int, int], int] = {}

    def add(a: int, b: int, count: int) -> None:
        key = (min(a, b), max(a, b))
        totals[key] = totals.get(key, 0) + count

    for i, p, q, middle in routed.event.tolist():
        if middle >= 0:
            add(p, middle, 2)
            add(middle, q, 2)
        elif i == SWAP:
            add(p, q, 2)
        elif p >= 0:
            add(p, q, max(int(skeleton.plain[i]), 1))
    return [(a, b, count) for (a, b), count in totals.items()]


def _end(skeleton: Skeleton, routed: Routed) -> Int32:
    """Return where the virtual qubits are at the end, int32[n]."""
    from qcomp.passes.map.route_kernels import EXCHANGE

    v2p = routed.start.tolist()
    p2v = {p: v for v, p in enumerate(v2p)}
    for i, p, q, _ in routed.event.tolist():
        if i != SWAP:
            if skeleton.kind[i] != EXCHANGE:
                continue
            p, q = (v2p[v] for v in skeleton.item[i].tolist())
        x, y = p2v.pop(p, -1), p2v.pop(q, -1)
        if x >= 0:
            v2p[x], p2v[q] = q, x
        if y >= 0:
            v2p[y], p2v[p] = p, y
    return np.array(v2p, dtype=np.int32)


def success(skeleton: Skeleton, routed: Routed, device: Device, region: Region) -> float:
    """Return the logarithm of the chance that no two-qubit gate and no readout fails.

    Unknown rates count as the mean of those that are known, 0 where none is.
    """
    known = two_qubit_error(device)
    total = 0.0
    if known is not None:
        rates = _filled(known[1])
        for a, b, count in _couplings(skeleton, routed):
            p, q = region.qubits[[a, b]]
            at = [int(k) for k in (device.pair_index(p, q), device.pair_index(q, p)) if k >= 0]
            total += count * min(-float(rates[k]) for k in at) if at else 0.0
    if "measure" in device.errors:
        wires = region.qubits[_end(skeleton, routed)]
        total -= float(_filled(device.errors["measure"])[wires].sum())
    return total


def _filled(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return -log(1 - rate), the mean where it is unknown."""
    known = np.isfinite(rates)
    mean = float(rates[known].mean()) if known.any() else 0.0
    return -np.log1p(-np.clip(np.where(known, rates, mean), 0.0, 0.999))
