"""Two-qubit blocks in each machine's gate: equal, and no more gates than the theory says."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import gate
from qcomp.passes.map.to_basis import ToBasis
from qcomp.passes.synthesize.pair_circuits import PAIR_GATES, pairs_of_gate, write_pair
from qcomp.passes.synthesize.two_qubit import ConsolidateTwoQubit
from qcomp.passes.synthesize.weyl import weyl
from qcomp.passmanager import Context
from tests.ir.dense import dense

Matrices = NDArray[np.complex128]


def haar(count: int, seed: int = 0) -> Matrices:
    """Random unitaries on two qubits."""
    rng = np.random.default_rng(seed)
    plain = rng.normal(size=(count, 4, 4)) + 1j * rng.normal(size=(count, 4, 4))
    q, r = np.linalg.qr(plain)
    phases = np.einsum("nii->ni", r)
    return q * (phases / np.abs(phases))[:, None, :]


def interaction(x: float, y: float, z: float) -> Matrices:
    product = np.eye(4, dtype=complex)
    for name, angle in (("rxx", x), ("ryy", y), ("rzz", z)):
        product = gate(name).matrix(-2 * angle) @ product
    return product


Q = np.pi / 4
CLASSES: dict[str, tuple[Matrices, dict[str, int]]] = {
    "identity": (np.eye(4, dtype=complex), {"cx": 0, "rzz": 0, "iswap": 0, "siswap": 0}),
    "cx": (gate("cx").matrix(), {"cx": 1, "rzz": 1, "iswap": 2, "siswap": 2}),
    "ecr": (gate("ecr").matrix(), {"cx": 1, "rzz": 1, "iswap": 2, "siswap": 2}),
    "rzz": (gate("rzz").matrix(0.3), {"cx": 2, "rzz": 1, "iswap": 2, "siswap": 2}),
    "xy": (gate("xy").matrix(0.3), {"cx": 2, "rzz": 2, "iswap": 2, "siswap": 2}),
    "root": (gate("siswap").matrix(), {"cx": 2, "rzz": 2, "iswap": 2, "siswap": 1}),
    "iswap": (gate("iswap").matrix(), {"cx": 2, "rzz": 2, "iswap": 1, "siswap": 2}),
    "plane": (interaction(0.4, 0.3, 0), {"cx": 2, "rzz": 2, "iswap": 2, "siswap": 2}),
    "wall": (interaction(0.4, 0.4, 0.1), {"cx": 3, "rzz": 3, "iswap": 3, "siswap": 3}),
    "edge": (interaction(0.5, 0.2, 0.2), {"cx": 3, "rzz": 3, "iswap": 3, "siswap": 2}),
    "swap": (gate("swap").matrix(), {"cx": 3, "rzz": 3, "iswap": 3, "siswap": 3}),
    "corner": (interaction(Q, Q, 0.1), {"cx": 3, "rzz": 3, "iswap": 3, "siswap": 3}),
}
"""Unitary -> the fewest gates of each kind."""


@pytest.mark.parametrize("pair", PAIR_GATES)
def test_known_classes_take_the_fewest_gates(pair: str) -> None:
    locals_ = [
        np.kron(gate("u").matrix(0.3, 1.1, -0.4), gate("u").matrix(k, 0.7, 2.0)) for k in (1, 2)
    ]
    plain = np.array([matrix for matrix, _ in CLASSES.values()])
    for unitary in (plain, locals_[0] @ plain @ locals_[1]):
        point = weyl(unitary)
        made = write_pair(point, "sx", pair).around(point)
        assert made.count.tolist() == [count[pair] for _, count in CLASSES.values()]
        assert distance(made.unitary(), unitary) < 1e-13


def distance(made: Matrices, wanted: Matrices) -> float:
    """Largest Frobenius distance, phases apart."""
    overlap = np.einsum("nij,nij->n", made.conj(), wanted)
    apart = made * (overlap / np.abs(overlap))[:, None, None] - wanted
    return float(np.sqrt((np.abs(apart) ** 2).sum(axis=(1, 2))).max())


@pytest.mark.parametrize("pair", PAIR_GATES)
@pytest.mark.parametrize("middle", ["h", "sx", "turn"])
def test_random_unitaries_take_three_gates_to_rounding(pair: str, middle: str) -> None:
    unitary = haar(400)
    point = weyl(unitary)
    made = write_pair(point, middle, pair).around(point)
    assert distance(made.unitary(), unitary) < 5e-13
    assert made.count.max() == 3
    if pair != "siswap":
        assert made.count.min() == 3


def test_two_roots_of_iswap_make_79_percent_of_random_unitaries() -> None:
    # Huang et al. 2021 (arXiv:2105.06074): 79 % by Haar measure.
    point = weyl(haar(4000, seed=7))
    share = (write_pair(point, "sx", "siswap").count == 2).mean()
    assert abs(share - 0.79) < 0.02


def test_prices_of_gates_are_what_generic_angles_take() -> None:
    rzz = pairs_of_gate("rzz")
    assert [rzz[gate(name).code] for name in ("cx", "rzz", "cp", "iswap", "swap")] == [
        1,
        1,
        1,
        2,
        3,
    ]
    iswap = pairs_of_gate("iswap")
    assert [iswap[gate(name).code] for name in ("cx", "rzz", "iswap", "swap")] == [2, 2, 1, 3]


def random_blocks(seed: int) -> Circuit:
    """Four qubits, cx and u gates at random."""
    rng = np.random.default_rng(seed)
    circuit = Circuit(4)
    for _ in range(14):
        a, b = (int(q) for q in rng.permutation(4)[:2])
        for _ in range(int(rng.integers(1, 4))):
            circuit.cx(a, b)
            circuit.u(*rng.normal(size=3).tolist(), a).u(*rng.normal(size=3).tolist(), b)
    return circuit


NATIVE = {
    "ecr": ("cx", ("ecr", "rz", "sx", "x"), ()),
    "ms": ("rzz", ("gpi", "gpi2", "ms"), ("ms",)),
    "zz": ("rzz", ("r", "rz", "rzz"), ()),
    "fractional": ("rzz", ("rz", "sx", "x", "rzz"), ("rzz",)),
    "iswap": ("iswap", ("rx", "rz", "iswap"), ("rx",)),
    "siswap": ("siswap", ("rz", "sx", "siswap"), ()),
}


@pytest.mark.parametrize("machine", NATIVE)
def test_blocks_take_at_most_three_native_gates(machine: str) -> None:
    pair, gates, limits = NATIVE[machine]
    for seed in range(3):
        circuit = random_blocks(seed)
        blocks = ConsolidateTwoQubit(basis="rz-sx-x").run(circuit, Context()).stats().two_qubit
        made = ConsolidateTwoQubit(basis="rz-sx-x", pair=pair).run(circuit, Context())
        after = ToBasis(gates=gates, limits=limits).run(made, Context())
        assert np.abs(dense(circuit) - dense(after)).max() < 1e-11
        # A single cx is no block: two iswaps each, else as many gates as over cx or fewer.
        assert after.stats().two_qubit <= blocks * (2 if "iswap" in pair else 1)


def test_an_interaction_between_cx_gates_is_one_rzz() -> None:
    circuit = Circuit(2).cx(0, 1).rz(0.3, 1).cx(0, 1)
    made = ConsolidateTwoQubit(basis="rz-sx-x", pair="rzz").run(circuit, Context())
    assert made.stats().two_qubit == 1
    assert np.abs(dense(circuit) - dense(made)).max() < 1e-14


def test_a_gate_that_blocks_are_not_written_in_is_an_error() -> None:
    with pytest.raises(UsageError, match="blocks are not written in 'cy'"):
        ConsolidateTwoQubit(pair="cy").run(Circuit(2), Context())
