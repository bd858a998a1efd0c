"""The meaning of a Circuit node: kinds, shots, order of the bits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.program import Readout
from qcomp.simulate import (
    expectations,
    probabilities,
    readout,
    run_readout,
    sample,
    statevector,
)

OBSERVABLES = tuple(
    Observable.parse(text) for text in ("Z0", "X1*Y2", "0.5*X0 + 0.5*Z2", "Y0*Z1", "X0*X1 - 1.0")
)


def three() -> Circuit:
    circuit = Circuit(3)
    for q in range(3):
        circuit.ry(Parameter("a") + 0.4 * q, q)
    circuit.cx(0, 1)
    circuit.rz(Parameter("b"), 1)
    circuit.rx(0.7, 2)
    circuit.cx(1, 2)
    return circuit


ROWS = np.array([[0.3, 0.4], [1.3, -2.0]])


def test_expectation_values_by_shots_converge_to_the_exact_ones() -> None:
    exact = run_readout(three(), Readout("expval", OBSERVABLES), ROWS)
    assert np.allclose(exact, expectations(three(), ROWS, OBSERVABLES))
    shots = 40000
    values = run_readout(three(), Readout("expval", OBSERVABLES, shots), ROWS, seed=1)
    assert 0 < np.abs(values - exact).max() < 6 / math.sqrt(shots)
    assert np.array_equal(
        run_readout(three(), Readout("expval", OBSERVABLES, 7), ROWS, shots=0), exact
    )


def test_words_of_one_measurement_setting_are_read_together() -> None:
    from qcomp.simulate.paulis import pauli_table

    bases = pauli_table(["Z0", "Z1", "Z0*Z1", "X0", "X0*Y1", "Y1"], 2).bases()
    assert [words.tolist() for _, _, words in bases] == [[0, 1, 2], [3, 4, 5]]


def test_probabilities_by_shots_converge_and_sum_to_one() -> None:
    exact = run_readout(three(), Readout("probs"), ROWS)
    values = run_readout(three(), Readout("probs", (), 30000), ROWS, seed=2)
    assert np.allclose(exact, probabilities(three(), ROWS))
    assert np.allclose(values.sum(axis=1), 1.0)
    assert 0 < np.abs(values - exact).max() < 5 * math.sqrt(0.25 / 30000)


def test_samples_have_the_distribution_of_the_state() -> None:
    bits = sample(three(), ROWS, 20000, np.random.default_rng(0))
    assert bits.shape == (2, 20000, 3)
    assert bits.dtype == np.uint8
    numbers = bits @ np.array([1, 2, 4])
    for row in range(2):
        frequencies = np.bincount(numbers[row], minlength=8) / 20000
        assert np.abs(frequencies - probabilities(three(), ROWS)[row]).max() < 0.018


def test_few_shots_of_many_qubits_are_drawn_without_a_multinomial() -> None:
    circuit = Circuit(12)
    for q in range(12):
        circuit.x(q) if q % 2 else circuit.id(q)
    values = run_readout(circuit, Readout("expval", OBSERVABLES[:1], 10), None)
    assert values.tolist() == [[1.0]]
    frequencies = run_readout(circuit, Readout("probs", (), 10), None)[0]
    assert np.flatnonzero(frequencies).tolist() == [0b101010101010]


def test_order_rearranges_bits_as_a_big_endian_reader_needs() -> None:
    circuit = three()
    state = statevector(circuit, ROWS)
    big_endian = state.reshape(2, 2, 2, 2).transpose(0, 3, 2, 1).reshape(2, 8)
    order = (2, 1, 0)
    assert np.allclose(run_readout(circuit, Readout("state", (), 0, order), ROWS), big_endian)
    expected = np.abs(big_endian) ** 2
    assert np.allclose(run_readout(circuit, Readout("probs", (), 0, order), ROWS), expected)
    plain = run_readout(circuit, Readout("samples", (), 9), ROWS, seed=4)
    turned = run_readout(circuit, Readout("samples", (), 9, order), ROWS, seed=4)
    assert plain.shape == (2, 9, 3)
    assert np.array_equal(turned, plain[:, :, ::-1])


def test_an_order_that_names_some_bits_gives_their_marginal() -> None:
    full = probabilities(three(), ROWS).reshape(2, 2, 2, 2)
    values = run_readout(three(), Readout("probs", (), 0, (2, 0)), ROWS)
    assert np.allclose(values, full.sum(axis=2).transpose(0, 2, 1).reshape(2, 4))


def test_bits_are_one_sample_of_the_classical_bits() -> None:
    circuit = Circuit(2, 3)
    circuit.x(1)
    circuit.measure(1, 2)
    circuit.measure(0, 0)
    assert run_readout(circuit, Readout("bits"), None).tolist() == [[0, 0, 1]]
    assert run_readout(circuit, Readout("probs"), None)[0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0]


def test_readouts_that_cannot_be_had_are_refused() -> None:
    circuit = three()
    with pytest.raises(UsageError, match="'samples' needs shots"):
        run_readout(circuit, Readout("samples"), ROWS)
    with pytest.raises(UsageError, match="cannot be had with shots"):
        run_readout(circuit, Readout("state"), ROWS, shots=5)
    with pytest.raises(UsageError, match="must name every qubit"):
        run_readout(circuit, Readout("state", (), 0, (1, 0)), ROWS)
    with pytest.raises(UsageError, match="does not fit"):
        run_readout(circuit, Readout("probs", (), 0, (0, 0)), ROWS)
    with pytest.raises(UsageError, match="takes no output order"):
        run_readout(circuit, Readout("expval", OBSERVABLES, 0, (1, 0)), ROWS)
    with pytest.raises(UsageError, match="must not be negative"):
        run_readout(circuit, Readout("probs"), ROWS, shots=-1)
    with pytest.raises(UsageError, match="at least 1 shot"):
        sample(circuit, ROWS, 0, np.random.default_rng(0))


def test_the_same_seed_gives_the_same_bits_whatever_the_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from qcomp.simulate import engine

    rows = np.random.default_rng(0).normal(size=(10, 2))
    once = run_readout(three(), Readout("probs", (), 100), rows, seed=7)
    monkeypatch.setattr(engine, "_CHUNK_AMPLITUDES", 16)
    assert np.array_equal(run_readout(three(), Readout("probs", (), 100), rows, seed=7), once)
    assert readout.measures(three()) is False
