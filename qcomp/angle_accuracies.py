"""How much rotations matter, how accurately each is synthesised, and on what that is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from qcomp.ir.circuit import Circuit

__all__ = [
    "AngleAccuracies",
    "AngleAccuracy",
    "AngleBudget",
    "AngleBudgets",
    "AngleData",
    "AngleSensitivities",
    "CircuitRows",
    "RowAccuracies",
    "RowKey",
    "RowTCounts",
    "data_of",
]

RowKey = tuple[tuple[str, float], ...]
"""What a rotation depends on: (parameter, factor) pairs, the first factor above 0."""


@dataclass(frozen=True, eq=False)
class AngleData:
    """What a circuit is run on and what is looked at, where the error of observables is bounded.

    Attributes:
        observables: Their texts; Z of each qubit where empty.
        states: Initial states, complex128[B, 2^n]; |0...0> where None.
        params: Rows of the circuit's parameters, float64[B, P]; none where None.
    """

    observables: tuple[str, ...] = ()
    states: NDArray[np.complex128] | None = None
    params: NDArray[np.float64] | None = None

    def read_of(self, circuit: Circuit) -> tuple[str, ...]:
        """Return the observables of a circuit."""
        return self.observables or tuple(f"Z{q}" for q in range(circuit.num_qubits))


@dataclass(frozen=True)
class AngleSensitivities:
    """What one-qubit errors do to the observables of one circuit, a row for each chain.

    An error ``exp(-i d n.sigma)`` behind chain i, n any unit vector, changes an observable by at
    most ``largest[i] d + second[i] d^2`` and never by more than ``second[i] min(d, 1)``.

    Attributes:
        first: Root mean square over rows and observables of ``|grad|``, float64[n].
        largest: The largest of them, float64[n].
        second: Largest less smallest eigenvalue of the observables, at most; 0 behind all that they
            see, float64[n].
        fisher: Quantum Fisher information of d for errors about X, Y and Z: the diagonal, mean of
            rows, float64[n, 3] in [0, 4]; what the state itself, whatever is read of it, is off by.
    """

    first: NDArray[np.float64]
    largest: NDArray[np.float64]
    second: NDArray[np.float64]
    fisher: NDArray[np.float64]

    def change(self, chain: int, errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how much an observable changes by errors of one chain, as far as this says."""
        second = self.second[chain]
        grown = self.first[chain] * errors + second * errors**2
        capped: NDArray[np.float64] = np.minimum(grown, second * np.minimum(errors, 1.0))
        return capped


@dataclass(frozen=True, slots=True)
class AngleAccuracy:
    """What one chain of rotations on a wire was given.

    Attributes:
        error: Operator norm.
        gates: The word that was chosen, in the order of a circuit; None where any within the error
            will do.
    """

    error: float
    gates: tuple[str, ...] | None = None


@dataclass(frozen=True)
class AngleAccuracies:
    """What was allocated, by the name of the circuit.

    Attributes:
        by_circuit: One for each chain of rotations, in the order of the circuit (see
            :mod:`qcomp.passes.synthesize.clifford_t.chains`).
    """

    by_circuit: dict[str, tuple[AngleAccuracy, ...]] = field(default_factory=dict)

    def of(self, circuit: Circuit) -> tuple[AngleAccuracy, ...] | None:
        """Return the accuracies of a circuit, None where nothing was allocated to it."""
        return self.by_circuit.get(circuit.name)

    def with_circuit(
        self, circuit: Circuit, accuracies: Sequence[AngleAccuracy]
    ) -> AngleAccuracies:
        """Return them with those of one more circuit."""
        return AngleAccuracies({**self.by_circuit, circuit.name: tuple(accuracies)})


@dataclass(frozen=True)
class AngleBudget:
    """What the rotations of a circuit were allowed, and what was chosen for them.

    Attributes:
        circuit: Its name.
        measure: ``operator norm`` or ``observables``: what is bounded, or made least.
        limit: The user's bound; None where T gates were bounded.
        reached: Of that measure: a sum of errors for the norm, a simulated change for observables.
        t_count: T gates of the words, and of the rest of the circuit where T gates were bounded.
        predicted_saving: T gates that weights save against one accuracy for all, by the closed
            form.
    """

    circuit: str
    measure: str
    limit: float | None
    reached: float
    t_count: int
    predicted_saving: float


@dataclass(frozen=True)
class AngleBudgets:
    """The budgets of a program's circuits, by name."""

    by_circuit: dict[str, AngleBudget] = field(default_factory=dict)

    def with_budget(self, budget: AngleBudget) -> AngleBudgets:
        """Return them with one more."""
        return AngleBudgets({**self.by_circuit, budget.circuit: budget})


@dataclass(frozen=True)
class CircuitRows:
    """What circuits are run on: the rows that the graph gives them, and what is read.

    Attributes:
        by_circuit: By name.
    """

    by_circuit: dict[str, AngleData] = field(default_factory=dict)


def data_of(name: str, given: AngleData | None, known: CircuitRows | None) -> AngleData | None:
    """Return what a circuit is judged on.

    Args:
        name: The circuit's.
        given: States and observables that the user gave, if any; they go first.
        known: Rows that the graph gives, if they are known.
    """
    rows = None if known is None else known.by_circuit.get(name)
    if given is None or rows is None:
        return given or rows
    return AngleData(given.observables or rows.observables, given.states, rows.params)


@dataclass(frozen=True)
class RowTCounts:
    """T gates of circuits that get words of their own for each row of data.

    Attributes:
        by_circuit: Name -> T gates that all rows share, and those of each row with them, int64[B].
    """

    by_circuit: dict[str, tuple[int, NDArray[np.int64]]] = field(default_factory=dict)


@dataclass(frozen=True)
class RowAccuracies:
    """How accurately rotations by parameters are synthesised once a row of data is bound.

    Attributes:
        by_circuit: Circuit -> what a rotation depends on -> operator norm.
        in_order: Circuit -> the accuracy of each such rotation in the order of the circuit, once
            all passes have run.
    """

    by_circuit: dict[str, dict[RowKey, float]] = field(default_factory=dict)
    in_order: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def with_circuit(self, name: str, accuracies: dict[RowKey, float]) -> RowAccuracies:
        """Return them with those of one more circuit."""
        return RowAccuracies({**self.by_circuit, name: accuracies}, self.in_order)

    def ordered(self, name: str, keys: Sequence[RowKey]) -> RowAccuracies:
        """Return them with one for each rotation that a compiled circuit has.

        A rotation that passes made of several gets the least accuracy of all.
        """
        known = self.by_circuit[name]
        finest = min(known.values())
        found = tuple(known.get(key, finest) for key in keys)
        return RowAccuracies(self.by_circuit, {**self.in_order, name: found})
