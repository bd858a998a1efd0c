"""S043: zero-noise extrapolation with and without a network (arXiv:2403.07025).

20 random circuits of RY, RZ and CX on 3 qubits under depolarising noise of 1 to 6 % on every gate,
by making the channel stronger and by folding; qiskit-aer's density matrices are the machine.
"""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.equivalence import check
from qcomp.ir.circuit import Circuit
from qcomp.mitigation import extrapolate, fold
from qcomp.mitigation.folding import METHODS
from qcomp.simulate import expectations, unitary

aer = pytest.importorskip("qiskit_aer")

CIRCUITS = 20
LAYERS = 3
PRODUCTS = {"Z0": "IIZ", "Z1": "IZI", "Z2": "ZII", "Z0*Z1*Z2": "ZZZ"}


def circuit(seed: int) -> Circuit:
    rng = np.random.default_rng(seed)
    made = Circuit(3)
    for layer in range(LAYERS):
        for q in range(3):
            made.ry(float(rng.uniform(0, 2 * np.pi)), q).rz(float(rng.uniform(0, 2 * np.pi)), q)
        if layer + 1 < LAYERS:
            made.cx(0, 1).cx(1, 2)
    return made


def noisy(made: Circuit, strength: float) -> np.ndarray:
    """Exact expectation values with depolarising noise after each gate."""
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_aer.noise import NoiseModel, depolarizing_error

    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(strength, 1), ["ry", "rz"])
    model.add_all_qubit_quantum_error(depolarizing_error(strength, 2), ["cx"])
    theirs = made.to_qiskit()
    for name, letters in PRODUCTS.items():
        theirs.save_expectation_value(SparsePauliOp(letters), range(3), label=name)
    machine = aer.AerSimulator(
        method="density_matrix", noise_model=model, max_parallel_threads=1, fusion_enable=False
    )
    data = machine.run(theirs).result().data()
    return np.array([data[name] for name in PRODUCTS])


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    return np.array([expectations(circuit(s), None, list(PRODUCTS))[0] for s in range(CIRCUITS)])


def error(values: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(values - exact).mean())


def test_stronger_channels_are_extrapolated_within_the_papers_bounds(exact: np.ndarray) -> None:
    levels = np.arange(1, 7)
    curves = [[noisy(circuit(s), 0.01 * k) for k in levels] for s in range(CIRCUITS)]
    values = np.moveaxis(np.array(curves), 1, -1)
    assert 0.025 < error(values[..., 0], exact) < 0.04
    assert error(extrapolate(levels, values, "learned").values, exact) <= 0.020
    assert error(extrapolate(levels, values, "linear").values, exact) <= 0.020
    for method in ("richardson", "exponential", "auto"):
        found = extrapolate(levels, values, method)
        assert found.method != "learned"
        assert error(found.values, exact) <= 0.010


@pytest.mark.parametrize("folding", ["global", "local"])
def test_folded_circuits_are_extrapolated_within_the_papers_bounds(
    folding: str, exact: np.ndarray
) -> None:
    scales = [1.0, 3.0, 5.0, 7.0]
    curves = [
        [noisy(fold(circuit(s), scale, folding), 0.01) for scale in scales] for s in range(CIRCUITS)
    ]
    values = np.moveaxis(np.array(curves), 1, -1)
    assert error(values[..., 0], exact) > 0.025
    assert error(extrapolate(scales, values, "learned").values, exact) <= 0.020
    chosen = extrapolate(scales, values)
    assert chosen.method == "exponential"
    assert error(chosen.values, exact) <= 0.010


@pytest.mark.parametrize("folding", METHODS)
def test_folded_circuits_are_equal_to_1e_9(folding: str) -> None:
    for seed in range(CIRCUITS):
        made = circuit(seed)
        for scale in (1.7, 3, 6):
            folded = fold(made, scale, folding)
            assert np.abs(unitary(folded) - unitary(made)).max() < 1e-9
            assert check(made, folded).equal is True
