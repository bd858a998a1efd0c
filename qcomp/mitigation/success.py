"""Expected success probability: how likely a circuit runs on a device without a single fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcomp.device import Device
from qcomp.ir.blocks import Block, Delay, Item
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, G
from qcomp.ir.run import Run
from qcomp.mitigation.schedule import Floats, durations_of, operation_figures, schedule

__all__ = ["Success", "success_probability"]


@dataclass(frozen=True, slots=True)
class Success:
    """The expected success probability of a circuit and its parts.

    Attributes:
        probability: ``gates * readout``; None where a rate is unknown.
        gates: The product over gates whose rates are known.
        readout: The product over measurements whose rates are known.
        idle: The factor of relaxation in idle times; None where durations or times are unknown.
        unknown: Operations without a rate, "name (times)" each.
        length: Seconds that the circuit takes, None where durations are unknown.
        typical: Whether medians over the device stand for the circuit's own qubits.
    """

    probability: float | None
    gates: float
    readout: float
    idle: float | None
    unknown: tuple[str, ...] = ()
    length: float | None = None
    typical: bool = False

    @property
    def bound(self) -> float:
        """An upper bound of the probability: the product of all that is known, idle times too."""
        return self.gates * self.readout * (1.0 if self.idle is None else self.idle)

    def __str__(self) -> str:
        """Return the figures in words."""
        if self.probability is None:
            return f"unknown, at most {self.bound:.3g}: no rates of {', '.join(self.unknown)}"
        parts = f"{self.probability:.3g} (gates {self.gates:.3g}, readout {self.readout:.3g})"
        idle = "" if self.idle is None else f"; idle times {self.idle:.3g}"
        return parts + idle + ("; medians of the device, not mapped" if self.typical else "")


def success_probability(
    circuit: Circuit, device: Device, *, virtual: Sequence[str] = (), typical: bool = False
) -> Success:
    """Return the expected success probability of a circuit on a device.

    ``ESP = prod over gates and measurements (1 - e_g)`` (Nishio, Pan, Satoh, Amano, Van Meter
    2019, arXiv:1903.10963; Murali, Baker, Javadi-Abhari, Chong, Martonosi 2019, arXiv:1901.11054).

    Where all durations and relaxation times are known, each idle time t of an as-soon-as-possible
    schedule, from a qubit's first operation to its last, has besides the average fidelity of
    relaxation, ``1/2 + exp(-t/T1)/6 + exp(-t/T2)/3``.

    Bodies of control flow count once, branches all; such circuits have no factor of idle times.

    Cost: linear, whole runs at once.

    Args:
        circuit: The circuit, on physical qubits.
        device: The device.
        virtual: Gates that are a change of frame: no error, no time.
        typical: Take medians over the device, for circuits that are not mapped to it.
    """
    logs = {"gates": 0.0, "readout": 0.0}
    missing: dict[str, int] = {}
    for run in circuit.runs():
        rates = operation_figures(run, device, device.errors, virtual, typical)
        lost = np.isnan(rates)
        for code, count in zip(*np.unique(run.code[lost], return_counts=True), strict=True):
            name = GATES[int(code)].name
            missing[name] = missing.get(name, 0) + int(count)
        with np.errstate(divide="ignore"):
            parts = np.log1p(-np.clip(np.where(lost, 0.0, rates), 0.0, 1.0))
        measured = run.code == G.MEASURE
        logs["readout"] += float(parts[measured].sum())
        logs["gates"] += float(parts[~measured].sum())
    gates, readout = float(np.exp(logs["gates"])), float(np.exp(logs["readout"]))
    idle, length = _idle(circuit, device, virtual, typical)
    return Success(
        None if missing else gates * readout,
        gates,
        readout,
        idle,
        tuple(f"{name} ({count})" for name, count in missing.items()),
        length,
        typical,
    )


def _idle(
    circuit: Circuit, device: Device, virtual: Sequence[str], typical: bool
) -> tuple[float | None, float | None]:
    """Return (factor of idle times, length in seconds), None where they are unknown."""
    items = _flat(circuit.body)
    if items is None:
        return None, None
    durations = durations_of(items, device, virtual, typical)
    if np.isnan(durations).any():
        return None, None
    line = schedule(items, durations, circuit.num_qubits)
    gaps = line.gaps()
    inside = gaps.after < len(durations)
    wire, idle = gaps.wire[inside], (gaps.end - gaps.begin)[inside]
    # What waits explicitly is idle as well.
    explicit = np.concatenate(
        [np.ones(1, bool) if isinstance(i, Delay) else np.zeros(_count(i), bool) for i in items]
        + [np.zeros(0, bool)]
    )
    waiting = np.repeat(explicit, np.diff(line.offsets))
    wire = np.concatenate([wire, line.wires[waiting]])
    idle = np.concatenate([idle, np.repeat(durations, np.diff(line.offsets))[waiting]])
    if typical or (len(wire) and wire.max() >= device.num_qubits):
        t1 = np.full(len(wire), _median(device.t1))
        t2 = np.full(len(wire), _median(device.t2))
    else:
        t1, t2 = device.t1[wire], device.t2[wire]
    fidelity = 0.5 + np.exp(-idle / t1) / 6 + np.exp(-idle / t2) / 3
    factor = float(np.exp(np.log(fidelity).sum()))
    return (None if np.isnan(factor) else factor), line.length


def _flat(body: Block) -> list[Item] | None:
    """Return a body of runs and delays; None where there is anything else."""
    return list(body) if all(isinstance(item, Run | Delay) for item in body) else None


def _count(item: Item) -> int:
    return len(item) if isinstance(item, Run) else 0


def _median(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")
