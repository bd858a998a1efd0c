"""S053: Quixer: A Quantum Transformer Model, arXiv:2406.04305: the circuit of its mixing of tokens.

``sum_k c_k M^k |0>`` with ``M = sum_t b_t U_t`` over token unitaries; no language model is trained.
"""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.constructions.block_encoding import linear_combination
from qcomp.constructions.transformation import powers_transformation, regular
from qcomp.ir.circuit import Circuit
from qcomp.passes.synthesize.polynomial.phases import power_angles
from qcomp.simulate import statevector, unitary

TOKENS, QUBITS, DEGREE = 4, 3, 3


def token(rng: np.random.Generator) -> Circuit:
    """An ansatz of rotations and a ring of CX gates."""
    circuit = Circuit(QUBITS)
    for _ in range(2):
        for q in range(QUBITS):
            circuit.rx(float(rng.normal()), q)
            circuit.rz(float(rng.normal()), q)
        for q in range(QUBITS):
            circuit.cx(q, (q + 1) % QUBITS)
    return circuit


@pytest.mark.parametrize("seed", [0, 1])
def test_the_post_selected_state_is_the_polynomial_of_the_tokens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = [token(rng) for _ in range(TOKENS)]
    mixing = rng.normal(size=TOKENS) + 1j * rng.normal(size=TOKENS)
    coefs = rng.normal(size=DEGREE + 1) + 1j * rng.normal(size=DEGREE + 1)
    encoding = linear_combination(mixing.tolist(), words)
    m = sum(b * unitary(word) for b, word in zip(mixing, words, strict=True)) / encoding.scale
    wanted = sum(c * np.linalg.matrix_power(m, k)[:, 0] for k, c in enumerate(coefs))
    part = regular(encoding, DEGREE).circuit
    most = 1.001 * float(np.abs(np.fft.fft(coefs, 4096)).max())
    q = part.num_qubits
    chosen = Circuit(q + 1).x(q).compose(part.control(), [q, *range(q)])
    chosen.x(q)
    circuit = powers_transformation(chosen, QUBITS, power_angles(coefs / most)).circuit
    found = np.asarray(statevector(circuit)).reshape(-1)[: 1 << QUBITS] * most
    assert np.abs(found - wanted).max() < 1e-8
    chance = float(np.linalg.norm(found) / most) ** 2
    assert chance == pytest.approx(float(np.linalg.norm(wanted) / most) ** 2, rel=1e-8)
    assert chance > 1e-4


def test_solved_rotations_reproduce_the_polynomial() -> None:
    rng = np.random.default_rng(3)
    coefs = rng.normal(size=DEGREE + 1) + 1j * rng.normal(size=DEGREE + 1)
    coefs /= 1.001 * np.abs(np.fft.fft(coefs, 4096)).max()
    for z in np.exp(2j * np.pi * np.arange(64) / 64):
        state = np.array([1, 0], dtype=complex)
        for j, (theta, phi, lam) in enumerate(power_angles(coefs)):
            if j:
                state[0] *= z
            c, s = np.cos(theta), np.sin(theta)
            turn = [[np.exp(1j * (lam + phi)) * c, np.exp(1j * phi) * s],
                    [np.exp(1j * lam) * s, -c]]  # fmt: skip
            state = np.array(turn) @ state
        assert abs(state[0] - np.polyval(coefs[::-1], z)) < 1e-6
