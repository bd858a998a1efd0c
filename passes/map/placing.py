"""The mapped run: operations put on the qubits where their wires are, swaps between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.gates import NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.map.route_kernels import EXCHANGE, SWAP
from qcomp.passes.map.skeleton import Skeleton
from qcomp.passes.reduce.leaves import call

__all__ = ["placed"]

Int32 = NDArray[np.int32]

_CX_GATE = G.CX

CX = -1
"""Source of an operation that no operation of the run stands for: a CX gate."""


def _add_cx(a: Any, b: Any, made: Any, source: Any, qubit: Any, ends: Any) -> Any:
    """Append a CX gate and remember it as the last one of its qubits; return the new length."""
    source[made] = CX
    qubit[3 * made] = a
    qubit[3 * made + 1] = b
    qubit[3 * made + 2] = -1
    ends[a] = 2 * made
    ends[b] = 2 * made + 1
    return made + 1


@kernel(calls=(_add_cx,))
def _replay(
    events: int,
    event: Any,
    bound: Any,
    order: Any,
    code: Any,
    arity: Any,
    operand: Any,
    extra: Any,
    exchanged: Any,
    first: Any,
    second: Any,
    v2p: Any,
    p2v: Any,
    ends: Any,
    new_extra: Any,
    source: Any,
    qubit: Any,
) -> int:
    """Write the operations in the order of the events; return how many.

    bound: int32[events + 2], where each event's operations begin in ``order``. ends: int32[qubits],
    for each physical qubit twice the position of its last CX gate, one more where it is its
    target, -1 where another operation came since.
    """
    made = 0
    for e in range(events + 1):
        middle = event[4 * e + 3] if e < events else -1
        for k in range(bound[e], bound[e + 1]):
            i = order[k]
            if code[i] == _CX_GATE and middle >= 0:
                a = v2p[operand[3 * i]]
                b = v2p[operand[3 * i + 1]]
                if p2v[middle] >= 0:
                    made = _add_cx(middle, b, made, source, qubit, ends)
                made = _add_cx(a, middle, made, source, qubit, ends)
                made = _add_cx(middle, b, made, source, qubit, ends)
                made = _add_cx(a, middle, made, source, qubit, ends)
                continue
            source[made] = i
            qubit[3 * made] = operand[3 * i]
            qubit[3 * made + 1] = operand[3 * i + 1]
            qubit[3 * made + 2] = operand[3 * i + 2]
            if arity[i] < 0:
                for j in range(operand[3 * i], operand[3 * i] + operand[3 * i + 1]):
                    new_extra[j] = v2p[extra[j]]
                    ends[new_extra[j]] = -1
            else:
                for j in range(arity[i]):
                    p = v2p[operand[3 * i + j]]
                    qubit[3 * made + j] = p
                    ends[p] = -1
                if code[i] == _CX_GATE:
                    ends[qubit[3 * made]] = 2 * made
                    ends[qubit[3 * made + 1]] = 2 * made + 1
            made += 1
        if e == events:
            break
        p = -1
        q = -1
        if event[4 * e] == SWAP:
            p = event[4 * e + 1]
            q = event[4 * e + 2]
            if p2v[p] < 0 or p2v[q] < 0:
                a = q if p2v[p] < 0 else p
                b = p + q - a
                made = _add_cx(a, b, made, source, qubit, ends)
                made = _add_cx(b, a, made, source, qubit, ends)
            else:
                # The first of three CX gates may cancel with one that stands before.
                a = p
                if ends[p] >= 0 and ends[p] // 2 == ends[q] // 2 and ends[p] % 2 == 1:
                    a = q
                b = p + q - a
                made = _add_cx(a, b, made, source, qubit, ends)
                made = _add_cx(b, a, made, source, qubit, ends)
                made = _add_cx(a, b, made, source, qubit, ends)
        elif exchanged[event[4 * e]]:
            p = v2p[first[event[4 * e]]]
            q = v2p[second[event[4 * e]]]
        if p >= 0:
            x = p2v[p]
            y = p2v[q]
            p2v[p] = y
            p2v[q] = x
            if x >= 0:
                v2p[x] = q
            if y >= 0:
                v2p[y] = p
    return made


def placed(skeleton: Skeleton, event: Int32, v2p: Int32, num_physical: int) -> tuple[Run, Int32]:
    """Return (the run on physical qubits, the placement at its end).

    Args:
        skeleton: The run.
        event: int32[e, 4], items and swaps as :func:`~qcomp.passes.map.route_kernels.route` gives
            them.
        v2p: Virtual qubit -> physical qubit at the start.
        num_physical: Qubits of the device.
    """
    run = skeleton.run
    n, events = len(run), len(event)
    time = _times(skeleton, event)
    keep = np.ones(n, dtype=bool)
    exchanged = skeleton.kind == EXCHANGE
    mine = skeleton.owner >= 0
    keep[mine] = ~exchanged[skeleton.owner[mine]]
    order = np.flatnonzero(keep)
    order = order[np.argsort(time[order], kind="stable")]
    begin = np.searchsorted(time[order], np.arange(events + 2))
    p2v = np.full(num_physical, -1, dtype=np.int32)
    p2v[v2p] = np.arange(len(v2p), dtype=np.int32)
    v2p = v2p.copy()
    size = len(order) + 3 * events
    source, qubit = np.empty(size, dtype=np.int64), np.empty(3 * size, dtype=np.int32)
    new_extra = run.extra.copy()
    made = call(
        _replay,
        n + events,
        (
            events,
            event.ravel(),
            begin,
            order,
            run.code,
            NUM_QUBITS[run.code],
            run.qubit.ravel(),
            run.extra,
            exchanged,
            skeleton.item[:, 0].copy(),
            skeleton.item[:, 1].copy(),
        ),
        (v2p, p2v, np.full(num_physical, -1, np.int32), new_extra, source, qubit),
    )
    source = source[:made]
    operands = qubit[: 3 * made].reshape(-1, 3)
    with_cx = Run.concat([run, Run.of([G.CX], [(0, 1, -1)])])
    begins = Run(
        with_cx.code,
        with_cx.qubit,
        with_cx.angle,
        with_cx.frac,
        with_cx.rem,
        with_cx.form,
        new_extra,
    )
    new = begins.select(np.where(source == CX, n, source))
    wide = new.is_wide
    operands[wide] = new.qubit[wide]
    result = Run(new.code, operands, new.angle, new.frac, new.rem, new.form, new.extra)
    return result, v2p


def _times(skeleton: Skeleton, event: Int32) -> NDArray[np.int64]:
    """Return the event that each operation belongs to or rides before; the last comes after all."""
    events = len(event)
    time = np.full(len(skeleton.kind), events, dtype=np.int64)
    is_item = event[:, 0] != SWAP
    time[event[is_item, 0]] = np.flatnonzero(is_item)
    groups = int(skeleton.slot_group.max(initial=-1)) + 1
    earliest = np.full(groups + 1, events, dtype=np.int64)
    np.minimum.at(earliest, skeleton.slot_group, time[skeleton.slot_item])
    out = np.full(len(skeleton.run), events, dtype=np.int64)
    for own, table in (
        (skeleton.anchor, earliest),
        (skeleton.ahead, time),
        (skeleton.owner, time),
    ):
        has = own >= 0
        out[has] = table[own[has]]
    skipped = skeleton.run.code == G.GPHASE
    out[skipped] = 0
    return out
