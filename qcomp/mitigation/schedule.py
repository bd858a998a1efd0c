"""When each operation runs: as soon as possible or as late as possible, from a device's durations.

Figures of operations (error rates, durations) are looked up here too, whole runs at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.device import Device
from qcomp.ir.blocks import Delay, Item
from qcomp.ir.gates import GATES, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel

__all__ = ["Gaps", "Timeline", "durations_of", "operation_figures", "schedule", "seconds_of"]

Floats = NDArray[np.float64]

_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the operations of a stretch of straight-line code run.

    Operations are those of the runs and the delays, in program order.

    Attributes:
        start: float64[n], from the beginning of the stretch, in the unit of the durations.
        duration: float64[n].
        offsets: int64[n + 1]; the wires of operation i are ``wires[offsets[i] : offsets[i + 1]]``.
        wires: int32[k].
        length: The time at which the last operation ends.
    """

    start: Floats
    duration: Floats
    offsets: NDArray[np.int64]
    wires: NDArray[np.int32]
    length: float

    def gaps(self) -> Gaps:
        """Return the idle times of all wires.

        The time before a wire's first operation is none of them: it has done nothing yet.
        """
        n = len(self.start)
        owner = np.repeat(np.arange(n), np.diff(self.offsets))
        order = np.lexsort((owner, self.wires))
        wire, op = self.wires[order], owner[order]
        end = self.start[op] + self.duration[op]
        until = np.full(len(wire), self.length)
        following = np.full(len(wire), n, dtype=np.int64)
        same = np.flatnonzero(wire[1:] == wire[:-1])
        until[same] = self.start[op[same + 1]]
        following[same] = op[same + 1]
        some = until - end > 0
        return Gaps(wire[some], end[some], until[some], op[some], following[some])


@dataclass(frozen=True, slots=True)
class Gaps:
    """Idle times, one an entry, by wire and then by time.

    Attributes:
        wire: int32[m].
        begin: float64[m].
        end: float64[m].
        before: int64[m], the operation that ends where the idle time begins.
        after: int64[m], the operation that ends it, n for the end of the stretch.
    """

    wire: NDArray[np.int32]
    begin: Floats
    end: Floats
    before: NDArray[np.int64]
    after: NDArray[np.int64]


@kernel()
def _asap(offsets: Any, wires: Any, duration: Any, ready: Any, start: Any) -> float:
    """Start each operation when the last of its wires is free; return the end of all.

    offsets: int64[n + 1]. wires: int32[k]. duration, start: float64[n]. ready: float64[wires].
    """
    end = 0.0
    for i in range(len(duration)):
        now = 0.0
        for k in range(offsets[i], offsets[i + 1]):
            if ready[wires[k]] > now:
                now = ready[wires[k]]
        start[i] = now
        now += duration[i]
        for k in range(offsets[i], offsets[i + 1]):
            ready[wires[k]] = now
        if now > end:
            end = now
    return end


def schedule(
    items: Sequence[Item], durations: Floats, num_qubits: int, late: bool = False
) -> Timeline:
    """Return when the operations of runs and delays run.

    Args:
        items: Runs and delays.
        durations: float64[n] for the operations and delays in order, all known and in one unit.
        num_qubits: Wires.
        late: As late as possible, so that qubits stay in |0> longest, in place of as soon.

    Cost: linear in the operations.
    """
    offsets, wires = _operands(items)
    n = len(durations)
    start, ready = np.zeros(n), np.zeros(num_qubits)
    if not late:
        length = float(_asap.at(n)(offsets, wires, durations, ready, start))
        return Timeline(start, durations, offsets, wires, length)
    # The same sweep on time reversed.
    sizes = np.diff(offsets)[::-1]
    back = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    order = np.repeat(offsets[:-1][::-1] - back[:-1], sizes) + np.arange(len(wires))
    flipped = np.ascontiguousarray(durations[::-1])
    length = float(_asap.at(n)(back, wires[order], flipped, ready, start))
    return Timeline(length - (start[::-1] + durations), durations, offsets, wires, length)


def _operands(items: Sequence[Item]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    sizes: list[NDArray[np.int64]] = []
    wires: list[NDArray[np.int32]] = []
    for item in items:
        if isinstance(item, Delay):
            sizes.append(np.array([len(item.qubits)]))
            wires.append(np.array(item.qubits, dtype=np.int32))
        elif isinstance(item, Run):
            arity = NUM_QUBITS[item.code].astype(np.int64)
            wide = arity < 0
            count = np.where(wide, item.qubit[:, 1], arity)
            offsets = np.cumsum(count) - count
            flat = np.empty(int(count.sum()), dtype=np.int32)
            for k in range(3):
                rows = np.flatnonzero(~wide & (arity > k))
                flat[offsets[rows] + k] = item.qubit[rows, k]
            for i in np.flatnonzero(wide).tolist():
                flat[offsets[i] : offsets[i] + count[i]] = item.operands(i)
            sizes.append(count)
            wires.append(flat)
    total = np.concatenate([np.zeros(1, np.int64), *sizes]).astype(np.int64)
    return np.cumsum(total), np.concatenate([np.zeros(0, np.int32), *wires])


def operation_figures(
    run: Run,
    device: Device,
    figures: Mapping[str, Floats],
    virtual: Sequence[str] = (),
    typical: bool = False,
) -> Floats:
    """Return a figure of each operation of a run, float64[n]; ``nan`` where it is unknown.

    Barriers and global phases have 0, and so have gates that the machine does by a change of
    frame. A two-qubit gate that is not coupled in its own order has the figure of the other order.

    Args:
        run: The run, on physical qubits.
        device: The device.
        figures: Gate -> figure of each qubit or pair: the device's ``errors`` or ``durations``.
        virtual: Names of gates that are a change of frame.
        typical: Take the median over the device, for circuits that are not mapped to it.
    """
    out = np.zeros(len(run))
    for code in np.unique(run.code).tolist():
        row = GATES[code]
        rows = np.flatnonzero(run.code == code)
        known = next((figures[name] for name in (row.name, *row.aliases) if name in figures), None)
        if code in (G.BARRIER, G.GPHASE) or row.name in virtual:
            continue
        if known is None or row.num_qubits not in (1, 2):
            out[rows] = np.nan
        elif typical:
            finite = known[np.isfinite(known)]
            out[rows] = np.median(finite) if len(finite) else np.nan
        elif row.num_qubits == 1:
            qubits = run.qubit[rows, 0]
            inside = qubits < device.num_qubits
            out[rows] = np.where(inside, known[np.where(inside, qubits, 0)], np.nan)
        elif not len(device.pairs):
            out[rows] = np.nan
        else:
            a, b = run.qubit[rows, 0], run.qubit[rows, 1]
            there, back = device.pair_index(a, b), device.pair_index(b, a)
            forward = np.where(there >= 0, known[there], np.nan)
            backward = np.where(back >= 0, known[back], np.nan)
            out[rows] = np.where(np.isnan(forward), backward, forward)
    return out


def durations_of(
    items: Sequence[Item], device: Device, virtual: Sequence[str] = (), typical: bool = False
) -> Floats:
    """Return the seconds of each operation and delay, float64[n], ``nan`` where unknown."""
    parts = [np.zeros(0)]
    for item in items:
        if isinstance(item, Delay):
            parts.append(np.array([seconds_of(item, device.dt)]))
        elif isinstance(item, Run):
            parts.append(operation_figures(item, device, device.durations, virtual, typical))
    return np.concatenate(parts)


def seconds_of(delay: Delay, dt: float | None) -> float:
    """Return the length of a delay in seconds; ``nan`` in samples of unknown length."""
    value, unit = delay.duration.value, delay.duration.unit
    if unit == "dt":
        return float("nan") if dt is None else value * dt
    return value * _SECONDS[unit]
