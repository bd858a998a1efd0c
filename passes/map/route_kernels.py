"""The swaps that bring interactions together: one pass through a circuit, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "EXCHANGE",
    "NEVER",
    "ORDER",
    "PAIR",
    "SWAP",
    "exchange",
    "gain",
    "look_ahead",
    "random",
    "route",
]

NEVER = 1 << 30
"""Cost of what was given up."""

SWAP = -1
"""First entry of an event that is a swap and not an item."""

ORDER, PAIR, EXCHANGE = range(3)
"""Kinds of items."""

_SWAP_COST = 3
_SWAP_WITH_ANCILLA = 2
"""CX gates of a swap, and of one with a qubit in |0>: two CX gates take the state across."""

_ABSORBED = 1 << 20
"""Mark of a swap that was absorbed into the block before it, added to the block's event."""


def random(state: Any) -> Any:
    """Return a number in (0, 1): the multiplicative generator of Park and Miller."""
    state[0] = state[0] * 48271 % 2147483647
    return state[0] / 2147483647.0


def exchange(p: Any, q: Any, v2p: Any, p2v: Any) -> None:
    """Swap what two physical qubits hold; -1 is an ancilla."""
    x = p2v[p]
    y = p2v[q]
    p2v[p] = y
    p2v[q] = x
    if x >= 0:
        v2p[x] = q
    if y >= 0:
        v2p[y] = p


def gain(
    x: Any,
    y: Any,
    p: Any,
    q: Any,
    head: Any,
    after: Any,
    partner: Any,
    weight: Any,
    v2p: Any,
    distance: Any,
    potential: Any,
) -> Any:
    """Return how the potential changes when x on p and y on q change places."""
    total = 0.0
    if x >= 0:
        k = head[x]
        while k >= 0:
            if partner[k] != y:
                r = v2p[partner[k]]
                total += weight[k] * (potential[distance[q, r]] - potential[distance[p, r]])
            k = after[k]
    if y >= 0:
        k = head[y]
        while k >= 0:
            if partner[k] != x:
                r = v2p[partner[k]]
                total += weight[k] * (potential[distance[p, r]] - potential[distance[q, r]])
            k = after[k]
    return total


def look_ahead(
    front: Any,
    waiting: Any,
    item: Any,
    kind: Any,
    first: Any,
    successor: Any,
    share: Any,
    fading: Any,
    reach: Any,
    stamp: Any,
    tick: Any,
    queue: Any,
    worth: Any,
    head: Any,
    after: Any,
    partner: Any,
    weight: Any,
) -> None:
    """List, qubit by qubit, the partners of the waiting items and of the next ``reach`` items.

    Waiting items weigh 1, the items behind them ``share`` at first and ``fading`` times less with
    each further step.
    """
    used = 0
    head[:] = -1
    begin = 0
    end = 0
    for k in range(waiting):
        i = front[k]
        queue[end] = i
        worth[end] = share
        end += 1
        stamp[i] = tick
        for side in range(2):
            v = item[i, side]
            partner[used] = item[i, 1 - side]
            weight[used] = 1.0
            after[used] = head[v]
            head[v] = used
            used += 1
    found = 0
    while begin < end and found < reach:
        i = queue[begin]
        value = worth[begin]
        begin += 1
        for k in range(first[i], first[i + 1]):
            j = successor[k]
            if stamp[j] == tick:
                continue
            stamp[j] = tick
            queue[end] = j
            worth[end] = value
            if kind[j] == PAIR:
                worth[end] = value * fading
                found += 1
                for side in range(2):
                    v = item[j, side]
                    partner[used] = item[j, 1 - side]
                    weight[used] = value
                    after[used] = head[v]
                    head[v] = used
                    used += 1
            end += 1
            if found >= reach:
                break


def route(
    item: Any,
    kind: Any,
    plain: Any,
    swapped: Any,
    bridgeable: Any,
    first: Any,
    successor: Any,
    waits_for: Any,
    distance: Any,
    offset: Any,
    neighbour: Any,
    v2p: Any,
    p2v: Any,
    tuning: Any,
    potential: Any,
    state: Any,
    limit: Any,
    event: Any,
) -> Any:
    """Bring every item's qubits together by swaps; return (CX gates, events), or NEVER.

    item: int32[n, 2], the virtual qubits of each; kind: PAIR acts on both; EXCHANGE only renames
    them, as a swap does; ORDER only orders others. plain, swapped: CX gates of an item, and with a
    swap. bridgeable: whether it is one CX gate. first, successor: what each item frees; waits_for:
    how many free it. v2p, p2v: the placement, which changes. tuning: share, fading, reach, price of
    a step, of a qubit swapped again, patience. limit: cost at which to give up. event: int32[m, 4],
    filled with (item or SWAP, p, q, middle of a bridge or -1); NEVER comes back with -1 events
    when they do not suffice.
    """
    n = len(item)
    capacity = len(event)
    share = tuning[0]
    fading = tuning[1]
    reach = int(tuning[2])
    step = tuning[3]
    again = tuning[4]
    patience = int(tuning[5])
    missing = waits_for.copy()
    front = np.empty(n, np.int32)
    ready = np.empty(n, np.int32)
    stamp = np.zeros(n, np.int32)
    queue = np.empty(n + 1, np.int32)
    worth = np.empty(n + 1, np.float64)
    head = np.full(len(v2p), -1, np.int32)
    after = np.empty(2 * n + 2, np.int32)
    partner = np.empty(2 * n + 2, np.int32)
    weight = np.empty(2 * n + 2, np.float64)
    last = np.full(len(p2v), -1, np.int32)
    tired = np.zeros(len(p2v), np.float64)
    looked = np.zeros(len(p2v), np.int32)
    turn = 0
    spent = np.zeros(capacity, np.int32)
    turned = np.zeros(capacity, np.bool_)
    waiting = 0
    count = 0
    tick = 0
    events = 0
    cost = 0
    idle = 0
    for i in range(n):
        if missing[i] == 0:
            ready[count] = i
            count += 1
    changed = True
    while True:
        moved = False
        while count > 0:
            count -= 1
            i = ready[count]
            if events >= capacity:
                return NEVER, -1
            event[events, 0] = i
            event[events, 1] = -1
            event[events, 2] = -1
            event[events, 3] = -1
            if kind[i] == PAIR:
                p = v2p[item[i, 0]]
                q = v2p[item[i, 1]]
                if distance[p, q] > 1:
                    front[waiting] = i
                    waiting += 1
                    changed = True
                    continue
                c = plain[i]
                e = last[p]
                turned[events] = False
                if e >= 0 and e == last[q] and event[e, 0] == SWAP:
                    cost -= spent[e]
                    spent[e] = 0
                    c = swapped[i]
                    turned[events] = True
                cost += c
                event[events, 1] = p
                event[events, 2] = q
                last[p] = events
                last[q] = events
            elif kind[i] == EXCHANGE:
                exchange(v2p[item[i, 0]], v2p[item[i, 1]], v2p, p2v)
            events += 1
            moved = True
            changed = True
            for k in range(first[i], first[i + 1]):
                j = successor[k]
                missing[j] -= 1
                if missing[j] == 0:
                    ready[count] = j
                    count += 1
        if cost >= limit:
            return NEVER, 0
        if moved:
            idle = 0
            tired[:] = 0.0
        if waiting == 0:
            return cost, events
        if changed:
            changed = False
            tick += 1
            look_ahead(
                front, waiting, item, kind, first, successor, share, fading, reach, stamp,
                tick, queue, worth, head, after, partner, weight,
            )  # fmt: skip
        best = 1e300
        best_p = -1
        best_q = -1
        best_cost = 0
        bridge = -1
        middle = -1
        ties = 0
        turn += 1
        if idle <= patience:
            for k in range(waiting):
                i = front[k]
                for side in range(2):
                    p = v2p[item[i, side]]
                    if looked[p] == turn:
                        continue
                    looked[p] = turn
                    for t in range(offset[p], offset[p + 1]):
                        q = neighbour[t]
                        if looked[q] == turn:
                            continue
                        c = _SWAP_COST if p2v[q] >= 0 else _SWAP_WITH_ANCILLA
                        e = last[p]
                        if e >= 0 and e == last[q]:
                            if event[e, 0] == SWAP or turned[e]:
                                continue
                            c = swapped[event[e, 0]] - plain[event[e, 0]]
                        score = c + again * (tired[p] + tired[q])
                        score += step * gain(
                            p2v[p], p2v[q], p, q, head, after, partner, weight, v2p, distance,
                            potential,
                        )  # fmt: skip
                        if score < best - 1e-9:
                            ties = 0
                        elif score > best + 1e-9:
                            continue
                        ties += 1
                        if ties == 1 or random(state) * ties < 1.0:
                            best = score
                            best_p = p
                            best_q = q
                            best_cost = c
                            bridge = -1
                p = v2p[item[i, 0]]
                q = v2p[item[i, 1]]
                if not bridgeable[i] or distance[p, q] != 2:
                    continue
                for t in range(offset[p], offset[p + 1]):
                    r = neighbour[t]
                    if distance[r, q] != 1:
                        continue
                    c = _SWAP_COST if p2v[r] >= 0 else _SWAP_WITH_ANCILLA
                    score = c - step * potential[2]
                    if score < best - 1e-9:
                        best = score
                        best_p = p
                        best_q = q
                        best_cost = c + plain[i]
                        bridge = k
                        middle = r
                        ties = 1
        if events + len(p2v) >= capacity:
            return NEVER, -1
        if best_p < 0:
            # Nothing was brought together for long: undo that, and take the shortest way to one.
            while idle > 0:
                idle -= 1
                events -= 1
                p = event[events, 1]
                q = event[events, 2]
                exchange(p, q, v2p, p2v)
                e = spent[events]
                if e >= _ABSORBED:
                    e -= _ABSORBED
                    turned[e] = False
                    cost -= swapped[event[e, 0]] - plain[event[e, 0]]
                else:
                    cost -= e
                last[p] = -1
                last[q] = -1
            nearest = front[0]
            for k in range(1, waiting):
                i = front[k]
                here = distance[v2p[item[i, 0]], v2p[item[i, 1]]]
                if here < distance[v2p[item[nearest, 0]], v2p[item[nearest, 1]]]:
                    nearest = i
            p = v2p[item[nearest, 0]]
            q = v2p[item[nearest, 1]]
            while distance[p, q] > 1:
                t = offset[p]
                while distance[neighbour[t], q] >= distance[p, q]:
                    t += 1
                r = neighbour[t]
                c = _SWAP_COST if p2v[r] >= 0 else _SWAP_WITH_ANCILLA
                cost += c
                event[events, 0] = SWAP
                event[events, 1] = p
                event[events, 2] = r
                event[events, 3] = -1
                spent[events] = c
                last[p] = events
                last[r] = events
                events += 1
                exchange(p, r, v2p, p2v)
                p = r
        elif bridge >= 0:
            i = front[bridge]
            waiting -= 1
            front[bridge] = front[waiting]
            cost += best_cost
            event[events, 0] = i
            event[events, 1] = best_p
            event[events, 2] = best_q
            event[events, 3] = middle
            events += 1
            last[best_p] = -1
            last[best_q] = -1
            last[middle] = -1
            changed = True
            idle = 0
            for k in range(first[i], first[i + 1]):
                j = successor[k]
                missing[j] -= 1
                if missing[j] == 0:
                    ready[count] = j
                    count += 1
        else:
            cost += best_cost
            event[events, 0] = SWAP
            event[events, 1] = best_p
            event[events, 2] = best_q
            event[events, 3] = -1
            e = last[best_p]
            if e >= 0 and e == last[best_q]:
                turned[e] = True
                spent[events] = _ABSORBED + e
            else:
                spent[events] = best_cost
                last[best_p] = events
                last[best_q] = events
            events += 1
            exchange(best_p, best_q, v2p, p2v)
            tired[best_p] += 1.0
            tired[best_q] += 1.0
            idle += 1
        k = 0
        while k < waiting:
            i = front[k]
            if distance[v2p[item[i, 0]], v2p[item[i, 1]]] <= 1:
                ready[count] = i
                count += 1
                waiting -= 1
                front[k] = front[waiting]
            else:
                k += 1
