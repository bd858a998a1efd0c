"""The search for a placement of qubits, compiled: many passes through a circuit."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcomp.kernels import kernel
from qcomp.passes.map.route_kernels import (
    NEVER,
    exchange,
    gain,
    look_ahead,
    random,
    route,
)

__all__ = ["search"]

_HOPELESS = 1.15
"""A placement whose second pass costs so many times the best has no third."""


def _place(interaction: Any, distance: Any, state: Any, v2p: Any, p2v: Any) -> None:
    """Place qubits one by one near those that they interact with, about a random centre."""
    p2v[:] = -1
    n = len(v2p)
    centre = int(random(state) * len(p2v))
    degree = interaction.sum(axis=1)
    link = np.zeros(n)
    placed = np.zeros(n, np.bool_)
    for number in range(n):
        chosen = -1
        most = -1.0
        for i in range(n):
            if placed[i]:
                continue
            value = (link[i] * 1000 + degree[i]) * (0.6 + 0.4 * random(state))
            value += 0.01 * random(state)
            if value > most:
                most = value
                chosen = i
        least = 1e300
        where = -1
        for q in range(len(p2v)):
            if p2v[q] >= 0:
                continue
            value = distance[centre, q] * (0.05 if number else 1.0)
            for j in range(n):
                if placed[j] and interaction[chosen, j] > 0:
                    value += interaction[chosen, j] * distance[q, v2p[j]]
            value += 1e-3 * random(state)
            if value < least:
                least = value
                where = q
        placed[chosen] = True
        v2p[chosen] = where
        p2v[where] = chosen
        link += interaction[chosen]


def _keep(
    cost: Any, start: Any, events: Any, event: Any, tuning: Any,
    best: Any, best_start: Any, best_event: Any, best_tuning: Any,
) -> None:  # fmt: skip
    """Remember the cheapest circuit so far."""
    best[0] = cost
    best[1] = events
    best_start[:] = start
    best_event[:events] = event[:events]
    best_tuning[:] = tuning


@kernel(calls=(random, exchange, gain, look_ahead, route, _place, _keep))
def search(
    item: Any,
    kind: Any,
    plain: Any,
    swapped: Any,
    bridgeable: Any,
    first: Any,
    successor: Any,
    waits_for: Any,
    back_first: Any,
    back_successor: Any,
    back_waits_for: Any,
    distance: Any,
    offset: Any,
    neighbour: Any,
    interaction: Any,
    starts: Any,
    fixed: Any,
    trials: Any,
    rounds: Any,
    refinements: Any,
    rival: Any,
    state: Any,
    event: Any,
    best_event: Any,
    best_start: Any,
) -> Any:
    """Search placements and swaps; return (CX gates, events), -1 events where ``event`` is short.

    First ``trials`` placements, those of ``starts`` first, go forwards and backwards through the
    circuit ``rounds`` times, as in SABRE: where a pass ends the next one starts. Those far behind
    the best after their second pass end there. Then the best is
    changed at random places ``refinements`` times, and kept where it is no worse; one that costs
    more than ``rival`` is not worth it. With ``fixed`` the first start is the placement, and only
    the swaps are searched.
    """
    n = len(best_start)
    size = len(distance)
    v2p = np.empty(n, np.int32)
    p2v = np.empty(size, np.int32)
    start = np.empty(n, np.int32)
    potential = np.zeros(size + 2)
    tuning = np.zeros(7)
    chosen = np.zeros(7)
    best = np.zeros(2, np.int64)
    best[0] = NEVER
    for trial in range(trials):
        if trial < len(starts):
            v2p[:] = starts[trial]
        elif fixed:
            v2p[:] = starts[0]
        else:
            _place(interaction, distance, state, v2p, p2v)
        tuning[0] = 0.05 + 0.25 * random(state)
        tuning[1] = 0.6 + 0.4 * random(state)
        tuning[2] = 8 + int(24 * random(state))
        tuning[3] = 3.0
        tuning[4] = 0.5
        tuning[5] = 40
        tuning[6] = 0.3 + 0.5 * random(state)
        for d in range(2, size + 2):
            potential[d] = (d - 1.0) ** tuning[6]
        for again in range(rounds):
            start[:] = v2p
            p2v[:] = -1
            for v in range(n):
                p2v[v2p[v]] = v
            cost, events = route(
                item, kind, plain, swapped, bridgeable, first, successor, waits_for, distance,
                offset, neighbour, v2p, p2v, tuning, potential, state,
                best[0] if fixed or again + 1 == rounds else NEVER, event,
            )  # fmt: skip
            if events < 0:
                return NEVER, -1
            if cost < best[0]:
                _keep(
                    cost, start, events, event, tuning,
                    best, best_start, best_event, chosen,
                )  # fmt: skip
            hopeless = again == 1 and cost > _HOPELESS * best[0]
            if fixed or hopeless or again + 1 == rounds:
                break
            cost, events = route(
                item, kind, plain, swapped, bridgeable, back_first, back_successor,
                back_waits_for, distance, offset, neighbour, v2p, p2v, tuning, potential, state,
                NEVER, event,
            )  # fmt: skip
            if events < 0:
                return NEVER, -1
    for _ in range(refinements if best[0] <= rival else 0):
        tuning[:] = chosen
        tuning[0] *= 0.8 + 0.4 * random(state)
        tuning[3] *= 0.9 + 0.2 * random(state)
        for d in range(2, size + 2):
            potential[d] = (d - 1.0) ** tuning[6]
        v2p[:] = best_start
        p2v[:] = -1
        for v in range(n):
            p2v[v2p[v]] = v
        changes = 0 if fixed else 1 + int(3 * random(state))
        for _change in range(changes):
            p = v2p[int(n * random(state))]
            q = p
            for _step in range(2 if random(state) < 0.3 else 1):
                q = neighbour[offset[q] + int((offset[q + 1] - offset[q]) * random(state))]
            if q != p:
                exchange(p, q, v2p, p2v)
        start[:] = v2p
        cost, events = route(
            item, kind, plain, swapped, bridgeable, first, successor, waits_for, distance,
            offset, neighbour, v2p, p2v, tuning, potential, state, best[0] + 1, event,
        )  # fmt: skip
        if events < 0:
            return NEVER, -1
        if cost <= best[0]:
            _keep(cost, start, events, event, tuning, best, best_start, best_event, chosen)
    return best[0], best[1]
