"""Cost models: read from text, written back, and what circuits cost by them."""

import math
import re

import pytest

from qcomp.cost import CostModel
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit


def sample() -> Circuit:
    return Circuit(3).h(0).t(0).cx(0, 1).ccx(0, 1, 2).rz(0.3, 2).rz(0.5, 0)


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("two_qubit", CostModel(two_qubit=1)),
        ("gates+3*two_qubit", CostModel(gates=1, two_qubit=3)),
        (" 0.5 * depth + t ", CostModel(depth=0.5, t=1)),
        ("1e+2*gates+1e-3*rotations", CostModel(gates=100, rotations=0.001)),
    ],
)
def test_a_cost_is_read_from_text_and_its_text_reads_back(text: str, model: CostModel) -> None:
    assert CostModel.parse(text) == model
    assert CostModel.parse(str(model)) == model


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no cost"),
        ("gates+", "is no cost"),
        ("-1*gates", "is no cost"),
        ("gates*3", "is no cost"),
        ("gate", "did you mean 'gates'"),
        ("gates+2*gates", "twice"),
        ("1.2.3*gates", "is no weight"),
        ("0*gates", "above 0"),
        ("1e999*gates", "finite"),
    ],
)
def test_what_is_no_cost_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        CostModel.parse(text)


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("gates", 6),
        ("two_qubit", 1),
        ("multi_qubit", 1),
        ("t", 8),
        ("rotations", 10),
        ("depth", 5),
        ("two_qubit_depth", 2),
        ("gates+3*two_qubit", 9),
    ],
)
def test_a_cost_weighs_the_counts_of_a_circuit(text: str, cost: float) -> None:
    circuit = sample()
    assert CostModel.parse(text).of(circuit) == cost
    assert CostModel.parse(text).of_stats(circuit.stats()) == cost


def test_only_depths_make_a_cost_more_than_the_sum_of_parts() -> None:
    assert CostModel.parse("gates+two_qubit+t").is_local
    assert not CostModel.parse("gates+depth").is_local
    assert not CostModel.parse("two_qubit_depth").is_local


def test_error_rates_cost_the_chance_that_a_gate_fails() -> None:
    model = CostModel.of_errors(0.001, 0.02)
    circuit = Circuit(2).h(0).cx(0, 1).cx(0, 1)
    assert model.of(circuit) == pytest.approx(-math.log(0.999 * 0.98**2))
    with pytest.raises(UsageError, match="error rates"):
        CostModel.of_errors(0.1, 0.01)
