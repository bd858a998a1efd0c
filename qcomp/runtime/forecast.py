"""What running a circuit will take, said before it is run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.layout import unmapped
from qcomp.ir.program import Readout
from qcomp.mitigation.grouping import group_observables
from qcomp.runtime.devices import DEVICES, run_on

__all__ = ["Forecast", "forecast"]

_LONG_ENOUGH = 0.02
"""Processor seconds of a probe that is followed to all rows."""

_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Forecast:
    """Resources of running one circuit for many rows of parameters.

    Attributes:
        qubits: Qubits in use.
        gates: Gates.
        two_qubit: Gates on two qubits.
        depth: Longest chain of gates.
        settings: Measurement settings: products that commute qubit by qubit share one.
        executions: Circuits that a machine runs: rows times settings.
        shots: Shots in all; 0 for exact values.
        cpu_seconds: Processor time on the device that was probed.
    """

    qubits: int
    gates: int
    two_qubit: int
    depth: int
    settings: int
    executions: int
    shots: int
    cpu_seconds: float


def forecast(
    circuit: Circuit, readout: Readout, rows: int, *, shots: int | None = None, device: str = "sim"
) -> Forecast:
    """Return what ``rows`` rows of a circuit will take.

    Time is measured, not modelled: the device runs 16, 32, 64 ... rows of random parameters until a
    call takes 20 ms or half of all rows is reached. The time is followed to ``rows`` by the last
    two: a row more costs what it did between them, at most the mean of a row. The least of three
    repeats counts, after one that loads what is needed.

    Args:
        circuit: The circuit; of a mapped one, the qubits in use count.
        readout: What is read out.
        rows: Rows of parameters.
        shots: Shots of each row and setting in place of the readout's own; 0 for exact values.
        device: A name of ``DEVICES``; what runs elsewhere takes its own time.

    Raises:
        UsageError: If the number of rows is negative, or the device cannot give the readout.
    """
    if rows < 0 or device not in DEVICES:
        raise UsageError(f"there is no forecast of {rows} rows on '{device}'")
    stats = unmapped(circuit).stats()
    settings = len(group_observables(readout.observables)) if readout.kind == "expval" else 1
    count = readout.shots if shots is None else shots
    rng = np.random.default_rng(0)

    def seconds(size: int) -> float:
        return _seconds(device, circuit, readout, rng.normal(size=(size, columns)), shots)

    columns, size = len(circuit.params), 16
    low, high = 0.0, seconds(size)
    while high < _LONG_ENOUGH and 4 * size <= rows:
        size *= 2
        low, high = high, seconds(size)
    slope = min(max(high - low, 0.0) / (size / 2), high / size)
    return Forecast(
        stats.qubits,
        stats.gates,
        stats.two_qubit,
        stats.depth,
        settings,
        rows * settings,
        rows * settings * count,
        max(high + slope * (rows - size), 0.0),
    )


def _seconds(
    device: str,
    circuit: Circuit,
    readout: Readout,
    rows: NDArray[np.float64],
    shots: int | None,
) -> float:
    spent = []
    for _ in range(_REPEATS + 1):
        start = time.process_time()
        run_on(device, circuit, readout, rows, shots, 0)
        spent.append(time.process_time() - start)
    return min(spent[1:])
