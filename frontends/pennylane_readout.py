"""What a PennyLane tape measures, as readouts of circuits and what is done with them after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import SourceError
from qcomp.frontends.pennylane_steps import Step, Steps, is_tensor, steps_of
from qcomp.ir.observable import Observable

if TYPE_CHECKING:
    from pennylane.measurements import MeasurementProcess
    from pennylane.tape import QuantumScript

__all__ = ["Output", "Reading", "observable_of", "readings_of"]

_MAX_MATRIX_WIRES = 6
"""Wires of an observable that is given by its matrix: 4^6 Pauli products."""

_HINT = "return qml.expval, qml.var, qml.probs or qml.sample"


@dataclass(frozen=True, slots=True)
class Reading:
    """A circuit that is run, and what is read of it.

    Attributes:
        kind: What is read.
        observables: Their texts, for ``expval``.
        before: Gates in front of the measurement: they turn its basis.
        final: Qubits that are measured at the end, bit 0 of the result first.
    """

    kind: Literal["expval", "probs", "samples"]
    observables: tuple[str, ...] = ()
    before: tuple[Step, ...] = ()
    final: tuple[int, ...] = ()

    @property
    def exact(self) -> Reading:
        """The reading without shots: of samples, the distribution, first wire leading."""
        if self.kind != "samples":
            return self
        return Reading("probs", (), self.before, self.final[::-1])


@dataclass(frozen=True, slots=True)
class Output:
    """How one measurement of the tape is made from a reading.

    Attributes:
        reading: Number of the reading.
        kind: ``column``: one expectation value; ``variance``: of two columns, ``<O^2> - <O>^2``;
            ``all``: as it is read, mid-circuit bits summed over; ``matrix``: the distribution
            times a matrix.
        columns: The columns of the observables.
        matrix: float64[2^bits, outputs]; one column stands for a number, not a vector of one.
        scalar: Whether the result of a matrix is a number.
    """

    reading: int
    kind: Literal["column", "variance", "all", "matrix"]
    columns: tuple[int, ...] = ()
    matrix: NDArray[np.float64] | None = None
    scalar: bool = False


def observable_of(operator: Any, qubits: Mapping[Any, int]) -> Observable:  # noqa: ANN401
    """Return a PennyLane observable as a sum of Pauli products.

    Raises:
        SourceError: If it is no such sum, or its coefficients are data or trained.
    """
    return _observable(_sentence(operator), operator, qubits)


def _sentence(operator: Any) -> Any:  # noqa: ANN401  a PauliSentence
    import pennylane as qml

    if operator.pauli_rep is not None:
        return operator.pauli_rep
    if len(operator.wires) > _MAX_MATRIX_WIRES or any(is_tensor(p) for p in operator.parameters):
        raise SourceError(
            f"the observable {operator.name} is no sum of Pauli products",
            hint="write it with qml.X, qml.Y, qml.Z, products and sums",
        )
    try:
        matrix = qml.matrix(operator, wire_order=operator.wires)
        return qml.pauli_decompose(matrix, wire_order=operator.wires, pauli=True)
    except Exception as error:  # an operator is anybody's code
        raise SourceError(
            f"the observable {operator.name} has no matrix", why=str(error)[:200]
        ) from error


def _observable(sentence: Any, operator: Any, qubits: Mapping[Any, int]) -> Observable:  # noqa: ANN401
    terms = []
    for word, coefficient in sentence.items():
        if is_tensor(coefficient):
            import pennylane as qml

            if qml.math.requires_grad(coefficient):
                raise SourceError(
                    f"the coefficients of the observable {operator.name} are data or trained",
                    hint="return the expectation values of its terms and combine them in the model",
                )
        value = complex(coefficient)
        if abs(value.imag) > 1e-12 * max(1.0, abs(value)):
            raise SourceError(f"the observable {operator.name} is not Hermitian")
        product = sorted((qubits[wire], letter) for wire, letter in word.items())
        if value.real:
            terms.append((value.real, tuple(product)))
    return Observable(tuple(terms) or ((0.0, ()),))


def readings_of(
    tape: QuantumScript, steps: Steps, qubits: Mapping[Any, int]
) -> tuple[tuple[Reading, ...], tuple[Output, ...]]:
    """Return the readings of a tape, and how its measurements are made from them.

    Args:
        tape: The tape.
        steps: Its operations.
        qubits: Wire -> qubit.

    Raises:
        SourceError: If a measurement has no readout, with its name.
    """
    planner = _Planner(steps, qubits)
    outputs = [planner.plan(process) for process in tape.measurements]
    return tuple(planner.finished()), tuple(outputs)


class _Planner:
    def __init__(self, steps: Steps, qubits: Mapping[Any, int]) -> None:
        self.steps = steps
        self.qubits = qubits
        self.readings: list[Reading] = []
        self.observables: list[str] = []
        self.expval: int | None = None

    def finished(self) -> list[Reading]:
        """Return the readings, all expectation values in one."""
        if self.expval is not None:
            self.readings[self.expval] = Reading("expval", tuple(self.observables))
        return self.readings

    def plan(self, process: MeasurementProcess) -> Output:
        """Return the output of a measurement.

        Raises:
            SourceError: If it has none.
        """
        kind = type(process).__name__
        maker: Callable[[Any], Output] | None = {
            "ExpectationMP": self._expectation,
            "VarianceMP": self._variance,
            "ProbabilityMP": self._distribution,
            "SampleMP": self._samples,
        }.get(kind)
        if maker is None:
            raise SourceError(
                f"a circuit that returns {kind.removesuffix('MP').lower()} cannot be captured",
                why=f"{process!r} is no expectation value, distribution or sample",
                hint=_HINT,
            )
        return maker(process)

    def _expectation(self, process: Any) -> Output:  # noqa: ANN401
        if process.mv is not None:
            return self._of_bits(process.mv, scalar=True)
        column = self._column(_sentence(_operator(process)), process)
        return Output(self._expval(), "column", (column,))

    def _variance(self, process: Any) -> Output:  # noqa: ANN401
        if process.mv is not None:
            raise SourceError(
                "the variance of a mid-circuit measurement cannot be captured",
                hint="return qml.expval or qml.probs of it",
            )
        sentence = _sentence(_operator(process))
        columns = (self._column(sentence @ sentence, process), self._column(sentence, process))
        return Output(self._expval(), "variance", columns)

    def _expval(self) -> int:
        if self.expval is None:
            self.expval = len(self.readings)
            self.readings.append(Reading("expval"))
        return self.expval

    def _column(self, sentence: Any, process: Any) -> int:  # noqa: ANN401
        text = str(_observable(sentence, process.obs, self.qubits))
        if text not in self.observables:
            self.observables.append(text)
        return self.observables.index(text)

    def _distribution(self, process: Any) -> Output:  # noqa: ANN401
        if process.mv is not None:
            return self._of_bits(process.mv, scalar=False)
        return self._read("probs", tuple(reversed(self._wires(process))), process)

    def _samples(self, process: Any) -> Output:  # noqa: ANN401
        if process.mv is not None or process.obs is not None:
            raise SourceError("samples of an observable cannot be captured", hint=_HINT)
        if self.steps.bits:
            raise SourceError(
                "samples beside mid-circuit measurements cannot be captured", hint=_HINT
            )
        return self._read("samples", self._wires(process), process)

    def _wires(self, process: Any) -> tuple[int, ...]:  # noqa: ANN401
        if process.wires:
            return tuple(self.qubits[wire] for wire in process.wires)
        return tuple(range(len(self.qubits)))

    def _read(
        self,
        kind: Literal["probs", "samples"],
        final: tuple[int, ...],
        process: Any,  # noqa: ANN401
    ) -> Output:
        before: tuple[Step, ...] = ()
        if process.obs is not None:
            import pennylane as qml

            with qml.QueuingManager.stop_recording():
                turned = qml.tape.QuantumScript(process.obs.diagonalizing_gates())
            before = steps_of(turned, self.qubits).steps
        reading = Reading(kind, (), before, final)
        if reading not in self.readings:
            self.readings.append(reading)
        return Output(self.readings.index(reading), "all")

    def _of_bits(self, value: Any, *, scalar: bool) -> Output:  # noqa: ANN401  a MeasurementValue
        """Return the output of mid-circuit bits: their distribution times a table of values."""
        several = list(value) if isinstance(value, Sequence) else [value]
        size = 1 << len(self.steps.bits)
        outcomes = np.arange(size)
        if scalar:
            matrix = np.zeros((size, 1))
            table = dict(value.items())
            places = [self.steps.bits[m.meas_uid] for m in value.measurements]
            for outcome in outcomes.tolist():
                matrix[outcome, 0] = float(table[tuple(outcome >> place & 1 for place in places)])
        else:
            places = [self.steps.bits[m.meas_uid] for v in several for m in v.measurements]
            if any(v.has_processing for v in several):
                raise SourceError(
                    "probabilities of a function of mid-circuit measurements cannot be captured",
                    hint="return the probabilities of the measurements themselves",
                )
            index = np.zeros(size, dtype=np.int64)
            for place in places:
                index = 2 * index + (outcomes >> place & 1)
            matrix = np.zeros((size, 1 << len(places)))
            matrix[outcomes, index] = 1.0
        reading = Reading("probs")
        if reading not in self.readings:
            self.readings.append(reading)
        return Output(self.readings.index(reading), "matrix", (), matrix, scalar)


def _operator(process: Any) -> Any:  # noqa: ANN401  an Operator
    if process.obs is None:
        raise SourceError(f"{process!r} measures no observable", hint=_HINT)
    return process.obs
