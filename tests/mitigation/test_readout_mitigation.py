"""Readout mitigation: what wrongly read bits changed is taken back."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.device import Device, get_device
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.mitigation import Confusion, combine, group_observables
from qcomp.simulate import expectations, probabilities, sample

QUBITS = 4
OBSERVABLES = ["Z0*Z1*Z2*Z3", "Z0 - 0.5*X1*X2 + 2.0", "Y0*Y3"]


def machine(seed: int = 0) -> Confusion:
    """Qubits that are read wrongly, 1 more often than 0."""
    rng = np.random.default_rng(seed)
    low, high = rng.uniform(0.01, 0.06, QUBITS), rng.uniform(0.04, 0.12, QUBITS)
    matrices = np.moveaxis(np.array([[1 - low, high], [low, 1 - high]]), -1, 0)
    return Confusion(tuple(range(QUBITS)), matrices)


def read(bits: np.ndarray, confusion: Confusion, rng: np.random.Generator) -> np.ndarray:
    """The bits with errors."""
    chance = np.where(bits == 1, confusion.matrices[:, 1, 1], confusion.matrices[:, 1, 0])
    return (rng.random(bits.shape) < chance).astype(np.uint8)


def state(seed: int = 0) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(QUBITS)
    for q in range(QUBITS):
        circuit.u(*rng.uniform(-2, 2, 3).tolist(), q)
    for q in range(QUBITS - 1):
        circuit.cx(q, q + 1)
    return circuit


def test_expectation_values_are_corrected_within_the_noise_of_shots() -> None:
    confusion, rng = machine(), np.random.default_rng(1)
    groups = group_observables(OBSERVABLES)
    raw, mitigated = [], []
    for group in groups:
        bits = read(sample(group.rotate(state()), None, 200_000, rng)[0], confusion, rng)
        raw.append(group.values(bits))
        mitigated.append(confusion.values(group, bits))
    exact = expectations(state(), None, OBSERVABLES)[0]
    before = np.abs(combine(groups, raw, 3) - exact).max()
    after = np.abs(combine(groups, mitigated, 3) - exact).max()
    assert before > 0.03
    assert after < 0.012


def test_the_estimator_is_exact_on_exact_frequencies() -> None:
    # Bits in the exact proportions of rational confusion: 10 of 100 ones read as zeros.
    confusion = Confusion((7,), np.array([[[1.0, 0.1], [0.0, 0.9]]]))
    (group,) = group_observables(["Z7"])
    bits = np.array([[1]] * 90 + [[0]] * 10)
    assert confusion.values(group, bits) == pytest.approx(-1.0)


def test_distributions_are_corrected_on_the_strings_that_were_seen() -> None:
    confusion, rng = machine(), np.random.default_rng(2)
    ghz = Circuit(QUBITS)
    ghz.h(0).cx(0, 1).cx(1, 2).cx(2, 3)
    bits = read(sample(ghz, None, 100_000, rng)[0], confusion, rng)
    seen, quasi = confusion.distribution(bits)
    assert quasi.sum() == pytest.approx(1.0)
    index = seen.astype(int) @ (1 << np.arange(QUBITS))
    full = np.zeros(1 << QUBITS)
    full[index] = quasi
    exact = probabilities(ghz)[0]
    raw = np.bincount(bits.astype(int) @ (1 << np.arange(QUBITS)), minlength=16) / len(bits)
    assert np.abs(raw - exact).sum() > 0.2
    assert np.abs(full - exact).sum() < 0.03


def test_a_whole_space_is_the_inverse_of_the_tensor_product() -> None:
    confusion, rng = machine(), np.random.default_rng(3)
    bits = rng.integers(0, 2, size=(5000, QUBITS)).astype(np.uint8)
    seen, quasi = confusion.distribution(bits)
    matrix = np.ones((1, 1))
    for one in confusion.matrices[::-1]:
        matrix = np.kron(matrix, one)
    index = seen.astype(int) @ (1 << np.arange(QUBITS))
    p = np.bincount(bits.astype(int) @ (1 << np.arange(QUBITS)), minlength=16) / len(bits)
    assert np.allclose(quasi, np.linalg.solve(matrix, p)[index])


def test_iteration_agrees_with_the_direct_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    from qcomp.mitigation import readout

    rng = np.random.default_rng(4)
    confusion = Confusion.of_rates(range(8), rng.uniform(0.01, 0.05, 8))
    bits = rng.integers(0, 2, size=(600, 8)).astype(np.uint8)
    seen, direct = confusion.distribution(bits)
    monkeypatch.setattr(readout, "_DIRECT", 50)
    again, iterated = confusion.distribution(bits)
    assert np.array_equal(seen, again)
    assert np.allclose(direct, iterated, atol=1e-8)
    bad = Confusion.of_rates(range(8), np.full(8, 0.4))
    with pytest.raises(UsageError, match="does not converge"):
        bad.distribution(bits)


def test_calibration_finds_the_matrices() -> None:
    confusion, rng = machine(), np.random.default_rng(5)
    shape = (100_000, QUBITS)
    zeros = read(np.zeros(shape, np.uint8), confusion, rng)
    ones = read(np.ones(shape, np.uint8), confusion, rng)
    found = Confusion.of_calibration(range(QUBITS), zeros, ones)
    assert np.abs(found.matrices - confusion.matrices).max() < 0.005


def test_a_devices_rates_make_matrices_and_unknown_ones_are_an_error() -> None:
    device = get_device("fake_torino")
    confusion = Confusion.of_device(device, (3, 5))
    assert confusion.matrices[1, 1, 0] == device.errors["measure"][5]
    with pytest.raises(UsageError, match="does not say the readout error"):
        Confusion.of_device(Device.line(4), (0, 1))
    with pytest.raises(UsageError, match="cannot be mitigated"):
        Confusion.of_rates((0,), [0.5])
    with pytest.raises(UsageError, match="columns"):
        Confusion((0,), np.ones((1, 2, 2)))
