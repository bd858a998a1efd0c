"""Chains of one-qubit gates in each machine's cheapest form."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qcomp.ir.angle import PI
from qcomp.ir.gates import gate
from qcomp.passes.reduce.euler import Basis, Spelling

MOST = {"rz-r": 2, "rz-gpi-gpi2": 3, "r": 2, "gpi-gpi2": 3, "rz-sx-x": 5, "u": 1}
"""Most gates of a spelling."""


def matrices(seed: int, count: int = 200) -> NDArray[np.complex128]:
    """Random unitaries, and every product of named turns and half turns."""
    rng = np.random.default_rng(seed)
    plain = rng.normal(size=(count, 2, 2)) + 1j * rng.normal(size=(count, 2, 2))
    random, _ = np.linalg.qr(plain)
    turns = [gate("rz").matrix(k * np.pi / 4) for k in range(8)]
    middles = [gate(name).matrix() for name in ("id", "h", "x", "sx", "y")]
    named = np.array([a @ m @ b for a in turns for m in middles for b in turns])
    mixed = [gate("rz").matrix(0.3) @ m @ gate("rz").matrix(-1.1) for m in middles]
    return np.concatenate([random, named, np.array(mixed)])


def whole(spelling: Spelling) -> NDArray[np.complex128]:
    phase = spelling.phase_frac * (np.pi / PI) + spelling.phase_rem
    return spelling.product * np.exp(1j * phase)[:, None, None]


@pytest.mark.parametrize("basis", MOST)
def test_every_unitary_has_a_spelling_of_few_gates(basis: str) -> None:
    unitary = matrices(3)
    spelling = Basis.parse(basis).spell(unitary)
    assert np.abs(whole(spelling) - unitary).max() < 1e-12
    assert spelling.length.max() <= MOST[basis]


@pytest.mark.parametrize("basis", ["rz-gpi-gpi2", "rz-sx-x", "rz-r"])
def test_pulses_are_one_for_quarter_and_half_turns_and_none_for_turns_about_z(basis: str) -> None:
    left, right = gate("rz").matrix(0.4), gate("rz").matrix(-1.3)
    cases = {"id": 0, "z": 0, "h": 1, "sx": 1, "x": 1, "y": 1}
    unitary = np.array([left @ gate(name).matrix() @ right for name in cases])
    spelling = Basis.parse(basis).spell(unitary)
    pulses = ((spelling.code >= 0) & (spelling.code != gate("rz").code)).sum(axis=1)
    assert pulses.tolist() == list(cases.values())


def test_exact_fractions_of_pi_stay_exact() -> None:
    unitary = np.array([gate("h").matrix(), gate("s").matrix() @ gate("h").matrix()])
    for basis in ("rz-r", "rz-gpi-gpi2", "r", "gpi-gpi2"):
        assert not Basis.parse(basis).spell(unitary).rem.any(), basis
