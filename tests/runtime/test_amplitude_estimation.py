"""Iterative amplitude estimation: its intervals, and what they cost."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.runtime.amplitude_estimation import (
    AmplitudeEstimate,
    estimate_amplitude,
    proportion_interval,
)


def preparation(a: float) -> Circuit:
    """Three entangled qubits of which the first is 1 with probability a."""
    circuit = Circuit(3)
    circuit.ry(2 * math.asin(math.sqrt(a)), 0).cx(0, 1).ry(0.7, 2).cx(1, 2).ry(-0.3, 2)
    return circuit


@pytest.fixture(scope="module")
def runs() -> dict[float, list[tuple[float, AmplitudeEstimate]]]:
    """Estimates of 40 probabilities at each of three accuracies."""
    chances = np.random.default_rng(0).uniform(0.01, 0.99, 40).tolist()
    return {
        accuracy: [
            (a, estimate_amplitude(preparation(a), {0: 1}, accuracy, 0.9, seed=seed))
            for seed, a in enumerate(chances)
        ]
        for accuracy in (0.04, 0.01, 0.0025)
    }


def test_intervals_hold_the_exact_probability(
    runs: dict[float, list[tuple[float, AmplitudeEstimate]]],
) -> None:
    for accuracy, found in runs.items():
        assert all(made.high - made.low <= 2 * accuracy for _, made in found)
        assert all(made.low <= made.value <= made.high for _, made in found)
        # 90 % are promised of 40; with a chance of .1 each, 11 misses come once in 2,000 times.
        assert sum(made.low <= a <= made.high for a, made in found) >= 30


def test_calls_grow_as_one_over_the_accuracy_and_not_its_square(
    runs: dict[float, list[tuple[float, AmplitudeEstimate]]],
) -> None:
    mean = {
        accuracy: np.mean([made.preparations for _, made in found])
        for accuracy, found in runs.items()
    }
    assert mean[0.01] / mean[0.04] < 8  # 4 by theory, 16 for sampling
    assert mean[0.0025] / mean[0.01] < 8
    direct = 0.5**2 * 1.645**2 / 0.0025**2  # samples for 90 % at a = 1/2
    assert mean[0.0025] < direct / 4


def test_calls_are_counted_by_what_ran() -> None:
    made = estimate_amplitude(preparation(0.3), {0: 1}, 0.01, seed=3, shots=50)
    assert made.shots == 50 * len(made.powers)
    assert made.oracle_calls == 50 * sum(made.powers)
    assert made.preparations == made.shots + 2 * made.oracle_calls
    # A, its inverse and A again at each use, and CX of the two reflections.
    assert made.two_qubit >= (2 * max(made.powers) + 1) * 2
    assert made == estimate_amplitude(preparation(0.3), {0: 1}, 0.01, seed=3, shots=50)


@pytest.mark.parametrize("a", [0.0, 1.0, 1e-4])
def test_probabilities_at_the_ends_are_met(a: float) -> None:
    made = estimate_amplitude(preparation(a), {0: 1}, 0.002, 0.99)
    assert made.low <= a <= made.high


def test_good_states_may_be_a_predicate() -> None:
    circuit = Circuit(3).h(0).h(1).h(2)
    made = estimate_amplitude(circuit, lambda x: x < 3, 0.005, 0.99)
    assert made.low <= 3 / 8 <= made.high


def test_an_interval_of_a_share_is_clopper_and_pearsons() -> None:
    low, high = proportion_interval(2, 10, 0.05)
    assert (low, high) == pytest.approx((0.0252107, 0.5560955), abs=1e-6)
    assert proportion_interval(0, 10, 0.05)[0] == 0
    assert proportion_interval(10, 10, 0.05)[1] == 1


def test_rounds_that_contradict_one_another_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([0.5, *[0.0] * 9])

    def device(*arguments: object) -> np.ndarray:
        share = next(given)
        return np.array([[1 - share, share, 0, 0, 0, 0, 0, 0]])

    monkeypatch.setattr("qcomp.runtime.amplitude_estimation.run_on", device)
    with pytest.raises(UsageError, match="contradict") as caught:
        estimate_amplitude(preparation(0.3), {0: 1}, 1e-3, shots=10_000)
    assert "higher confidence" in str(caught.value)


def test_other_simulators_run_it() -> None:
    pytest.importorskip("qiskit_aer")
    made = estimate_amplitude(preparation(0.3), {0: 1}, 0.02, 0.99, device="aer")
    assert made.low <= 0.3 <= made.high


def test_bad_input_is_said() -> None:
    with pytest.raises(UsageError, match="free parameters") as caught:
        estimate_amplitude(Circuit(1, params=["t"]), {0: 1})
    assert "bind" in str(caught.value)
    with pytest.raises(UsageError, match="accuracy"):
        estimate_amplitude(preparation(0.1), {0: 1}, 0.0)
    with pytest.raises(UsageError, match="confidence"):
        estimate_amplitude(preparation(0.1), {0: 1}, confidence=1.0)
    with pytest.raises(UsageError, match="shots"):
        estimate_amplitude(preparation(0.1), {0: 1}, shots=0)
    measured = Circuit(1, 1).h(0).measure(0, 0)
    with pytest.raises(UsageError):
        estimate_amplitude(measured, {0: 1})
