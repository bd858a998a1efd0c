"""What is measured is compared beyond the qubits that branches are followed on."""

from __future__ import annotations

from qcomp.equivalence import check
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit

N = 16


def ladder(turn: float, last: float = 0.0) -> Circuit:
    circuit = Circuit(N, 2, params=("a",))
    for q in range(N):
        circuit.ry(0.1 + 0.2 * q, q)
    circuit.rx(Parameter("a") + turn, 0)
    for q in range(N - 1):
        circuit.cx(q, q + 1)
    return circuit.rz(last, 0).rz(0.7, 4).measure(0, 0).measure(4, 1)


def test_turns_before_measurements_do_not_matter() -> None:
    verdict = check(ladder(0.3), ladder(0.3, 1.1), only_bits=True)
    assert verdict.equal is True
    assert "distributions of what is measured" in verdict.how
    assert check(ladder(0.3), ladder(0.3, 1.1)).equal is False


def test_other_probabilities_are_told() -> None:
    assert check(ladder(0.3), ladder(0.301), only_bits=True).equal is False


def test_circuits_that_measure_nothing_are_compared_as_a_whole() -> None:
    one, other = Circuit(2).rz(0.3, 0), Circuit(2)
    assert check(one, other, only_bits=True).equal is False
    assert check(one, Circuit(2).p(0.3, 0), only_bits=True).equal is True
