"""The layers of a judgement: which one stops a candidate, and what it earns."""

import numpy as np
import pytest

import qcomp
from qcomp.equivalence.layered import WEIGHTS, jensen_shannon
from qcomp.errors import SourceError, UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from tests.models import hybrid

HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\n'


def stopped_at(judgement: qcomp.Judgement) -> str:
    return next(layer.name for layer in judgement.layers if layer.passed is not True)


def test_an_equal_circuit_passes_every_layer_and_a_cheaper_one_earns_more() -> None:
    reference = Circuit(2).h(0).t(1).t(1).cx(0, 1)
    same, cheaper = qcomp.judge(reference, reference), qcomp.judge(
        Circuit(2).h(0).s(1).cx(0, 1), reference
    )  # fmt: skip
    assert same
    assert [layer.name for layer in cheaper.layers] == list(WEIGHTS)
    assert all(layer.passed for layer in cheaper.layers)
    assert same.score == pytest.approx(0.9)
    assert 0.9 < cheaper.score < 1
    dearer = qcomp.judge(reference, Circuit(2).h(0).s(1).cx(0, 1))
    assert dearer.equal is True
    assert dearer.layer("optimality").passed is False
    assert 0.8 < dearer.score < 0.9


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("I cannot write this circuit.", ""),
        ("", ""),
        (HEAD + "hh q[0];", "hh"),
        (HEAD + "cx q[0], q[2];", "2"),
    ],
)
def test_what_is_no_circuit_scores_nothing_and_is_told_why(text: str, word: str) -> None:
    judgement = qcomp.judge(text, HEAD + "h q[0];")
    assert judgement.score == 0
    assert not judgement.valid
    assert stopped_at(judgement) == "parse"
    assert word in judgement.layers[0].how
    assert judgement.to_dict()["result"] == "not valid"


def test_other_qubits_bits_or_parameters_stop_at_the_types() -> None:
    reference = Circuit(2, 1, params=("a",)).rx(Parameter("a"), 0).measure(0, 0)
    for candidate in (
        Circuit(3, 1, params=("a",)).rx(Parameter("a"), 0).measure(0, 0),
        Circuit(2, 2, params=("a",)).rx(Parameter("a"), 0).measure(0, 0),
        Circuit(2, 1, params=("b",)).rx(Parameter("b"), 0).measure(0, 0),
    ):
        judgement = qcomp.judge(candidate, reference)
        assert stopped_at(judgement) == "type"
        assert judgement.equal is False
        assert judgement.score == pytest.approx(0.1)


def test_distributions_give_part_of_their_weight_for_what_is_near() -> None:
    reference = Circuit(1).ry(1.0, 0)
    scores = [qcomp.judge(Circuit(1).ry(1.0 + d, 0), reference).score for d in (0.01, 0.1, 1.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] < 0.45
    far = qcomp.judge(Circuit(1).x(0), Circuit(1).z(0))
    assert far.layer("distribution").detail["divergence"] == pytest.approx(1)
    assert far.score == pytest.approx(0.2)


def test_a_phase_that_no_distribution_shows_stops_at_the_expectation_values() -> None:
    judgement = qcomp.judge(Circuit(1).h(0).s(0), Circuit(1).h(0))
    assert stopped_at(judgement) == "expectation"
    unseen = qcomp.judge(Circuit(1).h(0).s(0), Circuit(1).h(0), observables=["Z0"])
    assert stopped_at(unseen) == "equivalence"
    assert unseen.equal is False


def test_a_gate_that_the_ground_state_does_not_show_stops_at_equivalence() -> None:
    judgement = qcomp.judge(Circuit(2).s(0).h(1), Circuit(2).h(1))
    assert stopped_at(judgement) == "equivalence"
    assert judgement.score == pytest.approx(0.6)


def test_parameters_are_matched_by_name_in_any_order() -> None:
    a, b = Parameter("a"), Parameter("b")
    first = Circuit(2, params=("a", "b")).rx(a, 0).ry(b, 1)
    second = Circuit(2, params=("b", "a")).ry(b, 1).rx(a, 0)
    assert qcomp.judge(first, second).equal is True
    assert qcomp.judge(Circuit(2, params=("a", "b")).rx(b, 0).ry(a, 1), second).equal is False


def test_measured_bits_and_control_flow_are_judged_too() -> None:
    def circuit(axis: str) -> Circuit:
        out = Circuit(2, 2).h(0).measure(0, 0)
        with out.if_(Bit(0)):
            out.append(axis, (1,))
        return out.measure(1, 1)

    assert qcomp.judge(circuit("x"), circuit("x")).score == pytest.approx(0.9)
    other = qcomp.judge(circuit("z"), circuit("x"))
    assert stopped_at(other) == "distribution"
    assert "classical bits" in other.layer("distribution").how


def test_wide_circuits_are_judged_by_equivalence_alone() -> None:
    wide = Circuit(60)
    for q in range(60):
        wide.h(q).t(q)
    judgement = qcomp.judge(wide.copy().t(5).tdg(5), wide)
    assert judgement.equal is True
    assert judgement.layer("distribution").how == "follows from equivalence"
    wrong = qcomp.judge(wide.copy().t(5), wide)
    assert wrong.equal is False
    assert wrong.layer("distribution").passed is None
    assert wrong.score == pytest.approx(0.2)


def test_the_cost_can_be_chosen() -> None:
    first, second = Circuit(2).cx(0, 1), Circuit(2).h(1).cz(0, 1).h(1)
    assert qcomp.judge(first, second, cost="two_qubit").layer("optimality").credit == 0.5
    assert qcomp.judge(first, second, cost="gates").layer("optimality").credit > 0.5


def test_wrong_arguments_are_refused_and_not_judged(tmp_path) -> None:
    circuit = Circuit(1).h(0)
    with pytest.raises(UsageError, match="qubit"):
        qcomp.judge(circuit, circuit, observables=["Z4"])
    with pytest.raises(UsageError):
        qcomp.judge(circuit, hybrid())
    with pytest.raises(UsageError, match="classical graph"):
        qcomp.judge(hybrid(), circuit)
    with pytest.raises(SourceError):
        qcomp.judge(tmp_path / "none.qasm", circuit)
    with pytest.raises(SourceError):
        qcomp.judge(circuit, "no circuit;")


def test_jensen_shannon_table() -> None:
    half, one, other = np.array([0.5, 0.5]), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert jensen_shannon(half, half) == 0
    assert jensen_shannon(one, other) == 1
    assert jensen_shannon(one, half) == pytest.approx(0.3112781244591328)
    assert jensen_shannon(half, one) == jensen_shannon(one, half)
