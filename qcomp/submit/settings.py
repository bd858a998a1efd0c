"""From circuits and readouts to what a machine runs, and from its bits back to values.

A *call* is one circuit of an artifact with its rows of parameters. A machine gives bits only, so a
call becomes *settings*: circuits that end in measurements. ``expval`` takes one setting for each
group of Pauli products that share a measurement basis; every other readout takes one. Qubits of a
circuit that was mapped are read where its layout says that they end.

The change of basis is written in gates that the target has (U turns the product into Z's):

=====  =====================================  =========================================
basis  first of these that the target has     U^dagger Z U
=====  =====================================  =========================================
X      h; ry(-pi/2); r; gpi2; rz sx; rz rx    X
Y      rx(pi/2); sx; r; gpi2; sdg h; rz h     Y
=====  =====================================  =========================================
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import pi
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import TargetError
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.observable import Observable
from qcomp.ir.program import Readout
from qcomp.mitigation.grouping import Group, combine, group_observables
from qcomp.runtime.estimates import estimate, grouped_errors
from qcomp.simulate import measures
from qcomp.simulate.control_flow import final_measurements

if TYPE_CHECKING:
    from qcomp.runtime.artifact import Artifact

__all__ = [
    "DEFAULT_SHOTS",
    "Call",
    "Setting",
    "WideError",
    "call_of",
    "observed",
    "pending_calls",
    "turned",
]

DEFAULT_SHOTS = 1024
"""Shots where neither the caller nor the readout says a number."""

MOST_BITS = 24
"""Most bits of a distribution that is returned as an array."""

Rows = NDArray[np.float64]
Bits = NDArray[np.uint8]
Array = NDArray[np.generic]
Key = tuple[int, int]
Step = tuple[str, tuple[float, ...]]

_HALF = pi / 2
_TURNS: Mapping[str, tuple[tuple[Step, ...], ...]] = {
    "X": (
        (("h", ()),),
        (("ry", (-_HALF,)),),
        (("r", (_HALF, -_HALF)),),
        (("gpi2", (-_HALF,)),),
        (("rz", (_HALF,)), ("sx", ())),
        (("rz", (_HALF,)), ("rx", (_HALF,))),
    ),
    "Y": (
        (("rx", (_HALF,)),),
        (("sx", ()),),
        (("r", (_HALF, 0.0)),),
        (("gpi2", (0.0,)),),
        (("sdg", ()), ("h", ())),
        (("rz", (-_HALF,)), ("h", ())),
    ),
}
"""Letter -> sequences of (gate, angles) that turn it into Z, the shortest first."""


class WideError(TargetError):
    """A distribution of more bits than an array of it could hold; its counts are on disk."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A circuit that ends in measurements, and the rows of parameters that it is run with.

    Attributes:
        circuit: The circuit; its parameters are free.
        rows: float64[B, P].
        shots: Shots of each row.
        name: What to call it in messages.
        profile: OpenQASM profile of the target that the circuit was compiled for.
    """

    circuit: Circuit
    rows: Rows
    shots: int
    name: str
    profile: str = "full"


@dataclass(frozen=True, slots=True)
class Call:
    """One circuit of an artifact with the rows that one batch gives it.

    Attributes:
        key: (batch, place among the stages).
        readout: What it has to give.
        rows: How many rows of parameters it has.
        settings: What a machine has to run.
        columns: For each setting the bits that belong to the readout.
        groups: For ``expval`` the group of each setting.
        constant: For ``expval`` the group that reads no bit, if there is one.
    """

    key: Key
    readout: Readout
    rows: int
    settings: tuple[Setting, ...]
    columns: tuple[tuple[int, ...], ...]
    groups: tuple[Group, ...] = ()
    constant: tuple[Group, ...] = ()

    def decode(self, bits: Sequence[Bits]) -> Array:
        """Return what the readout gives, [B, ...].

        Args:
            bits: uint8[B, shots, bits] of each setting.

        Raises:
            WideError: If a distribution has too many bits for an array.
        """
        readout = self.readout
        if readout.kind == "expval":
            return self._expectations(bits)
        taken = bits[0][:, :, list(self.columns[0])]
        if readout.kind == "samples":
            return taken
        if readout.kind == "bits":
            return taken[:, 0]
        width = taken.shape[2]
        if width > MOST_BITS:
            raise WideError(
                f"a distribution of {width} bits does not fit an array",
                hint="fetch the counts: qcomp jobs fetch ID --counts counts.json",
            )
        index = taken.astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))
        out = [np.bincount(row, minlength=1 << width) / len(row) for row in index]
        return np.stack(out) if out else np.zeros((0, 1 << width))

    def errors(self, bits: Sequence[Bits]) -> NDArray[np.float64] | None:
        """Return the standard error of each value of :meth:`decode`, None where there is none."""
        if self.readout.kind != "expval":
            values = self.decode(bits)
            return estimate(self.readout, values, bits[0].shape[1]).errors
        chosen = [b[:, :, list(c)] for b, c in zip(bits, self.columns, strict=True)]
        if not chosen:
            return np.zeros((self.rows, len(self.readout.observables)))
        return grouped_errors(self.groups, chosen, len(self.readout.observables))

    def _expectations(self, bits: Sequence[Bits]) -> Array:
        values: list[NDArray[np.float64]] = []
        for group, columns, found in zip(self.groups, self.columns, bits, strict=True):
            chosen = found[:, :, list(columns)]
            # Row by row: the parities of one row are in memory at a time.
            values.append(np.stack([group.values(row, group.qubits) for row in chosen]))
        for group in self.constant:
            values.append(group.values(np.zeros((self.rows, 1, 0), dtype=np.uint8), ()))
        return combine((*self.groups, *self.constant), values, len(self.readout.observables))


def turned(letter: str, gates: Collection[str] | None) -> tuple[Step, ...]:
    """Return the gates that turn a Pauli into Z: ``U P U^dagger = Z`` for their product U.

    Args:
        letter: ``X`` or ``Y``.
        gates: Names of the gates that the target has; None for all.

    Raises:
        TargetError: If none of the known ways is in these gates.
    """
    for steps in _TURNS[letter]:
        if gates is None or all(name in gates for name, _ in steps):
            return steps
    raise TargetError(
        f"the target cannot measure in the {letter} basis",
        why="its gates are " + ", ".join(gates or ()),
        hint="compile for a target with a quarter turn: h, sx, rx, r or gpi2",
    )


def pending_calls(
    artifact: Artifact,
    batches: Sequence[Mapping[str, Any]],
    known: Mapping[Key, Array],
    shots: int | None,
    gates: Collection[str] | None,
) -> tuple[list[Call], list[dict[str, Any]]]:
    """Run what can be run of an artifact and return the circuits that have to be run next.

    Args:
        artifact: The artifact.
        batches: Inputs of each batch.
        known: (batch, place) -> what a circuit gave.
        shots: Shots of every circuit, or None for what the readouts say.
        gates: Gates of the machine's target, for the change of basis; None for all.

    Returns:
        The calls that are not in ``known`` and whose inputs are there, and the values that are
        known of each batch.

    Raises:
        TargetError: If a readout cannot be had of a machine.
    """
    calls: list[Call] = []
    values: list[dict[str, Any]] = []
    profile = (artifact.manifest.get("machine") or {}).get("profile", "full")
    for number, feeds in enumerate(batches):

        def answer(
            place: int, circuit: Circuit, readout: Readout, rows: Rows, number: int = number
        ) -> Array | None:
            key = (number, place)
            if key not in known:
                call = call_of(key, circuit, readout, rows, shots, gates)
                settings = tuple(replace(s, profile=profile) for s in call.settings)
                calls.append(replace(call, settings=settings))
            return known.get(key)

        values.append(artifact.walk(feeds, answer))
    return calls, values


def call_of(
    key: Key,
    circuit: Circuit,
    readout: Readout,
    rows: Rows,
    shots: int | None,
    gates: Collection[str] | None,
) -> Call:
    """Return what a machine has to run for one readout.

    Args:
        key: (batch, place among the stages).
        circuit: The circuit.
        readout: What it has to give.
        rows: float64[B, P].
        shots: Shots of each setting, or None for what the readout says.
        gates: Gates of the machine's target, for the change of basis; None for all.

    Raises:
        TargetError: If the readout cannot be had of a machine.
    """
    if readout.kind == "state":
        raise TargetError(
            f"the circuit '{circuit.name}' gives amplitudes, which no machine measures",
            hint="run it in the simulator: qcomp run",
        )
    count = 1 if readout.kind == "bits" else shots or readout.shots or DEFAULT_SHOTS
    if readout.kind == "expval":
        return _expectation_call(key, circuit, readout, rows, count, gates)
    if measures(circuit):
        columns = readout.order or tuple(range(circuit.num_clbits))
        setting = Setting(circuit, rows, count, circuit.name)
        return Call(key, readout, len(rows), (setting,), (columns,))
    home = circuit.num_qubits if circuit.layout is None else circuit.layout.num_virtual
    qubits = readout.order or tuple(range(home))
    if circuit.layout is not None:
        qubits = tuple(circuit.layout.final[q] for q in qubits)
    measured, columns = _measured(circuit, qubits)
    setting = Setting(measured, rows, count, circuit.name)
    return Call(key, readout, len(rows), (setting,), (columns,))


def _expectation_call(
    key: Key,
    circuit: Circuit,
    readout: Readout,
    rows: Rows,
    shots: int,
    gates: Collection[str] | None,
) -> Call:
    circuit, observables = observed(circuit, readout)
    groups = group_observables(observables)
    read = [group for group in groups if group.qubits]
    settings, columns = [], []
    for number, group in enumerate(read):
        new = circuit.copy()
        for qubit, letter in sorted({factor for word in group.words for factor in word}):
            if letter != "Z":
                for name, angles in turned(letter, gates):
                    new.append(name, [qubit], angles)
        measured, bits = _measured(new, group.qubits)
        name = circuit.name if len(read) == 1 else f"{circuit.name} group {number}"
        settings.append(Setting(measured, rows, shots, name))
        columns.append(bits)
    constant = tuple(group for group in groups if not group.qubits)
    taken = (tuple(settings), tuple(columns), tuple(read), constant)
    return Call(key, readout, len(rows), *taken)


def observed(circuit: Circuit, readout: Readout) -> tuple[Circuit, list[Observable]]:
    """Return the circuit without measurements at its end, and its observables as they are there."""
    body, final = final_measurements(circuit)
    if final:
        circuit = circuit.copy(body=body)
    dephased = {qubit for qubit, _ in final}
    layout = circuit.layout
    observables = [o if layout is None else layout.observable(o) for o in readout.observables]
    return circuit, [_after(o, dephased) for o in observables]


def _after(observable: Observable, dephased: set[int]) -> Observable:
    """Return the observable once these qubits were measured: X and Y on them average to 0."""
    return Observable(
        tuple(
            (coef, word)
            for coef, word in observable.terms
            if not any(q in dephased and letter != "Z" for q, letter in word)
        )
    )


def _measured(circuit: Circuit, qubits: Sequence[int]) -> tuple[Circuit, tuple[int, ...]]:
    """Return the circuit with these qubits measured into a new register, and its bits."""
    new = circuit.copy()
    start = new.num_clbits
    taken = {register.name for register in (*new.qregs, *new.cregs)}
    name = next(n for n in ("c", *(f"c{i}" for i in range(len(taken) + 1))) if n not in taken)
    new.cregs = (*new.cregs, RegisterDecl(name, len(qubits), start))
    new.num_clbits += len(qubits)
    for place, qubit in enumerate(qubits):
        new.measure(qubit, start + place)
    return new, tuple(range(start, start + len(qubits)))
