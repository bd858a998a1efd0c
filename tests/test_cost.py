"""Cost models: read from text, written back, and what circuits cost by them."""

import math
import re

import numpy as np
import pytest

from qcomp.cost import CostModel
from qcomp.device import Device, get_device
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.target import get_target


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
        ("pulses", 1),
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


def machine() -> Device:
    errors = {
        "rz": [0.0, 0.0, 0.0],
        "sx": [0.001, 0.003, np.nan],
        "cz": [0.01, 0.01, 0.02, 0.02],
        "measure": [0.1, 0.1, 0.1],
    }
    return Device(
        "three", 3, np.array([(0, 1), (1, 0), (1, 2), (2, 1)]), ("rz", "sx", "cz"), errors
    )


def test_a_machines_error_rates_are_a_cost() -> None:
    circuit = Circuit(2).rz(0.3, 0).sx(0).cz(0, 1)
    free = CostModel.of_device(machine(), ("rz",))
    assert free.of(circuit) == pytest.approx(-math.log(0.998 * 0.985))
    counted = CostModel.of_device(machine())
    assert counted.of(circuit) == pytest.approx(-math.log(0.998**2 * 0.985))
    assert CostModel.parse(str(free)) == free


def test_a_lattice_without_error_rates_is_no_cost() -> None:
    with pytest.raises(UsageError, match="not known, so they are no cost"):
        CostModel.of_device(Device.line(4))


def test_errors_stands_for_the_rates_of_the_target() -> None:
    target = get_target("ibm-heron").on(get_device("fake_torino"))
    model = CostModel.for_target("errors", target)
    assert model == CostModel.of_device(get_device("fake_torino"), ("rz",))
    assert model.two_qubit > 5 * model.pulses > 0 == model.gates
    assert CostModel.for_target("2*t", target) == CostModel(t=2)
    for lacking in (None, get_target("nam")):
        with pytest.raises(UsageError, match="needs a machine whose error rates are known"):
            CostModel.for_target("errors", lacking)
