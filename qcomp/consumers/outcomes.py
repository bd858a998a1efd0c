"""What a circuit's run gives, from whatever simulator, in one form that can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.blocks import Block, Box, Delay, Item
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.layout import active_wires, relabel
from qcomp.ir.run import Run
from qcomp.simulate import bit_distribution, probabilities

__all__ = ["MAX_QUBITS", "Outcome", "distance", "our_outcome", "with_bits"]

MAX_QUBITS = 12
"""Qubits in use up to which distributions are compared."""

_MAX_BITS = 20
_LEAST = 1e-15


@dataclass(frozen=True, slots=True)
class Outcome:
    """A distribution.

    Attributes:
        weights: Probability of each index, float64[2^n].
        wires: The qubit, or the classical bit, that each bit of the index is.
        measured: (qubit, classical bit) of each measurement in order, all at the end; the bit is
            None where the simulator does not tell. None when ``wires`` are classical bits.
    """

    weights: NDArray[np.float64]
    wires: tuple[int, ...]
    measured: tuple[tuple[int, int | None], ...] | None


def our_outcome(circuit: Circuit) -> Outcome | str:
    """Return the circuit's exact outcome, or why there is none.

    Args:
        circuit: A circuit without free parameters.
    """
    circuit = _without_boxes(circuit)
    used = np.flatnonzero(active_wires(circuit)).tolist()
    if len(used) > MAX_QUBITS:
        return f"{len(used)} qubits are more than {MAX_QUBITS}"
    wire = np.full(circuit.num_qubits, -1, dtype=np.int32)
    wire[used] = np.arange(len(used))
    small = relabel(circuit, wire, len(used))
    measured = _final_measurements(small)
    if measured is not None:
        return Outcome(
            probabilities(small)[0],
            tuple(used),
            tuple((used[qubit], bit) for qubit, bit in measured),
        )
    if circuit.num_clbits > _MAX_BITS:
        return f"{circuit.num_clbits} classical bits are more than {_MAX_BITS}"
    return Outcome(bit_distribution(small)[0], tuple(range(circuit.num_clbits)), None)


def _without_boxes(circuit: Circuit) -> Circuit:
    """Return the circuit with what is in boxes in their place, and without delays."""

    def opened(block: Block) -> Iterator[Item]:
        for item in block:
            if isinstance(item, Box):
                yield from opened(item.body)
            elif not isinstance(item, Delay):
                yield item

    if any(isinstance(item, Box | Delay) for item in circuit.body):
        return circuit.copy(body=tuple(opened(circuit.body)))
    return circuit


def _final_measurements(circuit: Circuit) -> list[tuple[int, int]] | None:
    """Return the measurements; None when something else may follow one, or bits decide."""
    if any(not isinstance(item, Run) for item in circuit.body):
        return None
    run = circuit.run
    if (run.code == G.RESET).any():
        return None
    found: list[tuple[int, int]] = []
    done: set[int] = set()
    for i in np.flatnonzero(run.code != G.BARRIER).tolist():
        if run.code[i] == G.MEASURE:
            qubit, bit = int(run.qubit[i, 0]), int(run.qubit[i, 1])
            if qubit in done or any(bit == other for _, other in found):
                return None
            done.add(qubit)
            found.append((qubit, bit))
        elif done and done & set(run.operands(i)):
            return None
    return found


def with_bits(theirs: Outcome, text: Circuit) -> Outcome | str:
    """Return an outcome whose measurements have bits: those of the text, in its order."""
    if theirs.measured is None or all(bit is not None for _, bit in theirs.measured):
        return theirs
    bits = [int(bit) for run in text.runs() for bit in run.qubit[run.code == G.MEASURE, 1].tolist()]
    if len(bits) != len(theirs.measured):
        return "the measurements cannot be told apart"
    measured = tuple((q, bit) for (q, _), bit in zip(theirs.measured, bits, strict=True))
    return Outcome(theirs.weights, theirs.wires, measured)


def distance(ours: Outcome, theirs: Outcome) -> float:
    """Return the total variation between two outcomes.

    Distributions are over the measured classical bits, over the qubits where nothing is measured.
    """
    a, b = _table(ours), _table(theirs)
    return 0.5 * sum(abs(a.get(key, 0.0) - b.get(key, 0.0)) for key in a.keys() | b.keys())


def _table(outcome: Outcome) -> dict[int, float]:
    """Return value of the bits -> probability."""
    if not outcome.measured:
        return _grouped(outcome, list(enumerate(outcome.wires)))
    place = {qubit: k for k, qubit in enumerate(outcome.wires)}
    moved = [(place[q], bit) for q, bit in outcome.measured if q in place and bit is not None]
    return _grouped(outcome, moved)


def _grouped(outcome: Outcome, moved: Sequence[tuple[int, int]]) -> dict[int, float]:
    """Return probabilities by value, index bit ``a`` being bit ``b`` of the value for each pair."""
    table: dict[int, float] = {}
    for index in np.flatnonzero(outcome.weights > _LEAST).tolist():
        value = sum(((index >> a) & 1) << b for a, b in moved)
        table[value] = table.get(value, 0.0) + float(outcome.weights[index])
    return table
