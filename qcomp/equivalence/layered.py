"""A candidate judged against a reference in layers, each dearer than the one before.

    parse -> type -> distribution -> expectation -> equivalence -> optimality

A layer is looked at when all before it passed, and what it earned adds to a score in [0, 1]: the
reward of a program that writes circuits, and the reason in words. Layers that compare outputs give
part of their weight to what comes near. Only circuits known to be equal reach the weight of
equivalence, so that each of them scores above every circuit that is not.

Source: Yu et al. 2025, "QUASAR" (arXiv:2510.00967): the reward's levels, syntax, distribution
(Jensen-Shannon), expectation value, optimisation. There the last levels stand for the answer; here
equality itself, by the ladder of :mod:`qcomp.equivalence.circuits`, stands between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import pi
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from qcomp.cost import CostModel
from qcomp.equivalence import check
from qcomp.equivalence.verdict import Verdict
from qcomp.errors import QcompError, UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.simulate import bit_distribution, expectations, measures, probabilities, statevector
from qcomp.simulate.control_flow import is_unitary
from qcomp.simulate.paulis import pauli_table

__all__ = ["DEFAULT_COST", "WEIGHTS", "Judgement", "Layer", "judge_circuits", "unreadable"]

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "parse": 0.1,
        "type": 0.1,
        "distribution": 0.25,
        "expectation": 0.15,
        "equivalence": 0.2,
        "optimality": 0.2,
    }
)
"""What each layer adds to the score."""

DEFAULT_COST = CostModel(gates=1.0, two_qubit=3.0, multi_qubit=32.0)
"""A CX counts as four one-qubit gates, a Toffoli as the 6 CX and 9 gates that it is made of."""

QUBITS = 14
"""Qubits up to which distributions and expectation values are compared."""

OPERATIONS = 1 << 26
"""Amplitude updates up to which they are."""

CLOSE = 1e-8
"""Difference of chances, and of expectation values over the sum of coefficients, that is none."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer found.

    Attributes:
        name: parse, type, distribution, expectation, equivalence or optimality.
        passed: Whether the candidate passed; None where the layer was not looked at or could not
            decide.
        credit: Share of the layer's weight that was earned, in [0, 1].
        how: What was compared and found, in plain words.
        detail: Figures by name: ``divergence`` in bits, ``difference``, ``cost`` of both.
    """

    name: str
    passed: bool | None
    credit: float
    how: str
    detail: Mapping[str, object] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """What the layer can add to the score."""
        return WEIGHTS[self.name]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A candidate's layers and its score; true where it is known to be equal to the reference.

    Attributes:
        layers: All six, in order.
        verdict: Whether the two are equal and how that is known.
    """

    layers: tuple[Layer, ...]
    verdict: Verdict

    def __bool__(self) -> bool:
        """Whether the candidate is known to be equal to the reference."""
        return self.equal is True

    @property
    def equal(self) -> bool | None:
        """True, False, or None when no method could decide."""
        return self.verdict.equal

    @property
    def score(self) -> float:
        """The sum of what the layers earned, in [0, 1]."""
        return sum(layer.weight * layer.credit for layer in self.layers)

    @property
    def valid(self) -> bool:
        """Whether the candidate could be read."""
        return self.layers[0].passed is True

    def layer(self, name: str) -> Layer:
        """Return a layer by its name."""
        return self.layers[list(WEIGHTS).index(name)]

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain data, for JSON."""
        words = {True: "equal", False: "NOT equal", None: "not checked"}[self.equal]
        return {
            "result": words if self.valid else "not valid",
            "how": self.verdict.how,
            "error": self.verdict.error,
            "detail": dict(self.verdict.detail),
            "score": self.score,
            "layers": [
                {
                    "name": layer.name,
                    "passed": layer.passed,
                    "credit": layer.credit,
                    "weight": layer.weight,
                    "how": layer.how,
                    "detail": dict(layer.detail),
                }
                for layer in self.layers
            ],
        }


def unreadable(reason: QcompError) -> Judgement:
    """Return the judgement of a text that is no circuit."""
    place = f" at {reason.where}" if reason.where else ""
    how = f"{reason.what}{place}"
    detail = {"hint": reason.hint} if reason.hint else {}
    return _judgement([Layer("parse", False, 0.0, how, detail)], _no(how, "parse"))


def judge_circuits(
    candidate: Circuit,
    reference: Circuit,
    *,
    observables: Sequence[Observable | str] = (),
    cost: CostModel = DEFAULT_COST,
    seed: int = 0,
) -> Judgement:
    """Judge a circuit that could be read.

    Args:
        candidate: The circuit to judge.
        reference: What it should do.
        observables: Whose expectation values are compared; X, Y and Z of each qubit by default.
        cost: What makes one of two equal circuits the better one.
        seed: Seed of bindings of the parameters, and of random states.

    Raises:
        UsageError: If an observable is no sum of Pauli products over the reference's qubits.
    """
    wanted = [o if isinstance(o, Observable) else Observable.parse(o) for o in observables]
    for observable in wanted:
        if observable.qubits and observable.qubits[-1] >= _width(reference):
            raise UsageError(f"'{observable}' has a qubit that the reference has not")
    layers = [Layer("parse", True, 1.0, "a well-formed circuit"), _types(candidate, reference)]
    if not layers[-1].passed:
        return _judgement(layers, _no(layers[-1].how, "sizes"))
    row = np.random.default_rng(seed).uniform(-pi, pi, size=(1, reference.num_params))
    why_not = _too_large(candidate, reference)
    if why_not:
        layers += [Layer(name, None, 0.0, why_not) for name in ("distribution", "expectation")]
    else:
        columns = [reference.params.index(name) for name in candidate.params]
        rows = row[:, columns], row
        try:
            outputs = _Output.of(candidate, rows[0]), _Output.of(reference, rows[1])
            layers.append(_distributions(outputs))
            if layers[-1].passed:
                layers.append(_expectations(outputs, wanted))
        except UsageError as reason:
            how = f"not looked at: {reason.what}"
            names = ("distribution", "expectation")[len(layers) - 2 :]
            layers += [Layer(name, None, 0.0, how) for name in names]
    if layers[-1].passed is False:
        last = layers[-1]
        return _judgement(layers, _no(last.how, last.name, float(str(last.detail["difference"]))))
    return _decided(layers, candidate, reference, cost, seed)


def _decided(
    layers: list[Layer], candidate: Circuit, reference: Circuit, cost: CostModel, seed: int
) -> Judgement:
    """Add the layers of equivalence and optimality."""
    verdict = check(reference, candidate, seed)
    credit = float(verdict.equal is True)
    layers.append(Layer("equivalence", verdict.equal, credit, verdict.how))
    if verdict.equal is not True:
        return _judgement(layers, verdict)
    # What was too large to be simulated is known from equality.
    layers = [
        layer if layer.passed else Layer(layer.name, True, 1.0, "follows from equivalence")
        for layer in layers
    ]
    return _judgement([*layers, _optimality(candidate, reference, cost)], verdict)


def _judgement(layers: list[Layer], verdict: Verdict) -> Judgement:
    """Fill up with the layers that were not looked at."""
    rest = list(WEIGHTS)[len(layers) :]
    how = f"not looked at: {layers[-1].name} did not pass" if rest else ""
    return Judgement((*layers, *(Layer(name, None, 0.0, how) for name in rest)), verdict)


def _no(how: str, rung: str, error: float = float("inf")) -> Verdict:
    return Verdict(False, how, error, rung=rung)


def _width(circuit: Circuit) -> int:
    return circuit.num_qubits if circuit.layout is None else circuit.layout.num_virtual


def _types(candidate: Circuit, reference: Circuit) -> Layer:
    """Whether both have the same qubits, classical bits and parameters."""
    counts = [(_width(c), c.num_clbits) for c in (candidate, reference)]
    wrong = []
    for what, mine, other in zip(("qubits", "classical bits"), *counts, strict=True):
        if mine != other:
            wrong.append(f"{mine} {what} where the reference has {other}")
    only = sorted(set(candidate.params) ^ set(reference.params))
    if only:
        wrong.append(f"parameters that only one has: {', '.join(only[:8])}")
    if wrong:
        return Layer("type", False, 0.0, "; ".join(wrong))
    return Layer("type", True, 1.0, "the same qubits, classical bits and parameters")


def _too_large(candidate: Circuit, reference: Circuit) -> str:
    """Return why outputs are not simulated, empty where they are."""
    if candidate.layout is not None or reference.layout is not None:
        return "not looked at: layouts are undone by the layer of equivalence"
    n = reference.num_qubits
    size = sum(len(run) for circuit in (candidate, reference) for run in circuit.runs())
    if n > QUBITS or size << n > OPERATIONS:
        return f"not looked at: {n} qubits and {size} operations are too many to simulate here"
    return ""


@dataclass(frozen=True, slots=True)
class _Output:
    """What a circuit makes of |0...0>.

    Attributes:
        circuit: The circuit.
        row: float64[1, P], values of its parameters.
        state: complex128[1, 2^n] of a circuit without measurements, resets and control flow, so
            that it is simulated once; None of others.
    """

    circuit: Circuit
    row: NDArray[np.float64]
    state: NDArray[np.complex128] | None

    @staticmethod
    def of(circuit: Circuit, row: NDArray[np.float64]) -> _Output:
        """Simulate a circuit."""
        plain = is_unitary(circuit) and not measures(circuit)
        return _Output(circuit, row, statevector(circuit, row) if plain else None)

    def chances(self, *, bits: bool) -> NDArray[np.float64]:
        """Return the distribution of the classical bits, or of all qubits."""
        if bits:
            return bit_distribution(self.circuit, self.row)[0]
        if self.state is None:
            return probabilities(self.circuit, self.row)[0]
        chances: NDArray[np.float64] = np.abs(self.state[0]) ** 2
        return chances

    def values(self, wanted: Sequence[Observable]) -> NDArray[np.float64]:
        """Return expectation values."""
        if self.state is None:
            return expectations(self.circuit, self.row, wanted)[0]
        table = pauli_table(wanted, self.circuit.num_qubits)
        values: NDArray[np.float64] = (table.word_values(self.state) @ table.coefficients)[0]
        return values


def _distributions(outputs: tuple[_Output, _Output]) -> Layer:
    """Compare what comes out of |0...0>: the classical bits, or all qubits where none is set."""
    bits = any(measures(output.circuit) for output in outputs)
    p, q = (output.chances(bits=bits) for output in outputs)
    divergence = jensen_shannon(p, q)
    difference = float(np.abs(p - q).max())
    how = (
        f"{'classical bits' if bits else 'all qubits'} from |0...0>: Jensen-Shannon divergence "
        f"{divergence:.3g} bits, chances differ by up to {difference:.3g}"
    )
    passed = difference <= CLOSE
    detail = {"divergence": divergence, "difference": difference}
    return Layer("distribution", passed, 1.0 if passed else 1.0 - divergence, how, detail)


def jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Return ``H((p + q)/2) - (H(p) + H(q))/2`` in bits, in [0, 1].

    Source: Lin 1991, "Divergence measures based on the Shannon entropy", equation 4.1.
    """
    total = 0.0
    for one, other in ((p, q), (q, p)):
        there = one > 0
        total += float((one[there] * np.log2(2 * one[there] / (one + other)[there])).sum()) / 2
    return min(max(total, 0.0), 1.0)


def _expectations(outputs: tuple[_Output, _Output], wanted: Sequence[Observable]) -> Layer:
    """Compare expectation values in what comes out of |0...0>."""
    what = f"{len(wanted)} observables"
    if not wanted:
        what = "X, Y and Z of each qubit"
        wanted = [
            Observable(((1.0, ((q, pauli),)),))
            for q in range(outputs[0].circuit.num_qubits)
            for pauli in ("X", "Y", "Z")
        ]
    size = np.array([max(sum(abs(c) for c, _ in o.terms), 1e-300) for o in wanted])
    first, second = (output.values(wanted) for output in outputs)
    share = float((np.abs(first - second) / size).max(initial=0.0))
    difference = float(np.abs(first - second).max(initial=0.0))
    passed = share <= CLOSE
    how = f"{what} from |0...0> differ by up to {difference:.3g}"
    credit = 1.0 if passed else max(0.0, 1.0 - share / 2)
    return Layer("expectation", passed, credit, how, {"difference": difference})


def _optimality(candidate: Circuit, reference: Circuit, cost: CostModel) -> Layer:
    """Compare costs: half of the weight where they are the same, more where it is cheaper."""
    mine, other = cost.of(candidate), cost.of(reference)
    credit = (other + 1) / (mine + other + 2)
    how = f"{cost}: {mine:g} where the reference has {other:g}"
    detail = {"cost": mine, "reference": other}
    return Layer("optimality", mine <= other, credit, how, detail)
